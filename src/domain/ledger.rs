//! What the ledger keeps of an event: its state, what was known, what was decided and every attempt.
//!
//! Called by `worker` (writes), `store` (keeps), `cli` and `http` (read). Holds no push token: targets are named by a
//! hash and shown by their last four characters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    catalogue::RouteRule,
    outcome::{Failure, HoldCause, Provider},
};

/// Name of one target of an event: `ably`, or `expo:` and twelve hex digits of the push token's hash.
pub type TargetKey = String;

/// The target key of the session channel.
pub const ABLY_TARGET: &str = "ably";

/// How an event was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    Realtime,
    Push,
    Both,
}

impl Via {
    pub const ALL: [Via; 3] = [Via::Realtime, Via::Push, Via::Both];

    /// Returns the name as it stands in the ledger, headers and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Via::Realtime => "realtime",
            Via::Push => "push",
            Via::Both => "both",
        }
    }
}

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Waiting,
    Done,
    Skipped,
    Dead,
}

impl State {
    pub const ALL: [State; 4] = [State::Waiting, State::Done, State::Skipped, State::Dead];

    /// Returns the name as it stands in the ledger and in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Done => "done",
            State::Skipped => "skipped",
            State::Dead => "dead",
        }
    }

    /// Reads what [`State::as_str`] wrote.
    pub fn parse(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// Why an event was skipped: there is nobody to deliver to, and that is normal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    Expired,
    NoRecipient,
    NoUser,
    NoToken,
    InvalidToken,
    Excluded,
    OptedOut,
}

impl SkipReason {
    pub const ALL: [SkipReason; 7] = [
        SkipReason::Expired,
        SkipReason::NoRecipient,
        SkipReason::NoUser,
        SkipReason::NoToken,
        SkipReason::InvalidToken,
        SkipReason::Excluded,
        SkipReason::OptedOut,
    ];

    /// Returns the reason as it stands in the ledger and in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            SkipReason::Expired => "expired",
            SkipReason::NoRecipient => "no_recipient",
            SkipReason::NoUser => "no_user",
            SkipReason::NoToken => "no_token",
            SkipReason::InvalidToken => "invalid_token",
            SkipReason::Excluded => "excluded",
            SkipReason::OptedOut => "opted_out",
        }
    }
}

/// Why an event ended in the dead-letter queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// It could not be read.
    Malformed,
    /// The provider says it will never take it.
    Rejected,
    /// Every retry of the schedule was used.
    Exhausted,
    /// Its life ended while it waited.
    Expired,
    /// It may or may not have arrived, and may not be repeated again.
    Unknown,
    /// Workers died while they handled it, ten times.
    CrashedWorker,
}

impl DeadReason {
    pub const ALL: [DeadReason; 6] = [
        DeadReason::Malformed,
        DeadReason::Rejected,
        DeadReason::Exhausted,
        DeadReason::Expired,
        DeadReason::Unknown,
        DeadReason::CrashedWorker,
    ];

    /// Returns the reason as it stands in headers, the ledger and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            DeadReason::Malformed => "malformed",
            DeadReason::Rejected => "rejected",
            DeadReason::Exhausted => "exhausted",
            DeadReason::Expired => "expired",
            DeadReason::Unknown => "unknown",
            DeadReason::CrashedWorker => "crashed_worker",
        }
    }
}

/// What was known when the route was decided.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// `present`, `absent`, `unknown` or absent when nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence: Option<String>,
    /// When presence was read, in milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence_at: Option<i64>,
    /// Members of the presence channel seen with the recipient's client id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<u32>,
    /// Why presence is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence_failure: Option<Failure>,
    /// The last four characters of each usable push token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<String>,
    /// Push tokens that are not Expo tokens and were passed over.
    #[serde(default)]
    pub invalid_tokens: u32,
    /// Which rule decided, as a sentence.
    #[serde(default)]
    pub rule: String,
    /// The catalogue's route for the event when it was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<RouteRule>,
    /// Why the recipient could not be pushed to, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
    /// Why the event travelled as a copy, when it did: it may have come later than others of its session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<String>,
}

