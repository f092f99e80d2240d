//! Ably's REST API: who may do what, and the answers in Ably's shapes.
//!
//! Called by the server once a request is to take effect. The rules are those of the Ably specification and documentation;
//! where they differ, what the official clients need decides. Must never wait: everything is decided at once.

mod auth;
mod message;
mod presence;
mod publish;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::HeaderName;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    body::{Format, Problem},
    call::Call,
    control::Control,
    lock,
    magic::ItemFault,
    reply::Reply,
    route::Endpoint,
    settings::{Credential, default_credentials},
    window::{Memory, Rates},
};
use auth::Rights;

/// Ably's state: keys, presence, seen message ids, rates.
#[derive(Debug)]
pub(super) struct Ably {
    credentials: Mutex<HashMap<String, Arc<Credential>>>,
    presence: Mutex<presence::Presence>,
    channels: Mutex<Channels>,
}

#[derive(Debug)]
struct Channels {
    /// What was published under a channel and base id.
    seen: Memory<publish::Published>,
    rates: Rates,
    api: Rates,
    serial: u64,
}

/// Most message ids remembered for deduplication.
const MAX_SEEN: usize = 500_000;

impl Default for Ably {
    fn default() -> Self {
        let credentials = default_credentials().into_iter();
        Self {
            credentials: Mutex::new(credentials.map(|known| (known.secret.clone(), Arc::new(known))).collect()),
            presence: Mutex::default(),
            channels: Mutex::new(Channels {
                seen: Memory::new(MAX_SEEN),
                rates: Rates::default(),
                api: Rates::default(),
                serial: 0,
            }),
        }
    }
}

impl Ably {
    pub fn add_credential(&self, credential: Credential) {
        lock(&self.credentials).insert(credential.secret.clone(), Arc::new(credential));
    }

    pub fn enter(&self, channel: &str, client_id: &str, connection: Option<&str>, data: Option<String>) -> String {
        lock(&self.presence).enter(channel, client_id, connection, data)
    }

    pub fn leave(&self, channel: &str, client_id: &str, connection: Option<&str>) -> usize {
        lock(&self.presence).leave(channel, client_id, connection)
    }
}

/// Why a request or one of its items is refused: HTTP status, Ably code, text.
#[derive(Debug, Clone, PartialEq)]
struct Refusal(u16, u32, String);

impl Refusal {
    fn new(status: u16, code: u32, message: &str) -> Self {
        Self(status, code, message.to_owned())
    }

    /// Returns the error as it stands in a body.
    fn value(&self) -> Value {
        let Self(status, code, message) = self;
        json!({"code": code, "statusCode": status, "message": message, "href": format!("https://help.ably.io/error/{code}")})
    }

    fn reply(&self, format: Format) -> Reply {
        // A header takes visible ASCII only.
        let message = self.2.chars().map(|c| if c.is_ascii() && !c.is_control() { c } else { '?' });
        Reply::new(self.0, json!({"error": self.value()}), format)
            .with_header(HeaderName::from_static("x-ably-errorcode"), self.1.to_string())
            .with_header(HeaderName::from_static("x-ably-errormessage"), message.collect())
    }
}

impl From<ItemFault> for Refusal {
    fn from(fault: ItemFault) -> Self {
        match fault {
            ItemFault::Denied => Self::new(401, 40160, "action not permitted (asked for by the channel's name)"),
            ItemFault::Throttled => Self::new(429, 42913, "channel message rate limit exceeded"),
            ItemFault::Rejected => {
                Self::new(422, 42211, "message rejected by a rule (asked for by the channel's name)")
            }
        }
    }
}

/// What is known of the caller before its request is looked at.
struct Caller {
    rights: Rights,
    /// The format of the answer.
    format: Format,
    /// `X-Ably-Version`; 1 when absent: the legacy shapes.
    version: u32,
}

/// Returns Ably's answer to `call`, which takes effect by being answered.
pub(super) fn answer(control: &Control, call: &Call) -> Reply {
    let format = accepted(call);
    let reply = decide(control, call, format).unwrap_or_else(|refusal| refusal.reply(format));
    reply.with_header(HeaderName::from_static("x-ably-serverid"), "sandbox.frontend.0".to_owned())
}

