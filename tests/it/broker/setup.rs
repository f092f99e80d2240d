//! A RabbitMQ with queues of its own, deleted at the end.

use std::time::Duration;

use herald::broker::{
    Broker, Destination, Message, Topology,
    amqp::{Amqp, AmqpOptions, Role},
};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::support::{amqp_url, unique, within};

/// Longest a test waits for a broker.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Returns a topology nobody else uses, with one short retry queue.
pub fn topology(name: &str) -> Topology {
    Topology {
        prefix: unique(name),
        schedule: vec![Duration::from_millis(400)],
        dead_retention: Duration::from_secs(3600),
    }
}

/// Returns options for a worker on `url`.
pub fn options(url: &str, topology: &Topology) -> AmqpOptions {
    AmqpOptions {
        url: SecretString::from(url),
        ca_file: None,
        instance: topology.prefix.clone(),
        topology: topology.clone(),
        role: Role::Worker,
    }
}

/// A worker's connections to the RabbitMQ under test, ready; [`Rabbit::clean_up`] deletes its queues.
pub struct Rabbit {
    pub broker: Amqp,
    pub topology: Topology,
    pub url: String,
}

impl Rabbit {
    /// Connects, or returns `None` after saying that the test is skipped.
    pub async fn start(name: &str) -> Option<Rabbit> {
        let url = amqp_url()?;
        let topology = topology(name);
        let broker = Amqp::start(options(&url, &topology));
        broker.ready(PATIENCE).await.unwrap();
        Some(Rabbit { broker, topology, url })
    }

    pub async fn clean_up(self) {
        within(5, "closing", self.broker.close()).await;
        delete_queues(&self.url, &self.topology).await;
    }
}

/// Deletes the topology's queues and exchange.
pub async fn delete_queues(url: &str, topology: &Topology) {
    let channel = Raw::connect(url).await;
    for queue in topology.queues() {
        channel.channel.queue_delete(queue.name.into(), Default::default()).await.unwrap();
    }
    channel.channel.exchange_delete(topology.events().into(), Default::default()).await.unwrap();
}

/// A plain connection, to prepare what herald then finds.
pub struct Raw {
    pub channel: lapin::Channel,
    _connection: lapin::Connection,
}

impl Raw {
    pub async fn connect(url: &str) -> Raw {
        let connection = lapin::Connection::connect(url, Default::default()).await.unwrap();
        Raw { channel: connection.create_channel().await.unwrap(), _connection: connection }
    }
}

/// Calls the management API of the RabbitMQ under test; the default is its usual place beside the AMQP port.
pub async fn manage(method: &str, path: &str, body: Value) -> Value {
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let method = method.parse().unwrap();
    let request = reqwest::Client::new().request(method, format!("{}/api/{path}", management_url()));
    let request = request.header("content-type", "application/json").body(body.to_string());
    let response = request.send().await.unwrap();
    assert!(response.status().is_success(), "{path}: {}", response.status());
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null)
}

/// A user of a test's own, to be deleted at its end.
pub struct User {
    name: String,
    pub url: String,
}

impl User {
    /// Makes a user for the RabbitMQ at `url` with the patterns of what it may configure, write and read.
    pub async fn create(url: &str, permissions: [&str; 3], tags: &str) -> User {
        let name = unique("herald_user");
        manage("PUT", &format!("users/{name}"), json!({ "password": "pw", "tags": tags })).await;
        let [configure, write, read] = permissions;
        let permissions = json!({ "configure": configure, "write": write, "read": read });
        manage("PUT", &format!("permissions/%2f/{name}"), permissions).await;
        let url = as_user(url, &name);
        User { name, url }
    }

    /// Returns the management API's URL for this user.
    pub fn management_url(&self) -> String {
        as_user(&management_url(), &self.name)
    }

    pub async fn delete(self) {
        manage("DELETE", &format!("users/{}", self.name), json!({})).await;
    }
}

fn as_user(url: &str, name: &str) -> String {
    let mut url = url::Url::parse(url).unwrap();
    url.set_username(name).unwrap();
    url.set_password(Some("pw")).unwrap();
    url.into()
}

pub fn management_url() -> String {
    if let Ok(url) = std::env::var("HERALD_TEST_MANAGEMENT_URL") {
        return url;
    }
    let mut url = url::Url::parse(&amqp_url().unwrap().replace("amqp:", "http:")).unwrap();
    let port = url.port().unwrap_or(5672);
    url.set_port(Some(port + 10_000)).unwrap();
    url.set_path("");
    url.to_string().trim_end_matches('/').to_owned()
}

pub fn message(body: &str) -> Message {
    Message { body: body.to_owned().into(), ..Message::default() }
}

pub fn body(message: &Message) -> &str {
    std::str::from_utf8(&message.body).unwrap()
}

pub fn queue(name: String) -> Destination {
    Destination::Queue(name)
}
