//! What the stand-in answers: bodies as Ably and Expo write them, as far as a peer reads them.
//!
//! Called by the stand-in with what it was asked; notes arrivals in the case's sheet.

use std::{
    borrow::Cow,
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use http::StatusCode;
use serde::Deserialize;

use crate::{events, sheet::Sheet};

/// Status and body; none: the request was not understood.
pub type Said = Option<(StatusCode, String)>;

/// One, or a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

impl<T> OneOrMany<T> {
    fn list(self) -> Vec<T> {
        match self {
            OneOrMany::Many(list) => list,
            OneOrMany::One(one) => vec![one],
        }
    }
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Spec<'a> {
    #[serde(borrow)]
    channels: OneOrMany<Cow<'a, str>>,
    #[serde(borrow)]
    messages: OneOrMany<Message<'a>>,
}

#[derive(Deserialize)]
struct Push<'a> {
    #[serde(borrow)]
    to: OneOrMany<Cow<'a, str>>,
    #[serde(borrow)]
    data: PushData<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PushData<'a> {
    #[serde(borrow, default)]
    event_id: Cow<'a, str>,
}

pub fn publish(sheet: &Sheet, channel: &str, body: &[u8]) -> Said {
    let messages = serde_json::from_slice::<OneOrMany<Message>>(body).ok()?.list();
    for message in &messages {
        sheet.arrived(&message.id, true);
    }
    let id = &messages.first()?.id;
    Some((
        StatusCode::CREATED,
        format!(r#"{{"channel":"{channel}","messageId":"{id}","serials":["01700000000000-000@a:000"]}}"#),
    ))
}

pub fn batch_publish(sheet: &Sheet, body: &[u8]) -> Said {
    let specs = serde_json::from_slice::<OneOrMany<Spec>>(body).ok()?.list();
    let mut text = String::from("[");
    for spec in specs {
        let (channels, messages) = (spec.channels.list(), spec.messages.list());
        for message in &messages {
            sheet.arrived(&message.id, true);
        }
        let id = messages.first()?.id.as_ref();
        let comma = if text.len() > 1 { "," } else { "" };
        let _ = write!(text, r#"{comma}{{"successCount":{},"failureCount":0,"results":["#, channels.len());
        for (position, channel) in channels.iter().enumerate() {
            let comma = if position > 0 { "," } else { "" };
            let _ = write!(
                text,
                r#"{comma}{{"channel":"{channel}","messageId":"{id}","serials":["01700000000000-000@a:000"]}}"#
            );
        }
        text.push_str("]}");
    }
    text.push(']');
    Some((StatusCode::CREATED, text))
}

/// Writes the members of a presence channel: who acted, and the recipient when online. `only`: Ably's own filter.
fn members(text: &mut String, channel: &str, only: Option<&str>) -> Option<()> {
    let session = events::session_of(channel)?;
    let recipient = Some(events::user(session)).filter(|_| events::online(session));
    text.push('[');
    for client in [Some(events::actor(session)), recipient].into_iter().flatten() {
        if only.is_some_and(|only| only != client) {
            continue;
        }
        if !text.ends_with('[') {
            text.push(',');
        }
        let _ = write!(
            text,
            r#"{{"id":"cn{session}:0:0","clientId":"{client}","connectionId":"cn{session}","timestamp":1777629600000,"action":1}}"#
        );
    }
    text.push(']');
    Some(())
}

fn value(query: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

pub fn presence(channel: &str, query: &str) -> Said {
    let mut text = String::new();
    members(&mut text, channel, value(query, "clientId").as_deref())?;
    Some((StatusCode::OK, text))
}

pub fn batch_presence(query: &str) -> Said {
    let channels = value(query, "channels")?;
    let count = channels.split(',').count();
    let mut text = format!(r#"{{"successCount":{count},"failureCount":0,"results":["#);
    for (position, channel) in channels.split(',').enumerate() {
        let comma = if position > 0 { "," } else { "" };
        let _ = write!(text, r#"{comma}{{"channel":"{channel}","presence":"#);
        members(&mut text, channel, None)?;
        text.push('}');
    }
    text.push_str("]}");
    Some((StatusCode::OK, text))
}

pub fn push(tickets: &AtomicU64, sheet: &Sheet, body: &[u8]) -> Said {
    let pushes = serde_json::from_slice::<OneOrMany<Push>>(body).ok()?.list();
    let mut text = String::from(r#"{"data":["#);
    for push in pushes {
        sheet.arrived(&push.data.event_id, false);
        for _ in push.to.list() {
            let ticket = tickets.fetch_add(1, Relaxed);
            let comma = if text.ends_with('[') { "" } else { "," };
            let _ = write!(text, r#"{comma}{{"status":"ok","id":"0197a3e2-0000-7000-8000-{ticket:012x}"}}"#);
        }
    }
    text.push_str("]}");
    Some((StatusCode::OK, text))
}
