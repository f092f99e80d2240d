//! The HTTP port: health, readiness, metrics, a taken port. No service is needed.

use std::net::SocketAddr;

use herald::{
    config::Http,
    http::{Api, Readiness, serve},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

fn on(address: &str) -> Http {
    Http { listen: address.parse().unwrap(), token: Some("s3cret".into()) }
}

/// Returns the whole answer to a GET, status line first.
async fn get(address: SocketAddr, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn health_readiness_and_metrics_are_told() {
    let (readiness, stop, tasks) = (Readiness::default(), CancellationToken::new(), TaskTracker::new());
    let address =
        serve(&on("127.0.0.1:0"), readiness.clone(), Some(Api::default()), stop.clone(), &tasks).await.unwrap();
    let host = format!("Host: {address}\r\n");

    assert!(get(address, "/healthz", &host).await.starts_with("HTTP/1.1 200"));
    let starting = get(address, "/readyz", &host).await;
    assert!(starting.starts_with("HTTP/1.1 503") && starting.contains(r#""reason":"starting""#), "{starting}");
    readiness.ready();
    assert!(get(address, "/readyz", &host).await.starts_with("HTTP/1.1 200"));
    readiness.not_ready("amqp://user:hunter2@host is away");
    let away = get(address, "/readyz", &host).await;
    assert!(away.contains("is away") && !away.contains("hunter2"), "{away}");

    metrics::gauge!("herald_in_flight").set(3.0);
    let page = get(address, "/metrics", &host).await;
    assert!(
        page.contains("# HELP herald_in_flight Events being handled") && page.contains("herald_in_flight 3"),
        "{page}"
    );

    assert!(get(address, "/metrics", "Host: rebound.example\r\n").await.starts_with("HTTP/1.1 403"));
    assert!(get(address, "/nothing", &host).await.starts_with("HTTP/1.1 404"));

    stop.cancel();
    tasks.close();
    crate::support::within(5, "the server ends", tasks.wait()).await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_idle_connections() {
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let address =
        serve(&on("127.0.0.1:0"), Readiness::default(), Some(Api::default()), stop.clone(), &tasks).await.unwrap();
    let idle = TcpStream::connect(address).await.unwrap();
    stop.cancel();
    tasks.close();
    crate::support::within(5, "the server ends", tasks.wait()).await;
    drop(idle);
}

#[tokio::test]
async fn beyond_loopback_the_token_is_asked_for() {
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let mut address =
        serve(&on("0.0.0.0:0"), Readiness::default(), Some(Api::default()), stop.clone(), &tasks).await.unwrap();
    address.set_ip([127, 0, 0, 1].into());
    let host = "Host: herald.example\r\n";
    assert!(get(address, "/healthz", host).await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/page", host).await.starts_with("HTTP/1.1 401"));
    let token = format!("{host}Authorization: Bearer s3cret\r\n");
    assert!(get(address, "/page", &token).await.starts_with("HTTP/1.1 404"));
    stop.cancel();
}

#[tokio::test]
async fn a_process_without_a_desk_has_no_page() {
    for (api, status) in [(Some(Api::default()), ["200", "503"]), (None, ["404", "404"])] {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let address = serve(&on("127.0.0.1:0"), Readiness::default(), api, stop.clone(), &tasks).await.unwrap();
        let host = format!("Host: {address}\r\n");
        for (path, status) in ["/", "/api/status"].into_iter().zip(status) {
            let answer = get(address, path, &host).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        }
        assert!(get(address, "/metrics", &host).await.starts_with("HTTP/1.1 200"));
        stop.cancel();
    }
}

#[tokio::test]
async fn a_taken_port_is_one_clear_line() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let error = serve(&on(&address.to_string()), Readiness::default(), Some(Api::default()), stop, &tasks)
        .await
        .unwrap_err()
        .to_string();
    let expected = format!("http.listen: {address} is taken by another process; stop it or set HERALD_HTTP__LISTEN");
    assert_eq!(error, expected);
}
