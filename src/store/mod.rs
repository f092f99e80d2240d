//! The store: ledger, tickets, dead-letter index and worker heartbeats, in SQLite or PostgreSQL; and the app's users.
//!
//! Called by `worker` (claim, record, tickets), `cli` and `http` (reading). It keeps and finds; it decides nothing. Every
//! call is bounded by a timeout; a lost database is [`StoreError::Unavailable`], never a wrong answer.

pub mod users;

use std::time::Duration;

use crate::domain::ledger::{Books, Claim, Claimed, Entry, Letter, Ticket};

/// Why a store call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is locked or too slow; the call may be repeated.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// Somebody must change something first: credentials, a missing database, a wrong query. Exit code 78.
    #[error("{0}")]
    Config(String),
    /// The database refuses this very row.
    #[error("database refused the row: {0}")]
    Data(String),
}

/// What to look for in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Find {
    Id(String),
    User(String),
    Session(String),
}

/// Which dead letters are meant; every field that is set must match.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LetterFilter {
    pub id: Option<String>,
    pub reason: Option<String>,
    pub event: Option<String>,
    pub session: Option<String>,
    /// Only letters that failed before this, in milliseconds since the epoch.
    pub failed_before: Option<i64>,
    pub limit: Option<u32>,
}

/// One ended or waiting row to write, with what belongs to it, in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Written whole; the claim on it is given up.
    pub entry: Entry,
    /// Tickets of pushes accepted in this attempt.
    pub tickets: Vec<Ticket>,
    /// The dead letter just put into the queue; `number` is ignored.
    pub letter: Option<Letter>,
}

/// The ledger and what lies beside it. A handle: clones share the pool and the coalescers.
#[derive(Clone)]
pub struct Store {}

impl Store {
    /// Connects, applies migrations and announces this worker's start. `instance` names this worker in claims.
    pub async fn open(_url: &str, _instance: &str) -> Result<Store, StoreError> {
        todo!()
    }

    /// Claims an identity, in a batch with its neighbours.
    pub async fn claim(&self, _claim: Claim) -> Result<Claimed, StoreError> {
        todo!()
    }

    /// Writes a row and gives its claim up, in a batch with its neighbours.
    pub async fn record(&self, _record: Record) -> Result<(), StoreError> {
        todo!()
    }

    /// Says that this worker lives, and returns how many do.
    pub async fn heartbeat(&self) -> Result<u32, StoreError> {
        todo!()
    }

    /// Finds rows, newest first.
    pub async fn find(&self, _what: &Find, _limit: u32) -> Result<Vec<Entry>, StoreError> {
        todo!()
    }

    /// Counts identities by state.
    pub async fn books(&self) -> Result<Books, StoreError> {
        todo!()
    }

    /// Lists dead letters, newest first.
    pub async fn letters(&self, _filter: &LetterFilter) -> Result<Vec<Letter>, StoreError> {
        todo!()
    }

    /// Adds letters found in the queue that the index does not know.
    pub async fn add_letters(&self, _letters: Vec<Letter>) -> Result<(), StoreError> {
        todo!()
    }

    /// Takes letters out of the index, because they were `replayed`, `dropped` or `removed`.
    pub async fn end_letters(&self, _numbers: &[i64], _how: &str) -> Result<(), StoreError> {
        todo!()
    }

    /// Deletes what is older than `retention` (ledger, tickets) and `dead_retention` (index), in small batches; returns rows deleted.
    pub async fn prune(&self, _retention: Duration, _dead_retention: Duration) -> Result<u64, StoreError> {
        todo!()
    }
}
