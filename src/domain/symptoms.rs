//! What is wrong, from what `status` saw: each symptom with what it means and what to do, so that the exit code can be a probe's.
//!
//! Called by `herald status`. Pure. What was not seen is no symptom of its own: that the broker or the ledger did not answer is.

use std::time::Duration;

use serde::Serialize;

use super::{ledger::Books, retry::delay_name, when::span};

/// From when on something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Age of the oldest event in the events queue.
    pub max_age: Duration,
    /// Dead letters that failed within this time are growing dead letters.
    pub dead_within: Duration,
}

/// One queue, as far as it was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueFact {
    pub name: String,
    /// The broker has it.
    pub exists: bool,
    pub ready: Option<u64>,
    pub consumers: Option<u64>,
    pub oldest_ms: Option<i64>,
    /// Messages whose dead-letter target does not take them.
    pub stuck: Option<u64>,
}

/// Everything that was seen; `None`: not known.
#[derive(Debug, Clone, Default)]
pub struct Facts<'a> {
    /// Why the broker did not answer.
    pub broker_away: Option<&'a str>,
    /// Why the ledger did not answer.
    pub store_away: Option<&'a str>,
    pub queues: &'a [QueueFact],
    /// Name of the events queue.
    pub events: &'a str,
    /// Instances of workers that live.
    pub workers: Option<Vec<&'a str>>,
    /// Who paused the intake, as a phrase.
    pub paused: Option<String>,
    /// Dead letters that failed within [`Limits::dead_within`].
    pub fresh_letters: Option<i64>,
    /// Waiting events that should have been tried five minutes ago.
    pub overdue: Option<i64>,
    pub books: Option<&'a Books>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Symptom {
    /// For scripts: `no_consumer`, `too_old`, …
    pub name: &'static str,
    pub says: String,
    pub todo: String,
}

