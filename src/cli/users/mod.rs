//! `herald users`: one user's pushes tried step by step, and everything about one user forgotten.

mod advice;
mod forget;
mod steps;
mod test_push;

use std::time::Duration;

use crate::{config::Config, domain::parse_duration};

use super::stop::Stop;

const EXAMPLES: &str = "\
Examples:
  herald users test-push u2                a push to every phone of u2, and why it arrives or not
  herald users test-push u2 --wait 15m     the same, until Apple or Google have answered
  herald users forget u2                   what would be deleted
  herald users forget u2 --yes             deletes it";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Sends a test push to a user and tells, step by step, why it would or would not arrive
    ///
    /// Exit code 0: every step is ok, or only the receipt is not there yet. 78: somebody must change a credential or a key
    /// first. 1: it does not arrive for another reason.
    TestPush {
        /// The user's id, as in partnerId
        user: String,
        /// How long the receipt is waited for, e.g. 15m
        #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "10s")]
        wait: Duration,
        /// Prints one JSON object for each step
        #[arg(long)]
        json: bool,
    },
    /// Deletes everything herald keeps about a user: ledger rows, tickets and dead letters
    Forget {
        /// The user's id, as in partnerId
        user: String,
        /// Does it
        #[arg(long)]
        yes: bool,
    },
}

pub(super) async fn run(config: &Config, args: Args) -> Result<(), Stop> {
    match args.command {
        Command::TestPush { user, wait, json } => test_push::run(config, &user, wait, json).await,
        Command::Forget { user, yes } => forget::run(config, &user, yes).await,
    }
}
