//! A dead letter as the page shows it: why it is one, and what it carries by name and size. Values of a producer's data and
//! headers stay where they are.
//!
//! Called by the API. Pure.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::{
    broker::marks::HEADERS,
    domain::{bounded, ledger::Letter, redact},
};

/// Fields and headers shown.
const MOST: usize = 60;
/// Fields of the message whose values are ids and names.
const NAMES: [&str; 5] = ["id", "sessionId", "event", "partnerId", "excludeUserId"];
const TIMES: [&str; 2] = ["occurredAt", "expiresAt"];

/// A letter of a listing: without headers and body.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub number: i64,
    pub id: String,
    pub session_id: Option<String>,
    pub partner_id: Option<String>,
    pub event: Option<String>,
    pub reason: String,
    pub error: String,
    pub route: Option<String>,
    pub attempt: u32,
    pub replay: u32,
    /// Milliseconds since the epoch.
    pub failed_at: i64,
    pub first_seen: Option<i64>,
}

/// A letter, as far as it is shown.
#[derive(Debug, Serialize)]
pub struct Shown {
    #[serde(flatten)]
    pub summary: Summary,
    /// herald's own headers.
    pub headers: BTreeMap<String, String>,
    pub other_headers: Vec<Sized>,
    pub content_type: Option<String>,
    pub body: Body,
}

/// A header by name and size.
#[derive(Debug, PartialEq, Serialize)]
pub struct Sized {
    pub name: String,
    pub bytes: usize,
}

/// What a body is made of.
#[derive(Debug, PartialEq, Serialize)]
pub struct Body {
    pub bytes: i64,
    /// What it is, as words.
    pub kind: &'static str,
    pub fields: Vec<Field>,
}

/// A field of a body; `data.x` is one of the payload.
#[derive(Debug, PartialEq, Serialize)]
pub struct Field {
    pub name: String,
    pub kind: &'static str,
    /// Of the value as JSON.
    pub bytes: usize,
    /// Ids, names and times only.
    pub value: Option<String>,
}

impl Summary {
    pub fn of(letter: &Letter) -> Summary {
        Summary {
            number: letter.number,
            id: letter.id.clone(),
            session_id: letter.session_id.clone(),
            partner_id: letter.partner_id.clone(),
            event: letter.event.clone(),
            reason: letter.reason.clone(),
            error: redact(&letter.error),
            route: letter.route.clone(),
            attempt: letter.attempt,
            replay: letter.replay,
            failed_at: letter.failed_at,
            first_seen: letter.first_seen,
        }
    }
}

impl Shown {
    pub fn of(letter: &Letter) -> Shown {
        let all = letter.headers.as_object().into_iter().flatten();
        let (own, others): (Vec<_>, Vec<_>) = all.partition(|(name, _)| HEADERS.contains(&name.as_str()));
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Shown {
            summary: Summary::of(letter),
            headers: own.into_iter().map(|(name, value)| (name.clone(), redact(&text(value)))).collect(),
            other_headers: others.into_iter().take(MOST).map(|(name, value)| sized(name, value)).collect(),
            content_type: letter.content_type.as_deref().map(redact),
            body: body(&BASE64_STANDARD.decode(&letter.body).unwrap_or_default(), letter.body_bytes),
        }
    }
}

fn sized(name: &str, value: &Value) -> Sized {
    let bytes = value.as_str().map_or_else(|| value.to_string().len(), str::len);
    Sized { name: shown(name), bytes }
}

fn shown(name: &str) -> String {
    bounded(&redact(name), 64)
}

fn body(kept: &[u8], bytes: i64) -> Body {
    let Ok(text) = std::str::from_utf8(kept) else { return Body { bytes, kind: "no UTF-8 text", fields: Vec::new() } };
    let fields = match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return Body { bytes, kind: "JSON, but no object", fields: Vec::new() },
        Err(_) => return Body { bytes, kind: "no JSON", fields: Vec::new() },
    };
    let mut told = Vec::new();
    for (name, value) in &fields {
        match value {
            Value::Object(data) if name == "data" && !data.is_empty() => {
                told.extend(data.iter().map(|(name, value)| field(&format!("data.{name}"), value)));
            }
            value => told.push(field(name, value)),
        }
    }
    told.truncate(MOST);
    Body { bytes, kind: "a JSON object", fields: told }
}

fn field(name: &str, value: &Value) -> Field {
    let harmless = |text: &&str| {
        NAMES.contains(&name) || (TIMES.contains(&name) && text.parse::<Timestamp>().is_ok() && text.len() <= 64)
    };
    Field {
        name: shown(name),
        kind: match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        },
        bytes: value.as_str().map_or_else(|| value.to_string().len(), str::len),
        value: value.as_str().filter(harmless).map(redact),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn letter(body: &[u8]) -> Letter {
        Letter {
            number: 1,
            id: "e1".into(),
            identity: None,
            session_id: None,
            partner_id: None,
            event: None,
            reason: "rejected".into(),
            error: "Bearer secret was refused".into(),
            route: None,
            attempt: 1,
            replay: 0,
            failed_at: 0,
            first_seen: None,
            headers: json!({
                "herald-id": "e1", "herald-attempt": 2, "herald-own": "secret", "authorization": "secret",
                "list": ["secret"],
            }),
            content_type: None,
            body: BASE64_STANDARD.encode(body),
            body_bytes: 99,
        }
    }

    #[test]
    fn values_are_shown_of_ids_names_and_times_only() {
        let body = json!({
            "id": "e1", "sessionId": {"k": "secret"}, "event": "a", "expiresAt": "Bearer secret",
            "occurredAt": "2026-05-01T10:00:00Z", "secretly": "secret",
            "data": {"note": "secret", "stage": 1, "id": "secret"},
        });
        let shown = Shown::of(&letter(body.to_string().as_bytes()));
        let told = serde_json::to_string(&shown).unwrap();
        assert!(!told.replace("secretly", "").contains("secret"), "{told}");
        let names: Vec<_> = shown.headers.keys().map(String::as_str).collect();
        assert_eq!(names, ["herald-attempt", "herald-id"]);
        assert_eq!(shown.other_headers.iter().find(|h| h.name == "authorization").map(|h| h.bytes), Some(6));
        let field = |name: &str| shown.body.fields.iter().find(|field| field.name == name).unwrap();
        assert_eq!(field("id").value.as_deref(), Some("e1"));
        assert_eq!(
            (field("data.note").kind, field("data.note").bytes, &field("data.note").value),
            ("string", 6, &None)
        );
        assert_eq!(field("occurredAt").value.as_deref(), Some("2026-05-01T10:00:00Z"));
        assert_eq!((field("expiresAt").value.clone(), field("sessionId").kind), (None, "object"));
    }

    #[test]
    fn what_is_no_object_says_so() {
        for (body, kind) in [
            (&b"\xff"[..], "no UTF-8 text"),
            (b"secret", "no JSON"),
            (b"\"secret\"", "JSON, but no object"),
            (b"{}", "a JSON object"),
        ] {
            let shown = Shown::of(&letter(body));
            assert_eq!((shown.body.kind, shown.body.bytes, shown.body.fields.len()), (kind, 99, 0));
        }
        let many: serde_json::Map<_, _> = (0..500).map(|n| (format!("f{n}"), json!(n))).collect();
        assert_eq!(Shown::of(&letter(json!(many).to_string().as_bytes())).body.fields.len(), MOST);
    }
}
