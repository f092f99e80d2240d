//! Whose turn it is to walk a queue: one process at a time, on whatever machine.
//!
//! Called by `letters` around every sweep of the dead-letter queue. Two sweeps at once would lose nothing, but each would take the
//! other's rotation for the queue's end. Never waits: who comes second is told who is at it. Time is the database's clock.

use serde_json::json;

use super::{LetterKey, Store, StoreError, database::Statement};

/// A turn is free when nobody has it, or its owner was silent for ten seconds (10000 ms). Who takes over from a silent owner
/// takes over what that one left unfinished.
const BEGIN: Statement = Statement {
    name: "begin_sweep",
    writes: true,
    sqlite: &[
        "INSERT INTO sweeps AS s (queue, owner, started_at, beat_at)
        SELECT $1->>'queue', $1->>'owner', ms, ms FROM clock WHERE true
        ON CONFLICT (queue) DO UPDATE SET owner = excluded.owner, started_at = excluded.started_at,
            beat_at = excluded.beat_at, unfinished_since = CASE WHEN s.owner IS NULL THEN s.unfinished_since
                ELSE coalesce(s.unfinished_since, s.started_at) END
        WHERE s.owner IS NULL OR s.beat_at < excluded.beat_at - 10000",
        "SELECT owner, started_at, ms - beat_at AS silent_ms, unfinished_since FROM sweeps, clock
        WHERE queue = $1->>'queue'",
    ],
    postgres: "WITH begun AS (
        INSERT INTO sweeps AS s (queue, owner, started_at, beat_at)
        SELECT $1::json->>'queue', $1::json->>'owner', ms, ms FROM clock
        ON CONFLICT (queue) DO UPDATE SET owner = excluded.owner, started_at = excluded.started_at,
            beat_at = excluded.beat_at, unfinished_since = CASE WHEN s.owner IS NULL THEN s.unfinished_since
                ELSE coalesce(s.unfinished_since, s.started_at) END
        WHERE s.owner IS NULL OR s.beat_at < excluded.beat_at - 10000
        RETURNING s.owner, s.started_at, 0::bigint AS silent_ms, s.unfinished_since
    )
    SELECT * FROM begun UNION ALL
    SELECT owner, started_at, ms - beat_at, unfinished_since FROM sweeps, clock
    WHERE queue = $1::json->>'queue' AND NOT EXISTS (SELECT 1 FROM begun)",
};

const BEAT: Statement = Statement {
    name: "beat_sweep",
    writes: true,
    sqlite: &["UPDATE sweeps SET beat_at = (SELECT ms FROM clock)
        WHERE queue = $1->>'queue' AND owner = $1->>'owner' RETURNING beat_at"],
    postgres: "UPDATE sweeps SET beat_at = (SELECT ms FROM clock)
        WHERE queue = $1::json->>'queue' AND owner = $1::json->>'owner' RETURNING beat_at",
};

const END: Statement = Statement {
    name: "end_sweep",
    writes: true,
    sqlite: &["UPDATE sweeps SET owner = NULL, unfinished_since = CASE $1->>'left' WHEN 'nothing' THEN NULL
            WHEN 'something' THEN coalesce(unfinished_since, started_at) ELSE unfinished_since END
        WHERE queue = $1->>'queue' AND owner = $1->>'owner'"],
    postgres: "UPDATE sweeps SET owner = NULL, unfinished_since = CASE $1::json->>'left' WHEN 'nothing' THEN NULL
            WHEN 'something' THEN coalesce(unfinished_since, started_at) ELSE unfinished_since END
        WHERE queue = $1::json->>'queue' AND owner = $1::json->>'owner'",
};

/// What was replayed or dropped since then: `removed` letters were nobody's doing.
const ACTED: Statement = Statement {
    name: "acted_letters",
    writes: false,
    sqlite: &["SELECT id, identity, replay, failed_at FROM dead_letters
        WHERE ended IN ('replayed', 'dropped') AND ended_at >= $1->>'since'"],
    postgres: "SELECT id, identity, replay, failed_at FROM dead_letters
        WHERE ended IN ('replayed', 'dropped') AND ended_at >= ($1::json->>'since')::bigint",
};

/// Who walks the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweeper {
    pub owner: String,
    /// Milliseconds since the epoch.
    pub since: i64,
    /// When it was heard of last.
    pub silent_ms: i64,
}

/// Whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Ours. `unfinished_since`: an earlier walk began then and ended in the middle.
    Ours {
        unfinished_since: Option<i64>,
    },
    Taken(Sweeper),
}

/// What a walk leaves for the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The whole queue was walked, and what earlier walks had left was dealt with.
    Nothing,
    /// It stopped in order before the end: what earlier ones had left may still be there.
    AsBefore,
    /// It ended in the middle.
    Something,
}

#[derive(sqlx::FromRow)]
struct Row {
    owner: Option<String>,
    started_at: i64,
    silent_ms: i64,
    unfinished_since: Option<i64>,
}

impl Store {
    /// Takes the turn to walk `queue`, if it is free. `owner` names this very process, for whoever comes second.
    pub async fn begin_sweep(&self, queue: &str, owner: &str) -> Result<Turn, StoreError> {
        let rows: Vec<Row> = self.db.call(&BEGIN, &json!({ "queue": queue, "owner": owner })).await?;
        Ok(match rows.into_iter().next() {
            Some(row) if row.owner.as_deref() == Some(owner) => Turn::Ours { unfinished_since: row.unfinished_since },
            Some(row) => Turn::Taken(Sweeper {
                owner: row.owner.unwrap_or_default(),
                since: row.started_at,
                silent_ms: row.silent_ms,
            }),
            // Taken in this very moment.
            None => Turn::Taken(Sweeper { owner: "another process".to_owned(), since: 0, silent_ms: 0 }),
        })
    }

    /// Keeps the turn; false when it is no longer ours.
    pub async fn beat_sweep(&self, queue: &str, owner: &str) -> Result<bool, StoreError> {
        let beaten: Vec<(i64,)> = self.db.call(&BEAT, &json!({ "queue": queue, "owner": owner })).await?;
        Ok(!beaten.is_empty())
    }

    /// Gives the turn up.
    pub async fn end_sweep(&self, queue: &str, owner: &str, left: Left) -> Result<(), StoreError> {
        let left = match left {
            Left::Nothing => "nothing",
            Left::AsBefore => "as before",
            Left::Something => "something",
        };
        self.db.call::<()>(&END, &json!({ "queue": queue, "owner": owner, "left": left })).await?;
        Ok(())
    }

    /// Lists letters that were replayed or dropped since then.
    pub async fn acted_letters(&self, since: i64) -> Result<Vec<LetterKey>, StoreError> {
        self.db.call(&ACTED, &json!({ "since": since })).await
    }
}
