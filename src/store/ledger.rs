//! The ledger's rows: written whole at the end of an attempt, and counted for the books.
//!
//! Called through [`Store::record`] by the worker's last stop, and by `status` and the page. Rows are never
//! merged here: what is written is what the worker says.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Serialize;
use serde_json::json;

use crate::domain::ledger::{Books, Entry, State, Ticket, Via};

use super::{
    Record, Store, StoreError, Worker, batch,
    database::{Database, Parameters, Statement},
    row::{Columns, LetterRow, write},
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
        FROM json_each($3) AS n WHERE true
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
            SELECT count(*) FROM json_each($3) AS n
            JOIN events AS e ON e.identity = n.value->>'identity' WHERE e.version = 1)
        WHERE shard = $1->>'shard'",
        "INSERT INTO tickets (id, identity, target, user_id, token, sent_at, due_at)
        SELECT value->>'id', value->>'identity', value->>'target', value->>'user_id', value->>'token', value->>'sent_at',
            value->>'due_at'
        FROM json_each($4) WHERE true
        ON CONFLICT (id) DO NOTHING",
        super::letters::insert_sqlite!("$2"),
    ],
    postgres: "WITH given AS MATERIALIZED (
        SELECT j->>'owner' AS owner, (j->>'shard')::bigint AS shard FROM (SELECT $1::json AS j) AS parsed
    ), recorded AS (
        INSERT INTO events AS e (identity, event_id, session_id, partner_id, event, fingerprint, state, reason, detail,
            via, route, attempt, replay, queue, first_seen, updated_at, next_at, expires_at, crashes, repeats, id_reused,
            evidence, targets, attempts)
        SELECT * FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
            $11::text[], $12::text[], $13::text[], $14::bigint[], $15::bigint[], $16::text[], $17::bigint[], $18::bigint[],
            $19::bigint[], $20::bigint[], $21::bigint[], $22::bigint[], $23::bigint[], $24::text[], $25::text[], $26::text[])
        ON CONFLICT (identity) DO UPDATE SET event_id = excluded.event_id, session_id = excluded.session_id,
            partner_id = excluded.partner_id, event = excluded.event, fingerprint = excluded.fingerprint,
            state = excluded.state, reason = excluded.reason, detail = excluded.detail, via = excluded.via,
            route = excluded.route, attempt = excluded.attempt, replay = excluded.replay, queue = excluded.queue,
            first_seen = excluded.first_seen, updated_at = excluded.updated_at, next_at = excluded.next_at,
            expires_at = excluded.expires_at, crashes = excluded.crashes, repeats = excluded.repeats,
            id_reused = excluded.id_reused, evidence = excluded.evidence, targets = excluded.targets,
            attempts = excluded.attempts, owner = nullif(e.owner, (SELECT owner FROM given)), version = e.version + 1,
            unrecorded = false
        RETURNING e.version
    ), counted AS (
        UPDATE received SET total = total + (SELECT count(*) FROM recorded WHERE version = 1)
        WHERE shard = (SELECT shard FROM given) AND EXISTS (SELECT 1 FROM recorded WHERE version = 1)
    ), ticketed AS (
        INSERT INTO tickets (id, identity, target, user_id, token, sent_at, due_at)
        SELECT * FROM unnest($27::text[], $28::text[], $29::text[], $30::text[], $31::text[], $32::bigint[], $33::bigint[])
        ON CONFLICT (id) DO NOTHING
    )
    INSERT INTO dead_letters (id, identity, session_id, partner_id, event, reason, error, route, attempt, replay,
        failed_at, first_seen, content_type, body_bytes, headers, body)
    SELECT id, identity, session_id, partner_id, event, reason, error, route, attempt, replay,
        failed_at, first_seen, content_type, body_bytes, headers, body
    FROM json_to_recordset($2::json) AS l (id text, identity text, session_id text, partner_id text,
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
        SELECT state, via, reason, count(*), sum(repeats)::bigint, sum(id_reused)::bigint
        FROM events WHERE NOT unrecorded GROUP BY 1, 2, 3
        UNION ALL
        SELECT 'waiting', NULL, NULL, count(*), 0, 0 FROM events WHERE unrecorded",
};

