//! `herald run`: connects everything, serves until told to stop, and ends in order.
//!
//! Called by the command line; `serve` also by the demo, with its own parts. A second signal ends the process at once: nothing
//! is lost then either, because nothing was acknowledged that is not durable.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use secrecy::ExposeSecret;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Parts, Settings, State, Worker};
use crate::{
    broker::{
        Broker, BrokerError,
        amqp::{Amqp, AmqpOptions, Role},
        management::Management,
        topology::Topology,
    },
    config::{Config, OnUnknown, UsersUrl},
    domain::{judge::Policy, outcome::Provider},
    http::{self, Api, Readiness},
    provider::{ably::Ably, expo::Expo},
    store::{Store, StoreError, users::Users},
    trace,
};

/// Why `run` ended other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Exit code 78: somebody must change the configuration, credentials or a queue first.
    #[error("{0}")]
    Config(String),
    /// Exit code 1.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

impl<B: Broker> Worker<B> {
    /// Makes a worker; nothing starts before [`Worker::serve`].
    pub fn new(parts: Parts<B>) -> Arc<Self> {
        let Parts { broker, topology, store, users, ably, expo, catalogue, policy, settings, readiness, management } =
            parts;
        let state = State::default();
        Arc::new(Worker {
            broker,
            topology,
            store,
            users,
            ably,
            expo,
            catalogue,
            policy,
            settings,
            readiness,
            management,
            meters: Default::default(),
            state,
        })
    }

    /// Delivers events until `stop`, then finishes what is in hand within the grace period and closes what it opened.
    pub async fn serve(self: Arc<Self>, stop: CancellationToken) -> Result<(), BrokerError> {
        let stopping = self.state.stop.clone();
        self.state.tracker.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => stopping.cancel(),
                () = stopping.cancelled() => {}
            }
        });
        self.start_upkeep();
        for provider in Provider::ALL {
            self.state.tracker.spawn(self.clone().drain_hold(provider));
        }
        let work = async {
            let ended = self.intake().await;
            self.state.stop.cancel();
            // After an orderly stop the grace period is over; otherwise outcomes in hand still reach the ledger.
            if !self.state.tracker.is_closed() {
                self.finish().await;
            }
            ended
        };
        let ended = tokio::select! {
            ended = work => ended,
            never = self.beat_on() => match never {},
        };
        if let Err(error) = self.store.farewell().await {
            tracing::debug!(%error, "the ledger was not told of the end; claims are void in ten seconds");
        }
        self.broker.close().await;
        match self.state.fatal.get() {
            Some(problem) => Err(BrokerError::Config(problem.clone())),
            None => ended,
        }
    }
}

impl Settings {
    /// Takes from the configuration what the stops read.
    pub fn of(config: &Config) -> Settings {
        Settings {
            instance: config.instance.clone(),
            session_channel: config.ably.session_channel.clone(),
            presence_channel: config.ably.presence_channel.clone(),
            retry_unknown: config.presence.on_unknown == OnUnknown::Retry,
            prefetch: config.broker.prefetch,
            retention: config.store.retention,
            dead_retention: config.dead.retention,
            grace: config.shutdown.grace,
            receipts_after: config.receipts.after,
            unregistered_share: config.expo.unregistered_share,
        }
    }
}

