//! A panic while one event is handled: caught, counted and retried, its neighbours untouched; and dead in the end, with closed books.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use herald::{
    broker::{Broker, BrokerError, Consumer, Depth, Destination, Message, Topology, Walk, memory::Memory},
    config::{self, Inputs},
    domain::{catalogue::Catalogue, judge::Policy, ledger::State},
    http::Readiness,
    provider::{ably::Ably, expo::Expo},
    sandbox::{DEFAULT_KEY, Sandbox},
    store::{Find, LetterFilter, Store},
    worker::{Parts, Settings, Worker},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::{eventually, within};

/// A broker that panics when certain copies of a message with `poison` in it are published.
#[derive(Clone)]
struct Panicking {
    memory: Memory,
    events: String,
    published: Arc<AtomicUsize>,
    /// By the number of the copy, from 0.
    panics: fn(usize) -> bool,
}

impl Broker for Panicking {
    async fn ready(&self, patience: Duration) -> Result<(), BrokerError> {
        self.memory.ready(patience).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        self.memory.consume(queue, prefetch).await
    }

    async fn publish(&self, to: &Destination, message: Message) -> Result<(), BrokerError> {
        let poisonous = message.body.windows(6).any(|part| part == b"poison");
        if poisonous && matches!(to, Destination::Queue(queue) if *queue != self.events) {
            assert!(!(self.panics)(self.published.fetch_add(1, Ordering::SeqCst)), "a panic made by the test");
        }
        self.memory.publish(to, message).await
    }

    async fn walk(&self, queue: &str) -> Result<Walk, BrokerError> {
        self.memory.walk(queue).await
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        self.memory.depth(queue).await
    }

    fn trouble(&self) -> Option<String> {
        self.memory.trouble()
    }

    async fn close(&self) {
        self.memory.close().await;
    }
}

/// A worker in this process that panics over poison, with a schedule of two short delays.
struct World {
    broker: Panicking,
    store: Store,
    sandbox: Sandbox,
    topology: Topology,
    stop: CancellationToken,
    worker: tokio::task::JoinHandle<Result<(), BrokerError>>,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start(panics: fn(usize) -> bool) -> World {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let schedule = vec![Duration::from_millis(50), Duration::from_millis(100)];
        let topology = Topology { prefix: "panics".into(), schedule, dead_retention: Duration::from_secs(3600) };
        let events = topology.events();
        let broker = Panicking { memory: Memory::start(&topology), events, published: Arc::default(), panics };
        let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into()).await.unwrap();
        let store_url = format!("sqlite://{}", folder.path().join("ledger.db").display());
        let store = Store::open(&store_url, "panics").await.unwrap();
        let set = [("ably.url", sandbox.url()), ("expo.url", sandbox.url()), ("ably.key", DEFAULT_KEY.to_owned())];
        let set = set.map(|(key, value)| (key.to_owned(), value)).to_vec();
        let config = config::load(&Inputs { set, ..Inputs::default() }).unwrap().config;
        let worker = Worker::new(Parts {
            broker: broker.clone(),
            topology: topology.clone(),
            store: store.clone(),
            users: None,
            ably: Ably::new(&config.ably, config.ably.key.as_ref().unwrap()).unwrap(),
            expo: Expo::new(&config.expo).unwrap(),
            catalogue: Catalogue::parse(config::MESSAGES).unwrap(),
            policy: Policy { schedule: topology.schedule.clone(), unknown_repeats: 2 },
            settings: Settings::of(&config),
            readiness: Readiness::default(),
            management: None,
        });
        let stop = CancellationToken::new();
        let worker = tokio::spawn(worker.serve(stop.clone()));
        World { broker, store, sandbox, topology, stop, worker, _folder: folder }
    }

    async fn send(&self, id: &str, session: &str) {
        let body = json!({"id": id, "sessionId": session, "event": "e"}).to_string();
        let to = Destination::Exchange { exchange: self.topology.events(), routing_key: "e".into() };
        let message = Message { body: body.into(), ..Message::default() };
        self.broker.publish(&to, message).await.unwrap();
    }

    async fn until(&self, id: &str, state: State) -> herald::domain::ledger::Entry {
        eventually(&format!("{id} is {}", state.as_str()), async || {
            let found = self.store.find(&Find::Id(id.into()), 1).await.unwrap();
            found.into_iter().next().filter(|entry| entry.state == state && entry.reason.as_deref() != Some("retry"))
        })
        .await
    }

    /// Stops the worker, which must still be able to, with closed books.
    async fn end(self) {
        let books = self.store.books().await.unwrap();
        assert!(books.closed() && books.waiting == 0, "{books:?}");
        self.stop.cancel();
        within(10, "the worker stops", self.worker).await.unwrap().unwrap();
        self.sandbox.stop().await;
    }
}

#[tokio::test]
async fn a_panic_is_retried_and_its_session_goes_on() {
    let world = World::start(|copy| copy == 0).await;
    // Rejected, so that a letter would have to be published.
    world.send("poison", "fault-publish-422x1").await;
    world.send("next", "fault-publish-422x1").await;
    world.until("next", State::Done).await;
    let entry = world.until("poison", State::Done).await;
    assert_eq!(entry.attempt, 1, "the panic used an attempt: {entry:?}");
    world.end().await;
}

#[tokio::test]
async fn who_panics_again_and_again_is_dead_at_the_end_of_the_schedule() {
    // Each of three attempts panics over its letter; the copy made of the panic goes out.
    let world = World::start(|copy| copy % 2 == 0).await;
    world.send("poison", "fault-publish-422").await;
    let entry = world.until("poison", State::Dead).await;
    assert_eq!((entry.reason.as_deref(), entry.attempt), (Some("crashed_worker"), 3), "{entry:?}");
    let letters = world.store.letters(&LetterFilter::default()).await.unwrap();
    assert_eq!((letters.len(), letters[0].reason.as_str()), (1, "crashed_worker"));
    assert_eq!(world.broker.depth(&world.topology.dead()).await.unwrap().ready, 1);
    world.end().await;
}

#[tokio::test]
async fn who_cannot_be_settled_at_all_stays_with_the_broker_and_stops_nobody() {
    let world = World::start(|_| true).await;
    world.send("poison", "fault-publish-422x1").await;
    world.send("next", "fault-publish-422x1").await;
    world.until("next", State::Done).await;
    world.stop.cancel();
    within(10, "the worker stops", world.worker).await.unwrap().unwrap();
    let found = world.store.find(&Find::Id("poison".into()), 1).await.unwrap();
    assert_eq!(found[0].state, State::Waiting);
    assert!(world.store.letters(&LetterFilter::default()).await.unwrap().is_empty(), "no letter without its copy");
    world.sandbox.stop().await;
}
