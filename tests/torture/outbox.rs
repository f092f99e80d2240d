//! The backend of the outbox rounds: writes events as rows, in transactions, and knows which of them have committed.
//!
//! Goes to PostgreSQL directly, never through a relay. A commit whose answer is lost is written again under the same ids, as a
//! backend that retries its request would; now and then a transaction is rolled back, and nothing of it may ever arrive.

use std::{
    ops::Range,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::{publisher::Publisher, stage::Stage};

const TABLE: &str = include_str!("../../config/outbox/herald_outbox.sql");
/// Holds every DELETE up while the harness has the lock, and nothing else.
const HOLD: &str = "CREATE FUNCTION hold_settle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM pg_advisory_xact_lock_shared(hashtextextended(TG_TABLE_SCHEMA, 7)); RETURN NULL; END $$;
    CREATE TRIGGER hold_settle BEFORE DELETE ON herald_outbox FOR EACH STATEMENT EXECUTE FUNCTION hold_settle()";
/// Rows of one transaction.
const CHUNK: u64 = 5;
/// Every so many transactions one more is rolled back.
const UNDONE: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(300);
const CALL: Duration = Duration::from_secs(20);

/// Where rows are written to.
#[derive(Clone)]
pub struct Outbox {
    pub url: String,
    pub schema: String,
}

impl Outbox {
    async fn connect(&self) -> anyhow::Result<PgConnection> {
        let mut connection =
            tokio::time::timeout(CALL, PgConnection::connect(&self.url)).await.context("connect")??;
        let path = format!(r#"SET search_path TO "{}""#, self.schema);
        connection.execute(sqlx::raw_sql(AssertSqlSafe(path))).await?;
        Ok(connection)
    }

    /// Writes the events of `range` in order, at most `rate` a second (0: as fast as they commit), until all have committed.
    pub async fn write(&self, publisher: &Publisher, range: Range<u64>, rate: f64) -> anyhow::Result<()> {
        let (started, mut since_progress, mut written) = (Instant::now(), Instant::now(), 0u64);
        let mut connection = None;
        let mut from = range.start;
        while from < range.end {
            let to = (from + CHUNK).min(range.end);
            let chunk = async {
                if connection.is_none() {
                    connection = Some(self.connect().await?);
                }
                let connection = connection.as_mut().context("connected")?;
                if (from / CHUNK).is_multiple_of(UNDONE) {
                    transact(connection, publisher, from..to, false).await?;
                }
                transact(connection, publisher, from..to, true).await
            };
            match tokio::time::timeout(CALL, chunk).await {
                Ok(Ok(())) => {
                    for n in from..to {
                        publisher.sheet.note(n, |sent| sent.confirmed = true);
                        publisher.confirmed.fetch_add(1, Relaxed);
                    }
                    written += to - from;
                    (from, since_progress) = (to, Instant::now());
                }
                _ => {
                    connection = None;
                    ensure!(since_progress.elapsed() < PATIENCE, "no row could be written for {PATIENCE:?}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
            if rate > 0.0
                && let Some(early) = Duration::from_secs_f64(written as f64 / rate).checked_sub(started.elapsed())
            {
                tokio::time::sleep(early).await;
            }
        }
        Ok(())
    }
}

/// Writes the rows of `range` in one transaction; undone ones have ids that belong to no event.
async fn transact(
    connection: &mut PgConnection,
    publisher: &Publisher,
    range: Range<u64>,
    commit: bool,
) -> anyhow::Result<()> {
    let script = &publisher.script;
    let mut transaction = connection.begin().await?;
    for n in range {
        let session = script.session(n);
        let id = if commit { script.id(n) } else { format!("{}-undone-{n}", script.prefix) };
        if commit {
            publisher.sheet.note(n, |sent| sent.publishes += 1);
        }
        let insert =
            "INSERT INTO herald_outbox (id, session_id, event, partner_id, data) VALUES ($1, $2, $3, $4, $5::jsonb)";
        let insert = sqlx::query(insert).bind(id).bind(script.session_id(session)).bind(script.name(n));
        let insert = insert.bind(script.user(session)).bind(format!("{{\"n\": {n}}}"));
        insert.execute(&mut *transaction).await?;
    }
    if commit {
        transaction.commit().await?
    } else {
        transaction.rollback().await?
    }
    Ok(())
}

impl Stage {
    /// Says where the backend of this round writes.
    pub fn outbox(&self) -> Outbox {
        Outbox { url: self.services.database.to_string(), schema: self.app() }
    }

    pub async fn make_outbox(&self) -> anyhow::Result<()> {
        let mut connection = self.outbox().connect().await?;
        connection.execute(sqlx::raw_sql(TABLE)).await?;
        connection.execute(sqlx::raw_sql(HOLD)).await?;
        connection.close().await?;
        Ok(())
    }

    /// Returns how many rows are in the outbox, none when there is no outbox.
    pub async fn unrelayed(&self) -> anyhow::Result<u64> {
        if self.relays_of_rows().is_empty() {
            return Ok(0);
        }
        let count = format!(r#"SELECT count(*) FROM "{}".herald_outbox"#, self.app());
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&self.pool).await?;
        Ok(count as u64)
    }

    /// Lets no relay settle its rows until the connection is closed.
    pub async fn hold_settling(&self) -> anyhow::Result<PgConnection> {
        let mut connection = self.outbox().connect().await?;
        let lock = "SELECT pg_advisory_lock(hashtextextended($1, 7))";
        sqlx::query(lock).bind(self.app()).execute(&mut connection).await?;
        Ok(connection)
    }

    /// Tells whether a relay waits to settle.
    pub async fn settling_waits(&self) -> anyhow::Result<bool> {
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
            AND ((classid::bigint << 32) | objid::bigint) = hashtextextended($1, 7)";
        let waiting: i64 = sqlx::query_scalar(waiting).bind(self.app()).fetch_one(&self.pool).await?;
        Ok(waiting > 0)
    }

    /// Returns how many repeats the workers have seen and suppressed since each was started.
    pub async fn repeats(&self) -> u64 {
        let mut sum = 0;
        for port in self.ports() {
            let Ok(page) = reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await else { continue };
            let page = page.text().await.unwrap_or_default();
            let value = page.lines().find_map(|line| line.strip_prefix("herald_repeats_total "));
            sum += value.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
        }
        sum
    }
}
