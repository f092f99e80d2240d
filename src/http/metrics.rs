//! Every metric herald has, in one table: name, kind, unit, help. Labels come from enums only, never from data.
//!
//! [`install`] is called when the port is opened. The tests look through the sources for names that are counted with, so that
//! each has its help text. A gauge that is drained says 0.

use std::sync::{Mutex, PoisonError};

use metrics::Unit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
struct Metric {
    name: &'static str,
    kind: Kind,
    unit: Unit,
    help: &'static str,
}

const fn metric(name: &'static str, kind: Kind, unit: Unit, help: &'static str) -> Metric {
    Metric { name, kind, unit, help }
}

/// The table. The help texts name the labels.
const METRICS: [Metric; 42] = [
    metric("herald_received_total", Kind::Counter, Unit::Count, "Deliveries taken from the event and hold queues"),
    metric("herald_settled_total", Kind::Counter, Unit::Count, "Deliveries settled, by disposition and reason"),
    metric(
        "herald_settles_lost_total",
        Kind::Counter,
        Unit::Count,
        "Acknowledgements that could not be sent; the event comes again",
    ),
    metric("herald_repeats_total", Kind::Counter, Unit::Count, "Events that came again under the same identity"),
    metric(
        "herald_id_reused_total",
        Kind::Counter,
        Unit::Count,
        "Events that came again under the same identity with other content",
    ),
    metric(
        "herald_lane_full_total",
        Kind::Counter,
        Unit::Count,
        "Events put off because their session has too many in hand",
    ),
    metric("herald_held_total", Kind::Counter, Unit::Count, "Events moved to a hold queue, by provider and cause"),
    metric(
        "herald_interrupted_total",
        Kind::Counter,
        Unit::Count,
        "Events whose handling was given up; they come again",
    ),
    metric("herald_panics_total", Kind::Counter, Unit::Count, "Panics while handling an event: each is a bug"),
    metric(
        "herald_rows_refused_total",
        Kind::Counter,
        Unit::Count,
        "Ledger rows that the database refuses for their data",
    ),
    metric("herald_reconnects_total", Kind::Counter, Unit::Count, "Times the consumer was lost and registered again"),
    metric(
        "herald_presence_total",
        Kind::Counter,
        Unit::Count,
        "Presence look-ups, by result (present, absent, unknown)",
    ),
    metric("herald_attempts_total", Kind::Counter, Unit::Count, "Sends to a target, by provider and outcome"),
    metric("herald_tokens_cleared_total", Kind::Counter, Unit::Count, "Push tokens cleared because the device is gone"),
    metric(
        "herald_tokens_kept_total",
        Kind::Counter,
        Unit::Count,
        "Push tokens not cleared because suspiciously many devices are said to be gone",
    ),
    metric(
        "herald_receipts_total",
        Kind::Counter,
        Unit::Count,
        "Receipts of accepted pushes, by outcome (ok, unregistered, misconfigured, not_handed_on, unknown)",
    ),
    metric(
        "herald_provider_requests_total",
        Kind::Counter,
        Unit::Count,
        "Requests to a provider, by provider, endpoint and result",
    ),
    metric(
        "herald_provider_request_duration_seconds",
        Kind::Histogram,
        Unit::Seconds,
        "How long a request to a provider took, by provider and endpoint",
    ),
    metric("herald_batch_size", Kind::Histogram, Unit::Count, "Items gathered into one request, by provider"),
    metric("herald_store_statements_total", Kind::Counter, Unit::Count, "Statements sent to the store, by statement"),
    metric("herald_store_duration_seconds", Kind::Histogram, Unit::Seconds, "How long a statement took, by statement"),
    metric(
        "herald_event_age_seconds",
        Kind::Histogram,
        Unit::Seconds,
        "Age of an event when it ended, from its first receipt",
    ),
    metric("herald_in_flight", Kind::Gauge, Unit::Count, "Events in hand"),
    metric("herald_lanes", Kind::Gauge, Unit::Count, "Sessions with an event in hand"),
    metric("herald_queue_ready", Kind::Gauge, Unit::Count, "Messages ready in a queue, by queue"),
    metric("herald_broker_connected", Kind::Gauge, Unit::Count, "1 while the connections to the broker stand"),
    metric("herald_ready", Kind::Gauge, Unit::Count, "1 while a consumer is registered"),
    metric("herald_provider_open", Kind::Gauge, Unit::Count, "1 while requests go out to a provider, by provider"),
    metric(
        "herald_provider_held",
        Kind::Gauge,
        Unit::Count,
        "1 while a provider gets no requests, by provider and by whom or what (operator, breaker, unauthorised, throttled)",
    ),
    metric("herald_paused", Kind::Gauge, Unit::Count, "1 while an operator has paused the intake"),
    metric("herald_provider_waiting", Kind::Gauge, Unit::Count, "Events in hand that wait for a provider, by provider"),
    metric(
        "herald_books",
        Kind::Gauge,
        Unit::Count,
        "Identities in the ledger, by state; received is the sum of the others",
    ),
    metric("herald_outbox_relayed_total", Kind::Counter, Unit::Count, "Rows of the outbox that RabbitMQ has confirmed"),
    metric(
        "herald_outbox_failed_total",
        Kind::Counter,
        Unit::Count,
        "Rows of the outbox marked because they are no events",
    ),
    metric(
        "herald_outbox_put_off_total",
        Kind::Counter,
        Unit::Count,
        "Rows of the outbox that were not confirmed and are published again",
    ),
    metric(
        "herald_outbox_notifications_total",
        Kind::Counter,
        Unit::Count,
        "Notifications that woke this relay; without any, rows wait for the next poll",
    ),
    metric(
        "herald_outbox_delay_seconds",
        Kind::Histogram,
        Unit::Seconds,
        "From the writing of a row to the confirm of its event",
    ),
    metric("herald_outbox_waiting", Kind::Gauge, Unit::Count, "Rows of the outbox that wait, up to 100000"),
    metric("herald_outbox_failed", Kind::Gauge, Unit::Count, "Rows of the outbox marked as no events, up to 100000"),
    metric("herald_outbox_lag_seconds", Kind::Gauge, Unit::Seconds, "Age of the oldest row of the outbox that waits"),
    metric(
        "herald_trace_spans_total",
        Kind::Counter,
        Unit::Count,
        "Spans of traces, by result (exported, failed: not taken by otlp.endpoint, dropped: too many waited)",
    ),
    metric("herald_books_closed", Kind::Gauge, Unit::Count, "1 while every identity received has exactly one fate"),
];

