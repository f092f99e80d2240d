//! Databases that go away, alone or together: intake stops, nothing is charged, nothing lost, and nothing spins.

use std::time::{Duration, Instant};

use herald::{
    domain::ledger::{Claim, Claimed, State},
    sandbox::{Action, Endpoint, Fault, Phase},
    store::Record,
};
use serde_json::json;
use sqlx::Executor;

use super::{all_arrived, all_ended, fault, hold, intakes, none_charged, relayed, send_range, until_held};
use crate::{
    relay::Mode,
    rig::{Rig, event},
    support::eventually,
};

const COUNT: usize = 200;

/// Waits until the worker says that it is not ready.
async fn until_not_ready(rig: &Rig, worker: usize) {
    eventually("intake has stopped", async || (rig.ready(worker).await == 503).then_some(())).await;
}

async fn until_ready(rig: &Rig, worker: usize) {
    eventually("intake goes on", async || (rig.ready(worker).await == 200).then_some(())).await;
}

/// Takes the databases named away under load, for `away`, and checks that every event ends uncharged.
async fn outage(name: &str, ledger: bool, users: bool, mode: Mode, away: Duration) {
    let Some(mut rig) = Rig::new(name).await else { return };
    let (store_url, store_relay) = relayed(&rig.store_url, 5432).await;
    let (users_url, users_relay) = relayed(&rig.users_url, 5432).await;
    let worker = rig
        .start_with(&[
            ("HERALD_STORE__URL", &store_url),
            ("DATABASE_URL", &users_url),
            ("HERALD_BROKER__PREFETCH", "32"),
        ])
        .await;
    let slow = Fault { delay_ms: Some(100), ..fault(Endpoint::Presence, Action::Slow) };
    rig.sandbox.control().add_fault(slow);
    send_range(&rig, 0, COUNT / 2).await;
    if ledger {
        store_relay.set(mode);
    }
    if users {
        users_relay.set(mode);
    }
    send_range(&rig, COUNT / 2, COUNT).await;
    until_not_ready(&rig, worker).await;
    tokio::time::sleep(away).await;
    assert_eq!(rig.ready(worker).await, 503);
    let begun = intakes(&rig, worker);
    for relay in [&store_relay, &users_relay] {
        // What hung in a black hole is cut, as it would be by a restarted server.
        relay.set(Mode::Cut);
        relay.set(Mode::Forward);
    }
    until_ready(&rig, worker).await;
    all_ended(&rig, COUNT).await;
    let repeats = all_arrived(&rig, COUNT);
    none_charged(&rig, COUNT).await;
    assert!(rig.letters().await.is_empty());
    println!("{name}: {repeats} repeats, {begun} intakes before the return, {} after", intakes(&rig, worker));
    assert_eq!(repeats, 0);
    assert!(intakes(&rig, worker) <= 6, "{} intakes", intakes(&rig, worker));
    rig.end().await;
}

#[tokio::test]
async fn postgresql_is_gone_for_some_seconds() {
    outage("dboth", true, true, Mode::Cut, Duration::from_secs(4)).await;
}

#[tokio::test]
async fn the_users_database_is_gone_alone() {
    outage("dusers", false, true, Mode::Cut, Duration::from_secs(4)).await;
}

#[tokio::test]
async fn the_ledger_is_gone_alone() {
    outage("dledger", true, false, Mode::Cut, Duration::from_secs(4)).await;
}

#[tokio::test]
async fn postgresql_falls_silent() {
    outage("dsilent", true, true, Mode::Blackhole, Duration::from_secs(2)).await;
}

