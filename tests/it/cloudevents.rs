//! CloudEvents through a whole herald: made by the official packages for JavaScript and Python, delivered to Ably and as a push, retried,
//! repeated, dead and replayed. `tests/contract` holds the scripts that make them.

use std::collections::BTreeMap;

use herald::{
    broker::{Broker, Destination, Message},
    domain::ledger::State,
    sandbox::{Action, Fault, Match},
};
use jiff::{Timestamp, ToSpan};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};

use crate::{
    npm::{self, Project},
    python,
    rig::Rig,
    support::{eventually, within},
};

/// A maker of messages and the modes it has.
const MAKERS: [(&str, &[&str]); 2] =
    [("npm", &["structured", "binary"]), ("python", &["structured", "binary", "binary_amqp", "binary_rabbitmq"])];

/// Lets the official package of `maker` make a message of each `{mode, event}`; `None` after saying what is missing.
async fn made(maker: &str, wanted: &[Value]) -> Option<Vec<Value>> {
    let scripts = Project::install("tests/contract").await?;
    let mut script = match maker {
        "npm" => scripts.script("cloudevents.mjs"),
        _ => {
            let mut script = tokio::process::Command::new(python::environment("tests/contract").await?);
            script.arg("make_cloudevents.py").current_dir(&scripts.home);
            script
        }
    };
    let told = within(60, "the package's messages", npm::run(&mut script, &json!(wanted).to_string())).await;
    Some(serde_json::from_str(&told).unwrap())
}

/// Publishes a message as its maker says.
async fn publish(rig: &Rig, message: &Value) {
    let mut headers = FieldTable::default();
    for (name, value) in message["headers"].as_object().unwrap() {
        let value = match value.as_i64() {
            Some(number) => AMQPValue::LongLongInt(number),
            None => AMQPValue::LongString(value.as_str().unwrap().into()),
        };
        headers.insert(name.as_str().into(), value);
    }
    let mut properties = BasicProperties::default().with_headers(headers);
    if let Some(content_type) = message["contentType"].as_str() {
        properties = properties.with_content_type(content_type.into());
    }
    let body = message["body"].as_str().unwrap().to_owned().into_bytes();
    let to = Destination::Exchange { exchange: rig.topology.events(), routing_key: "cloud.event".into() };
    rig.broker.publish(&to, Message { body: body.into(), properties }).await.expect("published");
}

fn event(id: &str, session: &str, partner: Option<&str>) -> Value {
    let mut event = json!({"id": id, "source": "/backend", "type": "partner.advanced", "subject": session,
        "data": {"toStage": 2}});
    if let Some(partner) = partner {
        event["partnerid"] = partner.into();
    }
    event
}

/// Returns what was published and pushed under each target, as the providers were asked.
fn asked(rig: &Rig) -> BTreeMap<String, Value> {
    let entries = rig.sandbox.control().entries(0, None, 10_000);
    let entries = entries.iter().flat_map(|entry| entry.items.iter().map(move |item| (item.target.to_string(), entry)));
    entries.map(|(target, entry)| (target, entry.body.clone())).collect()
}

