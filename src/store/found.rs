//! Finding events again: by id, by recipient or by session, with who is at them, what receipts said, and their dead letters.
//!
//! Called by `explain` and the page. Each statement reads one index from its end, so that ten million rows cost no more than
//! ten thousand.

use serde_json::json;

use crate::domain::{
    explain::{Find, Findings, Found, Holder, LetterMark},
    ledger::Entry,
};

use super::{Store, StoreError, database::Statement, row::EventRow};

/// Writes the statement that finds rows by `$column`. On PostgreSQL what has only been claimed is in no index but its own. What
/// receipts said lies with the tickets. A claim is void when its owner is dead, and after thirty minutes (1800000 ms).
macro_rules! find_by {
    ($name:literal, $column:literal) => {
        Statement {
            name: $name,
            writes: false,
            sqlite: &[concat!(
                "SELECT e.*, (SELECT json_group_object(t.target, t.receipt) FROM tickets AS t
                    WHERE t.identity = e.identity AND t.receipt IS NOT NULL) AS receipts,
                    coalesce(e.owner IN (SELECT owner FROM living_workers)
                        AND e.claimed_at > (SELECT ms FROM clock) - 1800000, 0) AS living
                FROM events AS e WHERE e.",
                $column,
                " = $1->>'key' ORDER BY e.first_seen DESC LIMIT $1->>'limit'"
            )],
            postgres: concat!(
                "SELECT e.*, (SELECT json_object_agg(t.target, t.receipt ORDER BY t.sent_at)::text FROM tickets AS t
                    WHERE t.identity = e.identity AND t.receipt IS NOT NULL) AS receipts,
                    coalesce(e.owner IN (SELECT owner FROM living_workers)
                        AND e.claimed_at > (SELECT ms FROM clock) - 1800000, false) AS living
                FROM (
                    (SELECT * FROM events WHERE ",
                $column,
                " = $1::json->>'key' AND NOT unrecorded
                        ORDER BY first_seen DESC LIMIT ($1::json->>'limit')::bigint)
                    UNION ALL
                    (SELECT * FROM events WHERE ",
                $column,
                " = $1::json->>'key' AND unrecorded)
                ) AS e ORDER BY e.first_seen DESC LIMIT ($1::json->>'limit')::bigint"
            ),
        }
    };
}

const FIND_ID: Statement = find_by!("find_id", "event_id");
const FIND_USER: Statement = find_by!("find_user", "partner_id");
const FIND_SESSION: Statement = find_by!("find_session", "session_id");

/// Letters by event id, because those that the broker put into the queue have no identity.
const MARKS: Statement = Statement {
    name: "letter_marks",
    writes: false,
    sqlite: &[
        "SELECT number, id, identity, session_id, partner_id, event, reason, error, replay, failed_at, ended, ended_at
        FROM dead_letters WHERE id IN (SELECT value FROM json_each($1, '$.ids')) ORDER BY number DESC LIMIT $1->>'limit'",
    ],
    postgres:
        "SELECT number, id, identity, session_id, partner_id, event, reason, error, replay, failed_at, ended, ended_at
        FROM dead_letters WHERE id = ANY (ARRAY(SELECT json_array_elements_text($1::json->'ids')))
        ORDER BY number DESC LIMIT ($1::json->>'limit')::bigint",
};

/// Most letters read beside the rows: one event that is replayed again and again leaves one each time.
const MARKS_AT_ONCE: u32 = 1000;

#[derive(sqlx::FromRow)]
struct FoundRow {
    #[sqlx(flatten)]
    row: EventRow,
    owner: Option<String>,
    claimed_at: Option<i64>,
    living: bool,
}

#[derive(sqlx::FromRow)]
struct MarkRow {
    number: i64,
    id: String,
    /// Empty: none.
    identity: String,
    session_id: Option<String>,
    partner_id: Option<String>,
    event: Option<String>,
    reason: String,
    error: String,
    replay: i64,
    failed_at: i64,
    ended: Option<String>,
    ended_at: Option<i64>,
}

impl Store {
    /// Finds rows, those first seen last before the others, at most `limit`.
    pub async fn find(&self, what: &Find, limit: u32) -> Result<Vec<Entry>, StoreError> {
        Ok(self.found(what, limit).await?.into_iter().map(|found| found.entry).collect())
    }

    /// Finds what there is to explain: rows, at most `limit`, and the dead letters of the same events.
    pub async fn findings(&self, what: &Find, limit: u32) -> Result<Findings, StoreError> {
        let rows = self.found(what, limit).await?;
        let mut ids: Vec<&str> = rows.iter().map(|found| found.entry.event_id.as_str()).collect();
        if let Find::Id(id) = what {
            ids.push(id);
        }
        if ids.is_empty() {
            return Ok(Findings { rows, letters: Vec::new() });
        }
        let parameter = json!({ "ids": ids, "limit": MARKS_AT_ONCE });
        let marks: Vec<MarkRow> = self.db.call(&MARKS, &parameter).await?;
        let letters = marks.into_iter().map(MarkRow::mark).collect();
        Ok(Findings { rows, letters })
    }

    async fn found(&self, what: &Find, limit: u32) -> Result<Vec<Found>, StoreError> {
        let (statement, key) = match what {
            Find::Id(id) => (&FIND_ID, id),
            Find::User(user) => (&FIND_USER, user),
            Find::Session(session) => (&FIND_SESSION, session),
        };
        let rows: Vec<FoundRow> = self.db.call(statement, &json!({ "key": key, "limit": limit })).await?;
        rows.into_iter().map(FoundRow::found).collect()
    }
}

impl FoundRow {
    fn found(self) -> Result<Found, StoreError> {
        let holder = match (self.owner, self.claimed_at) {
            (Some(owner), Some(since)) => Some(Holder { owner, since, living: self.living }),
            _ => None,
        };
        Ok(Found { entry: self.row.entry()?, holder })
    }
}

impl MarkRow {
    fn mark(self) -> LetterMark {
        LetterMark {
            number: self.number,
            id: self.id,
            identity: Some(self.identity).filter(|identity| !identity.is_empty()),
            session_id: self.session_id,
            partner_id: self.partner_id,
            event: self.event,
            reason: self.reason,
            error: self.error,
            replay: u32::try_from(self.replay).unwrap_or(u32::MAX),
            failed_at: self.failed_at,
            ended: self.ended,
            ended_at: self.ended_at,
        }
    }
}
