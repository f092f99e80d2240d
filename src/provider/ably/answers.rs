//! What must hold for every answer, whoever wrote it: checked by a property test here and by the fuzz target `ably_answer`.
//!
//! Exists in tests and under cargo-fuzz only. Panics where something does not hold.

use bytes::Bytes;
use http::HeaderMap;

use super::{
    Publish,
    classify::{fault, item_fault},
    publish::{Message, answers},
    wire,
};
use crate::{domain::outcome::Failure, provider::http::Reply};

/// Channels of the batch that is answered; two messages go to the first one.
pub const CHANNELS: [&str; 4] = ["a", "b,c", "\"d\" é", "a"];

/// Reads `body` as every kind of answer and checks what is made of it.
pub fn check(status: u16, header: &[u8], body: &[u8]) {
    let mut headers = HeaderMap::new();
    for name in ["link", "x-ably-errorcode", "x-ably-errormessage", "retry-after"] {
        if let Ok(value) = http::HeaderValue::from_bytes(header) {
            headers.append(name, value);
        }
    }
    let reply = Reply { status, headers, body: Bytes::copy_from_slice(body) };

    sound(&fault(&reply).failure);
    let _ = wire::published(&reply);
    if let Some(members) = wire::members(&reply) {
        assert!(wire::count(&members, "u") as usize <= members.len());
    }
    if let Some(next) = wire::next_page(&reply, "/channels/a/presence?limit=1") {
        assert!(next.starts_with('/') && !next.contains(['#', '\n']), "{next:?}");
    }

    let messages = CHANNELS.map(|channel| {
        let (name, data, id) = ("e".to_owned(), "{}".to_owned(), "own".to_owned());
        Message::new(Publish { channel: channel.to_owned(), name, data, id, until: None })
    });
    for count in 1..=messages.len() {
        let sent: Vec<&Message> = messages[..count].iter().collect();
        match answers(&reply, &sent) {
            Err(failure) => sound(&failure),
            Ok(read) => {
                let results = wire::results(&reply).expect("an answer was read");
                assert_eq!((read.len(), results.len()), (count, count));
                for ((answer, result), channel) in read.into_iter().zip(results).zip(CHANNELS) {
                    assert!(result.channel.is_empty() || result.channel == channel, "an answer for another channel");
                    match (answer, result.error) {
                        (Ok(id), None) => assert_eq!(id, result.message_id.unwrap_or_else(|| "own".to_owned())),
                        (Err(failure), Some(error)) => {
                            sound(&failure);
                            assert_eq!(failure, item_fault(error).failure);
                        }
                        (answer, error) => panic!("{answer:?} of {error:?}"),
                    }
                }
            }
        }
    }
}

fn sound(failure: &Failure) {
    assert!(failure.detail.len() <= 300 && failure.code.len() <= 64, "{failure:?}");
    assert!(!failure.to_string().contains(char::is_control), "{failure:?}");
    let quoted = ["ExponentPushToken[", "ExpoPushToken["].map(|token| failure.to_string().contains(token));
    assert_eq!(quoted, [false, false], "{failure:?}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn result() -> impl Strategy<Value = Value> + Clone {
        let channel = prop::sample::select(CHANNELS.to_vec());
        let error = json!({"code": 40160, "statusCode": 401, "message": "ExponentPushToken[x]\0"});
        prop_oneof![
            channel.clone().prop_map(|channel| json!({"channel": channel, "messageId": format!("of {channel}")})),
            channel.clone().prop_map(move |channel| json!({"channel": channel, "error": error})),
            channel.prop_map(|channel| json!({"channel": channel, "presence": [{"clientId": "u", "action": 1}]})),
            Just(json!({"messageId": null})),
            Just(json!({"channel": 1})),
        ]
    }

    fn body() -> impl Strategy<Value = Vec<u8>> {
        let results = prop::collection::vec(result(), 0..6);
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            results.clone().prop_map(|results| json!(results).to_string().into_bytes()),
            results.clone().prop_map(|results| json!({ "results": results }).to_string().into_bytes()),
            results.clone().prop_map(|results| json!({ "batchResponse": results }).to_string().into_bytes()),
            results.prop_map(|results| {
                let specs: Vec<Value> = results.into_iter().map(|result| json!({ "results": [result] })).collect();
                json!(specs).to_string().into_bytes()
            }),
        ]
    }

    proptest! {
        #[test]
        fn no_answer_panics_or_goes_to_the_wrong_message(status in 100u16..600, header: Vec<u8>, body in body()) {
            check(status, &header, &body);
        }
    }

    #[test]
    fn results_in_another_order_are_nobodys() {
        let [a, b] = ["a", "b"].map(|channel| {
            let text = || channel.to_owned();
            Message::new(Publish { channel: text(), name: text(), data: text(), id: text(), until: None })
        });
        let swapped = json!([{"results": [{"channel": "b", "messageId": "1"}]}, {"results": [{"channel": "a", "messageId": "2"}]}]);
        let reply = Reply { status: 201, headers: HeaderMap::new(), body: swapped.to_string().into() };
        let failure = answers(&reply, &[&a, &b]).unwrap_err();
        assert_eq!(failure.code, "unreadable");
        assert_eq!(answers(&reply, &[&b, &a]), Ok(vec![Ok("1".to_owned()), Ok("2".to_owned())]));
    }
}
