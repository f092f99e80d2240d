//! The index of the dead-letter queue: what lies there, without walking the queue.
//!
//! Called by the `dead` commands, the page, and `run` when it compares index and queue. It never touches the queue; what it
//! says is as true as what it is told.

use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::domain::{action::user_mark, ledger::Letter};

use super::{LetterFilter, Store, StoreError, batch, database::Statement, row::LetterRow};

/// Most letters in one listing: they come with bodies of up to 90 KiB. [`LetterFilter::below`] asks for the next page.
pub const LETTERS_AT_ONCE: u32 = 1000;

/// A letter that had ended and is found in the queue lies in the queue.
macro_rules! insert_sqlite {
    ($letters:literal) => {
        concat!("INSERT INTO dead_letters (id, identity, session_id, partner_id, event, reason, error,
        route, attempt, replay, failed_at, first_seen, content_type, body_bytes, headers, body)
    SELECT value->>'id', value->>'identity', value->>'session_id', value->>'partner_id', value->>'event',
        value->>'reason', value->>'error', value->>'route', value->>'attempt', value->>'replay', value->>'failed_at',
        value->>'first_seen', value->>'content_type', value->>'body_bytes', value->>'headers', value->>'body'
    FROM json_each(", $letters, ") WHERE true
    ON CONFLICT (id, identity, replay, failed_at) DO UPDATE SET ended = NULL, ended_at = NULL,
        headers = excluded.headers, body = excluded.body
    WHERE dead_letters.ended IS NOT NULL")
    };
}
pub(super) use insert_sqlite;

const ADD: Statement = Statement {
    name: "add_letters",
    writes: true,
    sqlite: &[insert_sqlite!("$1")],
    postgres:
        "INSERT INTO dead_letters (id, identity, session_id, partner_id, event, reason, error, route, attempt, replay,
        failed_at, first_seen, content_type, body_bytes, headers, body)
    SELECT id, identity, session_id, partner_id, event, reason, error, route, attempt, replay,
        failed_at, first_seen, content_type, body_bytes, headers, body
    FROM json_to_recordset($1::json) AS l (id text, identity text, session_id text, partner_id text,
        event text, reason text, error text, route text, attempt bigint, replay bigint, failed_at bigint,
        first_seen bigint, content_type text, body_bytes bigint, headers text, body text)
    ON CONFLICT (id, identity, replay, failed_at) DO UPDATE SET ended = NULL, ended_at = NULL,
        headers = excluded.headers, body = excluded.body
    WHERE dead_letters.ended IS NOT NULL",
};

const LIST: Statement = Statement {
    name: "letters",
    writes: false,
    sqlite: &[
        "SELECT number, id, identity, session_id, partner_id, event, reason, error, route, attempt, replay, failed_at,
            first_seen, content_type, body_bytes, headers, body
        FROM dead_letters, (SELECT $1->>'id' AS f_id, $1->>'reason' AS f_reason, $1->>'event' AS f_event,
            $1->>'session' AS f_session, $1->>'user' AS f_user, $1->>'failed_before' AS f_before,
            $1->>'failed_after' AS f_after, $1->>'below' AS f_below)
        WHERE ended IS NULL AND (f_id IS NULL OR id = f_id) AND (f_reason IS NULL OR reason = f_reason)
            AND (f_event IS NULL OR coalesce(event, '') = f_event) AND (f_session IS NULL OR session_id = f_session)
            AND (f_user IS NULL OR partner_id = f_user) AND (f_before IS NULL OR failed_at < f_before)
            AND (f_after IS NULL OR failed_at >= f_after) AND (f_below IS NULL OR number < f_below)
        ORDER BY number DESC LIMIT $1->>'limit'",
    ],
    postgres:
        "SELECT number, id, identity, session_id, partner_id, event, reason, error, route, attempt, replay, failed_at,
            first_seen, content_type, body_bytes, headers, body
        FROM dead_letters
        WHERE ended IS NULL AND ($1::json->>'id' IS NULL OR id = $1::json->>'id')
            AND ($1::json->>'reason' IS NULL OR reason = $1::json->>'reason')
            AND ($1::json->>'event' IS NULL OR coalesce(event, '') = $1::json->>'event')
            AND ($1::json->>'session' IS NULL OR session_id = $1::json->>'session')
            AND ($1::json->>'user' IS NULL OR partner_id = $1::json->>'user')
            AND ($1::json->>'failed_before' IS NULL OR failed_at < ($1::json->>'failed_before')::bigint)
            AND ($1::json->>'failed_after' IS NULL OR failed_at >= ($1::json->>'failed_after')::bigint)
            AND ($1::json->>'below' IS NULL OR number < ($1::json->>'below')::bigint)
        ORDER BY number DESC LIMIT ($1::json->>'limit')::bigint",
};

