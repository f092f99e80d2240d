//! A hundred waiting events cost one request, by the sandbox's own counters.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{future::BoxFuture, poll};
use herald::sandbox::{Action, Endpoint, Fault};
use serde_json::Map;

use super::*;
use crate::support::eventually;

/// One question to herald's clients; the answer must be good.
type Call = fn(Clients, usize) -> BoxFuture<'static, ()>;

#[derive(Clone)]
struct Clients {
    ably: Ably,
    expo: Expo,
}

fn ask(clients: Clients, number: usize) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let found = clients.ably.presence(&format!("session {number}/ü:presence"), "user").await;
        assert_eq!(found.unwrap().members, 0);
    })
}

fn say(clients: Clients, number: usize) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let (channel, id) = (format!("session {number}"), format!("event-{number}"));
        let publish = Publish { channel, name: "n".to_owned(), data: "{}".to_owned(), id: id.clone(), until: None };
        assert_eq!(clients.ably.publish(publish).await, Ok(id));
    })
}

fn send(clients: Clients, number: usize) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let token = format!("ExponentPushToken[phone-{number}]");
        let (title, body, collapse_id) = ("t".to_owned(), "b".to_owned(), format!("event-{number}"));
        let (data, channel_id, priority) = (Map::new(), None, None);
        let push = Push { token, title, body, data, collapse_id, ttl_seconds: 60, channel_id, priority, until: None };
        assert!(clients.expo.send(push).await.unwrap().is_some());
    })
}

/// Presence, publish and push, with the endpoints that carry one and many, and how many requests go out for one question each.
const CALLS: [(Call, Endpoint, Endpoint, usize); 3] = [
    (ask, Endpoint::Presence, Endpoint::BatchPresence, 6),
    (say, Endpoint::Publish, Endpoint::BatchPublish, 6),
    (send, Endpoint::Send, Endpoint::Send, 3),
];

/// A sandbox that holds its next requests, and clients of it.
async fn holding(times: Option<u32>) -> (Sandbox, Clients) {
    let sandbox = start(Settings::default()).await;
    sandbox.control().add_fault(Fault { times, ..Fault::new(Action::Hold) });
    let clients = Clients { ably: ably_at(&sandbox.url()), expo: expo_at(&sandbox.url()) };
    (sandbox, clients)
}

async fn held(sandbox: &Sandbox, number: usize) {
    let waiting = async || (sandbox.control().held().len() == number).then_some(());
    eventually("the requests to be held", waiting).await;
}

/// Returns how many requests each endpoint got, without those that got none.
fn requests(sandbox: &Sandbox) -> BTreeMap<&'static str, u64> {
    let counters = sandbox.control().counters().into_iter();
    counters.map(|(endpoint, count)| (endpoint, count.requests)).filter(|(_, requests)| *requests > 0).collect()
}

fn expected(one: (Endpoint, u64), many: (Endpoint, u64)) -> BTreeMap<&'static str, u64> {
    let mut expected = BTreeMap::new();
    for (endpoint, requests) in [one, many] {
        *expected.entry(endpoint.name()).or_default() += requests;
    }
    expected
}

#[tokio::test]
async fn beside_a_held_request_a_hundred_cost_one_more() {
    for (call, one, many, _) in CALLS {
        let (sandbox, clients) = holding(Some(1)).await;
        let first = tokio::spawn(call(clients.clone(), 100));
        held(&sandbox, 1).await;
        let rest = join_all((0..100).map(|number| call(clients.clone(), number)));
        within(30, "the hundred beside the held one", rest).await;
        assert_eq!(requests(&sandbox), expected((one, 1), (many, 1)));
        assert_eq!(sandbox.control().release(), 1);
        first.await.unwrap();
        assert_eq!(requests(&sandbox), expected((one, 1), (many, 1)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_those_that_go_out_for_one_a_hundred_gather_one_by_one_into_one_or_two() {
    for (call, one, many, out) in CALLS {
        let (sandbox, clients) = holding(None).await;
        let mut tasks = Vec::new();
        for number in 0..out {
            tasks.push(tokio::spawn(call(clients.clone(), number)));
            held(&sandbox, number + 1).await;
        }
        // Tasks of their own on several threads, in no order: as the worker's lanes are.
        let asked = Arc::new(AtomicUsize::new(0));
        for number in out..out + 100 {
            let (asked, mut call) = (asked.clone(), call(clients.clone(), number));
            tasks.push(tokio::spawn(async move {
                assert!(poll!(&mut call).is_pending());
                asked.fetch_add(1, Ordering::SeqCst);
                call.await;
            }));
        }
        eventually("all to have asked", async || (asked.load(Ordering::SeqCst) == 100).then_some(())).await;
        assert!((out..=out + 2).contains(&sandbox.control().release()));
        for answer in within(30, "all answers", join_all(tasks)).await {
            answer.unwrap();
        }
        // The next goes out when fifty wait; those that come while it does so join it. One left alone is no batch.
        let seen = requests(&sandbox);
        let allowed = [(0, 1), (0, 2), (1, 1)].map(|(alone, more)| expected((one, out as u64 + alone), (many, more)));
        assert!(allowed.contains(&seen), "{seen:?}");
    }
}
