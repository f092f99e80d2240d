// One connection to RabbitMQ with one confirming channel. Opened by the courier, who gives it events and hears of each what
// became of it. A link ends once, at its first error, and is never mended: the courier opens the next.

import { connect } from 'amqplib';

/** @import { Channel, ChannelModel, ConfirmChannel, Message } from 'amqplib' */
/** @import { Entry } from './backlog.js' */

/**
 * @typedef {object} Listener
 * @property {(entry: Entry) => void} confirmed
 * @property {(entry: Entry) => void} returned No queue took it.
 * @property {(entry: Entry) => void} refused A negative confirm.
 * @property {(problem: Error, unconfirmed: Entry[]) => void} ended
 * @property {() => void} unblocked
 */

// amqplib takes seconds. A silent peer is noticed after two to three of them.
const HEARTBEAT = 10;
const GOODBYE = 2_000;

export class Link {
  /** Why RabbitMQ takes nothing from this connection at the moment. @type {string | undefined} */
  blocked;
  #model;
  #channel;
  #exchange;
  #listener;
  #destroy;
  /** @type {Set<Entry>} */
  #unconfirmed = new Set();
  /** Those of them that came back. @type {Set<Entry>} */
  #returned = new Set();
  #ended = false;

  /**
   * @param {{ url: string, exchange: string, name: string, connectTimeout: number, socket: object }} options
   * @param {AbortSignal} stop Ends the attempt.
   * @param {Listener} listener
   */
  static async open({ url, exchange, name, connectTimeout, socket }, stop, listener) {
    const destroy = new AbortController();
    const options = {
      ...socket,
      noDelay: true,
      keepAlive: true,
      timeout: connectTimeout,
      clientProperties: { connection_name: name },
      // Node's own: ends the socket in whatever state it is.
      signal: destroy.signal,
    };
    const giveUp = () => destroy.abort();
    // amqplib's timeout starts anew with every byte; this one does not.
    const timer = setTimeout(giveUp, connectTimeout);
    stop.addEventListener('abort', giveUp);
    try {
      stop.throwIfAborted();
      const model = await unlessAborted(destroy.signal, connection(withHeartbeat(url), options));
      const channel = await unlessAborted(destroy.signal, model.createConfirmChannel());
      return new Link(model, channel, exchange, destroy, listener);
    } catch (error) {
      destroy.abort();
      throw error;
    } finally {
      clearTimeout(timer);
      stop.removeEventListener('abort', giveUp);
    }
  }

  /**
   * @param {ChannelModel} model
   * @param {ConfirmChannel} channel
   * @param {string} exchange
   * @param {AbortController} destroy
   * @param {Listener} listener
   */
  constructor(model, channel, exchange, destroy, listener) {
    this.#model = model;
    this.#channel = channel;
    this.#exchange = exchange;
    this.#destroy = destroy;
    this.#listener = listener;
    /** @type {Error | undefined} */
    let reason;
    model.on('error', (error) => (reason = error));
    model.on('close', (error) => this.#end(error ?? reason ?? new Error('RabbitMQ closed the connection')));
    model.on('blocked', (why) => (this.blocked = why));
    model.on('unblocked', () => {
      this.blocked = undefined;
      listener.unblocked();
    });
    channel.on('error', (error) => this.#end(error));
    channel.on('return', (message) => this.#markReturned(message));
  }

  /** How many events are out without an answer. */
  get unconfirmed() {
    return this.#unconfirmed.size;
  }

  /** Sends an event; the listener hears what became of it. @param {Entry} entry */
  send(entry) {
    const { id, routingKey, body, headers } = entry;
    const properties = {
      contentType: 'application/json',
      persistent: true,
      mandatory: true,
      messageId: id,
      timestamp: Math.floor(Date.now() / 1000),
      headers,
    };
    this.#unconfirmed.add(entry);
    try {
      this.#channel.publish(this.#exchange, routingKey, body, properties, (error) => this.#answered(entry, error));
    } catch (error) {
      // The channel is closed and nobody has said so yet.
      this.#end(error instanceof Error ? error : new Error(String(error)));
    }
  }

  /**
   * Keeps the process alive, or not: an idle link is no reason to stay. amqplib has no word for it; should its inside
   * change, the process stays until close().
   *
   * @param {boolean} on
   */
  hold(on) {
    const { stream, heartbeater } = /** @type {any} */ (this.#model.connection);
    if (on) stream?.ref?.();
    else stream?.unref?.();
    heartbeater?.sendTimer?.unref?.();
    heartbeater?.recvTimer?.unref?.();
  }

  /** Says goodbye; whoever does not answer is left behind. */
  async close() {
    this.#ended = true;
    let timer;
    const patience = new Promise((resolve) => (timer = setTimeout(resolve, GOODBYE)));
    await Promise.race([this.#model.close().catch(() => {}), patience]);
    clearTimeout(timer);
    this.#destroy.abort();
  }

  /** @param {Entry} entry @param {Error | null} error */
  #answered(entry, error) {
    // "channel closed" is said of all by the end of the link.
    if (this.#ended || (error && error.message !== 'message nacked')) return;
    this.#unconfirmed.delete(entry);
    if (error) this.#listener.refused(entry);
    else if (this.#returned.delete(entry)) this.#listener.returned(entry);
    else this.#listener.confirmed(entry);
  }

  /** Notes what came back; its confirm comes next. Ids may repeat, so the whole message counts. @param {Message} message */
  #markReturned({ properties, fields, content }) {
    for (const entry of this.#unconfirmed) {
      const same = entry.id === properties.messageId && entry.routingKey === fields.routingKey;
      if (same && entry.body.equals(content) && !this.#returned.has(entry)) {
        this.#returned.add(entry);
        return;
      }
    }
  }

  /** @param {Error} problem */
  #end(problem) {
    if (this.#ended) return;
    const unconfirmed = [...this.#unconfirmed];
    this.hold(false);
    // A connection whose channel failed is still open. What it says on its way out no longer matters.
    this.close().catch(() => {});
    this.#listener.ended(problem, unconfirmed);
  }
}

/** @param {string} url @param {object} options */
async function connection(url, options) {
  const model = await connect(url, options);
  // Until the link listens, and once it has ended: without a listener an error would end the process.
  model.on('error', () => {});
  return model;
}

/** @template T @param {AbortSignal} signal @param {Promise<T>} work @returns {Promise<T>} */
async function unlessAborted(signal, work) {
  const aborted = new Promise((_, reject) => {
    const giveUp = () => reject(new Error('RabbitMQ did not answer in time'));
    if (signal.aborted) giveUp();
    signal.addEventListener('abort', giveUp, { once: true });
  });
  aborted.catch(() => {});
  return /** @type {Promise<T>} */ (Promise.race([work, aborted]));
}

/** @param {string} url */
function withHeartbeat(url) {
  const address = new URL(url);
  if (!address.searchParams.has('heartbeat')) address.searchParams.set('heartbeat', String(HEARTBEAT));
  return address.href;
}
