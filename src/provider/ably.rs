//! Ably REST: presence and publish.
//!
//! Called by the worker's third stop (presence) and fifth (publish), and by `herald check`. Turns HTTP into outcomes and
//! decides nothing about an event. The wire format is that of protocol 6, <https://ably.com/docs/api/rest-api>.

mod wire;
mod classify;
mod hosts;
mod transport;
mod presence;
mod publish;
mod check;
#[cfg(any(test, fuzzing))]
pub mod answers;

use std::{sync::Arc, time::Instant};

use futures::FutureExt as _;

use crate::{
    config,
    domain::outcome::{Failure, FailureKind, Provider, Refusal},
};

use self::{presence::Ask, publish::Message, transport::Transport};
use super::{
    coalescer::{Coalescer, Limits, Lost},
    gate::Gate,
};

/// Channels in one query, and the query's bytes: no limit of its length is documented, 8 KiB is common.
const PRESENCE: Limits = Limits { requests: 16, eager: 6, items: 100, weight: 6 * 1024 };
/// Distinct channels in one batch, and its bytes below Ably's 2 MiB.
const PUBLISH: Limits = Limits { requests: 16, eager: 6, items: 100, weight: 3 * 512 * 1024 };

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
    /// No request with it begins after this.
    pub until: Option<Instant>,
}

/// The Ably client. A handle: clones share connections, gate and coalescers.
#[derive(Clone)]
pub struct Ably {
    shared: Arc<Shared>,
    presence: Coalescer<Ask, Result<Presence, Failure>>,
    publish: Coalescer<Message, Result<String, Refusal>>,
    /// Session and presence channel, for `check`.
    templates: Arc<[String; 2]>,
}

/// What every call needs.
struct Shared {
    transport: Transport,
    gate: Arc<Gate>,
}

impl Ably {
    /// Makes the client; no request is made. `key` is `appId.keyId:secret` (Basic) or a token (Bearer). Errors name the
    /// configuration key that must change.
    pub fn new(config: &config::Ably, key: &secrecy::SecretString) -> anyhow::Result<Ably> {
        let transport = Transport::new(config, key)?;
        let shared = Arc::new(Shared { transport, gate: Arc::new(Gate::new(Provider::Ably)) });
        let (looking, publishing) = (shared.clone(), shared.clone());
        let presence = Coalescer::traced("ably presence", PRESENCE, move |asks| {
            let shared = looking.clone();
            async move { presence::look_up(&shared, asks).await.into_iter().map(presence::known).collect() }.boxed()
        });
        let publish = Coalescer::traced("ably publish", PUBLISH, move |messages| {
            let shared = publishing.clone();
            async move { publish::publish(&shared, messages).await }.boxed()
        });
        let templates = Arc::new([config.session_channel.clone(), config.presence_channel.clone()]);
        Ok(Ably { shared, presence, publish, templates })
    }

    /// Looks up whether `client_id` is present on `channel`. Every failure means unknown; with a shut gate it has the code
    /// `held_<cause>` and no request was made.
    pub async fn presence(&self, channel: &str, client_id: &str) -> Result<Presence, Failure> {
        addressable(channel)?;
        let ask = Ask { channel: channel.to_owned(), client_id: client_id.to_owned() };
        let weight = ask.weight();
        let lost = |Lost| Failure::new(FailureKind::Transient, "lost", "the look-up ended without an answer");
        self.presence.ask(ask, weight).await.map_err(lost)?
    }

    /// Publishes and returns Ably's message id. A failure of kind `unknown` may have been published: alone, a message is
    /// repeated safely for two minutes; what travelled in a batch is not. `Held(Backlog)`: its `until` came first.
    pub async fn publish(&self, publish: Publish) -> Result<String, Refusal> {
        addressable(&publish.channel).map_err(Refusal::Failed)?;
        let message = Message::new(publish);
        let weight = message.weight();
        let lost =
            |Lost| Refusal::Failed(Failure::new(FailureKind::Unknown, "lost", "the publish ended without an answer"));
        self.publish.ask(message, weight).await.map_err(lost)?
    }

    /// Returns the gate.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.shared.gate
    }
}

fn addressable(channel: &str) -> Result<(), Failure> {
    match wire::is_addressable(channel) {
        true => Ok(()),
        false => Err(Failure::new(FailureKind::Rejected, "channel", format!("`{channel}` cannot name a channel"))),
    }
}
