//! Copies of a delivery: what they carry on, and their way into a retry, hold or dead-letter queue.
//!
//! Called by `settle`, before the row and the acknowledgement. Never says that a copy exists before the broker has confirmed it.

use std::time::Duration;

use opentelemetry::trace::SpanKind;

use super::{Interrupted, Received, Worker, clock, letters::index_letter};
use crate::{
    broker::{Broker, BrokerError, Destination, Message, marks::Marks},
    domain::{
        judge::{Disposition, missing},
        ledger::{Entry, Letter, State},
        outcome::HoldCause,
    },
    trace::{Span, parent},
};

/// Tries to publish a copy while the delivery can still be acknowledged.
const COPY_TRIES: u32 = 3;

/// The queue a copy goes to, why, and what that means for this event.
type Copy = (String, String, String);

impl<B: Broker> Worker<B> {
    /// Returns the copy that an event travels on as; `None`: it has ended where it is.
    pub(super) fn copy_of(&self, disposition: &Disposition) -> Option<Copy> {
        match disposition {
            Disposition::Done(_) | Disposition::Skip { .. } => None,
            Disposition::Retry { delay, reason, .. } => {
                Some((self.topology.retry(*delay), "retry".to_owned(), reason.clone()))
            }
            Disposition::Hold { provider, cause } => {
                let (reason, detail) =
                    (format!("held:{}", cause.as_str()), format!("{provider} is {}", describe(*cause)));
                Some((self.topology.hold(*provider), reason, detail))
            }
            Disposition::Dead { reason, detail, .. } => {
                Some((self.topology.dead(), reason.as_str().to_owned(), detail.clone()))
            }
        }
    }

    /// Publishes the copy that an event travels on as; returns the letter, when it is a dead one.
    pub(super) async fn copy_on(
        &self,
        span: &Span,
        received: &Received,
        entry: &mut Entry,
        (queue, reason, error): Copy,
    ) -> Result<Option<Box<Letter>>, Interrupted> {
        let marks = Marks {
            id: Some(entry.event_id.clone()),
            attempt: entry.attempt,
            replay: entry.replay,
            reason: Some(reason),
            error: Some(error),
            route: Some(missing(&entry.targets).join(",")).filter(|route| !route.is_empty()),
            ..received.marks_for_copy()
        };
        let message = received.copy(&marks);
        let letter = (entry.state == State::Dead).then(|| Box::new(index_letter(&message, &marks, Some(entry))));
        span.run(self.publish_copy(received, &queue, message)).await?;
        entry.queue = (entry.state == State::Waiting).then_some(queue);
        Ok(letter)
    }

    /// Publishes a copy and returns once it is confirmed.
    pub(super) async fn publish_copy(
        &self,
        received: &Received,
        queue: &str,
        message: Message,
    ) -> Result<(), Interrupted> {
        let span = Span::call(SpanKind::Producer, || format!("publish {queue}"));
        span.publishes(queue);
        let destination = Destination::Queue(queue.to_owned());
        for tried in 1..=COPY_TRIES {
            match self.broker.publish(&destination, message.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) if tried == COPY_TRIES || !received.delivery.receipt.usable() => {
                    tracing::warn!(event.id = received.id(), queue, %error, "the copy was not confirmed; the event comes again");
                }
                Err(BrokerError::Unavailable(_)) => {}
                Err(error) => {
                    tracing::warn!(event.id = received.id(), queue, %error, "the copy was refused; trying again")
                }
            }
            if !received.delivery.receipt.usable() {
                span.failed(|| "channel_ended");
                return Err(Interrupted::ChannelEnded);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // Unacknowledged as it is, it would stay in hand: a new channel brings it back.
        span.failed(|| "not_confirmed");
        self.state.reopen.send_replace(());
        Err(Interrupted::ChannelEnded)
    }
}

impl Received {
    /// Returns the marks every copy of this delivery carries on.
    pub(super) fn marks_for_copy(&self) -> Marks {
        let marks = self.marks.clone();
        Marks {
            first_seen: marks.first_seen.or(Some(self.at)),
            failed_at: Some(clock::now()),
            queue: Some(self.delivery.queue.clone()),
            exchange: marks.exchange.clone().or_else(|| Some(self.delivery.exchange.clone())),
            routing_key: marks.routing_key.clone().or_else(|| Some(self.delivery.routing_key.clone())),
            ..marks
        }
    }

    /// Returns why this delivery is a copy and no longer at its place among its session's events; `None` when it is none.
    pub(super) fn copied_because(&self) -> Option<String> {
        let marks = &self.marks;
        let replayed = (marks.replay > 0).then(|| "replay".to_owned());
        if marks.is_empty() { None } else { marks.reason.clone().or(replayed).or_else(|| Some("copy".to_owned())) }
    }

    /// Returns a copy of the message with `marks`.
    pub(super) fn copy(&self, marks: &Marks) -> Message {
        let mut copied = self.delivery.message.copy();
        let mut marks = marks.clone();
        if let Some(bytes) = copied.dropped_headers {
            let error = marks.error.unwrap_or_default();
            marks.error =
                Some(format!("{error} (the message's own headers, {bytes} bytes, were too large to travel on)"));
        }
        marks.write(&mut copied.message);
        parent::write(&mut copied.message);
        copied.message
    }
}

fn describe(cause: HoldCause) -> &'static str {
    match cause {
        HoldCause::Throttled => "asking for less",
        HoldCause::Unauthorised => "refusing our credentials",
        HoldCause::Breaker => "down",
        HoldCause::Operator => "held by an operator",
        HoldCause::Backlog => "busy: too many events wait for it here",
    }
}
