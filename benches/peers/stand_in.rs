//! A light stand-in for Ably and Expo: the endpoints that herald and the official Node clients use, a fixed latency, and nothing else.
//!
//! One thread of the harness serves it, so that it never takes more than one core; `busy` tells how much it took. What it is asked
//! is read and noted in the case's sheet; then it waits for the latency and answers. `herald sandbox` is the faithful one: it checks and
//! remembers far more, and would be measured along.

use std::{
    convert::Infallible,
    io::Read as _,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use axum::body::{Body, Bytes, to_bytes};
use http::{Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;

use crate::{answers, sheet::Sheet};

/// Longest body read: a batch of Ably may have 2 MiB.
const MAX_BODY: usize = 4 * 1024 * 1024;

pub struct StandIn {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    /// The serving thread, in /proc.
    task: String,
}

struct Shared {
    sheet: Mutex<Arc<Sheet>>,
    latency_ms: AtomicU64,
    tickets: AtomicU64,
}

impl StandIn {
    /// Starts serving on a free port of the loopback interface, until the process ends.
    pub fn start() -> anyhow::Result<StandIn> {
        let shared = Arc::new(Shared {
            sheet: Mutex::new(Arc::new(Sheet::new(0, 0))),
            latency_ms: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
        });
        let (tell, told) = std::sync::mpsc::channel();
        let serving = shared.clone();
        std::thread::Builder::new().name("stand-in".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                let Ok(listener) = TcpListener::bind("127.0.0.1:0").await else { return };
                let task = std::fs::read_link("/proc/thread-self").unwrap_or_default();
                let _ = tell.send((listener.local_addr(), task));
                serve(listener, serving).await;
            });
        })?;
        let (address, task) = told.recv().context("the stand-in for the providers does not start")?;
        Ok(StandIn { address: address?, shared, task: format!("/proc/{}", task.display()) })
    }

    /// Begins a case.
    pub fn begin(&self, sheet: Arc<Sheet>, latency_ms: u64) {
        self.shared.latency_ms.store(latency_ms, Relaxed);
        *self.shared.sheet.lock().expect("no panic while the lock is held") = sheet;
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the processor time the stand-in has used, in seconds.
    pub fn busy(&self) -> f64 {
        crate::proc::cpu_seconds(&self.task).unwrap_or(0.0)
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        // The process's end is theirs.
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(answer(&shared, request).await) }
            });
            let _ =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let sheet = shared.sheet.lock().expect("no panic while the lock is held").clone();
    let path = parts.uri.path();
    let read = async {
        if parts.method == Method::GET {
            return Some(Bytes::new());
        }
        let body = to_bytes(Body::new(body), MAX_BODY).await.ok()?;
        if parts.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding == "gzip") {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).take(MAX_BODY as u64).read_to_end(&mut plain).ok()?;
            return Some(plain.into());
        }
        Some(body)
    };
    let body = read.await;
    let said = body.and_then(|body| {
        if path == "/--/api/v2/push/send" {
            sheet.request();
            answers::push(&shared.tickets, &sheet, &body)
        } else if path == "/--/api/v2/push/getReceipts" {
            Some((StatusCode::OK, r#"{"data":{}}"#.to_owned()))
        } else if path == "/messages" {
            sheet.request();
            answers::batch_publish(&sheet, &body)
        } else if path == "/presence" {
            sheet.request();
            answers::batch_presence(parts.uri.query()?)
        } else if let Some(rest) = path.strip_prefix("/channels/") {
            sheet.request();
            let (channel, what) = rest.split_once('/')?;
            let channel = percent_decode_str(channel).decode_utf8().ok()?;
            match what {
                "messages" => answers::publish(&sheet, &channel, &body),
                "presence" => answers::presence(&channel, parts.uri.query().unwrap_or_default()),
                _ => None,
            }
        } else {
            None
        }
    });
    let latency = shared.latency_ms.load(Relaxed);
    if latency > 0 {
        tokio::time::sleep(Duration::from_millis(latency)).await;
    }
    let (status, text) = said.unwrap_or_else(|| {
        let error = r#"{"error":{"code":40000,"statusCode":400,"message":"not understood"},"errors":[{"code":"VALIDATION_ERROR","message":"not understood"}]}"#;
        (StatusCode::BAD_REQUEST, error.to_owned())
    });
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    // Ably's client compares the type exactly.
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
