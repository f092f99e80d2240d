//! What a trace tells of an event: one span for its handling, and what each stop found out.
//!
//! Called by the stops. The names with dots are OpenTelemetry's messaging conventions where there is one, and `herald.*`
//! otherwise; `docs/traces.md` lists them. Ids, counts and words of our own only: no payload, no push token, no text of a provider's.

use std::{collections::BTreeMap, time::SystemTime};

use opentelemetry::{
    KeyValue,
    trace::{SpanBuilder, SpanKind},
};

use super::{Interrupted, Received, gather::Claimed};
use crate::{
    broker::Delivery,
    domain::{
        judge::{Disposition, provider_of},
        ledger::{Entry, State, TargetKey},
        outcome::{Failure, Outcome},
        routing::{Decision, Presence, Recipient},
    },
    trace::{self, Span, parent},
};

impl Received {
    /// Runs the handling of this delivery as a span of the trace that its message belongs to. It begins with the receipt, and
    /// exists only once the event's turn has come: what is merely prefetched has no span.
    pub(super) async fn traced<F: Future>(&self, handling: F) -> F::Output {
        let at = SystemTime::from(self.at);
        let event = Span::of_event(parent::read(&self.delivery.message), || self.span().with_start_time(at));
        if event.recorded() {
            self.happened(&event, at);
        }
        event.run(handling).await
    }

    /// Tells what has happened when the event's turn comes: it was received, read, and waited in the lane.
    fn happened(&self, event: &Span, at: SystemTime) {
        let receive = event.past("receive", at);
        let decode = receive.past("decode", at);
        if let Err(malformed) = &self.event {
            decode.note("herald.field", || malformed.field);
            decode.failed(|| "malformed");
        }
        let now = SystemTime::now();
        decode.end(now.checked_sub(self.entered.elapsed()).unwrap_or(now).max(at));
        receive.end(now.max(at));
    }

    fn span(&self) -> SpanBuilder {
        let Delivery { message, exchange, queue, routing_key, redelivered, .. } = &self.delivery;
        let properties = &message.properties;
        let mut attributes = vec![
            KeyValue::new("messaging.system", "rabbitmq"),
            KeyValue::new("messaging.operation.name", "process"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.destination.name", destination(exchange, routing_key, queue)),
            KeyValue::new("messaging.rabbitmq.destination.routing_key", routing_key.clone()),
            KeyValue::new("herald.event.id", self.id().to_owned()),
            KeyValue::new("herald.redelivered", *redelivered),
        ];
        if self.marks.replay > 0 {
            attributes.push(KeyValue::new("herald.replay", i64::from(self.marks.replay)));
        }
        let mut add = |key: &'static str, value: Option<&str>| {
            attributes.extend(value.map(|value| KeyValue::new(key, value.to_owned())));
        };
        add("messaging.message.id", properties.message_id().as_ref().map(|id| id.as_str()));
        add("messaging.message.conversation_id", properties.correlation_id().as_ref().map(|id| id.as_str()));
        if let Ok(event) = &self.event {
            add("herald.event.name", Some(&event.name));
            add("herald.session.id", Some(&event.session_id));
            add("herald.user.id", event.partner_id.as_deref());
        }
        SpanBuilder::from_name(format!("process {queue}")).with_kind(SpanKind::Consumer).with_attributes(attributes)
    }
}

/// Returns where a delivery came by, as the conventions write it for RabbitMQ: exchange, routing key and queue, without what is
/// empty; a routing key that is the queue's name is not said twice.
fn destination(exchange: &str, routing_key: &str, queue: &str) -> String {
    let key = if routing_key == queue { "" } else { routing_key };
    let parts: Vec<&str> = [exchange, key, queue].into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(":")
}

/// Tells on the event's span how it was settled.
pub(super) fn settled(state: &'static str, reason: &str) {
    trace::note_event("herald.state", || state);
    if !reason.is_empty() {
        trace::note_event("herald.reason", || reason.to_owned());
    }
}

/// Tells on the event's span what its row says.
pub(super) fn recorded(entry: &Entry) {
    trace::note_event("herald.attempt", || i64::from(entry.attempt));
    if let Some(route) = &entry.route {
        trace::note_event("herald.route", || route.clone());
    }
    if let (State::Dead, Some(reason)) = (entry.state, &entry.reason) {
        trace::event_failed(|| reason.clone());
    }
}

/// Tells on the event's span that it was left with the broker.
pub(super) fn interrupted(interrupted: &Interrupted) {
    let reason = match interrupted {
        Interrupted::DatabaseAway => "database_away",
        Interrupted::ChannelEnded => "channel_ended",
    };
    settled("interrupted", reason);
}

