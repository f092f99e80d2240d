//! The message as it travels, and the white list of what a copy of it may carry.
//!
//! Called by the worker when it copies a delivery to a retry, hold or dead-letter queue, and by replay. Pure. Must never let
//! through a property or header that loses or duplicates the copy (`expiration`, `x-death`, …: see [`Message::copy`]).

use bytes::Bytes;
use lapin::{BasicProperties, types::FieldTable};

use super::headers;
use crate::domain::event::{Meta, is_attribute};

/// Most bytes of headers a copy carries; a header frame over the connection's frame size would close the connection. Where there
/// are more, only those stay that the event itself is read from.
pub const MAX_COPIED_HEADERS: usize = 64 * 1024;

/// Persistent, in AMQP's words.
const DELIVERY_MODE_PERSISTENT: u8 = 2;

/// Body and properties of a message.
#[derive(Clone, Default, PartialEq)]
pub struct Message {
    /// Shared, not copied: a body may be as large as the broker lets it be, and every copy of the message has the same one.
    pub body: Bytes,
    pub properties: BasicProperties,
}

/// A copy, fit to be published again.
#[derive(Debug, Clone, PartialEq)]
pub struct Copied {
    pub message: Message,
    /// Bytes of headers left behind because they were over [`MAX_COPIED_HEADERS`]; `herald-error` is to say so.
    pub dropped_headers: Option<usize>,
}

impl Message {
    /// Returns what the event is read from beside the body.
    pub fn meta(&self) -> Meta<'_> {
        let properties = &self.properties;
        Meta {
            message_id: properties.message_id().as_ref().map(|id| id.as_str()),
            content_type: properties.content_type().as_ref().map(|text| text.as_str()),
            headers: headers::some_json(properties.headers(), is_attribute),
        }
    }

    /// Returns the message with what may travel on: the body, content_type, content_encoding, message_id, correlation_id,
    /// timestamp, type, app_id, and the headers except `x-*`, `herald-*`, `CC` and `BCC`; always persistent.
    ///
    /// Everything else does harm in a second queue (measured on RabbitMQ 3.10 and 4.0): `expiration` ends the copy early,
    /// `user_id` and `reply_to` close the channel, `CC` and `BCC` multiply it, `x-death` makes dead-lettering see a
    /// cycle and drop it. Header names are compared as AMQP compares them: by case.
    pub fn copy(&self) -> Copied {
        let from = &self.properties;
        let kept = headers::retain(from.headers(), |name| {
            !name.starts_with("x-") && !name.starts_with("herald-") && name != "CC" && name != "BCC"
        });
        let (kept, dropped_headers) = bounded(kept);

        let mut to = BasicProperties::default().with_delivery_mode(DELIVERY_MODE_PERSISTENT);
        if let Some(value) = from.content_type() {
            to = to.with_content_type(value.clone());
        }
        if let Some(value) = from.content_encoding() {
            to = to.with_content_encoding(value.clone());
        }
        if let Some(value) = from.message_id() {
            to = to.with_message_id(value.clone());
        }
        if let Some(value) = from.correlation_id() {
            to = to.with_correlation_id(value.clone());
        }
        if let Some(value) = from.timestamp() {
            to = to.with_timestamp(*value);
        }
        if let Some(value) = from.kind() {
            to = to.with_type(value.clone());
        }
        if let Some(value) = from.app_id() {
            to = to.with_app_id(value.clone());
        }
        if !kept.inner().is_empty() {
            to = to.with_headers(kept);
        }
        Copied { message: Message { body: self.body.clone(), properties: to }, dropped_headers }
    }

    /// Returns the message marked persistent, whatever it was.
    pub(super) fn persistent(mut self) -> Message {
        self.properties = self.properties.with_delivery_mode(DELIVERY_MODE_PERSISTENT);
        self
    }
}

