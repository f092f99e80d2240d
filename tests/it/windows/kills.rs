//! SIGKILL in each window between two stops.

use std::time::Duration;

use herald::{
    domain::ledger::State,
    sandbox::{Action, Endpoint, Fault, Phase},
};
use sqlx::Executor;

use super::{fault, hold, until_dropped, until_held};
use crate::{
    rig::{Rig, event},
    support::eventually,
};

/// Kills the worker while the request of `endpoint` is held, and returns how often the event was published and pushed.
async fn killed_while_held(name: &str, endpoint: Endpoint, phase: Phase, present: bool) -> Option<(Rig, (u64, u64))> {
    let mut rig = Rig::new(name).await?;
    rig.add_users([("ada".into(), Some("ExponentPushToken[ada]".into()))]).await;
    if present {
        rig.enter("s1", "ada");
    }
    let worker = rig.start().await;
    hold(&rig, endpoint, phase);
    rig.send(event("e1", "partner.advanced", "s1", "ada")).await;
    until_held(&rig).await;
    rig.kill(worker);
    until_dropped(&rig).await;
    rig.sandbox.control().release();
    rig.start().await;
    let entry = rig.until("e1", State::Done).await;
    assert_eq!((entry.attempt, entry.crashes), (0, 0), "{entry:?}");
    assert_eq!(rig.ready_messages(&rig.topology.events()).await, 0);
    assert!(rig.books().await.closed());
    let seen = rig.effects()["e1"];
    Some((rig, seen))
}

#[tokio::test]
async fn while_presence_is_asked() {
    let Some((rig, seen)) = killed_while_held("kpres", Endpoint::Presence, Phase::Before, true).await else { return };
    assert_eq!(seen, (1, 0));
    rig.end().await;
}

#[tokio::test]
async fn while_a_publish_is_out_and_not_accepted() {
    let Some((rig, seen)) = killed_while_held("kpubb", Endpoint::Publish, Phase::Before, true).await else { return };
    assert_eq!(seen, (1, 0));
    rig.end().await;
}

#[tokio::test]
async fn while_a_publish_is_accepted_and_not_answered() {
    let Some((rig, seen)) = killed_while_held("kpuba", Endpoint::Publish, Phase::After, true).await else { return };
    assert_eq!(seen, (1, 0), "Ably drops the repeat by its id");
    rig.end().await;
}

#[tokio::test]
async fn while_a_push_is_out_and_not_accepted() {
    let Some((rig, seen)) = killed_while_held("kpushb", Endpoint::Send, Phase::Before, false).await else { return };
    assert_eq!(seen, (0, 1));
    rig.end().await;
}

#[tokio::test]
async fn while_a_push_is_accepted_and_not_answered() {
    let Some((rig, seen)) = killed_while_held("kpusha", Endpoint::Send, Phase::After, false).await else { return };
    assert_eq!(seen, (0, 2), "one repeat, and no more");
    assert_eq!(collapse_ids(&rig), ["e1", "e1"]);
    rig.end().await;
}

/// Returns the collapse ids of all pushes sent, in order.
fn collapse_ids(rig: &Rig) -> Vec<String> {
    let sends = rig.sandbox.control().entries(0, None, 1000).into_iter().filter(|e| e.endpoint == Endpoint::Send);
    let messages = sends.flat_map(|entry| entry.body.as_array().expect("notifications").clone());
    messages.map(|message| message["collapseId"].as_str().expect("a collapse id").to_owned()).collect()
}

#[tokio::test]
async fn lost_answers_repeat_a_push_a_bounded_number_of_times() {
    let Some(mut rig) = Rig::new("klost").await else { return };
    rig.add_users([("ada".into(), Some("ExponentPushToken[ada]".into()))]).await;
    rig.start_with(&[("HERALD_EXPO__TIMEOUT", "1s")]).await;
    rig.sandbox.control().add_fault(fault(Endpoint::Send, Action::LostAnswer));
    rig.send(event("e1", "partner.advanced", "s1", "ada")).await;
    let entry = rig.until("e1", State::Dead).await;
    assert_eq!(entry.reason.as_deref(), Some("unknown"));
    assert_eq!(collapse_ids(&rig), ["e1"; 3], "one send and expo.unknown_repeats more");
    assert_eq!(rig.letters().await.len(), 1);
    rig.end().await;
}

#[tokio::test]
async fn while_the_users_table_or_the_ledger_is_locked() {
    let Some(mut rig) = Rig::new("klock").await else { return };
    rig.add_users([("ada".into(), Some("ExponentPushToken[ada]".into()))]).await;
    let mut worker = rig.start().await;
    for (id, table) in [("e1", r#"APP."User""#), ("e2", "LEDGER.events")] {
        let mut connection = rig.database().await;
        let lock = rig.named(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"));
        connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(lock))).await.expect("lock");
        rig.send(event(id, "partner.advanced", "s1", "ada")).await;
        let waiting = rig.named("SELECT 1 FROM pg_locks l JOIN pg_class c ON c.oid = l.relation \
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT l.granted AND quote_ident(n.nspname) IN ('APP', 'LEDGER')")
            .replace('"', "");
        eventually("a statement waits for the lock", async || {
            sqlx::query(sqlx::AssertSqlSafe(waiting.as_str())).fetch_optional(&mut connection).await.expect("locks")
        })
        .await;
        rig.kill(worker);
        connection.execute("COMMIT").await.expect("unlock");
        worker = rig.start().await;
        let entry = rig.until(id, State::Done).await;
        assert_eq!(entry.attempt, 0, "{entry:?}");
        assert_eq!(rig.effects()[id], (0, 1));
    }
    rig.end().await;
}

#[tokio::test]
async fn workers_that_die_over_an_event_are_counted_and_it_is_handled_alone() {
    let Some(mut rig) = Rig::new("kthree").await else { return };
    rig.enter("s1", "ada");
    for _ in 0..3 {
        hold(&rig, Endpoint::Publish, Phase::Before);
        let worker = rig.start().await;
        if rig.entry("e1").await.is_none() {
            rig.send(event("e1", "partner.advanced", "s1", "ada")).await;
        }
        until_held(&rig).await;
        rig.kill(worker);
        until_dropped(&rig).await;
        rig.sandbox.control().release();
    }
    let slow = Fault { delay_ms: Some(300), times: Some(1), ..fault(Endpoint::Publish, Action::Slow) };
    rig.sandbox.control().add_fault(slow);
    let worker = rig.start().await;
    rig.send(event("e2", "partner.advanced", "s2", "ben")).await;
    let entry = rig.until("e1", State::Done).await;
    assert_eq!((entry.attempt, entry.crashes), (0, 0));
    assert!(rig.log(worker).contains("it is handled alone"), "{}", rig.log(worker));
    // Its neighbour is not held up for longer than that.
    eventually("the neighbour has ended", async || rig.entry("e2").await.filter(|e| e.state != State::Waiting)).await;
    tokio::time::timeout(Duration::from_secs(5), rig.until("e1", State::Done)).await.expect("still done");
    rig.end().await;
}
