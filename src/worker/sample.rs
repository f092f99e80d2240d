//! A look at the queues and the ledger every few seconds, for the board that the page reads.
//!
//! Runs on the worker's tracker, beside the events. What does not answer within its own bounds is not known, never 0, and nothing
//! waits for it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Worker, clock};
use crate::{
    broker::{Broker, management::QueueStats, topology::Role},
    desk::{
        board::{Ledger, QueueState, Sample},
        live::Source,
        status::away,
    },
    domain::{explain::OVERDUE, ledger::Books, outcome::Provider},
    store::{LetterFilter, StoreError},
};

const LOOK: Duration = Duration::from_secs(5);
/// The ledger is being counted at most a tenth of the time: ten million rows take seconds.
const REST: u32 = 9;
/// Dead letters that failed within this time are growing dead letters, as for `herald status`.
const FRESH: Duration = Duration::from_secs(600);

/// The books as counted last, and when they may be counted again.
type Counted = Option<(Books, Instant)>;

impl<B: Broker> Worker<B> {
    /// Looks every five seconds until told to stop.
    pub(super) async fn watch_queues(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut counted = None;
        loop {
            tokio::select! {
                () = self.state.stop.cancelled() => return,
                () = async {
                    ticks.tick().await;
                    self.look(&mut counted).await;
                } => {}
            }
        }
    }

    async fn look(&self, counted: &mut Counted) {
        let (mut stats, management) = self.managed().await;
        let now = clock::now_ms();
        let ledger = self.ledger(now, counted).await.map_err(|error| crate::domain::redact(&error.to_string()));
        let trouble = self.state.trouble.watch().borrow().clone();
        // Since when is known whether anybody looks at the page or not.
        let said = ledger.as_ref().err().map(String::as_str);
        for (name, why) in away(self.broker.trouble(), trouble.as_deref(), said) {
            self.state.board.see(name, why.is_some(), now);
        }
        let mut queues = Vec::new();
        for queue in self.topology.queues().into_iter().map(|queue| queue.name) {
            // Without a connection each would wait for one.
            let depth = if self.broker.connected() { self.broker.depth(&queue).await.ok() } else { None };
            let stats = stats.remove(&queue).unwrap_or_default();
            let role = self.topology.role(&queue);
            let in_hand =
                matches!(role, Role::Events | Role::Hold).then(|| self.state.live.in_hand(self.source(&queue)));
            let oldest = ledger.as_ref().ok().and_then(|ledger| ledger.oldest.get(&queue).copied());
            queues.push(QueueState { oldest, ..QueueState::new(queue, role, depth, stats, in_hand) });
        }
        let (totals, managed) = (self.state.live.totals(), self.management.is_some());
        self.state.board.put(Sample { at: clock::now_ms(), queues, ledger, totals, managed, management });
    }

    async fn ledger(&self, now: i64, counted: &mut Counted) -> Result<Ledger, StoreError> {
        let mut oldest = BTreeMap::new();
        let workers = self.store.workers().await?;
        // Whoever saw the youngest event leave bounds the age of the oldest that is left.
        if let Some(head_after) = workers.iter().filter_map(|worker| worker.head_after).max() {
            oldest.insert(self.topology.events(), head_after);
        }
        let waiting = self.store.waiting(now.saturating_sub(OVERDUE)).await?;
        let overdue = waiting.iter().map(|row| row.overdue).sum();
        oldest.extend(waiting.into_iter().filter_map(|row| Some((row.queue?, row.oldest))));
        let groups = self.store.letter_groups(&LetterFilter::default()).await?;
        oldest.extend(groups.iter().map(|group| group.oldest).min().map(|first| (self.topology.dead(), first)));
        let fresh = now.saturating_sub(FRESH.as_millis() as i64);
        let fresh = LetterFilter { failed_after: Some(fresh), ..LetterFilter::default() };
        Ok(Ledger {
            workers: workers.into_iter().map(|worker| worker.instance).collect(),
            overdue,
            fresh_letters: self.store.letter_count(&fresh).await?,
            oldest,
            steering: self.store.steering().await?,
            books: self.counted(counted).await?,
        })
    }

    async fn counted(&self, counted: &mut Counted) -> Result<Books, StoreError> {
        if let Some((books, again)) = counted
            && Instant::now() < *again
        {
            return Ok(books.clone());
        }
        let begun = Instant::now();
        let books = self.store.books().await?;
        *counted = Some((books.clone(), Instant::now() + begun.elapsed() * REST));
        Ok(books)
    }

    async fn managed(&self) -> (BTreeMap<String, QueueStats>, Option<String>) {
        let Some(management) = &self.management else { return Default::default() };
        match management.queues(&self.topology.prefix).await {
            Ok(stats) => (stats, None),
            Err(error) => (BTreeMap::new(), Some(crate::domain::redact(&error.to_string()))),
        }
    }

    /// Returns which of the queues that are consumed `queue` is.
    pub(super) fn source(&self, queue: &str) -> Source {
        let held = Provider::ALL.into_iter().find(|provider| queue == self.topology.hold(*provider));
        held.map_or(Source::Events, Source::Hold)
    }
}
