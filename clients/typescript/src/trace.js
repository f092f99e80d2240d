// The trace that the caller is in, as message headers: herald goes on with it. Called for each event when it is handed over,
// since the span may have ended when it is sent. Never fails an event: without OpenTelemetry there is no header.

import { createRequire } from 'node:module';

/** @import { SpanContext } from '@opentelemetry/api' */

/** @type {typeof import('@opentelemetry/api') | null | undefined} */
let api;

/** @returns {Record<string, string>} */
export function traceHeaders() {
  // Looked for once, at the first event.
  if (api === undefined) api = load();
  const span = api?.trace.getSpanContext(api.context.active());
  return api && span && api.isSpanContextValid(span) ? headers(span) : {};
}

/**
 * Returns the two headers of https://www.w3.org/TR/trace-context/.
 *
 * @param {SpanContext} span
 * @returns {Record<string, string>}
 */
function headers({ traceId, spanId, traceFlags, traceState }) {
  const traceparent = `00-${traceId}-${spanId}-${(traceFlags & 0xff).toString(16).padStart(2, '0')}`;
  const tracestate = traceState?.serialize();
  // Longer ones need not be passed on.
  return tracestate && tracestate.length <= 512 ? { traceparent, tracestate } : { traceparent };
}

function load() {
  try {
    return createRequire(import.meta.url)('@opentelemetry/api');
  } catch {
    return null;
  }
}
