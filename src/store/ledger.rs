//! The ledger's rows: written whole at the end of an attempt, and counted for the books.
//!
//! Called through [`Store::record`] by the worker's last stop, and by `status` and the page. Rows are never
//! merged here: what is written is what the worker says.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Serialize;
use serde_json::json;

use crate::domain::ledger::{Books, Entry, State, Ticket};

use super::{
    Record, Store, StoreError, Worker, batch,
    database::{Database, Statement},
    row::{LetterRow, write},
};

/// A claim taken by somebody else in the meantime stays theirs.
const RECORD: Statement = Statement {
    name: "record",
    writes: true,
    sqlite: &[
        "INSERT INTO events AS e (identity, event_id, session_id, partner_id, event, fingerprint, state, reason, detail,
            via, route, attempt, replay, queue, first_seen, updated_at, next_at, expires_at, crashes, repeats, id_reused,
            evidence, targets, attempts)
        SELECT n.value->>'identity', n.value->>'event_id', n.value->>'session_id', n.value->>'partner_id',
            n.value->>'event', n.value->>'fingerprint', n.value->>'state', n.value->>'reason', n.value->>'detail',
            n.value->>'via', n.value->>'route', n.value->>'attempt', n.value->>'replay', n.value->>'queue',
            n.value->>'first_seen', n.value->>'updated_at', n.value->>'next_at', n.value->>'expires_at',
            n.value->>'crashes', n.value->>'repeats', n.value->>'id_reused',
            n.value->>'evidence', n.value->>'targets', n.value->>'attempts'
        FROM json_each($2) AS n WHERE true
        ON CONFLICT (identity) DO UPDATE SET event_id = excluded.event_id, session_id = excluded.session_id,
            partner_id = excluded.partner_id, event = excluded.event, fingerprint = excluded.fingerprint,
            state = excluded.state, reason = excluded.reason, detail = excluded.detail, via = excluded.via,
            route = excluded.route, attempt = excluded.attempt, replay = excluded.replay, queue = excluded.queue,
            first_seen = excluded.first_seen, updated_at = excluded.updated_at, next_at = excluded.next_at,
            expires_at = excluded.expires_at, crashes = excluded.crashes, repeats = excluded.repeats,
            id_reused = excluded.id_reused, evidence = excluded.evidence, targets = excluded.targets,
            attempts = excluded.attempts, owner = nullif(e.owner, (SELECT $1->>'owner')), version = e.version + 1",
        // A row that had vanished is a first sight again.
        "UPDATE received SET total = total + (
            SELECT count(*) FROM json_each($2) AS n
            JOIN events AS e ON e.identity = n.value->>'identity' WHERE e.version = 1)
        WHERE shard = $1->>'shard'",
        "INSERT INTO tickets (id, identity, target, user_id, token, sent_at, due_at)
        SELECT value->>'id', value->>'identity', value->>'target', value->>'user_id', value->>'token', value->>'sent_at',
            value->>'due_at'
        FROM json_each($3) WHERE true
        ON CONFLICT (id) DO NOTHING",
        super::letters::insert_sqlite!("$4"),
    ],
    postgres: "WITH given AS MATERIALIZED (
        SELECT j->>'owner' AS owner, (j->>'shard')::bigint AS shard FROM (SELECT $1::json AS j) AS parsed
    ), recorded AS (
        INSERT INTO events AS e (identity, event_id, session_id, partner_id, event, fingerprint, state, reason, detail,
            via, route, attempt, replay, queue, first_seen, updated_at, next_at, expires_at, crashes, repeats, id_reused,
            evidence, targets, attempts)
        SELECT identity, event_id, session_id, partner_id, event, fingerprint, state, reason, detail,
            via, route, attempt, replay, queue, first_seen, updated_at, next_at, expires_at, crashes, repeats, id_reused,
            evidence, targets, attempts
        FROM json_to_recordset($2::json) AS n (identity text, event_id text, session_id text, partner_id text,
            event text, fingerprint text, state text, reason text, detail text, via text, route text, attempt bigint,
            replay bigint, queue text, first_seen bigint, updated_at bigint, next_at bigint, expires_at bigint,
            crashes bigint, repeats bigint, id_reused bigint, evidence text, targets text, attempts text)
        ORDER BY identity
        ON CONFLICT (identity) DO UPDATE SET event_id = excluded.event_id, session_id = excluded.session_id,
            partner_id = excluded.partner_id, event = excluded.event, fingerprint = excluded.fingerprint,
            state = excluded.state, reason = excluded.reason, detail = excluded.detail, via = excluded.via,
            route = excluded.route, attempt = excluded.attempt, replay = excluded.replay, queue = excluded.queue,
            first_seen = excluded.first_seen, updated_at = excluded.updated_at, next_at = excluded.next_at,
            expires_at = excluded.expires_at, crashes = excluded.crashes, repeats = excluded.repeats,
            id_reused = excluded.id_reused, evidence = excluded.evidence, targets = excluded.targets,
            attempts = excluded.attempts, owner = nullif(e.owner, (SELECT owner FROM given)), version = e.version + 1
        RETURNING e.version
    ), counted AS (
        UPDATE received SET total = total + (SELECT count(*) FROM recorded WHERE version = 1)
        WHERE shard = (SELECT shard FROM given) AND EXISTS (SELECT 1 FROM recorded WHERE version = 1)
    ), ticketed AS (
        INSERT INTO tickets (id, identity, target, user_id, token, sent_at, due_at)
        SELECT id, identity, target, user_id, token, sent_at, due_at
        FROM json_to_recordset($3::json) AS t (id text, identity text, target text, user_id text, token text,
            sent_at bigint, due_at bigint)
        ON CONFLICT (id) DO NOTHING
    )
    INSERT INTO dead_letters (id, identity, session_id, partner_id, event, reason, error, route, attempt, replay,
        failed_at, first_seen, content_type, body_bytes, headers, body)
    SELECT id, identity, session_id, partner_id, event, reason, error, route, attempt, replay,
        failed_at, first_seen, content_type, body_bytes, headers, body
    FROM json_to_recordset($4::json) AS l (id text, identity text, session_id text, partner_id text,
        event text, reason text, error text, route text, attempt bigint, replay bigint, failed_at bigint,
        first_seen bigint, content_type text, body_bytes bigint, headers text, body text)
    ON CONFLICT (id, identity, replay, failed_at) DO UPDATE SET ended = NULL, ended_at = NULL,
        headers = excluded.headers, body = excluded.body
    WHERE dead_letters.ended IS NOT NULL",
};

