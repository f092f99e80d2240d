//! Tickets: what Expo gave for each accepted push, kept with its push token until the receipt is read, and then with what the
//! receipt said.
//!
//! Written by [`Store::record`](super::Store::record) together with the attempt, read and settled by the worker's receipts.
//! What a receipt said stands beside the ledger's row and not in it: a row recorded later from an older copy cannot undo it.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::domain::ledger::Ticket;

use super::{Store, StoreError, database::Statement};

/// Taking a ticket puts it off until it is asked for again: a quarter of its age, at most an hour, and once more when it is a
/// day (86400000 ms) old. So two workers never ask for the same one at once, a worker that dies over it delays it, and
/// tickets without a receipt never stand before the others.
const TAKE: Statement = Statement {
    name: "take_tickets",
    writes: true,
    sqlite: &["UPDATE tickets SET due_at = (SELECT min(ms + min(max((ms - sent_at) / 4, $1->>'pause'), 3600000),
                max(sent_at + 86400000, ms + ($1->>'pause'))) FROM clock)
        WHERE id IN (SELECT id FROM tickets WHERE due_at <= (SELECT ms FROM clock) ORDER BY due_at LIMIT $1->>'limit')
        RETURNING id, identity, target, user_id, token, sent_at, due_at, (SELECT ms FROM clock) - sent_at AS age_ms"],
    postgres: "WITH given AS MATERIALIZED (
        SELECT ($1::json->>'pause')::bigint AS pause
    ), due AS (
        SELECT t.id FROM tickets AS t WHERE t.due_at <= (SELECT ms FROM clock)
        ORDER BY t.due_at LIMIT ($1::json->>'limit')::bigint FOR UPDATE SKIP LOCKED
    )
    UPDATE tickets AS t SET due_at = least(clock.ms + least(greatest((clock.ms - t.sent_at) / 4, given.pause), 3600000),
        greatest(t.sent_at + 86400000, clock.ms + given.pause))
    FROM given, clock WHERE t.id = ANY (ARRAY(SELECT id FROM due))
    RETURNING t.id, t.identity, t.target, t.user_id, t.token, t.sent_at, t.due_at, clock.ms - t.sent_at AS age_ms",
};

/// The push token goes; what the receipt said comes in its place, once.
const SETTLE: Statement = Statement {
    name: "settle_tickets",
    writes: true,
    sqlite: &["UPDATE tickets SET receipt = r.value->>'receipt', token = '', due_at = NULL
        FROM json_each($1, '$.receipts') AS r WHERE tickets.id = r.value->>'id' AND tickets.receipt IS NULL
        RETURNING id"],
    postgres: "WITH given AS MATERIALIZED (
        SELECT id, receipt FROM json_to_recordset($1::json->'receipts') AS r (id text, receipt text)
    ), unread AS (
        SELECT t.id FROM tickets AS t WHERE t.id = ANY (ARRAY(SELECT id FROM given)) AND t.receipt IS NULL
        ORDER BY t.id FOR UPDATE
    )
    UPDATE tickets AS t SET receipt = given.receipt, token = '', due_at = NULL
    FROM given WHERE t.id = given.id AND t.id = ANY (ARRAY(SELECT id FROM unread))
    RETURNING t.id",
};

/// A ticket whose receipt is to be asked for, and how old it is by the database's clock.
#[derive(Debug, Clone, PartialEq)]
pub struct DueTicket {
    pub ticket: Ticket,
    pub age: Duration,
}

/// What the receipt of a ticket said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TicketReceipt {
    /// The ticket's id.
    pub id: String,
    /// A bounded, redacted sentence.
    pub receipt: String,
}

#[derive(sqlx::FromRow)]
struct TicketRow {
    id: String,
    identity: String,
    target: String,
    user_id: String,
    token: String,
    sent_at: i64,
    due_at: i64,
    age_ms: i64,
}

impl Store {
    /// Takes at most `limit` tickets that are due, and puts them off by a quarter of their age, at least `pause`: what is not
    /// settled by then is due again, on any worker.
    pub async fn take_tickets(&self, limit: u32, pause: Duration) -> Result<Vec<DueTicket>, StoreError> {
        let pause = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX / 4);
        let rows: Vec<TicketRow> = self.db.call(&TAKE, &json!({ "limit": limit, "pause": pause })).await?;
        let ticket = |row: TicketRow| {
            let TicketRow { id, identity, target, user_id, token, sent_at, due_at, age_ms } = row;
            let age = Duration::from_millis(u64::try_from(age_ms).unwrap_or(0));
            DueTicket { ticket: Ticket { id, identity, target, user_id, token, sent_at, due_at }, age }
        };
        Ok(rows.into_iter().map(ticket).collect())
    }

    /// Notes what receipts said and forgets the push tokens; returns the ids of those that nobody had noted before.
    pub async fn settle_tickets(&self, receipts: &[TicketReceipt]) -> Result<Vec<String>, StoreError> {
        let settled: Vec<(String,)> = self.db.call(&SETTLE, &json!({ "receipts": receipts })).await?;
        Ok(settled.into_iter().map(|(id,)| id).collect())
    }
}
