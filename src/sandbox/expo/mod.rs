//! Expo's push API: send and receipts, in Expo's shapes and in the order Expo checks.
//!
//! Called by the server once a request is to take effect. Order: parse, access token, schema, number of recipients, one
//! project, rate, then each recipient. Must never wait: everything is decided at once.

mod device;
mod receipts;
mod schema;
mod send;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use http::header;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    body::{Format, Problem},
    call::Call,
    control::Control,
    lock,
    reply::Reply,
    route::Endpoint,
    settings::{ACCESS_TOKEN, Device, FOREIGN_ACCESS_TOKEN},
    window::{Memory, Rates},
};
use device::Outcome;

/// Expo's state: devices told of, tickets, rates.
#[derive(Debug)]
pub(super) struct Expo {
    devices: Mutex<HashMap<String, Device>>,
    tickets: Mutex<Memory<Ticket>>,
    rates: Mutex<Rates>,
}

/// What a receipt will say.
#[derive(Debug)]
struct Ticket {
    outcome: Outcome,
    token: Arc<str>,
}

impl Expo {
    pub fn new(tickets: usize) -> Self {
        Self { devices: Mutex::default(), tickets: Mutex::new(Memory::new(tickets.max(1))), rates: Mutex::default() }
    }

    pub fn set_device(&self, token: &str, device: Device) {
        lock(&self.devices).insert(token.to_owned(), device);
    }
}

/// Why a whole request is refused.
#[derive(Debug)]
enum Refusal {
    /// Status, code, text and, for mixed projects, the details.
    Errors(u16, &'static str, String, Option<Value>),
    /// The shape of Expo's OAuth layer, which has no `errors`.
    OAuth,
}

impl Refusal {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self::Errors(status, code, message.into(), None)
    }

    fn reply(self) -> Reply {
        let (status, body) = match self {
            Self::Errors(status, code, message, details) => {
                let mut error = json!({
                    "code": code,
                    "type": if status >= 500 { "SYSTEM" } else { "USER" },
                    "message": message,
                    "isTransient": status == 429 || status >= 500,
                    "requestId": Uuid::new_v4().to_string(),
                });
                if let Some(details) = details {
                    error["details"] = details;
                }
                (status, json!({"errors": [error]}))
            }
            Self::OAuth => (401, json!({"error": "invalid_token", "error_description": "The bearer token is invalid"})),
        };
        Reply::new(status, body, Format::Json)
    }
}

/// Returns Expo's answer to `call`, which takes effect by being answered.
pub(super) fn answer(control: &Control, call: &Call) -> Reply {
    let decided = body_of(call).and_then(|body| {
        authenticate(control, call)?;
        match call.route.endpoint {
            Endpoint::Receipts => receipts::answer(control, &body),
            _ => send::answer(control, &body),
        }
    });
    decided.unwrap_or_else(Refusal::reply)
}

/// Returns the answer Expo gives with `status` when it is not well.
pub(super) fn failure(status: u16) -> Reply {
    match status {
        429 => too_many_requests().reply(),
        502..=504 => {
            let text = match status {
                502 => "502 Bad Gateway",
                503 => "503 Service Temporarily Unavailable",
                _ => "504 Gateway Time-out",
            };
            Reply::text(status, "text/html", format!("<html><head><title>{text}</title></head></html>"))
        }
        401 => Refusal::OAuth.reply(),
        403 => unauthorized().reply(),
        400..500 => Refusal::new(status, "VALIDATION_ERROR", "The request was refused.").reply(),
        _ => Refusal::new(status, "INTERNAL_SERVER_ERROR", "An unknown error occurred.").reply(),
    }
}

fn too_many_requests() -> Refusal {
    Refusal::new(429, "TOO_MANY_REQUESTS", "Exceeded 600 notifications per second, please try again.")
}

fn unauthorized() -> Refusal {
    let message = format!("Insufficient permissions to send push notifications to {}", device::DEFAULT_PROJECT);
    Refusal::new(403, "UNAUTHORIZED", message)
}

fn body_of(call: &Call) -> Result<Value, Refusal> {
    let invalid = |message: &str| Err(Refusal::new(400, "VALIDATION_ERROR", message));
    match (call.problem, call.format()) {
        (Some(Problem::TooLarge), _) => Err(Refusal::new(413, "VALIDATION_ERROR", "The request body is too large.")),
        (Some(Problem::Gzip), _) => invalid("The request body is not valid gzip."),
        (Some(Problem::Incomplete), _) => {
            Err(Refusal::new(408, "VALIDATION_ERROR", "The request body did not arrive."))
        }
        (None, Some(Format::Json)) => match Format::Json.decode(&call.body) {
            Ok(body) => Ok(body),
            Err(_) => invalid("The request body is not valid JSON."),
        },
        (None, _) => invalid("The request body must be application/json."),
    }
}

/// An unknown access token is refused always, a missing or foreign one only under enhanced security.
fn authenticate(control: &Control, call: &Call) -> Result<(), Refusal> {
    let authorization = call.header(header::AUTHORIZATION.as_str());
    let token = authorization.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match token.map(|(_, token)| token.trim()) {
        Some(ACCESS_TOKEN) => Ok(()),
        Some(FOREIGN_ACCESS_TOKEN) | None if control.settings().enhanced_security => Err(unauthorized()),
        Some(FOREIGN_ACCESS_TOKEN) | None => Ok(()),
        Some(_) => Err(Refusal::OAuth),
    }
}
