// RabbitMQ is restarted and killed while a backend enqueues: what was confirmed arrives, all of it, and once.

import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { client, eventually, node, sandbox } from './support.js';

const SESSIONS = 50;
/** Events that wait while RabbitMQ is away; more would only take herald longer to deliver. */
const WAITING = 500;

/** Returns how often each event arrived. */
async function arrivals() {
  const counts = new Map();
  for (let since = 0; ;) {
    const { effects, unlisted } = await sandbox('GET', `/effects?since=${since}&limit=10000`);
    assert.equal(unlisted, 0);
    if (effects.length === 0) return counts;
    for (const { event, count } of effects) counts.set(event, (counts.get(event) ?? 0) + count);
    since += effects.length;
  }
}

test('nothing that was confirmed is lost over restarts and kills under load', async (t) => {
  const herald = client(t, { timeout: 300_000, closeTimeout: 120_000 });
  const confirmed = [];
  const calls = [];
  let loading = true;
  t.after(() => (loading = false));
  const load = (async () => {
    for (let number = 0; loading; number += 1) {
      const session = `s${number % SESSIONS}`;
      // Half on channels, half to phones: Ably would drop a repeat, a phone rings.
      const call = number % 2 === 0
        ? herald.publishSessionEvent(session, 'partner.advanced', { number })
        : herald.notifyPartner(session, `user-${number % SESSIONS}`, 'partner.advanced', { number });
      calls.push(call.then((id) => confirmed.push(id)));
      do await pause(2); while (herald.unconfirmed >= WAITING);
    }
  })();
  const flow = async () => {
    const wanted = confirmed.length + 200;
    await eventually('events flow', () => confirmed.length >= wanted);
  };
  let waited = 0;
  for (const trouble of [['restart'], ['kill', 'start'], ['stop', 'start'], ['kill', 'start']]) {
    await flow();
    for (const verb of trouble) await node(verb);
    waited = Math.max(waited, herald.unconfirmed);
  }
  await flow();
  loading = false;
  await load;
  await Promise.all(calls);
  assert.equal(await herald.close(), 0);
  assert.equal(new Set(confirmed).size, calls.length);
  assert.ok(waited > 0, 'events were waiting while RabbitMQ was away');

  const counts = await eventually('everything has arrived', async () => {
    const counts = await arrivals();
    return counts.size >= confirmed.length && counts;
  }, 240_000);
  const missing = confirmed.filter((id) => !counts.has(id));
  const repeated = [...counts.values()].filter((count) => count > 1).length;
  t.diagnostic(`${confirmed.length} confirmed over 4 outages, up to ${waited} waiting; ${missing.length} missing, ${repeated} arrived twice`);
  assert.deepEqual(missing, []);
  assert.equal(repeated, 0);
});
