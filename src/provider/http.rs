//! One HTTP exchange: sent or not, answered or lost, with a timeout, a cap on the body and a metric.
//!
//! Called by both provider clients. Says what happened on the wire and nothing of what it means; never repeats a request,
//! never follows a redirect, and keeps addresses (they name users) and credentials out of every failure.

use std::{
    error::Error as _,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use opentelemetry::trace::SpanKind;
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use crate::{
    domain::outcome::{Failure, FailureKind, Provider},
    trace::Span,
};

/// Longest time to a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Servers close idle connections after a minute or so; a request must not meet one that is just being closed.
const IDLE: Duration = Duration::from_secs(20);

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// No answer, or not all of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Broken {
    /// The request never left: no connection could be made.
    NotSent(Failure),
    /// The request went out; whether it was heard nobody knows.
    Lost(Failure),
}

impl Broken {
    /// Returns the failure for a request that must not happen twice.
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Broken::NotSent(failure) | Broken::Lost(failure) => failure,
        }
    }
}

/// A connection pool for one provider.
#[derive(Debug)]
pub(super) struct Http {
    client: reqwest::Client,
    provider: Provider,
    /// Our credentials, in the forms in which an answer could quote them.
    own: Vec<SecretString>,
}

/// Shorter credentials are not looked for in answers: they could be words of the answer itself.
const SHORTEST_SECRET: usize = 16;

impl Http {
    /// Makes the pool. `timeout` bounds each exchange from its first to its last byte; `secrets` are taken out of every answer,
    /// because error texts of providers and of whatever stands in front of them are kept.
    pub(super) fn new(
        provider: Provider,
        url: &Url,
        timeout: Duration,
        secrets: impl IntoIterator<Item = String>,
    ) -> anyhow::Result<Http> {
        // Err means that somebody in this process has installed one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("herald/", env!("CARGO_PKG_VERSION")))
            .timeout(timeout)
            // Below the whole timeout, so that a connection never made is told from an answer that never came.
            .connect_timeout(CONNECT_TIMEOUT.min(timeout / 2))
            .pool_idle_timeout(IDLE)
            .http2_keep_alive_interval(IDLE)
            .http2_keep_alive_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(url) {
            builder = builder.no_proxy();
        }
        let client = builder.build().with_context(|| format!("cannot prepare HTTPS for {provider}"))?;
        let own = secrets.into_iter().filter(|secret| secret.len() >= SHORTEST_SECRET).map(SecretString::from);
        Ok(Http { client, provider, own: own.collect() })
    }

    /// Starts a request.
    pub(super) fn request(&self, method: reqwest::Method, url: Url) -> reqwest::RequestBuilder {
        self.client.request(method, url)
    }

    /// Sends `request` and reads the answer, up to `cap` bytes of body. `endpoint` is the metric's label.
    pub(super) async fn exchange(
        &self,
        endpoint: &'static str,
        request: reqwest::RequestBuilder,
        cap: usize,
    ) -> Result<Reply, Broken> {
        let started = Instant::now();
        let span = Span::call(SpanKind::Client, || format!("{} {endpoint}", self.provider));
        let mut result = read(&span, request, cap).await;
        if let Ok(reply) = &mut result {
            self.own.iter().for_each(|secret| take_out(reply, secret.expose_secret()));
        }
        let told = match &result {
            Ok(reply) => match reply.status {
                200..300 => "ok",
                429 => "throttled",
                401 | 403 => "unauthorised",
                500.. => "server_error",
                _ => "refused",
            },
            Err(Broken::NotSent(_)) => "not_sent",
            Err(Broken::Lost(_)) => "lost",
        };
        let provider = self.provider.as_str();
        metrics::counter!("herald_provider_requests_total", "provider" => provider, "endpoint" => endpoint, "result" => told)
            .increment(1);
        if told != "ok" {
            span.failed(|| told);
        }
        metrics::histogram!("herald_provider_request_duration_seconds", "provider" => provider, "endpoint" => endpoint)
            .record(started.elapsed().as_secs_f64());
        result
    }

    /// Records how many items one request carries.
    pub(super) fn carries(&self, endpoint: &'static str, items: usize) {
        metrics::histogram!("herald_batch_size", "provider" => self.provider.as_str(), "endpoint" => endpoint)
            .record(items as f64);
    }
}

async fn read(span: &Span, request: reqwest::RequestBuilder, cap: usize) -> Result<Reply, Broken> {
    let (client, request) = request.build_split();
    let request = request.map_err(broken)?;
    span.note("http.request.method", || request.method().to_string());
    span.note("server.address", || request.url().host_str().unwrap_or_default().to_owned());
    span.note("server.port", || request.url().port_or_known_default().map_or(0, i64::from));
    let mut response = client.execute(request).await.map_err(broken)?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    span.note("http.response.status_code", || i64::from(status));
    let mut body = BytesMut::new();
    loop {
        let lost = match response.chunk().await {
            Ok(None) => return Ok(Reply { status, headers, body: body.freeze() }),
            Ok(Some(chunk)) if body.len() + chunk.len() <= cap => {
                body.extend_from_slice(&chunk);
                continue;
            }
            Ok(Some(_)) => Failure::new(FailureKind::Unknown, "too_long", format!("an answer of over {cap} bytes")),
            Err(error) => broken(error).into_failure(),
        };
        // A refusal is one by its status, whatever became of its text.
        return match status {
            200..300 => Err(Broken::Lost(lost.with_status(status))),
            _ => Ok(Reply { status, headers, body: body.freeze() }),
        };
    }
}

