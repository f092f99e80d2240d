//! What the stops count that takes more than a name: the labels, made in one place.
//!
//! Called by intake, `process` and `settle`. A label is an enum's word, a queue's name or an event name of the catalogue; what
//! anybody may send never becomes one.

use std::time::Instant;

use super::{Received, Worker, clock};
use crate::domain::ledger::{Entry, State};

/// The label of an event name that the catalogue does not have.
const OTHER: &str = "other";
/// The label of an event without a route.
const NO_ROUTE: &str = "none";

/// How a delivery was settled, as its counter says it.
pub(super) struct Settled {
    pub disposition: &'static str,
    pub reason: String,
    pub route: String,
}

impl Settled {
    /// Returns the labels of a delivery that left without a word about its route.
    pub(super) fn unrouted(disposition: &'static str, reason: &str) -> Settled {
        Settled { disposition, reason: reason.to_owned(), route: NO_ROUTE.to_owned() }
    }

    /// Returns the labels of a row: the way it was delivered, or else the route decided and why it did not end there.
    pub(super) fn of(entry: &Entry) -> Settled {
        let disposition = entry.state.as_str();
        let route = match entry.state {
            State::Done => entry.via.map(|via| via.as_str().to_owned()),
            State::Waiting | State::Skipped | State::Dead => entry.route.clone(),
        };
        let reason = entry.reason.clone().unwrap_or_default();
        Settled { disposition, reason, route: route.unwrap_or_else(|| NO_ROUTE.to_owned()) }
    }
}

impl<B> Worker<B> {
    /// Counts a delivery that came in.
    pub(super) fn count_consumed(&self, received: &Received) {
        metrics::counter!(
            "messaging_client_consumed_messages_total",
            "messaging_system" => received.delivery.receipt.system(),
            "messaging_operation_name" => "consume",
            "messaging_destination_name" => received.delivery.queue.clone()
        )
        .increment(1);
    }

    /// Records how long the handling since `begun` took, and what it broke off for, if it did.
    pub(super) fn count_processed(&self, received: &Received, begun: Instant, error: &'static str) {
        metrics::histogram!(
            "messaging_process_duration_seconds",
            "messaging_system" => received.delivery.receipt.system(),
            "messaging_operation_name" => "process",
            "messaging_destination_name" => received.delivery.queue.clone(),
            "error_type" => error
        )
        .record(begun.elapsed().as_secs_f64());
    }

    /// Counts a delivery that is about to be acknowledged.
    pub(super) fn count_settled(&self, received: &Received, settled: Settled) {
        let event = match &received.event {
            Ok(event) if self.catalogue.events.contains_key(&event.name) => event.name.clone(),
            Ok(_) | Err(_) => OTHER.to_owned(),
        };
        metrics::counter!(
            "herald_settled_total",
            "disposition" => settled.disposition,
            "reason" => settled.reason,
            "route" => settled.route,
            "event" => event
        )
        .increment(1);
    }

    /// Records the age of an event that was delivered.
    pub(super) fn count_age(&self, received: &Received, entry: &Entry) {
        let began = match &received.event {
            Ok(event) => received.life_from(event).as_millisecond(),
            Err(_) => entry.first_seen,
        };
        let age = clock::now_ms().saturating_sub(began).max(0);
        let route = entry.via.map_or(NO_ROUTE, |via| via.as_str());
        metrics::histogram!("herald_event_age_seconds", "route" => route).record(age as f64 / 1000.0);
    }
}
