//! What only the broker in memory can be asked: its bounds and its clock.

use std::time::Duration;

use herald::broker::{Broker, BrokerError, Topology, headers_json, memory::Memory};

use super::setup::{body, message, queue, topology};

#[tokio::test]
async fn a_full_queue_refuses() {
    let topology = topology("full");
    let broker = Memory::start(&topology);
    let dead = queue(topology.dead());
    for _ in 0..herald::broker::memory::MAX_MESSAGES {
        broker.publish(&dead, message("x")).await.unwrap();
    }
    let refused = broker.publish(&dead, message("x")).await;
    assert!(matches!(refused, Err(BrokerError::Refused(_))), "{refused:?}");
    assert_eq!(broker.publish(&queue(topology.events()), message("x")).await, Ok(()));
}

#[tokio::test]
async fn each_retry_queue_keeps_its_own_time() {
    let schedule = [50, 150, 400].map(Duration::from_millis).to_vec();
    let topology = Topology { schedule: schedule.clone(), ..topology("clock") };
    let broker = Memory::start(&topology);
    let since = std::time::Instant::now();
    for delay in schedule.iter().rev() {
        broker.publish(&queue(topology.retry(*delay)), message(&format!("{delay:?}"))).await.unwrap();
    }
    let mut consumer = broker.consume(&topology.events(), 10).await.unwrap();
    for delay in schedule {
        let delivery = consumer.next().await.unwrap();
        assert_eq!(body(&delivery.message), format!("{delay:?}"));
        assert!(since.elapsed() >= delay, "{delay:?} after {:?}", since.elapsed());
        assert!(delivery.receipt.ack().await);
    }
}

#[tokio::test]
async fn given_back_too_often_an_event_is_a_dead_letter() {
    let topology = topology("limit");
    let broker = Memory::start(&topology);
    broker.publish(&queue(topology.events()), message("poison")).await.unwrap();
    for _ in 0..1001 {
        let mut consumer = broker.consume(&topology.events(), 1).await.unwrap();
        assert!(consumer.next().await.is_some());
        consumer.close().await;
    }
    assert_eq!(broker.depth(&topology.events()).await.unwrap().ready, 0);
    let mut walk = broker.walk(&topology.dead()).await.unwrap();
    let letter = walk.next().await.unwrap().unwrap();
    let headers = headers_json(&letter.message);
    assert_eq!(headers["x-first-death-reason"], "delivery_limit");
    assert_eq!(headers["x-death"][0]["queue"], topology.events());
}

#[tokio::test]
async fn a_dropped_consumer_gives_back_and_leaves() {
    let topology = topology("dropped");
    let broker = Memory::start(&topology);
    broker.publish(&queue(topology.events()), message("x")).await.unwrap();
    let mut consumer = broker.consume(&topology.events(), 1).await.unwrap();
    let delivery = consumer.next().await.unwrap();
    assert_eq!(broker.depth(&topology.events()).await.unwrap().unacked, Some(1));
    drop(consumer);
    assert!(!delivery.receipt.usable());
    let depth = broker.depth(&topology.events()).await.unwrap();
    assert_eq!((depth.ready, depth.consumers, depth.unacked), (1, 0, Some(0)));
}
