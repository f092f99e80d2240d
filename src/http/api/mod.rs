//! The JSON API behind the page: one file for each thing that can be asked for.
//!
//! Opened by the worker once it has a desk; until then every address says what herald waits for. Answers are bounded, and so is
//! the time they may take. `guard` has let a request through before it comes here.

mod status;
mod events;
mod dead;
mod steer;

use std::sync::{Arc, OnceLock};

use axum::{
    Json, Router,
    extract::{Request, State, rejection::JsonRejection},
    http::header,
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use crate::{broker::Broker, desk::Desk};

use super::{Readiness, answer::Refusal, server::Remote};

/// A door that is shut until there is a desk behind it. A handle: clones share it.
#[derive(Clone, Default)]
pub struct Api(Arc<OnceLock<TowerToHyperService<Router>>>);

impl Api {
    /// Opens the API on `desk`. The first desk stays.
    pub fn open<B: Broker>(&self, desk: Desk<B>) {
        let _ = self.0.set(TowerToHyperService::new(routes(desk)));
    }
}

/// Passes a request that nobody else answers on to the desk, or says why there is none yet.
pub(super) async fn api(State((api, readiness)): State<(Api, Readiness)>, request: Request) -> Response {
    if !request.uri().path().starts_with("/api") {
        return Refusal::nowhere().into_response();
    }
    let Some(routes) = api.0.get() else {
        let why = readiness.why_not().unwrap_or_else(|| "starting".to_owned());
        return Refusal::starting(&why).into_response();
    };
    match routes.call(request).await {
        Ok(answer) => answer.into_response(),
        Err(never) => match never {},
    }
}

fn routes<B: Broker>(desk: Desk<B>) -> Router {
    Router::new()
        .route("/api/status", get(status::status))
        .route("/api/history", get(status::history))
        .route("/api/events", get(events::search))
        .route("/api/events/{id}", get(events::one))
        .route("/api/dead", get(dead::groups))
        .route("/api/dead/letters", get(dead::letters))
        .route("/api/dead/letters/{number}", get(dead::letter))
        .route("/api/dead/preview", post(dead::preview))
        .route("/api/dead/replay", post(dead::replay))
        .route("/api/dead/drop", post(dead::drop))
        .route("/api/dead/stop", post(dead::stop))
        .route("/api/steer", post(steer::steer))
        .route("/api/actions", get(steer::actions))
        .fallback(async || Refusal::nowhere())
        .method_not_allowed_fallback(async || Refusal::wrong_method())
        .with_state(desk)
        .layer(map_response(in_json))
}

/// Says in JSON what a request's address is wrong about.
async fn in_json(answer: Response) -> Response {
    let json = answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if json || !answer.status().is_client_error() {
        return answer;
    }
    let remedy = "numbers are numbers, and only the parameters that the page uses are known";
    Refusal::new(answer.status(), "the address or its parameters cannot be read", remedy).into_response()
}

/// Returns the body of a request, or where it is wrong. What stands there is not quoted.
fn body<T>(read: Result<Json<T>, JsonRejection>) -> Result<T, Refusal> {
    read.map(|Json(value)| value).map_err(|error| {
        let text = error.body_text();
        let place = text.rsplit_once(" at line ").map_or_else(String::new, |(_, place)| format!(", at line {place}"));
        let remedy = "send a JSON object of at most 16 KiB, with the fields that the page sends and nothing else";
        Refusal::wrong(format!("the body cannot be read{place}"), remedy)
    })
}

/// Names who asks, for the record.
fn who(Remote(address): Remote) -> String {
    format!("page {}", address.ip())
}

/// Returns the time in milliseconds since the epoch.
fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
