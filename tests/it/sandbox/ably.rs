//! Ably, one channel at a time: publish, presence, time, status, keys.

use herald::sandbox::{Capability, Credential, Settings, Standing};
use serde_json::{Value, json};

use super::{World, basic, send, world};

fn clients(page: &Value) -> Vec<&str> {
    page.as_array().unwrap().iter().map(|member| member["clientId"].as_str().unwrap()).collect()
}

/// Returns the path of the link with `rel`, as a client resolves it against `base`.
fn link(answer: &super::Answer, base: &str, rel: &str) -> Option<String> {
    let links = answer.headers.get_all("link").iter().map(|link| link.to_str().unwrap());
    let link = links.into_iter().find(|link| link.ends_with(&format!("; rel=\"{rel}\"")))?;
    let relative = link.strip_prefix("<./").unwrap().split('>').next().unwrap();
    Some(format!("{base}/{relative}"))
}

#[tokio::test]
async fn presence_is_read_page_by_page() {
    let world = world(Settings::default()).await;
    let control = world.sandbox.control();
    for number in 0..5 {
        control.enter("room:1", &format!("user {number}, ü"));
    }
    let path = "/channels/room%3A1";
    let mut seen = Vec::new();
    let mut next = Some(format!("{path}/presence?limit=2"));
    while let Some(url) = next {
        let page = world.ably("GET", &url, None).await;
        assert_eq!(page.status, 200);
        seen.push(clients(&page.json()).len());
        let first = world.ably("GET", &link(&page, path, "first").unwrap(), None).await;
        assert_eq!(clients(&first.json()), ["user 0, ü", "user 1, ü"]);
        next = link(&page, path, "next");
    }
    assert_eq!(seen, [2, 2, 1]);
}

#[tokio::test]
async fn presence_is_filtered_by_client_and_connection() {
    let world = world(Settings::default()).await;
    let control = world.sandbox.control();
    for (client, connection) in [("a", "c1"), ("a", "c2"), ("ab", "c1"), ("b", "c3")] {
        control.enter_on("room", client, connection, Some("here".to_owned()));
    }
    let table = [
        ("", vec!["a", "a", "ab", "b"]),
        ("?clientId=a", vec!["a", "a"]),
        ("?clientId=a&limit=1", vec!["a"]),
        ("?connectionId=c1", vec!["a", "ab"]),
        ("?clientId=a&connectionId=c2", vec!["a"]),
        ("?clientId=nobody", vec![]),
    ];
    for (query, expected) in table {
        let page = world.ably("GET", &format!("/channels/room/presence{query}"), None).await;
        assert_eq!(clients(&page.json()), expected, "{query}");
    }
    let member = &world.ably("GET", "/channels/room/presence?clientId=b", None).await.json()[0];
    assert_eq!(
        (&member["action"], &member["connectionId"], &member["data"]),
        (&json!(1), &json!("c3"), &json!("here"))
    );
    assert_eq!(world.ably("GET", "/channels/never-seen/presence", None).await.json(), json!([]));
    assert_eq!(
        (control.leave_on("room", "a", "c1"), control.leave("room", "a"), control.leave("room", "a")),
        (1, 1, 0)
    );
    for query in ["limit=0", "limit=1001", "limit=x"] {
        let answer = world.ably("GET", &format!("/channels/room/presence?{query}"), None).await;
        assert_eq!(answer.ably(), (400, 40003), "{query}");
    }
}