/// Takes `secret` out of body and headers.
fn take_out(reply: &mut Reply, secret: &str) {
    let finder = memchr::memmem::Finder::new(secret);
    let quotes = |bytes: &[u8]| finder.find(bytes).is_some();
    if quotes(&reply.body) {
        reply.body = String::from_utf8_lossy(&reply.body).replace(secret, "[redacted]").into();
    }
    for value in reply.headers.values_mut().filter(|value| quotes(value.as_bytes())) {
        *value = http::HeaderValue::from_static("[redacted]");
    }
}

/// Tells a request that never left from one whose answer is lost. In doubt it is lost.
fn broken(error: reqwest::Error) -> Broken {
    let detail = causes(&error);
    if error.is_builder() {
        return Broken::NotSent(Failure::new(FailureKind::Rejected, "request", detail));
    }
    if error.is_connect() {
        let code = if error.is_timeout() { "connect_timeout" } else { "connect" };
        return Broken::NotSent(Failure::new(FailureKind::Transient, code, detail));
    }
    let code = if error.is_timeout() { "timeout" } else { "connection_lost" };
    Broken::Lost(Failure::new(FailureKind::Unknown, code, detail))
}

/// Returns the causes below `error`, which itself only repeats the address.
pub(crate) fn causes(error: &reqwest::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        // An inner reqwest error would name the address again.
        let cause_text = cause.to_string();
        if !cause.is::<reqwest::Error>() && causes.last() != Some(&cause_text) {
            causes.push(cause_text);
        }
        next = cause.source();
    }
    if causes.is_empty() { "no further reason given".to_owned() } else { causes.join(": ") }
}

/// Returns how long the answer asks to wait. Only seconds are read: a date would need the server's clock to be ours.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Returns the beginning of an answer's text, for a failure's detail.
pub(super) fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(400)]);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Refuses a URL that is not the plain address of a server; the error names the configuration key.
pub(super) fn check_url(key: &str, url: &Url) -> anyhow::Result<()> {
    anyhow::ensure!(matches!(url.scheme(), "http" | "https"), "{key}: `{}` is neither http nor https", url.scheme());
    anyhow::ensure!(
        url.username().is_empty() && url.password().is_none(),
        "{key}: credentials do not belong in the address"
    );
    anyhow::ensure!(
        url.query().is_none() && url.fragment().is_none(),
        "{key}: an address without `?` and `#` is needed"
    );
    Ok(())
}

/// Tells whether `url` stays on this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_seconds_are_read_from_retry_after() {
        for (value, expected) in [
            ("0", Some(0)),
            (" 30 ", Some(30)),
            ("-1", None),
            ("1.5", None),
            ("Wed, 21 Oct 2026 07:28:00 GMT", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(http::header::RETRY_AFTER, value.parse().unwrap())]);
            assert_eq!(retry_after(&headers), expected.map(Duration::from_secs), "{value:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn our_own_credentials_are_taken_out_of_an_answer() {
        let headers = HeaderMap::from_iter([
            ("x-ably-errormessage".parse().unwrap(), "no app.key:0123456789abcdef here".parse().unwrap()),
            ("x-other".parse().unwrap(), "stays".parse().unwrap()),
        ]);
        let body = Bytes::from_static(b"key app.key:0123456789abcdef, again app.key:0123456789abcdef.");
        let mut reply = Reply { status: 401, headers, body };
        take_out(&mut reply, "app.key:0123456789abcdef");
        assert_eq!(reply.body, "key [redacted], again [redacted].");
        assert_eq!(
            (&reply.headers["x-ably-errormessage"], &reply.headers["x-other"]),
            (&"[redacted]".parse().unwrap(), &"stays".parse().unwrap())
        );
    }

    #[test]
    fn loopback_is_known_by_its_names() {
        for (url, expected) in [
            ("http://localhost:1", true),
            ("http://ably.localhost", true),
            ("http://127.0.0.2:8181", true),
            ("http://[::1]:1", true),
            ("http://10.0.0.1", false),
            ("http://localhost.example", false),
            ("https://main.realtime.ably.net", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn an_excerpt_is_short_and_on_one_line() {
        assert_eq!(excerpt(b"<html>\n  <h1>502</h1>\r\n</html>"), "<html> <h1>502</h1> </html>");
        assert!(excerpt(&[b'x'; 9000]).len() <= 400);
        assert_eq!(excerpt(&[0xff, b'a']), "\u{fffd}a");
    }
}
