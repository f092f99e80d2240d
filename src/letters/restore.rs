//! Putting exported letters back into the dead-letter queue and its index.
//!
//! Called by `dead import`. Each letter is checked as if a stranger had written it; a letter that lies in the queue is not put there
//! a second time. The queue first, confirmed, then the index: cut off in between, `run` finds the letter in the queue.

use std::{collections::HashSet, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use lapin::BasicProperties;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Broker, Destination, Message, Topology, headers_of_json, marks::Marks},
    domain::{
        event::{MAX_BODY, MAX_STRING_BYTES, decode},
        ledger::Letter,
        redact,
        retry::delay_name,
    },
    store::{Left, LetterKey, Store},
};

use super::{LettersError, alone, pick::meta};

/// Letters published and then written into the index at once.
const CHUNK: usize = 100;
/// Highest attempt and replay number believed.
const MAX_COUNT: u32 = 1_000_000;
/// How far a clock elsewhere may be ahead.
const CLOCKS: i64 = 86_400_000;

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    pub restored: u64,
    /// Left out, because they lie in the queue.
    pub known: u64,
    /// It was told to stop before the end.
    pub interrupted: bool,
}

/// Reads one line of an export, or says what is wrong with it. `retention` is `dead.retention`: an older letter would leave the
/// index at once.
pub fn read_letter(line: &str, now: i64, retention: Duration) -> Result<Letter, String> {
    let mut letter: Letter = serde_json::from_str(line).map_err(|error| redact(&error.to_string()))?;
    let texts = [
        ("id", Some(&letter.id)),
        ("session_id", letter.session_id.as_ref()),
        ("partner_id", letter.partner_id.as_ref()),
        ("event", letter.event.as_ref()),
        ("reason", Some(&letter.reason)),
        ("route", letter.route.as_ref()),
        ("content_type", letter.content_type.as_ref()),
    ];
    for (field, text) in texts.into_iter().filter_map(|(field, text)| Some((field, text?))) {
        if text.len() > MAX_STRING_BYTES || text.chars().any(char::is_control) {
            return Err(format!("{field}: at most {MAX_STRING_BYTES} bytes without control characters"));
        }
    }
    if letter.id.is_empty() || letter.reason.is_empty() {
        return Err("id and reason must not be empty".to_owned());
    }
    if letter.attempt > MAX_COUNT || letter.replay > MAX_COUNT {
        return Err(format!("attempt and replay: at most {MAX_COUNT}"));
    }
    let oldest = now.saturating_sub(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX));
    if !(oldest..=now.saturating_add(CLOCKS)).contains(&letter.failed_at) {
        return Err(format!(
            "failed_at: {} is not within the last {} (dead.retention)",
            crate::domain::when::time(letter.failed_at),
            delay_name(retention)
        ));
    }
    if !letter.headers.is_object() {
        return Err("headers: expected an object".to_owned());
    }
    let body = BASE64_STANDARD.decode(&letter.body).map_err(|error| format!("body: is not base64: {error}"))?;
    if i64::try_from(body.len()) != Ok(letter.body_bytes) {
        let cut = if body.len() == MAX_BODY { ": the index keeps no more, so it cannot be put back whole" } else { "" };
        return Err(format!("body: {} bytes, but body_bytes says {}{cut}", body.len(), letter.body_bytes));
    }
    let identity = decode(&body, &meta(&letter)).ok().map(|event| event.identity());
    if letter.identity.is_some() && letter.identity != identity {
        return Err("identity: is not that of the body".to_owned());
    }
    letter.error = redact(&letter.error);
    Ok(letter)
}

/// Returns the letter as it lies in the queue. Of its properties an export has the content type and the headers; its id becomes
/// the message's, for a body without one.
fn message(letter: &Letter) -> Message {
    let mut properties = BasicProperties::default();
    if let Some(headers) = letter.headers.as_object() {
        properties = properties.with_headers(headers_of_json(headers));
    }
    if let Some(content_type) = &letter.content_type {
        properties = properties.with_content_type(content_type.as_str().into());
    }
    if !letter.id.starts_with("unreadable-") {
        properties = properties.with_message_id(letter.id.as_str().into());
    }
    let body = BASE64_STANDARD.decode(&letter.body).unwrap_or_default();
    let exported = Message { body: body.into(), properties };
    let marks = Marks::read(&exported);
    let time = |written: Option<Timestamp>, millis: i64| {
        // The header knows it to the nanosecond.
        written.filter(|at| at.as_millisecond() == millis).or_else(|| Timestamp::from_millisecond(millis).ok())
    };
    let marks = Marks {
        id: Some(letter.id.clone()),
        attempt: letter.attempt,
        first_seen: letter.first_seen.and_then(|at| time(marks.first_seen, at)),
        reason: Some(letter.reason.clone()),
        error: Some(letter.error.clone()),
        route: letter.route.clone(),
        failed_at: time(marks.failed_at, letter.failed_at),
        replay: letter.replay,
        ..marks
    };
    let mut message = exported.copy().message;
    marks.write(&mut message);
    message
}