/// One statement, so that counter and rows are of the same moment. Grouped as `events_books` is ordered: by anything else SQLite would
/// sort every row, for four times as long.
const BOOKS: Statement = Statement {
    name: "books",
    writes: false,
    sqlite: &["SELECT 'received' AS state, NULL AS via, NULL AS reason, sum(total) AS n, 0 AS repeats, 0 AS id_reused
        FROM received
        UNION ALL
        SELECT state, via, reason, count(*), sum(repeats), sum(id_reused)
        FROM events GROUP BY 1, 2, 3"],
    postgres: "SELECT 'received' AS state, NULL AS via, NULL AS reason, sum(total)::bigint AS n, 0::bigint AS repeats,
            0::bigint AS id_reused
        FROM received
        UNION ALL
        SELECT state, via, reason, count(*), sum(repeats)::bigint,
            sum(id_reused)::bigint
        FROM events GROUP BY 1, 2, 3",
};

/// By the index of the books: what waits is a small part of the rows.
const WAITING: Statement = Statement {
    name: "waiting",
    writes: false,
    sqlite: &["SELECT queue, min(first_seen) AS oldest, sum(CASE WHEN next_at < $1->>'late' THEN 1 ELSE 0 END) AS overdue
        FROM events WHERE state = 'waiting' GROUP BY queue"],
    postgres: "SELECT queue, min(first_seen) AS oldest, count(*) FILTER (WHERE next_at < ($1::json->>'late')::bigint) AS overdue
        FROM events WHERE state = 'waiting' GROUP BY queue",
};

/// What waits in one queue, or in hand (no queue).
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Waiting {
    pub queue: Option<String>,
    /// First receipt of the oldest, in milliseconds since the epoch.
    pub oldest: i64,
    /// How many should have been tried before the time asked for.
    pub overdue: i64,
}

#[derive(Serialize)]
struct Parameter<'a> {
    owner: &'a str,
    shard: u32,
}

/// Returns the parameters of [`RECORD`].
fn parameters(worker: &Worker, records: &[Arc<Record>]) -> Result<[String; 4], StoreError> {
    let tickets: Vec<&Ticket> = records.iter().flat_map(|record| &record.tickets).collect();
    let letters: Vec<LetterRow> =
        records.iter().filter_map(|record| record.letter.as_ref()).map(LetterRow::new).collect();
    let parameter = Parameter { owner: &worker.owner, shard: worker.shard };
    Ok([write(&parameter)?, rows(records)?, write(&tickets)?, write(&letters)?])
}

/// Returns the rows of `records` as JSON. The texts inside a row are JSON that no database looks into, so they go in as they are,
/// but for the one escape that PostgreSQL refuses wherever it reads JSON: where it occurs they go in as texts.
fn rows(records: &[Arc<Record>]) -> Result<String, StoreError> {
    let entries: Vec<&Entry> = records.iter().map(|record| &record.entry).collect();
    let rows = write(&entries)?;
    if memchr::memmem::find(rows.as_bytes(), br"\u0000").is_none() {
        return Ok(rows);
    }
    let mut rows = serde_json::to_value(entries).map_err(|error| StoreError::Data(format!("not JSON: {error}")))?;
    for row in rows.as_array_mut().into_iter().flatten() {
        for text in ["evidence", "targets", "attempts"] {
            row[text] = row[text].to_string().into();
        }
    }
    write(&rows)
}

/// Writes a batch; one answer per record, in order.
pub(super) async fn record_batch(
    db: Database,
    worker: Arc<Worker>,
    records: Vec<Arc<Record>>,
) -> Vec<Result<(), StoreError>> {
    let run = |part: &[Arc<Record>]| -> BoxFuture<'static, Result<Vec<()>, StoreError>> {
        let (db, count) = (db.clone(), part.len());
        let parameters = parameters(&worker, part);
        Box::pin(async move {
            db.call_texts::<()>(&RECORD, &parameters?.each_ref().map(String::as_str)).await?;
            Ok(vec![(); count])
        })
    };
    batch::each(records, |record| &record.entry.identity, run).await
}

