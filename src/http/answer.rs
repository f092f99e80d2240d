//! How the API says no: a status, what is wrong, and what to do about it.
//!
//! Used by `api`, `guard` and `server`.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{broker::BrokerError, store::StoreError};

/// Why a request is not done, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    error: String,
    remedy: String,
}

impl Refusal {
    pub fn new(status: StatusCode, error: impl Into<String>, remedy: impl Into<String>) -> Refusal {
        Refusal { status, error: error.into(), remedy: remedy.into() }
    }

    /// The request itself is wrong.
    pub fn wrong(error: impl Into<String>, remedy: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, error, remedy)
    }

    /// There is no desk yet.
    pub fn starting(why: &str) -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("herald is starting: {why}"), "it goes on by itself")
    }

    pub fn late() -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "no answer within ten seconds", "ask for less, or try again")
    }

    pub fn nowhere() -> Refusal {
        Refusal::new(
            StatusCode::NOT_FOUND,
            "there is nothing at this address",
            "/healthz, /readyz and /metrics are everywhere, and a worker's page at / shows what else there is",
        )
    }

    pub fn wrong_method() -> Refusal {
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "not with this method", "GET reads, POST changes")
    }

    #[cfg(test)]
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.error, "do": self.remedy }))).into_response()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        let (status, remedy) = match error {
            StoreError::Unavailable(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "the ledger is away; try again when it is back")
            }
            StoreError::Config(_) => (StatusCode::SERVICE_UNAVAILABLE, "mend what it names; `herald check` tells more"),
            StoreError::Data(_) => (StatusCode::BAD_REQUEST, "the ledger refuses these very values"),
        };
        Refusal::new(status, crate::domain::redact(&error.to_string()), remedy)
    }
}

impl From<BrokerError> for Refusal {
    fn from(error: BrokerError) -> Refusal {
        let remedy = match error {
            BrokerError::Unavailable(_) => "the broker is away; try again when it is back",
            BrokerError::Config(_) | BrokerError::Refused(_) => "mend what it names; `herald check` tells more",
        };
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, crate::domain::redact(&error.to_string()), remedy)
    }
}
