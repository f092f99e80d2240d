//! An answer before it is sent: status, headers, body as a value, and what became of each item.
//!
//! Built by the providers' rules; kept as a value until the end, so that a fault can still bend it.

use axum::{body::Body, response::Response};
use http::{HeaderName, HeaderValue, header};
use serde_json::Value;

use super::{body::Format, entry::Item};

#[derive(Debug)]
pub(super) struct Reply {
    pub status: u16,
    pub headers: Vec<(HeaderName, String)>,
    pub body: Answer,
    pub items: Vec<Item>,
}

#[derive(Debug)]
pub(super) enum Answer {
    Value(Value, Format),
    Text(&'static str, String),
}

impl Reply {
    pub fn new(status: u16, value: Value, format: Format) -> Self {
        Self { status, headers: Vec::new(), body: Answer::Value(value, format), items: Vec::new() }
    }

    pub fn text(status: u16, content_type: &'static str, text: String) -> Self {
        Self { status, headers: Vec::new(), body: Answer::Text(content_type, text), items: Vec::new() }
    }

    pub fn with_items(self, items: Vec<Item>) -> Self {
        Self { items, ..self }
    }

    pub fn with_header(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Takes the last ticket or result away.
    pub fn shorten(&mut self) {
        if let Answer::Value(value, _) = &mut self.body {
            let list = match value {
                Value::Object(fields) if fields.contains_key("data") => fields.get_mut("data"),
                Value::Object(fields) => fields.get_mut("results"),
                Value::Array(results) => match results.last_mut() {
                    // A batch of one spec: one result too few, not one batch too few.
                    Some(Value::Object(fields)) if fields.contains_key("results") => fields.get_mut("results"),
                    _ => Some(value),
                },
                _ => None,
            };
            if let Some(Value::Array(list)) = list {
                list.pop();
            }
        }
    }

    pub fn into_response(self) -> Response {
        let (content_type, bytes) = match self.body {
            Answer::Value(value, format) => (format.content_type(), format.encode(&value)),
            Answer::Text(content_type, text) => (content_type, text.into_bytes()),
        };
        let mut response = Response::new(Body::from(bytes));
        *response.status_mut() =
            http::StatusCode::from_u16(self.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.append(name, value);
            }
        }
        response
    }
}