impl Store {
    /// Counts identities by state. `received` is a counter kept at first sight, not the sum of the rest, so that
    /// [`Books::closed`] can tell. Pruning and forgetting take from both.
    pub async fn books(&self) -> Result<Books, StoreError> {
        type Row = (String, Option<String>, Option<String>, i64, i64, i64);
        let rows: Vec<Row> = self.db.call(&BOOKS, &json!({})).await?;
        let mut books = Books::default();
        for (state, via, reason, count, repeats, id_reused) in rows {
            books.repeats += repeats;
            books.id_reused += id_reused;
            let unnamed = || "unknown".to_owned();
            match State::parse(&state) {
                Some(State::Waiting) => books.waiting += count,
                Some(State::Done) => *books.done.entry(via.unwrap_or_else(unnamed)).or_default() += count,
                Some(State::Skipped) => *books.skipped.entry(reason.unwrap_or_else(unnamed)).or_default() += count,
                Some(State::Dead) => *books.dead.entry(reason.unwrap_or_else(unnamed)).or_default() += count,
                None => books.received = count,
            }
        }
        Ok(books)
    }

    /// Returns what waits, by queue. Overdue is what should have been tried before `late`, in milliseconds since the epoch.
    pub async fn waiting(&self, late: i64) -> Result<Vec<Waiting>, StoreError> {
        self.db.call(&WAITING, &json!({ "late": late })).await
    }
}
