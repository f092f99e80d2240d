// The message of an event, made and checked by the rules herald decodes by (src/domain/event.rs of herald): what would
// become a dead letter there is refused here, with the field's name. Called before anything is kept or sent; pure.

import { HeraldError } from './error.js';

/** @import { Message } from './backlog.js' */
/** @import { SendOptions } from '../types/index.js' */

const MAX_BODY = 64 * 1024;
const MAX_CODE_POINTS = 128;
const MAX_STRING_BYTES = 255;
// herald's JSON reader stops at 128 levels; the body's own object is the first.
const MAX_DEPTH = 127;

const CONTROL = /\p{Cc}/u;
const LONE_SURROGATE = /\p{Surrogate}/u;
const RFC_3339 = /^(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:[Zz]|[+-](\d\d):(\d\d))$/;

/**
 * Returns the message of an event, or throws an error with code `invalid`.
 *
 * @param {{ sessionId: string, event: string, data?: unknown, partnerId?: string }} event
 * @param {SendOptions} options
 * @param {() => string} newId
 * @param {Date} now
 * @returns {Message}
 */
export function message(event, options, newId, now) {
  const { id = newId(), excludeUserId, occurredAt = now, expiresAt } = options;
  const fields = {
    id: identifier('id', id),
    sessionId: identifier('sessionId', event.sessionId),
    event: identifier('event', event.event),
    partnerId: 'partnerId' in event ? identifier('partnerId', event.partnerId) : undefined,
    // As for herald, an empty text excludes nobody.
    excludeUserId: absent(excludeUserId) || excludeUserId === '' ? undefined : string('excludeUserId', excludeUserId),
    occurredAt: time('occurredAt', occurredAt),
    expiresAt: absent(expiresAt) ? undefined : time('expiresAt', expiresAt),
  };
  const body = Buffer.from(`${JSON.stringify(fields).slice(0, -1)},"data":${object('data', event.data ?? {})}}`);
  if (body.length > MAX_BODY) throw tooLarge(body.length);
  return { id, routingKey: event.event, body };
}

/** @param {number} bytes */
function tooLarge(bytes) {
  const limit = `at most ${MAX_BODY} are accepted. Send ids instead of content`;
  return invalid('data', `makes a message of ${bytes} bytes; ${limit}`);
}

/** @param {unknown} value @returns {value is null | undefined} */
function absent(value) {
  return value === undefined || value === null;
}

/** @param {string} field @param {unknown} value */
function identifier(field, value) {
  if (value === '') throw invalid(field, `is empty; expected 1 to ${MAX_CODE_POINTS} characters`);
  const text = string(field, value);
  // Code points, as herald counts them.
  const length = [...text].length;
  if (length > MAX_CODE_POINTS) {
    throw invalid(field, `has ${length} characters; at most ${MAX_CODE_POINTS} are accepted`);
  }
  return text;
}

/** @param {string} field @param {unknown} value */
function string(field, value) {
  if (typeof value !== 'string') throw invalid(field, `is ${kind(value)}; expected a string`);
  const bytes = Buffer.byteLength(value);
  if (bytes > MAX_STRING_BYTES) throw invalid(field, `has ${bytes} bytes; at most ${MAX_STRING_BYTES} are accepted`);
  const control = CONTROL.exec(value)?.[0];
  if (control !== undefined) throw invalid(field, `holds the control character ${codePoint(control)}`);
  if (LONE_SURROGATE.test(value)) throw invalid(field, HALF);
  return value;
}

const HALF = 'holds half of a character (a lone surrogate); was a text cut between two UTF-16 units?';

/**
 * Returns `value` as JSON. What JSON.stringify makes of it counts, as toJSON may make anything of anything.
 *
 * @param {string} field
 * @param {unknown} value
 */
function object(field, value) {
  /** @type {string | undefined} */
  let json;
  try {
    json = JSON.stringify(value);
  } catch (cause) {
    throw invalid(field, `is not JSON: ${cause instanceof Error ? cause.message : cause}`, cause);
  }
  if (!json?.startsWith('{')) throw invalid(field, `is ${kind(value)}; expected an object`);
  // Not parsed again if it is in vain.
  if (json.length > MAX_BODY) throw tooLarge(Buffer.byteLength(json));
  const { depth, half } = look(JSON.parse(json));
  if (half) throw invalid(field, HALF);
  // The object of the body is one level more.
  if (depth + 1 > MAX_DEPTH) throw invalid(field, `is nested ${depth} levels deep; at most ${MAX_DEPTH - 1} are accepted`);
  return json;
}

/**
 * Returns how deep `value` is nested, and whether a text in it ends in half a character. Without recursion: data may be
 * nested as deep as JSON.stringify goes.
 *
 * @param {unknown} value
 */
function look(value) {
  let depth = 0;
  let half = false;
  /** @type {[unknown, number][]} */
  const left = [[value, 0]];
  for (let next = left.pop(); next; next = left.pop()) {
    const [item, above] = next;
    if (typeof item === 'string') half ||= LONE_SURROGATE.test(item);
    if (typeof item !== 'object' || item === null) continue;
    depth = Math.max(depth, above + 1);
    half ||= Object.keys(item).some((key) => LONE_SURROGATE.test(key));
    for (const inner of Object.values(item)) left.push([inner, above + 1]);
  }
  return { depth, half };
}

/** @param {string} field @param {unknown} value */
function time(field, value) {
  if (value instanceof Date) {
    if (Number.isNaN(value.getTime())) throw invalid(field, 'is not a valid Date');
    value = value.toISOString();
  }
  const text = string(field, value);
  const parts = (RFC_3339.exec(text) ?? []).slice(1).map((part) => Number(part ?? 0));
  const [year, month, day, hour, minute, second, offsetHour, offsetMinute] = parts;
  // Date moves a day that is none, such as the 30th of February, on to the next month; 60 is a leap second.
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  const isDay = date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
  if (!isDay || hour > 23 || minute > 59 || second > 60 || offsetHour > 23 || offsetMinute > 59) {
    const expected = 'a Date, or an RFC 3339 time such as 2026-01-31T12:00:00Z';
    throw invalid(field, `is ${JSON.stringify(text.slice(0, 64))}; expected ${expected}`);
  }
  return text;
}

/** @param {string} field @param {string} problem @param {unknown} [cause] */
function invalid(field, problem, cause) {
  return new HeraldError('invalid', `${field}: ${problem}`, { field, cause });
}

/** @param {string} character */
function codePoint(character) {
  return `U+${Number(character.codePointAt(0)).toString(16).toUpperCase().padStart(4, '0')}`;
}

/** @param {unknown} value */
function kind(value) {
  if (value === null) return 'null';
  if (value === undefined) return 'missing';
  if (Array.isArray(value)) return 'an array';
  return `${typeof value === 'object' ? 'an' : 'a'} ${typeof value}`;
}
