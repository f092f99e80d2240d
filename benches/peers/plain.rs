//! The plain Rust worker: what one writes first. One task per event, one request per step; no batches, ledger, retry queues or
//! explanation.
//!
//! A process of its own, started by the harness: `bench plain`. Everything comes from its environment, as with the Node worker.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use futures::StreamExt as _;
use lapin::{
    Connection, ConnectionProperties,
    message::Delivery,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::TaskTracker;

use crate::variable;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    id: String,
    session_id: String,
    event: String,
    partner_id: Option<String>,
    exclude_user_id: Option<String>,
    #[serde(default)]
    data: Map<String, Value>,
}

struct Worker {
    http: reqwest::Client,
    users: PgPool,
    ably: String,
    key: (String, String),
    expo: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    client_id: String,
}

#[derive(Deserialize)]
struct Tickets {
    data: Vec<Ticket>,
}

#[derive(Deserialize)]
struct Ticket {
    status: String,
}

/// Delivers until SIGTERM.
pub async fn run() -> anyhow::Result<()> {
    let key = variable("ABLY_API_KEY")?;
    let (name, secret) = key.split_once(':').context("ABLY_API_KEY: no colon")?;
    let worker = Arc::new(Worker {
        http: reqwest::Client::builder().timeout(Duration::from_secs(15)).build()?,
        users: PgPoolOptions::new().max_connections(20).connect(&variable("DATABASE_URL")?).await?,
        ably: format!("http://127.0.0.1:{}", variable("ABLY_PORT")?),
        key: (name.to_owned(), secret.to_owned()),
        expo: format!("{}/--/api/v2/push/send", variable("EXPO_BASE_URL")?),
    });
    let connection = Connection::connect(&variable("AMQP_URL")?, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(variable("PREFETCH")?.parse()?, BasicQosOptions::default()).await?;
    let queue = variable("QUEUE")?;
    let mut deliveries = channel
        .basic_consume(queue.as_str().into(), "plain".into(), BasicConsumeOptions::default(), Default::default())
        .await?;
    let mut stop = signal(SignalKind::terminate())?;
    let tasks = TaskTracker::new();
    loop {
        let delivery = tokio::select! {
            delivery = deliveries.next() => delivery.context("the consumer was cancelled")??,
            _ = stop.recv() => break,
        };
        tasks.spawn(handle(worker.clone(), delivery));
    }
    channel.basic_cancel("plain".into(), BasicCancelOptions::default()).await?;
    tasks.close();
    tasks.wait().await;
    connection.close(200, "done".into()).await?;
    Ok(())
}

async fn handle(worker: Arc<Worker>, delivery: Delivery) {
    let settled = match worker.deliver(&delivery.data).await {
        Ok(()) => delivery.ack(BasicAckOptions::default()).await,
        Err(error) => {
            eprintln!("given up: {error:#}");
            delivery.nack(BasicNackOptions::default()).await
        }
    };
    if let Err(error) = settled {
        eprintln!("not settled: {error}");
    }
}

impl Worker {
    async fn deliver(&self, body: &[u8]) -> anyhow::Result<()> {
        let event: Event = serde_json::from_slice(body)?;
        match &event.partner_id {
            Some(partner) if !self.present(&event.session_id, partner).await? => self.push(&event, partner).await,
            _ => self.publish(&event).await,
        }
    }

    fn channel(&self, session: &str, rest: &str) -> String {
        let channel = format!("beheard:session:{session}{}", if rest == "presence" { ":presence" } else { "" });
        format!("{}/channels/{}/{rest}", self.ably, utf8_percent_encode(&channel, NON_ALPHANUMERIC))
    }

    async fn present(&self, session: &str, partner: &str) -> anyhow::Result<bool> {
        let url = format!("{}?clientId={partner}&limit=1", self.channel(session, "presence"));
        let request = self.http.get(url).basic_auth(&self.key.0, Some(&self.key.1)).header("x-ably-version", "6");
        let members: Vec<Member> = serde_json::from_slice(&answer(request).await?)?;
        Ok(members.iter().any(|member| member.client_id == partner))
    }

    async fn publish(&self, event: &Event) -> anyhow::Result<()> {
        let mut data = event.data.clone();
        if let Some(excluded) = &event.exclude_user_id {
            data.insert("excludeUserId".to_owned(), excluded.as_str().into());
        }
        let data = serde_json::to_string(&data)?;
        let message = json!([{ "id": event.id, "name": event.event, "data": data, "encoding": "json" }]);
        let request = self.http.post(self.channel(&event.session_id, "messages"));
        let request = request.basic_auth(&self.key.0, Some(&self.key.1)).header("x-ably-version", "6");
        answer(request.header("content-type", "application/json").body(message.to_string())).await.map(drop)
    }

    async fn push(&self, event: &Event, partner: &str) -> anyhow::Result<()> {
        let find = sqlx::query_scalar(r#"SELECT "pushToken" FROM "User" WHERE id = $1"#);
        let token: Option<Option<String>> = find.bind(partner).fetch_optional(&self.users).await?;
        let Some(token) = token.flatten() else { return Ok(()) };
        let mut data = event.data.clone();
        for (key, value) in [("sessionId", &event.session_id), ("event", &event.event), ("eventId", &event.id)] {
            data.insert(key.to_owned(), value.as_str().into());
        }
        let push = json!([{ "to": token, "sound": "default", "title": "BeHeard", "body": "You have an update", "data": data }]);
        let request = self.http.post(&self.expo).header("content-type", "application/json").body(push.to_string());
        let tickets: Tickets = serde_json::from_slice(&answer(request).await?)?;
        ensure!(tickets.data.iter().all(|ticket| ticket.status == "ok"), "a push was refused");
        Ok(())
    }
}

async fn answer(request: reqwest::RequestBuilder) -> anyhow::Result<bytes::Bytes> {
    let answer = request.send().await?;
    let status = answer.status();
    let body = answer.bytes().await?;
    if !status.is_success() {
        bail!("{status}: {}", String::from_utf8_lossy(&body[..body.len().min(200)]));
    }
    Ok(body)
}
