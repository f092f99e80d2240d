//! What every broker promises, run on both.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt, stream};
use herald::{
    broker::{Broker, BrokerError, Consumer, Delivery, Destination, Topology, memory::Memory},
    domain::outcome::Provider,
};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};

use super::setup::{PATIENCE, Rabbit, body, message, queue, topology};
use crate::support::{eventually, within};

/// Runs one check on RabbitMQ and in memory, as two tests of its name.
async fn on_rabbitmq(check: impl AsyncFnOnce(&herald::broker::amqp::Amqp, &Topology)) {
    let Some(rabbit) = Rabbit::start("contract").await else { return };
    within(60, "the check", check(&rabbit.broker, &rabbit.topology)).await;
    rabbit.clean_up().await;
}

async fn in_memory(check: impl AsyncFnOnce(&Memory, &Topology)) {
    let topology = topology("contract");
    let broker = Memory::start(&topology);
    broker.ready(PATIENCE).await.unwrap();
    within(60, "the check", check(&broker, &topology)).await;
    broker.close().await;
}

async fn next(consumer: &mut Consumer) -> Delivery {
    within(20, "a delivery", consumer.next()).await.expect("the consumer stands")
}

async fn publish_all(broker: &impl Broker, to: &Destination, count: usize) {
    for number in 0..count {
        broker.publish(to, message(&number.to_string())).await.unwrap();
    }
}

async fn ready(broker: &impl Broker, name: &str, count: u64) {
    eventually(&format!("{count} messages in {name}"), async || {
        (broker.depth(name).await.unwrap().ready == count).then_some(())
    })
    .await;
}

async fn a_published_message_is_consumed_and_acknowledged(broker: &impl Broker, topology: &Topology) {
    let events = topology.events();
    let to = Destination::Exchange { exchange: events.clone(), routing_key: "partner.joined".to_owned() };
    broker.publish(&to, message("one")).await.unwrap();
    let mut consumer = broker.consume(&events, 10).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(body(&delivery.message), "one");
    assert_eq!(delivery.message.properties.delivery_mode(), &Some(2));
    assert_eq!((delivery.exchange.as_str(), delivery.routing_key.as_str()), (events.as_str(), "partner.joined"));
    assert_eq!((delivery.queue.as_str(), delivery.redelivered), (events.as_str(), false));
    assert!(delivery.receipt.usable());
    assert!(delivery.receipt.ack().await);
    assert!(!delivery.receipt.usable());
    assert!(!delivery.receipt.ack().await, "a second acknowledgement is a lost settle");
    consumer.close().await;
    ready(broker, &events, 0).await;
}

async fn no_more_than_the_prefetch_is_in_hand(broker: &impl Broker, topology: &Topology) {
    let events = topology.events();
    publish_all(broker, &queue(events.clone()), 5).await;
    let mut consumer = broker.consume(&events, 2).await.unwrap();
    let (first, _second) = (next(&mut consumer).await, next(&mut consumer).await);
    assert!(tokio::time::timeout(Duration::from_millis(300), consumer.next()).await.is_err(), "a third in hand");
    assert!(first.receipt.ack().await);
    assert_eq!(body(&next(&mut consumer).await.message), "2");
    consumer.close().await;
}

async fn what_reaches_no_queue_is_refused(broker: &impl Broker, topology: &Topology) {
    for to in [
        queue(format!("{}.absent", topology.prefix)),
        Destination::Exchange { exchange: format!("{}.absent", topology.prefix), routing_key: "k".to_owned() },
    ] {
        let refused = broker.publish(&to, message("lost")).await;
        assert!(matches!(refused, Err(BrokerError::Refused(_))), "{to:?}: {refused:?}");
    }
    broker.publish(&queue(topology.events()), message("the next one is taken")).await.unwrap();
}

async fn headers_that_fit_no_frame_are_refused(broker: &impl Broker, topology: &Topology) {
    for (bytes, fits) in [(130_000, true), (131_072, false), (300_000, false)] {
        let mut table = FieldTable::default();
        table.insert("big".into(), AMQPValue::LongString("x".repeat(bytes).into()));
        let mut message = message("body");
        message.properties = BasicProperties::default().with_headers(table);
        let published = broker.publish(&queue(topology.events()), message).await;
        assert_eq!(published.is_ok(), fits, "{bytes}: {published:?}");
        assert!(fits || matches!(published, Err(BrokerError::Refused(_))), "{bytes}: {published:?}");
    }
}

