-- Who walks a queue by rotation: one at a time, by the clock above, and dead after ten seconds of silence.
CREATE TABLE sweeps (
    queue            TEXT PRIMARY KEY,
    -- NULL: nobody.
    owner            TEXT,
    started_at       INTEGER NOT NULL,
    beat_at          INTEGER NOT NULL,
    -- Start of the first walk that ended in the middle: what it had in hand may lie there twice, or although it was dealt with.
    unfinished_since INTEGER
) STRICT;

-- The head of the events queue came later than this: it is when the event the worker took last had come, or when the
-- worker saw the queue empty.
ALTER TABLE workers ADD COLUMN head_after INTEGER;
