//! From values found to a checked [`Config`]: every key read once, by name, with its rule.
//!
//! Called by `load`. A value that breaks its rule is reported, and its default stands in for it so that reading goes on: all
//! problems are told in one go.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use url::Url;

use crate::domain::parse_duration;

use super::{
    Ably, Broker, Catalogue, Config, Dead, Expo, Http, Log, LogFormat, OnUnknown, Otlp, Outbox, Presence, Receipts,
    Retry, Sandbox, Shutdown, Store, Users, UsersUrl,
    problem::Problem,
    sources::{SENSITIVE, Sources, variable},
    value::Raw,
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
/// The longest `x-message-ttl`: RabbitMQ's timers hold 32 bits of milliseconds.
const LONGEST_TTL: Duration = Duration::from_secs(49 * 86_400);
const LONGEST: Duration = Duration::from_secs(3_650 * 86_400);
const MILLI: Duration = Duration::from_millis(1);
/// The longest filter of log lines, in bytes.
const MAX_FILTER: usize = 1024;

/// Reads every key.
pub(super) fn build(sources: &Sources, problems: &mut Vec<Problem>) -> Config {
    let mut read = Reader { sources, problems };
    let config = Config {
        instance: read.value("instance", instance),
        broker: Broker {
            url: read.value("broker.url", |raw| secret_url(raw, &["amqp", "amqps"])),
            ca_file: read.optional("broker.ca_file", |raw| raw.text().map(PathBuf::from)),
            prefix: read.value("broker.prefix", prefix),
            prefetch: read.value("broker.prefetch", prefetch),
            management_url: read.optional("broker.management_url", |raw| secret_url(raw, &["http", "https"])),
        },
        ably: Ably {
            url: read.value("ably.url", |raw| raw.url(&["https", "http"])),
            key: read.optional("ably.key", ably_key),
            timeout: read.value("ably.timeout", timeout),
            session_channel: read.value("ably.session_channel", template),
            presence_channel: read.value("ably.presence_channel", template),
        },
        expo: Expo {
            url: read.value("expo.url", |raw| raw.url(&["https", "http"])),
            access_token: read.optional("expo.access_token", header_secret),
            timeout: read.value("expo.timeout", timeout),
            rate: read.value("expo.rate", |raw| raw.integer(1, 100_000)),
            unknown_repeats: read.value("expo.unknown_repeats", |raw| raw.integer(0, 100)),
            unregistered_share: read.value("expo.unregistered_share", Raw::share),
        },
        users: Users {
            url: read.optional("users.url", users_url).unwrap_or(UsersUrl::Missing),
            query: read.value("users.query", |raw| sql(raw, &["$1"])),
            clear: read.value("users.clear", |raw| sql(raw, &["$1", "$2"])),
        },
        store: Store {
            url: read.value("store.url", |raw| secret_url(raw, &DATABASES)),
            retention: read.value("store.retention", |raw| raw.duration(SECOND, LONGEST)),
        },
        outbox: Outbox {
            url: read.optional("outbox.url", |raw| secret_url(raw, &POSTGRES)),
            table: read.value("outbox.table", table),
            retention: read.value("outbox.retention", |raw| raw.duration(Duration::ZERO, LONGEST)),
            poll: read.value("outbox.poll", |raw| raw.duration(10 * MILLI, Duration::from_secs(3_600))),
            batch: read.value("outbox.batch", |raw| raw.integer(1, 1_000)),
        },
        dead: Dead { retention: read.value("dead.retention", |raw| raw.duration(SECOND, LONGEST_TTL)) },
        receipts: Receipts { after: read.value("receipts.after", |raw| raw.duration(Duration::ZERO, DAY - SECOND)) },
        presence: Presence {
            on_unknown: read.value("presence.on_unknown", |raw| {
                one_of(raw, &[("push", OnUnknown::Push), ("retry", OnUnknown::Retry)])
            }),
        },
        retry: Retry { schedule: read.value("retry.schedule", schedule) },
        shutdown: Shutdown {
            grace: read.value("shutdown.grace", |raw| raw.duration(Duration::ZERO, Duration::from_secs(3_600))),
        },
        http: Http {
            listen: read.value("http.listen", Raw::address),
            token: read.optional("http.token", header_secret),
        },
        catalogue: Catalogue { path: read.value("catalogue.path", path) },
        log: Log {
            format: read
                .value("log.format", |raw| one_of(raw, &[("text", LogFormat::Text), ("json", LogFormat::Json)])),
            level: read.value("log.level", level),
        },
        otlp: Otlp { endpoint: read.optional("otlp.endpoint", |raw| secret_url(raw, &["http", "https"])) },
        sandbox: Sandbox { listen: read.value("sandbox.listen", Raw::address) },
    };
    read.check_together(&config);
    config
}

struct Reader<'a> {
    sources: &'a Sources,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    /// Reads `key` by its rule; on a problem the default stands in.
    fn value<T>(&mut self, key: &str, rule: impl Fn(&Raw) -> Result<T, String>) -> T {
        if let Some(found) = self.sources.found.get(key) {
            match rule(&found.raw) {
                Ok(value) => return value,
                Err(problem) => self.report(key, &problem, true),
            }
        }
        let default = self.sources.defaults.get(key).expect("the reference has every key: tests read them all");
        rule(default).expect("every default keeps its rule: tests read them all")
    }

    /// Reads a key that may be left empty.
    fn optional<T>(&mut self, key: &str, rule: impl Fn(&Raw) -> Result<T, String>) -> Option<T> {
        self.value(key, |raw| if raw.is_empty() { Ok(None) } else { rule(raw).map(Some) })
    }

    fn report(&mut self, key: &str, problem: &str, quote: bool) {
        let found = self.sources.found.get(key);
        let shown = found.filter(|_| quote && !SENSITIVE.contains(&key)).map(|found| found.raw.display());
        let not = shown.map_or(String::new(), |shown| format!(", not {:?}", crate::domain::redact(&shown)));
        self.problems.push(Problem {
            key: key.to_owned(),
            variable: found.and_then(|found| found.variable.clone()).or_else(|| variable(key)),
            place: found.and_then(|found| found.place.clone()),
            problem: format!("{problem}{not}"),
        });
    }

    /// Checks what only two keys together can break.
    fn check_together(&mut self, config: &Config) {
        let basic = config.ably.key.as_ref().is_some_and(is_api_key);
        if basic && config.ably.url.scheme() == "http" && !is_loopback(&config.ably.url) {
            let problem = "an API key goes over plain http only to a loopback address; use https:// or a token";
            self.report("ably.url", problem, false);
        }
    }
}

