//! Whose turn it is to walk a queue, and what commands read beside it: on both databases.

use herald::{
    domain::{
        explain::{Find, Holder},
        ledger::{Entry, Letter, State},
    },
    store::{Left, LetterFilter, LetterKey, Sweeper, Turn, Waiting},
};

use super::{claim, entry, letter, on_both, record};

const OURS: Turn = Turn::Ours { unfinished_since: None };

#[tokio::test]
async fn a_turn_is_taken_kept_and_given_up() {
    on_both(async |place| {
        let store = place.open("a").await;
        assert_eq!(store.begin_sweep("q", "one").await.unwrap(), OURS);
        let Turn::Taken(Sweeper { owner, since, silent_ms }) = store.begin_sweep("q", "two").await.unwrap() else {
            panic!("two at once")
        };
        assert!(owner == "one" && since > 1_700_000_000_000 && silent_ms < 10_000, "{owner} {since} {silent_ms}");
        assert_eq!(store.begin_sweep("another", "two").await.unwrap(), OURS, "another queue");
        assert!(store.beat_sweep("q", "one").await.unwrap() && !store.beat_sweep("q", "two").await.unwrap());
        // Somebody else's turn is not ours to give up.
        store.end_sweep("q", "two", Left::Nothing).await.unwrap();
        assert!(matches!(store.begin_sweep("q", "two").await.unwrap(), Turn::Taken(_)));
        store.end_sweep("q", "one", Left::AsBefore).await.unwrap();
        assert_eq!(store.begin_sweep("q", "two").await.unwrap(), OURS);
    })
    .await;
}

#[tokio::test]
async fn what_a_walk_left_is_known_until_somebody_dealt_with_it() {
    on_both(async |place| {
        let store = place.open("a").await;
        let unfinished = async |owner: &str| match store.begin_sweep("q", owner).await.unwrap() {
            Turn::Ours { unfinished_since } => unfinished_since,
            Turn::Taken(sweeper) => panic!("{owner}: {sweeper:?}"),
        };
        assert_eq!(unfinished("killed").await, None);
        place.execute("UPDATE sweeps SET started_at = 5000, beat_at = beat_at - 10100 WHERE queue = 'q'").await;
        assert_eq!(unfinished("two").await, Some(5_000), "its owner was silent for ten seconds");
        assert!(!store.beat_sweep("q", "killed").await.unwrap(), "it lost its turn");
        // In order, but not to the end: it is as it was. Cut off: since the first that was.
        store.end_sweep("q", "two", Left::AsBefore).await.unwrap();
        assert_eq!(unfinished("three").await, Some(5_000));
        store.end_sweep("q", "three", Left::Something).await.unwrap();
        assert_eq!(unfinished("four").await, Some(5_000));
        store.end_sweep("q", "four", Left::Nothing).await.unwrap();
        assert_eq!(unfinished("five").await, None);
        store.end_sweep("q", "five", Left::Something).await.unwrap();
        assert!(unfinished("six").await.is_some_and(|since| since > 5_000));
    })
    .await;
}

