//! One journal entry: as it is shown and as it is kept.
//!
//! Made by the journal. Must never keep credentials: of an `Authorization` header only the scheme is kept.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{
    body::Format,
    call::Call,
    route::{Endpoint, Provider},
};

/// What became of one message, channel or recipient of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemOutcome {
    Accepted,
    /// Ably had seen the id: answered like a success, delivered to nobody.
    Deduped,
    Refused,
}

/// One message on one channel, or one recipient of a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Channel or push token.
    pub target: Arc<str>,
    /// The event's id: Ably's message id, or `data.eventId` of a push.
    pub id: Option<String>,
    pub outcome: ItemOutcome,
    /// The provider's error code of a refused item.
    pub code: Option<String>,
}

/// One request.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Consecutive, from 1.
    pub number: u64,
    pub time: Timestamp,
    pub provider: Provider,
    pub endpoint: Endpoint,
    pub method: String,
    /// As sent, percent-encoded.
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: BTreeMap<String, String>,
    /// The body as JSON, whatever it was sent as; a string where it could not be decoded, null where there was none.
    pub body: Value,
    /// Everything the request wanted, item by item; empty for reads.
    pub items: Vec<Item>,
    /// The status answered; `None` when no answer was sent.
    pub status: Option<u16>,
    /// The fault that struck.
    pub fault: Option<String>,
}

/// An entry as it is kept: the body undecoded, which is smaller and costs nothing.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub entry: Entry,
    body: Bytes,
    format: Option<Format>,
}

impl Kept {
    /// Returns about how much memory the entry takes.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.entry.headers.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        self.body.len() + headers + self.entry.items.len() * (size_of::<Item>() + 64) + size_of::<Self>()
    }

    pub fn decoded(self) -> Entry {
        let body = if self.body.is_empty() {
            Value::Null
        } else {
            let decoded = self.format.and_then(|format| format.decode(&self.body).ok());
            decoded.unwrap_or_else(|| String::from_utf8_lossy(&self.body).into_owned().into())
        };
        Entry { body, ..self.entry }
    }
}

/// Returns the entry of `call` before anything came of it.
pub(super) fn draft(call: &Call) -> Kept {
    let headers = call.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        let value = match name.as_str() {
            "authorization" | "proxy-authorization" => value.split(' ').next().unwrap_or_default().to_owned(),
            "cookie" => "…".to_owned(),
            _ => value.into_owned(),
        };
        (name.as_str().to_owned(), value)
    });
    let entry = Entry {
        number: 0,
        time: Timestamp::now(),
        provider: call.route.endpoint.provider(),
        endpoint: call.route.endpoint,
        method: call.method.clone(),
        path: call.path.clone(),
        query: call.query.clone(),
        headers: headers.collect(),
        body: Value::Null,
        items: Vec::new(),
        status: None,
        fault: None,
    };
    Kept { entry, body: call.body.clone(), format: call.format() }
}
