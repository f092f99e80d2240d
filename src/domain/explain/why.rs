//! Why an event went no other way, as sentences.
//!
//! Called by `explain`. Reads only what the ledger kept of the decision: the catalogue may have changed since.

use crate::domain::{
    catalogue::RouteRule,
    ledger::{Entry, State},
    outcome::Provider,
};

use super::WhyNot;

/// Returns why the event was not published, and why it was not pushed, for each that the decision ruled out.
pub(super) fn why_not(entry: &Entry) -> Vec<WhyNot> {
    let (ably, expo) = match entry.route.as_deref() {
        Some("realtime") => (false, true),
        Some("push") => (true, false),
        Some(_) => (false, false),
        // Skipped for what was found out; what was too old at first sight was never looked at.
        None => {
            let decided = entry.state == State::Skipped && entry.evidence.by.is_some();
            (decided, decided)
        }
    };
    let ably = ably.then(|| not_published(entry)).flatten();
    let expo = expo.then(|| not_pushed(entry)).flatten();
    let whys = [(Provider::Ably, ably), (Provider::Expo, expo)];
    whys.into_iter().filter_map(|(provider, why)| Some(WhyNot { provider, because: why? })).collect()
}

fn not_published(entry: &Entry) -> Option<String> {
    let partner = entry.partner_id.as_deref();
    Some(match (entry.evidence.by?, entry.evidence.presence.as_deref()) {
        (RouteRule::Push, _) => "its route is push, which never publishes".to_owned(),
        (_, Some("unknown")) => {
            "whether the recipient was there could not be found out, which counts as absent (presence.on_unknown)"
                .to_owned()
        }
        (_, Some("absent")) => {
            format!("nobody with the client id `{}` was on the session's presence channel", partner?)
        }
        _ => return None,
    })
}

fn not_pushed(entry: &Entry) -> Option<String> {
    let evidence = &entry.evidence;
    if entry.partner_id.is_none() {
        return Some("it names no partner to push to".to_owned());
    }
    let by = evidence.by?;
    Some(match (by, evidence.presence.as_deref()) {
        (RouteRule::Realtime, _) => "its route is realtime, which never pushes".to_owned(),
        (_, Some("present")) => match by {
            RouteRule::Always => "the recipient was present, and its route pushes only to who is absent".to_owned(),
            RouteRule::Presence | RouteRule::Realtime | RouteRule::Push => "the recipient was present".to_owned(),
        },
        _ => evidence.obstacle.clone()?,
    })
}
