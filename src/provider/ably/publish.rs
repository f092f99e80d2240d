//! Publish: one message by the endpoint that drops repeats, or a hundred in one batch.
//!
//! Called by the client's coalescer. A batch is never repeated once it has been sent: nobody knows whether Ably drops
//! repeated ids inside one.

use std::time::Instant;

use bytes::Bytes;

use crate::{
    domain::outcome::{Failure, FailureKind, Refusal},
    provider::{
        http::{Reply, excerpt},
        parts::{Part, halves, in_parts},
    },
};

use super::{
    Publish, Shared,
    classify::{Scope, item_fault},
    transport::{Call, Repeat},
    wire,
};

/// A message with its JSON, made once.
#[derive(Debug, Clone)]
pub(super) struct Message {
    channel: String,
    id: String,
    message: Bytes,
    spec: String,
    until: Option<Instant>,
}

impl Message {
    /// Prepares a message.
    pub(super) fn new(publish: Publish) -> Message {
        let message = wire::message(&publish);
        let spec = wire::spec(&publish, &message);
        Message { channel: publish.channel, id: publish.id, message: message.into(), spec, until: publish.until }
    }

    /// What the message adds to a batch, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.spec.len() + 1
    }
}

/// Publishes gathered messages and returns one answer each, in order, through the gate.
pub(super) async fn publish(shared: &Shared, messages: Vec<Message>) -> Vec<Result<String, Refusal>> {
    let messages = &messages;
    let until: Vec<_> = messages.iter().map(|message| message.until).collect();
    in_parts(&shared.gate, &until, |part| async move {
        match part.as_slice() {
            [position] => single(shared, &messages[*position]).await.map(|answer| Part::Answers(vec![answer])),
            many => batch(shared, messages, many).await,
        }
    })
    .await
}

/// Publishes one message. The outer failure tells of the provider, the inner one of this message.
pub(super) async fn single(shared: &Shared, message: &Message) -> Result<Result<String, Failure>, Failure> {
    let target = format!("/channels/{}/messages", wire::component(&message.channel));
    let call = Call {
        endpoint: "publish",
        target,
        body: Some(message.message.clone()),
        repeat: Repeat::Safe,
        until: message.until,
    };
    match shared.transport.call(&call).await {
        Ok(reply) => match wire::published(&reply) {
            Some(id) => Ok(Ok(id.unwrap_or_else(|| message.id.clone()))),
            None => Err(unreadable(&reply)),
        },
        Err(fault) if fault.scope == Scope::Item => Ok(Err(fault.failure)),
        Err(fault) => Err(fault.failure),
    }
}

async fn batch(shared: &Shared, messages: &[Message], part: &[usize]) -> Result<Part<String>, Failure> {
    shared.transport.carries("batch_publish", part.len());
    // One spec per message: each its own id and result; messages of one channel keep their order.
    let specs: Vec<&str> = part.iter().map(|position| messages[*position].spec.as_str()).collect();
    let body = Bytes::from(format!("[{}]", specs.join(",")));
    let call = Call {
        endpoint: "batch_publish",
        target: "/messages".to_owned(),
        body: Some(body),
        repeat: Repeat::Never,
        until: part.iter().filter_map(|position| messages[*position].until).min(),
    };
    let reply = match shared.transport.call(&call).await {
        Ok(reply) => reply,
        Err(fault) => {
            return match (fault.scope, fault.failure.kind) {
                // Refused as a whole for one message's sake, or for too much at once.
                (Scope::Item, FailureKind::Rejected) => Ok(Part::Split(halves(part))),
                (Scope::Item, _) => Ok(Part::Answers(part.iter().map(|_| Err(fault.failure.clone())).collect())),
                // A server's error says nothing about the messages it had already taken.
                (Scope::Provider, FailureKind::Transient)
                    if fault.failure.status.is_some_and(|status| status >= 500) =>
                {
                    Err(Failure { kind: FailureKind::Unknown, ..fault.failure })
                }
                (Scope::Provider, _) => Err(fault.failure),
            };
        }
    };
    let sent: Vec<&Message> = part.iter().map(|position| &messages[*position]).collect();
    answers(&reply, &sent).map(Part::Answers)
}

/// Reads what a batch says of each message. Results that are not those of the channels sent to, in their order, are nobody's.
pub(super) fn answers(reply: &Reply, sent: &[&Message]) -> Result<Vec<Result<String, Failure>>, Failure> {
    let fits = |(result, message): (&wire::ItemResult, &&Message)| {
        result.channel.is_empty() || result.channel == message.channel
    };
    let results = wire::results(reply)
        .filter(|results| results.len() == sent.len() && results.iter().zip(sent).all(fits))
        .ok_or_else(|| unreadable(reply))?;
    let answers = sent.iter().zip(results).map(|(message, result)| match result.error {
        None => Ok(result.message_id.unwrap_or_else(|| message.id.clone())),
        Some(error) => Err(item_fault(error).failure),
    });
    Ok(answers.collect())
}

/// A success that does not say what succeeded: it may have been Ably's.
fn unreadable(reply: &Reply) -> Failure {
    let detail = format!("not an answer of Ably's publish: {}", excerpt(&reply.body));
    Failure::new(FailureKind::Unknown, "unreadable", detail).with_status(reply.status)
}
