//! `/metrics` of a real worker: clean, complete, of few labels; and the gauges when something waits or is refused.

use std::collections::BTreeSet;

use herald::{
    domain::ledger::{Entry, State},
    sandbox::{Action, Endpoint, Fault, Match, Settings},
    store::Record,
};
use serde_json::json;

use super::{
    page::{samples, text, until, value},
    passed, promtool, table,
};
use crate::{
    broker::setup::management_url,
    relay::{Mode, Relay},
    rig::{Rig, event},
    support::eventually,
};

/// What only appears once something is held or lost.
const RARE: [&str; 2] = ["herald_held_total", "herald_reconnects_total"];

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_clean_complete_and_of_few_labels() {
    let Some(mut rig) = Rig::new("metrics").await else { return };
    rig.add_users([
        ("ben".into(), Some("ExponentPushToken[phone-ben]".into())),
        ("vera".into(), None),
        ("ruth".into(), Some("ExponentPushToken[receipt-unregistered-ruth]".into())),
    ])
    .await;
    rig.enter("session-ada", "ada");
    let control = rig.sandbox.control();
    control.set_settings(Settings { receipt_delay_ms: 0, ..(*control.settings()).clone() });
    let management = management_url();
    let worker =
        rig.start_with(&[("HERALD_BROKER__MANAGEMENT_URL", &management), ("HERALD_RECEIPTS__AFTER", "1s")]).await;
    rig.send(event("id-present", "partner.advanced", "session-ada", "ada")).await;
    rig.send(event("id-absent", "partner.advanced", "session-ada", "ben")).await;
    rig.send(event("id-gone", "partner.advanced", "session-ada", "ruth")).await;
    rig.send(event("id-tokenless", "name-nobody-knows", "session-ada", "vera")).await;
    rig.publish(b"{".to_vec(), Some("id-broken")).await;
    for id in ["id-present", "id-absent", "id-gone"] {
        rig.until(id, State::Done).await;
    }
    rig.until("id-tokenless", State::Skipped).await;
    let publish = Match { endpoint: Some(Endpoint::Publish), ..Match::default() };
    rig.sandbox.control().add_fault(Fault { matching: publish, times: Some(4), ..Fault::new(Action::Status) });
    rig.send(event("id-retried", "partner.advanced", "session-ada", "ada")).await;
    rig.until("id-retried", State::Done).await;
    until(&rig, worker, "herald_receipts_total", &[("outcome", "unregistered")], |count| count == 1.0).await;
    until(&rig, worker, "herald_dead_letters", &[("reason", "malformed")], |count| count == 1.0).await;
    until(&rig, worker, "herald_books", &[("state", "done")], |count| count == 4.0).await;
    let dead = rig.topology.dead();
    until(&rig, worker, "herald_queue_unacked", &[("queue", &dead)], |count| count == 0.0).await;

    let page = text(&rig, worker).await;
    if let Some(checked) = promtool(&["check", "metrics"], &page).await {
        passed(&checked);
        assert_eq!(String::from_utf8_lossy(&checked.stderr), "", "promtool's advice");
    }
    let table = table();
    let told: BTreeSet<(String, String)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect();
    let missing: Vec<&String> = table
        .iter()
        .filter(|(name, (kind, _))| !told.contains(&((*name).clone(), kind.clone())))
        .map(|(name, _)| name)
        // The relay's own, and what is counted only when traces go somewhere.
        .filter(|name| {
            !RARE.contains(&name.as_str()) && !name.starts_with("herald_outbox_") && !name.starts_with("herald_trace_")
        })
        .collect();
    assert_eq!(missing, Vec::<&String>::new(), "in the table and not on the page");
    for sample in samples(&page) {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| table.get(sample.name.strip_suffix(suffix)?));
        let Some((_, labels)) = table.get(&sample.name).or(base) else { panic!("{} is not in the table", sample.name) };
        let own: BTreeSet<String> = sample.labels.keys().filter(|label| *label != "le").cloned().collect();
        assert_eq!(own, *labels, "{}", sample.name);
    }
    for word in ["id-", "session-ada", "ben", "vera", "ruth", "phone-", "name-nobody-knows", "ExponentPushToken"] {
        let labels = samples(&page).into_iter().flat_map(|sample| sample.labels.into_values());
        assert_eq!(labels.filter(|label| label.contains(word)).collect::<Vec<_>>(), Vec::<String>::new(), "{word}");
    }

    let settled = |labels: &[(&str, &str)]| value(&page, "herald_settled_total", labels).unwrap_or_default();
    let known = ("event", "partner.advanced");
    assert_eq!(settled(&[("disposition", "done"), ("route", "realtime"), ("reason", ""), known]), 2.0);
    assert_eq!(settled(&[("disposition", "done"), ("route", "push"), known]), 2.0);
    assert_eq!(settled(&[("disposition", "waiting"), ("route", "realtime"), ("reason", "retry"), known]), 1.0);
    assert_eq!(settled(&[("disposition", "skipped"), ("reason", "no_token"), ("event", "other")]), 1.0);
    assert_eq!(settled(&[("disposition", "dead"), ("reason", "malformed"), ("event", "other")]), 1.0);
    let events = rig.topology.events();
    let rabbit = ("messaging_system", "rabbitmq");
    let counted = |name: &str, labels: &[(&str, &str)]| value(&page, name, labels).unwrap_or_default();
    let from_events =
        [rabbit, ("messaging_operation_name", "consume"), ("messaging_destination_name", events.as_str())];
    assert_eq!(counted("messaging_client_consumed_messages_total", &from_events), 7.0);
    assert_eq!(counted("messaging_process_duration_seconds_count", &[rabbit, ("error_type", "")]), 7.0);
    let copies = [rabbit, ("messaging_operation_name", "publish"), ("messaging_destination_name", dead.as_str())];
    assert_eq!(counted("messaging_client_sent_messages_total", &copies), 1.0);
    let acks = [("messaging_operation_name", "ack"), ("error_type", "")];
    // One for each frame: neighbours that are settled at about the same time share one.
    let frames = counted("messaging_client_operation_duration_seconds_count", &acks);
    assert!((1.0..=7.0).contains(&frames), "{frames}");
    assert_eq!(counted("herald_event_age_seconds_count", &[("route", "push")]), 2.0);
    assert_eq!(counted("herald_tokens_cleared_total", &[]), 1.0);
    assert_eq!(counted("herald_books", &[("state", "received")]), 6.0);
    assert_eq!((counted("herald_books_closed", &[]), counted("herald_workers", &[])), (1.0, 1.0));
    for dependency in ["ably", "expo", "broker", "store", "users"] {
        let labels = [("dependency", dependency)];
        assert_eq!(counted("herald_dependency_up", &labels), 1.0, "{dependency}");
        let since = counted("herald_dependency_since_timestamp_seconds", &labels);
        assert!((jiff::Timestamp::now().as_second() as f64 - since).abs() < 600.0, "{dependency}: {since}");
        assert_eq!(value(&page, "herald_credentials_rejected_total", &labels), Some(0.0), "{dependency}");
    }
    assert_eq!(counted("herald_queue_consumers", &[("queue", &events)]), 1.0);
    assert!(counted("process_resident_memory_bytes", &[]) > 1e6 && counted("process_threads", &[]) > 1.0);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_counted_and_has_an_age() {
    let Some(mut rig) = Rig::new("gauges").await else { return };
    rig.enter("s1", "ada");
    let management = management_url();
    let variables = [
        ("HERALD_BROKER__MANAGEMENT_URL", management.as_str()),
        ("HERALD_BROKER__PREFETCH", "1"),
        ("HERALD_ABLY__TIMEOUT", "200s"),
    ];
    let worker = rig.start_with(&variables).await;
    let events = rig.topology.events();
    let queue = [("queue", events.as_str())];
    until(&rig, worker, "herald_queue_oldest_age_seconds", &queue, |age| age == 0.0).await;
    rig.sandbox.control().add_fault(Fault::new(Action::Hold));
    for n in 0..3 {
        rig.send(event(&format!("e{n}"), "partner.advanced", "s1", "ada")).await;
    }
    until(&rig, worker, "herald_queue_ready", &queue, |ready| ready == 2.0).await;
    until(&rig, worker, "herald_queue_oldest_age_seconds", &queue, |age| age > 1.0).await;
    until(&rig, worker, "herald_in_flight", &[], |events| events == 1.0).await;
    until(&rig, worker, "herald_lanes", &[], |lanes| lanes == 1.0).await;
    until(&rig, worker, "herald_queue_unacked", &queue, |unacked| unacked == 1.0).await;
    rig.sandbox.control().clear_faults();
    rig.sandbox.control().release();
    let done = rig.until("e2", State::Done).await;
    until(&rig, worker, "herald_queue_ready", &queue, |ready| ready == 0.0).await;
    until(&rig, worker, "herald_queue_oldest_age_seconds", &queue, |age| age == 0.0).await;
    until(&rig, worker, "herald_in_flight", &[], |events| events == 0.0).await;

    // As if its copy had been purged from the retry queue an hour ago.
    assert_eq!(value(&text(&rig, worker).await, "herald_overdue", &[]), Some(0.0));
    let (now, retry) = (jiff::Timestamp::now().as_millisecond(), rig.topology.retry(rig.topology.schedule[0]));
    let lost = Entry {
        identity: "lost".into(),
        event_id: "lost".into(),
        state: State::Waiting,
        via: None,
        queue: Some(retry.clone()),
        first_seen: now - 7_200_000,
        next_at: Some(now - 3_600_000),
        ..done
    };
    rig.store.record(Record { entry: lost.clone(), tickets: Vec::new(), letter: None }).await.expect("recorded");
    until(&rig, worker, "herald_overdue", &[], |overdue| overdue == 1.0).await;
    let waiting = [("queue", retry.as_str())];
    until(&rig, worker, "herald_queue_oldest_age_seconds", &waiting, |age| age >= 7_200.0).await;
    // Four minutes late is not overdue.
    let late = Entry { next_at: Some(now - 240_000), ..lost };
    rig.store.record(Record { entry: late, tickets: Vec::new(), letter: None }).await.expect("recorded");
    until(&rig, worker, "herald_overdue", &[], |overdue| overdue == 0.0).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_shut_their_provider_and_are_counted() {
    let Some(mut rig) = Rig::new("refused").await else { return };
    let worker = rig.start_with(&[("ABLY_API_KEY", "sandbox.revoked:secret")]).await;
    rig.send(json!({"id": "e1", "sessionId": "s1", "event": "partner.advanced"})).await;
    let unauthorised = [("provider", "ably"), ("by", "unauthorised")];
    until(&rig, worker, "herald_provider_held", &unauthorised, |held| held == 1.0).await;
    until(&rig, worker, "herald_credentials_rejected_total", &[("dependency", "ably")], |times| times >= 1.0).await;
    until(&rig, worker, "herald_dependency_up", &[("dependency", "ably")], |up| up == 0.0).await;
    until(&rig, worker, "herald_held_total", &[("provider", "ably"), ("cause", "unauthorised")], |held| held >= 1.0)
        .await;
    let hold = rig.topology.hold(herald::domain::outcome::Provider::Ably);
    until(&rig, worker, "herald_queue_oldest_age_seconds", &[("queue", &hold)], |age| age > 0.0).await;
    let page = text(&rig, worker).await;
    assert_eq!(value(&page, "herald_provider_held", &[("provider", "expo")]), Some(0.0), "the other one is untouched");
    assert_eq!(value(&page, "herald_dependency_up", &[("dependency", "expo")]), Some(1.0));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn depths_are_unknown_while_the_broker_is_away() {
    let Some(amqp) = crate::support::amqp_url() else { return };
    let mut relayed = url::Url::parse(&amqp).unwrap();
    let relay = Relay::start(format!("{}:{}", relayed.host_str().unwrap(), relayed.port().unwrap_or(5672))).await;
    relayed.set_host(Some("127.0.0.1")).unwrap();
    relayed.set_port(Some(relay.port())).unwrap();
    let Some(mut rig) = Rig::on("away", amqp).await else { return };
    let worker = rig.start_with(&[("AMQP_URL", relayed.as_str())]).await;
    let events = rig.topology.events();
    let queue = [("queue", events.as_str())];
    until(&rig, worker, "herald_queue_ready", &queue, |ready| ready == 0.0).await;
    relay.set(Mode::Cut);
    until(&rig, worker, "herald_queue_ready", &queue, f64::is_nan).await;
    until(&rig, worker, "herald_dependency_up", &[("dependency", "broker")], |up| up == 0.0).await;
    until(&rig, worker, "herald_ready", &[], |ready| ready == 0.0).await;
    until(&rig, worker, "herald_reconnects_total", &[("of", "connection")], |times| times >= 2.0).await;
    relay.set(Mode::Forward);
    until(&rig, worker, "herald_queue_ready", &queue, |ready| ready == 0.0).await;
    until(&rig, worker, "herald_dependency_up", &[("dependency", "broker")], |up| up == 1.0).await;
    eventually("it takes events again", async || (rig.ready(worker).await == 200).then_some(())).await;
    rig.end().await;
}
