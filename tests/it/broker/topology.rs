//! RabbitMQ's queues as they stand: missing, fitting, different, out of reach.

use std::time::Duration;

use herald::broker::{
    Broker, BrokerError, Standing, Topology,
    amqp::{Amqp, AmqpOptions, Role},
    management::Management,
};
use lapin::{
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use secrecy::SecretString;

use super::setup::{
    PATIENCE, Rabbit, Raw, User, body, delete_queues, management_url, message, options, queue, topology,
};
use crate::support::{amqp_url, eventually, within};

/// Returns the one line `run` would end with.
async fn config_error(options: AmqpOptions) -> String {
    let broker = Amqp::start(options);
    let ready = within(15, "the refusal", broker.ready(PATIENCE)).await;
    within(4, "closing", broker.close()).await;
    match ready {
        Err(BrokerError::Config(line)) => line,
        other => panic!("{other:?}"),
    }
}

async fn declare(raw: &Raw, name: String, arguments: &[(&str, AMQPValue)], durable: bool) {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    let options = QueueDeclareOptions { durable, ..Default::default() };
    raw.channel.queue_declare(name.into(), options, table).await.unwrap();
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_different_argument_is_named_with_both_values() {
    let Some(url) = amqp_url() else { return };
    let topology = topology("differs");
    let raw = Raw::connect(&url).await;
    let name = topology.events();
    let arguments = [("x-queue-type", text("quorum")), ("x-delivery-limit", AMQPValue::LongInt(7))];
    declare(&raw, name.clone(), &arguments, true).await;
    let line = config_error(options(&url, &topology)).await;
    assert!(line.starts_with(&format!("queue `{name}`: argument x-")), "{line}");
    assert!(line.ends_with("delete or rename it, or set broker.prefix"), "{line}");
    delete_queues(&url, &topology).await;

    let arguments = [
        ("x-queue-type", text("quorum")),
        ("x-message-ttl", AMQPValue::LongInt(3_600_000)),
        ("x-delivery-limit", AMQPValue::LongInt(1_000_000_000)),
    ];
    declare(&raw, topology.dead(), &arguments, true).await;
    let line = config_error(options(&url, &topology)).await;
    let expected = format!(
        "queue `{}`: argument x-overflow is not set on the broker, herald needs it `reject-publish`; delete or rename it, \
         or set broker.prefix",
        topology.dead()
    );
    assert_eq!(line, expected);
    delete_queues(&url, &topology).await;

    declare(&raw, topology.dead(), &[("x-queue-type", text("classic"))], true).await;
    let line = config_error(options(&url, &topology)).await;
    assert!(line.starts_with(&format!("queue `{}`: argument x-", topology.dead())), "{line}");
    delete_queues(&url, &topology).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_different_exchange_is_named() {
    let Some(url) = amqp_url() else { return };
    let topology = topology("exchange");
    let raw = Raw::connect(&url).await;
    let name = topology.events();
    let kind = lapin::ExchangeKind::Direct;
    let durable = lapin::options::ExchangeDeclareOptions { durable: true, ..Default::default() };
    raw.channel.exchange_declare(name.clone().into(), kind, durable, FieldTable::default()).await.unwrap();
    let line = config_error(options(&url, &topology)).await;
    assert!(
        line.starts_with(&format!(
            "exchange `{name}`: argument type is `direct` on the broker, herald needs it `topic`"
        )),
        "{line}"
    );
    delete_queues(&url, &topology).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_retention_of_dead_letters_is_tolerated_but_nothing_else_beside_it() {
    let Some(url) = amqp_url() else { return };
    let topology = topology("retention");
    let raw = Raw::connect(&url).await;
    for (ttl, limit, fits) in [(Some(5_000), 1_000_000_000, true), (None, 1_000_000_000, true), (Some(5_000), 7, false)]
    {
        let mut arguments = vec![
            ("x-queue-type", text("quorum")),
            ("x-overflow", text("reject-publish")),
            ("x-delivery-limit", AMQPValue::LongInt(limit)),
        ];
        arguments.extend(ttl.map(|ttl| ("x-message-ttl", AMQPValue::LongInt(ttl))));
        declare(&raw, topology.dead(), &arguments, true).await;
        let inspect = Amqp::start(AmqpOptions { role: Role::Inspect, ..options(&url, &topology) });
        let found = inspect.compare(PATIENCE).await.unwrap().remove(0);
        inspect.close().await;
        if fits {
            assert!(
                matches!(&found.standing, Standing::Tolerated(words) if words.contains("x-message-ttl")),
                "{found:?}"
            );
            let broker = Amqp::start(options(&url, &topology));
            assert_eq!(broker.ready(PATIENCE).await, Ok(()));
            broker.close().await;
        } else {
            assert!(
                matches!(&found.standing, Standing::Differs(words) if words.contains("x-delivery-limit")),
                "{found:?}"
            );
            let line = config_error(options(&url, &topology)).await;
            assert!(line.contains("x-delivery-limit is `7`"), "{line}");
        }
        delete_queues(&url, &topology).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retention_the_broker_cannot_count_is_a_configuration_error() {
    let Some(url) = amqp_url() else { return };
    // RabbitMQ expires within ten years or not at all.
    let topology = Topology { dead_retention: Duration::from_secs(11 * 366 * 86_400), ..topology("long") };
    let line = config_error(options(&url, &topology)).await;
    assert!(line.contains("x-message-ttl") && line.contains(&topology.dead()), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn comparing_declares_nothing() {
    let Some(url) = amqp_url() else { return };
    let topology = topology("compare");
    let inspect = Amqp::start(AmqpOptions { role: Role::Inspect, ..options(&url, &topology) });
    let expected: Vec<String> = topology.queues().into_iter().map(|queue| format!("queue `{}`", queue.name)).collect();
    for _ in 0..2 {
        let found = inspect.compare(PATIENCE).await.unwrap();
        assert!(found.iter().all(|found| found.standing == Standing::Missing), "{found:?}");
        let names: Vec<_> = found.iter().map(|found| found.what.clone()).collect();
        assert_eq!(names[..expected.len()], expected);
        assert_eq!(names[expected.len()..], [format!("exchange `{}`", topology.events())]);
    }
    let worker = Amqp::start(options(&url, &topology));
    worker.ready(PATIENCE).await.unwrap();
    let found = inspect.compare(PATIENCE).await.unwrap();
    assert!(found.iter().all(|found| found.standing == Standing::Fits), "{found:?}");
    worker.close().await;
    inspect.close().await;
    delete_queues(&url, &topology).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_publishes_and_walks_on_one_connection() {
    let Some(url) = amqp_url() else { return };
    let topology = topology("command");
    let broker = Amqp::start(AmqpOptions { role: Role::Command, ..options(&url, &topology) });
    broker.ready(PATIENCE).await.unwrap();
    broker.publish(&queue(topology.dead()), message("letter")).await.unwrap();
    let mut walk = broker.walk(&topology.dead()).await.unwrap();
    assert_eq!(body(&walk.next().await.unwrap().unwrap().message), "letter");
    walk.close().await;
    broker.close().await;
    delete_queues(&url, &topology).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_are_one_line_without_the_password() {
    let Some(url) = amqp_url() else { return };
    let mut wrong = url::Url::parse(&url).unwrap();
    wrong.set_username("herald-nobody").unwrap();
    wrong.set_password(Some("hunter2")).unwrap();
    let line = config_error(options(wrong.as_str(), &topology("password"))).await;
    assert!(line.contains("refused user `herald-nobody`") && line.contains("AMQP_URL"), "{line}");
    assert!(!line.contains("hunter2") && !line.contains('\n'), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_vhost_is_named() {
    let Some(url) = amqp_url() else { return };
    let mut wrong = url::Url::parse(&url).unwrap();
    wrong.set_path("/herald-nowhere");
    let line = config_error(options(wrong.as_str(), &topology("vhost"))).await;
    assert!(line.starts_with("vhost `herald-nowhere` does not exist on ") && line.contains("/%2f"), "{line}");
    // Without a name after the slash AMQP URLs mean the vhost with the empty name.
    wrong.set_path("/");
    let line = config_error(options(wrong.as_str(), &topology("vhost"))).await;
    assert!(line.starts_with("vhost `` does not exist on "), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_configure_permission_arguments_are_not_checked() {
    let Some(rabbit) = Rabbit::start("noconf").await else { return };
    let user = User::create(&rabbit.url, ["^$", ".*", ".*"], "").await;
    let broker = Amqp::start(options(&user.url, &rabbit.topology));
    assert_eq!(broker.ready(PATIENCE).await, Ok(()));
    let found = broker.compare(PATIENCE).await.unwrap();
    assert!(found.iter().all(|found| matches!(found.standing, Standing::Unchecked(_))), "{found:?}");
    broker.publish(&queue(rabbit.topology.events()), message("works")).await.unwrap();
    broker.close().await;

    // Missing queues are another matter: nobody else will declare them.
    let elsewhere = topology("noconf");
    let line = config_error(options(&user.url, &elsewhere)).await;
    assert!(line.starts_with(&format!("queue `{}` does not exist", elsewhere.dead())), "{line}");
    user.delete().await;
    rabbit.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_may_not_be_read_or_written_is_a_configuration_error() {
    let Some(rabbit) = Rabbit::start("noread").await else { return };
    let user = User::create(&rabbit.url, ["^$", "^$", "^$"], "").await;
    let broker = Amqp::start(options(&user.url, &rabbit.topology));
    broker.ready(PATIENCE).await.unwrap();
    let events = rabbit.topology.events();
    let consumed = within(20, "the refusal", broker.consume(&events, 1)).await.map(|_| ());
    assert!(matches!(&consumed, Err(BrokerError::Config(line)) if line.contains(&events)), "{consumed:?}");
    let to = herald::broker::Destination::Exchange { exchange: events, routing_key: "k".to_owned() };
    let published = broker.publish(&to, message("not allowed")).await;
    assert!(matches!(published, Err(BrokerError::Config(_))), "{published:?}");
    broker.close().await;
    user.delete().await;
    rabbit.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_management_api_tells_what_amqp_does_not() {
    let Some(rabbit) = Rabbit::start("stats").await else { return };
    let events = rabbit.topology.events();
    for text in ["a", "b", "c"] {
        rabbit.broker.publish(&queue(events.clone()), message(text)).await.unwrap();
    }
    let mut consumer = rabbit.broker.consume(&events, 1).await.unwrap();
    let _in_hand = consumer.next().await.unwrap();
    let (url, amqp) = (SecretString::from(management_url()), SecretString::from(rabbit.url.clone()));
    let management = Management::new(&url, &amqp).unwrap();
    let stats = eventually("the numbers", async || {
        let stats = management.queues(&rabbit.topology.prefix).await.unwrap();
        stats.get(&events).is_some_and(|queue| queue.ready == Some(2)).then_some(stats)
    })
    .await;
    assert_eq!(stats.len(), rabbit.topology.queues().len(), "{stats:?}");
    assert_eq!(stats[&events].unacked, Some(1));
    assert_eq!(stats[&events].policy, None);

    let refused = SecretString::from(crate::support::with_password(&management_url(), "hunter2"));
    let refused = Management::new(&refused, &amqp).unwrap().queues(&rabbit.topology.prefix).await;
    assert!(matches!(&refused, Err(BrokerError::Config(line)) if !line.contains("hunter2")), "{refused:?}");
    let nobody = SecretString::from("http://guest:hunter2@127.0.0.1:1");
    let nobody = within(6, "the answer", Management::new(&nobody, &amqp).unwrap().queues("p")).await;
    assert!(matches!(&nobody, Err(BrokerError::Unavailable(line)) if !line.contains("hunter2")), "{nobody:?}");
    consumer.close().await;
    rabbit.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_broker_is_unavailable_after_the_callers_patience() {
    let topology = topology("absent");
    for role in [Role::Worker, Role::Command] {
        let broker = Amqp::start(AmqpOptions { role, ..options("amqp://guest:guest@127.0.0.1:1/%2f", &topology) });
        let ready = within(5, "the end of patience", broker.ready(Duration::from_secs(1))).await;
        assert!(matches!(&ready, Err(BrokerError::Unavailable(why)) if why.contains("127.0.0.1:1")), "{ready:?}");
        within(4, "closing", broker.close()).await;
    }
}
