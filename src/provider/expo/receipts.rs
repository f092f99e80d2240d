//! Receipts: what became of accepted notifications at Apple and Google.
//!
//! Called by the worker's receipts task and, for its harmlessness, by `herald check` and before a probe. Works beside the gate:
//! reading receipts sends nothing, and may be repeated.

use std::collections::HashMap;

use serde_json::json;

use crate::{
    domain::outcome::{Failure, FailureKind},
    provider::{http::excerpt, tries::Tries},
};

use super::{
    Expo, Receipt, Shared,
    classify::{Refused, item_failure, refused},
    send::post,
    wire,
};

/// Tickets asked for at once: what the official SDK does; Expo's limit is 1000.
const CHUNK: usize = 300;
/// Largest answer read: receipts may carry long debugging texts.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

impl Expo {
    /// Fetches receipts, in chunks of 300; ids without a receipt yet are absent from the answer. When only some chunks
    /// failed, theirs are absent too, to be asked for again; `Err` only when nothing could be fetched.
    pub async fn receipts(&self, ids: &[String]) -> Result<HashMap<String, Receipt>, Failure> {
        let mut found = HashMap::new();
        let (mut fetched, mut failed) = (false, None);
        for chunk in ids.chunks(CHUNK) {
            match fetch(&self.shared, chunk).await {
                Ok(receipts) => {
                    fetched = true;
                    found.extend(receipts);
                }
                Err(failure) => {
                    tracing::warn!(code = failure.code, "{} receipts could not be fetched: {failure}", chunk.len());
                    failed = Some(failure);
                }
            }
        }
        match failed {
            Some(failure) if !fetched => Err(failure),
            _ => Ok(found),
        }
    }

    /// Tells whether Expo answers and takes the access token, if there is one, by asking for the receipt of a ticket that
    /// does not exist. Nothing is sent to anybody.
    pub async fn reachable(&self) -> Result<(), Failure> {
        fetch(&self.shared, &[uuid::Uuid::new_v4().to_string()]).await.map(|_| ())
    }
}

/// Asks whether Expo answers at all, once, before a push is risked on finding out. A lost answer is not of unknown fate here,
/// and whatever Expo says of the question itself is an answer.
pub(super) async fn ask_first(shared: &Shared) -> Result<(), Failure> {
    match once(shared, &[uuid::Uuid::new_v4().to_string()]).await {
        Ok(_) => Ok(()),
        Err(failure) => match failure.kind {
            FailureKind::Unknown => Err(Failure { kind: FailureKind::Transient, ..failure }),
            FailureKind::Transient | FailureKind::Throttled | FailureKind::Unauthorised => Err(failure),
            FailureKind::Rejected | FailureKind::Unregistered => Ok(()),
        },
    }
}

async fn fetch(shared: &Shared, ids: &[String]) -> Result<HashMap<String, Receipt>, Failure> {
    let mut tries = Tries::new(None);
    loop {
        let failure = match once(shared, ids).await {
            Ok(receipts) => return Ok(receipts),
            Err(failure) => failure,
        };
        // A throttle outlasts these pauses; refused credentials and requests stay refused.
        let passing = matches!(failure.kind, FailureKind::Transient | FailureKind::Unknown);
        if !passing || !tries.pause().await {
            return Err(failure);
        }
    }
}

async fn once(shared: &Shared, ids: &[String]) -> Result<HashMap<String, Receipt>, Failure> {
    shared.http.carries("receipts", ids.len());
    let reply =
        post(shared, "receipts", "push/getReceipts", json!({ "ids": ids }).to_string(), None, MAX_ANSWER).await?;
    if !(200..300).contains(&reply.status) {
        let (Refused::Whole(failure) | Refused::Mix(_, failure) | Refused::Items(_, failure)) = refused(&reply, []);
        return Err(failure);
    }
    let receipts = wire::receipts(&reply.body).ok_or_else(|| {
        let detail = format!("not an answer of Expo's push service: {}", excerpt(&reply.body));
        Failure::new(FailureKind::Transient, "unreadable", detail).with_status(reply.status)
    })?;
    Ok(receipts
        .into_iter()
        // Only what was asked for: an answer about another ticket is none of ours.
        .filter(|(id, _)| ids.contains(id))
        .map(|(id, verdict)| match verdict.status.as_str() {
            "ok" => (id, Receipt::Ok),
            _ => (id, Receipt::Failed(item_failure(&verdict, None))),
        })
        .collect())
}
