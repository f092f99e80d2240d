//! The main job on real RabbitMQ and PostgreSQL, the worker as a process: routes, skips, retries, holds, dead letters.

use std::{collections::BTreeMap, time::Duration};

use herald::{
    domain::ledger::State,
    sandbox::{Action, Endpoint, Fault, Match},
};
use serde_json::{Value, json};

use crate::{
    rig::{Rig, event},
    support::eventually,
};

const PHONE: &str = "ExponentPushToken[phone-";

fn token(user: &str) -> Option<String> {
    Some(format!("{PHONE}{user}]"))
}

/// A catalogue with one event name per route, beside the fallback.
const CATALOGUE: &str = r#"
[default]
title = "BeHeard"
body = "You have an update"
["test.always"]
title = "t"
body = "b"
route = "always"
["test.realtime"]
title = "t"
body = "b"
route = "realtime"
["test.push"]
title = "t"
body = "b"
route = "push"
push_data = ["stage"]
"#;

#[tokio::test]
async fn every_route_and_every_skip() {
    let Some(mut rig) = Rig::new("routes").await else { return };
    let catalogue = rig.file("messages.toml", CATALOGUE);
    rig.add_users([
        ("ada".into(), token("ada")),
        ("ben".into(), token("ben")),
        ("vera".into(), None),
        ("walt".into(), Some("not-an-expo-token".into())),
        ("uma".into(), Some("ExponentPushToken[unregistered-uma]".into())),
    ])
    .await;
    rig.enter("s-ada", "ada");
    rig.start_with(&[("HERALD_CATALOGUE__PATH", &catalogue)]).await;

    let with = |mut event: Value, key: &str, value: Value| {
        event[key] = value;
        event
    };
    let no_partner = |id: &str, name: &str| json!({"id": id, "sessionId": "s-ada", "event": name});
    // (event, state, reason or way, published, pushed)
    let cases = [
        (event("present", "partner.advanced", "s-ada", "ada"), "done realtime", 1, 0),
        (event("absent", "partner.advanced", "s-ada", "ben"), "done push", 0, 1),
        (event("always-present", "test.always", "s-ada", "ada"), "done realtime", 1, 0),
        (event("always-absent", "test.always", "s-ada", "ben"), "done both", 1, 1),
        (event("realtime-absent", "test.realtime", "s-ada", "ben"), "done realtime", 1, 0),
        (event("push-present", "test.push", "s-ada", "ada"), "done push", 0, 1),
        (no_partner("publish-only", "partner.advanced"), "done realtime", 1, 0),
        (no_partner("push-nobody", "test.push"), "skipped no_recipient", 0, 0),
        (event("unknown-name", "chat-item:new", "s-ada", "ben"), "done push", 0, 1),
        (event("unknown-presence", "partner.advanced", "fault-presence-500", "ben"), "done push", 0, 1),
        (event("no-token", "partner.advanced", "s-ada", "vera"), "skipped no_token", 0, 0),
        (event("invalid-token", "partner.advanced", "s-ada", "walt"), "skipped invalid_token", 0, 0),
        (event("unregistered", "partner.advanced", "s-ada", "uma"), "skipped invalid_token", 0, 0),
        (event("no-user", "partner.advanced", "s-ada", "nobody"), "skipped no_user", 0, 0),
        (
            with(event("excluded", "partner.advanced", "s-ada", "ben"), "excludeUserId", "ben".into()),
            "skipped excluded",
            0,
            0,
        ),
        (
            with(event("other-excluded", "partner.advanced", "s-ada", "ada"), "excludeUserId", "x".into()),
            "done realtime",
            1,
            0,
        ),
        (
            with(event("expired", "partner.advanced", "s-ada", "ada"), "expiresAt", "2020-01-01T00:00:00Z".into()),
            "skipped expired",
            0,
            0,
        ),
    ];
    // One request asks for several sessions, and none of them is known when it fails: that session is asked for by itself.
    let (asked_together, alone): (Vec<_>, Vec<_>) = cases.iter().partition(|(event, ..)| event["sessionId"] == "s-ada");
    for group in [&asked_together, &alone] {
        for (event, ..) in group {
            rig.send(event.clone()).await;
        }
        for (event, expected, published, pushed) in group {
            let id = event["id"].as_str().unwrap();
            let entry = eventually(&format!("{id} has ended"), async || {
                rig.entry(id).await.filter(|entry| entry.state != State::Waiting)
            })
            .await;
            let how = match entry.state {
                State::Done => entry.via.map(|via| via.as_str().to_owned()),
                State::Waiting | State::Skipped | State::Dead => entry.reason.clone(),
            };
            assert_eq!(format!("{} {}", entry.state.as_str(), how.unwrap_or_default()), *expected, "{id}: {entry:?}");
            let seen = rig.effects().get(id).copied().unwrap_or_default();
            assert_eq!(seen, (*published, *pushed), "{id} at the providers");
        }
    }
    assert_eq!(rig.token_of("uma").await, None, "the token of a device that is gone is cleared");
    assert!(rig.books().await.closed());
    assert_eq!(rig.books().await.received, cases.len() as i64);

    let journal = rig.sandbox.control().entries(0, None, 10_000);
    let text = serde_json::to_string(&journal).unwrap();
    assert!(text.contains("excludeUserId"), "the excluded user travels in the published data");
    rig.end().await;
}

