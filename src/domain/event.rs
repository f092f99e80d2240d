//! The session event: decoded from a message's bytes, with every reason a message can be malformed for.
//!
//! Called by the worker's second stop and by `herald send` (which refuses what the worker would refuse). Never panics,
//! whatever the bytes; never reads a clock: the times an event carries are compared by `routing` and `judge`. Plain messages
//! and CloudEvents are the same fields under other names, so that both are held to the same rules.

mod cloudevent;
mod field;

use jiff::Timestamp;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use cloudevent::Form;
pub use cloudevent::is_attribute;

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
    /// Where a CloudEvent comes from: another source may use the same id for another event.
    pub source: Option<String>,
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
#[derive(Debug, Clone, Default)]
pub struct Meta<'a> {
    pub message_id: Option<&'a str>,
    pub content_type: Option<&'a str>,
    /// The headers that [`is_attribute`] names, as JSON.
    pub headers: Map<String, Value>,
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

/// Reads an event from a message; the body wins over `message_id`. Unknown fields are ignored.
pub fn decode(body: &[u8], meta: &Meta<'_>) -> Result<Event, Malformed> {
    if body.len() > MAX_BODY {
        return Err(Malformed::new("body", format!("has {} bytes; at most {MAX_BODY} are accepted", body.len())));
    }
    let form = Form::of(meta)?;
    let mut fields = form.fields(body, meta)?;
    let source = form.source(&mut fields)?;
    let names = form.names();
    let id = match (field::identifier(&mut fields, "id")?, meta.message_id) {
        (Some(id), _) => id,
        (None, Some(message_id)) => {
            field::checked_identifier("message_id", message_id)?;
            message_id.to_owned()
        }
        (None, None) => {
            return Err(Malformed::new("id", "is missing, and the message has no message_id; set one of them"));
        }
    };
    Ok(Event {
        id,
        source,
        session_id: field::required(&mut fields, names.session_id)?,
        name: field::required(&mut fields, names.event)?,
        partner_id: field::identifier(&mut fields, names.partner_id)?,
        exclude_user_id: field::optional(&mut fields, names.exclude_user_id)?,
        data: field::object(&mut fields, "data")?,
        occurred_at: field::time(&mut fields, names.occurred_at)?,
        expires_at: field::time(&mut fields, names.expires_at)?,
    })
}

impl Event {
    /// Returns the key of this event's identity: a hash of id, session and partner, and of a CloudEvent's source. The same
    /// identity again is a repeat.
    pub fn identity(&self) -> String {
        let parts = [self.id.as_str(), &self.session_id, self.partner_id.as_deref().unwrap_or("")];
        hash(parts.into_iter().chain(self.source.as_deref()))
    }

    /// Returns a hash of the content, by which a reused id is told from a repeat.
    pub fn fingerprint(&self) -> String {
        let data = serde_json::to_string(&self.data).expect("a map with text keys is JSON");
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
    let hash = hasher.finalize();
    let half: [u8; 16] = std::array::from_fn(|place| hash[place]);
    format!("{:032x}", u128::from_be_bytes(half))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn named(message_id: &str) -> Meta<'_> {
        Meta { message_id: Some(message_id), ..Meta::default() }
    }

    fn malformed(body: impl AsRef<[u8]>) -> String {
        decode(body.as_ref(), &Meta::default()).expect_err("malformed").to_string()
    }

    #[test]
    fn a_full_event_is_read_and_unknown_fields_are_ignored() {
        let body = json!({
            "id": "e1", "sessionId": "s1", "event": "partner.advanced", "partnerId": "p1", "excludeUserId": "u1",
            "data": {"toStage": 2}, "occurredAt": "2026-01-01T00:00:00Z", "expiresAt": "2026-01-02T00:00:00+01:00", "more": 1,
        });
        let event = decode(body.to_string().as_bytes(), &named("m1")).unwrap();
        assert_eq!(event.id, "e1");
        assert_eq!(event.partner_id.as_deref(), Some("p1"));
        assert_eq!(event.expires_at.unwrap().to_string(), "2026-01-01T23:00:00Z");
        assert_eq!(event.data["toStage"], 2);
    }

    #[test]
    fn the_message_id_stands_in_for_a_missing_id() {
        let body = br#"{"id":null,"sessionId":"s","event":"e","partnerId":null,"data":null,"excludeUserId":""}"#;
        let event = decode(body, &named("m1")).unwrap();
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
            let _ = decode(&bytes, &Meta { message_id: message_id.as_deref(), ..Meta::default() });
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
