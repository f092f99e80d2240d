//! The operator's desk: what a running worker tells of itself, and what is done on an operator's word.
//!
//! Fed by `worker`, read and used by `http` (the page and its API). What it tells at a glance is in memory, and the path of an
//! event never waits for the desk. What it does is what the commands do, by the same code, and stands in the same record.

pub mod live;
pub mod history;
pub mod board;
pub mod status;
pub mod trouble;
pub mod letter;
pub mod preview;
pub mod sweeps;

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker::{Broker, Topology},
    domain::{
        explain::{About, Answer, Find, answer},
        steering::{Change, Steering},
    },
    http::Readiness,
    provider::gate::Gate,
    store::{Store, StoreError},
};

use board::Board;
use live::Live;
use sweeps::Sweeps;

/// One worker's desk. A handle: clones share everything.
pub struct Desk<B>(Arc<Parts<B>>);

impl<B> Clone for Desk<B> {
    fn clone(&self) -> Self {
        Desk(Arc::clone(&self.0))
    }
}

/// What a desk is made of.
pub struct Parts<B> {
    pub instance: String,
    pub broker: B,
    pub topology: Topology,
    pub store: Store,
    /// Whether there is a users database.
    pub users: bool,
    pub gates: [Arc<Gate>; 2],
    /// Events that wait for each of them.
    pub waiting: Arc<[AtomicUsize; 2]>,
    pub readiness: Readiness,
    pub prefetch: u16,
    /// Whether the management API is configured.
    pub managed: bool,
    pub retention: Duration,
    pub receipts_after: Duration,
    pub live: Arc<Live>,
    pub board: Arc<Board>,
    /// What is wrong with a database.
    pub trouble: watch::Receiver<Option<String>>,
    pub sweeps: Sweeps,
    pub tracker: TaskTracker,
    pub stop: CancellationToken,
}

impl<B: Broker> Desk<B> {
    /// Makes the desk of a worker.
    pub fn new(parts: Parts<B>) -> Desk<B> {
        Desk(Arc::new(parts))
    }

    /// Returns the ledger, to be read.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Explains what became of events, at most `limit`, at `now` in milliseconds since the epoch.
    pub async fn explain(&self, question: &Find, limit: u32, now: i64) -> Result<Answer, StoreError> {
        let Parts { store, topology, retention, receipts_after, .. } = &*self.0;
        let findings = store.findings(question, limit).await?;
        let (events, dead) = (topology.events(), topology.dead());
        let about = About {
            now,
            events: &events,
            dead: &dead,
            schedule: &topology.schedule,
            retention: *retention,
            receipts_after: *receipts_after,
        };
        Ok(answer(question, findings, &about))
    }

    /// Sets what an operator wants, for all workers, and returns how everything stands now.
    pub async fn steer(&self, change: &Change, who: &str, why: Option<&str>) -> Result<Steering, StoreError> {
        let steered = self.0.store.steer(change, who, why).await?;
        self.0.board.steered(&steered.steering);
        Ok(steered.steering)
    }
}
