//! What travels: the data published on a channel and the data pushed to a phone.
//!
//! Called by the worker's fifth stop. Pure. Nothing that the catalogue's allow-list leaves out may reach a push, and event data
//! never overwrites the envelope.

use serde_json::{Map, Value};

use super::{
    catalogue::Text,
    event::{Event, hash},
};

/// Largest push, in bytes of title, body and data; providers take 4,096 including what Expo adds
/// (<https://docs.expo.dev/push-notifications/sending-notifications/>).
pub const MAX_PUSH_BYTES: usize = 3584;
/// Longest collapse id, in bytes (the `apns-collapse-id` header).
pub const MAX_COLLAPSE_BYTES: usize = 64;

/// Returns the JSON text published on the session channel: the event's data, and the excluded user for the clients' filter.
pub fn published_data(event: &Event) -> String {
    let mut data = event.data.clone();
    if let Some(user) = &event.exclude_user_id {
        data.insert("excludeUserId".into(), user.as_str().into());
    }
    Value::Object(data).to_string()
}

/// Returns the data of a push: what the allow-list lets through, under the envelope `sessionId`, `event` and `eventId`. A push
/// over [`MAX_PUSH_BYTES`] carries the envelope only, plus `truncated: true`.
pub fn pushed_data(event: &Event, text: &Text) -> Map<String, Value> {
    let mut data: Map<String, Value> = match &text.push_data {
        None => event.data.clone(),
        Some(allowed) => {
            let kept = event.data.iter().filter(|(key, _)| allowed.contains(key));
            kept.map(|(key, value)| (key.clone(), value.clone())).collect()
        }
    };
    envelope(&mut data, event);
    let bytes = text.title.len() + text.body.len() + Value::Object(data.clone()).to_string().len();
    if bytes > MAX_PUSH_BYTES {
        data = Map::new();
        envelope(&mut data, event);
        data.insert("truncated".into(), true.into());
    }
    data
}

fn envelope(data: &mut Map<String, Value>, event: &Event) {
    data.insert("sessionId".into(), event.session_id.as_str().into());
    data.insert("event".into(), event.name.as_str().into());
    data.insert("eventId".into(), event.id.as_str().into());
}

/// Returns the id of the message published on Ably: the event's id. A CloudEvent's has a hash of its source behind it: another
/// source may use the same id, and Ably would take its event for a repeat and drop it.
pub fn message_id(event: &Event) -> String {
    match &event.source {
        None => event.id.clone(),
        Some(source) => format!("{}.{}", event.id, &hash([source.as_str()])[..12]),
    }
}

/// Returns the collapse id and Android tag of an event: the id it is published with, hashed when it is too long for Apple.
pub fn collapse_id(event: &Event) -> String {
    let id = message_id(event);
    if id.len() <= MAX_COLLAPSE_BYTES { id } else { hash([id.as_str()]) }
}

/// Returns the key of a push token's target: it names the token in the ledger without telling it.
pub fn token_target(token: &str) -> String {
    format!("expo:{}", &hash(["push token", token])[..12])
}

/// Returns the last four characters of a push token's own part, all that is ever shown of it.
pub fn token_end(token: &str) -> String {
    let own: Vec<char> = token.trim_end_matches(']').chars().collect();
    own[own.len().saturating_sub(4)..].iter().collect()
}

/// Fills `{sessionId}` in a channel template.
pub fn channel(template: &str, session_id: &str) -> String {
    template.replace("{sessionId}", session_id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{
        catalogue::RouteRule,
        event::{Meta, decode},
    };

    fn event(data: Value) -> Event {
        let body =
            json!({"id": "e1", "sessionId": "s1", "event": "session.paused", "excludeUserId": "u1", "data": data});
        decode(body.to_string().as_bytes(), &Meta::default()).unwrap()
    }

    fn text(push_data: Option<&[&str]>) -> Text {
        let push_data = push_data.map(|keys| keys.iter().map(|key| key.to_string()).collect());
        let (title, body, route) = ("Title".into(), "Body".into(), RouteRule::Presence);
        Text { title, body, route, life: None, push_data, channel_id: None, priority: None }
    }

    #[test]
    fn the_excluded_user_travels_in_the_published_data() {
        assert_eq!(published_data(&event(json!({"a": 1}))), r#"{"a":1,"excludeUserId":"u1"}"#);
    }

    #[test]
    fn the_envelope_wins_and_the_allow_list_holds() {
        let event = event(json!({"sessionId": "forged", "reason": "private", "pausedAt": "now"}));
        let envelope = json!({"sessionId": "s1", "event": "session.paused", "eventId": "e1"});
        let with = |extra: Value| {
            let mut all = envelope.as_object().unwrap().clone();
            all.extend(extra.as_object().unwrap().clone());
            all
        };
        assert_eq!(pushed_data(&event, &text(None)), with(json!({"reason": "private", "pausedAt": "now"})));
        assert_eq!(pushed_data(&event, &text(Some(&["pausedAt"]))), with(json!({"pausedAt": "now"})));
        assert_eq!(pushed_data(&event, &text(Some(&[]))), with(json!({})));
    }

    #[test]
    fn a_push_that_is_too_large_carries_the_envelope_only() {
        let data = pushed_data(&event(json!({"long": "x".repeat(3600)})), &text(None));
        assert_eq!(data.keys().collect::<Vec<_>>(), ["event", "eventId", "sessionId", "truncated"]);
    }

    #[test]
    fn an_event_bears_its_id_and_a_cloud_event_its_source_too() {
        let plain = event(json!({}));
        assert_eq!((message_id(&plain).as_str(), collapse_id(&plain).as_str()), ("e1", "e1"));
        let from = |source: &str| Event { source: Some(source.to_owned()), ..event(json!({})) };
        let (one, other) = (from("/one"), from("/other"));
        assert!(message_id(&one).starts_with("e1.") && message_id(&one) == message_id(&from("/one")));
        assert_eq!(message_id(&one), collapse_id(&one));
        assert_ne!(message_id(&one), message_id(&other));
    }

    #[test]
    fn long_ids_are_hashed_for_apple() {
        let long = Event { id: "x".repeat(65), ..event(json!({})) };
        assert!(collapse_id(&long).len() <= MAX_COLLAPSE_BYTES);
        assert_ne!(collapse_id(&long), collapse_id(&Event { source: Some("/one".to_owned()), ..long.clone() }));
    }

    #[test]
    fn a_token_is_told_by_its_end_only() {
        assert_eq!(token_end("ExponentPushToken[abcdefgh]"), "efgh");
        assert_eq!(token_end("x"), "x");
        let target = token_target("ExponentPushToken[abcdefgh]");
        assert!(target.starts_with("expo:") && target.len() == 17 && !target.contains("abc"));
    }
}
