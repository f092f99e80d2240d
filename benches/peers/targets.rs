//! The targets, held against what was measured in this run. Pure.
//!
//! A target whose rows were not run is left out; nothing is taken from another run.

use crate::{
    case::Drained,
    rows::{Results, steady},
    worker::Peer,
};

/// What the Node worker at its best reached when the targets were set, and beside it a plain Rust worker, by the providers' latency.
const THEN: [(u64, f64, f64); 3] = [(0, 1_239.0, 5_574.0), (20, 861.0, 4_672.0), (100, 254.0, 4_295.0)];
/// What the ceiling reached then, with an ack for each event.
const CEILING_THEN: f64 = 28_000.0;

pub struct Target {
    pub what: String,
    pub wanted: String,
    pub seen: String,
    pub reached: bool,
}

/// Returns the middle of some figures.
pub fn median(figures: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    let (low, high) = (figures.get(figures.len().checked_sub(1)? / 2)?, figures.get(figures.len() / 2)?);
    Some((low + high) / 2.0)
}

/// Returns the median of one figure of the cases of a row.
pub fn middle(cases: Option<&Vec<Drained>>, figure: impl Fn(&Drained) -> f64) -> Option<f64> {
    median(cases?.iter().map(figure))
}

fn least(what: String, wanted: f64, seen: Option<f64>, unit: &str) -> Option<Target> {
    let seen = seen?;
    let (wanted_text, seen_text) = (format!("at least {wanted}{unit}"), format!("{seen:.2}{unit}"));
    Some(Target { what, wanted: wanted_text, seen: seen_text, reached: seen >= wanted })
}

fn most(what: String, wanted: f64, seen: Option<f64>, unit: &str) -> Option<Target> {
    let seen = seen?;
    let (wanted_text, seen_text) = (format!("at most {wanted}{unit}"), format!("{seen:.3}{unit}"));
    Some(Target { what, wanted: wanted_text, seen: seen_text, reached: seen <= wanted })
}

/// Returns whether Node reached what it reached before; ratios mean nothing otherwise.
pub fn node(results: &Results) -> Vec<Target> {
    let check = |(latency, before, _)| {
        let seen = rate(results, latency, Peer::NodeBest).map(|rate| rate / before);
        least(format!("Node at its best, backlog at {latency} ms, beside {before} events/s"), 0.9, seen, " times")
    };
    THEN.into_iter().filter_map(check).collect()
}

/// Returns whether Node is as fast beside the other peers as it was before, whatever the machine.
pub fn node_beside(results: &Results) -> Vec<Target> {
    let check = |latency, what, peer, share: f64| {
        let seen = Some(rate(results, latency, Peer::NodeBest)? / rate(results, latency, peer)? / share);
        least(format!("Node at its best beside {what} at {latency} ms, {share:.3} of it then"), 0.9, seen, " times")
    };
    let plain = THEN.map(|(latency, node, plain)| check(latency, "plain Rust", Peer::Plain, node / plain));
    let ceiling = check(0, "the one-ack ceiling", Peer::CeilingOne, THEN[0].1 / CEILING_THEN);
    plain.into_iter().chain([ceiling]).flatten().collect()
}

/// Returns the median rate of a backlog.
fn rate(results: &Results, latency: u64, peer: Peer) -> Option<f64> {
    middle(results.backlog.get(&(latency, peer)), |it| it.rate)
}

/// Returns every target that this run can judge.
pub fn targets(results: &Results) -> Vec<Target> {
    let rate = |latency, peer| rate(results, latency, peer);
    let cpu = |latency, peer| middle(results.backlog.get(&(latency, peer)), |it| it.cpu);
    let ratio = |over: Option<f64>, under: Option<f64>| Some(over? / under?);
    let mut all = Vec::new();
    for (latency, wanted) in [(0, 10.0), (20, 12.0), (100, 20.0)] {
        let seen = ratio(rate(latency, Peer::Herald), rate(latency, Peer::NodeBest));
        all.push(least(format!("backlog at {latency} ms beside Node at its best"), wanted, seen, " times"));
    }
    let seen = ratio(rate(0, Peer::Herald), rate(0, Peer::CeilingOne));
    all.push(least("backlog at 0 ms beside the one-ack ceiling".to_owned(), 0.5, seen, " times"));
    for latency in [0, 20] {
        let seen = ratio(cpu(latency, Peer::Herald), cpu(latency, Peer::NodeBest));
        all.push(most(format!("CPU an event at {latency} ms beside Node at its best"), 0.05, seen, " times"));
        let seen = ratio(cpu(latency, Peer::Herald), cpu(latency, Peer::Plain));
        all.push(most(format!("CPU an event at {latency} ms beside plain Rust"), 0.4, seen, " times"));
    }
    let million = results.growth.last_key_value();
    let memory = million.and_then(|(_, cases)| middle(Some(cases), |it| it.peak_mb));
    let waiting = million.map_or(0, |(events, _)| *events);
    all.push(most(format!("peak memory with {waiting} waiting"), 64.0, memory, " MB"));
    let first = middle(results.start.get(&Peer::Herald), |it| it.first);
    all.push(most("start to first delivery".to_owned(), 0.5, first, " s"));
    let backlogs = || results.backlog.iter().filter(|((_, peer), _)| *peer == Peer::Herald);
    let worst = |figure: fn(&Drained) -> Option<f64>| {
        let figures = backlogs().filter_map(|(_, cases)| median(cases.iter().filter_map(figure)));
        figures.reduce(f64::max)
    };
    all.push(most("provider requests an event, worst backlog".to_owned(), 0.05, worst(|it| Some(it.requests)), ""));
    all.push(most("database statements an event, worst backlog".to_owned(), 0.1, worst(|it| it.statements), ""));
    for latency in steady(100).iter().copied() {
        let at = |peer, figure: fn(&crate::case::Paced) -> f64| {
            results.latency.get(&(100, latency, peer)).and_then(|cases| median(cases.iter().map(figure)))
        };
        let p50 = ratio(at(Peer::Herald, |it| it.p50), at(Peer::NodeBest, |it| it.p50));
        let p99 = ratio(at(Peer::Herald, |it| it.p99), at(Peer::NodeBest, |it| it.p99));
        all.push(most(format!("p50 at 100 events/s and {latency} ms beside Node"), 1.0, p50, " times"));
        all.push(most(format!("p99 at 100 events/s and {latency} ms beside Node"), 1.0, p99, " times"));
    }
    let ends = |cases: &std::collections::BTreeMap<u64, Vec<Drained>>| {
        let (first, last) = (cases.first_key_value()?, cases.last_key_value()?);
        let cpu = ratio(middle(Some(last.1), |it| it.cpu), middle(Some(first.1), |it| it.cpu))?;
        (first.0 != last.0).then_some((*first.0, *last.0, cpu))
    };
    for (what, cases) in [("events", &results.growth), ("ledger rows", &results.ledger)] {
        if let Some((few, many, growth)) = ends(cases) {
            let what = format!("growth of CPU an event from {few} to {many} {what}");
            all.push(most(what, 1.15, Some(growth), " times"));
        }
    }
    all.into_iter().flatten().collect()
}
