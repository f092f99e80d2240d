// The client and RabbitMQ alone: what is there is full, blocked, refusing, gone or not set up. herald has been started here
// once and runs no more, so that what is accepted stays in its queue.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import net from 'node:net';
import test from 'node:test';
import { promisify } from 'node:util';
import { connect } from 'amqplib';
import { createHerald } from 'herald-client';
import { client, eventually, fails, given, node } from './support.js';

const { url, prefix } = given;
const queue = `${prefix}.events`;

/** A plain channel to look at the queue with. It takes the exchanges of the test's own away in the end. */
async function plain(context, ...exchanges) {
  const connection = await connect(url);
  const channel = await connection.createChannel();
  context.after(async () => {
    for (const exchange of exchanges) await channel.deleteExchange(exchange);
    await connection.close();
  });
  return channel;
}

/** An address where nobody listens. */
async function nowhere() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return `amqp://guest:s3cret@127.0.0.1:${port}`;
}

test('an event is confirmed as a persistent message in herald\'s queue', async (t) => {
  const channel = await plain(t);
  await channel.purgeQueue(queue);
  const herald = client(t);
  const id = await herald.notifyPartner('s1', 'u2', 'partner.advanced', { toStage: 2 }, { excludeUserId: 'u1' });
  const message = await channel.get(queue, { noAck: true });
  const { deliveryMode, contentType, messageId, timestamp, headers } = message.properties;
  assert.deepEqual([deliveryMode, contentType, messageId, message.fields.routingKey], [2, 'application/json', id, 'partner.advanced']);
  assert.ok(Math.abs(timestamp - Date.now() / 1000) < 60);
  assert.equal(headers.traceparent, undefined, 'no span, no trace');
  const { occurredAt, ...body } = JSON.parse(message.content.toString());
  assert.deepEqual(body, { id, sessionId: 's1', event: 'partner.advanced', partnerId: 'u2', excludeUserId: 'u1', data: { toStage: 2 } });
  assert.ok(Math.abs(new Date(occurredAt) - Date.now()) < 60_000);
  assert.equal(herald.unconfirmed, 0);
});

test('a thousand at once are confirmed, in order', async (t) => {
  const channel = await plain(t);
  await channel.purgeQueue(queue);
  const herald = client(t);
  const calls = Array.from({ length: 1_000 }, (_, number) => herald.publishSessionEvent('s1', 'e', { number }));
  assert.equal(herald.unconfirmed, 1_000);
  assert.equal(new Set(await Promise.all(calls)).size, 1_000);
  for (let number = 0; number < 1_000; number += 1) {
    const message = await channel.get(queue, { noAck: true });
    assert.equal(JSON.parse(message.content.toString()).data.number, number);
  }
});

test('without herald\'s queue or exchange the error says to start herald', async (t) => {
  const channel = await plain(t, 'unbound.events', 'absent.events');
  await channel.assertExchange('unbound.events', 'topic');
  const unbound = client(t, { prefix: 'unbound' });
  // One id for two partners: each gets its own answer.
  const calls = ['u1', 'u2'].map((partner) => unbound.notifyPartner('s1', partner, 'e', {}, { id: 'both' }));
  for (const call of calls) {
    const { message, id } = await fails('unroutable', call);
    assert.match(message, /exchange `unbound\.events` has no queue.*Start herald once/);
    assert.equal(id, 'both');
  }
  const absent = client(t, { prefix: 'absent' });
  const error = await fails('refused', absent.notifyPartner('s1', 'u1', 'e', {}));
  assert.match(error.message, /exchange `absent\.events` is not there\. Start herald once/);
  // Once it is there, the same client works.
  await channel.assertExchange('absent.events', 'fanout');
  await channel.bindQueue(queue, 'absent.events', '');
  await absent.notifyPartner('s1', 'u1', 'e', {});
});

test('what comes back is told from what does not', async (t) => {
  const channel = await plain(t, 'some.events');
  await channel.assertExchange('some.events', 'topic');
  await channel.bindQueue(queue, 'some.events', 'taken.#');
  const herald = client(t, { prefix: 'some' });
  const names = Array.from({ length: 200 }, (_, number) => (number % 3 === 0 ? 'lost' : 'taken.e'));
  const results = await Promise.allSettled(names.map((name) => herald.publishSessionEvent('s1', name, {}, undefined, { id: 'same' })));
  for (const [number, { status, reason }] of results.entries()) {
    assert.equal(status === 'rejected' ? reason.code : status, names[number] === 'lost' ? 'unroutable' : 'fulfilled');
  }
});

