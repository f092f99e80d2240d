//! The configuration: command line, environment, file, defaults; read key by key, and everything wrong told in one go.
//!
//! Called by every command. The compiled-in reference `config/herald.toml` is the one list of keys and defaults. Secrets are
//! [`SecretString`]s and stand in no error, no `Debug` and no warning.

mod build;
mod problem;
mod sources;
mod value;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::SecretString;
use url::Url;

pub use build::log_filter;
pub use problem::{Problem, Problems};
pub use sources::Inputs;

/// Where the configuration file is looked for when nobody names one.
pub const DEFAULT_PATH: &str = "config/herald.toml";
/// Every key with its default and a comment.
pub const REFERENCE: &str = include_str!("../../config/herald.toml");
/// Where the catalogue is looked for when nobody names one.
const DEFAULT_CATALOGUE: &str = "config/messages.toml";
/// The catalogue herald ships.
pub const MESSAGES: &str = include_str!("../../config/messages.toml");

/// A configuration that is whole, and what to tell about how it came to be.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// Conflicts between two sources: which is used, which says something else.
    pub warnings: Vec<String>,
    /// The file that was read; `None`: the compiled-in text alone.
    pub file: Option<PathBuf>,
}

/// Reads the configuration, or tells everything that is wrong with it.
pub fn load(inputs: &Inputs) -> Result<Loaded, Problems> {
    match examine(inputs) {
        (loaded, problems) if problems.is_empty() => Ok(loaded),
        (_, problems) => Err(Problems(problems)),
    }
}

/// Reads the configuration for `herald check`, which goes on beside the problems: where one is, the default stands.
pub fn examine(inputs: &Inputs) -> (Loaded, Vec<Problem>) {
    let mut sources = sources::gather(inputs);
    let mut problems = std::mem::take(&mut sources.problems);
    let config = build::build(&sources, &mut problems);
    (Loaded { config, warnings: sources.warnings, file: sources.file }, problems)
}

impl Config {
    /// Tells what `run` cannot do without: an Ably key, and a decision about push tokens.
    pub fn complete(&self) -> Result<(), Problems> {
        let mut problems = Vec::new();
        if self.ably.key.is_none() {
            problems.push(missing(
                "ably.key",
                "ABLY_API_KEY",
                "not set; put an Ably API key with publish and subscribe there. Without an account: start `herald sandbox`, \
                 set ably.url and expo.url to its address and ABLY_API_KEY to the key it prints",
            ));
        }
        if matches!(self.users.url, UsersUrl::Missing) {
            problems.push(missing(
                "users.url",
                "DATABASE_URL",
                "not set; put the URL of the app's database with the push tokens there (postgres:// or sqlite://), or \
                 `none` for realtime only",
            ));
        }
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }
}

fn missing(key: &str, variable: &str, problem: &str) -> Problem {
    let variable = Some(variable.to_owned());
    Problem { key: key.to_owned(), variable, place: None, problem: problem.to_owned() }
}

impl Catalogue {
    /// Returns the catalogue's text: the file's, or the compiled-in one when the default file is absent.
    pub fn read(&self) -> Result<String, Problems> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.path == Path::new(DEFAULT_CATALOGUE) => {
                Ok(MESSAGES.to_owned())
            }
            Err(error) => Err(Problems(vec![missing(
                "catalogue.path",
                "HERALD_CATALOGUE__PATH",
                &format!("{} cannot be read: {error}", self.path.display()),
            )])),
        }
    }

    /// Returns the catalogue, or every mistake in it with file, line and key.
    pub fn load(&self) -> Result<crate::domain::catalogue::Catalogue, Problems> {
        crate::domain::catalogue::Catalogue::parse(&self.read()?).map_err(|mistakes| {
            let place = |line: usize| Some(format!("{} line {line}", self.path.display()));
            let problem = |mistake: crate::domain::catalogue::Mistake| Problem {
                key: mistake.key,
                variable: None,
                place: place(mistake.line),
                problem: mistake.problem,
            };
            Problems(mistakes.into_iter().map(problem).collect())
        })
    }
}

/// Everything herald can be told, with every value checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub instance: String,
    pub broker: Broker,
    pub ably: Ably,
    pub expo: Expo,
    pub users: Users,
    pub store: Store,
    pub outbox: Outbox,
    pub dead: Dead,
    pub receipts: Receipts,
    pub presence: Presence,
    pub retry: Retry,
    pub shutdown: Shutdown,
    pub http: Http,
    pub catalogue: Catalogue,
    pub log: Log,
    pub otlp: Otlp,
    pub sandbox: Sandbox,
}

#[derive(Debug, Clone)]
pub struct Broker {
    /// AMQP URL with credentials.
    pub url: SecretString,
    pub ca_file: Option<PathBuf>,
    pub prefix: String,
    pub prefetch: u16,
    pub management_url: Option<SecretString>,
}

#[derive(Debug, Clone)]
pub struct Ably {
    pub url: Url,
    /// `None`: not configured; `run` refuses to start.
    pub key: Option<SecretString>,
    pub timeout: Duration,
    /// Template with `{sessionId}`.
    pub session_channel: String,
    pub presence_channel: String,
}

#[derive(Debug, Clone)]
pub struct Expo {
    pub url: Url,
    pub access_token: Option<SecretString>,
    pub timeout: Duration,
    /// Notifications a second, over all live workers.
    pub rate: u32,
    pub unknown_repeats: u32,
    /// Share of devices said to be gone above which no push token is cleared, 0 to 1.
    pub unregistered_share: f64,
}

/// Where push tokens come from.
#[derive(Debug, Clone)]
pub enum UsersUrl {
    /// Not configured; `run` refuses to start.
    Missing,
    /// `none` written out: realtime only.
    None,
    Url(SecretString),
}

#[derive(Debug, Clone)]
pub struct Users {
    pub url: UsersUrl,
    pub query: String,
    pub clear: String,
}

#[derive(Debug, Clone)]
pub struct Store {
    pub url: SecretString,
    pub retention: Duration,
}

/// The backend's table of events, which `herald outbox` relays.
#[derive(Debug, Clone)]
pub struct Outbox {
    /// `None`: the users' database.
    pub url: Option<SecretString>,
    /// Name, or schema and name with a dot between.
    pub table: String,
    /// How long a relayed row stays; zero: it is deleted at once.
    pub retention: Duration,
    pub poll: Duration,
    pub batch: u32,
}

#[derive(Debug, Clone)]
pub struct Dead {
    pub retention: Duration,
}

#[derive(Debug, Clone)]
pub struct Receipts {
    pub after: Duration,
}

/// What to do with an event whose recipient's presence is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnknown {
    Push,
    Retry,
}

#[derive(Debug, Clone)]
pub struct Presence {
    pub on_unknown: OnUnknown,
}

#[derive(Debug, Clone)]
pub struct Retry {
    /// Delays, shortest first, never empty.
    pub schedule: Vec<Duration>,
}

#[derive(Debug, Clone)]
pub struct Shutdown {
    pub grace: Duration,
}

#[derive(Debug, Clone)]
pub struct Http {
    pub listen: SocketAddr,
    pub token: Option<SecretString>,
}

#[derive(Debug, Clone)]
pub struct Catalogue {
    pub path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone)]
pub struct Log {
    pub format: LogFormat,
    /// A `tracing` filter such as `info` or `herald=debug`.
    pub level: String,
}

#[derive(Debug, Clone)]
pub struct Otlp {
    pub endpoint: Option<SecretString>,
}

#[derive(Debug, Clone)]
pub struct Sandbox {
    pub listen: SocketAddr,
}
