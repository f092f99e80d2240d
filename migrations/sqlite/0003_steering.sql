-- What operators have set, one row for each thing that can be set. `value` is NULL while nothing is; `until` ends it by itself.
CREATE TABLE steering (
    what    TEXT PRIMARY KEY CHECK (what IN ('intake', 'ably', 'expo', 'log')),
    value   TEXT,
    who     TEXT NOT NULL DEFAULT '',
    why     TEXT,
    at      INTEGER NOT NULL DEFAULT 0,
    until   INTEGER,
    -- The version of the whole at which this row was last set.
    version INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO steering (what) VALUES ('intake'), ('ably'), ('expo'), ('log');

-- Grows with every change. One row, so that versions are given out in the order in which the changes become visible.
CREATE TABLE steered (
    version INTEGER NOT NULL
) STRICT;
INSERT INTO steered (version) VALUES (0);

-- Up to which version a worker obeys, and which of its gates are shut.
ALTER TABLE workers ADD COLUMN steering INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN gates TEXT NOT NULL DEFAULT '{}';

-- What operators did. A user stands here by a hash only, so that forgetting them leaves nothing.
CREATE TABLE actions (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    who        TEXT NOT NULL,
    what       TEXT NOT NULL,
    why        TEXT,
    parameters TEXT NOT NULL,
    affected   INTEGER,
    outcome    TEXT NOT NULL
) STRICT;
CREATE INDEX actions_by_age ON actions (at);
