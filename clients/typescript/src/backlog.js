// The events that RabbitMQ has not confirmed yet, bounded in number and bytes, in the order in which they were accepted. Kept
// by the courier; never gives an event away for good: what is taken comes back, or is removed once its caller knows.

/**
 * @typedef {object} Message
 * @property {string} id
 * @property {string} routingKey
 * @property {Buffer} body
 */

/**
 * @typedef {Message & {
 *   number: number,
 *   headers: Record<string, string>,
 *   settle: (error?: Error) => void,
 * }} Entry
 */

export class Backlog {
  #bound;
  #bytes = 0;
  #accepted = 0;
  /** Everything that is not settled. @type {Set<Entry>} */
  #entries = new Set();
  /** What is to be sent next. @type {Set<Entry>} */
  #waiting = new Set();

  /** @param {{ messages: number, bytes: number }} bound */
  constructor(bound) {
    this.#bound = bound;
  }

  get size() {
    return this.#entries.size;
  }

  get bytes() {
    return this.#bytes;
  }

  /** Tells whether a message with a body of that many bytes has room. @param {number} bytes */
  hasRoomFor(bytes) {
    return this.size < this.#bound.messages && this.#bytes + bytes <= this.#bound.bytes;
  }

  /** @param {Entry} entry */
  add(entry) {
    entry.number = this.#accepted++;
    this.#entries.add(entry);
    this.#waiting.add(entry);
    this.#bytes += entry.body.length;
  }

  /** Takes the next one to send. */
  take() {
    const [next] = this.#waiting;
    if (next) this.#waiting.delete(next);
    return next;
  }

  /** Puts back what was taken and not confirmed, before what came later. @param {Entry[]} entries */
  putBack(entries) {
    const back = entries.filter((entry) => this.#entries.has(entry)).sort((one, other) => one.number - other.number);
    if (back.length > 0) this.#waiting = new Set([...back, ...this.#waiting]);
  }

  /** Forgets an event whose caller knows what became of it. @param {Entry} entry */
  remove(entry) {
    if (!this.#entries.delete(entry)) return;
    this.#waiting.delete(entry);
    this.#bytes -= entry.body.length;
  }

  /** Everything that is not settled, oldest first. */
  all() {
    return [...this.#entries];
  }
}
