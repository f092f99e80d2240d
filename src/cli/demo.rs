//! `herald demo`: the flags; the demo itself is [`crate::demo`].

use crate::demo;

use super::stop::{FAILED, Stop};

const EXAMPLES: &str = "\
Examples:
  herald demo --exit                                     in ten seconds, with nothing installed
  herald demo --amqp-url amqp://guest:guest@127.0.0.1/   the same on a RabbitMQ

It reads no configuration and no variable: sandbox, a temporary store and the prefix herald-demo, always.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Ends after the table instead of staying up
    #[arg(long)]
    exit: bool,
    /// Plays on this RabbitMQ instead of the broker in memory
    #[arg(long, value_name = "URL")]
    amqp_url: Option<String>,
}

pub(super) async fn run(args: Args) -> Result<(), Stop> {
    // Ledger and journal differ: the table has said where.
    if demo::demo(args.amqp_url, args.exit).await? { Ok(()) } else { Err(Stop::silent(FAILED)) }
}
