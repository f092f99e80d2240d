//! The seventh stop: durable first, acknowledgement last.
//!
//! Called by `process` with a disposition. An ending is a ledger row and then the ack; a retry, hold or dead letter is a
//! confirmed copy, then the row, then the ack. Never acknowledges what it has not made durable: when a step cannot be
//! done, the delivery stays with the broker and comes again.

use std::{sync::Arc, time::Duration};

use metrics::Counter;

use super::{Interrupted, Received, Worker, clock, gather::Claimed, letters::index_letter, meters::Settled, spans};
use crate::{
    broker::{Broker, marks::Marks},
    domain::{
        event::{Malformed, unreadable_identity},
        judge::{Disposition, accepted_via},
        ledger::{Claim, DeadReason, Entry, State, Ticket},
        retry::next_delay,
    },
    store::{Record, StoreError},
    trace::{self, Span},
};

/// Pause between two tries to write an outcome while the ledger is away.
const LEDGER_PAUSE: Duration = Duration::from_millis(500);

impl<B: Broker> Worker<B> {
    /// Carries out a disposition.
    pub(super) async fn settle(
        &self,
        received: &Received,
        mut entry: Box<Entry>,
        tickets: Vec<Ticket>,
        disposition: Disposition,
    ) -> Result<(), Interrupted> {
        let span = Span::stop("settle");
        let now = clock::now_ms();
        // With the row as it was, which is needed when the copy cannot be made.
        let copy = self.copy_of(&disposition).map(|copy| (copy, entry.clone()));
        entry.updated_at = now;
        entry.next_at = None;
        entry.queue = None;
        entry.crashes = 0;
        if let Some(((_, reason, detail), _)) = &copy {
            (entry.reason, entry.detail) = (Some(reason.clone()), Some(detail.clone()));
        }
        match &disposition {
            Disposition::Done(via) => {
                entry.state = State::Done;
                entry.via = Some(*via);
                (entry.reason, entry.detail) = (None, None);
            }
            Disposition::Skip { reason, detail } => {
                entry.state = State::Skipped;
                (entry.reason, entry.detail) = (Some(reason.as_str().into()), Some(detail.clone()));
            }
            Disposition::Retry { delay, attempts, .. } => {
                entry.state = State::Waiting;
                entry.attempt = *attempts;
                entry.next_at = Some(now.saturating_add(delay.as_millis() as i64));
            }
            Disposition::Hold { provider, cause } => {
                entry.state = State::Waiting;
                metrics::counter!("herald_held_total", "provider" => provider.as_str(), "cause" => cause.as_str())
                    .increment(1);
            }
            Disposition::Dead { attempts, .. } => {
                entry.state = State::Dead;
                entry.attempt = *attempts;
                entry.via = accepted_via(&entry.targets);
            }
        }
        let mut letter = None;
        if let Some((copy, before)) = copy {
            // Boxed: most events have no copy, and the lane's task would be larger by all of it.
            match Box::pin(self.copy_on(&span, received, &mut entry, copy)).await {
                Ok(dead) => letter = dead,
                Err(interrupted) => {
                    // The copy does not exist: the row keeps its attempt, or the redelivery would be taken for stale.
                    let known = Entry { targets: entry.targets, attempts: entry.attempts, ..*before };
                    self.record(Record { entry: known, tickets, letter: None }).await;
                    return Err(interrupted);
                }
            }
        }
        entry.evidence.copied = entry.evidence.copied.or_else(|| received.copied_because());
        let settled = self.note_settled(received, Settled::of(&entry));
        self.report(received, &entry);
        self.record(Record { entry: *entry, tickets, letter }).await;
        self.ack(received, settled).await;
        Ok(())
    }

    /// Ends a message that cannot be read: dead, with the field that is wrong.
    pub(super) async fn settle_malformed(&self, received: &Received, malformed: &Malformed) -> Result<(), Interrupted> {
        let span = Span::stop("settle");
        let id = match received.id() {
            "unreadable" => format!("unreadable-{}", uuid::Uuid::new_v4()),
            id => crate::domain::bounded(&id.replace(|c: char| c.is_control(), " "), 255),
        };
        let marks = Marks {
            id: Some(id.clone()),
            reason: Some(DeadReason::Malformed.as_str().into()),
            error: Some(malformed.to_string()),
            ..received.marks_for_copy()
        };
        let message = received.copy(&marks);
        let mut entry = Entry::first(&Claim {
            identity: unreadable_identity(&id),
            event_id: id,
            session_id: String::new(),
            partner_id: None,
            event: String::new(),
            fingerprint: String::new(),
            attempt: marks.attempt,
            replay: marks.replay,
            first_seen: received.at.as_millisecond(),
            expires_at: received.at.as_millisecond(),
        });
        (entry.session_id, entry.event) = (None, None);
        entry.state = State::Dead;
        (entry.reason, entry.detail) = (marks.reason.clone(), marks.error.clone());
        let letter = Some(Box::new(index_letter(&message, &marks, None)));
        span.run(Box::pin(self.publish_copy(received, &self.topology.dead(), message))).await?;
        let settled = self.note_settled(received, Settled::of(&entry));
        self.report(received, &entry);
        self.record(Record { entry, tickets: Vec::new(), letter }).await;
        self.ack(received, settled).await;
        Ok(())
    }

