//! herald's own requests held against the official npm clients', so that herald's client and its sandbox, written by one
//! hand, cannot be wrong together.
//!
//! Both are given `tests/clients/inputs.json` and send to the sandbox; their journal entries are compared to the last field.
//! What herald does otherwise on purpose is stated in each test, line by line, and must be there.

use std::time::Duration;

use futures::future::join_all;
use herald::{
    config,
    domain::{
        catalogue::{RouteRule, Text},
        event::{Event, Meta, decode},
        payload,
    },
    provider::{
        ably::{Ably, Publish},
        expo::{Expo, Push},
    },
    sandbox::{ACCESS_TOKEN, DEFAULT_KEY, Sandbox, Settings},
};
use secrecy::SecretString;
use serde_json::Value;

use crate::{
    clients::{INPUTS, recorded},
    sandbox::{journal_shape, start},
    support::within,
};
use difference::differences;

mod ably;
mod difference;
mod expo;
mod gathering;
mod paging;

const SESSION_CHANNEL: &str = "beheard:session:{sessionId}";
const PRESENCE_CHANNEL: &str = "beheard:session:{sessionId}:presence";

/// What both sides are given.
struct Inputs {
    events: Vec<Event>,
    all: Value,
}

fn inputs() -> Inputs {
    let all: Value = serde_json::from_str(INPUTS).unwrap();
    let events = all["events"].as_array().unwrap().iter();
    let events = events.map(|event| decode(event.to_string().as_bytes(), &Meta::default()).unwrap()).collect();
    Inputs { events, all }
}

/// A publish as the worker makes it.
fn publish(event: &Event) -> Publish {
    Publish {
        channel: payload::channel(SESSION_CHANNEL, &event.session_id),
        name: event.name.clone(),
        data: payload::published_data(event),
        id: event.id.clone(),
        until: None,
    }
}

fn presence_channel(event: &Event) -> String {
    payload::channel(PRESENCE_CHANNEL, &event.session_id)
}

fn ably_at(url: &str) -> Ably {
    let config = config::Ably {
        url: url.parse().unwrap(),
        key: None,
        timeout: Duration::from_secs(60),
        session_channel: SESSION_CHANNEL.to_owned(),
        presence_channel: PRESENCE_CHANNEL.to_owned(),
    };
    Ably::new(&config, &SecretString::from(DEFAULT_KEY)).unwrap()
}

fn expo_at(url: &str) -> Expo {
    let access_token = Some(SecretString::from(ACCESS_TOKEN));
    let timeout = Duration::from_secs(60);
    let url = url.parse().unwrap();
    let config = config::Expo { url, access_token, timeout, rate: 600, unknown_repeats: 2, unregistered_share: 0.2 };
    Expo::new(&config).unwrap()
}

/// Returns the journal as the control API tells it.
fn journal(sandbox: &Sandbox) -> Vec<Value> {
    let entries = sandbox.control().entries(0, None, 10_000).into_iter();
    entries.map(|entry| serde_json::to_value(entry).unwrap()).collect()
}

/// Returns what the sandbox was sent beside what it must be held against, one by one.
fn pairs<'t>(sandbox: &Sandbox, theirs: &'t [Value]) -> Vec<(Value, &'t Value)> {
    let ours = journal(sandbox);
    assert_eq!(ours.len(), theirs.len(), "{ours:?}");
    assert!(!ours.is_empty());
    ours.into_iter().zip(theirs).collect()
}

/// Asserts that two requests differ in exactly the stated lines.
fn hold(ours: &Value, theirs: &Value, stated: &[&str]) {
    assert_eq!(differences(ours, theirs), stated, "\nours:   {ours}\ntheirs: {theirs}");
}
