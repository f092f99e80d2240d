//! `herald pause|resume|hold|release|log-level`: sets something in the store for all workers, and waits until they obey.
//!
//! Nothing here is destructive: what is paused or held waits in its queue, and the opposite command lets it go.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    config::Config,
    domain::{
        outcome::Provider,
        parse_duration,
        steering::{Change, Steering},
    },
    store::{Living, Store},
    telemetry::steered_filter,
};

use super::{
    connect, operator, output,
    stop::{FAILED, Stop},
};

/// How long workers are waited for. One that died without a word counts as living for ten seconds.
const PATIENCE: Duration = Duration::from_secs(12);
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Why; shown wherever it is told, and recorded
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ProviderArgs {
    /// Which provider
    #[arg(value_enum)]
    provider: Name,
    #[command(flatten)]
    args: Args,
}

/// A provider as it is written on the command line.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Name {
    Ably,
    Expo,
}

impl From<Name> for Provider {
    fn from(name: Name) -> Provider {
        match name {
            Name::Ably => Provider::Ably,
            Name::Expo => Provider::Expo,
        }
    }
}

const LOG_EXAMPLES: &str = "\
Examples:
  herald log-level debug --for 10m                       and then log.level again
  herald log-level info,herald::worker=trace --for 5m    more of one part only
  herald log-level --reset";

#[derive(Debug, clap::Args)]
#[command(after_help = LOG_EXAMPLES, group(clap::ArgGroup::new("to").required(true).args(["filter", "reset"])))]
pub(super) struct LogArgs {
    /// error, warn, info, debug, trace, or a filter such as info,herald::worker=debug
    #[arg(value_parser = steered_filter)]
    filter: Option<String>,
    /// Ends by itself after this, e.g. 10m
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration, conflicts_with = "reset")]
    lasts: Option<Duration>,
    /// Goes back to log.level of each worker's configuration
    #[arg(long)]
    reset: bool,
    #[command(flatten)]
    args: Args,
}

pub(super) async fn pause(config: &Config, args: Args) -> Result<(), Stop> {
    let told = Told {
        done: "paused: no event is taken in until `herald resume`; what is in hand is finished, everything else waits",
        already: "it was paused already",
    };
    steer(config, Change::Pause, &args, told).await
}

pub(super) async fn resume(config: &Config, args: Args) -> Result<(), Stop> {
    let told = Told { done: "resumed: events are taken in again", already: "it was not paused" };
    steer(config, Change::Resume, &args, told).await
}

pub(super) async fn hold(config: &Config, ProviderArgs { provider, args }: ProviderArgs) -> Result<(), Stop> {
    let done = match provider {
        Name::Ably => {
            "ably is held: what is to be published waits, no attempt is used. Nobody's presence is known meanwhile, so \
             that events with a recipient are pushed"
        }
        Name::Expo => "expo is held: pushes wait, no attempt is used",
    };
    let told = Told { done, already: "it was held already" };
    steer(config, Change::Hold(provider.into()), &args, told).await
}

pub(super) async fn release(config: &Config, ProviderArgs { provider, args }: ProviderArgs) -> Result<(), Stop> {
    let done = match provider {
        Name::Ably => "ably is released: what waited goes out, one event first when something else had shut it",
        Name::Expo => "expo is released: what waited goes out, one event first when something else had shut it",
    };
    steer(config, Change::Release(provider.into()), &args, Told { done, already: done }).await
}

pub(super) async fn log_level(config: &Config, args: LogArgs) -> Result<(), Stop> {
    let (change, done) = match args.filter {
        Some(filter) => (Change::LogLevel(filter, args.lasts), "the log filter is set for all workers"),
        None => (Change::LogReset, "each worker's log filter is log.level again"),
    };
    steer(config, change, &args.args, Told { done, already: "no other filter was set" }).await
}

/// What is said of a change.
struct Told {
    done: &'static str,
    already: &'static str,
}

async fn steer(config: &Config, change: Change, args: &Args, told: Told) -> Result<(), Stop> {
    let store = connect::store(config).await?;
    let steered = store.steer(&change, &operator::who(), args.reason.as_deref()).await?;
    output::line(if steered.changed { told.done } else { told.already })?;
    for line in steered.steering.said() {
        output::line(&output::clean(&line))?;
    }
    until_obeyed(&store, steered.steering.version).await
}

/// Waits until every living worker obeys `version`, and says so; fails when one does not.
async fn until_obeyed(store: &Store, version: i64) -> Result<(), Stop> {
    let deadline = Instant::now() + PATIENCE;
    let obeys = |worker: &Living| worker.told.version >= version;
    let mut living = store.living().await?;
    while !living.iter().all(obeys) && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
        living = store.living().await?;
    }
    if living.is_empty() {
        return output::line("no worker is running; the next that starts obeys");
    }
    for worker in &living {
        let name = output::clean(&worker.instance);
        output::line(&match obeys(worker) {
            true => format!("worker {name} obeys{}", shut(worker)),
            false => format!(
                "worker {name} has not answered within {} s; it obeys as soon as it reaches the store",
                PATIENCE.as_secs()
            ),
        })?;
    }
    if living.iter().all(obeys) { Ok(()) } else { Err(Stop::silent(FAILED)) }
}

/// Says which providers this worker sends nothing to, and why.
fn shut(worker: &Living) -> String {
    let gates = worker.told.gates.iter().map(|(provider, gate)| {
        let why = output::clean(&gate.why);
        format!("; {provider} is shut since {}: {why}", output::time(gate.since))
    });
    gates.collect()
}

/// Says what is paused or held, for the top of what others print; nothing when nothing is.
pub(super) fn banner(steering: &Steering) -> Vec<String> {
    steering.said().iter().map(|line| format!("!! {}", output::clean(line))).collect()
}
