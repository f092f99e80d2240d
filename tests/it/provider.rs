//! The provider clients against a small scripted server: what they send, and what every way of failing becomes.

use std::{
    io::Read as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use futures::future::join_all;
use herald::{
    config,
    domain::outcome::{Failure, FailureKind, HoldCause, Refusal},
    provider::{
        ably::{Ably, Presence, Publish},
        expo::{Expo, Push, Receipt},
        gate::{Admission, Gate},
    },
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpSocket},
};

use crate::support::within;

mod ably;
mod expo;

/// A request as the server saw it.
#[derive(Debug, Clone)]
struct Seen {
    method: String,
    target: String,
    headers: http::HeaderMap,
    compressed: bool,
    body: Value,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// What the server does with a request.
enum Act {
    Answer(u16, Vec<(&'static str, String)>, String),
    /// Never answers.
    Hang,
    /// Begins an answer and breaks it off.
    BreakOff,
}

fn answer(status: u16, body: impl ToString) -> Act {
    Act::Answer(status, vec![("content-type", "application/json".to_owned())], body.to_string())
}

fn answer_with(status: u16, header: (&'static str, &str), body: impl ToString) -> Act {
    Act::Answer(status, vec![(header.0, header.1.to_owned())], body.to_string())
}

type Journal = Arc<Mutex<Vec<Seen>>>;
type Script = dyn Fn(usize, &Seen) -> Act + Send + Sync;

/// A server on a port of its own that answers by a script, which gets the number of the request (from 0) and the request.
struct Server {
    address: SocketAddr,
    seen: Journal,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(script: impl Fn(usize, &Seen) -> Act + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let app = Router::new().fallback(handle).with_state((seen.clone(), script));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Server { address, seen, task }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn targets(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.target).collect()
    }
}

async fn handle(State((seen, script)): State<(Journal, Arc<Script>)>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, 8 << 20).await.unwrap();
    let compressed = parts.headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip");
    let mut text = String::new();
    if compressed {
        flate2::read::GzDecoder::new(bytes.as_ref()).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(bytes.to_vec()).unwrap();
    }
    let request = Seen {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts.headers,
        compressed,
        body: serde_json::from_str(&text).unwrap_or(Value::Null),
    };
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len() - 1
    };
    match script(number, &request) {
        Act::Answer(status, headers, body) => {
            let response = headers.into_iter().fold(Response::builder().status(status), |it, (n, v)| it.header(n, v));
            response.body(Body::from(body)).unwrap()
        }
        Act::Hang => std::future::pending().await,
        Act::BreakOff => {
            let parts = [Ok("{\"da"), Err(std::io::Error::other("broken off"))];
            Response::new(Body::from_stream(futures::stream::iter(parts)))
        }
    }
}

/// A server that closes each connection, after reading the request or (`read: false`) without.
async fn closing(read: bool) -> (String, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(Mutex::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            *counted.lock().unwrap() += 1;
            if read {
                let _ = stream.read(&mut [0; 65536]).await;
            } else {
                // Closing with unread bytes resets the connection.
                stream.readable().await.unwrap();
            }
        }
    });
    (url, count)
}

/// A port that nobody listens on for as long as the socket lives, and its URL.
fn refusing() -> (String, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (format!("http://{}", socket.local_addr().unwrap()), socket)
}

fn kind<T: std::fmt::Debug>(result: &Result<T, Refusal>) -> Option<FailureKind> {
    match result {
        Err(Refusal::Failed(failure)) => Some(failure.kind),
        _ => None,
    }
}

/// Waits until the gate would let a probe go.
async fn until_probe(gate: &Gate) {
    let waiting = async {
        loop {
            let changed = gate.changed();
            if gate.admission() == Admission::Probe {
                break;
            }
            changed.await;
        }
    };
    within(30, "the end of the shut period", waiting).await;
}
