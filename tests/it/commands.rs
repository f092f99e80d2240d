//! The commands against real services: what they print, return and leave behind.

use std::process::Output;

use base64::{Engine, prelude::BASE64_STANDARD};
use herald::{
    broker::{Broker, Delivery, Destination, Message, headers_json, marks::Marks},
    domain::{
        event::{Meta, decode},
        ledger::Letter,
    },
    store::LetterFilter,
};
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use crate::rig::Rig;

/// Runs a command of the rig, with more variables; the sandbox goes on answering meanwhile.
pub fn herald(rig: &Rig, args: &[&str], env: &[(&str, &str)]) -> Output {
    tokio::task::block_in_place(|| rig.command(args).envs(env.iter().copied()).output().unwrap())
}

#[track_caller]
pub fn check(output: &Output, code: i32, part: &str) -> String {
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let all = format!("{told}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{all}");
    assert!(all.contains(part), "{part:?} is not in {all}");
    told
}

/// Takes everything out of `queue`, in its order.
pub(crate) async fn drain(rig: &Rig, queue: &str) -> Vec<Delivery> {
    let mut walk = rig.broker.walk(queue).await.unwrap();
    let mut taken = Vec::new();
    while let Some(delivery) = walk.next().await.unwrap() {
        assert!(delivery.receipt.ack().await);
        taken.push(delivery);
    }
    walk.close().await;
    taken
}

