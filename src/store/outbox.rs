//! The backend's table of events: rows are taken under lock, and settled in the same transaction.
//!
//! Called by the relay and by `check`. The table is the backend's (`config/outbox`), so every statement names it whole and
//! none relies on a search path, which a connection pooler would not keep. Holds no decision about a row.

mod texts;

use std::{sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    AssertSqlSafe, Executor, FromRow, PgPool, Row as _, SqlSafeStr, Transaction,
    postgres::{PgListener, PgRow, Postgres},
};

use crate::domain::outbox::{Bad, Row};

use super::{
    StoreError,
    connect::{Address, postgres_pool, quoted},
    database::timed,
    error::{Keys, classify},
};

use texts::{BEGIN, FIND, Texts};

/// What the trigger notifies.
pub const CHANNEL: &str = "herald_outbox";
/// Most rows counted for a gauge.
pub const COUNTED: i64 = 100_000;
/// Rows deleted in one statement.
const PRUNE_BATCH: i64 = 1_000;
/// One to take rows, one to look and prune, one to listen.
const CONNECTIONS: u32 = 3;

/// How full the table is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Rows that wait; at most [`COUNTED`].
    pub waiting: i64,
    /// Age of the oldest of them.
    pub oldest: Duration,
    /// Rows marked as bad; at most [`COUNTED`].
    pub failed: i64,
}

/// A handle to the table: clones share the pool.
#[derive(Clone)]
pub struct Outbox {
    pool: PgPool,
    place: String,
    keys: Keys,
    /// Quoted, for statements.
    table: String,
    texts: Arc<Texts>,
    /// As the trigger names it.
    name: String,
    notifies: bool,
}

/// Rows taken, and the transaction that holds them; dropped, it gives them back.
pub struct Taken {
    pub rows: Vec<Row>,
    transaction: Transaction<'static, Postgres>,
    outbox: Outbox,
}

impl Outbox {
    /// Connects and makes sure that the table is there as herald needs it. `key` is the configuration key that `url` is from.
    pub async fn open(url: &SecretString, key: &'static str, table: &str) -> Result<Outbox, StoreError> {
        let keys = Keys { url: key, statement: "outbox.table" };
        let address = Address::parse(keys, url.expose_secret())?;
        let place = address.place();
        let Address::Postgres { options, schema } = address else {
            return Err(StoreError::Config(format!("{key}: the outbox needs PostgreSQL: set outbox.url")));
        };
        let table = match (table.split_once('.'), &schema) {
            (Some((schema, table)), _) => format!("{}.{}", quoted(schema), quoted(table)),
            (None, Some(schema)) => format!("{}.{}", quoted(schema), quoted(table)),
            (None, None) => quoted(table),
        };
        let pool = postgres_pool(*options, None, CONNECTIONS).await.map_err(|error| classify(keys, &place, &error))?;
        let texts = Arc::new(Texts::new(&table));
        let mut outbox = Outbox { pool, place, keys, table, texts, name: String::new(), notifies: false };
        outbox.find().await?;
        Ok(outbox)
    }

    async fn find(&mut self) -> Result<(), StoreError> {
        let finding = async {
            let found = sqlx::query(FIND).bind(&self.table).persistent(false).fetch_optional(&self.pool).await?;
            let Some(found) = found else { return Ok(None) };
            let found: (String, bool, bool) = FromRow::from_row(&found)?;
            // Has the database check every column.
            for text in [&self.texts.take, &self.texts.look] {
                self.pool.prepare(AssertSqlSafe(text.as_str()).into_sql_str()).await?;
            }
            Ok(Some(found))
        };
        let found = timed("outbox_find", &self.place, finding).await?.map_err(|error| self.refused(&error))?;
        let Some((name, allowed, notifies)) = found else {
            return Err(StoreError::Config(format!(
                "outbox.table: there is no table {} in {}: {}",
                self.table, self.place, REMEDY
            )));
        };
        if !allowed {
            return Err(StoreError::Config(format!(
                "outbox.table: the user in {} may not SELECT, UPDATE and DELETE in {name}: grant all three",
                self.keys.url
            )));
        }
        (self.name, self.notifies) = (name, notifies);
        Ok(())
    }

    /// Returns schema and name of the table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells whether the table has the trigger that wakes relays.
    pub fn notifies(&self) -> bool {
        self.notifies
    }

    /// Takes at most `batch` rows. They are nobody else's until they are settled or dropped, or a minute has passed.
    pub async fn take(&self, batch: u32) -> Result<Taken, StoreError> {
        let taking = async {
            let mut transaction = self.pool.begin_with(BEGIN).await?;
            let text = AssertSqlSafe(self.texts.take.as_str());
            let rows = sqlx::query(text).bind(i64::from(batch)).persistent(false).fetch_all(&mut *transaction).await?;
            let rows = rows.iter().map(row).collect::<Result<Vec<_>, _>>()?;
            Ok(Taken { rows, transaction, outbox: self.clone() })
        };
        timed("outbox_take", &self.place, taking).await?.map_err(|error| self.refused(&error))
    }

