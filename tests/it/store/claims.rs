//! Who may be at an event, and what becomes of claims whose owner dies, leaves or starts again.

use herald::{
    domain::ledger::{Claim, Claimed, Entry},
    store::{Find, StoreError, Waiting},
};

use super::{claim, entry, granted, on_both, record};

/// Makes every worker's last heartbeat older by so many seconds.
async fn age(place: &super::Place, seconds: i64) {
    place.execute(&format!("UPDATE workers SET beat_at = beat_at - {}", seconds * 1000)).await;
}

#[tokio::test]
async fn a_fresh_identity_is_granted_as_waiting_and_again_with_what_was_recorded() {
    on_both(async |place| {
        let store = place.open("a").await;
        let (fresh, first) = granted(store.claim(claim("i1")).await.unwrap());
        assert!(first);
        assert_eq!((fresh.state.as_str(), fresh.first_seen, fresh.expires_at), ("waiting", 1_000, 90_000_000));
        assert_eq!((fresh.attempts.len(), fresh.targets.len(), fresh.crashes), (0, 0, 0));

        let (ours, first) = granted(store.claim(claim("i1")).await.unwrap());
        assert!(!first, "our own claim again is no first sight");
        assert_eq!(ours, fresh);

        store.record(record(entry("i1"))).await.unwrap();
        let (repeat, first) = granted(store.claim(claim("i1")).await.unwrap());
        assert!(!first);
        assert_eq!(repeat, entry("i1"), "a claim changes nothing it did not find");
    })
    .await;
}

#[tokio::test]
async fn a_claim_holds_while_its_owner_lives() {
    let Some(place) = super::Place::postgres().await else { return };
    let (a, b) = (place.open("a").await, place.open("b").await);
    granted(a.claim(claim("i1")).await.unwrap());
    assert_eq!(b.claim(claim("i1")).await.unwrap(), Claimed::Foreign { owner: a.owner().to_owned() });

    // Time goes on by itself, too, on a busy machine by seconds: far from the ten that are death.
    age(&place, 5).await;
    assert!(matches!(b.claim(claim("i1")).await.unwrap(), Claimed::Foreign { .. }), "five seconds are not death");
    assert_eq!(b.heartbeat().await.unwrap(), 2);

    age(&place, 6).await;
    assert_eq!(b.heartbeat().await.unwrap(), 1, "a is silent for eleven seconds, b just spoke");
    let (row, first) = granted(b.claim(claim("i1")).await.unwrap());
    assert_eq!((row.crashes, first), (1, false));
    place.execute("UPDATE workers SET ended = NULL").await;
    assert_eq!(a.heartbeat().await.unwrap(), 2);
    assert!(matches!(a.claim(claim("i1")).await.unwrap(), Claimed::Foreign { .. }), "it is b's now");

    // What a writes now does not give b's claim up.
    a.record(record(entry("i1"))).await.unwrap();
    assert!(matches!(a.claim(claim("i1")).await.unwrap(), Claimed::Foreign { .. }));
    b.record(record(entry("i1"))).await.unwrap();
    assert!(!granted(a.claim(claim("i1")).await.unwrap()).1);
    place.clean().await;
}

#[tokio::test]
async fn an_earlier_start_of_the_same_instance_is_void_at_once_and_counted() {
    on_both(async |place| {
        let before = place.open("a").await;
        granted(before.claim(claim("i1")).await.unwrap());
        for starts in 1..=3 {
            let store = place.open("a").await;
            let (row, first) = granted(store.claim(claim("i1")).await.unwrap());
            assert_eq!((row.crashes, first), (starts, false));
        }
        assert!(matches!(before.heartbeat().await, Err(StoreError::Config(_))), "it was superseded");

        let store = place.open("a").await;
        let crashed = granted(store.claim(claim("i1")).await.unwrap()).0;
        store.record(record(herald::domain::ledger::Entry { crashes: 0, ..crashed })).await.unwrap();
        let again = place.open("a").await;
        assert_eq!(granted(again.claim(claim("i1")).await.unwrap()).0.crashes, 0, "nobody was at it");
    })
    .await;
}

#[tokio::test]
async fn on_sqlite_every_other_start_is_void_and_on_postgres_it_is_not() {
    on_both(async |place| {
        let a = place.open("a").await;
        granted(a.claim(claim("i1")).await.unwrap());
        let b = place.open("b").await;
        let claimed = b.claim(claim("i1")).await.unwrap();
        assert_eq!(matches!(claimed, Claimed::Foreign { .. }), !place.is_sqlite());
        assert_eq!(a.heartbeat().await.is_err(), place.is_sqlite());
        assert_eq!(b.heartbeat().await.unwrap(), if place.is_sqlite() { 1 } else { 2 });
    })
    .await;
}

#[tokio::test]
async fn a_command_beside_a_worker_voids_nothing() {
    on_both(async |place| {
        let worker = place.open("a").await;
        granted(worker.claim(claim("i1")).await.unwrap());
        let command = herald::store::Store::connect(&place.url).await.unwrap();
        assert_eq!(command.books().await.unwrap().waiting, 1);
        assert_eq!(worker.heartbeat().await.unwrap(), 1);
        assert!(matches!(command.claim(claim("i1")).await.unwrap(), Claimed::Foreign { .. }));
    })
    .await;
}

