//! What the run says of itself, as Markdown: machine, versions, tables, targets.
//!
//! The same text goes to the terminal and, for a run of everything, into docs/benchmarks.md.

use std::{fmt::Write as _, path::Path, process::Command, time::Duration};

use anyhow::Context as _;
use jiff::Timestamp;

use crate::{
    case::{Bench, Drained},
    proc,
    rows::{Plan, Results, steady},
    targets::{Target, median, middle, node, node_beside, targets},
    variable,
    worker::Peer,
};

/// What stands around the tables in the report.
const MARKS: [&str; 2] = ["<!-- bench: begin -->", "<!-- bench: end -->"];

/// Says how busy the machine is before anything runs.
pub async fn machine() -> String {
    let busy = proc::busy_during(Duration::from_secs(2)).await * 100.0;
    format!("load average {} before the run, other work took {busy:.0} % of the machine", proc::load())
}

/// Says how busy the machine was just before the workers of the backlogs started.
fn between(results: &Results) -> Option<String> {
    let cases = results.backlog.values().chain(results.growth.values()).chain(results.ledger.values());
    let cases: Vec<&Drained> = cases.chain(results.replicas.values()).flatten().collect();
    let busy = || cases.iter().map(|it| it.busy_before * 100.0);
    let (middle, most) = (median(busy())?, busy().fold(0.0, f64::max));
    Some(format!(
        "Just before a backlog's worker started, other work and the broker took {middle:.0} % of the machine in the median, {most:.0} % \
         at most."
    ))
}

/// Says what was measured, and on what.
pub async fn place(bench: &Bench, commit: &str, before: &str) -> anyhow::Result<String> {
    let mut overview: url::Url = variable("HERALD_TEST_MANAGEMENT_URL")?.parse()?;
    overview.set_path("/api/overview");
    let overview: serde_json::Value = serde_json::from_str(&reqwest::get(overview).await?.text().await?)?;
    let rabbitmq = overview["rabbitmq_version"].as_str().unwrap_or("of unknown version");
    let cores = std::thread::available_parallelism()?;
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let processor = processor.map_or("unknown processor", |(_, name)| name);
    let postgres = bench.database.version().await?;
    let package = include_str!("node/package.json");
    let package: serde_json::Value = serde_json::from_str(package)?;
    let clients = package["dependencies"].as_object().context("dependencies")?.iter();
    let clients: Vec<String> =
        clients.map(|(name, version)| format!("{name} {}", version.as_str().unwrap_or("?"))).collect();
    Ok(format!(
        "{}, herald {commit}, `{}`; {cores} cores of {processor} for everything; {}, Node {} (one peer on {}) with {}, RabbitMQ {rabbitmq} \
         with quorum queues, PostgreSQL {postgres} as durable as it is shipped, with pg_stat_statements; {before}.",
        Timestamp::now().strftime("%Y-%m-%d"),
        std::env::var("BENCH_COMMAND").unwrap_or_else(|_| "make bench".to_owned()),
        said("rustc", "--version"),
        said("node", "--version"),
        said(&bench.places.new_node.to_string_lossy(), "--version"),
        clients.join(", "),
    ))
}

fn said(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    output.map_or_else(|_| format!("unknown {program}"), |it| String::from_utf8_lossy(&it.stdout).trim().to_owned())
}

/// Puts `text` between the marks of `file`.
pub fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let whole = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let between = |mark: &str| whole.find(mark).with_context(|| format!("{}: no line {mark}", file.display()));
    let (from, to) = (between(MARKS[0])? + MARKS[0].len(), between(MARKS[1])?);
    std::fs::write(file, format!("{}\n{text}\n{}", &whole[..from], &whole[to..]))?;
    Ok(())
}

