//! `herald explain`: what became of an event, and why, from the ledger. What is said is decided in `domain::explain`.

mod render;

use jiff::Timestamp;

use crate::{
    config::Config,
    domain::explain::{self, About, Find},
};

use super::{connect, output, stop::Stop};

const EXAMPLES: &str = "\
Examples:
  herald explain 0197a3e2-…             one event, by its id
  herald explain --session s1           the newest events of a session
  herald explain --user u2 --limit 3    the newest events for a recipient";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, group(clap::ArgGroup::new("what").required(true).args(["id", "user", "session"])))]
pub(super) struct Args {
    /// The event's id
    id: Option<String>,
    /// Events for this recipient
    #[arg(long, value_name = "U")]
    user: Option<String>,
    /// Events of this session
    #[arg(long, value_name = "S")]
    session: Option<String>,
    /// At most so many, newest first
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
    /// Prints one JSON object for each event
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, args: Args) -> Result<(), Stop> {
    let what = match (args.id, args.user, args.session) {
        (Some(id), ..) => Find::Id(id),
        (_, Some(user), _) => Find::User(user),
        (.., Some(session)) => Find::Session(session),
        (None, None, None) => return Err(Stop::usage("explain: name an id, --user or --session")),
    };
    let findings = connect::store(config).await?.findings(&what, args.limit).await?;
    let now = Timestamp::now().as_millisecond();
    let topology = connect::topology(config);
    let about = About {
        now,
        events: &topology.events(),
        dead: &topology.dead(),
        schedule: &config.retry.schedule,
        retention: config.store.retention,
        receipts_after: config.receipts.after,
    };
    let answer = explain::answer(&what, findings, &about);
    if let Some(nothing) = answer.nothing {
        return Err(Stop::failed(nothing));
    }
    let mut told = Vec::new();
    for event in &answer.events {
        if args.json { output::json(event)? } else { told.push(render::render(event, now)) }
    }
    for letter in &answer.letters {
        if args.json { output::json(letter)? } else { told.push(render::render_letter(letter)) }
    }
    if told.is_empty() { Ok(()) } else { output::line(&told.join("\n\n")) }
}
