//! `herald explain`: what became of an event, and why, from the ledger.

mod render;

use jiff::Timestamp;

use crate::{config::Config, store::Find};

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
    let (what, name) = match (args.id, args.user, args.session) {
        (Some(id), ..) => (Find::Id(id.clone()), format!("the id `{id}`")),
        (_, Some(user), _) => (Find::User(user.clone()), format!("the user `{user}`")),
        (.., Some(session)) => (Find::Session(session.clone()), format!("the session `{session}`")),
        (None, None, None) => return Err(Stop::usage("explain: name an id, --user or --session")),
    };
    let entries = connect::store(config).await?.find(&what, args.limit).await?;
    if entries.is_empty() {
        let retention = crate::domain::retry::delay_name(config.store.retention);
        return Err(Stop::failed(format!(
            "nothing in the ledger for {name}: it was never received, is still queued (herald status), or ended more than \
             {retention} ago (store.retention)"
        )));
    }
    let now = Timestamp::now().as_millisecond();
    for (index, entry) in entries.iter().enumerate() {
        if args.json {
            output::json(entry)?;
        } else {
            output::line(&format!("{}{}", if index > 0 { "\n" } else { "" }, render::render(entry, now)))?;
        }
    }
    Ok(())
}
