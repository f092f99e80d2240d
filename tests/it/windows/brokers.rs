//! A broker that closes connections, dies, blocks publishing or refuses copies: everything ends, and nothing stays in hand.

use std::{path::PathBuf, process::Command, time::Duration};

use herald::{
    broker::{Broker, Destination, Message},
    domain::{ledger::State, outcome::Provider},
    sandbox::{Action, Endpoint, Fault, Match, Phase},
};
use serde_json::json;

use super::{all_arrived, all_ended, fault, hold, send_range, until_held};
use crate::{
    broker::setup::{manage, management_url},
    rig::{Rig, event},
    support::{amqp_url, eventually, unique},
};

const COUNT: usize = 300;

/// A RabbitMQ of this test's own, removed with it.
struct Node {
    name: String,
    folder: PathBuf,
    _own: Option<tempfile::TempDir>,
    url: String,
}

impl Node {
    /// Starts a node in `HERALD_TEST_DIR`, or in a folder of its own that the broker's user may enter.
    async fn start(name: &str) -> Option<Node> {
        amqp_url()?;
        let (folder, own) = match std::env::var_os("HERALD_TEST_DIR") {
            Some(folder) => (PathBuf::from(folder), None),
            None => {
                let own = tempfile::tempdir().expect("folder");
                use std::os::unix::fs::PermissionsExt;
                std::fs::set_permissions(own.path(), std::fs::Permissions::from_mode(0o755)).expect("permissions");
                (own.path().to_owned(), Some(own))
            }
        };
        let mut node = Node { name: unique(name), folder, _own: own, url: String::new() };
        let lines = node.run("start", &[]).await;
        node.url = lines.lines().find_map(|line| line.strip_prefix("url=")).expect("the node's URL").to_owned();
        Some(node)
    }

    fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/rabbitmq-node"));
        command.args([verb, &self.name]).arg(&self.folder).args(arguments);
        command
    }

    async fn run(&self, verb: &str, arguments: &[&str]) -> String {
        let command = self.command(verb, arguments);
        let output = tokio::process::Command::from(command).output().await.expect("scripts/rabbitmq-node");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{verb} {arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.command("remove", &[]).output();
    }
}

/// Waits until the management knows both connections of the worker, which takes it some seconds, and returns their names.
async fn connections(instance: &str) -> Vec<String> {
    eventually("both connections in the list", async || {
        let connections = manage("GET", "connections", json!({})).await;
        let ours = connections.as_array()?.iter().filter(|connection| {
            let name = connection["client_properties"]["connection_name"].as_str().unwrap_or_default();
            name.starts_with(&format!("herald {instance} "))
        });
        let names: Vec<String> = ours.filter_map(|connection| connection["name"].as_str().map(str::to_owned)).collect();
        (names.len() >= 2).then_some(names)
    })
    .await
}

async fn close(connections: &[String]) {
    for name in connections {
        let url = format!("{}/api/connections/{}", management_url(), name.replace(' ', "%20").replace('>', "%3E"));
        // It may have ended by itself meanwhile.
        reqwest::Client::new().delete(url).send().await.expect("management");
    }
}

#[tokio::test]
async fn connections_closed_by_an_operator_under_load() {
    let Some(mut rig) = Rig::new("bclose").await else { return };
    let instance = rig.prefix.clone();
    rig.start_as(&instance, &[("HERALD_BROKER__PREFETCH", "8")]).await;
    for endpoint in [Endpoint::Presence, Endpoint::BatchPresence] {
        let slow = Fault { delay_ms: Some(500), ..fault(endpoint, Action::Slow) };
        rig.sandbox.control().add_fault(slow);
    }
    let mut closed = connections(&instance).await;
    send_range(&rig, 0, COUNT).await;
    close(&closed).await;
    let again: Vec<String> =
        connections(&instance).await.into_iter().filter(|connection| !closed.contains(connection)).collect();
    close(&again).await;
    closed.extend(again);
    let closed = closed.len();
    assert!(closed >= 3, "{closed} connections closed");
    let books = all_ended(&rig, COUNT).await;
    let repeats = all_arrived(&rig, COUNT);
    println!("{closed} connections closed, {repeats} effects came twice: {books:?}");
    assert_eq!(repeats, 0, "what was accepted is known when its delivery comes again");
    rig.end().await;
}

#[tokio::test]
async fn rabbitmq_is_killed_and_restarted_under_load() {
    let Some(node) = Node::start("bkill").await else { return };
    let Some(mut rig) = Rig::on("bkill", node.url.clone()).await else { return };
    let worker = rig.start_with(&[("HERALD_BROKER__PREFETCH", "32")]).await;
    let slow = Fault { delay_ms: Some(100), ..fault(Endpoint::Presence, Action::Slow) };
    rig.sandbox.control().add_fault(slow);
    send_range(&rig, 0, COUNT).await;
    for (verb, target) in [("kill", COUNT / 5), ("stop", COUNT / 2)] {
        eventually("some events are done", async || {
            (rig.books().await.done.values().sum::<i64>() >= target as i64).then_some(())
        })
        .await;
        node.run(verb, &[]).await;
        eventually("the worker is not ready", async || (rig.ready(worker).await == 503).then_some(())).await;
        node.run("start", &[]).await;
    }
    let books = all_ended(&rig, COUNT).await;
    println!("killed and stopped, {} effects came twice: {books:?}", all_arrived(&rig, COUNT));
    assert_eq!(all_arrived(&rig, COUNT), 0);
    rig.end().await;
}