#[tokio::test]
async fn a_repeated_id_is_answered_alike_and_delivered_once() {
    let world = world(Settings::default()).await;
    let message = json!({"id": "event-1", "name": "n", "data": "first"});
    let first = world.publish("room", message).await;
    assert_eq!(
        (first.status, &first.json()["channel"], &first.json()["messageId"]),
        (201, &json!("room"), &json!("event-1"))
    );
    let again = world.publish("room", json!([{"id": "event-1:0", "name": "n", "data": "other"}])).await;
    assert_eq!((again.status, again.json()), (201, first.json()));
    world.publish("other", json!({"id": "event-1"})).await;
    world.publish("room", json!([{"id": "base:0"}, {"id": "base:1"}])).await;
    assert_eq!(world.effects(), ["room event-1 1", "other event-1 1", "room base:0 1", "room base:1 1"]);
    let count = world.sandbox.control().counters()["publish"];
    assert_eq!((count.requests, count.accepted, count.deduped, count.refused), (4, 4, 1, 0));
}

#[tokio::test]
async fn ids_are_forgotten_after_their_time() {
    let world = world(Settings { dedupe_seconds: 0, ..Settings::default() }).await;
    for _ in 0..2 {
        world.publish("room", json!({"id": "event-1"})).await;
    }
    assert_eq!(world.effects(), ["room event-1 2"]);
}

#[tokio::test]
async fn what_ably_refuses_is_refused() {
    let world = world(Settings { channel_rate: 3, ..Settings::default() }).await;
    let big = json!({"data": "x".repeat(65_537)});
    let table = [
        ("a", json!({"data": "x".repeat(65_536)}), (201, 0)),
        ("a", big, (413, 40009)),
        ("a", json!([{"id": "b:1"}, {"id": "b:0"}]), (400, 40031)),
        ("a", json!({"data": 1}), (400, 40013)),
        ("%5Ba", json!({}), (400, 40010)),
        ("", json!({}), (400, 40010)),
        ("a%0Ab", json!({}), (400, 40010)),
        ("busy", json!([{"name": "1"}, {"name": "2"}]), (201, 0)),
        ("busy", json!({}), (201, 0)),
        ("busy", json!({}), (201, 0)),
        ("busy", json!({}), (429, 42913)),
        ("x%3Afault-denied-1", json!({}), (401, 40160)),
    ];
    for (channel, body, expected) in table {
        assert_eq!(world.publish(channel, body.clone()).await.ably(), expected, "{channel} {body:.40}");
    }
    let nack = world.ably("POST", "/channels/a/messages?_forceNack=true", Some(json!({"name": "n"}))).await;
    assert_eq!(nack.ably(), (400, 40099));
    let denied = world.ably_as("sandbox.subscriber:secret", "POST", "/channels/a/messages?_forceNack=true", None).await;
    assert_eq!(denied.ably(), (401, 40160), "the capability comes first");
    assert_eq!(nack.headers["x-ably-errorcode"], "40099");
    assert_eq!(nack.headers["content-type"], "application/json");
    assert!(nack.headers.contains_key("x-ably-errormessage") && nack.headers.contains_key("x-ably-serverid"));
    assert_eq!(nack.json()["error"]["href"], "https://help.ably.io/error/40099");
}

#[tokio::test]
async fn the_account_rate_is_optional() {
    let world = world(Settings { api_rate: 1, ..Settings::default() }).await;
    assert_eq!(world.ably("GET", "/channels/a/presence", None).await.ably(), (200, 0));
    assert_eq!(world.ably("GET", "/channels/a/presence", None).await.ably(), (429, 42918));
}

