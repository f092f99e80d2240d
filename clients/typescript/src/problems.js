// What RabbitMQ's answers mean for an event: which will be the same next time, and how long to wait before the others. Asked by
// the courier; decides, does nothing.

import { HeraldError } from './error.js';

const FIRST = 100;
const LONGEST = 5_000;

/**
 * Returns how long to wait after that many failed tries in a row: longer each time, and never the same for everybody.
 *
 * @param {number} tries
 * @param {number} chance From 0 to 1.
 */
export function backoff(tries, chance) {
  return Math.min(LONGEST, FIRST * 2 ** Math.min(tries - 1, 10)) * (0.5 + chance / 2);
}

/**
 * Returns the error for an event that RabbitMQ will not take whenever it is asked, or undefined when another try may help:
 * RabbitMQ may be away, starting, or full.
 *
 * @param {Error & { code?: unknown }} error
 * @param {string} exchange
 * @param {string} id
 */
export function refusal(error, exchange, id) {
  const words = error.message;
  /** @param {string} problem */
  const refused = (problem) => new HeraldError('refused', problem, { id, cause: error });
  if (error.code === 404) {
    return refused(`exchange \`${exchange}\` is not there. Start herald once, which declares it; or is the prefix another?`);
  }
  if (error.code === 403) {
    return refused(`RabbitMQ refused to take messages for exchange \`${exchange}\`: the user in the URL needs the permission to write there (${words})`);
  }
  if (error.code === 406) return refused(`RabbitMQ refused the message: ${words}`);
  // amqplib gives no code to what ends a handshake.
  if (words.startsWith('Handshake terminated by server: 403')) {
    return refused(`RabbitMQ refused the connection; are user and password in the URL right? ${words}`);
  }
  return undefined;
}

/**
 * Says why there is no connection. amqplib drops RabbitMQ's words where it does not open the vhost: it may be missing or
 * forbidden, but also starting or full.
 *
 * @param {Error} error
 */
export function explained({ message }) {
  const closed = message.includes('got <ConnectionClose');
  return closed ? 'RabbitMQ does not open the vhost in the URL: is it there, and may the user enter it?' : message;
}

/** @param {string} exchange @param {string} id */
export function unroutable(exchange, id) {
  return new HeraldError(
    'unroutable',
    `exchange \`${exchange}\` has no queue for it, so RabbitMQ threw it away. Start herald once, which declares queue and binding`,
    { id },
  );
}
