//! Providers that are down, and sessions with more events than a lane holds.

use std::time::{Duration, Instant};

use herald::{
    domain::ledger::State,
    sandbox::{Action, Endpoint, Phase},
};

use super::{all_ended, fault, hold, send_range, until_held};
use crate::{
    rig::{Rig, event},
    support::eventually,
};

#[tokio::test]
async fn expo_is_down_and_ably_does_not_notice() {
    let Some(mut rig) = Rig::new("pexpo").await else { return };
    const COUNT: usize = 400;
    let worker = rig.start().await;
    rig.sandbox.control().add_fault(fault(Endpoint::Send, Action::Status));
    let started = Instant::now();
    send_range(&rig, 0, COUNT).await;
    eventually("all realtime events are done", async || {
        let books = rig.books().await;
        (books.done.get("realtime") == Some(&(COUNT as i64 / 2))).then_some(())
    })
    .await;
    let realtime = started.elapsed();
    let books = rig.books().await;
    assert_eq!(books.done.get("push"), None);
    let held = rig.topology.hold(herald::domain::outcome::Provider::Expo);
    eventually("pushes are held", async || (rig.ready_messages(&held).await > 0).then_some(())).await;
    // Long enough for probes to fail.
    tokio::time::sleep(Duration::from_secs(5)).await;
    rig.sandbox.control().clear_faults();
    let books = all_ended(&rig, COUNT).await;
    println!("realtime in {realtime:?}; all in {:?}: {books:?}", started.elapsed());
    assert!(realtime < Duration::from_secs(15), "{realtime:?}");
    let dead: i64 = books.dead.values().sum();
    assert_eq!(books.done["push"] + dead, COUNT as i64 / 2);
    assert_eq!(dead, books.dead.get("unknown").copied().unwrap_or(0), "{books:?}");
    assert!(dead <= 20, "the breaker keeps events from unknown fates: {books:?}");
    assert_eq!(rig.letters().await.len() as i64, dead);
    let effects = rig.effects();
    let arrived = (1..COUNT).step_by(2).filter(|n| effects.contains_key(&format!("e{n}"))).count() as i64;
    assert!(arrived >= books.done["push"], "{arrived} arrived of {books:?}");
    assert_eq!(rig.ready(worker).await, 200);
    rig.end().await;
}

#[tokio::test]
async fn a_session_with_more_events_than_a_lane_holds() {
    let Some(mut rig) = Rig::new("plane").await else { return };
    rig.enter("s1", "ada");
    rig.start().await;
    hold(&rig, Endpoint::Presence, Phase::Before);
    rig.send(event("e0", "partner.advanced", "s1", "ada")).await;
    until_held(&rig).await;
    for n in 1..150 {
        rig.send(event(&format!("e{n}"), "partner.advanced", "s1", "ada")).await;
    }
    let retry = rig.topology.retry(Duration::from_secs(1));
    eventually("what does not fit goes to the retry queue", async || {
        (rig.ready_messages(&retry).await > 0).then_some(())
    })
    .await;
    rig.sandbox.control().release();
    let books = all_ended(&rig, 150).await;
    assert_eq!(books.done["realtime"], 150);
    for n in 0..150 {
        let entry = rig.entry(&format!("e{n}")).await.expect("row");
        assert_eq!((entry.state, entry.attempt), (State::Done, 0));
        assert_eq!(rig.effects()[&format!("e{n}")], (1, 0));
    }
    rig.end().await;
}