/// Returns the answer Ably gives with `status` when it is not well.
pub(super) fn failure(status: u16) -> Reply {
    let (code, message) = match status {
        401 => (40101, "invalid credentials"),
        403 => (40300, "forbidden"),
        404 => (40400, "not found"),
        429 => (42918, "account API request rate limit exceeded"),
        400..500 => (u32::from(status) * 100, "bad request"),
        502 => (50210, "bad gateway"),
        503 => (50310, "service unavailable"),
        504 => (50410, "gateway timeout"),
        _ => (50000, "internal error"),
    };
    Refusal::new(status, code, message).reply(Format::Json)
}

fn decide(control: &Control, call: &Call, format: Format) -> Result<Reply, Refusal> {
    let version = version(call)?;
    if call.route.endpoint == Endpoint::Time {
        return Ok(Reply::new(200, json!([Timestamp::now().as_millisecond()]), Format::Json));
    }
    if call.route.endpoint == Endpoint::Other {
        return Err(Refusal(404, 40400, format!("no such endpoint: {} {}", call.method, call.path)));
    }
    let rights = auth::authenticate(&lock(&control.ably().credentials), call)?;
    let limit = control.settings().api_rate;
    if !lock(&control.ably().channels).api.admit("", 1, limit, Instant::now()) {
        return Err(Refusal::new(429, 42918, "account API request rate limit exceeded"));
    }
    let caller = Caller { rights, format, version };
    match call.route.endpoint {
        Endpoint::Publish => publish::single(control, call, &caller),
        Endpoint::BatchPublish => publish::batch(control, call, &caller),
        Endpoint::Presence => presence::single(control, call, &caller),
        Endpoint::BatchPresence => presence::batch(control, call, &caller),
        _ => presence::channel(control, call, &caller),
    }
}

/// Returns the format to answer in: `Accept` before `format`, JSON when neither says anything known.
fn accepted(call: &Call) -> Format {
    let named = call.header("accept").split(',').find_map(Format::of);
    let by_param = || match call.param("format") {
        Some("msgpack") => Some(Format::Msgpack),
        _ => None,
    };
    named.or_else(by_param).unwrap_or(Format::Json)
}

fn version(call: &Call) -> Result<u32, Refusal> {
    let declared = match call.header("x-ably-version") {
        "" => call.param("v").unwrap_or("1.1"),
        version => version,
    };
    // Old clients send `1.2`, newer ones an integer.
    let major = declared.split('.').next().unwrap_or_default();
    let version = major.parse().ok().filter(|version| (1..=6).contains(version));
    version.ok_or_else(|| Refusal(400, 40017, format!("unsupported protocol version {declared}")))
}

/// Returns the request's body as a value.
fn body_of(call: &Call, cap: usize) -> Result<Value, Refusal> {
    match call.problem {
        Some(Problem::TooLarge) => return Err(Refusal::new(413, 40009, "request body too large")),
        Some(Problem::Gzip) => return Err(Refusal::new(400, 40000, "request body is not gzip")),
        Some(Problem::Incomplete) => return Err(Refusal::new(408, 40800, "request body did not arrive")),
        None => {}
    }
    if call.body.len() > cap {
        return Err(Refusal(413, 40009, format!("request body of {} bytes exceeds {cap}", call.body.len())));
    }
    let format = call.format().ok_or_else(|| Refusal::new(400, 40000, "unsupported content type"))?;
    format.decode(&call.body).map_err(|error| Refusal(400, 40000, format!("invalid request body: {error}")))
}

/// Checks a channel's name.
fn check_channel(name: &str) -> Result<(), Refusal> {
    let legal = !name.is_empty() && name.len() < 2048 && !name.starts_with(['[', ':']) && !name.contains('\n');
    if legal { Ok(()) } else { Err(Refusal(400, 40010, format!("invalid channel name: {name:?}"))) }
}

/// Returns how long a message id is remembered.
fn dedupe_life(control: &Control) -> Duration {
    Duration::from_secs(control.settings().dedupe_seconds)
}