impl Span {
    /// Tells what the ledger answered.
    pub(super) fn claimed(&self, claimed: &Result<Claimed, Interrupted>) {
        match claimed {
            Ok(Claimed::Entry(_)) => self.note("herald.claim", || "granted"),
            Ok(Claimed::Elsewhere) => self.note("herald.claim", || "elsewhere"),
            Ok(Claimed::Stale(_)) => self.note("herald.claim", || "stale"),
            Ok(Claimed::Repeat(_)) => self.note("herald.claim", || "repeat"),
            Ok(Claimed::Refused(_)) => self.failed(|| "ledger_refused"),
            Err(_) => self.failed(|| "database_away"),
        }
    }

    /// Tells whether the recipient is present, and ends.
    pub(super) fn present(self, presence: &Presence, name: &'static str) {
        self.note("herald.presence", || name);
        match presence {
            Presence::Present { members } => self.note("herald.presence.members", || i64::from(*members)),
            Presence::Unknown(failure) => self.failure(failure),
            Presence::Absent | Presence::NotAsked => {}
        }
    }

    /// Tells what is known of the recipient, and ends.
    pub(super) fn found(self, recipient: &Recipient) {
        match recipient {
            Recipient::Tokens { usable, invalid } => {
                let count = |tokens: &usize| i64::try_from(*tokens).unwrap_or(i64::MAX);
                self.note("herald.tokens.usable", || count(usable));
                self.note("herald.tokens.invalid", || count(invalid));
            }
            Recipient::NoUser => self.note("herald.recipient", || "no_user"),
            Recipient::OptedOut => self.note("herald.recipient", || "opted_out"),
            Recipient::NoDatabase | Recipient::NotAsked => {}
        }
    }

    /// Tells what was decided, and ends.
    pub(super) fn routed(self, decision: &Decision) {
        self.note("herald.route", || match decision {
            Decision::Send { via, .. } => via.as_str(),
            Decision::Skip { .. } => "skip",
            Decision::AskAgain { .. } => "ask_again",
        });
        if let Decision::Skip { reason, .. } = decision {
            self.note("herald.reason", || reason.as_str());
        }
    }

    /// Tells what was judged of `outcomes`, and ends.
    pub(super) fn judged(self, disposition: &Disposition, outcomes: &BTreeMap<TargetKey, Outcome>) {
        self.note("herald.disposition", || match disposition {
            Disposition::Done(_) => "done",
            Disposition::Skip { .. } => "skip",
            Disposition::Retry { .. } => "retry",
            Disposition::Hold { .. } => "hold",
            Disposition::Dead { .. } => "dead",
        });
        if let Disposition::Retry { .. } = disposition {
            let failure = outcomes.values().find_map(|outcome| match outcome {
                Outcome::Failed(failure) => Some(failure.kind.as_str()),
                Outcome::Accepted { .. } | Outcome::Held(_) => None,
            });
            trace::event_failed(|| failure.unwrap_or("not_tried"));
        }
    }

    /// Tells what came of a send, and ends. A push target goes by its hash.
    pub(super) fn sent(self, target: &TargetKey, outcome: &Outcome) {
        self.note("herald.target", || target.clone());
        self.note("herald.provider", || provider_of(target).as_str());
        match outcome {
            Outcome::Accepted { provider_id: Some(id) } => self.note("herald.provider.id", || id.clone()),
            Outcome::Accepted { provider_id: None } => {}
            Outcome::Failed(failure) => self.failure(failure),
            Outcome::Held(cause) => self.note("herald.held", || cause.as_str()),
        }
    }

    /// Tells where a copy goes, as the conventions want it of a producer.
    pub(super) fn publishes(&self, queue: &str) {
        self.note("messaging.system", || "rabbitmq");
        self.note("messaging.operation.name", || "publish");
        self.note("messaging.operation.type", || "send");
        self.note("messaging.destination.name", || queue.to_owned());
    }

    /// Tells of a failure what has few values.
    fn failure(&self, failure: &Failure) {
        self.failed(|| failure.kind.as_str());
        if let Some(status) = failure.status {
            self.note("http.response.status_code", || i64::from(status));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_says_each_name_once() {
        for (exchange, routing_key, expected) in [
            ("herald.events", "partner.advanced", "herald.events:partner.advanced:herald.events"),
            ("", "herald.events", "herald.events"),
            ("herald.events", "", "herald.events:herald.events"),
        ] {
            assert_eq!(destination(exchange, routing_key, "herald.events"), expected);
        }
    }
}
