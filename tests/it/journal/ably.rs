//! Ably: publish and presence, alone, by pages and in batches.

use std::collections::{BTreeMap, BTreeSet};

use herald::{provider::ably::Presence, sandbox::Endpoint};

use super::*;

/// The lines in which a request with the formats of msgpack differs from ours.
const FORMATS: [&str; 2] = [
    // ably-js speaks msgpack by default, herald always JSON: what is sent can be read in a log.
    r#"differs /headers/accept "application/json" "application/x-msgpack""#,
    r#"differs /headers/content-type "application/json" "application/x-msgpack""#,
];

/// herald says which page size it means; it is the one Ably takes when nothing is said (RSP3a1).
const LIMIT: &str = r#"ours /query/limit "100""#;

#[tokio::test]
async fn ably_js_says_the_same_in_both_formats() {
    let Some(recording) = recorded().await else { return };
    for label in
        ["publish", "publish_extras", "presence", "presence_page", "presence_next", "batch_publish", "batch_presence"]
    {
        let [json, msgpack] = ["json", "msgpack"].map(|format| &recording[&format!("{label}_{format}")]);
        assert_eq!(json.len(), msgpack.len(), "{label}");
        for (json, msgpack) in json.iter().zip(msgpack) {
            assert_eq!(journal_shape(json), journal_shape(msgpack), "{label}");
            hold(json, msgpack, if json["body"].is_null() { &FORMATS[..1] } else { &FORMATS });
        }
    }
    let [json, msgpack] = ["json", "msgpack"].map(|format| &recording[&format!("publish_binary_{format}")][0]);
    // JSON has no word for bytes.
    let bytes = [r#"differs /body/0/data "AP8=" {"$binary":"AP8="}"#, r#"ours /body/0/encoding "base64""#];
    hold(json, msgpack, &[&bytes[..], &FORMATS].concat());
}

#[tokio::test]
async fn one_publish_is_that_of_ably_js() {
    let Some(recording) = recorded().await else { return };
    let sandbox = start(Settings::default()).await;
    let (ably, events) = (ably_at(&sandbox.url()), inputs().events);
    for event in &events {
        ably.publish(publish(event)).await.unwrap();
    }
    for (event, (ours, theirs)) in events.iter().zip(pairs(&sandbox, &recording["publish_json"])) {
        assert_eq!(journal_shape(&ours), journal_shape(theirs));
        // An id with a colon could be taken for `<base>:<index>` of an array; alone, a message may have any id.
        let (at, alone) = if event.id.contains(':') { ("/body", Some("alone /body")) } else { ("/body/0", None) };
        // ably-js adds the size it counted and that this is a creation (0); Ably needs neither.
        let action = format!("theirs {at}/action 0");
        let size = format!("theirs {at}/size {}", theirs["body"][0]["size"]);
        let stated: Vec<&str> = alone.into_iter().chain([&*action, &*size]).collect();
        hold(&ours, theirs, &stated);
    }
}

#[tokio::test]
async fn one_look_up_is_that_of_ably_js() {
    let Some(recording) = recorded().await else { return };
    let sandbox = start(Settings::default()).await;
    let (ably, events) = (ably_at(&sandbox.url()), inputs().events);
    for event in &events {
        look_up(&ably, event).await;
    }
    for (ours, theirs) in pairs(&sandbox, &recording["presence_json"]) {
        hold(&ours, theirs, &[LIMIT]);
    }
}

#[tokio::test]
async fn the_next_page_is_asked_for_as_ably_js_does() {
    let Some(recording) = recorded().await else { return };
    let sandbox = start(Settings::default()).await;
    let page = &inputs().all["page"];
    let channel = payload::channel(PRESENCE_CHANNEL, page["sessionId"].as_str().unwrap());
    let user = page["user"].as_str().unwrap();
    for number in 0..page["connections"].as_u64().unwrap() {
        sandbox.control().enter_on(&channel, user, &format!("c{number:03}"), None);
    }
    let ably = ably_at(&format!("http://{}", paging::start(sandbox.url()).await));
    assert_eq!(ably.presence(&channel, user).await, Ok(Presence { members: 1 }), "those on the second page");
    let theirs = [&*recording["presence_page_json"], &*recording["presence_next_json"]].concat();
    for (ours, theirs) in pairs(&sandbox, &theirs) {
        hold(&ours, theirs, &[]);
    }
}

#[tokio::test]
async fn a_batch_of_publishes_is_that_of_ably_js() {
    let Some(recording) = recorded().await else { return };
    let sandbox = start(Settings::default()).await;
    let (ably, events) = (ably_at(&sandbox.url()), inputs().events);
    for answer in join_all(events.iter().map(|event| ably.publish(publish(event)))).await {
        answer.unwrap();
    }
    for (ours, theirs) in pairs(&sandbox, &recording["batch_publish_json"]) {
        assert_eq!(journal_shape(&ours), journal_shape(theirs));
        let colons = events.iter().enumerate().filter(|(_, event)| event.id.contains(':'));
        // As alone: an id with a colon never stands in an array.
        let stated: Vec<String> = colons.map(|(number, _)| format!("alone /body/{number}/messages")).collect();
        assert_eq!(stated.len(), 2);
        hold(&ours, theirs, &stated.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_batch_of_look_ups_is_that_of_ably_js_except_for_commas() {
    let Some(recording) = recorded().await else { return };
    let sandbox = start(Settings::default()).await;
    let (ably, events) = (ably_at(&sandbox.url()), inputs().events);
    // Each twice: both partners of a session, say.
    join_all(events.iter().chain(&events).map(|event| look_up(&ably, event))).await;
    let mut ours: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for entry in journal(&sandbox) {
        ours.entry(entry["endpoint"].as_str().unwrap().to_owned()).or_default().push(entry);
    }
    let names = events.iter().map(presence_channel);
    let asked: Vec<String> = names.clone().collect();
    let together: BTreeSet<String> = names.filter(|name| !name.contains(',')).collect();
    assert_eq!(together.len(), events.len() - 1);
    let together = Vec::from_iter(together).join(",");
    // Ably takes a comma in a name for the end of the name, in ably-js too; herald leaves such a name out. The others it
    // names once each and in their own order, not in that of the questions.
    let stated = format!("differs /query/channels {} {}", Value::from(together), Value::from(asked.join(",")));
    let batches = &ours[Endpoint::BatchPresence.name()];
    assert_eq!(batches.len(), 1);
    hold(&batches[0], &recording["batch_presence_json"][0], &[&stated]);
    // The name that was left out is asked for alone, once for each question.
    let comma = events.iter().position(|event| event.session_id.contains(',')).unwrap();
    let singles = &ours[Endpoint::Presence.name()];
    assert_eq!(singles.len(), 2);
    singles.iter().for_each(|single| hold(single, &recording["presence_json"][comma], &[LIMIT]));
}

/// Asks for the event's partner, who is on none of the channels.
async fn look_up(ably: &Ably, event: &Event) {
    let user = event.partner_id.as_deref().unwrap();
    assert_eq!(ably.presence(&presence_channel(event), user).await, Ok(Presence { members: 0 }));
}
