//! What is measured of RabbitMQ, under the names of OpenTelemetry's messaging conventions.
//!
//! Called where a message was published or acknowledged. The destination is a queue or an exchange: a routing key is whatever
//! a producer sends, and never becomes a label.

use std::time::Duration;

use super::SYSTEM;
use crate::broker::{BrokerError, Destination};

/// Returns the destination's name as a label has it; for one of herald's own only, whose names are few.
pub(super) fn name(to: &Destination) -> &str {
    match to {
        Destination::Queue(queue) => queue,
        Destination::Exchange { exchange, .. } => exchange,
    }
}

/// Records one publish, from the call to the confirm.
pub(super) fn published(destination: &str, took: Duration, error: Option<&BrokerError>) {
    let error = match error {
        None => "",
        Some(BrokerError::Unavailable(_)) => "unavailable",
        Some(BrokerError::Config(_)) => "config",
        Some(BrokerError::Refused(_)) => "refused",
    };
    metrics::counter!(
        "messaging_client_sent_messages_total",
        "messaging_system" => SYSTEM,
        "messaging_operation_name" => "publish",
        "messaging_destination_name" => destination.to_owned(),
        "error_type" => error
    )
    .increment(1);
    operation("publish", destination, 1, took, error);
}

/// Counts a refusal of our credentials or rights.
pub(super) fn refused() {
    metrics::counter!("herald_credentials_rejected_total", "dependency" => "broker").increment(1);
}

/// Counts settled deliveries whose acknowledgement could not be sent.
pub(super) fn settles_lost(count: usize) {
    metrics::counter!("herald_settles_lost_total").increment(count as u64);
}

/// Records frames of acknowledgement that were written together. Which queue they were for their right does not know.
pub(super) fn acknowledged(frames: usize, took: Duration, sent: bool) {
    if frames > 0 {
        operation("ack", "", frames, took, if sent { "" } else { "not_sent" });
    }
}

fn operation(name: &'static str, destination: &str, count: usize, took: Duration, error: &'static str) {
    metrics::histogram!(
        "messaging_client_operation_duration_seconds",
        "messaging_system" => SYSTEM,
        "messaging_operation_name" => name,
        "messaging_destination_name" => destination.to_owned(),
        "error_type" => error
    )
    .record_many(took.as_secs_f64(), count);
}
