//! Claims and the workers behind them: who is at an event, and who still lives.
//!
//! Called through [`Store::claim`] by the worker's third stop, and by its heartbeat. A claim is never a mark that an event
//! was seen: it only says who is at it. Time is the database's clock throughout.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use futures::future::BoxFuture;
use serde::Serialize;
use serde_json::json;

use crate::domain::{
    judge::CRASHES_ALONE,
    ledger::{Claim, Claimed, Entry},
};

use super::{
    Store, StoreError, Worker, batch,
    database::{Database, Parameters, Statement},
    row::{Columns, EventRow, write},
};

/// A claim holds while its owner lives, but not over thirty minutes (1800000 ms): by then RabbitMQ has taken the delivery
/// away from it, and a claim whose answer was lost must not keep an event from everybody for ever. An owner that ended in
/// order, or whose claim has merely grown old, did not die of the event. An event that `suspect` workers died over is given to
/// nobody until it is claimed alone: while it waits for its turn, the death of a worker is not its doing.
const CLAIM: Statement = Statement {
    name: "claim",
    writes: true,
    sqlite: &[
        "INSERT INTO events AS e (identity, event_id, session_id, partner_id, event, fingerprint, state, attempt, replay,
            first_seen, updated_at, expires_at, owner, claimed_at)
        SELECT c.value->>'identity', c.value->>'event_id', c.value->>'session_id', c.value->>'partner_id',
            c.value->>'event', c.value->>'fingerprint', 'waiting', c.value->>'attempt', c.value->>'replay',
            c.value->>'first_seen', c.value->>'first_seen', c.value->>'expires_at', (SELECT $1->>'owner'), clock.ms
        FROM json_each($2) AS c, clock WHERE true
        ON CONFLICT (identity) DO UPDATE SET version = e.version + 1, (owner, claimed_at, crashes) = (
            SELECT CASE WHEN fate.held THEN e.owner WHEN fate.crashes < $1->>'suspect' OR $1->>'alone' THEN excluded.owner END,
                CASE WHEN fate.held THEN e.claimed_at WHEN fate.crashes < $1->>'suspect' OR $1->>'alone' THEN excluded.claimed_at END,
                fate.crashes
            FROM (SELECT
                e.owner <> excluded.owner AND e.claimed_at > excluded.claimed_at - 1800000
                    AND e.owner IN (SELECT owner FROM living_workers) AS held,
                e.crashes + CASE WHEN e.owner <> excluded.owner AND e.owner NOT IN (SELECT owner FROM living_workers)
                    AND e.owner NOT IN (SELECT owner FROM workers WHERE ended = 'left') THEN 1 ELSE 0 END AS crashes) AS fate)
        RETURNING *",
        "UPDATE received SET total = total + (
            SELECT count(*) FROM json_each($2) AS c
            JOIN events AS e ON e.identity = c.value->>'identity' WHERE e.version = 1)
        WHERE shard = $1->>'shard'",
    ],
    postgres: "WITH given AS MATERIALIZED (
        SELECT j->>'owner' AS owner, (j->>'shard')::bigint AS shard, (j->>'alone')::boolean AS alone,
            (j->>'suspect')::bigint AS suspect FROM (SELECT $1::json AS j) AS parsed
    ), claimed AS (
        INSERT INTO events AS e (identity, event_id, session_id, partner_id, event, fingerprint, state, attempt, replay,
            first_seen, updated_at, expires_at, owner, claimed_at, unrecorded)
        SELECT c.identity, c.event_id, c.session_id, c.partner_id, c.event, c.fingerprint, 'waiting', c.attempt, c.replay,
            c.first_seen, c.first_seen, c.expires_at, given.owner, clock.ms, true
        FROM given, unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bigint[],
            $10::bigint[], $11::bigint[]) AS c (identity, event_id, session_id, partner_id, event, fingerprint, attempt,
            replay, first_seen, expires_at), clock
        ON CONFLICT (identity) DO UPDATE SET unrecorded = false, version = e.version + 1, (owner, claimed_at, crashes) = (
            SELECT CASE WHEN fate.held THEN e.owner WHEN fate.crashes < given.suspect OR given.alone THEN excluded.owner END,
                CASE WHEN fate.held THEN e.claimed_at WHEN fate.crashes < given.suspect OR given.alone THEN excluded.claimed_at END,
                fate.crashes
            FROM (SELECT
                e.owner <> excluded.owner AND e.claimed_at > excluded.claimed_at - 1800000
                    AND e.owner IN (SELECT owner FROM living_workers) AS held,
                e.crashes + CASE WHEN e.owner <> excluded.owner AND e.owner NOT IN (SELECT owner FROM living_workers)
                    AND e.owner NOT IN (SELECT owner FROM workers WHERE ended = 'left') THEN 1 ELSE 0 END AS crashes) AS fate, given)
        RETURNING *
    ), counted AS (
        UPDATE received SET total = total + (SELECT count(*) FROM claimed WHERE version = 1)
        WHERE shard = (SELECT shard FROM given) AND EXISTS (SELECT 1 FROM claimed WHERE version = 1)
    )
    SELECT * FROM claimed WHERE version > 1",
};

