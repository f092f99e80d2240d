//! Which letters of the index are meant, and finding each of them again in the queue. Pure but for reading the index.

use std::collections::{BTreeMap, HashMap};

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::{
    broker::{Message, marks::Marks},
    domain::{
        event::{self, MAX_BODY, Meta},
        ledger::Letter,
    },
    store::{LetterFilter, Store, StoreError},
};

/// Letters read at once: with bodies of up to 90 KiB, some 18 MiB.
const PAGE: u32 = 200;

/// Letters chosen from the index, by what they look like in the queue.
#[derive(Clone, Default)]
pub struct Picked {
    by_body: HashMap<[u8; 32], Vec<Known>>,
    left: u64,
    /// How many for which reason.
    pub reasons: BTreeMap<String, u64>,
    /// Left out, because they would expire at once.
    pub expired: u64,
}

#[derive(Clone)]
struct Known {
    number: i64,
    id: String,
    failed_at: i64,
    replay: u32,
}

impl Picked {
    /// Chooses the letters that match, newest first. With `unexpired_at` those that would expire at once then are left out, and
    /// the filter's limit counts the others.
    pub async fn read(
        store: &Store,
        filter: &LetterFilter,
        unexpired_at: Option<Timestamp>,
    ) -> Result<Picked, StoreError> {
        let mut picked = Picked::default();
        let mut page = LetterFilter { limit: Some(PAGE), ..filter.clone() };
        let most = filter.limit.map_or(u64::MAX, u64::from);
        loop {
            let letters = store.letters(&page).await?;
            let Some(last) = letters.last() else { return Ok(picked) };
            page.below = Some(last.number);
            for letter in &letters {
                if picked.count() == most {
                    return Ok(picked);
                }
                picked.add(letter, unexpired_at);
            }
        }
    }

    /// Chooses these letters, by the same rule.
    pub fn of<'a>(letters: impl IntoIterator<Item = &'a Letter>, unexpired_at: Option<Timestamp>) -> Picked {
        let mut picked = Picked::default();
        letters.into_iter().for_each(|letter| picked.add(letter, unexpired_at));
        picked
    }

    fn add(&mut self, letter: &Letter, unexpired_at: Option<Timestamp>) {
        let body = BASE64_STANDARD.decode(&letter.body).unwrap_or_default();
        if unexpired_at.is_some_and(|now| expires(letter, &body).is_some_and(|at| at <= now)) {
            self.expired += 1;
            return;
        }
        *self.reasons.entry(letter.reason.clone()).or_default() += 1;
        let Letter { number, failed_at, replay, .. } = *letter;
        let known = Known { number, id: letter.id.clone(), failed_at, replay };
        self.by_body.entry(digest(&body)).or_default().push(known);
        self.left += 1;
    }

    /// Returns how many were chosen.
    pub fn count(&self) -> u64 {
        self.reasons.values().sum()
    }

    /// Tells whether each was found again.
    pub(super) fn all_taken(&self) -> bool {
        self.left == 0
    }

    /// Takes the letter that `message` is, and returns its number.
    pub(super) fn take(&mut self, message: &Message) -> Option<i64> {
        let marks = Marks::of_letter(message);
        let known = self.by_body.get_mut(&digest(&message.body))?;
        // A letter that the broker itself put there has no marks: the event says its id, or the body must do.
        let id = marks.id.or_else(|| event::decode(&message.body, &message.meta()).ok().map(|event| event.id));
        let failed_at = marks.failed_at.map(|at| at.as_millisecond());
        let at = known.iter().position(|known| {
            id.as_ref().is_none_or(|id| *id == known.id)
                && failed_at.is_none_or(|at| at == known.failed_at)
                && marks.replay == known.replay
        })?;
        self.left -= 1;
        Some(known.swap_remove(at).number)
    }
}

/// Returns when the letter's own `expiresAt` is.
fn expires(letter: &Letter, body: &[u8]) -> Option<Timestamp> {
    event::decode(body, &meta(letter)).ok()?.expires_at
}

/// Returns what the letter's event is read from beside its body.
pub(super) fn meta(letter: &Letter) -> Meta<'_> {
    let headers = letter.headers.as_object().into_iter().flatten().filter(|(name, _)| event::is_attribute(name));
    let headers = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
    Meta { message_id: Some(&letter.id), content_type: letter.content_type.as_deref(), headers }
}

