// The types are those of the contract: made from its schema, and committed.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import test from 'node:test';
import { types } from '../generate.js';
import { given } from './support.js';

test('types/message.d.ts is what the schema makes', async () => {
  const schema = given.schema ?? new URL('../../config/contract/message.schema.json', import.meta.url);
  const committed = await readFile(new URL('../typescript/types/message.d.ts', import.meta.url), 'utf8');
  assert.equal(committed, await types(schema), 'run `npm run generate` in clients');
});
