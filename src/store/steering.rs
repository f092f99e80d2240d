//! What operators have set, for all workers, and what workers say of how they obey.
//!
//! Set by the commands and the page, read by every worker once a second. A change and its record are one transaction.
//! Time is the database's clock, so that a filter that was set for ten minutes ends everywhere at once.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::domain::{
    action::parameters,
    outcome::Provider,
    redact,
    steering::{Change, LogFilter, Setting, ShutGate, Steering},
};

use super::{Store, StoreError, database::Statement, row::write};

const STEERING: Statement = Statement {
    name: "steering",
    writes: false,
    sqlite: &[
        "SELECT s.what, CASE WHEN s.until IS NULL OR s.until > clock.ms THEN s.value END AS value, s.who, s.why, s.at,
            s.until, s.version, steered.version AS latest, w.steering AS told_version, w.gates AS told_gates
        FROM steering AS s CROSS JOIN steered CROSS JOIN clock LEFT JOIN workers AS w ON w.owner = $1->>'owner'",
    ],
    postgres:
        "SELECT s.what, CASE WHEN s.until IS NULL OR s.until > clock.ms THEN s.value END AS value, s.who, s.why, s.at,
            s.until, s.version, steered.version AS latest, w.steering AS told_version, w.gates AS told_gates
        FROM steering AS s CROSS JOIN steered CROSS JOIN clock LEFT JOIN workers AS w ON w.owner = $1::json->>'owner'",
};

/// Setting what is set already changes nothing but the record, unless it counts `always`: a filter's time begins anew, and a
/// release lets a gate be probed. On PostgreSQL the row is locked first, so that of two operators at once one comes later.
const STEER: Statement = Statement {
    name: "steer",
    writes: true,
    sqlite: &[
        "INSERT INTO actions (at, who, what, why, parameters, affected, outcome)
        SELECT clock.ms, $1->>'who', $1->>'deed', $1->>'why', $1->>'parameters', NULL,
            CASE WHEN $1->>'always' OR s.value IS NOT ($1->>'value') THEN 'done' ELSE 'it was so already' END
        FROM steering AS s, clock WHERE s.what = $1->>'what'",
        "UPDATE steered SET version = version + 1
        WHERE $1->>'always' OR (SELECT value FROM steering WHERE what = $1->>'what') IS NOT ($1->>'value')",
        "UPDATE steering SET value = $1->>'value', who = $1->>'who', why = $1->>'why', at = (SELECT ms FROM clock),
            until = (SELECT ms FROM clock) + $1->>'lasts', version = (SELECT version FROM steered)
        WHERE what = $1->>'what' AND ($1->>'always' OR value IS NOT ($1->>'value'))
        RETURNING version",
    ],
    postgres: "WITH given AS MATERIALIZED (
        SELECT j->>'what' AS what, j->>'value' AS value, (j->>'lasts')::bigint AS lasts, (j->>'always')::boolean AS always,
            j->>'who' AS who, j->>'why' AS why, j->>'deed' AS deed, j->>'parameters' AS parameters
        FROM (SELECT $1::json AS j) AS parsed
    ), standing AS (
        SELECT given.always OR s.value IS DISTINCT FROM given.value AS changes
        FROM steering AS s, given WHERE s.what = given.what FOR UPDATE OF s
    ), noted AS (
        INSERT INTO actions (at, who, what, why, parameters, affected, outcome)
        SELECT clock.ms, who, deed, why, parameters, NULL, CASE WHEN changes THEN 'done' ELSE 'it was so already' END
        FROM given, standing, clock
    ), counted AS (
        UPDATE steered SET version = version + 1 FROM standing WHERE standing.changes RETURNING version
    )
    UPDATE steering AS s SET value = given.value, who = given.who, why = given.why, at = clock.ms,
        until = clock.ms + given.lasts, version = counted.version
    FROM given, counted, clock WHERE s.what = given.what
    RETURNING s.version",
};

const TELL: Statement = Statement {
    name: "tell_steering",
    writes: true,
    sqlite: &["UPDATE workers SET steering = $1->>'version', gates = $1->>'gates' WHERE owner = $1->>'owner'"],
    postgres: "UPDATE workers SET steering = ($1::json->>'version')::bigint, gates = $1::json->>'gates'
        WHERE owner = $1::json->>'owner'",
};

