//! The broker or the database away, and the orderly end: rows stay, nothing spins, nothing is lost.

use std::time::Duration;

use herald::domain::ledger::State;
use sqlx::{Connection, Executor};

use super::{all_relayed, drain, hold_settling, id_of, relay, rows, table, write};
use crate::{
    relay::Mode,
    rig::Rig,
    servers::Rabbit,
    support::{eventually, within},
    windows::relayed,
};

fn numbered(from: usize, to: usize) -> Vec<(String, String)> {
    (from..to).map(|n| (n.to_string(), format!("s{}", n % 7))).collect()
}

/// Checks that each of `count` numbered events came, each session's in order, and returns how many came twice.
#[track_caller]
fn all_came(ids: &[String], count: usize) -> usize {
    let mut firsts: Vec<usize> = Vec::new();
    for n in ids.iter().map(|id| id.parse().expect("a number")) {
        if !firsts.contains(&n) {
            firsts.push(n);
        }
    }
    for session in 0..7 {
        assert!(firsts.iter().filter(|n| *n % 7 == session).is_sorted(), "session {session}: {firsts:?}");
    }
    firsts.sort_unstable();
    assert_eq!(firsts, (0..count).collect::<Vec<_>>());
    ids.len() - count
}

async fn until_not_ready(rig: &Rig, number: usize) {
    eventually("the relay is not ready", async || (rig.ready(number).await == 503).then_some(())).await;
}

async fn until_ready(rig: &Rig, number: usize) {
    eventually("the relay is ready again", async || (rig.ready(number).await == 200).then_some(())).await;
}

