//! Log lines that belong to a trace: they end with its id, as `trace_id`, OpenTelemetry's name for it in logs.
//!
//! Called by `telemetry`. The id is told whether the trace is exported or not, and where there is none nothing is added.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatFields,
        format::{Format, FormatEvent, Full, Writer},
    },
    registry::LookupSpan,
};

use super::trace_id;

/// A format that adds the id of the trace that a line belongs to.
pub(crate) struct InTrace<F> {
    format: F,
    json: bool,
}

impl InTrace<Format<Full>> {
    /// For lines of text.
    pub(crate) fn text(format: Format<Full>, color: bool) -> Self {
        InTrace { format: format.with_ansi(color), json: false }
    }
}

impl<F> InTrace<F> {
    /// For lines that are JSON objects.
    pub(crate) fn json(format: F) -> Self {
        InTrace { format, json: true }
    }
}

impl<S, N, F> FormatEvent<S, N> for InTrace<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(id) = trace_id() else { return self.format.format_event(ctx, to, event) };
        let mut line = String::new();
        self.format.format_event(ctx, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        match line.strip_suffix('}').filter(|_| self.json) {
            Some(open) => writeln!(to, "{open},\"trace_id\":\"{id}\"}}"),
            None => writeln!(to, "{line} trace_id={id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::{
        Context,
        trace::{SpanContext, SpanId, TraceContextExt as _, TraceId},
    };
    use serde_json::Value;
    use tracing_subscriber::{Layer, Registry, layer::SubscriberExt as _};

    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Returns a line before a trace, and one in it.
    fn said(lines: &Lines, layer: impl Layer<Registry> + Send + Sync) -> [String; 2] {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(event.id = "before", "said");
            let (trace, span) = (TraceId::from_hex(ID).unwrap(), SpanId::from_hex("00f067aa0ba902b7").unwrap());
            let parent = SpanContext::new(trace, span, Default::default(), true, Default::default());
            let _here = Context::new().with_remote_span_context(parent).attach();
            tracing::info!(event.id = "within", "said {{}}");
        });
        let text = String::from_utf8(std::mem::take(&mut *lines.0.lock().unwrap())).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>().try_into().unwrap()
    }

    #[test]
    fn a_line_in_a_trace_bears_its_id() {
        let lines = Lines::default();
        let to = lines.clone();
        let layer = || {
            let to = to.clone();
            tracing_subscriber::fmt::layer().with_writer(move || to.clone())
        };
        for color in [false, true] {
            let text = layer().with_ansi(color).map_event_format(|format| InTrace::text(format, color));
            let [before, within] = said(&lines, text);
            assert!(!before.contains(ID) && within.ends_with(&format!(" trace_id={ID}")), "{before}\n{within}");
            assert_eq!((before.contains('\x1b'), within.contains('\x1b')), (color, color), "{within}");
        }
        let json = layer().json().flatten_event(true).map_event_format(InTrace::json);
        let [before, within] = said(&lines, json).map(|line| serde_json::from_str::<Value>(&line).unwrap());
        assert_eq!((&before["event.id"], before.get("trace_id")), (&"before".into(), None));
        assert_eq!((&within["event.id"], &within["trace_id"]), (&"within".into(), &ID.into()));
    }
}