/// What is known of each target. Boxed, because a map makes room for eleven at once, and most events have one.
pub type Targets = BTreeMap<TargetKey, Box<TargetRecord>>;

/// What is known of one target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TargetRecord {
    pub accepted: bool,
    /// The target will never accept: rejected or unregistered.
    #[serde(default)]
    pub closed: bool,
    /// Sends of unknown fate so far.
    #[serde(default)]
    pub unknown: u32,
    /// Last four characters of the push token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The provider's id of the accepted send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// What the receipt said, once fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    /// The last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// One send to one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Milliseconds since the epoch.
    pub at: i64,
    /// Attempts made before this one.
    pub attempt: u32,
    pub target: TargetKey,
    pub provider: Provider,
    pub duration_ms: u64,
    /// `accepted`, a failure kind, or `held`.
    pub outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HoldCause>,
}

/// What the ledger says of a receipt without an error.
pub const RECEIPT_OK: &str = "ok";
/// What the ledger says when Expo never had a receipt.
pub const RECEIPT_UNKNOWN: &str = "unknown: Expo had no receipt within 24 h of the send";

/// Attempts kept per event; the oldest but the first go when there are more.
pub const MAX_ATTEMPTS_KEPT: usize = 60;

/// One row of the ledger: everything herald knows of one identity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Key of the row: a hash of id, session, partner (and CloudEvents source).
    pub identity: String,
    pub event_id: String,
    pub session_id: Option<String>,
    pub partner_id: Option<String>,
    pub event: Option<String>,
    /// Hash of the content, to tell a repeat from a reused id.
    pub fingerprint: String,
    pub state: State,
    /// Reason of the state: skip reason, dead reason, or why it waits.
    pub reason: Option<String>,
    /// What the reason means for this event, as a bounded sentence.
    pub detail: Option<String>,
    pub via: Option<Via>,
    /// `realtime`, `push` or `both`: what was decided to send.
    pub route: Option<String>,
    pub evidence: Evidence,
    pub targets: Targets,
    pub attempts: Vec<AttemptRecord>,
    /// Attempts made.
    pub attempt: u32,
    /// Times it was replayed from the dead-letter queue.
    pub replay: u32,
    /// Queue it waits in, when it waits.
    pub queue: Option<String>,
    /// All times in milliseconds since the epoch.
    pub first_seen: i64,
    pub updated_at: i64,
    /// When it is tried next, when it waits.
    pub next_at: Option<i64>,
    pub expires_at: i64,
    /// Claims on it whose owner died.
    pub crashes: u32,
    /// Times the same identity came again.
    pub repeats: u32,
    /// Times it came again with other content.
    pub id_reused: u32,
}

impl Entry {
    /// Appends attempts, keeping at most [`MAX_ATTEMPTS_KEPT`]: the first and the newest.
    pub fn add_attempts(&mut self, attempts: Vec<AttemptRecord>) {
        // A vector that grows by itself makes room for four.
        self.attempts.reserve_exact(attempts.len());
        self.attempts.extend(attempts);
        let excess = self.attempts.len().saturating_sub(MAX_ATTEMPTS_KEPT);
        // The first stays; there may be none at all when no target was left to try.
        let first = self.attempts.len().min(1);
        self.attempts.drain(first..first + excess);
    }

    /// Returns a waiting row, as it stands at first sight of `claim`.
    pub fn first(claim: &Claim) -> Entry {
        Entry {
            identity: claim.identity.clone(),
            event_id: claim.event_id.clone(),
            session_id: Some(claim.session_id.clone()),
            partner_id: claim.partner_id.clone(),
            event: Some(claim.event.clone()),
            fingerprint: claim.fingerprint.clone(),
            state: State::Waiting,
            reason: None,
            detail: None,
            via: None,
            route: None,
            evidence: Evidence::default(),
            targets: Targets::new(),
            attempts: Vec::new(),
            attempt: claim.attempt,
            replay: claim.replay,
            queue: None,
            first_seen: claim.first_seen,
            updated_at: claim.first_seen,
            next_at: None,
            expires_at: claim.expires_at,
            crashes: 0,
            repeats: 0,
            id_reused: 0,
        }
    }