/// By the index of the books: what waits is a small part of the rows.
const WAITING: Statement = Statement {
    name: "waiting",
    writes: false,
    sqlite: &["SELECT queue, min(first_seen) AS oldest, sum(CASE WHEN next_at < $1->>'late' THEN 1 ELSE 0 END) AS overdue
        FROM events WHERE state = 'waiting' GROUP BY queue"],
    postgres: "SELECT queue, min(first_seen) AS oldest, count(*) FILTER (WHERE next_at < ($1::json->>'late')::bigint) AS overdue
        FROM (
            SELECT queue, first_seen, next_at FROM events WHERE state = 'waiting' AND NOT unrecorded
            UNION ALL SELECT NULL, first_seen, NULL FROM events WHERE unrecorded
        ) AS waiting GROUP BY queue",
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
fn parameters(db: &Database, worker: &Worker, records: &[Arc<Record>]) -> Result<Parameters, StoreError> {
    let tickets: Vec<&Ticket> = records.iter().flat_map(|record| &record.tickets).collect();
    let letters: Vec<LetterRow> =
        records.iter().filter_map(|record| record.letter.as_deref()).map(LetterRow::new).collect();
    let entries: Vec<&Entry> = records.iter().map(|record| &record.entry).collect();
    let header = Parameter { owner: &worker.owner, shard: worker.shard };
    let mut texts = vec![write(&header)?, write(&letters)?];
    if db.is_sqlite() {
        texts.extend([write(&entries)?, write(&tickets)?]);
        return Ok(Parameters::Texts(texts));
    }
    Columns::after(&texts)
        .texts(&entries, |entry| entry.identity.as_str())
        .texts(&entries, |entry| entry.event_id.as_str())
        .texts(&entries, |entry| entry.session_id.as_deref())
        .texts(&entries, |entry| entry.partner_id.as_deref())
        .texts(&entries, |entry| entry.event.as_deref())
        .texts(&entries, |entry| entry.fingerprint.as_str())
        .texts(&entries, |entry| entry.state.as_str())
        .texts(&entries, |entry| entry.reason.as_deref())
        .texts(&entries, |entry| entry.detail.as_deref())
        .texts(&entries, |entry| entry.via.map(Via::as_str))
        .texts(&entries, |entry| entry.route.as_deref())
        .numbers(&entries, |entry| i64::from(entry.attempt))
        .numbers(&entries, |entry| i64::from(entry.replay))
        .texts(&entries, |entry| entry.queue.as_deref())
        .numbers(&entries, |entry| entry.first_seen)
        .numbers(&entries, |entry| entry.updated_at)
        .numbers(&entries, |entry| entry.next_at)
        .numbers(&entries, |entry| entry.expires_at)
        .numbers(&entries, |entry| i64::from(entry.crashes))
        .numbers(&entries, |entry| i64::from(entry.repeats))
        .numbers(&entries, |entry| i64::from(entry.id_reused))
        .json(&entries, |entry| &entry.evidence)
        .json(&entries, |entry| &entry.targets)
        .json(&entries, |entry| &entry.attempts)
        .texts(&tickets, |ticket| ticket.id.as_str())
        .texts(&tickets, |ticket| ticket.identity.as_str())
        .texts(&tickets, |ticket| ticket.target.as_str())
        .texts(&tickets, |ticket| ticket.user_id.as_str())
        .texts(&tickets, |ticket| ticket.token.as_str())
        .numbers(&tickets, |ticket| ticket.sent_at)
        .numbers(&tickets, |ticket| ticket.due_at)
        .parameters()
}

/// Writes a batch; one answer per record, in order.
pub(super) async fn record_batch(
    db: Database,
    worker: Arc<Worker>,
    records: Vec<Arc<Record>>,
) -> Vec<Result<(), StoreError>> {
    let run = |part: &[Arc<Record>]| -> BoxFuture<'static, Result<Vec<()>, StoreError>> {
        let (db, count) = (db.clone(), part.len());
        let parameters = parameters(&db, &worker, part);
        Box::pin(async move {
            db.call_with::<()>(&RECORD, parameters?).await?;
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