/// Digests what the index keeps of a body: its beginning.
fn digest(body: &[u8]) -> [u8; 32] {
    Sha256::digest(&body[..body.len().min(MAX_BODY)]).into()
}

#[cfg(test)]
mod tests {
    use lapin::{
        BasicProperties,
        types::{AMQPValue, FieldTable},
    };

    use super::*;

    const FAILED_AT: i64 = 1_777_629_600_123;

    fn letter(number: i64, body: &str) -> Letter {
        Letter {
            number,
            id: "e1".into(),
            identity: None,
            session_id: None,
            partner_id: None,
            event: None,
            reason: "exhausted".into(),
            error: String::new(),
            route: None,
            attempt: 1,
            replay: 0,
            failed_at: FAILED_AT,
            first_seen: None,
            headers: serde_json::json!({}),
            content_type: None,
            body: BASE64_STANDARD.encode(body),
            body_bytes: 0,
        }
    }

    fn message(body: &str, marks: Option<Marks>) -> Message {
        let mut message = Message { body: body.to_owned().into(), properties: BasicProperties::default() };
        if let Some(marks) = marks {
            marks.write(&mut message);
        }
        message
    }

    fn marks() -> Marks {
        let failed_at = Timestamp::from_nanosecond(i128::from(FAILED_AT) * 1_000_000 + 456_789).ok();
        Marks { id: Some("e1".into()), failed_at, ..Marks::default() }
    }

    fn picked(letters: &[Letter], now: Option<Timestamp>) -> Picked {
        let mut picked = Picked::default();
        letters.iter().for_each(|letter| picked.add(letter, now));
        picked
    }

    #[test]
    fn a_letter_is_found_again_once_and_by_every_mark() {
        for (found, expected) in [
            (message("a", Some(marks())), Some(7)),
            (message("a", None), Some(7)),
            (message("b", Some(marks())), None),
            (message("a", Some(Marks { id: Some("e2".into()), ..marks() })), None),
            (message("a", Some(Marks { failed_at: Some(Timestamp::UNIX_EPOCH), ..marks() })), None),
            (message("a", Some(Marks { replay: 1, ..marks() })), None),
        ] {
            let mut picked = picked(&[letter(7, "a")], None);
            assert_eq!(picked.take(&found), expected);
            assert_eq!(picked.take(&found), None, "once only");
            assert_eq!(picked.all_taken(), expected.is_some());
        }
    }

    #[test]
    fn cloud_events_with_the_same_body_are_told_apart_by_their_headers() {
        let attributes = |id: &str| {
            let required = [("specversion", "1.0"), ("id", id), ("source", "s"), ("type", "t"), ("subject", "s")];
            required.map(|(name, value)| (format!("cloudEvents_{name}"), value.to_owned()))
        };
        let unmarked = |id: &str| {
            let mut headers = FieldTable::default();
            for (name, value) in attributes(id) {
                headers.insert(name.into(), AMQPValue::LongString(value.into()));
            }
            Message { properties: BasicProperties::default().with_headers(headers), ..message("{}", None) }
        };
        let mut picked = picked(&[letter(7, "{}")], None);
        assert_eq!(picked.take(&unmarked("e2")), None);
        assert_eq!(picked.take(&unmarked("e1")), Some(7));

        let mut headers: serde_json::Map<_, _> =
            attributes("e1").map(|(name, value)| (name, serde_json::json!(value))).into_iter().collect();
        headers.insert("cloudEvents_expirytime".into(), "2026-05-01T09:59:59Z".into());
        let expired = Letter { headers: headers.into(), ..letter(8, "{}") };
        let expected: Timestamp = "2026-05-01T09:59:59Z".parse().unwrap();
        assert_eq!(expires(&expired, b"{}"), Some(expected));
    }

    #[test]
    fn what_would_expire_at_once_is_left_out_and_counted() {
        let now: Timestamp = "2026-05-01T10:00:00Z".parse().unwrap();
        let body = |expires: &str| format!(r#"{{"event":"a","sessionId":"s"{expires}}}"#);
        let letters = [
            letter(1, &body("")),
            letter(2, &body(r#","expiresAt":"2026-05-01T09:59:59Z""#)),
            letter(3, &body(r#","expiresAt":"2026-05-01T10:00:01Z""#)),
            letter(4, "not JSON"),
        ];
        let told = picked(&letters, Some(now));
        assert_eq!((told.count(), told.expired), (3, 1));
        let all = picked(&letters, None);
        assert_eq!((all.count(), all.expired), (4, 0));
    }
}