#[tokio::test]
async fn a_failing_publish_is_retried_through_the_queue_and_succeeds() {
    let Some(mut rig) = Rig::new("retry").await else { return };
    rig.enter("s1", "ada");
    rig.start().await;
    let publish = Match { endpoint: Some(Endpoint::Publish), ..Match::default() };
    rig.sandbox.control().add_fault(Fault { matching: publish, times: Some(4), ..Fault::new(Action::Status) });
    rig.send(event("e1", "partner.advanced", "s1", "ada")).await;
    let entry = rig.until("e1", State::Done).await;
    assert!(entry.attempt >= 1, "it went through a retry queue: {entry:?}");
    assert_eq!(rig.effects()["e1"], (1, 0));
    rig.end().await;
}

#[tokio::test]
async fn an_exhausted_event_is_a_dead_letter_that_says_why() {
    let Some(mut rig) = Rig::new("exhausted").await else { return };
    rig.start().await;
    let publish = Match { contains: Some("session:s1".into()), ..Match::default() };
    rig.sandbox.control().add_fault(Fault { matching: publish, status: Some(500), ..Fault::new(Action::Status) });
    rig.send(json!({"id": "e1", "sessionId": "s1", "event": "partner.advanced"})).await;
    // Other sessions keep the breaker closed.
    for n in 0..100 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        rig.send(json!({"id": format!("ok{n}"), "sessionId": format!("other{n}"), "event": "partner.advanced"})).await;
        if rig.entry("e1").await.is_some_and(|entry| entry.state == State::Dead) {
            break;
        }
    }
    let entry = rig.until("e1", State::Dead).await;
    assert_eq!((entry.reason.as_deref(), entry.attempt), (Some("exhausted"), 3));
    assert_eq!(rig.ready_messages(&rig.topology.dead()).await, 1);
    let letter = rig.letters().await.remove(0);
    assert_eq!(
        (letter.reason.as_str(), letter.id.as_str(), letter.session_id.as_deref()),
        ("exhausted", "e1", Some("s1"))
    );
    for header in [
        "herald-id",
        "herald-attempt",
        "herald-first-seen",
        "herald-reason",
        "herald-error",
        "herald-route",
        "herald-failed-at",
        "herald-queue",
        "herald-exchange",
        "herald-routing-key",
    ] {
        assert!(letter.headers.get(header).is_some(), "{header} is missing in {}", letter.headers);
    }
    assert!(letter.error.contains("500"), "{}", letter.error);
    rig.end().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_a_dead_letter_that_names_the_field() {
    let Some(mut rig) = Rig::new("malformed").await else { return };
    rig.start().await;
    let long = "x".repeat(70_000);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "body"),
        ("bad-json", b"{".to_vec(), "body"),
        ("not-utf8", vec![0xff, 0xfe], "body"),
        ("too-large", format!(r#"{{"id":"{long}"}}"#).into_bytes(), "body"),
        ("no-session", br#"{"event":"e"}"#.to_vec(), "sessionId"),
        ("wrong-type", br#"{"sessionId":1,"event":"e"}"#.to_vec(), "sessionId"),
        ("no-event", br#"{"sessionId":"s"}"#.to_vec(), "event"),
        ("bad-time", br#"{"sessionId":"s","event":"e","expiresAt":"later"}"#.to_vec(), "expiresAt"),
        ("bad-data", br#"{"sessionId":"s","event":"e","data":[]}"#.to_vec(), "data"),
    ];
    for (id, body, _) in &cases {
        rig.publish(body.clone(), Some(id)).await;
    }
    rig.publish(b"nothing".to_vec(), None).await;
    rig.send(json!({"id": "behind", "sessionId": "s", "event": "e"})).await;
    rig.until("behind", State::Done).await;
    let letters = eventually("all letters are in the index", async || {
        Some(rig.letters().await).filter(|letters| letters.len() == cases.len() + 1)
    })
    .await;
    for (id, _, field) in &cases {
        let letter = letters.iter().find(|letter| letter.id == *id).unwrap_or_else(|| panic!("no letter {id}"));
        assert_eq!(letter.reason, "malformed");
        assert!(letter.error.starts_with(&format!("{field}:")), "{id}: {}", letter.error);
    }
    assert!(letters.iter().any(|letter| letter.id.starts_with("unreadable-")));
    assert_eq!(rig.ready_messages(&rig.topology.dead()).await, letters.len() as u64);
    rig.end().await;
}

#[tokio::test]
async fn a_long_throttle_holds_without_using_an_attempt() {
    let Some(mut rig) = Rig::new("hold").await else { return };
    rig.add_users([("ben".into(), token("ben"))]).await;
    rig.start().await;
    let send = Match { endpoint: Some(Endpoint::Send), ..Match::default() };
    let fault = Fault { matching: send, times: Some(1), retry_after: Some(7), ..Fault::new(Action::Throttle) };
    rig.sandbox.control().add_fault(fault);
    rig.send(event("e1", "partner.advanced", "s1", "ben")).await;
    eventually("the event is held", async || {
        rig.entry("e1").await.filter(|entry| entry.reason.as_deref() == Some("held:throttled"))
    })
    .await;
    let entry = rig.until("e1", State::Done).await;
    assert_eq!(entry.attempt, 0, "holding uses no attempt: {entry:?}");
    assert_eq!(rig.effects()["e1"], (0, 1));
    rig.end().await;
}

#[tokio::test]
async fn what_became_too_late_in_hand_is_dead_without_a_request() {
    let Some(mut rig) = Rig::new("late").await else { return };
    rig.add_users([("ben".into(), token("ben"))]).await;
    rig.enter("s2", "ada");
    rig.start().await;
    let control = rig.sandbox.control();
    let at = |endpoint, contains: &str| Match {
        endpoint: Some(endpoint),
        contains: Some(contains.to_owned()),
        ..Match::default()
    };
    control.add_fault(Fault { matching: at(Endpoint::Presence, "s1"), ..Fault::new(Action::Hold) });
    let asked_to_wait = Fault { times: Some(1), retry_after: Some(5), ..Fault::new(Action::Throttle) };
    control.add_fault(Fault { matching: at(Endpoint::Publish, "s2"), ..asked_to_wait });
    let sends =
        |endpoint| control.entries(0, None, usize::MAX).iter().filter(|entry| entry.endpoint == endpoint).count();
    // Less than the throttle's pause, which is the longest that waits in hand; else as long as can be, for a busy machine.
    let life = jiff::Timestamp::now() + Duration::from_millis(4_500);
    let short = |id, session, user| {
        let mut event = event(id, "partner.advanced", session, user);
        event["expiresAt"] = life.to_string().into();
        event
    };
    // One after the other, or one request asks for the presence of both.
    rig.send(short("throttled", "s2", "ada")).await;
    eventually("it is asked to wait", async || (sends(Endpoint::Publish) == 1).then_some(())).await;
    rig.send(short("looked-up", "s1", "ben")).await;
    eventually("presence is being asked for", async || (!control.held().is_empty()).then_some(())).await;
    eventually("its life is over", async || (jiff::Timestamp::now() > life).then_some(())).await;
    control.release();
    for id in ["looked-up", "throttled"] {
        let entry = rig.until(id, State::Dead).await;
        assert_eq!((entry.reason.as_deref(), entry.attempt), (Some("expired"), 0), "{entry:?}");
    }
    assert_eq!(rig.effects(), BTreeMap::new());
    assert_eq!((sends(Endpoint::Send), sends(Endpoint::Publish)), (0, 1), "only what was asked to wait");
    rig.end().await;
}

#[tokio::test]
async fn a_push_of_unknown_fate_is_repeated_with_the_same_collapse_id_and_then_dead() {
    let Some(mut rig) = Rig::new("unknown").await else { return };
    rig.add_users([("ben".into(), Some("ExponentPushToken[ben]".into()))]).await;
    // The only rung is the shortest that an unknown push may wait, so one repeat fits into the test's patience.
    rig.start_with(&[("HERALD_RETRY__SCHEDULE", r#"["30s"]"#), ("HERALD_EXPO__UNKNOWN_REPEATS", "0")]).await;
    let send = Match { endpoint: Some(Endpoint::Send), ..Match::default() };
    rig.sandbox.control().add_fault(Fault { matching: send, ..Fault::new(Action::ResetAfter) });
    rig.send(event("e1", "partner.advanced", "s1", "ben")).await;
    let entry = rig.until("e1", State::Dead).await;
    assert_eq!(entry.reason.as_deref(), Some("unknown"), "{entry:?}");
    assert_eq!(rig.effects()["e1"], (0, 1), "it did arrive, which nobody can know");
    rig.end().await;
}

#[tokio::test]
async fn a_repeat_is_suppressed_and_a_reused_id_is_counted() {
    let Some(mut rig) = Rig::new("repeats").await else { return };
    rig.enter("s1", "ada");
    rig.start().await;
    let first = event("e1", "partner.advanced", "s1", "ada");
    rig.send(first.clone()).await;
    rig.until("e1", State::Done).await;
    rig.send(first.clone()).await;
    let mut other = first;
    other["data"] = json!({"stage": 3});
    rig.send(other).await;
    let entry = eventually("both repeats are counted", async || rig.entry("e1").await.filter(|e| e.repeats == 2)).await;
    assert_eq!((entry.state, entry.id_reused), (State::Done, 1));
    assert_eq!(rig.effects()["e1"], (1, 0));
    rig.end().await;
}

#[tokio::test]
async fn the_events_of_a_session_arrive_in_order() {
    let Some(mut rig) = Rig::new("order").await else { return };
    rig.start().await;
    // Few enough for a lane: what does not fit goes through a retry queue and may come later.
    for n in 0..50 {
        rig.send(json!({"id": format!("e{n:02}"), "sessionId": "s1", "event": "partner.advanced"})).await;
    }
    rig.until("e49", State::Done).await;
    let order: Vec<String> =
        rig.sandbox.control().effects(0, 1000).iter().map(|effect| effect.event.to_string()).collect();
    let mut sorted = order.clone();
    sorted.sort();
    assert_eq!(order, sorted);
    rig.end().await;
}
