//! `herald explain` on real services: every event has an answer, whatever became of it.

use herald::{
    domain::ledger::{Letter, State},
    sandbox::{Action, Endpoint, Fault, Match},
};
use serde_json::{Value, json};

use crate::{
    commands::{check, herald},
    rig::{Rig, event},
    support::eventually,
};

fn token(name: &str) -> Option<String> {
    Some(format!("ExponentPushToken[{name}]"))
}

/// Explains an id and checks that each of `parts` is said.
#[track_caller]
fn explained(rig: &Rig, id: &str, parts: &[&str]) {
    let told = check(&herald(rig, &["explain", id], &[]), 0, id);
    for part in parts {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_ending_is_explained() {
    let Some(mut rig) = Rig::new("explain_ends").await else { return };
    rig.add_users([("absent".into(), token("abcd1234")), ("mute".into(), None)]).await;
    rig.start().await;
    rig.enter("s1", "present");
    rig.send(event("e-present", "partner.advanced", "s1", "present")).await;
    rig.send(event("e-absent", "partner.advanced", "s2", "absent")).await;
    rig.send(event("e-mute", "partner.advanced", "s3", "mute")).await;
    rig.send(event("e-rejected", "partner.advanced", "fault-publish-422", "present")).await;
    rig.enter("fault-publish-422", "present");
    rig.send(json!({"id": "e-nobody", "sessionId": "s4", "event": "partner.advanced"})).await;
    rig.publish("not JSON", Some("e-malformed")).await;
    rig.until("e-present", State::Done).await;
    explained(
        &rig,
        "e-present",
        &[
            "presence  present, 1 connection, as of ",
            " old when it was used",
            "route     realtime, because route presence: the recipient is present",
            "no push   the recipient was present",
            "#1 ably to the session channel: accepted, after ",
            "ably's id ",
            "now       done, via realtime, since ",
        ],
    );
    rig.until("e-absent", State::Done).await;
    explained(
        &rig,
        "e-absent",
        &[
            "presence  absent, as of ",
            "tokens    …1234",
            "not ably  nobody with the client id `absent` was on the session's presence channel",
            "#1 expo to push token …1234: accepted, after ",
            "expo's id ",
            "next      its receipt is asked for from ",
        ],
    );
    rig.until("e-mute", State::Skipped).await;
    explained(
        &rig,
        "e-mute",
        &[
            "not ably  nobody with the client id `mute`",
            "no push   the user has no push token",
            "now       skipped: no_token",
            "next      the user has no push token: the app has to register one",
        ],
    );
    rig.until("e-nobody", State::Done).await;
    explained(&rig, "e-nobody", &["no push   it names no partner to push to"]);
    rig.until("e-malformed", State::Dead).await;
    explained(
        &rig,
        "e-malformed",
        &["unreadable message", "now       dead: malformed (body: is not JSON", "`herald dead show "],
    );

    // Dead, dropped, and what a letter that is gone leaves to do.
    rig.until("e-rejected", State::Dead).await;
    explained(
        &rig,
        "e-rejected",
        &["status 422", "mend what the provider names, then `herald dead replay --id e-rejected` (letter #"],
    );
    check(&herald(&rig, &["dead", "drop", "--id", "e-rejected", "--yes"], &[]), 0, "dropped 1");
    explained(&rig, "e-rejected", &["was dropped ", "nothing is left to replay"]);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_explained_with_when_where_and_for_what() {
    let Some(mut rig) = Rig::new("explain_waits").await else { return };
    rig.add_users([("u1".into(), token("u1"))]).await;
    rig.start_with(&[("HERALD_RETRY__SCHEDULE", r#"["1s","1h"]"#)]).await;
    let schedule = [("HERALD_RETRY__SCHEDULE", r#"["1s","1h"]"#)];
    let told = |id: &str| {
        let output = herald(&rig, &["explain", id, "--json"], &schedule);
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default()
    };
    // In hand: Ably has not answered yet.
    let hold =
        Fault { matching: Match { endpoint: Some(Endpoint::Publish), ..Match::default() }, ..Fault::new(Action::Hold) };
    rig.sandbox.control().add_fault(hold);
    rig.send(json!({"id": "e-hand", "sessionId": "s1", "event": "partner.advanced"})).await;
    let in_hand =
        eventually("a worker has it in hand", async || Some(told("e-hand")).filter(|t| t["in_hand"].is_object())).await;
    assert!(in_hand["in_hand"]["owner"].as_str().unwrap().starts_with("rig/"), "{in_hand}");
    assert!(in_hand["next"].as_str().unwrap().starts_with("worker `rig/"), "{in_hand}");
    assert_eq!((&in_hand["state"], &in_hand["verdict"]), (&json!("waiting"), &json!("in the hands of a worker")));
    rig.sandbox.control().clear_faults();
    rig.sandbox.control().release();

    // In a retry queue: the first retry fails, too; the second is an hour away.
    rig.send(json!({"id": "e-retry", "sessionId": "fault-publish-503", "event": "partner.advanced"})).await;
    let retried =
        eventually("it waits for its second retry", async || Some(told("e-retry")).filter(|t| t["attempt"] == 2)).await;
    let next = retried["next"].as_str().unwrap();
    assert!(
        next.contains(&format!("waits in {}.retry.1h until ", rig.prefix)) && next.contains("then attempt 3 of 3"),
        "{next}"
    );
    assert_eq!(
        retried["notes"][0],
        "it travelled as a copy (retry): it may have come later than others of its session"
    );
    assert_eq!(retried["attempts"][0]["failure"]["status"], 503);

    // Held: Expo refuses the credentials.
    let refused = Match { endpoint: Some(Endpoint::Send), ..Match::default() };
    rig.sandbox.control().add_fault(Fault { matching: refused, status: Some(401), ..Fault::new(Action::Status) });
    rig.send(event("e-held", "partner.advanced", "s3", "u1")).await;
    let held =
        eventually("it is held", async || Some(told("e-held")).filter(|t| t["reason"] == "held:unauthorised")).await;
    let next = held["next"].as_str().unwrap();
    assert!(next.starts_with(&format!("held, in {}.hold.expo: Expo refuses the credentials", rig.prefix)), "{next}");
    assert!(next.contains("EXPO_ACCESS_TOKEN"), "{next}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_found_by_user_and_session_newest_first_and_what_is_unknown_is_told() {
    let Some(mut rig) = Rig::new("explain_find").await else { return };
    rig.start().await;
    for n in 0..3 {
        rig.enter(&format!("s{n}"), "ada");
        rig.send(event(&format!("e{n}"), "partner.advanced", &format!("s{n}"), "ada")).await;
        rig.until(&format!("e{n}"), State::Done).await;
    }
    let ids = |args: &[&str]| -> Vec<String> {
        let told = check(&herald(&rig, &[args, &["--json"]].concat(), &[]), 0, "");
        let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["event_id"].as_str().unwrap().to_owned();
        told.lines().map(id).collect()
    };
    assert_eq!(ids(&["explain", "--user", "ada"]), ["e2", "e1", "e0"]);
    assert_eq!(ids(&["explain", "--user", "ada", "--limit", "2"]), ["e2", "e1"]);
    assert_eq!(ids(&["explain", "--session", "s1"]), ["e1"]);
    let expected = format!(
        "nothing in the ledger for the id `e9`: it was never received (was it sent, and with this very id?), or it lies in {}.events",
        rig.prefix
    );
    check(&herald(&rig, &["explain", "e9"], &[]), 1, &expected);

    // A letter that the broker or somebody else put there has no row: it is told all the same.
    let stray = Letter {
        number: 0,
        id: "e9".into(),
        identity: None,
        session_id: Some("s9".into()),
        partner_id: None,
        event: Some("a.b".into()),
        reason: "delivery_limit".into(),
        error: String::new(),
        route: None,
        attempt: 0,
        replay: 0,
        failed_at: jiff::Timestamp::now().as_millisecond(),
        first_seen: None,
        headers: json!({}),
        content_type: None,
        body: String::new(),
        body_bytes: 0,
    };
    rig.store.add_letters(vec![stray]).await.unwrap();
    explained(
        &rig,
        "e9",
        &["a.b e9 in session s9", "now       dead letter #", ": delivery_limit", "`herald dead replay --id e9`"],
    );
    rig.end().await;
}
