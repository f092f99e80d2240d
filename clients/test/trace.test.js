// The trace a backend's call is made in travels with the message, with OpenTelemetry's own API and SDK.

import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import test from 'node:test';
import { context, createTraceState, ROOT_CONTEXT, trace, TraceFlags } from '@opentelemetry/api';
import { BasicTracerProvider } from '@opentelemetry/sdk-trace-base';
import { connect } from 'amqplib';
import { client, eventually, given } from './support.js';

test('traceparent and tracestate are those of the caller\'s span', async (t) => {
  trace.setGlobalTracerProvider(new BasicTracerProvider());
  context.setGlobalContextManager(manager());
  const connection = await connect(given.url);
  t.after(() => connection.close());
  const channel = await connection.createChannel();
  const { queue } = await channel.assertQueue('', { exclusive: true });
  await channel.bindQueue(queue, `${given.prefix}.events`, 'traced.#');
  const herald = client(t);
  const received = async () => (await eventually('the copy', () => channel.get(queue, { noAck: true }))).properties.headers;

  const span = trace.getTracer('backend').startSpan('request');
  const { traceId, spanId } = span.spanContext();
  const call = context.with(trace.setSpan(ROOT_CONTEXT, span), () => herald.publishSessionEvent('s1', 'traced.own', {}));
  // The span may be over before RabbitMQ has the event.
  span.end();
  await call;
  assert.deepEqual(await received(), { traceparent: `00-${traceId}-${spanId}-01` });

  const traceState = createTraceState('vendor=1,other=2');
  const remote = { traceId: 'a'.repeat(32), spanId: 'b'.repeat(16), traceFlags: TraceFlags.NONE, traceState };
  await context.with(trace.setSpanContext(ROOT_CONTEXT, remote), () => herald.publishSessionEvent('s1', 'traced.remote', {}));
  assert.deepEqual(await received(), { traceparent: `00-${'a'.repeat(32)}-${'b'.repeat(16)}-00`, tracestate: 'vendor=1,other=2' });

  const long = { ...remote, traceState: createTraceState(`vendor=${'x'.repeat(250)},other=${'y'.repeat(250)},third=${'z'.repeat(50)}`) };
  await context.with(trace.setSpanContext(ROOT_CONTEXT, long), () => herald.publishSessionEvent('s1', 'traced.long', {}));
  assert.deepEqual(Object.keys(await received()), ['traceparent'], 'what is too long is left out');

  await herald.publishSessionEvent('s1', 'traced.nothing', {});
  assert.deepEqual(await received(), {}, 'outside any span');
});

/** The least that keeps a context across awaits; OpenTelemetry has one in a package of its own. */
function manager() {
  const storage = new AsyncLocalStorage();
  return {
    active: () => storage.getStore() ?? ROOT_CONTEXT,
    with: (active, call, self, ...args) => storage.run(active, () => call.apply(self, args)),
    bind: (_, target) => target,
    enable() { return this; },
    disable() { return this; },
  };
}
