//! The table of every metric: name, kind, unit, labels, help. `docs/metrics.md` is made from it, and the tests hold both against
//! the sources.
//!
//! Label values come from enums, from the queues' names, or from the catalogue (an event name that is not in it is `other`);
//! never from what somebody sent. Names that OpenTelemetry's messaging conventions have are theirs, as Prometheus spells them;
//! `process_` names are those of every Prometheus client; all others begin with `herald_`.

use metrics::Unit;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) unit: Unit,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, unit: Unit::Count, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, unit: Unit::Count, labels, help }
}

const fn gauge_in(unit: Unit, name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, unit, labels, help }
}

const fn histogram(unit: Unit, name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, unit, labels, help }
}

/// What the messaging conventions ask of every metric about messages.
const MESSAGES: &[&str] = &["messaging_system", "messaging_operation_name", "messaging_destination_name"];
const MESSAGES_ERROR: &[&str] =
    &["messaging_system", "messaging_operation_name", "messaging_destination_name", "error_type"];

/// The table, by subject.
pub(super) const GROUPS: &[(&str, &[Metric])] = &[
    ("Events", EVENTS),
    ("In hand", IN_HAND),
    ("Queues and ledger", QUEUES),
    ("What herald depends on", DEPENDENCIES),
    ("Providers", PROVIDERS),
    ("Push tokens and receipts", TOKENS),
    ("Store", STORE),
    ("Outbox", OUTBOX),
    ("Process", PROCESS),
];

const EVENTS: &[Metric] = &[
    counter(
        "messaging_client_consumed_messages_total",
        MESSAGES,
        "Deliveries taken from the events queue and the hold queues",
    ),
    counter(
        "herald_settled_total",
        &["disposition", "reason", "route", "event"],
        "Deliveries settled: done, skipped, dead, waiting (retried or held), postponed, repeat, stale or unable; with the reason \
         and the route decided",
    ),
    counter("herald_settles_lost_total", &[], "Acknowledgements that could not be sent; the event comes again"),
    counter("herald_repeats_total", &[], "Events that came again under the same identity"),
    counter("herald_id_reused_total", &[], "Events that came again under the same identity with other content"),
    counter("herald_lane_full_total", &[], "Events put off because their session has too many in hand"),
    counter(
        "herald_held_total",
        &["provider", "cause"],
        "Events moved to a hold queue: throttled, unauthorised, breaker, operator or backlog",
    ),
    counter("herald_interrupted_total", &[], "Events whose handling was given up; they come again"),
    counter("herald_panics_total", &[], "Panics while handling an event: each is a bug"),
    counter("herald_presence_total", &["result"], "Presence look-ups: present, absent or unknown"),
    counter(
        "herald_attempts_total",
        &["provider", "result"],
        "Sends to a target: accepted, held, or the kind of failure (transient, throttled, unauthorised, rejected, unregistered, \
         unknown)",
    ),
    histogram(
        Unit::Seconds,
        "herald_event_age_seconds",
        &["route"],
        "Age of an event when it was delivered, from its occurrence or publishing as far as the message tells, else from its first \
         receipt",
    ),
];

const IN_HAND: &[Metric] = &[
    gauge("herald_ready", &[], "1 while a consumer is registered"),
    gauge("herald_paused", &[], "1 while an operator has paused the intake"),
    gauge("herald_in_flight", &[], "Events being handled"),
    gauge("herald_lanes", &[], "Sessions with an event in hand"),
    gauge("herald_provider_waiting", &["provider"], "Events in hand that wait for a provider"),
    histogram(
        Unit::Seconds,
        "messaging_process_duration_seconds",
        MESSAGES_ERROR,
        "How long an event was handled, from its turn in its lane to its end; error_type: interrupted or panic",
    ),
    histogram(
        Unit::Seconds,
        "messaging_client_operation_duration_seconds",
        MESSAGES_ERROR,
        "How long RabbitMQ took to confirm a copy (publish) and a frame of acknowledgements to be sent (ack)",
    ),
    counter(
        "messaging_client_sent_messages_total",
        MESSAGES_ERROR,
        "Copies published to a retry, hold or dead-letter queue, and what an operator replayed",
    ),
];

const QUEUES: &[Metric] = &[
    gauge("herald_queue_ready", &["queue"], "Messages ready in a queue; NaN: RabbitMQ did not say"),
    gauge("herald_queue_consumers", &["queue"], "Consumers of a queue; NaN: RabbitMQ did not say"),
    gauge(
        "herald_queue_unacked",
        &["queue"],
        "Messages taken from a queue and not settled; only with broker.management_url",
    ),
    gauge(
        "herald_queue_stuck",
        &["queue"],
        "Messages whose dead-letter target does not take them; only with broker.management_url",
    ),
    gauge_in(
        Unit::Seconds,
        "herald_queue_oldest_age_seconds",
        &["queue"],
        "Age of the oldest waiting event; NaN: not known. Events queue: at most this old. Retry and hold queues: since first \
         receipt. Dead letters: since they failed",
    ),
    gauge("herald_overdue", &[], "Waiting events that are five minutes past their next time"),
    gauge(
        "herald_dead_letters",
        &["reason"],
        "Dead letters in the index, by reason; a reason of somebody else's is other",
    ),
    gauge("herald_books", &["state"], "Identities in the ledger, by state; received is the sum of the others"),
    gauge("herald_books_closed", &[], "1 while every identity received has exactly one fate"),
    gauge("herald_workers", &[], "Workers alive by the ledger's heartbeats"),
];

