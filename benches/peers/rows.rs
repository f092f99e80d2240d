//! Which rows there are, and how each is measured: round by round, the peers in turn.
//!
//! Prints a line for each case as it ends, so that a run can be watched.

use std::collections::BTreeMap;

use crate::{
    case::{Bench, Drained, Order, Paced, UNLIMITED, drain, pace},
    worker::Peer,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// A backlog, by the providers' latency in milliseconds.
    Backlog(u64),
    /// A steady load, by events a second.
    Latency(u64),
    /// The same backlog with more and more events; the largest tells the memory with a million waiting.
    Growth,
    /// A backlog with an empty ledger and with a large one.
    Ledger,
    Replicas,
    /// From the start of the process to the first arrival.
    Start,
}

impl Row {
    pub const ALL: [Row; 10] = [
        Row::Backlog(0),
        Row::Backlog(20),
        Row::Backlog(100),
        Row::Latency(100),
        Row::Latency(500),
        Row::Latency(2000),
        Row::Start,
        Row::Replicas,
        Row::Growth,
        Row::Ledger,
    ];

    /// Returns the word for ROWS.
    pub fn word(self) -> String {
        match self {
            Row::Backlog(latency) => format!("backlog{latency}"),
            Row::Latency(rate) => format!("latency{rate}"),
            Row::Growth => "growth".to_owned(),
            Row::Ledger => "ledger".to_owned(),
            Row::Replicas => "replicas".to_owned(),
            Row::Start => "start".to_owned(),
        }
    }
}

/// What is asked for.
pub struct Plan {
    pub rows: Vec<Row>,
    pub peers: Vec<Peer>,
    pub rounds: usize,
    pub events: Option<u64>,
    pub seconds: u64,
    pub growth: [u64; 3],
    pub ledger: u64,
}

/// Returns the latencies of the providers at which a steady load is measured: alone, what the worker itself takes shows best at none.
pub fn steady(rate: u64) -> &'static [u64] {
    if rate <= SLOW { &[0, 20] } else { &[20] }
}

/// Events a second up to which a round takes twice as long: the last percentiles need events.
const SLOW: u64 = 100;
/// Expo takes 600 notifications a second by default, and half of the events are pushed.
const NEEDS_RATE: u64 = 1_000;
const SMALL_ROUNDS: usize = 5;

/// What was seen, by row.
#[derive(Default)]
pub struct Results {
    pub backlog: BTreeMap<(u64, Peer), Vec<Drained>>,
    /// By events a second and the providers' latency.
    pub latency: BTreeMap<(u64, u64, Peer), Vec<Paced>>,
    pub growth: BTreeMap<u64, Vec<Drained>>,
    /// By the rows in the ledger at the start.
    pub ledger: BTreeMap<u64, Vec<Drained>>,
    pub replicas: BTreeMap<usize, Vec<Drained>>,
    pub start: BTreeMap<Peer, Vec<Drained>>,
    /// Who lost or repeated events.
    pub wrong: Vec<String>,
}

pub async fn run(bench: &Bench, plan: &Plan) -> anyhow::Result<Results> {
    let mut results = Results::default();
    for row in &plan.rows {
        match *row {
            Row::Backlog(latency) => backlog(bench, plan, latency, &mut results).await?,
            Row::Latency(rate) => latency(bench, plan, rate, &mut results).await?,
            Row::Growth => growth(bench, plan, &mut results).await?,
            Row::Ledger => ledger(bench, plan, &mut results).await?,
            Row::Replicas => replicas(bench, plan, &mut results).await?,
            Row::Start => start(bench, plan, &mut results).await?,
        }
    }
    Ok(results)
}

impl Plan {
    /// Returns how many events keep `peer` busy for the seconds of a backlog.
    fn backlog(&self, peer: Peer, latency_ms: u64) -> u64 {
        let quick = latency_ms == 0;
        let a_second = match peer {
            Peer::Herald => 8_000,
            Peer::NodeDefault if quick => 900,
            Peer::NodeDefault if latency_ms <= 20 => 450,
            Peer::NodeDefault => 110,
            Peer::NodeBest | Peer::NodeMore if quick => 1_200,
            Peer::NodeBest | Peer::NodeMore if latency_ms <= 20 => 850,
            Peer::NodeBest => 250,
            Peer::NodeMore => 800,
            Peer::Plain => 4_500,
            Peer::CeilingOne => 20_000,
            Peer::CeilingFifty => 30_000,
        };
        self.events.unwrap_or(a_second * self.seconds)
    }

    fn has(&self, peer: Peer) -> bool {
        self.peers.contains(&peer)
    }

    /// Returns the peers that deliver, without those that only differ in settings.
    fn delivering(&self) -> impl Iterator<Item = Peer> {
        [Peer::Herald, Peer::NodeBest, Peer::Plain].into_iter().filter(|peer| self.has(*peer))
    }
}

impl Results {
    /// Prints a backlog and notes what is wrong with it.
    fn tell(&mut self, row: &str, peer: Peer, drained: &Drained) {
        let statements = drained.statements.map_or_else(|| "?".to_owned(), |it| format!("{it:.3}"));
        println!(
            "{row} {}: {:.0} events/s, {:.1} µs CPU an event ({:.1} whole), {:.0} MB, {:.3} requests and {statements} statements an \
             event, first after {:.2} s, stand-in {:.0} % busy, machine {:.0} % before",
            peer.word(),
            drained.rate,
            drained.cpu,
            drained.cpu_whole,
            drained.peak_mb,
            drained.requests,
            drained.first,
            drained.stand_in * 100.0,
            drained.busy_before * 100.0,
        );
        // Peers that deliver nothing count only roughly.
        let mut faults = Vec::new();
        if peer.delivers() {
            faults.extend([(drained.count.lost, "lost"), (drained.count.repeated, "repeated")]);
        }
        faults.extend([(drained.count.strays, "astray"), (drained.left, "left in its queues")]);
        for (number, what) in faults.into_iter().filter(|(number, _)| *number > 0) {
            let line = format!("{row} {}: {number} of {} events {what}", peer.word(), drained.events);
            println!("WRONG: {line}");
            self.wrong.push(line);
        }
    }
}

