//! One case: a peer, a backlog or a steady load, and what came of it.
//!
//! Everything is made anew for it (queues, ledger) and deleted afterwards, so that no peer runs on what another left. Arrivals at
//! the stand-in are counted: a peer that loses or repeats events is named, however fast it is.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::{
    broker::Queues,
    database::Database,
    proc,
    sheet::{Count, Sheet},
    stand_in::StandIn,
    worker::{Peer, Places, Start, Worker},
};

/// Without any progress for so long, a peer is stuck.
const STUCK: Duration = Duration::from_secs(20);
/// For the last acknowledgements after the last arrival.
const REST: Duration = Duration::from_millis(500);
/// Between the backlog and the worker's start, twice.
const PAUSE: Duration = Duration::from_millis(700);
/// Far above what anything here reaches; the sole key that backlogs change.
pub const UNLIMITED: u32 = 100_000;

pub struct Bench {
    pub places: Places,
    pub stand_in: StandIn,
    pub database: Database,
}

/// What is asked of a peer.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    pub peer: Peer,
    pub events: u64,
    pub latency_ms: u64,
    pub replicas: usize,
    pub expo_rate: Option<u32>,
}

impl Order {
    pub fn backlog(peer: Peer, events: u64, latency_ms: u64) -> Order {
        Order { peer, events, latency_ms, replicas: 1, expo_rate: Some(UNLIMITED) }
    }
}

/// What a backlog showed. The steady window is from the moment a tenth of the events has arrived until nine tenths have.
#[derive(Debug, Clone, Copy, Default)]
pub struct Drained {
    pub events: u64,
    /// Events a second in the steady window.
    pub rate: f64,
    /// From the first arrival to the last.
    pub overall: f64,
    /// Microseconds of processor time an event in the steady window, all replicas together.
    pub cpu: f64,
    /// The same from the start of the process to the end, with everything before the first event.
    pub cpu_whole: f64,
    pub peak_mb: f64,
    pub requests: f64,
    pub statements: Option<f64>,
    /// From the start of the process to the first arrival, in seconds.
    pub first: f64,
    pub count: Count,
    /// Messages still in the queues after the end.
    pub left: u64,
    /// Share of one core that the stand-in used in the steady window.
    pub stand_in: f64,
    /// Share of the machine that was busy before the worker started: other work, and what the broker still writes.
    pub busy_before: f64,
}

/// A moment of a run.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    count: u64,
    cpu: f64,
    stand_in: f64,
}

/// The parts of a case, before its workers run.
pub struct Stage<'a> {
    bench: &'a Bench,
    order: Order,
    pub sheet: Arc<Sheet>,
    prefix: String,
    pub queues: Queues,
    schema: String,
    keeps_ledger: bool,
}

