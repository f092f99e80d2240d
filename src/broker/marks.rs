//! herald's own headers on a message, and what a replayed letter looks like.
//!
//! Called by the worker (reads them on receipt, writes them on every copy), by the dead-letter commands and by replay. Pure.
//! Reading must never fail: the headers may come from anybody, so what makes no sense counts as absent.

use jiff::Timestamp;
use lapin::types::{AMQPValue, FieldTable};

use super::{Destination, Message, headers};
use crate::domain::redact;

const ID: &str = "herald-id";
const ATTEMPT: &str = "herald-attempt";
const FIRST_SEEN: &str = "herald-first-seen";
const REASON: &str = "herald-reason";
const ERROR: &str = "herald-error";
const ROUTE: &str = "herald-route";
const FAILED_AT: &str = "herald-failed-at";
const QUEUE: &str = "herald-queue";
const EXCHANGE: &str = "herald-exchange";
const ROUTING_KEY: &str = "herald-routing-key";
const REPLAY: &str = "herald-replay";
const IGNORE_EXPIRY: &str = "herald-ignore-expiry";

/// Every header of herald's own.
pub const HEADERS: [&str; 12] =
    [ID, ATTEMPT, FIRST_SEEN, REASON, ERROR, ROUTE, FAILED_AT, QUEUE, EXCHANGE, ROUTING_KEY, REPLAY, IGNORE_EXPIRY];

/// Highest count believed; more is somebody's mistake.
const MAX_COUNT: i64 = 1_000_000;

/// Longest text believed, in bytes: AMQP's own bound for queue names and routing keys. `herald-error` is cut instead.
const MAX_TEXT: usize = 255;

/// herald's own headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// The event's id, as text for people; the body decides.
    pub id: Option<String>,
    /// Attempts made.
    pub attempt: u32,
    /// When herald first received the event.
    pub first_seen: Option<Timestamp>,
    /// Why it is dead or held.
    pub reason: Option<String>,
    /// The last failure in words; redacted and bounded whenever it is read or written.
    pub error: Option<String>,
    /// What is missing, e.g. `push`.
    pub route: Option<String>,
    pub failed_at: Option<Timestamp>,
    /// The queue it failed in.
    pub queue: Option<String>,
    /// The exchange it first came through, empty for the default exchange.
    pub exchange: Option<String>,
    /// The routing key it first came with.
    pub routing_key: Option<String>,
    /// Times it was replayed from the dead-letter queue; 0 is not written.
    pub replay: u32,
    /// It was replayed with `--ignore-expiry`: its own `expiresAt` counts no more. Not written when false.
    pub ignore_expiry: bool,
}

impl Marks {
    /// Reads the marks; wrong types, negative or huge numbers, overlong texts and unreadable times count as absent.
    pub fn read(message: &Message) -> Marks {
        let properties = &message.properties;
        let text = |name| headers::text(properties, name).filter(|text| text.len() <= MAX_TEXT).map(str::to_owned);
        let count = |name| {
            let count = headers::integer(properties, name).filter(|count| (0..=MAX_COUNT).contains(count));
            count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
        };
        let time = |name| headers::text(properties, name).and_then(|text| text.parse().ok());
        Marks {
            id: text(ID),
            attempt: count(ATTEMPT),
            first_seen: time(FIRST_SEEN),
            reason: text(REASON),
            error: headers::text(properties, ERROR).map(redact),
            route: text(ROUTE),
            failed_at: time(FAILED_AT),
            queue: text(QUEUE),
            exchange: text(EXCHANGE),
            routing_key: text(ROUTING_KEY),
            replay: count(REPLAY),
            ignore_expiry: count(IGNORE_EXPIRY) > 0,
        }
    }

    /// Reads the marks of a dead letter. Of one that the broker itself put there (the delivery limit) why, when and from
    /// where is in what the broker wrote: what we wrote tells of an earlier copy. Our own copies never carry `x-death`.
    pub fn of_letter(message: &Message) -> Marks {
        let mut marks = Marks::read(message);
        if let Some(death) = headers::death(message) {
            (marks.reason, marks.failed_at, marks.queue) = (death.reason, death.at, death.queue);
            if marks.exchange.is_none() {
                (marks.exchange, marks.routing_key) = (death.exchange, death.routing_key);
            }
        }
        marks
    }

    /// Writes the marks in place of whatever `herald-*` headers the message had.
    pub fn write(&self, message: &mut Message) {
        let mut table = headers::retain(message.properties.headers(), |name| !name.starts_with("herald-"));
        let error = self.error.as_deref().map(redact);
        for (name, text) in [
            (ID, &self.id),
            (REASON, &self.reason),
            (ERROR, &error),
            (ROUTE, &self.route),
            (QUEUE, &self.queue),
            (EXCHANGE, &self.exchange),
            (ROUTING_KEY, &self.routing_key),
            (FIRST_SEEN, &self.first_seen.map(|time| time.to_string())),
            (FAILED_AT, &self.failed_at.map(|time| time.to_string())),
        ] {
            if let Some(text) = text {
                table.insert(name.into(), AMQPValue::LongString(text.as_str().into()));
            }
        }
        // A copy always says its attempts, 0 too; a replayed message bears no id and begins anew.
        let counts = [
            (ATTEMPT, self.attempt, self.attempt > 0 || self.id.is_some()),
            (REPLAY, self.replay, self.replay > 0),
            (IGNORE_EXPIRY, 1, self.ignore_expiry),
        ];
        for (name, count, _) in counts.into_iter().filter(|(.., written)| *written) {
            table.insert(name.into(), AMQPValue::LongLongInt(count.into()));
        }
        set_headers(message, table);
    }

