//! Messages as they come in: types, encodings, sizes and ids, checked before anything is published.
//!
//! Pure. The rules are RSL1, RSL4 and RSL1k of the Ably specification.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::Refusal;
use crate::sandbox::body::BINARY;

/// Messages published as one unit: all or none, one size, one idempotency key.
#[derive(Debug, PartialEq)]
pub(super) struct Unit {
    /// Id (as sent) and name of each message.
    pub messages: Vec<(Option<String>, Option<String>)>,
    /// The common base of the ids, if there are ids.
    pub base: Option<String>,
}

/// Most messages published at once.
const MAX_MESSAGES: usize = 1000;

/// Reads one message or an array of them, sent by a caller bound to `client_id`, of at most `max_bytes` together.
pub(super) fn read(value: &Value, client_id: Option<&str>, max_bytes: usize) -> Result<Unit, Refusal> {
    let messages = match value {
        Value::Array(messages) => messages.as_slice(),
        one => std::slice::from_ref(one),
    };
    if messages.is_empty() {
        return Err(Refusal::new(400, 40000, "no messages"));
    }
    if messages.len() > MAX_MESSAGES {
        return Err(Refusal(400, 40034, format!("{} messages exceed {MAX_MESSAGES}", messages.len())));
    }
    let mut size = 0;
    let mut ids = Vec::with_capacity(messages.len());
    for message in messages {
        let Value::Object(fields) = message else {
            return Err(Refusal::new(400, 40000, "a message must be an object"));
        };
        let name = text(fields, "name", 40000)?;
        let sender = text(fields, "clientId", 40012)?;
        if sender == Some("*") || sender.zip(client_id).is_some_and(|(sender, bound)| sender != bound) {
            return Err(Refusal::new(400, 40012, "clientId of the message does not match the caller's"));
        }
        if text(fields, "connectionKey", 40006)?.is_some() {
            return Err(Refusal::new(400, 40006, "unknown connectionKey"));
        }
        let extras = match present(fields, "extras") {
            None => 0,
            Some(extras @ Value::Object(_)) => extras.to_string().len(),
            Some(_) => return Err(Refusal::new(400, 40032, "extras must be an object")),
        };
        let data = data_bytes(present(fields, "data"), text(fields, "encoding", 40013)?)?;
        size += name.map_or(0, str::len) + sender.map_or(0, str::len) + extras + data;
        ids.push((text(fields, "id", 40031)?.map(str::to_owned), name.map(str::to_owned)));
    }
    if size > max_bytes {
        return Err(Refusal(413, 40009, format!("message of {size} bytes exceeds the limit of {max_bytes} bytes")));
    }
    let base = base(&ids)?;
    Ok(Unit { messages: ids, base })
}

/// Returns the base all ids share: `<base>:<i>` in an array, the id itself (without `:0`) of a single message.
fn base(ids: &[(Option<String>, Option<String>)]) -> Result<Option<String>, Refusal> {
    let refused = |message: &str| Err(Refusal::new(400, 40031, message));
    if ids.iter().any(|(id, _)| id.as_deref() == Some("")) {
        return refused("empty message id");
    }
    if let [(id, _)] = ids {
        return Ok(id
            .as_deref()
            .map(|id| id.strip_suffix(":0").filter(|base| !base.is_empty()).unwrap_or(id).to_owned()));
    }
    let mut base = None;
    for (index, (id, _)) in ids.iter().enumerate() {
        let found = match id {
            None => None,
            Some(id) => match id.strip_suffix(&format!(":{index}")) {
                Some(found) if !found.is_empty() => Some(found),
                _ => return refused("ids of an array must be <base>:<index>"),
            },
        };
        if index > 0 && found != base {
            return refused("ids of an array must share one base");
        }
        base = found;
    }
    Ok(base.map(str::to_owned))
}

fn present<'v>(fields: &'v Map<String, Value>, key: &str) -> Option<&'v Value> {
    fields.get(key).filter(|value| !value.is_null())
}

fn text<'v>(fields: &'v Map<String, Value>, key: &str, code: u32) -> Result<Option<&'v str>, Refusal> {
    match present(fields, key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refusal(400, code, format!("{key} must be a string"))),
    }
}

