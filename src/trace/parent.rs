//! The trace a message belongs to: `traceparent` and `tracestate` in its headers, as <https://www.w3.org/TR/trace-context/>
//! writes them, or `traceparent` in the binary form of <https://w3c.github.io/trace-context-binary/>.
//!
//! Called by the worker, on receipt and for every copy. Anybody may write these headers, so what makes no sense counts as absent.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;

use crate::broker::{Message, headers};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// Longest `tracestate` taken over, the length that everybody should pass on: it travels with every span.
const MAX_STATE: usize = 512;

/// Returns the trace that `message` belongs to, if it names one.
pub(crate) fn read(message: &Message) -> Option<Context> {
    let properties = &message.properties;
    let value = properties.headers().as_ref()?.inner().get(TRACEPARENT)?;
    if let Some(parent) = binary(value, Headers(properties).get(TRACESTATE)) {
        return Some(Context::new().with_remote_span_context(parent));
    }
    let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(properties));
    parent.has_active_span().then_some(parent)
}

/// Writes the trace of the event that is being handled into its copy, unless the copy says one already: every attempt stays in
/// the trace that the producer began, or herald's first attempt.
pub(crate) fn write(copy: &mut Message) {
    if read(copy).is_some() {
        return;
    }
    let span = Context::map_current(|cx| cx.span().span_context().clone());
    if !span.is_valid() {
        return;
    }
    let mut table = headers::retain(copy.properties.headers(), |name| name != TRACEPARENT && name != TRACESTATE);
    let flags = span.trace_flags() & TraceFlags::SAMPLED;
    let parent = format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id());
    set(&mut table, TRACEPARENT, parent);
    let state = span.trace_state().header();
    if !state.is_empty() {
        set(&mut table, TRACESTATE, state);
    }
    copy.properties = std::mem::take(&mut copy.properties).with_headers(table);
}

fn set(table: &mut FieldTable, name: &str, value: String) {
    table.insert(name.into(), AMQPValue::LongString(value.into()));
}

/// Reads the binary form, which is what AMQP 1.0 clients write: version 0, then three fields, each after its number.
fn binary(value: &AMQPValue, state: Option<&str>) -> Option<SpanContext> {
    let bytes = match value {
        AMQPValue::ByteArray(bytes) => bytes.as_slice(),
        AMQPValue::LongString(text) => text.as_bytes(),
        _ => return None,
    };
    let [0, 0, trace_id @ .., 1, a, b, c, d, e, f, g, h, 2, flags] = bytes else { return None };
    let trace_id = TraceId::from_bytes(trace_id.try_into().ok()?);
    let span_id = SpanId::from_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
    let state: TraceState = state.and_then(|state| state.parse().ok()).unwrap_or_default();
    let parent = SpanContext::new(trace_id, span_id, TraceFlags::new(*flags) & TraceFlags::SAMPLED, true, state);
    parent.is_valid().then_some(parent)
}

struct Headers<'a>(&'a BasicProperties);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        headers::text(self.0, key).filter(|text| key != TRACESTATE || text.len() <= MAX_STATE)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

#[cfg(test)]
#[path = "parent_tests.rs"]
mod tests;
