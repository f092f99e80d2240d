//! Expo push: send and receipts.
//!
//! Called by the worker's fifth stop, its receipts task and `herald check`. Turns HTTP into outcomes and decides nothing
//! about an event. Push tokens never leave through a failure, a log line or `Debug`.

mod token;
mod wire;
mod classify;
mod rate;
mod send;
mod receipts;
#[cfg(any(test, fuzzing))]
pub mod answers;

use std::{fmt, sync::Arc, time::Instant};

use anyhow::Context as _;
use futures::FutureExt as _;
use http::HeaderValue;
use secrecy::ExposeSecret as _;
use url::Url;

use crate::{
    config,
    domain::outcome::{Failure, FailureKind, Provider, Refusal},
};

use self::{rate::Rate, send::Message};
use super::{
    coalescer::{Coalescer, Limits, Lost},
    gate::Gate,
    http::{Http, check_url},
};

pub use token::is_push_token;

/// Expo's limits: six requests at once, a hundred recipients each. The weight bounds what one request holds in memory.
const SEND: Limits = Limits { requests: 6, eager: 3, items: 100, weight: 512 * 1024 };

/// One notification to one push token.
#[derive(Clone, PartialEq)]
pub struct Push {
    pub token: String,
    pub title: String,
    pub body: String,
    pub data: serde_json::Map<String, serde_json::Value>,
    /// Collapse id and Android tag: at most 64 bytes.
    pub collapse_id: String,
    pub ttl_seconds: u64,
    pub channel_id: Option<String>,
    pub priority: Option<String>,
    /// No request with it begins after this.
    pub until: Option<Instant>,
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever knows a push token can send to it; texts and data are the users' own.
        f.debug_struct("Push").field("collapse_id", &self.collapse_id).finish_non_exhaustive()
    }
}

/// What a receipt says.
#[derive(Debug, Clone, PartialEq)]
pub enum Receipt {
    Ok,
    Failed(Failure),
}

/// The Expo client. A handle: clones share connections, gate, rate and coalescer.
#[derive(Clone)]
pub struct Expo {
    shared: Arc<Shared>,
    send: Coalescer<Message, Result<Option<String>, Refusal>>,
}

/// What every call needs.
struct Shared {
    http: Http,
    url: Url,
    authorization: Option<HeaderValue>,
    gate: Arc<Gate>,
    rate: Rate,
}

impl Expo {
    /// Makes the client; no request is made. Errors name the configuration key that must change.
    pub fn new(config: &config::Expo) -> anyhow::Result<Expo> {
        let url = config.url.clone();
        check_url("expo.url", &url)?;
        let authorization = match &config.access_token {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret().trim()))
                    .ok()
                    .context("expo.access_token (EXPO_ACCESS_TOKEN) holds characters that no token has")?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let secrets = config.access_token.iter().map(|token| token.expose_secret().trim().to_owned());
        let http = Http::new(Provider::Expo, &url, config.timeout, secrets)?;
        let gate = Arc::new(Gate::new(Provider::Expo));
        let shared = Arc::new(Shared { http, url, authorization, gate, rate: Rate::new(config.rate) });
        let sending = shared.clone();
        let send = Coalescer::traced("expo send", SEND, move |messages| {
            let shared = sending.clone();
            async move { send::send(&shared, messages).await }.boxed()
        });
        Ok(Expo { shared, send })
    }

    /// Sends one notification and returns the ticket's id (`None`: accepted without one). A failure of kind `unknown` may
    /// have been delivered. `Held(Backlog)`: the project's rate did not let it
    /// through within five seconds, or its `until` came first.
    pub async fn send(&self, push: Push) -> Result<Option<String>, Refusal> {
        let message = Message::new(push);
        let weight = message.weight();
        let lost =
            |Lost| Refusal::Failed(Failure::new(FailureKind::Unknown, "lost", "the send ended without an answer"));
        self.send.ask(message, weight).await.map_err(lost)?
    }

    /// Tells how many workers share the project's rate.
    pub fn share_rate(&self, workers: u32) {
        self.shared.rate.share(workers);
    }

    /// Returns the gate.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.shared.gate
    }
}
