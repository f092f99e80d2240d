//! Expo: send and receipts.

use std::io::Write;

use herald::sandbox::{ACCESS_TOKEN, Device, FOREIGN_ACCESS_TOKEN, Settings};
use serde_json::{Value, json};

use super::{Answer, World, send, world};

fn token(name: &str) -> String {
    format!("ExponentPushToken[{name}]")
}

fn at_once() -> Settings {
    Settings { receipt_delay_ms: 0, ..Settings::default() }
}

#[tokio::test]
async fn tickets_stand_in_the_order_of_the_recipients() {
    let world = world(at_once()).await;
    let messages = json!([
        {"to": [token("a"), token("unregistered-1")], "title": "t", "data": {"eventId": "e1"}},
        {"to": token("a"), "data": {"eventId": "e1"}},
        {"to": token("no-details-1")},
    ]);
    let tickets = world.push(messages).await.json()["data"].clone();
    let states: Vec<_> = tickets.as_array().unwrap().iter().map(|ticket| ticket["status"].as_str().unwrap()).collect();
    assert_eq!(states, ["ok", "error", "ok", "error"]);
    assert_eq!(
        tickets[1]["details"],
        json!({"error": "DeviceNotRegistered", "expoPushToken": token("unregistered-1")})
    );
    assert!(tickets[1].get("id").is_none() && tickets[3].get("details").is_none());
    assert_eq!(world.effects(), [format!("{} e1 2", token("a"))]);
    let single = world.push(json!({"to": token("a")})).await.json();
    assert!(single["data"]["id"].is_string(), "one message to one recipient has one ticket: {single}");
    let list = world.push(json!({"to": [token("a")]})).await.json();
    assert!(list["data"][0]["id"].is_string());
}

#[tokio::test]
async fn what_expo_refuses_is_refused_in_order() {
    let world = world(Settings { project_rate: 100, ..Settings::default() }).await;
    let many = |count| vec![token("a"); count];
    let table = [
        (json!([{"to": many(101), "title": 1}]), (400, "VALIDATION_ERROR")),
        (
            json!([{"to": many(60)}, {"to": ([many(40), vec![token("project-b-1")]].concat())}]),
            (400, "PUSH_TOO_MANY_NOTIFICATIONS"),
        ),
        (json!([{"to": many(99)}, {"to": token("project-b-1")}]), (400, "PUSH_TOO_MANY_EXPERIENCE_IDS")),
        (json!([{"to": many(100)}]), (200, "")),
        (json!([{"to": token("a")}]), (429, "TOO_MANY_REQUESTS")),
        (json!([{"to": token("project-b-1")}]), (200, "")),
    ];
    for (body, (status, code)) in table {
        assert_eq!(world.push(body.clone()).await.expo(), (status, code.to_owned()), "{body:.80}");
    }
    let mixed = json!([{"to": [token("a"), token("project-b-1"), token("b")]}]);
    let error = world.push(mixed).await.json()["errors"][0].clone();
    let details = json!({"@sandbox/app": [token("a"), token("b")], "@sandbox/b": [token("project-b-1")]});
    assert_eq!((&error["details"], &error["isTransient"]), (&details, &json!(false)));
    let issue = world.push(json!([{"to": "a"}, {"to": "b", "interruptionLevel": "timeSensitive"}])).await.json();
    assert!(issue["errors"][0]["message"].as_str().unwrap().contains("\"1.interruptionLevel\""), "{issue}");
}

#[tokio::test]
async fn devices_can_be_told_of() {
    let world = world(at_once()).await;
    let device = json!({"token": token("a"), "project": "@me/mine", "outcome": "unregistered"});
    world.control("POST", "/devices", device).await;
    let answer = world.push(json!([{"to": [token("a"), token("b")]}])).await;
    assert_eq!(answer.expo(), (400, "PUSH_TOO_MANY_EXPERIENCE_IDS".to_owned()));
    assert_eq!(world.push(json!([{"to": token("a")}])).await.json()["data"][0]["status"], "error");
    world.sandbox.control().set_device(&token("a"), Device::default());
    assert_eq!(world.push(json!([{"to": token("a")}])).await.json()["data"][0]["status"], "ok");
}

