//! Explanations by table: every state an event can be in has an answer, and the answer names the next step.

use super::*;
use crate::domain::{
    catalogue::RouteRule,
    ledger::{DeadReason, Evidence, SkipReason, Via},
    outcome::{Failure, FailureKind},
};

const NOW: i64 = 1_777_629_600_000;
const SCHEDULE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(30)];

fn about() -> About<'static> {
    About {
        now: NOW,
        events: "h.events",
        dead: "h.dead",
        schedule: &SCHEDULE,
        retention: Duration::from_secs(7 * 86_400),
        receipts_after: Duration::from_secs(900),
    }
}

fn entry() -> Entry {
    Entry { first_seen: NOW - 60_000, updated_at: NOW - 1_000, expires_at: NOW + 3_600_000, ..Entry::test_row() }
}

fn letter(number: i64) -> LetterMark {
    LetterMark {
        number,
        id: "e1".into(),
        identity: Some("identity".into()),
        session_id: Some("s1".into()),
        partner_id: Some("p1".into()),
        event: Some("partner.advanced".into()),
        reason: "exhausted".into(),
        error: "transient (503): overloaded".into(),
        replay: 0,
        failed_at: NOW - 60_000,
        ended: None,
        ended_at: None,
    }
}

fn attempt(provider: Provider, at: i64, attempt: u32) -> AttemptRecord {
    AttemptRecord {
        at,
        attempt,
        target: provider.as_str().into(),
        provider,
        duration_ms: 3,
        outcome: "accepted".into(),
        provider_id: Some("id".into()),
        failure: None,
        held: None,
    }
}

fn told(entry: Entry, holder: Option<Holder>, letters: &[LetterMark]) -> Explanation {
    explain(Found { entry, holder }, letters, &about())
}

fn holder(living: bool, since: i64) -> Option<Holder> {
    Some(Holder { owner: "a/1".into(), since, living })
}

#[test]
fn what_waits_says_where_until_when_and_for_what() {
    let queue = |name: &str, reason: &str| Entry { queue: Some(name.into()), reason: Some(reason.into()), ..entry() };
    let retry = |next_at| Entry { next_at: Some(next_at), attempt: 1, ..queue("h.retry.5s", "retry") };
    let life = "; its life ends 2026-05-01 11:00:00Z";
    for (entry, holder, letters, expected) in [
        (
            retry(NOW + 20_000),
            None,
            vec![],
            "waits in h.retry.5s until 2026-05-01 10:00:20Z (in 20s), then attempt 2 of 3",
        ),
        (
            retry(NOW - 1_000),
            None,
            vec![],
            "attempt 2 of 3 is due since 2026-05-01 09:59:59Z, as soon as a worker takes it from h.events",
        ),
        (
            retry(NOW - 301_000),
            None,
            vec![],
            "OVERDUE: attempt 2 of 3 was due 2026-05-01 09:54:59Z (5m 1s ago); `herald status` tells",
        ),
        (
            entry(),
            holder(true, NOW - 2_000),
            vec![],
            "worker `a/1` has it since 2026-05-01 09:59:58Z (2.0s ago); its life",
        ),
        (entry(), holder(true, NOW - 400_000), vec![], "(6m 40s ago); that is too long: look at that worker's log"),
        (
            entry(),
            holder(false, NOW - 2_000),
            vec![],
            "worker `a/1` had it and is gone; RabbitMQ gives it to another worker from h.events",
        ),
        (entry(), None, vec![], "no worker has it in hand: it waits for its turn in h.events"),
        (
            entry(),
            None,
            vec![letter(7)],
            "the broker put it away as dead letter #7 (exhausted): `herald dead replay --id e1`",
        ),
        (
            queue("h.hold.expo", "held:unauthorised"),
            None,
            vec![],
            "held, in h.hold.expo: Expo refuses the credentials; set EXPO_ACCESS_TOKEN",
        ),
        (
            queue("h.hold.ably", "held:unauthorised"),
            None,
            vec![],
            "held, in h.hold.ably: Ably refuses the credentials; set ABLY_API_KEY",
        ),
        (
            queue("h.hold.ably", "held:operator"),
            None,
            vec![],
            "an operator holds Ably; `herald release ably` lets it go on; no attempt is used",
        ),
        (queue("h.hold.expo", "held:throttled"), None, vec![], "Expo asked for a pause; it goes on by itself"),
        (
            queue("h.hold.ably", "held:breaker"),
            None,
            vec![],
            "Ably is down; it goes on by itself when Ably takes requests again",
        ),
        (queue("h.hold.expo", "held:backlog"), None, vec![], "too many events wait for Expo; it goes on by itself"),
    ] {
        let next = told(entry, holder, &letters).next.unwrap();
        assert!(next.contains(expected), "{expected:?} is not in {next:?}");
        assert!(next.ends_with(life), "{next:?}");
    }
    let mut refused = queue("h.hold.expo", "held:unauthorised");
    let failure = Failure::new(FailureKind::Unauthorised, "InvalidCredentials", "");
    refused.attempts = vec![AttemptRecord { failure: Some(failure), ..attempt(Provider::Expo, NOW, 0) }];
    let next = told(refused, None, &[]).next.unwrap();
    assert!(
        next.contains("Expo refuses the credentials (InvalidCredentials); mend the project's push credentials"),
        "{next}"
    );
    let late = Entry { expires_at: NOW - 1, ..retry(NOW + 1_000) };
    let next = told(late, None, &[]).next.unwrap();
    assert!(next.ends_with("; its life ended 2026-05-01 09:59:59Z: its next turn ends it as expired"), "{next}");
    assert_eq!(told(entry(), holder(true, NOW), &[]).verdict, "in the hands of a worker");
    assert_eq!(told(entry(), holder(false, NOW), &[]).verdict, "waiting");
}

