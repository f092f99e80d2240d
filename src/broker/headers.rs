//! Reading AMQP header tables: their size on the wire, tolerant values, and a JSON view.
//!
//! Called by `message` and `marks`, by the publisher's size check, and by `dead show`. Pure. Producers write what they
//! like into headers, so nothing here may panic or fail.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use serde_json::{Map, Value, json};

use super::Message;

/// Deepest nesting shown; a table of 128 KiB could nest some ten thousand times.
const MAX_DEPTH: usize = 16;

/// Longest name of a header, in bytes.
const MAX_NAME: usize = 255;

/// Returns the message's headers as a JSON object; bytes that are no UTF-8 become `{"base64": …}`.
pub fn headers_json(message: &Message) -> Value {
    message.properties.headers().as_ref().map_or_else(|| json!({}), |table| table_json(table, 0))
}

/// Returns the headers whose name passes `keep` as a JSON object.
pub(super) fn some_json(headers: &Option<FieldTable>, keep: impl Fn(&str) -> bool) -> Map<String, Value> {
    let kept = headers.iter().flatten().filter(|(name, _)| keep(name.as_str()));
    kept.map(|(name, value)| (name.to_string(), value_json(value, 0))).collect()
}

fn table_json(table: &FieldTable, depth: usize) -> Value {
    let fields = table.into_iter().map(|(name, value)| (name.to_string(), value_json(value, depth)));
    Value::Object(fields.collect::<Map<_, _>>())
}

fn value_json(value: &AMQPValue, depth: usize) -> Value {
    match value {
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) if depth >= MAX_DEPTH => json!("…"),
        AMQPValue::FieldArray(array) => array.as_slice().iter().map(|value| value_json(value, depth + 1)).collect(),
        AMQPValue::FieldTable(table) => table_json(table, depth + 1),
        AMQPValue::Boolean(value) => json!(value),
        AMQPValue::Float(value) => json!(value),
        AMQPValue::Double(value) => json!(value),
        AMQPValue::DecimalValue(value) => json!(f64::from(value.value) / 10f64.powi(i32::from(value.scale))),
        AMQPValue::ShortString(text) => json!(text.as_str()),
        AMQPValue::LongString(text) => bytes_json(text.as_bytes()),
        AMQPValue::ByteArray(bytes) => bytes_json(bytes.as_slice()),
        AMQPValue::Timestamp(seconds) => {
            let time = i64::try_from(*seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
            time.map_or_else(|| json!(seconds), |time| json!(time.to_string()))
        }
        AMQPValue::Void => Value::Null,
        integer => json!(plain_integer(integer)),
    }
}

fn bytes_json(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| json!({ "base64": STANDARD.encode(bytes) }), |text| json!(text))
}

/// Returns the headers that [`headers_json`] showed so, as far as JSON tells: times have become texts, integers the widest.
pub fn headers_of_json(shown: &Map<String, Value>) -> FieldTable {
    table_of_json(shown, 0)
}

fn table_of_json(shown: &Map<String, Value>, depth: usize) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in shown.iter().filter(|(name, _)| name.len() <= MAX_NAME) {
        table.insert(name.as_str().into(), value_of_json(value, depth));
    }
    table
}

fn value_of_json(value: &Value, depth: usize) -> AMQPValue {
    match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(value) => AMQPValue::Boolean(*value),
        Value::Number(number) => match number.as_i64() {
            Some(number) => AMQPValue::LongLongInt(number),
            None => AMQPValue::Double(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Array(_) | Value::Object(_) if depth >= MAX_DEPTH => AMQPValue::Void,
        Value::Array(values) => {
            let values: Vec<AMQPValue> = values.iter().map(|value| value_of_json(value, depth + 1)).collect();
            AMQPValue::FieldArray(values.into())
        }
        Value::Object(fields) => match bytes_of_json(fields) {
            Some(bytes) => AMQPValue::LongString(bytes.into()),
            None => AMQPValue::FieldTable(table_of_json(fields, depth + 1)),
        },
    }
}

fn bytes_of_json(fields: &Map<String, Value>) -> Option<Vec<u8>> {
    let text = fields.get("base64").filter(|_| fields.len() == 1)?.as_str()?;
    STANDARD.decode(text).ok()
}

/// Returns the header `name` as text, if it is UTF-8 text.
pub(crate) fn text<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a str> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        AMQPValue::ByteArray(bytes) => std::str::from_utf8(bytes.as_slice()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str()),
        _ => None,
    }
}

