//! Looking once: at the broker, the management API and the ledger, each bounded, none waiting for another's absence twice.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    broker::{
        Broker, BrokerError, Topology,
        amqp::{Amqp, Role},
        management::{Management, QueueStats},
    },
    cli::{connect, stop::Stop},
    config::Config,
    domain::{explain::OVERDUE, ledger::Books, symptoms::Limits},
    store::{LetterFilter, Store, StoreError},
};

use super::{Oldest, Row, Seen, now, row};

/// The ledger is being counted at most a tenth of the time: ten million rows take seconds.
const REST: u32 = 9;

/// What is looked with; connections are kept from one look to the next.
pub(super) struct Look<'a> {
    config: &'a Config,
    limits: Limits,
    topology: Topology,
    broker: Amqp,
    store: Option<Store>,
    /// The books as counted last, and when they may be counted again.
    books: Option<(Books, Instant)>,
}

impl<'a> Look<'a> {
    pub(super) fn new(config: &'a Config, limits: Limits) -> Self {
        let broker = connect::start_broker(config, Role::Inspect);
        Look { config, limits, topology: connect::topology(config), broker, store: None, books: None }
    }

    /// Looks at everything, and says what is wrong with it.
    pub(super) async fn once(&mut self, patience: Duration) -> Seen {
        let mut seen = Seen { at: now(), events: self.topology.events(), ..Seen::default() };
        let mut oldest = Oldest::new();
        let store_away = self.ledger(&mut seen, &mut oldest).await.err();
        let broker_away = match self.queues(&oldest, patience).await {
            Ok(rows) => {
                seen.queues = Some(rows);
                None
            }
            Err(stop) => Some(stop),
        };
        seen.away = [broker_away, store_away];
        seen.judge(&self.limits);
        seen
    }

    pub(super) async fn end(&self) {
        self.broker.close().await;
    }

    async fn ledger(&mut self, seen: &mut Seen, oldest: &mut Oldest) -> Result<(), Stop> {
        let store = match &self.store {
            Some(store) => store.clone(),
            None => self.store.insert(connect::store(self.config).await?).clone(),
        };
        seen.steering = Some(store.steering().await?);
        let workers = store.workers().await?;
        // Whoever saw the youngest event leave bounds the age of the oldest that is left.
        if let Some(head_after) = workers.iter().filter_map(|worker| worker.head_after).max() {
            oldest.insert(self.topology.events(), head_after);
        }
        seen.workers = Some(workers);
        let waiting = store.waiting(seen.at.saturating_sub(OVERDUE)).await?;
        seen.overdue = Some(waiting.iter().map(|row| row.overdue).sum());
        oldest.extend(waiting.into_iter().filter_map(|row| Some((row.queue?, row.oldest))));
        let groups = store.letter_groups(&LetterFilter::default()).await?;
        seen.dead_letters = Some(groups.iter().map(|group| group.letters).sum());
        if let Some(first) = groups.iter().map(|group| group.oldest).min() {
            oldest.insert(self.topology.dead(), first);
        }
        let within = i64::try_from(self.limits.dead_within.as_millis()).unwrap_or(i64::MAX);
        let fresh = LetterFilter { failed_after: Some(seen.at.saturating_sub(within)), ..LetterFilter::default() };
        seen.fresh_dead_letters = Some(store.letter_count(&fresh).await?);
        seen.books = Some(self.counted(&store).await?);
        Ok(())
    }

    async fn counted(&mut self, store: &Store) -> Result<Books, StoreError> {
        if let Some((books, again)) = &self.books
            && Instant::now() < *again
        {
            return Ok(books.clone());
        }
        let begun = Instant::now();
        let books = store.books().await?;
        self.books = Some((books.clone(), Instant::now() + begun.elapsed() * REST));
        Ok(books)
    }

    async fn queues(&self, oldest: &Oldest, patience: Duration) -> Result<Vec<Row>, Stop> {
        self.broker.ready(patience).await?;
        let mut stats = managed(self.config).await;
        let mut rows = Vec::new();
        for queue in self.topology.queues() {
            let depth = match self.broker.depth(&queue.name).await {
                Ok(depth) => Some(depth),
                Err(error @ BrokerError::Unavailable(_)) => return Err(error.into()),
                // No such queue yet, or no right to look at it: the row says so.
                Err(_) => None,
            };
            let age = oldest.get(&queue.name).map(|at| (now() - at).max(0) / 1000);
            let stats = stats.remove(&queue.name).unwrap_or_default();
            rows.push(row(queue.name, depth, stats, age));
        }
        Ok(rows)
    }
}

/// Returns what the management API knows; a trouble with it is told and costs its columns only.
async fn managed(config: &Config) -> BTreeMap<String, QueueStats> {
    let Some(url) = &config.broker.management_url else { return BTreeMap::new() };
    let asked = match Management::new(url, &config.broker.url) {
        Ok(management) => management.queues(&config.broker.prefix).await,
        Err(error) => Err(error),
    };
    asked.unwrap_or_else(|error| {
        eprintln!("herald: warning: {error}");
        BTreeMap::new()
    })
}