const GROUPS: Statement = Statement {
    name: "letter_groups",
    writes: false,
    sqlite: &["SELECT reason, event, count(*) AS letters, min(failed_at) AS oldest, max(failed_at) AS newest
        FROM dead_letters, (SELECT $1->>'id' AS f_id, $1->>'reason' AS f_reason, $1->>'event' AS f_event,
            $1->>'session' AS f_session, $1->>'user' AS f_user, $1->>'failed_before' AS f_before,
            $1->>'failed_after' AS f_after, $1->>'below' AS f_below)
        WHERE ended IS NULL AND (f_id IS NULL OR id = f_id) AND (f_reason IS NULL OR reason = f_reason)
            AND (f_event IS NULL OR coalesce(event, '') = f_event) AND (f_session IS NULL OR session_id = f_session)
            AND (f_user IS NULL OR partner_id = f_user) AND (f_before IS NULL OR failed_at < f_before)
            AND (f_after IS NULL OR failed_at >= f_after) AND (f_below IS NULL OR number < f_below)
        GROUP BY reason, event ORDER BY letters DESC, reason, event"],
    postgres: "SELECT reason, event, count(*) AS letters, min(failed_at) AS oldest, max(failed_at) AS newest
        FROM dead_letters
        WHERE ended IS NULL AND ($1::json->>'id' IS NULL OR id = $1::json->>'id')
            AND ($1::json->>'reason' IS NULL OR reason = $1::json->>'reason')
            AND ($1::json->>'event' IS NULL OR coalesce(event, '') = $1::json->>'event')
            AND ($1::json->>'session' IS NULL OR session_id = $1::json->>'session')
            AND ($1::json->>'user' IS NULL OR partner_id = $1::json->>'user')
            AND ($1::json->>'failed_before' IS NULL OR failed_at < ($1::json->>'failed_before')::bigint)
            AND ($1::json->>'failed_after' IS NULL OR failed_at >= ($1::json->>'failed_after')::bigint)
            AND ($1::json->>'below' IS NULL OR number < ($1::json->>'below')::bigint)
        GROUP BY reason, event ORDER BY letters DESC, reason, event",
};

const ONE: Statement = Statement {
    name: "letter",
    writes: false,
    sqlite: &[
        "SELECT number, id, identity, session_id, partner_id, event, reason, error, route, attempt, replay, failed_at,
            first_seen, content_type, body_bytes, headers, body
        FROM dead_letters WHERE number = $1->>'number' AND ended IS NULL",
    ],
    postgres:
        "SELECT number, id, identity, session_id, partner_id, event, reason, error, route, attempt, replay, failed_at,
            first_seen, content_type, body_bytes, headers, body
        FROM dead_letters WHERE number = ($1::json->>'number')::bigint AND ended IS NULL",
};

/// The number stays, so that "what became of #12" has an answer and nobody else becomes #12; content does not outlive the
/// letter.
const END: Statement = Statement {
    name: "end_letters",
    writes: true,
    sqlite: &[
        "UPDATE dead_letters SET ended = $1->>'how', ended_at = (SELECT ms FROM clock), headers = '{}', body = ''
        WHERE number IN (SELECT value FROM json_each($1, '$.numbers')) AND ended IS NULL",
    ],
    postgres:
        "UPDATE dead_letters SET ended = $1::json->>'how', ended_at = (SELECT ms FROM clock), headers = '{}', body = ''
        WHERE number = ANY (ARRAY(SELECT json_array_elements_text($1::json->'numbers')::bigint)) AND ended IS NULL",
};

const ENDED: Statement = Statement {
    name: "ended_letter",
    writes: false,
    sqlite: &["SELECT ended, ended_at FROM dead_letters WHERE number = $1->>'number' AND ended IS NOT NULL"],
    postgres: "SELECT ended, ended_at FROM dead_letters
        WHERE number = ($1::json->>'number')::bigint AND ended IS NOT NULL",
};

/// By what the index tells letters apart.
const KNOWN: Statement = Statement {
    name: "known_letters",
    writes: false,
    sqlite: &[
        "SELECT l.id, l.identity, l.replay, l.failed_at FROM json_each($1, '$.letters') AS g JOIN dead_letters AS l
            ON l.id = g.value->>'id' AND l.identity = g.value->>'identity' AND l.replay = g.value->>'replay'
            AND l.failed_at = g.value->>'failed_at'
        WHERE l.ended IS NULL",
    ],
    postgres: "SELECT l.id, l.identity, l.replay, l.failed_at
        FROM json_to_recordset($1::json->'letters') AS g (id text, identity text, replay bigint, failed_at bigint)
        JOIN dead_letters AS l USING (id, identity, replay, failed_at) WHERE l.ended IS NULL",
};

impl LetterFilter {
    /// Returns what is recorded of a choice of dead letters; a user by a mark only.
    pub fn recorded(&self) -> Value {
        json!(LetterFilter { user: self.user.as_deref().map(user_mark), ..self.clone() })
    }
}

/// Dead letters that failed for one reason with one event name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct LetterGroup {
    pub reason: String,
    pub event: Option<String>,
    pub letters: i64,
    /// When the first and the last of them failed, in milliseconds since the epoch.
    pub oldest: i64,
    pub newest: i64,
}

