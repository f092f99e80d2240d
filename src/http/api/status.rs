//! `GET /api/status` and `GET /api/history`: what the page polls. Both are answered from memory.

use axum::{
    Json,
    extract::{Query, State},
};
use serde::Deserialize;

use crate::{
    broker::Broker,
    desk::{Desk, history::Columns, status::Status},
};

use super::now;

pub(super) async fn status<B: Broker>(State(desk): State<Desk<B>>) -> Json<Status> {
    Json(desk.status(now()))
}

#[derive(Deserialize)]
pub(super) struct After {
    /// Milliseconds since the epoch; only later points are told.
    #[serde(default)]
    after: i64,
}

pub(super) async fn history<B: Broker>(
    State(desk): State<Desk<B>>,
    Query(After { after }): Query<After>,
) -> Json<Columns> {
    Json(desk.history(after))
}
