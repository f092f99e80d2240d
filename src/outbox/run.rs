//! `herald outbox`: connects, relays until told to stop, and ends in order.
//!
//! Called by the command line. A database or broker that is merely away is waited for.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::relay::Relay;
use crate::{
    broker::{
        Broker,
        amqp::{Amqp, AmqpOptions, Role},
        topology::Topology,
    },
    config::{Config, UsersUrl},
    http::{self, Readiness},
    store::{StoreError, outbox::Outbox},
    worker::{RunError, patiently, until_signal},
};

/// Opens the table that `config` names.
pub async fn open(config: &Config) -> Result<Outbox, StoreError> {
    let (url, key) = match (&config.outbox.url, &config.users.url) {
        (Some(url), _) => (url, "outbox.url"),
        (None, UsersUrl::Url(url)) => (url, "users.url"),
        (None, UsersUrl::Missing | UsersUrl::None) => {
            return Err(StoreError::Config(
                "outbox.url (HERALD_OUTBOX__URL): not set, and neither is users.url (DATABASE_URL); put the URL of the \
                 PostgreSQL there in which the backend writes its outbox"
                    .to_owned(),
            ));
        }
    };
    Outbox::open(url, key, &config.outbox.table).await
}

/// Relays as `config` says until SIGTERM or SIGINT.
pub async fn run(config: Config) -> Result<(), RunError> {
    let readiness = Readiness::default();
    let (stop, served) = (CancellationToken::new(), CancellationToken::new());
    let pages = TaskTracker::new();
    http::serve(&config.http, readiness.clone(), None, served.clone(), &pages).await.map_err(RunError::Failed)?;
    let signals = tokio::spawn(until_signal(stop.clone()));
    let ended = relay(config, &readiness, &stop).await;
    readiness.not_ready("stopped");
    stop.cancel();
    signals.abort();
    served.cancel();
    pages.close();
    let _ = tokio::time::timeout(Duration::from_secs(3), pages.wait()).await;
    ended
}

async fn relay(config: Config, readiness: &Readiness, stop: &CancellationToken) -> Result<(), RunError> {
    let connect = async || open(&config).await;
    let Some(outbox) = patiently("the outbox's database", readiness, stop, connect).await? else { return Ok(()) };
    if !outbox.notifies() {
        tracing::warn!(
            poll_ms = config.outbox.poll.as_millis(),
            "{} has no trigger herald_outbox_notify: rows are found by polling only; config/outbox/herald_outbox.sql has it",
            outbox.name()
        );
    }
    let topology = Topology {
        prefix: config.broker.prefix.clone(),
        schedule: config.retry.schedule.clone(),
        dead_retention: config.dead.retention,
    };
    let exchange = topology.events();
    let broker = Amqp::start(AmqpOptions {
        url: config.broker.url.clone(),
        ca_file: config.broker.ca_file.clone(),
        instance: format!("{} outbox", config.instance),
        topology,
        role: Role::Command,
    });
    tracing::info!(table = outbox.name(), exchange, "relaying");
    let relay = Arc::new(Relay {
        outbox,
        broker,
        exchange,
        settings: config.outbox.clone(),
        readiness: readiness.clone(),
        wake: Arc::new(Notify::new()),
        stop: stop.clone(),
    });
    let beside = TaskTracker::new();
    for task in [Beside::Listen, Beside::Gauge, Beside::Prune] {
        let (relay, stop) = (relay.clone(), stop.clone());
        beside.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                never = async {
                    match task {
                        Beside::Listen => relay.listen().await,
                        Beside::Gauge => relay.gauge().await,
                        Beside::Prune => relay.prune().await,
                    }
                } => match never {},
            }
        });
    }
    let ended = tokio::select! {
        ended = relay.serve() => ended.map_err(RunError::Config),
        () = async {
            stop.cancelled().await;
            tokio::time::sleep(config.shutdown.grace).await;
        } => {
            tracing::warn!("the round in hand is given up: its rows stay, and what was confirmed of it will be repeated");
            Ok(())
        }
    };
    stop.cancel();
    beside.close();
    beside.wait().await;
    relay.broker.close().await;
    relay.outbox.close().await;
    ended
}

/// What runs beside the rounds.
#[derive(Clone, Copy)]
enum Beside {
    Listen,
    Gauge,
    Prune,
}
