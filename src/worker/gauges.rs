//! The gauges: what stands right now, looked at every few seconds and whether or not anybody asks.
//!
//! Started by `upkeep`, on the worker's tracker, as loops of their own: a broker or database that is away delays only what it
//! is asked for, and what it does not tell is NaN, never an old number. Never touches an event in hand.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Worker, clock};
use crate::{
    broker::Broker,
    domain::{
        explain::OVERDUE,
        ledger::DeadReason,
        outcome::{HoldCause, Provider},
    },
    store::{LetterFilter, StoreError},
};

/// What is in memory.
const HAND: Duration = Duration::from_secs(1);
/// What is asked of the broker and of the ledger.
const LOOK: Duration = Duration::from_secs(5);
/// The management API gathers its numbers this rarely itself.
const MANAGED: Duration = Duration::from_secs(10);
/// The ledger is being counted at most a tenth of the time: ten million rows take seconds.
const REST: u32 = 9;
/// The label of a dead letter whose reason is somebody else's.
const OTHER: &str = "other";

/// Whether each dependency answers, and since when it is so.
pub(super) type Since = BTreeMap<&'static str, (bool, Timestamp)>;

impl<B: Broker> Worker<B> {
    pub(super) fn start_gauges(self: &Arc<Self>) {
        let tracker = &self.state.tracker;
        tracker.spawn(self.clone().every(HAND, async |worker| worker.gauge_hand()));
        tracker.spawn(self.clone().every(LOOK, async |worker| worker.gauge_queues().await));
        tracker.spawn(self.clone().every(LOOK, async |worker| {
            let begun = Instant::now();
            if let Err(error) = worker.gauge_ledger().await {
                tracing::debug!(%error, "the ledger was not counted");
                worker.forget_ledger();
            }
            tokio::time::sleep(begun.elapsed() * REST).await;
        }));
        if self.management.is_some() {
            tracker.spawn(self.clone().every(MANAGED, async |worker| worker.gauge_managed().await));
        }
    }

    fn gauge_hand(&self) {
        metrics::gauge!("herald_in_flight").set(self.state.in_flight.load(Ordering::Relaxed) as f64);
        metrics::gauge!("herald_lanes").set(self.state.lanes.len() as f64);
        for provider in Provider::ALL {
            let waiting = self.waiting(provider).load(Ordering::Relaxed);
            metrics::gauge!("herald_provider_waiting", "provider" => provider.as_str()).set(waiting as f64);
        }
        self.gauge_gates();
        for provider in Provider::ALL {
            let shut = self.gate(provider).state().shut;
            self.dependency(provider.as_str(), matches!(shut, None | Some(HoldCause::Operator)));
        }
        self.dependency("broker", self.broker.connected());
        let trouble = self.state.trouble.what();
        let well = |key: &str| !trouble.as_ref().is_some_and(|what| what.starts_with(key));
        self.dependency("store", well("store.url"));
        if self.users.is_some() {
            self.dependency("users", well("users.url"));
        }
    }

    fn dependency(&self, name: &'static str, up: bool) {
        let mut known = self.state.since.lock().expect("no panic while the lock is held");
        let seen = known.entry(name).or_insert_with(|| (up, clock::now()));
        if seen.0 != up {
            *seen = (up, clock::now());
        }
        let since = seen.1.as_millisecond() as f64 / 1000.0;
        metrics::gauge!("herald_dependency_up", "dependency" => name).set(number(up));
        metrics::gauge!("herald_dependency_since_timestamp_seconds", "dependency" => name).set(since);
    }

    async fn gauge_queues(&self) {
        let events = self.topology.events();
        for queue in self.topology.queues().into_iter().map(|queue| queue.name) {
            let asked = clock::now_ms();
            // A broker that is away would be waited for, queue by queue.
            let depth = match self.broker.connected() {
                true => self.broker.depth(&queue).await.ok(),
                false => None,
            };
            if queue == events {
                oldest(&queue, depth.and_then(|depth| self.age_of_head(depth.ready, asked)));
            }
            metrics::gauge!("herald_queue_ready", "queue" => queue.clone())
                .set(known(depth.map(|depth| depth.ready as f64)));
            metrics::gauge!("herald_queue_consumers", "queue" => queue)
                .set(known(depth.map(|depth| depth.consumers as f64)));
        }
    }