/// Runs a worker as `config` says until SIGTERM or SIGINT. Broker and databases that are merely unreachable are waited for.
pub async fn run(config: Config) -> Result<(), RunError> {
    config.complete().map_err(|problems| RunError::Config(problems.to_string()))?;
    let catalogue = config.catalogue.load().map_err(|problems| RunError::Config(problems.to_string()))?;
    let readiness = Readiness::default();
    let (stop, served) = (CancellationToken::new(), CancellationToken::new());
    let pages = TaskTracker::new();
    let api = Api::default();
    http::serve(&config.http, readiness.clone(), Some(api.clone()), served.clone(), &pages)
        .await
        .map_err(RunError::Failed)?;
    let traces =
        trace::start(&config.otlp, &config.instance).map_err(|error| RunError::Config(format!("{error:#}")))?;
    let signals = tokio::spawn(until_signal(stop.clone()));

    let work = async {
        let key = config.ably.key.as_ref().expect("complete() has seen the key");
        let ably = Ably::new(&config.ably, key).map_err(|error| RunError::Config(format!("{error:#}")))?;
        let expo = Expo::new(&config.expo).map_err(|error| RunError::Config(format!("{error:#}")))?;
        let connect = async || Store::open(config.store.url.expose_secret(), &config.instance).await;
        let Some(store) = patiently("the ledger", &readiness, &stop, connect).await? else { return Ok(()) };
        let users = match &config.users.url {
            UsersUrl::Url(url) => {
                let connect = async || Users::open(url, &config.users.query, &config.users.clear).await;
                let Some(users) = patiently("the users database", &readiness, &stop, connect).await? else {
                    return Ok(());
                };
                Some(users)
            }
            UsersUrl::None | UsersUrl::Missing => None,
        };
        let topology = Topology {
            prefix: config.broker.prefix.clone(),
            schedule: config.retry.schedule.clone(),
            dead_retention: config.dead.retention,
        };
        let management = match &config.broker.management_url {
            Some(url) => {
                Some(Management::new(url, &config.broker.url).map_err(|error| RunError::Config(error.to_string()))?)
            }
            None => None,
        };
        let options = AmqpOptions {
            url: config.broker.url.clone(),
            ca_file: config.broker.ca_file.clone(),
            instance: config.instance.clone(),
            topology: topology.clone(),
            role: Role::Worker,
        };
        let worker = Worker::new(Parts {
            broker: Amqp::start(options),
            topology,
            store,
            users,
            ably,
            expo,
            catalogue,
            policy: Policy { schedule: config.retry.schedule.clone(), unknown_repeats: config.expo.unknown_repeats },
            settings: Settings::of(&config),
            readiness: readiness.clone(),
            management,
        });
        api.open(worker.desk());
        worker.serve(stop.clone()).await.map_err(|error| match error {
            BrokerError::Config(problem) => RunError::Config(problem),
            other => RunError::Failed(other.into()),
        })
    };
    let ended = work.await;
    stop.cancel();
    signals.abort();
    // Last, so that readiness and metrics can be read while the worker drains.
    served.cancel();
    pages.close();
    let pages = tokio::time::timeout(Duration::from_secs(3), pages.wait());
    let _ = tokio::join!(pages, async {
        if let Some(traces) = traces {
            traces.finish().await;
        }
    });
    ended
}

/// Connects a database, trying for as long as it is merely unreachable; `None` when told to stop meanwhile.
pub(crate) async fn patiently<T>(
    what: &str,
    readiness: &Readiness,
    stop: &CancellationToken,
    connect: impl AsyncFn() -> Result<T, StoreError>,
) -> Result<Option<T>, RunError> {
    let mut pause = Duration::from_millis(250);
    let mut said: Option<Instant> = None;
    loop {
        let connected = tokio::select! {
            () = stop.cancelled() => return Ok(None),
            connected = connect() => connected,
        };
        match connected {
            Ok(connected) => return Ok(Some(connected)),
            Err(StoreError::Unavailable(problem)) => {
                readiness.not_ready(&format!("{what} is away: {problem}"));
                if said.is_none_or(|at| at.elapsed() >= Duration::from_secs(60)) {
                    tracing::warn!(problem, "{what} cannot be reached; trying again");
                    said = Some(Instant::now());
                }
            }
            Err(StoreError::Config(problem) | StoreError::Data(problem)) => return Err(RunError::Config(problem)),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(10)),
        }
    }
}

/// Cancels `stop` at the first SIGTERM or SIGINT; at the second the process ends at once with 128 + the signal's number.
pub(crate) async fn until_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be listened for; stop the process with SIGKILL, nothing is lost then either");
        return;
    };
    let mut next = async || {
        tokio::select! {
            _ = terminate.recv() => 15,
            _ = interrupt.recv() => 2,
        }
    };
    let signal = next().await;
    tracing::info!(signal, "stopping: finishing what is in hand; a second signal ends at once");
    stop.cancel();
    std::process::exit(128 + next().await);
}
