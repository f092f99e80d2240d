//! What a refusal of a test push means, and what to do about it.
//!
//! Called for tickets and receipts. Pure.

use crate::domain::{
    outcome::{Failure, FailureKind},
    receipt::{self, ReceiptOutcome},
};

use super::steps::Standing;

/// What to look at when Expo refuses the project as such.
pub(super) const EXPO_CREDENTIALS: &str =
    "check EXPO_ACCESS_TOKEN (expo.access_token) and the project's push credentials at Expo (`eas credentials`)";

/// Says what a refusal of a ticket or in a receipt means, and what to do.
pub(super) fn advice(failure: &Failure) -> (Standing, String) {
    if let Some((_, fix)) = receipt::fix(&failure.code) {
        return (Standing::Wrong, format!("check {fix}"));
    }
    match (failure.kind, receipt::outcome(failure)) {
        (FailureKind::Unregistered, _) => {
            let fix = "the app is gone from this phone or may not notify; the app must register a new token";
            (Standing::Failed, fix.to_owned())
        }
        (_, ReceiptOutcome::Misconfigured) => (Standing::Wrong, EXPO_CREDENTIALS.to_owned()),
        (FailureKind::Unknown, _) => (Standing::Failed, "it may have arrived all the same".to_owned()),
        _ => (Standing::Failed, "an event would be tried again, or end as a dead letter with this reason".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_must_change_is_told_apart_and_comes_with_what_to_do() {
        for (kind, code, standing, part) in [
            (FailureKind::Unregistered, "DeviceNotRegistered", Standing::Failed, "register a new token"),
            (FailureKind::Unauthorised, "InvalidCredentials", Standing::Wrong, "eas credentials"),
            (FailureKind::Unauthorised, "MismatchSenderId", Standing::Wrong, "google-services.json"),
            (FailureKind::Unauthorised, "401", Standing::Wrong, "EXPO_ACCESS_TOKEN"),
            (FailureKind::Rejected, "DeveloperError", Standing::Wrong, "messages.toml"),
            (FailureKind::Rejected, "MessageTooBig", Standing::Failed, "dead letter"),
            (FailureKind::Unknown, "timeout", Standing::Failed, "may have arrived"),
        ] {
            let (stands, fix) = advice(&Failure::new(kind, code, ""));
            assert!(stands == standing && fix.contains(part), "{code}: {fix}");
        }
    }
}
