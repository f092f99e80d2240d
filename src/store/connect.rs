//! Reads database URLs and opens pools: SQLite by path, PostgreSQL with a schema in the query string.
//!
//! Called by the ledger's and the users' database. Must never put a URL into an error or a log line: it has a password.

use std::{str::FromStr, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgPool, SqlitePool,
    postgres::{PgConnectOptions, PgConnection, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use url::Url;

use super::{
    StoreError,
    error::{Keys, classify},
};

/// How long one call may take, waiting for a connection included.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a call may wait for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a database is.
pub(super) enum Address {
    Sqlite(Box<SqliteConnectOptions>),
    Postgres { options: Box<PgConnectOptions>, schema: Option<String> },
}

impl Address {
    /// Reads `sqlite://path` (also Prisma's `file:path`) or `postgres://…?schema=name`.
    pub fn parse(keys: Keys, url: &str) -> Result<Address, StoreError> {
        let malformed = |why: &str| StoreError::Config(format!("{}: not a database URL: {why}", keys.url));
        let (scheme, rest) = url.split_once(':').ok_or_else(|| malformed("write sqlite://path or postgres://…"))?;
        match scheme {
            "sqlite" | "file" => {
                let options = SqliteConnectOptions::from_str(&format!("sqlite:{rest}"))
                    .map_err(|error| classify(keys, "", &error))?
                    .busy_timeout(ACQUIRE_TIMEOUT)
                    .disable_statement_logging();
                // Every connection of a pool would have a memory of its own.
                if rest.contains(":memory:") || rest.contains("mode=memory") || rest.trim_matches('/').is_empty() {
                    return Err(malformed("name a file: sqlite://path"));
                }
                Ok(Address::Sqlite(Box::new(options)))
            }
            "postgres" | "postgresql" => {
                let mut parsed = Url::parse(url).map_err(|error| malformed(&error.to_string()))?;
                let schema = parsed.query_pairs().find(|(key, _)| key == "schema").map(|(_, name)| name.into_owned());
                let known: Vec<(String, String)> =
                    parsed.query_pairs().filter(|(key, _)| is_known(key)).map(|(k, v)| (k.into(), v.into())).collect();
                parsed.set_query(None);
                if !known.is_empty() {
                    parsed.query_pairs_mut().extend_pairs(known);
                }
                let options = PgConnectOptions::from_str(parsed.as_str())
                    .map_err(|error| classify(keys, "", &error))?
                    .application_name("herald")
                    .disable_statement_logging();
                Ok(Address::Postgres { options: Box::new(options), schema: schema.filter(|name| !name.is_empty()) })
            }
            other => Err(malformed(&format!("unknown scheme `{other}`: write sqlite://path or postgres://…"))),
        }
    }

    /// Returns the database's name without credentials.
    pub fn place(&self) -> String {
        match self {
            Address::Sqlite(options) => options.get_filename().display().to_string(),
            Address::Postgres { options, .. } => {
                let database = options.get_database().unwrap_or_default();
                format!("{}:{}/{database}", options.get_host(), options.get_port())
            }
        }
    }
}

/// Tells whether sqlx knows the parameter. Others (Prisma's `connection_limit`, `pgbouncer`) it would log with their value.
fn is_known(parameter: &str) -> bool {
    let known = ["host", "hostaddr", "port", "dbname", "user", "password", "options", "statement-cache-capacity"];
    known.contains(&parameter) || parameter.starts_with("ssl") || parameter.starts_with("options[")
}

/// A server may be set not to wait for its log, and forgets the last commits when it crashes then. What stronger guarantee is set
/// (`remote_apply`, say) stays. https://www.postgresql.org/docs/current/wal-async-commit.html
const DURABLE: &str =
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// Opens a pool of at most `connections` to a SQLite file and makes sure that it can be opened.
pub(super) async fn sqlite_pool(options: SqliteConnectOptions, connections: u32) -> Result<SqlitePool, sqlx::Error> {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options)
        .await
}

/// Connects once and then opens a pool of at most `connections`, each with the search path set to `schema` and statements
/// that the server itself ends before we stop waiting and commits that outlive its crash.
pub(super) async fn postgres_pool(
    options: PgConnectOptions,
    schema: Option<&str>,
    connections: u32,
) -> Result<PgPool, sqlx::Error> {
    // A pool keeps trying until its time is up and then only says that; a single connection says what is wrong.
    connect_once(&options).await?.close().await?;
    // Not as startup parameters: connection poolers refuse those.
    let mut session = format!("SET statement_timeout = '9s'; SET lock_timeout = '5s'; {DURABLE}");
    if let Some(schema) = schema {
        session.push_str(&format!("; SET search_path TO {}", quoted(schema)));
    }
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| {
            let session = session.clone();
            Box::pin(async move {
                sqlx::raw_sql(AssertSqlSafe(session)).execute(connection).await?;
                Ok(())
            })
        })
        .connect_with(options)
        .await
}

/// Opens one connection within the time for it.
pub(super) async fn connect_once(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    match tokio::time::timeout(ACQUIRE_TIMEOUT, options.connect()).await {
        Ok(connected) => connected,
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

/// Writes `name` as a quoted identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::{super::error::STORE, *};

    #[test]
    fn addresses_are_read_and_named_without_credentials() {
        for (url, place, schema) in [
            ("sqlite://herald.db", "herald.db", None),
            ("sqlite:///var/lib/herald.db?mode=rwc", "/var/lib/herald.db", None),
            ("file:./dev.db", "./dev.db", None),
            ("postgres://u:secret@db.example:6432/app", "db.example:6432/app", None),
            ("postgresql://u@h/app?schema=public&connection_limit=5&sslmode=disable", "h:5432/app", Some("public")),
        ] {
            let address = Address::parse(STORE, url).unwrap();
            assert_eq!(address.place(), place, "{url}");
            match address {
                Address::Postgres { schema: found, .. } => assert_eq!(found.as_deref(), schema, "{url}"),
                Address::Sqlite(_) => assert_eq!(schema, None),
            }
        }
    }

    #[test]
    fn what_is_no_database_url_is_refused_without_repeating_it() {
        for url in [
            "herald.db",
            "mysql://root:secret@h/app",
            "postgres://u:secret@h:port/app",
            "postgres://u:secret@h/app?sslmode=secret-mode",
            "sqlite::memory:",
            "sqlite://",
        ] {
            let Err(StoreError::Config(message)) = Address::parse(STORE, url) else { panic!("{url} was taken") };
            assert!(message.starts_with("store.url: not a database URL: "), "{message}");
            assert!(!message.contains("secret@"), "{message}");
        }
    }

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(quoted("odd\"name"), "\"odd\"\"name\"");
    }
}