/// Names a letter: the index has each once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, sqlx::FromRow)]
pub struct LetterKey {
    pub id: String,
    /// Empty: none.
    pub identity: String,
    pub replay: i64,
    pub failed_at: i64,
}

impl LetterKey {
    /// Returns the name of `letter`.
    pub fn of(letter: &Letter) -> LetterKey {
        LetterKey {
            id: letter.id.clone(),
            identity: letter.identity.clone().unwrap_or_default(),
            replay: letter.replay.into(),
            failed_at: letter.failed_at,
        }
    }
}

impl Store {
    /// Lists dead letters, those with the highest number first, at most [`LETTERS_AT_ONCE`].
    pub async fn letters(&self, filter: &LetterFilter) -> Result<Vec<Letter>, StoreError> {
        let limit = filter.limit.unwrap_or(LETTERS_AT_ONCE).min(LETTERS_AT_ONCE);
        let filter = LetterFilter { limit: Some(limit), ..filter.clone() };
        let rows: Vec<LetterRow> = self.db.call(&LIST, &filter).await?;
        rows.into_iter().map(LetterRow::letter).collect()
    }

    /// Counts dead letters by reason and event name, the largest group first; looks at all that match.
    pub async fn letter_groups(&self, filter: &LetterFilter) -> Result<Vec<LetterGroup>, StoreError> {
        self.db.call(&GROUPS, filter).await
    }

    /// Counts the dead letters that match.
    pub async fn letter_count(&self, filter: &LetterFilter) -> Result<i64, StoreError> {
        Ok(self.letter_groups(filter).await?.iter().map(|group| group.letters).sum())
    }

    /// Returns the letter with this number, if it lies in the queue.
    pub async fn letter(&self, number: i64) -> Result<Option<Letter>, StoreError> {
        let rows: Vec<LetterRow> = self.db.call(&ONE, &json!({ "number": number })).await?;
        rows.into_iter().next().map(LetterRow::letter).transpose()
    }

    /// Returns how and when (milliseconds since the epoch) the letter with this number left the queue, if it did.
    pub async fn ended_letter(&self, number: i64) -> Result<Option<(String, i64)>, StoreError> {
        Ok(self.db.call(&ENDED, &json!({ "number": number })).await?.into_iter().next())
    }

    /// Adds letters found in the queue that the index does not know; those it knows stay as they are. A letter the database
    /// refuses fails the call, after the others were added.
    pub async fn add_letters(&self, letters: Vec<Letter>) -> Result<(), StoreError> {
        let mut letters = letters.into_iter().peekable();
        let mut refused = None;
        while letters.peek().is_some() {
            // By count alone: this many of the largest letters are 9 MiB, and it happens once in a while.
            let part: Vec<Letter> = letters.by_ref().take(super::BATCH).collect();
            let run = |part: &[Letter]| -> BoxFuture<'static, Result<Vec<()>, StoreError>> {
                let (db, count) = (self.db.clone(), part.len());
                let rows: Vec<LetterRow> = part.iter().map(LetterRow::new).collect();
                Box::pin(async move {
                    db.call::<()>(&ADD, &rows).await?;
                    Ok(vec![(); count])
                })
            };
            for answer in batch::each(part, |letter| &letter.id, run).await {
                match answer {
                    Err(error @ StoreError::Data(_)) => refused = Some(error),
                    other => other?,
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Returns those of `letters` that lie in the queue, as far as the index knows.
    pub async fn known_letters(&self, letters: &[LetterKey]) -> Result<Vec<LetterKey>, StoreError> {
        self.db.call(&KNOWN, &json!({ "letters": letters })).await
    }

    /// Takes letters out of the index, because they were `replayed`, `dropped` or `removed`. Their numbers, with how and
    /// when, stay until [`Store::prune`] deletes them.
    pub async fn end_letters(&self, numbers: &[i64], how: &str) -> Result<(), StoreError> {
        for numbers in numbers.chunks(1000) {
            self.db.call::<()>(&END, &json!({ "numbers": numbers, "how": how })).await?;
        }
        Ok(())
    }
}
