//! Any body and message id: decoded or malformed, and what is decoded can be named, hashed, published and pushed.
#![no_main]

use herald::domain::{
    bounded,
    catalogue::Catalogue,
    event::{MAX_STRING_BYTES, Meta, decode},
    payload, redact,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Option<&str>, &[u8])| {
    let (message_id, body) = input;
    match decode(body, &Meta { message_id }) {
        Err(malformed) => assert!(malformed.to_string().len() < 1000),
        Ok(event) => {
            for text in [&event.id, &event.session_id, &event.name] {
                assert!(!text.is_empty() && text.len() <= MAX_STRING_BYTES && !text.contains(char::is_control));
            }
            assert_eq!((event.identity().len(), event.fingerprint().len()), (32, 32));
            assert!(payload::collapse_id(&event.id).len() <= payload::MAX_COLLAPSE_BYTES);
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
    if let Some(text) = message_id {
        let clean = redact(text);
        assert!(clean.len() <= 300);
        // What stands in a token's place begins with a bracket itself.
        let rest = clean.replace("[push token]", "");
        assert!(!rest.contains("ExponentPushToken[") && !rest.contains("ExpoPushToken["), "{clean}");
        assert!(bounded(text, 64).len() <= 64);
    }
});
