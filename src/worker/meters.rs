//! What the stops count that takes more than a name: the labels, made in one place.
//!
//! Called by intake, `process` and `settle`. A label is an enum's word, a queue's name or an event name of the catalogue; what
//! anybody may send never becomes one.

use std::{collections::HashMap, sync::RwLock, time::Instant};

use metrics::{Counter, Histogram};

use super::{Received, Worker, clock, spans};
use crate::domain::ledger::{Entry, State};

/// The label of an event name that the catalogue does not have.
const OTHER: &str = "other";
/// The label of an event without a route.
const NO_ROUTE: &str = "none";

/// What every delivery moves, by a label that is not the same for all: to put the labels together each time costs more than to count.
#[derive(Default)]
pub(super) struct Meters {
    consumed: Kept<Counter>,
    processed: Kept<Histogram>,
    age: Kept<Histogram>,
    settled: Kept<Vec<(Settled<String>, Counter)>>,
}

/// Handles by a label.
struct Kept<H>(RwLock<HashMap<String, H>>);

impl<H> Default for Kept<H> {
    fn default() -> Kept<H> {
        Kept(RwLock::default())
    }
}

impl<H> Kept<H> {
    /// Returns what `find` finds in the handle of `label`, or what `make` puts there.
    fn get<T>(
        &self,
        label: &str,
        find: impl Fn(&H) -> Option<T>,
        make: impl FnOnce(&mut HashMap<String, H>) -> T,
    ) -> T {
        let found = self.0.read().expect(HELD).get(label).and_then(find);
        found.unwrap_or_else(|| make(&mut self.0.write().expect(HELD)))
    }
}

impl<H: Clone> Kept<H> {
    /// Returns the handle of `label`.
    fn one(&self, label: &str, register: impl FnOnce() -> H) -> H {
        self.get(
            label,
            |handle| Some(handle.clone()),
            |kept| kept.entry(label.to_owned()).or_insert_with(register).clone(),
        )
    }
}

const HELD: &str = "no panic while the lock is held";

/// How a delivery was settled, as its counter says it.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Settled<T> {
    pub disposition: &'static str,
    pub reason: T,
    pub route: T,
}

impl<'a> Settled<&'a str> {
    /// Returns the labels of a delivery that left without a word about its route.
    pub(super) fn unrouted(disposition: &'static str, reason: &'a str) -> Settled<&'a str> {
        Settled { disposition, reason, route: NO_ROUTE }
    }

    /// Returns the labels of a row: the way it was delivered, or else the route decided and why it did not end there.
    pub(super) fn of(entry: &'a Entry) -> Settled<&'a str> {
        let route = match entry.state {
            State::Done => entry.via.map(|via| via.as_str()),
            State::Waiting | State::Skipped | State::Dead => entry.route.as_deref(),
        };
        let reason = entry.reason.as_deref().unwrap_or_default();
        Settled { disposition: entry.state.as_str(), reason, route: route.unwrap_or(NO_ROUTE) }
    }

    fn owned(self) -> Settled<String> {
        let Settled { disposition, reason, route } = self;
        Settled { disposition, reason: reason.to_owned(), route: route.to_owned() }
    }
}

impl Settled<String> {
    fn is(&self, other: Settled<&str>) -> bool {
        (self.disposition, self.reason.as_str(), self.route.as_str()) == (other.disposition, other.reason, other.route)
    }
}

impl<B> Worker<B> {
    /// Counts a delivery that came in.
    pub(super) fn count_consumed(&self, received: &Received) {
        let queue = &received.delivery.queue;
        let register = || {
            metrics::counter!(
                "messaging_client_consumed_messages_total",
                "messaging_system" => received.delivery.receipt.system(),
                "messaging_operation_name" => "consume",
                "messaging_destination_name" => queue.clone()
            )
        };
        self.meters.consumed.one(queue, register).increment(1);
    }

    /// Records how long the handling since `begun` took.
    pub(super) fn count_processed(&self, received: &Received, begun: Instant) {
        let register = || processed(received, "");
        self.meters.processed.one(&received.delivery.queue, register).record(begun.elapsed().as_secs_f64());
    }

    /// Records how long the handling since `begun` took, and what it broke off for.
    pub(super) fn count_broken_off(&self, received: &Received, begun: Instant, error: &'static str) {
        processed(received, error).record(begun.elapsed().as_secs_f64());
    }

    /// Notes on the event's span how it is settled, and returns the counter of deliveries that were settled like it.
    pub(super) fn note_settled(&self, received: &Received, settled: Settled<&str>) -> Counter {
        spans::settled(settled.disposition, settled.reason);
        let event = match &received.event {
            Ok(event) if self.catalogue.events.contains_key(&event.name) => event.name.as_str(),
            Ok(_) | Err(_) => OTHER,
        };
        let find = |kept: &Vec<(Settled<String>, Counter)>| {
            kept.iter().find(|(labels, _)| labels.is(settled)).map(|(_, counter)| counter.clone())
        };
        self.meters.settled.get(event, find, |kept| {
            let counter = metrics::counter!(
                "herald_settled_total",
                "disposition" => settled.disposition,
                "reason" => settled.reason.to_owned(),
                "route" => settled.route.to_owned(),
                "event" => event.to_owned()
            );
            kept.entry(event.to_owned()).or_default().push((settled.owned(), counter.clone()));
            counter
        })
    }

    /// Records the age of an event that was delivered.
    pub(super) fn count_age(&self, received: &Received, entry: &Entry) {
        let began = match &received.event {
            Ok(event) => received.life_from(event).as_millisecond(),
            Err(_) => entry.first_seen,
        };
        let age = clock::now_ms().saturating_sub(began).max(0);
        let route = entry.via.map_or(NO_ROUTE, |via| via.as_str());
        let register = || metrics::histogram!("herald_event_age_seconds", "route" => route);
        self.meters.age.one(route, register).record(age as f64 / 1000.0);
    }
}

fn processed(received: &Received, error: &'static str) -> Histogram {
    metrics::histogram!(
        "messaging_process_duration_seconds",
        "messaging_system" => received.delivery.receipt.system(),
        "messaging_operation_name" => "process",
        "messaging_destination_name" => received.delivery.queue.clone(),
        "error_type" => error
    )
}