#[tokio::test]
async fn an_alarm_that_blocks_publishing_stops_copies_only() {
    let Some(node) = Node::start("balarm").await else { return };
    let Some(mut rig) = Rig::on("balarm", node.url.clone()).await else { return };
    rig.enter("s1", "ada");
    let worker = rig.start().await;
    // One waits for its publish to be taken, the other for presence, behind which its publish is refused.
    hold(&rig, Endpoint::Publish, Phase::Before);
    hold(&rig, Endpoint::Presence, Phase::Before);
    rig.send(event("fails", "partner.advanced", "s1", "ada")).await;
    rig.send(json!({"id": "goes", "sessionId": "s2", "event": "partner.advanced"})).await;
    eventually("both are out", async || (rig.sandbox.control().held().len() == 2).then_some(())).await;
    node.run("ctl", &["set_vm_memory_high_watermark", "absolute", "1"]).await;
    let matching = Match { endpoint: Some(Endpoint::Publish), contains: Some("session:s1".into()), ..Match::default() };
    rig.sandbox.control().add_fault(Fault { matching, ..Fault::new(Action::Status) });
    rig.sandbox.control().release();
    rig.until("goes", State::Done).await;
    let blocked = async || rig.log(worker).contains("the broker blocks publishing").then_some(());
    eventually("the broker blocks the copy", blocked).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let entry = rig.entry("fails").await.expect("claimed");
    assert_eq!((entry.state, entry.attempt), (State::Waiting, 0), "not charged before its copy stands: {entry:?}");
    node.run("ctl", &["set_vm_memory_high_watermark", "0.6"]).await;
    rig.sandbox.control().clear_faults();
    rig.until("fails", State::Done).await;
    eventually("nothing is left", async || (rig.ready_messages(&rig.topology.events()).await == 0).then_some(())).await;
    assert_eq!(rig.effects()["fails"], (1, 0));
    rig.end().await;
}

/// A user and a vhost of the test's own.
async fn own_vhost(name: &str) -> Option<(String, String)> {
    let amqp = amqp_url()?;
    let name = unique(name);
    manage("PUT", &format!("vhosts/{name}"), json!({})).await;
    manage("PUT", &format!("users/{name}"), json!({"password": "test", "tags": ""})).await;
    permit(&name, ".*").await;
    let mut url = url::Url::parse(&amqp).expect("URL");
    url.set_username(&name).expect("user");
    url.set_password(Some("test")).expect("password");
    url.set_path(&format!("/{name}"));
    Some((name, url.to_string()))
}

async fn permit(name: &str, write: &str) {
    let permissions = json!({"configure": ".*", "write": write, "read": ".*"});
    manage("PUT", &format!("permissions/{name}/{name}"), permissions).await;
}

#[tokio::test]
async fn an_event_whose_copy_is_refused_is_not_left_in_hand() {
    let Some((vhost, url)) = own_vhost("brefuse").await else { return };
    let Some(mut rig) = Rig::on("brefuse", url).await else { return };
    let worker = rig.start().await;
    let fails = Match { contains: Some("session:fails".into()), ..Match::default() };
    rig.sandbox.control().add_fault(Fault { matching: fails, ..Fault::new(Action::Status) });
    // Straight into the queues, with what the worker has not yet been allowed to publish.
    for (id, queue) in [("held", rig.topology.hold(Provider::Ably)), ("fresh", rig.topology.events())] {
        let body = json!({"id": id, "sessionId": format!("fails-{id}"), "event": "partner.advanced"}).to_string();
        let properties = lapin::BasicProperties::default().with_content_type("application/json".into());
        permit(&vhost, ".*").await;
        let message = Message { body: body.into_bytes().into(), properties };
        rig.broker.publish(&Destination::Queue(queue), message).await.expect("published");
        permit(&vhost, "^$").await;
    }
    eventually("a copy is given up", async || rig.log(worker).contains("the event comes again").then_some(())).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    rig.sandbox.control().clear_faults();
    permit(&vhost, ".*").await;
    for id in ["fresh", "held"] {
        let entry = rig.until(id, State::Done).await;
        println!("{id}: attempt {}", entry.attempt);
        assert_eq!(rig.effects()[id], (1, 0));
    }
    rig.end().await;
    manage("DELETE", &format!("vhosts/{vhost}"), json!({})).await;
    manage("DELETE", &format!("users/{vhost}"), json!({})).await;
}

#[tokio::test]
async fn a_queue_deleted_under_the_worker_is_made_again() {
    let Some(mut rig) = Rig::new("bdelete").await else { return };
    rig.enter("s1", "ada");
    rig.start().await;
    let connection = lapin::Connection::connect(&rig.amqp_url, Default::default()).await.expect("RabbitMQ");
    let channel = connection.create_channel().await.expect("channel");
    hold(&rig, Endpoint::Publish, Phase::Before);
    rig.send(event("e1", "partner.advanced", "s1", "ada")).await;
    until_held(&rig).await;
    for queue in [rig.topology.hold(Provider::Ably), rig.topology.events()] {
        channel.queue_delete(queue.as_str().into(), Default::default()).await.expect("deleted");
    }
    rig.sandbox.control().release();
    // What was in hand reached its end, though its queue is gone.
    rig.until("e1", State::Done).await;
    eventually("the queues are back", async || {
        rig.broker.depth(&rig.topology.events()).await.ok()?;
        rig.broker.depth(&rig.topology.hold(Provider::Ably)).await.ok()
    })
    .await;
    rig.send(event("e2", "partner.advanced", "s1", "ada")).await;
    rig.until("e2", State::Done).await;
    assert_eq!(rig.effects().values().collect::<Vec<_>>(), [&(1, 0), &(1, 0)]);
    rig.end().await;
}
