//! What can be set about the sandbox: limits, delays, sizes, keys and devices.
//!
//! The defaults are the providers' own limits, so that a worker tuned against the sandbox does not learn wrong numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Limits and delays; settable at start, at run time and by `POST /_sandbox/settings` (only the named keys change).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Publishes a second and Ably channel; 0 for no limit.
    pub channel_rate: u32,
    /// Ably requests a second over all keys; 0 for no limit. Ably refuses by chance above its limit, the sandbox always.
    pub api_rate: u32,
    /// Longest Ably message (or array of messages), in bytes.
    pub message_bytes: usize,
    /// How long Ably drops a repeated message id, in seconds.
    pub dedupe_seconds: u64,
    /// Notifications a second and Expo project; 0 for no limit.
    pub project_rate: u32,
    /// Expo's enhanced push security: a send without an access token of the project is refused.
    pub enhanced_security: bool,
    /// Age at which a receipt can be read, in milliseconds.
    pub receipt_delay_ms: u64,
    /// Age at which a receipt is gone, in milliseconds.
    pub receipt_life_ms: u64,
    /// Journal entries kept; the oldest go first, the counters keep counting.
    pub journal_entries: usize,
    /// About how many bytes of memory the journal may take.
    pub journal_bytes: usize,
    /// Distinct effects kept; later ones are only counted.
    pub effects: usize,
    /// Tickets whose receipts are kept; the oldest go first.
    pub tickets: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            channel_rate: 50,
            api_rate: 0,
            message_bytes: 64 * 1024,
            dedupe_seconds: 120,
            project_rate: 600,
            enhanced_security: false,
            receipt_delay_ms: 15 * 60 * 1000,
            receipt_life_ms: 24 * 60 * 60 * 1000,
            journal_entries: 200_000,
            journal_bytes: 256 * 1024 * 1024,
            effects: 1_000_000,
            tickets: 1_000_000,
        }
    }
}

/// Whether a key or token still opens anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    #[default]
    Good,
    Revoked,
    Expired,
    /// The application it belongs to is disabled.
    Disabled,
}

/// What an Ably key or token may do: channel pattern (`*`, `namespace:*` or a name) to operations (`*` for all).
pub type Capability = BTreeMap<String, Vec<String>>;

/// An Ably key (`app.key:secret`) or token known to the sandbox.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The whole key with its secret, or the token.
    pub secret: String,
    #[serde(default = "everything")]
    pub capability: Capability,
    #[serde(default)]
    pub standing: Standing,
}

fn everything() -> Capability {
    BTreeMap::from([("*".to_owned(), vec!["*".to_owned()])])
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("capability", &self.capability).field("standing", &self.standing).finish()
    }
}

/// The key that may do everything.
pub const DEFAULT_KEY: &str = "sandbox.key:secret";
/// The Expo access token that belongs to every project of the sandbox.
pub const ACCESS_TOKEN: &str = "sandbox-access-token";
/// An Expo access token that is valid, but of an account without rights on the projects.
pub const FOREIGN_ACCESS_TOKEN: &str = "sandbox-foreign-token";

/// Returns the keys every sandbox starts with.
pub(super) fn default_credentials() -> Vec<Credential> {
    let only = |operation: &str| BTreeMap::from([("*".to_owned(), vec![operation.to_owned()])]);
    let key = |secret: &str, capability, standing| Credential { secret: secret.to_owned(), capability, standing };
    vec![
        key(DEFAULT_KEY, everything(), Standing::Good),
        key("sandbox.publisher:secret", only("publish"), Standing::Good),
        key("sandbox.subscriber:secret", only("subscribe"), Standing::Good),
        key("sandbox.revoked:secret", everything(), Standing::Revoked),
        key("sandbox.expired:secret", everything(), Standing::Expired),
        key("sandbox.disabled:secret", everything(), Standing::Disabled),
    ]
}

/// What the sandbox knows of one push token beside what the token itself says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Device {
    /// `@owner/slug`; absent: taken from the token.
    pub project: Option<String>,
    /// An outcome from the table of magic tokens, e.g. `unregistered`; absent: taken from the token.
    pub outcome: Option<String>,
}
