//! The orderly end: within the grace period whatever is in hand and whoever is away, and nothing is lost by it.

use std::time::{Duration, Instant};

use herald::{
    domain::ledger::State,
    sandbox::{Endpoint, Phase},
};

use super::{hold, relayed, until_dropped, until_held};
use crate::{
    relay::Mode,
    rig::{Rig, event},
    support::eventually,
};

/// Ends the worker in order, and returns how long that took.
async fn end(rig: &mut Rig, worker: usize) -> Duration {
    let begun = Instant::now();
    assert_eq!(rig.terminate(worker).await, Some(0), "{}", rig.log(worker));
    begun.elapsed()
}

#[tokio::test]
async fn the_grace_period_counts_once() {
    let Some(mut rig) = Rig::new("sgrace").await else { return };
    rig.enter("s1", "ada");
    let worker = rig.start_with(&[("HERALD_SHUTDOWN__GRACE", "3s")]).await;
    hold(&rig, Endpoint::Publish, Phase::Before);
    rig.send(event("e1", "partner.advanced", "s1", "ada")).await;
    until_held(&rig).await;
    let took = end(&mut rig, worker).await;
    println!("a request in hand: {took:?}");
    assert!(took >= Duration::from_millis(2800) && took < Duration::from_millis(5500), "{took:?}");
    until_dropped(&rig).await;
    rig.sandbox.control().release();
    rig.start().await;
    let entry = rig.until("e1", State::Done).await;
    assert_eq!((entry.attempt, rig.effects()["e1"]), (0, (1, 0)));
    rig.end().await;
}

#[tokio::test]
async fn with_nothing_in_hand_nothing_is_waited_for_whoever_is_away() {
    let Some(mut rig) = Rig::new("saway").await else { return };
    let (amqp, broker) = relayed(&rig.amqp_url, 5672).await;
    let (store, ledger) = relayed(&rig.store_url, 5432).await;
    let worker = rig.start_with(&[("AMQP_URL", &amqp), ("HERALD_STORE__URL", &store)]).await;
    broker.set(Mode::Cut);
    // The gauges have begun to ask for what nobody answers.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let took = end(&mut rig, worker).await;
    println!("without a broker: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");

    broker.set(Mode::Forward);
    let worker = rig.start_with(&[("AMQP_URL", &amqp), ("HERALD_STORE__URL", &store)]).await;
    ledger.set(Mode::Blackhole);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let took = end(&mut rig, worker).await;
    println!("without a ledger: {took:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    rig.end().await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_loses_nothing() {
    let Some(mut rig) = Rig::new("stwice").await else { return };
    rig.enter("s1", "ada");
    let worker = rig.start().await;
    hold(&rig, Endpoint::Publish, Phase::Before);
    rig.send(event("e1", "partner.advanced", "s1", "ada")).await;
    until_held(&rig).await;
    rig.signal(worker);
    eventually("the first signal is heard", async || rig.log(worker).contains("stopping:").then_some(())).await;
    let begun = Instant::now();
    assert_eq!(rig.terminate(worker).await, Some(128 + 15));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    until_dropped(&rig).await;
    rig.sandbox.control().release();
    rig.start().await;
    let entry = rig.until("e1", State::Done).await;
    assert_eq!((entry.attempt, rig.effects()["e1"]), (0, (1, 0)));
    rig.end().await;
}