const GIVE_UP: Statement = Statement {
    name: "give_up",
    writes: true,
    sqlite: &["UPDATE events SET owner = NULL, claimed_at = NULL
        WHERE identity IN (SELECT value FROM json_each($1, '$.identities')) AND owner = $1->>'owner'"],
    postgres: "UPDATE events SET owner = NULL, claimed_at = NULL
        WHERE identity = ANY (ARRAY(SELECT json_array_elements_text($1::json->'identities'))) AND owner = (SELECT $1::json->>'owner')",
};

const ANNOUNCE: Statement = Statement {
    name: "announce",
    writes: true,
    sqlite: &[
        "UPDATE workers SET ended = 'superseded' WHERE ended IS NULL AND owner <> $1->>'owner'",
        "INSERT INTO workers (owner, instance, started_at, beat_at)
        SELECT $1->>'owner', $1->>'instance', ms, ms FROM clock WHERE true ON CONFLICT (owner) DO NOTHING",
    ],
    postgres: "WITH earlier AS (
        UPDATE workers SET ended = 'superseded'
        WHERE ended IS NULL AND instance = $1::json->>'instance' AND owner <> $1::json->>'owner'
    )
    INSERT INTO workers (owner, instance, started_at, beat_at)
    SELECT $1::json->>'owner', $1::json->>'instance', ms, ms FROM clock ON CONFLICT (owner) DO NOTHING",
};

const HEARTBEAT: Statement = Statement {
    name: "heartbeat",
    writes: true,
    sqlite: &[
        "INSERT INTO workers (owner, instance, started_at, beat_at, head_after)
        SELECT $1->>'owner', $1->>'instance', ms, ms, $1->>'head_after' FROM clock WHERE true
        ON CONFLICT (owner) DO UPDATE SET beat_at = excluded.beat_at, head_after = excluded.head_after",
        "SELECT ended, (SELECT count(*) FROM living_workers WHERE owner <> $1->>'owner') + 1 AS living
        FROM workers WHERE owner = $1->>'owner'",
    ],
    postgres: "WITH beat AS (
        INSERT INTO workers (owner, instance, started_at, beat_at, head_after)
        SELECT $1::json->>'owner', $1::json->>'instance', ms, ms, ($1::json->>'head_after')::bigint FROM clock
        ON CONFLICT (owner) DO UPDATE SET beat_at = excluded.beat_at, head_after = excluded.head_after RETURNING ended
    )
    SELECT ended, (SELECT count(*) FROM living_workers WHERE owner <> $1::json->>'owner') + 1 AS living FROM beat",
};

const WORKERS: Statement = Statement {
    name: "workers",
    writes: false,
    sqlite: &["SELECT instance, started_at, head_after FROM workers
        WHERE owner IN (SELECT owner FROM living_workers) ORDER BY instance, started_at"],
    postgres: "SELECT instance, started_at, head_after FROM workers
        WHERE owner IN (SELECT owner FROM living_workers) ORDER BY instance, started_at",
};

/// A worker that lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct WorkerMark {
    pub instance: String,
    /// Milliseconds since the epoch.
    pub started_at: i64,
    /// What lies in the events queue came later; `None`: it has neither taken an event nor seen the queue empty.
    pub head_after: Option<i64>,
}

const FAREWELL: Statement = Statement {
    name: "farewell",
    writes: true,
    sqlite: &["UPDATE workers SET ended = 'left' WHERE owner = $1->>'owner'"],
    postgres: "UPDATE workers SET ended = 'left' WHERE owner = $1::json->>'owner'",
};

#[derive(Serialize)]
struct Parameter<'a> {
    owner: &'a str,
    shard: u32,
    /// The claimant handles nothing beside this event.
    alone: bool,
    suspect: u32,
}

/// A row as a claim left it.
#[derive(sqlx::FromRow)]
struct ClaimedRow {
    #[sqlx(flatten)]
    row: EventRow,
    owner: Option<String>,
    version: i64,
}

/// Claims a batch; one answer per claim, in order.
pub(super) async fn claim_batch(
    db: Database,
    worker: Arc<Worker>,
    claims: Vec<Claim>,
) -> Vec<Result<Claimed, StoreError>> {
    let run = |part: &[Claim]| claim(&db, &worker, false, part);
    let answers = batch::each(claims, |claim| &claim.identity, run).await;
    answers.into_iter().map(|answer| answer.and_then(std::convert::identity)).collect()
}

