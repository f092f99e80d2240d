//! The session event: decoded from a message's bytes, with every reason a message can be malformed for.
//!
//! Called by the worker's second stop and by `herald send` (which refuses what the worker would refuse). Never panics,
//! whatever the bytes; never reads a clock: the times an event carries are compared by `routing` and `judge`.

use jiff::Timestamp;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

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
    pub message_id: Option<&'a str>,
}

/// Why a message cannot be read. `field` names the place, `problem` says what is wrong with it and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Malformed {
    pub field: &'static str,
    pub problem: String,
}

impl Malformed {
    fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Malformed { field, problem: problem.into() }
    }
}

/// Reads an event from a message's body; the body wins over `message_id`. Unknown fields are ignored.
pub fn decode(body: &[u8], meta: &Meta<'_>) -> Result<Event, Malformed> {
    if body.is_empty() {
        return Err(Malformed::new("body", "is empty; expected a JSON object"));
    }
    if body.len() > MAX_BODY {
        return Err(Malformed::new("body", format!("has {} bytes; at most {MAX_BODY} are accepted", body.len())));
    }
    let text = std::str::from_utf8(body)
        .map_err(|error| Malformed::new("body", format!("is not UTF-8 from byte {}", error.valid_up_to())))?;
    let mut fields = match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => fields,
        Ok(other) => return Err(Malformed::new("body", format!("is {}; expected a JSON object", kind(&other)))),
        Err(error) => {
            return Err(Malformed::new("body", format!("is not JSON: {}", super::redact(&error.to_string()))));
        }
    };
    let id = match (identifier(&mut fields, "id")?, meta.message_id) {
        (Some(id), _) => id,
        (None, Some(message_id)) => {
            checked_identifier("message_id", message_id)?;
            message_id.to_owned()
        }
        (None, None) => {
            return Err(Malformed::new("id", "is missing, and the message has no message_id; set one of them"));
        }
    };
    Ok(Event {
        id,
        session_id: required(&mut fields, "sessionId")?,
        name: required(&mut fields, "event")?,
        partner_id: identifier(&mut fields, "partnerId")?,
        exclude_user_id: exclude_user_id(&mut fields)?,
        data: data(&mut fields)?,
        occurred_at: time(&mut fields, "occurredAt")?,
        expires_at: time(&mut fields, "expiresAt")?,
    })
}

impl Event {
    /// Returns the key of this event's identity: a hash of id, session and partner. The same identity again is a repeat.
    pub fn identity(&self) -> String {
        hash([self.id.as_str(), &self.session_id, self.partner_id.as_deref().unwrap_or("")])
    }

    /// Returns a hash of the content, by which a reused id is told from a repeat.
    pub fn fingerprint(&self) -> String {
        let data = Value::Object(self.data.clone()).to_string();
        let expires_at = self.expires_at.map(|at| at.to_string()).unwrap_or_default();
        hash([self.name.as_str(), self.exclude_user_id.as_deref().unwrap_or(""), &data, &expires_at])
    }

    /// Tells whether this event's recipient is the user it must not be pushed to.
    pub fn excludes_recipient(&self) -> bool {
        self.partner_id.is_some() && self.partner_id == self.exclude_user_id
    }
}

/// Returns the identity of a message that cannot be read, known only by `id`.
pub fn unreadable_identity(id: &str) -> String {
    hash(["unreadable", id])
}

/// Hashes the parts so that no two lists of parts give the same text by shifting bytes between them.
pub(super) fn hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn required(fields: &mut Map<String, Value>, name: &'static str) -> Result<String, Malformed> {
    identifier(fields, name)?.ok_or_else(|| Malformed::new(name, "is missing; expected a string"))
}

/// Takes an optional identifier; JSON null counts as absent.
fn identifier(fields: &mut Map<String, Value>, name: &'static str) -> Result<Option<String>, Malformed> {
    let text = string(fields, name)?;
    if let Some(text) = &text {
        checked_identifier(name, text)?;
    }
    Ok(text)
}

fn checked_identifier(name: &'static str, text: &str) -> Result<(), Malformed> {
    if text.is_empty() {
        return Err(Malformed::new(name, format!("is empty; expected 1 to {MAX_CODE_POINTS} characters")));
    }
    let code_points = text.chars().count();
    if code_points > MAX_CODE_POINTS {
        return Err(Malformed::new(
            name,
            format!("has {code_points} characters; at most {MAX_CODE_POINTS} are accepted"),
        ));
    }
    checked_string(name, text)
}

