//! The contract files in `config/contract` against herald's own types, and against the official tools.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use herald::{
    broker::{
        marks,
        topology::{Argument, Queue, Topology},
    },
    config::{Inputs, MESSAGES},
    domain::{
        catalogue::Catalogue,
        event::{MAX_BODY, MAX_CODE_POINTS, MAX_STRING_BYTES, Meta, decode, is_attribute},
        ledger::{DeadReason, SkipReason, Via},
        outcome::HoldCause,
    },
};
use serde_json::{Value, json};

use crate::{
    npm::{Project, run},
    support::within,
};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/contract");
/// Bodies that both the schema and herald judge.
const CASES: &str = include_str!("../contract/cases.json");

fn schema() -> Value {
    let text = std::fs::read_to_string(Path::new(FOLDER).join("message.schema.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

fn texts(list: &Value) -> BTreeSet<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

fn plain(body: &Value) -> Result<herald::domain::event::Event, herald::domain::event::Malformed> {
    decode(body.to_string().as_bytes(), &Meta::default())
}

#[test]
fn the_schema_has_the_events_of_the_shipped_catalogue() {
    let (schema, catalogue) = (schema(), Catalogue::parse(MESSAGES).unwrap());
    let names: BTreeSet<&str> = catalogue.events.keys().map(String::as_str).collect();
    let payloads = &schema["$defs"]["EventPayloads"];
    assert_eq!(keys(&payloads["properties"]), names);
    assert_eq!(texts(&payloads["required"]), names);
    // What a validator sees is what a generator sees.
    let rules = schema["dependentSchemas"]["event"]["allOf"].as_array().unwrap().iter();
    let rules: BTreeMap<&str, &Value> = rules
        .map(|rule| {
            let name = rule["if"]["properties"]["event"]["const"].as_str().unwrap();
            (name, &rule["then"]["properties"]["data"])
        })
        .collect();
    assert_eq!(rules.keys().copied().collect::<BTreeSet<_>>(), names);
    let examples = schema["examples"].as_array().unwrap();
    for (name, payload) in payloads["properties"].as_object().unwrap() {
        assert_eq!(rules[name.as_str()], payload, "{name}");
        let definition = payload["$ref"].as_str().unwrap().strip_prefix("#/$defs/").unwrap();
        let known = keys(&schema["$defs"][definition]["properties"]);
        let allowed = catalogue.events[name].push_data.iter().flatten();
        allowed.for_each(|field| assert!(known.contains(field.as_str()), "{name} pushes {field}"));
        let example = examples.iter().find(|example| example["event"] == *name).expect(name);
        assert_eq!(keys(&example["data"]), known, "the example of {name} shows every field");
    }
}

#[test]
fn the_schema_has_herald_s_limits() {
    let schema = schema();
    assert!(schema["description"].as_str().unwrap().contains(&format!("at most {MAX_BODY} bytes")));
    let with = |change: Value| {
        let mut body = json!({"id": "i", "sessionId": "s", "event": "e"});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        plain(&body)
    };
    for (name, field) in schema["properties"].as_object().unwrap() {
        // Each name is one that herald reads: it refuses a number there.
        assert_eq!(with(json!({name: 7})).unwrap_err().field, name);
        match (field["type"].as_str().unwrap(), field["format"].as_str()) {
            ("object", _) | ("string", Some("date-time")) => {}
            _ => {
                let max = usize::try_from(field["maxLength"].as_u64().unwrap()).unwrap();
                assert!(with(json!({name: "x".repeat(max)})).is_ok(), "{name}");
                assert_eq!(with(json!({name: "x".repeat(max + 1)})).unwrap_err().field, name);
                assert!(field["description"].as_str().unwrap().contains("255 bytes"), "{name}");
                assert!(max == MAX_CODE_POINTS && field["minLength"] == 1 || name == "excludeUserId");
            }
        }
    }
    assert_eq!((MAX_STRING_BYTES, &schema["properties"]["excludeUserId"]["maxLength"]), (255, &json!(255)));
    // An id may also be the message_id.
    assert_eq!(texts(&schema["required"]), ["sessionId", "event"].into());
}

#[test]
fn herald_judges_the_cases_and_reads_the_examples_of_the_schema() {
    for case in serde_json::from_str::<Vec<Value>>(CASES).unwrap() {
        let (read, name) = (plain(&case["body"]), &case["name"]);
        assert_eq!(read.is_ok(), case["valid"], "{name}: {read:?}");
        if let Err(malformed) = read {
            assert_eq!(malformed.field, case["field"], "{name}");
        }
    }
    for example in schema()["examples"].as_array().unwrap() {
        let event = plain(example).unwrap();
        assert_eq!(
            (&event.name, &Value::from(event.data)),
            (&example["event"].as_str().unwrap().to_owned(), example.get("data").unwrap_or(&json!({})))
        );
    }
}

/// What herald declares when nothing is configured.
fn topology() -> Topology {
    let config = herald::config::load(&Inputs::default()).unwrap().config;
    let (schedule, dead_retention) = (config.retry.schedule, config.dead.retention);
    Topology { prefix: config.broker.prefix, schedule, dead_retention }
}

fn arguments(queue: &Queue) -> Value {
    let value = |argument: &Argument| match argument {
        Argument::Text(text) => json!(text),
        Argument::Number(number) => json!(number),
    };
    queue.arguments.iter().map(|(name, argument)| ((*name).to_owned(), value(argument))).collect()
}

/// Queue by queue and header by header.
fn hold_document(document: &Value) {
    let topology = topology();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let channels = document["channels"].as_object().unwrap();
    let exchange = &channels["events"]["bindings"]["amqp"]["exchange"];
    assert_eq!(*exchange, json!({"name": topology.events(), "type": "topic", "durable": true, "autoDelete": false}));
    assert_eq!(channels["events"]["x-queue-bindings"], json!([{"queue": topology.events(), "routing-key": "#"}]));
    let mut queues = BTreeMap::new();
    for channel in channels.values().filter(|channel| channel["bindings"]["amqp"]["is"] == "queue") {
        let name = channel["address"].as_str().unwrap();
        let queue = &channel["bindings"]["amqp"]["queue"];
        assert_eq!(*queue, json!({"name": name, "durable": true, "exclusive": false, "autoDelete": false}));
        queues.insert(name.to_owned(), channel["x-queue-arguments"].clone());
    }
    let declared = topology.queues().iter().map(|queue| (queue.name.clone(), arguments(queue))).collect();
    assert_eq!(queues, declared);

    let schemas = &document["components"]["schemas"];
    let (copy, letter) = (&schemas["CopyHeaders"]["properties"], &schemas["DeadLetterHeaders"]["properties"]);
    for headers in [copy, letter] {
        assert_eq!(keys(headers), marks::HEADERS.into());
    }
    let held: BTreeSet<String> = HoldCause::ALL.map(|cause| format!("held:{}", cause.as_str())).into();
    let waits = texts(&copy["herald-reason"]["enum"]).into_iter().filter(|reason| reason.starts_with("held:"));
    assert_eq!(waits.map(str::to_owned).collect::<BTreeSet<_>>(), held);
    let dead: BTreeSet<&str> = DeadReason::ALL.map(DeadReason::as_str).into();
    assert_eq!(texts(&letter["herald-reason"]["anyOf"][0]["enum"]), dead);
    let outcomes = &document["operations"]["deliver"]["x-outcomes"];
    assert_eq!(texts(&outcomes["dead"]), dead);
    assert_eq!(texts(&outcomes["skipped"]), SkipReason::ALL.map(SkipReason::as_str).into());
    assert_eq!(texts(&outcomes["done"]), Via::ALL.map(Via::as_str).into());

    let attributes = keys(&schemas["CloudEventHeaders"]["properties"]);
    assert!(attributes.iter().all(|header| is_attribute(header)), "{attributes:?}");
    let named = keys(&schemas["CloudEvent"]["properties"]);
    let named: BTreeSet<String> =
        named.into_iter().filter(|name| *name != "data").map(|name| format!("cloudEvents_{name}")).collect();
    assert_eq!(named, attributes.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(named.len(), 9, "as many as herald reads");
}

/// Decodes every example of the document; returns how many there were.
fn read_examples(document: &Value) -> usize {
    let mut read = 0;
    for (name, message) in document["components"]["messages"].as_object().unwrap() {
        for example in message["examples"].as_array().unwrap() {
            let headers = example["headers"].as_object().cloned().unwrap_or_default();
            let headers = headers.into_iter().filter(|(name, _)| is_attribute(name)).collect();
            let meta = Meta { message_id: None, content_type: message["contentType"].as_str(), headers };
            let event = decode(example["payload"].to_string().as_bytes(), &meta);
            let event = event.unwrap_or_else(|malformed| panic!("{name}: {malformed}"));
            assert_eq!(event.source.is_some(), name.ends_with("CloudEvent"), "{name}");
            read += 1;
        }
    }
    read
}

#[tokio::test]
async fn the_official_tools_accept_the_contract_and_herald_keeps_it() {
    let Some(tools) = Project::install("tests/contract").await else { return };
    let mut check = tools.script("check.mjs");
    let told = within(120, "the official tools", run(check.arg(FOLDER), CASES)).await;
    let document: Value = serde_json::from_str(&told).unwrap();
    hold_document(&document);
    assert!(read_examples(&document) >= 6);
}
