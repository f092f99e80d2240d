//! Taking messages: the consumer, and the walk through a queue. How they are acknowledged is in `acks`.
//!
//! Called through the enums of the same names one module up. Each consumer and each walk has a channel to itself, because closing a channel is
//! what puts unsettled messages back in place (a cancelled consumer's messages come back behind later ones, measured).

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use lapin::{
    Channel,
    options::{BasicConsumeOptions, BasicGetOptions, BasicQosOptions},
    protocol::AMQPSoftError,
    types::{FieldTable, ShortString},
};
use tokio::time::timeout;

use super::{
    acks::{Acks, Receipt, Sender},
    error,
    session::Session,
};
use crate::broker::{self, BrokerError, Delivery, Message};

/// Longest closing a channel may take; after that the session is ended, which puts the messages back as well.
const CLOSE: Duration = Duration::from_secs(2);

/// A consumer on a channel of its own.
pub struct Consumer {
    session: Arc<Session>,
    channel: Channel,
    /// `None` once it has ended: lapin's stream would be pending for ever.
    stream: Option<lapin::Consumer>,
    acks: Sender,
    queue: String,
}

impl Consumer {
    /// Registers a consumer. Prefetch comes first: without it lapin would buffer the whole queue.
    pub(super) async fn open(session: Arc<Session>, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        let name = queue_name(queue)?;
        let channel = session.channel().await?;
        let qos = channel.basic_qos(prefetch, BasicQosOptions { global: false });
        session.bounded("basic.qos", qos).await?.map_err(|error| error::unavailable(&error))?;
        let consume = channel.basic_consume(name, "".into(), BasicConsumeOptions::default(), FieldTable::default());
        let stream = session.bounded("basic.consume", consume).await?.map_err(|error| match error::soft(&error) {
            Some(AMQPSoftError::NOTFOUND) => {
                // The next session declares it again.
                session.end();
                error::unavailable(&error)
            }
            _ => refused(&error, queue),
        })?;
        let acks = Acks::start(channel.clone(), prefetch, session.end_token());
        Ok(Consumer { session, channel, stream: Some(stream), acks, queue: queue.to_owned() })
    }

    /// Returns the next delivery, or `None` once the consumer has ended, for whatever reason. That ends the session too:
    /// nobody can tell from here whether the queue, the channel or the connection is at fault.
    pub async fn next(&mut self) -> Option<Delivery> {
        let stream = self.stream.as_mut()?;
        let item = tokio::select! {
            biased;
            () = self.session.ended() => None,
            item = stream.next() => item,
        };
        match item {
            Some(Ok(delivery)) => {
                let receipt = self.acks.taken(delivery.delivery_tag, delivery.acker.clone());
                return Some(taken(delivery, &self.queue, receipt));
            }
            Some(Err(error)) => tracing::debug!(queue = self.queue, why = error::words(&error), "consumer ended"),
            None => tracing::debug!(queue = self.queue, "consumer ended"),
        }
        self.stream = None;
        self.session.end();
        None
    }

    /// Closes the channel, so that everything unsettled goes back to its place in the queue.
    pub async fn close(self) {
        self.acks.end().await;
        close(&self.channel, &self.session).await;
    }
}

/// A look through a queue on a channel of its own.
pub struct Walk {
    session: Arc<Session>,
    channel: Channel,
    queue: String,
    name: ShortString,
}

impl Walk {
    pub(super) async fn open(session: Arc<Session>, queue: &str) -> Result<Walk, BrokerError> {
        let name = queue_name(queue)?;
        let channel = session.channel().await?;
        Ok(Walk { session, channel, queue: queue.to_owned(), name })
    }

    /// Takes the message at the head, or `None` when the queue is empty.
    pub async fn next(&mut self) -> Result<Option<Delivery>, BrokerError> {
        let get = self.channel.basic_get(self.name.clone(), BasicGetOptions { no_ack: false });
        let got = self.session.bounded("basic.get", get).await?.map_err(|error| refused(&error, &self.queue))?;
        Ok(got.map(|got| {
            let receipt = Receipt::alone(got.delivery.acker.clone());
            taken(got.delivery, &self.queue, receipt)
        }))
    }

    /// Closes the channel; what was taken and not settled goes back to the head of the queue, in no particular order.
    pub async fn close(self) {
        close(&self.channel, &self.session).await;
    }
}

async fn close(channel: &Channel, session: &Session) {
    if !channel.status().connected() {
        return;
    }
    if timeout(CLOSE, channel.close(200, "".into())).await.is_err() {
        session.end();
    }
}

fn taken(delivery: lapin::message::Delivery, queue: &str, receipt: Receipt) -> Delivery {
    Delivery {
        message: Message { body: delivery.data.into(), properties: delivery.properties },
        exchange: delivery.exchange.into(),
        routing_key: delivery.routing_key.into(),
        queue: queue.to_owned(),
        redelivered: delivery.redelivered,
        receipt: broker::Receipt::Amqp(receipt),
    }
}

/// Returns what a refused operation on `queue` means: a missing queue or permission is for somebody to change.
pub(super) fn refused(error: &lapin::Error, queue: &str) -> BrokerError {
    match error::soft(error) {
        Some(AMQPSoftError::NOTFOUND) => BrokerError::Config(format!("queue `{queue}` does not exist")),
        Some(AMQPSoftError::ACCESSREFUSED) => {
            BrokerError::Config(format!("queue `{queue}` may not be read: {}", error::words(error)))
        }
        _ => error::unavailable(error),
    }
}

pub(super) fn queue_name(queue: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(queue).map_err(|_| BrokerError::Config("a queue's name has at most 255 bytes".to_owned()))
}