/// Returns the headers a copy carries, and how many bytes of headers stay behind.
fn bounded(headers: FieldTable) -> (FieldTable, Option<usize>) {
    let bytes = headers::table_len(&headers);
    if bytes <= MAX_COPIED_HEADERS {
        return (headers, None);
    }
    let needed = headers::retain(&Some(headers), is_attribute);
    let needed_bytes = headers::table_len(&needed);
    // More than that is in no event that can be read.
    if needed_bytes > MAX_COPIED_HEADERS {
        (FieldTable::default(), Some(bytes))
    } else {
        (needed, Some(bytes - needed_bytes))
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::AMQPValue;
    use proptest::prelude::*;

    use super::*;

    fn with_headers(headers: &[(&str, AMQPValue)]) -> Message {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), value.clone());
        }
        Message { body: Bytes::from_static(b"{}"), properties: BasicProperties::default().with_headers(table) }
    }

    fn text(value: &str) -> AMQPValue {
        AMQPValue::LongString(value.into())
    }

    #[test]
    fn a_copy_carries_the_white_list_and_nothing_else() {
        let all = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_content_encoding("utf-8".into())
            .with_delivery_mode(1)
            .with_priority(5)
            .with_correlation_id("c".into())
            .with_reply_to("amq.rabbitmq.reply-to".into())
            .with_expiration("1000".into())
            .with_message_id("m".into())
            .with_timestamp(1_790_000_000)
            .with_type("t".into())
            .with_user_id("guest".into())
            .with_app_id("a".into())
            .with_cluster_id("k".into());
        let kept = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_content_encoding("utf-8".into())
            .with_delivery_mode(2)
            .with_correlation_id("c".into())
            .with_message_id("m".into())
            .with_timestamp(1_790_000_000)
            .with_type("t".into())
            .with_app_id("a".into());
        let copied = Message { body: vec![1, 2].into(), properties: all }.copy();
        assert_eq!(copied.message, Message { body: vec![1, 2].into(), properties: kept });
        assert_eq!(copied.dropped_headers, None);
    }

    #[test]
    fn headers_that_steer_the_broker_or_are_heralds_own_stay_behind() {
        for (name, kept) in [
            ("traceparent", true),
            ("cloudEvents_id", true),
            ("X-Request-Id", true),
            ("cc", true),
            ("xylophone", true),
            ("x-death", false),
            ("x-delivery-count", false),
            ("herald-attempt", false),
            ("CC", false),
            ("BCC", false),
        ] {
            let copied = with_headers(&[(name, text("v"))]).copy().message;
            let there = copied.properties.headers().as_ref().is_some_and(|headers| headers.contains_key(name));
            assert_eq!(there, kept, "{name}");
        }
    }

    #[test]
    fn headers_over_the_bound_are_dropped_and_counted() {
        let fits = with_headers(&[("a", text(&"v".repeat(MAX_COPIED_HEADERS - 7)))]).copy();
        assert_eq!((fits.dropped_headers, fits.message.properties.headers().is_some()), (None, true));
        let over = with_headers(&[("a", text(&"v".repeat(MAX_COPIED_HEADERS - 6)))]).copy();
        assert_eq!(over.dropped_headers, Some(MAX_COPIED_HEADERS + 1));
        assert!(over.message.properties.headers().is_none());
    }

    #[test]
    fn what_a_cloud_event_is_read_from_stays_whatever_else_is_dropped() {
        let long = text(&"v".repeat(MAX_COPIED_HEADERS));
        let copied = with_headers(&[("cloudEvents_id", text("e1")), ("cloudEvents_else", long.clone())]).copy();
        assert_eq!(copied.message, with_headers(&[("cloudEvents_id", text("e1"))]).copy().message);
        assert_eq!(copied.dropped_headers, Some(1 + 16 + 5 + MAX_COPIED_HEADERS));
        let never_read = with_headers(&[("cloudEvents_id", long)]).copy();
        assert!(never_read.dropped_headers.is_some() && never_read.message.properties.headers().is_none());
    }

    #[test]
    fn an_event_is_read_from_the_attributes_among_the_headers() {
        let mut message = with_headers(&[
            ("cloudEvents_id", text("e1")),
            ("cloudEvents:time", AMQPValue::Timestamp(0)),
            ("cloudEvents_subject", AMQPValue::Void),
            ("cloudEvents_else", text("x")),
            ("traceparent", text("00-1")),
        ]);
        message.properties =
            message.properties.with_content_type("application/json".into()).with_message_id("m1".into());
        let expected = serde_json::json!(
            {"cloudEvents_id": "e1", "cloudEvents:time": "1970-01-01T00:00:00Z", "cloudEvents_subject": null});
        let meta = message.meta();
        assert_eq!(serde_json::Value::Object(meta.headers), expected);
        assert_eq!((meta.content_type, meta.message_id), (Some("application/json"), Some("m1")));
        assert!(Message::default().meta().headers.is_empty());
    }

    proptest! {
        #[test]
        fn copying_twice_changes_nothing_more(names in prop::collection::vec("(x-|herald-|CC|BCC|)[a-z]{0,4}", 0..8)) {
            let headers: Vec<(&str, AMQPValue)> = names.iter().map(|name| (name.as_str(), text("v"))).collect();
            let once = with_headers(&headers).copy().message;
            prop_assert_eq!(once.copy().message, once);
        }
    }
}