    /// Returns the most the oldest of `ready` events may have waited, in milliseconds; `None`: not known. The queue is first in,
    /// first out: nothing in it is older than what was taken last, nor than the moment it was last seen empty.
    fn age_of_head(&self, ready: u64, asked: i64) -> Option<i64> {
        if ready == 0 {
            self.store.note_head(asked);
            return Some(0);
        }
        Some(asked.saturating_sub(self.store.head_after()?).max(0))
    }

    async fn gauge_ledger(&self) -> Result<(), StoreError> {
        let now = clock::now_ms();
        let waiting = self.store.waiting(now.saturating_sub(OVERDUE)).await?;
        metrics::gauge!("herald_overdue").set(waiting.iter().map(|row| row.overdue).sum::<i64>() as f64);
        for queue in self.copies() {
            let row = waiting.iter().find(|row| row.queue.as_deref() == Some(&*queue));
            oldest(&queue, Some(row.map_or(0, |row| now.saturating_sub(row.oldest).max(0))));
        }

        let letters = self.store.letter_groups(&LetterFilter::default()).await?;
        let first = letters.iter().map(|group| group.oldest).min();
        oldest(&self.topology.dead(), Some(first.map_or(0, |first| now.saturating_sub(first).max(0))));
        let mut reasons: BTreeMap<&str, i64> = DeadReason::ALL.iter().map(|reason| (reason.as_str(), 0)).collect();
        reasons.insert(OTHER, 0);
        for group in &letters {
            let reason = DeadReason::ALL.iter().map(|reason| reason.as_str()).find(|reason| *reason == group.reason);
            *reasons.entry(reason.unwrap_or(OTHER)).or_default() += group.letters;
        }
        for (reason, letters) in reasons {
            metrics::gauge!("herald_dead_letters", "reason" => reason.to_owned()).set(letters as f64);
        }

        let books = self.store.books().await?;
        let sum = |by: &BTreeMap<String, i64>| by.values().sum::<i64>();
        for (state, count) in [
            ("received", books.received),
            ("waiting", books.waiting),
            ("done", sum(&books.done)),
            ("skipped", sum(&books.skipped)),
            ("dead", sum(&books.dead)),
        ] {
            metrics::gauge!("herald_books", "state" => state).set(count as f64);
        }
        metrics::gauge!("herald_books_closed").set(number(books.closed()));
        Ok(())
    }

    /// Takes back what only the ledger can tell and would be an old number.
    fn forget_ledger(&self) {
        metrics::gauge!("herald_overdue").set(f64::NAN);
        self.copies().iter().chain([&self.topology.dead()]).for_each(|queue| oldest(queue, None));
    }

    /// The queues with copies that wait: every retry and hold queue.
    fn copies(&self) -> Vec<String> {
        let holds = Provider::ALL.map(|provider| self.topology.hold(provider));
        self.topology.schedule.iter().map(|delay| self.topology.retry(*delay)).chain(holds).collect()
    }

    async fn gauge_managed(&self) {
        let Some(management) = &self.management else { return };
        let mut stats = management.queues(&self.topology.prefix).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "unacknowledged messages are not known");
            BTreeMap::new()
        });
        for queue in self.topology.queues().into_iter().map(|queue| queue.name) {
            let stats = stats.remove(&queue).unwrap_or_default();
            metrics::gauge!("herald_queue_unacked", "queue" => queue.clone())
                .set(known(stats.unacked.map(|count| count as f64)));
            metrics::gauge!("herald_queue_stuck", "queue" => queue)
                .set(known(stats.dead_lettering.map(|count| count as f64)));
        }
    }
}

fn oldest(queue: &str, age_ms: Option<i64>) {
    metrics::gauge!("herald_queue_oldest_age_seconds", "queue" => queue.to_owned())
        .set(known(age_ms.map(|age| age as f64 / 1000.0)));
}

fn known(value: Option<f64>) -> f64 {
    value.unwrap_or(f64::NAN)
}

fn number(is: bool) -> f64 {
    f64::from(u8::from(is))
}
