//! The supervisor: keeps one connection alive, epoch after epoch.
//!
//! Started by [`Amqp`](super::Amqp), one for consuming and one for publishing. lapin's own recovery is not used: it can hang
//! without an error in three ways. Here every end of a session, whatever the cause, leads to a new one after a jittered
//! pause; nobody else reconnects.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff};
use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{session::Session, topology, url::Address};
use crate::broker::{BrokerError, topology::Topology};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A session that lived this long was a good one: after it the pauses start small again.
const GOOD_SESSION: Duration = Duration::from_secs(10);
/// While the broker is away it is said this often.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Where the connection stands.
#[derive(Clone)]
enum State {
    /// Being connected; the last thing that went wrong.
    Away(String),
    Up(Arc<Session>),
    /// Waiting is of no use: the first connection failed for what somebody must change first.
    Failed(BrokerError),
    Closed,
}

/// A supervised connection.
pub(super) struct Link {
    state: watch::Sender<State>,
}

/// What the supervisor needs to know to connect.
pub(super) struct Plan {
    pub address: Result<Address, BrokerError>,
    pub name: String,
    /// Set up on each new connection before anybody uses it.
    pub topology: Option<Topology>,
    /// Held meanwhile: two connections declaring the same missing queue would only get in each other's way.
    pub set_up: Arc<Mutex<()>>,
}

impl Link {
    pub(super) fn new() -> Arc<Link> {
        Arc::new(Link { state: watch::Sender::new(State::Away("not connected yet".to_owned())) })
    }

    /// Tells whether the connection stands.
    pub(super) fn up(&self) -> bool {
        matches!(&*self.state.borrow(), State::Up(session) if session.stands())
    }

    /// Waits for a session that stands, as long as it takes.
    pub(super) async fn session(&self) -> Result<Arc<Session>, BrokerError> {
        let mut state = self.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                State::Up(session) if session.stands() => return Ok(Arc::clone(session)),
                State::Failed(error) => return Err(error.clone()),
                State::Closed => return Err(BrokerError::Unavailable("closed".to_owned())),
                State::Up(_) | State::Away(_) => {}
            }
            if state.changed().await.is_err() {
                return Err(BrokerError::Unavailable("closed".to_owned()));
            }
        }
    }

    /// Waits for a session that stands, for at most `patience`.
    pub(super) async fn session_within(&self, patience: Duration) -> Result<Arc<Session>, BrokerError> {
        timeout(patience, self.session()).await.unwrap_or_else(|_| {
            let why = match &*self.state.borrow() {
                State::Away(why) => why.clone(),
                _ => "no connection".to_owned(),
            };
            Err(BrokerError::Unavailable(why))
        })
    }

    /// Keeps the connection until `stop`, or until its first attempt shows that waiting is of no use.
    pub(super) async fn supervise(self: Arc<Self>, plan: Plan, stop: CancellationToken) {
        let last = tokio::select! {
            failed = self.keep(&plan) => State::Failed(failed),
            () = stop.cancelled() => State::Closed,
        };
        let before = self.state.send_replace(last);
        if let State::Up(session) = before {
            session.close().await;
        }
    }

    /// Connects again and again; returns only the error that makes the first connection impossible.
    async fn keep(&self, plan: &Plan) -> BrokerError {
        let mut pauses = pauses();
        let mut complaint = Complaint::default();
        let mut ever = false;
        loop {
            match open(plan).await {
                Ok(session) => {
                    ever = true;
                    complaint.over(&plan.name);
                    let (session, since) = (Arc::new(session), Instant::now());
                    self.state.send_replace(State::Up(Arc::clone(&session)));
                    let why = session.watch().await;
                    tracing::warn!(connection = plan.name, why, "broker connection lost, connecting again");
                    self.state.send_replace(State::Away(why));
                    session.close().await;
                    if since.elapsed() >= GOOD_SESSION {
                        pauses.reset();
                    }
                }
                Err(error @ BrokerError::Config(_)) if !ever => return error,
                Err(error) => {
                    let why = match error {
                        BrokerError::Unavailable(why) => why,
                        other => other.to_string(),
                    };
                    complaint.say(&plan.name, &why);
                    self.state.send_replace(State::Away(why));
                }
            }
            tokio::time::sleep(pauses.next_backoff().unwrap_or(LONGEST_PAUSE)).await;
        }
    }
}

async fn open(plan: &Plan) -> Result<Session, BrokerError> {
    let address = plan.address.as_ref().map_err(Clone::clone)?;
    let session = Session::open(address, &plan.name).await?;
    if let Some(topology) = &plan.topology {
        let _turn = plan.set_up.lock().await;
        topology::set_up(&session, topology).await?;
    }
    Ok(session)
}

/// Jittered pauses from 0.2 s to 10 s that never end.
fn pauses() -> ExponentialBackoff {
    ExponentialBackoffBuilder::new()
        .with_initial_interval(FIRST_PAUSE)
        .with_max_interval(LONGEST_PAUSE)
        .with_multiplier(2.0)
        .with_max_elapsed_time(None)
        .build()
}

/// Says that the broker is away, once a minute instead of at every attempt.
#[derive(Default)]
struct Complaint {
    since: Option<Instant>,
    said: Option<Instant>,
}

impl Complaint {
    fn say(&mut self, connection: &str, why: &str) {
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.said.is_none_or(|said| said.elapsed() >= LOG_INTERVAL) {
            self.said = Some(Instant::now());
            let seconds = since.elapsed().as_secs();
            tracing::warn!(connection, away_seconds = seconds, why, "broker unreachable, trying on");
        }
    }

    fn over(&mut self, connection: &str) {
        let away_seconds = self.since.map_or(0, |since| since.elapsed().as_secs());
        tracing::info!(connection, away_seconds, "broker connected");
        *self = Complaint::default();
    }
}