/// Returns the size of the data as Ably counts it, with transfer encodings undone right to left.
fn data_bytes(data: Option<&Value>, encoding: Option<&str>) -> Result<usize, Refusal> {
    let refused = |message: &str| Err(Refusal::new(400, 40013, message));
    let mut bytes = match data {
        None => return Ok(0),
        Some(Value::String(text)) => text.as_bytes().to_vec(),
        Some(Value::Object(fields)) if fields.len() == 1 && fields.contains_key(BINARY) => {
            let text = fields[BINARY].as_str().unwrap_or_default();
            STANDARD.decode(text).unwrap_or_default()
        }
        Some(value @ (Value::Object(_) | Value::Array(_))) if encoding.is_none() => return Ok(value.to_string().len()),
        Some(Value::Object(_) | Value::Array(_)) => return refused("data with an encoding must be a string or binary"),
        Some(_) => return refused("data must be a string, an object, an array or binary"),
    };
    let mut size = bytes.len();
    for step in encoding.unwrap_or_default().split('/').rev() {
        match step {
            "base64" => match STANDARD.decode(&bytes) {
                Ok(decoded) => bytes = decoded,
                Err(_) => return refused("data is not base64"),
            },
            "json" if serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_err() => {
                return refused("data is not JSON");
            }
            "json" | "utf-8" | "" => {}
            // Ciphers and deltas are the clients' own business.
            _ => break,
        }
        size = size.min(bytes.len());
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn code(value: Value) -> Option<u32> {
        read(&value, Some("me"), 100).err().map(|refusal| refusal.1)
    }

    #[test]
    fn messages_are_checked() {
        let table = [
            (json!({"name": "a", "data": "b", "unknown": 1, "action": 0, "size": 2}), None),
            (json!([{"name": "a", "data": null, "id": null}]), None),
            (json!({"data": {"a": 1}}), None),
            (json!({"data": "{\"a\":1}", "encoding": "json"}), None),
            (json!({"data": "eyJ9", "encoding": "json/base64"}), Some(40013)),
            (json!({"data": "%", "encoding": "base64"}), Some(40013)),
            (json!({"data": "secret", "encoding": "json/utf-8/cipher+aes-128-cbc"}), None),
            (json!({"data": {"a": 1}, "encoding": "json"}), Some(40013)),
            (json!({"data": 1}), Some(40013)),
            (json!({"data": {"$binary": "AAAA"}}), None),
            (json!({"name": 1}), Some(40000)),
            (json!({"clientId": "me"}), None),
            (json!({"clientId": "you"}), Some(40012)),
            (json!({"connectionKey": "k"}), Some(40006)),
            (json!({"extras": []}), Some(40032)),
            (json!({"data": "x".repeat(101)}), Some(40009)),
            (json!([{"data": "x".repeat(60)}, {"name": "y".repeat(60)}]), Some(40009)),
            (json!({"data": STANDARD.encode([0; 100]), "encoding": "base64"}), None),
            (json!([]), Some(40000)),
            (json!("text"), Some(40000)),
            (json!(vec![json!({}); 1001]), Some(40034)),
            (json!({"id": ""}), Some(40031)),
            (json!([{"id": "a:0"}, {"id": "a:1"}]), None),
            (json!([{"id": "a:0"}, {"id": "a:2"}]), Some(40031)),
            (json!([{"id": "a:0"}, {"id": "b:1"}]), Some(40031)),
            (json!([{"id": "a:0"}, {}]), Some(40031)),
            (json!([{"id": "a"}, {"id": "b"}]), Some(40031)),
        ];
        for (value, expected) in table {
            assert_eq!(code(value.clone()), expected, "{value}");
        }
    }

    #[test]
    fn ids_have_a_base() {
        let base = |value: Value| read(&value, None, 100).unwrap().base;
        assert_eq!(base(json!({"id": "a"})).as_deref(), Some("a"));
        assert_eq!(base(json!([{"id": "a:0"}])).as_deref(), Some("a"));
        assert_eq!(base(json!([{"id": "a:7"}])).as_deref(), Some("a:7"));
        assert_eq!(base(json!([{"id": "a:b:0"}, {"id": "a:b:1"}])).as_deref(), Some("a:b"));
        assert_eq!(base(json!([{}, {}])), None);
    }
}