test('wrong credentials and a missing permission are refused at once, a vhost that does not open is named', async (t) => {
  const wrong = new URL(url);
  wrong.password = 's3cret';
  const nobody = await fails('refused', client(t, { url: wrong.href }).notifyPartner('s1', 'u1', 'e', {}));
  assert.match(nobody.message, /user and password.*ACCESS_REFUSED/);
  // RabbitMQ's reason is lost in amqplib, and it may be one that passes.
  const elsewhere = client(t, { url: url.replace(/%2f$/, 'elsewhere'), timeout: 1_000 });
  const nowhere = await fails('timeout', elsewhere.notifyPartner('s1', 'u1', 'e', {}));
  assert.match(nowhere.message, /does not open the vhost in the URL: is it there, and may the user enter it\?/);
  await node('ctl', 'add_user', 'reader', 's3cret');
  const reader = new URL(url);
  [reader.username, reader.password] = ['reader', 's3cret'];
  await node('ctl', 'set_permissions', 'reader', '', '', '.*');
  const unable = await fails('refused', client(t, { url: reader.href }).notifyPartner('s1', 'u1', 'e', {}));
  assert.match(unable.message, /needs the permission to write/);
  for (const { message, cause } of [nobody, nowhere, unable]) assert.ok(!`${message} ${cause}`.includes('s3cret'));
});

test('a full queue holds events back, and they go when there is room', async (t) => {
  const channel = await plain(t);
  await channel.purgeQueue(queue);
  await node('ctl', 'set_policy', 'full', `^${queue}$`, '{"max-length":1}', '--apply-to', 'queues');
  const herald = client(t);
  // It takes RabbitMQ a moment to heed the policy.
  const late = await eventually('a refusal', () => herald.notifyPartner('s1', 'u1', 'e', {}, { timeout: 1_000 }).then(() => undefined, (error) => error));
  assert.equal(late.code, 'timeout');
  assert.match(late.message, /not confirmed within 1000 ms: RabbitMQ refused it for now.*same id is safe/);
  const calls = ['a', 'b', 'c'].map((id) => herald.notifyPartner('s1', 'u1', 'e', {}, { id }));
  await channel.consume(queue, () => {}, { noAck: true });
  assert.deepEqual(await Promise.all(calls), ['a', 'b', 'c']);
  await node('ctl', 'clear_policy', 'full');
});

test('a RabbitMQ that blocks publishers is waited for', async (t) => {
  const herald = client(t);
  await herald.notifyPartner('s1', 'u1', 'e', {});
  await node('ctl', 'set_vm_memory_high_watermark', '0.0000001');
  t.after(() => node('ctl', 'set_vm_memory_high_watermark', '0.4'));
  const late = await eventually('the block', () => herald.notifyPartner('s1', 'u1', 'e', {}, { timeout: 1_000 }).then(() => undefined, (error) => error));
  assert.match(late.message, /takes no messages at the moment/);
  const call = herald.notifyPartner('s1', 'u1', 'e', {}, { id: 'blocked' });
  await node('ctl', 'set_vm_memory_high_watermark', '0.4');
  assert.equal(await call, 'blocked');
});

test('a full buffer is a clear error, and says what is the matter', async (t) => {
  const address = await nowhere();
  const herald = client(t, { url: address, bufferMessages: 3 });
  const waiting = Array.from({ length: 3 }, () => herald.notifyPartner('s1', 'u1', 'e', {}).catch((error) => error.code));
  const full = await eventually('the reason', async () => {
    const error = await fails('buffer_full', herald.notifyPartner('s1', 'u1', 'e', {}));
    return error.message.includes('ECONNREFUSED') && error;
  });
  assert.match(full.message, /^the buffer is full \(3 events, \d+ bytes unconfirmed\): /);
  assert.ok(full.id && !full.message.includes('s3cret'));
  assert.equal(await herald.close({ timeout: 100 }), 3);
  assert.deepEqual(await Promise.all(waiting), ['closed', 'closed', 'closed']);

  const small = client(t, { url: address, bufferBytes: 1_000 });
  const first = small.notifyPartner('s1', 'u1', 'e', { text: 'x'.repeat(600) });
  await fails('buffer_full', small.notifyPartner('s1', 'u1', 'e', { text: 'x'.repeat(600) }));
  await small.close({ timeout: 1 });
  await fails('closed', first);
});

test('an event that waits too long, or is called off, is given up', async (t) => {
  const herald = client(t, { url: await nowhere() });
  const late = await fails('timeout', herald.notifyPartner('s1', 'u1', 'e', {}, { id: 'late', timeout: 300 }));
  assert.match(late.message, /not confirmed within 300 ms: .*ECONNREFUSED/);
  assert.equal(late.id, 'late');
  const controller = new AbortController();
  const call = herald.notifyPartner('s1', 'u1', 'e', {}, { signal: controller.signal });
  controller.abort(new Error('called off'));
  await assert.rejects(call, /called off/);
  await assert.rejects(herald.notifyPartner('s1', 'u1', 'e', {}, { signal: controller.signal }), /called off/);
  assert.equal(herald.unconfirmed, 0);
});

/** A server that takes connections and says nothing: its address, and the server. */
async function silence() {
  const server = net.createServer((socket) => socket.on('error', () => {})).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  return [`amqp://127.0.0.1:${server.address().port}`, server];
}

