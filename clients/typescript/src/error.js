// The one error of this package. A caller tells the cases apart by `code`, a person reads the message: it names the thing, and what to do.

/** @import { ErrorCode } from '../types/index.js' */

export class HeraldError extends Error {
  /**
   * @param {ErrorCode} code
   * @param {string} message
   * @param {{ id?: string, field?: string, cause?: unknown }} [details]
   */
  constructor(code, message, { id, field, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'HeraldError';
    /** @readonly */
    this.code = code;
    /** The event's id, where one is known. */
    this.id = id;
    /** The field that was refused, with code `invalid`. */
    this.field = field;
  }
}
