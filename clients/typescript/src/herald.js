// A client as a backend holds it: checks an event, makes its message, and answers the caller when RabbitMQ has confirmed it,
// or with an error that says what became of it. Each call ends: confirmed, refused, given up in time, or closed.

import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { Courier } from './courier.js';
import { HeraldError } from './error.js';
import { message } from './message.js';
import { traceHeaders } from './trace.js';

/** @import { Entry, Message } from './backlog.js' */
/** @import { Herald as Api, HeraldOptions, SendOptions } from '../types/index.js' */

const DEFAULTS = {
  prefix: 'herald',
  timeout: 30_000,
  connectTimeout: 10_000,
  closeTimeout: 10_000,
  bufferMessages: 10_000,
  bufferBytes: 16 * 1024 * 1024,
  socket: {},
};

/** @implements {Api} */
export class Herald {
  #settings;
  #courier;
  #closed = false;
  /** @type {Promise<number> | undefined} */
  #closing;
  /** Called when nothing is left to confirm. */
  #drained = () => {};

  /** @param {HeraldOptions} options */
  constructor(options) {
    const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
    /** @type {typeof DEFAULTS & HeraldOptions} */
    const settings = { ...DEFAULTS, url: '', ...given };
    check(settings);
    this.#settings = settings;
    const { url, prefix, name, socket, connectTimeout, bufferMessages, bufferBytes } = settings;
    this.#courier = new Courier({
      url,
      exchange: `${prefix}.events`,
      name: name ?? `herald-client ${hostname()} ${process.pid}`,
      connectTimeout: Math.min(connectTimeout, LONGEST),
      socket,
      buffer: { messages: bufferMessages, bytes: bufferBytes },
    });
  }

  /** @type {Api['notifyPartner']} */
  async notifyPartner(sessionId, partnerId, event, data, options) {
    return this.#enqueue({ sessionId, partnerId, event, data }, options);
  }

  /** @type {Api['publishSessionEvent']} */
  async publishSessionEvent(sessionId, event, data, excludeUserId, options) {
    return this.#enqueue({ sessionId, event, data }, { ...options, excludeUserId });
  }

  /** @type {Api['close']} */
  close({ timeout = this.#settings.closeTimeout } = {}) {
    this.#closing ??= this.#close(timeout);
    return this.#closing;
  }

  get unconfirmed() {
    return this.#courier.backlog.size;
  }

  /**
   * @param {{ sessionId: string, event: string, data?: unknown, partnerId?: string }} event
   * @param {SendOptions} [options]
   * @returns {Promise<string>}
   */
  async #enqueue(event, options = {}) {
    if (this.#closed) throw new HeraldError('closed', 'the client is closed; make another one');
    const made = message(event, options, randomUUID, new Date());
    const { timeout = this.#settings.timeout, signal } = options;
    positive('timeout', timeout);
    signal?.throwIfAborted();
    const { backlog } = this.#courier;
    if (!backlog.hasRoomFor(made.body.length)) {
      const held = `${backlog.size} events, ${backlog.bytes} bytes`;
      throw new HeraldError('buffer_full', `the buffer is full (${held} unconfirmed): ${this.#courier.explain()}`, made);
    }
    await this.#carried(made, timeout, signal);
    return made.id;
  }

  /**
   * @param {Message} made
   * @param {number} timeout
   * @param {AbortSignal} [signal]
   * @returns {Promise<void>}
   */
  #carried(made, timeout, signal) {
    return new Promise((resolve, reject) => {
      const late = () => {
        const why = `not confirmed within ${timeout} ms: ${this.#courier.explain()}. ${AGAIN}`;
        entry.settle(new HeraldError('timeout', why, made));
      };
      const timer = after(timeout, late);
      const abort = () => entry.settle(signal?.reason);
      signal?.addEventListener('abort', abort, { once: true });
      /** @type {Entry} */
      const entry = {
        ...made,
        number: 0,
        headers: traceHeaders(),
        settle: (error) => {
          clearTimeout(timer);
          signal?.removeEventListener('abort', abort);
          this.#courier.forget(entry);
          if (error) reject(error);
          else resolve();
          if (this.unconfirmed === 0) this.#drained();
        },
      };
      this.#courier.accept(entry);
    });
  }

  /** @param {number} timeout */
  async #close(timeout) {
    positive('timeout', timeout);
    this.#closed = true;
    if (this.unconfirmed > 0) {
      let timer;
      await new Promise((resolve) => {
        this.#drained = () => resolve(undefined);
        timer = after(timeout, this.#drained);
      });
      clearTimeout(timer);
    }
    const left = this.#courier.backlog.all();
    for (const entry of left) {
      const why = `not confirmed before the client was closed: ${this.#courier.explain()}. ${AGAIN}`;
      entry.settle(new HeraldError('closed', why, entry));
    }
    await this.#courier.stop();
    return left.length;
  }
}

// Node's timers go no further; what is longer is for ever.
const LONGEST = 2 ** 31 - 1;

/** @param {number} milliseconds @param {() => void} call */
function after(milliseconds, call) {
  return milliseconds > LONGEST ? undefined : setTimeout(call, milliseconds);
}

const AGAIN = 'RabbitMQ may have it all the same; sending it again with the same id is safe';

/** @param {Record<string, any>} settings */
function check({ url, prefix, timeout, connectTimeout, closeTimeout, bufferMessages, bufferBytes }) {
  /** @param {string} problem */
  const wrong = (problem) => new HeraldError('configuration', problem);
  const protocol = URL.canParse(url) ? new URL(url).protocol : undefined;
  // Not quoted: it has a password in it.
  if (protocol !== 'amqp:' && protocol !== 'amqps:') {
    throw wrong('url: is not an address such as amqp://user:password@host:5672/%2f; amqps:// is for TLS');
  }
  if (!/^[A-Za-z0-9._-]{1,200}$/.test(prefix)) {
    throw wrong(`prefix: is ${JSON.stringify(prefix)}; expected herald's own broker.prefix: letters, digits, dot, dash, underscore`);
  }
  for (const [name, value] of Object.entries({ timeout, connectTimeout, closeTimeout, bufferMessages, bufferBytes })) {
    positive(name, value);
  }
}

/** @param {string} name @param {unknown} value */
function positive(name, value) {
  if (typeof value !== 'number' || !(value > 0)) {
    throw new HeraldError('configuration', `${name}: is ${String(value)}; expected a number above 0`);
  }
}
