//! The path of one event through the seven stops, as one column of verbs.
//!
//! Called by the lane's task for one delivery at a time. Everything that decides is in `domain`; everything that does is in
//! the file named after its verb. Whatever happens here, the delivery is either settled or still with the broker.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures::FutureExt;
use tracing::Instrument;

use super::{Counted, Interrupted, Received, Worker, clock, gather::Claimed, send::Sent, spans};
use crate::{
    broker::Broker,
    domain::{
        judge::{self, CRASHES_ALONE, CRASHES_DEAD, Disposition, Life},
        ledger::{DeadReason, Entry},
        routing::{self, Decision, Presence},
    },
    trace::Span,
};

/// How much longer an event waits for its turn alone for every further worker that died over it.
const ALONE_PAUSE: Duration = Duration::from_secs(1);

impl<B: Broker> Worker<B> {
    /// Handles one delivery. A panic is caught, counted and leads to a retry, so that it never stops the lane.
    pub(super) async fn handle(&self, received: Box<Received>) {
        let stopped = self.state.stop.is_cancelled() || self.state.intake.stopped().is_some();
        if !received.delivery.receipt.usable() || stopped {
            // It goes back to the broker with its channel, in its place.
            return;
        }
        let _in_flight = Counted::new(&self.state.in_flight);
        // Boxed, or each layer around it would make the lane's task, which is copied when it is spawned, larger by all of it.
        received.traced(Box::pin(self.guarded(&received))).await;
    }

    async fn guarded(&self, received: &Received) {
        let begun = Instant::now();
        let span = tracing::debug_span!("event", id = received.id());
        let path = AssertUnwindSafe(self.process(received)).catch_unwind().instrument(span);
        match path.await {
            Ok(Ok(())) => self.count_processed(received, begun),
            Ok(Err(interrupted)) => {
                spans::interrupted(&interrupted);
                self.keep_claim(received, &interrupted);
                metrics::counter!("herald_interrupted_total").increment(1);
                self.count_broken_off(received, begun, "interrupted");
                tracing::debug!(event.id = received.id(), ?interrupted, "left with the broker");
            }
            Err(_) => {
                metrics::counter!("herald_panics_total").increment(1);
                self.count_broken_off(received, begun, "panic");
                tracing::error!(
                    event.id = received.id(),
                    "a bug in herald made the handling of this event panic; it is retried"
                );
                let error = "a bug in herald made the handling panic".to_owned();
                let unable = Box::pin(self.settle_unable(received, "panic", DeadReason::CrashedWorker, error)).await;
                if let Err(interrupted) = unable {
                    self.keep_claim(received, &interrupted);
                }
            }
        }
    }