#[tokio::test]
async fn keys_may_do_what_their_capability_says() {
    let world = world(Settings::default()).await;
    let capability = Capability::from([("room:*".to_owned(), vec!["subscribe".to_owned(), "publish".to_owned()])]);
    let token = Credential { secret: "token-1".to_owned(), capability, standing: Standing::Good };
    world.sandbox.control().add_credential(token);
    let table = [
        ("sandbox.publisher:secret", "POST", (201, 0)),
        ("sandbox.publisher:secret", "GET", (401, 40160)),
        ("sandbox.subscriber:secret", "POST", (401, 40160)),
        ("sandbox.subscriber:secret", "GET", (200, 0)),
        ("sandbox.key:wrong", "GET", (401, 40101)),
        ("nobody.knows:it", "GET", (401, 40101)),
        ("unreadable", "GET", (400, 40005)),
        ("sandbox.revoked:secret", "GET", (401, 40131)),
        ("sandbox.expired:secret", "GET", (401, 40132)),
        ("sandbox.disabled:secret", "GET", (403, 40300)),
    ];
    for (key, method, expected) in table {
        let (path, body) = if method == "GET" { ("presence", None) } else { ("messages", Some(json!({}))) };
        let answer = world.ably_as(key, method, &format!("/channels/room:1/{path}"), body).await;
        assert_eq!(answer.ably(), expected, "{key} {method}");
    }
    assert_eq!(bearer(&world, "token-1", "room:1").await, (200, 0));
    assert_eq!(bearer(&world, "dG9rZW4tMQ==", "room:1").await, (200, 0));
    assert_eq!(bearer(&world, "token-1", "other").await, (401, 40160));
    assert_eq!(bearer(&world, "unknown", "room:1").await, (401, 40140));
    assert_eq!(send(world.request("GET", "/channels/a/presence")).await.ably(), (401, 40101));
}

async fn bearer(world: &World, token: &str, channel: &str) -> (u16, u64) {
    let request = world.request("GET", &format!("/channels/{channel}/presence"));
    send(request.header("authorization", format!("Bearer {token}"))).await.ably()
}

#[tokio::test]
async fn msgpack_is_spoken_both_ways() {
    let world = world(Settings::default()).await;
    let request = |path: &str| {
        let request = world.request("POST", path).header("authorization", basic(herald::sandbox::DEFAULT_KEY));
        request.header("content-type", "application/x-msgpack").header("accept", "application/x-msgpack")
    };
    // [{"name": "n", "data": bin [255]}]
    let body = vec![0x91, 0x82, 0xa4, b'n', b'a', b'm', b'e', 0xa1, b'n', 0xa4, b'd', b'a', b't', b'a', 0xc4, 1, 0xff];
    let answer = send(request("/channels/a/messages").body(body)).await;
    assert_eq!((answer.status, &answer.headers["content-type"]), (201, &"application/x-msgpack".parse().unwrap()));
    let decoded: Value = rmp_serde::from_slice(&answer.body).unwrap();
    assert_eq!(decoded["channel"], "a");
    let entry = &world.sandbox.control().entries(0, None, 1)[0];
    assert_eq!(entry.body, json!([{"name": "n", "data": {"$binary": "/w=="}}]));
    let refused = send(request("/channels/a/messages").body(vec![0xc1])).await;
    let decoded: Value = rmp_serde::from_slice(&refused.body).unwrap();
    assert_eq!((refused.status, &decoded["error"]["code"]), (400, &json!(40000)));
}

#[tokio::test]
async fn time_status_versions_and_wrong_paths() {
    let world = world(Settings::default()).await;
    let time = send(world.request("GET", "/time")).await;
    assert!(time.json()[0].as_i64().unwrap() > 1_600_000_000_000, "no key needed: {time:?}");
    world.sandbox.control().enter("a", "u");
    let status = world.ably("GET", "/channels/a?envelope=json", None).await.json();
    assert_eq!(status["status"]["occupancy"]["metrics"]["presenceMembers"], 1);
    assert_eq!(world.ably("GET", "/nowhere", None).await.ably(), (404, 40400));
    let request = world.request("GET", "/channels/a/presence").header("authorization", basic("sandbox.key:secret"));
    assert_eq!(send(request.header("x-ably-version", "99")).await.ably(), (400, 40017));
    let huge = world.publish("a", json!({"data": "x".repeat(5 * 1024 * 1024)})).await;
    assert_eq!(huge.ably(), (413, 40009), "over the cap of any body");
    let request = world.request("POST", "/channels/a/messages").header("authorization", basic("sandbox.key:secret"));
    assert_eq!(send(request.header("content-type", "text/plain").body("{}")).await.ably(), (400, 40000));
}