#[tokio::test]
async fn an_orderly_end_and_giving_up_free_claims_without_a_crash() {
    on_both(async |place| {
        let a = place.open("a").await;
        for identity in ["left", "given up"] {
            granted(a.claim(claim(identity)).await.unwrap());
        }
        a.give_up(&["given up".to_owned(), "never seen".to_owned()]).await.unwrap();
        assert_eq!(place.number("SELECT count(*) FROM events WHERE owner IS NULL").await, 1);
        a.farewell().await.unwrap();
        let b = place.open("b").await;
        for identity in ["left", "given up"] {
            let (row, first) = granted(b.claim(claim(identity)).await.unwrap());
            assert_eq!((row.crashes, first), (0, false), "{identity}");
        }
        assert_eq!(b.heartbeat().await.unwrap(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_claim_older_than_the_brokers_patience_is_free_without_a_crash() {
    let Some(place) = super::Place::postgres().await else { return };
    let (a, b) = (place.open("a").await, place.open("b").await);
    granted(a.claim(claim("i1")).await.unwrap());
    place.execute("UPDATE events SET claimed_at = claimed_at - 1790000").await;
    assert!(matches!(b.claim(claim("i1")).await.unwrap(), Claimed::Foreign { .. }));
    place.execute("UPDATE events SET claimed_at = claimed_at - 20000").await;
    assert_eq!(granted(b.claim(claim("i1")).await.unwrap()).0.crashes, 0);
    place.clean().await;
}

#[tokio::test]
async fn two_workers_that_claim_the_same_at_once_never_both_get_it() {
    let Some(place) = super::Place::postgres().await else { return };
    let (a, b) = (place.open("a").await, place.open("b").await);
    let names: Vec<String> = (0..400).map(|n| format!("i{n}")).collect();
    let all = |store: herald::store::Store, names: Vec<String>| async move {
        let asked = names.iter().map(|name| store.claim(claim(name)));
        futures::future::join_all(asked).await
    };
    let backwards = names.iter().rev().cloned().collect();
    let (a, b) = tokio::join!(tokio::spawn(all(a, names)), tokio::spawn(all(b, backwards)));
    let (a, mut b) = (a.unwrap(), b.unwrap());
    b.reverse();
    for (a, b) in a.into_iter().zip(b) {
        let got = [a.unwrap(), b.unwrap()].map(|claimed| matches!(claimed, Claimed::Granted { first: true, .. }));
        assert_eq!(got.iter().filter(|got| **got).count(), 1);
    }
    place.clean().await;
}

#[tokio::test]
async fn an_event_workers_died_over_is_nobodys_until_it_is_claimed_alone() {
    on_both(async |place| {
        granted(place.open("a").await.claim(claim("i1")).await.unwrap());
        for (alone, crashes) in
            [(false, 1), (false, 2), (false, 3), (false, 3), (true, 3), (true, 4), (false, 5), (false, 5)]
        {
            let store = place.open("a").await;
            let claimed = if alone { store.claim_alone(claim("i1")).await } else { store.claim(claim("i1")).await };
            assert_eq!(granted(claimed.unwrap()).0.crashes, crashes);
        }
    })
    .await;
}

/// PostgreSQL keeps what has only been claimed out of the indexes that everything else is found by.
#[tokio::test]
async fn an_event_in_hand_is_found_and_counted_like_any_other() {
    on_both(async |place| {
        let store = place.open("a").await;
        store.record(record(Entry { first_seen: 2_000, ..entry("recorded") })).await.unwrap();
        for (name, first_seen) in [("earlier", 1_000), ("later", 3_000)] {
            let claim =
                Claim { first_seen, event_id: "e1".to_owned(), partner_id: Some("u1".to_owned()), ..claim(name) };
            granted(store.claim(claim).await.unwrap());
        }
        let names = async |find: Find, limit: u32| -> Vec<String> {
            store.find(&find, limit).await.unwrap().into_iter().map(|entry| entry.identity).collect()
        };
        assert_eq!(names(Find::User("u1".into()), 10).await, ["later", "recorded", "earlier"]);
        assert_eq!(names(Find::User("u1".into()), 2).await, ["later", "recorded"]);
        assert_eq!(names(Find::Session("s1".into()), 10).await, ["later", "recorded", "earlier"]);
        assert_eq!(names(Find::Id("e1".into()), 10).await, ["later", "earlier"]);
        let books = store.books().await.unwrap();
        assert_eq!((books.received, books.waiting, books.closed()), (3, 2, true));
        let in_hand = Waiting { queue: None, oldest: 1_000, overdue: 0 };
        assert_eq!(store.waiting(i64::MAX).await.unwrap(), [in_hand]);
        // Once it was seen again it is found like what is recorded, and once only.
        granted(store.claim(claim("later")).await.unwrap());
        store.record(record(entry("earlier"))).await.unwrap();
        assert_eq!(names(Find::User("u1".into()), 10).await, ["later", "recorded", "earlier"]);
        let books = store.books().await.unwrap();
        assert_eq!((books.received, books.waiting, books.closed()), (3, 1, true));
    })
    .await;
}
