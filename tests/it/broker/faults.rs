//! What goes wrong with a RabbitMQ connection, and that nothing is lost by it.

use std::time::{Duration, Instant};

use herald::broker::{
    Broker, BrokerError, Consumer, Delivery,
    amqp::{Amqp, AmqpOptions, Role},
};
use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpListener};

use super::setup::{PATIENCE, Rabbit, Raw, body, delete_queues, manage, message, options, queue, topology};
use crate::{
    relay::{Mode, Relay},
    support::{amqp_url, eventually, within},
};

async fn next(consumer: &mut Consumer) -> Delivery {
    within(20, "a delivery", consumer.next()).await.expect("the consumer stands")
}

async fn gone(consumer: &mut Consumer) {
    for _ in 0..2 {
        assert!(within(25, "the consumer's end", consumer.next()).await.is_none(), "a delivery of a dead consumer");
    }
}

/// A worker whose connections go through a relay.
struct Relayed {
    relay: Relay,
    broker: Amqp,
    options: AmqpOptions,
    direct: String,
}

impl Relayed {
    async fn start(name: &str, query: &str) -> Option<Relayed> {
        let direct = amqp_url()?;
        let mut url = url::Url::parse(&direct).unwrap();
        let relay = Relay::start(format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5672))).await;
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(relay.port())).unwrap();
        url.set_query(Some(query));
        let options = options(url.as_str(), &topology(name));
        let broker = Amqp::start(options.clone());
        broker.ready(PATIENCE).await.unwrap();
        Some(Relayed { relay, broker, options, direct })
    }

    fn events(&self) -> String {
        self.options.topology.events()
    }

    async fn clean_up(self) {
        within(4, "closing", self.broker.close()).await;
        delete_queues(&self.direct, &self.options.topology).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_closed_by_an_operator_come_back_with_what_was_in_hand() {
    let Some(rabbit) = Rabbit::start("operator").await else { return };
    let events = rabbit.topology.events();
    for text in ["0", "1", "2"] {
        rabbit.broker.publish(&queue(events.clone()), message(text)).await.unwrap();
    }
    let mut consumer = rabbit.broker.consume(&events, 2).await.unwrap();
    let settled = next(&mut consumer).await;
    let in_hand = next(&mut consumer).await;
    assert!(settled.receipt.ack().await);

    let instance = rabbit.topology.prefix.clone();
    let names = eventually("both connections in the list", async || {
        let connections = manage("GET", "connections", json!({})).await;
        let ours = connections.as_array().unwrap().iter().filter(|connection| {
            let name = connection["client_properties"]["connection_name"].as_str().unwrap_or_default();
            name == format!("herald {instance} consume") || name == format!("herald {instance} publish")
        });
        let names: Vec<String> = ours.map(|connection| connection["name"].as_str().unwrap().to_owned()).collect();
        (names.len() == 2).then_some(names)
    })
    .await;
    for name in names {
        let name = name.replace(' ', "%20").replace('>', "%3E");
        manage("DELETE", &format!("connections/{name}"), json!({})).await;
    }
    gone(&mut consumer).await;
    assert!(!in_hand.receipt.usable());
    assert!(!in_hand.receipt.ack().await);

    let mut consumer = within(20, "a consumer", rabbit.broker.consume(&events, 10)).await.unwrap();
    for (text, redelivered) in [("1", true), ("2", true)] {
        let delivery = next(&mut consumer).await;
        assert_eq!(body(&delivery.message), text);
        assert!(delivery.redelivered == redelivered || text == "2");
        assert!(delivery.receipt.ack().await);
    }
    rabbit.broker.publish(&queue(events.clone()), message("after")).await.unwrap();
    assert_eq!(body(&next(&mut consumer).await.message), "after");
    consumer.close().await;
    rabbit.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_ends_the_consumer_and_is_declared_again() {
    let Some(rabbit) = Rabbit::start("deleted").await else { return };
    let events = rabbit.topology.events();
    let mut consumer = rabbit.broker.consume(&events, 2).await.unwrap();
    let raw = Raw::connect(&rabbit.url).await;
    raw.channel.queue_delete(events.clone().into(), Default::default()).await.unwrap();
    gone(&mut consumer).await;
    let mut consumer = within(20, "a consumer", rabbit.broker.consume(&events, 2)).await.unwrap();
    let to = herald::broker::Destination::Exchange { exchange: events.clone(), routing_key: "k".to_owned() };
    rabbit.broker.publish(&to, message("bound again")).await.unwrap();
    assert_eq!(body(&next(&mut consumer).await.message), "bound again");
    consumer.close().await;
    rabbit.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_retry_queue_is_declared_again_for_the_next_publish() {
    let Some(rabbit) = Rabbit::start("redeclare").await else { return };
    let retry = rabbit.topology.retry(rabbit.topology.schedule[0]);
    let raw = Raw::connect(&rabbit.url).await;
    raw.channel.queue_delete(retry.clone().into(), Default::default()).await.unwrap();
    assert_eq!(rabbit.broker.publish(&queue(retry), message("again")).await, Ok(()));
    let mut consumer = rabbit.broker.consume(&rabbit.topology.events(), 1).await.unwrap();
    assert_eq!(body(&next(&mut consumer).await.message), "again");
    consumer.close().await;
    raw.channel.exchange_delete(rabbit.topology.events().into(), Default::default()).await.unwrap();
    let to = herald::broker::Destination::Exchange { exchange: rabbit.topology.events(), routing_key: "k".to_owned() };
    assert_eq!(rabbit.broker.publish(&to, message("again")).await, Ok(()));
    rabbit.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_comes_back() {
    let Some(relayed) = Relayed::start("cut", "").await else { return };
    let (broker, events) = (&relayed.broker, relayed.events());
    broker.publish(&queue(events.clone()), message("in hand")).await.unwrap();
    let mut consumer = broker.consume(&events, 2).await.unwrap();
    let in_hand = next(&mut consumer).await;
    relayed.relay.set(Mode::Cut);
    gone(&mut consumer).await;
    eventually("the end of both connections", async || (!broker.connected()).then_some(())).await;
    assert!(!in_hand.receipt.ack().await);
    // A publish begun while the connection is away waits for the next one.
    let to = queue(events.clone());
    let (published, ()) = tokio::join!(broker.publish(&to, message("waited")), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        relayed.relay.set(Mode::Forward);
    });
    assert_eq!(published, Ok(()));
    let mut consumer = within(20, "a consumer", broker.consume(&events, 2)).await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!((body(&again.message), again.redelivered), ("in hand", true));
    assert_eq!(body(&next(&mut consumer).await.message), "waited");
    consumer.close().await;
    relayed.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_gives_up_after_ten_seconds_without_a_connection() {
    let Some(relayed) = Relayed::start("away", "").await else { return };
    relayed.relay.set(Mode::Cut);
    eventually("the end of both connections", async || (!relayed.broker.connected()).then_some(())).await;
    let since = Instant::now();
    let published =
        within(15, "the end of patience", relayed.broker.publish(&queue(relayed.events()), message("x"))).await;
    assert!(matches!(published, Err(BrokerError::Unavailable(_))), "{published:?}");
    assert!((9..13).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    relayed.relay.set(Mode::Forward);
    relayed.broker.ready(PATIENCE).await.unwrap();
    relayed.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_ends_publishes_acknowledgements_and_the_epoch() {
    let Some(relayed) = Relayed::start("hole", "heartbeat=2").await else { return };
    let (broker, events) = (&relayed.broker, relayed.events());
    broker.publish(&queue(events.clone()), message("in hand")).await.unwrap();
    let mut consumer = broker.consume(&events, 2).await.unwrap();
    let in_hand = next(&mut consumer).await;
    relayed.relay.set(Mode::Blackhole);
    let published = within(15, "the publish's end", broker.publish(&queue(events.clone()), message("swallowed"))).await;
    assert!(matches!(published, Err(BrokerError::Unavailable(_))), "{published:?}");
    gone(&mut consumer).await;
    assert!(!in_hand.receipt.ack().await);
    assert!(!broker.connected());
    relayed.relay.set(Mode::Cut);
    relayed.relay.set(Mode::Forward);
    let mut consumer = within(30, "a consumer", broker.consume(&events, 2)).await.unwrap();
    // The swallowed publish may or may not have come through when the hole opened; what was in hand comes first.
    let again = next(&mut consumer).await;
    assert_eq!((body(&again.message), again.redelivered), ("in hand", true));
    consumer.close().await;
    relayed.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_in_a_black_hole_takes_no_longer_than_two_seconds() {
    let Some(relayed) = Relayed::start("hole_close", "").await else { return };
    relayed.relay.set(Mode::Blackhole);
    let since = Instant::now();
    relayed.broker.close().await;
    assert!(since.elapsed() < Duration::from_millis(2_500), "{:?}", since.elapsed());
    relayed.relay.set(Mode::Forward);
    delete_queues(&relayed.direct, &relayed.options.topology).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_started_before_its_broker_waits_for_it() {
    let Some(relayed) = Relayed::start("early", "").await else { return };
    relayed.relay.set(Mode::Cut);
    let late = Amqp::start(relayed.options.clone());
    let ready = late.ready(Duration::from_millis(500)).await;
    assert!(matches!(ready, Err(BrokerError::Unavailable(_))), "{ready:?}");
    relayed.relay.set(Mode::Forward);
    assert_eq!(late.ready(PATIENCE).await, Ok(()));
    late.close().await;
    relayed.broker.ready(PATIENCE).await.unwrap();
    relayed.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_error_after_the_first_connection_is_waited_out() {
    let Some(relayed) = Relayed::start("later", "").await else { return };
    let (broker, events) = (&relayed.broker, relayed.events());
    let raw = Raw::connect(&relayed.direct).await;
    relayed.relay.set(Mode::Cut);
    eventually("the end of both connections", async || (!broker.connected()).then_some(())).await;
    raw.channel.queue_delete(events.clone().into(), Default::default()).await.unwrap();
    let durable = lapin::options::QueueDeclareOptions { durable: true, ..Default::default() };
    raw.channel.queue_declare(events.clone().into(), durable, Default::default()).await.unwrap();
    relayed.relay.set(Mode::Forward);
    let ready = broker.ready(Duration::from_secs(3)).await;
    assert!(matches!(&ready, Err(BrokerError::Unavailable(why)) if why.contains(&events)), "{ready:?}");
    raw.channel.queue_delete(events.clone().into(), Default::default()).await.unwrap();
    assert_eq!(broker.ready(PATIENCE).await, Ok(()));
    relayed.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_accepts_and_stays_silent_is_given_up_and_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
    let silent = Amqp::start(AmqpOptions { role: Role::Command, ..options(&url, &topology("silent")) });
    let (mut first, _) = within(5, "a connection", listener.accept()).await.unwrap();
    // The next attempt begins when the first has been given up: by then the first socket must be closed, or lapin's
    // thread would wait on it for ever.
    let (_second, _) = within(15, "the next attempt", listener.accept()).await.unwrap();
    let mut greeting = Vec::new();
    within(2, "the end of the first connection", first.read_to_end(&mut greeting)).await.unwrap();
    assert_eq!(greeting, b"AMQP\0\0\x09\x01");
    let ready = silent.ready(Duration::from_millis(100)).await;
    assert!(matches!(&ready, Err(BrokerError::Unavailable(why)) if why.contains("handshake")), "{ready:?}");
    within(4, "closing", silent.close()).await;
}
