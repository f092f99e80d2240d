//! Order within a session, whoever else is at the table, and rows that stop nobody.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::Executor;

use super::{all_relayed, app, drain, id_of, relay, rows, table, write};
use crate::{rig::Rig, support::eventually};

const SESSIONS: usize = 5;

/// Checks that each session's rows came in the order of their numbers, first times only, and returns how many came twice.
#[track_caller]
fn in_order(ids: &[String], count: usize) -> usize {
    let mut last: BTreeMap<usize, usize> = BTreeMap::new();
    let mut seen = vec![false; count];
    for id in ids {
        let n: usize = id.parse().expect("a number");
        if std::mem::replace(&mut seen[n], true) {
            continue;
        }
        let before = last.insert(n % SESSIONS, n);
        assert!(before.is_none_or(|before| before < n), "{n} came after {before:?}");
    }
    assert!(seen.iter().all(|seen| *seen), "all of {count} came");
    ids.len() - count
}

#[tokio::test]
async fn several_relays_share_the_rows_and_keep_each_sessions_order() {
    let Some(mut rig) = Rig::new("oborder").await else { return };
    let mut backend = table(&rig).await;
    // So few rows at once that a session's rows are spread over both relays' hands.
    let few = [("HERALD_OUTBOX__BATCH", "7"), ("HERALD_OUTBOX__POLL", "100ms")];
    for name in ["one", "two", "three"] {
        relay(&mut rig, name, &few).await;
    }
    // A relay is ready before it has reached the broker, so rows are written until each has had some.
    let mut count = 0;
    let shared = async || {
        let rows: Vec<_> = (count..count + 10).map(|n| (n.to_string(), format!("s{}", n % SESSIONS))).collect();
        write(&mut backend, &rows).await;
        count += 10;
        for number in 0..3 {
            let page = reqwest::get(format!("{}/metrics", rig.http(number))).await.ok()?.text().await.ok()?;
            let relayed = page.lines().find_map(|line| line.strip_prefix("herald_outbox_relayed_total "));
            relayed.filter(|relayed| *relayed != "0")?;
        }
        (count >= 300).then_some(())
    };
    eventually("each relay took its share", shared).await;
    all_relayed(&mut backend).await;
    let ids: Vec<String> = drain(&rig, &rig.topology.events()).await.iter().map(id_of).collect();
    let repeats = in_order(&ids, count);
    assert_eq!(repeats, 0, "nothing failed, so nothing came twice");
    rig.end().await;
}

#[tokio::test]
async fn a_row_in_somebodys_hands_holds_its_own_session_up_and_no_other() {
    let Some(mut rig) = Rig::new("obheld").await else { return };
    let mut backend = table(&rig).await;
    let pair = |n: usize| (n.to_string(), format!("s{}", n % SESSIONS));
    write(&mut backend, &(0..20).map(pair).collect::<Vec<_>>()).await;
    // As another relay would, or an operator who forgot to commit.
    let mut other = app(&rig).await;
    other.execute("BEGIN; SELECT 1 FROM herald_outbox WHERE id = '5' FOR UPDATE").await.unwrap();
    relay(&mut rig, "relay", &[("HERALD_OUTBOX__POLL", "100ms")]).await;
    eventually("only the rest of that session waits", async || (rows(&mut backend).await.1 == 3).then_some(())).await;
    // What is written meanwhile passes by as well.
    write(&mut backend, &(20..25).map(pair).collect::<Vec<_>>()).await;
    eventually("and what came to it", async || (rows(&mut backend).await.1 == 4).then_some(())).await;
    let mut ids: Vec<String> = drain(&rig, &rig.topology.events()).await.iter().map(id_of).collect();
    assert!(!ids.iter().any(|id| ["5", "10", "15", "20"].contains(&id.as_str())), "{ids:?}");
    other.execute("COMMIT").await.unwrap();
    all_relayed(&mut backend).await;
    ids.extend(drain(&rig, &rig.topology.events()).await.iter().map(id_of));
    assert_eq!(in_order(&ids, 25), 0);
    rig.end().await;
}