#[test]
fn every_ending_says_what_would_change_it() {
    let ended = |state, reason: &str| Entry { state, reason: Some(reason.into()), ..entry() };
    for reason in DeadReason::ALL {
        let next = told(ended(State::Dead, reason.as_str()), None, &[letter(7)]).next.unwrap();
        let mended = reason == DeadReason::Malformed || next.contains("`herald dead replay --id e1`");
        assert!(mended && next.ends_with("(letter #7: `herald dead show 7`)"), "{reason:?}: {next}");
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
        assert!(told(ended(State::Skipped, reason.as_str()), None, &[]).next.is_some(), "{reason:?}");
    }
    let dead = ended(State::Dead, "expired");
    let expired = "too late to matter; `herald dead replay --id e1` with --ignore-expiry delivers it all the same (letter #7: `herald dead show 7`)";
    assert_eq!(told(dead.clone(), None, &[letter(7)]).next.as_deref(), Some(expired));
    // A letter that left the queue cannot be replayed; one that lies there counts more than a newer one that left it.
    let left = |how: &str| LetterMark { ended: Some(how.into()), ended_at: Some(NOW - 60_000), ..letter(9) };
    for (letters, expected) in [
        (vec![], "its letter is not in h.dead: its retention"),
        (vec![left("dropped")], "letter #9 was dropped 2026-05-01 09:59:00Z: nothing is left to replay"),
        (
            vec![left("replayed")],
            "letter #9 was replayed 2026-05-01 09:59:00Z (1m 0s ago): the event waits for its turn in h.events",
        ),
        (vec![left("replayed"), letter(7)], "(letter #7:"),
        (vec![LetterMark { identity: Some("another".into()), ..letter(8) }], "its letter is not in h.dead"),
        (vec![LetterMark { identity: None, ..letter(8) }], "(letter #8:"),
        (vec![LetterMark { identity: None, partner_id: None, ..letter(8) }], "its letter is not in h.dead"),
    ] {
        let next = told(dead.clone(), None, &letters).next.unwrap();
        assert!(next.contains(expected), "{expected:?} is not in {next:?}");
    }
}

#[test]
fn an_id_is_quoted_as_a_shell_takes_it() {
    for (id, expected) in [
        ("0197a3e2-aa.b:c", "--id 0197a3e2-aa.b:c`"),
        ("a b", "--id 'a b'`"),
        ("$(x)'; y", r"--id '$(x)'\''; y'`"),
        ("-x", "--id=-x`"),
    ] {
        let dead = Entry { event_id: id.into(), state: State::Dead, reason: Some("exhausted".into()), ..entry() };
        let next = told(dead, None, &[letter(1)]).next.unwrap();
        assert!(next.contains(expected), "{next}");
    }
}

