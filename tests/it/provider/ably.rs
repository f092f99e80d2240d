//! Ably: presence and publish, alone and in batches.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn client_with(url: &str, timeout: Duration) -> Ably {
    let config = config::Ably {
        url: url.parse().unwrap(),
        key: None,
        timeout,
        session_channel: "beheard:session:{sessionId}".to_owned(),
        presence_channel: "beheard:session:{sessionId}:presence".to_owned(),
    };
    Ably::new(&config, &SecretString::from("app.key:very-secret")).unwrap()
}

fn client(url: &str) -> Ably {
    client_with(url, Duration::from_secs(5))
}

fn message(number: usize) -> Publish {
    let (name, data) = ("partner.advanced".to_owned(), r#"{"toStage":2}"#.to_owned());
    Publish { channel: format!("beheard:session:{number}"), name, data, id: format!("evt-{number}"), until: None }
}

async fn publish_many(ably: &Ably, count: usize) -> Vec<Result<String, Refusal>> {
    within(60, "publishes", join_all((0..count).map(|number| ably.publish(message(number))))).await
}

fn error(status: u16, code: u32) -> Act {
    answer(status, json!({ "error": { "code": code, "statusCode": status, "message": "as scripted" } }))
}

/// Answers a batch publish: an error for channels named in `bad`, acceptance for the others.
fn batch_answer(seen: &Seen, bad: &[(&str, u16, u32)]) -> Act {
    let specs = seen.body.as_array().unwrap().iter().map(|spec| {
        let channel = spec["channels"][0].as_str().unwrap();
        let result = match bad.iter().find(|(name, ..)| *name == channel) {
            None => json!({ "channel": channel, "messageId": spec["messages"][0]["id"] }),
            Some((_, status, code)) => {
                json!({ "channel": channel, "error": { "code": code, "statusCode": status, "message": "no" } })
            }
        };
        json!({ "successCount": 1, "failureCount": 0, "results": [result] })
    });
    answer(201, Value::Array(specs.collect()))
}

#[tokio::test]
async fn one_message_goes_to_the_endpoint_that_drops_repeats() {
    let server =
        Server::start(|_, _| answer(201, json!({ "channel": "x", "messageId": "evt-7", "serials": ["s"] }))).await;
    let ably = client(&server.url());
    assert_eq!(ably.publish(message(7)).await, Ok("evt-7".to_owned()));
    let channel = "chat:room 1/ü".to_owned();
    assert_eq!(ably.publish(Publish { channel, id: "a:3".to_owned(), ..message(1) }).await, Ok("evt-7".to_owned()));
    let seen = server.seen();
    assert_eq!(
        (seen[0].method.as_str(), seen[0].target.as_str()),
        ("POST", "/channels/beheard%3Asession%3A7/messages")
    );
    assert_eq!(seen[1].target, "/channels/chat%3Aroom%201%2F%C3%BC/messages");
    let mut expected =
        json!({ "name": "partner.advanced", "data": "{\"toStage\":2}", "id": "evt-7", "encoding": "json" });
    assert_eq!(seen[0].body, json!([expected]));
    expected["id"] = "a:3".into();
    assert_eq!(seen[1].body, expected);
    for (name, value) in [
        ("x-ably-version", "6"),
        ("ably-agent", concat!("herald/", env!("CARGO_PKG_VERSION"))),
        ("authorization", "Basic YXBwLmtleTp2ZXJ5LXNlY3JldA=="),
        ("accept", "application/json"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(seen[0].header(name), value);
    }
}

#[tokio::test]
async fn a_hundred_messages_cost_one_request_and_a_bad_one_fails_alone() {
    let server = Server::start(|_, seen| {
        let bad =
            [("beheard:session:3", 400, 40010), ("beheard:session:5", 429, 42913), ("beheard:session:9", 401, 40160)];
        batch_answer(seen, &bad)
    })
    .await;
    let ably = client(&server.url());
    let answers = publish_many(&ably, 100).await;
    assert_eq!(server.targets(), ["/messages"]);
    for (number, answer) in answers.iter().enumerate() {
        let expected = match number {
            3 => Some(FailureKind::Rejected),
            5 => Some(FailureKind::Throttled),
            // The key is good for the others, so this channel is at fault.
            9 => Some(FailureKind::Transient),
            _ => None,
        };
        assert_eq!(kind(answer), expected, "{number}: {answer:?}");
        assert!(expected.is_some() || answer == &Ok(format!("evt-{number}")));
    }
    let body = &server.seen()[0].body;
    let ids = body.as_array().unwrap().iter().map(|spec| spec["messages"][0]["id"].as_str().unwrap().to_owned());
    assert!(ids.eq((0..100).map(|number| format!("evt-{number}"))), "in the order they were asked for");
    assert_eq!(ably.gate().admission(), Admission::Open);
}

#[tokio::test]
async fn a_batch_refused_for_one_message_is_split_down_to_it() {
    let server = Server::start(|_, seen| {
        let text = seen.body.to_string();
        if seen.target == "/messages" {
            return if text.contains("evt-6\"") { error(413, 40009) } else { batch_answer(seen, &[]) };
        }
        if text.contains("evt-6\"") {
            error(413, 40009)
        } else {
            answer(201, json!({ "messageId": seen.body[0]["id"] }))
        }
    })
    .await;
    let answers = publish_many(&client(&server.url()), 16).await;
    for (number, answer) in answers.iter().enumerate() {
        match number {
            6 => assert_eq!(kind(answer), Some(FailureKind::Rejected)),
            _ => assert_eq!(answer, &Ok(format!("evt-{number}"))),
        }
    }
    assert!(server.seen().len() <= 9, "{:?}", server.targets());
}

#[tokio::test]
async fn batches_in_the_shapes_of_the_old_protocol_are_understood() {
    let server = Server::start(|_, _| {
        let results = json!([
            { "channel": "beheard:session:0", "messageId": "m0" },
            { "channel": "beheard:session:1", "error": { "code": 40010, "statusCode": 400, "message": "no" } }
        ]);
        let error = json!({ "code": 40020, "statusCode": 400, "message": "Batched response includes errors" });
        answer(400, json!({ "error": error, "batchResponse": results }))
    })
    .await;
    let answers = publish_many(&client(&server.url()), 2).await;
    assert_eq!((&answers[0], kind(&answers[1])), (&Ok("m0".to_owned()), Some(FailureKind::Rejected)));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_batch_that_may_have_been_heard_is_unknown_and_never_repeated() {
    for (act, name) in [
        (Box::new(|| answer(503, "<html>")) as Box<dyn Fn() -> Act + Send + Sync>, "503"),
        (Box::new(|| Act::Hang), "hang"),
        (Box::new(|| Act::BreakOff), "broken off"),
        (Box::new(|| answer(201, "<html>hello")), "garbage"),
        (Box::new(|| answer(201, "[]")), "too few results"),
    ] {
        let server = Server::start(move |_, _| act()).await;
        let answers = publish_many(&client_with(&server.url(), Duration::from_millis(400)), 3).await;
        assert!(answers.iter().all(|answer| kind(answer) == Some(FailureKind::Unknown)), "{name}: {answers:?}");
        assert_eq!(server.seen().len(), 1, "{name}");
    }
    for read in [true, false] {
        let (url, connections) = closing(read).await;
        let answers = publish_many(&client(&url), 3).await;
        assert!(answers.iter().all(|answer| kind(answer) == Some(FailureKind::Unknown)), "{answers:?}");
        assert_eq!(*connections.lock().unwrap(), 1);
    }
}

#[tokio::test]
async fn what_was_never_sent_is_transient() {
    let (url, _socket) = refusing();
    let ably = client(&url);
    for count in [1, 3] {
        let started = Instant::now();
        let answers = publish_many(&ably, count).await;
        assert!(answers.iter().all(|answer| kind(answer) == Some(FailureKind::Transient)), "{answers:?}");
        assert!(started.elapsed() > Duration::from_millis(200), "with quick tries");
    }
}

#[tokio::test]
async fn one_message_is_repeated_with_its_id_until_it_is_answered() {
    let server = Server::start(|number, _| match number {
        0 => answer(500, "oops"),
        1 => Act::BreakOff,
        _ => answer(201, json!({ "messageId": "evt-1" })),
    })
    .await;
    assert_eq!(client(&server.url()).publish(message(1)).await, Ok("evt-1".to_owned()));
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|request| request.body == seen[0].body));
}

#[tokio::test]
async fn one_message_without_an_answer_ends_as_what_is_known_of_it() {
    for (act, expected) in [
        (
            Box::new(|| answer(502, "<html>\n502 Bad Gateway")) as Box<dyn Fn() -> Act + Send + Sync>,
            FailureKind::Transient,
        ),
        (Box::new(|| Act::Hang), FailureKind::Unknown),
        (Box::new(|| error(504, 50003)), FailureKind::Unknown),
        (Box::new(|| answer(200, "hello from the hotel's wifi")), FailureKind::Unknown),
        (Box::new(|| error(400, 40013)), FailureKind::Rejected),
        (Box::new(|| error(429, 42913)), FailureKind::Throttled),
    ] {
        let server = Server::start(move |_, _| act()).await;
        let answer = client_with(&server.url(), Duration::from_millis(300)).publish(message(1)).await;
        assert_eq!(kind(&answer), Some(expected), "{answer:?}");
        assert!(server.seen().len() > 1 || expected == FailureKind::Rejected || format!("{answer:?}").contains("wifi"));
    }
}

#[tokio::test]
async fn an_earlier_lost_answer_is_not_forgotten_over_a_later_failure() {
    let server = Server::start(|number, _| if number == 0 { Act::BreakOff } else { answer(503, "down") }).await;
    let answer = client(&server.url()).publish(message(1)).await;
    assert_eq!(kind(&answer), Some(FailureKind::Unknown));
}

#[tokio::test]
async fn a_short_throttle_waits_in_hand_and_a_long_one_holds() {
    let server = Server::start(|number, _| match number {
        0 => error(429, 42918),
        1 => answer(201, json!({ "messageId": "m" })),
        _ => answer_with(429, ("retry-after", "60"), r#"{"error":{"code":42917,"statusCode":429}}"#),
    })
    .await;
    let ably = client(&server.url());
    let started = Instant::now();
    assert_eq!(ably.publish(message(1)).await, Ok("m".to_owned()));
    assert!(started.elapsed() >= Duration::from_millis(900));
    assert_eq!(ably.publish(message(2)).await, Err(Refusal::Held(HoldCause::Throttled)));
    assert_eq!(ably.publish(message(3)).await, Err(Refusal::Held(HoldCause::Throttled)));
    assert_eq!(ably.presence("c", "u").await.unwrap_err().code, "held_throttled");
    assert_eq!(server.seen().len(), 3, "a shut gate makes no requests");
    assert!(ably.gate().state().why.contains("42917"));
}

#[tokio::test]
async fn refused_credentials_shut_the_gate_and_name_no_secret() {
    let server = Server::start(|_, _| error(401, 40101)).await;
    let ably = client(&server.url());
    assert_eq!(ably.publish(message(1)).await, Err(Refusal::Held(HoldCause::Unauthorised)));
    assert_eq!(ably.presence("c", "u").await.unwrap_err().code, "held_unauthorised");
    assert_eq!(ably.gate().admission(), Admission::Shut(HoldCause::Unauthorised));
    assert!(!format!("{:?}", ably.gate()).contains("secret"));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn presence_asks_for_one_user_and_follows_the_pages() {
    let server = Server::start(|_, seen| match seen.target.as_str() {
        "/channels/a%3Apresence/presence?clientId=u%261&limit=100" => {
            answer_with(200, ("link", r#"<./presence?limit=100&cursor=x%3D>; rel="next""#), "[]")
        }
        "/channels/a%3Apresence/presence?limit=100&cursor=x%3D" => answer(
            200,
            json!([{ "clientId": "u&1", "action": 1, "connectionId": "c1" }, { "clientId": "u&1", "action": 1 }]),
        ),
        _ => answer(200, "[]"),
    })
    .await;
    let ably = client(&server.url());
    assert_eq!(ably.presence("a:presence", "u&1").await, Ok(Presence { members: 2 }));
    assert_eq!(ably.presence("b:presence", "u").await, Ok(Presence { members: 0 }));
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_hundred_look_ups_cost_one_request_and_members_are_matched_here() {
    let server = Server::start(|_, seen| {
        if !seen.target.starts_with("/presence?") {
            return answer(200, json!([{ "clientId": "u7", "action": 1 }]));
        }
        let query = seen.target.split_once('=').unwrap().1;
        let names: Vec<&str> = query.split("%2C").collect();
        let results = names.iter().rev().map(|name| match *name {
            "c3" => json!({ "channel": "c3", "error": { "code": 50000, "statusCode": 500, "message": "no" } }),
            "c7" => json!({ "channel": "c7", "error": { "code": 40160, "statusCode": 401, "message": "no" } }),
            name => {
                let user = name.replace('c', "u");
                let gone = json!({ "clientId": user, "action": 3 });
                json!({ "channel": name, "presence": [gone, { "clientId": if user == "u5" { "x" } else { &user }, "action": 1 }] })
            }
        });
        answer(200, json!({ "successCount": 98, "failureCount": 2, "results": results.collect::<Vec<_>>() }))
    })
    .await;
    let ably = client(&server.url());
    let names: Vec<(String, String)> = (0..100).map(|number| (format!("c{number}"), format!("u{number}"))).collect();
    let answers = join_all(names.iter().map(|(channel, user)| ably.presence(channel, user))).await;
    for (number, answer) in answers.iter().enumerate() {
        match number {
            3 => assert_eq!(answer.as_ref().map_err(|failure| failure.code.as_str()), Err("50000")),
            5 => assert_eq!(answer, &Ok(Presence { members: 0 })),
            _ => assert_eq!(answer, &Ok(Presence { members: 1 }), "{number}"),
        }
    }
    let targets = server.targets();
    assert!(targets[0].starts_with("/presence?channels="));
    // Keys limited to patterns of channels may be refused by the batch and not by the single endpoint.
    assert_eq!(targets[1..], ["/channels/c7/presence?clientId=u7&limit=100"]);
}

#[tokio::test]
async fn channels_with_a_comma_are_looked_up_alone() {
    let server = Server::start(|_, seen| match seen.target.as_str() {
        "/presence?channels=b" => answer(200, json!({ "results": [{ "channel": "b", "presence": [] }] })),
        "/channels/a%2Cb/presence?clientId=u&limit=100" => answer(200, json!([{ "clientId": "u", "action": 1 }])),
        other => panic!("not expected: {other}"),
    })
    .await;
    let ably = client(&server.url());
    let (with, without) = tokio::join!(ably.presence("a,b", "u"), ably.presence("b", "u"));
    assert_eq!((with, without), (Ok(Presence { members: 1 }), Ok(Presence { members: 0 })));
}

#[tokio::test]
async fn a_failed_look_up_is_a_failure_and_never_absence() {
    for (act, code) in [
        (Box::new(|| answer(502, "<html>")) as Box<dyn Fn() -> Act + Send + Sync>, "http_502"),
        (Box::new(|| answer(200, "<html>")), "unreadable"),
        (Box::new(|| Act::Hang), "timeout"),
        (Box::new(|| error(401, 40160)), "40160"),
        (Box::new(|| answer(200, "[".repeat(1_500_000))), "too_long"),
    ] {
        let server = Server::start(move |_, _| act()).await;
        let ably = client_with(&server.url(), Duration::from_millis(500));
        assert_eq!(ably.presence("c", "u").await.map_err(|failure| failure.code), Err(code.to_owned()));
        assert_eq!(ably.gate().state().shut, None, "one failed look-up shuts nothing: {code}");
    }
}

#[tokio::test]
async fn the_breaker_holds_after_five_failures_and_a_look_up_serves_as_the_probe() {
    let down = Arc::new(AtomicBool::new(true));
    let scripted = down.clone();
    let server = Server::start(
        move |_, _| {
            if scripted.load(Ordering::SeqCst) { answer(505, "down") } else { answer(200, "[]") }
        },
    )
    .await;
    let ably = client(&server.url());
    let mut failures = 0;
    while ably.gate().state().shut.is_none() {
        assert_eq!(kind(&ably.publish(message(failures)).await), Some(FailureKind::Transient));
        failures += 1;
    }
    assert_eq!(failures, 5);
    let requests = server.seen().len();
    assert_eq!(ably.publish(message(9)).await, Err(Refusal::Held(HoldCause::Breaker)));
    assert_eq!(server.seen().len(), requests, "no request while it is open");
    until_probe(ably.gate()).await;
    assert_eq!(ably.presence("c", "u").await.unwrap_err().code, "held_breaker", "a failed probe");
    assert_eq!(ably.gate().admission(), Admission::Shut(HoldCause::Breaker));
    down.store(false, Ordering::SeqCst);
    until_probe(ably.gate()).await;
    assert_eq!(ably.presence("c", "u").await, Ok(Presence { members: 0 }));
    assert_eq!(ably.gate().admission(), Admission::Open);
}

#[tokio::test]
async fn check_tries_out_both_capabilities_on_a_session_nobody_has() {
    let server = Server::start(|_, seen| match (seen.method.as_str(), seen.target.as_str()) {
        ("GET", "/time") => answer(200, "[1700000000000]"),
        ("GET", _) => answer(200, "[]"),
        _ => error(401, 40160),
    })
    .await;
    let ably = client(&server.url());
    assert_eq!(ably.time().await.unwrap().as_millisecond(), 1_700_000_000_000);
    let results = ably.check().await;
    assert_eq!(results.len(), 2);
    assert!(results[0].0.contains("subscribe") && results[0].1.is_ok());
    assert!(results[1].0.contains("publish") && results[1].1.as_ref().is_err_and(|failure| failure.code == "40160"));
    let targets = server.targets();
    assert!(
        targets[1].starts_with("/channels/beheard%3Asession%3Aherald-check-") && targets[1].contains("%3Apresence/")
    );
    assert!(targets[2].starts_with("/channels/beheard%3Asession%3Aherald-check-") && targets[2].ends_with("/messages"));
    assert_eq!(ably.gate().admission(), Admission::Open, "check works beside the gate");
    let (url, _socket) = refusing();
    let failure: Failure = client(&url).time().await.unwrap_err();
    assert_eq!((failure.kind, failure.code.as_str()), (FailureKind::Transient, "connect"));
}
