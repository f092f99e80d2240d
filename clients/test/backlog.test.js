// The buffer, and how long to wait between tries.

import assert from 'node:assert/strict';
import test from 'node:test';
import { Backlog } from '../typescript/src/backlog.js';
import { backoff } from '../typescript/src/problems.js';

const entry = (id, size = 10) => ({ id, body: Buffer.alloc(size) });

const ids = (backlog) => {
  const taken = [];
  for (let next = backlog.take(); next; next = backlog.take()) taken.push(next.id);
  return taken.join('');
};

test('the buffer is bounded in number and in bytes', () => {
  const backlog = new Backlog({ messages: 2, bytes: 25 });
  const [a, b] = [entry('a'), entry('b')];
  assert.ok(backlog.hasRoomFor(25) && !backlog.hasRoomFor(26));
  backlog.add(a);
  assert.ok(backlog.hasRoomFor(15) && !backlog.hasRoomFor(16));
  backlog.add(b);
  assert.ok(!backlog.hasRoomFor(0));
  // What is on its way still counts.
  assert.equal(ids(backlog), 'ab');
  assert.ok(!backlog.hasRoomFor(0));
  backlog.remove(a);
  backlog.remove(a);
  assert.deepEqual([backlog.size, backlog.bytes, backlog.hasRoomFor(15)], [1, 10, true]);
});

test('what comes back goes before what came later, without what is settled', () => {
  const backlog = new Backlog({ messages: 10, bytes: 1000 });
  const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((id) => entry(id));
  for (const each of [a, b, c, d]) backlog.add(each);
  for (const _ of [a, b, c]) backlog.take();
  backlog.remove(b);
  backlog.putBack([c, b, a]);
  assert.equal(ids(backlog), 'acd');
  assert.deepEqual(backlog.all(), [a, c, d]);
});

test('tries are further and further apart, within bounds, and not at the same time for all', () => {
  assert.deepEqual([1, 2, 3].map((tries) => backoff(tries, 1)), [100, 200, 400]);
  for (const tries of [1, 5, 20, 10_000]) {
    assert.ok(backoff(tries, 0) >= 50 && backoff(tries, 1) <= 5_000);
    assert.ok(backoff(tries, 0) < backoff(tries, 1));
  }
});
