//! `herald dead`: the dead letters. Listing reads the index; replay and drop walk the queue itself.

mod list;
mod pick;
mod sweep;

use jiff::Timestamp;

use crate::{
    config::Config,
    domain::{ledger::Letter, parse_duration},
    store::{LetterFilter, Store, StoreError},
};

use super::stop::Stop;

const EXAMPLES: &str = "\
Examples:
  herald dead list                                  all, and how many for which reason
  herald dead list --reason exhausted --older 1h
  herald dead show 12                               one letter, by number or event id
  herald dead replay --event session.paused         what would be replayed
  herald dead replay --event session.paused --yes   replays it
  herald dead drop --older 7d --yes
  herald dead export > letters.jsonl";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Lists dead letters, newest first, and counts them by reason and event
    List {
        #[command(flatten)]
        filter: Filter,
        /// Prints one JSON object for each letter
        #[arg(long)]
        json: bool,
    },
    /// Shows letters whole: headers, body, what failed
    Show {
        /// Number (12 or #12) or event id
        letter: Option<String>,
        #[command(flatten)]
        filter: Filter,
        /// Prints one JSON object for each letter
        #[arg(long)]
        json: bool,
    },
    /// Sends letters back to where they came from, to be delivered anew
    ///
    /// Each gets a new default life. An explicit expiresAt still counts: what would expire at once stays, unless
    /// --ignore-expiry. Only targets that have not accepted the event are sent to.
    Replay {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        act: Act,
        /// At most so many a second
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        rate: Option<u32>,
        /// Replays also what has expired
        #[arg(long)]
        ignore_expiry: bool,
    },
    /// Deletes letters for good
    Drop {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        act: Act,
    },
    /// Prints letters whole, as JSON lines with the body in base64
    Export {
        #[command(flatten)]
        filter: Filter,
    },
}

/// Which letters are meant; each flag that is given must match.
#[derive(Debug, Clone, Default, clap::Args)]
struct Filter {
    /// Event id
    #[arg(long)]
    id: Option<String>,
    /// Why it is dead: malformed, rejected, exhausted, expired, unknown, crashed_worker
    #[arg(long)]
    reason: Option<String>,
    /// Event name
    #[arg(long)]
    event: Option<String>,
    /// Session id
    #[arg(long)]
    session: Option<String>,
    /// Failed longer ago than this, e.g. 1h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older: Option<std::time::Duration>,
    /// At most so many, newest first
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

/// How far to go.
#[derive(Debug, clap::Args)]
struct Act {
    /// Says what would be done, and does nothing
    #[arg(long)]
    dry_run: bool,
    /// Does it
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
}

impl Filter {
    fn letters(&self, now: Timestamp) -> LetterFilter {
        let age = |age: std::time::Duration| i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        LetterFilter {
            id: self.id.clone(),
            reason: self.reason.clone(),
            event: self.event.clone(),
            session: self.session.clone(),
            failed_before: self.older.map(|older| now.as_millisecond().saturating_sub(age(older))),
            limit: self.limit,
            ..LetterFilter::default()
        }
    }
}

pub(super) async fn run(config: &Config, args: Args) -> Result<(), Stop> {
    let now = Timestamp::now();
    match args.command {
        Command::List { filter, json } => list::list(config, &filter.letters(now), json, now).await,
        Command::Show { letter, filter, json } => list::show(config, letter, filter.letters(now), json).await,
        Command::Replay { filter, act, rate, ignore_expiry } => {
            sweep::replay(config, &filter.letters(now), &act, rate, ignore_expiry, now).await
        }
        Command::Drop { filter, act } => sweep::drop(config, &filter.letters(now), &act).await,
        Command::Export { filter } => list::export(config, &filter.letters(now)).await,
    }
}

/// Calls `each` for every letter that matches, newest first, a page at a time: letters come with their bodies.
async fn pages(
    store: &Store,
    filter: &LetterFilter,
    mut each: impl FnMut(Letter) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut left = filter.limit.unwrap_or(u32::MAX);
    let mut below = filter.below;
    while left > 0 {
        let page = LetterFilter { limit: Some(left.min(PAGE)), below, ..filter.clone() };
        let letters: Vec<Letter> = store.letters(&page).await.map_err(|error: StoreError| Stop::from(error))?;
        let Some(last) = letters.last() else { break };
        below = Some(last.number);
        left = left.saturating_sub(u32::try_from(letters.len()).unwrap_or(u32::MAX));
        letters.into_iter().try_for_each(&mut each)?;
    }
    Ok(())
}

/// Letters read at once: with bodies of up to 90 KiB, some 18 MiB.
const PAGE: u32 = 200;
