//! `herald status`: one screen of how full every queue is, who works, the ledger's books and what is wrong. Serves as a probe:
//! it exits with 1 when something is wrong. What is not known says `unknown`, never 0.

mod look;
mod render;
mod watch;

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    broker::{Depth, management::QueueStats},
    config::Config,
    domain::{
        ledger::Books,
        parse_duration,
        steering::Steering,
        symptoms::{Facts, Limits, QueueFact, Symptom, symptoms},
    },
    store::WorkerMark,
};

use super::{connect, output, stop::Stop};

use look::Look;

const EXAMPLES: &str = "\
ready    waiting to be taken        unacked  taken and not settled
in/out   messages a second          oldest   age of the oldest message
Unacked counts and rates come from broker.management_url; without it they are unknown. RabbitMQ tells no age of a quorum
queue's head: that of the events queue is known from the workers, of the others from the ledger; of an empty queue there is
none (-).

As a probe: exit code 1 when something is wrong, each with a line that starts with WRONG and says what to do: no consumer, the
oldest event too old, growing dead letters, overdue events, open books, or RabbitMQ or the ledger not answering.
  herald status --max-age 2m --json | jq -r '.symptoms[].says'";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Shows it again every two seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Prints one JSON object (with --watch one line each time); what is not known is null
    #[arg(long)]
    json: bool,
    /// Wrong: the oldest event in the events queue is older than this
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    max_age: Duration,
    /// Wrong: events became dead letters within the last so long
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    dead_within: Duration,
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

/// Everything that was seen in one look.
#[derive(Debug, Default, Serialize)]
struct Seen {
    /// Milliseconds since the epoch.
    at: i64,
    /// What operators have set.
    steering: Option<Steering>,
    queues: Option<Vec<Row>>,
    /// Workers that live.
    workers: Option<Vec<WorkerMark>>,
    books: Option<Books>,
    dead_letters: Option<i64>,
    /// Dead letters that failed within `--dead-within`.
    fresh_dead_letters: Option<i64>,
    overdue: Option<i64>,
    symptoms: Vec<Symptom>,
    #[serde(skip)]
    events: String,
    /// Why the broker and the ledger did not answer.
    #[serde(skip)]
    away: [Option<Stop>; 2],
}

pub(super) async fn run(config: &Config, args: &Args) -> Result<(), Stop> {
    let limits = Limits { max_age: args.max_age, dead_within: args.dead_within };
    let mut look = Look::new(config, limits);
    if args.watch {
        return watch::watch(&mut look, args.json).await;
    }
    let mut seen = look.once(connect::PATIENCE).await;
    look.end().await;
    if args.json {
        output::json(&seen)?;
    } else {
        output::line(&render::screen(&seen))?;
    }
    // What somebody must change first has an exit code of its own, and both are told.
    let mut away = seen.away.iter_mut().filter_map(Option::take);
    match (away.next(), away.next()) {
        (Some(first), second) => {
            if let Some(second) = second {
                let _ = second.tell();
            }
            Err(first)
        }
        (None, _) if seen.symptoms.is_empty() => Ok(()),
        (None, _) => Err(Stop::silent(1)),
    }
}

impl Seen {
    /// Puts down what is wrong with what was seen.
    fn judge(&mut self, limits: &Limits) {
        let queues: Vec<QueueFact> = self.queues.iter().flatten().map(fact).collect();
        let [broker_away, store_away] = self.away.each_ref().map(|stop| stop.as_ref().map(|stop| stop.message()));
        let workers = self.workers.as_ref();
        let facts = Facts {
            broker_away,
            store_away,
            queues: &queues,
            events: &self.events,
            paused: self.steering.as_ref().and_then(|steering| Some(steering.paused.as_ref()?.said())),
            workers: workers.map(|workers| workers.iter().map(|worker| worker.instance.as_str()).collect()),
            fresh_letters: self.fresh_dead_letters,
            overdue: self.overdue,
            books: self.books.as_ref(),
        };
        self.symptoms = symptoms(&facts, limits);
    }
}

fn fact(row: &Row) -> QueueFact {
    QueueFact {
        name: row.queue.clone(),
        exists: row.exists,
        ready: row.ready,
        consumers: row.consumers,
        oldest_ms: row.oldest_seconds.map(|seconds| seconds.saturating_mul(1000)),
        stuck: row.stuck,
    }
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
        // Of an empty queue there is none.
        oldest_seconds: oldest_seconds.filter(|_| depth.is_some_and(|depth| depth.ready > 0)),
        stuck: stats.dead_lettering,
        policy: stats.policy,
    }
}

/// Returns, for each queue that something is known of, when the oldest of it came, in milliseconds since the epoch.
type Oldest = BTreeMap<String, i64>;

fn now() -> i64 {
    Timestamp::now().as_millisecond()
}
