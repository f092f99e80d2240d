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
    /// Shared by the connections to one broker, so that its absence is told once.
    pub complaint: Arc<std::sync::Mutex<Complaint>>,
}

impl Link {
    pub(super) fn new() -> Arc<Link> {
        Arc::new(Link { state: watch::Sender::new(State::Away("not connected yet".to_owned())) })
    }

    /// Tells why the connection does not stand, or `None` while it does.
    pub(super) fn trouble(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Up(session) if session.stands() => None,
            State::Up(_) => Some("the connection is gone".to_owned()),
            State::Away(why) => Some(why.clone()),
            State::Failed(error) => Some(error.to_string()),
            State::Closed => Some("closed".to_owned()),
        }
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
        let complaint = || plan.complaint.lock().expect("no panic while the lock is held");
        let mut ever = false;
        loop {
            match open(plan).await {
                Ok(session) => {
                    ever = true;
                    complaint().over(&plan.name);
                    let (session, since) = (Arc::new(session), Instant::now());
                    self.state.send_replace(State::Up(Arc::clone(&session)));
                    let why = session.watch().await;
                    metrics::counter!("herald_reconnects_total", "of" => "connection").increment(1);
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
                    complaint().say(&plan.name, &why);
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

/// Says that something is away, once a minute instead of at every attempt.
#[derive(Default)]
pub(crate) struct Complaint {
    since: Option<Instant>,
    said: Option<Instant>,
}

impl Complaint {
    fn say(&mut self, connection: &str, why: &str) {
        if let Some(away) = self.due(Instant::now()) {
            tracing::warn!(connection, away_seconds = away.as_secs(), why, "broker unreachable, trying on");
        }
    }

    /// Returns how long it has been away, when it is time to say so.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        let due = self.said.is_none_or(|said| now - said >= LOG_INTERVAL);
        due.then(|| {
            self.said = Some(now);
            now - since
        })
    }

    fn over(&mut self, connection: &str) {
        let away_seconds = self.since.map_or(0, |since| since.elapsed().as_secs());
        tracing::info!(connection, away_seconds, "broker connected");
        *self = Complaint::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_ten_seconds_and_never_end() {
        let mut pauses = pauses();
        let all: Vec<Duration> = (0..500).map_while(|_| pauses.next_backoff()).collect();
        assert_eq!(all.len(), 500);
        // Jitter is half the pause in either direction.
        assert!(all[0] >= FIRST_PAUSE / 2 && all[0] <= FIRST_PAUSE * 3 / 2, "{:?}", all[0]);
        assert!(all[20..].iter().all(|pause| (LONGEST_PAUSE / 2..=LONGEST_PAUSE * 3 / 2).contains(pause)));
        assert!(all[20..].iter().any(|pause| *pause != all[20]), "no jitter");
    }

    #[test]
    fn an_absent_broker_is_one_line_a_minute() {
        let (mut complaint, start) = (Complaint::default(), Instant::now());
        let said = (0..150).filter_map(|second| complaint.due(start + Duration::from_secs(second)));
        assert_eq!(said.map(|away| away.as_secs()).collect::<Vec<_>>(), [0, 60, 120]);
        complaint.over("test");
        assert_eq!(complaint.due(start + Duration::from_secs(151)), Some(Duration::ZERO));
    }
}