#[tokio::test]
async fn a_ledger_that_takes_heartbeats_and_refuses_claims_does_not_spin() {
    let Some(mut rig) = Rig::new("dclaims").await else { return };
    let worker = rig.start().await;
    rig.sql("ALTER TABLE LEDGER.events RENAME TO events_away").await;
    for n in 0..10 {
        rig.send(json!({"id": format!("e{n}"), "sessionId": format!("s{n}"), "event": "partner.advanced"})).await;
    }
    until_not_ready(&rig, worker).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let begun = intakes(&rig, worker);
    println!("{begun} intakes in five seconds");
    assert!(begun <= 6, "each intake wears out the broker's delivery limit, and there were {begun}");
    rig.sql("ALTER TABLE LEDGER.events_away RENAME TO events").await;
    all_ended(&rig, 10).await;
    none_charged(&rig, 10).await;
    rig.end().await;
}

#[tokio::test]
async fn locked_tables_are_waited_for() {
    let Some(mut rig) = Rig::new("dlock").await else { return };
    let worker = rig.start().await;
    for (table, from) in [(r#"APP."User""#, 0), ("LEDGER.events", 20)] {
        let mut connection = rig.database().await;
        rig.add_users((from..from + 20).map(|n| (format!("u{n}"), Some(format!("ExponentPushToken[phone-{n}]")))))
            .await;
        let lock = rig.named(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"));
        connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(lock))).await.expect("lock");
        for n in from..from + 20 {
            rig.send(event(&format!("e{n}"), "partner.advanced", &format!("s{n}"), &format!("u{n}"))).await;
        }
        until_not_ready(&rig, worker).await;
        tokio::time::sleep(Duration::from_secs(7)).await;
        connection.execute("COMMIT").await.expect("unlock");
        all_ended(&rig, from + 20).await;
    }
    assert_eq!(all_arrived(&rig, 40), 0);
    none_charged(&rig, 40).await;
    println!("{} intakes", intakes(&rig, worker));
    rig.end().await;
}

#[tokio::test]
async fn presence_is_asked_beside_the_claim_and_nothing_is_sent_before_it_is_granted() {
    let Some(mut rig) = Rig::new("dbeside").await else { return };
    rig.enter("s1", "ada");
    rig.start().await;
    let mut connection = rig.database().await;
    let lock = rig.named("BEGIN; LOCK TABLE LEDGER.events IN ACCESS EXCLUSIVE MODE");
    connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(lock))).await.expect("lock");
    rig.send(event("e1", "partner.advanced", "s1", "ada")).await;
    let asked = |endpoint| {
        rig.sandbox.control().entries(0, None, 1000).iter().filter(|entry| entry.endpoint == endpoint).count()
    };
    eventually("presence is asked", async || (asked(Endpoint::Presence) == 1).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(asked(Endpoint::Publish), 0, "nobody has granted it");
    connection.execute("COMMIT").await.expect("unlock");
    rig.until("e1", State::Done).await;
    assert_eq!(rig.effects()["e1"], (1, 0));
    assert_eq!(asked(Endpoint::Presence), 1, "what was asked beside the claim is used");
    rig.end().await;
}

#[tokio::test]
async fn an_outcome_in_hand_is_written_before_another_worker_takes_the_event_over() {
    let Some(mut rig) = Rig::new("dtwo").await else { return };
    rig.add_users([("ada".into(), Some("ExponentPushToken[ada]".into()))]).await;
    let (first_url, first_relay) = relayed(&rig.store_url, 5432).await;
    let (second_url, second_relay) = relayed(&rig.store_url, 5432).await;
    let first = rig.start_as("first", &[("HERALD_STORE__URL", &first_url)]).await;
    hold(&rig, Endpoint::Send, Phase::Before);
    rig.send(event("e1", "partner.advanced", "s1", "ada")).await;
    until_held(&rig).await;
    let second = rig.start_as("second", &[("HERALD_STORE__URL", &second_url)]).await;
    // Long enough for each to have heard of the other, and then for both to be taken for dead.
    tokio::time::sleep(Duration::from_secs(3)).await;
    first_relay.set(Mode::Cut);
    second_relay.set(Mode::Cut);
    let cut = Instant::now();
    until_not_ready(&rig, first).await;
    until_not_ready(&rig, second).await;
    rig.sandbox.control().release();
    tokio::time::sleep(Duration::from_secs(12).saturating_sub(cut.elapsed())).await;
    // The database is back for both; the second is merely quicker to find out.
    second_relay.set(Mode::Forward);
    eventually("the second has spoken", async || {
        let mut connection = rig.database().await;
        let spoken = rig.named(
            "SELECT 1 FROM LEDGER.workers WHERE instance = 'second' AND beat_at > extract(epoch FROM now()) * 1000 - 1000",
        );
        sqlx::query(sqlx::AssertSqlSafe(spoken)).fetch_optional(&mut connection).await.expect("workers")
    })
    .await;
    // Longer than the longest pause between two probes.
    tokio::time::sleep(Duration::from_millis(5500)).await;
    first_relay.set(Mode::Forward);
    rig.until("e1", State::Done).await;
    until_ready(&rig, second).await;
    eventually("the queue is empty", async || (rig.ready_messages(&rig.topology.events()).await == 0).then_some(()))
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.effects()["e1"], (0, 1), "the second worker pushed again what the first had pushed");
    rig.end().await;
}

