//! One call to Ably: authorised, over the hosts in their order, with quick tries for what is safe to repeat.
//!
//! Called by presence, publish and check. Returns answers and faults; whether the gate lets a call out is decided before.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, header};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;
use url::Url;

use crate::{
    config,
    domain::outcome::{Failure, FailureKind, Provider},
    provider::{
        http::{Broken, Http, Reply, check_url, is_loopback},
        tries::Tries,
    },
};

use super::{
    classify::{Fault, Scope, fault, is_legacy_partial},
    hosts::Hosts,
    wire,
};

/// Protocol version: without it Ably answers batches in the shapes of its first version.
const VERSION: &str = "6";
const AGENT: &str = concat!("herald/", env!("CARGO_PKG_VERSION"));
/// Largest answer read: a batch of presence sets is the largest.
const MAX_ANSWER: usize = 1024 * 1024;

/// Whether a call may be made again when its answer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    Safe,
    /// Only while nothing has been sent.
    Never,
}

/// One call.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// The metric's label.
    pub(super) endpoint: &'static str,
    /// Path and query, percent-encoded, from the slash on.
    pub(super) target: String,
    /// `Some`: a POST of this JSON.
    pub(super) body: Option<Bytes>,
    pub(super) repeat: Repeat,
    /// No further attempt begins after this.
    pub(super) until: Option<std::time::Instant>,
}

/// Connections to Ably.
#[derive(Debug)]
pub(super) struct Transport {
    http: Http,
    hosts: Hosts,
    authorization: HeaderValue,
}

/// An attempt without a success.
struct Attempt {
    fault: Fault,
    /// The request may have been heard.
    sent: bool,
    /// Another host may do better (RSC15l).
    elsewhere: bool,
}

impl Transport {
    /// Makes the transport; no request is made.
    pub(super) fn new(config: &config::Ably, key: &SecretString) -> anyhow::Result<Transport> {
        let url = &config.url;
        let plain = url.scheme() == "http";
        check_url("ably.url", url)?;
        let key = key.expose_secret().trim();
        anyhow::ensure!(!key.is_empty(), "ably.key (ABLY_API_KEY) is empty");
        let scheme = if key.contains(':') {
            anyhow::ensure!(
                !plain || is_loopback(url),
                "ably.url: an API key may not travel over plain http to `{}`; use https, or a loopback address",
                url.host_str().unwrap_or_default()
            );
            format!("Basic {}", BASE64_STANDARD.encode(key))
        } else {
            format!("Bearer {key}")
        };
        let mut authorization = HeaderValue::try_from(scheme)
            .map_err(|_| anyhow::anyhow!("ably.key (ABLY_API_KEY) holds characters that no key or token has"))?;
        authorization.set_sensitive(true);
        let secret = key.split_once(':').map_or(key, |(_, secret)| secret);
        let secrets = [key.to_owned(), BASE64_STANDARD.encode(key), secret.to_owned()];
        let http = Http::new(Provider::Ably, url, config.timeout, secrets)?;
        Ok(Transport { http, hosts: Hosts::new(url.clone()), authorization })
    }

    /// Records how many items a call carries.
    pub(super) fn carries(&self, endpoint: &'static str, items: usize) {
        self.http.carries(endpoint, items);
    }

    /// Makes a call. An answer is a success, or the partial failure of a batch in its old shape.
    pub(super) async fn call(&self, call: &Call) -> Result<Reply, Fault> {
        let mut tries = Tries::new(call.until);
        let mut lost: Option<Fault> = None;
        loop {
            let last = match self.over_hosts(call, &tries, &mut lost).await {
                Ok(reply) => return Ok(reply),
                Err(attempt) => attempt,
            };
            let repeatable = !last.sent || call.repeat == Repeat::Safe;
            let passing = match last.fault.failure.kind {
                FailureKind::Transient | FailureKind::Unknown => true,
                FailureKind::Throttled => last.fault.scope == Scope::Item,
                FailureKind::Unauthorised | FailureKind::Rejected | FailureKind::Unregistered => false,
            };
            if repeatable && passing && tries.pause().await {
                continue;
            }
            // Whatever came later, an earlier attempt may have arrived.
            return Err(match (lost, last.fault.failure.kind) {
                (Some(lost), FailureKind::Transient | FailureKind::Throttled) => lost,
                _ => last.fault,
            });
        }
    }

