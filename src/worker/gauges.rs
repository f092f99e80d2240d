//! The gauges: what stands right now, whether or not anybody asks.
//!
//! What is in memory is told once a second, by a loop that `upkeep` starts; the rest by `look`, with what it has seen. What is not
//! known is NaN, never an old number.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Worker, clock};
use crate::{
    broker::{Broker, Depth, Topology, management::QueueStats},
    desk::{board::Ledger, status::away},
    domain::{
        ledger::DeadReason,
        outcome::{HoldCause, Provider},
    },
};

/// How often what is in memory is told.
const HAND: Duration = Duration::from_secs(1);
/// The label of a dead letter whose reason is somebody else's.
const OTHER: &str = "other";

impl<B: Broker> Worker<B> {
    pub(super) fn start_gauges(self: &Arc<Self>) {
        self.state.tracker.spawn(self.clone().every(HAND, async |worker| worker.gauge_hand()));
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
            self.dependency(provider.as_str(), !matches!(shut, None | Some(HoldCause::Operator)));
        }
        let (trouble, unread) = (self.state.trouble.what(), self.state.board.unread());
        for (name, why) in away(self.broker.trouble(), trouble.as_deref(), unread.as_deref()) {
            if name != "users" || self.users.is_some() {
                self.dependency(name, why.is_some());
            }
        }
    }

    fn dependency(&self, name: &'static str, away: bool) {
        let since = self.state.board.see(name, away, clock::now_ms()) as f64 / 1000.0;
        metrics::gauge!("herald_dependency_up", "dependency" => name).set(number(!away));
        metrics::gauge!("herald_dependency_since_timestamp_seconds", "dependency" => name).set(since);
    }
}

/// Tells how full a queue is.
pub(super) fn queue(queue: &str, depth: Option<Depth>) {
    metrics::gauge!("herald_queue_ready", "queue" => queue.to_owned())
        .set(known(depth.map(|depth| depth.ready as f64)));
    metrics::gauge!("herald_queue_consumers", "queue" => queue.to_owned())
        .set(known(depth.map(|depth| depth.consumers as f64)));
}

/// Tells how old the oldest in a queue is, in milliseconds.
pub(super) fn oldest(queue: &str, age: Option<i64>) {
    metrics::gauge!("herald_queue_oldest_age_seconds", "queue" => queue.to_owned())
        .set(known(age.map(|age| age.max(0) as f64 / 1000.0)));
}

/// Tells what the ledger said, at `now` in milliseconds since the epoch.
pub(super) fn ledger(topology: &Topology, ledger: &Ledger, now: i64) {
    metrics::gauge!("herald_overdue").set(ledger.overdue as f64);
    for queue in of_the_ledger(topology) {
        oldest(&queue, Some(ledger.oldest.get(&queue).map_or(0, |since| now.saturating_sub(*since))));
    }

    let mut reasons: BTreeMap<&str, i64> = DeadReason::ALL.iter().map(|reason| (reason.as_str(), 0)).collect();
    reasons.insert(OTHER, 0);
    for group in &ledger.letters {
        let reason = DeadReason::ALL.iter().map(|reason| reason.as_str()).find(|reason| *reason == group.reason);
        *reasons.entry(reason.unwrap_or(OTHER)).or_default() += group.letters;
    }
    for (reason, letters) in reasons {
        metrics::gauge!("herald_dead_letters", "reason" => reason.to_owned()).set(letters as f64);
    }

    let books = &ledger.books;
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
}

/// Takes back what only the ledger can tell and would be an old number.
pub(super) fn forget_ledger(topology: &Topology) {
    metrics::gauge!("herald_overdue").set(f64::NAN);
    of_the_ledger(topology).iter().for_each(|queue| oldest(queue, None));
}

/// Tells what the management API said; `None`: nothing.
pub(super) fn managed(topology: &Topology, stats: Option<&BTreeMap<String, QueueStats>>) {
    for queue in topology.queues().into_iter().map(|queue| queue.name) {
        let stats = stats.and_then(|stats| stats.get(&queue));
        let count = |count: Option<u64>| known(count.map(|count| count as f64));
        metrics::gauge!("herald_queue_unacked", "queue" => queue.clone())
            .set(count(stats.and_then(|stats| stats.unacked)));
        metrics::gauge!("herald_queue_stuck", "queue" => queue)
            .set(count(stats.and_then(|stats| stats.dead_lettering)));
    }
}

/// Returns the queues whose oldest event the ledger knows: all but that of fresh events.
fn of_the_ledger(topology: &Topology) -> Vec<String> {
    let events = topology.events();
    topology.queues().into_iter().map(|queue| queue.name).filter(|queue| *queue != events).collect()
}

fn known(value: Option<f64>) -> f64 {
    value.unwrap_or(f64::NAN)
}

fn number(is: bool) -> f64 {
    f64::from(u8::from(is))
}
