// Carries events to RabbitMQ: connects when there is something to send, sends, and hears what became of it. What is not
// confirmed when a link ends is sent again over the next, under the same id, which herald's ledger knows. Made by a client;
// gives an event up only when RabbitMQ's answer cannot change by trying again.

import { Backlog } from './backlog.js';
import { Link } from './link.js';
import { backoff, explained, refusal, unroutable } from './problems.js';

/** @import { Entry } from './backlog.js' */

// More than RabbitMQ needs to be kept busy; and what may have to be sent again.
const WINDOW = 512;

export class Courier {
  /** What went wrong last, for whoever gives up waiting. @type {Error | undefined} */
  problem;
  backlog;
  #options;
  /** @type {Link | undefined} */
  #link;
  #connecting = false;
  /** Tries since the last confirm, and when the next is due. */
  #tries = 0;
  #due = 0;
  /** Refused by RabbitMQ, waiting for the next try. @type {Entry[]} */
  #refused = [];
  /** @type {NodeJS.Timeout | undefined} */
  #pause;
  #stopped = false;
  /** Ends what #connect is at. */
  #giveUp = () => {};

  /**
   * @param {{ url: string, exchange: string, name: string, connectTimeout: number, socket: object,
   *   buffer: { messages: number, bytes: number } }} options
   */
  constructor(options) {
    this.#options = options;
    this.backlog = new Backlog(options.buffer);
  }

  /** Takes an event over, which has room; its `settle` is called once. @param {Entry} entry */
  accept(entry) {
    this.backlog.add(entry);
    this.#link?.hold(true);
    this.#work();
  }

  /** Forgets an event that is settled, or that nobody waits for any more. @param {Entry} entry */
  forget(entry) {
    this.backlog.remove(entry);
    if (this.backlog.size > 0) return;
    // Nothing left to do: nothing may keep the process alive.
    this.#link?.hold(false);
    this.#endPause();
    this.#giveUp();
  }

  /** Says why events are still waiting. */
  explain() {
    if (this.#link?.blocked) return `RabbitMQ takes no messages at the moment (${this.#link.blocked})`;
    if (this.problem) return explained(this.problem);
    return this.#link ? 'RabbitMQ has not confirmed it' : 'there is no connection to RabbitMQ yet';
  }

  /** Stops trying, whatever is left. */
  async stop() {
    this.#stopped = true;
    this.#endPause();
    this.#giveUp();
    const link = this.#link;
    this.#link = undefined;
    await link?.close();
  }

  #work() {
    if (this.#link) this.#send();
    else this.#connect();
  }

  #send() {
    const link = this.#link;
    while (link && link === this.#link && !link.blocked && !this.#pause && link.unconfirmed < WINDOW) {
      const entry = this.backlog.take();
      if (!entry) return;
      link.send(entry);
    }
  }

  async #connect() {
    if (this.#connecting) return;
    this.#connecting = true;
    try {
      while (this.backlog.size > 0 && !this.#link && !this.#stopped) {
        if (await this.#turn()) await this.#open();
      }
    } finally {
      this.#connecting = false;
    }
    this.#send();
  }

  async #open() {
    const stop = new AbortController();
    this.#giveUp = () => stop.abort();
    try {
      const link = await Link.open(this.#options, stop.signal, this.#listener());
      if (this.#stopped) return void (await link.close());
      this.#link = link;
      link.hold(this.backlog.size > 0);
    } catch (error) {
      this.#failed(error instanceof Error ? error : new Error(String(error)));
    }
  }

  /** Waits until the next try is due. Tells whether it came to that: what is waited for may be gone. */
  async #turn() {
    const wait = this.#due - Date.now();
    if (wait > 0) {
      /** @type {NodeJS.Timeout | undefined} */
      let timer;
      await new Promise((resolve) => {
        timer = setTimeout(resolve, wait);
        this.#giveUp = () => resolve(undefined);
      });
      clearTimeout(timer);
    }
    return this.#due <= Date.now();
  }

  /** @returns {import('./link.js').Listener} */
  #listener() {
    return {
      confirmed: (entry) => {
        this.#tries = 0;
        this.problem = undefined;
        entry.settle();
        this.#send();
      },
      returned: (entry) => {
        entry.settle(unroutable(this.#options.exchange, entry.id));
        this.#send();
      },
      refused: (entry) => this.#rest(entry),
      unblocked: () => this.#send(),
      ended: (problem, unconfirmed) => {
        this.#link = undefined;
        this.#endPause();
        this.backlog.putBack(unconfirmed);
        this.#failed(problem);
        this.#connect();
      },
    };
  }

  /** A refusal is RabbitMQ's for the moment (a full queue, no leader): all sending rests until the next try. @param {Entry} entry */
  #rest(entry) {
    this.#refused.push(entry);
    this.problem = new Error('RabbitMQ refused it for now (a negative confirm: is the queue full?)');
    if (this.#pause) return;
    this.#pause = setTimeout(() => {
      this.#endPause();
      this.#send();
    }, backoff(++this.#tries, Math.random()));
  }

  #endPause() {
    clearTimeout(this.#pause);
    this.#pause = undefined;
    this.backlog.putBack(this.#refused);
    this.#refused = [];
  }

  /** @param {Error} error */
  #failed(error) {
    this.#due = Date.now() + backoff(++this.#tries, Math.random());
    const { exchange } = this.#options;
    this.problem = error;
    for (const entry of this.backlog.all()) {
      const final = refusal(error, exchange, entry.id);
      if (!final) return;
      entry.settle(final);
    }
  }
}