/// Returns everything that is wrong, the gravest first.
pub fn symptoms(facts: &Facts<'_>, limits: &Limits) -> Vec<Symptom> {
    let mut found = Vec::new();
    let mut add = |name, says: String, todo: &str| found.push(Symptom { name, says, todo: todo.to_owned() });
    if let Some(why) = facts.broker_away {
        add("broker_away", format!("RabbitMQ does not answer: {why}"), "`herald check` tells what is missing");
    }
    if let Some(why) = facts.store_away {
        add("store_away", format!("the ledger does not answer: {why}"), "`herald check` tells what is missing");
    }
    let events = facts.queues.iter().find(|queue| queue.name == facts.events);
    if events.is_some_and(|events| events.consumers == Some(0)) {
        let todo = match (&facts.paused, facts.workers.as_deref()) {
            (Some(by), _) => format!("paused {by}: `herald resume` goes on"),
            (None, Some([])) => "no worker lives: start `herald run`".to_owned(),
            (None, Some(workers)) => {
                format!("alive and taking nothing: {}; their /readyz and logs say why", workers.join(", "))
            }
            (None, None) => "start `herald run`, or see a worker's /readyz and log".to_owned(),
        };
        add("no_consumer", format!("nobody takes events from {}", facts.events), &todo);
    }
    if let Some(QueueFact { oldest_ms: Some(oldest), ready: Some(1..), .. }) = events
        && *oldest > millis(limits.max_age)
    {
        let says = format!(
            "the oldest event in {} waits for {}, over {} (--max-age)",
            facts.events,
            span(*oldest),
            delay_name(limits.max_age)
        );
        add(
            "too_old",
            says,
            "see in/s and out/s: start more workers, or find out what slows them down (their log, /metrics)",
        );
    }
    if let Some(letters @ 1..) = facts.fresh_letters {
        let within = delay_name(limits.dead_within);
        let says = match letters {
            1 => format!("1 event became a dead letter within the last {within} (--dead-within)"),
            _ => format!("{letters} events became dead letters within the last {within} (--dead-within)"),
        };
        let todo =
            format!("`herald dead list --group --newer {within}` tells why; mend the cause, then `herald dead replay`");
        add("letters_growing", says, &todo);
    }
    if let Some(overdue @ 1..) = facts.overdue {
        let says = format!("{overdue} waiting events should have been tried over 5m ago");
        add(
            "overdue",
            says,
            "are workers taking events? If the queues are empty, copies were lost: `herald explain` tells of each",
        );
    }
    if let Some(books) = facts.books.filter(|books| !books.closed()) {
        let ended: i64 = [&books.done, &books.skipped, &books.dead].iter().flat_map(|by| by.values()).sum();
        let says = format!(
            "the books are not closed: {} received, but {} waiting or ended",
            books.received,
            books.waiting + ended
        );
        add(
            "books_open",
            says,
            "rows were added or taken away past herald: compare with the database's backups and logs",
        );
    }
    for queue in facts.queues {
        if !queue.exists && facts.broker_away.is_none() {
            let says = format!("{} does not exist, or may not be looked at", queue.name);
            add("missing_queue", says, "`herald run` declares it; `herald check` compares it");
        }
        if let Some(stuck @ 1..) = queue.stuck {
            let says = format!("{stuck} messages in {} cannot reach the queue they expire into", queue.name);
            add("stuck", says, "is that queue there and not full? `herald check` compares it");
        }
    }
    found
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_age: Duration::from_secs(300), dead_within: Duration::from_secs(600) };

    fn queue(name: &str, ready: u64, consumers: u64) -> QueueFact {
        QueueFact {
            name: name.into(),
            exists: true,
            ready: Some(ready),
            consumers: Some(consumers),
            ..QueueFact::default()
        }
    }

    fn books(received: i64) -> Books {
        Books { received, waiting: 1, done: [("push".to_owned(), 2)].into(), ..Books::default() }
    }

    #[test]
    fn each_thing_that_is_wrong_is_one_symptom_and_nothing_else_is() {
        let healthy = [queue("h.events", 5, 1), queue("h.dead", 7, 0)];
        let closed = books(3);
        let well = || Facts {
            queues: &healthy,
            events: "h.events",
            workers: Some(vec!["a"]),
            fresh_letters: Some(0),
            overdue: Some(0),
            books: Some(&closed),
            ..Facts::default()
        };
        let names = |facts: &Facts<'_>| symptoms(facts, &LIMITS).iter().map(|found| found.name).collect::<Vec<_>>();
        assert_eq!(names(&well()), [""; 0]);
        assert_eq!(names(&Facts { events: "h.events", ..Facts::default() }), [""; 0], "nothing was seen");

        let with = |events: QueueFact| [events, queue("h.dead", 7, 0)];
        let old = |ms| QueueFact { oldest_ms: Some(ms), ..queue("h.events", 5, 1) };
        let missing = QueueFact { exists: false, ready: None, consumers: None, ..queue("h.events", 0, 0) };
        let stuck = QueueFact { stuck: Some(2), ..queue("h.events", 5, 1) };
        let emptied = QueueFact { ready: Some(0), ..old(300_001) };
        for (queues, expected) in [
            (with(queue("h.events", 0, 0)), vec!["no_consumer"]),
            (with(old(300_001)), vec!["too_old"]),
            (with(old(300_000)), vec![]),
            (with(emptied), vec![]),
            (with(missing.clone()), vec!["missing_queue"]),
            (with(stuck), vec!["stuck"]),
        ] {
            assert_eq!(names(&Facts { queues: &queues, ..well() }), expected, "{queues:?}");
        }
        let open = books(4);
        for (facts, expected) in [
            (Facts { fresh_letters: Some(1), ..well() }, vec!["letters_growing"]),
            (Facts { overdue: Some(3), ..well() }, vec!["overdue"]),
            (Facts { books: Some(&open), ..well() }, vec!["books_open"]),
            (Facts { store_away: Some("refused"), ..well() }, vec!["store_away"]),
            (Facts { broker_away: Some("refused"), queues: &[missing], ..well() }, vec!["broker_away"]),
            (Facts { overdue: Some(1), fresh_letters: Some(2), ..well() }, vec!["letters_growing", "overdue"]),
        ] {
            assert_eq!(names(&facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn a_symptom_says_what_to_do() {
        let queues = [queue("h.events", 5, 0)];
        let said = |facts: Facts<'_>| {
            let found = symptoms(&Facts { queues: &queues, events: "h.events", ..facts }, &LIMITS);
            format!("{}: {}", found[0].says, found[0].todo)
        };
        for (workers, expected) in [
            (Some(vec![]), "nobody takes events from h.events: no worker lives: start `herald run`"),
            (
                Some(vec!["a", "b"]),
                "nobody takes events from h.events: alive and taking nothing: a, b; their /readyz and logs say why",
            ),
            (None, "nobody takes events from h.events: start `herald run`, or see a worker's /readyz and log"),
        ] {
            assert_eq!(said(Facts { workers, ..Facts::default() }), expected);
        }
        let queues = [QueueFact { oldest_ms: Some(400_000), ..queue("h.events", 5, 1) }];
        let facts = Facts { queues: &queues, events: "h.events", fresh_letters: Some(1), ..Facts::default() };
        let told: Vec<_> = symptoms(&facts, &LIMITS).into_iter().map(|found| found.says).collect();
        let old = "the oldest event in h.events waits for 6m 40s, over 5m (--max-age)";
        assert_eq!(told, [old, "1 event became a dead letter within the last 10m (--dead-within)"]);
    }
}
