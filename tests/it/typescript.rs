//! The package for backends, `clients/typescript`, and the examples beside it: against real RabbitMQ and a real herald.
//!
//! The tests themselves are Node's, in `clients/test`. Here they get what they need as JSON, never from the environment.

use std::collections::BTreeMap;

use herald::domain::event::{Meta, decode};
use serde_json::{Value, json};

use crate::{
    broker::tls::tls_in_front_of,
    npm::{Project, run},
    rig::Rig,
    servers::Rabbit,
    support::within,
};

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/contract/message.schema.json");

/// What the tests in `clients/test` are held to, one row for each body; they hold the package to the same.
#[derive(serde::Deserialize)]
struct Case {
    body: String,
    /// The field that is refused, if one is.
    field: Option<String>,
    /// Where herald calls it by another name.
    herald: Option<String>,
}

/// Runs files of `clients/test` with Node's test runner; all must pass and none may be skipped.
async fn pass(files: &[&str], given: &Value) {
    let Some(clients) = Project::install("clients").await else { return };
    let mut node = clients.script("--test");
    node.args(["--test-reporter=spec", "--test-timeout=420000"]).args(files);
    node.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    node.env("HERALD_CLIENT_TEST", given.to_string());
    let told = within(480, "Node's tests", run(&mut node, "")).await;
    println!("{told}");
    assert!(told.contains("\u{2139} skipped 0\n"), "{told}");
}

/// What the tests in Node need of a rig.
fn given(rig: &Rig) -> Value {
    let command = rig.command(&[]);
    let text = |text: &std::ffi::OsStr| text.to_str().expect("UTF-8").to_owned();
    let environment: BTreeMap<String, String> =
        command.get_envs().filter_map(|(name, value)| Some((text(name), text(value?)))).collect();
    json!({
        "url": rig.amqp_url,
        "prefix": rig.prefix,
        "sandbox": rig.sandbox.url(),
        "schema": SCHEMA,
        "herald": {
            "program": text(command.get_program()),
            "environment": environment,
            "folder": command.get_current_dir(),
        },
    })
}

fn phone(user: &str) -> Option<String> {
    Some(format!("ExponentPushToken[phone-{user}]"))
}

/// In the table apostrophes stand for quotation marks, and `<x*3>` for xxx.
fn written(body: &str) -> String {
    let mut text = String::new();
    let mut rest = body;
    while let Some((before, repeat)) = rest.split_once('<') {
        let (repeat, after) = repeat.split_once('>').expect("a closed repeat");
        let (what, times) = repeat.split_once('*').expect("how often");
        text.push_str(before);
        text.push_str(&what.repeat(times.parse().expect("a number")));
        rest = after;
    }
    (text + rest).replace('\'', "\"")
}

#[test]
fn the_package_refuses_what_herald_refuses() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../clients/test/cases.json")).unwrap();
    assert!(cases.len() > 30);
    for Case { body, field, herald } in cases {
        let refused =
            decode(written(&body).as_bytes(), &Meta::default()).err().map(|malformed| malformed.field.to_owned());
        assert_eq!(refused, herald.or(field), "{body}");
    }
}

#[tokio::test]
async fn the_package_by_itself_and_its_types() {
    pass(&["test/message.test.js", "test/backlog.test.js", "test/schema.test.js"], &json!({"schema": SCHEMA})).await;
    let Some(clients) = Project::install("clients").await else { return };
    within(120, "tsc", run(clients.script("node_modules/typescript/bin/tsc").arg("--pretty"), "")).await;
}

#[tokio::test]
async fn what_a_backend_calls_reaches_channels_and_phones() {
    let Some(mut rig) = Rig::new("tsdeliver").await else { return };
    let users = ["ada", "bob", "eve"].map(|user| (user.to_owned(), phone(user)));
    rig.add_users(users).await;
    let tokens = [("walt", Some("not-a-token")), ("uma", Some("ExponentPushToken[unregistered-uma]")), ("vera", None)];
    rig.add_users(tokens.map(|(user, token)| (user.to_owned(), token.map(str::to_owned)))).await;
    rig.start().await;
    pass(&["test/delivery.test.js", "test/trace.test.js"], &given(&rig)).await;
    assert_eq!(rig.token_of("uma").await, None, "the token of a device that is gone is cleared");
    assert!(rig.books().await.closed());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_package_bears_a_broker_that_is_full_blocked_or_not_set_up() {
    let Some(rabbit) = Rabbit::start() else { return };
    let Some(mut rig) = Rig::on("tsbroker", rabbit.url.clone()).await else { return };
    // Started once, so that exchange and queues are there; ended, so that what comes stays there.
    let worker = rig.start().await;
    rig.terminate(worker).await;
    let tls = tls_in_front_of(&rabbit.url).await;
    let mut given = given(&rig);
    given["node"] = json!(rabbit.script());
    given["tls"] = json!({"url": tls.url, "ca": tls.authority});
    pass(&["test/broker.test.js"], &given).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_confirmed_is_lost_over_restarts_and_kills_of_the_broker() {
    let Some(rabbit) = Rabbit::start() else { return };
    let Some(mut rig) = Rig::on("tsrestart", rabbit.url.clone()).await else { return };
    rig.add_users((0..50).map(|number| (format!("user-{number}"), phone(&number.to_string())))).await;
    rig.start().await;
    let mut given = given(&rig);
    given["node"] = json!(rabbit.script());
    pass(&["test/restart.test.js"], &given).await;
    let books = rig.books().await;
    assert!(books.closed(), "{books:?}");
    rig.end().await;
}