/// How the broker itself dead-lettered a message last, as far as it says.
#[derive(Debug, Default)]
pub(super) struct Death {
    /// `delivery_limit`, `expired`, …
    pub(super) reason: Option<String>,
    pub(super) at: Option<jiff::Timestamp>,
    pub(super) queue: Option<String>,
    pub(super) exchange: Option<String>,
    pub(super) routing_key: Option<String>,
}

/// Returns the newest entry of `x-death`, which is the first one (<https://www.rabbitmq.com/docs/dlx#effects>).
pub(super) fn death(message: &Message) -> Option<Death> {
    let headers = message.properties.headers().as_ref()?;
    let AMQPValue::FieldArray(deaths) = headers.inner().get("x-death")? else { return None };
    let AMQPValue::FieldTable(last) = deaths.as_slice().first()? else { return None };
    // As long as AMQP lets names be.
    let plain = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) if text.as_bytes().len() <= 255 => {
            std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned)
        }
        _ => None,
    };
    let text = |name: &str| last.inner().get(name).and_then(plain);
    let at = match last.inner().get("time") {
        Some(AMQPValue::Timestamp(seconds)) => i64::try_from(*seconds).ok(),
        _ => None,
    };
    let routing_key = match last.inner().get("routing-keys") {
        Some(AMQPValue::FieldArray(keys)) => keys.as_slice().first().and_then(plain),
        _ => None,
    };
    let at = at.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    Some(Death { reason: text("reason"), at, queue: text("queue"), exchange: text("exchange"), routing_key })
}

/// Returns the header `name` as an integer, whatever its width, or a number written out as text.
pub(super) fn integer(properties: &BasicProperties, name: &str) -> Option<i64> {
    let value = properties.headers().as_ref()?.inner().get(name)?;
    plain_integer(value).or_else(|| text(properties, name)?.trim().parse().ok())
}

fn plain_integer(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(value) => Some((*value).into()),
        AMQPValue::ShortShortUInt(value) => Some((*value).into()),
        AMQPValue::ShortInt(value) => Some((*value).into()),
        AMQPValue::ShortUInt(value) => Some((*value).into()),
        AMQPValue::LongInt(value) => Some((*value).into()),
        AMQPValue::LongUInt(value) => Some((*value).into()),
        AMQPValue::LongLongInt(value) => Some(*value),
        _ => None,
    }
}

/// Returns the headers whose name passes `keep`.
pub(crate) fn retain(headers: &Option<FieldTable>, keep: impl Fn(&str) -> bool) -> FieldTable {
    let mut kept = FieldTable::default();
    for (name, value) in headers.iter().flatten().filter(|(name, _)| keep(name.as_str())) {
        kept.insert(name.clone(), value.clone());
    }
    kept
}

/// Returns the bytes a table's fields take on the wire, without its own length prefix.
pub(super) fn table_len(table: &FieldTable) -> usize {
    table.into_iter().map(|(name, value)| 1 + name.as_str().len() + value_len(value)).sum()
}

/// Returns the bytes the properties take in a content header frame, at most: AMQP 0-9-1 section 4.2.6.1.
pub(super) fn properties_len(properties: &BasicProperties) -> usize {
    let texts = [
        properties.content_type(),
        properties.content_encoding(),
        properties.correlation_id(),
        properties.reply_to(),
        properties.expiration(),
        properties.message_id(),
        properties.kind(),
        properties.user_id(),
        properties.app_id(),
        properties.cluster_id(),
    ];
    let texts: usize = texts.into_iter().flatten().map(|text| 1 + text.as_str().len()).sum();
    let headers = properties.headers().as_ref().map_or(0, |table| 4 + table_len(table));
    // Frame (8), class, weight, body size and flags (14), delivery mode, priority and timestamp (10).
    32 + texts + headers
}

