-- The app's database as Prisma would make it, so far as herald reads it: docker-compose.yml loads this on first start.
CREATE DATABASE app;
\connect app
CREATE TABLE "User" (id TEXT PRIMARY KEY, "pushToken" TEXT);
INSERT INTO "User" (id, "pushToken") VALUES
    ('ada', 'ExponentPushToken[ada-phone]'),
    ('bob', 'ExponentPushToken[bob-phone]'),
    ('eve', NULL);