    /// Returns path and query of the page after `reply`, which answered `target`.
    pub(super) fn next_target(&self, reply: &Reply, target: &str) -> Option<String> {
        // Links are written from the server's root, targets from ours.
        let base = self.hosts.base_path();
        let next = wire::next_page(reply, &format!("{base}{target}"))?;
        Some(next.strip_prefix(base).unwrap_or(&next).to_owned())
    }

    /// Tries the hosts in their order until one answers.
    async fn over_hosts(&self, call: &Call, tries: &Tries, lost: &mut Option<Fault>) -> Result<Reply, Attempt> {
        let mut last = None;
        for host in self.hosts.plan(Instant::now()) {
            if last.is_some() && !tries.another() {
                break;
            }
            let attempt = match self.once(&host, call).await {
                Ok(reply) => {
                    self.hosts.answered(&host, Instant::now());
                    return Ok(reply);
                }
                Err(attempt) => attempt,
            };
            if attempt.fault.failure.kind == FailureKind::Unknown {
                *lost = Some(attempt.fault.clone());
            }
            let stop = !attempt.elsewhere || (attempt.sent && call.repeat == Repeat::Never);
            if attempt.elsewhere {
                self.hosts.failed(&host);
            } else {
                self.hosts.answered(&host, Instant::now());
            }
            last = Some(attempt);
            if stop {
                break;
            }
        }
        Err(last
            .unwrap_or_else(|| Attempt::not_sent(Failure::new(FailureKind::Transient, "no_host", "no host to try"))))
    }

    async fn once(&self, host: &Url, call: &Call) -> Result<Reply, Attempt> {
        let base = host.as_str().trim_end_matches('/');
        let url = Url::parse(&format!("{base}{}", call.target)).map_err(|error| {
            Attempt::not_sent(Failure::new(FailureKind::Rejected, "address", format!("no address: {error}")))
        })?;
        let method = if call.body.is_some() { Method::POST } else { Method::GET };
        let mut request = self
            .http
            .request(method, url)
            .header(header::AUTHORIZATION, self.authorization.clone())
            .header(header::ACCEPT, "application/json")
            .header("x-ably-version", VERSION)
            .header("ably-agent", AGENT);
        if let Some(body) = &call.body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.clone());
        }
        match self.http.exchange(call.endpoint, request, MAX_ANSWER).await {
            Ok(reply) if (200..300).contains(&reply.status) || is_legacy_partial(&reply) => Ok(reply),
            Ok(reply) => {
                let edge = reply.headers.get(header::SERVER).is_some_and(|server| server == "CloudFront");
                let elsewhere = (500..=504).contains(&reply.status) || (edge && reply.status >= 400);
                Err(Attempt { fault: fault(&reply), sent: true, elsewhere })
            }
            Err(Broken::NotSent(failure)) => Err(Attempt::not_sent(failure)),
            Err(Broken::Lost(failure)) => {
                Err(Attempt { fault: Fault { failure, scope: Scope::Provider }, sent: true, elsewhere: true })
            }
        }
    }
}

impl Attempt {
    fn not_sent(failure: Failure) -> Attempt {
        let scope = if failure.kind == FailureKind::Rejected { Scope::Item } else { Scope::Provider };
        Attempt { elsewhere: scope == Scope::Provider, fault: Fault { failure, scope }, sent: false }
    }
}

#[cfg(test)]
#[path = "transport_tests.rs"]
mod tests;
