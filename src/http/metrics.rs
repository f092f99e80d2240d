//! The recorder of this process and the page that Prometheus reads.
//!
//! [`install`] is called when the port is opened. The table holds every name; the tests look through the sources and
//! `docs/metrics.md`, so that each metric has its help text and its line there. A gauge that is drained says 0; what is not
//! known is NaN or absent, never 0.

mod process;
mod table;

use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use table::{Kind, metrics};

/// From one quick request to a day in the retry queues.
const SECONDS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0, 3_600.0, 86_400.0];

/// What OpenTelemetry's messaging conventions ask for.
const CONVENTION: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Up to the hundred items that a request may have.
const SIZES: [f64; 7] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0];

/// Whoever may refuse our credentials; their counters stand at 0 from the start, so that a first refusal is an increase.
const REFUSERS: [&str; 5] = ["ably", "expo", "broker", "store", "users"];

/// A handle on everything counted in this process.
#[derive(Clone)]
pub(super) struct Exporter(PrometheusHandle);

impl Exporter {
    /// Returns the page, with what the process uses right now.
    pub(super) fn render(&self) -> String {
        process::collect();
        self.0.render()
    }

    /// Folds samples together, so that they do not pile up while nobody reads the page.
    pub(super) fn run_upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// Installs the recorder of this process, describes every metric and returns the handle that renders them. A second call
/// returns the same handle.
pub(super) fn install() -> Result<Exporter, BuildError> {
    static INSTALLED: Mutex<Option<Exporter>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(exporter) = &*installed {
        return Ok(exporter.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Prefix("messaging_".to_owned()), &CONVENTION)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), &SIZES)?
        .install_recorder()?;
    for metric in metrics() {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
        if metric.kind == Kind::Counter && metric.labels.is_empty() {
            metrics::counter!(metric.name).increment(0);
        }
    }
    for refuser in REFUSERS {
        metrics::counter!("herald_credentials_rejected_total", "dependency" => refuser).increment(0);
    }
    metrics::gauge!("herald_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let exporter = Exporter(recorder);
    *installed = Some(exporter.clone());
    Ok(exporter)
}

#[cfg(test)]
#[path = "metrics/metrics_tests.rs"]
mod tests;