async fn backlog(bench: &Bench, plan: &Plan, latency: u64, results: &mut Results) -> anyhow::Result<()> {
    for _ in 0..plan.rounds {
        for peer in plan.peers.iter().copied() {
            // The ceiling asks no provider.
            if !peer.delivers() && latency > 0 {
                continue;
            }
            let drained = drain(bench, Order::backlog(peer, plan.backlog(peer, latency), latency), None).await?;
            results.tell(&format!("backlog{latency}"), peer, &drained);
            results.backlog.entry((latency, peer)).or_default().push(drained);
        }
    }
    Ok(())
}

async fn latency(bench: &Bench, plan: &Plan, rate: u64, results: &mut Results) -> anyhow::Result<()> {
    for _ in 0..plan.rounds {
        for latency in steady(rate).iter().copied() {
            for peer in plan.delivering() {
                let expo_rate = (rate > NEEDS_RATE).then_some(UNLIMITED);
                let order = Order { peer, events: 0, latency_ms: latency, replicas: 1, expo_rate };
                let paced =
                    pace(bench, order, rate, if rate <= SLOW { plan.seconds * 2 } else { plan.seconds }).await?;
                println!(
                    "latency{rate} at {latency} ms {}: p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, {:.0} µs CPU an event{}",
                    peer.word(),
                    paced.p50,
                    paced.p99,
                    paced.p999,
                    paced.cpu,
                    if paced.behind { ", FELL BEHIND" } else { "" }
                );
                let mut faults = vec![(paced.count.repeated, "repeated"), (paced.count.strays, "astray")];
                if !paced.behind {
                    faults.push((paced.count.lost, "lost"));
                }
                for (number, what) in faults.into_iter().filter(|(number, _)| *number > 0) {
                    results
                        .wrong
                        .push(format!("latency{rate} at {latency} ms {}: {number} events {what}", peer.word()));
                }
                results.latency.entry((rate, latency, peer)).or_default().push(paced);
            }
        }
    }
    Ok(())
}

async fn growth(bench: &Bench, plan: &Plan, results: &mut Results) -> anyhow::Result<()> {
    let [few, more, most] = plan.growth;
    // A small one is over within a second, a large one takes minutes in which the machine changes: the small ones stand around them.
    for events in [few, few, more, few, most, few, few] {
        let drained = drain(bench, Order::backlog(Peer::Herald, events, 0), None).await?;
        results.tell(&format!("growth to {events}"), Peer::Herald, &drained);
        results.growth.entry(events).or_default().push(drained);
    }
    Ok(())
}

async fn ledger(bench: &Bench, plan: &Plan, results: &mut Results) -> anyhow::Result<()> {
    const SCHEMA: &str = "bench_ledger";
    bench.database.drop_ledger(SCHEMA).await?;
    // herald makes its tables itself.
    drain(bench, Order::backlog(Peer::Herald, 100, 0), Some(SCHEMA)).await?;
    println!("ledger: filling {} rows", plan.ledger);
    bench.database.fill_ledger(SCHEMA, plan.ledger).await?;
    for _ in 0..plan.rounds {
        for (rows, schema) in [(0, None), (plan.ledger, Some(SCHEMA))] {
            let order = Order::backlog(Peer::Herald, plan.backlog(Peer::Herald, 0), 0);
            let drained = drain(bench, order, schema).await?;
            results.tell(&format!("ledger of {rows} rows"), Peer::Herald, &drained);
            results.ledger.entry(rows).or_default().push(drained);
        }
    }
    bench.database.drop_ledger(SCHEMA).await
}

async fn replicas(bench: &Bench, plan: &Plan, results: &mut Results) -> anyhow::Result<()> {
    for _ in 0..plan.rounds {
        for replicas in 1..=3 {
            let order = Order::backlog(Peer::Herald, plan.backlog(Peer::Herald, 20), 20);
            let drained = drain(bench, Order { replicas, ..order }, None).await?;
            results.tell(&format!("replicas {replicas}"), Peer::Herald, &drained);
            results.replicas.entry(replicas).or_default().push(drained);
        }
    }
    Ok(())
}

async fn start(bench: &Bench, plan: &Plan, results: &mut Results) -> anyhow::Result<()> {
    const SCHEMA: &str = "bench_start";
    bench.database.drop_ledger(SCHEMA).await?;
    let one = |peer| Order { expo_rate: None, ..Order::backlog(peer, 1, 0) };
    // Its very first start also makes the tables.
    drain(bench, one(Peer::Herald), Some(SCHEMA)).await?;
    for _ in 0..SMALL_ROUNDS {
        for peer in plan.delivering() {
            let drained = drain(bench, one(peer), Some(SCHEMA)).await?;
            println!("start {}: first arrival after {:.3} s", peer.word(), drained.first);
            results.start.entry(peer).or_default().push(drained);
        }
    }
    bench.database.drop_ledger(SCHEMA).await
}
