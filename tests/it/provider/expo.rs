//! Expo: tickets, splits, what is never sent twice, and receipts.

use super::*;

fn config(url: &str, timeout: Duration) -> config::Expo {
    let access_token = Some(SecretString::from("robot-token"));
    config::Expo {
        url: url.parse().unwrap(),
        access_token,
        timeout,
        rate: 600,
        unknown_repeats: 2,
        unregistered_share: 0.2,
    }
}

fn client(url: &str) -> Expo {
    Expo::new(&config(url, Duration::from_secs(5))).unwrap()
}

fn token(number: usize) -> String {
    format!("ExponentPushToken[secret-{number}]")
}

fn push(number: usize) -> Push {
    Push {
        token: token(number),
        title: "Partner is ready".to_owned(),
        body: "Your turn!".to_owned(),
        data: json!({ "sessionId": "s", "eventId": format!("evt-{number}") }).as_object().unwrap().clone(),
        collapse_id: format!("evt-{number}"),
        ttl_seconds: 3600,
        channel_id: None,
        priority: Some("high".to_owned()),
        until: None,
    }
}

async fn send_many(expo: &Expo, count: usize) -> Vec<Result<Option<String>, Refusal>> {
    within(60, "pushes", join_all((0..count).map(|number| expo.send(push(number))))).await
}

fn recipients(seen: &Seen) -> Vec<String> {
    seen.body.as_array().unwrap().iter().map(|message| message["to"].as_str().unwrap().to_owned()).collect()
}

/// A ticket for each recipient, named after it.
fn tickets(seen: &Seen) -> Act {
    let tickets = recipients(seen).into_iter().map(|to| json!({ "status": "ok", "id": format!("ticket for {to}") }));
    answer(200, json!({ "data": tickets.collect::<Vec<_>>() }))
}

fn ticket(number: usize) -> Result<Option<String>, Refusal> {
    Ok(Some(format!("ticket for {}", token(number))))
}

fn error(status: u16, code: &str, message: &str, details: Value) -> Act {
    let error = json!({ "code": code, "type": "USER", "message": message, "details": details, "isTransient": false });
    answer(status, json!({ "errors": [error] }))
}

