//! Acting on dead letters from outside: filters, looking that changes nothing, replays that are cut off and go on, one walker at a
//! time, export and import.

use std::{
    collections::BTreeMap,
    process::{Child, Stdio},
};

use herald::{
    broker::{Broker, Destination, Message, headers_json, marks::Marks},
    domain::{
        event::{Meta, decode},
        ledger::{Letter, State},
    },
    store::{Left, LetterFilter, Turn},
};
use serde_json::{Value, json};

use crate::{
    commands::{body, bury, check, dead_letter, drain, herald},
    rig::{Rig, event},
    support::eventually,
};

/// Buries `count` pushes, each for a user of its own.
async fn bury_pushes(rig: &Rig, count: usize) {
    let user = |n: usize| (format!("u{n}"), Some(format!("ExponentPushToken[phone-{n}]")));
    rig.add_users((0..count).map(user)).await;
    let letters = (0..count).map(|n| {
        let fields = json!({ "sessionId": format!("s{n}"), "partnerId": format!("u{n}") });
        dead_letter(rig, &format!("e{n}"), "exhausted", fields)
    });
    bury_all(rig, letters.collect()).await;
}

async fn bury_all(rig: &Rig, letters: Vec<(Message, Letter)>) {
    let dead = Destination::Queue(rig.topology.dead());
    let (messages, letters): (Vec<_>, Vec<_>) = letters.into_iter().unzip();
    for chunk in messages.chunks(100) {
        let published = chunk.iter().map(|message| rig.broker.publish(&dead, message.clone()));
        futures::future::try_join_all(published).await.unwrap();
    }
    rig.store.add_letters(letters).await.unwrap();
}

fn spawn(rig: &Rig, args: &[&str]) -> Child {
    rig.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("herald")
}

fn signal(child: &Child, name: &str) {
    let sent = std::process::Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill");
    assert!(sent.success());
}

async fn indexed(rig: &Rig) -> u64 {
    rig.store.letter_count(&LetterFilter::default()).await.unwrap() as u64
}

