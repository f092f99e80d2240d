// The worker a team would write in Node instead of herald: a queue in front of the code the app began with, on the official clients.
// The benchmark starts it with everything in its environment. It keeps no ledger and explains nothing; it looks up presence, then
// publishes or pushes, tries again a few times, and acknowledges after delivery.

import amqp from 'amqplib';
import Ably from 'ably';
import { Expo } from 'expo-server-sdk';
import pg from 'pg';

import { PUSH_MESSAGES, FALLBACK } from './messages.mjs';

const env = process.env;
const prefetch = Number(env.PREFETCH ?? 100);
// Ably's client keeps at most 40 connections unless told otherwise, Expo's six requests.
const sockets = Number(env.ABLY_SOCKETS ?? 0);
const pushes = Number(env.EXPO_CONCURRENCY ?? 0);

const ably = new Ably.Rest({
  key: env.ABLY_API_KEY,
  endpoint: '127.0.0.1',
  port: Number(env.ABLY_PORT),
  tls: false,
  // What stands in for Ably speaks JSON.
  useBinaryProtocol: false,
  ...(sockets && { restAgentOptions: { maxSockets: sockets, keepAlive: true } }),
});
const expo = new Expo({ ...(pushes && { maxConcurrentRequests: pushes }) });
const database = new pg.Pool({ connectionString: env.DATABASE_URL, max: 20 });

async function publishSessionEvent({ id, sessionId, event, data }) {
  // With the event's id Ably drops a repeat.
  await ably.channels.get(`beheard:session:${sessionId}`).publish({ id, name: event, data });
}

async function sendPushNotification({ id, sessionId, partnerId, event, data }) {
  const { rows } = await database.query({
    name: 'token',
    text: 'SELECT "pushToken" FROM "User" WHERE id = $1',
    values: [partnerId],
  });
  const token = rows[0]?.pushToken;
  if (!token || !Expo.isExpoPushToken(token)) return;
  const { title, body } = PUSH_MESSAGES[event] ?? FALLBACK;
  const [ticket] = await expo.sendPushNotificationsAsync([
    { to: token, sound: 'default', title, body, data: { sessionId, event, eventId: id, ...data } },
  ]);
  if (ticket.status !== 'ok') throw new Error(ticket.details?.error ?? 'refused');
}

async function notifyPartner(event) {
  const channel = ably.channels.get(`beheard:session:${event.sessionId}:presence`);
  const members = await channel.presence.get({ clientId: event.partnerId, limit: 1 });
  if (members.items.some((member) => member.clientId === event.partnerId)) {
    await publishSessionEvent(event);
  } else {
    await sendPushNotification(event);
  }
}

async function deliver(message) {
  const { id, sessionId, partnerId, event, data, excludeUserId, expiresAt } = JSON.parse(message.content.toString());
  if (!sessionId || !event) return;
  if (expiresAt && Date.parse(expiresAt) < Date.now()) return;
  const published = { id, sessionId, partnerId, event, data: { ...data, ...(excludeUserId && { excludeUserId }) } };
  if (!partnerId) return publishSessionEvent(published);
  await notifyPartner(published);
}

async function withRetry(work, tries = 4) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (attempt === tries || error instanceof SyntaxError) throw error;
      await new Promise((resolve) => setTimeout(resolve, 200 * 2 ** attempt * (0.5 + Math.random())));
    }
  }
}

const connection = await amqp.connect(env.AMQP_URL);
const channel = await connection.createChannel();
await channel.prefetch(prefetch);
const inHand = new Set();
const { consumerTag } = await channel.consume(env.QUEUE, (message) => {
  if (message === null) return;
  const work = withRetry(() => deliver(message))
    .then(
      () => channel.ack(message),
      (error) => {
        console.error(`given up: ${error.message}`);
        channel.nack(message, false, false);
      },
    )
    .finally(() => inHand.delete(work));
  inHand.add(work);
});

process.once('SIGTERM', async () => {
  await channel.cancel(consumerTag);
  await Promise.allSettled(inHand);
  await channel.close();
  await connection.close();
  await database.end();
  process.exit(0);
});