async fn closing_gives_everything_back_in_order(broker: &impl Broker, topology: &Topology) {
    let events = topology.events();
    publish_all(broker, &queue(events.clone()), 6).await;
    let mut consumer = broker.consume(&events, 4).await.unwrap();
    let mut in_hand = Vec::new();
    for _ in 0..3 {
        in_hand.push(next(&mut consumer).await);
    }
    assert!(in_hand[1].receipt.ack().await);
    consumer.close().await;
    assert!(!in_hand[0].receipt.usable());
    assert!(!in_hand[0].receipt.ack().await, "an acknowledgement after close is a lost settle");

    let mut consumer = broker.consume(&events, 10).await.unwrap();
    // Whether a message that was prefetched but never looked at counts as redelivered is the broker's affair.
    let redelivered = [("0", Some(true)), ("2", Some(true)), ("3", None), ("4", None), ("5", Some(false))];
    for (expected, redelivered) in redelivered {
        let delivery = next(&mut consumer).await;
        assert_eq!(body(&delivery.message), expected);
        assert!(redelivered.is_none_or(|redelivered| redelivered == delivery.redelivered), "{expected}");
        assert!(delivery.receipt.ack().await);
    }
    consumer.close().await;
}

async fn a_dropped_consumer_gives_back_as_well(broker: &impl Broker, topology: &Topology) {
    let events = topology.events();
    publish_all(broker, &queue(events.clone()), 2).await;
    let mut consumer = broker.consume(&events, 2).await.unwrap();
    let in_hand = next(&mut consumer).await;
    drop(consumer);
    ready(broker, &events, 2).await;
    assert!(!in_hand.receipt.ack().await);
    assert_eq!(broker.depth(&events).await.unwrap().consumers, 0);
    let mut walk = broker.walk(&events).await.unwrap();
    assert!(walk.next().await.unwrap().is_some());
    drop(walk);
    ready(broker, &events, 2).await;
}

async fn what_ends_on_one_channel_leaves_the_others(broker: &impl Broker, topology: &Topology) {
    let (events, hold) = (topology.events(), topology.hold(Provider::Ably));
    let mut consumer = broker.consume(&events, 10).await.unwrap();
    broker.publish(&queue(events.clone()), message("before")).await.unwrap();
    let in_hand = next(&mut consumer).await;
    for _ in 0..3 {
        broker.consume(&hold, 1).await.unwrap().close().await;
        let absent = format!("{hold}.absent");
        assert!(broker.depth(&absent).await.is_err());
        assert!(broker.publish(&queue(absent.clone()), message("lost")).await.is_err());
        let to = Destination::Exchange { exchange: absent.clone(), routing_key: "k".to_owned() };
        assert!(broker.publish(&to, message("lost")).await.is_err());
        if let Ok(mut walk) = broker.walk(&absent).await {
            assert!(walk.next().await.is_err());
        }
    }
    broker.publish(&queue(events.clone()), message("after")).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!((body(&delivery.message), delivery.redelivered), ("after", false));
    assert!(in_hand.receipt.ack().await && delivery.receipt.ack().await);
    consumer.close().await;
}

async fn a_retry_comes_back_to_the_events_queue(broker: &impl Broker, topology: &Topology) {
    let events = topology.events();
    let mut table = FieldTable::default();
    table.insert("traceparent".into(), AMQPValue::LongString("00-1".into()));
    table.insert("herald-attempt".into(), AMQPValue::LongLongInt(3));
    let mut retry = message("again");
    retry.properties =
        BasicProperties::default().with_headers(table).with_message_id("m-1".into()).with_timestamp(1_790_000_000);
    let since = std::time::Instant::now();
    broker.publish(&queue(topology.retry(topology.schedule[0])), retry).await.unwrap();

    let mut consumer = broker.consume(&events, 10).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert!(since.elapsed() >= topology.schedule[0], "after {:?}", since.elapsed());
    assert_eq!((body(&delivery.message), delivery.queue.as_str()), ("again", events.as_str()));
    assert_eq!((delivery.exchange.as_str(), delivery.routing_key.as_str()), ("", events.as_str()));
    let properties = &delivery.message.properties;
    assert_eq!(properties.message_id().as_ref().map(|id| id.as_str()), Some("m-1"));
    assert_eq!(properties.timestamp(), &Some(1_790_000_000));
    let headers = herald::broker::headers_json(&delivery.message);
    assert_eq!((&headers["traceparent"], &headers["herald-attempt"]), (&"00-1".into(), &3.into()));
    assert_eq!(headers["x-death"][0]["reason"], "expired");
    assert!(delivery.receipt.ack().await);
    consumer.close().await;
}

