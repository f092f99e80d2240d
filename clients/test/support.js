// What the tests are given by whoever runs them (tests/it/typescript.rs), as JSON in HERALD_CLIENT_TEST: never an address
// from elsewhere. Waiting is on conditions.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import { createHerald } from 'herald-client';

/**
 * - `url`, `prefix`: a RabbitMQ, and under which prefix herald has been started there.
 * - `sandbox`: the URL of herald's sandbox.
 * - `herald`: `{ program, environment, folder }`, the command line of the herald that runs.
 * - `node`: `[script, name, folder]`, where the RabbitMQ may be broken: scripts/rabbitmq-node.
 * - `schema`: the contract's file.
 * - `tls`: `{ url, ca }`, the same RabbitMQ behind a private authority.
 */
export const given = JSON.parse(process.env.HERALD_CLIENT_TEST ?? '{}');

const run = promisify(execFile);

/** Makes a client that ends with the test. */
export function client(context, options = {}) {
  const herald = createHerald({ url: given.url, prefix: given.prefix, ...options });
  context.after(() => herald.close({ timeout: 1 }));
  return herald;
}

/** Does something to the test's own RabbitMQ. */
export async function node(verb, ...more) {
  const [script, name, folder] = given.node;
  return (await run(script, [verb, name, folder, ...more])).stdout;
}

/** Asks the sandbox's control API. */
export async function sandbox(method, path, body) {
  const response = await fetch(`${given.sandbox}/_sandbox${path}`, { method, body: body && JSON.stringify(body) });
  assert.equal(response.status, 200, path);
  return response.json();
}

export const enter = (sessionId, clientId) => (
  sandbox('POST', '/presence', { channel: `beheard:session:${sessionId}:presence`, clientId, action: 'enter' })
);

/** Returns what herald's ledger says of the events with this id. */
export async function explain(id) {
  const { program, environment, folder } = given.herald;
  const { stdout } = await run(program, ['explain', id, '--json'], { env: environment, cwd: folder });
  return stdout.trim().split('\n').map((line) => JSON.parse(line));
}

/** Waits until `condition` returns something, and returns it. */
export async function eventually(what, condition, patience = 120_000) {
  const end = Date.now() + patience;
  for (;;) {
    const value = await condition();
    if (value) return value;
    assert.ok(Date.now() < end, `not in time: ${what}`);
    await pause(50);
  }
}

/** Asserts that `call` fails with a HeraldError of this code, and returns it. */
export async function fails(code, call) {
  const error = await call.then(() => undefined, (error) => error);
  assert.ok(error, `it did not fail; expected ${code}`);
  assert.equal(error.code, code, String(error));
  return error;
}
