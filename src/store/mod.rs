//! The store: ledger, tickets, dead-letter index and worker heartbeats, in SQLite or PostgreSQL; and the app's users.
//!
//! Called by `worker` (claim, record, tickets), `cli` and `http` (reading). It keeps and finds; it decides nothing. Every
//! call is bounded by a timeout; a lost database is [`StoreError::Unavailable`], never a wrong answer.
//!
//! A batch of a hundred rows is one statement on either database: rows go in as one JSON text, or, where there are many on PostgreSQL, as
//! one array for each column. Each file below holds the texts for both beside the function that runs them.

mod claims;
mod ledger;
mod found;
mod letters;
mod sweeps;
mod tickets;
mod retention;
mod steering;
mod actions;
pub mod users;
pub mod outbox;

mod row;
mod batch;
mod database;
mod connect;
mod error;

use std::sync::{Arc, atomic::AtomicI64};

use crate::{
    domain::ledger::{Claim, Claimed, Entry, Letter, Ticket},
    provider::coalescer::{Coalescer, Limits, Lost},
};

pub use crate::domain::explain::Find;
pub use actions::{ACTIONS_AT_ONCE, NewAction};
pub use claims::WorkerMark;
pub use error::StoreError;
pub use ledger::Waiting;
pub use letters::{LETTERS_AT_ONCE, LetterGroup, LetterKey};
pub use retention::{Forgotten, Kept};
pub use steering::{Living, Steered, Told};
pub use sweeps::{Left, Sweeper, Turn};
pub use tickets::{DueTicket, TicketReceipt};

use database::Database;

/// Which dead letters are meant; every field that is set must match.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct LetterFilter {
    pub id: Option<String>,
    pub reason: Option<String>,
    /// Empty: letters whose event is not known.
    pub event: Option<String>,
    pub session: Option<String>,
    /// The recipient.
    pub user: Option<String>,
    /// Only letters that failed before this, in milliseconds since the epoch.
    pub failed_before: Option<i64>,
    /// Only letters that failed then or later.
    pub failed_after: Option<i64>,
    /// Only letters with a smaller number: the next page of a listing.
    pub below: Option<i64>,
    /// At most this many; [`LETTERS_AT_ONCE`] when absent. Counting and grouping look at all of them.
    pub limit: Option<u32>,
}

/// One ended or waiting row to write, with what belongs to it, in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Written whole; the claim on it is given up.
    pub entry: Entry,
    /// Tickets of pushes accepted in this attempt.
    pub tickets: Vec<Ticket>,
    /// The dead letter just put into the queue; `number` is ignored. Boxed, because few events have one.
    pub letter: Option<Box<Letter>>,
}

/// Rows in one statement.
const BATCH: usize = 100;
/// Bytes of rows in one statement; dead letters carry bodies of up to 90 KiB.
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// What a row without letter weighs, roughly.
const ROW_BYTES: usize = 2 * 1024;

/// The ledger and what lies beside it. A handle: clones share the pool and the coalescers.
#[derive(Clone)]
pub struct Store {
    db: Database,
    worker: Arc<Worker>,
    claims: Coalescer<Claim, Result<Claimed, StoreError>>,
    records: Coalescer<Arc<Record>, Result<(), StoreError>>,
}

/// Who we are in claims.
struct Worker {
    instance: String,
    /// `<instance>/<start>`: names this very start.
    owner: String,
    /// Which of the sixteen counters of identities received is ours.
    shard: u32,
    /// The head of the events queue came later, in milliseconds since the epoch; 0: not known.
    head_after: AtomicI64,
}

impl Store {
    /// Connects, applies migrations and announces this worker's start, which voids the claims of earlier starts of the
    /// same `instance` (on SQLite of every other start). `instance` names this worker in claims.
    pub async fn open(url: &str, instance: &str) -> Result<Store, StoreError> {
        let store = Store::connect_as(url, instance).await?;
        store.announce().await?;
        Ok(store)
    }

    /// Connects and applies migrations without being a worker: for commands that read the ledger beside a running worker.
    pub async fn connect(url: &str) -> Result<Store, StoreError> {
        Store::connect_as(url, "command").await
    }

    async fn connect_as(url: &str, instance: &str) -> Result<Store, StoreError> {
        let db = Database::open(url).await?;
        let shard = instance.bytes().map(u32::from).sum::<u32>() % 16;
        let owner = format!("{instance}/{}", uuid::Uuid::new_v4());
        let head_after = AtomicI64::new(0);
        let worker = Arc::new(Worker { instance: instance.to_owned(), owner, shard, head_after });
        // SQLite has one writer: a second request would only wait for the first.
        let requests = if db.is_sqlite() { 1 } else { 3 };
        let limits = Limits { requests, eager: requests, items: BATCH, weight: BATCH_BYTES };
        let (claiming, recording) = ((db.clone(), worker.clone()), (db.clone(), worker.clone()));
        Ok(Store {
            claims: Coalescer::new(limits, move |batch| {
                let (db, worker) = claiming.clone();
                Box::pin(claims::claim_batch(db, worker, batch))
            }),
            records: Coalescer::new(limits, move |batch| {
                let (db, worker) = recording.clone();
                Box::pin(ledger::record_batch(db, worker, batch))
            }),
            db,
            worker,
        })
    }

    /// Claims an identity, in a batch with its neighbours. A caller that gives up may have been granted the claim all the
    /// same: [`Store::give_up`] it.
    pub fn claim(&self, claim: Claim) -> impl Future<Output = Result<Claimed, StoreError>> + use<> {
        let answer = self.claims.ask(claim, ROW_BYTES);
        async move { answer.await.unwrap_or_else(|Lost| Err(lost())) }
    }

    /// Writes a row and gives its claim up, in a batch with its neighbours. Repeating it changes nothing.
    pub async fn record(&self, record: impl Into<Arc<Record>>) -> Result<(), StoreError> {
        let record = record.into();
        let letter = record.letter.as_ref().map_or(0, |letter| letter.body.len());
        self.records.ask(record, ROW_BYTES + letter).await.unwrap_or_else(|Lost| Err(lost()))
    }

    /// Returns the name of this start in claims: `<instance>/<start>`.
    pub fn owner(&self) -> &str {
        &self.worker.owner
    }
}

fn lost() -> StoreError {
    StoreError::Unavailable("the statement ended without an answer".to_owned())
}
