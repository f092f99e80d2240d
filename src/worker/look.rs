//! What is asked of the broker and of the ledger every few seconds: for the gauges, and for the board that the page reads.
//!
//! Started by `upkeep`, on the worker's tracker, as loops of their own: whatever is away delays only what it is asked for. What
//! it does not tell is not known, never 0 and never an old number. Never touches an event in hand.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Worker, clock, gauges};
use crate::{
    broker::{Broker, topology::Role},
    desk::{
        board::{Ledger, QueueState, Sample, Stats},
        live::Source,
    },
    domain::{explain::OVERDUE, redact},
    store::{LetterFilter, StoreError},
};

const LOOK: Duration = Duration::from_secs(5);
/// The ledger is being counted at most a tenth of the time: ten million rows take seconds.
const REST: u32 = 9;
/// Dead letters that failed within this time are growing dead letters, as for `herald status`.
const FRESH: Duration = Duration::from_secs(600);

impl<B: Broker> Worker<B> {
    /// Begins to look, until told to stop.
    pub(super) fn start_looking(self: &Arc<Self>) {
        let tracker = &self.state.tracker;
        tracker.spawn(self.clone().every(LOOK, async |worker| worker.look_at_queues().await));
        tracker.spawn(self.clone().every(LOOK, async |worker| {
            let begun = Instant::now();
            worker.look_at_ledger().await;
            tokio::time::sleep(begun.elapsed() * REST).await;
        }));
        if self.management.is_some() {
            tracker.spawn(self.clone().every(LOOK, async |worker| worker.look_at_management().await));
        }
    }

    async fn look_at_queues(&self) {
        let seen = self.state.board.last();
        let mut stats = seen.stats.and_then(Result::ok).unwrap_or_default();
        let Ledger { workers, mut oldest, .. } = seen.ledger.and_then(Result::ok).unwrap_or_default();
        let alone = workers.len() == 1;
        let mut queues = Vec::new();
        for queue in self.topology.queues().into_iter().map(|queue| queue.name) {
            let asked = clock::now_ms();
            // A broker that is away would be waited for, queue by queue.
            let depth = match self.broker.connected() {
                true => self.broker.depth(&queue).await.ok(),
                false => None,
            };
            let role = self.topology.role(&queue);
            let mut since = oldest.remove(&queue);
            if role == Role::Events {
                since = depth.and_then(|depth| self.head(depth.ready, asked, since));
                gauges::oldest(&queue, since.map(|since| asked.saturating_sub(since)));
            }
            gauges::queue(&queue, depth);
            let ours = alone && matches!(role, Role::Events | Role::Hold);
            let in_hand = ours.then(|| self.state.live.in_hand(self.source(&queue)));
            let stats = stats.remove(&queue).unwrap_or_default();
            queues.push(QueueState { oldest: since, ..QueueState::new(queue, role, depth, stats, in_hand) });
        }
        self.state.board.put(Sample { at: clock::now_ms(), queues, totals: self.state.live.totals() });
    }

    /// Returns the moment after which the oldest of `ready` events came; `None`: not known. The queue is first in, first out:
    /// nothing in it is older than what was taken last, here or by `others`, nor than the moment it was last seen empty.
    fn head(&self, ready: u64, asked: i64, others: Option<i64>) -> Option<i64> {
        if ready == 0 {
            self.store.note_head(asked);
        }
        self.store.head_after().max(others).map(|since| since.min(asked))
    }

    async fn look_at_ledger(&self) {
        let ledger = self.ledger(clock::now_ms()).await;
        match &ledger {
            Ok(ledger) => gauges::ledger(&self.topology, ledger, clock::now_ms()),
            Err(error) => {
                tracing::debug!(%error, "the ledger was not counted");
                gauges::forget_ledger(&self.topology);
            }
        }
        self.state.board.count(ledger.map_err(|error| redact(&error.to_string())));
    }

    async fn ledger(&self, now: i64) -> Result<Ledger, StoreError> {
        let workers = self.store.workers().await?;
        let mut oldest = BTreeMap::new();
        if let Some(head_after) = workers.iter().filter_map(|worker| worker.head_after).max() {
            oldest.insert(self.topology.events(), head_after);
        }
        let waiting = self.store.waiting(now.saturating_sub(OVERDUE)).await?;
        let overdue = waiting.iter().map(|row| row.overdue).sum();
        oldest.extend(waiting.into_iter().filter_map(|row| Some((row.queue?, row.oldest))));
        let letters = self.store.letter_groups(&LetterFilter::default()).await?;
        oldest.extend(letters.iter().map(|group| group.oldest).min().map(|first| (self.topology.dead(), first)));
        let fresh = now.saturating_sub(FRESH.as_millis() as i64);
        let fresh = LetterFilter { failed_after: Some(fresh), ..LetterFilter::default() };
        Ok(Ledger {
            workers: workers.into_iter().map(|worker| worker.instance).collect(),
            overdue,
            letters,
            fresh_letters: self.store.letter_count(&fresh).await?,
            oldest,
            books: self.store.books().await?,
        })
    }

    async fn look_at_management(&self) {
        let Some(management) = &self.management else { return };
        let stats: Stats = management.queues(&self.topology.prefix).await.map_err(|error| redact(&error.to_string()));
        if let Err(error) = &stats {
            tracing::debug!(error, "unacknowledged messages are not known");
        }
        gauges::managed(&self.topology, stats.as_ref().ok());
        self.state.board.manage(stats);
    }

    /// Returns which of the queues that are consumed `queue` is.
    pub(super) fn source(&self, queue: &str) -> Source {
        self.topology.held(queue).map_or(Source::Events, Source::Hold)
    }
}
