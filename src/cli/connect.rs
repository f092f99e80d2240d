//! Connections of the commands: short-lived, beside a running worker, never in its place.

use std::time::Duration;

use secrecy::ExposeSecret;

use crate::{
    broker::{
        Broker, Topology,
        amqp::{Amqp, AmqpOptions, Role},
    },
    config::Config,
    store::Store,
};

use super::stop::Stop;

/// How long a command waits for the broker.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Returns the queues of `config`, as data.
pub(super) fn topology(config: &Config) -> Topology {
    Topology {
        prefix: config.broker.prefix.clone(),
        schedule: config.retry.schedule.clone(),
        dead_retention: config.dead.retention,
    }
}

/// Starts connecting; for a command that must tell apart why it does not work.
pub(super) fn start_broker(config: &Config, role: Role) -> Amqp {
    Amqp::start(AmqpOptions {
        url: config.broker.url.clone(),
        ca_file: config.broker.ca_file.clone(),
        instance: config.instance.clone(),
        topology: topology(config),
        role,
    })
}

/// Connects to the broker.
pub(super) async fn broker(config: &Config, role: Role) -> Result<Amqp, Stop> {
    let broker = start_broker(config, role);
    broker.ready(PATIENCE).await?;
    Ok(broker)
}

/// Connects to the ledger without being a worker.
pub(super) async fn store(config: &Config) -> Result<Store, Stop> {
    Ok(Store::connect(config.store.url.expose_secret()).await?)
}
