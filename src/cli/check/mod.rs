//! `herald check`: tries everything herald needs, and says for each that it is ok or what to do.
//!
//! One function for each line, so that each can fail in a test. All run, whatever fails before. It writes nothing but one
//! message on an Ably channel that nobody listens to, which is the only way to know that publishing is allowed.

mod local;
mod queues;
mod databases;
mod outbox;
mod providers;

use serde::Serialize;

use crate::config::{Inputs, Problem, examine};

use super::{
    output,
    stop::{CONFIG, FAILED, Stop},
};

const EXAMPLES: &str = "\
Exit code 0: all ok. 78: somebody must change something first. 1: something is merely unreachable now.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Prints one JSON object for each line
    #[arg(long)]
    json: bool,
}

/// How one thing stands. The order is that of severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Standing {
    Ok,
    /// Not looked at, because of what another line says.
    Skipped,
    /// Fine now, but worth knowing.
    Warning,
    /// It may be better later.
    Unreachable,
    /// Somebody must change something.
    Wrong,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Line {
    what: &'static str,
    standing: Standing,
    text: String,
}

impl Line {
    fn new(what: &'static str, standing: Standing, text: impl Into<String>) -> Line {
        Line { what, standing, text: text.into() }
    }
}

pub(super) async fn run(inputs: &Inputs, args: &Args) -> Result<(), Stop> {
    let (loaded, problems) = examine(inputs);
    let config = &loaded.config;
    let mut lines = local::configuration(&loaded, &problems);
    lines.extend(local::catalogue(config));
    let (queues, store, users, outbox, ably, expo) = tokio::join!(
        unless(&problems, "broker.", ["broker", "queues"], queues::check(config)),
        unless(&problems, "store.", ["store"], databases::store(config)),
        unless(&problems, "users.", ["users"], databases::users(config)),
        unless(&problems, "outbox.", ["outbox"], outbox::check(config)),
        unless(&problems, "ably.", ["ably"], providers::ably(config)),
        unless(&problems, "expo.", ["expo"], providers::expo(config)),
    );
    lines.extend([queues, store, users, outbox, ably, expo].into_iter().flatten());
    for line in &lines {
        if args.json {
            output::json(line)?;
        } else {
            output::line(&render(line))?;
        }
    }
    match lines.iter().map(|line| line.standing).max() {
        Some(Standing::Wrong) => Err(Stop::silent(CONFIG)),
        Some(Standing::Unreachable) => Err(Stop::silent(FAILED)),
        _ => Ok(()),
    }
}

/// Runs `check` unless the configuration of its section is wrong: then its lines are skipped.
async fn unless<const N: usize>(
    problems: &[Problem],
    section: &str,
    names: [&'static str; N],
    check: impl Future<Output = Vec<Line>>,
) -> Vec<Line> {
    match problems.iter().find(|problem| problem.key.starts_with(section)) {
        Some(problem) => {
            let text = format!("not tried: {} is wrong", problem.key);
            names.map(|name| Line::new(name, Standing::Skipped, text.clone())).to_vec()
        }
        None => check.await,
    }
}

fn render(line: &Line) -> String {
    let standing = match line.standing {
        Standing::Ok => "ok",
        Standing::Skipped => "-",
        Standing::Warning => "note",
        Standing::Unreachable => "AWAY",
        Standing::Wrong => "WRONG",
    };
    format!("{standing:<5}  {:<13}  {}", line.what, output::clean(&line.text))
}

#[cfg(test)]
mod tests;
