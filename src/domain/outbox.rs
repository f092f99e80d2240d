//! Rows of the outbox: which of them may be published now, in which order, as what, and which can never be.
//!
//! Called by the relay with what the table gave it. Pure. Must never let a row out while an earlier one of its session still
//! waits elsewhere, nor let through what the worker would call malformed.

mod pace;

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    bounded,
    event::{self, MAX_BODY, Malformed, Meta},
    redact,
};

pub use pace::{Next, Tally, next, pause};

/// Most bytes of `data` that are read, as PostgreSQL writes it: with spaces that the event goes without.
pub const MAX_DATA: usize = 2 * MAX_BODY;
/// Most characters that are read of any other text: enough to see that it is too long.
pub const MAX_TEXT: usize = 256;

/// A row as it stands in the table; texts are cut to [`MAX_TEXT`].
#[derive(Clone, Default, PartialEq)]
pub struct Row {
    pub seq: i64,
    pub id: Option<String>,
    pub session_id: Option<String>,
    pub event: Option<String>,
    pub partner_id: Option<String>,
    pub exclude_user_id: Option<String>,
    /// JSON; `None` when there is none, or more than [`MAX_DATA`].
    pub data: Option<String>,
    pub data_bytes: i64,
    /// Microseconds since the epoch, as all times here; `i64::MAX` for what PostgreSQL calls infinite.
    pub occurred_at: Option<i64>,
    pub expires_at: Option<i64>,
    pub created_at: Option<i64>,
    pub traceparent: Option<String>,
    /// Microseconds since it was written, by the database's clock.
    pub age: i64,
    /// An earlier row of its session waits and is not among those taken with it.
    pub behind: bool,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row").field("seq", &self.seq).field("id", &self.id).finish_non_exhaustive()
    }
}

/// What is to be published for a row.
#[derive(Clone, PartialEq)]
pub struct Outgoing {
    pub seq: i64,
    pub id: String,
    /// The event's name, which is its routing key.
    pub event: String,
    pub body: Vec<u8>,
    /// When the row was written, in seconds since the epoch.
    pub written_at: Option<u64>,
    pub traceparent: Option<String>,
    pub age: i64,
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("seq", &self.seq).field("id", &self.id).finish_non_exhaustive()
    }
}

/// A row that can never be published, and why: in the table's words, bounded and redacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    pub seq: i64,
    pub error: String,
}

/// What is to be done with the rows taken.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Sessions side by side; within one, each row after the one before it is confirmed.
    pub lanes: Vec<Vec<Outgoing>>,
    pub bad: Vec<Bad>,
    /// Rows left alone, because an earlier one of their session is somebody else's.
    pub behind: usize,
}

/// Decides about rows, which come in the order of `seq`.
pub fn plan(rows: Vec<Row>) -> Plan {
    let mut plan = Plan::default();
    let mut lanes: HashMap<Option<String>, usize> = HashMap::new();
    let mut blocked: HashSet<Option<String>> = HashSet::new();
    for row in rows {
        if row.behind || blocked.contains(&row.session_id) {
            plan.behind += 1;
            blocked.insert(row.session_id);
            continue;
        }
        match outgoing(&row) {
            Ok(outgoing) => {
                let lane = *lanes.entry(row.session_id).or_insert(plan.lanes.len());
                if lane == plan.lanes.len() {
                    plan.lanes.push(Vec::new());
                }
                plan.lanes[lane].push(outgoing);
            }
            Err(malformed) => plan.bad.push(Bad { seq: row.seq, error: redact(&malformed.to_string()) }),
        }
    }
    plan
}

/// Returns the message of a row, or what the worker would have against it, with the column's name.
fn outgoing(row: &Row) -> Result<Outgoing, Malformed> {
    let mut fields = Map::new();
    for (name, text) in [
        ("id", &row.id),
        ("sessionId", &row.session_id),
        ("event", &row.event),
        ("partnerId", &row.partner_id),
        ("excludeUserId", &row.exclude_user_id),
    ] {
        if let Some(text) = text {
            fields.insert(name.to_owned(), json!(text));
        }
    }
    fields.insert("data".to_owned(), data(row)?);
    for (name, column, micros) in
        [("occurredAt", "occurred_at", row.occurred_at), ("expiresAt", "expires_at", row.expires_at)]
    {
        if let Some(micros) = micros {
            fields.insert(name.to_owned(), json!(time(column, micros)?));
        }
    }
    let body = Value::Object(fields).to_string().into_bytes();
    let event = event::decode(&body, &Meta::default()).map_err(in_columns)?;
    Ok(Outgoing {
        seq: row.seq,
        id: event.id,
        event: event.name,
        body,
        written_at: row.created_at.and_then(|micros| u64::try_from(micros / 1_000_000).ok()),
        traceparent: row.traceparent.clone().filter(|text| is_traceparent(text)),
        age: row.age,
    })
}

fn data(row: &Row) -> Result<Value, Malformed> {
    let Some(text) = &row.data else {
        return match usize::try_from(row.data_bytes) {
            Ok(bytes) if bytes > 0 => {
                let problem = format!("has {bytes} bytes; at most {MAX_BODY} are accepted for the whole event");
                Err(Malformed { field: "data", problem })
            }
            _ => Ok(Value::Null),
        };
    };
    serde_json::from_str(text).map_err(|error| Malformed {
        field: "data",
        problem: format!("cannot be read: {}", redact(&error.to_string())),
    })
}

fn time(column: &'static str, micros: i64) -> Result<String, Malformed> {
    let problem = || Malformed { field: column, problem: "is no time between the years 0 and 9999".to_owned() };
    let time = Timestamp::from_microsecond(micros).map_err(|_| problem())?;
    // RFC 3339 has no sign before the year.
    let text = time.to_string();
    if text.starts_with('-') { Err(problem()) } else { Ok(text) }
}

/// Names the column instead of the message's field.
fn in_columns(malformed: Malformed) -> Malformed {
    let field = match malformed.field {
        "sessionId" => "session_id",
        "partnerId" => "partner_id",
        "excludeUserId" => "exclude_user_id",
        "body" => "row",
        other => other,
    };
    Malformed { field, ..malformed }
}

/// Tells whether `text` is a W3C trace context of version 00. Any other is left out: a trace must not cost the event.
fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let parts: Vec<&str> = text.split('-').collect();
    match parts[..] {
        ["00", trace, span, flags] => {
            hex(trace, 32)
                && hex(span, 16)
                && hex(flags, 2)
                && trace.bytes().any(|byte| byte != b'0')
                && span.bytes().any(|byte| byte != b'0')
        }
        _ => false,
    }
}

/// Returns the first mistakes of `bad` as one line for the log.
pub fn in_words(bad: &[Bad]) -> String {
    let shown = bad.iter().take(3).map(|bad| format!("seq {}: {}", bad.seq, bad.error)).collect::<Vec<_>>();
    bounded(&shown.join("; "), 600)
}

#[cfg(test)]
mod tests;
