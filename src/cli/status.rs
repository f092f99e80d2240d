//! `herald status`: how full every queue is, and the ledger's books. What is not known says `unknown`, never 0.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use crate::{
    broker::{
        Broker, BrokerError, Depth,
        amqp::Role,
        management::{Management, QueueStats},
    },
    config::Config,
    domain::ledger::Books,
    store::{LetterFilter, Store},
};

use super::{connect, output, steer, stop::Stop};

const EXAMPLES: &str = "\
ready    waiting to be taken        unacked  taken and not settled
in/out   messages a second          oldest   age of the oldest message
Unacked counts and rates come from broker.management_url; without it they are unknown. RabbitMQ tells no age of a quorum
queue's head: the oldest dead letter is known from the index, of an events queue that is empty there is none (-).";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Prints one JSON object; what is not known is null
    #[arg(long)]
    json: bool,
}

/// One row: `None` is not known.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    queue: String,
    /// False when the broker has no such queue.
    exists: bool,
    ready: Option<u64>,
    unacked: Option<u64>,
    consumers: Option<u64>,
    in_per_second: Option<f64>,
    out_per_second: Option<f64>,
    oldest_seconds: Option<i64>,
    /// Messages whose dead-letter target does not take them.
    stuck: Option<u64>,
    policy: Option<String>,
}

pub(super) async fn run(config: &Config, args: &Args) -> Result<(), Stop> {
    let store = connect::store(config).await;
    let (books, letters) = match &store {
        Ok(store) => (store.books().await.map_err(Stop::from), oldest_letter(store).await),
        Err(_) => (Err(Stop::silent(1)), None),
    };
    let steering = match &store {
        Ok(store) => store.steering().await.ok(),
        Err(_) => None,
    };
    let broker = connect::broker(config, Role::Inspect).await;
    let rows = match &broker {
        Ok(broker) => Some(rows(config, broker, letters).await?),
        Err(_) => None,
    };
    if args.json {
        output::json(&json!({ "steering": steering, "queues": rows, "books": books.as_ref().ok() }))?;
    } else {
        for line in steering.iter().flat_map(steer::banner) {
            output::line(&line)?;
        }
        if let Some(rows) = &rows {
            output::line(&render(rows))?;
        }
        if let Ok(books) = &books {
            output::line(&format!("\n{}", render_books(books)))?;
        }
    }
    // Both were tried; the first trouble decides the exit code, and a second is told all the same.
    let troubles = [broker.err(), store.err().or(books.err())];
    match troubles.into_iter().flatten().collect::<Vec<_>>().as_mut_slice() {
        [] => Ok(()),
        [one] => Err(std::mem::replace(one, Stop::silent(1))),
        [first, second, ..] => {
            let _ = std::mem::replace(second, Stop::silent(1)).tell();
            Err(std::mem::replace(first, Stop::silent(1)))
        }
    }
}

/// Returns when the oldest dead letter failed, in milliseconds since the epoch.
async fn oldest_letter(store: &Store) -> Option<i64> {
    let groups = store.letter_groups(&LetterFilter::default()).await.ok()?;
    groups.iter().map(|group| group.oldest).min()
}

async fn rows<B: Broker>(config: &Config, broker: &B, oldest_letter: Option<i64>) -> Result<Vec<Row>, Stop> {
    let topology = connect::topology(config);
    let mut stats = managed(config).await;
    let now = Timestamp::now().as_millisecond();
    let mut rows = Vec::new();
    for queue in topology.queues() {
        let depth = match broker.depth(&queue.name).await {
            Ok(depth) => Some(depth),
            Err(BrokerError::Unavailable(problem)) => return Err(BrokerError::Unavailable(problem).into()),
            // No such queue yet, or no right to look at it: the row says so.
            Err(_) => None,
        };
        let oldest = oldest_letter.filter(|_| queue.name == topology.dead()).map(|at| (now - at).max(0) / 1000);
        let stats = stats.remove(&queue.name).unwrap_or_default();
        rows.push(row(queue.name, depth, stats, oldest));
    }
    Ok(rows)
}

/// Returns what the management API knows; a trouble with it is told and costs its columns only.
async fn managed(config: &Config) -> BTreeMap<String, QueueStats> {
    let Some(url) = &config.broker.management_url else { return BTreeMap::new() };
    let asked = match Management::new(url, &config.broker.url) {
        Ok(management) => management.queues(&config.broker.prefix).await,
        Err(error) => Err(error),
    };
    asked.unwrap_or_else(|error| {
        eprintln!("herald: warning: {error}");
        BTreeMap::new()
    })
}

