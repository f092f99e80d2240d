//! What was last seen of the queues, the books and the connections, and since when.
//!
//! The worker writes a [`Sample`] every few seconds; the page reads. Nothing here asks anybody anything.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use serde::Serialize;

use crate::{
    broker::{Depth, management::QueueStats, topology::Role},
    domain::{ledger::Books, steering::Steering},
};

use super::history::{Columns, History, Point};

/// One queue; `None` is not known.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QueueState {
    pub name: String,
    pub role: Role,
    pub ready: Option<u64>,
    pub unacked: Option<u64>,
    pub consumers: Option<u64>,
    /// Messages a second.
    pub in_per_second: Option<f64>,
    pub out_per_second: Option<f64>,
    /// Messages whose dead-letter target does not take them.
    pub stuck: Option<u64>,
    /// A policy that may change what herald declared.
    pub policy: Option<String>,
    /// When what lies there longest came, at the earliest, in milliseconds since the epoch.
    pub oldest: Option<i64>,
}

impl QueueState {
    /// Puts together what the broker said (`depth`, `stats`) and what this worker knows: what it has `in_hand` is all that is
    /// unacked while it is the only consumer.
    pub fn new(name: String, role: Role, depth: Option<Depth>, stats: QueueStats, in_hand: Option<u64>) -> QueueState {
        let alone = depth.is_some_and(|depth| depth.consumers == 1);
        let own = in_hand.filter(|_| alone);
        QueueState {
            name,
            role,
            ready: depth.map(|depth| depth.ready).or(stats.ready),
            unacked: stats.unacked.or(depth.and_then(|depth| depth.unacked)).or(own),
            consumers: depth.map(|depth| depth.consumers),
            in_per_second: stats.publish_rate,
            out_per_second: stats.ack_rate,
            stuck: stats.dead_lettering,
            policy: stats.policy,
            oldest: None,
        }
    }
}

/// Everything seen in one look.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Milliseconds since the epoch.
    pub at: i64,
    /// In the topology's order.
    pub queues: Vec<QueueState>,
    /// What the ledger said, or why it did not.
    pub ledger: Result<Ledger, String>,
    /// Deliveries taken and settled by this worker since its start.
    pub totals: (u64, u64),
    /// The management API is configured.
    pub managed: bool,
    /// Why it says nothing.
    pub management: Option<String>,
}

/// What the ledger said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    /// Instances of workers that live.
    pub workers: Vec<String>,
    /// Waiting events that should have been tried five minutes ago.
    pub overdue: i64,
    /// Dead letters of the last ten minutes.
    pub fresh_letters: i64,
    /// For each queue when what lies there longest came, in milliseconds since the epoch.
    pub oldest: BTreeMap<String, i64>,
    pub steering: Steering,
    pub books: Books,
}

/// Deliveries a second; `None` before two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rates {
    pub taken: Option<f64>,
    pub settled: Option<f64>,
}

/// The board of one worker.
#[derive(Debug, Default)]
pub struct Board(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    sample: Option<Sample>,
    rates: Rates,
    history: History,
    /// Whether something is away, and since when it is as it is.
    standings: BTreeMap<&'static str, (bool, i64)>,
}

impl Board {
    /// Puts a look up.
    pub fn put(&self, mut sample: Sample) {
        let mut inner = self.lock();
        // A look that began before an operator's word must not take it back.
        if let (Some(Ok(known)), Ok(seen)) = (inner.sample.as_ref().map(|sample| &sample.ledger), &mut sample.ledger)
            && known.steering.version > seen.steering.version
        {
            seen.steering = known.steering.clone();
        }
        inner.rates = rates(inner.sample.as_ref(), &sample);
        let Rates { taken, settled } = inner.rates;
        inner.history.add(Point {
            at: sample.at,
            ready: sample.queues.iter().map(|queue| queue.ready).collect(),
            unacked: sample.queues.iter().map(|queue| queue.unacked).collect(),
            taken,
            settled,
        });
        inner.sample = Some(sample);
    }

    /// Returns the last look and the rates since the one before.
    pub fn last(&self) -> (Option<Sample>, Rates) {
        let inner = self.lock();
        (inner.sample.clone(), inner.rates)
    }

