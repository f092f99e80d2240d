//! Receipts to the end, on real RabbitMQ and PostgreSQL: every outcome, over restarts, with two workers, and what they do to push
//! tokens.

use herald::{
    domain::ledger::{Entry, RECEIPT_UNKNOWN, State, Ticket},
    sandbox::{Action, Endpoint, Fault, Match, Provider, Settings},
    store::Record,
};
use serde_json::Value;

use crate::{
    rig::{Rig, event},
    support::eventually,
};

const SOON: (&str, &str) = ("HERALD_RECEIPTS__AFTER", "1s");

/// Sets when the sandbox has receipts, in milliseconds after the send.
fn receipts_after(rig: &Rig, receipt_delay_ms: u64) {
    let settings = Settings { receipt_delay_ms, ..(*rig.sandbox.control().settings()).clone() };
    rig.sandbox.control().set_settings(settings);
}

fn token(kind: &str) -> String {
    format!("ExponentPushToken[{kind}-1]")
}

/// Returns what the receipt of the event's one target said.
fn receipt(entry: &Entry) -> Option<String> {
    entry.targets.values().find_map(|target| target.receipt.clone())
}

async fn until_receipt(rig: &Rig, id: &str) -> String {
    eventually(&format!("the receipt of {id} is in the ledger"), async || receipt(&rig.entry(id).await?)).await
}

/// Returns how often receipts were asked for, naming `ticket`.
fn asked_for(rig: &Rig, ticket: &str) -> usize {
    let journal = rig.sandbox.control().entries(0, Some(Provider::Expo), usize::MAX);
    let asked = journal.iter().filter(|entry| entry.endpoint == Endpoint::Receipts);
    asked.filter(|entry| entry.body["ids"].as_array().is_some_and(|ids| ids.contains(&Value::from(ticket)))).count()
}

#[tokio::test]
async fn every_outcome_is_told_counted_once_and_only_the_gone_device_loses_its_token() {
    let Some(mut rig) = Rig::new("receipts").await else { return };
    receipts_after(&rig, 0);
    // (token's kind, what the ledger says, the outcome counted)
    let cases = [
        ("fine", "ok", "ok"),
        ("receipt-unregistered", "unregistered (DeviceNotRegistered): ", "unregistered"),
        ("receipt-invalid-credentials", "unauthorised (InvalidCredentials): ", "misconfigured"),
        ("mismatch", "unauthorised (MismatchSenderId): ", "misconfigured"),
        ("developer-error", "rejected (DeveloperError): ", "misconfigured"),
        ("too-big", "rejected (MessageTooBig): ", "not_handed_on"),
        ("rate", "throttled (MessageRateExceeded): ", "not_handed_on"),
        ("provider-error", "transient (ProviderError): ", "not_handed_on"),
        ("expo-error", "transient (ExpoError): ", "not_handed_on"),
    ];
    let users = cases.iter().map(|(kind, ..)| *kind).chain(["no-receipt"]);
    rig.add_users(users.clone().map(|kind| (kind.to_owned(), Some(token(kind))))).await;
    let first = rig.start_as("first", &[SOON]).await;
    let second = rig.start_as("second", &[SOON]).await;
    for kind in users {
        rig.send(event(kind, "partner.advanced", &format!("s-{kind}"), kind)).await;
    }
    for (kind, says, _) in cases {
        let said = until_receipt(&rig, kind).await;
        assert!(said.starts_with(says), "{kind}: {said}");
        assert!(!said.contains("PushToken["), "{kind}: {said}");
        assert_eq!(rig.entry(kind).await.unwrap().state, State::Done, "{kind} stays pushed");
        let kept = if kind == "receipt-unregistered" { None } else { Some(token(kind)) };
        assert_eq!(rig.token_of(kind).await, kept, "{kind}");
    }
    for outcome in ["ok", "unregistered", "misconfigured", "not_handed_on", "unknown"] {
        let expected = cases.iter().filter(|(.., counted)| *counted == outcome).count() as u64;
        let line = format!("herald_receipts_total{{outcome=\"{outcome}\"}}");
        assert_eq!(rig.counter(&line).await, expected, "{outcome}: each receipt counts on one worker");
    }
    let missing = rig.entry("no-receipt").await.unwrap();
    let ticket = missing.targets.values().next().unwrap().provider_id.clone().expect("a ticket");
    eventually("a missing receipt is asked for again", async || (asked_for(&rig, &ticket) >= 2).then_some(())).await;
    assert_eq!(receipt(&missing), None);

    let log = rig.log(first) + &rig.log(second);
    for part in
        ["InvalidCredentials", "MismatchSenderId", "DeveloperError", "eas credentials", "FCM V1 service account key"]
    {
        assert!(log.lines().any(|line| line.contains("ERROR") && line.contains(part)), "an alarm says `{part}`");
    }
    assert!(!log.contains("ExponentPushToken["), "no push token in the log");
    let told = rig.command(&["explain", "rate"]).output().expect("herald explain");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("pushed, not handed on") && told.contains("MessageRateExceeded"), "{told}");
    let sent = rig.sandbox.control().counters()["send"];
    assert_eq!(sent.accepted, cases.len() as u64 + 1, "nothing is sent again because of its receipt");
    rig.end().await;
}

