//! Records: in batches, whatever is in them, and the books over them.

use std::time::Duration;

use herald::{
    domain::ledger::{Entry, State, Via},
    store::{Find, StoreError, TicketReceipt, Waiting},
};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};

use super::{claim, dead, entry, granted, letter, on_both, record, ticket};
use crate::support::eventually;

/// Returns how often a statement was run, as the metrics page says it.
fn statements(page: &str, name: &str) -> u64 {
    let line = format!("herald_store_statements_total{{statement=\"{name}\"}} ");
    page.lines().find_map(|text| text.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
}

// The recorder belongs to the thread, and so does everything this test spawns.
#[tokio::test(flavor = "current_thread")]
async fn five_hundred_at_once_are_five_statements() {
    on_both(async |place| {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let _here = metrics::set_default_local_recorder(&recorder);
        let store = place.open("a").await;
        let names: Vec<String> = (0..500).map(|n| format!("i{:03}", (n * 7) % 500)).collect();
        let claims = futures::future::join_all(names.iter().map(|name| store.claim(claim(name)))).await;
        for (claimed, name) in claims.into_iter().zip(&names) {
            let (row, first) = granted(claimed.unwrap());
            assert_eq!((row.identity.as_str(), first), (name.as_str(), true), "each caller gets its own answer");
        }
        let written = futures::future::join_all(names.iter().map(|name| store.record(record(entry(name))))).await;
        assert!(written.iter().all(Result::is_ok));
        let page = recorder.handle().render();
        assert_eq!((statements(&page, "claim"), statements(&page, "record")), (5, 5), "{page}");
        assert!(page.contains("herald_store_duration_seconds"));
        let books = store.books().await.unwrap();
        assert!(books.closed());
        assert_eq!((books.received, books.done["push"]), (500, 500));
    })
    .await;
}

#[tokio::test]
async fn odd_texts_come_back_as_they_went() {
    let mut runner = TestRunner::deterministic();
    let any = proptest::collection::vec("[^\\x00]{0,40}", 60);
    let mut odd: Vec<String> = any.new_tree(&mut runner).unwrap().current();
    odd.extend(
        ["'; DROP TABLE events; --", "\"\\\\ $1 ?1 %s {}", "𝕱ü🦀👩‍👩‍👧", "\u{feff}\u{202e}abc", "null"].map(str::to_owned),
    );
    odd.push("ü".repeat(127) + "x");
    odd.push("\t\r\n".to_owned());
    on_both(async |place| {
        let store = place.open("a").await;
        let entries: Vec<Entry> = odd
            .iter()
            .enumerate()
            .map(|(n, text)| {
                let mut entry = entry(&format!("{n:03}{text}"));
                entry.event_id = format!("{n:03}{text}");
                entry.partner_id = Some(text.clone());
                entry.detail = Some(text.clone());
                entry.evidence.rule = format!("{text}\u{0}");
                entry.targets.insert(text.clone(), Default::default());
                entry
            })
            .collect();
        let written = futures::future::join_all(entries.iter().map(|entry| store.record(record(entry.clone())))).await;
        assert!(written.iter().all(Result::is_ok), "{written:?}");
        for entry in entries {
            let found = store.find(&Find::Id(entry.event_id.clone()), 10).await.unwrap();
            assert_eq!(found, [entry]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_row_the_database_refuses_fails_alone() {
    on_both(async |place| {
        let store = place.open("a").await;
        // An empty identity is refused by both, a NUL by PostgreSQL.
        let mut names: Vec<String> = (0..50).map(|n| format!("i{n}")).collect();
        names.push(String::new());
        if !place.is_sqlite() {
            names.push("nul\0".to_owned());
        }
        let bad = |name: &str| name.is_empty() || name.contains('\0');
        let claims = futures::future::join_all(names.iter().map(|name| store.claim(claim(name)))).await;
        let records = futures::future::join_all(names.iter().map(|name| store.record(record(entry(name))))).await;
        for ((name, claimed), recorded) in names.iter().zip(&claims).zip(&records) {
            assert_eq!(matches!(claimed, Err(StoreError::Data(_))), bad(name), "{name:?}: {claimed:?}");
            assert_eq!(matches!(recorded, Err(StoreError::Data(_))), bad(name), "{name:?}: {recorded:?}");
            assert!(bad(name) || (claimed.is_ok() && recorded.is_ok()));
        }
        assert!(store.books().await.unwrap().closed());
    })
    .await;
}

#[tokio::test]
async fn the_same_identity_twice_in_a_batch_is_written_in_order() {
    on_both(async |place| {
        let store = place.open("a").await;
        let (one, two) = tokio::join!(store.claim(claim("i1")), store.claim(claim("i1")));
        assert_eq!([granted(one.unwrap()).1, granted(two.unwrap()).1], [true, false]);
        let later = Entry { attempt: 2, ..entry("i1") };
        let (one, two) = tokio::join!(store.record(record(entry("i1"))), store.record(record(later.clone())));
        one.and(two).unwrap();
        assert_eq!(store.find(&Find::Id(later.event_id.clone()), 5).await.unwrap(), [later]);
    })
    .await;
}

#[tokio::test]
async fn what_waits_is_counted_by_queue_and_only_what_is_late_is_overdue() {
    on_both(async |place| {
        let store = place.open("a").await;
        for (name, queue, first_seen, next_at, state) in [
            ("i1", Some("h.retry.5s"), 500, Some(1_000), State::Waiting),
            ("i2", Some("h.retry.5s"), 400, Some(2_000), State::Waiting),
            ("i3", Some("h.hold.ably"), 300, None, State::Waiting),
            ("i4", None, 200, None, State::Waiting),
            ("i5", Some("h.retry.5s"), 100, Some(1_000), State::Done),
        ] {
            let queue = queue.map(str::to_owned);
            store.record(record(Entry { queue, first_seen, next_at, state, ..entry(name) })).await.unwrap();
        }
        let mut waiting = store.waiting(2_000).await.unwrap();
        waiting.sort_by_key(|row| row.oldest);
        let row = |queue: Option<&str>, oldest, overdue| Waiting { queue: queue.map(str::to_owned), oldest, overdue };
        let expected = [row(None, 200, 0), row(Some("h.hold.ably"), 300, 0), row(Some("h.retry.5s"), 400, 1)];
        assert_eq!(waiting, expected);
    })
    .await;
}

#[tokio::test]
async fn rows_are_found_by_id_user_and_session_newest_first() {
    on_both(async |place| {
        let store = place.open("a").await;
        for (n, user, session) in [(1, "u1", "s1"), (2, "u2", "s1"), (3, "u1", "s2"), (4, "u1", "s1")] {
            let mut entry = entry(&format!("i{n}"));
            (entry.first_seen, entry.event_id) = (n, format!("e{}", n % 2));
            (entry.partner_id, entry.session_id) = (Some(user.to_owned()), Some(session.to_owned()));
            store.record(record(entry)).await.unwrap();
        }
        for (what, limit, expected) in [
            (Find::User("u1".into()), 10, vec!["i4", "i3", "i1"]),
            (Find::User("u1".into()), 2, vec!["i4", "i3"]),
            (Find::Session("s1".into()), 10, vec!["i4", "i2", "i1"]),
            (Find::Id("e0".into()), 10, vec!["i4", "i2"]),
            (Find::Id("nothing".into()), 10, vec![]),
        ] {
            let found = store.find(&what, limit).await.unwrap();
            let names: Vec<_> = found.iter().map(|entry| entry.identity.as_str()).collect();
            assert_eq!(names, expected, "{what:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_books_close_and_would_not_if_a_row_were_lost() {
    on_both(async |place| {
        let store = place.open("a").await;
        assert_eq!(store.books().await.unwrap(), Default::default());
        for n in 0..6 {
            granted(store.claim(claim(&format!("i{n}"))).await.unwrap());
        }
        let skipped = Entry { state: State::Skipped, reason: Some("no_token".into()), via: None, ..entry("i2") };
        let both = Entry { via: Some(Via::Both), repeats: 2, id_reused: 1, ..entry("i1") };
        let waiting = Entry { state: State::Waiting, reason: Some("throttled".into()), via: None, ..entry("i4") };
        for entry in [entry("i0"), both, skipped, dead("i3", "exhausted"), waiting, dead("unread", "malformed")] {
            store.record(record(entry)).await.unwrap();
        }
        let books = store.books().await.unwrap();
        assert_eq!((books.received, books.waiting), (7, 2), "one malformed was never claimed");
        assert_eq!(books.done, [("push".to_owned(), 1), ("both".to_owned(), 1)].into());
        assert_eq!(books.skipped, [("no_token".to_owned(), 1)].into());
        assert_eq!(books.dead, [("exhausted".to_owned(), 1), ("malformed".to_owned(), 1)].into());
        assert_eq!((books.repeats, books.id_reused, books.closed()), (2, 1, true));

        place.execute("DELETE FROM events WHERE identity = 'i0'").await;
        assert!(!store.books().await.unwrap().closed());
    })
    .await;
}

#[tokio::test]
async fn a_record_repeated_writes_its_tickets_and_letter_once() {
    on_both(async |place| {
        let store = place.open("a").await;
        let full = herald::store::Record {
            entry: dead("i1", "exhausted"),
            tickets: vec![ticket("t1", "i1", 10), ticket("t2", "i1", 20)],
            letter: Some(letter("i1", "exhausted", 500).into()),
        };
        store.record(full.clone()).await.unwrap();
        store.record(full).await.unwrap();
        assert_eq!(place.number("SELECT count(*) FROM tickets").await, 2);
        assert_eq!(place.number("SELECT count(*) FROM dead_letters").await, 1);
        assert_eq!(store.books().await.unwrap().received, 1);
    })
    .await;
}

/// Returns the ids of the tickets that are due, sorted.
async fn take(store: &herald::store::Store, limit: u32) -> Vec<String> {
    let taken = store.take_tickets(limit, Duration::from_secs(3)).await.unwrap();
    let mut ids: Vec<_> = taken.into_iter().map(|due| due.ticket.id).collect();
    ids.sort();
    ids
}

fn said(id: &str, receipt: &str) -> TicketReceipt {
    TicketReceipt { id: id.to_owned(), receipt: receipt.to_owned() }
}

#[tokio::test]
async fn a_due_ticket_is_taken_by_one_worker_and_due_again_when_it_is_not_settled() {
    on_both(async |place| {
        let store = place.open("a").await;
        let now = jiff::Timestamp::now().as_millisecond();
        let mut later = ticket("later", "i1", now);
        later.due_at = now + 3_600_000;
        let mut tickets: Vec<_> = (0..5).map(|n| ticket(&format!("t{n}"), "i1", now - 100 + n)).collect();
        tickets.push(later);
        store.record(herald::store::Record { entry: entry("i1"), tickets, letter: None }).await.unwrap();

        assert_eq!(take(&store, 2).await, ["t0", "t1"], "the longest due first");
        let (one, other) = tokio::join!(take(&store, 10), take(&store, 10));
        let mut both = [one, other].concat();
        both.sort();
        assert_eq!(both, ["t2", "t3", "t4"], "each once");
        assert_eq!(store.settle_tickets(&[said("t3", "ok")]).await.unwrap(), ["t3"]);
        let again = eventually("the others are due again", async || {
            let due = take(&store, 10).await;
            (!due.is_empty()).then_some(due)
        })
        .await;
        assert!(!again.contains(&"t3".to_owned()) && !again.contains(&"later".to_owned()), "{again:?}");
    })
    .await;
}

#[tokio::test]
async fn a_ticket_is_put_off_by_a_quarter_of_its_age_and_asked_for_at_the_age_of_a_day() {
    on_both(async |place| {
        let store = place.open("a").await;
        let now = jiff::Timestamp::now().as_millisecond();
        const MINUTE: i64 = 60_000;
        let ages = [("young", 1), ("hour", 60), ("half", 720), ("late", 23 * 60 + 50), ("over", 25 * 60)];
        let tickets = ages.iter().map(|(id, minutes)| ticket(id, "i1", now - minutes * MINUTE)).collect();
        store.record(herald::store::Record { entry: entry("i1"), tickets, letter: None }).await.unwrap();
        let taken = store.take_tickets(10, Duration::from_secs(60)).await.unwrap();
        for (id, pause) in [("young", 1), ("hour", 15), ("half", 60), ("late", 10), ("over", 1)] {
            let due = taken.iter().find(|due| due.ticket.id == id).unwrap();
            let found = due.ticket.due_at - now;
            assert!((pause * MINUTE..pause * MINUTE + 20_000).contains(&found), "{id}: {found} ms");
            let age = ages.iter().find(|(name, _)| *name == id).unwrap().1 as u64 * 60;
            assert!((age..age + 20).contains(&due.age.as_secs()), "{id}: {:?}", due.age);
        }
    })
    .await;
}

#[tokio::test]
async fn a_receipt_is_noted_once_beside_the_row_and_no_later_record_undoes_it() {
    on_both(async |place| {
        let store = place.open("a").await;
        let mut other = ticket("t2", "i1", 20);
        other.target = "expo:ffffffffffff".to_owned();
        let tickets = vec![ticket("t1", "i1", 10), other, ticket("tx", "gone", 5)];
        let full = herald::store::Record { entry: entry("i1"), tickets, letter: None };
        store.record(full.clone()).await.unwrap();

        let receipts = [said("t1", "it's \"ok\""), said("t2", "another target"), said("tx", "ok"), said("none", "ok")];
        let mut settled = store.settle_tickets(&receipts).await.unwrap();
        settled.sort();
        assert_eq!(settled, ["t1", "t2", "tx"], "that a row is gone is no error");
        assert!(store.settle_tickets(&[said("t1", "other")]).await.unwrap().is_empty(), "once");
        assert_eq!(
            place.number("SELECT count(*) FROM tickets WHERE token <> ''").await,
            0,
            "push tokens are forgotten"
        );

        store.record(full).await.unwrap();
        let mut expected = entry("i1");
        expected.targets.get_mut("expo:0123456789ab").unwrap().receipt = Some("it's \"ok\"".to_owned());
        assert_eq!(store.find(&Find::Id(expected.event_id.clone()), 1).await.unwrap(), [expected]);
        assert!(take(&store, 10).await.is_empty(), "nothing is asked for again");
    })
    .await;
}
