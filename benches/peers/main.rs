//! herald beside what a team would write instead: speed, latency, processor time, memory, requests and statements, in one run.
//!
//! `make bench` runs it, on a RabbitMQ and a PostgreSQL of its own. It measures the release binary from outside, with its ledger on
//! and its defaults but for `expo.rate`; Ably and Expo are a stand-in with a fixed latency. The peers take turns within each round,
//! so that what else the machine does strikes all of them; figures are medians, and ratios are taken within one run.
//! docs/benchmarks.md is written by it.

mod events;
mod sheet;
mod stand_in;
mod answers;
mod proc;
mod broker;
mod database;
mod worker;
mod case;
mod rows;
mod report;
mod targets;
mod ceiling;
mod plain;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use case::Bench;
use database::Database;
use rows::{Plan, Row};
use stand_in::StandIn;
use worker::{Peer, Places, SEMI_SPACE};

#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Measures
    Run(Box<Args>),
    /// A peer: the plain Rust worker
    Plain,
    /// A peer: receives and acknowledges
    Ceiling {
        #[arg(long, default_value_t = 1)]
        acks: u64,
    },
}

#[derive(Debug, Parser)]
struct Args {
    /// Rows of the benchmark, by name; all when absent
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Peers, by name; all when absent
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Rounds of each row
    #[arg(long)]
    rounds: Option<usize>,
    /// Events of a backlog; without it as many as a peer needs for some seconds
    #[arg(long)]
    events: Option<u64>,
    /// Seconds of a backlog (about), and of a steady load
    #[arg(long)]
    seconds: Option<u64>,
    /// Settings to try for node-best: PREFETCH=1000,EXPO_CONCURRENCY=50,ABLY_SOCKETS=100,SEMI_SPACE_MB=16; such a run only prints
    #[arg(long, value_delimiter = ',', value_parser = setting)]
    node: Vec<(String, String)>,
    /// One short round of everything: shows that it works, not how fast it is
    #[arg(long)]
    short: bool,
    /// Rows of the large ledger
    #[arg(long)]
    ledger: Option<u64>,
    #[arg(long, default_value = "target/release/herald")]
    herald: PathBuf,
    /// What the report calls the program
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// File that gets the results; a run of everything writes it, a part only prints
    #[arg(long)]
    report: Option<PathBuf>,
    /// Write the report, whatever was left out
    #[arg(long)]
    write: bool,
}

fn main() -> ExitCode {
    // Fails only when it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match Cli::parse().role {
            Role::Run(args) => measure(*args).await,
            Role::Plain => plain::run().await.map(|()| true),
            Role::Ceiling { acks } => ceiling::run(acks.max(1)).await.map(|()| true),
        }
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns a variable of the environment that the scripts set.
fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: use `make bench`"))
}

fn setting(text: &str) -> Result<(String, String), String> {
    let known = ["PREFETCH", "EXPO_CONCURRENCY", "ABLY_SOCKETS", SEMI_SPACE];
    match text.split_once('=') {
        Some((name, value)) if known.contains(&name) => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("write NAME=NUMBER; there are {}", known.join(", "))),
    }
}

/// Finds what is named among `all`; everything when nothing is.
fn chosen<T: Copy>(what: &str, names: &[String], all: &[T], word: impl Fn(T) -> String) -> anyhow::Result<Vec<T>> {
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    let found = names.iter().map(|name| {
        let found = all.iter().copied().find(|one| word(*one) == *name);
        found.with_context(|| {
            let known: Vec<String> = all.iter().copied().map(&word).collect();
            format!("no {what} is called {name}; there are {}", known.join(", "))
        })
    });
    found.collect()
}

/// Runs what is asked for; returns whether every peer delivered each event exactly once.
async fn measure(args: Args) -> anyhow::Result<bool> {
    let rows = chosen("row", &args.rows, &Row::ALL, |row| row.word())?;
    let peers = chosen("peer", &args.peers, &Peer::ALL, |peer| peer.word().to_owned())?;
    let tries = !args.node.is_empty();
    let whole = args.rows.is_empty() && args.peers.is_empty() && !args.short;
    let herald = args.herald.canonicalize().with_context(|| format!("{}: build it first", args.herald.display()))?;
    let folder = tempfile::tempdir()?;
    let peer = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/peers/node");
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let places = Places {
        herald,
        node: peer.join("worker.mjs"),
        // Its package.json names it.
        new_node: peer.join(format!("node_modules/node-linux-{arch}/bin/node")),
        folder: folder.path().to_owned(),
        amqp: variable("HERALD_TEST_AMQP_URL")?,
        tried: args.node,
    };
    let before = report::machine().await;
    println!("bench: {before}");
    let bench = Bench {
        places,
        stand_in: StandIn::start()?,
        database: Database::prepare(&variable("HERALD_TEST_DATABASE_URL")?).await?,
    };
    let plan = Plan {
        rows,
        peers,
        rounds: args.rounds.unwrap_or(if args.short { 1 } else { 3 }).max(1),
        events: args.events,
        seconds: args.seconds.unwrap_or(if args.short { 2 } else { 8 }).max(1),
        growth: if args.short { [1_000, 10_000, 30_000] } else { [10_000, 100_000, 1_000_000] },
        ledger: args.ledger.unwrap_or(if args.short { 100_000 } else { 10_000_000 }),
    };
    let results = rows::run(&bench, &plan).await?;
    let place = report::place(&bench, &args.commit, &before).await?;
    let text = report::text(&results, &plan, &place);
    println!("\n{text}");
    if let Some(file) = args.report.filter(|_| (whole || args.write) && !tries) {
        report::write(&file, &text)?;
    }
    for line in &results.wrong {
        println!("WRONG: {line}");
    }
    Ok(results.wrong.is_empty())
}
