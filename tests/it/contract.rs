//! The contracts as somebody outside meets them: headers of copies as `basic.get` shows them, exit codes, one line per error.

use std::{
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use herald::{
    broker::{Broker, Destination, Message},
    domain::ledger::{Letter, State},
};
use lapin::{
    options::{BasicGetOptions, BasicNackOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::{
    rig::{Rig, event, free_port},
    support::eventually,
};

impl Rig {
    /// Looks at the first message of a queue, as an operator's tool does, and leaves it there.
    async fn peek(&self, queue: &str) -> (FieldTable, Value) {
        let connection = lapin::Connection::connect(&self.amqp_url, Default::default()).await.expect("connection");
        let channel = connection.create_channel().await.expect("channel");
        let message = eventually(&format!("a message is in {queue}"), async || {
            channel.basic_get(queue.into(), BasicGetOptions::default()).await.expect("get")
        })
        .await;
        message.delivery.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await.expect("nack");
        let headers = message.delivery.properties.headers().clone().unwrap_or_default();
        let body = serde_json::from_slice(&message.delivery.data).unwrap_or_default();
        connection.close(200, "done".into()).await.expect("close");
        (headers, body)
    }
}

fn text(headers: &FieldTable, name: &str) -> String {
    match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => panic!("{name} is {other:?}"),
    }
}

fn number(headers: &FieldTable, name: &str) -> i64 {
    match headers.inner().get(name) {
        Some(AMQPValue::LongLongInt(number)) => *number,
        other => panic!("{name} is {other:?}"),
    }
}

/// Checks exit code, and that the one line on standard error holds `part`.
#[track_caller]
fn one_line(output: &Output, code: i32, part: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert_eq!(told.lines().count(), 1, "one clear line: {told}");
    assert!(told.starts_with("herald: ") && told.contains(part), "{part:?} is not in {told}");
}

#[tokio::test]
async fn the_attempt_that_ends_an_event_is_counted() {
    let Some(mut rig) = Rig::new("ct_rejected").await else { return };
    rig.start().await;
    rig.send(json!({"id": "e1", "sessionId": "fault-publish-422", "event": "partner.advanced"})).await;
    let entry = rig.until("e1", State::Dead).await;
    assert_eq!((entry.reason.as_deref(), entry.attempt), (Some("rejected"), 1));
    let (headers, _) = rig.peek(&rig.topology.dead()).await;
    assert_eq!(number(&headers, "herald-attempt"), 1);
    assert_eq!(text(&headers, "herald-route"), "ably");
    rig.end().await;
}

#[tokio::test]
async fn letters_that_others_put_there_are_listed_with_what_their_body_says() {
    let Some(mut rig) = Rig::new("ct_foreign").await else { return };
    let dead = Destination::Queue(rig.topology.dead());
    for body in [r#"{"id":"foreign","sessionId":"s1","event":"a.b"}"#, "junk"] {
        let message = Message { body: body.into(), ..Message::default() };
        rig.broker.publish(&dead, message).await.expect("published");
    }
    let number = rig.start().await;
    let letters =
        eventually("both are in the index", async || Some(rig.letters().await).filter(|all| all.len() == 2)).await;
    let foreign = letters.iter().find(|letter| letter.id == "foreign").expect("named by its body");
    assert_eq!((foreign.session_id.as_deref(), foreign.event.as_deref()), (Some("s1"), Some("a.b")));
    assert!(letters.iter().any(|letter| letter.id.starts_with("unreadable-")));
    assert!(letters.iter().all(|letter| letter.failed_at > 0 && letter.reason == "unknown_origin"));
    // The next start prunes and counts: they are known, and not past their retention.
    assert_eq!(rig.terminate(number).await, Some(0));
    let number = rig.start().await;
    eventually("the letters were pruned", async || {
        let metrics = reqwest::get(format!("{}/metrics", rig.http(number))).await.ok()?.text().await.ok()?;
        metrics.contains(r#"statement="prune_letters""#).then_some(())
    })
    .await;
    let numbers = |letters: Vec<Letter>| letters.into_iter().map(|letter| letter.number).collect::<Vec<_>>();
    assert_eq!(numbers(rig.letters().await), numbers(letters));
    let replayed = rig.command(&["dead", "replay", "--id", "foreign", "--yes"]).output().expect("herald");
    assert_eq!(replayed.status.code(), Some(0));
    rig.until("foreign", State::Done).await;
    rig.end().await;
}

#[tokio::test]
async fn an_event_that_waits_for_presence_says_why() {
    let Some(mut rig) = Rig::new("ct_unknown").await else { return };
    rig.add_users([("ben".into(), Some("ExponentPushToken[ben]".into()))]).await;
    rig.start_with(&[("HERALD_PRESENCE__ON_UNKNOWN", "retry"), ("HERALD_RETRY__SCHEDULE", r#"["20s"]"#)]).await;
    rig.send(event("e1", "partner.advanced", "fault-presence-500", "ben")).await;
    let (headers, _) = rig.peek(&format!("{}.retry.20s", rig.prefix)).await;
    let error = text(&headers, "herald-error");
    assert!(error.contains("presence.on_unknown is retry") && error.contains("(50000)"), "{error}");
    remove(&rig, &["retry.20s"]).await;
    rig.end().await;
}

#[tokio::test]
async fn a_postponed_copy_is_named_and_keeps_its_attempt() {
    let Some(mut rig) = Rig::new("ct_lane").await else { return };
    rig.start_with(&[("HERALD_RETRY__SCHEDULE", r#"["20s"]"#)]).await;
    for n in 0..66 {
        rig.send(json!({"id": format!("e{n}"), "sessionId": "fault-publish-hang", "event": "e"})).await;
    }
    let (headers, body) = rig.peek(&format!("{}.retry.20s", rig.prefix)).await;
    assert_eq!(text(&headers, "herald-reason"), "lane_full");
    assert_eq!(Value::from(text(&headers, "herald-id")), body["id"]);
    assert_eq!(number(&headers, "herald-attempt"), 0);
    remove(&rig, &["retry.20s"]).await;
    rig.end().await;
}

#[tokio::test]
async fn what_somebody_must_change_first_is_one_line() {
    let Some(rig) = Rig::new("ct_lines").await else { return };
    let run = |url: &str| {
        rig.command(&["run"]).env("AMQP_URL", url).env("HERALD_LOG__LEVEL", "info").output().expect("herald")
    };
    let wrong = crate::support::with_password(&rig.amqp_url, "hunter2");
    let refused = run(&wrong);
    one_line(&refused, 78, &format!("refused user `{}`", crate::support::user_of(&rig.amqp_url)));
    assert!(!String::from_utf8_lossy(&refused.stderr).contains("hunter2"));
    let vhost = rig.amqp_url.trim_end_matches("%2f").trim_end_matches("%2F").to_owned() + "no-such-vhost";
    one_line(&run(&vhost), 78, "vhost `no-such-vhost` does not exist");
    rig.end().await;
}

// On several threads, because the sandbox is in this process.
#[tokio::test(flavor = "multi_thread")]
async fn check_says_that_ably_refuses_the_key() {
    let Some(rig) = Rig::new("ct_key").await else { return };
    let check = |key: &str| rig.command(&["check"]).env("ABLY_API_KEY", key).output().expect("herald");
    let wrong = check("sandbox.key:other");
    let told = String::from_utf8_lossy(&wrong.stdout);
    assert_eq!(wrong.status.code(), Some(78), "{told}");
    assert_eq!(
        told.lines().filter(|line| line.starts_with("WRONG  ably") && line.contains("40101")).count(),
        2,
        "{told}"
    );
    assert_eq!(check(herald::sandbox::DEFAULT_KEY).status.code(), Some(0));
    rig.end().await;
}

#[tokio::test]
async fn a_worker_whose_broker_is_away_ends_at_once() {
    let folder = tempfile::tempdir().expect("folder");
    let port = free_port();
    // Another test may have installed it.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_herald"))
        .arg("run")
        .current_dir(folder.path())
        .env_clear()
        .env("AMQP_URL", "amqp://guest:hunter2@127.0.0.1:1/%2f")
        .env("DATABASE_URL", "none")
        .env("ABLY_API_KEY", "a.k:s")
        .env("HERALD_HTTP__LISTEN", format!("127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("herald");
    let url = format!("http://127.0.0.1:{port}");
    eventually("the broker's absence is known", async || {
        let answer = reqwest::Client::new().get(format!("{url}/readyz")).send().await.ok()?;
        (answer.status() == 503 && answer.text().await.ok()?.contains("no consumer")).then_some(())
    })
    .await;
    // Long enough for the upkeep to be waiting for the broker.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = Instant::now();
    assert!(
        Command::new("kill")
            .args(["-TERM", &child.id().expect("it runs").to_string()])
            .status()
            .expect("kill")
            .success()
    );
    let status = eventually("the worker has ended", async || child.try_wait().expect("status")).await;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(status.code(), Some(0));
    let mut told = String::new();
    child.stderr.take().expect("stderr").read_to_string(&mut told).await.expect("log");
    assert_eq!(told.matches("broker unreachable").count(), 1, "one line a minute: {told}");
    assert!(!told.contains("hunter2"));
}

/// Removes queues that are not in the rig's own topology.
async fn remove(rig: &Rig, names: &[&str]) {
    let connection = lapin::Connection::connect(&rig.amqp_url, Default::default()).await.expect("connection");
    let channel = connection.create_channel().await.expect("channel");
    for name in names {
        let queue = format!("{}.{name}", rig.prefix);
        channel.queue_delete(queue.as_str().into(), Default::default()).await.expect("delete");
    }
    connection.close(200, "done".into()).await.expect("close");
}
