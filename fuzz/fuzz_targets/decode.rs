//! Any message, plain or a CloudEvent: decoded or malformed, and what is decoded can be named, hashed, published and pushed.
//!
//! The input reads as a message does elsewhere: lines `name: value` (message_id, content_type or a header), an empty line, the body.
#![no_main]

use herald::domain::{
    bounded,
    catalogue::Catalogue,
    event::{MAX_STRING_BYTES, Meta, decode, is_attribute},
    payload, redact,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let end = input.windows(2).position(|two| two == b"\n\n");
    let (head, body) = end.map_or((&b""[..], input), |at| (&input[..at], &input[at + 2..]));
    let head = String::from_utf8_lossy(head);
    let mut meta = Meta::default();
    for line in head.split('\n') {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        match name {
            "message_id" => meta.message_id = Some(value),
            "content_type" => meta.content_type = Some(value),
            // A value may be anything the broker's view of a header can be: JSON if it is JSON, else text.
            name if is_attribute(name) => {
                let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
                meta.headers.insert(name.to_owned(), value);
            }
            _ => {}
        }
        let clean = redact(value);
        assert!(clean.len() <= 300);
        // What stands in a token's place begins with a bracket itself.
        let rest = clean.replace("[push token]", "");
        assert!(!rest.contains("ExponentPushToken[") && !rest.contains("ExpoPushToken["), "{clean}");
        assert!(bounded(value, 64).len() <= 64);
    }
    match decode(body, &meta) {
        Err(malformed) => assert!(malformed.to_string().len() < 1000),
        Ok(event) => {
            for text in [&event.id, &event.session_id, &event.name].into_iter().chain(&event.source) {
                assert!(!text.is_empty() && text.len() <= MAX_STRING_BYTES && !text.contains(char::is_control));
            }
            assert_eq!((event.identity().len(), event.fingerprint().len()), (32, 32));
            assert!(payload::message_id(&event).starts_with(&event.id));
            assert!(payload::collapse_id(&event).len() <= payload::MAX_COLLAPSE_BYTES);
            let published = payload::published_data(&event);
            let catalogue = Catalogue::parse(herald::config::MESSAGES).expect("the shipped catalogue");
            let text = catalogue.text(&event.name);
            assert!(payload::pushed_data(&event, text).contains_key("eventId"));
            // What is published reads as the same event again.
            let again = format!(r#"{{"id":"i","sessionId":"s","event":"e","data":{published}}}"#);
            if again.len() < 64 * 1024 {
                assert!(decode(again.as_bytes(), &Meta::default()).is_ok());
            }
        }
    }
});
