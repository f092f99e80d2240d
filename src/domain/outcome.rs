//! What a provider answered, as data: the vocabulary that providers produce, `judge` reads and the ledger keeps.
//!
//! Called by `provider` (makes them), `domain::judge` (decides on them) and `store` (keeps them). Holds no secrets:
//! every `detail` has gone through [`redact`](super::redact).

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// One of the two services events are delivered through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    Ably,
    Expo,
}

impl Provider {
    pub const ALL: [Provider; 2] = [Provider::Ably, Provider::Expo];

    /// Returns the provider's name as it stands in queue names, metric labels and headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Provider::Ably => "ably",
            Provider::Expo => "expo",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a failure means for the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureKind {
    /// It did not happen and may work later.
    Transient,
    /// It did not happen: the provider asks for less.
    Throttled,
    /// It did not happen: our own credentials or configuration are refused. No event is at fault.
    Unauthorised,
    /// It will never happen: the provider refuses this very item.
    Rejected,
    /// It will never happen for this push token: the device is gone.
    Unregistered,
    /// It may have happened: the request went out and its answer is lost.
    Unknown,
}

impl FailureKind {
    /// Returns the kind as it stands in the ledger, logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::Transient => "transient",
            FailureKind::Throttled => "throttled",
            FailureKind::Unauthorised => "unauthorised",
            FailureKind::Rejected => "rejected",
            FailureKind::Unregistered => "unregistered",
            FailureKind::Unknown => "unknown",
        }
    }
}

/// Why a call did not end in acceptance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    /// The provider's own code (`40160`, `DeviceNotRegistered`), or ours in lower case (`timeout`, `connect`).
    pub code: String,
    /// A bounded, redacted sentence.
    pub detail: String,
    /// HTTP status, when there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How long the provider asks us to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// Makes a failure whose `code` and `detail` are redacted and bounded here: a provider may quote a push token in either.
    pub fn new(kind: FailureKind, code: impl fmt::Display, detail: impl AsRef<str>) -> Self {
        let code = super::bounded(&super::redact(&code.to_string()), 64);
        Failure { kind, code, detail: super::redact(detail.as_ref()), status: None, retry_after: None }
    }

    /// Returns the failure with the HTTP status it came with.
    pub fn with_status(self, status: u16) -> Self {
        Failure { status: Some(status), ..self }
    }

    /// Returns the failure with the wait the provider asked for.
    pub fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        Failure { retry_after, ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.kind.as_str(), self.code)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

/// Why events of one provider wait without being tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HoldCause {
    /// The provider asked for a pause of more than five seconds.
    Throttled,
    /// The provider refuses our credentials or configuration.
    Unauthorised,
    /// Too many requests failed in a row: the breaker is open.
    Breaker,
    /// An operator holds this provider.
    Operator,
    /// More than half the prefetch waits for this provider already, or it waited here until it was too late.
    Backlog,
}

impl HoldCause {
    pub const ALL: [HoldCause; 5] =
        [HoldCause::Throttled, HoldCause::Unauthorised, HoldCause::Breaker, HoldCause::Operator, HoldCause::Backlog];

    /// Returns the cause as it stands in headers, the ledger and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            HoldCause::Throttled => "throttled",
            HoldCause::Unauthorised => "unauthorised",
            HoldCause::Breaker => "breaker",
            HoldCause::Operator => "operator",
            HoldCause::Backlog => "backlog",
        }
    }

    /// Returns the code of a failure to ask a provider for something because of this.
    pub fn not_asked(self) -> String {
        format!("held_{}", self.as_str())
    }
}

/// Why a provider call returned without acceptance: it failed, or it was not made at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The call was made and failed; the attempt counts.
    Failed(Failure),
    /// The call was not made (or was a probe that failed); no attempt is used, the event waits for the provider.
    Held(HoldCause),
}

/// What became of one target of one event in one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The provider took it; its own id for it (Ably message id, Expo ticket id).
    Accepted { provider_id: Option<String> },
    /// The call failed.
    Failed(Failure),
    /// The call was not made: the provider is held.
    Held(HoldCause),
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Failed(failure) => Outcome::Failed(failure),
            Refusal::Held(cause) => Outcome::Held(cause),
        }
    }
}
