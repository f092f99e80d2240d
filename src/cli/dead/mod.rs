//! `herald dead`: the dead letters. Listing, showing and exporting read the index and never the queue; replay and drop walk the queue
//! itself, import adds to it.

mod list;
mod sweep;
mod import;

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
  herald dead list --group                          one line for each reason and event
  herald dead show 12                               one letter, by number or event id
  herald dead replay --event session.paused         what would be replayed
  herald dead replay --event session.paused --yes   replays it; Ctrl-C stops in order, again goes on
  herald dead drop --older 7d --yes
  herald dead export > letters.jsonl
  herald dead import letters.jsonl --yes            puts them back, but for those that are there";

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
        /// Only the counts: one line for each reason and event, the largest first
        #[arg(long, conflicts_with = "limit")]
        group: bool,
        /// Prints one JSON object for each letter, or group
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
    /// Puts exported letters back into the queue, each checked; those that lie there are left out
    Import {
        /// File of an export; - is standard input
        file: String,
        #[command(flatten)]
        act: Act,
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
    /// The recipient
    #[arg(long)]
    user: Option<String>,
    /// Failed longer ago than this, e.g. 1h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older: Option<std::time::Duration>,
    /// Failed within the last so long, e.g. 10m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    newer: Option<std::time::Duration>,
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
        let ago = |age: std::time::Duration| {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            now.as_millisecond().saturating_sub(age)
        };
        LetterFilter {
            id: self.id.clone(),
            reason: self.reason.clone(),
            event: self.event.clone(),
            session: self.session.clone(),
            user: self.user.clone(),
            failed_before: self.older.map(ago),
            failed_after: self.newer.map(ago),
            limit: self.limit,
            ..LetterFilter::default()
        }
    }
}

impl Act {
    /// Tells whether to go on after the preview; an error when nobody said so.
    fn decide(&self, verb: &str) -> Result<bool, Stop> {
        match (self.dry_run, self.yes) {
            (true, _) => Ok(false),
            (false, true) => Ok(true),
            (false, false) => Err(Stop::failed(format!("nothing was done; add --yes to {verb} them"))),
        }
    }
}

pub(super) async fn run(config: &Config, args: Args) -> Result<(), Stop> {
    let now = Timestamp::now();
    match args.command {
        Command::List { filter, group: true, json } => list::groups(config, &filter.letters(now), json, now).await,
        Command::List { filter, group: false, json } => list::list(config, &filter.letters(now), json, now).await,
        Command::Show { letter, filter, json } => list::show(config, letter, filter.letters(now), json).await,
        Command::Replay { filter, act, rate, ignore_expiry } => {
            sweep::replay(config, &filter.letters(now), &act, rate, ignore_expiry, now).await
        }
        Command::Drop { filter, act } => sweep::drop(config, &filter.letters(now), &act).await,
        Command::Export { filter } => list::export(config, &filter.letters(now)).await,
        Command::Import { file, act } => import::import(config, &file, &act, now).await,
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