async fn a_walk_rotates_a_hundred_letters_and_loses_none(broker: &impl Broker, topology: &Topology) {
    let dead = topology.dead();
    publish_all(broker, &queue(dead.clone()), 100).await;
    for _round in 0..2 {
        let mut walk = broker.walk(&dead).await.unwrap();
        for expected in 0..100 {
            let letter = walk.next().await.unwrap().expect("a letter");
            assert_eq!(body(&letter.message), expected.to_string());
            broker.publish(&queue(dead.clone()), letter.message.copy().message).await.unwrap();
            assert!(letter.receipt.ack().await);
        }
        walk.close().await;
        ready(broker, &dead, 100).await;
    }
    // Looking without taking: a hundred in hand, all given back.
    for _look in 0..2 {
        let mut walk = broker.walk(&dead).await.unwrap();
        let mut in_hand = Vec::new();
        while let Some(letter) = walk.next().await.unwrap() {
            in_hand.push(letter);
        }
        let bodies: BTreeSet<_> = in_hand.iter().map(|letter| body(&letter.message).to_owned()).collect();
        assert_eq!(bodies, (0..100).map(|number| number.to_string()).collect());
        walk.close().await;
        assert!(!in_hand[0].receipt.ack().await);
        ready(broker, &dead, 100).await;
    }
}

async fn depth_counts_ready_messages_and_consumers(broker: &impl Broker, topology: &Topology) {
    let hold = topology.hold(Provider::Expo);
    publish_all(broker, &queue(hold.clone()), 3).await;
    ready(broker, &hold, 3).await;
    assert_eq!(broker.depth(&hold).await.unwrap().consumers, 0);
    let mut consumer = broker.consume(&hold, 1).await.unwrap();
    let _in_hand = next(&mut consumer).await;
    ready(broker, &hold, 2).await;
    let depth = broker.depth(&hold).await.unwrap();
    assert_eq!((depth.ready, depth.consumers), (2, 1));
    assert!(depth.unacked.is_none_or(|unacked| unacked == 1), "{depth:?}");
    consumer.close().await;
    ready(broker, &hold, 3).await;
    let missing = broker.depth(&format!("{hold}.absent")).await;
    assert!(matches!(missing, Err(BrokerError::Config(_))), "{missing:?}");
}

async fn a_hold_queue_gives_back_thirty_times_and_keeps_all(broker: &impl Broker, topology: &Topology) {
    let hold = topology.hold(Provider::Ably);
    publish_all(broker, &queue(hold.clone()), 4).await;
    for _ in 0..30 {
        let mut consumer = broker.consume(&hold, 4).await.unwrap();
        for expected in 0..4 {
            assert_eq!(body(&next(&mut consumer).await.message), expected.to_string());
        }
        consumer.close().await;
    }
    ready(broker, &hold, 4).await;
}

async fn of_three_hundred_at_once_exactly_the_unroutable_is_refused(broker: &impl Broker, topology: &Topology) {
    let events = queue(topology.events());
    let absent = queue(format!("{}.absent", topology.prefix));
    let publishes = (0..300).map(|number| {
        let to = if number == 150 { absent.clone() } else { events.clone() };
        async move { (number, broker.publish(&to, message(&number.to_string())).await) }
    });
    let results: Vec<_> = stream::iter(publishes).buffer_unordered(300).collect().await;
    for (number, result) in results {
        match number {
            150 => assert!(matches!(result, Err(BrokerError::Refused(_))), "{result:?}"),
            _ => assert_eq!(result, Ok(()), "{number}"),
        }
    }
    ready(broker, &topology.events(), 299).await;
}

