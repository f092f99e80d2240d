//! Tables for Expo's JSON, with bodies as they were seen.

use std::io::Read as _;

use serde_json::json;

use super::*;

fn push() -> Push {
    Push {
        token: "ExponentPushToken[secret]".to_owned(),
        title: "T".to_owned(),
        body: "B".to_owned(),
        data: json!({ "sessionId": "s" }).as_object().unwrap().clone(),
        collapse_id: "evt-1".to_owned(),
        ttl_seconds: 60,
        channel_id: None,
        priority: None,
        until: None,
    }
}

#[test]
fn a_message_has_its_fields_and_no_empty_ones() {
    let read = |push: &Push| serde_json::from_str::<Value>(&message(push)).unwrap();
    let mut expected = json!({
        "to": "ExponentPushToken[secret]", "sound": "default", "title": "T", "body": "B", "data": { "sessionId": "s" },
        "collapseId": "evt-1", "tag": "evt-1", "ttl": 60
    });
    assert_eq!(read(&push()), expected);
    let chosen = Push { channel_id: Some("c".to_owned()), priority: Some("high".to_owned()), ..push() };
    expected["channelId"] = "c".into();
    expected["priority"] = "high".into();
    assert_eq!(read(&chosen), expected);
}

#[test]
fn bodies_over_a_kibibyte_are_gzip() {
    assert_eq!(packed("x".repeat(1024)), (Bytes::from("x".repeat(1024)), false));
    let (bytes, compressed) = packed("x".repeat(1025));
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes.as_ref()).read_to_string(&mut text).unwrap();
    assert!(compressed && bytes.len() < 1025);
    assert_eq!(text, "x".repeat(1025));
}

#[test]
fn tickets_are_read_as_an_array_or_as_one_object() {
    let ok = r#"{"status":"ok","id":"01975b8d-8352-7beb-a000-000000000000"}"#;
    let bad = r#"{"status":"error","message":"gone","details":{"error":"DeviceNotRegistered","expoPushToken":"x","more":[1]}}"#;
    for (body, count) in [
        (format!(r#"{{"data":[{ok},{bad}]}}"#), Some(2)),
        (format!(r#"{{"data":{ok}}}"#), Some(1)),
        (r#"{"data":[]}"#.to_owned(), Some(0)),
        (r#"{"data":[{}]}"#.to_owned(), None),
        ("{}".to_owned(), None),
        ("<html>".to_owned(), None),
    ] {
        assert_eq!(tickets(body.as_bytes()).map(|tickets| tickets.len()), count, "{body}");
    }
    let read = tickets(format!(r#"{{"data":{bad}}}"#).as_bytes()).unwrap();
    assert_eq!((read[0].error(), read[0].id.as_deref()), (Some("DeviceNotRegistered"), None));
    let bare = tickets(br#"{"data":{"status":"error","message":"?"}}"#).unwrap();
    assert_eq!(bare[0].error(), None);
}

#[test]
fn errors_of_a_request_are_read_in_both_shapes() {
    for (body, code, message, transient) in [
        (
            r#"{"errors":[{"code":"VALIDATION_ERROR","type":"USER","message":"bad","isTransient":false,"requestId":"r-1"}]}"#,
            Some("VALIDATION_ERROR"),
            "[request r-1] bad",
            false,
        ),
        (r#"{"errors":[{"code":500,"message":"later","isTransient":true}],"data":null}"#, Some("500"), "later", true),
        (r#"{"errors":[{"message":"no code"}]}"#, None, "no code", false),
        (
            r#"{"error":"invalid_token","error_description":"The bearer token is invalid"}"#,
            Some("invalid_token"),
            "The bearer token is invalid",
            false,
        ),
    ] {
        let error = request_error(body.as_bytes()).unwrap_or_else(|| panic!("unread: {body}"));
        assert_eq!((error.code.as_deref(), error.message.as_str(), error.transient), (code, message, transient));
    }
    for body in ["", "<html>", "{}", r#"{"errors":[]}"#, r#"{"errors":null}"#] {
        assert_eq!(request_error(body.as_bytes()), None, "{body}");
    }
}

#[test]
fn a_validation_error_names_its_messages() {
    let seen = r#"Must correct one of the following issues: ["$": Expected object, received array, "0.interruptionLevel": Invalid enum value. Expected 'active', received 'timeSensitive']."#;
    for (message, count, expected) in [
        (seen, 3, vec![0]),
        (r#""3.body": Required, "1.data.x": bad, "3.title": bad"#, 5, vec![1, 3]),
        (r#""[2].body": no, "7.body": beyond the batch"#, 5, vec![]),
        (r#""2[0]": no"#, 5, vec![2]),
        ("version 1.5 is old", 5, vec![]),
        (r#""to": Required, "x.1": bad, "": bad, "4.": bad"#, 5, vec![]),
    ] {
        assert_eq!(named_messages(message, count), expected, "{message}");
    }
}

#[test]
fn a_mix_of_projects_is_told_apart_by_its_details() {
    let details = json!({ "@o/a": ["t1", "t3"], "@o/b": ["t2"] });
    for (tokens, details, expected) in [
        (vec!["t1", "t2", "t3"], Some(&details), Some(vec![vec![0, 2], vec![1]])),
        (vec!["t1", "x", "t2", "y"], Some(&details), Some(vec![vec![0], vec![2], vec![1, 3]])),
        (vec!["t1", "t1", "t3"], Some(&details), None),
        (vec!["x", "y"], Some(&details), None),
        (vec!["t1", "t2"], Some(&json!("text")), None),
        (vec!["t1", "t2"], None, None),
    ] {
        assert_eq!(by_project(&tokens, details), expected, "{tokens:?}");
    }
}
