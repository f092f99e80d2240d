//! The server itself: reads a request, lets a fault strike, asks the provider's rules, writes the journal, answers.
//!
//! The order here is the point of the sandbox: what a fault does before or after a request took effect is decided in
//! [`handle`] and nowhere else.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, State},
    response::Response,
};
use http::{Request, header};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    ably,
    call::Call,
    control::Control,
    control_http, expo,
    fault::{Action, Fault, Phase, Strike, Waiting},
    journal::Open,
    line::{Line, Lines},
    reply::Reply,
    route::Provider,
};

#[derive(Debug, Clone)]
struct Server {
    control: Control,
    stop: CancellationToken,
}

/// Serves both providers and the control API until `stop`.
pub(super) async fn serve(listener: TcpListener, control: Control, stop: CancellationToken) {
    let server = Server { control: control.clone(), stop: stop.clone() };
    let app = Router::new().fallback(answer).with_state(server);
    let app = app.nest("/_sandbox", control_http::router(control));
    let service = app.into_make_service_with_connect_info::<Line>();
    let served = axum::serve(Lines(listener), service).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "sandbox ended");
    }
}

/// Handles one request for as long as the sandbox runs; when it stops, what still waits is cut.
async fn answer(
    State(server): State<Server>,
    ConnectInfo(line): ConnectInfo<Line>,
    request: Request<Body>,
) -> Response {
    tokio::select! {
        response = handle(&server.control, &line, request) => response,
        () = server.stop.cancelled() => cut(&line),
    }
}

async fn handle(control: &Control, line: &Line, request: Request<Body>) -> Response {
    let call = Call::read(request).await;
    let mut entry = control.journal().open(&call, &control.settings());
    let Some(Strike { fault, label }) = control.faults().strike(&call) else {
        return finish(&mut entry, accept(control, &call));
    };
    entry.fault(&label);
    let provider = call.route.endpoint.provider();
    match fault.action {
        Action::Hang => return silence(&mut entry).await,
        Action::ResetBefore => return reset(&mut entry, line),
        Action::Throttle => return finish(&mut entry, refusal(provider, 429, &fault)),
        Action::Status if fault.phase == Phase::Before => {
            return finish(&mut entry, refusal(provider, fault.status.unwrap_or(500), &fault));
        }
        Action::Slow => tokio::time::sleep(Duration::from_millis(fault.delay_ms.unwrap_or(2000))).await,
        Action::Hold if fault.phase == Phase::Before => hold(control, &call, Phase::Before).await,
        _ => {}
    }
    let mut reply = accept(control, &call);
    entry.items(std::mem::take(&mut reply.items));
    match fault.action {
        Action::ResetAfter => return reset(&mut entry, line),
        Action::LostAnswer => return silence(&mut entry).await,
        Action::Status => {
            let refusal = refusal(provider, fault.status.unwrap_or(500), &fault);
            entry.write(Some(refusal.status));
            return refusal.into_response();
        }
        Action::Garbage => reply = Reply::text(200, "text/html", fault.body.unwrap_or_else(|| "<html>ok".to_owned())),
        Action::WrongTicketCount => reply.shorten(),
        Action::Hold if fault.phase == Phase::After => hold(control, &call, Phase::After).await,
        _ => {}
    }
    entry.write(Some(reply.status));
    reply.into_response()
}

/// Lets the provider's rules decide about the request and take effect.
fn accept(control: &Control, call: &Call) -> Reply {
    match call.route.endpoint.provider() {
        Provider::Ably => ably::answer(control, call),
        Provider::Expo => expo::answer(control, call),
    }
}

fn finish(entry: &mut Open, mut reply: Reply) -> Response {
    entry.items(std::mem::take(&mut reply.items));
    entry.write(Some(reply.status));
    reply.into_response()
}

/// Returns the provider's usual answer with `status`, or the one the fault prescribes.
fn refusal(provider: Provider, status: u16, fault: &Fault) -> Reply {
    let reply = match (&fault.body, provider) {
        (Some(body), _) => Reply::text(status, "application/json", body.clone()),
        (None, Provider::Ably) => ably::failure(status),
        (None, Provider::Expo) => expo::failure(status),
    };
    match fault.retry_after {
        Some(seconds) => reply.with_header(header::RETRY_AFTER, seconds.to_string()),
        None => reply,
    }
}

async fn hold(control: &Control, call: &Call, phase: Phase) {
    let endpoint = call.route.endpoint;
    let waiting = Waiting { provider: endpoint.provider(), endpoint, path: call.path.clone(), phase };
    control.faults().hold(waiting).await;
}

/// Never answers: only the client or the end of the sandbox ends the wait.
async fn silence(entry: &mut Open) -> Response {
    entry.write(None);
    std::future::pending().await
}

fn reset(entry: &mut Open, line: &Line) -> Response {
    entry.write(None);
    cut(line)
}

/// Cuts the connection; the response is never written to it.
fn cut(line: &Line) -> Response {
    line.cut();
    Response::new(Body::empty())
}
