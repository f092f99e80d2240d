//! `herald users` against real services and the sandbox: every step that a test push can fail at, and a user who is forgotten.

use herald::{
    broker::Broker,
    domain::ledger::State,
    sandbox::Settings,
    store::{Find, Kept},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection};

use crate::{
    commands::{check, herald},
    rig::{Rig, event},
    support::eventually,
};

/// Runs a test push and returns its steps.
fn steps(rig: &Rig, user: &str, code: i32, env: &[(&str, &str)]) -> Vec<(String, String, String)> {
    let output = herald(rig, &["users", "test-push", user, "--wait", "0s", "--json"], env);
    let told = check(&output, code, "");
    assert!(!told.contains("PushToken[") && !told.contains("canary"), "no token is told: {told}");
    let step = |line: &str| {
        let step: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| step[key].as_str().unwrap().to_owned();
        (text("step"), text("standing"), text("text"))
    };
    told.lines().map(step).collect()
}

/// Checks that the last step is `step` with `standing`, and says `part`; all before it were ok.
#[track_caller]
fn ends(steps: &[(String, String, String)], step: &str, standing: &str, part: &str) {
    let Some(((last, stands, text), before)) = steps.split_last() else { panic!("no step") };
    assert_eq!((last.as_str(), stands.as_str()), (step, standing), "{steps:?}");
    assert!(text.contains(part), "{part:?} is not in {text}");
    assert!(before.iter().all(|(_, standing, _)| standing == "ok" || standing == "note"), "{steps:?}");
}