#[tokio::test]
async fn what_the_official_packages_make_reaches_channels_and_phones() {
    let Some(mut rig) = Rig::new("ce").await else { return };
    let ids: Vec<String> =
        MAKERS.iter().flat_map(|(maker, modes)| modes.iter().map(move |mode| format!("{maker}-{mode}"))).collect();
    rig.add_users(ids.iter().map(|id| (format!("away-{id}"), Some(format!("ExponentPushToken[{id}]"))))).await;
    rig.start().await;
    let now = Timestamp::now();
    let (occurred, expires) = (now - 1.hour(), now + 5.hours());
    let whole = |time: Timestamp| Timestamp::from_second(time.as_second()).unwrap();
    let (occurred, expires) = (whole(occurred), whole(expires));
    for (maker, modes) in MAKERS {
        let mut wanted = Vec::new();
        for mode in modes {
            let id = format!("{maker}-{mode}");
            let mut to_channel = event(&format!("{id}-channel"), &id, Some("here"));
            rig.enter(&id, "here");
            (to_channel["time"], to_channel["excludeuserid"]) = (occurred.to_string().into(), "u1".into());
            let mut to_phone = event(&format!("{id}-phone"), &id, Some(&format!("away-{id}")));
            to_phone["expirytime"] = expires.to_string().into();
            wanted.extend([to_channel, to_phone].map(|event| json!({"mode": mode, "event": event})));
        }
        let Some(messages) = made(maker, &wanted).await else { return };
        for message in &messages {
            publish(&rig, message).await;
        }
    }
    for id in &ids {
        let channel = rig.until(&format!("{id}-channel"), State::Done).await;
        assert_eq!(channel.via.map(|via| via.as_str()), Some("realtime"), "{channel:?}");
        assert_eq!(channel.expires_at, (occurred + 24.hours()).as_millisecond(), "a life from `time` on: {id}");
        let phone = rig.until(&format!("{id}-phone"), State::Done).await;
        assert_eq!(phone.via.map(|via| via.as_str()), Some("push"), "{phone:?}");
        assert_eq!(phone.expires_at, expires.as_millisecond(), "{id}");
        assert_eq!((phone.session_id.as_ref(), phone.event.as_deref()), (Some(id), Some("partner.advanced")));
    }
    let (asked, effects) = (asked(&rig), rig.sandbox.control().effects(0, 1000));
    assert_eq!(effects.len(), 2 * ids.len());
    assert!(effects.iter().all(|effect| effect.count == 1));
    for id in &ids {
        let published = asked[&format!("beheard:session:{id}")].to_string();
        assert!(published.contains(r#"{\"excludeUserId\":\"u1\",\"toStage\":2}"#), "{published}");
        let pushed = asked[&format!("ExponentPushToken[{id}]")].to_string();
        let data =
            json!({"event": "partner.advanced", "eventId": format!("{id}-phone"), "sessionId": id, "toStage": 2});
        assert!(pushed.contains(&data.to_string()), "{pushed}");
    }
    rig.end().await;
}

#[tokio::test]
async fn a_copy_of_a_binary_event_reads_as_the_event_did() {
    let Some(mut rig) = Rig::new("ce_copies").await else { return };
    rig.start().await;
    let refused = Match { contains: Some("refused-".to_owned()), ..Match::default() };
    let rule = Fault { matching: refused, status: Some(422), ..Fault::new(Action::Status) };
    rig.sandbox.control().add_fault(rule);
    let mut wanted = Vec::new();
    for (maker, mode) in [("npm", "binary"), ("python", "binary_amqp"), ("python", "binary_rabbitmq")] {
        // The channel refuses until herald has used up its quick tries, and takes it on the way back from a retry queue.
        let later = event(&format!("later-{mode}"), &format!("fault-publish-500x4-{mode}"), None);
        // It is refused for good, until the rule is gone.
        let dead = event(&format!("dead-{mode}"), &format!("refused-{mode}"), None);
        let events = [later, dead].map(|event| json!({"mode": mode, "event": event}));
        let Some(messages) = made(maker, &events).await else { return };
        for mut message in messages {
            // More than a copy carries: the event itself must not be among what stays behind.
            message["headers"]["bulk"] = "x".repeat(70_000).into();
            publish(&rig, &message).await;
        }
        wanted.push(mode);
    }
    for mode in &wanted {
        rig.until(&format!("dead-{mode}"), State::Dead).await;
    }
    rig.sandbox.control().clear_faults();
    for mode in wanted {
        let entry = rig.until(&format!("later-{mode}"), State::Done).await;
        assert!(entry.attempt >= 1, "it went through a retry queue: {entry:?}");
        let id = format!("dead-{mode}");
        let before = rig.until(&id, State::Dead).await;
        let letter = eventually("the letter is in the index", async || {
            rig.letters().await.into_iter().find(|letter| letter.id == id)
        })
        .await;
        assert_eq!((letter.reason.as_str(), letter.event.as_deref()), ("rejected", Some("partner.advanced")));
        assert_eq!(letter.session_id, before.session_id);
        let replayed = rig.command(&["dead", "replay", "--id", &id, "--yes"]).output().expect("herald");
        assert_eq!(replayed.status.code(), Some(0), "{}", String::from_utf8_lossy(&replayed.stderr));
        let after = rig.until(&id, State::Done).await;
        assert_eq!((after.identity, after.replay), (before.identity, 1), "the same event");
        let explained = rig.command(&["explain", &id]).output().expect("herald");
        let told = String::from_utf8_lossy(&explained.stdout).into_owned();
        assert!(told.starts_with(&format!("partner.advanced {id} in session refused-{mode}")), "{told}");
    }
    rig.end().await;
}

#[tokio::test]
async fn one_id_of_one_source_is_one_event_and_of_two_sources_two() {
    let Some(mut rig) = Rig::new("ce_repeats").await else { return };
    rig.add_users([("ben".into(), Some("ExponentPushToken[ben]".into()))]).await;
    rig.start().await;
    let from = |source: &str, partner| {
        let mut event = event("e1", "s1", partner);
        event["source"] = source.into();
        event
    };
    let mut wanted = Vec::new();
    for partner in [None, Some("ben")] {
        wanted.push(json!({"mode": "structured", "event": from("/one", partner)}));
        wanted.push(json!({"mode": "binary", "event": from("/one", partner)}));
        wanted.push(json!({"mode": "structured", "event": from("/other", partner)}));
    }
    for maker in ["npm", "python"] {
        let Some(messages) = made(maker, &wanted).await else { return };
        for message in &messages {
            publish(&rig, message).await;
        }
    }
    let books = eventually("four identities and what came again", async || {
        let books = rig.books().await;
        (books.done.values().sum::<i64>() == 4 && books.repeats == 8).then_some(books)
    })
    .await;
    assert_eq!((books.received, books.id_reused, books.closed()), (4, 0, true));
    let effects = rig.sandbox.control().effects(0, 1000);
    let reached = |target: &str| -> Vec<u64> {
        effects.iter().filter(|effect| *effect.target == *target).map(|effect| effect.count).collect()
    };
    assert_eq!(reached("beheard:session:s1"), [1, 1], "Ably takes neither for the other's repeat");
    // Both pushes say the id their producers gave them.
    assert_eq!(reached("ExponentPushToken[ben]"), [2]);
    assert!(rig.sandbox.control().counters().values().all(|count| count.deduped == 0));
    rig.end().await;
}

#[tokio::test]
async fn what_is_no_cloud_event_is_a_dead_letter_that_names_the_attribute() {
    let Some(mut rig) = Rig::new("ce_bad").await else { return };
    rig.start().await;
    let structured = |change: Value| {
        let mut event = event("e", "s1", None);
        event["specversion"] = "1.0".into();
        event.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({"contentType": "application/cloudevents+json", "headers": {}, "body": event.to_string()})
    };
    let binary =
        |headers: Value, body: &str| json!({"contentType": "application/json", "headers": headers, "body": body});
    let all = json!({"cloudEvents_specversion": "1.0", "cloudEvents_id": "e", "cloudEvents_source": "/b",
        "cloudEvents_type": "t", "cloudEvents_subject": "s"});
    let bad = [
        (structured(json!({"specversion": "0.3"})), "specversion: is `0.3`; expected `1.0`"),
        (structured(json!({"source": null})), "source: is missing"),
        (structured(json!({"subject": null})), "subject: is missing"),
        (structured(json!({"data": null, "data_base64": "e30="})), "data_base64: is not read"),
        (structured(json!({"data": "text"})), "data: is a string"),
        (json!({"contentType": "application/cloudevents-batch+json", "headers": {}, "body": "[]"}), "content_type: is"),
        (binary(json!({"cloudEvents_id": "e"}), "{}"), "specversion: is missing"),
        (binary(all.clone(), "[1]"), "data: is an array"),
        (binary(all, "<x/>"), "data: is not JSON"),
    ];
    for (message, _) in &bad {
        publish(&rig, message).await;
    }
    let letters = eventually("all letters", async || {
        let letters = rig.letters().await;
        (letters.len() == bad.len()).then_some(letters)
    })
    .await;
    for (message, told) in &bad {
        let found = letters.iter().filter(|letter| letter.reason == "malformed" && letter.error.starts_with(told));
        assert_eq!(found.count(), 1, "{told} for {message}");
    }
    rig.end().await;
}
