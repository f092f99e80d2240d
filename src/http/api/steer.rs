//! `POST /api/steer`: pauses and resumes the intake, holds and releases a provider. `GET /api/actions`: what operators did.

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
        steering::{Change, Steering},
    },
    http::{answer::Refusal, server::Remote},
};

use super::{body, who};

/// Actions in one listing, and when nobody says how many.
const MOST: u32 = 100;
const USUAL: u32 = 20;
/// Longest reason, in bytes.
const LONGEST_WHY: usize = 255;

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum What {
    Pause,
    Resume,
    Hold,
    Release,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    what: What,
    provider: Option<Provider>,
    why: Option<String>,
}

impl Order {
    fn change(&self) -> Result<Change, Refusal> {
        match (&self.what, self.provider) {
            (What::Pause, None) => Ok(Change::Pause),
            (What::Resume, None) => Ok(Change::Resume),
            (What::Hold, Some(provider)) => Ok(Change::Hold(provider)),
            (What::Release, Some(provider)) => Ok(Change::Release(provider)),
            (What::Hold | What::Release, None) => {
                Err(Refusal::wrong("which provider is meant is not said", "say ably or expo as provider"))
            }
            (What::Pause | What::Resume, Some(_)) => {
                Err(Refusal::wrong("the intake has no provider", "hold and release are for one provider"))
            }
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
