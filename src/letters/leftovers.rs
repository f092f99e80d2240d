//! What a walk that ended in the middle has left in the queue: letters that were dealt with, but not acknowledged, and letters
//! that lie there twice, because their copy had reached the tail.
//!
//! Called by every walk, after the turn was taken over from one that did not end in order. At most the thirty letters that walk
//! had in hand are concerned. Pure but for being told what the index knows.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};

use crate::{
    broker::{Message, marks::Marks},
    domain::event::decode,
    store::LetterKey,
};

/// Recognises what earlier walks have left.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// By id, replay number and time of failure: the identities dealt with.
    acted: HashMap<(String, i64, i64), Vec<String>>,
    /// Letters seen in this walk; `None`: no walk ended in the middle.
    seen: Option<HashSet<[u8; 32]>>,
}

impl Leftovers {
    /// Nothing was left.
    pub fn none() -> Leftovers {
        Leftovers::default()
    }

    /// A walk ended in the middle, after `acted` were dealt with.
    pub fn of(acted: Vec<LetterKey>) -> Leftovers {
        let mut leftovers = Leftovers { seen: Some(HashSet::new()), ..Leftovers::default() };
        for LetterKey { id, identity, replay, failed_at } in acted {
            leftovers.acted.entry((id, replay, failed_at)).or_default().push(identity);
        }
        leftovers
    }

    /// Tells whether the whole queue has to be walked, to deal with what was left.
    pub fn any(&self) -> bool {
        self.seen.is_some()
    }

    /// Tells whether `message` is such a leftover and ends here: its replacement, or its twin, is confirmed.
    pub fn ends(&mut self, message: &Message) -> bool {
        let Some(seen) = &mut self.seen else { return false };
        let marks = Marks::of_letter(message);
        // Without marks it is nobody's copy: two of a kind are two letters.
        let (Some(id), Some(failed_at)) = (&marks.id, marks.failed_at) else { return false };
        let key = (id.clone(), i64::from(marks.replay), failed_at.as_millisecond());
        if self.acted.get(&key).is_some_and(|identities| identities.iter().any(|known| fits(known, message))) {
            return true;
        }
        let mut hasher = Sha256::new();
        hasher.update(format!("{key:?}{failed_at}"));
        hasher.update(&message.body);
        !seen.insert(hasher.finalize().into())
    }
}

/// Tells whether `identity` (empty: none) can be that of `message`: one id may name an event for each of two partners.
fn fits(identity: &str, message: &Message) -> bool {
    match decode(&message.body, &message.meta()) {
        Ok(event) if !identity.is_empty() => event.identity() == identity,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use lapin::BasicProperties;

    use super::*;
    use crate::domain::event::Meta;

    fn message(body: &str, id: Option<&str>, failed_at: i64, replay: u32) -> Message {
        let mut message = Message { body: body.to_owned().into(), properties: BasicProperties::default() };
        let failed_at = Timestamp::from_millisecond(failed_at).ok();
        Marks { id: id.map(str::to_owned), failed_at, replay, ..Marks::default() }.write(&mut message);
        message
    }

    fn acted(id: &str, identity: &str, replay: i64, failed_at: i64) -> LetterKey {
        LetterKey { id: id.into(), identity: identity.into(), replay, failed_at }
    }

    #[test]
    fn what_was_dealt_with_ends_and_its_like_stays() {
        let body = r#"{"id":"e1","sessionId":"s1","event":"a","partnerId":"u1"}"#;
        let identity = decode(body.as_bytes(), &Meta::default()).unwrap().identity();
        for (found, expected) in [
            (message(body, Some("e1"), 500, 2), true),
            (message(body, Some("e1"), 500, 1), false),
            (message(body, Some("e1"), 501, 2), false),
            (message(body, Some("e2"), 500, 2), false),
            (message(body, None, 500, 2), false),
            // The same id for the other partner.
            (message(&body.replace("u1", "u2"), Some("e1"), 500, 2), false),
        ] {
            let mut leftovers = Leftovers::of(vec![acted("e1", &identity, 2, 500)]);
            assert_eq!(leftovers.ends(&found), expected, "{:?}", Marks::read(&found));
            assert!(!Leftovers::none().ends(&found));
        }
        // A letter that cannot be read, or that the broker put there, has no identity.
        assert!(Leftovers::of(vec![acted("x", "", 0, 5)]).ends(&message("not JSON", Some("x"), 5, 0)));
    }

    #[test]
    fn of_twins_one_stays() {
        let mut leftovers = Leftovers::of(Vec::new());
        let one = message("{}", Some("e1"), 500, 0);
        assert_eq!([leftovers.ends(&one), leftovers.ends(&one), leftovers.ends(&one)], [false, true, true]);
        assert!(!leftovers.ends(&message("{} ", Some("e1"), 500, 0)), "another body");
        let unmarked = message("{}", None, 500, 0);
        assert_eq!([leftovers.ends(&unmarked), leftovers.ends(&unmarked)], [false, false]);
        let mut orderly = Leftovers::none();
        assert_eq!([orderly.ends(&one), orderly.ends(&one)], [false, false]);
    }
}