fn pushes(rig: &Rig) -> u64 {
    rig.effects().values().map(|(_, pushed)| pushed).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_push_names_the_step_that_fails_and_what_to_do() {
    let Some(mut rig) = Rig::new("testpush").await else { return };
    let settings = Settings { receipt_delay_ms: 0, ..(*rig.sandbox.control().settings()).clone() };
    rig.sandbox.control().set_settings(settings);
    let kinds =
        ["fine", "unregistered", "invalid-credentials", "receipt-unregistered", "mismatch", "too-big", "no-receipt"];
    let token = |kind: &str| Some(format!("ExponentPushToken[{kind}-canary-abcd]"));
    rig.add_users(kinds.iter().map(|kind| ((*kind).to_owned(), token(kind)))).await;
    rig.add_users([("no-token".to_owned(), None), ("native".to_owned(), Some("canary:APA91-wxyz".to_owned()))]).await;

    let opted_out = r#"SELECT id AS user_id, "pushToken" AS token, 'muted' AS skip_reason FROM "User" WHERE id = ANY (ARRAY(SELECT json_array_elements_text($1::json)))"#;
    let no_table = "SELECT id AS user_id, token FROM no_such_table WHERE id = $1";
    let away = "postgres://nobody@127.0.0.1:1/x";
    for (user, env, code, step, standing, part) in [
        ("fine", Some(("DATABASE_URL", "")), 78, "database", "wrong", "DATABASE_URL"),
        ("fine", Some(("DATABASE_URL", "none")), 78, "database", "wrong", "realtime only"),
        ("fine", Some(("DATABASE_URL", away)), 1, "database", "failed", "is users.url right?"),
        ("fine", Some(("HERALD_USERS__QUERY", no_table)), 78, "database", "wrong", "no_such_table"),
        ("nobody", None, 1, "user", "failed", "no_user"),
        ("fine", Some(("HERALD_USERS__QUERY", opted_out)), 1, "opted out", "failed", "`muted`"),
        ("no-token", None, 1, "token", "failed", "no_token"),
        ("native", None, 1, "token", "failed", "getExpoPushTokenAsync"),
        ("fine", Some(("EXPO_ACCESS_TOKEN", "no-such-token")), 78, "credentials", "wrong", "EXPO_ACCESS_TOKEN"),
        ("fine", Some(("HERALD_EXPO__URL", "http://127.0.0.1:1")), 1, "credentials", "failed", "is expo.url right"),
        ("unregistered", None, 1, "ticket", "failed", "register a new token"),
        ("invalid-credentials", None, 78, "ticket", "wrong", "eas credentials"),
        ("receipt-unregistered", None, 1, "receipt", "failed", "register a new token"),
        ("mismatch", None, 78, "receipt", "wrong", "google-services.json"),
        ("too-big", None, 1, "receipt", "failed", "MessageTooBig"),
        ("no-receipt", None, 0, "receipt", "note", "--wait 15m"),
        ("fine", None, 0, "receipt", "ok", "handed to Apple or Google"),
    ] {
        let env: Vec<_> = env.into_iter().collect();
        let steps = steps(&rig, user, code, &env);
        ends(&steps, step, standing, part);
        if user == "native" {
            assert!(
                steps
                    .iter()
                    .any(|(step, standing, text)| step == "token" && standing == "note" && text.contains("…wxyz"))
            );
        }
    }
    assert_eq!(rig.tokens().await, 8, "no token is cleared by a test");
    assert!(rig.books().await.received == 0, "and the ledger knows nothing of it");

    // What would keep a worker from sending is told beside it; an operator's hold keeps the test from it, too.
    let told = check(&herald(&rig, &["users", "test-push", "fine"], &[]), 0, "no worker is running");
    for part in [
        "ok      database",
        "ok      token        …abcd looks right",
        "note    hold",
        "ok      ticket",
        "ok      receipt",
    ] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    rig.start().await;
    let steps_now = steps(&rig, "fine", 0, &[]);
    assert!(steps_now.iter().any(|(step, standing, _)| step == "hold" && standing == "ok"), "{steps_now:?}");
    check(&herald(&rig, &["hold", "expo", "--reason", "tired"], &[]), 0, "");
    let before = pushes(&rig);
    ends(&steps(&rig, "fine", 1, &[]), "hold", "failed", "(tired)");
    assert_eq!(pushes(&rig), before, "nothing was sent");

    let told = check(&herald(&rig, &["actions", "--json", "--limit", "100"], &[]), 0, "");
    let tried: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tried: Vec<_> = tried.iter().filter(|action| action["what"] == "test_push").collect();
    assert_eq!(tried.len(), 20);
    assert_eq!((&tried[0]["affected"], &tried[0]["outcome"]), (&json!(0), &json!("failed at: hold")));
    assert_eq!((&tried[1]["affected"], &tried[1]["outcome"]), (&json!(1), &json!("every step was ok")));
    assert!(tried.iter().all(|action| action["parameters"]["user"].as_str().unwrap().starts_with("user:")));
    rig.end().await;
}

/// Returns every row of every table of the ledger.
async fn everything(rig: &Rig) -> String {
    let mut connection = rig.database().await;
    let schema = format!("{}_ledger", rig.prefix);
    let names = sqlx::query_scalar("SELECT table_name::text FROM information_schema.tables WHERE table_schema = $1");
    let names: Vec<String> = names.bind(&schema).fetch_all(&mut connection).await.unwrap();
    let mut all = String::new();
    for table in names {
        let rows = format!(r#"SELECT '{table} ' || to_json(t)::text FROM "{schema}"."{table}" AS t"#);
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_all(&mut connection).await.unwrap();
        all += &rows.join("\n");
    }
    connection.close().await.unwrap();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_user_is_in_no_row_and_no_letter_and_the_others_stay() {
    let Some(mut rig) = Rig::new("forget").await else { return };
    let (ada, bob) = ("ada-to-be-forgotten", "bob-to-stay");
    rig.add_users([ada, bob].map(|user| (user.to_owned(), Some(format!("ExponentPushToken[{user}]"))))).await;
    rig.start().await;
    for user in [ada, bob] {
        rig.send(event(&format!("e-{user}"), "partner.advanced", "s1", user)).await;
        rig.until(&format!("e-{user}"), State::Done).await;
        // Rejected on its channel: a dead letter.
        let session = format!("fault-publish-rejected-{user}");
        rig.enter(&session, user);
        rig.send(event(&format!("d-{user}"), "partner.advanced", &session, user)).await;
        rig.until(&format!("d-{user}"), State::Dead).await;
    }
    assert!(everything(&rig).await.contains(ada));
    check(&herald(&rig, &["users", "test-push", ada], &[]), 0, "");

    let told = check(&herald(&rig, &["users", "forget", ada], &[]), 1, "nothing was done; add --yes");
    assert!(told.contains("would forget: 2 rows of the ledger, 1 tickets, 1 dead letters"), "{told}");
    assert_eq!(rig.letters().await.len(), 2);
    let told = check(&herald(&rig, &["users", "forget", ada, "--yes"], &[]), 0, "will forget: 2 rows");
    assert!(
        told.contains("forgotten: 2 rows of the ledger, 1 tickets, 1 dead letters in the queue, 1 in its index"),
        "{told}"
    );

    let left = everything(&rig).await;
    assert!(!left.contains(ada), "{}", left.lines().filter(|row| row.contains(ada)).collect::<Vec<_>>().join("\n"));
    assert!(left.contains(bob) && rig.books().await.closed());
    let letters = rig.letters().await;
    assert_eq!((letters.len(), letters[0].partner_id.as_deref()), (1, Some(bob)));
    assert_eq!(rig.store.find(&Find::User(bob.to_owned()), 10).await.unwrap().len(), 2);
    let mut walk = rig.broker.walk(&rig.topology.dead()).await.unwrap();
    let mut bodies = Vec::new();
    while let Some(delivery) = walk.next().await.unwrap() {
        bodies.push(String::from_utf8_lossy(&delivery.message.body).into_owned());
    }
    walk.close().await;
    assert!(bodies.len() == 1 && bodies[0].contains(bob), "{bodies:?}");
    assert_eq!(rig.store.kept(ada).await.unwrap(), Kept::default());

    let recorded = check(&herald(&rig, &["actions", "--json"], &[]), 0, "");
    let newest: Value = serde_json::from_str(recorded.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&newest["what"], &newest["affected"], &newest["outcome"]),
        (&json!("forget"), &json!(3), &json!("forgotten"))
    );
    assert_eq!(newest["parameters"]["user"], json!(herald::domain::action::user_mark(ada)));

    // An event for them that comes later is an event like any other.
    rig.send(event("e-later", "partner.advanced", "s2", ada)).await;
    eventually("it is handled", async || rig.entry("e-later").await.filter(|e| e.state == State::Done)).await;
    rig.end().await;
}
