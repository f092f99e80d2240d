//! The record of what operators did: who, when, what, with what, how many, and how it ended.
//!
//! Kept by `store`, written by whatever an operator can do, read by `herald actions` and the page. Pure. No secret and no user's
//! id may stand in an action: [`user_mark`] names a user, [`parameters`] bounds the rest.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{bounded, redact};

/// Longest `parameters` of an action, in bytes of JSON.
const MAX_PARAMETERS: usize = 2048;
/// Entries of one array or object in them.
const MAX_ENTRIES: usize = 32;

/// What an operator did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    Pause,
    Resume,
    Hold,
    Release,
    LogLevel,
    Replay,
    Drop,
    Import,
    Forget,
    TestPush,
}

impl Deed {
    /// Returns the name as it stands in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Deed::Pause => "pause",
            Deed::Resume => "resume",
            Deed::Hold => "hold",
            Deed::Release => "release",
            Deed::LogLevel => "log_level",
            Deed::Replay => "replay",
            Deed::Drop => "drop",
            Deed::Import => "import",
            Deed::Forget => "forget",
            Deed::TestPush => "test_push",
        }
    }
}

/// One action as it stands in the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Newer actions have higher numbers.
    pub number: i64,
    /// Milliseconds since the epoch, by the store's clock.
    pub at: i64,
    pub who: String,
    /// A [`Deed`]'s name.
    pub what: String,
    pub why: Option<String>,
    pub parameters: Value,
    /// How many letters, rows or pushes it concerned; `None`: it is not counted, or not over yet.
    pub affected: Option<i64>,
    pub outcome: String,
}

/// The outcome of an action that has begun and not ended; of one that was cut off it stays.
pub const BEGUN: &str = "begun";

/// Returns the name of a user in the record of actions, which outlives the user.
pub fn user_mark(user: &str) -> String {
    format!("user:{}", &super::event::hash(["user", user])[..16])
}

/// Returns `value` fit to be kept: texts redacted and bounded, and as a whole never large.
pub fn parameters(value: &Value) -> Value {
    let kept = trimmed(value, 4);
    if kept.to_string().len() <= MAX_PARAMETERS { kept } else { json!({ "truncated": true }) }
}

fn trimmed(value: &Value, depth: usize) -> Value {
    match value {
        Value::String(text) => redact(text).into(),
        Value::Array(_) | Value::Object(_) if depth == 0 => "…".into(),
        Value::Array(items) => items.iter().take(MAX_ENTRIES).map(|item| trimmed(item, depth - 1)).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null()).take(MAX_ENTRIES);
            let fields = fields.map(|(key, value)| (bounded(key, 64), trimmed(value, depth - 1)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_small_and_without_secrets() {
        let given =
            json!({ "reason": "a\0b ExponentPushToken[x]", "limit": 3, "id": null, "in": [{ "a": { "b": [[1]] } }] });
        let kept = json!({ "reason": "a b [push token]", "limit": 3, "in": [{ "a": { "b": "…" } }] });
        assert_eq!(parameters(&given), kept);
        assert_eq!(
            parameters(&json!({ "long": "x".repeat(500) }))["long"].as_str().map(|text| text.len() <= 300),
            Some(true)
        );
        let many: Value = (0..1000).map(|n| format!("{n} {}", "x".repeat(200))).collect();
        assert_eq!(parameters(&many), json!({ "truncated": true }));
    }

    #[test]
    fn a_user_is_named_by_a_hash() {
        assert_ne!(user_mark("ada"), user_mark("bob"));
        assert!(!user_mark("ada").contains("ada") && user_mark("ada").len() == 21);
    }
}
