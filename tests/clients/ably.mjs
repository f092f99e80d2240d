// ably-js against the sandbox: publish, presence with paging, both batches, errors.

import assert from 'node:assert/strict';
import Ably from 'ably';
import { control, fails, url } from './sandbox.mjs';

const options = { endpoint: url.hostname, port: Number(url.port), tls: false, logLevel: 0 };
const client = (more) => new Ably.Rest({ key: 'sandbox.key:secret', ...options, ...more });
const enter = (channel, clientId, more) => control('POST', '/presence', { channel, clientId, action: 'enter', ...more });
const effects = async (target) => {
  const { effects } = await control('GET', '/effects?limit=10000');
  return effects.filter((effect) => effect.target === target).map(({ event, count, name }) => ({ event, count, name }));
};

export async function ably() {
  for (const [label, useBinaryProtocol] of [['json', false], ['msgpack', true]]) {
    const rest = client({ useBinaryProtocol });
    await publishing(rest, label);
    await presence(rest, label);
    await batches(rest, label);
    await errors(rest, label, useBinaryProtocol);
  }
  await retries();
}

async function publishing(rest, label) {
  const name = `beheard:session:${label} 1/ü`;
  const channel = rest.channels.get(name);
  const message = { id: 'event-1', name: 'partner.signed_compact', data: { stage: 1, excludeUserId: 'user-1' } };
  const result = await channel.publish(message);
  assert.equal(result.serials.length, 1);
  await channel.publish(message);
  assert.deepEqual(await effects(name), [{ event: 'event-1', count: 1, name: 'partner.signed_compact' }]);

  const many = rest.channels.get(`many:${label}`);
  const sent = await many.publish([
    { name: 'text', data: 'text' },
    { name: 'json', data: { a: [1, null] } },
    { name: 'binary', data: Buffer.from([0, 255]) },
    { name: 'nothing' },
  ]);
  assert.equal(sent.serials.length, 4);
  const delivered = await effects(`many:${label}`);
  assert.deepEqual(delivered.map(({ name }) => name), ['text', 'json', 'binary', 'nothing']);
  assert.match(delivered[3].event, /^.+:3$/);

  assert.ok(Math.abs((await rest.time()) - Date.now()) < 60_000);
  const status = await channel.status();
  assert.equal(status.channelId, name);
  assert.equal(status.status.isActive, true);
}

async function presence(rest, label) {
  const name = `beheard:session:${label}:presence`;
  const channel = rest.channels.get(name);
  assert.deepEqual((await channel.presence.get()).items, []);
  for (let number = 0; number < 7; number += 1) await enter(name, `user ${number}, ü`);
  await enter(name, 'user-2');
  const one = await channel.presence.get({ clientId: 'user-2', limit: 1 });
  assert.deepEqual(one.items.map((member) => [member.clientId, member.action]), [['user-2', 'present']]);
  assert.equal(one.isLast(), true);

  let page = await channel.presence.get({ limit: 3 });
  const seen = [];
  for (;;) {
    seen.push(page.items.map((member) => member.clientId));
    if (!page.hasNext()) break;
    page = await page.next();
  }
  assert.deepEqual(seen.map((ids) => ids.length), [3, 3, 2]);
  assert.equal(new Set(seen.flat()).size, 8);
  assert.deepEqual((await page.first()).items.map((member) => member.clientId), seen[0]);

  await enter(`data:${label}`, 'user-1', { connectionId: 'c1', data: 'away' });
  await enter(`data:${label}`, 'user-1', { connectionId: 'c2' });
  const twice = await rest.channels.get(`data:${label}`).presence.get({ connectionId: 'c1' });
  assert.deepEqual(twice.items.map((member) => [member.connectionId, member.data]), [['c1', 'away']]);
}

