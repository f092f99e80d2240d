//! Faults by rule and by magic id, holding, the journal and the control API over HTTP.

use std::time::{Duration, Instant};

use herald::sandbox::{Action, Fault, Match, Phase, Settings};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{World, world};
use crate::support::{eventually, within};

/// Publishes event `e1` on a channel over a connection of its own and returns it, with the request sent.
async fn raw(world: &World, channel: &str) -> TcpStream {
    let mut line = TcpStream::connect(world.sandbox.address()).await.unwrap();
    let (body, key) = ("{\"id\":\"e1\"}", super::basic("sandbox.key:secret"));
    let request = format!(
        "POST /channels/{channel}/messages HTTP/1.1\r\nhost: sandbox\r\nauthorization: {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    line.write_all(request.as_bytes()).await.unwrap();
    line
}

/// Reads what the connection ends in.
async fn end(mut line: TcpStream) -> Result<String, std::io::ErrorKind> {
    let mut bytes = vec![0; 65_536];
    match within(10, "the connection to end", line.read(&mut bytes)).await {
        Ok(read) => Ok(String::from_utf8_lossy(&bytes[..read]).into_owned()),
        Err(error) => Err(error.kind()),
    }
}

async fn unanswered(world: &World) -> usize {
    let entries = world.sandbox.control().entries(0, None, 100);
    entries.iter().filter(|entry| entry.status.is_none()).count()
}

#[tokio::test]
async fn magic_ids_break_requests_before_or_after_they_take_effect() {
    let world = world(Settings::default()).await;
    let reset = Err(std::io::ErrorKind::ConnectionReset);
    for (channel, accepted) in [("fault-reset-before", 0), ("fault-reset-after", 1)] {
        assert_eq!(end(raw(&world, channel).await).await, reset, "{channel}");
        assert_eq!(world.effects().len(), accepted, "{channel}");
    }
    world.sandbox.control().reset_journal();
    for (channel, accepted) in [("fault-hang", 0), ("fault-lost", 1)] {
        let line = raw(&world, channel).await;
        eventually("the request in the journal", async || (unanswered(&world).await == accepted + 1).then_some(()))
            .await;
        assert_eq!(world.effects().len(), accepted, "{channel}");
        drop(line);
    }
    world.sandbox.control().reset_journal();
    let table = [
        ("fault-500", (500, 50000), 0),
        ("fault-503-1", (503, 50310), 0),
        ("s:fault-429:x", (429, 42918), 0),
        ("fault-presence-500", (201, 0), 1),
        ("fault-504-after", (504, 50410), 2),
        ("default-500", (201, 0), 3),
    ];
    for (channel, expected, effects) in table {
        assert_eq!(world.publish(channel, json!({})).await.ably(), expected, "{channel}");
        assert_eq!(world.effects().len(), effects, "{channel}");
    }
    let garbage = world.publish("fault-garbage", json!({})).await;
    assert_eq!((garbage.status, serde_json::from_slice::<Value>(&garbage.body).is_err()), (200, true));
    let begun = Instant::now();
    assert_eq!(world.publish("fault-slow", json!({})).await.status, 201);
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn counted_magic_ids_work_in_the_end() {
    let world = world(Settings::default()).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(world.publish("s:fault-publish-500x2-a", json!({})).await.status);
    }
    assert_eq!(statuses, [500, 500, 201, 201]);
    let batch = json!({"channels": ["well", "s:fault-500x1"], "messages": {"id": "1"}});
    assert_eq!(world.ably("POST", "/messages", Some(batch.clone())).await.status, 500, "the whole request");
    assert_eq!(world.ably("POST", "/messages", Some(batch)).await.status, 201);
    let counts = world.sandbox.control().counters();
    assert_eq!((counts["publish"].faults, counts["publish"].failed, counts["batch_publish"].faults), (2, 2, 1));
}

#[tokio::test]
async fn expo_breaks_in_its_own_shapes() {
    let world = world(Settings::default()).await;
    let push = async |word: &str| {
        world.push(json!([{"to": [format!("ExponentPushToken[{word}-1]"), "ExponentPushToken[b]"]}])).await
    };
    assert_eq!(push("fault-429").await.expo(), (429, "TOO_MANY_REQUESTS".to_owned()));
    assert_eq!(push("fault-500").await.expo(), (500, "INTERNAL_SERVER_ERROR".to_owned()));
    let gateway = push("fault-504").await;
    assert_eq!((gateway.status, &gateway.headers["content-type"]), (504, &"text/html".parse().unwrap()));
    assert!(world.effects().is_empty());
    assert_eq!(push("fault-short").await.json()["data"].as_array().unwrap().len(), 1);
    assert_eq!(world.effects().len(), 2, "both were accepted");
}

#[tokio::test]
async fn rules_strike_what_they_match_as_often_as_they_say() {
    let world = world(Settings::default()).await;
    let rule = json!({
        "match": {"provider": "expo", "endpoint": "send", "contains": "[a]"},
        "action": "429", "times": 1, "retry_after": 7,
    });
    world.control("POST", "/faults", rule).await;
    world
        .control(
            "POST",
            "/faults",
            json!({"match": {"provider": "ably"}, "action": "status", "status": 502, "body": "<html>"}),
        )
        .await;
    assert_eq!(world.push(json!({"to": "ExponentPushToken[b]"})).await.status, 200);
    let limited = world.push(json!({"to": "ExponentPushToken[a]"})).await;
    assert_eq!((limited.status, &limited.headers["retry-after"]), (429, &"7".parse().unwrap()));
    assert_eq!(world.push(json!({"to": "ExponentPushToken[a]"})).await.status, 200);
    let broken = world.ably("GET", "/time", None).await;
    assert_eq!((broken.status, &*broken.body), (502, &b"<html>"[..]));
    assert_eq!(world.control("GET", "/faults", Value::Null).await.as_array().unwrap().len(), 1);
    world.control("DELETE", "/faults", Value::Null).await;
    assert_eq!(world.ably("GET", "/time", None).await.status, 200);
    let labels: Vec<_> = world.sandbox.control().entries(0, None, 10).into_iter().map(|entry| entry.fault).collect();
    assert_eq!(labels, [None, Some("429".to_owned()), None, Some("status".to_owned()), None]);
}

async fn held(world: &World, number: usize) {
    let waiting = async || (world.sandbox.control().held().len() == number).then_some(());
    eventually("the number of held requests", waiting).await;
}

#[tokio::test]
async fn requests_are_held_until_released() {
    let world = world(Settings::default()).await;
    let control = world.sandbox.control();
    for (phase, accepted) in [(Phase::Before, 0), (Phase::After, 1)] {
        control.reset_journal();
        control.add_fault(Fault { phase, ..Fault::new(Action::Hold) });
        let line = raw(&world, &format!("{phase:?}")).await;
        held(&world, 1).await;
        assert_eq!(world.effects().len(), accepted, "{phase:?}");
        assert_eq!(world.control("GET", "/held", Value::Null).await["requests"][0]["endpoint"], "publish");
        assert_eq!(world.control("POST", "/faults/release", Value::Null).await, json!({"released": 1}));
        assert!(end(line).await.unwrap().starts_with("HTTP/1.1 201"), "{phase:?}");
        assert_eq!(world.effects().len(), 1, "{phase:?}");
        assert_eq!(world.publish("next", json!({})).await.status, 201, "a release ends the holding");
    }
}

#[tokio::test]
async fn a_client_that_dies_while_held_has_sent_nothing() {
    let world = world(Settings::default()).await;
    let line = raw(&world, "fault-hold").await;
    held(&world, 1).await;
    drop(line);
    held(&world, 0).await;
    eventually("the entry", async || (unanswered(&world).await == 1).then_some(())).await;
    world.sandbox.control().release();
    assert_eq!(world.publish("well", json!({"id": "e2"})).await.status, 201);
    assert_eq!(world.effects(), ["well e2 1"]);
}

#[tokio::test]
async fn stopping_cuts_what_waits_and_closes_the_door() {
    let world = world(Settings::default()).await;
    let matching = Match { contains: Some("never".to_owned()), ..Match::default() };
    world.sandbox.control().add_fault(Fault { matching, ..Fault::new(Action::Hang) });
    let line = raw(&world, "never").await;
    eventually("the request", async || (unanswered(&world).await == 1).then_some(())).await;
    let address = world.sandbox.address();
    within(5, "the sandbox to stop", world.sandbox.stop()).await;
    assert_eq!(end(line).await, Err(std::io::ErrorKind::ConnectionReset));
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_control_api_speaks_http() {
    let world = world(Settings::default()).await;
    let entered = world.control("POST", "/presence", json!({"channel": "a", "clientId": "u", "action": "enter"})).await;
    assert!(entered["connectionId"].is_string());
    world.ably("GET", "/channels/a/presence?clientId=u", None).await;
    world.push(json!([{"to": "ExponentPushToken[a]", "data": {"eventId": "e1"}}])).await;
    let gone = world.control("POST", "/presence", json!({"channel": "a", "clientId": "u", "action": "leave"})).await;
    assert_eq!(gone, json!({"left": 1}));
    let journal = world.control("GET", "/journal?since=0", Value::Null).await;
    let first = &journal["entries"][0];
    assert_eq!((&journal["last"], &first["number"], &first["endpoint"]), (&json!(2), &json!(1), &json!("presence")));
    assert_eq!((&first["path"], &first["query"]), (&json!("/channels/a/presence"), &json!([["clientId", "u"]])));
    assert_eq!((&first["headers"]["authorization"], &first["status"]), (&json!("Basic"), &json!(200)));
    let expo = world.control("GET", "/journal?since=0&provider=expo", Value::Null).await;
    assert_eq!(expo["entries"].as_array().unwrap().len(), 1);
    let item = json!({"target": "ExponentPushToken[a]", "id": "e1", "outcome": "accepted", "code": null});
    assert_eq!(expo["entries"][0]["items"], json!([item]));
    assert_eq!(world.control("GET", "/journal?since=2", Value::Null).await["entries"], json!([]));
    assert_eq!(world.control("GET", "/counters", Value::Null).await["send"]["accepted"], 1);
    let effects = world.control("GET", "/effects", Value::Null).await;
    assert_eq!((&effects["effects"][0]["event"], &effects["total"]), (&json!("e1"), &json!(1)));
    world.control("DELETE", "/journal", Value::Null).await;
    assert_eq!(world.control("GET", "/counters", Value::Null).await["send"]["requests"], 0);
    assert_eq!(world.control("GET", "", Value::Null).await["magic"][0]["id"], "fault-500 (any three digits)");
    world.control("POST", "/credentials", json!({"secret": "own.key:secret"})).await;
    assert_eq!(world.ably_as("own.key:secret", "GET", "/channels/a/presence", None).await.status, 200);
    let wrong = super::send(world.request("POST", "/_sandbox/settings").body("{\"no_such\":1}")).await;
    assert_eq!(wrong.status, 400);
}
