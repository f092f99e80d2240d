// What the official clients send for the inputs that herald's own clients are given too (inputs.json). The channel names,
// the presence filter and the pushes are written here the way the clients' documentation has them, not the way herald does.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import Ably from 'ably';
import { control, record, url } from './sandbox.mjs';

const { events, push, token, page, tickets } = JSON.parse(await readFile(new URL('./inputs.json', import.meta.url)));
const options = { key: 'sandbox.key:secret', endpoint: url.hostname, port: Number(url.port), tls: false, logLevel: 0 };

const channel = ({ sessionId }) => `beheard:session:${sessionId}`;
const present = (event) => `${channel(event)}:presence`;
const published = ({ data, excludeUserId }) => (excludeUserId ? { ...data, excludeUserId } : data);

/** Calls `call` with one item after the other and returns the answers. */
async function each(items, call) {
  const answers = [];
  for (const item of items) answers.push(await call(item));
  return answers;
}

export async function ably() {
  for (let number = 0; number < page.connections; number += 1) {
    const connectionId = `c${String(number).padStart(3, '0')}`;
    await control('POST', '/presence', { channel: present(page), clientId: page.user, action: 'enter', connectionId });
  }
  for (const [label, useBinaryProtocol] of [['json', false], ['msgpack', true]]) {
    const rest = new Ably.Rest({ ...options, useBinaryProtocol });
    const presence = (event) => rest.channels.get(present(event)).presence;

    await record(`publish_${label}`, () => each(events, (event) => (
      rest.channels.get(channel(event)).publish({ id: event.id, name: event.event, data: published(event) })
    )));
    // What JSON and msgpack have different words for, or might.
    const numbers = [0, -1, 127, 128, -33, 255, -129, 65536, 2 ** 32, -(2 ** 32), Number.MAX_SAFE_INTEGER, 0.1, -1e-7, 1e15];
    const { text } = events[2].data;
    const extras = { headers: { numbers, text, long: 'ü'.repeat(300), list: [true, false, null, [], {}], ...events[3].data } };
    await record(`publish_extras_${label}`, () => rest.channels.get('extras').publish({ id: 'x', name: 'n', extras }));
    await record(`publish_binary_${label}`, () => rest.channels.get('binary').publish({ id: 'x', data: Buffer.from([0, 255]) }));
    await record(`presence_${label}`, () => each(events, (event) => presence(event).get({ clientId: event.partnerId })));

    const first = await record(`presence_page_${label}`, () => presence(page).get({ clientId: page.user, limit: page.limit }));
    const second = await record(`presence_next_${label}`, () => first.next());
    assert.deepEqual([first.items.length, second.items.length], [page.limit, page.connections - page.limit]);

    // As ably-js sends data in a batch as it is given, it is given encoded.
    const results = await record(`batch_publish_${label}`, () => rest.batchPublish(events.map((event) => ({
      channels: [channel(event)],
      messages: [{ id: event.id, name: event.event, data: JSON.stringify(published(event)), encoding: 'json' }],
    }))));
    assert.deepEqual(results.map(({ successCount }) => successCount), events.map(() => 1));
    const found = await record(`batch_presence_${label}`, () => rest.batchPresence(events.map(present)));
    assert.equal(found.successCount, events.length + 1, 'the comma in a name is taken for two channels');
  }
}

export async function expo(Expo, label) {
  await control('POST', '/settings', { project_rate: 0 });
  const client = new Expo({ accessToken: 'sandbox-access-token' });
  const sketch = (event) => ({
    to: token, sound: 'default', title: push.title, body: push.body,
    data: { ...event.data, sessionId: event.sessionId, event: event.event, eventId: event.id },
  });
  const message = (event) => {
    const { ttl, channelId, priority } = push;
    return { ...sketch(event), collapseId: event.id, tag: event.id, ttl, channelId, priority };
  };
  await record(`send_${label}`, () => each(events, (event) => client.sendPushNotificationsAsync([message(event)])));
  await record(`send_sketch_${label}`, () => client.sendPushNotificationsAsync([sketch(events[0])]));
  await record(`send_many_${label}`, () => client.sendPushNotificationsAsync(events.map(message)));
  // One letter more or less around the length from which bodies are compressed, once in ASCII and once beyond it.
  const padded = (letter, length) => ({ to: token, sound: 'default', title: letter.repeat(length), body: '', data: {}, collapseId: 'c', tag: 'c', ttl: 1 });
  const bare = JSON.stringify([padded('x', 0)]).length;
  await record(`send_edge_${label}`, () => each(
    [['x', 1024 - bare], ['x', 1025 - bare], ['ü', 1024 - bare], ['ü', 1025 - bare]],
    ([letter, length]) => client.sendPushNotificationsAsync([padded(letter, length)]),
  ));
  const ids = Array.from({ length: tickets }, (_, number) => `ticket-${number}`);
  await record(`receipts_${label}`, () => each(client.chunkPushNotificationReceiptIds(ids), (chunk) => (
    client.getPushNotificationReceiptsAsync(chunk)
  )));
}
