// The sandbox as the scripts see it: its control API, and the recording of what a client sent under a label.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';

export const url = new URL(process.env.SANDBOX_URL);

const recording = {};

export async function control(method, path, body) {
  const response = await fetch(new URL(`/_sandbox${path}`, url), { method, body: body && JSON.stringify(body) });
  const text = await response.text();
  assert.equal(response.status, 200, text);
  return JSON.parse(text);
}

/** Runs `call` and keeps the requests it made as the journal has them. */
export async function record(label, call) {
  const { last } = await control('GET', '/journal?limit=0');
  const result = await call();
  const { entries } = await control('GET', `/journal?since=${last}`);
  assert.notEqual(entries.length, 0, `${label} sent nothing`);
  recording[label] = entries;
  return result;
}

/** Writes the recording to `file`. */
export async function save(file) {
  await writeFile(file, JSON.stringify(recording, null, 1));
}

/** Asserts that `call` fails, and returns the error. */
export async function fails(call) {
  const error = await call().then(() => undefined, (error) => error);
  assert.ok(error, 'it did not fail');
  return error;
}
