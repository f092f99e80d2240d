// A real herald behind RabbitMQ, with the sandbox for Ably and Expo: what a backend's call comes to. The users `ada`, `bob`
// and `eve` have a phone; `walt` has a push token that is none, `uma` one whose device is gone, `vera` has none.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import test from 'node:test';
import { client, enter, eventually, explain, sandbox } from './support.js';

const phone = (user) => `ExponentPushToken[phone-${user}]`;

/** Returns what herald asked of a provider for the event with this id. */
async function asked(endpoints, id) {
  const { entries } = await sandbox('GET', '/journal?limit=10000');
  const wanted = entries.filter(({ endpoint, items }) => endpoints.includes(endpoint) && items.some((item) => item.id === id));
  return wanted.map(({ path, body }) => ({ path, body: [body].flat().find((message) => [message.id, message.data?.eventId].includes(id)) }));
}
const published = (id) => asked(['publish'], id);
const pushed = (id) => asked(['send'], id);

/** Waits until herald is done with an event, and returns how: the way and the reason. */
async function ended(id) {
  const [entry, ...more] = await eventually(`${id} has ended`, async () => {
    const entries = await explain(id).catch(() => []);
    return entries.length > 0 && entries.every(({ state }) => state !== 'waiting') && entries;
  });
  assert.deepEqual(more, [], 'one event');
  return `${entry.state} ${entry.via ?? entry.reason}`;
}

test('publishSessionEvent publishes on the session\'s channel', async (t) => {
  const session = randomUUID();
  const id = await client(t).publishSessionEvent(session, 'session.paused', { pausedAt: '2026-01-31T12:00:00Z' }, 'ada');
  assert.equal(await ended(id), 'done realtime');
  const [{ path, body }, ...more] = await published(id);
  assert.equal(decodeURIComponent(path), `/channels/beheard:session:${session}/messages`);
  assert.equal(body.name, 'session.paused');
  assert.deepEqual(JSON.parse(body.data), { pausedAt: '2026-01-31T12:00:00Z', excludeUserId: 'ada' });
  assert.deepEqual([more, await pushed(id)], [[], []]);
});

test('notifyPartner publishes when the partner is online', async (t) => {
  const session = randomUUID();
  await enter(session, 'ada');
  const id = await client(t).notifyPartner(session, 'ada', 'partner.advanced', { toStage: 3 });
  assert.equal(await ended(id), 'done realtime');
  const [{ path, body }] = await published(id);
  assert.equal(decodeURIComponent(path), `/channels/beheard:session:${session}/messages`);
  assert.deepEqual([body.name, JSON.parse(body.data)], ['partner.advanced', { toStage: 3 }]);
  assert.deepEqual(await pushed(id), []);
});

test('notifyPartner pushes when the partner is offline, with the catalogue\'s text', async (t) => {
  const session = randomUUID();
  // Somebody else is there.
  await enter(session, 'ada');
  const data = { signedAt: '2026-01-31T12:00:00Z', signedBy: 'ada' };
  const id = await client(t).notifyPartner(session, 'bob', 'partner.signed_compact', data);
  assert.equal(await ended(id), 'done push');
  const [{ body }, ...more] = await pushed(id);
  assert.deepEqual([body.to, body.sound].flat(), [phone('bob'), 'default']);
  assert.deepEqual([body.title, body.body], ['Partner is ready', 'They signed the Curiosity Compact. Your turn!']);
  assert.deepEqual(body.data, { ...data, sessionId: session, event: 'partner.signed_compact', eventId: id });
  assert.deepEqual([more, await published(id)], [[], []]);
});

test('a name outside the catalogue gets the fallback text', async (t) => {
  const id = await client(t).notifyPartner(randomUUID(), 'bob', 'chat-item:new', { chatItemId: 'c1' });
  assert.equal(await ended(id), 'done push');
  const [{ body }] = await pushed(id);
  assert.deepEqual([body.title, body.body, body.data.chatItemId], ['BeHeard', 'You have an update', 'c1']);
});

test('invalid tokens, a missing one and an excluded partner end without a push', async (t) => {
  const herald = client(t);
  const session = randomUUID();
  const notify = (partner, options) => herald.notifyPartner(session, partner, 'partner.advanced', { toStage: 2 }, options);
  for (const [id, how] of [
    [await notify('walt'), 'skipped invalid_token'],
    [await notify('uma'), 'skipped invalid_token'],
    [await notify('vera'), 'skipped no_token'],
    [await notify('bob', { excludeUserId: 'bob' }), 'skipped excluded'],
    [await notify('bob', { expiresAt: new Date(Date.now() - 1_000) }), 'skipped expired'],
  ]) {
    assert.equal(await ended(id), how);
    assert.deepEqual(await published(id), []);
  }
  const { effects } = await sandbox('GET', '/effects?limit=10000');
  assert.ok(!effects.some(({ target }) => target.includes('uma') || target.includes('walt')));
});

test('one id is one event for a session and partner, and another for another partner', async (t) => {
  const herald = client(t);
  const session = randomUUID();
  const id = randomUUID();
  for (const partner of ['ada', 'bob', 'ada', 'ada']) {
    assert.equal(await herald.notifyPartner(session, partner, 'partner.advanced', { toStage: 2 }, { id }), id);
  }
  // Events of a session go one after the other: when this one has ended, those before it have.
  await ended(await herald.publishSessionEvent(session, 'session.resumed', {}));
  assert.deepEqual((await pushed(id)).map(({ body }) => body.to).flat().sort(), [phone('ada'), phone('bob')]);
  assert.equal((await explain(id)).length, 2);
});
