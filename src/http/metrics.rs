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
pub const METRICS: [Metric; 17] = [
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
