//! Expo's JSON: what requests look like and what answers say.
//!
//! Called by send and receipts. Pure. The shapes are those of
//! <https://docs.expo.dev/push-notifications/sending-notifications/>, and what Expo was seen to answer beside them.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write as _,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Push;

/// Bodies over this are compressed, as the official SDK does.
const COMPRESS_OVER: usize = 1024;

/// A message as it travels.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    to: &'a str,
    sound: &'static str,
    title: &'a str,
    body: &'a str,
    data: &'a Map<String, Value>,
    collapse_id: &'a str,
    tag: &'a str,
    ttl: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<&'a str>,
}

/// Returns a push as the JSON of one message.
pub(super) fn message(push: &Push) -> String {
    let message = Message {
        to: &push.token,
        sound: "default",
        title: &push.title,
        body: &push.body,
        data: &push.data,
        collapse_id: &push.collapse_id,
        tag: &push.collapse_id,
        ttl: push.ttl_seconds,
        channel_id: push.channel_id.as_deref(),
        priority: push.priority.as_deref(),
    };
    serde_json::to_string(&message).expect("strings and a JSON map always serialise")
}

/// Returns `body` as it goes out, and whether it is compressed.
pub(super) fn packed(body: String) -> (Bytes, bool) {
    if body.len() <= COMPRESS_OVER {
        return (body.into(), false);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    match encoder.write_all(body.as_bytes()).and_then(|()| encoder.finish()) {
        Ok(packed) => (packed.into(), true),
        // Writing into memory does not fail; if it ever did, plain JSON is as good.
        Err(_) => (body.into(), false),
    }
}

/// A ticket, or a receipt. Unknown fields and unknown errors are normal.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Verdict {
    pub(super) status: String,
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) message: Option<String>,
    #[serde(default)]
    pub(super) details: Option<Value>,
}

impl Verdict {
    /// Returns the error's name, when there is one.
    pub(super) fn error(&self) -> Option<&str> {
        self.details.as_ref()?.get("error")?.as_str()
    }

    /// Returns the push token that an error names, when it does.
    pub(super) fn token(&self) -> Option<&str> {
        self.details.as_ref()?.get("expoPushToken")?.as_str()
    }

    /// Returns the error that Google gave behind Expo's, when there is one.
    pub(super) fn fcm_error(&self) -> Option<&str> {
        self.details.as_ref()?.get("fcm")?.get("error")?.as_str()
    }
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

/// Returns the tickets in the order of the messages: an array, or one object.
pub(super) fn tickets(body: &[u8]) -> Option<Vec<Verdict>> {
    let many = serde_json::from_slice(body).map(|Answer { data }| data);
    many.or_else(|_| serde_json::from_slice(body).map(|Answer { data }| vec![data])).ok()
}

/// Returns the receipts by ticket id; ids Expo does not know (yet, or any more) are absent.
pub(super) fn receipts(body: &[u8]) -> Option<HashMap<String, Verdict>> {
    serde_json::from_slice(body).map(|Answer { data }| data).ok()
}

/// An error of a whole request, in either of Expo's shapes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct RequestError {
    pub(super) code: Option<String>,
    pub(super) message: String,
    pub(super) details: Option<Value>,
    pub(super) transient: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reported {
    #[serde(default)]
    code: Value,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    details: Option<Value>,
    #[serde(default)]
    is_transient: bool,
    #[serde(default)]
    request_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorBody {
    Errors {
        errors: Vec<Reported>,
    },
    /// The shape of OAuth: a refused access token.
    OAuth {
        error: String,
        error_description: Option<String>,
    },
}

/// Returns the (first) error in `body`, or `None` when it is not Expo's.
pub(super) fn request_error(body: &[u8]) -> Option<RequestError> {
    match serde_json::from_slice(body).ok()? {
        ErrorBody::OAuth { error, error_description } => {
            let message = error_description.unwrap_or_default();
            Some(RequestError { code: Some(error), message, ..RequestError::default() })
        }
        ErrorBody::Errors { errors } => {
            let first = errors.into_iter().next()?;
            let code = match first.code {
                Value::String(code) => Some(code),
                Value::Number(code) => Some(code.to_string()),
                _ => None,
            };
            let mut message = first.message.unwrap_or_default();
            if let Some(id) = first.request_id {
                // In front: long texts are cut, and the id is what Expo's support asks for.
                message = format!("[request {id}] {message}");
            }
            Some(RequestError { code, message, details: first.details, transient: first.is_transient })
        }
    }
}

/// Returns the positions (in the request) of the messages a validation error names, as in `"3.body": Required`.
pub(super) fn named_messages(message: &str, count: usize) -> Vec<usize> {
    let mut named: Vec<usize> = message
        .split('"')
        .filter_map(|quoted| {
            let (index, field) = quoted.split_once(['.', '['])?;
            let plain = !field.is_empty() && !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
            index.parse().ok().filter(|index| plain && *index < count)
        })
        .collect();
    named.sort_unstable();
    named.dedup();
    named
}

/// Groups the positions of `tokens` by project, as the details of a refused mix say. Tokens they do not name come last,
/// together. `None` when that tells nothing apart.
pub(super) fn by_project(tokens: &[&str], details: Option<&Value>) -> Option<Vec<Vec<usize>>> {
    let projects: BTreeMap<&str, &Vec<Value>> = details?
        .as_object()?
        .iter()
        .filter_map(|(project, tokens)| Some((project.as_str(), tokens.as_array()?)))
        .collect();
    let mut of_token: HashMap<&str, usize> = HashMap::new();
    for (number, named) in projects.values().enumerate() {
        for token in named.iter().filter_map(Value::as_str) {
            of_token.entry(token).or_insert(number);
        }
    }
    let mut groups = vec![Vec::new(); projects.len() + 1];
    for (position, token) in tokens.iter().enumerate() {
        groups[of_token.get(token).copied().unwrap_or(projects.len())].push(position);
    }
    groups.retain(|group| !group.is_empty());
    (groups.len() > 1).then_some(groups)
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
