//! Expo push: send and receipts.

use std::{collections::HashMap, sync::Arc};

use crate::{
    config,
    domain::outcome::{Failure, Refusal},
};

use super::gate::Gate;

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
}

/// What a receipt says.
#[derive(Debug, Clone, PartialEq)]
pub enum Receipt {
    Ok,
    Failed(Failure),
}

/// The Expo client. A handle: clones share connections, gate, rate and coalescer.
#[derive(Clone)]
pub struct Expo {}

impl Expo {
    /// Makes the client; no request is made.
    pub fn new(_config: &config::Expo) -> anyhow::Result<Expo> {
        todo!()
    }

    /// Sends one notification and returns the ticket's id (`None`: accepted without one).
    pub async fn send(&self, _push: Push) -> Result<Option<String>, Refusal> {
        todo!()
    }

    /// Fetches receipts, in chunks of 300; ids without a receipt yet are absent from the answer.
    pub async fn receipts(&self, _ids: &[String]) -> Result<HashMap<String, Receipt>, Failure> {
        todo!()
    }

    /// Tells how many workers share the project's rate.
    pub fn share_rate(&self, _workers: u32) {
        todo!()
    }

    /// Returns the gate.
    pub fn gate(&self) -> &Arc<Gate> {
        todo!()
    }
}

/// Tells whether `token` looks like an Expo push token, by the rule of the official SDK's `isExpoPushToken`.
pub fn is_push_token(_token: &str) -> bool {
    todo!()
}
