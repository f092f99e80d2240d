//! Whether the worker takes events, as one shared value.
//!
//! The worker sets it, `/readyz` and the metric read it.

use std::sync::Arc;

use tokio::sync::watch;

/// Whether a consumer is registered, and if not, why. A handle: clones share the value.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// `None`: ready.
    why_not: Arc<watch::Sender<Option<String>>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Readiness { why_not: Arc::new(watch::Sender::new(Some("starting".to_owned()))) }
    }
}

impl Readiness {
    /// Says that a consumer is registered.
    pub fn ready(&self) {
        metrics::gauge!("herald_ready").set(1.0);
        self.why_not.send_replace(None);
    }

    /// Says why none is. The reason is shown to whoever asks: no secrets.
    pub fn not_ready(&self, reason: &str) {
        metrics::gauge!("herald_ready").set(0.0);
        self.why_not.send_replace(Some(crate::domain::redact(reason)));
    }

    /// Returns why the worker is not ready, or `None` when it is.
    pub fn why_not(&self) -> Option<String> {
        self.why_not.borrow().clone()
    }
}
