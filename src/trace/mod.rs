//! Traces: what one event went through, as spans for an OTLP receiver, in the trace that its producer began.
//!
//! Called by the worker (one span for an event, one for each stop) and by the provider clients (one for each request). Unless
//! `otlp.endpoint` is set a [`Span`] is nothing and costs nothing. Never delays an event, never shows a payload or push token,
//! and is never passed on to a provider: to them, our traces are nobody's business.
//!
//! Spans are made through OpenTelemetry's own interface and not through `tracing`: a stop may begin in the past (an event is
//! decoded before it is handled), and `log.level` must not decide what a trace holds.

mod export;
mod lines;
pub(crate) mod parent;

use std::{sync::OnceLock, time::SystemTime};

use futures::future::Either;
use opentelemetry::{
    Context, KeyValue, Value,
    trace::{
        FutureExt as _, Link, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceId, Tracer as _,
        WithContext,
    },
};
use opentelemetry_sdk::trace::SdkTracer;

pub(crate) use export::start;
pub(crate) use lines::InTrace;

/// Set once traces are exported.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// A span that ends when it is dropped; or nothing, where no trace is recorded.
pub(crate) struct Span(Option<Context>);

impl Span {
    /// Begins the span of an event. With `parent` it belongs to that trace, also when nothing is recorded: log lines tell
    /// the trace's id.
    pub(crate) fn of_event(parent: Option<Context>, builder: impl FnOnce() -> SpanBuilder) -> Span {
        let Some(tracer) = TRACER.get() else { return Span(parent) };
        let parent = parent.unwrap_or_default();
        Span(Some(parent.with_span(tracer.build_with_context(builder(), &parent))))
    }

    /// Begins a stop of the event that is being handled.
    pub(crate) fn stop(name: &'static str) -> Span {
        child(recorded().as_ref(), || SpanBuilder::from_name(name))
    }

    /// Begins a part of what is being handled that talks to another service. The name may hold only what has few values.
    pub(crate) fn call(kind: SpanKind, name: impl FnOnce() -> String) -> Span {
        child(recorded().as_ref(), || SpanBuilder::from_name(name()).with_kind(kind))
    }

    /// Begins the span of a request that carries something of each of `events`: alone it is a part of that event's trace,
    /// together they get a trace of its own that links to theirs.
    pub(crate) fn of_batch(name: &'static str, events: Vec<SpanContext>, items: usize) -> Span {
        let (Some(tracer), Some(event)) = (TRACER.get(), events.first()) else { return Span(None) };
        let none = Context::new();
        if items == 1 {
            return Span(Some(none.with_remote_span_context(event.clone())));
        }
        let links = events.into_iter().map(|event| Link::new(event, Vec::new(), 0)).collect();
        let builder = SpanBuilder::from_name(name).with_links(links);
        let span = Span(Some(none.with_span(tracer.build_with_context(builder, &none))));
        span.note("herald.batch.items", || i64::try_from(items).unwrap_or(i64::MAX));
        span
    }

    /// Begins a part of this span.
    pub(crate) fn part(&self, name: &'static str) -> Span {
        child(self.0.as_ref(), || SpanBuilder::from_name(name))
    }

    /// Begins a part of this span that began earlier, at `at`.
    pub(crate) fn past(&self, name: &'static str, at: SystemTime) -> Span {
        child(self.0.as_ref(), || SpanBuilder::from_name(name).with_start_time(at))
    }

    /// Tells whether the span goes anywhere.
    pub(crate) fn recorded(&self) -> bool {
        self.0.as_ref().is_some_and(|cx| cx.span().is_recording())
    }

    /// Ends the span at `at`.
    pub(crate) fn end(self, at: SystemTime) {
        if let Some(cx) = &self.0 {
            cx.span().end_with_timestamp(at);
        }
    }

    /// Puts an attribute on the span. No payload, no push token, no text of a provider's.
    pub(crate) fn note<V: Into<Value>>(&self, key: &'static str, value: impl FnOnce() -> V) {
        note(self.0.as_ref(), key, value);
    }

    /// Marks the span as failed; `kind` has few values.
    pub(crate) fn failed<V: Into<Value>>(&self, kind: impl FnOnce() -> V) {
        failed(self.0.as_ref(), kind);
    }

    /// Runs `future` inside the span: what begins there is a part of it. Not an `async fn`, which would hold the future twice.
    pub(crate) fn run<F: Future>(&self, future: F) -> Either<WithContext<F>, F> {
        match &self.0 {
            Some(cx) => Either::Left(future.with_context(cx.clone())),
            None => Either::Right(future),
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(cx) = &self.0 {
            cx.span().end();
        }
    }
}

/// Puts an attribute on the span of the event that is being handled.
pub(crate) fn note_event<V: Into<Value>>(key: &'static str, value: impl FnOnce() -> V) {
    note(recorded().as_ref(), key, value);
}

/// Marks the handling of the event as failed; `kind` has few values.
pub(crate) fn event_failed<V: Into<Value>>(kind: impl FnOnce() -> V) {
    failed(recorded().as_ref(), kind);
}

/// Returns the span of what is being handled, for a request that will carry it; `None` where no trace is recorded.
pub(crate) fn here() -> Option<SpanContext> {
    recorded().map(|cx| cx.span().span_context().clone())
}

/// Returns the id of the trace of what is being handled, recorded or not.
pub(crate) fn trace_id() -> Option<TraceId> {
    Context::map_current(|cx| cx.has_active_span().then(|| cx.span().span_context().trace_id()))
        .filter(|id| *id != TraceId::INVALID)
}

/// Begins a span below that of `parent`, where that one is recorded.
fn child(parent: Option<&Context>, builder: impl FnOnce() -> SpanBuilder) -> Span {
    let parent = parent.filter(|cx| cx.span().span_context().is_sampled());
    let (Some(tracer), Some(cx)) = (TRACER.get(), parent) else { return Span(None) };
    Span(Some(cx.with_span(tracer.build_with_context(builder(), cx))))
}

fn recorded() -> Option<Context> {
    TRACER.get()?;
    Context::map_current(|cx| cx.span().span_context().is_sampled().then(|| cx.clone()))
}

fn note<V: Into<Value>>(cx: Option<&Context>, key: &'static str, value: impl FnOnce() -> V) {
    if let Some(cx) = cx.filter(|cx| cx.span().is_recording()) {
        cx.span().set_attribute(KeyValue::new(key, value()));
    }
}

fn failed<V: Into<Value>>(cx: Option<&Context>, kind: impl FnOnce() -> V) {
    note(cx, "error.type", kind);
    if let Some(cx) = cx {
        cx.span().set_status(Status::error(""));
    }
}
