//! `herald send`: enqueues events, as a backend would, after refusing what the worker would refuse.
//!
//! Everything is checked before anything is published, so that a mistake in line 7000 leaves nothing half sent.

use std::{collections::BTreeMap, io::Read, path::PathBuf};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use lapin::BasicProperties;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    broker::{Broker, BrokerError, Destination, Message, Topology, amqp::Role},
    config::Config,
    domain::{
        event::{self, Meta},
        parse_duration,
    },
};

use super::{connect, output, stop::Stop};

/// Largest file read, in bytes.
const MAX_FILE: u64 = 1024 * 1024 * 1024;
/// Sessions published to side by side; within one the order of the file is kept.
const SESSIONS: usize = 64;
/// Mistakes shown; the rest is counted.
const MISTAKES: usize = 20;

const EXAMPLES: &str = "\
Examples:
  herald send partner.advanced --session s1 --partner u2 --data '{\"toStage\": 3}'
  herald send session.paused --session s1 --expires 2h
  herald send --file events.jsonl        one JSON object for each event; - is standard input
      {\"event\": \"partner.advanced\", \"sessionId\": \"s1\", \"partnerId\": \"u2\", \"data\": {\"toStage\": 3}}

Flags stand in for what an object of the file does not say. Prints the id of each event once RabbitMQ has confirmed it.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The event's name, e.g. partner.signed_compact
    event: Option<String>,
    /// The session it belongs to
    #[arg(long, value_name = "S")]
    session: Option<String>,
    /// The recipient; without one it is published on the session's channel and nobody is pushed to
    #[arg(long, value_name = "P")]
    partner: Option<String>,
    /// A user who does not want to hear of it (who caused it)
    #[arg(long, value_name = "U")]
    exclude: Option<String>,
    /// The payload, a JSON object
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// The event's id; default: a new UUID. The same id again is delivered once
    #[arg(long)]
    id: Option<String>,
    /// When it stops to matter: RFC 3339, or a duration from now such as 10m
    #[arg(long, value_name = "T")]
    expires: Option<String>,
    /// Events to send, as JSON lines or one JSON text; - is standard input
    #[arg(long, value_name = "F", conflicts_with = "id")]
    file: Option<PathBuf>,
    /// Prints one JSON object for each event
    #[arg(long)]
    json: bool,
}

/// An event that the worker would take, ready to be published.
#[derive(Debug)]
struct Ready {
    id: String,
    session_id: String,
    event: String,
    body: Vec<u8>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sent<'a> {
    id: &'a str,
    session_id: &'a str,
    event: &'a str,
}

pub(super) async fn run(config: &Config, args: Args) -> Result<(), Stop> {
    let now = Timestamp::now();
    let events = prepare(&args, now)?;
    let broker = connect::broker(config, Role::Command).await?;
    let sent = publish(&broker, &connect::topology(config), &events, now, args.json).await;
    broker.close().await;
    sent
}

/// Makes the events of the command line or file, or tells everything that is wrong with them.
fn prepare(args: &Args, now: Timestamp) -> Result<Vec<Ready>, Stop> {
    let flags = flags(args, now).map_err(Stop::usage)?;
    let objects = match &args.file {
        None if args.event.is_none() => return Err(Stop::usage("send: name an event, or a --file of events")),
        None => vec![Map::new()],
        Some(path) => read(path)?,
    };
    let (mut events, mut mistakes) = (Vec::new(), Vec::new());
    for (index, object) in objects.into_iter().enumerate() {
        match ready(object, &flags) {
            Ok(event) => events.push(event),
            Err(malformed) if args.file.is_some() => mistakes.push(format!("event {}: {malformed}", index + 1)),
            Err(malformed) => mistakes.push(malformed.to_string()),
        }
    }
    if mistakes.is_empty() {
        return Ok(events);
    }
    let more = mistakes.len().saturating_sub(MISTAKES);
    mistakes.truncate(MISTAKES);
    if more > 0 {
        mistakes.push(format!("and {more} more"));
    }
    Err(Stop::usage(format!("send: {}; nothing was sent", mistakes.join("\nsend: "))))
}

