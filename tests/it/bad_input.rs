//! Whatever is put into the queue: never a panic, never a stopped queue. An ordinary event behind each bad one is delivered, and each
//! bad one is a dead letter that names the field.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use herald::{
    broker::{Broker, Destination, Message},
    domain::ledger::State,
};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};

use crate::{
    rig::{Rig, event},
    servers,
    support::eventually,
};

const MIB: usize = 1024 * 1024;

/// Publishes `body` as it is, with `properties`.
async fn publish(rig: &Rig, body: Vec<u8>, properties: BasicProperties) {
    let to = Destination::Exchange { exchange: rig.topology.events(), routing_key: "test.event".into() };
    rig.broker.publish(&to, Message { body: body.into(), properties }).await.expect("published");
}

/// Returns one value of the worker's metrics, 0 when it is not there.
async fn metric(rig: &Rig, worker: usize, name: &str) -> f64 {
    let page =
        reqwest::get(format!("{}/metrics", rig.http(worker))).await.expect("metrics").text().await.expect("text");
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

/// Checks that the worker took no harm: an ordinary event is delivered, nothing panicked, and the books close.
async fn is_well(rig: &Rig, worker: usize, id: &str) {
    rig.send(json!({"id": id, "sessionId": "ordinary", "event": "partner.advanced"})).await;
    rig.until(id, State::Done).await;
    assert_eq!(metric(rig, worker, "herald_panics_total").await, 0.0, "{}", rig.log(worker));
    assert_eq!(metric(rig, worker, "herald_rows_refused_total").await, 0.0, "{}", rig.log(worker));
    eventually("the books close with nothing waiting", async || {
        let books = rig.books().await;
        (books.closed() && books.waiting == 0).then_some(())
    })
    .await;
}

fn with(fields: Value) -> Vec<u8> {
    let mut event = json!({"sessionId": "s", "event": "partner.advanced"});
    event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    event.to_string().into_bytes()
}

/// Bodies nobody can read, with the field their dead letter names.
fn malformed() -> Vec<(Vec<u8>, &'static str)> {
    let text = |text: &str| text.as_bytes().to_vec();
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(30_000), close.repeat(30_000)).into_bytes();
    let in_data =
        |value: &str| format!(r#"{{"id":"i","sessionId":"s","event":"e","data":{{"k":{value}}}}}"#).into_bytes();
    vec![
        (Vec::new(), "body"),
        (vec![0], "body"),
        (vec![0xff; 4096], "body"),
        (text("null"), "body"),
        (text("{"), "body"),
        (text("\u{feff}{}"), "body"),
        (vec![b' '; 64 * 1024 + 1], "body"),
        (deep("[", "]"), "body"),
        (deep("{\"a\":", "}")[..60_000].to_vec(), "body"),
        (in_data(&format!("{}{}", "[".repeat(200), "]".repeat(200))), "body"),
        (in_data("1e400"), "body"),
        (in_data(&format!("{}1", "9".repeat(5000))), "body"),
        (in_data("\"\\ud800\""), "body"),
        (in_data("\"\\udc00\\ud800\""), "body"),
        (in_data("NaN"), "body"),
        (text(r#"{"id":"\ud83d","sessionId":"s","event":"e"}"#), "body"),
        (with(json!({})), "id"),
        (with(json!({"id": ""})), "id"),
        (with(json!({"id": "a\0b"})), "id"),
        (with(json!({"id": "🙂".repeat(64)})), "id"),
        (with(json!({"id": u64::MAX})), "id"),
        (with(json!({"id": "i", "sessionId": "\0"})), "sessionId"),
        (with(json!({"id": "i", "sessionId": "x".repeat(129)})), "sessionId"),
        (with(json!({"id": "i", "event": {"deep": [[[]]]}})), "event"),
        (with(json!({"id": "i", "partnerId": "\u{1b}[2J"})), "partnerId"),
        (with(json!({"id": "i", "excludeUserId": "\u{85}"})), "excludeUserId"),
        (with(json!({"id": "i", "data": "\0"})), "data"),
        (with(json!({"id": "i", "occurredAt": "99999-01-01T00:00:00Z"})), "occurredAt"),
        (with(json!({"id": "i", "expiresAt": 1e300})), "expiresAt"),
    ]
}

#[tokio::test]
async fn what_cannot_be_read_is_a_dead_letter_that_names_the_field() {
    let Some(mut rig) = Rig::new("malformed").await else { return };
    let worker = rig.start().await;
    let bad = malformed();
    for (number, (body, _)) in bad.iter().enumerate() {
        // Without a message_id where the missing id is the mistake.
        let missing = body == &with(json!({}));
        let id = Some(format!("bad-{number}")).filter(|_| !missing);
        rig.publish(body.clone(), id.as_deref()).await;
        // Right behind each bad one, in the same session where it has one.
        rig.send(json!({"id": format!("good-{number}"), "sessionId": "s", "event": "partner.advanced"})).await;
    }
    for number in 0..bad.len() {
        rig.until(&format!("good-{number}"), State::Done).await;
    }
    let letters = eventually("all letters", async || {
        let letters = rig.letters().await;
        (letters.len() == bad.len()).then_some(letters)
    })
    .await;
    for (number, (body, field)) in bad.iter().enumerate() {
        let missing = body == &with(json!({}));
        let id = format!("bad-{number}");
        let mut of_id = letters.iter().filter(|l| if missing { l.id.starts_with("unreadable-") } else { l.id == id });
        let letter = of_id.next().unwrap_or_else(|| panic!("no letter {id}"));
        assert_eq!(letter.reason, "malformed", "{id}");
        assert!(letter.error.starts_with(&format!("{field}: ")), "{id}: {}", letter.error);
        assert!(letter.error.len() <= 400 && !letter.error.contains(char::is_control), "{id}: {}", letter.error);
        assert_eq!(letter.body_bytes, body.len() as i64);
        assert_eq!(BASE64_STANDARD.decode(&letter.body).unwrap(), body[..body.len().min(64 * 1024)], "{id}");
        assert!(letter.body.len() < 100_000);
    }
    is_well(&rig, worker, "last").await;
    rig.end().await;
}

/// Identifiers in which every layer has characters of its own: addresses, queries, JSON, lists of channels, SQL, fault ids.
const ODD: [&str; 12] = [
    "a/b",
    "a%2Fb",
    "a:b",
    "a,b",
    "a b+c",
    "é🙂\u{202e}x",
    "..",
    "a?b#c&d=e",
    "\"quoted\\\"",
    "'; DROP TABLE events; --",
    "{sessionId}",
    "100%",
];

#[tokio::test]
async fn odd_identifiers_reach_the_channel_they_name() {
    let Some(mut rig) = Rig::new("odd").await else { return };
    rig.add_users(ODD.iter().map(|id| (format!("user {id}"), Some("ExponentPushToken[odd]".to_owned())))).await;
    let worker = rig.start().await;
    // Together first, so that batches carry them, then one by one.
    for round in ["batch", "single"] {
        for odd in ODD {
            rig.enter(&format!("{round} {odd}"), &format!("user {odd}"));
            let id = format!("{round} {odd}");
            rig.send(event(&id, &format!("name {odd}"), &id, &format!("user {odd}"))).await;
            if round == "single" {
                rig.until(&id, State::Done).await;
            }
        }
        for odd in ODD {
            let entry = rig.until(&format!("{round} {odd}"), State::Done).await;
            assert_eq!(entry.route.as_deref(), Some("realtime"), "seen on its own presence channel: {entry:?}");
        }
    }
    let effects = rig.sandbox.control().effects(0, 1000);
    for round in ["batch", "single"] {
        for odd in ODD {
            let (id, channel) = (format!("{round} {odd}"), format!("beheard:session:{round} {odd}"));
            let of_event: Vec<_> = effects.iter().filter(|effect| *effect.event == *id).collect();
            assert!(of_event.len() == 1 && of_event[0].count == 1, "{id}: {of_event:?}");
            assert_eq!(*of_event[0].target, *channel);
            assert_eq!(of_event[0].name, Some(format!("name {odd}")));
        }
    }
    is_well(&rig, worker, "last").await;
    rig.end().await;
}

fn headers(fields: impl IntoIterator<Item = (String, AMQPValue)>) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in fields {
        table.insert(name.into(), value);
    }
    BasicProperties::default().with_headers(table)
}

#[tokio::test]
async fn headers_that_fill_a_frame_stop_nobody() {
    let Some(mut rig) = Rig::new("headers").await else { return };
    let worker = rig.start().await;
    // RabbitMQ's frames have 128 KiB; all but a few hundred bytes of one.
    let long = |bytes: usize| AMQPValue::LongString("v".repeat(bytes).into());
    let many = (0..9_000).map(|n| (format!("h{n}"), AMQPValue::LongInt(n)));
    let odd = AMQPValue::LongString(vec![0, 0xff, b'%', 0x1b].into());
    for (number, properties) in [
        headers([("long".to_owned(), long(130_000))]),
        headers(many),
        headers([("fits".to_owned(), long(65_000)), ("odd\u{1}".to_owned(), odd.clone())]),
        // herald's own, forged.
        headers(
            ["id", "reason", "error", "route", "queue", "routing-key", "attempt"]
                .map(|name| (format!("herald-{name}"), odd.clone())),
        ),
        headers(
            ["id", "reason", "route", "queue", "exchange", "routing-key"]
                .map(|name| (format!("herald-{name}"), AMQPValue::LongString("\0'\u{1b}[2J".into()))),
        ),
        headers([("x-death".to_owned(), long(10)), ("x-first-death-reason".to_owned(), odd.clone())]),
        BasicProperties::default().with_content_type("\0".into()).with_message_id("nul\0".into()),
    ]
    .into_iter()
    .enumerate()
    {
        // Each on an event that is retried once (its copy has to travel) and on one that is dead at once.
        let retried = json!({"id": format!("retried-{number}"), "sessionId": format!("fault-publish-422x1-{number}"), "event": "e"});
        let retried_later = json!({"id": format!("later-{number}"), "sessionId": format!("fault-publish-500x4-{number}"), "event": "e"});
        // One after the other: in a batch with its neighbour, the first would use up its refusal and be delivered alone.
        publish(&rig, retried.to_string().into_bytes(), properties.clone()).await;
        rig.until(&format!("retried-{number}"), State::Dead).await;
        publish(&rig, retried_later.to_string().into_bytes(), properties.clone()).await;
        publish(&rig, b"{}".to_vec(), properties).await;
        rig.until(&format!("later-{number}"), State::Done).await;
    }
    eventually("seven rejected and seven unreadable letters", async || (rig.letters().await.len() == 14).then_some(()))
        .await;
    eventually("the copies lie in the queue", async || {
        (rig.ready_messages(&rig.topology.dead()).await == 14).then_some(())
    })
    .await;
    is_well(&rig, worker, "last").await;
    rig.end().await;
}

/// Publishes headers nested `depth` deep through the management API: no client library here can write them.
async fn publish_nested(url: &str, exchange: &str, body: &Value, arrays: bool, depth: usize) {
    let url = url::Url::parse(url).expect("management URL");
    let (open, close) = if arrays { ("[", "]") } else { (r#"{"a":"#, "}") };
    let headers = format!(r#"{{"a":{}1{}}}"#, open.repeat(depth), close.repeat(depth));
    let payload = Value::from(body.to_string());
    let request = format!(
        r#"{{"properties":{{"headers":{headers}}},"routing_key":"k","payload":{payload},"payload_encoding":"string"}}"#
    );
    let mut address = url.clone();
    address.set_path(&format!("/api/exchanges/%2f/{exchange}/publish"));
    let _ = (address.set_username(""), address.set_password(None));
    let client = reqwest::Client::new().post(address).body(request).header("content-type", "application/json");
    let credentials = BASE64_STANDARD.encode(format!("{}:{}", url.username(), url.password().unwrap_or_default()));
    let answer = client.header("authorization", format!("Basic {credentials}")).send().await.expect("management API");
    let (status, text) = (answer.status(), answer.text().await.expect("text"));
    assert!(status.is_success() && text.contains("true"), "{status} {text}");
}

#[tokio::test]
async fn headers_nested_as_deep_as_a_frame_allows_end_no_process() {
    let Some(rabbit) = servers::Rabbit::start() else { return };
    let Some(mut rig) = Rig::on("nested", rabbit.url.clone()).await else { return };
    let worker = rig.start().await;
    // Seven bytes a table, five an array, 128 KiB a frame.
    for (number, (arrays, depth)) in [(false, 100), (false, 18_000), (true, 26_000)].into_iter().enumerate() {
        // One that is delivered, one whose copy has to travel, one that cannot be read.
        let sent = json!({"id": format!("nested-{number}"), "sessionId": "s", "event": "e"});
        let copied = json!({"id": format!("copied-{number}"), "sessionId": format!("fault-publish-422x1-{number}"), "event": "e"});
        for body in [&sent, &json!({})] {
            publish_nested(&rabbit.management_url, &rig.topology.events(), body, arrays, depth).await;
        }
        rig.until(&format!("nested-{number}"), State::Done).await;
        publish_nested(&rabbit.management_url, &rig.topology.events(), &copied, arrays, depth).await;
        rig.until(&format!("copied-{number}"), State::Dead).await;
    }
    eventually("six letters", async || (rig.letters().await.len() == 6).then_some(())).await;
    is_well(&rig, worker, "last").await;
    rig.end().await;
}

/// Returns the most memory the process has had, in bytes.
fn peak(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a Linux process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

#[tokio::test]
async fn sixty_four_bodies_of_16_mib_at_once_do_not_exhaust_memory() {
    let Some(rabbit) = servers::Rabbit::start() else { return };
    rabbit.take_large_messages();
    let Some(mut rig) = Rig::on("large", rabbit.url.clone()).await else { return };
    let body = vec![b'x'; 16 * MIB];
    for number in 0..64 {
        rig.publish(body.clone(), Some(&format!("large-{number}"))).await;
    }
    // All of them wait when it starts, and its prefetch lets them all come at once.
    let worker = rig.start().await;
    let started = std::time::Instant::now();
    rig.send(json!({"id": "behind", "sessionId": "s", "event": "partner.advanced"})).await;
    let ended = async {
        while rig.letters().await.len() < 64 || rig.ready_messages(&rig.topology.dead()).await < 64 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    crate::support::within(180, "64 letters", ended).await;
    let letters = rig.letters().await;
    let expected = "body: has 16777216 bytes; at most 65536 are accepted";
    assert!(letters.iter().all(|letter| letter.reason == "malformed" && letter.error == expected));
    assert_eq!(letters[0].body_bytes, 16 * MIB as i64);
    rig.until("behind", State::Done).await;
    let most = peak(rig.pid(worker));
    println!("64 bodies of 16 MiB: {:?}, at most {} MiB in memory", started.elapsed(), most / MIB);
    // The bodies themselves are 1024 MiB.
    assert!(most < 1536 * MIB, "{} MiB", most / MIB);
    is_well(&rig, worker, "last").await;
    rig.end().await;
}