fn value_len(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::Void => 0,
        AMQPValue::Boolean(_) | AMQPValue::ShortShortInt(_) | AMQPValue::ShortShortUInt(_) => 1,
        AMQPValue::ShortInt(_) | AMQPValue::ShortUInt(_) => 2,
        AMQPValue::LongInt(_) | AMQPValue::LongUInt(_) | AMQPValue::Float(_) => 4,
        AMQPValue::DecimalValue(_) => 5,
        AMQPValue::LongLongInt(_) | AMQPValue::Double(_) | AMQPValue::Timestamp(_) => 8,
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::LongString(text) => 4 + text.len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.len(),
        AMQPValue::FieldArray(array) => 4 + array.as_slice().iter().map(value_len).sum::<usize>(),
        AMQPValue::FieldTable(table) => 4 + table_len(table),
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::{DecimalValue, FieldArray};

    use super::*;

    fn message(fields: &[(&str, AMQPValue)]) -> Message {
        let mut table = FieldTable::default();
        for (name, value) in fields {
            table.insert((*name).into(), value.clone());
        }
        Message { body: Default::default(), properties: BasicProperties::default().with_headers(table) }
    }

    fn every_kind() -> Vec<(AMQPValue, Value)> {
        let nested = message(&[("k", AMQPValue::Boolean(true))]).properties.headers().clone().expect("just set");
        vec![
            (AMQPValue::Boolean(true), json!(true)),
            (AMQPValue::ShortShortInt(-1), json!(-1)),
            (AMQPValue::ShortShortUInt(255), json!(255)),
            (AMQPValue::ShortInt(-2), json!(-2)),
            (AMQPValue::ShortUInt(65_535), json!(65_535)),
            (AMQPValue::LongInt(-3), json!(-3)),
            (AMQPValue::LongUInt(4_000_000_000), json!(4_000_000_000_u32)),
            (AMQPValue::LongLongInt(i64::MIN), json!(i64::MIN)),
            (AMQPValue::Float(0.5), json!(0.5)),
            (AMQPValue::Double(f64::NAN), Value::Null),
            (AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 150 }), json!(1.5)),
            (AMQPValue::LongString("text".into()), json!("text")),
            (AMQPValue::LongString(vec![0xff].into()), json!({ "base64": "/w==" })),
            (AMQPValue::ByteArray(vec![0xfe].into()), json!({ "base64": "/g==" })),
            (AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Void])), json!([null])),
            (AMQPValue::FieldTable(nested), json!({ "k": true })),
            (AMQPValue::Timestamp(0), json!("1970-01-01T00:00:00Z")),
            (AMQPValue::Timestamp(u64::MAX), json!(u64::MAX)),
            (AMQPValue::Void, Value::Null),
        ]
    }

    #[test]
    fn every_kind_of_value_has_a_json_view() {
        for (value, expected) in every_kind() {
            assert_eq!(headers_json(&message(&[("h", value)])), json!({ "h": expected }));
        }
        assert_eq!(headers_json(&Message::default()), json!({}));
    }

    #[test]
    fn nesting_is_cut_off() {
        let mut value = AMQPValue::Void;
        for _ in 0..1_000 {
            value = AMQPValue::FieldArray(FieldArray::from(vec![value]));
        }
        let shown = headers_json(&message(&[("deep", value)])).to_string();
        assert!(shown.contains('…') && shown.len() < 100, "{shown}");
    }

    #[test]
    fn sizes_are_those_on_the_wire() {
        for (value, _) in every_kind() {
            let properties = message(&[("header", value.clone())]).properties;
            let mut buffer = [0; 1024];
            let cursor = std::io::Cursor::new(&mut buffer[..]);
            let wire = lapin::protocol::basic::gen_properties(&properties)(cursor.into()).expect("serialises").position;
            // Counted but not written here: the frame's eight bytes, class, weight and body size, and the ten bytes of
            // delivery mode, priority and timestamp.
            assert_eq!(properties_len(&properties) as u64 - wire, 8 + 12 + 10, "{value:?}");
        }
    }
}
