// Enqueues session events for herald. The two functions have the signatures of the calls they take the place of, so that a
// backend changes its import: they share one client, made at the first call from the environment.

import { HeraldError } from './error.js';
import { Herald } from './herald.js';

export { HeraldError };

/** @type {typeof import('../types/index.js').createHerald} */
export function createHerald(options) {
  return new Herald(options);
}

/** @type {typeof import('../types/index.js').notifyPartner} */
export async function notifyPartner(sessionId, partnerId, event, data, options) {
  return shared().notifyPartner(sessionId, partnerId, event, data, options);
}

/** @type {typeof import('../types/index.js').publishSessionEvent} */
export async function publishSessionEvent(sessionId, event, data, excludeUserId, options) {
  return shared().publishSessionEvent(sessionId, event, data, excludeUserId, options);
}

/** @type {typeof import('../types/index.js').close} */
export async function close(options) {
  const closing = client;
  client = undefined;
  return closing ? closing.close(options) : 0;
}

/** @type {Herald | undefined} */
let client;

function shared() {
  if (client) return client;
  const { AMQP_URL: url, HERALD_BROKER__PREFIX: prefix } = process.env;
  if (!url) throw new HeraldError('configuration', 'AMQP_URL is not set; set it to the address of RabbitMQ, or use createHerald({ url })');
  client = new Herald({ url, prefix: prefix || undefined });
  return client;
}
