// expo-server-sdk against the sandbox: send, chunking, receipts, request errors, retries.

import assert from 'node:assert/strict';
import { control, fails } from './sandbox.mjs';

const token = (name) => `ExponentPushToken[${name}]`;

export async function expo(Expo, label) {
  const client = new Expo({ retryMinTimeout: 10 });
  await control('POST', '/settings', { receipt_delay_ms: 0, project_rate: 0 });
  await sending(Expo, client, label);
  await chunks(Expo, client, label);
  await errors(Expo, client, label);
  await limits(client, label);
}

async function sending(Expo, client, label) {
  const messages = [
    {
      to: token(`a-${label}`), sound: 'default', title: 'Partner is ready', body: 'Your turn.',
      data: { sessionId: 's1', event: 'partner.signed_compact', eventId: `event-1-${label}` },
      collapseId: 'event-1', tag: 'event-1', ttl: 3600, priority: 'high', channelId: 'default',
    },
    { to: [token('unregistered-1'), token('rate-1')], title: 'x', badge: 0 },
  ];
  assert.ok(messages.flatMap(({ to }) => to).every((to) => Expo.isExpoPushToken(to)));
  await client.sendPushNotificationsAsync(messages.slice(0, 1));
  const tickets = await client.sendPushNotificationsAsync(messages);
  assert.deepEqual(tickets.map(({ status }) => status), ['ok', 'error', 'ok']);
  assert.deepEqual(tickets[1].details, { error: 'DeviceNotRegistered', expoPushToken: token('unregistered-1') });

  const ids = [tickets[0].id, tickets[2].id, 'unknown'];
  const receipts = await client.getPushNotificationReceiptsAsync(ids);
  assert.deepEqual(Object.keys(receipts).sort(), [tickets[0].id, tickets[2].id].sort());
  assert.deepEqual(receipts[tickets[0].id], { status: 'ok' });
  assert.equal(receipts[tickets[2].id].details.error, 'MessageRateExceeded');
  assert.deepEqual(await client.getPushNotificationReceiptsAsync(['unknown']), {});

  const { effects } = await control('GET', '/effects?limit=10000');
  assert.equal(effects.find(({ event }) => event === `event-1-${label}`).count, 2);
}

async function chunks(Expo, client, label) {
  const to = Array.from({ length: 250 }, (_, number) => token(`chunk-${label}-${number}`));
  const chunks = client.chunkPushNotifications([{ to, body: 'long enough to be compressed'.repeat(50) }]);
  assert.deepEqual(chunks.map(([message]) => message.to.length), [100, 100, 50]);
  const tickets = (await Promise.all(chunks.map((chunk) => client.sendPushNotificationsAsync(chunk)))).flat();
  assert.equal(tickets.filter(({ status }) => status === 'ok').length, 250);
  const { entries } = await control('GET', '/journal?provider=expo&limit=10000');
  assert.ok(entries.some(({ headers }) => headers['content-encoding'] === 'gzip'));
  const found = [];
  for (const ids of client.chunkPushNotificationReceiptIds(tickets.map(({ id }) => id))) {
    found.push(...Object.values(await client.getPushNotificationReceiptsAsync(ids)));
  }
  assert.equal(found.length, 250);
}

async function errors(Expo, client, label) {
  const send = (messages, as = client) => fails(() => as.sendPushNotificationsAsync(messages));
  const many = await send([{ to: Array.from({ length: 101 }, () => token('a')) }]);
  assert.deepEqual([many.statusCode, many.code], [400, 'PUSH_TOO_MANY_NOTIFICATIONS']);
  const mixed = await send([{ to: token('a') }, { to: token('project-b-1') }]);
  assert.deepEqual([mixed.statusCode, mixed.code], [400, 'PUSH_TOO_MANY_EXPERIENCE_IDS']);
  assert.deepEqual(mixed.details, { '@sandbox/app': [token('a')], '@sandbox/b': [token('project-b-1')] });
  const invalid = await send([{ to: token('a') }, { to: token('b'), interruptionLevel: 'timeSensitive' }]);
  assert.deepEqual([invalid.statusCode, invalid.code], [400, 'VALIDATION_ERROR']);
  assert.match(invalid.message, /"1\.interruptionLevel"/);
  const receipts = await fails(() => client.getPushNotificationReceiptsAsync(Array.from({ length: 1001 }, () => 'x')));
  assert.deepEqual([receipts.statusCode, receipts.code], [400, 'PUSH_TOO_MANY_RECEIPTS']);

  const short = await send([{ to: [token(`fault-short-${label}`), token('b')] }]);
  assert.match(short.message, /respond with 2 tickets but got 1/);
  const garbage = await send([{ to: token(`fault-garbage-${label}`) }]);
  assert.equal(garbage.statusCode, 200);
  const gateway = await send([{ to: token(`fault-504-${label}`) }]);
  assert.equal(gateway.statusCode, 504);
  const down = await send([{ to: token(`fault-500-${label}`) }]);
  assert.deepEqual([down.statusCode, down.code], [500, 'INTERNAL_SERVER_ERROR']);

  const stranger = await send([{ to: token('a') }], new Expo({ accessToken: 'unknown' }));
  assert.equal(stranger.statusCode, 401);
  await control('POST', '/settings', { enhanced_security: true });
  const missing = await send([{ to: token('a') }]);
  assert.deepEqual([missing.statusCode, missing.code], [403, 'UNAUTHORIZED']);
  const known = new Expo({ accessToken: 'sandbox-access-token' });
  assert.equal((await known.sendPushNotificationsAsync([{ to: token('a') }]))[0].status, 'ok');
  await control('POST', '/settings', { enhanced_security: false });
}

async function limits(client, label) {
  const sends = async () => (await control('GET', '/counters')).send.requests;
  const before = await sends();
  // Two refusals, then it works: the SDK tries three times on 429.
  const [ticket] = await client.sendPushNotificationsAsync([{ to: token(`fault-429x2-${before}`) }]);
  assert.deepEqual([ticket.status, await sends()], ['ok', before + 3]);
  await control('POST', '/settings', { project_rate: 100 });
  const full = Array.from({ length: 2 }, () => [{ to: Array.from({ length: 100 }, () => token(`project-${label}-1`)) }]);
  const sent = await Promise.allSettled(full.map((chunk) => client.sendPushNotificationsAsync(chunk)));
  const refused = sent.filter(({ status }) => status === 'rejected').map(({ reason }) => reason);
  assert.deepEqual(refused.map(({ statusCode, code }) => [statusCode, code]), [[429, 'TOO_MANY_REQUESTS']]);
  await control('POST', '/settings', { project_rate: 0 });
}
