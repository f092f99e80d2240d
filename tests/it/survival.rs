//! What the worker must withstand: kills, a term signal under load, and wrong configurations with one clear line each.

use std::{collections::BTreeSet, process::Output, time::Duration};

use herald::domain::ledger::State;
use serde_json::json;

use crate::{
    rig::{Rig, event, free_port},
    support::{eventually, unique},
};

/// Events of the load tests; `HERALD_TEST_EVENTS` asks for more.
fn load() -> usize {
    std::env::var("HERALD_TEST_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)
}

/// Sends `count` events of as many sessions, every second partner present.
async fn send_load(rig: &Rig, count: usize) {
    let users = (0..count).map(|n| (format!("u{n}"), Some(format!("ExponentPushToken[phone-{n}]"))));
    rig.add_users(users).await;
    for n in (0..count).step_by(2) {
        rig.enter(&format!("s{n}"), &format!("u{n}"));
    }
    let sends =
        (0..count).map(|n| rig.send(event(&format!("e{n}"), "partner.advanced", &format!("s{n}"), &format!("u{n}"))));
    use futures::StreamExt;
    futures::stream::iter(sends).buffer_unordered(200).collect::<Vec<()>>().await;
}

/// Waits until every event has ended, and checks that none is missing, at the providers and in the books.
async fn check_load(rig: &Rig, count: usize) -> u64 {
    let patience = Duration::from_secs(120);
    let settled = tokio::time::timeout(patience, async {
        loop {
            let books = rig.books().await;
            if books.received == count as i64 && books.waiting == 0 {
                return books;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let books = settled.await.unwrap_or_else(|_| panic!("not all events ended"));
    assert!(books.closed(), "{books:?}");
    let effects = rig.effects();
    let arrived: BTreeSet<&str> = effects.keys().map(String::as_str).collect();
    let missing: Vec<String> =
        (0..count).map(|n| format!("e{n}")).filter(|id| !arrived.contains(id.as_str())).collect();
    assert!(missing.is_empty(), "{} missing, e.g. {:?}; {books:?}", missing.len(), &missing[..missing.len().min(5)]);
    let arrivals: u64 = effects.values().map(|(ably, expo)| ably + expo).sum();
    println!(
        "{count} events: {:?} done, {:?} skipped, {:?} dead, {} repeats at the providers",
        books.done,
        books.skipped,
        books.dead,
        arrivals - count as u64
    );
    arrivals - count as u64
}

#[tokio::test]
async fn a_load_ends_with_closed_books_and_nothing_missing() {
    let Some(mut rig) = Rig::new("load").await else { return };
    rig.start().await;
    let count = load();
    let started = std::time::Instant::now();
    send_load(&rig, count).await;
    let repeats = check_load(&rig, count).await;
    println!("in {:?}", started.elapsed());
    assert_eq!(repeats, 0);
    let books = rig.books().await;
    assert_eq!((books.done["realtime"], books.done["push"]), (count as i64 / 2, count as i64 / 2));
    rig.end().await;
}

#[tokio::test]
async fn a_worker_killed_in_the_middle_loses_nothing() {
    let Some(mut rig) = Rig::new("killed").await else { return };
    let count = load();
    let mut worker = rig.start_with(&[("HERALD_BROKER__PREFETCH", "64")]).await;
    send_load(&rig, count).await;
    for kill in 1..=3 {
        let target = count * kill / 5;
        eventually("some events are done", async || {
            let books = rig.books().await;
            (books.done.values().sum::<i64>() >= target as i64).then_some(())
        })
        .await;
        rig.kill(worker);
        worker = rig.start_with(&[("HERALD_BROKER__PREFETCH", "64")]).await;
    }
    let repeats = check_load(&rig, count).await;
    println!("three kills, {repeats} repeats");
    rig.end().await;
}

#[tokio::test]
async fn a_term_signal_drains_and_exits_with_zero() {
    let Some(mut rig) = Rig::new("drain").await else { return };
    let count = load();
    let worker = rig.start().await;
    send_load(&rig, count).await;
    assert_eq!(rig.terminate(worker).await, Some(0), "{}", rig.log(worker));
    rig.start().await;
    assert_eq!(check_load(&rig, count).await, 0, "a drained worker leaves nothing to repeat");
    rig.end().await;
}

/// Runs the command to its end and returns its exit code and error lines.
fn ended(output: Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Checks that `herald run` with one changed variable ends with `code` and one line that says `expected`.
async fn refuses(rig: &Rig, variable: &str, value: &str, code: i32, expected: &[&str]) {
    let mut command = tokio::process::Command::from(rig.command(&["run"]));
    let output = command.env(variable, value).env("HERALD_LOG__LEVEL", "error").kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(30), output).await.expect("it ends").expect("it starts");
    let (status, errors) = ended(output);
    assert_eq!(status, Some(code), "{variable}={value}: {errors}");
    let lines: Vec<&str> = errors.lines().filter(|line| line.starts_with("herald: ")).collect();
    assert_eq!(lines.len(), 1, "one line for {variable}={value}: {errors}");
    for part in expected {
        assert!(lines[0].contains(part), "`{part}` in: {}", lines[0]);
    }
    assert!(!errors.contains("s3cret"), "no secret in: {errors}");
}

#[tokio::test]
async fn a_wrong_configuration_is_one_clear_line_and_78() {
    let Some(rig) = Rig::new("wrong").await else { return };
    let at = rig.amqp_url.rsplit_once('@').expect("credentials").1.to_owned();
    let host = at.split('/').next().expect("host").to_owned();
    refuses(&rig, "AMQP_URL", &format!("amqp://guest:s3cret@{at}"), 78, &["guest", "broker.url"]).await;
    let (user, _) = rig.amqp_url.split_once('@').expect("credentials");
    refuses(&rig, "AMQP_URL", &format!("{user}@{host}/nowhere"), 78, &["nowhere", "vhost"]).await;
    let missing = unique("missing");
    let (server, _) = rig.store_url.rsplit_once('/').expect("database");
    refuses(&rig, "HERALD_STORE__URL", &format!("{server}/{missing}"), 78, &[&missing, "store.url"]).await;
    refuses(&rig, "DATABASE_URL", &format!("{server}/{missing}"), 78, &[&missing, "users.url"]).await;
    refuses(&rig, "ABLY_API_KEY", "", 78, &["ably.key", "ABLY_API_KEY"]).await;
    refuses(&rig, "HERALD_BROKER__PREFETCH", "many", 78, &["broker.prefetch", "HERALD_BROKER__PREFETCH"]).await;
    let port = free_port();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).expect("port");
    refuses(&rig, "HERALD_HTTP__LISTEN", &format!("127.0.0.1:{port}"), 1, &["http.listen", &port.to_string()]).await;
    rig.end().await;
}

#[tokio::test]
async fn a_mismatched_queue_is_named_and_never_repaired() {
    let Some(rig) = Rig::new("mismatch").await else { return };
    // The rig has declared its queues with a dead-letter retention of 14 days; a retry queue of another length is another queue,
    // so the mismatch is made by hand.
    let connection = lapin::Connection::connect(&rig.amqp_url, Default::default()).await.expect("RabbitMQ");
    let channel = connection.create_channel().await.expect("channel");
    let hold = rig.topology.hold(herald::domain::outcome::Provider::Ably);
    channel.queue_delete(hold.as_str().into(), Default::default()).await.expect("deleted");
    let options = lapin::options::QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(hold.as_str().into(), options, Default::default()).await.expect("declared");
    refuses(&rig, "HERALD_INSTANCE", "other", 78, &[&hold, "x-queue-type"]).await;
    rig.end().await;
}

#[tokio::test]
async fn an_unreachable_broker_is_waited_for() {
    let Some(mut rig) = Rig::new("waits").await else { return };
    let port = free_port();
    let mut command = rig.command(&["run"]);
    let http = free_port();
    command.env("AMQP_URL", format!("amqp://guest:guest@127.0.0.1:{port}/%2f"));
    command.env("HERALD_HTTP__LISTEN", format!("127.0.0.1:{http}"));
    let mut child = command.stderr(std::process::Stdio::null()).spawn().expect("herald");
    let status = eventually("the worker answers", async || {
        let url = format!("http://127.0.0.1:{http}/readyz");
        Some(reqwest::Client::new().get(url).send().await.ok()?.status().as_u16())
    })
    .await;
    assert_eq!(status, 503);
    assert!(child.try_wait().expect("status").is_none(), "it keeps trying");
    child.kill().expect("kill");
    child.wait().expect("wait");
    rig.start().await;
    rig.send(json!({"id": "e1", "sessionId": "s", "event": "e"})).await;
    rig.until("e1", State::Done).await;
    rig.end().await;
}
