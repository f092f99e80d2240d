//! The worker's side of the operator's desk: what it hands over when it opens one.
//!
//! Called once, by `run`.

use std::sync::Arc;

use super::Worker;
use crate::{
    broker::Broker,
    desk::{Desk, Parts},
};

impl<B: Broker> Worker<B> {
    /// Returns the desk of this worker.
    pub fn desk(&self) -> Desk<B> {
        Desk::new(Parts {
            instance: self.settings.instance.clone(),
            broker: self.broker.clone(),
            topology: self.topology.clone(),
            store: self.store.clone(),
            users: self.users.is_some(),
            gates: [Arc::clone(self.ably.gate()), Arc::clone(self.expo.gate())],
            readiness: self.readiness.clone(),
            waiting: Arc::clone(&self.state.waiting),
            prefetch: self.settings.prefetch,
            managed: self.management.is_some(),
            retention: self.settings.retention,
            receipts_after: self.settings.receipts_after,
            live: Arc::clone(&self.state.live),
            board: Arc::clone(&self.state.board),
            trouble: self.state.trouble.watch(),
            sweeps: Default::default(),
            tracker: self.state.tracker.clone(),
            stop: self.state.stop.clone(),
        })
    }
}
