//! Steering on real services: what operators set on the command line, obeyed by workers, and the record of it.

use std::time::Duration;

use herald::{
    broker::{Broker, Destination, Message},
    domain::{
        ledger::{Entry, State},
        outcome::Provider,
    },
    sandbox::{Credential, DEFAULT_KEY, Endpoint, Phase, Standing},
    store::Store,
};
use serde_json::{Value, json};

use crate::{
    commands::{check, herald},
    relay::Mode,
    rig::{Rig, event},
    support::{eventually, within},
    windows::{hold, relayed, until_held},
};

async fn consumers(rig: &Rig, queue: &str) -> u64 {
    rig.broker.depth(queue).await.expect("depth").consumers
}

/// Waits until `/readyz` says 503 with every part in its reason.
async fn not_ready(rig: &Rig, worker: usize, parts: &[&str]) {
    let url = format!("{}/readyz", rig.http(worker));
    eventually(&format!("worker {worker} is not ready: {parts:?}"), async || {
        let answer = reqwest::get(&url).await.ok()?;
        let status = answer.status().as_u16();
        let text = answer.text().await.ok()?;
        (status == 503 && parts.iter().all(|part| text.contains(part))).then_some(())
    })
    .await;
}

/// Waits until a gauge of a worker has `value`, by the line it has on the metrics page.
async fn gauge(rig: &Rig, worker: usize, line: &str, value: &str) {
    let url = format!("{}/metrics", rig.http(worker));
    eventually(&format!("{line} is {value}"), async || {
        let page = reqwest::get(&url).await.ok()?.text().await.ok()?;
        page.lines().any(|text| text.strip_prefix(line).map(str::trim) == Some(value)).then_some(())
    })
    .await;
}

async fn add_users(rig: &Rig, count: usize) {
    rig.add_users((0..count).map(|n| (format!("u{n}"), Some(format!("ExponentPushToken[phone-{n}]"))))).await;
}

/// An event that is pushed, in a session of its own.
fn pushed(id: &str, user: usize) -> Value {
    event(id, "partner.advanced", &format!("s-{id}"), &format!("u{user}"))
}

/// An event that is published.
fn published(id: &str) -> Value {
    json!({"id": id, "sessionId": format!("s-{id}"), "event": "partner.advanced"})
}

async fn held(rig: &Rig, id: &str) -> Entry {
    eventually(&format!("{id} is held by an operator"), async || {
        rig.entry(id).await.filter(|entry| entry.reason.as_deref() == Some("held:operator"))
    })
    .await
}