#[test]
fn the_other_way_is_ruled_out_in_a_sentence() {
    use RouteRule::{Always, Presence, Push, Realtime};
    let check = |route: Option<&str>, by, presence: Option<&str>, obstacle: Option<&str>, partner: bool| {
        let evidence = Evidence {
            by: Some(by),
            presence: presence.map(str::to_owned),
            obstacle: obstacle.map(str::to_owned),
            ..Evidence::default()
        };
        let state = if route.is_some() { State::Done } else { State::Skipped };
        let partner_id = partner.then(|| "p1".to_owned());
        let entry = Entry { state, route: route.map(str::to_owned), evidence, partner_id, ..entry() };
        let whys = told(entry, None, &[]).why_not;
        whys.iter().map(|why| format!("{}: {}", why.provider, why.because)).collect::<Vec<_>>().join("; ")
    };
    let absent = "ably: nobody with the client id `p1` was on the session's presence channel";
    for (route, by, presence, obstacle, partner, expected) in [
        (Some("realtime"), Presence, Some("present"), None, true, "expo: the recipient was present"),
        (Some("realtime"), Presence, None, None, false, "expo: it names no partner to push to"),
        (Some("realtime"), Realtime, None, None, true, "expo: its route is realtime, which never pushes"),
        (
            Some("realtime"),
            Always,
            Some("present"),
            None,
            true,
            "expo: the recipient was present, and its route pushes only to who is absent",
        ),
        (
            Some("realtime"),
            Always,
            Some("absent"),
            Some("the user has no push token"),
            true,
            "expo: the user has no push token",
        ),
        (Some("push"), Presence, Some("absent"), None, true, absent),
        (Some("push"), Push, None, None, true, "ably: its route is push, which never publishes"),
        (Some("both"), Always, Some("absent"), None, true, ""),
        (
            None,
            Push,
            None,
            None,
            false,
            "ably: its route is push, which never publishes; expo: it names no partner to push to",
        ),
    ] {
        assert_eq!(check(route, by, presence, obstacle, partner), expected, "{route:?} {by:?}");
    }
    let unknown = check(Some("push"), Presence, Some("unknown"), None, true);
    assert!(unknown.starts_with("ably: whether the recipient was there could not be found out"), "{unknown}");
    let skipped = check(None, Presence, Some("absent"), Some("the user opted out of pushes"), true);
    assert_eq!(skipped, format!("{absent}; expo: the user opted out of pushes"));
    // Nothing was decided: nothing is ruled out.
    assert_eq!(told(entry(), None, &[]).why_not, []);
    assert_eq!(told(Entry { state: State::Skipped, ..entry() }, None, &[]).why_not, []);
}

#[test]
fn the_knowledge_of_presence_has_an_age_at_each_use() {
    let check = |state, attempts: &[(i64, u32)]| {
        let mut entry = Entry { state, updated_at: NOW, ..entry() };
        entry.evidence.presence_at = Some(NOW - 10_000);
        entry.attempts = attempts.iter().map(|(at, n)| attempt(Provider::Ably, NOW + at, *n)).collect();
        let told = told(entry, None, &[]);
        (told.presence_age_ms, told.presence_age_last_ms)
    };
    assert_eq!(check(State::Done, &[(-9_990, 0)]), (Some(10), None));
    // What was tried before the presence was read again tells nothing about it.
    assert_eq!(check(State::Done, &[(-60_000, 0), (-9_900, 1), (-9_890, 1)]), (Some(100), None));
    assert_eq!(check(State::Done, &[(-9_990, 0), (-1_000, 1)]), (Some(10), Some(9_000)));
    assert_eq!(check(State::Skipped, &[]), (Some(10_000), None));
    assert_eq!(check(State::Waiting, &[]), (None, None));
    assert_eq!(told(entry(), None, &[]).presence_age_ms, None);
}

#[test]
fn a_push_tells_of_its_receipt_and_whether_it_was_handed_on() {
    let pushed = |receipt: Option<&str>, sent_at: i64| {
        let mut entry = Entry { state: State::Done, via: Some(Via::Push), ..entry() };
        let target = TargetRecord { accepted: true, receipt: receipt.map(str::to_owned), ..TargetRecord::default() };
        entry.targets.insert("expo".into(), target.into());
        entry.attempts = vec![attempt(Provider::Expo, sent_at, 0)];
        told(entry, None, &[])
    };
    for (receipt, sent_at, verdict, next) in [
        (None, NOW, "done, via push", "its receipt is asked for from 2026-05-01 10:15:00Z on"),
        (
            None,
            NOW - 901_000,
            "done, via push",
            "its receipt is asked for since 2026-05-01 09:59:59Z, until a day after the send",
        ),
        (Some("ok"), NOW, "done, via push", ""),
        (Some(crate::domain::ledger::RECEIPT_UNKNOWN), NOW, "done, via push", ""),
        (
            Some("rejected (MessageTooBig): too large"),
            NOW,
            "done, via push: pushed, not handed on",
            "Apple or Google did not take the push",
        ),
    ] {
        let told = pushed(receipt, sent_at);
        assert_eq!(told.verdict, verdict);
        let said = told.next.unwrap_or_default();
        assert!(said.starts_with(next) && next.is_empty() == said.is_empty(), "{receipt:?}: {said}");
    }
}

