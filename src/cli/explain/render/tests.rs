//! Accounts as an operator sees them, whole.

use std::collections::BTreeMap;

use super::*;
use crate::domain::{
    ledger::{Claim, Evidence, TargetRecord, Via},
    outcome::{Failure, Provider},
};

const NOW: i64 = 1_777_629_600_000;

fn entry() -> Entry {
    let mut entry = Entry::first(&Claim {
        identity: "i".into(),
        event_id: "e1".into(),
        session_id: "s1".into(),
        partner_id: Some("u2".into()),
        event: "partner.advanced".into(),
        fingerprint: "f".into(),
        attempt: 0,
        replay: 0,
        first_seen: NOW - 125_000,
        expires_at: NOW + 86_400_000,
    });
    entry.updated_at = NOW - 60_000;
    entry
}

fn attempt(provider: Provider, target: &str, outcome: &str) -> AttemptRecord {
    AttemptRecord {
        at: NOW - 124_000,
        attempt: 0,
        target: target.into(),
        provider,
        duration_ms: 41,
        outcome: outcome.into(),
        provider_id: None,
        failure: None,
        held: None,
    }
}

#[track_caller]
fn check(entry: &Entry, expected: &str) {
    let told = render(entry, NOW);
    assert_eq!(told, expected.trim_start_matches('\n'), "\n{told}");
}

#[test]
fn done_by_push_with_evidence_attempts_and_receipt() {
    let mut entry = entry();
    entry.state = State::Done;
    entry.via = Some(Via::Push);
    entry.route = Some("push".into());
    entry.evidence = Evidence {
        presence: Some("absent".into()),
        presence_at: Some(NOW - 125_000),
        members: Some(0),
        tokens: vec!["k9Zq".into()],
        invalid_tokens: 1,
        rule: "the route is presence and u2 is absent".into(),
        ..Evidence::default()
    };
    let failed = Failure::new(FailureKind::Transient, "connect", "connection refused");
    let refused = AttemptRecord { failure: Some(failed), ..attempt(Provider::Expo, "expo:1", "transient") };
    let accepted = AttemptRecord {
        attempt: 1,
        provider_id: Some("ticket-7".into()),
        ..attempt(Provider::Expo, "expo:1", "accepted")
    };
    entry.attempts = vec![refused, accepted];
    let target = TargetRecord { token: Some("k9Zq".into()), receipt: Some("ok".into()), ..TargetRecord::default() };
    entry.targets = BTreeMap::from([("expo:1".into(), target)]);
    entry.repeats = 2;
    entry.id_reused = 1;
    check(
        &entry,
        "
partner.advanced e1 in session s1 for u2
  received  2026-05-01 09:57:55Z (2m 5s ago), came again 2 times, 1 of them with OTHER content: its producer reuses ids
  presence  absent, as of 2026-05-01 09:57:55Z
  tokens    …k9Zq, 1 passed over because they are not Expo push tokens
  route     push, because the route is presence and u2 is absent
  attempt   2026-05-01 09:57:56Z #1 expo to push token …k9Zq: transient (connect): connection refused, after 41 ms
  attempt   2026-05-01 09:57:56Z #2 expo to push token …k9Zq: accepted, after 41 ms, expo's id ticket-7
  receipt   push token …k9Zq: ok
  now       done, via push, since 2026-05-01 09:59:00Z",
    );
}

#[test]
fn waiting_says_when_and_where_it_is_tried_next() {
    let mut entry = entry();
    entry.reason = Some("transient".into());
    entry.queue = Some("herald.retry.30s".into());
    entry.next_at = Some(NOW + 20_000);
    entry.evidence.presence = Some("unknown".into());
    entry.evidence.presence_failure = Some(Failure::new(FailureKind::Transient, 50003, "timed out"));
    entry.attempts = vec![AttemptRecord { held: Some(HoldCause::Breaker), ..attempt(Provider::Ably, "ably", "held") }];
    check(
        &entry,
        "
partner.advanced e1 in session s1 for u2
  received  2026-05-01 09:57:55Z (2m 5s ago)
  presence  unknown; the look-up failed: transient (50003): timed out
  attempt   2026-05-01 09:57:56Z #1 ably to the session channel: held because of too many failures in a row, after 41 ms
  now       waiting: transient, since 2026-05-01 09:59:00Z
  next      tried again in 20s at 2026-05-01 10:00:20Z, in queue herald.retry.30s; its life ends 2026-05-02 10:00:00Z",
    );
}

#[test]
fn a_malformed_message_has_no_session_and_a_hint() {
    let mut entry = entry();
    (entry.session_id, entry.partner_id, entry.event) = (None, None, None);
    entry.event_id = "unreadable-1".into();
    entry.state = State::Dead;
    entry.reason = Some("malformed".into());
    entry.detail = Some("body: is not JSON\u{1b}[2J".into());
    entry.replay = 1;
    entry.crashes = 2;
    check(
        &entry,
        "
unreadable message unreadable-1
  received  2026-05-01 09:57:55Z (2m 5s ago), replayed 1 times from the dead letters, 2 workers died while they handled it
  now       dead: malformed (body: is not JSON [2J), since 2026-05-01 09:59:00Z
  next      its producer has to mend it; a replay would fail the same way",
    );
}

#[test]
fn every_ending_says_what_would_change_it() {
    use crate::domain::ledger::{DeadReason, SkipReason};
    let next = |state, reason: &str| {
        let mut entry = entry();
        (entry.state, entry.reason) = (state, Some(reason.to_owned()));
        what_next(&entry, NOW)
    };
    for reason in DeadReason::ALL {
        assert!(next(State::Dead, reason.as_str()).is_some(), "{reason:?}");
    }
    for reason in [
        SkipReason::Expired,
        SkipReason::NoRecipient,
        SkipReason::NoUser,
        SkipReason::NoToken,
        SkipReason::InvalidToken,
        SkipReason::Excluded,
        SkipReason::OptedOut,
    ] {
        assert!(next(State::Skipped, reason.as_str()).is_some(), "{reason:?}");
    }
    let expired = next(State::Dead, "expired");
    let expected = "too late to matter; `herald dead replay --id e1` with --ignore-expiry delivers it all the same";
    assert_eq!(expired.as_deref(), Some(expected));
    assert_eq!(next(State::Done, "push"), None);
}

#[test]
fn a_push_that_was_not_handed_on_says_so() {
    for (receipt, expected) in [
        (None, "done, via push, since"),
        (Some("ok"), "done, via push, since"),
        (Some(crate::domain::ledger::RECEIPT_UNKNOWN), "done, via push, since"),
        (Some("rejected (MessageTooBig): too large"), "done, via push: pushed, not handed on, since"),
    ] {
        let mut entry = entry();
        (entry.state, entry.via) = (State::Done, Some(Via::Push));
        let target = TargetRecord { accepted: true, receipt: receipt.map(str::to_owned), ..TargetRecord::default() };
        entry.targets = BTreeMap::from([("expo:1".into(), target)]);
        let told = render(&entry, NOW);
        assert!(told.contains(&format!("now       {expected}")), "{receipt:?}:\n{told}");
    }
}