/// From one quick request to a day in the retry queues.
const SECONDS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0, 3_600.0, 86_400.0];

/// Up to the hundred items that a request may have.
const SIZES: [f64; 7] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0];

/// Installs the recorder of this process, describes every metric and returns the handle that renders them. A second call
/// returns the same handle.
pub(super) fn install() -> Result<PrometheusHandle, BuildError> {
    static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), &SIZES)?;
    let handle = builder.install_recorder()?;
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
    *installed = Some(handle.clone());
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns every name counted with in the sources below `folder`.
    fn names_in(folder: &std::path::Path) -> Vec<String> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                names.extend(names_in(&entry));
                continue;
            }
            let text: String = std::fs::read_to_string(&entry).unwrap().split_whitespace().collect();
            for kind in ["counter", "gauge", "histogram"] {
                let marker = format!("{kind}!(\"");
                let counted = text.split(&marker).skip(1);
                names.extend(counted.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
        names
    }

    #[test]
    fn every_name_counted_with_is_in_the_table_and_none_else() {
        let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let names = names_in(&sources);
        for metric in METRICS {
            assert!(names.iter().any(|name| name == metric.name), "{} is never counted with", metric.name);
        }
        for name in names {
            assert!(METRICS.iter().any(|metric| metric.name == name), "{name} is not in the table");
        }
    }

    #[test]
    fn names_follow_the_rule_and_are_unique() {
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        for metric in METRICS {
            assert!(metric.name.starts_with("herald_") && !metric.help.ends_with('.'), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert_eq!(metric.name.ends_with("_seconds"), metric.unit == Unit::Seconds, "{}", metric.name);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }
}
