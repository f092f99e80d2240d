//! Spans on their way to the OTLP receiver: a bounded queue, batches, and one request at a time.
//!
//! Started by `herald run` when `otlp.endpoint` is set, finished at its end. Ending a span puts it into the queue and waits for
//! nothing; with a receiver that is away or slow the queue fills, and what does not fit is dropped and counted.
//! herald sends by itself rather than through the SDK's batch processor, which has a thread without a runtime and tells nobody
//! how much it drops.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use opentelemetry::{Context, Key, KeyValue, trace::TracerProvider as _};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor},
};
use secrecy::ExposeSecret as _;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{config, domain::redact, provider::http};

use super::TRACER;

/// Spans that may wait: nine megabytes (measured, with an event of thirteen spans).
const QUEUE: usize = 8192;
/// Spans in one request.
const BATCH: usize = 1024;
/// How long a span waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// For one batch, repeats included.
const EXPORT: Duration = Duration::from_secs(10);
/// For what is left at the end.
const FLUSH: Duration = Duration::from_secs(3);
/// Between two log lines about a receiver that takes nothing.
const SAID: Duration = Duration::from_secs(60);
/// Largest answer read.
const MAX_ANSWER: usize = 64 * 1024;

/// The running export.
pub(crate) struct Export {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Begins to export traces, if a receiver is configured. Once in a process: a second call goes on with the first's.
pub(crate) fn start(config: &config::Otlp, instance: &str) -> anyhow::Result<Option<Export>> {
    let Some(endpoint) = &config.endpoint else { return Ok(None) };
    let url = address(endpoint.expose_secret())?;
    let client = Client { http: client(&url)?, problem: Arc::default() };
    let problem = client.problem.clone();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url.as_str())
        .with_timeout(EXPORT)
        .build();
    // The exporter's own words may quote the address.
    let mut exporter = exporter.map_err(|error| anyhow::anyhow!("otlp.endpoint: {}", redact(&error.to_string())))?;
    let resource = resource(instance);
    exporter.set_resource(&resource);

    let (queue, spans) = mpsc::channel(QUEUE);
    let provider = SdkTracerProvider::builder().with_span_processor(Queue(queue)).with_resource(resource).build();
    if TRACER.set(provider.tracer("herald")).is_err() {
        return Ok(None);
    }
    let stop = CancellationToken::new();
    let task = tokio::spawn(send_on(exporter, problem, spans, stop.clone()));
    tracing::info!(receiver = url.host_str(), "traces are exported");
    Ok(Some(Export { stop, task }))
}

impl Export {
    /// Sends what waits, for at most three seconds.
    pub(crate) async fn finish(mut self) {
        self.stop.cancel();
        if timeout(FLUSH, &mut self.task).await.is_err() {
            self.task.abort();
            tracing::warn!("the last traces are dropped: otlp.endpoint does not take them in time");
        }
    }
}

/// Returns where traces are sent to: the endpoint is that of all signals, and some name this one's.
fn address(endpoint: &str) -> anyhow::Result<Url> {
    let mut url = Url::parse(endpoint).context("otlp.endpoint is no URL")?;
    let path = url.path().trim_end_matches('/').trim_end_matches("/v1/traces").to_owned();
    url.set_path(&format!("{path}/v1/traces"));
    Ok(url)
}

fn client(url: &Url) -> anyhow::Result<reqwest::Client> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("herald/", env!("CARGO_PKG_VERSION")))
        .timeout(EXPORT)
        .connect_timeout(EXPORT / 2)
        .redirect(reqwest::redirect::Policy::none());
    let builder = if http::is_loopback(url) { builder.no_proxy() } else { builder };
    builder.build().context("cannot prepare HTTPS for otlp.endpoint")
}

/// Who tells all this. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` are the ecosystem's own.
fn resource(instance: &str) -> Resource {
    let found = Resource::builder().build();
    let named = |key: &'static str| found.get(&Key::from_static_str(key)).map(|value| value.to_string());
    let mut builder = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if named("service.name").is_none_or(|name| name.starts_with("unknown_service")) {
        builder = builder.with_service_name("herald");
    }
    if named("service.instance.id").is_none() {
        builder = builder.with_attribute(KeyValue::new("service.instance.id", instance.to_owned()));
    }
    builder.build()
}