/// Tells whether `key` is an API key (Basic) rather than a token (Bearer).
fn is_api_key(key: &SecretString) -> bool {
    use secrecy::ExposeSecret;
    key.expose_secret().contains(':')
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// `file:` is how Prisma writes SQLite.
const DATABASES: [&str; 4] = ["postgres", "postgresql", "sqlite", "file"];
const POSTGRES: [&str; 2] = ["postgres", "postgresql"];

fn secret_url(raw: &Raw, schemes: &[&str]) -> Result<SecretString, String> {
    raw.url(schemes)?;
    raw.text().map(SecretString::from)
}

fn instance(raw: &Raw) -> Result<String, String> {
    let name = raw.text()?;
    let name = match name.as_str() {
        "" => hostname::get().map_or_else(|_| "herald".to_owned(), |name| name.to_string_lossy().into_owned()),
        _ => name,
    };
    let fine = name.len() <= 128 && !name.contains(|c: char| c.is_control() || c.is_whitespace());
    if fine { Ok(name) } else { Err("must be at most 128 bytes without spaces".to_owned()) }
}

/// Queue names are at most 255 bytes and the longest suffix is well under 100; `amq.` is the broker's own.
fn prefix(raw: &Raw) -> Result<String, String> {
    let prefix = raw.text()?;
    let characters = prefix.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if (1..=100).contains(&prefix.len()) && characters && !prefix.starts_with("amq.") {
        return Ok(prefix);
    }
    Err("must be 1 to 100 letters, digits, dots, dashes or underscores, and not begin with `amq.`".to_owned())
}

fn prefetch(raw: &Raw) -> Result<u16, String> {
    let prefetch = raw.integer(1, u32::from(u16::MAX))?;
    u16::try_from(prefetch).map_err(|error| error.to_string())
}

fn timeout(raw: &Raw) -> Result<Duration, String> {
    // Nothing stays in hand for more than five minutes, so no single request may either.
    raw.duration(MILLI, Duration::from_secs(300))
}

/// The form that Ably's own SDKs accept (`app.key:secret`), or a token, which has no colon.
fn ably_key(raw: &Raw) -> Result<SecretString, String> {
    let key = raw.text()?;
    let fine = match key.split_once(':') {
        Some((name, secret)) => !name.is_empty() && !secret.is_empty() && !secret.contains([':', '.']),
        None => true,
    };
    if fine && key.chars().all(|c| c.is_ascii_graphic()) {
        return Ok(SecretString::from(key));
    }
    Err("must be an API key as Ably shows it (app.key:secret), or a token".to_owned())
}

fn header_secret(raw: &Raw) -> Result<SecretString, String> {
    let secret = raw.text()?;
    let fine = secret.chars().all(|c| c.is_ascii_graphic());
    if fine { Ok(SecretString::from(secret)) } else { Err("must be one line of ASCII without spaces".to_owned()) }
}

fn template(raw: &Raw) -> Result<String, String> {
    let template = raw.text()?;
    let rest = template.replace("{sessionId}", "");
    if rest.len() == template.len() || rest.contains(['{', '}']) {
        return Err("must contain {sessionId}, and no other braces".to_owned());
    }
    Ok(template)
}

fn users_url(raw: &Raw) -> Result<UsersUrl, String> {
    if raw.text()? == "none" {
        return Ok(UsersUrl::None);
    }
    secret_url(raw, &DATABASES).map(UsersUrl::Url).map_err(|problem| format!("{problem}, or `none` for realtime only"))
}

fn sql(raw: &Raw, placeholders: &[&str]) -> Result<String, String> {
    let sql = raw.text()?;
    match placeholders.iter().find(|placeholder| !sql.is_empty() && !sql.contains(*placeholder)) {
        Some(missing) => Err(format!("must use {missing}")),
        None => Ok(sql),
    }
}

/// A table, with or without its schema. PostgreSQL cuts longer names off.
fn table(raw: &Raw) -> Result<String, String> {
    let table = raw.text()?;
    let fine = |name: &str| (1..=63).contains(&name.len()) && !name.contains(|c: char| c.is_control() || c == '"');
    let parts: Vec<&str> = table.split('.').collect();
    if parts.len() <= 2 && parts.iter().all(|part| fine(part)) {
        return Ok(table);
    }
    Err("must be a table's name, or schema and name with a dot between, without quotes".to_owned())
}

fn schedule(raw: &Raw) -> Result<Vec<Duration>, String> {
    let delays = raw.list()?.iter().map(|delay| parse_duration(delay)).collect::<Result<Vec<_>, _>>()?;
    if !(1..=20).contains(&delays.len()) {
        return Err("must have 1 to 20 delays".to_owned());
    }
    // Ascending delays have different names, too: the name is the delay.
    if !delays.is_sorted_by(|shorter, longer| shorter < longer) {
        return Err("must have its shortest delay first and each only once".to_owned());
    }
    if delays.iter().any(|delay| !(MILLI..=LONGEST_TTL).contains(delay)) {
        return Err("must have delays from 1ms to 49d".to_owned());
    }
    Ok(delays)
}

fn path(raw: &Raw) -> Result<PathBuf, String> {
    let path = raw.text()?;
    if path.is_empty() { Err("must be a path".to_owned()) } else { Ok(PathBuf::from(path)) }
}

fn level(raw: &Raw) -> Result<String, String> {
    raw.text().and_then(|level| log_filter(&level))
}

/// Returns `level` if it is a level or a filter of levels; the error says what would be right.
pub fn log_filter(level: &str) -> Result<String, String> {
    let filter = tracing_subscriber::EnvFilter::builder().parse(level);
    let problem = "must be error, warn, info, debug, trace, or a filter such as \"info,herald::worker=debug\"";
    // A bare word that is no level would be taken for the name of a crate, and switch everything off.
    let word = !level.contains(['=', ',']) && level.parse::<tracing::level_filters::LevelFilter>().is_err();
    let wrong = filter.is_err() || word || level.is_empty() || level.len() > MAX_FILTER;
    if wrong { Err(problem.to_owned()) } else { Ok(level.to_owned()) }
}

fn one_of<T: Copy>(raw: &Raw, choices: &[(&str, T)]) -> Result<T, String> {
    let names = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(" or ");
    let text = raw.text()?;
    let chosen = choices.iter().find(|(name, _)| *name == text);
    chosen.map(|(_, choice)| *choice).ok_or_else(|| format!("must be {names}"))
}
