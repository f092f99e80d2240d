//! `herald status` as a probe, and watched.

use std::{io::Read, process::Stdio};

use herald::broker::Broker;
use herald::broker::{Destination, Message};
use herald::domain::ledger::State;
use herald::sandbox::{Action, Endpoint, Fault, Match};
use serde_json::{Value, json};

use crate::{
    commands::{bury, check, herald},
    rig::Rig,
    support::eventually,
};

/// Names of what is wrong, and the exit code.
fn wrong(rig: &Rig, args: &[&str]) -> (Vec<String>, Option<i32>, Value) {
    let output = herald(rig, &[&["status", "--json"], args].concat(), &[]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let names = told["symptoms"].as_array().unwrap_or_else(|| panic!("{output:?}")).iter();
    (names.map(|found| found["name"].as_str().unwrap().to_owned()).collect(), output.status.code(), told)
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_a_probe() {
    let Some(mut rig) = Rig::new("status_probe").await else { return };
    assert_eq!(wrong(&rig, &[]).0, ["no_consumer"]);
    check(&herald(&rig, &["status"], &[]), 1, "WRONG  nobody takes events from ");
    rig.start().await;
    let (names, code, told) = wrong(&rig, &[]);
    assert_eq!((names, code), (vec![], Some(0)), "{told}");
    assert_eq!(told["workers"][0]["instance"], "rig");
    check(&herald(&rig, &["status"], &[]), 0, "nothing is wrong");

    bury(&rig, "e1", "exhausted", json!({})).await;
    let (names, code, told) = wrong(&rig, &[]);
    assert_eq!((names, code, &told["fresh_dead_letters"]), (vec!["letters_growing".to_owned()], Some(1), &json!(1)));
    rig.sql("UPDATE LEDGER.dead_letters SET failed_at = failed_at - 700000").await;
    assert_eq!(wrong(&rig, &[]).1, Some(0), "it was long ago");
    assert_eq!(wrong(&rig, &["--dead-within", "1h"]).0, ["letters_growing"]);

    rig.send(json!({"id": "e2", "sessionId": "s2", "event": "a.b"})).await;
    rig.until("e2", State::Done).await;
    rig.sql("UPDATE LEDGER.events SET state = 'waiting', next_at = updated_at - 400000").await;
    assert_eq!(wrong(&rig, &[]).0, ["overdue"]);
    rig.sql("UPDATE LEDGER.events SET state = 'done'; UPDATE LEDGER.received SET total = total + 1 WHERE shard = 3")
        .await;
    assert_eq!(wrong(&rig, &[]).0, ["books_open"]);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_the_oldest_event_is_known_from_the_workers_and_never_made_up() {
    let Some(mut rig) = Rig::new("status_age").await else { return };
    let events = rig.topology.events();
    let age = |rig: &Rig| {
        let (names, _, told) = wrong(rig, &["--max-age", "1h"]);
        let row =
            told["queues"].as_array().unwrap().iter().find(|row| row["queue"] == events.as_str()).unwrap().clone();
        (names, row["oldest_seconds"].clone(), row["ready"].clone())
    };
    let send = async |rig: &Rig, id: &str, hours: i64| {
        let at = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours);
        let properties = lapin::BasicProperties::default().with_timestamp(at.as_second() as u64);
        let body = json!({"id": id, "sessionId": id, "event": "a.b"}).to_string();
        rig.broker
            .publish(&Destination::Queue(events.clone()), Message { body: body.into(), properties })
            .await
            .unwrap();
    };
    send(&rig, "e0", 2).await;
    assert_eq!(age(&rig).1, Value::Null, "nobody has seen anything of it");
    // Ably does not answer, and one event is all that this worker takes at once.
    let publish = Match { endpoint: Some(Endpoint::Publish), ..Match::default() };
    rig.sandbox.control().add_fault(Fault { matching: publish, ..Fault::new(Action::Hold) });
    rig.start_with(&[("HERALD_BROKER__PREFETCH", "1")]).await;
    send(&rig, "e1", 2).await;
    let (names, seconds, ready) = eventually("the worker told what it took", async || {
        Some(age(&rig)).filter(|(_, seconds, ready)| seconds.is_number() && *ready == 1)
    })
    .await;
    assert!((7_200..7_300).contains(&seconds.as_i64().unwrap()), "{seconds} {ready}");
    assert_eq!(names, ["too_old"]);
    rig.sandbox.control().clear_faults();
    rig.sandbox.control().release();
    rig.until("e1", State::Done).await;
    let (names, seconds, ready) = age(&rig);
    assert_eq!((names, seconds, ready), (vec![], Value::Null, json!(0)), "of an empty queue there is none");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_shows_it_again_until_it_is_stopped() {
    let Some(rig) = Rig::new("status_watch").await else { return };
    for (json, mark) in [(false, "WRONG  nobody takes events"), (true, "\"symptoms\":")] {
        let args = if json { vec!["status", "--watch", "--json"] } else { vec!["status", "--watch"] };
        let mut child = rig.command(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("herald");
        let mut out = child.stdout.take().unwrap();
        let (mut told, mut piece) = (String::new(), [0; 4096]);
        while told.matches(mark).count() < 2 {
            let read = tokio::task::block_in_place(|| out.read(&mut piece).unwrap());
            assert!(read > 0, "it ended by itself: {told}");
            told.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        assert!(!told.contains('\u{1b}'), "no terminal, no escapes: {told}");
        let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(kill.expect("kill").success());
        let status = tokio::task::block_in_place(|| child.wait().unwrap());
        assert_eq!(status.code(), Some(0));
    }
    rig.end().await;
}