/// Takes spans in as they end.
#[derive(Debug)]
struct Queue(mpsc::Sender<SpanData>);

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _cx: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.0.try_send(span).is_err() {
            count("dropped", 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn count(result: &'static str, spans: usize) {
    metrics::counter!("herald_trace_spans_total", "result" => result).increment(spans as u64);
}

/// Sends batches until told to stop, and then what is left.
async fn send_on(
    exporter: SpanExporter,
    problem: Arc<Mutex<String>>,
    mut spans: mpsc::Receiver<SpanData>,
    stop: CancellationToken,
) {
    let mut said: Option<Instant> = None;
    loop {
        let mut batch = Vec::new();
        let gathering = async {
            let mut room = BATCH;
            while room > 0 {
                match spans.recv_many(&mut batch, room).await {
                    0 => break,
                    more => room -= more,
                }
            }
        };
        tokio::select! {
            biased;
            _ = timeout(GATHER, gathering) => {}
            () = stop.cancelled() => spans.close(),
        }
        if batch.is_empty() {
            // Closed, it no longer waits: this was the last.
            if spans.is_closed() && spans.is_empty() {
                return;
            }
            continue;
        }
        let sent = batch.len();
        let why = match timeout(EXPORT, exporter.export(batch)).await {
            Ok(Ok(())) => {
                count("exported", sent);
                continue;
            }
            Ok(Err(error)) => redact(&error.to_string()),
            Err(_) => format!("no answer within {} s", EXPORT.as_secs()),
        };
        count("failed", sent);
        if said.is_none_or(|at| at.elapsed() >= SAID) {
            let because = std::mem::take(&mut *problem.lock().unwrap_or_else(PoisonError::into_inner));
            tracing::warn!(why, because, "otlp.endpoint does not take the traces; they are dropped, events go on");
            said = Some(Instant::now());
        }
    }
}

/// The exporter's way to the receiver.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    /// Why the last request failed; the exporter itself says only that it did.
    problem: Arc<Mutex<String>>,
}

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: ::http::Request<Bytes>,
    ) -> BoxFuture<'b, Result<::http::Response<Bytes>, HttpError>>
    where
        'a: 'b,
        Self: 'b,
    {
        let answered = async {
            let (parts, body) = request.into_parts();
            // Credentials in the address become a header.
            let request = self.http.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
            let mut answer = request.send().await?;
            let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await? {
                body.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER - body.len())]);
            }
            Ok((status, headers, body))
        };
        async move {
            let (status, headers, body) = answered.await.map_err(|error: reqwest::Error| {
                let causes = redact(&http::causes(&error));
                *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = causes.clone();
                causes
            })?;
            let mut response = ::http::Response::new(body.into());
            (*response.status_mut(), *response.headers_mut()) = (status, headers);
            Ok(response)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use opentelemetry::trace::{Span as _, Tracer as _};

    use super::*;

    #[test]
    fn what_does_not_fit_into_the_queue_is_dropped_and_counted() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let (queue, mut spans) = mpsc::channel(1);
        let tracer = SdkTracerProvider::builder().with_span_processor(Queue(queue)).build().tracer("test");
        metrics::with_local_recorder(&recorder, || ["kept", "dropped"].map(|name| tracer.start(name).end()));
        assert_eq!(spans.try_recv().unwrap().name, "kept");
        assert!(spans.try_recv().is_err());
        let counted = recorder.handle().render();
        assert!(counted.contains("herald_trace_spans_total{result=\"dropped\"} 1"), "{counted}");
    }

    #[test]
    fn the_endpoint_is_that_of_all_signals_or_of_this_one() {
        for (endpoint, expected) in [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            ("https://user:word@collector/base/", "https://user:word@collector/base/v1/traces"),
            ("http://localhost:4318/v1/traces", "http://localhost:4318/v1/traces"),
        ] {
            assert_eq!(address(endpoint).unwrap().as_str(), expected);
        }
    }
}