    /// Returns the points later than `after`.
    pub fn history(&self, after: i64) -> Columns {
        let inner = self.lock();
        let queues = inner.sample.iter().flat_map(|sample| &sample.queues).map(|queue| queue.name.clone()).collect();
        inner.history.after(after, queues)
    }

    /// Puts up what operators have set, without waiting for the next look.
    pub fn steered(&self, steering: &Steering) {
        if let Some(Ok(ledger)) = self.lock().sample.as_mut().map(|sample| &mut sample.ledger) {
            ledger.steering = steering.clone();
        }
    }

    /// Takes in whether `what` is away at `now`, and returns since when it is as it is.
    pub fn see(&self, what: &'static str, away: bool, now: i64) -> i64 {
        let mut inner = self.lock();
        let seen = inner.standings.entry(what).or_insert((away, now));
        if seen.0 != away {
            *seen = (away, now);
        }
        seen.1
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic while the lock is held")
    }
}

fn rates(before: Option<&Sample>, now: &Sample) -> Rates {
    let Some(before) = before.filter(|before| before.at < now.at) else { return Rates::default() };
    let seconds = (now.at - before.at) as f64 / 1000.0;
    let rate = |before: u64, now: u64| Some(now.saturating_sub(before) as f64 / seconds);
    Rates { taken: rate(before.totals.0, now.totals.0), settled: rate(before.totals.1, now.totals.1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: i64, totals: (u64, u64)) -> Sample {
        Sample { at, queues: Vec::new(), ledger: Err("away".into()), totals, managed: false, management: None }
    }

    #[test]
    fn rates_need_two_looks() {
        let board = Board::default();
        board.put(sample(1_000, (10, 4)));
        assert_eq!(board.last().1, Rates::default());
        board.put(sample(6_000, (60, 4)));
        assert_eq!(board.last().1, Rates { taken: Some(10.0), settled: Some(0.0) });
        let told = board.history(0);
        assert_eq!((told.at, told.taken), (vec![1_000, 6_000], vec![None, Some(10.0)]));
    }

    #[test]
    fn an_operators_word_is_not_taken_back_by_an_older_look() {
        let steering = |version| Steering { version, ..Steering::default() };
        let looked = |version| Ok(Ledger { steering: steering(version), ..Ledger::default() });
        let version = |board: &Board| board.last().0.and_then(|sample| Some(sample.ledger.ok()?.steering.version));
        let board = Board::default();
        board.steered(&steering(1));
        assert_eq!(version(&board), None, "nothing was seen yet");
        for (seen, expected) in [(1, 2), (2, 2), (3, 3)] {
            board.put(Sample { ledger: looked(1), ..sample(1, (0, 0)) });
            board.steered(&steering(2));
            board.put(Sample { ledger: looked(seen), ..sample(2, (0, 0)) });
            assert_eq!(version(&board), Some(expected), "{seen}");
            board.put(Sample { ledger: Err("away".into()), ..sample(3, (0, 0)) });
        }
    }

    #[test]
    fn since_is_the_last_change() {
        let board = Board::default();
        for (away, now, since) in [(false, 1, 1), (false, 2, 1), (true, 3, 3), (true, 4, 3), (false, 5, 5)] {
            assert_eq!(board.see("broker", away, now), since, "{away} at {now}");
        }
        assert_eq!(board.see("ledger", false, 9), 9);
    }

    #[test]
    fn what_is_unacked_is_ours_only_while_nobody_else_consumes() {
        let queue = |consumers, stats: QueueStats, in_hand| {
            let depth = Some(Depth { ready: 3, consumers, unacked: None });
            QueueState::new("q".into(), Role::Events, depth, stats, in_hand).unacked
        };
        let managed = || QueueStats { unacked: Some(9), ..QueueStats::default() };
        assert_eq!(queue(1, QueueStats::default(), Some(4)), Some(4));
        assert_eq!(queue(2, QueueStats::default(), Some(4)), None);
        assert_eq!(queue(1, QueueStats::default(), None), None);
        assert_eq!(queue(2, managed(), Some(4)), Some(9));
        let gone = QueueState::new("q".into(), Role::Dead, None, QueueStats::default(), None);
        assert_eq!((gone.ready, gone.unacked, gone.consumers), (None, None, None));
    }
}
