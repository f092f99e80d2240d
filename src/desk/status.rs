//! What the page shows at a glance, as one value made from memory: queues, rates, connections, books, and what is wrong.
//!
//! Called by the API for every poll. Never waits for anything; how old what is told of the queues is says `sampled_at`.

use std::{sync::atomic::Ordering, time::Duration};

use serde::Serialize;

use crate::{
    broker::{Broker, topology::Role},
    domain::{
        ledger::Books,
        outcome::HoldCause,
        steering::Steering,
        symptoms::{Facts, Limits, QueueFact, Symptom, symptoms},
    },
    provider::gate::Gate,
};

use super::{
    Desk,
    board::{Ledger, QueueState, Rates, Seen},
    history::Columns,
    sweeps::Progress,
    trouble::{Trouble, troubles},
};

/// From when on something is wrong, as for `herald status`.
const LIMITS: Limits = Limits { max_age: Duration::from_secs(300), dead_within: Duration::from_secs(600) };

/// Everything at a glance. Times are milliseconds since the epoch; `None` is not known.
#[derive(Debug, Serialize)]
pub struct Status {
    pub version: &'static str,
    pub instance: String,
    pub prefix: String,
    pub at: i64,
    /// Why no events are taken in; `None`: they are.
    pub not_ready: Option<String>,
    pub sampled_at: Option<i64>,
    pub queues: Vec<QueueState>,
    /// This worker's own.
    pub rates: Rates,
    /// Deliveries in hand of this worker, of at most so many.
    pub in_hand: u64,
    pub prefetch: u16,
    /// Age of what waits longest to be delivered, at most.
    pub oldest_ms: Option<i64>,
    pub connections: Vec<Connection>,
    pub books: Option<Books>,
    pub books_closed: Option<bool>,
    pub steering: Option<Steering>,
    /// What is wrong or out of the ordinary, the gravest first.
    pub troubles: Vec<Trouble>,
    /// The replay or drop that runs, or ran last.
    pub sweep: Option<Progress>,
    /// The management API is configured.
    pub managed: bool,
    /// Why it says nothing.
    pub management: Option<String>,
}

/// Something herald depends on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Connection {
    /// `ably`, `expo`, `broker`, `store` or `users`: the names that the metrics have.
    pub name: &'static str,
    pub state: Standing,
    pub since: Option<i64>,
    /// Why it does not work; bounded and redacted.
    pub why: Option<String>,
    /// Events in hand that wait for this provider.
    pub waiting: Option<usize>,
}

/// How a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    Ok,
    Down,
    Throttled,
    /// It refuses our credentials.
    Refused,
    /// An operator holds it.
    Held,
    /// Not configured.
    Off,
}

impl<B: Broker> Desk<B> {
    /// Returns everything at a glance, at `now`.
    pub fn status(&self, now: i64) -> Status {
        let desk = &self.0;
        let Seen { sample, rates, ledger, stats, steering } = desk.board.last();
        let connections = self.connections(now);
        let not_ready = desk.readiness.why_not();
        let (sampled_at, queues) = sample.map_or((None, Vec::new()), |sample| (Some(sample.at), sample.queues));
        let ledger = ledger.and_then(Result::ok);
        let symptoms = self.symptoms(&queues, ledger.as_ref(), now);
        let troubles = troubles(&connections, steering.as_ref(), not_ready.as_deref(), symptoms);
        let books = ledger.map(|ledger| ledger.books);
        Status {
            version: env!("CARGO_PKG_VERSION"),
            instance: desk.instance.clone(),
            prefix: desk.topology.prefix.clone(),
            at: now,
            not_ready,
            sampled_at,
            rates,
            in_hand: desk.live.all_in_hand(),
            prefetch: desk.prefetch,
            oldest_ms: oldest(&queues).map(|at| (now - at).max(0)),
            queues,
            connections,
            books_closed: books.as_ref().map(Books::closed),
            books,
            steering,
            troubles,
            sweep: self.progress(),
            managed: desk.managed,
            management: stats.and_then(Result::err),
        }
    }

    /// Returns the points of the last hour that are later than `after`.
    pub fn history(&self, after: i64) -> Columns {
        self.0.board.history(after)
    }

