//! An OTLP receiver: takes what herald sends, by the real wire format, and lets tests look at the spans.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{Span as Wire, span::SpanKind, status::StatusCode as Status},
};
use prost::Message;

use crate::support::eventually;

/// One span as it was received.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub trace: String,
    pub id: String,
    /// Empty: the trace's first.
    pub parent: String,
    pub state: String,
    pub name: String,
    pub kind: SpanKind,
    pub attributes: BTreeMap<String, String>,
    /// Ids of the spans it links to.
    pub links: Vec<String>,
    pub failed: bool,
    pub begin: u64,
    pub end: u64,
    /// What is told of the process.
    pub resource: BTreeMap<String, String>,
}

impl Span {
    pub fn has(&self, key: &str, value: &str) -> bool {
        self.attributes.get(key).is_some_and(|found| found == value)
    }
}

#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    headers: Vec<HeaderMap>,
}

/// A receiver; dropped, it is gone.
pub struct Collector {
    /// As `otlp.endpoint` wants it.
    pub url: String,
    received: Arc<Mutex<Received>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Collector {
    pub async fn start() -> Collector {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::<Mutex<Received>>::default();
        let app = Router::new().route("/v1/traces", post(take)).with_state(received.clone());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Collector { url, received, server }
    }

    pub fn spans(&self) -> Vec<Span> {
        self.received.lock().unwrap().spans.clone()
    }

    /// The headers of every request so far.
    pub fn headers(&self) -> Vec<HeaderMap> {
        self.received.lock().unwrap().headers.clone()
    }

    /// Waits for `count` spans of handling the event with `id`, and returns them from the first to the last.
    pub async fn handled(&self, id: &str, count: usize) -> Vec<Span> {
        eventually(&format!("{count} spans of {id}"), async || {
            let mut found = self.spans();
            found.retain(|span| span.kind == SpanKind::Consumer && span.has("herald.event.id", id));
            found.sort_by_key(|span| span.begin);
            (found.len() == count).then_some(found)
        })
        .await
    }

    /// Waits for a span named `name` right below `parent`.
    pub async fn below(&self, parent: &Span, name: &str) -> Span {
        eventually(&format!("`{name}` below `{}`", parent.name), async || {
            self.spans().into_iter().find(|span| span.parent == parent.id && span.name == name)
        })
        .await
    }

    /// Returns the names of the spans right below `parent`, in the order of their beginning.
    pub fn names_below(&self, parent: &Span) -> Vec<String> {
        let mut below = self.spans();
        below.retain(|span| span.parent == parent.id);
        below.sort_by_key(|span| span.begin);
        below.into_iter().map(|span| span.name).collect()
    }
}

async fn take(State(received): State<Arc<Mutex<Received>>>, headers: HeaderMap, body: Bytes) -> (StatusCode, Vec<u8>) {
    if headers.get("content-type").is_none_or(|kind| kind != "application/x-protobuf") {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, Vec::new());
    }
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return (StatusCode::BAD_REQUEST, Vec::new()) };
    let mut received = received.lock().unwrap();
    received.headers.push(headers);
    for of_resource in request.resource_spans {
        let resource = read(of_resource.resource.unwrap_or_default().attributes);
        let spans = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
        received.spans.extend(spans.map(|span| span_of(span, &resource)));
    }
    (StatusCode::OK, ExportTraceServiceResponse::default().encode_to_vec())
}

fn span_of(span: Wire, resource: &BTreeMap<String, String>) -> Span {
    let kind = span.kind();
    Span {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        state: span.trace_state,
        name: span.name,
        kind,
        attributes: read(span.attributes),
        links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
        failed: span.status.is_some_and(|status| status.code() == Status::Error),
        begin: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        resource: resource.clone(),
    }
}

/// Reads attributes as text. A key that came twice is a mistake.
fn read(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let mut read = BTreeMap::new();
    for KeyValue { key, value, .. } in attributes {
        let value = match value.and_then(|AnyValue { value }| value) {
            Some(Value::StringValue(text)) => text,
            Some(Value::IntValue(number)) => number.to_string(),
            Some(Value::BoolValue(truth)) => truth.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(read.insert(key.clone(), value), None, "{key} came twice");
    }
    read
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
