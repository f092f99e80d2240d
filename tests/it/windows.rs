//! The windows between two steps: a kill, an outage or an end of the worker in each of them loses nothing, charges nothing
//! and leaves nothing in hand.

mod brokers;
mod databases;
mod kills;
mod providers;
mod shutdown;

use std::{collections::BTreeSet, time::Duration};

use futures::StreamExt;
use herald::{
    domain::ledger::{Books, State},
    sandbox::{Action, Endpoint, Fault, Match, Phase, Waiting},
};

use crate::{
    relay::Relay,
    rig::{Rig, event},
    support::eventually,
};

/// A fault on one endpoint.
fn fault(endpoint: Endpoint, action: Action) -> Fault {
    Fault { matching: Match { endpoint: Some(endpoint), ..Match::default() }, ..Fault::new(action) }
}

/// Holds every request to `endpoint` until released.
pub fn hold(rig: &Rig, endpoint: Endpoint, phase: Phase) {
    assert!(rig.sandbox.control().add_fault(Fault { phase, ..fault(endpoint, Action::Hold) }));
}

pub async fn until_held(rig: &Rig) -> Vec<Waiting> {
    eventually("a request is held", async || Some(rig.sandbox.control().held()).filter(|held| !held.is_empty())).await
}

/// Waits until the provider has noticed that whoever asked is gone, and takes nothing from it any more.
async fn until_dropped(rig: &Rig) {
    eventually("no request is held", async || rig.sandbox.control().held().is_empty().then_some(())).await;
}

/// Returns a URL that leads to the same server through a relay of its own.
pub async fn relayed(url: &str, default_port: u16) -> (String, Relay) {
    let mut url = url::Url::parse(url).expect("URL");
    let relay = Relay::start(format!("{}:{}", url.host_str().expect("host"), url.port().unwrap_or(default_port))).await;
    url.set_host(Some("127.0.0.1")).expect("host");
    url.set_port(Some(relay.port())).expect("port");
    (url.to_string(), relay)
}

/// Sends the events `from..to`, each in a session of its own, the even ones to partners who are present.
async fn send_range(rig: &Rig, from: usize, to: usize) {
    rig.add_users((from..to).map(|n| (format!("u{n}"), Some(format!("ExponentPushToken[phone-{n}]"))))).await;
    (from..to).filter(|n| n % 2 == 0).for_each(|n| rig.enter(&format!("s{n}"), &format!("u{n}")));
    let sends =
        (from..to).map(|n| rig.send(event(&format!("e{n}"), "partner.advanced", &format!("s{n}"), &format!("u{n}"))));
    futures::stream::iter(sends).buffer_unordered(50).collect::<Vec<()>>().await;
}

/// Waits until the books have closed over `count` events and none waits.
async fn all_ended(rig: &Rig, count: usize) -> Books {
    let ended = tokio::time::timeout(Duration::from_secs(90), async {
        loop {
            let books = rig.books().await;
            if books.received == count as i64 && books.waiting == 0 {
                return books;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let Ok(books) = ended.await else { panic!("not all of {count} ended: {:?}", rig.books().await) };
    assert!(books.closed(), "{books:?}");
    books
}

/// Checks that `count` events arrived and returns how many effects came twice.
fn all_arrived(rig: &Rig, count: usize) -> u64 {
    let effects = rig.effects();
    let arrived: BTreeSet<&str> = effects.keys().map(String::as_str).collect();
    let missing: Vec<String> =
        (0..count).map(|n| format!("e{n}")).filter(|id| !arrived.contains(id.as_str())).collect();
    assert!(missing.is_empty(), "{} never arrived: {:?}", missing.len(), &missing[..missing.len().min(10)]);
    effects.values().map(|(published, pushed)| published + pushed).sum::<u64>() - count as u64
}

/// Checks that no event was charged an attempt.
async fn none_charged(rig: &Rig, count: usize) {
    for n in 0..count {
        let entry = rig.entry(&format!("e{n}")).await.expect("a row");
        assert_eq!((entry.state, entry.attempt), (State::Done, 0), "{entry:?}");
    }
}

/// Returns how often the worker began to take events in.
fn intakes(rig: &Rig, worker: usize) -> usize {
    rig.log(worker).matches("taking events in").count()
}