/// Waits until so many letters have left the index.
async fn until_left(rig: &Rig, most: u64) {
    eventually("the replay has begun", async || (indexed(rig).await <= most).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_chosen_by_user_and_age_and_counted_by_group() {
    let Some(rig) = Rig::new("letters_filter").await else { return };
    bury(&rig, "e1", "exhausted", json!({ "partnerId": "ada" })).await;
    bury(&rig, "e2", "exhausted", json!({ "partnerId": "bob" })).await;
    bury(&rig, "e3", "rejected", json!({ "partnerId": "ada" })).await;
    let ids = |args: &[&str]| {
        let told = check(&herald(&rig, &[&["dead", "list", "--json"], args].concat(), &[]), 0, "");
        let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
        told.lines().map(id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&["--user", "ada"]), ["e3", "e1"]);
    assert_eq!(ids(&["--user", "ada", "--reason", "exhausted"]), ["e1"]);
    assert_eq!(ids(&["--newer", "1h"]), ["e3", "e2", "e1"]);
    assert_eq!(ids(&["--newer", "1h", "--older", "1h"]), [""; 0]);
    let told = check(&herald(&rig, &["dead", "list", "--group"], &[]), 0, "newest");
    let row = |number: usize| told.lines().nth(number).unwrap().split_whitespace().take(3).collect::<Vec<_>>();
    assert_eq!([row(1), row(2)], [["2", "exhausted", "a.b"], ["1", "rejected", "a.b"]]);
    let told = check(&herald(&rig, &["dead", "list", "--group", "--json", "--user", "bob"], &[]), 0, "");
    let group: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&group["reason"], &group["letters"]), (&json!("exhausted"), &json!(1)));
    // What expired does not use the limit up.
    let past = jiff::Timestamp::now().checked_sub(jiff::Span::new().hours(1)).unwrap().to_string();
    bury(&rig, "e4", "expired", json!({ "expiresAt": past })).await;
    let expected = "would replay 1 letter: 1 rejected; 1 would expire at once and stay";
    check(&herald(&rig, &["dead", "replay", "--limit", "1", "--dry-run"], &[]), 0, expected);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_fifty_times_changes_nothing() {
    let Some(rig) = Rig::new("letters_look").await else { return };
    for n in 0..5 {
        bury(&rig, &format!("e{n}"), "exhausted", json!({ "data": { "n": n } })).await;
    }
    let looks: [&[&str]; 5] = [
        &["dead", "list"],
        &["dead", "list", "--group"],
        &["dead", "show", "e3"],
        &["dead", "export"],
        &["dead", "replay", "--dry-run"],
    ];
    for look in looks.iter().cycle().take(50) {
        check(&herald(&rig, look, &[]), 0, "");
    }
    assert_eq!(rig.ready_messages(&rig.topology.dead()).await, 5);
    let letters = drain(&rig, &rig.topology.dead()).await;
    let ids: Vec<_> = letters.iter().map(|letter| body(letter)["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, ["e0", "e1", "e2", "e3", "e4"], "in their order");
    for letter in &letters {
        assert!(!letter.redelivered, "never taken before");
        let headers = headers_json(&letter.message);
        let returns = headers.get("x-delivery-count").and_then(Value::as_i64).unwrap_or(0);
        assert!(returns == 0 && headers.get("x-death").is_none(), "{headers}");
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_stopped_by_ctrl_c_goes_on_where_it_was() {
    let Some(rig) = Rig::new("letters_stop").await else { return };
    bury_pushes(&rig, 200).await;
    let replay = ["dead", "replay", "--yes", "--rate", "20"];
    let child = spawn(&rig, &replay);
    until_left(&rig, 180).await;
    signal(&child, "-INT");
    let stopped = tokio::task::block_in_place(|| child.wait_with_output().unwrap());
    let told = check(&stopped, 1, "herald: interrupted: ");
    let done: u64 = told.lines().find_map(|line| line.strip_prefix("replayed ")).unwrap().parse().unwrap();
    assert!((1..200).contains(&done), "{told}");
    // Everything is in one place, and the index says so.
    assert_eq!((indexed(&rig).await, rig.ready_messages(&rig.topology.dead()).await), (200 - done, 200 - done));
    assert_eq!(rig.ready_messages(&rig.topology.events()).await, done);
    check(&herald(&rig, &replay[..3], &[]), 0, &format!("replayed {}", 200 - done));
    let mut seen = BTreeMap::new();
    for event in drain(&rig, &rig.topology.events()).await {
        *seen.entry(body(&event)["id"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    assert!(seen.len() == 200 && seen.values().all(|times| *times == 1), "{seen:?}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_was_killed_goes_on_and_every_event_is_delivered_once() {
    let Some(mut rig) = Rig::new("letters_kill").await else { return };
    let count = 300;
    bury_pushes(&rig, count).await;
    // Of another event, so that it is kept: what was in hand of it may lie there twice after a kill.
    let kept = (0..40).map(|n| dead_letter(&rig, &format!("kept-{n}"), "rejected", json!({ "event": "kept" })));
    bury_all(&rig, kept.collect()).await;
    rig.start().await;
    let replay = ["dead", "replay", "--reason", "exhausted", "--yes"];
    let mut child = spawn(&rig, &[&replay[..], &["--rate", "30"]].concat());
    until_left(&rig, 40 + 270).await;
    child.kill().unwrap();
    child.wait().unwrap();
    // The killed process keeps its turn for ten seconds: whoever comes meanwhile is told.
    check(&herald(&rig, &replay, &[]), 1, "is walking the dead letters since ");
    eventually("the turn is free again", async || {
        let output = herald(&rig, &replay, &[]);
        (output.status.code() == Some(0)).then_some(())
    })
    .await;
    for n in 0..count {
        rig.until(&format!("e{n}"), State::Done).await;
    }
    let effects = rig.effects();
    let twice: Vec<_> = effects.iter().filter(|(_, seen)| **seen != (0, 1)).collect();
    assert!(twice.is_empty() && effects.len() == count, "{} events, not once: {twice:?}", effects.len());
    assert_eq!(
        (indexed(&rig).await, rig.ready_messages(&rig.topology.dead()).await),
        (40, 40),
        "what was kept is there once"
    );
    assert!(rig.books().await.closed());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_is_replayed_twice_is_delivered_once() {
    let Some(mut rig) = Rig::new("letters_twice").await else { return };
    bury_pushes(&rig, 1).await;
    let [letter] = <[_; 1]>::try_from(drain(&rig, &rig.topology.dead()).await).unwrap();
    for _ in 0..2 {
        rig.broker.publish(&Destination::Queue(rig.topology.dead()), letter.message.clone()).await.unwrap();
    }
    check(&herald(&rig, &["dead", "replay", "--yes"], &[]), 0, "replayed 1");
    // The other one, which the index does not know: as after a kill in the wrong moment.
    let again = Letter { number: 0, failed_at: 1, ..rig_letter(&letter.message) };
    rig.store
        .add_letters(vec![Letter { failed_at: failed_at(&letter.message), identity: None, ..again }])
        .await
        .unwrap();
    check(&herald(&rig, &["dead", "replay", "--yes"], &[]), 0, "replayed 1");
    assert_eq!(rig.ready_messages(&rig.topology.events()).await, 2);
    rig.start().await;
    rig.until("e0", State::Done).await;
    eventually("both were settled", async || {
        let settled = rig.counter("messaging_client_consumed_messages_total").await;
        (settled == 2 && rig.ready_messages(&rig.topology.events()).await == 0).then_some(())
    })
    .await;
    eventually("the repeat is dropped", async || {
        (rig.counter("herald_settled_total{disposition=\"repeat\",reason=\"\"}").await == 1).then_some(())
    })
    .await;
    assert_eq!(rig.effects()["e0"], (0, 1));
    rig.end().await;
}

fn failed_at(letter: &Message) -> i64 {
    Marks::read(letter).failed_at.unwrap().as_millisecond()
}

/// Returns what the index keeps of a letter, as far as replaying needs it.
fn rig_letter(message: &Message) -> Letter {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let event = decode(&message.body, &Meta::default()).unwrap();
    Letter {
        number: 0,
        id: event.id,
        identity: None,
        session_id: Some(event.session_id),
        partner_id: event.partner_id,
        event: Some(event.name),
        reason: "exhausted".into(),
        error: String::new(),
        route: None,
        attempt: 5,
        replay: 0,
        failed_at: failed_at(message),
        first_seen: None,
        headers: headers_json(message),
        content_type: None,
        body: BASE64_STANDARD.encode(&message.body),
        body_bytes: message.body.len() as i64,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_walks_the_queue_at_a_time() {
    let Some(rig) = Rig::new("letters_turn").await else { return };
    let letters = (0..60).map(|n| dead_letter(&rig, &format!("e{n}"), "exhausted", json!({})));
    bury_all(&rig, letters.collect()).await;
    let child = spawn(&rig, &["dead", "replay", "--rate", "1", "--yes"]);
    until_left(&rig, 59).await;
    let second = herald(&rig, &["dead", "drop", "--yes"], &[]);
    check(&second, 1, "herald: `herald dead on ");
    check(&second, 1, &format!("process {}", child.id()));
    assert_eq!(String::from_utf8_lossy(&second.stderr).lines().count(), 1, "one clear line");
    signal(&child, "-TERM");
    let first = tokio::task::block_in_place(|| child.wait_with_output().unwrap());
    check(&first, 1, "herald: interrupted: ");
    let left = indexed(&rig).await;
    check(&herald(&rig, &["dead", "drop", "--yes"], &[]), 0, &format!("dropped {left}"));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_walk_left_is_dealt_with_by_the_next() {
    let Some(rig) = Rig::new("letters_left").await else { return };
    for id in ["acted", "twin", "other"] {
        bury(&rig, id, "exhausted", json!({})).await;
    }
    let turn = rig.store.begin_sweep(&rig.topology.dead(), "a process that is killed").await.unwrap();
    assert_eq!(turn, Turn::Ours { unfinished_since: None });
    // It replayed `acted` and told the index, but acknowledged nothing; the copy of `twin` had reached the tail.
    let numbers: Vec<i64> =
        rig.letters().await.iter().filter(|letter| letter.id == "acted").map(|l| l.number).collect();
    rig.store.end_letters(&numbers, "replayed").await.unwrap();
    let letters = drain(&rig, &rig.topology.dead()).await;
    for letter in letters.iter().chain(&letters[1..2]) {
        rig.broker.publish(&Destination::Queue(rig.topology.dead()), letter.message.clone()).await.unwrap();
    }
    assert_eq!(rig.ready_messages(&rig.topology.dead()).await, 4);
    rig.sql("UPDATE LEDGER.sweeps SET beat_at = beat_at - 60000").await;
    check(&herald(&rig, &["dead", "drop", "--id", "other", "--yes"], &[]), 0, "dropped 1");
    let left = drain(&rig, &rig.topology.dead()).await;
    assert_eq!(left.iter().map(|letter| body(letter)["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>(), ["twin"]);
    // Nothing is left now: the next may stop with the last letter it looks for.
    let turn = rig.store.begin_sweep(&rig.topology.dead(), "the next").await.unwrap();
    assert_eq!(turn, Turn::Ours { unfinished_since: None });
    rig.store.end_sweep(&rig.topology.dead(), "the next", Left::AsBefore).await.unwrap();
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_imported_whole_once_and_only_when_every_line_is_right() {
    let Some(mut rig) = Rig::new("letters_import").await else { return };
    rig.start().await;
    // The id stands in the properties only, and the letter is herald's own.
    rig.publish(json!({"sessionId": "fault-publish-422x1", "event": "a.b"}).to_string(), Some("e1")).await;
    rig.publish("not JSON", Some("e2")).await;
    rig.until("e1", State::Dead).await;
    rig.until("e2", State::Dead).await;
    let before: Vec<Letter> = rig.letters().await;
    let exported = check(&herald(&rig, &["dead", "export"], &[]), 0, "");
    let file = rig.file("letters.jsonl", &exported);
    check(
        &herald(&rig, &["dead", "import", &file, "--yes"], &[]),
        0,
        "no dead letters to import; 2 lie in the queue and are left out",
    );
    check(&herald(&rig, &["dead", "drop", "--yes"], &[]), 0, "dropped 2");

    let wrong = rig.file("wrong.jsonl", &format!("{exported}{{\"id\": 7}}\n\nnonsense\n"));
    let output = herald(&rig, &["dead", "import", &wrong, "--yes"], &[]);
    check(&output, 1, "herald: letter 3: invalid type");
    check(&output, 1, "herald: letter 4: expected ident");
    check(&output, 1, "herald: nothing was imported");
    check(&herald(&rig, &["dead", "import", &file], &[]), 1, "nothing was done; add --yes to import them");
    check(&herald(&rig, &["dead", "import", &file, "--dry-run"], &[]), 0, "would import 2 letters");
    assert_eq!((indexed(&rig).await, rig.ready_messages(&rig.topology.dead()).await), (0, 0));
    // Twice in the file is once in the queue.
    let double = rig.file("double.jsonl", &format!("{exported}{exported}"));
    let told = check(&herald(&rig, &["dead", "import", &double, "--yes"], &[]), 0, "imported 2");
    assert!(told.contains("will import 2 letters; 2 lie in the queue"), "{told}");
    assert_eq!((indexed(&rig).await, rig.ready_messages(&rig.topology.dead()).await), (2, 2));
    for (before, after) in before.iter().zip(rig.letters().await.iter()) {
        assert_eq!(Letter { number: 0, ..before.clone() }, Letter { number: 0, ..after.clone() });
    }
    // It is as good as the one that was dropped: replayed, it is delivered.
    check(&herald(&rig, &["dead", "replay", "--id", "e1", "--yes"], &[]), 0, "replayed 1");
    rig.until("e1", State::Done).await;
    assert_eq!(rig.effects()["e1"], (1, 0));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_half_delivered_event_a_replay_sends_only_what_is_missing() {
    let Some(mut rig) = Rig::new("letters_half").await else { return };
    let catalogue = rig.file(
        "messages.toml",
        "[\"both.ways\"]\ntitle = \"t\"\nbody = \"b\"\nroute = \"always\"\n\n[default]\ntitle = \"t\"\nbody = \"b\"\n",
    );
    rig.add_users([("u1".to_owned(), Some("ExponentPushToken[fault-push-400x1]".to_owned()))]).await;
    rig.start_with(&[("HERALD_CATALOGUE__PATH", &catalogue)]).await;
    rig.send(event("e1", "both.ways", "s1", "u1")).await;
    let dead = rig.until("e1", State::Dead).await;
    assert_eq!((dead.route.as_deref(), dead.any_accepted()), (Some("both"), true), "{dead:?}");
    assert_eq!(rig.effects()["e1"], (1, 0));
    check(&herald(&rig, &["dead", "replay", "--yes"], &[]), 0, "replayed 1");
    let done = rig.until("e1", State::Done).await;
    assert_eq!(done.via.map(|via| via.as_str()), Some("both"));
    assert_eq!(rig.effects()["e1"], (1, 1), "published once, pushed once");
    rig.end().await;
}
