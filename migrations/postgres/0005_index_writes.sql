-- An event is written twice: claimed, and recorded. What has only been claimed so far is in hand and stands in one small index of its
-- own, so that the others are written once.
ALTER TABLE events ADD COLUMN unrecorded BOOLEAN NOT NULL DEFAULT false;
DROP INDEX events_by_id, events_by_partner, events_by_session, events_books;
CREATE INDEX events_by_id ON events (event_id, first_seen) WHERE NOT unrecorded;
CREATE INDEX events_by_partner ON events (partner_id, first_seen) WHERE partner_id IS NOT NULL AND NOT unrecorded;
CREATE INDEX events_by_session ON events (session_id, first_seen) WHERE session_id IS NOT NULL AND NOT unrecorded;
CREATE INDEX events_books ON events (state, via, reason) INCLUDE (repeats, id_reused) WHERE NOT unrecorded;
CREATE INDEX events_unrecorded ON events (first_seen) WHERE unrecorded;

-- A ticket goes with the row of its event, which knows age and user.
DELETE FROM tickets AS t WHERE NOT EXISTS (SELECT 1 FROM events AS e WHERE e.identity = t.identity);
DROP INDEX tickets_by_age, tickets_by_user;

-- Until PostgreSQL knows how few rows are in hand, it would rather read them all than the index of those.
ANALYZE events;
