//! The API behind the page, asked as a script would: nothing without a preview, one sweep at a time, who did what, and every no
//! with what to do.

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::{
    commands::bury,
    rig::{Rig, event},
    support::eventually,
};

fn request(rig: &Rig, method: Method, path: &str) -> RequestBuilder {
    reqwest::Client::new().request(method, format!("{}{path}", rig.http(0))).header("x-herald-request", "test")
}

async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.unwrap();
    let (status, body) = (answer.status(), answer.text().await.unwrap());
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("no JSON: {body}")))
}

async fn get(rig: &Rig, path: &str) -> Value {
    let (status, body) = answer(request(rig, Method::GET, path)).await;
    assert_eq!(status, 200, "{path}: {body}");
    body
}

async fn post(rig: &Rig, path: &str, body: Value) -> (StatusCode, Value) {
    let request = request(rig, Method::POST, path).header("content-type", "application/json");
    answer(request.body(body.to_string())).await
}

async fn preview(rig: &Rig, action: &str, which: Value) -> Value {
    let (status, body) = post(rig, "/api/dead/preview", json!({"action": action, "which": which})).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// Waits until the sweep that runs has ended, and returns how.
async fn ended(rig: &Rig) -> Value {
    eventually("the sweep has ended", async || {
        Some(get(rig, "/api/status").await["sweep"].clone()).filter(|sweep| sweep["state"] != "running")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_acted_on_after_a_preview_only_and_one_sweep_at_a_time() {
    let Some(mut rig) = Rig::new("desk").await else { return };
    for number in 0..6 {
        bury(&rig, &format!("e{number}"), "exhausted", json!({"data": {"note": "a secret"}})).await;
    }
    bury(&rig, "other", "rejected", json!({"expiresAt": "2020-01-01T00:00:00Z"})).await;
    rig.start().await;
    let groups = get(&rig, "/api/dead").await;
    assert_eq!((&groups["total"], &groups["groups"][0]["letters"]), (&json!(7), &json!(6)));

    // Without a preview, with one of something else, or twice: nothing is done.
    for (path, token) in [("/api/dead/replay", "none"), ("/api/dead/drop", "none")] {
        let (status, body) = post(&rig, path, json!({"preview": token})).await;
        assert!(status == 409 && body["do"].as_str().unwrap().contains("preview"), "{status} {body}");
    }
    let told = preview(&rig, "drop", json!({"reason": "rejected"})).await;
    assert_eq!((&told["count"], &told["expired"]), (&json!(1), &json!(0)), "expiry is nothing to a drop");
    assert_eq!(post(&rig, "/api/dead/replay", json!({"preview": told["preview"]})).await.0, 409);
    assert_eq!(rig.letters().await.len(), 7);
    let told = preview(&rig, "replay", json!({"id": "other"})).await;
    assert_eq!((&told["count"], &told["expired"], &told["matching"]), (&json!(0), &json!(1), &json!(1)));

    // One letter, by its number: no other one in its place.
    let letters = get(&rig, "/api/dead/letters?reason=exhausted&limit=2").await;
    assert_eq!(
        (letters["letters"].as_array().unwrap().len(), &letters["more"], &letters["total"]),
        (2, &json!(true), &json!(6))
    );
    let number = letters["letters"][1]["number"].as_i64().unwrap();
    let shown = get(&rig, &format!("/api/dead/letters/{number}")).await;
    assert!(!shown.to_string().contains("a secret"), "{shown}");
    assert!(shown["body"]["fields"].as_array().unwrap().iter().any(|field| field["name"] == "data.note"), "{shown}");
    let told = preview(&rig, "drop", json!({"number": number})).await;
    assert_eq!(told["count"], 1);
    let (status, begun) = post(&rig, "/api/dead/drop", json!({"preview": told["preview"]})).await;
    assert_eq!((status, &begun["wanted"], &begun["who"]), (StatusCode::ACCEPTED, &json!(1), &json!("page 127.0.0.1")));
    let sweep = ended(&rig).await;
    assert_eq!((&sweep["state"], &sweep["done"]), (&json!("done"), &json!(1)), "{sweep}");
    let (status, gone) = answer(request(&rig, Method::GET, &format!("/api/dead/letters/{number}"))).await;
    assert!(status == 404 && gone["error"].as_str().unwrap().contains("dropped on"), "{gone}");

    // A slow replay: another is turned away; stopped, it leaves the rest where it is.
    let told = preview(&rig, "replay", json!({"reason": "exhausted"})).await;
    let also = preview(&rig, "drop", json!({"reason": "exhausted"})).await;
    assert_eq!(post(&rig, "/api/dead/replay", json!({"preview": told["preview"], "rate": 1})).await.0, 202);
    let (status, body) = post(&rig, "/api/dead/drop", json!({"preview": also["preview"]})).await;
    assert!(status == 409 && body["error"].as_str().unwrap().contains("a replay is running"), "{body}");
    eventually("one is replayed", async || (get(&rig, "/api/status").await["sweep"]["done"] != 0).then_some(())).await;
    assert_eq!(post(&rig, "/api/dead/stop", json!({})).await.0, 200);
    let sweep = ended(&rig).await;
    assert_eq!(sweep["state"], "stopped", "{sweep}");
    let left = 5 - sweep["done"].as_u64().unwrap();
    assert!((1..5).contains(&left), "{sweep}");
    let letters = get(&rig, "/api/dead/letters?reason=exhausted").await;
    assert_eq!(letters["total"], left);
    eventually("the queue says so, too", async || {
        (rig.ready_messages(&rig.topology.dead()).await == left + 1).then_some(())
    })
    .await;

    let actions = get(&rig, "/api/actions").await;
    let whats: Vec<_> = actions["actions"].as_array().unwrap().iter().map(|action| &action["what"]).collect();
    assert_eq!(whats, ["replay", "drop"], "what was turned away is no action: {actions}");
    assert_eq!(actions["actions"][1]["affected"], 1);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_said_with_what_to_do() {
    let Some(mut rig) = Rig::new("desk").await else { return };
    rig.start().await;
    rig.send(event("e1", "partner.advanced", "s1", "nobody")).await;
    eventually("it is explained", async || {
        let told = get(&rig, "/api/events/e1").await;
        (told["events"][0]["state"] == "skipped").then_some(())
    })
    .await;
    assert_eq!(get(&rig, "/api/events?session=s1").await["events"][0]["event_id"], "e1");
    assert!(get(&rig, "/api/events/never").await["nothing"].as_str().unwrap().contains("`never`"));
    for (path, status) in [
        ("/api", 404),
        ("/api/nothing", 404),
        ("/nothing", 404),
        ("/api/events", 400),
        ("/api/events?user=a&session=b", 400),
        ("/api/dead/letters?limit=many", 400),
        ("/api/dead/letters?colour=red", 400),
        ("/api/dead/letters/x", 400),
        ("/api/dead/letters/99", 404),
        ("/api/steer", 405),
    ] {
        let (found, body) = answer(request(&rig, Method::GET, path)).await;
        assert_eq!(found.as_u16(), status, "{path}: {body}");
        assert!(body["error"].is_string() && body["do"].is_string(), "{path}: {body}");
    }
    for (path, body, status) in [
        ("/api/steer", json!({"what": "hold"}), 400),
        ("/api/steer", json!({"what": "pause", "provider": "ably"}), 400),
        ("/api/steer", json!({"what": "explode"}), 400),
        ("/api/steer", json!({"what": "log_level", "filter": "loud"}), 400),
        ("/api/steer", json!({"what": "log_level", "filter": "info,lapin=trace"}), 400),
        ("/api/steer", json!({"what": "log_level", "filter": "debug", "for": "soon"}), 400),
        ("/api/steer", json!({"what": "log_level", "for": "1m"}), 400),
        ("/api/steer", json!({"what": "pause", "why": "x".repeat(300)}), 400),
        ("/api/dead/preview", json!({"action": "eat"}), 400),
        ("/api/dead/preview", json!({"action": "drop", "which": {"colour": "red"}}), 400),
        ("/api/dead/preview", json!({"action": "drop", "which": {"id": "x".repeat(20_000)}}), 400),
        ("/api/dead/drop", json!({"preview": "p", "rate": 0}), 400),
        ("/api/status", json!({}), 405),
    ] {
        let (found, told) = post(&rig, path, body.clone()).await;
        assert_eq!(found.as_u16(), status, "{path} {:.80}: {told}", body.to_string());
        assert!(told["error"].is_string() && told["do"].is_string(), "{path}: {told}");
    }
    assert_eq!(get(&rig, "/api/actions").await["actions"], json!([]), "nothing was done");
    rig.end().await;
}