    /// The seven stops. The first, receive, has happened: the delivery is in hand and in its lane.
    async fn process(&self, received: &Received) -> Result<(), Interrupted> {
        // 2. decode (done on receipt, because the lane is named by the session)
        let event = match &received.event {
            Ok(event) => event,
            // Boxed as everything that few events come to, or the path of every event would be as large.
            Err(malformed) => return Box::pin(self.settle_malformed(received, malformed)).await,
        };

        // 3. gather
        let mut guard = Alone::Beside(self.state.alone.read().await);
        let text = self.catalogue.text(&event.name);
        let (mut claimed, mut known) = self.claim_and_gather(received, event, text.route).await?;
        if let Claimed::Entry(entry) = &claimed
            && (CRASHES_ALONE..CRASHES_DEAD).contains(&entry.crashes)
        {
            drop(guard);
            // Those that fewer workers died over go first: the innocent are done before the guilty one's turn comes.
            tokio::time::sleep(ALONE_PAUSE * (entry.crashes - CRASHES_ALONE)).await;
            guard = Alone::Alone(self.state.alone.write().await);
            tracing::warn!(
                event.id = event.id,
                crashes = entry.crashes,
                "workers died over this event: it is handled alone"
            );
            (claimed, known) = (self.claim(received, event, true).await?, None);
        }
        let mut entry = match claimed {
            Claimed::Entry(entry) => entry,
            Claimed::Elsewhere => return Box::pin(self.settle_elsewhere(received, "claimed")).await,
            Claimed::Stale(entry) => return Box::pin(self.settle_needless(received, entry, "stale")).await,
            Claimed::Repeat(entry) => return Box::pin(self.settle_needless(received, entry, "repeat")).await,
            Claimed::Refused(error) => {
                tracing::error!(event.id = event.id, error, "the ledger refuses this event; it is retried");
                let error = format!("the ledger refuses this event: {error}");
                let unable = self.settle_unable(received, "ledger_refused", DeadReason::Exhausted, error);
                return Box::pin(unable).await;
            }
        };
        if entry.crashes >= CRASHES_DEAD {
            let detail = format!("{} workers died while they handled it", entry.crashes);
            let attempts = entry.attempt;
            let dead = Disposition::Dead { reason: DeadReason::CrashedWorker, detail, attempts };
            return self.settle(received, entry, Vec::new(), dead).await;
        }
        // What was gathered beside the claim was so because the event was not too late then.
        if known.is_none() && self.life(&entry).over() {
            let disposition = judge::expired(ever_tried(&entry), entry.attempt, self.life(&entry));
            return self.settle(received, entry, Vec::new(), disposition).await;
        }
        let mut known = match known {
            Some(known) => known,
            None => self.gather(event, text.route, Some(&entry)).await?,
        };

        // 4. route: decided anew only while nothing has been accepted
        if !entry.any_accepted() {
            let retry_unknown = self.settings.retry_unknown;
            let span = Span::stop("route");
            let decision = routing::route(event, text, &known.presence, &known.recipient, retry_unknown);
            span.routed(&decision);
            entry.evidence = known.evidence(event, text.route, &decision);
            match decision {
                Decision::Send { via, .. } => entry.plan(via, &known),
                Decision::Skip { reason, rule } => {
                    return self.settle(received, entry, Vec::new(), Disposition::Skip { reason, detail: rule }).await;
                }
                Decision::AskAgain { rule } => {
                    let (why, unknown) = match &known.presence {
                        Presence::Unknown(failure) => (format!("{rule}: {failure}"), Some(failure)),
                        Presence::NotAsked | Presence::Present { .. } | Presence::Absent => (rule, None),
                    };
                    let life = self.life(&entry);
                    let span = Span::stop("judge");
                    let disposition = judge::ask_again(&why, unknown, entry.attempt, life, &self.policy);
                    span.judged(&disposition, &BTreeMap::new());
                    return self.settle(received, entry, Vec::new(), disposition).await;
                }
            }
        }

        // 5. send
        let Sent { outcomes, tickets } = self.send(event, text, &mut entry, &mut known).await;

        // 6. judge
        let life = self.life(&entry);
        let span = Span::stop("judge");
        let disposition = judge::judge(&entry.targets, &outcomes, entry.attempt, life, &self.policy);
        span.judged(&disposition, &outcomes);
        // What is of no use any more does not wait for the ledger.
        drop((known, outcomes));

        // 7. settle
        let settled = self.settle(received, entry, tickets, disposition).await;
        drop(guard);
        settled
    }

    pub(super) fn life(&self, entry: &Entry) -> Life {
        Life { now: clock::now(), expires_at: from_ms(entry.expires_at) }
    }
}

/// The right to handle an event: beside others, or alone when workers died over it.
#[expect(dead_code, reason = "the guards are held, not read")]
enum Alone<'a> {
    Beside(tokio::sync::RwLockReadGuard<'a, ()>),
    Alone(tokio::sync::RwLockWriteGuard<'a, ()>),
}

/// Tells whether the event was tried or held before, so that its end is a dead letter and not a skip.
fn ever_tried(entry: &Entry) -> bool {
    let held = entry.reason.as_deref().is_some_and(|reason| reason.starts_with("held"));
    entry.attempt > 0 || !entry.attempts.is_empty() || held
}

/// Returns the time of a ledger column.
pub(super) fn from_ms(ms: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX)
}

impl Received {
    /// Returns the id the event is spoken of by: its own, the copy's, or the message's.
    pub(super) fn id(&self) -> &str {
        let message_id = || self.delivery.message.properties.message_id().as_ref().map(|id| id.as_str());
        match &self.event {
            Ok(event) => &event.id,
            Err(_) => self.marks.id.as_deref().or_else(message_id).unwrap_or("unreadable"),
        }
    }
}