    /// Sends a delivery that cannot be handled here and now to the first retry queue, its attempt unchanged.
    pub(super) async fn settle_elsewhere(&self, received: &Received, reason: &'static str) -> Result<(), Interrupted> {
        let span = Span::stop("settle");
        let id = Some(received.id().to_owned());
        let marks = Marks { id, reason: Some(reason.into()), ..received.marks_for_copy() };
        let queue = self.topology.retry(self.policy.schedule[0]);
        span.run(Box::pin(self.publish_copy(received, &queue, received.copy(&marks)))).await?;
        self.ack(received, self.note_settled(received, Settled::unrouted("postponed", reason))).await;
        Ok(())
    }

    /// Drops a delivery that has nothing left to do: a `repeat` of what was delivered before, or `stale`, as a newer copy waits in a queue.
    pub(super) async fn settle_needless(
        &self,
        received: &Received,
        entry: Box<Entry>,
        disposition: &'static str,
    ) -> Result<(), Interrupted> {
        let _span = Span::stop("settle");
        // Writing the row gives up the claim, which would turn a newer copy away from every other worker.
        self.record(Record { entry: *entry, tickets: Vec::new(), letter: None }).await;
        self.ack(received, self.note_settled(received, Settled::unrouted(disposition, ""))).await;
        Ok(())
    }

    /// Retries an event that cannot be handled for a fault on this side, with `reason`; after the whole schedule it is
    /// `dead`. The row says so, too, and gives the claim up, unless it is the row that is at fault.
    pub(super) async fn settle_unable(
        &self,
        received: &Received,
        reason: &'static str,
        dead: DeadReason,
        error: String,
    ) -> Result<(), Interrupted> {
        let attempts = received.marks.attempt + 1;
        let delay = next_delay(&self.policy.schedule, attempts, Duration::ZERO, Duration::MAX);
        if let Ok(event) = &received.event
            && let Claimed::Entry(entry) = self.claim(received, event, false).await?
        {
            let disposition = match delay {
                Ok(delay) => {
                    trace::event_failed(|| reason);
                    Disposition::Retry { delay, attempts, reason: error }
                }
                Err(_) => Disposition::Dead { reason: dead, attempts, detail: error },
            };
            return self.settle(received, entry, Vec::new(), disposition).await;
        }
        // Unreadable, or somebody else's by now: there is no row to write.
        let span = Span::stop("settle");
        trace::event_failed(|| reason);
        let (queue, reason) = match delay {
            Ok(delay) => (self.topology.retry(delay), reason),
            Err(_) => (self.topology.dead(), dead.as_str()),
        };
        let marks = Marks {
            id: Some(received.id().to_owned()),
            attempt: attempts,
            reason: Some(reason.into()),
            error: Some(error),
            ..received.marks_for_copy()
        };
        span.run(Box::pin(self.publish_copy(received, &queue, received.copy(&marks)))).await?;
        if let Ok(event) = &received.event
            && let Err(error) = self.store.give_up(&[event.identity()]).await
        {
            tracing::debug!(event.id = event.id, %error, "the claim was not given up; it is void after half an hour");
        }
        self.ack(received, self.note_settled(received, Settled::unrouted("unable", reason))).await;
        Ok(())
    }

    /// Writes a row, for as long as it takes: what a provider accepted must not be forgotten. Not an `async fn`, which would hold
    /// the record by value.
    fn record(&self, record: Record) -> impl Future<Output = ()> {
        let record = Arc::new(record);
        async move {
            loop {
                match self.store.record(record.clone()).await {
                    Ok(()) => return,
                    Err(StoreError::Data(error)) => {
                        tracing::error!(
                            event.id = record.entry.event_id,
                            error,
                            "the ledger refuses this row; the event itself is settled"
                        );
                        metrics::counter!("herald_rows_refused_total").increment(1);
                        return;
                    }
                    Err(error) => {
                        self.database_away("store.url", &error);
                        tokio::time::sleep(LEDGER_PAUSE).await;
                    }
                }
            }
        }
    }

    async fn ack(&self, received: &Received, settled: Counter) {
        settled.increment(1);
        self.state.live.settle();
        if !received.delivery.receipt.ack().await {
            metrics::counter!("herald_settles_lost_total").increment(1);
            tracing::debug!(
                event.id = received.id(),
                "the acknowledgement was lost; the event comes again and is recognised"
            );
        }
    }

    /// Says once how the event was settled: dead letters at info, everything else at debug.
    fn report(&self, received: &Received, entry: &Entry) {
        spans::recorded(entry);
        let age = clock::now_ms().saturating_sub(entry.first_seen);
        if entry.state == State::Done {
            self.count_age(received, entry);
        }
        let (state, reason) = (entry.state.as_str(), entry.reason.as_deref().unwrap_or(""));
        let route = entry.route.as_deref().unwrap_or("");
        let (detail, attempt) = (entry.detail.as_deref().unwrap_or(""), entry.attempt);
        if entry.state == State::Dead {
            tracing::info!(
                event.id = entry.event_id,
                session.id = entry.session_id,
                state,
                reason,
                route,
                attempt,
                detail,
                "dead letter"
            );
        } else {
            tracing::debug!(
                event.id = received.id(),
                session.id = entry.session_id,
                state,
                reason,
                route,
                attempt,
                detail,
                age_ms = age,
                "settled"
            );
        }
    }
}