#[test]
fn a_copied_event_says_that_its_order_is_not_kept() {
    let notes = |change: fn(&mut Entry)| {
        let mut entry = entry();
        change(&mut entry);
        told(entry, None, &[]).notes.join("; ")
    };
    assert_eq!(notes(|_| {}), "");
    let copied = notes(|entry| entry.evidence.copied = Some("lane_full".into()));
    assert_eq!(copied, "it travelled as a copy (lane_full): it may have come later than others of its session");
    let waits = notes(|entry| entry.queue = Some("h.retry.5s".into()));
    assert_eq!(waits, "it waits as a copy: it may come later than others of its session");
    let partly = notes(|entry| {
        entry.targets.insert("ably".into(), TargetRecord { accepted: true, ..TargetRecord::default() }.into());
        entry.targets.insert("expo:1".into(), Box::default());
    });
    assert_eq!(partly, "what was accepted is not sent again; only the rest is");
}

#[test]
fn who_asks_for_what_nobody_knows_is_told_what_that_can_mean() {
    for (find, expected) in [
        (
            Find::Id("x".into()),
            "nothing in the ledger for the id `x`: it was never received (was it sent, and with this very id?)",
        ),
        (Find::User("u".into()), "nothing in the ledger for the user `u`: it was never received"),
        (Find::Session("s".into()), "nothing in the ledger for the session `s`: it was never received"),
    ] {
        let answer = answer(&find, Findings::default(), &about());
        let nothing = answer.nothing.unwrap();
        assert!(nothing.starts_with(expected), "{nothing}");
        assert!(nothing.contains("it lies in h.events") && nothing.contains("more than 7d ago (store.retention)"));
    }
}

#[test]
fn a_letter_without_a_row_is_told_beside_the_rows() {
    let stray = LetterMark { identity: None, session_id: None, partner_id: None, ..letter(3) };
    let find = Find::Id("e1".into());
    let of_broker = answer(&find, Findings { rows: Vec::new(), letters: vec![stray.clone()] }, &about());
    assert_eq!(of_broker.nothing, None);
    assert_eq!(of_broker.letters[0].verdict, "dead letter #3: exhausted");
    assert!(of_broker.letters[0].next.contains("`herald dead show 3`, then `herald dead replay --id e1`"));
    let gone = LetterMark { ended: Some("dropped".into()), ended_at: Some(NOW), ..stray.clone() };
    let gone = answer(&find, Findings { rows: Vec::new(), letters: vec![gone] }, &about());
    assert_eq!(gone.letters[0].verdict, "dead letter #3, dropped 2026-05-01 10:00:00Z");
    // A letter of a row is told with the row.
    let row = || Found { entry: entry(), holder: None };
    let both = answer(&find, Findings { rows: vec![row()], letters: vec![letter(4), stray] }, &about());
    assert_eq!((both.events[0].letter.as_ref().unwrap().number, both.letters.len()), (4, 1));
}

#[test]
fn as_json_an_explanation_has_the_fields_of_the_row_and_its_own() {
    let failure = Failure::new(FailureKind::Transient, "503", "overloaded").with_status(503);
    let mut entry = entry();
    entry.attempts = vec![AttemptRecord { failure: Some(failure), ..attempt(Provider::Ably, NOW, 0) }];
    let json = serde_json::to_value(told(entry, holder(true, NOW), &[])).unwrap();
    assert_eq!((&json["event_id"], &json["state"]), (&"e1".into(), &"waiting".into()));
    assert_eq!(json["attempts"][0]["failure"]["status"], 503);
    assert_eq!(json["in_hand"]["owner"], "a/1");
    assert_eq!(json["attempts_allowed"], 3);
    assert!(json["next"].as_str().unwrap().starts_with("worker `a/1` has it"));
}
