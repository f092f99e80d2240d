//! Ably REST: presence and publish.

use std::sync::Arc;

use crate::{
    config,
    domain::outcome::{Failure, Refusal},
};

use super::gate::Gate;

/// What a presence look-up saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// Members with the client id asked for (one per connection).
    pub members: u32,
}

/// One message for one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub channel: String,
    /// Message name: the event's name.
    pub name: String,
    /// Message data: JSON text, sent as a string with `encoding: json` as the SDKs do.
    pub data: String,
    /// Message id, by which Ably drops a repeat within two minutes.
    pub id: String,
}

/// The Ably client. A handle: clones share connections, gate and coalescers.
#[derive(Clone)]
pub struct Ably {}

impl Ably {
    /// Makes the client; no request is made. `key` is `appId.keyId:secret` (Basic) or a token (Bearer).
    pub fn new(_config: &config::Ably, _key: &secrecy::SecretString) -> anyhow::Result<Ably> {
        todo!()
    }

    /// Looks up whether `client_id` is present on `channel`. Every failure, an open breaker too, means unknown.
    pub async fn presence(&self, _channel: &str, _client_id: &str) -> Result<Presence, Failure> {
        todo!()
    }

    /// Publishes and returns Ably's message id.
    pub async fn publish(&self, _publish: Publish) -> Result<String, Refusal> {
        todo!()
    }

    /// Returns the gate.
    pub fn gate(&self) -> &Arc<Gate> {
        todo!()
    }
}