const LIVING: Statement = Statement {
    name: "living",
    writes: false,
    sqlite: &["SELECT instance, started_at, steering, gates FROM workers
        WHERE owner IN (SELECT owner FROM living_workers) ORDER BY instance"],
    postgres: "SELECT instance, started_at, steering, gates FROM workers
        WHERE owner IN (SELECT owner FROM living_workers) ORDER BY instance",
};

#[derive(sqlx::FromRow)]
struct Row {
    what: String,
    value: Option<String>,
    who: String,
    why: Option<String>,
    at: i64,
    until: Option<i64>,
    version: i64,
    latest: i64,
    told_version: Option<i64>,
    told_gates: Option<String>,
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steered {
    /// False: it was so already.
    pub changed: bool,
    /// How everything stands now.
    pub steering: Steering,
}

/// What a worker says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The version of the steering that it obeys.
    pub version: i64,
    /// Its gates that are shut.
    pub gates: BTreeMap<Provider, ShutGate>,
}

/// A worker that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Living {
    pub instance: String,
    /// Milliseconds since the epoch.
    pub started_at: i64,
    pub told: Told,
}

impl Store {
    /// Returns what operators have set.
    pub async fn steering(&self) -> Result<Steering, StoreError> {
        Ok(self.steering_and_told().await?.0)
    }

    /// Returns what operators have set, and what this worker said of itself last.
    pub async fn steering_and_told(&self) -> Result<(Steering, Told), StoreError> {
        let rows: Vec<Row> = self.db.call(&STEERING, &json!({ "owner": self.worker.owner })).await?;
        let mut steering = Steering::default();
        let mut told = Told::default();
        for row in rows {
            steering.version = row.latest;
            told.version = row.told_version.unwrap_or(0);
            told.gates = gates(row.told_gates.as_deref());
            let by = Setting { who: row.who, why: row.why, since: row.at };
            match (row.what.as_str(), row.value) {
                ("intake", value) => steering.paused = value.map(|_| by),
                ("log", value) => steering.log = value.map(|filter| LogFilter { filter, until: row.until, by }),
                (name, value) => {
                    let Some(provider) = Provider::ALL.into_iter().find(|provider| provider.as_str() == name) else {
                        continue;
                    };
                    match value {
                        Some(_) => steering.held.insert(provider, by).map(|_| ()),
                        None => steering.released.insert(provider, row.version).map(|_| ()),
                    };
                }
            }
        }
        Ok((steering, told))
    }

    /// Sets something for all workers, over restarts too, and records it. `who` and `why` are kept redacted and bounded.
    pub async fn steer(&self, change: &Change, who: &str, why: Option<&str>) -> Result<Steered, StoreError> {
        let millis = |lasts: std::time::Duration| i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX / 4);
        let (what, value, lasts, always) = match change {
            Change::Pause => ("intake", Some("paused"), None, false),
            Change::Resume => ("intake", None, None, false),
            Change::Hold(provider) => (provider.as_str(), Some("held"), None, false),
            Change::Release(provider) => (provider.as_str(), None, None, true),
            Change::LogLevel(filter, lasts) => ("log", Some(filter.as_str()), lasts.map(millis), true),
            Change::LogReset => ("log", None, None, false),
        };
        let (deed, given) = change.deed();
        let parameter = json!({
            "what": what,
            "value": value,
            "lasts": lasts,
            "always": always,
            "who": redact(who),
            "why": why.map(redact),
            "deed": deed,
            "parameters": parameters(&given).to_string(),
        });
        let changed: Vec<(i64,)> = self.db.call(&STEER, &parameter).await?;
        Ok(Steered { changed: !changed.is_empty(), steering: self.steering().await? })
    }

    /// Says how this worker obeys. A worker whose row is gone says it again once it has one.
    pub async fn tell(&self, told: &Told) -> Result<(), StoreError> {
        let parameter = json!({ "owner": self.worker.owner, "version": told.version, "gates": write(&told.gates)? });
        self.db.call::<()>(&TELL, &parameter).await?;
        Ok(())
    }

    /// Returns the workers that live, by name.
    pub async fn living(&self) -> Result<Vec<Living>, StoreError> {
        let rows: Vec<(String, i64, i64, String)> = self.db.call(&LIVING, &Value::Null).await?;
        let living = |(instance, started_at, version, text): (String, i64, i64, String)| Living {
            instance,
            started_at,
            told: Told { version, gates: gates(Some(&text)) },
        };
        Ok(rows.into_iter().map(living).collect())
    }
}

/// Reads what a worker wrote; a text of another version of herald says nothing.
fn gates(text: Option<&str>) -> BTreeMap<Provider, ShutGate> {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}
