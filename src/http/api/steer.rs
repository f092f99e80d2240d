//! `POST /api/steer`: pauses and resumes the intake, holds and releases a provider, sets the log filter. `GET /api/actions`: what
//! operators did.

use axum::{
    Extension, Json,
    extract::{Query, State, rejection::JsonRejection},
};
use serde::{Deserialize, Serialize};

use crate::{
    broker::Broker,
    desk::Desk,
    domain::{
        action::Action,
        outcome::Provider,
        parse_duration,
        steering::{Change, Steering},
    },
    http::{answer::Refusal, server::Remote},
    telemetry::steered_filter,
};

use super::{body, who};

/// Actions in one listing, and when nobody says how many.
const MOST: u32 = 100;
const USUAL: u32 = 20;
/// Longest reason, in bytes.
const LONGEST_WHY: usize = 255;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Pause,
    Resume,
    Hold,
    Release,
    /// Without a filter: `log.level` again.
    LogLevel,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    what: What,
    provider: Option<Provider>,
    filter: Option<String>,
    /// How long the filter lasts, e.g. `10m`.
    #[serde(rename = "for")]
    lasts: Option<String>,
    why: Option<String>,
}

impl Order {
    fn change(&self) -> Result<Change, Refusal> {
        match (&self.what, self.provider, &self.filter, &self.lasts) {
            (What::Pause, None, None, None) => Ok(Change::Pause),
            (What::Resume, None, None, None) => Ok(Change::Resume),
            (What::Hold, Some(provider), None, None) => Ok(Change::Hold(provider)),
            (What::Release, Some(provider), None, None) => Ok(Change::Release(provider)),
            (What::LogLevel, None, Some(filter), lasts) => {
                let wrong = |field: &str, problem: String| {
                    Refusal::wrong(format!("{field} {problem}"), "say it as `herald log-level --help` shows it")
                };
                let filter = steered_filter(filter).map_err(|problem| wrong("filter", problem))?;
                let lasts = lasts.as_deref().map(parse_duration).transpose();
                Ok(Change::LogLevel(filter, lasts.map_err(|problem| wrong("for", problem))?))
            }
            (What::LogLevel, None, None, None) => Ok(Change::LogReset),
            (What::Hold | What::Release, None, ..) => {
                Err(Refusal::wrong("which provider is meant is not said", "say ably or expo as provider"))
            }
            _ => Err(Refusal::wrong(
                "what is asked for does not go together",
                "hold and release take a provider, log_level a filter and how long it is for, pause and resume neither",
            )),
        }
    }
}

pub(super) async fn steer<B: Broker>(
    State(desk): State<Desk<B>>,
    Extension(remote): Extension<Remote>,
    order: Result<Json<Order>, JsonRejection>,
) -> Result<Json<Steering>, Refusal> {
    let order = body(order)?;
    let change = order.change()?;
    let why = order.why.as_deref().map(str::trim).filter(|why| !why.is_empty());
    if why.is_some_and(|why| why.len() > LONGEST_WHY) {
        return Err(Refusal::wrong(format!("why is over {LONGEST_WHY} bytes"), "say it shorter"));
    }
    Ok(Json(desk.steer(&change, &who(remote), why).await?))
}

#[derive(Deserialize)]
pub(super) struct Page {
    limit: Option<u32>,
    below: Option<i64>,
}

#[derive(Serialize)]
pub(super) struct Actions {
    actions: Vec<Action>,
}

pub(super) async fn actions<B: Broker>(
    State(desk): State<Desk<B>>,
    Query(page): Query<Page>,
) -> Result<Json<Actions>, Refusal> {
    let limit = page.limit.unwrap_or(USUAL).clamp(1, MOST);
    Ok(Json(Actions { actions: desk.store().actions(limit, page.below).await? }))
}
