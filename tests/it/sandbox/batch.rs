//! Ably, many channels at a time: batch publish and batch presence, current and legacy shapes.

use herald::sandbox::{DEFAULT_KEY, Settings};
use serde_json::{Value, json};

use super::{Answer, World, basic, send, world};

/// Sends a batch without a protocol version: the legacy shapes.
async fn legacy(world: &World, method: &str, path: &str, body: Value) -> Answer {
    let request = world.request(method, path).header("authorization", basic(DEFAULT_KEY));
    send(request.header("content-type", "application/json").body(body.to_string())).await
}

#[tokio::test]
async fn a_batch_fails_per_channel() {
    let world = world(Settings { channel_rate: 1, ..Settings::default() }).await;
    let specs = json!([
        {"channels": ["a", "b:fault-denied", "[bad"], "messages": {"id": "1", "name": "n", "data": "{}"}},
        {"channels": "a", "messages": [{"id": "2"}]},
        {"channels": "c", "messages": {"data": "x".repeat(65_537)}},
    ]);
    let answer = world.ably("POST", "/messages", Some(specs)).await;
    assert_eq!(answer.status, 201);
    let body = answer.json();
    let counts: Vec<_> =
        body.as_array().unwrap().iter().map(|spec| (&spec["successCount"], &spec["failureCount"])).collect();
    assert_eq!(counts, [(&json!(1), &json!(2)), (&json!(0), &json!(1)), (&json!(0), &json!(1))]);
    let results = &body[0]["results"];
    assert_eq!((&results[0]["channel"], &results[0]["messageId"]), (&json!("a"), &json!("1")));
    assert_eq!(results[1]["error"]["code"], 40160);
    assert_eq!(results[2]["error"]["code"], 40010);
    assert_eq!(body[1]["results"][0]["error"]["code"], 42913, "each spec counts against the channel's rate");
    assert_eq!(body[2]["results"][0]["error"]["code"], 40009);
    assert_eq!(world.effects(), ["a 1 1"]);
    let entry = &world.sandbox.control().entries(0, None, 1)[0];
    let codes: Vec<_> = entry.items.iter().map(|item| (&*item.target, item.code.as_deref())).collect();
    let expected = [
        ("a", None),
        ("b:fault-denied", Some("40160")),
        ("[bad", Some("40010")),
        ("a", Some("42913")),
        ("c", Some("40009")),
    ];
    assert_eq!(codes, expected);
}

#[tokio::test]
async fn ids_are_not_deduplicated_in_a_batch() {
    let world = world(Settings::default()).await;
    for _ in 0..2 {
        world.ably("POST", "/messages", Some(json!({"channels": "a", "messages": {"id": "1"}}))).await;
    }
    assert_eq!(world.effects(), ["a 1 2"]);
}

#[tokio::test]
async fn a_batch_has_limits() {
    let world = world(Settings::default()).await;
    let channels: Vec<String> = (0..101).map(|number| format!("c{number}")).collect();
    let table = [
        (json!({"channels": channels[..100], "messages": {}}), (201, 0)),
        (json!([{"channels": channels[..100], "messages": {}}, {"channels": "c0", "messages": {}}]), (201, 0)),
        (json!({"channels": channels, "messages": {}}), (400, 40000)),
        (json!({"channels": [], "messages": {}}), (400, 40000)),
        (json!({"channels": "a", "messages": []}), (400, 40000)),
        (json!({"channels": "a"}), (400, 40000)),
        (json!({"channels": "a", "messages": {"data": "x".repeat(2 * 1024 * 1024)}}), (413, 40009)),
    ];
    for (body, expected) in table {
        let text = body.to_string();
        assert_eq!(world.ably("POST", "/messages", Some(body)).await.ably(), expected, "{text:.60}");
    }
    let many = world.ably("POST", "/messages", Some(json!({"channels": "b", "messages": vec![json!({}); 1001]}))).await;
    assert_eq!(many.json()[0]["results"][0]["error"]["code"], 40034);
}

#[tokio::test]
async fn old_versions_get_the_old_shapes() {
    let world = world(Settings::default()).await;
    world.sandbox.control().enter("a", "u");
    let spec = json!({"channels": ["a"], "messages": {"id": "1"}});
    let well = legacy(&world, "POST", "/messages", spec).await;
    assert_eq!((well.status, &well.json()[0]["channel"]), (201, &json!("a")));
    let mixed = legacy(&world, "POST", "/messages", json!({"channels": ["a", ":b"], "messages": {}})).await;
    assert_eq!(mixed.ably(), (400, 40020));
    assert_eq!(mixed.json()["batchResponse"][1]["error"]["code"], 40010);
    let presence = legacy(&world, "GET", "/presence?channels=a,b", json!({})).await;
    assert_eq!(presence.json()[0]["presence"][0]["clientId"], "u");
    assert_eq!(legacy(&world, "GET", "/presence?channels=a,:b", json!({})).await.ably(), (400, 40020));
}

#[tokio::test]
async fn batch_presence_answers_every_channel() {
    let world = world(Settings::default()).await;
    world.sandbox.control().enter("a b", "u");
    let answer = world.ably("GET", "/presence?channels=a+b%2Cc%2Cd%3Afault-denied%2C%3Abad", None).await;
    let body = answer.json();
    assert_eq!((answer.status, &body["successCount"], &body["failureCount"]), (200, &json!(2), &json!(2)));
    assert_eq!(body["results"][0]["presence"][0]["clientId"], "u");
    assert_eq!(body["results"][1], json!({"channel": "c", "presence": []}));
    assert_eq!(body["results"][2]["error"]["code"], 40160);
    assert_eq!(body["results"][3]["error"]["code"], 40010);
    let split = world.ably("GET", "/presence?channels=a%20b%7Cc,d&separator=%7C", None).await.json();
    assert_eq!((&split["results"][0]["channel"], &split["results"][1]["channel"]), (&json!("a b"), &json!("c,d")));
    assert_eq!(world.ably("GET", "/presence", None).await.ably(), (400, 40000));
    let many = vec!["c"; 101].join(",");
    assert_eq!(world.ably("GET", &format!("/presence?channels={many}"), None).await.ably(), (400, 40000));
    let denied = world.ably_as("sandbox.publisher:secret", "GET", "/presence?channels=a", None).await.json();
    assert_eq!(denied["results"][0]["error"]["code"], 40160, "all failed is still 200");
}
