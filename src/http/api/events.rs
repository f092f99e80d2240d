//! `GET /api/events/{id}`, `GET /api/events?user=` and `?session=`: what became of events, and why.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use serde::Deserialize;

use crate::{
    broker::Broker,
    desk::Desk,
    domain::explain::{Answer, Find},
    http::answer::Refusal,
};

use super::now;

/// Events explained at once, and when nobody says how many.
const MOST: u32 = 50;
const USUAL: u32 = 20;

#[derive(Deserialize)]
pub(super) struct Question {
    user: Option<String>,
    session: Option<String>,
    limit: Option<u32>,
}

pub(super) async fn one<B: Broker>(
    State(desk): State<Desk<B>>,
    Path(id): Path<String>,
) -> Result<Json<Answer>, Refusal> {
    Ok(Json(desk.explain(&Find::Id(id), MOST, now()).await?))
}

pub(super) async fn search<B: Broker>(
    State(desk): State<Desk<B>>,
    Query(question): Query<Question>,
) -> Result<Json<Answer>, Refusal> {
    let find = match (question.user, question.session) {
        (Some(user), None) => Find::User(user),
        (None, Some(session)) => Find::Session(session),
        _ => return Err(Refusal::wrong("which events are meant is not said", "name one of user and session")),
    };
    let limit = question.limit.unwrap_or(USUAL).clamp(1, MOST);
    Ok(Json(desk.explain(&find, limit, now()).await?))
}
