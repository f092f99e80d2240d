// What the scripts ask of the world outside the page: a line of JSON there, a line of JSON back.

import { createInterface } from 'node:readline';

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export async function world(what, more = {}) {
  process.stdout.write(`ask ${JSON.stringify({ do: what, ...more })}\n`);
  const { value, done } = await answers.next();
  if (done) throw new Error('the test ended');
  return JSON.parse(value);
}

// Nothing more is asked: the script may end.
export const end = () => process.stdin.destroy();
