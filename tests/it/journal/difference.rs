//! How one journal entry differs from another, as lines that a test can state.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Headers by which a client names itself or its HTTP library does its work; they say nothing of the request.
const LIBRARY: [&str; 9] = [
    "ably-agent",
    "user-agent",
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "accept-encoding",
    "accept-language",
    "sec-fetch-mode",
];

/// Returns one line per difference, in the order of the paths: `ours …`, `theirs …` for what one side alone has, `differs …`
/// where both have another value, `alone …` where our object is the only item of their array.
///
/// The path is compared as sent, the query decoded and in any order, and JSON in a message's data by what it says.
pub fn differences(ours: &Value, theirs: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", &request(ours), &request(theirs), &mut lines);
    lines
}

fn request(entry: &Value) -> Value {
    let query = entry["query"].as_array().unwrap().iter();
    let query: Map<String, Value> = query.map(|pair| (pair[0].as_str().unwrap().to_owned(), pair[1].clone())).collect();
    assert_eq!(query.len(), entry["query"].as_array().unwrap().len(), "a parameter twice: {entry}");
    let headers = entry["headers"].as_object().unwrap().iter().filter(|(name, _)| !LIBRARY.contains(&name.as_str()));
    let headers: Map<String, Value> = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut body = entry["body"].clone();
    read_data(&mut body);
    let mut request = Map::from_iter([
        ("query".to_owned(), Value::Object(query)),
        ("headers".to_owned(), Value::Object(headers)),
        ("body".to_owned(), body),
    ]);
    for key in ["provider", "endpoint", "method", "path", "status"] {
        request.insert(key.to_owned(), entry[key].clone());
    }
    Value::Object(request)
}

/// Reads the data of messages with `encoding: json`, whose keys have no order. Looks for messages where a body has them, and
/// never inside data.
fn read_data(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(read_data),
        Value::Object(fields) if fields.get("encoding").is_some_and(|encoding| encoding == "json") => {
            let text = fields["data"].as_str().expect("data with an encoding is text");
            let read: Value = serde_json::from_str(text).expect("data with the encoding json is JSON");
            fields.insert("data".to_owned(), read);
        }
        Value::Object(fields) => fields.get_mut("messages").into_iter().for_each(read_data),
        _ => {}
    }
}

fn compare(path: &str, ours: &Value, theirs: &Value, lines: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(left), Value::Object(right)) => {
            for key in left.keys().chain(right.keys()).collect::<BTreeSet<_>>() {
                let path = format!("{path}/{key}");
                match (left.get(key), right.get(key)) {
                    (Some(left), Some(right)) => compare(&path, left, right, lines),
                    (Some(left), None) => lines.push(format!("ours {path} {left}")),
                    (None, Some(right)) => lines.push(format!("theirs {path} {right}")),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            let pairs = left.iter().zip(right).enumerate();
            pairs.for_each(|(index, (left, right))| compare(&format!("{path}/{index}"), left, right, lines));
        }
        (Value::Object(_), Value::Array(right)) if right.len() == 1 => {
            lines.push(format!("alone {path}"));
            compare(path, ours, &right[0], lines);
        }
        (left, right) if left != right => lines.push(format!("differs {path} {left} {right}")),
        _ => {}
    }
}

#[test]
fn every_difference_has_its_line() {
    let entry = |path: &str, query: Value, body: Value| {
        serde_json::json!({
            "provider": "ably", "endpoint": "publish", "method": "POST", "status": 201, "path": path, "query": query,
            "headers": {"host": path, "accept": "application/json"}, "body": body,
        })
    };
    let data = |text: &str, id: u32| serde_json::json!({"data": text, "encoding": "json", "id": id});
    let ours = entry("/a%3A", serde_json::json!([["limit", "1"], ["c", "u"]]), data(r#"{"a":1,"b":[{}]}"#, 1));
    let mut message = data(r#"{"b":[{"x":null}],"a":1}"#, 2);
    message["size"] = 3.into();
    let theirs = entry("/a:", serde_json::json!([["c", "u"]]), serde_json::json!([message]));
    let expected = [
        "alone /body",
        "theirs /body/data/b/0/x null",
        "differs /body/id 1 2",
        "theirs /body/size 3",
        "differs /path \"/a%3A\" \"/a:\"",
        "ours /query/limit \"1\"",
    ];
    assert_eq!(differences(&ours, &theirs), expected);
    assert!(differences(&ours, &ours).is_empty());
}
