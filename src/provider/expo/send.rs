//! Sending: gathered notifications in one request, tickets back by position, refusals split and sent again.
//!
//! Called by the client's coalescer. Expo drops no repeats: what may have been heard is never sent again here.

use std::time::Instant;

use bytes::Bytes;
use http::Method;

use crate::{
    domain::outcome::{Failure, FailureKind, HoldCause, Refusal},
    provider::{
        gate::Admission,
        http::{Broken, Reply, excerpt},
        parts::{Part, halves, in_parts},
        tries::Tries,
    },
};

use super::{
    Push, Shared,
    classify::{Refused, item_failure, refused, scrub},
    receipts, wire,
};

/// Largest answer read: a hundred tickets are under ten kilobytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// A notification with its JSON, made once.
#[derive(Clone)]
pub(super) struct Message {
    token: String,
    until: Option<Instant>,
    json: String,
}

impl Message {
    /// Prepares a notification.
    pub(super) fn new(push: Push) -> Message {
        Message { json: wire::message(&push), token: push.token, until: push.until }
    }

    /// What the notification adds to a request, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.json.len() + 1
    }
}

type Ticket = Option<String>;

/// Sends gathered notifications and returns one answer each, in order, through rate and gate.
pub(super) async fn send(shared: &Shared, messages: Vec<Message>) -> Vec<Result<Ticket, Refusal>> {
    // A shut gate costs no rate.
    let allowed = match shared.gate.admission() {
        Admission::Shut(_) => messages.len(),
        _ => shared.rate.take(messages.len()).await,
    };
    let going = &messages[..allowed];
    let until: Vec<_> = going.iter().map(|message| message.until).collect();
    let mut answers = in_parts(&shared.gate, &until, |part| async move {
        let chosen: Vec<&Message> = part.iter().map(|position| &going[*position]).collect();
        request(shared, &part, &chosen).await
    })
    .await;
    answers.resize_with(messages.len(), || Err(Refusal::Held(HoldCause::Backlog)));
    answers
}

async fn request(shared: &Shared, part: &[usize], messages: &[&Message]) -> Result<Part<Ticket>, Failure> {
    if shared.gate.is_shut() {
        // A probe. What is lost on the way to a provider in trouble may ring twice, so something harmless goes first.
        receipts::ask_first(shared).await?;
    }
    shared.http.carries("send", messages.len());
    let list: Vec<&str> = messages.iter().map(|message| message.json.as_str()).collect();
    let until = messages.iter().filter_map(|message| message.until).min();
    let reply = post(shared, "send", "push/send", format!("[{}]", list.join(",")), until, MAX_ANSWER).await?;
    if (200..300).contains(&reply.status) {
        return tickets(&reply, messages).map(Part::Answers);
    }
    let tokens: Vec<&str> = messages.iter().map(|message| message.token.as_str()).collect();
    let alone = messages.len() == 1;
    match refused(&reply, tokens.iter().copied()) {
        Refused::Whole(failure) => Err(failure),
        Refused::Mix(_, failure) | Refused::Items(_, failure) if alone => Ok(Part::Answers(vec![Err(failure)])),
        Refused::Mix(error, _) => {
            let groups = wire::by_project(&tokens, error.details.as_ref());
            Ok(Part::Split(groups.map_or_else(|| halves(part), |groups| positions(part, groups))))
        }
        Refused::Items(error, _) => {
            let named = wire::named_messages(&error.message, part.len());
            Ok(Part::Split(without(part, &named)))
        }
    }
}

/// Turns positions within a part into positions in the whole batch.
fn positions(part: &[usize], groups: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    groups.into_iter().map(|group| group.into_iter().map(|within| part[within]).collect()).collect()
}

/// Sets the named messages apart, each alone, the rest together; with none named it is halves.
fn without(part: &[usize], named: &[usize]) -> Vec<Vec<usize>> {
    if named.is_empty() {
        return halves(part);
    }
    let rest: Vec<usize> = (0..part.len()).filter(|within| !named.contains(within)).collect();
    let alone = named.iter().map(|within| vec![*within]);
    let groups = [rest].into_iter().filter(|rest| !rest.is_empty()).chain(alone).collect();
    positions(part, groups)
}

/// Reads the ticket of each message. Where a ticket names the token it is about, that must be the message's own: a token is
/// cleared on its word.
pub(super) fn tickets(reply: &Reply, messages: &[&Message]) -> Result<Vec<Result<Ticket, Failure>>, Failure> {
    let unknown =
        |code: &str, detail: String| Failure::new(FailureKind::Unknown, code, detail).with_status(reply.status);
    let page = || {
        let tokens = messages.iter().map(|message| message.token.as_str());
        excerpt(scrub(&String::from_utf8_lossy(&reply.body), tokens).as_bytes())
    };
    let tickets = wire::tickets(&reply.body)
        .ok_or_else(|| unknown("unreadable", format!("not an answer of Expo's push service: {}", page())))?;
    if tickets.len() != messages.len() {
        let detail = format!("{} tickets for {} notifications", tickets.len(), messages.len());
        return Err(unknown("ticket_count", detail));
    }
    let others = tickets
        .iter()
        .zip(messages)
        .filter(|(ticket, message)| ticket.token().is_some_and(|token| token != message.token));
    if others.count() > 0 {
        return Err(unknown("ticket_order", "a ticket names the push token of another notification".to_owned()));
    }
    let answers = tickets.into_iter().zip(messages).map(|(ticket, message)| match ticket.status.as_str() {
        "ok" => Ok(ticket.id),
        _ => Err(item_failure(&ticket, Some(&message.token))),
    });
    Ok(answers.collect())
}

/// Posts `json`, with quick tries only while no connection could be made, and none after `until`.
pub(super) async fn post(
    shared: &Shared,
    endpoint: &'static str,
    path: &str,
    json: String,
    until: Option<Instant>,
    cap: usize,
) -> Result<Reply, Failure> {
    let (body, compressed) = wire::packed(json);
    let mut tries = Tries::new(until);
    loop {
        match shared.http.exchange(endpoint, prepared(shared, path, body.clone(), compressed), cap).await {
            Ok(reply) => return Ok(reply),
            Err(Broken::NotSent(_)) if tries.pause().await => {}
            Err(broken) => return Err(broken.into_failure()),
        }
    }
}

fn prepared(shared: &Shared, path: &str, body: Bytes, compressed: bool) -> reqwest::RequestBuilder {
    use http::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
    let mut url = shared.url.clone();
    url.set_path(&format!("{}/--/api/v2/{path}", shared.url.path().trim_end_matches('/')));
    let mut request = shared
        .http
        .request(Method::POST, url)
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/json")
        .body(body);
    if compressed {
        request = request.header(CONTENT_ENCODING, "gzip");
    }
    if let Some(authorization) = &shared.authorization {
        request = request.header(AUTHORIZATION, authorization.clone());
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_messages_are_set_apart_and_no_part_is_as_large_as_before() {
        for (part, named, expected) in [
            (vec![4, 5, 6, 7], vec![2], vec![vec![4, 5, 7], vec![6]]),
            (vec![4, 5], vec![0, 1], vec![vec![4], vec![5]]),
            (vec![4, 5, 6], vec![], vec![vec![4], vec![5, 6]]),
        ] {
            assert_eq!(without(&part, &named), expected);
        }
    }
}