fn claim_of(rig: &Rig, entry: &herald::domain::ledger::Entry) -> Claim {
    let _ = rig;
    Claim {
        identity: entry.identity.clone(),
        event_id: entry.event_id.clone(),
        session_id: entry.session_id.clone().unwrap_or_default(),
        partner_id: entry.partner_id.clone(),
        event: entry.event.clone().unwrap_or_default(),
        fingerprint: entry.fingerprint.clone(),
        attempt: entry.attempt,
        replay: entry.replay,
        first_seen: entry.first_seen,
        expires_at: entry.expires_at,
    }
}

#[tokio::test]
async fn a_stale_delivery_leaves_no_claim_behind() {
    let Some(mut rig) = Rig::new("dstale").await else { return };
    rig.enter("s1", "ada");
    let worker = rig.start().await;
    rig.send(event("e1", "partner.advanced", "s1", "ada")).await;
    let entry = rig.until("e1", State::Done).await;
    // As if a copy with two attempts waited in a retry queue.
    let waiting = herald::domain::ledger::Entry { state: State::Waiting, attempt: 2, via: None, ..entry.clone() };
    let record = Record { entry: waiting, tickets: Vec::new(), letter: None };
    rig.store.record(record).await.expect("recorded");
    rig.send(event("e1", "partner.advanced", "s1", "ada")).await;
    eventually("the delivery is dropped as stale", async || {
        let metrics = reqwest::get(format!("{}/metrics", rig.http(worker))).await.ok()?.text().await.ok()?;
        metrics.lines().find(|l| l.starts_with("herald_settled_total") && l.contains("stale")).map(|_| ())
    })
    .await;
    let claimed = rig.store.claim(claim_of(&rig, &entry)).await.expect("claimed");
    assert!(matches!(claimed, Claimed::Granted { .. }), "the copy would go round until the claim is half an hour old");
    rig.end().await;
}

#[tokio::test]
async fn a_row_nobody_can_read_concerns_its_own_event_only() {
    let Some(mut rig) = Rig::new("drow").await else { return };
    rig.enter("s1", "ada");
    let worker = rig.start().await;
    rig.send(event("e0", "partner.advanced", "s1", "ada")).await;
    rig.until("e0", State::Done).await;
    rig.sql("UPDATE LEDGER.events SET targets = 'no JSON'").await;
    rig.send(event("e0", "partner.advanced", "s1", "ada")).await;
    rig.send(event("e1", "partner.advanced", "s2", "ben")).await;
    eventually("it is a dead letter", async || (rig.ready_messages(&rig.topology.dead()).await == 1).then_some(()))
        .await;
    assert_eq!(intakes(&rig, worker), 1, "the worker never stopped: {}", rig.log(worker));
    rig.sql("UPDATE LEDGER.events SET targets = '{}' WHERE targets = 'no JSON'").await;
    eventually("the neighbour has ended", async || rig.entry("e1").await.filter(|e| e.state != State::Waiting)).await;
    rig.end().await;
}
