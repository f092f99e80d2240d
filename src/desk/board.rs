//! What was last seen of the queues, the books and the connections, and since when.
//!
//! The worker writes what it sees every few seconds; the page reads. Nothing here asks anybody anything.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use serde::Serialize;

use crate::{
    broker::{Depth, management::QueueStats, topology::Role},
    domain::{ledger::Books, steering::Steering},
    store::LetterGroup,
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
    /// Puts together what the broker said (`depth`, `stats`) and what this worker knows: what it has `in_hand`, if nobody else
    /// works, is all that is unacked, and of now; the management API tells what was some seconds ago.
    pub fn new(name: String, role: Role, depth: Option<Depth>, stats: QueueStats, in_hand: Option<u64>) -> QueueState {
        let consumed_once = depth.is_some_and(|depth| depth.consumers == 1);
        let own = in_hand.filter(|_| consumed_once);
        QueueState {
            name,
            role,
            ready: depth.map(|depth| depth.ready).or(stats.ready),
            unacked: own.or(stats.unacked).or(depth.and_then(|depth| depth.unacked)),
            consumers: depth.map(|depth| depth.consumers),
            in_per_second: stats.publish_rate,
            out_per_second: stats.ack_rate,
            stuck: stats.dead_lettering,
            policy: stats.policy,
            oldest: None,
        }
    }
}

/// All queues, seen in one look.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Milliseconds since the epoch.
    pub at: i64,
    /// In the topology's order.
    pub queues: Vec<QueueState>,
    /// Deliveries taken and settled by this worker since its start.
    pub totals: (u64, u64),
}

/// What the ledger said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    /// Instances of workers that live.
    pub workers: Vec<String>,
    /// Waiting events that should have been tried five minutes ago.
    pub overdue: i64,
    pub letters: Vec<LetterGroup>,
    /// Dead letters of the last ten minutes.
    pub fresh_letters: i64,
    /// For each queue when what lies there longest came, in milliseconds since the epoch.
    pub oldest: BTreeMap<String, i64>,
    pub books: Books,
}

/// What the management API said of each queue, or why it says nothing.
pub type Stats = Result<BTreeMap<String, QueueStats>, String>;

/// Deliveries a second; `None` before two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rates {
    pub taken: Option<f64>,
    pub settled: Option<f64>,
}

/// Everything that was seen last; `None`: nobody has looked yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    pub sample: Option<Sample>,
    pub rates: Rates,
    /// What the ledger said, or why it did not.
    pub ledger: Option<Result<Ledger, String>>,
    pub stats: Option<Stats>,
    pub steering: Option<Steering>,
}

/// The board of one worker.
#[derive(Debug, Default)]
pub struct Board(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    seen: Seen,
    history: History,
    /// Whether something is away, and since when it is as it is.
    standings: BTreeMap<&'static str, (bool, i64)>,
}

impl Board {
    /// Puts a look at the queues up.
    pub fn put(&self, sample: Sample) {
        let mut inner = self.lock();
        inner.seen.rates = rates(inner.seen.sample.as_ref(), &sample);
        let Rates { taken, settled } = inner.seen.rates;
        inner.history.add(Point {
            at: sample.at,
            ready: sample.queues.iter().map(|queue| queue.ready).collect(),
            unacked: sample.queues.iter().map(|queue| queue.unacked).collect(),
            taken,
            settled,
        });
        inner.seen.sample = Some(sample);
    }

    /// Puts up what the ledger said, or why it did not.
    pub fn count(&self, ledger: Result<Ledger, String>) {
        self.lock().seen.ledger = Some(ledger);
    }

    /// Puts up what the management API said, or why it did not.
    pub fn manage(&self, stats: Stats) {
        self.lock().seen.stats = Some(stats);
    }

    /// Puts up what operators have set. An older word does not take back a newer one; of one word, what has ended by itself goes.
    pub fn steered(&self, steering: &Steering) {
        let known = &mut self.lock().seen.steering;
        if known.as_ref().is_none_or(|known| known.version <= steering.version) {
            *known = Some(steering.clone());
        }
    }

    /// Returns what was seen last.
    pub fn last(&self) -> Seen {
        self.lock().seen.clone()
    }

    /// Returns why the ledger says nothing, if so.
    pub fn unread(&self) -> Option<String> {
        self.lock().seen.ledger.as_ref().and_then(|ledger| ledger.as_ref().err().cloned())
    }

    /// Returns the points later than `after`.
    pub fn history(&self, after: i64) -> Columns {
        let inner = self.lock();
        let queues =
            inner.seen.sample.iter().flat_map(|sample| &sample.queues).map(|queue| queue.name.clone()).collect();
        inner.history.after(after, queues)
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
    use crate::domain::steering::{LogFilter, Setting};

    fn sample(at: i64, totals: (u64, u64)) -> Sample {
        Sample { at, queues: Vec::new(), totals }
    }

    #[test]
    fn rates_need_two_looks() {
        let board = Board::default();
        board.put(sample(1_000, (10, 4)));
        assert_eq!(board.last().rates, Rates::default());
        board.put(sample(6_000, (60, 4)));
        assert_eq!(board.last().rates, Rates { taken: Some(10.0), settled: Some(0.0) });
        let told = board.history(0);
        assert_eq!((told.at, told.taken), (vec![1_000, 6_000], vec![None, Some(10.0)]));
    }

    #[test]
    fn an_operators_word_is_not_taken_back_by_an_older_look() {
        let board = Board::default();
        for (told, expected) in [(0, 0), (2, 2), (1, 2), (3, 3)] {
            board.steered(&Steering { version: told, ..Steering::default() });
            assert_eq!(board.last().steering.map(|steering| steering.version), Some(expected), "{told}");
        }
        let log = LogFilter {
            filter: "debug".into(),
            until: Some(5),
            by: Setting { who: "ada".into(), why: None, since: 0 },
        };
        for log in [Some(log), None] {
            board.steered(&Steering { version: 3, log: log.clone(), ..Steering::default() });
            assert_eq!(board.last().steering.map(|steering| steering.log), Some(log), "it ends by itself");
        }
    }

    #[test]
    fn why_the_ledger_says_nothing_is_told_until_it_speaks() {
        let board = Board::default();
        assert_eq!(board.unread(), None, "nobody has looked yet");
        board.count(Err("away".into()));
        assert_eq!(board.unread(), Some("away".into()));
        board.count(Ok(Ledger::default()));
        assert_eq!(board.unread(), None);
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
        assert_eq!(queue(1, managed(), Some(4)), Some(4), "ours is of now");
        assert_eq!(queue(2, managed(), Some(4)), Some(9));
        let gone = QueueState::new("q".into(), Role::Dead, None, QueueStats::default(), None);
        assert_eq!((gone.ready, gone.unacked, gone.consumers), (None, None, None));
    }
}
