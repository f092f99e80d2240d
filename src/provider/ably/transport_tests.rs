//! Who may be asked how, and which host answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

fn config(url: &str) -> config::Ably {
    config::Ably {
        url: url.parse().unwrap(),
        key: None,
        timeout: Duration::from_secs(10),
        session_channel: "s:{sessionId}".to_owned(),
        presence_channel: "s:{sessionId}:presence".to_owned(),
    }
}

#[test]
fn a_key_travels_over_plain_http_to_loopback_only() {
    for (url, key, problem) in [
        ("https://main.realtime.ably.net", "app.key:secret", None),
        ("http://127.0.0.1:8181", "app.key:secret", None),
        ("http://ably.example", "app.key:secret", Some("ably.url")),
        ("http://ably.example", "a-token", None),
        ("https://app.key:secret@ably.example", "app.key:secret", Some("ably.url")),
        ("https://ably.example/?v=2", "app.key:secret", Some("ably.url")),
        ("ftp://ably.example", "app.key:secret", Some("ably.url")),
        ("https://ably.example", " ", Some("ABLY_API_KEY")),
        ("https://ably.example", "a\nb", Some("ABLY_API_KEY")),
    ] {
        let made = Transport::new(&config(url), &SecretString::from(key));
        match (made, problem) {
            (Ok(transport), None) => assert!(!format!("{transport:?}").contains("secret")),
            (Err(error), Some(problem)) => {
                let text = format!("{error:#}");
                assert!(text.contains(problem) && !text.contains("secret"), "{url}: {text}");
            }
            (made, _) => panic!("{url} with {key:?}: {made:?}"),
        }
    }
}

#[test]
fn basic_is_for_keys_and_bearer_for_tokens() {
    for (key, expected) in [("a.k:s", "Basic YS5rOnM="), ("tok\n", "Bearer tok")] {
        let transport = Transport::new(&config("http://localhost:1"), &SecretString::from(key)).unwrap();
        assert_eq!(transport.authorization, expected);
    }
}

/// A host that answers every request with `status`, and how many it got. Each answer ends its connection.
async fn host(status: u16) -> (Url, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, count)
}

fn over(primary: &Url, fallback: &Url) -> Transport {
    let transport = Transport::new(&config(primary.as_str()), &SecretString::from("a.k:s")).unwrap();
    Transport { hosts: Hosts::with(primary.clone(), vec![fallback.clone()]), ..transport }
}

fn call(repeat: Repeat) -> Call {
    Call { endpoint: "test", target: "/time".to_owned(), body: None, repeat, until: None }
}

#[tokio::test]
async fn a_fallback_answers_for_a_failing_primary_and_is_remembered() {
    let ((primary, asked), (fallback, answered)) = (host(503).await, host(200).await);
    let transport = over(&primary, &fallback);
    for _ in 0..3 {
        assert_eq!(transport.call(&call(Repeat::Safe)).await.unwrap().status, 200);
    }
    assert_eq!((asked.load(Ordering::SeqCst), answered.load(Ordering::SeqCst)), (1, 3));
}

#[tokio::test]
async fn only_failures_of_the_host_go_to_another_and_only_what_may_be_repeated() {
    for (status, repeat, moves) in [
        (500, Repeat::Safe, true),
        (504, Repeat::Safe, true),
        (503, Repeat::Never, false),
        (400, Repeat::Safe, false),
        (401, Repeat::Safe, false),
        (429, Repeat::Safe, false),
        (302, Repeat::Safe, false),
    ] {
        let ((primary, asked), (fallback, answered)) = (host(status).await, host(200).await);
        let result = over(&primary, &fallback).call(&call(repeat)).await;
        assert_eq!(result.is_ok(), moves, "{status}");
        assert_eq!(
            (asked.load(Ordering::SeqCst), answered.load(Ordering::SeqCst)),
            (1, usize::from(moves)),
            "{status}"
        );
    }
}

#[tokio::test]
async fn what_was_not_sent_may_go_to_another_host_even_when_it_must_not_repeat() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let primary = format!("http://{}", socket.local_addr().unwrap()).parse().unwrap();
    let (fallback, answered) = host(200).await;
    assert!(over(&primary, &fallback).call(&call(Repeat::Never)).await.is_ok());
    assert_eq!(answered.load(Ordering::SeqCst), 1);
}
