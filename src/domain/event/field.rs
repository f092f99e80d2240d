//! One field of an event: taken out of the message's fields and held to its rule, or malformed with its name.
//!
//! Called by `decode` under the names of the message's form. JSON null counts as absent everywhere.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{MAX_CODE_POINTS, MAX_STRING_BYTES, Malformed};
use crate::domain::{bounded, redact};

/// Reads `bytes`, which the message calls `name`, as a JSON object.
pub(super) fn parsed(name: &'static str, bytes: &[u8]) -> Result<Map<String, Value>, Malformed> {
    if bytes.is_empty() {
        return Err(Malformed::new(name, "is empty; expected a JSON object"));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Malformed::new(name, format!("is not UTF-8 from byte {}", error.valid_up_to())))?;
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(Malformed::new(name, format!("is {}; expected a JSON object", kind(&other)))),
        Err(error) => Err(Malformed::new(name, format!("is not JSON: {}", redact(&error.to_string())))),
    }
}

pub(super) fn required(fields: &mut Map<String, Value>, name: &'static str) -> Result<String, Malformed> {
    identifier(fields, name)?.ok_or_else(|| Malformed::new(name, "is missing; expected a string"))
}

/// Takes an optional identifier; JSON null counts as absent.
pub(super) fn identifier(fields: &mut Map<String, Value>, name: &'static str) -> Result<Option<String>, Malformed> {
    let text = string(fields, name)?;
    if let Some(text) = &text {
        checked_identifier(name, text)?;
    }
    Ok(text)
}

pub(super) fn checked_identifier(name: &'static str, text: &str) -> Result<(), Malformed> {
    if text.is_empty() {
        return Err(Malformed::new(name, format!("is empty; expected 1 to {MAX_CODE_POINTS} characters")));
    }
    let code_points = text.chars().count();
    if code_points > MAX_CODE_POINTS {
        return Err(Malformed::new(
            name,
            format!("has {code_points} characters; at most {MAX_CODE_POINTS} are accepted"),
        ));
    }
    checked_string(name, text)
}

pub(super) fn checked_string(name: &'static str, text: &str) -> Result<(), Malformed> {
    if text.len() > MAX_STRING_BYTES {
        return Err(Malformed::new(name, format!("has {} bytes; at most {MAX_STRING_BYTES} are accepted", text.len())));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(Malformed::new(name, format!("holds the control character U+{:04X}", c as u32))),
        None => Ok(()),
    }
}

/// Takes an optional text; an empty one counts as absent.
pub(super) fn optional(fields: &mut Map<String, Value>, name: &'static str) -> Result<Option<String>, Malformed> {
    let text = string(fields, name)?.filter(|text| !text.is_empty());
    if let Some(text) = &text {
        checked_string(name, text)?;
    }
    Ok(text)
}

pub(super) fn string(fields: &mut Map<String, Value>, name: &'static str) -> Result<Option<String>, Malformed> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(Malformed::new(name, format!("is {}; expected a string", kind(&other)))),
    }
}

/// Takes an object; absent it is empty.
pub(super) fn object(fields: &mut Map<String, Value>, name: &'static str) -> Result<Map<String, Value>, Malformed> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object),
        Some(other) => Err(Malformed::new(name, format!("is {}; expected an object", kind(&other)))),
    }
}

pub(super) fn time(fields: &mut Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, Malformed> {
    let Some(text) = string(fields, name)? else { return Ok(None) };
    checked_string(name, &text)?;
    let time = if is_rfc3339(&text) { text.parse().ok() } else { None };
    time.map(Some).ok_or_else(|| {
        Malformed::new(name, format!("is `{}`; expected an RFC 3339 time such as 2026-01-31T12:00:00Z", shown(&text)))
    })
}

/// Returns as much of a wrong value as an error may show.
pub(super) fn shown(text: &str) -> String {
    bounded(&redact(text), 64)
}

/// Tells whether `text` has the shape of an RFC 3339 time (section 5.6). The parser behind it also takes other forms of
/// ISO 8601, which another reader of the same event would refuse.
fn is_rfc3339(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let shape = |text: &str, shape: &str| {
        let fits = |(c, s): (char, char)| if s == '0' { c.is_ascii_digit() } else { c.eq_ignore_ascii_case(&s) };
        text.len() == shape.len() && text.chars().zip(shape.chars()).all(fits)
    };
    let (Some(seconds), Some(rest)) = (text.get(..19), text.get(19..)) else { return false };
    let zone = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let (fraction, zone) = rest.split_at(zone);
    (shape(seconds, "0000-00-00T00:00:00") || shape(seconds, "0000-00-00 00:00:00"))
        && (fraction.is_empty() || fraction.strip_prefix('.').is_some_and(digits))
        && (shape(zone, "Z") || shape(zone, "+00:00") || shape(zone, "-00:00"))
}

/// Names a JSON value's type, with its article.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_and_nothing_looser() {
        let read = |text: &str| {
            let mut fields = Map::from_iter([("occurredAt".to_owned(), text.into())]);
            time(&mut fields, "occurredAt").map(|time| time.unwrap().to_string())
        };
        for (text, expected) in [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
            ("2026-01-31t12:00:00.5z", "2026-01-31T12:00:00.5Z"),
            ("2026-01-31 12:00:00.123456789+02:00", "2026-01-31T10:00:00.123456789Z"),
            ("2026-01-31T12:00:00-00:00", "2026-01-31T12:00:00Z"),
        ] {
            assert_eq!(read(text).unwrap(), expected);
        }
        for text in [
            "",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00Z",
            "2026-01-31T12Z",
            "20260131T120000Z",
            "2026-01-31T12:00:00+0200",
            "2026-01-31T12:00:00+02:00[Europe/Paris]",
            "2026-01-31T12:00:00,5Z",
            "2026-02-30T12:00:00Z",
            "2026-01-31T25:00:00Z",
            "1767225600",
            "2026-01-31T12:00:0\u{661}Z",
        ] {
            assert_eq!(read(text).unwrap_err().field, "occurredAt", "{text}");
        }
    }
}
