//! The schema of a push message, checked like Expo does: one bad field refuses the whole request and is named by its path.
//!
//! Pure. A null is refused where the documentation does not allow it.

use serde_json::{Map, Value};

/// Most problems named in one answer.
const MAX_ISSUES: usize = 10;

/// What a field must be.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    NullableText,
    Number,
    Bool,
    Object,
    Sound,
    OneOf(&'static [&'static str]),
}

const FIELDS: [(&str, Kind); 24] = [
    ("data", Kind::Object),
    ("title", Kind::Text),
    ("body", Kind::Text),
    ("subtitle", Kind::Text),
    ("ttl", Kind::Number),
    ("expiration", Kind::Number),
    ("priority", Kind::OneOf(&["default", "normal", "high"])),
    ("sound", Kind::Sound),
    ("badge", Kind::Number),
    ("interruptionLevel", Kind::OneOf(&["active", "critical", "passive", "time-sensitive"])),
    ("channelId", Kind::NullableText),
    ("icon", Kind::Text),
    ("richContent", Kind::Object),
    ("categoryId", Kind::Text),
    ("mutableContent", Kind::Bool),
    ("contentAvailable", Kind::Bool),
    ("_contentAvailable", Kind::Bool),
    ("collapseId", Kind::Text),
    ("tag", Kind::Text),
    ("threadId", Kind::Text),
    ("targetContentId", Kind::Text),
    ("relevanceScore", Kind::Number),
    ("filterCriteria", Kind::Text),
    ("_displayInForeground", Kind::Bool),
];

/// A message that passed, with its recipients in order.
#[derive(Debug)]
pub(super) struct Message<'b> {
    pub to: Vec<&'b str>,
    pub fields: &'b Map<String, Value>,
}

/// Reads one message or an array of them, or returns the text of the refusal.
pub(super) fn read(body: &Value) -> Result<Vec<Message<'_>>, String> {
    let mut issues = Issues::default();
    let messages = match body {
        Value::Array(messages) => {
            let messages = messages.iter().enumerate();
            messages.filter_map(|(index, message)| read_message(message, &format!("{index}."), &mut issues)).collect()
        }
        Value::Object(_) => read_message(body, "", &mut issues).into_iter().collect(),
        other => {
            issues.add("$", format!("Expected object, received {}", type_of(other)));
            Vec::new()
        }
    };
    if body.as_array().is_some_and(Vec::is_empty) {
        issues.add("$", "Array must contain at least 1 element(s)".to_owned());
    }
    issues.verdict(body).map_or(Ok(messages), Err)
}

#[derive(Default)]
struct Issues(Vec<String>);

impl Issues {
    fn add(&mut self, path: &str, text: String) {
        if self.0.len() < MAX_ISSUES {
            self.0.push(format!("\"{path}\": {text}"));
        }
    }

    fn verdict(mut self, body: &Value) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        // The schema is a union of one message and many: Expo names why it is not the one as well.
        if body.is_array() {
            self.0.insert(0, "\"$\": Expected object, received array".to_owned());
        }
        Some(format!("Must correct one of the following issues: [{}].", self.0.join(", ")))
    }
}

fn read_message<'b>(message: &'b Value, path: &str, issues: &mut Issues) -> Option<Message<'b>> {
    let Value::Object(fields) = message else {
        issues.add(path.trim_end_matches('.'), format!("Expected object, received {}", type_of(message)));
        return None;
    };
    for (name, kind) in FIELDS {
        if let Some(value) = fields.get(name)
            && let Some(text) = problem(value, kind)
        {
            issues.add(&format!("{path}{name}"), text);
        }
    }
    let to: Vec<&str> = match fields.get("to") {
        Some(Value::String(to)) => vec![to],
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
            list.iter().filter_map(Value::as_str).collect()
        }
        None => {
            issues.add(&format!("{path}to"), "Required".to_owned());
            return None;
        }
        Some(other) => {
            issues
                .add(&format!("{path}to"), format!("Expected string or array of strings, received {}", type_of(other)));
            return None;
        }
    };
    if to.is_empty() || to.contains(&"") {
        issues.add(&format!("{path}to"), "must contain at least 1 element(s)".to_owned());
    }
    Some(Message { to, fields })
}

fn problem(value: &Value, kind: Kind) -> Option<String> {
    let expected = |name: &str, well: bool| (!well).then(|| format!("Expected {name}, received {}", type_of(value)));
    match kind {
        Kind::Text => expected("string", value.is_string()),
        Kind::NullableText => expected("string", value.is_string() || value.is_null()),
        Kind::Number => expected("number", value.is_number()),
        Kind::Bool => expected("boolean", value.is_boolean()),
        Kind::Object => expected("object", value.is_object()),
        Kind::Sound => expected("string", value.is_string() || value.is_null() || value.is_object()),
        Kind::OneOf(names) => match value.as_str() {
            None => expected("string", false),
            Some(name) if names.contains(&name) => None,
            Some(name) => {
                let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
                Some(format!("Invalid enum value. Expected {}, received '{name}'", names.join(" | ")))
            }
        },
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_bad_field_is_named_by_its_path() {
        let table = [
            (json!({"to": "a", "badge": 0, "sound": null, "channelId": null, "unknown": 1}), ""),
            (json!([{"to": ["a", "b"], "data": {}}]), ""),
            (
                json!([{"to": "a"}, {"to": "b", "interruptionLevel": "timeSensitive"}]),
                "\"1.interruptionLevel\": Invalid enum",
            ),
            (json!({"to": "a", "title": null}), "\"title\": Expected string, received null"),
            (json!([{"to": "a", "data": "text"}]), "\"0.data\": Expected object, received string"),
            (json!([{"title": "a"}]), "\"0.to\": Required"),
            (json!([{"to": []}]), "\"0.to\""),
            (json!([{"to": 1}]), "\"0.to\": Expected string"),
            (json!([]), "\"$\": Array"),
            (json!([1]), "\"0\": Expected object, received number"),
            (json!("x"), "\"$\": Expected object"),
        ];
        for (body, expected) in table {
            let text = read(&body).err().unwrap_or_default();
            assert_eq!(text.is_empty(), expected.is_empty(), "{body}: {text}");
            assert!(text.contains(expected), "{body}: {text}");
        }
    }
}
