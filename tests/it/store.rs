//! The store on both databases: every test runs on a SQLite file of its own and in a PostgreSQL schema of its own.

mod claims;
mod ledger;
mod letters;
mod sweeps;
mod retention;
mod steering;
mod users;
mod failures;
mod tls;

use std::collections::BTreeMap;

use herald::{
    domain::{
        ledger::{AttemptRecord, Claim, Claimed, Entry, Evidence, Letter, State, TargetRecord, Ticket, Via},
        outcome::{Failure, FailureKind, Provider},
    },
    store::{Record, Store},
};
use sqlx::{AssertSqlSafe, PgPool, SqlitePool};

use crate::support;

/// A database of one test, and a way to look and reach into it past herald.
pub struct Place {
    /// For `store.url`; the app's tables may lie in the same place.
    pub url: String,
    raw: Raw,
    _directory: Option<tempfile::TempDir>,
}

enum Raw {
    Sqlite(SqlitePool),
    Postgres { pool: PgPool, schema: String },
}

impl Place {
    pub async fn sqlite() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("herald test.db").display());
        let pool = SqlitePool::connect(&format!("{url}?mode=rwc")).await.unwrap();
        Place { url, raw: Raw::Sqlite(pool), _directory: Some(directory) }
    }

    pub async fn postgres() -> Option<Place> {
        let base = support::database_url()?;
        let schema = support::unique("Store");
        let pool = PgPool::connect(&format!("{base}?options[search_path]=%22{schema}%22")).await.unwrap();
        Some(Place { url: format!("{base}?schema={schema}"), raw: Raw::Postgres { pool, schema }, _directory: None })
    }

    pub fn is_sqlite(&self) -> bool {
        matches!(self.raw, Raw::Sqlite(_))
    }

    /// Runs statements that both databases understand.
    pub async fn execute(&self, sql: &str) {
        match &self.raw {
            Raw::Sqlite(pool) => sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.map(|_| ()),
            Raw::Postgres { pool, schema } => {
                let made = format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\"");
                sqlx::raw_sql(AssertSqlSafe(made)).execute(pool).await.unwrap();
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.map(|_| ())
            }
        }
        .unwrap();
    }

    /// Returns the one number a query answers with.
    pub async fn number(&self, sql: &str) -> i64 {
        match &self.raw {
            Raw::Sqlite(pool) => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await.unwrap(),
            Raw::Postgres { pool, .. } => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await.unwrap(),
        }
    }

    pub async fn open(&self, instance: &str) -> Store {
        Store::open(&self.url, instance).await.unwrap()
    }

    async fn clean(self) {
        if let Raw::Postgres { pool, schema } = self.raw {
            let drop = format!("DROP SCHEMA IF EXISTS \"{schema}\" CASCADE");
            sqlx::raw_sql(AssertSqlSafe(drop)).execute(&pool).await.unwrap();
        }
    }
}

/// Runs `test` on SQLite and, where there is one, on PostgreSQL.
pub async fn on_both(test: impl AsyncFn(&Place)) {
    let place = Place::sqlite().await;
    test(&place).await;
    if let Some(place) = Place::postgres().await {
        test(&place).await;
        place.clean().await;
    }
}

pub fn claim(identity: &str) -> Claim {
    Claim {
        identity: identity.to_owned(),
        event_id: format!("event of {identity}"),
        session_id: "s1".to_owned(),
        partner_id: Some("u1".to_owned()),
        event: "partner.advanced".to_owned(),
        fingerprint: "f".to_owned(),
        attempt: 0,
        replay: 0,
        first_seen: 1_000,
        expires_at: 90_000_000,
    }
}

/// An ended entry with everything in it that an entry can have.
pub fn entry(identity: &str) -> Entry {
    let failure = Failure::new(FailureKind::Transient, "timeout", "no answer").with_status(503);
    Entry {
        identity: identity.to_owned(),
        event_id: format!("event of {identity}"),
        session_id: Some("s1".to_owned()),
        partner_id: Some("u1".to_owned()),
        event: Some("partner.advanced".to_owned()),
        fingerprint: "f".to_owned(),
        state: State::Done,
        reason: None,
        detail: Some("it's \"done\"".to_owned()),
        via: Some(Via::Push),
        route: Some("push".to_owned()),
        evidence: Evidence {
            presence: Some("absent".to_owned()),
            presence_at: Some(1_500),
            presence_failure: Some(failure.clone()),
            tokens: vec!["abcd".to_owned()],
            rule: "absent: push".to_owned(),
            ..Evidence::default()
        },
        targets: BTreeMap::from([(
            "expo:0123456789ab".to_owned(),
            TargetRecord { accepted: true, ..Default::default() }.into(),
        )]),
        attempts: vec![AttemptRecord {
            at: 1_600,
            attempt: 0,
            target: "expo:0123456789ab".to_owned(),
            provider: Provider::Expo,
            duration_ms: 12,
            outcome: "transient".to_owned(),
            provider_id: None,
            failure: Some(failure),
            held: None,
        }],
        attempt: 1,
        replay: 0,
        queue: None,
        first_seen: 1_000,
        updated_at: 2_000,
        next_at: Some(i64::MAX),
        expires_at: 90_000_000,
        crashes: 0,
        repeats: 0,
        id_reused: 0,
    }
}

pub fn dead(identity: &str, reason: &str) -> Entry {
    Entry { state: State::Dead, reason: Some(reason.to_owned()), via: None, ..entry(identity) }
}

pub fn letter(identity: &str, reason: &str, failed_at: i64) -> Letter {
    Letter {
        number: 0,
        id: format!("event of {identity}"),
        identity: Some(identity.to_owned()),
        session_id: Some("s1".to_owned()),
        partner_id: Some("u1".to_owned()),
        event: Some("partner.advanced".to_owned()),
        reason: reason.to_owned(),
        error: "it failed".to_owned(),
        route: Some("push".to_owned()),
        attempt: 6,
        replay: 0,
        failed_at,
        first_seen: Some(1_000),
        headers: serde_json::json!({ "herald-reason": reason, "odd": "\u{0}'\"🦀" }),
        content_type: Some("application/json".to_owned()),
        body: "eyJ9".to_owned(),
        body_bytes: 3,
    }
}

pub fn ticket(id: &str, identity: &str, sent_at: i64) -> Ticket {
    Ticket {
        id: id.to_owned(),
        identity: identity.to_owned(),
        target: "expo:0123456789ab".to_owned(),
        user_id: "u1".to_owned(),
        token: "ExponentPushToken[a]".to_owned(),
        sent_at,
        due_at: sent_at,
    }
}

pub fn record(entry: Entry) -> Record {
    Record { entry, tickets: Vec::new(), letter: None }
}

/// Unwraps a granted claim: the entry, and whether it was a first sight.
pub fn granted(claimed: Claimed) -> (Entry, bool) {
    match claimed {
        Claimed::Granted { entry, first } => (*entry, first),
        Claimed::Foreign { owner } => panic!("claimed by {owner}"),
    }
}
