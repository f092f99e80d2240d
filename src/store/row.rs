//! Rows of the ledger and of the dead-letter index as the databases see them, in both directions.
//!
//! Called by the files that run statements. Rows go in as JSON (an [`Entry`] as it is: its fields are the columns), or as [`Columns`]
//! where there are many, and come back as columns; evidence, targets, attempts and headers are texts inside, which no database looks into.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Arguments, Encode, Postgres, Type, postgres::PgArguments};

use crate::domain::ledger::{Entry, Letter, State, TargetKey, Targets, Via};

use super::{StoreError, database::Parameters};

/// One row of `events`, without its claim.
#[derive(sqlx::FromRow)]
pub(super) struct EventRow {
    identity: String,
    event_id: String,
    session_id: Option<String>,
    partner_id: Option<String>,
    event: Option<String>,
    fingerprint: String,
    state: String,
    reason: Option<String>,
    detail: Option<String>,
    via: Option<String>,
    route: Option<String>,
    attempt: i64,
    replay: i64,
    queue: Option<String>,
    first_seen: i64,
    updated_at: i64,
    next_at: Option<i64>,
    expires_at: i64,
    crashes: i64,
    repeats: i64,
    id_reused: i64,
    evidence: String,
    targets: String,
    attempts: String,
    /// What receipts said, by target: kept with the tickets, read with the row, never written with it.
    #[sqlx(default)]
    receipts: Option<String>,
}

impl EventRow {
    /// Returns the key of the row.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Returns the entry the row stands for; fails on a row that no herald wrote.
    pub fn entry(self) -> Result<Entry, StoreError> {
        let state = State::parse(&self.state).ok_or_else(|| {
            StoreError::Data(format!("row `{}` has the unknown state `{}`", self.identity, self.state))
        })?;
        let via = self.via.map(|via| read::<Via>(&self.identity, &format!("\"{via}\""))).transpose()?;
        let mut targets: Targets = read(&self.identity, &self.targets)?;
        let receipts: BTreeMap<TargetKey, String> =
            self.receipts.as_deref().map(|text| read(&self.identity, text)).transpose()?.unwrap_or_default();
        for (target, receipt) in receipts {
            if let Some(record) = targets.get_mut(&target) {
                record.receipt = Some(receipt);
            }
        }
        Ok(Entry {
            evidence: read(&self.identity, &self.evidence)?,
            targets,
            attempts: read(&self.identity, &self.attempts)?,
            identity: self.identity,
            event_id: self.event_id,
            session_id: self.session_id,
            partner_id: self.partner_id,
            event: self.event,
            fingerprint: self.fingerprint,
            state,
            reason: self.reason,
            detail: self.detail,
            via,
            route: self.route,
            attempt: small(self.attempt),
            replay: small(self.replay),
            queue: self.queue,
            first_seen: self.first_seen,
            updated_at: self.updated_at,
            next_at: self.next_at,
            expires_at: self.expires_at,
            crashes: small(self.crashes),
            repeats: small(self.repeats),
            id_reused: small(self.id_reused),
        })
    }
}

/// One row of `dead_letters` that lies in the queue.
#[derive(Serialize, sqlx::FromRow)]
pub(super) struct LetterRow {
    number: i64,
    id: String,
    /// Empty: none.
    identity: String,
    session_id: Option<String>,
    partner_id: Option<String>,
    event: Option<String>,
    reason: String,
    error: String,
    route: Option<String>,
    attempt: i64,
    replay: i64,
    failed_at: i64,
    first_seen: Option<i64>,
    content_type: Option<String>,
    body_bytes: i64,
    headers: String,
    body: String,
}

impl LetterRow {
    /// Returns the row of `letter`.
    pub fn new(letter: &Letter) -> LetterRow {
        let letter = letter.clone();
        LetterRow {
            number: letter.number,
            id: letter.id,
            identity: letter.identity.unwrap_or_default(),
            session_id: letter.session_id,
            partner_id: letter.partner_id,
            event: letter.event,
            reason: letter.reason,
            error: letter.error,
            route: letter.route,
            attempt: letter.attempt.into(),
            replay: letter.replay.into(),
            failed_at: letter.failed_at,
            first_seen: letter.first_seen,
            content_type: letter.content_type,
            body_bytes: letter.body_bytes,
            headers: letter.headers.to_string(),
            body: letter.body,
        }
    }

    /// Returns the letter the row stands for.
    pub fn letter(self) -> Result<Letter, StoreError> {
        Ok(Letter {
            headers: read(&self.id, &self.headers)?,
            number: self.number,
            id: self.id,
            identity: Some(self.identity).filter(|identity| !identity.is_empty()),
            session_id: self.session_id,
            partner_id: self.partner_id,
            event: self.event,
            reason: self.reason,
            error: self.error,
            route: self.route,
            attempt: small(self.attempt),
            replay: small(self.replay),
            failed_at: self.failed_at,
            first_seen: self.first_seen,
            content_type: self.content_type,
            body: self.body,
            body_bytes: self.body_bytes,
        })
    }
}

/// Rows for PostgreSQL: one array for each column, in the order of the statement's parameters.
pub(super) struct Columns(Result<PgArguments, StoreError>);

impl Columns {
    /// Begins with `parameters` of JSON that stand before the columns.
    pub fn after(parameters: &[String]) -> Columns {
        parameters.iter().fold(Columns(Ok(PgArguments::default())), |columns, text| columns.add(text.as_str()))
    }

    /// Adds a column of texts.
    pub fn texts<'a, I, T: Into<Option<&'a str>>>(self, rows: &'a [I], field: impl Fn(&'a I) -> T) -> Columns {
        self.add(rows.iter().map(|row| field(row).into()).collect::<Vec<Option<&str>>>())
    }

    /// Adds a column of numbers.
    pub fn numbers<'a, I, N: Into<Option<i64>>>(self, rows: &'a [I], field: impl Fn(&'a I) -> N) -> Columns {
        self.add(rows.iter().map(|row| field(row).into()).collect::<Vec<Option<i64>>>())
    }

    /// Adds a column of JSON that the database keeps as a text.
    pub fn json<'a, I, V: Serialize + 'a>(self, rows: &'a [I], field: impl Fn(&'a I) -> &'a V) -> Columns {
        match rows.iter().map(|row| write(field(row))).collect::<Result<Vec<String>, _>>() {
            Ok(texts) => self.add(texts),
            Err(error) => Columns(Err(error)),
        }
    }

    /// Returns the parameters of the statement.
    pub fn parameters(self) -> Result<Parameters, StoreError> {
        self.0.map(Parameters::Columns)
    }

    fn add<'q>(mut self, value: impl Encode<'q, Postgres> + Type<Postgres>) -> Columns {
        if let Ok(arguments) = &mut self.0
            && let Err(error) = arguments.add(value)
        {
            self.0 = Err(StoreError::Data(format!("not a parameter: {error}")));
        }
        self
    }
}

/// Writes a statement's parameter, or a text inside a row.
pub(super) fn write(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Data(format!("not JSON: {error}")))
}

fn read<T: DeserializeOwned>(row: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Data(format!("row `{row}` is not readable: {error}")))
}

/// The columns are BIGINT because JSON and both databases have them; what herald writes there came from a `u32`.
fn small(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
