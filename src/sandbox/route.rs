//! Which call of which provider a request is.
//!
//! Read by the server for every request outside `/_sandbox`; must stay free of state, so that a fault, a counter and a
//! journal entry always mean the same call.

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

/// Whose place the sandbox takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    Ably,
    Expo,
}

/// One call of a provider's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `GET /channels/{channel}/presence`
    Presence,
    /// `POST /channels/{channel}/messages`
    Publish,
    /// `POST /messages`
    BatchPublish,
    /// `GET /presence?channels=`
    BatchPresence,
    /// `GET /channels/{channel}`
    Channel,
    /// `GET /time`
    Time,
    /// `POST /--/api/v2/push/send`
    Send,
    /// `POST /--/api/v2/push/getReceipts`
    Receipts,
    /// Anything else: answered 404.
    Other,
}

impl Endpoint {
    /// Every endpoint, in the order of the counters.
    pub(super) const ALL: [Self; 9] = [
        Self::Presence,
        Self::Publish,
        Self::BatchPublish,
        Self::BatchPresence,
        Self::Channel,
        Self::Time,
        Self::Send,
        Self::Receipts,
        Self::Other,
    ];

    /// Returns the name used in the journal, the counters and the fault rules.
    pub fn name(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Publish => "publish",
            Self::BatchPublish => "batch_publish",
            Self::BatchPresence => "batch_presence",
            Self::Channel => "channel",
            Self::Time => "time",
            Self::Send => "send",
            Self::Receipts => "receipts",
            Self::Other => "other",
        }
    }

    /// Returns whose endpoint this is; what nobody knows counts as Ably's, who owns the root.
    pub fn provider(self) -> Provider {
        match self {
            Self::Send | Self::Receipts => Provider::Expo,
            _ => Provider::Ably,
        }
    }
}

/// A request's endpoint and, where the path names one, its channel (decoded).
#[derive(Debug, PartialEq)]
pub(super) struct Route {
    pub endpoint: Endpoint,
    pub channel: String,
}

/// Returns which call `method` on the raw (still encoded) `path` is.
pub(super) fn route(method: &str, path: &str) -> Route {
    let bare = |endpoint| Route { endpoint, channel: String::new() };
    // The Expo SDK glues its paths to a base URL that may end in a slash.
    let expo: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match (method, expo.as_slice()) {
        ("POST", ["--", "api", "v2", "push", "send"]) => return bare(Endpoint::Send),
        ("POST", ["--", "api", "v2", "push", "getReceipts"]) => return bare(Endpoint::Receipts),
        _ => {}
    }
    // Ably's paths keep empty segments: `/channels//messages` names the channel "", which is refused as such.
    let ably: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    let on = |endpoint, channel: &str| Route {
        endpoint,
        channel: percent_decode_str(channel).decode_utf8_lossy().into_owned(),
    };
    match (method, ably.as_slice()) {
        ("GET", ["channels", channel, "presence"]) => on(Endpoint::Presence, channel),
        ("POST", ["channels", channel, "messages"]) => on(Endpoint::Publish, channel),
        ("GET", ["channels", channel]) => on(Endpoint::Channel, channel),
        ("POST", ["messages"]) => bare(Endpoint::BatchPublish),
        ("GET", ["presence"]) => bare(Endpoint::BatchPresence),
        ("GET", ["time"]) => bare(Endpoint::Time),
        _ => bare(Endpoint::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_their_endpoint_and_channel() {
        let table = [
            ("GET", "/channels/a/presence", Endpoint::Presence, "a"),
            ("GET", "/channels/chat%3Aroom%201%2F%C3%BC/presence", Endpoint::Presence, "chat:room 1/ü"),
            ("POST", "/channels/a:b/messages", Endpoint::Publish, "a:b"),
            ("POST", "/channels//messages", Endpoint::Publish, ""),
            ("GET", "/channels/a", Endpoint::Channel, "a"),
            ("POST", "/messages", Endpoint::BatchPublish, ""),
            ("GET", "/presence", Endpoint::BatchPresence, ""),
            ("GET", "/time", Endpoint::Time, ""),
            ("POST", "/--/api/v2/push/send", Endpoint::Send, ""),
            ("POST", "//--/api/v2/push/getReceipts", Endpoint::Receipts, ""),
            ("GET", "/messages", Endpoint::Other, ""),
            ("GET", "/--/api/v2/push/send", Endpoint::Other, ""),
        ];
        for (method, path, endpoint, channel) in table {
            assert_eq!(route(method, path), Route { endpoint, channel: channel.to_owned() }, "{method} {path}");
        }
    }
}
