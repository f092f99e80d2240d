//! The examples for other languages in `clients/examples`, run as they stand, against a real herald.

use herald::domain::ledger::{State, Via};
use tokio::process::Command;

use crate::{
    npm::{Project, run},
    python,
    rig::Rig,
    support::{unique, within},
};

/// Runs an example for `bob` in a session of its own: what it enqueues is pushed; without herald's queue it fails and says so.
async fn enqueues(mut rig: Rig, example: impl Fn() -> Command) {
    rig.add_users([("bob".to_owned(), Some("ExponentPushToken[phone-bob]".to_owned()))]).await;
    rig.start().await;
    let with = |prefix: &str| {
        let mut command = example();
        command.env("AMQP_URL", &rig.amqp_url).env("HERALD_BROKER__PREFIX", prefix).args(["s1", "bob"]);
        command
    };
    let told = within(60, "the example", run(&mut with(&rig.prefix), "")).await;
    let entry = rig.until(told.trim(), State::Done).await;
    assert_eq!(entry.via, Some(Via::Push));
    assert_eq!(rig.effects()[told.trim()], (0, 1));

    let unbound = unique("unbound");
    declare_exchange(&rig.amqp_url, &format!("{unbound}.events"), true).await;
    let output = within(60, "the example", with(&unbound).kill_on_drop(true).output()).await.unwrap();
    declare_exchange(&rig.amqp_url, &format!("{unbound}.events"), false).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty(), "what no queue takes is an error: {errors}");
    assert!(errors.contains("no queue") || errors.contains("UnroutableError"), "{errors}");
    rig.end().await;
}

async fn declare_exchange(url: &str, name: &str, there: bool) {
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    if there {
        let options = lapin::options::ExchangeDeclareOptions::default();
        let declared = channel.exchange_declare(name.into(), lapin::ExchangeKind::Topic, options, Default::default());
        declared.await.unwrap();
    } else {
        channel.exchange_delete(name.into(), Default::default()).await.unwrap();
    }
    connection.close(200, "done".into()).await.unwrap();
}

#[tokio::test]
async fn the_example_in_python() {
    let Some(python) = python::environment("clients/examples").await else { return };
    let Some(rig) = Rig::new("expython").await else { return };
    let example = || {
        let mut command = Command::new(&python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/examples/enqueue.py"));
        command
    };
    enqueues(rig, example).await;
}

#[tokio::test]
async fn the_example_with_amqplib_alone() {
    let Some(clients) = Project::install("clients").await else { return };
    let Some(rig) = Rig::new("exnode").await else { return };
    enqueues(rig, || clients.script("examples/enqueue.js")).await;
}