fn checked_string(name: &'static str, text: &str) -> Result<(), Malformed> {
    if text.len() > MAX_STRING_BYTES {
        return Err(Malformed::new(name, format!("has {} bytes; at most {MAX_STRING_BYTES} are accepted", text.len())));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(Malformed::new(name, format!("holds the control character U+{:04X}", c as u32))),
        None => Ok(()),
    }
}

/// Takes the excluded user; an empty string excludes nobody.
fn exclude_user_id(fields: &mut Map<String, Value>) -> Result<Option<String>, Malformed> {
    let text = string(fields, "excludeUserId")?.filter(|text| !text.is_empty());
    if let Some(text) = &text {
        checked_string("excludeUserId", text)?;
    }
    Ok(text)
}

fn string(fields: &mut Map<String, Value>, name: &'static str) -> Result<Option<String>, Malformed> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(Malformed::new(name, format!("is {}; expected a string", kind(&other)))),
    }
}

fn data(fields: &mut Map<String, Value>) -> Result<Map<String, Value>, Malformed> {
    match fields.remove("data") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(data)) => Ok(data),
        Some(other) => Err(Malformed::new("data", format!("is {}; expected an object", kind(&other)))),
    }
}

fn time(fields: &mut Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, Malformed> {
    let Some(text) = string(fields, name)? else { return Ok(None) };
    checked_string(name, &text)?;
    let time = if is_rfc3339(&text) { text.parse().ok() } else { None };
    time.map(Some).ok_or_else(|| {
        let shown = super::bounded(&super::redact(&text), 64);
        Malformed::new(name, format!("is `{shown}`; expected an RFC 3339 time such as 2026-01-31T12:00:00Z"))
    })
}

/// Tells whether `text` has the shape of an RFC 3339 time (section 5.6). The parser behind it also takes other forms of
/// ISO 8601, which another reader of the same event would refuse.
fn is_rfc3339(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let shape = |text: &str, shape: &str| {
        let fits = |(c, s): (char, char)| if s == '0' { c.is_ascii_digit() } else { c.eq_ignore_ascii_case(&s) };
        text.len() == shape.len() && text.chars().zip(shape.chars()).all(fits)
    };
    let (Some(seconds), Some(rest)) = (text.get(..19), text.get(19..)) else { return false };
    let zone = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let (fraction, zone) = rest.split_at(zone);
    (shape(seconds, "0000-00-00T00:00:00") || shape(seconds, "0000-00-00 00:00:00"))
        && (fraction.is_empty() || fraction.strip_prefix('.').is_some_and(digits))
        && (shape(zone, "Z") || shape(zone, "+00:00") || shape(zone, "-00:00"))
}

/// Names a JSON value's type, with its article.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn malformed(body: impl AsRef<[u8]>) -> String {
        decode(body.as_ref(), &Meta::default()).expect_err("malformed").to_string()
    }

    #[test]
    fn a_full_event_is_read_and_unknown_fields_are_ignored() {
        let body = json!({
            "id": "e1", "sessionId": "s1", "event": "partner.advanced", "partnerId": "p1", "excludeUserId": "u1",
            "data": {"toStage": 2}, "occurredAt": "2026-01-01T00:00:00Z", "expiresAt": "2026-01-02T00:00:00+01:00", "more": 1,
        });
        let event = decode(body.to_string().as_bytes(), &Meta { message_id: Some("m1") }).unwrap();
        assert_eq!(event.id, "e1");
        assert_eq!(event.partner_id.as_deref(), Some("p1"));
        assert_eq!(event.expires_at.unwrap().to_string(), "2026-01-01T23:00:00Z");
        assert_eq!(event.data["toStage"], 2);
    }

    #[test]
    fn the_message_id_stands_in_for_a_missing_id() {
        let body = br#"{"id":null,"sessionId":"s","event":"e","partnerId":null,"data":null,"excludeUserId":""}"#;
        let event = decode(body, &Meta { message_id: Some("m1") }).unwrap();
        assert_eq!((event.id.as_str(), event.partner_id, event.exclude_user_id), ("m1", None, None));
    }

    #[test]
    fn every_mistake_names_its_field() {
        let long = "x".repeat(129);
        for (body, expected) in [
            (String::new(), "body: is empty"),
            ("[]".into(), "body: is an array"),
            ("{".into(), "body: is not JSON"),
            (format!("{}1{}", "[".repeat(200), "]".repeat(200)), "body: is not JSON: recursion limit"),
            (r#"{"sessionId":"s","event":"e"}"#.into(), "id: is missing"),
            (r#"{"id":"","sessionId":"s","event":"e"}"#.into(), "id: is empty"),
            (r#"{"id":"i","event":"e"}"#.into(), "sessionId: is missing"),
            (r#"{"id":"i","sessionId":7,"event":"e"}"#.into(), "sessionId: is a number"),
            (r#"{"id":"i","sessionId":"s"}"#.into(), "event: is missing"),
            (format!(r#"{{"id":"i","sessionId":"s","event":"{long}"}}"#), "event: has 129 characters"),
            (format!(r#"{{"id":"{}","sessionId":"s","event":"e"}}"#, "🙂".repeat(100)), "id: has 400 bytes"),
            (r#"{"id":"i","sessionId":"s\u0000","event":"e"}"#.into(), "sessionId: holds the control character U+0000"),
            (r#"{"id":"i","sessionId":"s","event":"e","partnerId":""}"#.into(), "partnerId: is empty"),
            (r#"{"id":"i","sessionId":"s","event":"e","excludeUserId":[]}"#.into(), "excludeUserId: is an array"),
            (r#"{"id":"i","sessionId":"s","event":"e","data":"d"}"#.into(), "data: is a string"),
            (r#"{"id":"i","sessionId":"s","event":"e","expiresAt":"soon"}"#.into(), "expiresAt: is `soon`"),
            (r#"{"id":"\ud800","sessionId":"s","event":"e"}"#.into(), "body: is not JSON"),
        ] {
            let problem = malformed(&body);
            assert!(problem.starts_with(expected), "{problem} for {body}");
        }
        assert_eq!(malformed(b"\xff{}"), "body: is not UTF-8 from byte 0");
        assert!(malformed(vec![b' '; MAX_BODY + 1]).starts_with("body: has 65537 bytes"));
    }

    #[test]
    fn a_time_is_rfc_3339_and_nothing_looser() {
        let read = |time: &str| {
            let body = json!({"id": "i", "sessionId": "s", "event": "e", "occurredAt": time}).to_string();
            decode(body.as_bytes(), &Meta::default()).map(|event| event.occurred_at.unwrap().to_string())
        };
        for (time, expected) in [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
            ("2026-01-31t12:00:00.5z", "2026-01-31T12:00:00.5Z"),
            ("2026-01-31 12:00:00.123456789+02:00", "2026-01-31T10:00:00.123456789Z"),
            ("2026-01-31T12:00:00-00:00", "2026-01-31T12:00:00Z"),
        ] {
            assert_eq!(read(time).unwrap(), expected);
        }
        for time in [
            "",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00Z",
            "2026-01-31T12Z",
            "20260131T120000Z",
            "2026-01-31T12:00:00+0200",
            "2026-01-31T12:00:00+02:00[Europe/Paris]",
            "2026-01-31T12:00:00,5Z",
            "2026-02-30T12:00:00Z",
            "2026-01-31T25:00:00Z",
            "1767225600",
            "2026-01-31T12:00:0\u{661}Z",
        ] {
            assert_eq!(read(time).unwrap_err().field, "occurredAt", "{time}");
        }
    }

    #[test]
    fn identity_is_id_session_and_partner() {
        let event = |id: &str, session: &str, partner: Option<&str>| {
            let body = json!({"id": id, "sessionId": session, "event": "e", "partnerId": partner}).to_string();
            decode(body.as_bytes(), &Meta::default()).unwrap()
        };
        let one = event("a", "b", Some("c"));
        assert_eq!(one.identity(), event("a", "b", Some("c")).identity());
        for other in [event("a", "b", Some("d")), event("a", "b", None), event("ab", "c", None), event("a", "bc", None)]
        {
            assert_ne!(one.identity(), other.identity());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, message_id: Option<String>) {
            let _ = decode(&bytes, &Meta { message_id: message_id.as_deref() });
        }

        #[test]
        fn whatever_is_read_can_be_stored(id in ".{0,200}", session in ".{0,200}") {
            let body = json!({"id": id, "sessionId": session, "event": "e"}).to_string();
            if let Ok(event) = decode(body.as_bytes(), &Meta::default()) {
                prop_assert!(event.id.len() <= MAX_STRING_BYTES && !event.session_id.contains('\0'));
            }
        }
    }
}
