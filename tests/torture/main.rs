//! The torture harness: herald from outside, real RabbitMQ, real PostgreSQL, the sandbox, and one kind of fault per round.
//!
//! `make torture` runs it. It proves itself on small flawed workers first, then plays a round for each kind of fault and
//! compares three independent records. It ends with 1 when an event was lost, appeared from nowhere, or the books do not
//! close, and says how to play that round again. `docs/reliability.md` explains the method and holds the table.

mod relay;
mod publisher;
mod outbox;
mod services;
mod stage;
mod records;
mod checker;
mod fault;
mod inject;
mod round;
mod selfproof;
mod table;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use futures::{StreamExt, stream};
use rand::Rng;

use fault::{PLANS, Plan};
use round::{Order, Report};
use services::Services;

#[derive(Debug, Parser)]
struct Args {
    /// Events of each round
    #[arg(long)]
    events: Option<u64>,
    /// Seed of the random moments; without it one is drawn and printed
    #[arg(long)]
    seed: Option<u64>,
    /// Kinds of faults, by name; all when absent
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
    /// Rounds of each kind, each with the next seed
    #[arg(long, default_value_t = 1)]
    rounds: u64,
    /// herald processes, 1 to 3
    #[arg(long, default_value_t = 1)]
    replicas: usize,
    /// Few strikes, few events, several rounds at once
    #[arg(long)]
    short: bool,
    /// Rounds at once, of kinds that strike nobody else
    #[arg(long)]
    jobs: Option<usize>,
    /// Minutes after which no further round is begun
    #[arg(long, default_value_t = 120)]
    minutes: u64,
    /// The herald to torture
    #[arg(long, default_value = "target/release/herald")]
    herald: PathBuf,
    /// What the table calls the program
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Version of RabbitMQ the run insists on, or its beginning
    #[arg(long)]
    rabbitmq: Option<String>,
    /// File whose table gets a row for each round
    #[arg(long)]
    report: Option<PathBuf>,
    /// Only the proof that the harness catches flaws
    #[arg(long)]
    prove: bool,
    /// Leave the proof out
    #[arg(long)]
    unproved: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    // Fails only when it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("torture: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<bool> {
    ensure!((1..=3).contains(&args.replicas), "--replicas: 1 to 3");
    let plans = args.faults.iter().map(|name| {
        let found = PLANS.iter().find(|plan| plan.name == name);
        found.with_context(|| {
            let known: Vec<&str> = PLANS.iter().map(|plan| plan.name).collect();
            format!("no fault is called {name}; there are {}", known.join(", "))
        })
    });
    let mut plans = plans.collect::<anyhow::Result<Vec<&Plan>>>()?;
    if plans.is_empty() {
        plans = PLANS.iter().collect();
    }
    let binary = args.herald.canonicalize().with_context(|| format!("{}: build it first", args.herald.display()))?;
    let services = Services::find().await?;
    if let Some(wanted) = args.rabbitmq.as_ref().filter(|wanted| !services.version.starts_with(wanted.as_str())) {
        bail!(
            "RabbitMQ {wanted} is asked for and {} is here: name its build in HERALD_TEST_RABBITMQ_BIN",
            services.version
        );
    }
    let seed = args.seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    let started = Instant::now();
    println!("torture: seed {seed}, commit {}, RabbitMQ {}", args.commit, services.version);
    if !args.unproved {
        println!("the harness proves itself:");
        selfproof::prove(&services, seed).await?;
    }
    if args.prove {
        return Ok(true);
    }
    let order = |round: u64| Order {
        events: args.events.unwrap_or(if args.short { 200 } else { 10_000 }).max(100),
        seed: seed + round,
        replicas: args.replicas,
        binary: binary.clone(),
        short: args.short,
    };
    let (alone, beside): (Vec<_>, Vec<_>) = (0..args.rounds)
        .flat_map(|round| plans.iter().map(move |plan| (*plan, round)))
        .partition(|(plan, _)| plan.fault.exclusive());
    let jobs = args.jobs.unwrap_or(if args.short { 4 } else { 1 });
    let mut good = true;
    for (jobs, rounds) in [(jobs, beside), (1, alone)] {
        let mut playing = stream::iter(rounds)
            .map(|(plan, round)| {
                let (services, order) = (&services, order(round));
                async move {
                    if started.elapsed() > Duration::from_secs(args.minutes * 60) {
                        return (plan, order, None);
                    }
                    println!("{} (seed {}) ...", plan.name, order.seed);
                    let limit = Duration::from_secs(1800);
                    let played = tokio::time::timeout(limit, round::play(services, plan, &order)).await;
                    let played = played.unwrap_or_else(|_| Err(anyhow::anyhow!("not over within {limit:?}")));
                    (plan, order, Some(played))
                }
            })
            .buffer_unordered(jobs.max(1));
        while let Some((plan, order, played)) = playing.next().await {
            let Some(played) = played else {
                println!("{} (seed {}): left out, the time is over", plan.name, order.seed);
                continue;
            };
            good &= tell(&args, &services, plan, &order, played)?;
        }
    }
    println!("torture: {} in {:.0} s", if good { "nothing lost" } else { "FAILED" }, started.elapsed().as_secs_f64());
    Ok(good)
}

/// Prints what a round showed and adds its row to the table. Returns whether all was well.
fn tell(
    args: &Args,
    services: &Services,
    plan: &Plan,
    order: &Order,
    played: anyhow::Result<Report>,
) -> anyhow::Result<bool> {
    let again = format!(
        "make torture FAULTS={} SEED={} EVENTS={}{}{}",
        plan.name,
        order.seed,
        order.events,
        if order.replicas > 1 { format!(" REPLICAS={}", order.replicas) } else { String::new() },
        if order.short { " SHORT=1" } else { "" }
    );
    let wrong = match &played {
        Ok(report) => report.wrong.clone(),
        Err(error) => vec![format!("{error:#}")],
    };
    if let Ok(report) = &played {
        let row = table::row(plan, report, order.seed, &args.commit, &services.version);
        println!("{row}");
        if let Some(file) = args.report.as_ref().filter(|_| wrong.is_empty()) {
            table::append(file, &row)?;
        }
    }
    if wrong.is_empty() {
        return Ok(true);
    }
    println!("FAILED: {} with seed {}; again: {again}", plan.name, order.seed);
    for line in wrong {
        println!("  {line}");
    }
    Ok(false)
}