/// Pushes to the token with this name and returns the ticket's id.
async fn ticket(world: &World, name: &str, body: Value) -> String {
    let mut message = json!({"to": token(name)});
    message.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    world.push(message).await.json()["data"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn receipts_say_what_became_of_a_push() {
    let world = world(at_once()).await;
    let table = [
        ("a", "ok", Value::Null),
        ("receipt-unregistered-1", "error", "DeviceNotRegistered".into()),
        ("receipt-invalid-credentials-1", "error", "InvalidCredentials".into()),
        ("rate-1", "error", "MessageRateExceeded".into()),
        ("too-big-1", "error", "MessageTooBig".into()),
        ("provider-error-1", "error", "ProviderError".into()),
        ("mismatch-1", "error", "MismatchSenderId".into()),
    ];
    for (name, status, error) in table {
        let id = ticket(&world, name, json!({})).await;
        let receipt = world.receipts(&[&id]).await.json()["data"][&id].clone();
        assert_eq!((&receipt["status"], &receipt["details"]["error"]), (&json!(status), &error), "{name}");
    }
    let big = ticket(&world, "b", json!({"data": {"eventId": "big", "text": "x".repeat(4096)}})).await;
    assert_eq!(world.receipts(&[&big]).await.json()["data"][&big]["details"]["error"], "MessageTooBig");
    let lost = ticket(&world, "no-receipt-1", json!({})).await;
    assert_eq!(world.receipts(&[&lost, "unknown"]).await.json(), json!({"data": {}}));
    assert_eq!(world.effects(), [format!("{}  1", token("a")), format!("{}  1", token("no-receipt-1"))]);
    let too_many = world.receipts(&vec!["x"; 1001]).await;
    assert_eq!(too_many.expo(), (400, "PUSH_TOO_MANY_RECEIPTS".to_owned()));
    let wrong = world.expo("/--/api/v2/push/getReceipts", json!({"ids": "x"})).await;
    assert_eq!(wrong.expo(), (400, "VALIDATION_ERROR".to_owned()));
}

#[tokio::test]
async fn receipts_come_late_and_go() {
    let world = world(Settings::default()).await;
    let id = ticket(&world, "a", json!({})).await;
    assert_eq!(world.receipts(&[&id]).await.json(), json!({"data": {}}), "not within fifteen minutes");
    world.control("POST", "/settings", json!({"receipt_delay_ms": 0})).await;
    assert_eq!(world.receipts(&[&id]).await.json()["data"][&id]["status"], "ok");
    world.control("POST", "/settings", json!({"receipt_life_ms": 0})).await;
    assert_eq!(world.receipts(&[&id]).await.json(), json!({"data": {}}), "gone after a day");
}

async fn with_token(world: &World, token: Option<&str>) -> Answer {
    let request = world.request("POST", "/--/api/v2/push/getReceipts").header("content-type", "application/json");
    let request = request.body("{\"ids\":[]}");
    send(match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    })
    .await
}

#[tokio::test]
async fn access_tokens_count_under_enhanced_security() {
    let world = world(Settings::default()).await;
    for (security, given, expected) in [
        (false, None, 200),
        (false, Some(ACCESS_TOKEN), 200),
        (false, Some("unknown"), 401),
        (true, None, 403),
        (true, Some(FOREIGN_ACCESS_TOKEN), 403),
        (true, Some(ACCESS_TOKEN), 200),
        (true, Some("unknown"), 401),
    ] {
        world.control("POST", "/settings", json!({"enhanced_security": security})).await;
        let answer = with_token(&world, given).await;
        assert_eq!(answer.status, expected, "{security} {given:?}");
        match expected {
            401 => assert_eq!(answer.json()["error"], "invalid_token", "no `errors` in this shape"),
            403 => assert_eq!(answer.json()["errors"][0]["code"], "UNAUTHORIZED"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn gzip_doubled_slashes_and_unknown_parameters_are_fine() {
    let world = world(Settings::default()).await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(json!([{"to": token("a")}]).to_string().as_bytes()).unwrap();
    let request = |body: Vec<u8>| {
        let request = world.request("POST", "//--/api//v2/push/send?useFcmV1=true").header("content-encoding", "gzip");
        request.header("content-type", "application/json").body(body)
    };
    assert_eq!(send(request(gzip.finish().unwrap())).await.status, 200);
    assert_eq!(world.sandbox.control().entries(0, None, 1)[0].body, json!([{"to": token("a")}]), "journalled unpacked");
    assert_eq!(send(request(b"[]".to_vec())).await.expo(), (400, "VALIDATION_ERROR".to_owned()));
    let broken = world.request("POST", "/--/api/v2/push/send").header("content-type", "application/json").body("{");
    assert_eq!(send(broken).await.expo(), (400, "VALIDATION_ERROR".to_owned()));
}
