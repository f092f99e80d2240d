-- One row per identity: where an event stands and how it got there. Times are milliseconds since the epoch; evidence,
-- targets and attempts are JSON texts that only herald reads.
CREATE TABLE events (
    identity    TEXT PRIMARY KEY CHECK (identity <> ''),
    event_id    TEXT NOT NULL,
    session_id  TEXT,
    partner_id  TEXT,
    event       TEXT,
    fingerprint TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('waiting', 'done', 'skipped', 'dead')),
    reason      TEXT,
    detail      TEXT,
    via         TEXT,
    route       TEXT,
    attempt     BIGINT NOT NULL DEFAULT 0,
    replay      BIGINT NOT NULL DEFAULT 0,
    queue       TEXT,
    first_seen  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    next_at     BIGINT,
    expires_at  BIGINT NOT NULL,
    crashes     BIGINT NOT NULL DEFAULT 0,
    repeats     BIGINT NOT NULL DEFAULT 0,
    id_reused   BIGINT NOT NULL DEFAULT 0,
    -- Who is at it: `<instance>/<start>`, and since when by this database's clock.
    owner       TEXT,
    claimed_at  BIGINT,
    -- Times the row was written; 1 tells a first sight.
    version     BIGINT NOT NULL DEFAULT 1,
    evidence    TEXT NOT NULL DEFAULT '{}',
    targets     TEXT NOT NULL DEFAULT '{}',
    attempts    TEXT NOT NULL DEFAULT '[]'
);
CREATE INDEX events_by_id ON events (event_id, first_seen);
CREATE INDEX events_by_partner ON events (partner_id, first_seen) WHERE partner_id IS NOT NULL;
CREATE INDEX events_by_session ON events (session_id, first_seen) WHERE session_id IS NOT NULL;
-- Pruning walks what has ended, oldest first.
CREATE INDEX events_ended ON events (updated_at) WHERE state <> 'waiting';
-- The books are counted from this index alone.
CREATE INDEX events_books ON events (state, via, reason) INCLUDE (repeats, id_reused);

-- Distinct identities received, counted at first sight and never from the rows, so that the books can fail to close.
-- Sixteen shards keep workers from waiting for each other's commits; the sum counts.
CREATE TABLE received (
    shard BIGINT PRIMARY KEY,
    total BIGINT NOT NULL
);
INSERT INTO received (shard, total) SELECT shard, 0 FROM generate_series(0, 15) AS shard;

-- One row per start of a worker. `ended` is `left` (an orderly end) or `superseded` (the same instance started again).
CREATE TABLE workers (
    owner      TEXT PRIMARY KEY,
    instance   TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    beat_at    BIGINT NOT NULL,
    ended      TEXT
);

CREATE TABLE tickets (
    id       TEXT PRIMARY KEY,
    identity TEXT NOT NULL,
    target   TEXT NOT NULL,
    user_id  TEXT NOT NULL,
    token    TEXT NOT NULL,
    sent_at  BIGINT NOT NULL
);
CREATE INDEX tickets_by_age ON tickets (sent_at);
CREATE INDEX tickets_by_user ON tickets (user_id);

-- What lies in the dead-letter queue. A letter that left the queue keeps its number, without headers and body.
CREATE TABLE dead_letters (
    number       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id           TEXT NOT NULL,
    identity     TEXT NOT NULL DEFAULT '',
    session_id   TEXT,
    partner_id   TEXT,
    event        TEXT,
    reason       TEXT NOT NULL,
    error        TEXT NOT NULL,
    route        TEXT,
    attempt      BIGINT NOT NULL,
    replay       BIGINT NOT NULL,
    failed_at    BIGINT NOT NULL,
    first_seen   BIGINT,
    ended        TEXT,
    ended_at     BIGINT,
    content_type TEXT,
    body_bytes   BIGINT NOT NULL,
    headers      TEXT NOT NULL,
    body         TEXT NOT NULL
);
-- A letter is written once, however often the record is repeated.
CREATE UNIQUE INDEX dead_letters_once ON dead_letters (id, identity, replay, failed_at);
CREATE INDEX dead_letters_by_identity ON dead_letters (identity) WHERE ended IS NULL;
CREATE INDEX dead_letters_by_age ON dead_letters (failed_at);

-- The clock of every claim and heartbeat, in milliseconds since the epoch.
CREATE VIEW clock AS SELECT (extract(epoch FROM statement_timestamp()) * 1000)::bigint AS ms;
-- A worker is dead when it was silent for ten seconds.
CREATE VIEW living_workers AS
    SELECT workers.owner FROM workers, clock WHERE workers.ended IS NULL AND workers.beat_at > clock.ms - 10000;
