//! What leaves the store: old rows in small batches, and everything about one user at once.
//!
//! Called by `run` from time to time, and by `users forget`. Never deletes a row that waits because of its age: its event is
//! still in a queue.

use std::time::Duration;

use serde_json::json;

use super::{Store, StoreError, database::Statement};

/// Rows deleted in one transaction, so that claims never wait for long.
const PRUNE_BATCH: usize = 1000;
/// How long what operators did is kept: longer than anybody asks for it.
const ACTIONS_KEPT: Duration = Duration::from_secs(365 * 24 * 3600);

/// What goes on SQLite: a row stays as long as its dead letter lies in the queue (a replay must know which targets accepted) and
/// while somebody is at it.
macro_rules! old_events_sqlite {
    () => {
        "SELECT e.identity FROM events AS e
        WHERE e.state <> 'waiting' AND e.updated_at < (SELECT ms FROM clock) - $1->>'keep'
            AND (e.owner IS NULL OR e.claimed_at < (SELECT ms FROM clock) - $1->>'keep')
            AND e.identity NOT IN (SELECT identity FROM dead_letters WHERE ended IS NULL)
        ORDER BY e.updated_at, e.identity LIMIT $1->>'limit'"
    };
}

/// Tickets go with the row of their event. The first texts of SQLite deal with what the last deletes.
const PRUNE_EVENTS: Statement = Statement {
    name: "prune_events",
    writes: true,
    sqlite: &[
        concat!(
            "UPDATE received SET total = total - (SELECT count(*) FROM (",
            old_events_sqlite!(),
            ")) WHERE shard = $1->>'shard'"
        ),
        concat!("DELETE FROM tickets WHERE identity IN (", old_events_sqlite!(), ")"),
        concat!("DELETE FROM events WHERE identity IN (", old_events_sqlite!(), ") RETURNING 1"),
    ],
    postgres: "WITH gone AS (
        DELETE FROM events WHERE identity IN (
            SELECT e.identity FROM events AS e
            WHERE e.state <> 'waiting' AND e.updated_at < (SELECT ms FROM clock) - ($1::json->>'keep')::bigint
                AND (e.owner IS NULL OR e.claimed_at < (SELECT ms FROM clock) - ($1::json->>'keep')::bigint)
                AND NOT EXISTS (SELECT 1 FROM dead_letters AS l WHERE l.identity = e.identity AND l.ended IS NULL)
            ORDER BY e.updated_at LIMIT ($1::json->>'limit')::bigint FOR UPDATE SKIP LOCKED)
        RETURNING identity
    ), counted AS (
        UPDATE received SET total = total - (SELECT count(*) FROM gone) WHERE shard = ($1::json->>'shard')::bigint
    ), tickets_gone AS (
        DELETE FROM tickets WHERE identity = ANY (ARRAY(SELECT identity FROM gone))
    )
    SELECT 1::bigint FROM gone",
};

const PRUNE_LETTERS: Statement = Statement {
    name: "prune_letters",
    writes: true,
    sqlite: &["DELETE FROM dead_letters WHERE number IN (
            SELECT number FROM dead_letters WHERE failed_at < (SELECT ms FROM clock) - $1->>'keep'
            ORDER BY failed_at LIMIT $1->>'limit')
        RETURNING 1"],
    postgres: "DELETE FROM dead_letters WHERE number IN (
            SELECT number FROM dead_letters WHERE failed_at < (SELECT ms FROM clock) - ($1::json->>'keep')::bigint
            ORDER BY failed_at LIMIT ($1::json->>'limit')::bigint FOR UPDATE SKIP LOCKED)
        RETURNING 1::bigint",
};

const PRUNE_ACTIONS: Statement = Statement {
    name: "prune_actions",
    writes: true,
    sqlite: &["DELETE FROM actions WHERE number IN (
            SELECT number FROM actions WHERE at < (SELECT ms FROM clock) - $1->>'keep' ORDER BY at LIMIT $1->>'limit')
        RETURNING 1"],
    postgres: "DELETE FROM actions WHERE number IN (
            SELECT number FROM actions WHERE at < (SELECT ms FROM clock) - ($1::json->>'keep')::bigint
            ORDER BY at LIMIT ($1::json->>'limit')::bigint FOR UPDATE SKIP LOCKED)
        RETURNING 1::bigint",
};

/// A start that was silent for a day owns nothing that its absence would not free as well.
const PRUNE_WORKERS: Statement = Statement {
    name: "prune_workers",
    writes: true,
    sqlite: &["DELETE FROM workers WHERE beat_at < (SELECT ms FROM clock) - 86400000"],
    postgres: "DELETE FROM workers WHERE beat_at < (SELECT ms FROM clock) - 86400000",
};

