//! The configuration, read and checked: command line, environment, file, defaults.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;
use url::Url;

/// Everything herald can be told, with every value checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub instance: String,
    pub broker: Broker,
    pub ably: Ably,
    pub expo: Expo,
    pub users: Users,
    pub store: Store,
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