#[tokio::test]
async fn a_push_travels_in_an_array_with_the_access_token() {
    let server = Server::start(|_, seen| tickets(seen)).await;
    let expo = client(&format!("{}/", server.url()));
    assert_eq!(expo.send(push(1)).await, ticket(1));
    let seen = &server.seen()[0];
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/--/api/v2/push/send"));
    let expected = json!([{
        "to": token(1), "sound": "default", "title": "Partner is ready", "body": "Your turn!",
        "data": { "sessionId": "s", "eventId": "evt-1" }, "collapseId": "evt-1", "tag": "evt-1", "ttl": 3600,
        "priority": "high"
    }]);
    assert_eq!(seen.body, expected);
    for (name, value) in [
        ("accept", "application/json"),
        ("accept-encoding", "gzip"),
        ("content-type", "application/json"),
        ("authorization", "Bearer robot-token"),
        ("content-encoding", ""),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
}

#[tokio::test]
async fn a_hundred_pushes_cost_one_compressed_request_and_each_has_its_own_answer() {
    let server = Server::start(|_, seen| {
        let tickets = recipients(seen).into_iter().enumerate().map(|(position, to)| {
            let error = match position {
                1 => "DeviceNotRegistered",
                2 => "MessageRateExceeded",
                3 => "MessageTooBig",
                4 => "ProviderError",
                5 => "MismatchSenderId",
                6 => "SomethingNew",
                7 => return json!({ "status": "ok" }),
                _ => return json!({ "status": "ok", "id": format!("ticket for {to}") }),
            };
            json!({ "status": "error", "message": format!("\"{to}\" no"), "details": { "error": error, "x": 1 } })
        });
        answer(200, json!({ "data": tickets.collect::<Vec<_>>() }))
    })
    .await;
    let expo = client(&server.url());
    let answers = send_many(&expo, 100).await;
    assert_eq!(server.seen().len(), 1);
    assert!(server.seen()[0].compressed);
    for (number, answer) in answers.iter().enumerate() {
        let expected = match number {
            1 => FailureKind::Unregistered,
            2 => FailureKind::Throttled,
            3 | 6 => FailureKind::Rejected,
            // The project's credentials are good for the others: this token alone is at fault.
            4 | 5 => FailureKind::Transient,
            7 => {
                assert_eq!(answer, &Ok(None));
                continue;
            }
            _ => {
                assert_eq!(answer, &ticket(number));
                continue;
            }
        };
        assert_eq!(kind(answer), Some(expected), "{number}");
        assert!(!format!("{answer:?}").contains("secret"), "{answer:?}");
    }
    assert_eq!(expo.gate().admission(), Admission::Open);
    assert!(!format!("{:?}", push(1)).contains("secret"));
}

#[tokio::test]
async fn one_ticket_may_come_as_an_object() {
    let server = Server::start(|_, _| answer(200, json!({ "data": { "status": "ok", "id": "t" } }))).await;
    assert_eq!(client(&server.url()).send(push(1)).await, Ok(Some("t".to_owned())));
}

#[tokio::test]
async fn what_expo_may_have_heard_is_unknown_and_not_sent_again() {
    for (act, name) in [
        (
            Box::new(|| answer(500, r#"{"errors":[{"code":"INTERNAL_SERVER_ERROR"}]}"#))
                as Box<dyn Fn() -> Act + Send + Sync>,
            "500",
        ),
        (Box::new(|| answer(502, "<html>\n<h1>502</h1>")), "502"),
        (Box::new(|| answer(504, "upstream connect error")), "504"),
        (Box::new(|| answer(200, "<html>")), "garbage"),
        (Box::new(|| answer(200, json!({ "data": [{ "status": "ok" }] }))), "too few tickets"),
        (Box::new(|| answer(200, "x".repeat(1_200_000))), "endless"),
        (Box::new(|| Act::Hang), "hang"),
        (Box::new(|| Act::BreakOff), "broken off"),
    ] {
        let server = Server::start(move |_, _| act()).await;
        let expo = Expo::new(&config(&server.url(), Duration::from_millis(500))).unwrap();
        let answers = send_many(&expo, 3).await;
        assert!(answers.iter().all(|answer| kind(answer) == Some(FailureKind::Unknown)), "{name}: {answers:?}");
        assert_eq!(server.seen().len(), 1, "{name}");
    }
    for read in [true, false] {
        let (url, connections) = closing(read).await;
        assert_eq!(kind(&client(&url).send(push(1)).await), Some(FailureKind::Unknown));
        assert_eq!(*connections.lock().unwrap(), 1);
    }
}

#[tokio::test]
async fn what_was_never_sent_is_transient_after_quick_tries() {
    let (url, socket) = refusing();
    let started = Instant::now();
    assert_eq!(kind(&client(&url).send(push(1)).await), Some(FailureKind::Transient));
    assert!(started.elapsed() > Duration::from_millis(200));
    let expo = client(&url);
    let sending = tokio::spawn(async move { expo.send(push(1)).await });
    // Past the first attempt and well before the last.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let listener = socket.listen(1).unwrap();
    within(10, "a quick try that connects", listener.accept()).await.unwrap();
    sending.abort();
}

#[tokio::test]
async fn a_failed_handshake_sends_nothing() {
    let server = Server::start(|_, seen| tickets(seen)).await;
    let expo = client(&server.url().replace("http:", "https:"));
    let answer = expo.send(push(1)).await;
    assert_eq!(kind(&answer), Some(FailureKind::Transient), "{answer:?}");
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn a_short_throttle_waits_in_hand_and_a_long_one_holds() {
    let server = Server::start(|number, seen| match number {
        0 => error(429, "TOO_MANY_REQUESTS", "Exceeded 600 notifications per second", Value::Null),
        1 => tickets(seen),
        2 => answer_with(429, ("retry-after", "1"), "<html>"),
        3 => tickets(seen),
        _ => answer_with(429, ("retry-after", "30"), ""),
    })
    .await;
    let expo = client(&server.url());
    for _ in 0..2 {
        let started = Instant::now();
        assert_eq!(expo.send(push(1)).await, ticket(1));
        assert!(started.elapsed() >= Duration::from_millis(900));
    }
    assert_eq!(expo.send(push(1)).await, Err(Refusal::Held(HoldCause::Throttled)));
    assert_eq!(expo.send(push(1)).await, Err(Refusal::Held(HoldCause::Throttled)));
    assert_eq!(server.seen().len(), 5);
}

#[tokio::test]
async fn a_mix_of_projects_is_split_by_its_details_and_sent_again() {
    let server = Server::start(|_, seen| {
        let all = recipients(seen);
        let odd = |to: &&String| to.contains("-1]") || to.contains("-3]");
        let (a, b): (Vec<_>, Vec<_>) = all.iter().partition(odd);
        if a.is_empty() || b.is_empty() {
            return tickets(seen);
        }
        error(400, "PUSH_TOO_MANY_EXPERIENCE_IDS", "mixed", json!({ "@o/a": a, "@o/b": b }))
    })
    .await;
    let answers = send_many(&client(&server.url()), 5).await;
    assert_eq!(answers, (0..5).map(ticket).collect::<Vec<_>>());
    let requests: Vec<usize> = server.seen().iter().map(|seen| recipients(seen).len()).collect();
    assert_eq!(requests, [5, 2, 3]);
}

#[tokio::test]
async fn a_validation_error_ejects_what_it_names() {
    let server = Server::start(|_, seen| match recipients(seen).iter().position(|to| *to == token(3)) {
        Some(position) => {
            let message = format!(r#"Must correct one of the following issues: ["{position}.data": Required]."#);
            error(400, "VALIDATION_ERROR", &message, Value::Null)
        }
        None => tickets(seen),
    })
    .await;
    let answers = send_many(&client(&server.url()), 10).await;
    for (number, answer) in answers.iter().enumerate() {
        match number {
            3 => assert_eq!(kind(answer), Some(FailureKind::Rejected)),
            _ => assert_eq!(answer, &ticket(number)),
        }
    }
    let requests: Vec<usize> = server.seen().iter().map(|seen| recipients(seen).len()).collect();
    assert_eq!(requests, [10, 9, 1]);
}

#[tokio::test]
async fn a_refusal_that_names_nobody_is_halved_down_to_the_culprit() {
    let server = Server::start(|_, seen| match recipients(seen).contains(&token(5)) {
        true => error(400, "VALIDATION_ERROR", "something is wrong", Value::Null),
        false => tickets(seen),
    })
    .await;
    let answers = send_many(&client(&server.url()), 16).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 15);
    assert_eq!(kind(&answers[5]), Some(FailureKind::Rejected));
    assert_eq!(server.seen().len(), 9);
}

#[tokio::test]
async fn refused_credentials_shut_the_gate_in_either_shape() {
    for (act, code) in [
        (
            Box::new(|| answer(401, r#"{"error":"invalid_token","error_description":"The bearer token is invalid"}"#))
                as Box<dyn Fn() -> Act + Send + Sync>,
            "invalid_token",
        ),
        (Box::new(|| error(403, "UNAUTHORIZED", "Insufficient permissions", Value::Null)), "UNAUTHORIZED"),
        (
            Box::new(|| {
                let details = json!({ "error": "InvalidCredentials", "fault": "developer" });
                answer(200, json!({ "data": [{ "status": "error", "message": "no key", "details": details }] }))
            }),
            "InvalidCredentials",
        ),
    ] {
        let server = Server::start(move |_, _| act()).await;
        let expo = client(&server.url());
        assert_eq!(expo.send(push(1)).await, Err(Refusal::Held(HoldCause::Unauthorised)));
        assert_eq!(expo.send(push(2)).await, Err(Refusal::Held(HoldCause::Unauthorised)));
        assert_eq!(server.seen().len(), 1, "{code}");
        let state = expo.gate().state();
        assert!(state.why.contains(code) && !state.why.contains("robot-token"), "{}", state.why);
    }
}

#[tokio::test]
async fn the_gate_shuts_after_five_failures_and_a_probe_asks_something_harmless_first() {
    // Five pushes, a probe's question without an answer, a probe whose push is lost, and one that works.
    let server = Server::start(|number, seen| match (number, seen.target.ends_with("getReceipts")) {
        (0..=5 | 7, _) => answer(503, ""),
        (_, true) => answer(200, json!({ "data": {} })),
        (_, false) => tickets(seen),
    })
    .await;
    let expo = client(&server.url());
    for number in 0..5 {
        assert_eq!(kind(&expo.send(push(number)).await), Some(FailureKind::Unknown));
    }
    assert_eq!(expo.send(push(5)).await, Err(Refusal::Held(HoldCause::Breaker)));
    assert_eq!(server.seen().len(), 5);
    until_probe(expo.gate()).await;
    assert_eq!(expo.send(push(5)).await, Err(Refusal::Held(HoldCause::Breaker)), "no push was risked");
    until_probe(expo.gate()).await;
    assert_eq!(kind(&expo.send(push(5)).await), Some(FailureKind::Unknown), "a push that went out counts");
    assert_eq!(expo.send(push(5)).await, Err(Refusal::Held(HoldCause::Breaker)));
    until_probe(expo.gate()).await;
    assert_eq!(expo.send(push(5)).await, ticket(5));
    assert_eq!(expo.gate().admission(), Admission::Open);
    let asked: Vec<bool> = server.seen().iter().map(|seen| seen.target.ends_with("getReceipts")).collect();
    assert_eq!(asked[5..], [true, true, false, true, false]);
}

#[tokio::test]
async fn an_operators_hold_makes_no_request() {
    let server = Server::start(|_, seen| tickets(seen)).await;
    let expo = client(&server.url());
    expo.gate().hold();
    assert_eq!(expo.send(push(1)).await, Err(Refusal::Held(HoldCause::Operator)));
    assert_eq!(server.seen().len(), 0);
    expo.gate().release();
    assert_eq!(expo.send(push(1)).await, ticket(1));
}

#[tokio::test]
async fn pushes_beyond_the_rate_wait_and_then_are_held() {
    let server = Server::start(|_, seen| tickets(seen)).await;
    let expo = Expo::new(&config::Expo { rate: 8, ..config(&server.url(), Duration::from_secs(5)) }).unwrap();
    expo.share_rate(2);
    let answers = send_many(&expo, 40).await;
    let sent = answers.iter().filter(|answer| answer.is_ok()).count();
    let held = answers.iter().filter(|answer| **answer == Err(Refusal::Held(HoldCause::Backlog))).count();
    assert_eq!(sent + held, 40);
    assert!((10..=22).contains(&sent), "four a second for five seconds: {sent}");
    assert_eq!(server.seen().iter().map(|seen| recipients(seen).len()).sum::<usize>(), sent);
}

#[tokio::test]
async fn receipts_come_in_chunks_and_say_what_became_of_each() {
    let server = Server::start(|number, seen| {
        if number == 1 {
            return error(400, "PUSH_TOO_MANY_RECEIPTS", "no", Value::Null);
        }
        let failed =
            |error: &str| json!({ "status": "error", "message": "m", "details": { "error": error }, "__debug": {} });
        let receipts = seen.body["ids"].as_array().unwrap().iter().filter_map(|id| match id.as_str().unwrap() {
            "r0" => None,
            "r1" => Some(("r1".to_owned(), failed("DeviceNotRegistered"))),
            "r2" => Some(("r2".to_owned(), failed("MismatchSenderId"))),
            id => Some((id.to_owned(), json!({ "status": "ok" }))),
        });
        answer(200, json!({ "data": receipts.collect::<serde_json::Map<_, _>>() }))
    })
    .await;
    let expo = client(&server.url());
    let ids: Vec<String> = (0..700).map(|number| format!("r{number}")).collect();
    let receipts = expo.receipts(&ids).await.unwrap();
    let chunks: Vec<usize> = server.seen().iter().map(|seen| seen.body["ids"].as_array().unwrap().len()).collect();
    assert_eq!(chunks, [300, 300, 100]);
    assert_eq!(server.seen()[0].target, "/--/api/v2/push/getReceipts");
    // r0 is not ready, and the second chunk could not be fetched.
    assert_eq!(receipts.len(), 399);
    assert_eq!((receipts.get("r0"), receipts.get("r300"), receipts.get("r3")), (None, None, Some(&Receipt::Ok)));
    for (id, expected) in [("r1", FailureKind::Unregistered), ("r2", FailureKind::Unauthorised)] {
        assert!(matches!(&receipts[id], Receipt::Failed(failure) if failure.kind == expected), "{id}");
    }
    assert_eq!(expo.gate().admission(), Admission::Open);
    assert!(expo.receipts(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn receipts_are_asked_for_again_when_the_answer_is_lost() {
    let server = Server::start(|number, _| match number {
        0 => answer(502, "<html>"),
        1 => Act::BreakOff,
        _ => answer(200, json!({ "data": { "a": { "status": "ok" } } })),
    })
    .await;
    let receipts = client(&server.url()).receipts(&["a".to_owned()]).await.unwrap();
    assert_eq!(receipts.get("a"), Some(&Receipt::Ok));
}

#[tokio::test]
async fn reachable_says_what_is_wrong() {
    let ok = Server::start(|_, _| answer(200, json!({ "data": {} }))).await;
    assert_eq!(client(&ok.url()).reachable().await, Ok(()));
    let wrong = Server::start(|_, _| answer(404, "<html>not here")).await;
    let failure: Failure = client(&wrong.url()).reachable().await.unwrap_err();
    assert!(failure.kind == FailureKind::Unauthorised && failure.detail.contains("expo.url"), "{failure}");
    let (url, _socket) = refusing();
    let failure = client(&url).reachable().await.unwrap_err();
    assert_eq!((failure.kind, failure.code.as_str()), (FailureKind::Transient, "connect"));
}