/// Returns what the flags say, under the names of the message's fields.
fn flags(args: &Args, now: Timestamp) -> Result<Map<String, Value>, String> {
    let mut fields = Map::new();
    let texts = [
        ("event", &args.event),
        ("sessionId", &args.session),
        ("partnerId", &args.partner),
        ("excludeUserId", &args.exclude),
        ("id", &args.id),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            fields.insert(name.to_owned(), json!(text));
        }
    }
    if let Some(data) = &args.data {
        let data: Value = serde_json::from_str(data).map_err(|error| format!("send: --data is not JSON: {error}"))?;
        fields.insert("data".to_owned(), data);
    }
    if let Some(expires) = &args.expires {
        let at = match parse_duration(expires) {
            Ok(life) => now.checked_add(life).map_err(|error| format!("send: --expires: {error}"))?,
            Err(_) => {
                expires.parse().map_err(|_| "send: --expires must be RFC 3339 or a duration such as 10m".to_owned())?
            }
        };
        fields.insert("expiresAt".to_owned(), json!(at.to_string()));
    }
    Ok(fields)
}

/// Reads objects one after the other, however they are separated; an array counts as its elements.
fn read(path: &std::path::Path) -> Result<Vec<Map<String, Value>>, Stop> {
    let wrong = |what: String| Stop::usage(format!("send: {}: {what}", path.display()));
    let mut text = String::new();
    let read = match path.to_str() {
        Some("-") => std::io::stdin().lock().take(MAX_FILE + 1).read_to_string(&mut text),
        _ => std::fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text)),
    };
    read.map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > MAX_FILE {
        return Err(wrong("is over 1 GiB; split it".to_owned()));
    }
    let mut objects = Vec::new();
    for value in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
        let value = value.map_err(|error| wrong(format!("is not JSON: {error}; nothing was sent")))?;
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            match value {
                Value::Object(object) => objects.push(object),
                _ => return Err(wrong(format!("event {} is not a JSON object; nothing was sent", objects.len() + 1))),
            }
        }
    }
    if objects.is_empty() { Err(wrong("has no events".to_owned())) } else { Ok(objects) }
}

/// Completes an event with the flags and an id, and reads it as the worker will.
fn ready(mut object: Map<String, Value>, flags: &Map<String, Value>) -> Result<Ready, event::Malformed> {
    for (name, value) in flags {
        object.entry(name.clone()).or_insert_with(|| value.clone());
    }
    object.entry("id").or_insert_with(|| json!(uuid::Uuid::now_v7().to_string()));
    let body = Value::Object(object).to_string().into_bytes();
    let event = event::decode(&body, &Meta::default())?;
    Ok(Ready { id: event.id, session_id: event.session_id, event: event.name, body })
}

const CONTENT_TYPE: &str = "application/json";

/// Publishes and prints each id once it is confirmed. After a failure nothing new is begun.
async fn publish<B: Broker>(
    broker: &B,
    topology: &Topology,
    events: &[Ready],
    now: Timestamp,
    as_json: bool,
) -> Result<(), Stop> {
    let mut sessions: BTreeMap<&str, Vec<&Ready>> = BTreeMap::new();
    for event in events {
        sessions.entry(&event.session_id).or_default().push(event);
    }
    let bar = output::progress(events.len() as u64, "sending");
    let (sender, mut confirmed) = tokio::sync::mpsc::channel::<Result<&Ready, BrokerError>>(SESSIONS);
    let publishing = async move {
        let all = stream::iter(sessions.into_values()).for_each_concurrent(SESSIONS, |session| {
            let sender = sender.clone();
            async move {
                for event in session {
                    let result = broker.publish(&destination(topology, event), message(event, now)).await;
                    // Nobody listens any more once something has failed.
                    if sender.send(result.map(|()| event)).await.is_err() {
                        return;
                    }
                }
            }
        });
        all.await;
    };
    let mut sent = 0;
    let telling = async {
        while let Some(result) = confirmed.recv().await {
            let event = match result {
                Ok(event) => event,
                Err(error) => {
                    confirmed.close();
                    return Err((error, sent));
                }
            };
            sent += 1;
            bar.inc(1);
            let printed = bar.suspend(|| match as_json {
                true => output::json(&Sent { id: &event.id, session_id: &event.session_id, event: &event.event }),
                false => output::line(&event.id),
            });
            // A reader of ids that went away does not stop the sending.
            drop(printed);
        }
        Ok(())
    };
    let ((), told) = tokio::join!(publishing, telling);
    bar.finish_and_clear();
    told.map_err(|(error, sent)| match error {
        BrokerError::Config(problem) => Stop::config(format!("{problem}; {sent} of {} sent", events.len())),
        other => Stop::failed(format!("{other}; {sent} of {} sent", events.len())),
    })
}