pub(crate) fn body(delivery: &Delivery) -> Value {
    serde_json::from_slice(&delivery.message.body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sent_event_lies_in_the_queue_as_a_backend_would_have_put_it() {
    let Some(rig) = Rig::new("send").await else { return };
    let line =
        ["send", "partner.advanced", "--session", "s1", "--partner", "u2", "--data", "{\"toStage\":3}", "--json"];
    let told = check(&herald(&rig, &line, &[]), 0, "partner.advanced");
    let told: Value = serde_json::from_str(&told).unwrap();
    let events = drain(&rig, &rig.topology.events()).await;
    let [event] = events.as_slice() else { panic!("{events:?}") };
    let id = told["id"].as_str().unwrap();
    let expected = json!({ "id": id, "event": "partner.advanced", "sessionId": "s1", "partnerId": "u2", "data": { "toStage": 3 } });
    assert_eq!(body(event), expected);
    assert_eq!(
        (event.exchange.as_str(), event.routing_key.as_str()),
        (rig.topology.events().as_str(), "partner.advanced")
    );
    let properties = &event.message.properties;
    assert_eq!(properties.message_id().as_ref().map(|id| id.as_str()), Some(id));
    assert_eq!(properties.content_type().as_ref().map(|kind| kind.as_str()), Some("application/json"));
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert!(properties.timestamp().is_some());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_keeps_the_order_of_each_session() {
    let Some(rig) = Rig::new("sendfile").await else { return };
    let line =
        |n: usize| format!("{}\n", json!({ "id": n.to_string(), "event": "a.b", "sessionId": format!("s{}", n % 7) }));
    let file = rig.file("events.jsonl", &(0..300).map(line).collect::<String>());
    let told = check(&herald(&rig, &["send", "--file", &file], &[]), 0, "");
    assert_eq!(told.lines().count(), 300);
    let events = drain(&rig, &rig.topology.events()).await;
    assert_eq!(events.len(), 300);
    for session in 0..7 {
        let name = format!("s{session}");
        let ids = events.iter().map(body).filter(|event| event["sessionId"] == name.as_str());
        let ids: Vec<u32> = ids.map(|event| event["id"].as_str().unwrap().parse().unwrap()).collect();
        assert!(ids.is_sorted(), "{name}: {ids:?}");
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_every_queue_and_the_books() {
    let Some(rig) = Rig::new("status").await else { return };
    check(&herald(&rig, &["send", "a.b", "--session", "s1"], &[]), 0, "");
    let told = check(&herald(&rig, &["status"], &[]), 1, "ledger: received 0 = waiting 0");
    for queue in rig.topology.queues() {
        assert!(told.contains(&queue.name), "{} is not in {told}", queue.name);
    }
    let name = rig.topology.events();
    let events = |env: &[(&str, &str)]| -> Value {
        let told: Value = serde_json::from_slice(&herald(&rig, &["status", "--json"], env).stdout).unwrap();
        told["queues"].as_array().unwrap().iter().find(|row| row["queue"] == name.as_str()).unwrap().clone()
    };
    let row = events(&[]);
    assert_eq!((&row["ready"], &row["unacked"], &row["in_per_second"]), (&json!(1), &Value::Null, &Value::Null));
    // With the management API what was unknown is a number.
    let management = crate::broker::setup::management_url();
    crate::support::eventually("the management API knows the queue", async || {
        (events(&[("HERALD_BROKER__MANAGEMENT_URL", &management)])["unacked"] == json!(0)).then_some(())
    })
    .await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_everything_in_order_and_each_thing_that_is_not() {
    let Some(rig) = Rig::new("check").await else { return };
    let told = check(&herald(&rig, &["check"], &[]), 0, "");
    for what in ["configuration", "catalogue", "broker", "queues", "store", "users", "ably", "expo"] {
        assert!(told.lines().any(|line| line.starts_with("ok ") && line.contains(what)), "{what}: {told}");
    }
    let wrong_password = crate::support::with_password(&rig.amqp_url, "hunter2");
    let no_vhost = rig.amqp_url.replacen("%2f", "no-such-vhost", 1);
    let no_table = "SELECT id AS user_id, token FROM no_such_table WHERE id = $1";
    for (variable, value, what, part) in [
        ("HERALD_EXPO__RATE", "0", "configuration", "expo.rate"),
        ("HERALD_CATALOGUE__PATH", "absent.toml", "catalogue", "cannot be read"),
        ("AMQP_URL", wrong_password.as_str(), "broker", ""),
        ("AMQP_URL", no_vhost.as_str(), "broker", ""),
        ("HERALD_DEAD__RETENTION", "13d", "queues", "x-message-ttl"),
        ("HERALD_STORE__URL", "sqlite:///no/such/folder/herald.db", "store", ""),
        ("HERALD_USERS__QUERY", no_table, "users", "no_such_table"),
        ("ABLY_API_KEY", "sandbox.publisher:secret", "ably", "capability `subscribe`"),
        ("ABLY_API_KEY", "sandbox.subscriber:secret", "ably", "capability `publish`"),
        ("ABLY_API_KEY", "sandbox.revoked:secret", "ably", "ABLY_API_KEY"),
        ("EXPO_ACCESS_TOKEN", "no-such-token", "expo", "EXPO_ACCESS_TOKEN"),
    ] {
        let output = herald(&rig, &["check"], &[(variable, value)]);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        // A differing retention of the dead letters is the one thing that herald can live with.
        let (standing, code) = if variable == "HERALD_DEAD__RETENTION" { ("note", 0) } else { ("WRONG", 78) };
        let line = told.lines().find(|line| line.starts_with(standing) && line.contains(what) && line.contains(part));
        assert!(line.is_some() && output.status.code() == Some(code), "{variable}={value}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    let (fault, away) = (rig.sandbox.url(), "http://127.0.0.1:1");
    assert_ne!(fault, away);
    for (variable, what) in [("HERALD_EXPO__URL", "expo"), ("HERALD_ABLY__URL", "ably")] {
        let told = check(&herald(&rig, &["check"], &[(variable, away)]), 1, "AWAY");
        assert!(told.lines().any(|line| line.starts_with("AWAY") && line.contains(what)), "{told}");
    }
    rig.end().await;
}

/// Puts a dead letter into queue and index, as the worker does.
pub async fn bury(rig: &Rig, id: &str, reason: &str, fields: Value) {
    let (message, letter) = dead_letter(rig, id, reason, fields);
    rig.broker.publish(&Destination::Queue(rig.topology.dead()), message).await.unwrap();
    rig.store.add_letters(vec![letter]).await.unwrap();
}

/// Returns a dead letter as it lies in the queue, and as the index has it.
pub fn dead_letter(rig: &Rig, id: &str, reason: &str, fields: Value) -> (Message, Letter) {
    let mut event = json!({ "id": id, "event": "a.b", "sessionId": "s1" });
    event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let failed_at = Timestamp::now();
    let marks = Marks {
        id: Some(id.into()),
        attempt: 5,
        reason: Some(reason.into()),
        failed_at: Some(failed_at),
        exchange: Some(rig.topology.events()),
        routing_key: Some("a.b".into()),
        ..Marks::default()
    };
    let mut message = Message { body: event.to_string().into(), ..Message::default() };
    marks.write(&mut message);
    let known = decode(&message.body, &Meta::default()).unwrap();
    let letter = Letter {
        number: 0,
        id: id.into(),
        identity: Some(known.identity()),
        session_id: Some(known.session_id),
        partner_id: known.partner_id,
        event: Some("a.b".into()),
        reason: reason.into(),
        error: "transient (503): overloaded".into(),
        route: Some("ably".into()),
        attempt: 5,
        replay: 0,
        failed_at: failed_at.as_millisecond(),
        first_seen: None,
        headers: headers_json(&message),
        content_type: None,
        body: BASE64_STANDARD.encode(&message.body),
        body_bytes: message.body.len() as i64,
    };
    (message, letter)
}

async fn indexed(rig: &Rig) -> Vec<String> {
    let letters = rig.store.letters(&LetterFilter::default()).await.unwrap();
    letters.into_iter().rev().map(|letter| letter.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_replayed_and_dropped() {
    let Some(rig) = Rig::new("dead").await else { return };
    let past = Timestamp::now().checked_sub(1.hour()).unwrap().to_string();
    bury(&rig, "e1", "exhausted", json!({})).await;
    bury(&rig, "e2", "rejected", json!({})).await;
    bury(&rig, "e3", "exhausted", json!({ "expiresAt": past })).await;
    bury(&rig, "e4", "exhausted", json!({})).await;

    let told = check(&herald(&rig, &["dead", "list"], &[]), 0, "4 in all");
    assert!(
        ["e1", "e2", "e3", "e4", "3 a.b: exhausted", "1 a.b: rejected"].iter().all(|part| told.contains(part)),
        "{told}"
    );
    let told = check(&herald(&rig, &["dead", "list", "--reason", "rejected", "--json"], &[]), 0, "e2");
    assert_eq!(told.lines().count(), 1);
    check(&herald(&rig, &["dead", "list", "--older", "1h"], &[]), 0, "no dead letters match");
    check(&herald(&rig, &["dead", "show", "e2"], &[]), 0, "\"herald-reason\": \"rejected\"");
    let exported = check(&herald(&rig, &["dead", "export", "--limit", "3"], &[]), 0, "");
    assert_eq!(
        exported.lines().map(|line| serde_json::from_str::<Letter>(line).unwrap().id).collect::<Vec<_>>(),
        ["e4", "e3", "e2"]
    );

    // Nothing happens without --yes.
    let filter = ["dead", "replay", "--reason", "exhausted"];
    let preview = "replay 2 letters: 2 exhausted; 1 would expire at once and stay";
    check(&herald(&rig, &filter, &[]), 1, &format!("would {preview}"));
    check(&herald(&rig, &filter, &[]), 1, "herald: nothing was done; add --yes");
    check(&herald(&rig, &[&filter[..], &["--dry-run"]].concat(), &[]), 0, preview);
    assert_eq!((indexed(&rig).await.len(), rig.ready_messages(&rig.topology.dead()).await), (4, 4));

    check(&herald(&rig, &[&filter[..], &["--yes", "--rate", "100"]].concat(), &[]), 0, "replayed 2");
    assert_eq!(indexed(&rig).await, ["e2", "e3"]);
    let replayed = drain(&rig, &rig.topology.events()).await;
    let ids: Vec<_> = replayed.iter().map(|event| body(event)["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, ["e1", "e4"]);
    for event in &replayed {
        let marks = Marks::read(&event.message);
        assert_eq!((marks.replay, marks.attempt, marks.reason.as_deref()), (1, 0, None));
        assert_eq!((event.exchange.as_str(), event.routing_key.as_str()), (rig.topology.events().as_str(), "a.b"));
    }

    check(&herald(&rig, &["dead", "replay", "--id", "e3", "--ignore-expiry", "--yes"], &[]), 0, "replayed 1");
    let replayed = drain(&rig, &rig.topology.events()).await;
    assert!(Marks::read(&replayed[0].message).ignore_expiry);

    check(&herald(&rig, &["dead", "drop"], &[]), 1, "would drop 1 letter: 1 rejected");
    check(&herald(&rig, &["dead", "drop", "--yes"], &[]), 0, "dropped 1");
    assert_eq!((indexed(&rig).await.len(), rig.ready_messages(&rig.topology.dead()).await), (0, 0));
    check(&herald(&rig, &["dead", "show", "1"], &[]), 1, "letter #1 is no longer there: replayed");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sweep_keeps_is_the_same_afterwards() {
    let Some(rig) = Rig::new("sweep").await else { return };
    for n in 0..250 {
        bury(&rig, &format!("e{n}"), "exhausted", json!({ "data": { "n": n } })).await;
    }
    assert_eq!(rig.ready_messages(&rig.topology.dead()).await, 250);
    check(&herald(&rig, &["dead", "drop", "--id", "e7", "--yes"], &[]), 0, "dropped 1");
    assert_eq!(rig.ready_messages(&rig.topology.dead()).await, 249);
    let mut left = drain(&rig, &rig.topology.dead()).await;
    assert_eq!(left.len(), 249);
    left.sort_by_key(|letter| body(letter)["data"]["n"].as_i64());
    let expected: Vec<_> = (0..250).filter(|n| *n != 7).map(|n| format!("e{n}")).collect();
    for (letter, id) in left.iter().zip(&expected) {
        let marks = Marks::read(&letter.message);
        assert_eq!((marks.id.as_ref(), marks.attempt, marks.reason.as_deref()), (Some(id), 5, Some("exhausted")));
        assert!(marks.failed_at.is_some() && marks.routing_key.as_deref() == Some("a.b"));
    }
    rig.end().await;
}