impl<'a> Stage<'a> {
    /// Makes queues and an empty ledger, or takes the ledger of a name.
    pub async fn new(bench: &'a Bench, order: Order, ledger: Option<&str>) -> anyhow::Result<Stage<'a>> {
        let tag = rand::random::<u32>();
        let prefix = format!("bench-{tag:08x}");
        let schema = ledger.map_or_else(|| format!("bench_{tag:08x}"), str::to_owned);
        let sheet = Arc::new(Sheet::new(tag, order.events));
        bench.stand_in.begin(sheet.clone(), order.latency_ms);
        let queues = Queues::declare(&bench.places.amqp, &prefix, order.peer == Peer::Herald).await?;
        Ok(Stage { bench, order, sheet, prefix, queues, schema, keeps_ledger: ledger.is_some() })
    }

    pub fn spawn(&self, number: usize) -> anyhow::Result<Worker> {
        let database = &self.bench.database;
        let herald = self.order.peer == Peer::Herald;
        let start = Start {
            peer: self.order.peer,
            number,
            prefix: &self.prefix,
            app: if herald { database.app_for_herald() } else { database.app() },
            ledger: database.ledger(&self.schema),
            expo_rate: self.order.expo_rate,
        };
        Worker::spawn(&self.bench.places, &self.bench.stand_in, &self.sheet, &start)
    }

    /// Stops the workers and clears everything away; returns how many messages were left.
    pub async fn end(self, workers: Vec<Worker>) -> anyhow::Result<u64> {
        for worker in workers {
            worker.stop()?;
        }
        let left = self.queues.ready().await?;
        self.queues.delete().await?;
        if !self.keeps_ledger {
            self.bench.database.drop_ledger(&self.schema).await?;
        }
        Ok(left)
    }
}

/// Drains a backlog that is there before the workers start.
pub async fn drain(bench: &Bench, order: Order, ledger: Option<&str>) -> anyhow::Result<Drained> {
    let stage = Stage::new(bench, order, ledger).await?;
    stage.queues.fill(stage.sheet.tag, order.events).await?;
    stage.queues.settle(order.events).await?;
    // The broker goes on writing for a moment.
    tokio::time::sleep(PAUSE).await;
    let busy_before = proc::busy_during(PAUSE).await;
    bench.database.count_anew().await?;
    let begun = Instant::now();
    let mut workers = (0..order.replicas).map(|number| stage.spawn(number)).collect::<anyhow::Result<Vec<_>>>()?;
    let mark = |workers: &[Worker], count: u64| Mark {
        at: Instant::now(),
        count,
        cpu: workers.iter().map(Worker::cpu).sum(),
        stand_in: bench.stand_in.busy(),
    };
    let (mut first, mut low, mut high) = (None, None, None);
    let (mut last, mut progress) = (0, Instant::now());
    loop {
        let count = stage.sheet.distinct();
        if count > last {
            (last, progress) = (count, Instant::now());
        }
        if count > 0 && first.is_none() {
            first = Some(mark(&workers, count));
        }
        if count >= order.events / 10 && low.is_none() {
            low = Some(mark(&workers, count));
        }
        if count >= order.events - order.events / 10 && high.is_none() {
            high = Some(mark(&workers, count));
        }
        if count >= order.events || progress.elapsed() > STUCK {
            break;
        }
        if progress.elapsed() > Duration::from_millis(100) {
            workers.iter_mut().try_for_each(Worker::runs)?;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let ended = mark(&workers, last);
    let (Some(first), Some(low), Some(high)) = (first, low, high) else {
        bail!("{}: stuck at {last} of {} events", order.peer.word(), order.events);
    };
    tokio::time::sleep(REST).await;
    let cpu: f64 = workers.iter().map(Worker::cpu).sum();
    let peak_kb = workers.iter().map(Worker::peak_kb).max().context("workers")?;
    let statements = bench.database.statements().await?;
    let (count, requests) = (stage.sheet.count(), stage.sheet.requests());
    let left = stage.end(workers).await?;
    let (events, window) = (order.events as f64, (high.at - low.at).as_secs_f64());
    let seen = (high.count - low.count) as f64;
    Ok(Drained {
        events: order.events,
        rate: seen / window,
        overall: (ended.count - first.count) as f64 / (ended.at - first.at).as_secs_f64(),
        cpu: (high.cpu - low.cpu) * 1e6 / seen,
        cpu_whole: cpu * 1e6 / events,
        peak_mb: peak_kb as f64 / 1024.0,
        requests: requests as f64 / events,
        statements: statements.map(|count| count as f64 / events),
        first: (first.at - begun).as_secs_f64(),
        count,
        left,
        stand_in: (high.stand_in - low.stand_in) / window,
        busy_before,
    })
}

/// What a steady load showed: times from publish to arrival, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Paced {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub cpu: f64,
    pub count: Count,
    /// Three seconds after the load was over events were still on their way; those count as arriving then.
    pub behind: bool,
}

/// Measures a steady load of `rate` events a second for `seconds`, after a warm-up at the same rate.
pub async fn pace(bench: &Bench, order: Order, rate: u64, seconds: u64) -> anyhow::Result<Paced> {
    let (greeting, warm) = (20, rate * 3);
    let total = greeting + warm + rate * seconds;
    let stage = Stage::new(bench, Order { events: total, ..order }, None).await?;
    let worker = stage.spawn(0)?;
    // It is up once it has delivered a first few.
    stage.queues.pace(&stage.sheet, 0, greeting, 20).await?;
    arrive(&stage.sheet, greeting, Duration::from_secs(30)).await.context("the first events did not arrive")?;
    let warm = greeting + warm;
    stage.queues.pace(&stage.sheet, greeting, warm, rate).await?;
    let cpu = worker.cpu();
    let sent = stage.queues.pace(&stage.sheet, warm, total, rate).await?;
    let cpu = worker.cpu() - cpu;
    let behind = arrive(&stage.sheet, total, Duration::from_secs(3)).await.is_err();
    let mut times: Vec<u32> = sent
        .iter()
        .enumerate()
        .map(|(position, sent)| {
            let at = stage.sheet.at(warm + position as u64);
            at.unwrap_or_else(|| stage.sheet.now()).saturating_sub(*sent)
        })
        .collect();
    times.sort_unstable();
    let at = |share: f64| f64::from(times[((times.len() - 1) as f64 * share).round() as usize]) / 1000.0;
    let count = stage.sheet.count();
    let measured =
        Paced { p50: at(0.5), p99: at(0.99), p999: at(0.999), cpu: cpu * 1e6 / times.len() as f64, count, behind };
    stage.end(vec![worker]).await?;
    Ok(measured)
}

async fn arrive(sheet: &Sheet, count: u64, patience: Duration) -> anyhow::Result<()> {
    let begun = Instant::now();
    while sheet.distinct() < count {
        if begun.elapsed() > patience {
            bail!("{} of {count} arrived", sheet.distinct());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