    /// Deletes rows published longer than `retention` ago; returns how many.
    pub async fn prune(&self, retention: Duration) -> Result<u64, StoreError> {
        let millis = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX / 2);
        let mut deleted = 0;
        loop {
            let pruning = async {
                let text = AssertSqlSafe(self.texts.prune.as_str());
                let query = sqlx::query(text).bind(millis).bind(PRUNE_BATCH).persistent(false);
                Ok(query.execute(&self.pool).await?.rows_affected())
            };
            let gone = timed("outbox_prune", &self.place, pruning).await?.map_err(|error| self.refused(&error))?;
            deleted += gone;
            if gone < PRUNE_BATCH as u64 {
                return Ok(deleted);
            }
        }
    }

    /// Looks how full the table is.
    pub async fn look(&self) -> Result<Look, StoreError> {
        let looking = async {
            let text = AssertSqlSafe(self.texts.look.as_str());
            let row = sqlx::query(text).bind(COUNTED).persistent(false).fetch_one(&self.pool).await?;
            let micros: i64 = row.try_get("oldest")?;
            let oldest = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
            Ok(Look { waiting: row.try_get("waiting")?, oldest, failed: row.try_get("failed")? })
        };
        timed("outbox_look", &self.place, looking).await?.map_err(|error| self.refused(&error))
    }

    /// Starts listening for notifications.
    pub async fn listen(&self) -> Result<PgListener, StoreError> {
        let listening = async {
            let mut listener = PgListener::connect_with(&self.pool).await?;
            listener.ignore_pool_close_event(true);
            listener.listen(CHANNEL).await?;
            Ok(listener)
        };
        timed("outbox_listen", &self.place, listening).await?.map_err(|error| self.refused(&error))
    }

    /// Closes the connections; what is in a transaction is given back.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(Duration::from_secs(2), self.pool.close()).await;
    }

    /// Says what an error means; a table that does not fit gets the way to mend it.
    fn refused(&self, error: &sqlx::Error) -> StoreError {
        if let sqlx::Error::Database(refusal) = error
            && matches!(refusal.code().as_deref(), Some("42P01" | "42703" | "42883" | "3F000"))
        {
            let message = crate::domain::redact(refusal.message());
            return StoreError::Config(format!("outbox.table: {message} in {}: {REMEDY}", self.place));
        }
        classify(self.keys, &self.place, error)
    }
}

const REMEDY: &str = "make the table with config/outbox/herald_outbox.sql (`herald outbox --print sql` has it), or correct \
     outbox.table or outbox.url";

impl Taken {
    /// Deletes what was published, or marks it with `keep`; marks what is bad; gives the rest back. All of it or nothing.
    pub async fn settle(mut self, published: &[i64], bad: &[Bad], keep: bool) -> Result<(), StoreError> {
        let outbox = self.outbox.clone();
        let settling = async {
            if !published.is_empty() {
                let text = if keep { &outbox.texts.mark_published } else { &outbox.texts.delete };
                sqlx::query(AssertSqlSafe(text.as_str()))
                    .bind(published)
                    .persistent(false)
                    .execute(&mut *self.transaction)
                    .await?;
            }
            if !bad.is_empty() {
                let (seqs, errors): (Vec<i64>, Vec<&str>) = bad.iter().map(|bad| (bad.seq, bad.error.as_str())).unzip();
                let text = AssertSqlSafe(outbox.texts.mark_bad.as_str());
                sqlx::query(text).bind(seqs).bind(errors).persistent(false).execute(&mut *self.transaction).await?;
            }
            self.transaction.commit().await
        };
        timed("outbox_settle", &outbox.place, settling).await?.map_err(|error| outbox.refused(&error))
    }
}

fn row(row: &PgRow) -> Result<Row, sqlx::Error> {
    Ok(Row {
        seq: row.try_get("seq")?,
        id: row.try_get("id")?,
        session_id: row.try_get("session_id")?,
        event: row.try_get("event")?,
        partner_id: row.try_get("partner_id")?,
        exclude_user_id: row.try_get("exclude_user_id")?,
        data: row.try_get("data")?,
        data_bytes: row.try_get("data_bytes")?,
        occurred_at: row.try_get("occurred_at")?,
        expires_at: row.try_get("expires_at")?,
        created_at: row.try_get("created_at")?,
        traceparent: row.try_get("traceparent")?,
        age: row.try_get("age")?,
        behind: row.try_get("behind")?,
    })
}
