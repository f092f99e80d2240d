//! Dead letters: `GET /api/dead` (by cause), `/api/dead/letters` (a page of them), `/api/dead/letters/{number}`, and what is done
//! with them: `POST /api/dead/preview`, then `/api/dead/replay` or `/api/dead/drop` with that preview, `/api/dead/stop`.

use axum::{
    Extension, Json,
    extract::{Path, Query, State, rejection::JsonRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    broker::Broker,
    desk::{
        Desk,
        letter::{Shown, Summary},
        preview::{Preview, Which},
        sweeps::{NotBegun, Progress},
    },
    http::{answer::Refusal, server::Remote},
    letters::Action,
    store::{LetterFilter, LetterGroup},
};

use super::{body, who};

/// Letters in one listing, and when nobody says how many.
const MOST: u32 = 100;
const USUAL: u32 = 25;

#[derive(Serialize)]
pub(super) struct Groups {
    total: i64,
    groups: Vec<LetterGroup>,
}

pub(super) async fn groups<B: Broker>(State(desk): State<Desk<B>>) -> Result<Json<Groups>, Refusal> {
    let groups = desk.store().letter_groups(&LetterFilter::default()).await?;
    Ok(Json(Groups { total: groups.iter().map(|group| group.letters).sum(), groups }))
}

/// Which letters are meant; what is set must match.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Filter {
    id: Option<String>,
    reason: Option<String>,
    /// Empty: letters whose event is not known.
    event: Option<String>,
    session: Option<String>,
    user: Option<String>,
    /// Failed before and since then, in milliseconds since the epoch.
    failed_before: Option<i64>,
    failed_after: Option<i64>,
    /// With a smaller number: the next page.
    below: Option<i64>,
    limit: Option<u32>,
    /// This letter alone.
    number: Option<i64>,
}

impl Filter {
    fn letters(&self) -> LetterFilter {
        LetterFilter {
            id: self.id.clone(),
            reason: self.reason.clone(),
            event: self.event.clone(),
            session: self.session.clone(),
            user: self.user.clone(),
            failed_before: self.failed_before,
            failed_after: self.failed_after,
            ..LetterFilter::default()
        }
    }
}

#[derive(Serialize)]
pub(super) struct Listing {
    letters: Vec<Summary>,
    /// There are letters with smaller numbers.
    more: bool,
    /// That match, on all pages.
    total: i64,
}

pub(super) async fn letters<B: Broker>(
    State(desk): State<Desk<B>>,
    Query(filter): Query<Filter>,
) -> Result<Json<Listing>, Refusal> {
    let wanted = filter.letters();
    let limit = filter.limit.unwrap_or(USUAL).clamp(1, MOST);
    let page = LetterFilter { below: filter.below, limit: Some(limit + 1), ..wanted.clone() };
    let mut letters: Vec<_> = desk.store().letters(&page).await?.iter().map(Summary::of).collect();
    let more = letters.len() > limit as usize;
    letters.truncate(limit as usize);
    Ok(Json(Listing { letters, more, total: desk.store().letter_count(&wanted).await? }))
}

pub(super) async fn letter<B: Broker>(
    State(desk): State<Desk<B>>,
    Path(number): Path<i64>,
) -> Result<Json<Shown>, Refusal> {
    if let Some(letter) = desk.store().letter(number).await? {
        return Ok(Json(Shown::of(&letter)));
    }
    let gone = |error: String| Refusal::new(StatusCode::NOT_FOUND, error, "GET /api/dead/letters shows what there is");
    match desk.store().ended_letter(number).await? {
        Some((how, at)) => {
            Err(gone(format!("letter #{number} is no longer there: {how} on {}", crate::domain::when::time(at))))
        }
        None => Err(gone(format!("there is no letter #{number}"))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Meant {
    action: String,
    #[serde(default)]
    which: Filter,
    /// A replay of what has expired, too.
    #[serde(default)]
    ignore_expiry: bool,
}

pub(super) async fn preview<B: Broker>(
    State(desk): State<Desk<B>>,
    meant: Result<Json<Meant>, JsonRejection>,
) -> Result<Json<Preview>, Refusal> {
    let Meant { action, which, ignore_expiry } = body(meant)?;
    let action = match action.as_str() {
        "replay" => Action::Replay { ignore_expiry },
        "drop" => Action::Drop,
        _ => return Err(Refusal::wrong("that is no action", "say replay or drop as action")),
    };
    let which = match which.number {
        Some(number) => Which::One(number),
        None => Which::Matching(which.letters()),
    };
    Ok(Json(desk.preview(action, which, jiff::Timestamp::now()).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Begin {
    preview: String,
    /// Letters a second; absent: as fast as it goes.
    rate: Option<u32>,
}

pub(super) async fn replay<B: Broker>(
    State(desk): State<Desk<B>>,
    remote: Extension<Remote>,
    begin: Result<Json<Begin>, JsonRejection>,
) -> Result<(StatusCode, Json<Progress>), Refusal> {
    begun(&desk, "replay", remote, body(begin)?).await
}

pub(super) async fn drop<B: Broker>(
    State(desk): State<Desk<B>>,
    remote: Extension<Remote>,
    begin: Result<Json<Begin>, JsonRejection>,
) -> Result<(StatusCode, Json<Progress>), Refusal> {
    begun(&desk, "drop", remote, body(begin)?).await
}

async fn begun<B: Broker>(
    desk: &Desk<B>,
    verb: &str,
    Extension(remote): Extension<Remote>,
    Begin { preview, rate }: Begin,
) -> Result<(StatusCode, Json<Progress>), Refusal> {
    if rate == Some(0) {
        return Err(Refusal::wrong("rate is 0", "leave it out, or say how many letters a second, at least 1"));
    }
    let progress = desk.begin(&preview, verb, rate, &who(remote)).await.map_err(|error| match error {
        NotBegun::NoPreview => Refusal::new(
            StatusCode::CONFLICT,
            error.to_string(),
            format!("ask for a preview first, and then for a {verb} of exactly that; nothing was done"),
        ),
        NotBegun::Running(_) => Refusal::new(
            StatusCode::CONFLICT,
            error.to_string(),
            "wait until it has ended, or stop it; nothing was done",
        ),
        NotBegun::Store(error) => error.into(),
    })?;
    Ok((StatusCode::ACCEPTED, Json(progress)))
}

pub(super) async fn stop<B: Broker>(State(desk): State<Desk<B>>) -> Json<Value> {
    desk.stop_sweep();
    Json(json!({ "sweep": desk.progress() }))
}
