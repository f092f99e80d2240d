//! Accounts as an operator sees them, whole.

use std::collections::BTreeMap;

use super::*;
use crate::domain::{
    catalogue::RouteRule,
    explain::{About, Find, Findings, Found, Holder, LetterMark, answer},
    ledger::{Claim, Evidence, State, TargetRecord, Via},
    outcome::{Failure, FailureKind},
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

fn about() -> About<'static> {
    const SCHEDULE: [std::time::Duration; 1] = [std::time::Duration::from_secs(30)];
    let day = std::time::Duration::from_secs(86_400);
    About { now: NOW, events: "h.events", dead: "h.dead", schedule: &SCHEDULE, retention: day, receipts_after: day }
}

#[track_caller]
fn check(entry: &Entry, expected: &str) {
    check_held(entry, None, expected);
}

#[track_caller]
fn check_held(entry: &Entry, holder: Option<Holder>, expected: &str) {
    let found = Found { entry: entry.clone(), holder };
    let told = render(&crate::domain::explain::explain(found, &[], &about()), NOW);
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
        rule: "route presence: the recipient is not present".into(),
        by: Some(RouteRule::Presence),
        copied: Some("retry".into()),
        ..Evidence::default()
    };
    let failed = Failure::new(FailureKind::Transient, "503", "overloaded").with_status(503);
    let refused = AttemptRecord { failure: Some(failed), ..attempt(Provider::Expo, "expo:1", "transient") };
    let accepted = AttemptRecord {
        at: NOW - 90_000,
        attempt: 1,
        provider_id: Some("ticket-7".into()),
        ..attempt(Provider::Expo, "expo:1", "accepted")
    };
    entry.attempts = vec![refused, accepted];
    let target = TargetRecord { token: Some("k9Zq".into()), receipt: Some("ok".into()), ..TargetRecord::default() };
    entry.targets = BTreeMap::from([("expo:1".into(), target.into())]);
    entry.repeats = 2;
    entry.id_reused = 1;
    check(
        &entry,
        "
partner.advanced e1 in session s1 for u2
  received  2026-05-01 09:57:55Z (2m 5s ago), came again 2 times, 1 of them with OTHER content: its producer reuses ids
  presence  absent, as of 2026-05-01 09:57:55Z, 1.0s old when it was used, 35s at the last attempt
  tokens    …k9Zq, 1 passed over because they are not Expo push tokens
  route     push, because route presence: the recipient is not present
  not ably  nobody with the client id `u2` was on the session's presence channel
  attempt   2026-05-01 09:57:56Z #1 expo to push token …k9Zq: transient (503): overloaded, status 503, after 41 ms
  attempt   2026-05-01 09:58:30Z #2 expo to push token …k9Zq: accepted, after 41 ms, expo's id ticket-7, receipt: ok
  now       done, via push, since 2026-05-01 09:59:00Z
  note      it travelled as a copy (retry): it may have come later than others of its session",
    );
}

#[test]
fn waiting_says_when_and_where_it_is_tried_next() {
    let mut entry = entry();
    entry.reason = Some("retry".into());
    entry.detail = Some("ably: transient (503): overloaded".into());
    entry.attempt = 1;
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
  now       waiting: retry (ably: transient (503): overloaded), since 2026-05-01 09:59:00Z
  next      waits in herald.retry.30s until 2026-05-01 10:00:20Z (in 20s), then attempt 2 of 2; its life ends 2026-05-02 10:00:00Z
  note      it waits as a copy: it may come later than others of its session",
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
  next      its letter is not in h.dead: its retention (dead.retention) is over, or somebody took it away; the producer may send it again, a dead event suppresses no repeat",
    );
}

#[test]
fn what_a_worker_has_in_hand_names_the_worker() {
    let holder = Holder { owner: "herald-1/start".into(), since: NOW - 2_000, living: true };
    check_held(
        &entry(),
        Some(holder),
        "
partner.advanced e1 in session s1 for u2
  received  2026-05-01 09:57:55Z (2m 5s ago)
  now       in the hands of a worker, since 2026-05-01 09:59:00Z
  next      worker `herald-1/start` has it since 2026-05-01 09:59:58Z (2.0s ago); its life ends 2026-05-02 10:00:00Z",
    );
}

#[test]
fn a_letter_without_a_row_is_told_too() {
    let letter = LetterMark {
        number: 3,
        id: "e1".into(),
        identity: None,
        session_id: Some("s1".into()),
        partner_id: None,
        event: Some("partner.advanced".into()),
        reason: "delivery_limit".into(),
        error: "too\u{7}often".into(),
        replay: 0,
        failed_at: NOW,
        ended: None,
        ended_at: None,
    };
    let answer = answer(&Find::Id("e1".into()), Findings { rows: Vec::new(), letters: vec![letter] }, &about());
    let told = render_letter(&answer.letters[0]);
    let expected = "partner.advanced e1 in session s1, for nobody in particular\n  failed    2026-05-01 10:00:00Z: too often\n  now       dead letter #3: delivery_limit\n  next      ";
    assert!(told.starts_with(expected), "{told}");
}
