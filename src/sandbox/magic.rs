//! Faults asked for by the data itself: `fault-…` anywhere in an id.
//!
//! Reads what a fault id means; counting and acting is `fault`'s. The one table here is printed by `herald sandbox`.
//! Words that merely contain the letters (`default-500`) must never match.

use super::{
    fault::{Action, Fault, Phase},
    route::Endpoint,
};

/// The magic ids, as `(id, what it does)`. `fault-` ids go into session, user or event ids, channels or tokens; `[…-]`
/// goes into push tokens.
pub const MAGIC: &[(&str, &str)] = &[
    ("fault-500 (any three digits)", "answers that status, nothing is accepted"),
    ("fault-504-after (any three digits)", "accepts, then answers that status"),
    ("fault-429", "answers 429 (Ably 42918, Expo TOO_MANY_REQUESTS), nothing is accepted"),
    ("fault-hang", "never answers, nothing is accepted"),
    ("fault-lost", "accepts, never answers"),
    ("fault-reset-before", "resets the connection, nothing is accepted"),
    ("fault-reset-after", "accepts, then resets the connection"),
    ("fault-slow", "answers two seconds late"),
    ("fault-hold", "waits for POST /_sandbox/faults/release before it accepts"),
    ("fault-garbage", "accepts, answers 200 with something that is not JSON"),
    ("fault-short", "accepts, answers one ticket or result too few"),
    (
        "fault-denied, -throttled, -rejected",
        "Ably, that channel only, also in a batch: 401/40160, 429/42913, 422/42211",
    ),
    ("fault-500x2", "any of these, for the first two requests that name the id"),
    ("fault-presence-…, -publish-…, -push-…", "any of these, for these calls only: fault-publish-500x2"),
    ("ExponentPushToken[project-b-…]", "belongs to project @sandbox/b, others to @sandbox/app"),
    ("ExponentPushToken[unregistered-…]", "ticket: DeviceNotRegistered"),
    ("ExponentPushToken[invalid-credentials-…]", "ticket: InvalidCredentials"),
    ("ExponentPushToken[unknown-error-…]", "ticket: an error code nobody knows"),
    ("ExponentPushToken[no-details-…]", "ticket: an error without details"),
    ("ExponentPushToken[receipt-unregistered-…]", "receipt: DeviceNotRegistered"),
    ("ExponentPushToken[receipt-invalid-credentials-…]", "receipt: InvalidCredentials"),
    ("ExponentPushToken[rate-…]", "receipt: MessageRateExceeded"),
    ("ExponentPushToken[too-big-…]", "receipt: MessageTooBig"),
    ("ExponentPushToken[provider-error-…]", "receipt: ProviderError"),
    ("ExponentPushToken[mismatch-…]", "receipt: MismatchSenderId"),
    ("ExponentPushToken[expo-error-…], [developer-error-…]", "receipt: ExpoError, DeveloperError"),
    ("ExponentPushToken[no-receipt-…]", "no receipt, ever"),
];

/// What one channel of a request is refused with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ItemFault {
    Denied,
    Throttled,
    Rejected,
}

/// What a fault id asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    Request(Fault),
    Item(ItemFault),
}

/// One fault id found in a text.
#[derive(Debug, PartialEq)]
pub(super) struct Found<'t> {
    /// The whole id around it, by which it is counted.
    pub id: &'t str,
    /// From `fault-` to its end, as shown in the journal.
    pub label: &'t str,
    pub effect: Effect,
    /// For the first so many requests; `None` for all.
    pub times: Option<u32>,
}

/// Returns the fault ids in `text` that concern `endpoint`.
pub(super) fn find(text: &str, endpoint: Endpoint) -> impl Iterator<Item = Found<'_>> {
    text.match_indices(PREFIX).filter_map(move |(at, _)| {
        if text[..at].ends_with(|c: char| c.is_alphanumeric()) {
            return None;
        }
        let (scope, rest) = scope(&text[at + PREFIX.len()..]);
        let (effect, rest) = kind(rest)?;
        let (times, rest) = times(rest);
        let concerned = scope.is_none_or(|endpoints| endpoints.contains(&endpoint));
        if !concerned || rest.starts_with(|c: char| c.is_alphanumeric()) {
            return None;
        }
        let start = text[..at].rfind(|c| !in_id(c)).map_or(0, |before| before + char_len(&text[before..]));
        let end = text[at..].find(|c| !in_id(c)).map_or(text.len(), |len| at + len);
        let label = &text[at..text.len() - rest.len()];
        Some(Found { id: &text[start..end], label, effect, times })
    })
}

