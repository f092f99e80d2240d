//! What leaves the store, by age and by a user's wish, and what must stay.

use std::time::Duration;

use herald::{
    domain::ledger::{Claim, Entry, State},
    store::{Find, Forgotten, Kept, LetterFilter, Record},
};

use super::{claim, dead, entry, granted, letter, on_both, record, ticket};

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn what_is_old_goes_in_batches_and_the_books_stay_closed() {
    on_both(async |place| {
        let store = place.open("a").await;
        let now = jiff::Timestamp::now().as_millisecond();
        let old = (0..2_300).map(|n| store.record(record(entry(&format!("old{n}")))));
        assert!(futures::future::join_all(old).await.iter().all(Result::is_ok));
        let waiting = Entry { state: State::Waiting, ..entry("waiting") };
        let young = Entry { updated_at: now, ..entry("young") };
        for entry in [waiting, young, entry("in hand")] {
            store.record(record(entry)).await.unwrap();
        }
        granted(store.claim(claim("in hand")).await.unwrap());
        // Its letter is younger than `dead_retention`, so that a replay must still find its row.
        let kept = Record {
            entry: dead("kept", "rejected"),
            tickets: vec![ticket("kept", "kept", 1)],
            letter: Some(letter("kept", "rejected", now).into()),
        };
        let gone = Record {
            entry: dead("gone", "rejected"),
            tickets: vec![ticket("gone", "gone", now)],
            letter: Some(letter("gone", "rejected", now - 15 * 86_400_000).into()),
        };
        store.record(kept).await.unwrap();
        store.record(gone).await.unwrap();

        assert_eq!(store.prune(DAY * 7, DAY * 14).await.unwrap(), 2_300 + 2);
        assert_eq!(store.prune(DAY * 7, DAY * 14).await.unwrap(), 0);
        let mut left: Vec<_> = store.find(&Find::Session("s1".into()), 10).await.unwrap();
        left.sort_by(|a, b| a.identity.cmp(&b.identity));
        let names: Vec<_> = left.iter().map(|entry| entry.identity.as_str()).collect();
        assert_eq!(names, ["in hand", "kept", "waiting", "young"]);
        let books = store.books().await.unwrap();
        assert_eq!((books.received, books.closed()), (4, true));
        assert_eq!(place.number("SELECT count(*) FROM tickets WHERE id = 'kept'").await, 1);
        assert_eq!(place.number("SELECT count(*) FROM tickets").await, 1);
        assert_eq!(store.letter_count(&LetterFilter::default()).await.unwrap(), 1);
    })
    .await;
}

#[tokio::test]
async fn starts_of_long_ago_are_forgotten_and_living_ones_are_not() {
    on_both(async |place| {
        place.open("a").await.farewell().await.unwrap();
        place.execute("UPDATE workers SET beat_at = beat_at - 90000000").await;
        let store = place.open("b").await;
        store.prune(DAY, DAY).await.unwrap();
        assert_eq!(place.number("SELECT count(*) FROM workers").await, 1);
        assert_eq!(store.heartbeat().await.unwrap(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_user_is_forgotten_everywhere_and_nobody_else_is() {
    on_both(async |place| {
        let store = place.open("a").await;
        for (name, user) in [("i1", "u1"), ("i2", "u1"), ("i3", "u2")] {
            let mut full = Record {
                entry: dead(name, "exhausted"),
                tickets: vec![ticket(&format!("t{name}"), name, 1)],
                letter: Some(letter(name, "exhausted", 1).into()),
            };
            full.entry.partner_id = Some(user.to_owned());
            full.tickets[0].user_id = user.to_owned();
            full.letter.as_mut().unwrap().partner_id = Some(user.to_owned());
            store.record(full).await.unwrap();
        }
        let waiting = Entry { state: State::Waiting, partner_id: Some("u1".to_owned()), ..entry("i4") };
        store.record(record(waiting)).await.unwrap();
        granted(store.claim(Claim { partner_id: Some("u1".to_owned()), ..claim("i5") }).await.unwrap());
        assert_eq!(store.kept("u1").await.unwrap(), Kept { events: 4, waiting: 2, tickets: 2, letters: 2 });
        assert_eq!(store.kept("nobody").await.unwrap(), Kept::default());
        assert_eq!(store.forget("u1").await.unwrap(), Forgotten { events: 4, tickets: 2, letters: 2 });
        assert_eq!(store.forget("u1").await.unwrap(), Forgotten::default());
        let books = store.books().await.unwrap();
        assert_eq!((books.received, books.closed()), (1, true));
        for table in ["events", "tickets", "dead_letters"] {
            assert_eq!(place.number(&format!("SELECT count(*) FROM {table}")).await, 1, "{table}");
        }
    })
    .await;
}
