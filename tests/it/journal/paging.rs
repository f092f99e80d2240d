//! A server between client and sandbox that empties the first page of a presence set and leaves its links alone: Ably may
//! answer a page with fewer members than it has room for, and herald reads on only while it has not seen the user.

use std::net::SocketAddr;

use axum::{Router, body::Body, extract::Request, response::Response};

/// Starts the server on a free port; it ends with the test's runtime.
pub async fn start(sandbox: String) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let app = Router::new().fallback(move |request: Request| forward(client.clone(), sandbox.clone(), request));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

async fn forward(client: reqwest::Client, sandbox: String, request: Request) -> Response {
    let target = request.uri().path_and_query().unwrap().to_string();
    let answer = client.get(format!("{sandbox}{target}")).headers(request.headers().clone()).send().await.unwrap();
    let first = !target.contains("cursor=");
    let mut response = Response::builder().status(answer.status().as_u16());
    for link in answer.headers().get_all("link") {
        response = response.header("link", link);
    }
    let body = answer.bytes().await.unwrap();
    response.body(if first { Body::from("[]") } else { Body::from(body) }).unwrap()
}
