//! The ledger's database: pools, migrations, and the one way statements are run.
//!
//! Called by every file of the store that holds statements. Bounds, counts and times each call; holds no statement of its
//! own beyond migrations.

use std::{sync::Arc, time::Instant};

use serde::Serialize;
use sqlx::{
    AssertSqlSafe, Connection, FromRow, PgPool, SqlitePool,
    migrate::MigrateError,
    postgres::{PgArguments, PgConnectOptions, PgRow},
    query::QueryAs,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};

use super::{
    StoreError,
    connect::{Address, CALL_TIMEOUT, connect_once, postgres_pool, quoted, sqlite_pool},
    error::{STORE, classify, classify_migration},
    row::write,
};

static SQLITE: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: sqlx::migrate::Migrator = sqlx::migrate!("migrations/postgres");

/// Migrations may rebuild tables and wait for another worker's.
const MIGRATION_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

/// Pause between two tries to open a SQLite file that somebody else opens.
const LOCKED_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Where the ledger lies when the URL does not say.
const DEFAULT_SCHEMA: &str = "herald";

/// One call in both dialects; `$1` and so on are its [`Parameters`].
pub(super) struct Statement {
    /// Label of the metrics.
    pub name: &'static str,
    /// Whether SQLite's one writing connection is needed.
    pub writes: bool,
    /// Several texts are one transaction; what each returns comes one after the other.
    pub sqlite: &'static [&'static str],
    pub postgres: &'static str,
}

/// What a statement is given.
pub(super) enum Parameters {
    /// JSON texts, on either database.
    Texts(Vec<String>),
    /// For PostgreSQL where many rows go in: an array for each column. As JSON they cost it more than to insert them.
    Columns(PgArguments),
}

/// A handle to the ledger's database.
#[derive(Clone)]
pub(super) struct Database {
    pools: Pools,
    place: Arc<str>,
}

#[derive(Clone)]
enum Pools {
    /// SQLite has one writer at a time: writes queue here, in order, and not inside SQLite, where they would time out.
    Sqlite {
        write: SqlitePool,
        read: SqlitePool,
    },
    Postgres(PgPool),
}

impl Database {
    /// Connects and migrates.
    pub async fn open(url: &str) -> Result<Database, StoreError> {
        let address = Address::parse(STORE, url)?;
        let place: Arc<str> = address.place().into();
        let opening = async {
            match address {
                Address::Sqlite(options) => open_sqlite(*options).await,
                Address::Postgres { options, schema } => {
                    let schema = schema.as_deref().unwrap_or(DEFAULT_SCHEMA);
                    migrate_postgres(&options, schema).await?;
                    Ok(Pools::Postgres(postgres_pool(*options, Some(schema), 8).await?))
                }
            }
        };
        match tokio::time::timeout(MIGRATION_TIMEOUT, opening).await {
            Ok(Ok(pools)) => Ok(Database { pools, place }),
            Ok(Err(error)) => Err(classify_migration(&place, error)),
            Err(_) => Err(StoreError::Unavailable(format!("{place}: opening took over {MIGRATION_TIMEOUT:?}"))),
        }
    }

    /// Tells whether the database takes one writer only.
    pub fn is_sqlite(&self) -> bool {
        matches!(self.pools, Pools::Sqlite { .. })
    }

    /// Runs a statement and returns its rows. All of it happens, or nothing.
    pub async fn call<T>(&self, statement: &Statement, parameter: &impl Serialize) -> Result<Vec<T>, StoreError>
    where
        T: Send + Unpin + for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow>,
    {
        self.call_with(statement, Parameters::Texts(vec![write(parameter)?])).await
    }

    /// Does what [`Database::call`] does with parameters as the statement wants them on this database.
    pub async fn call_with<T>(&self, statement: &Statement, parameters: Parameters) -> Result<Vec<T>, StoreError>
    where
        T: Send + Unpin + for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow>,
    {
        let running = async {
            match (&self.pools, parameters) {
                (Pools::Sqlite { write, .. }, Parameters::Texts(texts)) if statement.writes => {
                    in_transaction(write, statement, &texts).await
                }
                (Pools::Sqlite { read, .. }, Parameters::Texts(texts)) => {
                    let mut rows = Vec::new();
                    for text in statement.sqlite {
                        rows.extend(bound(text, &texts).fetch_all(read).await?);
                    }
                    Ok(rows)
                }
                (Pools::Sqlite { .. }, Parameters::Columns(_)) => {
                    Err(sqlx::Error::InvalidArgument("SQLite takes no columns".to_owned()))
                }
                (Pools::Postgres(pool), Parameters::Texts(texts)) => {
                    bound(statement.postgres, &texts).fetch_all(pool).await
                }
                (Pools::Postgres(pool), Parameters::Columns(columns)) => {
                    sqlx::query_as_with(statement.postgres, columns).fetch_all(pool).await
                }
            }
        };
        timed(statement.name, &self.place, running).await?.map_err(|error| classify(STORE, &self.place, &error))
    }
}

