-- A ticket goes with the row of its event, which knows age and user.
DELETE FROM tickets WHERE identity NOT IN (SELECT identity FROM events);
DROP INDEX tickets_by_age;
DROP INDEX tickets_by_user;
