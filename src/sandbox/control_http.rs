//! The control API under `/_sandbox/`, for users in another process.
//!
//! Every route is [`Control`] in JSON. It is not access-controlled: the sandbox listens on the loopback unless told
//! otherwise. Requests here are not journalled and no fault strikes them.

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    control::Control,
    fault::Fault,
    magic::MAGIC,
    route::Provider,
    settings::{Credential, Device, Settings},
};

/// Longest control request.
const CAP: usize = 1024 * 1024;

pub(super) fn router(control: Control) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/presence", post(presence))
        .route("/credentials", post(credential))
        .route("/devices", post(device))
        .route("/settings", get(settings).post(set_settings))
        .route("/journal", get(journal).delete(reset))
        .route("/counters", get(counters))
        .route("/effects", get(effects))
        .route("/faults", get(faults).post(add_fault).delete(clear_faults))
        .route("/faults/release", post(release))
        .route("/held", get(held))
        .layer(DefaultBodyLimit::max(CAP))
        .with_state(control)
}

/// A refusal of the control API.
struct Wrong(String);

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, Json(json!({"error": self.0}))).into_response()
    }
}

/// Reads a control body whatever its declared type, so that a bare `curl -d` works.
fn read<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Wrong> {
    serde_json::from_slice(body).map_err(|error| Wrong(error.to_string()))
}

fn json<T: Serialize>(value: T) -> Response {
    Json(value).into_response()
}

async fn index() -> Response {
    let magic: Vec<Value> = MAGIC.iter().map(|(id, effect)| json!({"id": id, "effect": effect})).collect();
    json(json!({"sandbox": env!("CARGO_PKG_VERSION"), "magic": magic}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Move {
    channel: String,
    client_id: String,
    #[serde(default)]
    connection_id: Option<String>,
    #[serde(default)]
    data: Option<String>,
    action: MoveAction,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum MoveAction {
    Enter,
    Leave,
}

async fn presence(State(control): State<Control>, body: bytes::Bytes) -> Result<Response, Wrong> {
    let Move { channel, client_id, connection_id, data, action } = read(&body)?;
    Ok(match (action, connection_id) {
        (MoveAction::Enter, None) if data.is_none() => {
            json(json!({"connectionId": control.enter(&channel, &client_id)}))
        }
        (MoveAction::Enter, None) => return Err(Wrong("data needs a connectionId".to_owned())),
        (MoveAction::Enter, Some(connection)) => {
            control.enter_on(&channel, &client_id, &connection, data);
            json(json!({"connectionId": connection}))
        }
        (MoveAction::Leave, None) => json(json!({"left": control.leave(&channel, &client_id)})),
        (MoveAction::Leave, Some(connection)) => {
            json(json!({"left": control.leave_on(&channel, &client_id, &connection)}))
        }
    })
}

async fn credential(State(control): State<Control>, body: bytes::Bytes) -> Result<Response, Wrong> {
    let credential: Credential = read(&body)?;
    control.add_credential(credential);
    Ok(json(json!({})))
}

#[derive(Deserialize)]
struct Told {
    token: String,
    project: Option<String>,
    outcome: Option<String>,
}

async fn device(State(control): State<Control>, body: bytes::Bytes) -> Result<Response, Wrong> {
    let Told { token, project, outcome } = read(&body)?;
    control.set_device(&token, Device { project, outcome });
    Ok(json(json!({})))
}

async fn settings(State(control): State<Control>) -> Response {
    json(&*control.settings())
}

async fn set_settings(State(control): State<Control>, body: bytes::Bytes) -> Result<Response, Wrong> {
    let changes: serde_json::Map<String, Value> = read(&body)?;
    let mut settings = serde_json::to_value(&*control.settings()).map_err(|error| Wrong(error.to_string()))?;
    for (key, value) in changes {
        settings[key] = value;
    }
    let settings: Settings = serde_json::from_value(settings).map_err(|error| Wrong(error.to_string()))?;
    control.set_settings(settings.clone());
    Ok(json(settings))
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    since: u64,
    provider: Option<Provider>,
    limit: Option<usize>,
}

const MAX_PAGE: usize = 10_000;

impl Page {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(1000).min(MAX_PAGE)
    }
}

/// `last` is the number of the newest entry, whether it is on this page or not.
async fn journal(State(control): State<Control>, Query(page): Query<Page>) -> Response {
    let entries = control.entries(page.since, page.provider, page.limit());
    json(json!({"entries": entries, "last": control.last_entry()}))
}

async fn reset(State(control): State<Control>) -> Response {
    control.reset_journal();
    json(json!({}))
}

async fn counters(State(control): State<Control>) -> Response {
    json(control.counters())
}

/// `since` is a position here: the number of effects read so far.
async fn effects(State(control): State<Control>, Query(page): Query<Page>) -> Response {
    let from = usize::try_from(page.since).unwrap_or(usize::MAX);
    let effects = control.effects(from, page.limit());
    let (total, unlisted) = control.effect_totals();
    json(json!({"effects": effects, "total": total, "unlisted": unlisted}))
}

async fn faults(State(control): State<Control>) -> Response {
    json(control.list_faults())
}

async fn add_fault(State(control): State<Control>, body: bytes::Bytes) -> Result<Response, Wrong> {
    let fault: Fault = read(&body)?;
    if fault.status.is_some_and(|status| !(200..600).contains(&status)) {
        return Err(Wrong("status must be 200 to 599".to_owned()));
    }
    if control.add_fault(fault) { Ok(json(json!({}))) } else { Err(Wrong("too many faults".to_owned())) }
}

async fn clear_faults(State(control): State<Control>) -> Response {
    control.clear_faults();
    json(json!({}))
}

async fn release(State(control): State<Control>) -> Response {
    json(json!({"released": control.release()}))
}

async fn held(State(control): State<Control>) -> Response {
    let requests = control.held();
    json(json!({"held": requests.len(), "requests": requests}))
}
