// Writes the outbox as a backend does: DATABASE_URL and SCHEMA say where. Prints the rows that were committed.
import { PrismaPg } from "@prisma/adapter-pg";
import { PrismaClient } from "./generated/index.js";

const adapter = new PrismaPg({ connectionString: process.env.DATABASE_URL }, { schema: process.env.SCHEMA });
const prisma = new PrismaClient({ adapter });

// The least there is.
const least = await prisma.heraldOutbox.create({ data: { sessionId: "s1", event: "partner.advanced" } });

// Everything a backend may say, and one id for both partners.
const full = {
  id: "full",
  event: "partner.signed_compact",
  excludeUserId: "u1",
  data: { signedAt: "2026-01-31T12:00:00Z", nested: { list: [1, "zwei", null, true] } },
  occurredAt: new Date("2026-01-31T12:00:00.123Z"),
  expiresAt: new Date("2036-01-31T12:00:00Z"),
  traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
};
await prisma.$transaction(async (tx) => {
  await tx.heraldOutbox.createMany({
    data: [
      { ...full, sessionId: "s1", partnerId: "u2" },
      { ...full, sessionId: "s1", partnerId: "u3" },
    ],
  });
});

const undone = prisma.$transaction(async (tx) => {
  await tx.heraldOutbox.create({ data: { id: "undone", sessionId: "s1", event: "partner.advanced" } });
  throw new Error("changed my mind");
});
await undone.then(
  () => {
    throw new Error("the transaction was not rolled back");
  },
  (error) => {
    if (error.message !== "changed my mind") throw error;
  },
);
await prisma.$disconnect();
process.stdout.write(JSON.stringify({ id: least.id, seq: String(least.seq) }));
