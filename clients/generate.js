// Makes the types from the contract's JSON Schema: node generate.js SCHEMA FILE. The test calls the same and compares.

import { readFile, writeFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';
import { compile } from 'json-schema-to-typescript';

const BANNER = `// Made from config/contract/message.schema.json by \`npm run generate\`; do not edit.`;

/** @param {string} schema A file. */
export async function types(schema) {
  const contract = JSON.parse(await readFile(schema, 'utf8'));
  // The payloads are reachable through EventPayloads only.
  return compile(contract, contract.title, { bannerComment: BANNER, unreachableDefinitions: true, format: true, style: { singleQuote: true, printWidth: 140 } });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [schema, file] = process.argv.slice(2);
  await writeFile(file, await types(schema));
}
