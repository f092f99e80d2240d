//! The session event: decoded from a message's bytes, with every reason a message can be malformed for.
//!
//! Called by the worker's second stop and by `herald send` (which refuses what the worker would refuse). Never panics,
//! whatever the bytes; never reads a clock: the times an event carries are compared by `judge` and `routing`.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// Largest body accepted, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// Longest identifier, in code points.
pub const MAX_CODE_POINTS: usize = 128;
/// Longest string, in bytes.
pub const MAX_STRING_BYTES: usize = 255;

/// A session event as its producer meant it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub id: String,
    pub session_id: String,
    /// The event's name, e.g. `partner.signed_compact`.
    pub name: String,
    /// The recipient; absent: publish on the session channel only.
    pub partner_id: Option<String>,
    /// Travels in the published data; this user is never pushed to.
    pub exclude_user_id: Option<String>,
    pub data: Map<String, Value>,
    pub occurred_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
}

/// What the broker says about a message beside its body.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meta<'a> {
    pub content_type: Option<&'a str>,
    pub message_id: Option<&'a str>,
}

/// Why a message cannot be read. `field` names the place, `problem` says what is wrong with it and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Malformed {
    pub field: &'static str,
    pub problem: String,
}