/// Puts `letters` back, but for those that lie in the queue; `owner` names this process for others. `seen` is called for each.
pub async fn restore<B: Broker>(
    (broker, store, topology): (&B, &Store, &Topology),
    owner: &str,
    letters: impl IntoIterator<Item = Letter>,
    stop: &CancellationToken,
    mut seen: impl FnMut(),
) -> Result<Restored, LettersError> {
    let dead = topology.dead();
    let to = Destination::Queue(dead.clone());
    let mut letters = letters.into_iter();
    alone(store, &dead, owner, stop, async |_, stop: CancellationToken| {
        let mut restored = Restored::default();
        loop {
            let chunk: Vec<Letter> = letters.by_ref().take(CHUNK).collect();
            if chunk.is_empty() {
                break;
            }
            if stop.is_cancelled() {
                restored.interrupted = true;
                break;
            }
            let (new, known) = unknown(store, chunk).await?;
            (0..known).for_each(|_| seen());
            restored.known += known;
            let mut published = Vec::new();
            let mut failed = None;
            for letter in new {
                match broker.publish(&to, message(&letter)).await {
                    Ok(()) => published.push(letter),
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
                seen();
            }
            restored.restored += published.len() as u64;
            store.add_letters(published).await?;
            if let Some(error) = failed {
                return Err(error.into());
            }
        }
        // Nothing was walked.
        Ok((restored, Left::AsBefore))
    })
    .await
}

/// Counts those of `letters` that lie in the queue, and returns the others.
pub async fn unknown(store: &Store, letters: Vec<Letter>) -> Result<(Vec<Letter>, u64), LettersError> {
    let keys: Vec<LetterKey> = letters.iter().map(LetterKey::of).collect();
    let mut known: HashSet<LetterKey> = store.known_letters(&keys).await?.into_iter().collect();
    let all = letters.len();
    // A letter that stands there twice is known at its second sight.
    let new: Vec<Letter> = letters.into_iter().filter(|letter| known.insert(LetterKey::of(letter))).collect();
    let known = (all - new.len()) as u64;
    Ok((new, known))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{broker::headers_json, domain::event::Meta};

    const NOW: i64 = 1_777_629_600_000;
    const DAY: Duration = Duration::from_secs(86_400);

    fn exported() -> Value {
        let body = r#"{"event":"a","sessionId":"s1"}"#;
        let mut letter = Message { body: body.into(), properties: BasicProperties::default() };
        let marks = Marks {
            id: Some("e1".into()),
            failed_at: Timestamp::from_nanosecond(i128::from(NOW - 5_000) * 1_000_000 + 456_789).ok(),
            exchange: Some("h.events".into()),
            routing_key: Some("a".into()),
            queue: Some("h.events".into()),
            ..Marks::default()
        };
        marks.write(&mut letter);
        json!({
            "number": 7, "id": "e1", "identity": null, "session_id": "s1", "partner_id": null, "event": "a",
            "reason": "exhausted", "error": "transient (503): overloaded", "route": "ably", "attempt": 6, "replay": 1,
            "failed_at": NOW - 5_000, "first_seen": NOW - 9_000, "headers": headers_json(&letter),
            "content_type": "application/json", "body": BASE64_STANDARD.encode(body), "body_bytes": body.len(),
        })
    }

    fn read(change: impl Fn(&mut Value)) -> Result<Letter, String> {
        let mut letter = exported();
        change(&mut letter);
        read_letter(&letter.to_string(), NOW, DAY)
    }

    #[test]
    fn a_letter_comes_back_as_it_lay_in_the_queue() {
        let mut letter = read(|letter| letter["headers"]["traceparent"] = "00-1".into()).unwrap();
        let message = message(&letter);
        let marks = Marks::read(&message);
        assert_eq!(marks.failed_at.unwrap().subsec_nanosecond() % 1_000_000, 456_789, "to the nanosecond");
        assert_eq!((marks.id.as_deref(), marks.attempt, marks.replay), (Some("e1"), 6, 1));
        assert_eq!((marks.exchange.as_deref(), marks.routing_key.as_deref()), (Some("h.events"), Some("a")));
        assert_eq!((marks.reason.as_deref(), marks.route.as_deref()), (Some("exhausted"), Some("ably")));
        assert_eq!(headers_json(&message)["traceparent"], "00-1");
        let properties = &message.properties;
        assert_eq!(properties.message_id().as_ref().map(|id| id.as_str()), Some("e1"));
        assert_eq!(properties.content_type().as_ref().map(|kind| kind.as_str()), Some("application/json"));
        assert_eq!(&message.body[..], br#"{"event":"a","sessionId":"s1"}"#);
        letter.id = "unreadable-1".into();
        assert_eq!(*super::message(&letter).properties.message_id(), None, "made up by herald");
    }

    #[test]
    fn what_nobody_exported_is_refused_with_the_field() {
        let identity = decode(br#"{"id":"e1","event":"a","sessionId":"s1"}"#, &Meta::default()).unwrap().identity();
        assert!(read(|_| {}).is_ok());
        assert!(read(|letter| letter["identity"] = identity.clone().into()).is_ok());
        assert!(read_letter("nonsense", NOW, DAY).is_err());
        for (field, value, expected) in [
            ("reason", Value::Null, "invalid type: null"),
            ("id", "".into(), "id and reason must not be empty"),
            ("id", "a\u{0}b".into(), "id: at most 255 bytes without control characters"),
            ("session_id", "x".repeat(256).into(), "session_id: at most 255 bytes"),
            ("attempt", 1_000_001.into(), "attempt and replay: at most 1000000"),
            ("failed_at", (NOW - 86_400_001).into(), "failed_at: 2026-04-30 09:59:59Z is not within the last 1d"),
            ("failed_at", (NOW + 86_400_001).into(), "failed_at: "),
            ("headers", "x".into(), "headers: expected an object"),
            ("body", "%".into(), "body: is not base64"),
            ("body_bytes", 7.into(), "body: 30 bytes, but body_bytes says 7"),
            ("identity", "another".into(), "identity: is not that of the body"),
        ] {
            let error = read(|letter| letter[field] = value.clone()).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let cut = read(|letter| {
            letter["body"] = BASE64_STANDARD.encode("x".repeat(MAX_BODY)).into();
            letter["body_bytes"] = (MAX_BODY + 1).into();
        });
        assert!(cut.unwrap_err().ends_with("the index keeps no more, so it cannot be put back whole"));
    }
}