fn recorded(rig: &Rig) -> Vec<Value> {
    let told = check(&herald(rig, &["actions", "--json"], &[]), 0, "");
    told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_obeyed_by_all_over_a_restart_and_nothing_is_lost() {
    const EVENTS: usize = 60;
    let Some(mut rig) = Rig::new("pause").await else { return };
    add_users(&rig, EVENTS).await;
    let workers = [rig.start_as("a", &[]).await, rig.start_as("b", &[]).await];
    rig.send(published("before")).await;
    rig.until("before", State::Done).await;

    let told = check(&herald(&rig, &["pause", "--reason", "deploying the app"], &[]), 0, "PAUSED by ");
    assert!(told.contains("worker a obeys") && told.contains("worker b obeys"), "{told}");
    for worker in workers {
        not_ready(&rig, worker, &["paused by ", "deploying the app"]).await;
        gauge(&rig, worker, "herald_paused", "1").await;
        assert!(rig.log(worker).lines().any(|line| line.contains("WARN") && line.contains("PAUSED by ")));
    }
    let (events, held) = (rig.topology.events(), rig.topology.hold(Provider::Expo));
    for queue in [&events, &held] {
        eventually("no worker consumes", async || (consumers(&rig, queue).await == 0).then_some(())).await;
    }
    for n in 0..EVENTS {
        let event = pushed(&format!("e{n}"), n);
        match n % 3 {
            0 => rig.send(event).await,
            // What waits in the other queues stays, too.
            n => {
                let queue = if n == 1 { held.clone() } else { rig.topology.retry(Duration::from_secs(1)) };
                let message = Message { body: event.to_string().into(), ..Message::default() };
                rig.broker.publish(&Destination::Queue(queue), message).await.unwrap();
            }
        }
    }
    assert_eq!(rig.terminate(workers[0]).await, Some(0));
    rig.kill(workers[1]);
    let again = [rig.spawn_as("a", &[]), rig.spawn_as("b", &[])];
    for worker in again {
        not_ready(&rig, worker, &["paused by ", "deploying the app"]).await;
    }
    eventually("what was to be retried has come back", async || {
        (rig.ready_messages(&events).await as usize == EVENTS / 3 * 2).then_some(())
    })
    .await;
    assert_eq!(rig.ready_messages(&held).await as usize, EVENTS / 3);
    assert_eq!((rig.books().await.received, rig.effects().len()), (1, 1), "nothing was taken in");
    // Whatever stops the intake, nobody takes events: a probe has to say so.
    let status = check(&herald(&rig, &["status"], &[]), 1, "WRONG  nobody takes events from ");
    assert!(status.starts_with("!! PAUSED by ") && status.contains("herald resume"), "{status}");
    let status: Value = serde_json::from_slice(&herald(&rig, &["status", "--json"], &[]).stdout).unwrap();
    assert_eq!(status["steering"]["paused"]["why"], "deploying the app");

    let told = check(&herald(&rig, &["resume"], &[]), 0, "resumed");
    assert!(told.contains("worker a obeys") && told.contains("worker b obeys"), "{told}");
    for n in 0..EVENTS {
        let id = format!("e{n}");
        let entry = rig.until(&id, State::Done).await;
        assert_eq!((entry.attempt, rig.effects()[&id]), (0, (0, 1)), "{entry:?}");
    }
    check(&herald(&rig, &["resume"], &[]), 0, "it was not paused");
    assert!(!check(&herald(&rig, &["status"], &[]), 0, "").contains("!!"));
    assert!(rig.books().await.closed());

    let recorded = recorded(&rig);
    let told: Vec<_> = recorded.iter().map(|a| (a["what"].as_str().unwrap(), a["outcome"].as_str().unwrap())).collect();
    assert_eq!(told, [("resume", "it was so already"), ("resume", "done"), ("pause", "done")]);
    assert!(recorded.iter().all(|action| action["who"].as_str().unwrap().contains('@')), "{recorded:?}");
    assert_eq!(recorded[2]["why"], "deploying the app");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_hand_is_finished_and_what_waits_behind_it_goes_back_in_its_place() {
    let Some(mut rig) = Rig::new("pausehand").await else { return };
    rig.enter("s1", "ada");
    rig.start().await;
    hold(&rig, Endpoint::Publish, Phase::Before);
    for id in ["e1", "e2", "e3"] {
        rig.send(event(id, "partner.advanced", "s1", "ada")).await;
    }
    until_held(&rig).await;
    check(&herald(&rig, &["pause"], &[]), 0, "worker rig obeys");
    rig.sandbox.control().release();
    rig.until("e1", State::Done).await;
    eventually("the rest is back in the queue", async || {
        (rig.ready_messages(&rig.topology.events()).await == 2).then_some(())
    })
    .await;
    assert_eq!(rig.effects()["e1"], (1, 0));
    assert!(rig.entry("e2").await.is_none(), "it was not begun");
    check(&herald(&rig, &["resume"], &[]), 0, "");
    for id in ["e2", "e3"] {
        let entry = rig.until(id, State::Done).await;
        assert_eq!((entry.attempt, entry.crashes, rig.effects()[id]), (0, 0, (1, 0)));
    }
    assert_eq!(rig.effects()["e1"], (1, 0), "what was finished is not done again");
    let order: Vec<_> = rig.sandbox.control().effects(0, usize::MAX).iter().map(|e| e.event.to_string()).collect();
    assert_eq!(order, ["e1", "e2", "e3"]);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_provider_keeps_its_events_without_an_attempt_while_the_other_goes_on() {
    const EVENTS: usize = 20;
    let Some(mut rig) = Rig::new("held").await else { return };
    add_users(&rig, EVENTS).await;
    let worker = rig.start().await;
    check(&herald(&rig, &["hold", "expo", "--reason", "tokens"], &[]), 0, "worker rig obeys; expo is shut since ");
    for n in 0..EVENTS {
        rig.send(pushed(&format!("e{n}"), n)).await;
        rig.send(published(&format!("a{n}"))).await;
    }
    for n in 0..EVENTS {
        rig.until(&format!("a{n}"), State::Done).await;
        let entry = held(&rig, &format!("e{n}")).await;
        assert_eq!((entry.attempt, entry.state), (0, State::Waiting), "{entry:?}");
    }
    let queue = rig.topology.hold(Provider::Expo);
    assert_eq!((rig.ready_messages(&queue).await as usize, consumers(&rig, &queue).await), (EVENTS, 0));
    gauge(&rig, worker, r#"herald_provider_held{provider="expo",by="operator"}"#, "1").await;
    gauge(&rig, worker, r#"herald_provider_held{provider="ably",by="operator"}"#, "0").await;
    let status = check(&herald(&rig, &["status"], &[]), 0, "");
    assert!(status.starts_with("!! EXPO HELD by ") && status.contains("(tokens)"), "{status}");

    rig.kill(worker);
    let worker = rig.start().await;
    rig.send(pushed("late", 0)).await;
    held(&rig, "late").await;
    assert_eq!(
        rig.sandbox.control().counters().get("send").map_or(0, |send| send.requests),
        0,
        "Expo was asked for nothing"
    );

    check(&herald(&rig, &["release", "expo"], &[]), 0, "worker rig obeys\n");
    for id in (0..EVENTS).map(|n| format!("e{n}")).chain(["late".to_owned()]) {
        let entry = rig.until(&id, State::Done).await;
        assert_eq!((entry.attempt, rig.effects()[&id]), (0, (0, 1)), "{entry:?}");
    }
    gauge(&rig, worker, r#"herald_provider_held{provider="expo",by="operator"}"#, "0").await;
    let recorded = recorded(&rig);
    let told: Vec<_> = recorded.iter().map(|a| (a["what"].as_str().unwrap(), &a["parameters"]["provider"])).collect();
    assert_eq!(told, [("release", &json!("expo")), ("hold", &json!("expo"))]);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_ably_is_held_who_has_a_phone_is_pushed_to_and_everything_else_waits() {
    let Some(mut rig) = Rig::new("heldably").await else { return };
    rig.add_users([("phone".to_owned(), Some("ExponentPushToken[phone]".to_owned())), ("none".to_owned(), None)]).await;
    rig.enter("s2", "none");
    rig.start().await;
    check(&herald(&rig, &["hold", "ably"], &[]), 0, "worker rig obeys; ably is shut since ");
    rig.send(published("e0")).await;
    rig.send(event("e1", "partner.advanced", "s1", "phone")).await;
    rig.send(event("e2", "partner.advanced", "s2", "none")).await;
    let entry = rig.until("e1", State::Done).await;
    assert_eq!((entry.evidence.presence.as_deref(), rig.effects()["e1"]), (Some("unknown"), (0, 1)));
    for id in ["e0", "e2"] {
        let entry = held(&rig, id).await;
        assert_eq!((entry.attempt, entry.queue), (0, Some(rig.topology.hold(Provider::Ably))), "{id}");
    }
    check(&herald(&rig, &["release", "ably"], &[]), 0, "");
    for id in ["e0", "e2"] {
        let entry = rig.until(id, State::Done).await;
        assert_eq!((entry.attempt, rig.effects()[id]), (0, (1, 0)), "{entry:?}");
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_has_a_provider_that_refused_our_credentials_tried_at_once() {
    let Some(mut rig) = Rig::new("release").await else { return };
    rig.start().await;
    let credential = |standing| {
        let capability = [("*".to_owned(), vec!["*".to_owned()])].into();
        rig.sandbox.control().add_credential(Credential { secret: DEFAULT_KEY.to_owned(), capability, standing });
    };
    credential(Standing::Revoked);
    rig.send(published("e1")).await;
    eventually("the event waits for the credentials", async || {
        rig.entry("e1").await.filter(|entry| entry.reason.as_deref() == Some("held:unauthorised"))
    })
    .await;
    credential(Standing::Good);
    // By itself the next probe goes thirty seconds after the refusal.
    within(20, "it is delivered before the next probe was due", async {
        check(&herald(&rig, &["release", "ably"], &[]), 0, "ably is released");
        rig.until("e1", State::Done).await;
    })
    .await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_the_last_word_stays_in_force() {
    let Some(mut rig) = Rig::new("laststeer").await else { return };
    let (store, relay) = relayed(&rig.store_url, 5432).await;
    let worker = rig.start_with(&[("HERALD_STORE__URL", &store)]).await;
    check(&herald(&rig, &["pause"], &[]), 0, "worker rig obeys");
    rig.send(published("e1")).await;
    relay.set(Mode::Cut);
    let said = async |part: &str| eventually(part, async || rig.log(worker).contains(part).then_some(())).await;
    said("a database is away").await;
    not_ready(&rig, worker, &["paused by "]).await;
    relay.set(Mode::Forward);
    said("the databases are back").await;
    not_ready(&rig, worker, &["paused by "]).await;
    assert_eq!((rig.entry("e1").await, consumers(&rig, &rig.topology.events()).await), (None, 0));
    // It is told of the end of the pause through the same store.
    check(&herald(&rig, &["resume"], &[]), 0, "worker rig obeys");
    rig.until("e1", State::Done).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_filter_changes_while_workers_run_and_still_tells_no_secret() {
    let Some(mut rig) = Rig::new("loglevel").await else { return };
    let token = "ExponentPushToken[canary-token-1234]";
    rig.add_users([("u1".to_owned(), Some(token.to_owned()))]).await;
    let worker = rig.start_with(&[("HERALD_LOG__LEVEL", "info")]).await;
    let send = async |id: &str| {
        let mut event = event(id, "partner.advanced", &format!("s-{id}"), "u1");
        event["data"] = json!({"note": "canary-payload"});
        rig.send(event).await;
        rig.until(id, State::Done).await;
    };
    let settled = |id: &str| rig.log(worker).lines().any(|line| line.contains("settled") && line.contains(id));
    send("quiet").await;
    assert!(!settled("quiet"));
    check(&herald(&rig, &["log-level", "loud"], &[]), 64, "must be error, warn, info, debug, trace");
    check(&herald(&rig, &["log-level", "info,sqlx=trace"], &[]), 64, "which log messages and statements");
    check(&herald(&rig, &["log-level"], &[]), 64, "");
    check(&herald(&rig, &["log-level", "--reset", "--for", "1m"], &[]), 64, "");

    check(&herald(&rig, &["log-level", "trace"], &[]), 0, "worker rig obeys");
    send("loud").await;
    eventually("the event is in the log", async || settled("loud").then_some(())).await;
    let log = rig.log(worker);
    assert!(log.contains("log filter `trace` by "), "{log}");
    assert!(!log.contains("canary-token") && !log.contains("canary-payload"), "and still without secrets");
    // What other crates say of their insides, bytes included, stays tamed.
    assert!(!log.lines().any(|line| line.contains("hyper") && line.contains("TRACE")), "hyper is tamed");

    check(&herald(&rig, &["log-level", "--reset"], &[]), 0, "worker rig obeys");
    send("quiet-again").await;
    check(&herald(&rig, &["log-level", "debug", "--for", "3s"], &[]), 0, "log filter `debug` by ");
    eventually("it ended by itself", async || {
        (rig.log(worker).matches("log filter as configured (log.level) again").count() == 2).then_some(())
    })
    .await;
    send("quiet-at-last").await;
    assert!(!settled("quiet-again") && !settled("quiet-at-last"));
    let recorded = recorded(&rig);
    let told: Vec<_> = recorded.iter().map(|action| &action["parameters"]).collect();
    assert_eq!(told, [&json!({"filter": "debug", "seconds": 3}), &json!({}), &json!({"filter": "trace"})]);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_obey_is_named_who_is_dead_is_not_waited_for_and_without_anybody_the_next_obeys() {
    let Some(rig) = Rig::new("nobody").await else { return };
    check(&herald(&rig, &["pause"], &[]), 0, "no worker is running; the next that starts obeys");
    // It lives, and never looks at what operators set.
    let deaf = Store::open(&rig.store_url, "deaf").await.unwrap();
    let beats = tokio::spawn({
        let deaf = deaf.clone();
        async move {
            loop {
                deaf.heartbeat().await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    });
    check(&herald(&rig, &["resume"], &[]), 1, "worker deaf has not answered within 12 s");
    beats.abort();
    check(&herald(&rig, &["hold", "ably"], &[]), 0, "no worker is running");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_and_drops_are_recorded_with_how_many() {
    let Some(rig) = Rig::new("recorded").await else { return };
    for (id, reason) in [("e1", "rejected"), ("e2", "rejected"), ("e3", "exhausted")] {
        crate::commands::bury(&rig, id, reason, json!({})).await;
    }
    check(&herald(&rig, &["actions"], &[]), 0, "no operator has done anything yet");
    check(&herald(&rig, &["dead", "replay", "--reason", "rejected"], &[]), 1, "nothing was done");
    assert!(recorded(&rig).is_empty(), "a preview is no action");
    check(&herald(&rig, &["dead", "replay", "--reason", "rejected", "--yes"], &[("USER", "ada")]), 0, "replayed 2");
    check(&herald(&rig, &["dead", "drop", "--yes"], &[("LOGNAME", "bob")]), 0, "dropped 1");
    let recorded = recorded(&rig);
    let told: Vec<_> = recorded.iter().map(|a| (&a["what"], &a["affected"], &a["outcome"])).collect();
    let expected = [(json!("drop"), json!(1), json!("dropped")), (json!("replay"), json!(2), json!("replayed"))];
    assert_eq!(told, expected.each_ref().map(|(what, count, outcome)| (what, count, outcome)));
    assert_eq!(recorded[1]["parameters"], json!({"reason": "rejected"}));
    assert!(recorded[1]["who"].as_str().unwrap().starts_with("ada@"));
    assert!(recorded[0]["who"].as_str().unwrap().starts_with("bob@"));
    rig.end().await;
}
