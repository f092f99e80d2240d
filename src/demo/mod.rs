//! `herald demo`: the main job end to end on embedded defaults, with nothing to install.
//!
//! Called by the command line. Plays the events of `script` through a real worker (memory broker or a given RabbitMQ, SQLite in
//! a temporary folder, the sandbox), replays the dead letter, and prints what went where and why, read back from the ledger
//! and held against the sandbox's journal. Reads nothing from the environment and talks to no provider.

mod script;
mod stage;
mod table;

use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::broker::{
    Broker,
    amqp::{Amqp, AmqpOptions, Role},
    memory::Memory,
};

/// Longest the demo waits for its events to end, the broker's retry delay included.
const PATIENCE: Duration = Duration::from_secs(60);

/// Plays the demo; with `amqp_url` on that RabbitMQ, under the prefix `herald-demo`. `exit`: ends once the table is printed,
/// otherwise keeps serving until a signal. `Ok(false)`: ledger and journal differ, or an event did not end as the script says.
pub async fn demo(amqp_url: Option<String>, exit: bool) -> anyhow::Result<bool> {
    let topology = stage::topology();
    match amqp_url {
        None => play(Memory::start(&topology), topology, "memory broker", exit).await,
        Some(url) => {
            let (url, instance, role) = (url.into(), "demo".to_owned(), Role::Worker);
            let amqp = Amqp::start(AmqpOptions { url, ca_file: None, instance, topology: topology.clone(), role });
            amqp.ready(Duration::from_secs(15)).await.context("the RabbitMQ given as AMQP_URL")?;
            play(amqp, topology, "RabbitMQ", exit).await
        }
    }
}

async fn play<B: Broker>(
    broker: B,
    topology: crate::broker::topology::Topology,
    name: &str,
    exit: bool,
) -> anyhow::Result<bool> {
    let stop = CancellationToken::new();
    let stage = stage::Stage::set(broker, topology).await?;
    println!("herald demo: {name}, SQLite in {}, sandbox on {}", stage.folder().display(), stage.sandbox_url());
    let worker = tokio::spawn(stage.worker()?.serve(stop.clone()));

    let events = script::events(&stage.run);
    stage.send(&events).await?;
    println!("sent {} messages; the sandbox fails for one of them and refuses another", events.len());
    stage.wait_for_trouble(&events, PATIENCE).await?;
    stage.mend();
    println!("mended the sandbox: what failed is tried again after five seconds");
    stage.wait_for(&events, PATIENCE).await?;
    let replayed = stage.replay(&events).await?;
    println!("replayed the dead letter of `{replayed}`");
    stage.wait_for_replay(&events, PATIENCE).await?;

    let agree = table::print(&stage, &events).await?;
    if !exit {
        println!("\nstill serving (Ctrl-C ends it): send events with the sandbox on {}", stage.sandbox_url());
        tokio::signal::ctrl_c().await?;
    }
    stop.cancel();
    worker.await?.context("the demo's worker")?;
    stage.strike().await;
    Ok(agree)
}