/// Returns the whole report.
pub fn text(results: &Results, plan: &Plan, place: &str) -> String {
    let mut text = format!("{place} {}\n", between(results).unwrap_or_default());
    let check = node(results);
    if !check.is_empty() {
        let _ = writeln!(text, "\nThe ratios count only if the Node worker is as fast as when the targets were set:\n");
        verdicts(&mut text, &check);
        if check.iter().any(|it| !it.reached) {
            let _ = writeln!(text, "\nIt is not: **the ratios of this run are void**.");
            let beside = node_beside(results);
            if !beside.is_empty() {
                let _ = writeln!(
                    text,
                    "\nWhether the machine is slower than then or the Node worker, the other workers of this run tell:\n"
                );
                verdicts(&mut text, &beside);
            }
        }
    }
    let all = targets(results);
    if !all.is_empty() {
        let _ = writeln!(text, "\n### Targets\n");
        verdicts(&mut text, &all);
    }
    let latencies: Vec<u64> =
        [0, 20, 100].into_iter().filter(|it| results.backlog.keys().any(|(at, _)| at == it)).collect();
    for latency in latencies {
        let _ = writeln!(text, "\n### Backlog, providers at {latency} ms (medians of {})\n", plan.rounds);
        let cases = Peer::ALL
            .into_iter()
            .filter_map(|peer| Some((peer.title().to_owned(), results.backlog.get(&(latency, peer))?)));
        drained(&mut text, "worker", cases.collect());
    }
    if !results.latency.is_empty() {
        paced(&mut text, results, plan);
    }
    for (title, head, cases) in [
        ("Growth with the events of a backlog, 0 ms", "events", titles(&results.growth)),
        ("Growth with the ledger, 0 ms", "rows in the ledger before", titles(&results.ledger)),
        ("Replicas, 20 ms", "replicas", titles(&results.replicas)),
    ] {
        if !cases.is_empty() {
            let _ = writeln!(text, "\n### {title}\n");
            drained(&mut text, head, cases);
        }
    }
    if !results.start.is_empty() {
        let _ = writeln!(
            text,
            "\n### Start of the process to the first arrival\n\n| worker | median | slowest |\n|---|---|---|"
        );
        for (peer, cases) in &results.start {
            let slowest = cases.iter().map(|it| it.first).fold(0.0, f64::max);
            let middle = middle(Some(cases), |it| it.first).unwrap_or_default();
            let _ = writeln!(text, "| {} | {middle:.3} s | {slowest:.3} s |", peer.title());
        }
    }
    let _ = writeln!(text, "\n### Lost or repeated\n");
    if results.wrong.is_empty() {
        let _ =
            writeln!(text, "Nothing: every worker delivered each event once, and its queues were empty afterwards.");
    }
    for line in &results.wrong {
        let _ = writeln!(text, "- {line}");
    }
    text
}

fn verdicts(text: &mut String, targets: &[Target]) {
    let _ = writeln!(text, "| | wanted | seen | |\n|---|---|---|---|");
    for Target { what, wanted, seen, reached } in targets {
        let verdict = if *reached { "reached" } else { "**not reached**" };
        let _ = writeln!(text, "| {what} | {wanted} | {seen} | {verdict} |");
    }
}

fn titles<K: ToString + Ord>(cases: &std::collections::BTreeMap<K, Vec<Drained>>) -> Vec<(String, &Vec<Drained>)> {
    cases.iter().map(|(key, cases)| (key.to_string(), cases)).collect()
}

/// Writes a table of backlogs. The first line is what the others are compared with.
fn drained(text: &mut String, head: &str, cases: Vec<(String, &Vec<Drained>)>) {
    let _ = writeln!(
        text,
        "| {head} | events | events/s | lowest to highest | first to last arrival | of the first | CPU µs an event | with its start | peak memory | requests an event | statements an event |\n\
         |---|---|---|---|---|---|---|---|---|---|---|"
    );
    let base = cases.first().and_then(|(_, cases)| middle(Some(cases), |it| it.rate));
    for (title, cases) in &cases {
        let of = |figure: fn(&Drained) -> f64| middle(Some(cases), figure).unwrap_or_default();
        let rates = || cases.iter().map(|it| it.rate);
        let statements = median(cases.iter().filter_map(|it| it.statements));
        let _ = writeln!(
            text,
            "| {title} | {} | {:.0} | {:.0} to {:.0} | {:.0} | {:.3} | {:.1} | {:.1} | {:.0} MB | {:.3} | {} |",
            cases.first().map_or(0, |it| it.events),
            of(|it| it.rate),
            rates().fold(f64::MAX, f64::min),
            rates().fold(0.0, f64::max),
            of(|it| it.overall),
            base.map_or(0.0, |base| of(|it| it.rate) / base),
            of(|it| it.cpu),
            of(|it| it.cpu_whole),
            of(|it| it.peak_mb),
            of(|it| it.requests),
            statements.map_or_else(|| "unknown".to_owned(), |it| format!("{it:.3}")),
        );
    }
}

fn paced(text: &mut String, results: &Results, plan: &Plan) {
    let _ = writeln!(
        text,
        "\n### From publish to arrival at the provider (medians of {} rounds of {} s or more)\n\n\
         | events/s | providers | worker | p50 | p99 | p99.9 | CPU µs an event | |\n|---|---|---|---|---|---|---|---|",
        plan.rounds, plan.seconds
    );
    let mut rates: Vec<u64> = results.latency.keys().map(|(rate, ..)| *rate).collect();
    rates.dedup();
    for rate in rates {
        for latency in steady(rate).iter().copied() {
            for peer in Peer::ALL {
                let Some(cases) = results.latency.get(&(rate, latency, peer)) else { continue };
                let of = |figure: fn(&crate::case::Paced) -> f64| median(cases.iter().map(figure)).unwrap_or_default();
                let behind = if cases.iter().any(|it| it.behind) { "fell behind: more than this" } else { "" };
                let _ = writeln!(
                    text,
                    "| {rate} | {latency} ms | {} | {:.1} ms | {:.1} ms | {:.1} ms | {:.0} | {behind} |",
                    peer.title(),
                    of(|it| it.p50),
                    of(|it| it.p99),
                    of(|it| it.p999),
                    of(|it| it.cpu),
                );
            }
        }
    }
}