    /// Returns what is wrong by the rules of `herald status`.
    fn symptoms(&self, queues: &[QueueState], ledger: Option<&Ledger>, now: i64) -> Vec<Symptom> {
        let queues: Vec<QueueFact> = queues.iter().map(|queue| fact(queue, now)).collect();
        let events = self.0.topology.events();
        let facts = Facts {
            // These stand above the symptoms.
            broker_away: None,
            store_away: None,
            paused: None,
            queues: &queues,
            events: &events,
            workers: ledger.map(|ledger| ledger.workers.iter().map(String::as_str).collect()),
            fresh_letters: ledger.map(|ledger| ledger.fresh_letters),
            overdue: ledger.map(|ledger| ledger.overdue),
            books: ledger.map(|ledger| &ledger.books),
        };
        symptoms(&facts, &LIMITS)
    }

    fn connections(&self, now: i64) -> Vec<Connection> {
        let desk = &self.0;
        let mut connections: Vec<_> = desk
            .gates
            .iter()
            .zip(desk.waiting.iter())
            .map(|(gate, waiting)| provider(gate, waiting.load(Ordering::Relaxed)))
            .collect();
        let broker = desk.broker.trouble();
        let trouble = desk.trouble.borrow().clone();
        let unread = desk.board.unread();
        for (name, why) in away(broker, trouble.as_deref(), unread.as_deref()) {
            let off = name == "users" && !desk.users;
            connections.push(Connection {
                name,
                state: match why {
                    _ if off => Standing::Off,
                    Some(_) => Standing::Down,
                    None => Standing::Ok,
                },
                since: (!off).then(|| desk.board.see(name, why.is_some(), now)),
                why: why.as_deref().map(crate::domain::redact),
                waiting: None,
            });
        }
        connections
    }
}

/// Returns for broker, store and users database why it is away, if it is. `trouble` is what the path of an event met, `unread` why
/// the ledger did not answer when it was looked at.
pub fn away(
    broker: Option<String>,
    trouble: Option<&str>,
    unread: Option<&str>,
) -> [(&'static str, Option<String>); 3] {
    let of = |key: &str| trouble.filter(|what| what.starts_with(key));
    let store = of("store.url").or(unread);
    [("broker", broker), ("store", store.map(str::to_owned)), ("users", of("users.url").map(str::to_owned))]
}

fn provider(gate: &Gate, waiting: usize) -> Connection {
    let state = gate.state();
    Connection {
        name: state.provider.as_str(),
        state: match state.shut {
            None => Standing::Ok,
            Some(HoldCause::Operator) => Standing::Held,
            Some(HoldCause::Throttled | HoldCause::Backlog) => Standing::Throttled,
            Some(HoldCause::Unauthorised) => Standing::Refused,
            Some(HoldCause::Breaker) => Standing::Down,
        },
        since: Some(state.since.as_millisecond()),
        why: Some(state.why).filter(|why| !why.is_empty()),
        waiting: Some(waiting),
    }
}

fn fact(queue: &QueueState, now: i64) -> QueueFact {
    QueueFact {
        name: queue.name.clone(),
        // A broker that does not answer says nothing of its queues.
        exists: true,
        ready: queue.ready,
        consumers: queue.consumers,
        oldest_ms: queue.oldest.map(|at| now - at),
        stuck: queue.stuck,
    }
}

/// Returns when what waits longest to be delivered came, at the earliest.
fn oldest(queues: &[QueueState]) -> Option<i64> {
    let waits = |queue: &&QueueState| queue.role != Role::Dead && queue.ready.is_some_and(|ready| ready > 0);
    queues.iter().filter(waits).filter_map(|queue| queue.oldest).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Depth, management::QueueStats};

    #[test]
    fn the_oldest_is_of_what_waits_to_be_delivered() {
        let queue = |role, ready, oldest| {
            let depth = Some(Depth { ready, consumers: 0, unacked: None });
            QueueState { oldest, ..QueueState::new("q".into(), role, depth, QueueStats::default(), None) }
        };
        for (queues, expected) in [
            (vec![], None),
            (vec![queue(Role::Events, 0, Some(100)), queue(Role::Dead, 3, Some(5))], None),
            (vec![queue(Role::Events, 2, None), queue(Role::Hold, 1, Some(70))], Some(70)),
            (vec![queue(Role::Events, 2, Some(100)), queue(Role::Retry, 1, Some(120))], Some(100)),
        ] {
            assert_eq!(oldest(&queues), expected, "{queues:?}");
        }
    }
}