#[tokio::test]
async fn letters_are_known_by_all_of_their_name_and_those_acted_on_are_listed() {
    on_both(async |place| {
        let store = place.open("a").await;
        let bare = Letter { identity: None, ..letter("i2", "malformed", 600) };
        let letters = [letter("i1", "exhausted", 500), bare, letter("i3", "exhausted", 700)];
        store.add_letters(letters.to_vec()).await.unwrap();
        let keys: Vec<LetterKey> = letters.iter().map(LetterKey::of).collect();
        let strangers = [
            LetterKey { id: "x".into(), ..keys[0].clone() },
            LetterKey { identity: String::new(), ..keys[0].clone() },
            LetterKey { replay: 1, ..keys[0].clone() },
            LetterKey { failed_at: 501, ..keys[0].clone() },
        ];
        let known = async |asked: &[LetterKey]| {
            let mut known = store.known_letters(asked).await.unwrap();
            known.sort_by_key(|key| key.failed_at);
            known
        };
        assert_eq!(known(&[&keys[..], &strangers].concat()).await, keys);
        store.end_letters(&[1], "replayed").await.unwrap();
        store.end_letters(&[2], "dropped").await.unwrap();
        store.end_letters(&[3], "removed").await.unwrap();
        assert_eq!(known(&keys).await, []);
        let mut acted = store.acted_letters(0).await.unwrap();
        acted.sort_by_key(|key| key.failed_at);
        assert_eq!(acted, keys[..2], "what was removed was nobody's doing");
        assert_eq!(store.acted_letters(i64::MAX).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn what_is_found_tells_who_is_at_it_and_its_letters() {
    on_both(async |place| {
        let store = place.open("a").await;
        store.claim(claim("i1")).await.unwrap();
        store.record(record(Entry { first_seen: 2_000, ..entry("i2") })).await.unwrap();
        let of_broker = Letter { identity: None, id: "stray".into(), ..letter("i9", "delivery_limit", 700) };
        store
            .add_letters(vec![letter("i2", "exhausted", 500), letter("i3", "exhausted", 600), of_broker])
            .await
            .unwrap();
        store.end_letters(&[1], "replayed").await.unwrap();

        let found = store.findings(&Find::User("u1".into()), 10).await.unwrap();
        let ids: Vec<_> = found.rows.iter().map(|row| row.entry.identity.as_str()).collect();
        assert_eq!(ids, ["i2", "i1"], "newest first");
        assert_eq!(found.rows[0].holder, None);
        let Some(Holder { owner, living, since }) = &found.rows[1].holder else { panic!("nobody has it") };
        assert!(owner == store.owner() && *living && *since > 1_700_000_000_000);
        assert_eq!(found.letters.iter().map(|letter| letter.number).collect::<Vec<_>>(), [1], "of these events only");
        assert_eq!(found.letters[0].ended.as_deref(), Some("replayed"));

        let found = store.findings(&Find::Id("stray".into()), 10).await.unwrap();
        assert_eq!((found.rows.len(), found.letters.len(), found.letters[0].number), (0, 1, 3));
        let found = store.findings(&Find::Session("s1".into()), 1).await.unwrap();
        assert_eq!((found.rows.len(), found.rows[0].entry.identity.as_str()), (1, "i2"));

        place.execute("UPDATE workers SET beat_at = beat_at - 11000").await;
        let found = store.findings(&Find::Id(claim("i1").event_id), 10).await.unwrap();
        assert!(found.rows[0].holder.as_ref().is_some_and(|holder| !holder.living), "its owner is dead");
    })
    .await;
}

#[tokio::test]
async fn workers_tell_what_they_know_of_the_head_and_what_waits_is_counted_by_queue() {
    on_both(async |place| {
        let store = place.open("a").await;
        store.heartbeat().await.unwrap();
        let heads = async || {
            let workers = store.workers().await.unwrap();
            workers.into_iter().map(|worker| (worker.instance, worker.head_after)).collect::<Vec<_>>()
        };
        assert_eq!(heads().await, [("a".to_owned(), None)]);
        store.note_head(7_000);
        store.note_head(6_000);
        assert_eq!(heads().await, [("a".to_owned(), None)], "told with the next heartbeat");
        store.heartbeat().await.unwrap();
        assert_eq!(heads().await, [("a".to_owned(), Some(7_000))]);

        let waits = |identity: &str, queue: Option<&str>, first_seen, next_at| Entry {
            state: State::Waiting,
            queue: queue.map(str::to_owned),
            first_seen,
            next_at,
            ..entry(identity)
        };
        for row in [
            waits("i1", Some("retry"), 3_000, Some(5_000)),
            waits("i2", Some("retry"), 2_000, Some(9_000)),
            waits("i3", None, 1_000, None),
            entry("i4"),
        ] {
            store.record(record(row)).await.unwrap();
        }
        let mut waiting = store.waiting(6_000).await.unwrap();
        waiting.sort_by_key(|row| row.oldest);
        let row = |queue: Option<&str>, oldest, overdue| Waiting { queue: queue.map(str::to_owned), oldest, overdue };
        assert_eq!(waiting, [row(None, 1_000, 0), row(Some("retry"), 2_000, 1)]);

        let by_age = LetterFilter { failed_after: Some(500), user: Some("u1".into()), ..LetterFilter::default() };
        store.add_letters(vec![letter("i5", "exhausted", 499), letter("i6", "exhausted", 500)]).await.unwrap();
        assert_eq!(store.letter_count(&by_age).await.unwrap(), 1);
        let other = LetterFilter { user: Some("u2".into()), ..LetterFilter::default() };
        assert_eq!(store.letter_count(&other).await.unwrap(), 0);
    })
    .await;
}