    /// Returns a row for tests.
    #[cfg(test)]
    pub(crate) fn test_row() -> Entry {
        Entry::first(&Claim {
            identity: "identity".into(),
            event_id: "e1".into(),
            session_id: "s1".into(),
            partner_id: Some("p1".into()),
            event: "partner.advanced".into(),
            fingerprint: "fingerprint".into(),
            attempt: 0,
            replay: 0,
            first_seen: 0,
            expires_at: 86_400_000,
        })
    }

    /// Tells whether a receipt says that Apple or Google did not take a push that Expo had accepted.
    pub fn not_handed_on(&self) -> bool {
        let said = self.targets.values().filter_map(|target| target.receipt.as_deref());
        said.into_iter().any(|receipt| receipt != RECEIPT_OK && receipt != RECEIPT_UNKNOWN)
    }

    /// Tells whether some target accepted the event.
    pub fn any_accepted(&self) -> bool {
        self.targets.values().any(|target| target.accepted)
    }
}

/// What a worker says when it begins with an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    pub identity: String,
    pub event_id: String,
    pub session_id: String,
    pub partner_id: Option<String>,
    pub event: String,
    pub fingerprint: String,
    pub attempt: u32,
    pub replay: u32,
    pub first_seen: i64,
    pub expires_at: i64,
}

/// What the ledger answers to a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Claimed {
    /// The event is ours; `entry` is the row as it stood (a fresh waiting row at first sight).
    Granted { entry: Box<Entry>, first: bool },
    /// A living worker is at it.
    Foreign { owner: String },
}

/// A ticket for one accepted push, kept until its receipt is fetched.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    /// Expo's id.
    pub id: String,
    pub identity: String,
    pub target: TargetKey,
    pub user_id: String,
    /// The push token itself, needed for the conditional clear.
    pub token: String,
    /// Milliseconds since the epoch.
    pub sent_at: i64,
    /// When its receipt is asked for, in milliseconds since the epoch.
    pub due_at: i64,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("id", &self.id).field("target", &self.target).finish_non_exhaustive()
    }
}

/// One dead letter in the index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    /// Number in the index, shown to operators as `#12`.
    pub number: i64,
    /// `herald-id`: the event id, or `unreadable-<uuid>`.
    pub id: String,
    pub identity: Option<String>,
    pub session_id: Option<String>,
    pub partner_id: Option<String>,
    pub event: Option<String>,
    pub reason: String,
    pub error: String,
    pub route: Option<String>,
    pub attempt: u32,
    pub replay: u32,
    /// Milliseconds since the epoch.
    pub failed_at: i64,
    pub first_seen: Option<i64>,
    /// Headers of the letter as it lies in the queue, as JSON.
    pub headers: serde_json::Value,
    pub content_type: Option<String>,
    /// The body in base64; bodies over 64 KiB are cut and `body_bytes` tells.
    pub body: String,
    pub body_bytes: i64,
}

/// How many identities stand in each state; closed when they add up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Books {
    /// Distinct identities received.
    pub received: i64,
    pub waiting: i64,
    /// By route: realtime, push, both.
    pub done: BTreeMap<String, i64>,
    pub skipped: BTreeMap<String, i64>,
    pub dead: BTreeMap<String, i64>,
    pub repeats: i64,
    pub id_reused: i64,
}

impl Books {
    /// Tells whether every identity received has exactly one fate.
    pub fn closed(&self) -> bool {
        let ended: i64 = [&self.done, &self.skipped, &self.dead].iter().flat_map(|by| by.values()).sum();
        self.received == self.waiting + ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_that_tried_no_target_adds_nothing() {
        let mut entry = Entry::test_row();
        entry.add_attempts(Vec::new());
        assert!(entry.attempts.is_empty());
    }
}