#[tokio::test]
async fn tickets_outlive_a_kill_a_new_token_is_kept_and_after_a_day_the_receipt_is_unknown() {
    let Some(mut rig) = Rig::new("lasting").await else { return };
    receipts_after(&rig, 3_600_000);
    let users = ["fine", "receipt-unregistered"];
    rig.add_users(users.map(|kind| (kind.to_owned(), Some(token(kind))))).await;
    let worker = rig.start_with(&[SOON]).await;
    for kind in users {
        rig.send(event(kind, "partner.advanced", &format!("s-{kind}"), kind)).await;
        rig.until(kind, State::Done).await;
    }
    rig.kill(worker);
    // The phone registers again before the receipt of the old token is read.
    rig.set_token("receipt-unregistered", "ExponentPushToken[new]").await;
    let day_old = jiff::Timestamp::now().as_millisecond() - 25 * 3_600_000;
    let mut old = rig.entry("fine").await.unwrap();
    (old.identity, old.event_id) = ("identity-of-old".to_owned(), "old".to_owned());
    let ticket = Ticket {
        id: "a-ticket-of-yesterday".to_owned(),
        identity: old.identity.clone(),
        target: old.targets.keys().next().unwrap().clone(),
        user_id: "fine".to_owned(),
        token: token("fine"),
        sent_at: day_old,
        due_at: day_old,
    };
    rig.store.record(Record { entry: old, tickets: vec![ticket], letter: None }).await.expect("recorded");

    receipts_after(&rig, 0);
    let failing = Match { endpoint: Some(Endpoint::Receipts), ..Match::default() };
    rig.sandbox.control().add_fault(Fault { matching: failing, times: Some(4), ..Fault::new(Action::Status) });
    rig.start_with(&[SOON]).await;
    assert_eq!(until_receipt(&rig, "old").await, RECEIPT_UNKNOWN);
    assert_eq!(until_receipt(&rig, "fine").await, "ok");
    assert!(until_receipt(&rig, "receipt-unregistered").await.starts_with("unregistered"));
    assert_eq!(rig.token_of("receipt-unregistered").await.as_deref(), Some("ExponentPushToken[new]"));
    assert_eq!(rig.counter("herald_receipts_total{outcome=\"unknown\"}").await, 1);
    rig.end().await;
}

#[tokio::test]
async fn a_wave_of_gone_devices_stops_the_clearing_and_is_an_alarm() {
    const USERS: usize = 120;
    for kind in ["unregistered", "receipt-unregistered"] {
        let Some(mut rig) = Rig::new("wave").await else { return };
        receipts_after(&rig, 0);
        let users = (0..USERS).map(|n| (format!("u{n}"), Some(format!("ExponentPushToken[{kind}-{n}]"))));
        rig.add_users(users).await;
        let worker = rig.start_with(&[SOON]).await;
        for n in 0..USERS {
            rig.send(event(&format!("e{n}"), "partner.advanced", &format!("s{n}"), &format!("u{n}"))).await;
        }
        let by_receipt = kind == "receipt-unregistered";
        for n in 0..USERS {
            let state = if by_receipt { State::Done } else { State::Skipped };
            rig.until(&format!("e{n}"), state).await;
            if by_receipt {
                until_receipt(&rig, &format!("e{n}")).await;
            }
        }
        let cleared = rig.counter("herald_tokens_cleared_total").await;
        let kept = rig.counter("herald_tokens_kept_total").await;
        println!("{USERS} devices said to be gone by {kind}: {cleared} tokens cleared, {kept} kept");
        assert_eq!(rig.tokens().await as u64, USERS as u64 - cleared);
        assert!(cleared < 20 && kept == USERS as u64 - cleared, "{cleared} cleared, {kept} kept");
        let log = rig.log(worker);
        let alarms: Vec<&str> = log.lines().filter(|line| line.contains("expo.unregistered_share")).collect();
        assert!(alarms.len() == 1 && alarms[0].contains("ERROR"), "one alarm a minute: {alarms:?}");
        rig.end().await;
    }
}
