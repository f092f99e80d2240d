//! The record of what operators did: who, when, what, how many, and how it ended.
//!
//! Written by the commands and the page, also by [`Store::steer`]; read by `herald actions` and the page. Nothing is
//! changed here but the end of an action; [`Store::prune`] deletes what is older than a year.

use serde_json::{Value, json};

use crate::domain::{
    action::{Action, Deed, parameters},
    redact,
};

use super::{Store, StoreError, database::Statement};

/// Most actions in one listing.
pub const ACTIONS_AT_ONCE: u32 = 1000;

const NOTE: Statement = Statement {
    name: "note_action",
    writes: true,
    sqlite: &["INSERT INTO actions (at, who, what, why, parameters, affected, outcome)
        SELECT ms, $1->>'who', $1->>'what', $1->>'why', $1->>'parameters', $1->>'affected', $1->>'outcome' FROM clock
        RETURNING number"],
    postgres: "INSERT INTO actions (at, who, what, why, parameters, affected, outcome)
        SELECT ms, $1::json->>'who', $1::json->>'what', $1::json->>'why', $1::json->>'parameters',
            ($1::json->>'affected')::bigint, $1::json->>'outcome' FROM clock
        RETURNING number",
};

const END: Statement = Statement {
    name: "end_action",
    writes: true,
    sqlite: &["UPDATE actions SET affected = $1->>'affected', outcome = $1->>'outcome' WHERE number = $1->>'number'"],
    postgres: "UPDATE actions SET affected = ($1::json->>'affected')::bigint, outcome = $1::json->>'outcome'
        WHERE number = ($1::json->>'number')::bigint",
};

const LIST: Statement = Statement {
    name: "actions",
    writes: false,
    sqlite: &["SELECT number, at, who, what, why, parameters, affected, outcome FROM actions
        WHERE $1->>'below' IS NULL OR number < $1->>'below' ORDER BY number DESC LIMIT $1->>'limit'"],
    postgres: "SELECT number, at, who, what, why, parameters, affected, outcome FROM actions
        WHERE $1::json->>'below' IS NULL OR number < ($1::json->>'below')::bigint
        ORDER BY number DESC LIMIT ($1::json->>'limit')::bigint",
};

#[derive(sqlx::FromRow)]
struct Row {
    number: i64,
    at: i64,
    who: String,
    what: String,
    why: Option<String>,
    parameters: String,
    affected: Option<i64>,
    outcome: String,
}

/// What is to be recorded. Texts are kept redacted and bounded; a user is to be named by
/// [`user_mark`](crate::domain::action::user_mark).
#[derive(Debug, Clone, PartialEq)]
pub struct NewAction<'a> {
    pub who: &'a str,
    pub what: Deed,
    pub why: Option<&'a str>,
    pub parameters: Value,
    pub affected: Option<u64>,
    /// [`BEGUN`](crate::domain::action::BEGUN) for what [`Store::end_action`] will end.
    pub outcome: &'a str,
}

impl Store {
    /// Records an action and returns its number.
    pub async fn note_action(&self, action: &NewAction<'_>) -> Result<i64, StoreError> {
        let parameter = json!({
            "who": redact(action.who),
            "what": action.what,
            "why": action.why.map(redact),
            "parameters": parameters(&action.parameters).to_string(),
            "affected": action.affected,
            "outcome": redact(action.outcome),
        });
        let noted: Vec<(i64,)> = self.db.call(&NOTE, &parameter).await?;
        let lost = || StoreError::Unavailable("the record of the action returned no row".to_owned());
        noted.first().map(|(number,)| *number).ok_or_else(lost)
    }

    /// Says how an action ended that was recorded when it began.
    pub async fn end_action(&self, number: i64, affected: Option<u64>, outcome: &str) -> Result<(), StoreError> {
        let parameter = json!({ "number": number, "affected": affected, "outcome": redact(outcome) });
        self.db.call::<()>(&END, &parameter).await?;
        Ok(())
    }

    /// Lists actions, the newest first, at most `limit` and [`ACTIONS_AT_ONCE`]; with `below` those with a smaller number.
    pub async fn actions(&self, limit: u32, below: Option<i64>) -> Result<Vec<Action>, StoreError> {
        let limit = limit.min(ACTIONS_AT_ONCE);
        let rows: Vec<Row> = self.db.call(&LIST, &json!({ "limit": limit, "below": below })).await?;
        let action = |row: Row| Action {
            number: row.number,
            at: row.at,
            who: row.who,
            what: row.what,
            why: row.why,
            parameters: serde_json::from_str(&row.parameters).unwrap_or(Value::Null),
            affected: row.affected,
            outcome: row.outcome,
        };
        Ok(rows.into_iter().map(action).collect())
    }
}
