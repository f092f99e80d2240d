//! What runs beside the events: the heartbeat, the gauges, pruning, and the dead-letter index held against the queue. The
//! receipts have a file of their own.
//!
//! Started by `run`, on the worker's tracker. Never touches an event in hand.

use std::{collections::HashMap, sync::Arc, sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;

use super::{Worker, clock, settle::index_letter};
use crate::{
    broker::{
        Broker, Destination, Message,
        marks::Marks,
        sweep::{self, Verdict},
    },
    domain::{
        event::{Event, Meta, decode, unreadable_identity},
        ledger::Letter,
        outcome::Provider,
    },
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
        tracker.spawn(self.clone().every(GAUGES, async |worker| worker.gauge().await));
        tracker.spawn(self.clone().every(PRUNE, async |worker| worker.prune().await));
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
        let mut pulse = self.state.pulse.lock().expect("no panic while the lock is held");
        pulse.beat(Instant::now(), workers);
        Ok(workers)
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
            let differ = tokio::select! {
                () = self.state.stop.cancelled() => return,
                differ = self.letters_differ() => differ,
            };
            match differ {
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
        let dead = self.topology.dead();
        sweep::sweep(&self.broker, &dead, |delivery| {
            let mut marks = found_marks(&delivery.message);
            if known.get_mut(&key(&found_letter(&delivery.message, &marks))).and_then(Vec::pop).is_some() {
                return Verdict::Keep;
            }
            // Marked as ours are, so that it is known again and stays as long as they do.
            marks.failed_at.get_or_insert_with(clock::now);
            let mut marked = delivery.message.copy().message;
            marks.write(&mut marked);
            unknown.push(found_letter(&marked, &marks));
            Verdict::Replace(Destination::Queue(dead.clone()), marked)
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

/// Names a letter so that index and queue can be compared.
fn key(letter: &Letter) -> String {
    format!("{} {} {}", letter.id, letter.failed_at, letter.replay)
}

/// Returns the marks of a letter found in the queue: herald's own, or what its body and the broker say when it was a fuse or
/// a shovel that put it there.
fn found_marks(message: &Message) -> Marks {
    let mut marks = Marks::of_letter(message);
    if marks.id.is_none() {
        let message_id = message.properties.message_id().as_ref().map(|id| id.to_string());
        // Made from the body, so that the same letter is known again.
        let unnamed = || format!("unreadable-{}", unreadable_identity(&String::from_utf8_lossy(&message.body)));
        marks.id = Some(found_event(message).map(|event| event.id).or(message_id).unwrap_or_else(unnamed));
    }
    if marks.reason.is_none() {
        marks.reason = Some("unknown_origin".into());
    }
    marks
}

/// Returns the index row of a letter found in the queue.
fn found_letter(message: &Message, marks: &Marks) -> Letter {
    let mut letter = index_letter(message, marks, None);
    if let Some(event) = found_event(message) {
        (letter.session_id, letter.partner_id) = (Some(event.session_id), event.partner_id);
        letter.event = Some(event.name);
    }
    letter
}

fn found_event(message: &Message) -> Option<Event> {
    let message_id = message.properties.message_id().as_ref().map(|id| id.as_str());
    decode(&message.body, &Meta { message_id }).ok()
}
