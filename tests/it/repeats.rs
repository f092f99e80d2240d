//! Repeats, on real RabbitMQ and PostgreSQL: the same id twice, at once, to two workers, after a crash, after a lost answer; and
//! how many of them reached a provider.

use std::time::Duration;

use futures::StreamExt;
use herald::{
    domain::ledger::State,
    sandbox::{Action, Endpoint, Fault, Match, Provider},
};
use serde_json::{Value, json};

use crate::{
    observe::page,
    rig::{Rig, event},
    support::{eventually, within},
};

const CATALOGUE: &str = r#"
[default]
title = "BeHeard"
body = "You have an update"
["test.always"]
title = "t"
body = "b"
route = "always"
"#;

fn on(endpoint: Endpoint, action: Action) -> Fault {
    Fault { matching: Match { endpoint: Some(endpoint), ..Match::default() }, ..Fault::new(action) }
}

/// Waits until nothing is in a queue, in hand or waiting in the ledger.
async fn drained(rig: &Rig, identities: i64) {
    let calm = async {
        loop {
            let books = rig.books().await;
            let mut queued = 0;
            for queue in rig.topology.queues() {
                queued += rig.ready_messages(&queue.name).await;
            }
            let in_flight = rig.counter("herald_in_flight").await;
            if books.received == identities && books.waiting == 0 && queued == 0 && in_flight == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    within(120, "everything has come to rest", calm).await;
}

#[tokio::test]
async fn the_same_ids_at_once_to_two_workers_are_delivered_once_each() {
    const IDS: usize = 300;
    const COPIES: usize = 4;
    let Some(mut rig) = Rig::new("twice").await else { return };
    rig.add_users((0..IDS).map(|n| (format!("u{n}"), Some(format!("ExponentPushToken[phone-{n}]"))))).await;
    for n in (0..IDS).step_by(2) {
        rig.enter(&format!("s{n}"), &format!("u{n}"));
    }
    for instance in ["first", "second"] {
        // Few at once, so that both get their part of every group of copies.
        rig.start_as(instance, &[("HERALD_BROKER__PREFETCH", "50")]).await;
    }
    let one = |n: usize| event(&format!("e{n}"), "partner.advanced", &format!("s{n}"), &format!("u{n}"));
    // Half of the copies side by side, half of them once the first may be done.
    for round in 0..2 {
        let copies = (0..IDS).flat_map(|n| (0..COPIES / 2).map(move |_| n));
        let sends = copies.map(|n| rig.send(one(n)));
        futures::stream::iter(sends).buffer_unordered(100).collect::<Vec<()>>().await;
        println!("round {round} sent");
    }
    drained(&rig, IDS as i64).await;
    let effects = rig.effects();
    let arrived: u64 = effects.values().map(|(ably, expo)| ably + expo).sum();
    let counters = rig.sandbox.control().counters();
    let deduped: u64 = counters.values().map(|count| count.deduped).sum();
    let mut taken = Vec::new();
    for worker in 0..2 {
        let page = page::text(&rig, worker).await;
        taken.push(page::value(&page, "messaging_client_consumed_messages_total", &[]).unwrap_or(0.0) as u64);
    }
    let elsewhere = rig.counter("herald_settled_total{disposition=\"postponed\",reason=\"claimed\"}").await;
    println!(
        "{IDS} ids published {COPIES} times to two workers (which took {taken:?}, {elsewhere} while the other was at it): {} \
         repeats on phones and channels, {deduped} dropped by Ably, {} suppressed by the ledger",
        arrived - effects.len() as u64,
        rig.books().await.repeats
    );
    assert!(taken.iter().all(|count| *count > 0), "both took part: {taken:?}");
    assert_eq!((effects.len(), arrived, deduped), (IDS, IDS as u64, 0));
    assert!(rig.books().await.closed());
    rig.end().await;
}

#[tokio::test]
async fn a_redelivery_after_a_crash_repeats_nothing_that_the_ledger_knows() {
    let Some(mut rig) = Rig::new("crash").await else { return };
    let catalogue = rig.file("messages.toml", CATALOGUE);
    let variables = [("HERALD_CATALOGUE__PATH", catalogue.as_str())];
    rig.add_users([("ben".into(), Some("ExponentPushToken[ben]".into()))]).await;
    let control = rig.sandbox.control().clone();
    let worker = rig.start_with(&variables).await;

    // Ably takes it, Expo does not: the ledger knows the one, and the retry is for the other.
    let something_between =
        Fault { times: Some(1), status: Some(418), body: Some("no".into()), ..on(Endpoint::Send, Action::Status) };
    control.add_fault(something_between);
    control.add_fault(on(Endpoint::Send, Action::Hold));
    rig.send(event("e1", "test.always", "s1", "ben")).await;
    eventually("the push is on its way", async || (!control.held().is_empty()).then_some(())).await;
    let known = rig.entry("e1").await.expect("a row");
    assert!(known.targets["ably"].accepted && known.attempt == 1, "{known:?}");
    rig.kill(worker);
    control.clear_faults();
    rig.start_with(&variables).await;
    let entry = rig.until("e1", State::Done).await;
    let published = control.counters()["publish"];
    println!(
        "killed with a push under way: {} published, {} dropped by Ably, {} pushes arrived",
        published.accepted,
        published.deduped,
        rig.effects()["e1"].1
    );
    assert_eq!((published.requests, published.accepted), (1, 1), "what Ably took is not sent again: {entry:?}");
    let to_ably = entry.attempts.iter().filter(|attempt| attempt.target == "ably").count();
    assert_eq!((to_ably, entry.via.map(|via| via.as_str())), (1, Some("both")));
    rig.end().await;
}

#[tokio::test]
async fn a_push_whose_answer_was_lost_is_marked_unknown_and_repeated_with_the_same_collapse_id_and_tag() {
    let Some(mut rig) = Rig::new("lost").await else { return };
    // An unknown push waits for at least half a minute.
    rig.topology.schedule = [1, 2, 30].map(Duration::from_secs).to_vec();
    rig.add_users([("ben".into(), Some("ExponentPushToken[ben]".into()))]).await;
    rig.start_with(&[("HERALD_RETRY__SCHEDULE", r#"["1s","2s","30s"]"#)]).await;
    let control = rig.sandbox.control().clone();
    control.add_fault(Fault { times: Some(1), ..on(Endpoint::Send, Action::ResetAfter) });
    rig.send(event("e1", "partner.advanced", "s1", "ben")).await;
    let marked = eventually("it is marked unknown", async || {
        rig.entry("e1").await.filter(|entry| entry.targets.values().any(|target| target.unknown == 1))
    })
    .await;
    assert_eq!((marked.state, marked.attempts[0].outcome.as_str()), (State::Waiting, "unknown"), "{marked:?}");
    // The same id again in between changes nothing: the copy that waits is the newer one.
    rig.send(event("e1", "partner.advanced", "s1", "ben")).await;
    let done = async {
        loop {
            match rig.entry("e1").await {
                Some(entry) if entry.state == State::Done => return entry,
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    };
    let entry = within(90, "it is done", done).await;
    let outcomes: Vec<&str> = entry.attempts.iter().map(|attempt| attempt.outcome.as_str()).collect();
    assert_eq!(outcomes, ["unknown", "accepted"], "{entry:?}");
    let pause = entry.attempts[1].at - entry.attempts[0].at;
    let sent: Vec<Value> = control
        .entries(0, Some(Provider::Expo), usize::MAX)
        .into_iter()
        .filter(|entry| entry.endpoint == Endpoint::Send)
        .map(|entry| entry.body[0].clone())
        .collect();
    assert_eq!(sent.len(), 2, "one repeat");
    for key in ["collapseId", "tag"] {
        assert!(
            sent[0][key].is_string() && sent[0][key] == sent[1][key],
            "{key}: {} and {}",
            sent[0][key],
            sent[1][key]
        );
    }
    assert_eq!(sent[0]["data"]["eventId"], json!("e1"));
    assert!(pause >= 30_000, "at least half a minute apart: {pause} ms");
    println!(
        "a push whose answer was lost: {} sends, {pause} ms apart, collapse id {}",
        sent.len(),
        sent[1]["collapseId"]
    );
    assert_eq!(rig.effects()["e1"], (0, 2));
    rig.end().await;
}