/// On PostgreSQL what has only been claimed is in no index but its own, and has no tickets.
const FORGET: Statement = Statement {
    name: "forget",
    writes: true,
    sqlite: &[
        "UPDATE received SET total = total - (SELECT count(*) FROM events WHERE partner_id = $1->>'user')
        WHERE shard = $1->>'shard'",
        "DELETE FROM tickets WHERE identity IN (SELECT identity FROM events WHERE partner_id = $1->>'user')
        RETURNING 'tickets'",
        "DELETE FROM events WHERE partner_id = $1->>'user' RETURNING 'events'",
        "DELETE FROM dead_letters WHERE partner_id = $1->>'user' RETURNING 'letters'",
    ],
    postgres: "WITH recorded_gone AS (
        DELETE FROM events WHERE partner_id = $1::json->>'user' AND NOT unrecorded RETURNING identity
    ), claimed_gone AS (
        DELETE FROM events WHERE partner_id = $1::json->>'user' AND unrecorded RETURNING 'events'
    ), counted AS (
        UPDATE received SET total = total - (SELECT count(*) FROM recorded_gone) - (SELECT count(*) FROM claimed_gone)
        WHERE shard = ($1::json->>'shard')::bigint
    ), tickets_gone AS (
        DELETE FROM tickets WHERE identity = ANY (ARRAY(SELECT identity FROM recorded_gone)) RETURNING 'tickets'
    ), letters_gone AS (
        DELETE FROM dead_letters WHERE partner_id = $1::json->>'user' RETURNING 'letters'
    )
    SELECT 'events' FROM recorded_gone UNION ALL SELECT * FROM claimed_gone UNION ALL SELECT * FROM tickets_gone
    UNION ALL SELECT * FROM letters_gone",
};

const KEPT: Statement = Statement {
    name: "kept",
    writes: false,
    sqlite: &["SELECT (SELECT count(*) FROM events WHERE partner_id = $1->>'user') AS events,
        (SELECT count(*) FROM events WHERE partner_id = $1->>'user' AND state = 'waiting') AS waiting,
        (SELECT count(*) FROM tickets WHERE identity IN (
            SELECT identity FROM events WHERE partner_id = $1->>'user')) AS tickets,
        (SELECT count(*) FROM dead_letters WHERE partner_id = $1->>'user') AS letters"],
    postgres: "WITH kept AS MATERIALIZED (
        SELECT identity, state FROM events WHERE partner_id = $1::json->>'user' AND NOT unrecorded
        UNION ALL SELECT identity, state FROM events WHERE partner_id = $1::json->>'user' AND unrecorded
    )
    SELECT (SELECT count(*) FROM kept) AS events,
        (SELECT count(*) FROM kept WHERE state = 'waiting') AS waiting,
        (SELECT count(*) FROM tickets WHERE identity = ANY (ARRAY(SELECT identity FROM kept))) AS tickets,
        (SELECT count(*) FROM dead_letters WHERE partner_id = $1::json->>'user') AS letters",
};

/// How much is kept about a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Kept {
    /// Rows of the ledger.
    pub events: i64,
    /// Those of them whose event is still in a queue.
    pub waiting: i64,
    pub tickets: i64,
    /// Dead letters in the index, also those that have left the queue.
    pub letters: i64,
}

/// How much was kept about a user, and is no longer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Forgotten {
    /// Rows of the ledger.
    pub events: u64,
    pub tickets: u64,
    /// Dead letters in the index. Letters in the queue itself are not the store's to drop.
    pub letters: u64,
}

impl Store {
    /// Deletes what ended longer ago than `retention` (ledger with tickets) and `dead_retention` (index), and what operators did a
    /// year ago, in small batches, by the database's clock; returns rows deleted. A row whose dead letter is still in the index stays with it.
    pub async fn prune(&self, retention: Duration, dead_retention: Duration) -> Result<u64, StoreError> {
        let mut deleted = 0;
        // Letters first: they keep rows of the ledger.
        let steps = [(&PRUNE_LETTERS, dead_retention), (&PRUNE_EVENTS, retention), (&PRUNE_ACTIONS, ACTIONS_KEPT)];
        for (statement, keep) in steps {
            let keep = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX / 2);
            let parameter = json!({ "keep": keep, "limit": PRUNE_BATCH, "shard": self.worker.shard });
            loop {
                let gone: Vec<(i64,)> = self.db.call(statement, &parameter).await?;
                deleted += gone.len() as u64;
                if gone.len() < PRUNE_BATCH {
                    break;
                }
            }
        }
        self.db.call::<()>(&PRUNE_WORKERS, &json!({})).await?;
        Ok(deleted)
    }

    /// Counts what is kept about a user.
    pub async fn kept(&self, user: &str) -> Result<Kept, StoreError> {
        let rows: Vec<Kept> = self.db.call(&KEPT, &json!({ "user": user })).await?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }

    /// Deletes everything kept about a user, waiting rows included. An event for them that is still in a queue will be seen
    /// as new; the caller drops their letters from the dead-letter queue first, or `run` finds them there again.
    pub async fn forget(&self, user: &str) -> Result<Forgotten, StoreError> {
        let gone: Vec<(String,)> = self.db.call(&FORGET, &json!({ "user": user, "shard": self.worker.shard })).await?;
        let mut forgotten = Forgotten::default();
        for (what,) in gone {
            match what.as_str() {
                "events" => forgotten.events += 1,
                "tickets" => forgotten.tickets += 1,
                _ => forgotten.letters += 1,
            }
        }
        Ok(forgotten)
    }
}
