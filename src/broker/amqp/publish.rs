//! Publishing: mandatory, confirmed, many at once.
//!
//! Called by [`Amqp::publish`](super::Amqp). Each message has a channel to itself until it is confirmed. lapin pairs returned
//! messages with confirms by order of arrival, so with several in flight on one channel an unroutable message can
//! look delivered and its neighbour lost; and a channel error (a missing exchange, say) would take every neighbour along.
//! Must never report success for anything but a confirm without a returned message.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lapin::{
    Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    protocol::AMQPSoftError,
    types::ShortString,
};
use tokio::{sync::Semaphore, time::timeout};

use super::{error, meters, session::Session};
use crate::{
    broker::{BrokerError, Destination, Message, headers},
    domain::redact,
};

/// Most messages in flight on one connection; fewer where the broker allows fewer channels.
const IN_FLIGHT: usize = 256;
/// Channels of a connection left for everything but publishing.
const OTHER_CHANNELS: usize = 16;
/// Longest wait for a turn, and for a confirm.
const CONFIRM: Duration = Duration::from_secs(30);

/// Channels in confirm mode, opened as they are needed and kept for the next message.
pub(super) struct Channels {
    idle: Mutex<Vec<Channel>>,
    turns: Semaphore,
}

impl Channels {
    /// Makes room for as many as a connection with `channel_max` channels bears; 0 is no limit.
    pub(super) fn new(channel_max: u16) -> Channels {
        let allowed = match usize::from(channel_max) {
            0 => IN_FLIGHT,
            most => most.saturating_sub(OTHER_CHANNELS).clamp(1, IN_FLIGHT),
        };
        Channels { idle: Mutex::default(), turns: Semaphore::new(allowed) }
    }
}

/// Why a message was not published.
pub(super) enum Fault {
    /// It reached no queue.
    Unroutable(String),
    Broker(BrokerError),
}

impl From<BrokerError> for Fault {
    fn from(error: BrokerError) -> Self {
        Fault::Broker(error)
    }
}

impl From<Fault> for BrokerError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unroutable(why) => BrokerError::Refused(why),
            Fault::Broker(error) => error,
        }
    }
}

/// Publishes one message and returns once the broker has confirmed it.
pub(super) async fn publish(session: &Session, to: &Destination, message: &Message) -> Result<(), Fault> {
    let (exchange, routing_key) = match to {
        Destination::Queue(queue) => ("", queue.as_str()),
        Destination::Exchange { exchange, routing_key } => (exchange.as_str(), routing_key.as_str()),
    };
    let exchange = short(exchange, "exchange")?;
    let routing_key = short(routing_key, "routing key")?;
    let header_bytes = headers::properties_len(&message.properties);
    if header_bytes > session.frame_max() {
        return Err(too_large(header_bytes));
    }

    let turn = timeout(CONFIRM, session.channels.turns.acquire()).await;
    let Ok(Ok(_turn)) = turn else {
        return Err(BrokerError::Unavailable(no_confirm(session)).into());
    };
    let channel = idle_channel(session).await?;
    let confirmed = async {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = message.properties.clone();
        channel.basic_publish(exchange, routing_key, options, &message.body, properties).await?.await
    };
    let confirmed = tokio::select! {
        biased;
        confirmed = timeout(CONFIRM, confirmed) => confirmed,
        () = session.ended() => {
            return Err(BrokerError::Unavailable("the connection ended before the confirm".to_owned()).into());
        }
    };
    // Only a channel whose message is settled may serve the next; any other is dropped, which closes it.
    match confirmed {
        Ok(Ok(confirmation)) => {
            give_back(session, channel);
            verdict(confirmation)
        }
        Ok(Err(problem)) => Err(channel_error(&problem, session)),
        Err(_) => Err(BrokerError::Unavailable(no_confirm(session)).into()),
    }
}

fn verdict(confirmation: Confirmation) -> Result<(), Fault> {
    match confirmation {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
            let (exchange, key) = (returned.exchange.as_str(), returned.routing_key.as_str());
            let words = redact(returned.reply_text.as_str());
            Err(Fault::Unroutable(match exchange {
                "" => format!("{words}: no queue `{key}`"),
                _ => format!("{words}: no queue is bound to exchange `{exchange}` for `{key}`"),
            }))
        }
        Confirmation::Nack(None) => {
            Err(BrokerError::Unavailable("the broker did not take the message".to_owned()).into())
        }
        Confirmation::NotRequested => Err(BrokerError::Unavailable("the channel does not confirm".to_owned()).into()),
    }
}

fn channel_error(problem: &lapin::Error, session: &Session) -> Fault {
    let words = error::words(problem);
    match error::soft(problem) {
        Some(AMQPSoftError::NOTFOUND) => Fault::Unroutable(words),
        Some(AMQPSoftError::ACCESSREFUSED) => {
            meters::refused();
            BrokerError::Config(format!("publishing is not permitted: {words}")).into()
        }
        Some(AMQPSoftError::RESOURCELOCKED) | None => {
            if !session.stands() {
                tracing::debug!(words, "the connection ended under a publish");
            }
            BrokerError::Unavailable(words).into()
        }
        Some(_) => BrokerError::Refused(words).into(),
    }
}

fn too_large(header_bytes: usize) -> Fault {
    BrokerError::Refused(format!("{header_bytes} bytes of properties do not fit into one frame")).into()
}

fn no_confirm(session: &Session) -> String {
    let because = if session.blocked() { "; the broker blocks publishing (memory or disk alarm)" } else { "" };
    format!("no confirm within {} s{because}", CONFIRM.as_secs())
}

fn short(text: &str, what: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(text).map_err(|_| BrokerError::Refused(format!("{what} over 255 bytes")))
}

async fn idle_channel(session: &Session) -> Result<Channel, BrokerError> {
    loop {
        let idle = session.channels.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(channel) if channel.status().connected() => return Ok(channel),
            Some(_) => {}
            None => break,
        }
    }
    let channel = session.channel().await?;
    let confirms = channel.confirm_select(ConfirmSelectOptions::default());
    session.bounded("confirm.select", confirms).await?.map_err(|error| error::unavailable(&error))?;
    Ok(channel)
}

fn give_back(session: &Session, channel: Channel) {
    session.channels.idle.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
}
