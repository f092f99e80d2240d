-- A ticket says itself when its receipt is asked for (next), and keeps what the receipt said in place of the push token.
ALTER TABLE tickets ADD COLUMN due_at BIGINT DEFAULT 0;
ALTER TABLE tickets ADD COLUMN receipt TEXT;
CREATE INDEX tickets_due ON tickets (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX tickets_by_identity ON tickets (identity);