fn row(queue: String, depth: Option<Depth>, stats: QueueStats, oldest_seconds: Option<i64>) -> Row {
    Row {
        queue,
        exists: depth.is_some(),
        ready: depth.map(|depth| depth.ready),
        unacked: depth.and_then(|depth| depth.unacked).or(stats.unacked),
        consumers: depth.map(|depth| depth.consumers),
        in_per_second: stats.publish_rate,
        out_per_second: stats.ack_rate,
        oldest_seconds,
        stuck: stats.dead_lettering,
        policy: stats.policy,
    }
}

fn render(rows: &[Row]) -> String {
    let heading = ["queue", "ready", "unacked", "consumers", "in/s", "out/s", "oldest"].map(str::to_owned).to_vec();
    let cells = rows.iter().map(|row| {
        let oldest = match (row.oldest_seconds, row.ready) {
            (_, Some(0)) => "-".to_owned(),
            (Some(seconds), _) => output::span(seconds * 1000),
            (None, _) => "unknown".to_owned(),
        };
        let rate = |rate: Option<f64>| rate.map_or_else(|| "unknown".to_owned(), |rate| format!("{rate:.1}"));
        vec![
            row.queue.clone(),
            known(row.ready),
            known(row.unacked),
            known(row.consumers),
            rate(row.in_per_second),
            rate(row.out_per_second),
            oldest,
        ]
    });
    let mut text = output::table(&std::iter::once(heading).chain(cells).collect::<Vec<_>>());
    for row in rows {
        if !row.exists {
            text += &format!("\n{}: does not exist, or may not be looked at; `herald run` declares it", row.queue);
        }
        if let Some(stuck) = row.stuck.filter(|stuck| *stuck > 0) {
            text += &format!("\n{}: {stuck} messages cannot reach their dead-letter target", row.queue);
        }
        if let Some(policy) = &row.policy {
            text += &format!("\n{}: policy `{policy}` may change what herald declared", row.queue);
        }
    }
    text
}

fn known<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| value.to_string())
}

fn render_books(books: &Books) -> String {
    let by = |name: &str, counts: &BTreeMap<String, i64>| {
        let total: i64 = counts.values().sum();
        let parts: Vec<_> = counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        if parts.is_empty() { format!("{name} {total}") } else { format!("{name} {total} ({})", parts.join(", ")) }
    };
    let parts = [
        format!("waiting {}", books.waiting),
        by("done", &books.done),
        by("skipped", &books.skipped),
        by("dead", &books.dead),
    ];
    let verdict = if books.closed() { "closed" } else { "NOT closed" };
    format!(
        "ledger: received {} = {}; {verdict}\nbeside: repeats {}, ids reused with other content {}",
        books.received,
        parts.join(" + "),
        books.repeats,
        books.id_reused
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_never_a_number() {
        let depth = Depth { ready: 12, consumers: 1, unacked: None };
        let rows = [
            row("h.events".into(), Some(depth), QueueStats::default(), None),
            row("h.hold.ably".into(), Some(Depth::default()), QueueStats::default(), None),
            row("h.retry.5s".into(), None, QueueStats::default(), None),
            row(
                "h.dead".into(),
                Some(Depth { ready: 3, consumers: 0, unacked: Some(1) }),
                QueueStats {
                    publish_rate: Some(0.25),
                    ack_rate: Some(0.0),
                    dead_lettering: Some(2),
                    ..QueueStats::default()
                },
                Some(7_260),
            ),
        ];
        let expected = "\
queue        ready  unacked  consumers     in/s    out/s   oldest
h.events        12  unknown          1  unknown  unknown  unknown
h.hold.ably      0  unknown          0  unknown  unknown        -
h.retry.5s  unknown  unknown    unknown  unknown  unknown  unknown
h.dead           3        1          0      0.2      0.0    2h 1m
h.retry.5s: does not exist, or may not be looked at; `herald run` declares it
h.dead: 2 messages cannot reach their dead-letter target";
        let squeeze = |text: &str| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(squeeze(&render(&rows)), squeeze(expected));
        assert_eq!(serde_json::to_value(&rows[0]).unwrap()["unacked"], serde_json::Value::Null);
    }

    #[test]
    fn the_books_say_whether_they_are_closed() {
        let counts = |pairs: &[(&str, i64)]| pairs.iter().map(|(k, v)| (k.to_string(), *v)).collect();
        let mut books = Books {
            received: 10,
            waiting: 1,
            done: counts(&[("push", 4), ("realtime", 3)]),
            skipped: counts(&[("no_token", 1)]),
            dead: counts(&[("exhausted", 1)]),
            repeats: 2,
            id_reused: 0,
        };
        let closed = "ledger: received 10 = waiting 1 + done 7 (push 4, realtime 3) + skipped 1 (no_token 1) + dead 1 (exhausted 1); closed";
        assert_eq!(render_books(&books).lines().next(), Some(closed));
        books.received = 11;
        assert!(render_books(&books).contains("NOT closed"));
    }
}
