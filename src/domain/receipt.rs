//! What a receipt means: what is counted, what the ledger says, and what is done about the push token.
//!
//! Called by the worker's receipts. Pure. No receipt ever leads to another send: a receipt comes a quarter of an hour late, and a
//! push that was half handed on would ring twice.

use super::outcome::{Failure, FailureKind};

/// What became of an accepted push at Apple and Google.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReceiptOutcome {
    /// They took it.
    Ok,
    /// The device is gone: its token is cleared.
    Unregistered,
    /// The project's credentials, or what herald sends, are wrong: somebody must mend that; no token is at fault.
    Misconfigured,
    /// They did not take it, for whatever else.
    NotHandedOn,
    /// There was no receipt in time.
    Unknown,
}

impl ReceiptOutcome {
    /// Returns the outcome as it stands in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            ReceiptOutcome::Ok => "ok",
            ReceiptOutcome::Unregistered => "unregistered",
            ReceiptOutcome::Misconfigured => "misconfigured",
            ReceiptOutcome::NotHandedOn => "not_handed_on",
            ReceiptOutcome::Unknown => "unknown",
        }
    }
}

/// Returns the outcome of a receipt with an error.
pub fn outcome(failure: &Failure) -> ReceiptOutcome {
    match failure.kind {
        FailureKind::Unregistered => ReceiptOutcome::Unregistered,
        FailureKind::Unauthorised => ReceiptOutcome::Misconfigured,
        FailureKind::Rejected if failure.code == "DeveloperError" => ReceiptOutcome::Misconfigured,
        FailureKind::Rejected | FailureKind::Throttled | FailureKind::Transient | FailureKind::Unknown => {
            ReceiptOutcome::NotHandedOn
        }
    }
}

/// Names what has to be mended when receipts, or the refusal to give any, say `code`, beside the code; `None`: nothing of ours.
pub fn fix(code: &str) -> Option<(&'static str, &'static str)> {
    const FIXES: [(&str, &str); 4] = [
        ("UNAUTHORIZED", "EXPO_ACCESS_TOKEN (expo.access_token), and expo.url"),
        (
            "InvalidCredentials",
            "the project's push credentials at Expo (`eas credentials`): the FCM V1 service account key for Android, the APNs key \
             for iOS",
        ),
        (
            "MismatchSenderId",
            "the project's FCM V1 service account key at Expo (`eas credentials`): it belongs to another Firebase project than \
             the app's google-services.json",
        ),
        ("DeveloperError", "what is sent: config/messages.toml (catalogue.path), and the project's settings at Expo"),
    ];
    FIXES.into_iter().find(|(known, _)| *known == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_one_outcome_and_only_what_we_can_mend_is_an_alarm() {
        use FailureKind::*;
        use ReceiptOutcome::*;
        for (kind, code, expected, mendable) in [
            (FailureKind::Unregistered, "DeviceNotRegistered", ReceiptOutcome::Unregistered, false),
            (Unauthorised, "InvalidCredentials", Misconfigured, true),
            (Unauthorised, "MismatchSenderId", Misconfigured, true),
            (Rejected, "DeveloperError", Misconfigured, true),
            (Rejected, "MessageTooBig", NotHandedOn, false),
            (Rejected, "SomethingNew", NotHandedOn, false),
            (Rejected, "unnamed", NotHandedOn, false),
            (Throttled, "MessageRateExceeded", NotHandedOn, false),
            (Transient, "ProviderError", NotHandedOn, false),
            (Transient, "ExpoError", NotHandedOn, false),
        ] {
            let failure = Failure::new(kind, code, "");
            assert_eq!((outcome(&failure), fix(&failure.code).is_some()), (expected, mendable), "{code}");
        }
    }
}
