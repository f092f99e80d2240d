-- The outbox: a backend writes events here in its own transaction, `herald outbox` publishes them once that has committed.
--
--   psql "$DATABASE_URL" -f herald_outbox.sql         or the whole text as a Prisma migration: docs/outbox.md
--
-- PostgreSQL 13 or newer. Running it again changes nothing. There are no CHECKs on purpose: a bad event must not undo what the
-- user did. herald marks such a row (failed_at, error) and goes on with the rows behind it.

CREATE TABLE IF NOT EXISTS herald_outbox (
    -- The order within a session. Never set by hand; the sequence must keep its CACHE 1.
    seq             BIGSERIAL PRIMARY KEY,
    -- The event's id: the same id for the same session and partner is delivered once. One id may go to both partners.
    id              TEXT NOT NULL DEFAULT gen_random_uuid()::text,
    session_id      TEXT NOT NULL,
    event           TEXT NOT NULL,
    -- The recipient; NULL: published on the session's channel, pushed to nobody.
    partner_id      TEXT,
    exclude_user_id TEXT,
    -- A JSON object; the whole event has at most 64 KiB.
    data            JSONB NOT NULL DEFAULT '{}',
    occurred_at     TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    -- NULL: the catalogue's life, or 24 hours.
    expires_at      TIMESTAMPTZ(3),
    -- W3C trace context of the request that wrote the row.
    traceparent     TEXT,
    -- From here on the columns are herald's.
    created_at      TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    -- Set once RabbitMQ has confirmed the event, when outbox.retention keeps the row.
    published_at    TIMESTAMPTZ,
    -- Set when herald cannot read the row, with what is wrong in error. To try again: mend it and set both to NULL.
    failed_at       TIMESTAMPTZ,
    error           TEXT
);

-- Prisma Migrate does not see partial indexes, functions and triggers, and leaves them alone.
CREATE INDEX IF NOT EXISTS herald_outbox_waiting ON herald_outbox (seq)
    WHERE published_at IS NULL AND failed_at IS NULL;
-- By hash: an index on the text itself would refuse a session id of several kilobytes, and with it the backend's transaction.
CREATE INDEX IF NOT EXISTS herald_outbox_session ON herald_outbox (hashtextextended(session_id, 0), seq)
    WHERE published_at IS NULL AND failed_at IS NULL;
CREATE INDEX IF NOT EXISTS herald_outbox_published ON herald_outbox (published_at) WHERE published_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS herald_outbox_failed ON herald_outbox (failed_at) WHERE failed_at IS NOT NULL;

-- Rows come and go: dead ones are cleared away early.
ALTER TABLE herald_outbox SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);

-- Wakes the relays at commit, once for each transaction. Without the trigger rows are found by polling (outbox.poll).
CREATE OR REPLACE FUNCTION herald_outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('herald_outbox', TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME);
    RETURN NULL;
END
$$;
DROP TRIGGER IF EXISTS herald_outbox_notify ON herald_outbox;
CREATE TRIGGER herald_outbox_notify AFTER INSERT ON herald_outbox
    FOR EACH STATEMENT EXECUTE FUNCTION herald_outbox_notify();
