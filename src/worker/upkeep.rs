//! What runs beside the events: the heartbeat and pruning. Looks, gauges, receipts and dead letters have files of their own.
//!
//! Started by `run`, on the worker's tracker. Never touches an event in hand.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::Worker;
use crate::{broker::Broker, store::StoreError};

/// A worker that is silent for ten seconds is taken for dead, so it speaks every two.
const HEARTBEAT: Duration = Duration::from_secs(2);
const PRUNE: Duration = Duration::from_secs(600);

impl<B: Broker> Worker<B> {
    /// Starts everything that runs beside the events.
    pub(super) fn start_upkeep(self: &Arc<Self>) {
        let tracker = &self.state.tracker;
        self.start_gauges();
        self.start_looking();
        tracker.spawn(self.clone().every(PRUNE, async |worker| worker.prune().await));
        tracker.spawn(self.clone().obey_operators());
        tracker.spawn(self.clone().reconcile_letters());
        tracker.spawn(self.clone().read_receipts());
    }

    /// Speaks for as long as it is polled: until the last outcome is written, or the others would take us for dead while we
    /// finish what is in hand.
    pub(super) async fn beat_on(&self) -> std::convert::Infallible {
        let mut ticks = tokio::time::interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.beat().await;
        }
    }

    async fn beat(&self) {
        match self.heartbeat().await {
            Ok(workers) => self.expo.share_rate(workers.max(1)),
            // Another worker bears our name, or shares our SQLite file: two of them would undo each other's claims.
            Err(StoreError::Config(problem)) => {
                tracing::error!(problem, "this worker cannot go on");
                let _ = self.state.fatal.set(problem);
                self.state.stop.cancel();
            }
            Err(error) => {
                self.database_away("store.url", &error);
            }
        }
    }

    /// Lets the ledger hear of us, and returns how many workers live.
    pub(super) async fn heartbeat(&self) -> Result<u32, StoreError> {
        let workers = self.store.heartbeat().await?;
        metrics::gauge!("herald_workers").set(f64::from(workers));
        let mut pulse = self.state.pulse.lock().expect("no panic while the lock is held");
        pulse.beat(Instant::now(), workers);
        Ok(workers)
    }

    async fn prune(&self) {
        match self.store.prune(self.settings.retention, self.settings.dead_retention).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "pruned what is past its retention"),
            Err(error) => tracing::warn!(%error, "pruning failed; it is tried again"),
        }
    }

    pub(super) async fn every<F>(self: Arc<Self>, period: Duration, act: F)
    where
        F: AsyncFn(&Self),
    {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Nothing here is worth waiting for at the end: a broker or database that is away would use the grace period up.
            tokio::select! {
                () = self.state.stop.cancelled() => return,
                () = async {
                    ticks.tick().await;
                    act(&self).await;
                } => {}
            }
        }
    }
}
