//! The server: one port, few connections, a bound on everything a client can make it wait for.
//!
//! Called by the worker before anything else, so that a taken port is told at once.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::anyhow;
use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::config;

use super::{
    Api, Readiness,
    answer::Refusal,
    api,
    guard::{Rules, guard},
    metrics::{self, Exporter},
    page,
};

/// Connections served at once; others wait in the listener's backlog.
const CONNECTIONS: usize = 64;
/// For the headers of a request, and between two requests on one connection.
const HEADERS: Duration = Duration::from_secs(30);
/// For a whole answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Largest body of a request.
const BODY: usize = 16 * 1024;
/// What is being answered may take this long after the stop.
const GRACE: Duration = Duration::from_secs(2);
/// How often the recorder folds samples together, scraped or not.
const UPKEEP: Duration = Duration::from_secs(5);

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remote(pub SocketAddr);

/// Takes the port of `config` and answers there until `stop`, on `tasks`; returns the address taken. Without `api` there is no
/// page either. The error names the port and what to do.
pub async fn serve(
    config: &config::Http,
    readiness: Readiness,
    api: Option<Api>,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> anyhow::Result<SocketAddr> {
    let address = config.listen;
    let listener = TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow!("http.listen: {address} is taken by another process; stop it or set HERALD_HTTP__LISTEN")
        }
        _ => anyhow!("http.listen: cannot listen on {address}: {error}"),
    })?;
    let bound = listener.local_addr()?;
    let metrics = metrics::install()?;
    let rules = Rules { loopback: address.ip().is_loopback(), token: config.token.clone() };
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz).with_state(readiness.clone()))
        .route("/metrics", get(render).with_state(metrics.clone()));
    let routes = match api {
        // Not by a pattern: its parameters would stand beside those of the API's own.
        Some(api) => routes.merge(page::routes()).fallback_service(any(api::api).with_state((api, readiness))),
        None => routes.fallback(async || Refusal::nowhere()),
    };
    let app = routes
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn(within))
        .layer(middleware::from_fn_with_state(rules, guard));
    tasks.spawn(answer(listener, app, metrics, stop));
    Ok(bound)
}

async fn answer(listener: TcpListener, app: Router, metrics: Exporter, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        let (stream, remote, permit) = tokio::select! {
            () = stop.cancelled() => break,
            _ = upkeep.tick() => {
                metrics.run_upkeep();
                continue;
            }
            accepted = accept(&listener, &room) => accepted,
        };
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .serve_connection(
                TokioIo::new(stream),
                TowerToHyperService::new(app.clone().layer(Extension(Remote(remote)))),
            );
        let connection = graceful.watch(connection);
        // Watched by `graceful`, which ends it at the stop and waits for it.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended early");
            }
            drop(permit);
        });
    }
    // What has not ended by then is cut off with the process.
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
}

/// Accepts the next connection once there is room for it.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit) {
    let permit = room.clone().acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => return (stream, remote, permit),
            Err(error) => {
                // Out of file descriptors, mostly: trying again at once would only burn the processor.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn within(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(ANSWER, next.run(request)).await;
    answer.unwrap_or_else(|_| Refusal::late().into_response())
}

async fn healthz() -> Json<serde_json::Value> {
    Json(json!({ "status": "alive" }))
}

async fn readyz(State(readiness): State<Readiness>) -> Response {
    match readiness.why_not() {
        None => Json(json!({ "status": "ready" })).into_response(),
        Some(reason) => {
            let body = Json(json!({ "status": "not ready", "reason": reason }));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

async fn render(State(metrics): State<Exporter>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
}
