//! Every metric herald has, in one table: name, kind, unit, help. Labels come from enums only, never from data.
//!
//! [`install`] is called once by `run`; the worker counts with the names below. A gauge that is drained says 0.

use std::sync::OnceLock;

use metrics::Unit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

pub const RECEIVED: &str = "herald_received_total";
pub const SETTLED: &str = "herald_settled_total";
pub const SETTLES_LOST: &str = "herald_settles_lost_total";
pub const ID_REUSED: &str = "herald_id_reused_total";
pub const SENDS: &str = "herald_sends_total";
pub const SEND_DURATION: &str = "herald_send_duration_seconds";
pub const EVENT_AGE: &str = "herald_event_age_seconds";
pub const IN_FLIGHT: &str = "herald_in_flight";
pub const QUEUE_READY: &str = "herald_queue_ready";
pub const OLDEST_AGE: &str = "herald_oldest_event_age_seconds";
pub const BROKER_CONNECTED: &str = "herald_broker_connected";
pub const READY: &str = "herald_ready";
pub const PROVIDER_OPEN: &str = "herald_provider_open";
pub const LEDGER_ROWS: &str = "herald_ledger_rows";
pub const BOOKS_CLOSED: &str = "herald_books_closed";
pub const TOKENS_CLEARED: &str = "herald_tokens_cleared_total";
pub const REPEATS: &str = "herald_repeats_total";
pub const LANE_FULL: &str = "herald_lane_full_total";
pub const PANICS: &str = "herald_panics_total";
pub const RECONNECTS: &str = "herald_reconnects_total";
pub const HELD: &str = "herald_held_total";
pub const PRESENCE: &str = "herald_presence_total";
pub const LANES: &str = "herald_lanes";
pub const PROVIDER_WAITING: &str = "herald_provider_waiting";
pub const ROWS_REFUSED: &str = "herald_rows_refused_total";
pub const INTERRUPTED: &str = "herald_interrupted_total";
pub const PROVIDER_REQUESTS: &str = "herald_provider_requests_total";
pub const PROVIDER_DURATION: &str = "herald_provider_request_duration_seconds";
pub const BATCH_SIZE: &str = "herald_batch_size";
pub const STORE_STATEMENTS: &str = "herald_store_statements_total";
pub const STORE_DURATION: &str = "herald_store_duration_seconds";
pub const LIVE_WORKERS: &str = "herald_live_workers";

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub help: &'static str,
}

const fn metric(name: &'static str, kind: Kind, unit: Unit, help: &'static str) -> Metric {
    Metric { name, kind, unit, help }
}

/// The table. The help texts name the labels and what they can be.
pub const METRICS: [Metric; 32] = [
    metric(RECEIVED, Kind::Counter, Unit::Count, "Deliveries taken from a queue, by queue"),
    metric(SETTLED, Kind::Counter, Unit::Count, "Deliveries settled, by disposition (done, skipped, retry, hold, dead, repeat) and reason"),
    metric(SETTLES_LOST, Kind::Counter, Unit::Count, "Acknowledgements that could not be sent; the event comes again"),
    metric(ID_REUSED, Kind::Counter, Unit::Count, "Events that came again under the same identity with other content"),
    metric(SENDS, Kind::Counter, Unit::Count, "Sends to a target, by provider and result (accepted, held, or a failure kind)"),
    metric(SEND_DURATION, Kind::Histogram, Unit::Seconds, "How long a send took, by provider"),
    metric(EVENT_AGE, Kind::Histogram, Unit::Seconds, "Age of an event when it was done, from its first receipt"),
    metric(IN_FLIGHT, Kind::Gauge, Unit::Count, "Events in hand"),
    metric(QUEUE_READY, Kind::Gauge, Unit::Count, "Messages ready in a queue, by queue"),
    metric(OLDEST_AGE, Kind::Gauge, Unit::Seconds, "Age of the event received last, 0 when the queue is empty"),
    metric(BROKER_CONNECTED, Kind::Gauge, Unit::Count, "1 while the broker's connections stand"),
    metric(READY, Kind::Gauge, Unit::Count, "1 while a consumer is registered"),
    metric(PROVIDER_OPEN, Kind::Gauge, Unit::Count, "1 while requests go out to a provider, by provider"),
    metric(LEDGER_ROWS, Kind::Gauge, Unit::Count, "Identities in the ledger, by state and reason"),
    metric(BOOKS_CLOSED, Kind::Gauge, Unit::Count, "1 while every identity received has exactly one fate"),
    metric(TOKENS_CLEARED, Kind::Counter, Unit::Count, "Push tokens cleared because the device is gone"),
    metric(REPEATS, Kind::Counter, Unit::Count, "Events that came again under the same identity"),
    metric(LANE_FULL, Kind::Counter, Unit::Count, "Events sent to the first retry queue because their session had too many in hand"),
    metric(PANICS, Kind::Counter, Unit::Count, "Events whose handling panicked: a bug, the event is retried"),
    metric(RECONNECTS, Kind::Counter, Unit::Count, "Times the consumer had to be made anew"),
    metric(HELD, Kind::Counter, Unit::Count, "Events moved to a hold queue, by provider and cause"),
    metric(PRESENCE, Kind::Counter, Unit::Count, "Presence look-ups, by result (present, absent, unknown)"),
    metric(LANES, Kind::Gauge, Unit::Count, "Sessions with an event in hand"),
    metric(PROVIDER_WAITING, Kind::Gauge, Unit::Count, "Events that wait for or are with a provider, by provider"),
    metric(ROWS_REFUSED, Kind::Counter, Unit::Count, "Rows the ledger refused for their data"),
    metric(INTERRUPTED, Kind::Counter, Unit::Count, "Events left with the broker because a database or the channel went away"),
    metric(PROVIDER_REQUESTS, Kind::Counter, Unit::Count, "Requests to a provider, by provider, endpoint and result"),
    metric(PROVIDER_DURATION, Kind::Histogram, Unit::Seconds, "How long a request to a provider took, by provider and endpoint"),
    metric(BATCH_SIZE, Kind::Histogram, Unit::Count, "Items carried by one request, by provider and endpoint"),
    metric(STORE_STATEMENTS, Kind::Counter, Unit::Count, "Statements sent to the ledger and the users database, by statement"),
    metric(STORE_DURATION, Kind::Histogram, Unit::Seconds, "How long a statement took, by statement"),
    metric(LIVE_WORKERS, Kind::Gauge, Unit::Count, "Workers with a heartbeat"),
];

/// From one quick request to a day in the retry queues.
const BUCKETS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0, 3_600.0, 86_400.0];

/// Installs the recorder of this process, describes every metric and returns the handle that renders them. A second call
/// returns the same handle.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = INSTALLED.get() {
        return Ok(handle.clone());
    }
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?;
    let handle = builder.install_recorder()?;
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
    Ok(INSTALLED.get_or_init(|| handle).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

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
