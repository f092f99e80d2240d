//! The database's side of a case: the users with their push tokens, ledgers, and how many statements were made.
//!
//! Statements are counted by PostgreSQL itself (`pg_stat_statements`), which is loaded for the whole run and so for every peer. It
//! runs as durably as it is shipped: what the tests' servers switch off to be quick is on again.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, ensure};
use sqlx::{AssertSqlSafe, Executor as _, PgPool, postgres::PgPoolOptions};
use tokio::process::Command;

use crate::{events, variable};

/// As PostgreSQL is shipped, but for the library; what needs a restart gets one.
const SETTINGS: [&str; 4] = [
    "ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'",
    "ALTER SYSTEM SET fsync = on",
    "ALTER SYSTEM SET synchronous_commit = on",
    "ALTER SYSTEM SET full_page_writes = on",
];

/// The schema of the app, as a backend has it.
const APP: &str = "bench_app";

pub struct Database {
    pool: PgPool,
    url: String,
    counts: bool,
}

impl Database {
    /// Makes the app's table and begins to count statements.
    pub async fn prepare(url: &str) -> anyhow::Result<Database> {
        let connect = || PgPoolOptions::new().max_connections(2).connect(url);
        let mut pool = connect().await?;
        let loaded: String = sqlx::query_scalar("SHOW shared_preload_libraries").fetch_one(&pool).await?;
        if !loaded.contains("pg_stat_statements") {
            for setting in SETTINGS {
                pool.execute(setting).await?;
            }
            pool.close().await;
            script("postgres-node", &["restart", "shared-postgres", &variable("HERALD_TEST_DIR")?]).await?;
            pool = connect().await?;
        }
        let counts = pool.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").await;
        if let Err(error) = &counts {
            eprintln!("bench: statements are not counted: {error}");
        }
        let make = format!(
            r#"DROP SCHEMA IF EXISTS {APP} CASCADE; CREATE SCHEMA {APP};
            CREATE TABLE {APP}."User" (id TEXT PRIMARY KEY, "pushToken" TEXT, "updatedAt" TIMESTAMPTZ)"#
        );
        pool.execute(sqlx::raw_sql(AssertSqlSafe(make))).await?;
        let (ids, tokens): (Vec<_>, Vec<_>) =
            (0..events::SESSIONS).map(|session| (events::user(session), events::token(session))).unzip();
        let fill =
            format!(r#"INSERT INTO {APP}."User" (id, "pushToken") SELECT * FROM unnest($1::text[], $2::text[])"#);
        sqlx::query(AssertSqlSafe(fill)).bind(ids).bind(tokens).execute(&pool).await?;
        pool.execute(AssertSqlSafe(format!(r#"ANALYZE {APP}."User""#))).await?;
        Ok(Database { pool, url: url.to_owned(), counts: counts.is_ok() })
    }

    /// Returns the app's database as a peer's client takes it.
    pub fn app(&self) -> String {
        format!("{}?options=-c%20search_path%3D{APP}", self.url)
    }

    /// Returns the app's database as herald takes it.
    pub fn app_for_herald(&self) -> String {
        format!("{}?schema={APP}", self.url)
    }

    /// Returns the database for a ledger.
    pub fn ledger(&self, schema: &str) -> String {
        format!("{}?schema={schema}", self.url)
    }

    pub async fn drop_ledger(&self, schema: &str) -> anyhow::Result<()> {
        self.pool.execute(AssertSqlSafe(format!("DROP SCHEMA IF EXISTS {schema} CASCADE"))).await?;
        Ok(())
    }

    /// Fills a ledger with `rows` rows, as of a week of deliveries.
    pub async fn fill_ledger(&self, schema: &str, rows: u64) -> anyhow::Result<()> {
        script("ledger-rows", &[&self.url, schema, &rows.to_string()]).await
    }

    /// Begins to count anew.
    pub async fn count_anew(&self) -> anyhow::Result<()> {
        if self.counts {
            self.pool.execute("SELECT pg_stat_statements_reset()").await?;
        }
        Ok(())
    }

    /// Returns how many statements were made since, BEGIN and COMMIT included; ours not counted.
    pub async fn statements(&self) -> anyhow::Result<Option<u64>> {
        if !self.counts {
            return Ok(None);
        }
        let count = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'";
        let count: i64 = sqlx::query_scalar(count).fetch_one(&self.pool).await?;
        Ok(Some(count as u64))
    }

    pub async fn version(&self) -> anyhow::Result<String> {
        Ok(sqlx::query_scalar("SHOW server_version").fetch_one(&self.pool).await?)
    }
}

async fn script(name: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    let status = Command::new(path).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status().await;
    let status = status.with_context(|| format!("scripts/{name}"))?;
    ensure!(status.success(), "scripts/{name} {} ended with {status}", arguments[..1].join(" "));
    Ok(())
}
