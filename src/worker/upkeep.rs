//! What runs beside the events: the heartbeat, the gauges, pruning, and the dead-letter index held against the queue. The
//! receipts have a file of their own.
//!
//! Started by `run`, on the worker's tracker. Never touches an event in hand.

use std::{collections::HashMap, sync::Arc, sync::atomic::Ordering, time::Duration};

use super::{Worker, settle::index_letter};
use crate::{
    broker::{
        Broker, Message,
        marks::Marks,
        sweep::{self, Verdict},
    },
    domain::{ledger::Letter, outcome::Provider},
    store::{LetterFilter, StoreError},
};

/// A worker that is silent for ten seconds is taken for dead, so it speaks every two.
const HEARTBEAT: Duration = Duration::from_secs(2);
const GAUGES: Duration = Duration::from_secs(5);
const PRUNE: Duration = Duration::from_secs(600);
const RECONCILE: Duration = Duration::from_secs(60);

impl<B: Broker> Worker<B> {
    /// Starts everything that runs beside the events.
    pub(super) fn start_upkeep(self: &Arc<Self>) {
        let tracker = &self.state.tracker;
        tracker.spawn(self.clone().every(HEARTBEAT, async |worker| worker.beat().await));
        tracker.spawn(self.clone().every(GAUGES, async |worker| worker.gauge().await));
        tracker.spawn(self.clone().every(PRUNE, async |worker| worker.prune().await));
        tracker.spawn(self.clone().reconcile_letters());
        tracker.spawn(self.clone().read_receipts());
    }

    async fn beat(&self) {
        match self.store.heartbeat().await {
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

    async fn gauge(&self) {
        metrics::gauge!("herald_in_flight").set(self.state.in_flight.load(Ordering::Relaxed) as f64);
        metrics::gauge!("herald_lanes").set(self.state.lanes.len() as f64);
        metrics::gauge!("herald_broker_connected").set(f64::from(u8::from(self.broker.connected())));
        for provider in Provider::ALL {
            let waiting = self.waiting(provider).load(Ordering::Relaxed);
            metrics::gauge!("herald_provider_waiting", "provider" => provider.as_str()).set(waiting as f64);
        }
        for (gate, provider) in [(self.ably.gate(), Provider::Ably), (self.expo.gate(), Provider::Expo)] {
            let open = gate.state().shut.is_none();
            metrics::gauge!("herald_provider_open", "provider" => provider.as_str()).set(f64::from(u8::from(open)));
        }
        for queue in self.topology.queues().into_iter().map(|queue| queue.name) {
            if let Ok(depth) = self.broker.depth(&queue).await {
                metrics::gauge!("herald_queue_ready", "queue" => queue).set(depth.ready as f64);
            }
        }
        if let Ok(books) = self.store.books().await {
            metrics::gauge!("herald_books", "state" => "received").set(books.received as f64);
            metrics::gauge!("herald_books", "state" => "waiting").set(books.waiting as f64);
            for (state, by) in [("done", &books.done), ("skipped", &books.skipped), ("dead", &books.dead)] {
                metrics::gauge!("herald_books", "state" => state).set(by.values().sum::<i64>() as f64);
            }
            metrics::gauge!("herald_books_closed").set(f64::from(u8::from(books.closed())));
        }
    }

    async fn prune(&self) {
        match self.store.prune(self.settings.retention, self.settings.dead_retention).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "pruned what is past its retention"),
            Err(error) => tracing::warn!(%error, "pruning failed; it is tried again"),
        }
    }

    /// Compares the index with the dead-letter queue and, when they differ twice in a row, reads the queue once.
    async fn reconcile_letters(self: Arc<Self>) {
        let mut differed = true;
        loop {
            match self.letters_differ().await {
                Ok(true) if differed => {
                    if let Err(error) = self.read_letters().await {
                        tracing::warn!(%error, "the dead-letter queue could not be read into the index; it is tried again");
                    }
                    differed = false;
                }
                Ok(now) => differed = now,
                Err(error) => tracing::debug!(%error, "dead letters could not be counted"),
            }
            tokio::select! {
                () = self.state.stop.cancelled() => return,
                () = tokio::time::sleep(RECONCILE) => {}
            }
        }
    }

    async fn letters_differ(&self) -> anyhow::Result<bool> {
        let depth = self.broker.depth(&self.topology.dead()).await?;
        Ok(depth.ready != u64::try_from(self.store.letter_count(&LetterFilter::default()).await?).unwrap_or(0))
    }

    /// Reads the dead-letter queue once: letters the index does not know are added, those that are gone end as removed.
    async fn read_letters(&self) -> anyhow::Result<()> {
        let mut known: HashMap<String, Vec<i64>> = HashMap::new();
        let mut page = LetterFilter::default();
        loop {
            let letters = self.store.letters(&page).await?;
            let Some(last) = letters.last() else { break };
            page.below = Some(last.number);
            letters.iter().for_each(|letter| known.entry(key(letter)).or_default().push(letter.number));
        }
        let mut unknown = Vec::new();
        sweep::sweep(&self.broker, &self.topology.dead(), |delivery| {
            let letter = found_letter(&delivery.message);
            match known.get_mut(&key(&letter)).and_then(Vec::pop) {
                Some(_) => {}
                None => unknown.push(letter),
            }
            Verdict::Keep
        })
        .await?;
        let gone: Vec<i64> = known.into_values().flatten().collect();
        if !unknown.is_empty() || !gone.is_empty() {
            tracing::warn!(
                added = unknown.len(),
                removed = gone.len(),
                "the dead-letter queue was changed by others; the index follows"
            );
        }
        self.store.add_letters(unknown).await?;
        self.store.end_letters(&gone, "removed").await?;
        Ok(())
    }

    async fn every<F>(self: Arc<Self>, period: Duration, act: F)
    where
        F: AsyncFn(&Self),
    {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.state.stop.cancelled() => return,
                _ = ticks.tick() => act(&self).await,
            }
        }
    }
}

/// Names a letter so that index and queue can be compared.
fn key(letter: &Letter) -> String {
    format!("{} {} {}", letter.id, letter.failed_at, letter.replay)
}

/// Returns the index row of a letter found in the queue: by herald's marks, or by what the broker wrote when it was a fuse or a
/// shovel that put it there.
fn found_letter(message: &Message) -> Letter {
    let mut marks = Marks::read(message);
    if marks.id.is_none() {
        marks.id = message.properties.message_id().as_ref().map(|id| id.to_string());
    }
    if marks.reason.is_none() {
        marks.reason = Some(crate::broker::headers::death_reason(message).unwrap_or_else(|| "unknown_origin".into()));
    }
    index_letter(message, &marks, None)
}
