//! Tickets: what Expo gave for each accepted push, kept with its push token until the receipt is read.
//!
//! Written by [`Store::record`](super::Store::record) together with the attempt, read and settled by the worker's receipts.

use serde_json::json;

use crate::domain::ledger::Ticket;

use super::{Store, StoreError, database::Statement};

const DUE: Statement = Statement {
    name: "due_tickets",
    writes: false,
    sqlite: &["SELECT id, identity, target, user_id, token, sent_at FROM tickets WHERE sent_at <= $1->>'sent_before'
        ORDER BY sent_at, id LIMIT $1->>'limit'"],
    postgres: "SELECT id, identity, target, user_id, token, sent_at FROM tickets
        WHERE sent_at <= ($1::json->>'sent_before')::bigint ORDER BY sent_at, id LIMIT ($1::json->>'limit')::bigint",
};

/// The push token goes with the ticket; what the receipt said stays in the ledger, if the row and its target are there.
const SETTLE: Statement = Statement {
    name: "settle_ticket",
    writes: true,
    sqlite: &[
        "UPDATE events AS e SET version = e.version + 1,
            targets = json_set(e.targets, '$.\"' || t.target || '\".receipt', $1->>'outcome')
        FROM tickets AS t WHERE t.id = $1->>'id' AND e.identity = t.identity
            AND json_type(e.targets, '$.\"' || t.target || '\"') = 'object'",
        "DELETE FROM tickets WHERE id = $1->>'id' RETURNING id",
    ],
    postgres: "WITH settled AS (
        DELETE FROM tickets WHERE id = $1::json->>'id' RETURNING id, identity, target
    ), told AS (
        UPDATE events AS e SET version = e.version + 1,
            targets = jsonb_set(e.targets::jsonb, ARRAY[s.target, 'receipt'], to_jsonb($1::json->>'outcome'))::text
        FROM settled AS s WHERE e.identity = s.identity AND e.targets::jsonb ? s.target
    )
    SELECT id FROM settled",
};

#[derive(sqlx::FromRow)]
struct TicketRow {
    id: String,
    identity: String,
    target: String,
    user_id: String,
    token: String,
    sent_at: i64,
}

impl Store {
    /// Returns tickets of pushes sent at or before `sent_before` (milliseconds since the epoch), oldest first.
    pub async fn due_tickets(&self, sent_before: i64, limit: u32) -> Result<Vec<Ticket>, StoreError> {
        let parameter = json!({ "sent_before": sent_before, "limit": limit });
        let rows: Vec<TicketRow> = self.db.call(&DUE, &parameter).await?;
        let ticket = |row: TicketRow| {
            let TicketRow { id, identity, target, user_id, token, sent_at } = row;
            Ticket { id, identity, target, user_id, token, sent_at }
        };
        Ok(rows.into_iter().map(ticket).collect())
    }

    /// Notes what the receipt said at the event's target and deletes the ticket; returns whether there was one.
    pub async fn settle_ticket(&self, id: &str, outcome: &str) -> Result<bool, StoreError> {
        let settled: Vec<(String,)> = self.db.call(&SETTLE, &json!({ "id": id, "outcome": outcome })).await?;
        Ok(!settled.is_empty())
    }
}
