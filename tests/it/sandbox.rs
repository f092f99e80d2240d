//! The sandbox keeps the providers' rules: raw requests over a real connection, answers held against Ably's and Expo's
//! documented ones.

mod ably;
mod batch;
mod expo;
mod faults;

use std::sync::Once;

use base64::{Engine, engine::general_purpose::STANDARD};
use herald::sandbox::{DEFAULT_KEY, Sandbox, Settings};
use http::HeaderMap;
use serde_json::{Map, Value, json};

/// A sandbox of its own with an HTTP client to it.
struct World {
    sandbox: Sandbox,
    http: reqwest::Client,
}

/// One answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// Returns status and Ably code.
    fn ably(&self) -> (u16, u64) {
        (self.status, if self.status < 300 { 0 } else { self.json()["error"]["code"].as_u64().unwrap() })
    }

    /// Returns status and Expo code.
    fn expo(&self) -> (u16, String) {
        let code = if self.status == 200 { Value::Null } else { self.json()["errors"][0]["code"].clone() };
        (self.status, code.as_str().unwrap_or_default().to_owned())
    }
}

async fn world(settings: Settings) -> World {
    World { sandbox: start(settings).await, http: http() }
}

/// Starts a sandbox on a free port.
pub async fn start(settings: Settings) -> Sandbox {
    Sandbox::start_with("127.0.0.1:0".parse().unwrap(), settings).await.unwrap()
}

fn http() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    reqwest::Client::builder().build().unwrap()
}

impl World {
    /// Sends a request as the default key, with the current protocol version.
    async fn ably(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.ably_as(DEFAULT_KEY, method, path, body).await
    }

    async fn ably_as(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let request = self.request(method, path).header("authorization", basic(key)).header("x-ably-version", "6");
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_string()),
            None => request,
        };
        send(request).await
    }

    async fn publish(&self, channel: &str, body: Value) -> Answer {
        self.ably("POST", &format!("/channels/{channel}/messages"), Some(body)).await
    }

    async fn push(&self, body: Value) -> Answer {
        self.expo("/--/api/v2/push/send", body).await
    }

    async fn receipts(&self, ids: &[&str]) -> Answer {
        self.expo("/--/api/v2/push/getReceipts", json!({"ids": ids})).await
    }

    async fn expo(&self, path: &str, body: Value) -> Answer {
        send(self.request("POST", path).header("content-type", "application/json").body(body.to_string())).await
    }

    /// Asks the control API.
    async fn control(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = send(self.request(method, &format!("/_sandbox{path}")).body(body.to_string())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method.parse().unwrap(), format!("{}{path}", self.sandbox.url()))
    }

    /// Returns `target event count` of every effect.
    fn effects(&self) -> Vec<String> {
        let effects = self.sandbox.control().effects(0, 1000).into_iter();
        effects.map(|effect| format!("{} {} {}", effect.target, effect.event, effect.count)).collect()
    }
}

fn basic(key: &str) -> String {
    format!("Basic {}", STANDARD.encode(key))
}

async fn send(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: response.bytes().await.unwrap().to_vec() }
}

/// Returns what a request says, without what two correct clients may say differently, so that one client's requests can be
/// held against another's: decoded path, sorted query, and the body without nulls and without the `action` and `size` that
/// ably-js adds. One message in an array equals the message alone, and one channel in a list the channel alone.
///
/// `entry` is a journal entry as JSON, from the control API or from `serde_json::to_value` of one.
pub fn journal_shape(entry: &Value) -> Value {
    let path = percent_encoding::percent_decode_str(entry["path"].as_str().unwrap()).decode_utf8().unwrap();
    let mut query = entry["query"].as_array().unwrap().clone();
    query.sort_by_key(Value::to_string);
    json!({
        "provider": entry["provider"],
        "endpoint": entry["endpoint"],
        "method": entry["method"],
        "path": path.replace("//", "/"),
        "query": query,
        "body": shape(&entry["body"]),
    })
}

fn shape(value: &Value) -> Value {
    match value {
        Value::Array(list) if list.len() == 1 => shape(&list[0]),
        Value::Array(list) => list.iter().map(shape).collect(),
        Value::Object(fields) => {
            let message = ["name", "data", "encoding"].iter().any(|key| fields.contains_key(*key));
            let volatile = |key: &str| message && matches!(key, "action" | "size");
            let kept = fields.iter().filter(|(key, value)| !value.is_null() && !volatile(key));
            // What a push or message carries is compared as it is.
            let kept = kept.map(|(key, value)| (key.clone(), if key == "data" { data(value) } else { shape(value) }));
            Value::Object(Map::from_iter(kept))
        }
        other => other.clone(),
    }
}

/// JSON in a string is compared by what it says, not by the order of its keys.
fn data(value: &Value) -> Value {
    let read = value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    read.filter(|read| read.is_object() || read.is_array()).unwrap_or_else(|| value.clone())
}

#[tokio::test]
async fn shapes_ignore_only_what_clients_may_choose() {
    let world = world(Settings::default()).await;
    world
        .publish(
            "a%3Ab",
            json!([{"id": "x", "name": "n", "data": "{\"b\":1,\"a\":2}", "encoding": "json", "action": 0}]),
        )
        .await;
    world
        .publish(
            "a:b",
            json!({"id": "x", "name": "n", "data": "{\"a\":2,\"b\":1}", "encoding": "json", "clientId": null}),
        )
        .await;
    world.publish("a:b", json!({"id": "x", "name": "n", "data": {"a": 2, "b": 1}, "encoding": null})).await;
    let entries = world.sandbox.control().entries(0, None, 10).into_iter();
    let shapes: Vec<Value> = entries.map(|entry| journal_shape(&serde_json::to_value(entry).unwrap())).collect();
    assert_eq!(shapes[0], shapes[1]);
    assert_ne!(shapes[1], shapes[2], "the encoding differs");
    assert_eq!(shapes[0]["path"], "/channels/a:b/messages");
}
