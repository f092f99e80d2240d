//! One request, read whole: what the providers' rules, the faults and the journal look at.
//!
//! Read by the server under a cap and a time limit. Must never keep the connection.

use std::{borrow::Cow, time::Duration};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, Request};
use percent_encoding::percent_decode_str;

use super::{
    body::{self, Format, Problem},
    route::{Route, route},
};

/// Longest time a client may take to send its body.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of a body over the cap is still read and thrown away, so that the client gets to read its refusal.
const DRAIN: usize = 16 * body::CAP;

async fn read_whole(body: Body) -> Result<Bytes, Problem> {
    let mut chunks = body.into_data_stream();
    let mut bytes = BytesMut::new();
    let mut length = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::Incomplete)?;
        length += chunk.len();
        if length <= body::CAP {
            bytes.extend_from_slice(&chunk);
        } else if length > DRAIN {
            break;
        }
    }
    if length > body::CAP { Err(Problem::TooLarge) } else { Ok(bytes.freeze()) }
}

#[derive(Debug)]
pub(super) struct Call {
    pub route: Route,
    pub method: String,
    /// As sent, still percent-encoded.
    pub path: String,
    /// Decoded, in the order sent.
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    /// Decompressed; empty when there is a `problem`.
    pub body: Bytes,
    pub problem: Option<Problem>,
}

impl Call {
    pub async fn read(request: Request<Body>) -> Self {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let query = query.into_owned().collect();
        let gzip = parts.headers.get(http::header::CONTENT_ENCODING).is_some_and(|coding| coding == "gzip");
        let body = match tokio::time::timeout(READ_TIMEOUT, read_whole(body)).await {
            Ok(Ok(bytes)) if gzip => body::gunzip(&bytes),
            Ok(read) => read,
            Err(_) => Err(Problem::Incomplete),
        };
        let (body, problem) = match body {
            Ok(body) => (body, None),
            Err(problem) => (Bytes::new(), Some(problem)),
        };
        let method = parts.method.as_str().to_owned();
        Self { route: route(&method, &path), method, path, query, headers: parts.headers, body, problem }
    }

    /// Returns a header's value, or "" when it is absent or not text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Returns the first value of a query parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns the format the body is declared to be in; JSON when nothing is declared, `None` when it is something else.
    pub fn format(&self) -> Option<Format> {
        match self.header("content-type") {
            "" => Some(Format::Json),
            declared => Format::of(declared),
        }
    }

    /// Returns the texts in which faults are looked for: decoded path, decoded query values, body.
    pub fn texts(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let path = percent_decode_str(&self.path).decode_utf8_lossy();
        let query = self.query.iter().map(|(_, value)| Cow::Borrowed(value.as_str()));
        std::iter::once(path).chain(query).chain(std::iter::once_with(|| String::from_utf8_lossy(&self.body)))
    }

    #[cfg(test)]
    pub fn empty(method: &str, path: &str) -> Self {
        Self {
            route: route(method, path),
            method: method.to_owned(),
            path: path.to_owned(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            problem: None,
        }
    }
}