async fn after_close_nothing_works_and_nothing_hangs(broker: &impl Broker, topology: &Topology) {
    let events = topology.events();
    broker.publish(&queue(events.clone()), message("left")).await.unwrap();
    let mut consumer = broker.consume(&events, 1).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert!(broker.connected());
    within(4, "closing", broker.close()).await;
    assert!(!broker.connected());
    assert!(!delivery.receipt.ack().await);
    for _ in 0..2 {
        assert!(within(2, "the end of the consumer", consumer.next()).await.is_none());
    }
    let unavailable = |result: Result<(), BrokerError>| matches!(result, Err(BrokerError::Unavailable(_)));
    assert!(unavailable(broker.publish(&queue(events.clone()), message("late")).await));
    assert!(unavailable(broker.consume(&events, 1).await.map(|_| ())));
    assert!(unavailable(broker.walk(&events).await.map(|_| ())));
    assert!(unavailable(broker.ready(Duration::from_secs(1)).await));
}

mod rabbitmq {
    use super::on_rabbitmq;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_ends_on_one_channel_leaves_the_others() {
        on_rabbitmq(super::what_ends_on_one_channel_leaves_the_others).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_published_message_is_consumed_and_acknowledged() {
        on_rabbitmq(super::a_published_message_is_consumed_and_acknowledged).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_more_than_the_prefetch_is_in_hand() {
        on_rabbitmq(super::no_more_than_the_prefetch_is_in_hand).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_reaches_no_queue_is_refused() {
        on_rabbitmq(super::what_reaches_no_queue_is_refused).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn headers_that_fit_no_frame_are_refused() {
        on_rabbitmq(super::headers_that_fit_no_frame_are_refused).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn closing_gives_everything_back_in_order() {
        on_rabbitmq(super::closing_gives_everything_back_in_order).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dropped_consumer_gives_back_as_well() {
        on_rabbitmq(super::a_dropped_consumer_gives_back_as_well).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_retry_comes_back_to_the_events_queue() {
        on_rabbitmq(super::a_retry_comes_back_to_the_events_queue).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_walk_rotates_a_hundred_letters_and_loses_none() {
        on_rabbitmq(super::a_walk_rotates_a_hundred_letters_and_loses_none).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn depth_counts_ready_messages_and_consumers() {
        on_rabbitmq(super::depth_counts_ready_messages_and_consumers).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_hold_queue_gives_back_thirty_times_and_keeps_all() {
        on_rabbitmq(super::a_hold_queue_gives_back_thirty_times_and_keeps_all).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_three_hundred_at_once_exactly_the_unroutable_is_refused() {
        on_rabbitmq(super::of_three_hundred_at_once_exactly_the_unroutable_is_refused).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn after_close_nothing_works_and_nothing_hangs() {
        on_rabbitmq(super::after_close_nothing_works_and_nothing_hangs).await;
    }
}

mod in_process {
    use super::in_memory;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_ends_on_one_channel_leaves_the_others() {
        in_memory(super::what_ends_on_one_channel_leaves_the_others).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_published_message_is_consumed_and_acknowledged() {
        in_memory(super::a_published_message_is_consumed_and_acknowledged).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_more_than_the_prefetch_is_in_hand() {
        in_memory(super::no_more_than_the_prefetch_is_in_hand).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_reaches_no_queue_is_refused() {
        in_memory(super::what_reaches_no_queue_is_refused).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn headers_that_fit_no_frame_are_refused() {
        in_memory(super::headers_that_fit_no_frame_are_refused).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn closing_gives_everything_back_in_order() {
        in_memory(super::closing_gives_everything_back_in_order).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dropped_consumer_gives_back_as_well() {
        in_memory(super::a_dropped_consumer_gives_back_as_well).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_retry_comes_back_to_the_events_queue() {
        in_memory(super::a_retry_comes_back_to_the_events_queue).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_walk_rotates_a_hundred_letters_and_loses_none() {
        in_memory(super::a_walk_rotates_a_hundred_letters_and_loses_none).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn depth_counts_ready_messages_and_consumers() {
        in_memory(super::depth_counts_ready_messages_and_consumers).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_hold_queue_gives_back_thirty_times_and_keeps_all() {
        in_memory(super::a_hold_queue_gives_back_thirty_times_and_keeps_all).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_three_hundred_at_once_exactly_the_unroutable_is_refused() {
        in_memory(super::of_three_hundred_at_once_exactly_the_unroutable_is_refused).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn after_close_nothing_works_and_nothing_hangs() {
        in_memory(super::after_close_nothing_works_and_nothing_hangs).await;
    }
}