async function batches(rest, label) {
  const [good, denied] = [`batch:${label}`, `batch:${label}:fault-denied`];
  // As ably-js sends data in a batch as it is given, it is given encoded.
  const data = JSON.stringify({ stage: 1, excludeUserId: 'user-1' });
  const specs = ['event-1', 'event-2'].map((id) => (
    { channels: [good], messages: [{ id, name: 'partner.signed_compact', data, encoding: 'json' }] }
  ));
  const results = await rest.batchPublish(specs);
  assert.deepEqual(results.map(({ successCount, failureCount }) => [successCount, failureCount]), [[1, 0], [1, 0]]);
  assert.equal(results[0].results[0].messageId, 'event-1');

  const mixed = await rest.batchPublish({ channels: [good, denied], messages: [{ name: 'n', data: 'd' }] });
  assert.deepEqual([mixed.successCount, mixed.failureCount], [1, 1]);
  assert.equal(mixed.results[1].error.code, 40160);
  assert.equal((await effects(good)).length, 3);

  await enter(`${good}:presence`, 'user-2');
  const names = [`${good}:presence`, `${good} empty`, denied];
  const found = await rest.batchPresence(names);
  assert.deepEqual([found.successCount, found.failureCount], [2, 1]);
  assert.deepEqual(found.results.map(({ channel }) => channel), names);
  assert.deepEqual(found.results[0].presence.map(({ clientId, action }) => [clientId, action]), [['user-2', 1]]);
  assert.deepEqual(found.results[1].presence, []);
  assert.equal(found.results[2].error.code, 40160);
}

async function errors(rest, label, useBinaryProtocol) {
  const as = (key) => client({ key, useBinaryProtocol }).channels.get('a');
  const code = async (call) => {
    const { code, statusCode } = await fails(call);
    return [statusCode, code];
  };
  const table = [
    [[401, 40101], () => as('sandbox.key:wrong').publish('n', 'd')],
    [[401, 40131], () => as('sandbox.revoked:secret').publish('n', 'd')],
    [[401, 40160], () => as('sandbox.subscriber:secret').publish('n', 'd')],
    [[401, 40160], () => as('sandbox.publisher:secret').presence.get()],
    [[400, 40003], () => rest.channels.get('a').presence.get({ limit: 1001 })],
    [[400, 40010], () => rest.channels.get(':a').publish('n', 'd')],
    [[400, 40031], () => rest.channels.get('a').publish([{ id: 'x' }, { id: 'y' }])],
    [[400, 40099], () => rest.channels.get('a').publish({ name: 'n' }, { _forceNack: 'true' })],
    [[429, 42918], () => rest.channels.get(`fault-429-${label}`).publish('n', 'd')],
    [[500, 50000], () => rest.channels.get(`fault-500-${label}`).publish('n', 'd')],
    [[400, 40000], () => rest.batchPresence(Array.from({ length: 101 }, (_, number) => `c${number}`))],
  ];
  for (const [expected, call] of table) assert.deepEqual(await code(call), expected, call.toString());

  // The client refuses what is over 64 KiB by itself; the sandbox is asked through a plain request.
  const large = await rest.request('POST', '/channels/a/messages', 6, {}, [{ data: 'x'.repeat(65_537) }], {});
  assert.deepEqual([large.statusCode, large.errorCode], [413, 40009]);

  await control('POST', '/settings', { channel_rate: 5 });
  const busy = rest.channels.get(`busy:${label}`);
  const sent = await Promise.allSettled(Array.from({ length: 60 }, () => busy.publish('n', 'd')));
  const refused = sent.filter(({ status }) => status === 'rejected').map(({ reason }) => reason.code);
  assert.ok(refused.length > 0 && refused.every((code) => code === 42913), String(refused));
  await control('POST', '/settings', { channel_rate: 50 });
}

/** A publish whose answer was lost is repeated on a fallback host with the same id, and arrives once. */
async function retries() {
  const rest = client({ fallbackHosts: ['127.0.0.1'] });
  await rest.channels.get('fault-reset-afterx1').publish('n', 'd');
  assert.deepEqual((await effects('fault-reset-afterx1')).map(({ count }) => count), [1]);
  await rest.channels.get('fault-503x1').publish('n', 'd');
  const { publish } = await control('GET', '/counters');
  assert.ok(publish.deduped >= 1);
}