#[tokio::test]
async fn while_the_broker_restarts_rows_wait_and_then_go() {
    let Some(rabbit) = Rabbit::start() else { return };
    let Some(mut rig) = Rig::on("obbroker", rabbit.url.clone()).await else { return };
    let mut backend = table(&rig).await;
    let number = relay(&mut rig, "relay", &[]).await;
    write(&mut backend, &numbered(0, 50)).await;
    all_relayed(&mut backend).await;
    rabbit.run("stop");
    until_not_ready(&rig, number).await;
    write(&mut backend, &numbered(50, 300)).await;
    // Long enough for many tries, and told once.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(rows(&mut backend).await, (250, 250, 0));
    rabbit.run("start");
    within(60, "all rows are relayed", async {
        while rows(&mut backend).await.1 > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    until_ready(&rig, number).await;
    let log = rig.log(number);
    assert_eq!(log.matches("broker unreachable").count(), 1, "{log}");
    let ids: Vec<String> = drain(&rig, &rig.topology.events()).await.iter().map(id_of).collect();
    println!("{} came twice over the restart", all_came(&ids, 300));
    rig.end().await;
}

#[tokio::test]
async fn what_is_not_confirmed_stays_in_the_table() {
    let Some(mut rig) = Rig::new("obconfirm").await else { return };
    let mut backend = table(&rig).await;
    let (url, link) = relayed(&rig.amqp_url, 5672).await;
    relay(&mut rig, "relay", &[("AMQP_URL", &url), ("HERALD_OUTBOX__POLL", "100ms")]).await;
    link.set(Mode::Blackhole);
    write(&mut backend, &numbered(0, 20)).await;
    eventually("the relay has taken all rows", async || {
        let free =
            sqlx::query("SELECT 1 FROM herald_outbox FOR UPDATE SKIP LOCKED").fetch_all(&mut backend).await.unwrap();
        free.is_empty().then_some(())
    })
    .await;
    link.set(Mode::Cut);
    eventually("it has given them back", async || {
        let free =
            sqlx::query("SELECT 1 FROM herald_outbox FOR UPDATE SKIP LOCKED").fetch_all(&mut backend).await.unwrap();
        (free.len() == 20).then_some(())
    })
    .await;
    link.set(Mode::Forward);
    all_relayed(&mut backend).await;
    let ids: Vec<String> = drain(&rig, &rig.topology.events()).await.iter().map(id_of).collect();
    all_came(&ids, 20);
    rig.end().await;
}

#[tokio::test]
async fn while_the_database_is_away_the_relay_waits_and_then_goes_on() {
    let Some(mut rig) = Rig::new("obdata").await else { return };
    let mut backend = table(&rig).await;
    let (url, link) = relayed(&rig.users_url, 5432).await;
    let number = relay(&mut rig, "relay", &[("HERALD_OUTBOX__URL", &url), ("HERALD_OUTBOX__POLL", "100ms")]).await;
    write(&mut backend, &numbered(0, 20)).await;
    all_relayed(&mut backend).await;
    link.set(Mode::Cut);
    until_not_ready(&rig, number).await;
    write(&mut backend, &numbered(20, 40)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let log = rig.log(number);
    assert_eq!(log.matches("the outbox's database is away").count(), 1, "one line a minute: {log}");
    link.set(Mode::Forward);
    until_ready(&rig, number).await;
    all_relayed(&mut backend).await;
    // Notified again, and not only polling.
    let before = rig.counter("herald_outbox_notifications_total").await;
    write(&mut backend, &numbered(40, 41)).await;
    let heard = async || (rig.counter("herald_outbox_notifications_total").await > before).then_some(());
    eventually("the relay listens again", async || {
        if heard().await.is_none() {
            backend
                .execute("INSERT INTO herald_outbox (id, session_id, event) VALUES ('40', 's5', 'again')")
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        heard().await
    })
    .await;
    all_relayed(&mut backend).await;
    let mut ids: Vec<String> = drain(&rig, &rig.topology.events()).await.iter().map(id_of).collect();
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| id != "40" || seen.insert(id.clone()));
    println!("{} came twice over the outage", all_came(&ids, 41));

    // From the start, too: not ready, and no exit.
    link.set(Mode::Cut);
    assert_eq!(rig.terminate(number).await, Some(0), "{}", rig.log(number));
    let number = rig.spawn("outbox", "late", &[("HERALD_OUTBOX__URL", &url)]);
    eventually("it serves its pages", async || {
        let answer = reqwest::get(format!("{}/healthz", rig.http(number))).await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
    until_not_ready(&rig, number).await;
    link.set(Mode::Forward);
    until_ready(&rig, number).await;
    rig.end().await;
}

#[tokio::test]
async fn a_database_that_falls_silent_is_left_and_asked_again() {
    let Some(mut rig) = Rig::new("obsilent").await else { return };
    let mut backend = table(&rig).await;
    let (url, link) = relayed(&rig.users_url, 5432).await;
    let number = relay(&mut rig, "relay", &[("HERALD_OUTBOX__URL", &url), ("HERALD_OUTBOX__POLL", "100ms")]).await;
    link.set(Mode::Blackhole);
    write(&mut backend, &numbered(0, 20)).await;
    until_not_ready(&rig, number).await;
    // What hung is cut, as it would be by a restarted server.
    link.set(Mode::Cut);
    link.set(Mode::Forward);
    until_ready(&rig, number).await;
    all_relayed(&mut backend).await;
    let ids: Vec<String> = drain(&rig, &rig.topology.events()).await.iter().map(id_of).collect();
    all_came(&ids, 20);
    rig.end().await;
}

#[tokio::test]
async fn a_stop_finishes_the_round_in_hand_and_leaves_the_rest() {
    const COUNT: usize = 3000;
    let Some(mut rig) = Rig::new("obstop").await else { return };
    let mut backend = table(&rig).await;
    write(&mut backend, &numbered(0, COUNT)).await;
    let number = relay(&mut rig, "relay", &[("HERALD_OUTBOX__BATCH", "100")]).await;
    assert_eq!(rig.terminate(number).await, Some(0), "{}", rig.log(number));
    let (left, waiting, _) = rows(&mut backend).await;
    println!("{left} of {COUNT} rows left at the stop");
    assert_eq!(left, waiting);
    assert_eq!(
        rig.ready_messages(&rig.topology.events()).await as i64 + left,
        COUNT as i64,
        "published or still there"
    );
    relay(&mut rig, "relay", &[("HERALD_OUTBOX__BATCH", "1000")]).await;
    all_relayed(&mut backend).await;
    let ids: Vec<String> = drain(&rig, &rig.topology.events()).await.iter().map(id_of).collect();
    assert_eq!(all_came(&ids, COUNT), 0, "an orderly stop repeats nothing");
    rig.end().await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_loses_nothing() {
    let Some(mut rig) = Rig::new("obtwice").await else { return };
    let mut backend = table(&rig).await;
    rig.start().await;
    backend
        .execute("INSERT INTO herald_outbox (id, session_id, event) VALUES ('e1', 's1', 'partner.advanced')")
        .await
        .unwrap();
    let held = hold_settling(&rig).await;
    let number = rig.spawn("outbox", "relay", &[]);
    rig.until("e1", State::Done).await;
    rig.signal(number);
    eventually("the first signal is heard", async || rig.log(number).contains("stopping:").then_some(())).await;
    assert_eq!(rig.terminate(number).await, Some(128 + 15));
    held.close().await.unwrap();
    assert_eq!(rows(&mut backend).await, (1, 1, 0));
    relay(&mut rig, "relay", &[]).await;
    all_relayed(&mut backend).await;
    eventually("the repeat has come", async || (rig.counter("herald_repeats_total").await == 1).then_some(())).await;
    assert_eq!(rig.effects()["e1"], (1, 0));
    rig.end().await;
}
