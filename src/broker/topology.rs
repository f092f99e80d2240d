//! The queues herald needs, as data.

use std::time::Duration;

/// Names and arguments of every queue, derived from prefix, retry schedule and dead-letter retention.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    pub prefix: String,
    /// Retry delays, shortest first.
    pub schedule: Vec<Duration>,
    pub dead_retention: Duration,
}

impl Topology {
    /// Returns the name of the exchange and of the queue that events arrive in.
    pub fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// Returns the name of the dead-letter queue.
    pub fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// Returns the name of the queue where events wait for `provider`.
    pub fn hold(&self, provider: crate::domain::outcome::Provider) -> String {
        format!("{}.hold.{provider}", self.prefix)
    }

    /// Returns the name of the retry queue with `delay`, e.g. `herald.retry.30s`.
    pub fn retry(&self, delay: Duration) -> String {
        format!("{}.retry.{}", self.prefix, crate::domain::retry::delay_name(delay))
    }
}
