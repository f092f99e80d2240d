/** Enqueues session events for herald. How it is used, and what is promised: docs/backend.md of herald. */

import type { EventPayloads } from './message.js';

export type * from './message.js';

/** The events of the catalogue that herald ships. */
export type SessionEvent = keyof EventPayloads;

/** Any other name is normal too, and gets the catalogue's fallback text. */
export type EventName = SessionEvent | (string & {});

/** The payload of an event: typed for the catalogue's, free for others. */
export type EventData<E extends string> = E extends SessionEvent ? EventPayloads[E] : Record<string, unknown>;

export interface SendOptions {
  /** The event's id, 1 to 128 characters. The same id for the same session and partner is delivered once. Default: a new UUID. */
  id?: string;
  /** Travels in the published data, for the clients' filter; this user is never pushed to. */
  excludeUserId?: string;
  /** When it happened: a Date, or RFC 3339. Default: now. */
  occurredAt?: Date | string;
  /** When it stops to matter. Default: the life that the catalogue gives the event. */
  expiresAt?: Date | string;
  /** Milliseconds until the call gives up waiting for RabbitMQ's confirm. Default: the client's. */
  timeout?: number;
  /** Gives the call up. What has been sent by then may arrive. */
  signal?: AbortSignal;
}

export interface HeraldOptions {
  /** RabbitMQ, such as amqp://user:password@host:5672/%2f; amqps:// for TLS. */
  url: string;
  /** herald's broker.prefix. Default: herald. */
  prefix?: string;
  /** The connection's name in RabbitMQ's list. Default: herald-client, host and process. */
  name?: string;
  /** Milliseconds for one event, from the call to the confirm; Infinity waits as long as the client lives. Default: 30 s. */
  timeout?: number;
  /** Milliseconds for one try to connect. Default: 10 s. */
  connectTimeout?: number;
  /** Milliseconds that close() waits for confirms. Default: 10 s. */
  closeTimeout?: number;
  /** Most events that may be unconfirmed at once; the next call fails with code buffer_full. Default: 10,000. */
  bufferMessages?: number;
  /** Most bytes that they may have together. Default: 16 MiB. */
  bufferBytes?: number;
  /** Options of the socket as node:net and node:tls know them, such as `ca`. */
  socket?: object;
}

export interface CloseOptions {
  /** Milliseconds to wait for confirms. Default: the client's closeTimeout. */
  timeout?: number;
}

export interface Herald {
  /**
   * Tells the partner: on the session's channel if present there, else by a push. Resolves to the event's id once RabbitMQ
   * has the event safe; rejects with a HeraldError.
   */
  notifyPartner<E extends EventName>(sessionId: string, partnerId: string, event: E, data: EventData<E>, options?: SendOptions): Promise<string>;

  /** Publishes on the session's channel only; nobody is pushed to. Resolves and rejects as notifyPartner does. */
  publishSessionEvent<E extends EventName>(
    sessionId: string,
    event: E,
    data: EventData<E>,
    excludeUserId?: string,
    options?: Omit<SendOptions, 'excludeUserId'>,
  ): Promise<string>;

  /** Takes no more events, waits for the confirms of those it has, rejects the rest. Resolves to how many those were. */
  close(options?: CloseOptions): Promise<number>;

  /** How many events have been accepted and are not confirmed yet. */
  readonly unconfirmed: number;
}

/** Makes a client of one's own. It connects at the first event. */
export function createHerald(options: HeraldOptions): Herald;

/** `notifyPartner` of a client made at the first call from AMQP_URL and HERALD_BROKER__PREFIX. */
export const notifyPartner: Herald['notifyPartner'];

/** `publishSessionEvent` of the same client. */
export const publishSessionEvent: Herald['publishSessionEvent'];

/** Closes that client, if there is one; the next call makes another. */
export const close: Herald['close'];

/**
 * - `invalid`: herald would refuse the event; `field` says where.
 * - `buffer_full`: too many events are unconfirmed. Nothing was kept.
 * - `timeout`: no confirm in time. RabbitMQ may have it; sending it again with the same id is safe.
 * - `unroutable`: RabbitMQ threw it away, since herald has never been started there.
 * - `refused`: RabbitMQ refuses the credentials, the exchange or the message. Nothing was kept.
 * - `closed`: the client was closed.
 * - `configuration`: an option or a variable is wrong.
 */
export type ErrorCode = 'invalid' | 'buffer_full' | 'timeout' | 'unroutable' | 'refused' | 'closed' | 'configuration';

export class HeraldError extends Error {
  private constructor();
  readonly code: ErrorCode;
  /** The event's id, where one is known. */
  readonly id?: string;
  /** The field that was refused, with code `invalid`. */
  readonly field?: string;
}
