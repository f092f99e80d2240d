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

use super::{error, session::Session};
use crate::{
    broker::{BrokerError, Destination, Message, headers},
    domain::redact,
};

/// Most messages in flight on one connection.
const IN_FLIGHT: usize = 256;
/// Longest wait for a turn, and for a confirm.
const CONFIRM: Duration = Duration::from_secs(30);

/// Channels in confirm mode, opened as they are needed and kept for the next message.
pub(super) struct Channels {
    idle: Mutex<Vec<Channel>>,
    turns: Semaphore,
}

impl Default for Channels {
    fn default() -> Self {
        Channels { idle: Mutex::default(), turns: Semaphore::new(IN_FLIGHT) }
    }
}

/// Publishes one message and returns once the broker has confirmed it.
pub(super) async fn publish(session: &Session, to: &Destination, message: Message) -> Result<(), BrokerError> {
    let (exchange, routing_key) = match to {
        Destination::Queue(queue) => ("", queue.as_str()),
        Destination::Exchange { exchange, routing_key } => (exchange.as_str(), routing_key.as_str()),
    };
    let exchange = short(exchange, "exchange")?;
    let routing_key = short(routing_key, "routing key")?;
    let message = message.persistent();
    let header_bytes = headers::properties_len(&message.properties);
    if header_bytes > session.frame_max() {
        return Err(BrokerError::Refused(format!("{header_bytes} bytes of properties do not fit into one frame")));
    }

    let turn = timeout(CONFIRM, session.channels.turns.acquire()).await;
    let Ok(Ok(_turn)) = turn else {
        return Err(BrokerError::Unavailable(no_confirm(session)));
    };
    let channel = idle_channel(session).await?;
    let confirmed = async {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        channel.basic_publish(exchange, routing_key, options, &message.body, message.properties).await?.await
    };
    let confirmed = tokio::select! {
        biased;
        confirmed = timeout(CONFIRM, confirmed) => confirmed,
        () = session.ended() => return Err(BrokerError::Unavailable("the connection ended before the confirm".to_owned())),
    };
    // Only a channel whose message is settled may serve the next; any other is dropped, which closes it.
    match confirmed {
        Ok(Ok(confirmation)) => {
            give_back(session, channel);
            verdict(confirmation)
        }
        Ok(Err(problem)) => Err(channel_error(&problem, session)),
        Err(_) => Err(BrokerError::Unavailable(no_confirm(session))),
    }
}

fn verdict(confirmation: Confirmation) -> Result<(), BrokerError> {
    match confirmation {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
            let (exchange, key) = (returned.exchange.as_str(), returned.routing_key.as_str());
            let words = redact(returned.reply_text.as_str());
            Err(BrokerError::Refused(match exchange {
                "" => format!("{words}: no queue `{key}`"),
                _ => format!("{words}: no queue is bound to exchange `{exchange}` for `{key}`"),
            }))
        }
        Confirmation::Nack(None) => Err(BrokerError::Unavailable("the broker did not take the message".to_owned())),
        Confirmation::NotRequested => Err(BrokerError::Unavailable("the channel does not confirm".to_owned())),
    }
}

fn channel_error(problem: &lapin::Error, session: &Session) -> BrokerError {
    let words = error::words(problem);
    match error::soft(problem) {
        Some(AMQPSoftError::ACCESSREFUSED) => BrokerError::Config(format!("publishing is not permitted: {words}")),
        Some(AMQPSoftError::RESOURCELOCKED) | None => {
            if !session.stands() {
                tracing::debug!(words, "the connection ended under a publish");
            }
            BrokerError::Unavailable(words)
        }
        Some(_) => BrokerError::Refused(words),
    }
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