const DEPENDENCIES: &[Metric] = &[
    gauge(
        "herald_dependency_up",
        &["dependency"],
        "1 while ably, expo, broker, store or users answers; an operator's hold is no trouble of the provider's",
    ),
    gauge_in(
        Unit::Seconds,
        "herald_dependency_since_timestamp_seconds",
        &["dependency"],
        "Since when it is as it is, in seconds since the epoch",
    ),
    gauge(
        "herald_provider_held",
        &["provider", "by"],
        "1 while nothing goes out to a provider, by whom or what: operator, breaker, unauthorised or throttled",
    ),
    counter(
        "herald_credentials_rejected_total",
        &["dependency"],
        "Times our credentials or rights were refused; receipts that say so count for expo",
    ),
    counter(
        "herald_reconnects_total",
        &["of"],
        "Times the consumer was lost and registered again, and times a connection to the broker was lost",
    ),
];

const PROVIDERS: &[Metric] = &[
    counter(
        "herald_provider_requests_total",
        &["provider", "endpoint", "result"],
        "Requests to a provider: ok, throttled, unauthorised, refused, server_error, not_sent or lost",
    ),
    histogram(
        Unit::Seconds,
        "herald_provider_request_duration_seconds",
        &["provider", "endpoint"],
        "How long a request to a provider took",
    ),
    histogram(Unit::Count, "herald_batch_size", &["provider", "endpoint"], "Items gathered into one request"),
];

const TOKENS: &[Metric] = &[
    counter(
        "herald_receipts_total",
        &["outcome"],
        "Receipts of accepted pushes: ok, unregistered, misconfigured, not_handed_on or unknown",
    ),
    counter("herald_tokens_cleared_total", &[], "Push tokens cleared because the device is gone"),
    counter(
        "herald_tokens_kept_total",
        &[],
        "Push tokens not cleared because suspiciously many devices are said to be gone",
    ),
];

const STORE: &[Metric] = &[
    counter("herald_store_statements_total", &["statement"], "Statements sent to the databases"),
    histogram(Unit::Seconds, "herald_store_duration_seconds", &["statement"], "How long a statement took"),
    counter("herald_rows_refused_total", &[], "Ledger rows that the database refuses for their data"),
];

const OUTBOX: &[Metric] = &[
    counter("herald_outbox_relayed_total", &[], "Rows of the outbox that RabbitMQ has confirmed"),
    counter("herald_outbox_failed_total", &[], "Rows of the outbox marked because they are no events"),
    counter("herald_outbox_put_off_total", &[], "Rows of the outbox that were not confirmed and are published again"),
    counter(
        "herald_outbox_notifications_total",
        &[],
        "Notifications that woke this relay; without any, rows wait for the next poll",
    ),
    histogram(
        Unit::Seconds,
        "herald_outbox_delay_seconds",
        &[],
        "From the writing of a row to the confirm of its event",
    ),
    gauge("herald_outbox_waiting", &[], "Rows of the outbox that wait, up to 100000"),
    gauge("herald_outbox_failed", &[], "Rows of the outbox marked as no events, up to 100000"),
    gauge_in(Unit::Seconds, "herald_outbox_lag_seconds", &[], "Age of the oldest row of the outbox that waits"),
];

const PROCESS: &[Metric] = &[
    counter(
        "herald_trace_spans_total",
        &["result"],
        "Spans of traces: exported, failed (not taken by otlp.endpoint) or dropped (too many waited)",
    ),
    gauge("herald_build_info", &["version"], "1, with the version that runs"),
    counter("process_cpu_seconds_total", &[], "Processor time used, in whole seconds"),
    gauge_in(Unit::Bytes, "process_resident_memory_bytes", &[], "Resident memory"),
    gauge_in(Unit::Bytes, "process_virtual_memory_bytes", &[], "Virtual memory"),
    gauge("process_threads", &[], "Threads"),
    gauge("process_open_fds", &[], "Open file descriptors"),
    gauge("process_max_fds", &[], "Limit of open file descriptors"),
];

/// Every row, in the table's order.
pub(super) fn metrics() -> impl Iterator<Item = &'static Metric> {
    GROUPS.iter().flat_map(|(_, metrics)| *metrics)
}
