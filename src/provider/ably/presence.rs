//! Presence: whether a user is on a channel, for one or for a hundred at once.
//!
//! Called by the client's coalescer. Reads only; safe to repeat. Never guesses: what was not answered is a failure.

use std::collections::{BTreeSet, HashMap};

use futures::{StreamExt as _, stream};

use crate::{
    domain::outcome::{Failure, FailureKind, Refusal},
    provider::{
        http::excerpt,
        parts::{Part, halves, in_parts},
    },
};

use super::{
    Presence, Shared,
    classify::{Fault, Scope, item_fault},
    transport::{Call, Repeat},
    wire::{self, ItemResult},
};

/// Members on a page of a single look-up, which is filtered by client id: one per connection of one user.
const PAGE: u32 = 100;
/// Pages read before giving up.
const MAX_PAGES: usize = 20;
/// Single look-ups made at once within one gathered request.
const SINGLES: usize = 8;

/// One question.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) channel: String,
    pub(super) client_id: String,
}

impl Ask {
    /// What the channel adds to a batch's query, in bytes.
    pub(super) fn weight(&self) -> usize {
        wire::query_length(&self.channel) + "%2C".len()
    }
}

type Answer = Result<Presence, Failure>;

/// Answers gathered questions, in order, through the gate.
pub(super) async fn look_up(shared: &Shared, asks: Vec<Ask>) -> Vec<Result<Presence, Refusal>> {
    let asks = &asks;
    in_parts(&shared.gate, &vec![None; asks.len()], |part| async move {
        let chosen: Vec<&Ask> = part.iter().map(|position| &asks[*position]).collect();
        let (answers, split) = match chosen.as_slice() {
            [ask] => (vec![single(shared, ask).await], false),
            many => batch(shared, many).await?,
        };
        if split {
            return Ok(Part::Split(halves(&part)));
        }
        let mut given = Vec::with_capacity(answers.len());
        for answer in answers {
            given.push(match answer {
                Ok(presence) => Ok(presence),
                // The provider as a whole is in trouble; a batch that was answered says so per item instead.
                Err(fault) if fault.scope == Scope::Provider && part.len() == 1 => return Err(fault.failure),
                Err(fault) => Err(refused(shared, fault.failure)),
            });
        }
        Ok(Part::Answers(given))
    })
    .await
}

/// A key that may publish but not read presence is alarmed about and shuts nothing: presence is unknown then.
fn refused(shared: &Shared, failure: Failure) -> Failure {
    if failure.kind == FailureKind::Unauthorised {
        shared.gate.alarm_items(&failure);
        return Failure { kind: FailureKind::Transient, ..failure };
    }
    failure
}

/// Looks one user up with Ably's own filter, page by page until the user is seen.
pub(super) async fn single(shared: &Shared, ask: &Ask) -> Result<Presence, Fault> {
    let (channel, client_id) = (wire::component(&ask.channel), wire::query_value(&ask.client_id));
    let mut target = format!("/channels/{channel}/presence?clientId={client_id}&limit={PAGE}");
    for _ in 0..MAX_PAGES {
        let call = Call { endpoint: "presence", target, body: None, repeat: Repeat::Safe, until: None };
        let reply = shared.transport.call(&call).await?;
        let members = wire::members(&reply).ok_or_else(|| unreadable(&reply.body))?;
        let seen = wire::count(&members, &ask.client_id);
        match shared.transport.next_target(&reply, &call.target) {
            Some(next) if seen == 0 => target = next,
            _ => return Ok(Presence { members: seen }),
        }
    }
    let detail = format!("no match and no end after {MAX_PAGES} pages");
    Err(Fault { failure: Failure::new(FailureKind::Transient, "pages", detail), scope: Scope::Item })
}

/// Looks many up at once. Ably's batch knows no filter, so members are matched here; `true` asks for a smaller batch.
async fn batch(shared: &Shared, asks: &[&Ask]) -> Result<(Vec<Result<Presence, Fault>>, bool), Failure> {
    // A comma separates the channels; a name that holds one is asked for by itself.
    let together: BTreeSet<&str> =
        asks.iter().map(|ask| ask.channel.as_str()).filter(|channel| !channel.contains(',')).collect();
    let results = if together.is_empty() {
        Vec::new()
    } else {
        shared.transport.carries("batch_presence", asks.len());
        let names = together.into_iter().collect::<Vec<_>>().join(",");
        let target = format!("/presence?channels={}", wire::query_value(&names));
        let call = Call { endpoint: "batch_presence", target, body: None, repeat: Repeat::Safe, until: None };
        match shared.transport.call(&call).await {
            Ok(reply) => wire::results(&reply).ok_or_else(|| unreadable(&reply.body).failure)?,
            Err(fault) if fault.scope == Scope::Provider => return Err(fault.failure),
            Err(fault) if fault.failure.kind == FailureKind::Rejected => return Ok((Vec::new(), true)),
            Err(fault) => return Ok((asks.iter().map(|_| Err(fault.clone())).collect(), false)),
        }
    };
    let results: HashMap<&str, &ItemResult> = results.iter().map(|result| (result.channel.as_str(), result)).collect();
    let mut answers = Vec::with_capacity(asks.len());
    for ask in asks.iter().copied() {
        let answer = results.get(ask.channel.as_str()).map(|result| match (&result.presence, &result.error) {
            (Some(members), None) => Ok(Presence { members: wire::count(members, &ask.client_id) }),
            (_, error) => Err(item_fault(error.clone().unwrap_or_default())),
        });
        answers.push(async move {
            match answer {
                // Keys limited to patterns of channels are refused by the batch endpoint and not by the single one.
                Some(Err(fault)) if fault.failure.kind != FailureKind::Unauthorised => Err(fault),
                Some(Ok(presence)) => Ok(presence),
                Some(Err(_)) | None => single(shared, ask).await,
            }
        });
    }
    Ok((stream::iter(answers).buffered(SINGLES).collect().await, false))
}

fn unreadable(body: &[u8]) -> Fault {
    let detail = format!("not an answer of Ably's presence: {}", excerpt(body));
    Fault { failure: Failure::new(FailureKind::Transient, "unreadable", detail), scope: Scope::Provider }
}

/// Returns the answer as the worker wants it: presence is known, or it is unknown for a reason.
pub(super) fn known(answer: Result<Presence, Refusal>) -> Answer {
    answer.map_err(|refusal| match refusal {
        Refusal::Failed(failure) => failure,
        Refusal::Held(cause) => {
            Failure::new(FailureKind::Transient, cause.not_asked(), "Ably was not asked: its gate is shut")
        }
    })
}
