//! The statements on the backend's table, written once for its name.
//!
//! Kept apart from what runs them. None is kept prepared: a plan must know how full the table is now, poolers lose prepared
//! statements, and after a migration of the app PostgreSQL refuses plans made before it.

use crate::domain::outbox::{MAX_DATA, MAX_TEXT};

/// The server itself gives the rows back when a relay has vanished without closing its connection; a round takes less than that.
/// And the table is read along its indexes, however wrong the statistics are: it fills and empties faster than they are made.
pub(super) const BEGIN: &str = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '60s'; SET LOCAL enable_seqscan = off;
    SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_nestloop = off; SET LOCAL jit = off";

/// Where the table is, and what may be done with it.
pub(super) const FIND: &str = "SELECT n.nspname || '.' || c.relname AS name,
        has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')
            AS allowed,
        EXISTS (SELECT 1 FROM pg_trigger AS t
            WHERE t.tgrelid = c.oid AND t.tgname = 'herald_outbox_notify' AND t.tgenabled <> 'D') AS notifies
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)";

/// The statements, written for one table.
pub(super) struct Texts {
    pub take: String,
    pub mark_bad: String,
    pub mark_published: String,
    pub delete: String,
    pub prune: String,
    pub look: String,
}

impl Texts {
    pub fn new(table: &str) -> Texts {
        let waits = "published_at IS NULL AND failed_at IS NULL";
        // An infinite time has no number, and asking for one would fail the statement for all rows.
        let micros = |what: &str, column: &str| {
            format!("CASE WHEN isfinite({column}) THEN (extract(epoch FROM {what}) * 1000000)::bigint END")
        };
        let time = |column: &str| {
            let finite = micros(column, column);
            format!("coalesce({finite}, CASE WHEN {column} IS NOT NULL THEN {} END) AS {}", i64::MAX, &column[2..])
        };
        let age = |column: &str| format!("coalesce({}, 0)", micros(&format!("clock_timestamp() - {column}"), column));
        let cut = |column: &str| format!("left(t.{column}::text, {MAX_TEXT}) AS {column}");
        let columns = ["id", "session_id", "event", "partner_id", "exclude_user_id", "traceparent"].map(cut).join(", ");
        let times = ["t.occurred_at", "t.expires_at", "t.created_at"].map(time).join(", ");
        Texts {
            // A row is behind when an earlier one of its session waits that is not among those taken: somebody else has it,
            // or it came while this statement was running. `+ 0` keeps the search for it on the session's index.
            take: format!(
                "WITH taken AS MATERIALIZED (
                    SELECT * FROM {table} WHERE {waits} ORDER BY seq LIMIT $1 FOR UPDATE SKIP LOCKED
                ), sessions AS MATERIALIZED (
                    SELECT s.session_id, (
                        SELECT min(e.seq + 0) FROM (SELECT * FROM {table} WHERE {waits}) AS e
                        WHERE hashtextextended(e.session_id, 0) = hashtextextended(s.session_id, 0)
                            AND e.session_id = s.session_id AND e.seq < s.last AND e.seq NOT IN (SELECT seq FROM taken)
                    ) AS first_elsewhere
                    FROM (SELECT session_id, max(seq) AS last FROM taken GROUP BY session_id) AS s)
                SELECT t.seq::bigint AS seq, {columns}, {times}, {age} AS age,
                    CASE WHEN octet_length(t.data::text) <= {MAX_DATA} THEN t.data::text END AS data,
                    coalesce(octet_length(t.data::text), 0)::bigint AS data_bytes,
                    coalesce(t.seq > s.first_elsewhere, false) AS behind
                FROM taken AS t LEFT JOIN sessions AS s ON s.session_id = t.session_id ORDER BY t.seq",
                age = age("t.created_at"),
            ),
            mark_bad: format!(
                "UPDATE {table} AS o SET failed_at = clock_timestamp(), error = b.error
                FROM unnest($1::bigint[], $2::text[]) AS b (seq, error) WHERE o.seq = b.seq"
            ),
            mark_published: format!("UPDATE {table} SET published_at = clock_timestamp() WHERE seq = ANY ($1)"),
            delete: format!("DELETE FROM {table} WHERE seq = ANY ($1)"),
            prune: format!(
                "DELETE FROM {table} WHERE seq IN (
                    SELECT seq FROM {table} WHERE published_at < clock_timestamp() - $1 * interval '1 millisecond'
                    ORDER BY published_at LIMIT $2 FOR UPDATE SKIP LOCKED)"
            ),
            // Between the two they name every column, and neither waits for somebody who makes an index.
            look: format!(
                "SELECT (SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {waits} LIMIT $1) AS w) AS waiting,
                    coalesce((SELECT {age} FROM {table} WHERE {waits} ORDER BY seq LIMIT 1), 0) AS oldest,
                    (SELECT count(*) FROM (SELECT error FROM {table} WHERE failed_at IS NOT NULL LIMIT $1) AS f) AS failed",
                age = age("created_at"),
            ),
        }
    }
}
