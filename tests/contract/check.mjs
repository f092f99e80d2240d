// Checks config/contract (its path is the only argument) with the official tools: ajv for the schema, its examples and the cases on
// standard input, @asyncapi/parser for the document, ajv again for the document's examples. Prints the document as JSON.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';

import { Parser, fromFile } from '@asyncapi/parser';
import Ajv from 'ajv/dist/2020.js';
import formats from 'ajv-formats';

const folder = process.argv[2];
const cases = JSON.parse(fs.readFileSync(0, 'utf8'));

// Strict: an unknown keyword, or one that can never count, is an error.
const ajv = new Ajv({ strict: true, strictTypes: true, strictRequired: true, allErrors: true });
formats(ajv);

const schema = JSON.parse(fs.readFileSync(path.join(folder, 'message.schema.json'), 'utf8'));
const message = ajv.compile(schema);
for (const example of schema.examples) assert.ok(message(example), told(example, message));
for (const { name, body, valid } of cases) {
  assert.equal(message(body), valid, `${name}: ${told(body, message)}`);
}

const { document, diagnostics } = await fromFile(new Parser(), path.join(folder, 'asyncapi.yaml')).parse();
assert.deepEqual(diagnostics, [], 'the AsyncAPI document');

// The parser leaves examples alone, and a mark of its own in every schema.
ajv.addKeyword('x-parser-schema-id');
const messages = document.allMessages().all();
assert.ok(messages.length >= 5);
for (const one of messages) {
  const headers = ajv.compile(one.headers().json());
  // The schema of the message is known by its own name already.
  const payload = one.payload().json().$id === schema.$id ? message : ajv.compile(one.payload().json());
  assert.ok(one.examples().all().length > 0, `${one.id()} has an example`);
  for (const example of one.examples().all()) {
    assert.ok(headers(example.headers() ?? {}), `headers of ${one.id()}: ${told(example.headers(), headers)}`);
    assert.ok(payload(example.payload()), `payload of ${one.id()}: ${told(example.payload(), payload)}`);
  }
}
console.log(JSON.stringify(document.json()));

function told(value, validate) {
  return `${JSON.stringify(value)}: ${ajv.errorsText(validate.errors)}`;
}
