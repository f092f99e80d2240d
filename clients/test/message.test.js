// What an event must be. The table is held against herald's own reader too (tests/it/typescript.rs).

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import test from 'node:test';
import { HeraldError } from 'herald-client';
import { message } from '../typescript/src/message.js';

const NOW = new Date('2026-01-31T12:00:00Z');
const cases = JSON.parse(await readFile(new URL('./cases.json', import.meta.url), 'utf8'));

/** Apostrophes stand for quotation marks, `<x*3>` for xxx. */
const written = (text) => text.replaceAll("'", '"').replace(/<([^<>*]+)\*(\d+)>/g, (_, what, times) => what.repeat(times));

const make = ({ id, sessionId, event, data, excludeUserId, occurredAt, expiresAt, ...more }, newId = () => 'new') => (
  message({ sessionId, event, data, ...more }, { id, excludeUserId, occurredAt, expiresAt }, newId, NOW)
);

const refused = (event) => {
  try {
    make(event);
  } catch (error) {
    assert.ok(error instanceof HeraldError && error.code === 'invalid', String(error));
    assert.ok(error.message.startsWith(`${error.field}: `), error.message);
    return error;
  }
  return {};
};

test('what herald would refuse is refused, with the field', () => {
  for (const { body, field } of cases) {
    const event = JSON.parse(written(body));
    assert.equal(refused(event).field, field, body);
    if (field) continue;
    const { occurredAt = NOW.toISOString(), data = {}, ...rest } = event;
    if (!rest.excludeUserId) delete rest.excludeUserId;
    assert.deepEqual(JSON.parse(make(event).body.toString()), { ...rest, data, occurredAt }, body);
  }
});

test('an event gets an id and the time; its name is the routing key', () => {
  const made = make({ sessionId: 's', event: 'e', expiresAt: NOW });
  assert.equal(made.id, 'new');
  assert.equal(made.routingKey, 'e');
  const time = '2026-01-31T12:00:00.000Z';
  assert.deepEqual(JSON.parse(made.body.toString()), { id: 'new', sessionId: 's', event: 'e', occurredAt: time, expiresAt: time, data: {} });
});

test('data is what JSON makes of it', () => {
  const data = (value) => JSON.parse(make({ sessionId: 's', event: 'e', data: value }).body.toString()).data;
  assert.deepEqual(data({ at: NOW, nothing: undefined, toJSON: undefined }), { at: NOW.toISOString() });
  assert.deepEqual(data({ toJSON: () => ({ a: 1 }) }), { a: 1 });
  assert.deepEqual(data(undefined), {});
  const loop = {};
  loop.loop = loop;
  for (const [value, says] of [
    [NOW, 'expected an object'],
    [() => {}, 'is a function'],
    [{ toJSON: () => undefined }, 'expected an object'],
    [{ big: 1n }, 'is not JSON'],
    [loop, 'is not JSON'],
  ]) {
    const error = refused({ sessionId: 's', event: 'e', data: value });
    assert.equal(error.field, 'data');
    assert.ok(error.message.includes(says), error.message);
  }
});

test('a message says what is wrong and what would be right', () => {
  for (const [event, says] of [
    [{ sessionId: 's\u0000', event: 'e' }, 'sessionId: holds the control character U+0000'],
    [{ sessionId: undefined, event: 'e' }, 'sessionId: is missing; expected a string'],
    [{ sessionId: 's', event: 'e', partnerId: undefined }, 'partnerId: is missing; expected a string'],
    [{ sessionId: 's', event: 'x'.repeat(129) }, 'event: has 129 characters; at most 128 are accepted'],
    [{ sessionId: 's', event: 'e', data: [] }, 'data: is an array; expected an object'],
    [{ sessionId: 's', event: 'e', data: { a: 'ü'.repeat(40_000) } }, 'data: makes a message of 80'],
    [{ sessionId: 's', event: 'e', expiresAt: new Date(NaN) }, 'expiresAt: is not a valid Date'],
    [{ sessionId: 's', event: 'e', expiresAt: 'soon' }, 'expiresAt: is "soon"; expected a Date, or an RFC 3339 time'],
  ]) {
    assert.ok(refused(event).message.startsWith(says), refused(event).message);
  }
});

test('CommonJS may require the package', () => {
  assert.equal(createRequire(import.meta.url)('herald-client').HeraldError, HeraldError);
});