#[tokio::test]
async fn a_late_commit_with_an_earlier_number_is_not_overlooked() {
    let Some(mut rig) = Rig::new("oblate").await else { return };
    let mut backend = table(&rig).await;
    relay(&mut rig, "relay", &[]).await;
    let mut late = app(&rig).await;
    late.execute("BEGIN; INSERT INTO herald_outbox (id, session_id, event) VALUES ('0', 's0', 'e')").await.unwrap();
    write(&mut backend, &[("1".into(), "s1".into())]).await;
    all_relayed(&mut backend).await;
    late.execute("COMMIT").await.unwrap();
    all_relayed(&mut backend).await;
    let ids: Vec<String> = drain(&rig, &rig.topology.events()).await.iter().map(id_of).collect();
    assert_eq!(ids, ["1", "0"]);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_no_events_are_marked_and_the_rows_behind_them_go() {
    let Some(mut rig) = Rig::new("obbad").await else { return };
    let mut backend = table(&rig).await;
    let bad = r#"INSERT INTO herald_outbox (id, session_id, event, data, expires_at) VALUES
        (repeat('x', 129), 's1', 'e', '{}', NULL), ('', 's1', 'e', '{}', NULL),
        ('array', 's1', 'e', '[1]', NULL), ('text', 's1', 'e', '"secret"', NULL),
        ('large', 's1', 'e', jsonb_build_object('x', repeat('y', 66000)), NULL),
        ('huge', 's1', 'e', jsonb_build_object('x', repeat('y', 3000000)), NULL),
        ('session', repeat('long ', 100000), 'e', '{}', NULL), ('event', 's1', E'a\nb', '{}', NULL),
        ('never', 's1', 'e', '{}', 'infinity'), ('number', 's1', 'e', jsonb_build_object('n', ('1' || repeat('0', 400))::numeric), NULL)"#;
    backend.execute(bad).await.unwrap();
    write(&mut backend, &[("good".into(), "s1".into())]).await;
    // Fewer at once than there are bad ones in front.
    let number = relay(&mut rig, "relay", &[("HERALD_OUTBOX__BATCH", "3")]).await;
    all_relayed(&mut backend).await;
    assert_eq!(rows(&mut backend).await, (10, 0, 10));
    let ids: Vec<String> = drain(&rig, &rig.topology.events()).await.iter().map(id_of).collect();
    assert_eq!(ids, ["good"]);
    let errors: Vec<(String, String)> = sqlx::query_as("SELECT left(id, 9), error FROM herald_outbox ORDER BY seq")
        .fetch_all(&mut backend)
        .await
        .unwrap();
    let expected = [
        "id: has 129 characters; at most 128",
        "id: is empty",
        "data: is an array; expected an object",
        "data: is a string; expected an object",
        "row: has 66",
        "data: has 3000009 bytes; at most 65536",
        "session_id: has 256 characters",
        "event: holds the control character U+000A",
        "expires_at: is no time",
        "data: cannot be read: number out of range",
    ];
    for ((id, error), expected) in errors.iter().zip(expected) {
        assert!(error.starts_with(expected) && error.len() <= 300 && !error.contains("secret"), "{id}: {error}");
    }
    assert_eq!(rig.counter("herald_outbox_failed_total").await, 10);
    let log = rig.log(number);
    assert!(log.contains("mend them and set both to NULL") && log.contains("seq 1: id: has 129"), "{log}");
    let check = tokio::task::block_in_place(|| rig.command(&["check"]).output().unwrap());
    let told = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(told.contains("10 are no events: SELECT seq, error FROM"), "{told}");

    // Mended as the log says.
    backend
        .execute(
            "UPDATE herald_outbox SET data = '{\"mended\": true}', failed_at = NULL, error = NULL WHERE id = 'array'",
        )
        .await
        .unwrap();
    write(&mut backend, &[("after".into(), "s1".into())]).await;
    all_relayed(&mut backend).await;
    let events = drain(&rig, &rig.topology.events()).await;
    assert_eq!(events.iter().map(id_of).collect::<Vec<_>>(), ["array", "after"]);
    let body: Value = serde_json::from_slice(&events[0].message.body).unwrap();
    assert_eq!(body["data"]["mended"], true);
    rig.end().await;
}