    /// Tells whether the message bears no mark at all: it comes straight from a producer.
    pub fn is_empty(&self) -> bool {
        *self == Marks::default()
    }
}

/// Returns where a dead letter is replayed to and the message to publish: exchange and routing key as it first came, every
/// herald header gone but the letter's own replay number + 1, exchange and routing key. A letter that does not say
/// where it came from goes straight into `events_queue`.
pub fn replayed(letter: &Message, marks: &Marks, events_queue: &str) -> (Destination, Message) {
    let destination = match (&marks.exchange, &marks.routing_key) {
        (Some(exchange), Some(routing_key)) if !exchange.is_empty() => {
            Destination::Exchange { exchange: exchange.clone(), routing_key: routing_key.clone() }
        }
        (Some(_), Some(queue)) if !queue.is_empty() => Destination::Queue(queue.clone()),
        _ => Destination::Queue(events_queue.to_owned()),
    };
    let mut message = letter.copy().message;
    let kept = Marks {
        replay: marks.replay.saturating_add(1),
        exchange: marks.exchange.clone(),
        routing_key: marks.routing_key.clone(),
        ..Marks::default()
    };
    kept.write(&mut message);
    (destination, message)
}

/// Replaces the headers; properties offer no way to take them away, so an empty table stands for none.
fn set_headers(message: &mut Message, table: FieldTable) {
    if !table.inner().is_empty() || message.properties.headers().is_some() {
        message.properties = std::mem::take(&mut message.properties).with_headers(table);
    }
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;
    use proptest::prelude::*;

    use super::*;

    fn message(fields: &[(&str, AMQPValue)]) -> Message {
        let mut table = FieldTable::default();
        for (name, value) in fields {
            table.insert((*name).into(), value.clone());
        }
        Message { body: b"{}".to_vec().into(), properties: BasicProperties::default().with_headers(table) }
    }

    fn text(value: &str) -> AMQPValue {
        AMQPValue::LongString(value.into())
    }

    fn full() -> Marks {
        Marks {
            id: Some("e-1".to_owned()),
            attempt: 3,
            first_seen: "2026-05-01T10:00:00Z".parse().ok(),
            reason: Some("exhausted".to_owned()),
            error: Some("transient (503): overloaded".to_owned()),
            route: Some("push".to_owned()),
            failed_at: "2026-05-01T11:00:00.5Z".parse().ok(),
            queue: Some("herald.events".to_owned()),
            exchange: Some("herald.events".to_owned()),
            routing_key: Some("partner.signed_compact".to_owned()),
            replay: 2,
            ignore_expiry: false,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for marks in [full(), Marks::default(), Marks { exchange: Some(String::new()), ..Marks::default() }] {
            let mut message = message(&[("traceparent", text("00-1")), ("herald-stale", text("x"))]);
            marks.write(&mut message);
            assert_eq!(Marks::read(&message), marks);
            assert_eq!(headers::text(&message.properties, "traceparent"), Some("00-1"));
            assert_eq!(headers::text(&message.properties, "herald-stale"), None);
        }
    }

    #[test]
    fn a_letter_of_the_brokers_own_tells_what_the_broker_wrote() {
        let death = |reason: &str, queue: &str, seconds: u64| {
            let mut table = FieldTable::default();
            for (name, value) in [("reason", reason), ("queue", queue), ("exchange", "herald.events")] {
                table.insert(name.into(), text(value));
            }
            table.insert("time".into(), AMQPValue::Timestamp(seconds));
            table.insert("routing-keys".into(), AMQPValue::FieldArray(vec![text("a.b")].into()));
            AMQPValue::FieldTable(table)
        };
        let deaths = vec![death("delivery_limit", "herald.events", 60), death("expired", "herald.retry.5s", 5)];
        let mut letter = message(&[("x-death", AMQPValue::FieldArray(deaths.into()))]);
        let expected = Marks {
            reason: Some("delivery_limit".to_owned()),
            failed_at: Timestamp::from_second(60).ok(),
            queue: Some("herald.events".to_owned()),
            exchange: Some("herald.events".to_owned()),
            routing_key: Some("a.b".to_owned()),
            ..Marks::default()
        };
        assert_eq!(Marks::of_letter(&letter), expected);
        // What a retry's copy says of the letter's origin is older, and right.
        let retried = Marks { routing_key: Some("first.key".to_owned()), ..full() };
        retried.write(&mut letter);
        let Marks { reason, failed_at, .. } = expected;
        let expected = Marks { reason, failed_at, ..retried };
        assert_eq!(Marks::of_letter(&letter), expected);
    }

    #[test]
    fn unmarked_messages_stay_without_headers() {
        let mut message = Message::default();
        Marks::default().write(&mut message);
        assert_eq!(message, Message::default());
    }

    #[test]
    fn integers_of_every_width_and_numeric_texts_are_counts() {
        for (value, expected) in [
            (AMQPValue::ShortShortInt(7), 7),
            (AMQPValue::ShortShortUInt(200), 200),
            (AMQPValue::ShortInt(7), 7),
            (AMQPValue::ShortUInt(60_000), 60_000),
            (AMQPValue::LongInt(7), 7),
            (AMQPValue::LongUInt(7), 7),
            (AMQPValue::LongLongInt(1_000_000), 1_000_000),
            (text(" 7 "), 7),
            (AMQPValue::LongLongInt(1_000_001), 0),
            (AMQPValue::LongLongInt(i64::MAX), 0),
            (AMQPValue::LongInt(-1), 0),
            (AMQPValue::Double(7.0), 0),
            (AMQPValue::Boolean(true), 0),
            (AMQPValue::Void, 0),
            (text("99999999999999999999999"), 0),
            (text("seven"), 0),
            (AMQPValue::LongString(vec![0xff].into()), 0),
        ] {
            let marks = Marks::read(&message(&[(ATTEMPT, value.clone()), (REPLAY, value.clone())]));
            assert_eq!((marks.attempt, marks.replay), (expected, expected), "{value:?}");
        }
    }

    #[test]
    fn senseless_texts_and_times_are_absent() {
        let long = "k".repeat(256);
        let strange = message(&[
            (ID, AMQPValue::LongInt(5)),
            (REASON, AMQPValue::LongString(vec![0xff].into())),
            (ROUTING_KEY, text(&long)),
            (FIRST_SEEN, text("yesterday")),
            (FAILED_AT, AMQPValue::Timestamp(5)),
        ]);
        assert_eq!(Marks::read(&strange), Marks::default());
    }

    #[test]
    fn errors_are_redacted_and_bounded_both_ways() {
        let secret = format!("\"ExponentPushToken[abc]\" {}", "x".repeat(1_000));
        let mut written = Message::default();
        Marks { error: Some(secret.clone()), ..Marks::default() }.write(&mut written);
        for message in [written, message(&[(ERROR, text(&secret))])] {
            let error = Marks::read(&message).error.expect("there is an error");
            assert!(error.starts_with("\"[push token]\"") && error.len() <= 300, "{error}");
        }
    }

    #[test]
    fn replay_goes_back_to_where_the_letter_came_from() {
        let exchange = |exchange: &str, key: &str| Destination::Exchange {
            exchange: exchange.to_owned(),
            routing_key: key.to_owned(),
        };
        let queue = |name: &str| Destination::Queue(name.to_owned());
        for (came_through, key, expected) in [
            (Some("x"), Some("k"), exchange("x", "k")),
            (Some("x"), Some(""), exchange("x", "")),
            (Some(""), Some("herald.events"), queue("herald.events")),
            (Some(""), Some(""), queue("p.events")),
            (Some("x"), None, queue("p.events")),
            (None, Some("k"), queue("p.events")),
            (None, None, queue("p.events")),
        ] {
            let [exchange, routing_key] = [came_through, key].map(|text| text.map(str::to_owned));
            let marks = Marks { exchange, routing_key, ..full() };
            assert_eq!(replayed(&message(&[]), &marks, "p.events").0, expected);
        }
    }

    #[test]
    fn replay_keeps_only_number_exchange_and_routing_key() {
        let mut letter = message(&[("traceparent", text("00-1")), ("x-death", AMQPValue::Void)]);
        full().write(&mut letter);
        let (_, again) = replayed(&letter, &Marks::read(&letter), "p.events");
        let expected =
            Marks { replay: 3, exchange: full().exchange, routing_key: full().routing_key, ..Marks::default() };
        assert_eq!(Marks::read(&again), expected);
        assert_eq!(again.body, letter.body);
        let names: Vec<String> =
            again.properties.headers().iter().flatten().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, ["herald-exchange", "herald-replay", "herald-routing-key", "traceparent"]);
    }

    proptest! {
        #[test]
        fn no_header_value_breaks_reading(bytes in prop::collection::vec(any::<u8>(), 0..40), number in any::<i64>()) {
            for value in [AMQPValue::LongString(bytes.clone().into()), AMQPValue::LongLongInt(number)] {
                let fields: Vec<_> = HEADERS.iter().map(|name| (*name, value.clone())).collect();
                let mut message = message(&fields);
                let read = Marks::read(&message);
                read.write(&mut message);
                prop_assert_eq!(Marks::read(&message), read);
            }
        }
    }
}
