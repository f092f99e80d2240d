//! What must hold for every answer, whoever wrote it: checked by a property test here and by the fuzz target `expo_answer`.
//!
//! Exists in tests and under cargo-fuzz only. Panics where something does not hold.

use bytes::Bytes;
use http::HeaderMap;

use super::{
    Push,
    classify::{Refused, item_failure, refused},
    send::{Message, tickets},
    wire,
};
use crate::{domain::outcome::Failure, provider::http::Reply};

/// Tokens of the notifications that are answered, of both forms.
pub const TOKENS: [&str; 3] =
    ["ExponentPushToken[canary-one]", "f5741a13-bcda-434b-a316-5dc0e6ffa94f", "ExpoPushToken[canary-three]"];

/// Reads `body` as every kind of answer and checks what is made of it.
pub fn check(status: u16, header: &[u8], body: &[u8]) {
    let value = http::HeaderValue::from_bytes(header);
    let headers = HeaderMap::from_iter(value.map(|value| (http::header::RETRY_AFTER, value)));
    let reply = Reply { status, headers, body: Bytes::copy_from_slice(body) };

    let (Refused::Whole(failure) | Refused::Mix(_, failure) | Refused::Items(_, failure)) = refused(&reply, TOKENS);
    // Any of the request's tokens may be quoted.
    TOKENS.iter().for_each(|token| own(&failure, token));
    if let Some(error) = wire::request_error(body) {
        let named = wire::named_messages(&error.message, TOKENS.len());
        assert!(named.is_sorted_by(|a, b| a < b) && named.iter().all(|position| *position < TOKENS.len()));
        if let Some(groups) = wire::by_project(&TOKENS, error.details.as_ref()) {
            let mut all: Vec<usize> = groups.iter().flatten().copied().collect();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2], "each message is in one group");
            assert!(groups.len() > 1 && groups.iter().all(|group| !group.is_empty()));
        }
    }
    for verdict in wire::receipts(body).unwrap_or_default().into_values() {
        let failure = item_failure(&verdict, None);
        assert!(failure.detail.len() <= 300 && failure.code.len() <= 64, "{failure:?}");
    }

    let messages = TOKENS.map(|token| {
        Message::new(Push {
            token: token.to_owned(),
            title: String::new(),
            body: String::new(),
            data: serde_json::Map::new(),
            collapse_id: String::new(),
            ttl_seconds: 1,
            channel_id: None,
            priority: None,
            until: None,
        })
    });
    for count in 1..=messages.len() {
        let sent: Vec<&Message> = messages[..count].iter().collect();
        match tickets(&reply, &sent) {
            Err(failure) => TOKENS[..count].iter().for_each(|token| own(&failure, token)),
            Ok(read) => {
                let verdicts = wire::tickets(body).expect("an answer was read");
                assert_eq!((read.len(), verdicts.len()), (count, count));
                for ((answer, verdict), token) in read.into_iter().zip(verdicts).zip(TOKENS) {
                    assert!(verdict.token().is_none_or(|named| named == token), "a ticket of another token");
                    assert_eq!(answer.is_ok(), verdict.status == "ok");
                    match answer {
                        Ok(id) => assert_eq!(id, verdict.id),
                        Err(failure) => own(&failure, token),
                    }
                }
            }
        }
    }
}

fn own(failure: &Failure, token: &str) {
    assert!(failure.detail.len() <= 300 && failure.code.len() <= 64, "{failure:?}");
    assert!(!failure.to_string().contains(char::is_control), "{failure:?}");
    assert!(!failure.to_string().contains(token), "{failure:?}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn ticket() -> impl Strategy<Value = Value> {
        let error = |(code, token): (&str, &str)| {
            let message = format!("\"{token}\" {code}");
            json!({"status": "error", "message": message, "details": {"error": code, "expoPushToken": token, "fcm": {"error": token}}})
        };
        let codes = vec!["DeviceNotRegistered", "ProviderError", "", "f5741a13-bcda-434b-a316-5dc0e6ffa94f", TOKENS[0]];
        prop_oneof![
            any::<u8>().prop_map(|id| json!({"status": "ok", "id": id.to_string()})),
            (prop::sample::select(codes), prop::sample::select(TOKENS.to_vec())).prop_map(error),
            Just(json!({"status": "error"})),
            Just(json!({"status": 1})),
        ]
    }

    fn error() -> impl Strategy<Value = Value> {
        let codes = prop::sample::select(vec![
            json!("PUSH_TOO_MANY_EXPERIENCE_IDS"),
            json!("UNAUTHORIZED"),
            json!(TOKENS[1]),
            json!(7),
        ]);
        let projects = prop::collection::btree_map(
            "@[a-c]",
            prop::collection::vec(prop::sample::select(TOKENS.to_vec()), 0..3),
            0..3,
        );
        (codes, "[0-9\".\\[a-z ]{0,20}", projects).prop_map(|(code, words, details)| {
            let message = format!("{words} \"1.to\": {} {}", TOKENS[1], TOKENS[2]);
            json!({"errors": [{"code": code, "message": message, "details": details, "requestId": TOKENS[1]}]})
        })
    }

    fn body() -> impl Strategy<Value = Vec<u8>> {
        let tickets = prop::collection::vec(ticket(), 0..5);
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            tickets.prop_map(|tickets| json!({ "data": tickets }).to_string().into_bytes()),
            ticket().prop_map(|ticket| json!({ "data": ticket }).to_string().into_bytes()),
            ticket().prop_map(|ticket| json!({"data": {"id-1": ticket}}).to_string().into_bytes()),
            error().prop_map(|error| error.to_string().into_bytes()),
            Just(format!(r#"{{"error":"{}","error_description":"{}"}}"#, TOKENS[1], TOKENS[0]).into_bytes()),
            Just(format!("<html>{}</html>", TOKENS.join(" ")).into_bytes()),
        ]
    }

    proptest! {
        #[test]
        fn no_answer_panics_quotes_a_token_or_goes_to_the_wrong_message(status in 100u16..600, header: Vec<u8>, body in body()) {
            check(status, &header, &body);
        }
    }

    #[test]
    fn a_ticket_that_names_another_token_clears_none() {
        let gone = |token: &str| json!({"status": "error", "details": {"error": "DeviceNotRegistered", "expoPushToken": token}});
        let body = json!({"data": [{"status": "ok", "id": "1"}, gone(TOKENS[0])]}).to_string();
        check(200, b"", body.as_bytes());
        assert!(wire::tickets(body.as_bytes()).is_some(), "it is readable, and yet nobody's");
    }
}