const PREFIX: &str = "fault-";

fn in_id(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn char_len(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

fn scope(text: &str) -> (Option<&'static [Endpoint]>, &str) {
    let scopes: [(&str, &'static [Endpoint]); 3] = [
        ("presence-", &[Endpoint::Presence, Endpoint::BatchPresence]),
        ("publish-", &[Endpoint::Publish, Endpoint::BatchPublish]),
        ("push-", &[Endpoint::Send]),
    ];
    for (name, endpoints) in scopes {
        if let Some(rest) = text.strip_prefix(name) {
            return (Some(endpoints), rest);
        }
    }
    (None, text)
}

fn kind(text: &str) -> Option<(Effect, &str)> {
    if let Some((status, rest)) = status(text) {
        if status == 429 {
            return Some((Effect::Request(Fault::new(Action::Throttle)), rest));
        }
        let fault = Fault { status: Some(status), ..Fault::new(Action::Status) };
        return Some(match rest.strip_prefix("-after") {
            Some(rest) => (Effect::Request(Fault { phase: Phase::After, ..fault }), rest),
            None => (Effect::Request(fault), rest),
        });
    }
    let request = |action| Effect::Request(Fault::new(action));
    let kinds = [
        ("hang", request(Action::Hang)),
        ("lost", request(Action::LostAnswer)),
        ("reset-before", request(Action::ResetBefore)),
        ("reset-after", request(Action::ResetAfter)),
        ("slow", request(Action::Slow)),
        ("hold", request(Action::Hold)),
        ("garbage", request(Action::Garbage)),
        ("short", request(Action::WrongTicketCount)),
        ("denied", Effect::Item(ItemFault::Denied)),
        ("throttled", Effect::Item(ItemFault::Throttled)),
        ("rejected", Effect::Item(ItemFault::Rejected)),
    ];
    kinds.into_iter().find_map(|(name, effect)| Some((effect, text.strip_prefix(name)?)))
}

fn status(text: &str) -> Option<(u16, &str)> {
    let digits = text.get(..3)?;
    let status = digits.parse().ok().filter(|status| (400..600).contains(status))?;
    Some((status, &text[3..]))
}

fn times(text: &str) -> (Option<u32>, &str) {
    let Some(rest) = text.strip_prefix('x') else { return (None, text) };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    match rest[..end].parse() {
        Ok(times) => (Some(times), &rest[end..]),
        Err(_) => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str, endpoint: Endpoint) -> Vec<(&str, &str, Option<u32>)> {
        find(text, endpoint).map(|found| (found.id, found.label, found.times)).collect()
    }

    #[test]
    fn fault_ids_are_found_where_they_stand() {
        let publish = Endpoint::Publish;
        assert_eq!(labels("default-500 my-fault-less faulty-500 fault-5000 fault-200", publish), []);
        assert_eq!(labels("s:fault-500:presence", publish), [("fault-500", "fault-500", None)]);
        assert_eq!(labels("é.fault-hangx3_a é", publish), [(".fault-hangx3_a", "fault-hangx3", Some(3))]);
        assert_eq!(labels("fault-publish-429x1", publish), [("fault-publish-429x1", "fault-publish-429x1", Some(1))]);
        assert_eq!(labels("fault-push-429x1", publish), []);
        assert_eq!(
            labels(r#"{"a":"fault-lost","b":"x-fault-504-after"}"#, Endpoint::Send),
            [("fault-lost", "fault-lost", None), ("x-fault-504-after", "fault-504-after", None)]
        );
    }

    #[test]
    fn a_fault_id_says_what_happens() {
        let effect = |text| find(text, Endpoint::Send).next().map(|found| found.effect);
        assert_eq!(effect("fault-429"), Some(Effect::Request(Fault::new(Action::Throttle))));
        let after = Fault { status: Some(504), phase: Phase::After, ..Fault::new(Action::Status) };
        assert_eq!(effect("fault-504-after"), Some(Effect::Request(after)));
        assert_eq!(effect("fault-denied-7"), Some(Effect::Item(ItemFault::Denied)));
        assert_eq!(effect("fault-holding"), None);
    }
}