test('a server that says nothing is given up and tried again', async (t) => {
  const [silent, server] = await silence();
  t.after(() => server.close());
  let connections = 0;
  server.on('connection', () => (connections += 1));
  const herald = client(t, { url: silent, connectTimeout: 200 });
  const call = herald.notifyPartner('s1', 'u1', 'e', {}).catch((error) => error.code);
  await eventually('a second try', () => connections >= 2);
  assert.match((await fails('timeout', herald.notifyPartner('s1', 'u1', 'e', {}, { timeout: 1 }))).message, /RabbitMQ did not answer in time/);
  await herald.close({ timeout: 1 });
  assert.equal(await call, 'closed');
});

test('close waits for the confirms, and takes no more', async (t) => {
  const channel = await plain(t);
  await channel.purgeQueue(queue);
  const herald = client(t, { timeout: Infinity, connectTimeout: Infinity, closeTimeout: Infinity });
  const calls = Array.from({ length: 500 }, (_, number) => herald.notifyPartner('s1', 'u1', 'e', { number }));
  const closing = herald.close();
  await fails('closed', herald.notifyPartner('s1', 'u1', 'e', {}));
  assert.equal(await closing, 0);
  assert.equal(await herald.close(), 0);
  await Promise.all(calls);
  assert.equal((await channel.checkQueue(queue)).messageCount, 500);
});

test('wrong options are refused by name', () => {
  for (const [options, says] of [
    [{}, /^url: is not an address/],
    [{ url: 'https://user:s3cret@host' }, /^url: is not an address/],
    [{ url, prefix: 'a b' }, /^prefix: is "a b"/],
    [{ url, timeout: 0 }, /^timeout: is 0; expected a number above 0/],
    [{ url, closeTimeout: NaN }, /^closeTimeout: is NaN/],
    [{ url, bufferMessages: 'many' }, /^bufferMessages: is many/],
  ]) {
    assert.throws(() => createHerald(options), (error) => {
      assert.equal(error.code, 'configuration');
      assert.match(error.message, says);
      return !error.message.includes('s3cret');
    });
  }
});

test('amqps with a private authority', async (t) => {
  const { ca } = given.tls;
  assert.equal(await client(t, { url: given.tls.url, socket: { ca } }).notifyPartner('s1', 'u1', 'e', {}, { id: 'tls' }), 'tls');
  const distrusting = await fails('timeout', client(t, { url: given.tls.url }).notifyPartner('s1', 'u1', 'e', {}, { timeout: 1_000 }));
  assert.match(distrusting.message, /certificate/);
});

/** Runs a module text in a process of its own, which has to end by itself. */
async function script(text, environment = {}) {
  const index = import.meta.resolve('herald-client');
  const module = `import * as herald from ${JSON.stringify(index)};\n${text}`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', module], { env: environment, timeout: 60_000 });
  return stdout.trim();
}

test('an idle client keeps no process alive, a waiting one does', async (t) => {
  const options = JSON.stringify({ url, prefix });
  const said = await script(`
    const client = herald.createHerald(${options});
    client.notifyPartner('s1', 'u1', 'e', {}, { id: 'one' }).then(console.log);
    process.once('beforeExit', () => client.notifyPartner('s1', 'u1', 'e', {}, { id: 'two' }).then(console.log));
  `);
  assert.equal(said, 'one\ntwo');
  const [silent, hole] = await silence();
  t.after(() => hole.close());
  const patient = JSON.stringify({ url: silent, timeout: 300, connectTimeout: 120_000 });
  // It ends long before the try to connect would.
  assert.equal(await script(`herald.createHerald(${patient}).notifyPartner('s1', 'u1', 'e', {}).catch((error) => console.log(error.code))`), 'timeout');
  const unreachable = JSON.stringify({ url: await nowhere(), timeout: 500 });
  assert.equal(await script(`herald.createHerald(${unreachable}).notifyPartner('s1', 'u1', 'e', {}).catch((error) => console.log(error.code))`), 'timeout');
});

test('the functions of the module share a client made from the environment', async (t) => {
  const channel = await plain(t);
  await channel.purgeQueue(queue);
  const calls = `
    await Promise.all([herald.notifyPartner('s1', 'u1', 'e', {}), herald.publishSessionEvent('s1', 'e', {}, 'u1')]);
    console.log(await herald.close(), await herald.close());
    await herald.publishSessionEvent('s1', 'e', {});
  `;
  assert.equal(await script(calls, { AMQP_URL: url, HERALD_BROKER__PREFIX: prefix }), '0 0');
  assert.equal((await channel.checkQueue(queue)).messageCount, 3);
  const problem = `await herald.notifyPartner('s1', 'u1', 'e', {}).catch((error) => console.log(error.message))`;
  assert.match(await script(problem), /^AMQP_URL is not set/);
});