/// Claims in one statement. Only what was seen before comes back as a row: at first sight there is nothing in it that the claim
/// did not say.
fn claim(
    db: &Database,
    worker: &Arc<Worker>,
    alone: bool,
    claims: &[Claim],
) -> BoxFuture<'static, Result<Vec<Result<Claimed, StoreError>>, StoreError>> {
    let (db, worker) = (db.clone(), worker.clone());
    let header = Parameter { owner: &worker.owner, shard: worker.shard, alone, suspect: CRASHES_ALONE };
    let parameters = parameters(&db, &header, claims);
    let firsts: Vec<Entry> = claims.iter().map(Entry::first).collect();
    Box::pin(async move {
        let rows = db.call_with::<ClaimedRow>(&CLAIM, parameters?).await?;
        let seen = rows.into_iter().filter(|row| row.version > 1);
        let mut seen: HashMap<String, ClaimedRow> = seen.map(|row| (row.row.identity().to_owned(), row)).collect();
        let answer = |first: Entry| match seen.remove(&first.identity) {
            None => Ok(Claimed::Granted { first: true, entry: Box::new(first) }),
            Some(ClaimedRow { owner: Some(owner), .. }) if owner != worker.owner => Ok(Claimed::Foreign { owner }),
            Some(row) => Ok(Claimed::Granted { first: false, entry: Box::new(row.row.entry()?) }),
        };
        Ok(firsts.into_iter().map(answer).collect())
    })
}

/// Returns the parameters of [`CLAIM`]; rows are locked in the order in which they stand here, which is the batch's.
fn parameters(db: &Database, header: &Parameter<'_>, claims: &[Claim]) -> Result<Parameters, StoreError> {
    let header = write(header)?;
    if db.is_sqlite() {
        return Ok(Parameters::Texts(vec![header, write(&claims)?]));
    }
    Columns::after(&[header])
        .texts(claims, |claim| claim.identity.as_str())
        .texts(claims, |claim| claim.event_id.as_str())
        .texts(claims, |claim| claim.session_id.as_str())
        .texts(claims, |claim| claim.partner_id.as_deref())
        .texts(claims, |claim| claim.event.as_str())
        .texts(claims, |claim| claim.fingerprint.as_str())
        .numbers(claims, |claim| i64::from(claim.attempt))
        .numbers(claims, |claim| i64::from(claim.replay))
        .numbers(claims, |claim| claim.first_seen)
        .numbers(claims, |claim| claim.expires_at)
        .parameters()
}

impl Store {
    /// Claims an identity that workers died over, for a caller that handles nothing beside it. [`Store::claim`] grants such
    /// an event without owning it.
    pub async fn claim_alone(&self, claim: Claim) -> Result<Claimed, StoreError> {
        let answers = self::claim(&self.db, &self.worker, true, &[claim]).await?;
        answers.into_iter().next().unwrap_or_else(|| Err(StoreError::Data("the claim had no answer".to_owned())))
    }

    /// Gives claims up without writing anything else: for events that leave this worker without an outcome (their delivery
    /// is lost, or the answer to the claim was).
    pub async fn give_up(&self, identities: &[String]) -> Result<(), StoreError> {
        for identities in identities.chunks(super::BATCH) {
            let parameter = json!({ "owner": self.worker.owner, "identities": identities });
            self.db.call::<()>(&GIVE_UP, &parameter).await?;
        }
        Ok(())
    }

    /// Announces this start and voids the claims of earlier ones.
    pub(super) async fn announce(&self) -> Result<(), StoreError> {
        self.db.call::<()>(&ANNOUNCE, &self.who()).await?;
        Ok(())
    }

    /// Says that this worker lives, and returns how many do, itself included. Fails with [`StoreError::Config`] when another
    /// start has taken its place: the same `instance`, or any second worker on SQLite.
    pub async fn heartbeat(&self) -> Result<u32, StoreError> {
        let mut parameter = self.who();
        let head_after = self.worker.head_after.load(Ordering::Relaxed);
        parameter["head_after"] = (head_after > 0).then_some(head_after).into();
        let rows: Vec<(Option<String>, i64)> = self.db.call(&HEARTBEAT, &parameter).await?;
        match rows.into_iter().next() {
            Some((Some(ended), _)) if ended == "superseded" => Err(StoreError::Config(match self.db.is_sqlite() {
                true => {
                    "store.url: another worker took over this SQLite file: several workers need PostgreSQL".to_owned()
                }
                false => format!("instance: another worker runs as `{}`: names must differ", self.worker.instance),
            })),
            Some((_, living)) => Ok(u32::try_from(living).unwrap_or(u32::MAX)),
            None => Err(StoreError::Unavailable("the heartbeat returned no row".to_owned())),
        }
    }

    /// Notes for the next heartbeat that the head of the events queue came later than `at`, in milliseconds since the epoch: an
    /// event that came then was taken, or the queue was empty.
    pub fn note_head(&self, at: i64) {
        self.worker.head_after.fetch_max(at, Ordering::Relaxed);
    }

    /// Returns what [`Store::note_head`] was told last.
    pub fn head_after(&self) -> Option<i64> {
        Some(self.worker.head_after.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    /// Lists the workers that live.
    pub async fn workers(&self) -> Result<Vec<WorkerMark>, StoreError> {
        self.db.call(&WORKERS, &json!({})).await
    }

    /// Says that this worker ends in order: what it still claims is free at once and no crash is counted.
    pub async fn farewell(&self) -> Result<(), StoreError> {
        self.db.call::<()>(&FAREWELL, &self.who()).await?;
        Ok(())
    }

    fn who(&self) -> serde_json::Value {
        json!({ "owner": self.worker.owner, "instance": self.worker.instance })
    }
}