fn destination(topology: &Topology, event: &Ready) -> Destination {
    Destination::Exchange { exchange: topology.events(), routing_key: event.event.clone() }
}

fn message(event: &Ready, now: Timestamp) -> Message {
    let properties = BasicProperties::default()
        .with_content_type(CONTENT_TYPE.into())
        .with_message_id(event.id.as_str().into())
        .with_timestamp(now.as_second().unsigned_abs());
    Message { body: event.body.clone().into(), properties }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn prepared(line: &[&str]) -> Result<Vec<Ready>, Stop> {
        let args = Line::parse_from(std::iter::once(&"send").chain(line)).args;
        prepare(&args, "2026-05-01T10:00:00Z".parse().unwrap())
    }

    #[test]
    fn flags_make_one_event() {
        let line =
            ["a.b", "--session", "s1", "--partner", "p1", "--exclude", "u1", "--data", "{\"n\":1}", "--expires", "10m"];
        let events = prepared(&line).unwrap();
        let body: Value = serde_json::from_slice(&events[0].body).unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(uuid::Uuid::parse_str(&events[0].id).unwrap().get_version_num(), 7);
        let expected = json!({ "event": "a.b", "sessionId": "s1", "partnerId": "p1", "excludeUserId": "u1",
            "data": { "n": 1 }, "expiresAt": "2026-05-01T10:10:00Z", "id": events[0].id });
        assert_eq!(body, expected);
    }

    #[test]
    fn what_the_worker_would_refuse_is_refused() {
        for (line, part) in [
            (&["a.b"][..], "sessionId"),
            (&["--session", "s"], "name an event"),
            (&["a.b", "--session", "s", "--data", "[1]"], "data"),
            (&["a.b", "--session", "s", "--data", "{"], "--data is not JSON"),
            (&["a.b", "--session", "s", "--expires", "soon"], "--expires must be"),
            (&["a.b", "--session", ""], "sessionId"),
            (&["--file", "/no/such/file"], "/no/such/file"),
        ] {
            let stop = prepared(line).unwrap_err();
            assert!(format!("{stop:?}").contains(part) && format!("{stop:?}").contains("code: 64"), "{stop:?}");
        }
    }

    #[test]
    fn a_file_may_be_lines_a_text_or_an_array_and_flags_fill_the_gaps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let file = path.to_str().unwrap();
        for text in [
            "{\"event\":\"a\",\"id\":\"1\"}\n\n{\"event\":\"b\",\"id\":\"2\",\"sessionId\":\"s2\"}\n",
            "[{\"event\":\"a\",\"id\":\"1\"},\n {\"event\":\"b\",\"id\":\"2\",\"sessionId\":\"s2\"}]",
            "{\n \"event\": \"a\",\n \"id\": \"1\"\n}{\"event\":\"b\",\"id\":\"2\",\"sessionId\":\"s2\"}",
        ] {
            std::fs::write(&path, text).unwrap();
            let events = prepared(&["--file", file, "--session", "s1"]).unwrap();
            let told: Vec<_> =
                events.iter().map(|e| (e.id.as_str(), e.session_id.as_str(), e.event.as_str())).collect();
            assert_eq!(told, [("1", "s1", "a"), ("2", "s2", "b")]);
        }
        std::fs::write(
            &path,
            "{\"event\":\"a\"}\n{\"event\":\"b\",\"sessionId\":7}\n{\"event\":\"c\",\"sessionId\":\"s\"}",
        )
        .unwrap();
        let stop = format!("{:?}", prepared(&["--file", file]).unwrap_err());
        assert!(stop.contains("event 1: sessionId") && stop.contains("event 2: sessionId"), "{stop}");
        assert!(!stop.contains("event 3") && stop.contains("nothing was sent"), "{stop}");
    }
}