/// Returns a query with its parameters.
fn bound<'q, D, T>(text: &'static str, parameters: &'q [String]) -> QueryAs<'q, D, T, D::Arguments>
where
    D: sqlx::Database,
    T: for<'r> FromRow<'r, D::Row>,
    &'q str: sqlx::Encode<'q, D> + sqlx::Type<D>,
{
    parameters.iter().fold(sqlx::query_as(text), |query, text| query.bind(text.as_str()))
}

/// Counts and times one statement and bounds it.
pub(super) async fn timed<T>(
    name: &'static str,
    place: &str,
    running: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<Result<T, sqlx::Error>, StoreError> {
    let start = Instant::now();
    let answer = tokio::time::timeout(CALL_TIMEOUT, running).await;
    metrics::counter!("herald_store_statements_total", "statement" => name).increment(1);
    metrics::histogram!("herald_store_duration_seconds", "statement" => name).record(start.elapsed().as_secs_f64());
    answer.map_err(|_| StoreError::Unavailable(format!("{place}: `{name}` had no answer within {CALL_TIMEOUT:?}")))
}

/// Runs a statement's texts on the writing connection, in one transaction.
async fn in_transaction<T>(pool: &SqlitePool, statement: &Statement, texts: &[String]) -> Result<Vec<T>, sqlx::Error>
where
    T: Send + Unpin + for<'r> FromRow<'r, SqliteRow>,
{
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let mut rows = Vec::new();
    for text in statement.sqlite {
        rows.extend(bound(text, texts).fetch_all(&mut *transaction).await?);
    }
    transaction.commit().await?;
    Ok(rows)
}

/// Opens the file and applies migrations, beside whoever else starts in this moment. Where two could wait for each other for ever (the first
/// change to WAL), SQLite refuses one of them at once, whatever its timeout. https://www.sqlite.org/c3ref/busy_handler.html
async fn open_sqlite(options: SqliteConnectOptions) -> Result<Pools, MigrateError> {
    let options =
        options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
    let begun = Instant::now();
    let write = loop {
        match migrate_sqlite(&options).await {
            Err(error) if is_locked(&error) && begun.elapsed() < CALL_TIMEOUT => tokio::time::sleep(LOCKED_PAUSE).await,
            migrated => break migrated?,
        }
    };
    Ok(Pools::Sqlite { write, read: sqlite_pool(options, 4).await? })
}

async fn migrate_sqlite(options: &SqliteConnectOptions) -> Result<SqlitePool, MigrateError> {
    let write = sqlite_pool(options.clone(), 1).await?;
    // A second process that starts in this moment waits for the lock and then finds the work done.
    let mut transaction = write.begin_with("BEGIN IMMEDIATE").await?;
    SQLITE.run(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(write)
}

/// Tells whether somebody else holds the file: SQLITE_BUSY. https://www.sqlite.org/rescode.html#busy
fn is_locked(error: &MigrateError) -> bool {
    let (MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _)) = error else { return false };
    let code = source.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

/// Makes the schema and applies migrations inside it, one worker at a time.
async fn migrate_postgres(options: &PgConnectOptions, schema: &str) -> Result<(), MigrateError> {
    let mut connection = connect_once(options).await?;
    // The lock ends with the connection, however this ends. sqlx's own lock covers the whole database and comes too late
    // for the schema, which two workers cannot create at once.
    sqlx::query("SELECT pg_advisory_lock(hashtextextended('herald migrations in ' || $1, 0))")
        .bind(schema)
        .execute(&mut connection)
        .await?;
    let present: Option<(i32,)> = sqlx::query_as("SELECT 1 FROM pg_namespace WHERE nspname = $1")
        .bind(schema)
        .fetch_optional(&mut connection)
        .await?;
    let schema = quoted(schema);
    if present.is_none() {
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).execute(&mut connection).await?;
    }
    sqlx::raw_sql(AssertSqlSafe(format!("SET search_path TO {schema}"))).execute(&mut connection).await?;
    POSTGRES.run(&mut connection).await?;
    connection.close().await?;
    Ok(())
}
