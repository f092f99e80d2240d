//! The harness proves itself before it judges herald: small workers with one flaw each, every flaw must be caught, and the one
//! without a flaw must pass.
//!
//! The workers speak AMQP and HTTP directly and share nothing with herald but the names of queues.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use herald::broker::{
    Broker,
    amqp::{Amqp, AmqpOptions, Role},
};
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::json;

use crate::{
    checker::{Records, Row, Verdict, check},
    publisher::{Publisher, Script, Sheet},
    services::Services,
    stage::Stage,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// Acknowledges what it copies for a retry before the copy is confirmed, and its connection breaks.
    AcksBeforeConfirm,
    /// Says that it delivered every 500th event and does not.
    DropsEvery500th,
    SendsTwice,
    /// Sends what it takes in together in reverse order.
    Reverses,
}

const EVENTS: u64 = 2000;

/// Runs every small worker; fails when a flaw is not caught, or when something is found where there is none.
pub async fn prove(services: &Services, seed: u64) -> anyhow::Result<()> {
    for (flaw, words) in [
        (Flaw::None, "a worker without a flaw"),
        (Flaw::AcksBeforeConfirm, "a worker that acks before its copy is confirmed"),
        (Flaw::DropsEvery500th, "a worker that drops every 500th event"),
        (Flaw::SendsTwice, "a worker that sends twice"),
        (Flaw::Reverses, "a worker that turns the order round"),
    ] {
        let verdict = play(services, flaw, seed).await.with_context(|| words.to_owned())?;
        let (lost, repeats, order) = (verdict.lost.len(), verdict.repeats_expo, verdict.out_of_order.len());
        println!("  {words}: {lost} lost, {repeats} repeats, {order} out of order");
        let caught = match flaw {
            Flaw::None => verdict.wrong().is_empty() && repeats == 0,
            Flaw::AcksBeforeConfirm => lost > 0,
            Flaw::DropsEvery500th => lost == (EVENTS / 500) as usize,
            Flaw::SendsTwice => repeats == EVENTS,
            Flaw::Reverses => order > 0 && lost == 0,
        };
        ensure!(caught, "the harness misjudges {words}: {:?}", verdict.wrong());
    }
    Ok(())
}

async fn play(services: &Services, flaw: Flaw, seed: u64) -> anyhow::Result<Verdict> {
    let prefix = format!("p{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
    let script = Script { prefix, seed, sessions: 20, events: EVENTS };
    let stage = Stage::new(services, script, PathBuf::new(), 1, 0, Vec::new()).await?;
    let broker = Amqp::start(AmqpOptions {
        url: stage.urls[0].clone().into(),
        ca_file: None,
        instance: "proof".into(),
        topology: stage.topology.clone(),
        role: Role::Command,
    });
    broker.ready(Duration::from_secs(30)).await?;
    broker.close().await;
    let sheet = Sheet::new(EVENTS);
    let publisher = Publisher {
        urls: stage.urls.clone(),
        exchange: stage.topology.events(),
        script: stage.script.clone(),
        sheet: sheet.clone(),
        confirmed: Arc::new(AtomicU64::new(0)),
        outbox: None,
    };
    let ledger = Mutex::default();
    let worker = Small { stage: &stage, flaw, ledger: &ledger };
    let published = tokio::select! {
        published = async {
            publisher.publish(0..EVENTS, 0.0).await?;
            worker.until_still().await;
            anyhow::Ok(())
        } => published,
        problem = worker.run() => bail!("the small worker ended: {problem:?}"),
    };
    published?;
    let rows = ledger.into_inner().expect("no panic while the lock is held");
    let records = Records {
        sent: sheet.all(),
        effects: stage.sandbox.control().effects(0, usize::MAX),
        received: rows.len() as i64,
        ledger: rows,
        letters: stage.letters().await?,
        queued: stage.queued().await?,
        closed: true,
        redelivered: HashSet::new(),
        destroyed: 0,
        destroyable: 0,
    };
    let verdict = check(&stage.script, &records, true);
    stage.end(false).await?;
    Ok(verdict)
}

struct Small<'a> {
    stage: &'a Stage,
    flaw: Flaw,
    ledger: &'a Mutex<HashMap<String, Row>>,
}

/// A delivery with its event's id and whether it is a copy.
struct Taken {
    id: String,
    n: u64,
    copy: bool,
    delivery: lapin::message::Delivery,
}

impl Small<'_> {
    /// Works until something breaks, again and again.
    async fn run(&self) -> anyhow::Result<()> {
        loop {
            let _ = self.session().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn session(&self) -> anyhow::Result<()> {
        let url: url::Url = self.stage.urls[0].parse()?;
        let consuming = Connection::connect(url.as_str(), ConnectionProperties::default()).await?;
        let through = crate::services::at(&url, self.stage.relays[0].port(), None);
        let publishing = Connection::connect(&through, ConnectionProperties::default()).await?;
        let (channel, copies) = (consuming.create_channel().await?, publishing.create_channel().await?);
        channel.basic_qos(100, BasicQosOptions::default()).await?;
        let queue = self.stage.topology.events();
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default()).await?;
        let mut chunks = consumer.ready_chunks(100);
        let mut broke = self.flaw != Flaw::AcksBeforeConfirm;
        while let Some(chunk) = chunks.next().await {
            let mut taken = Vec::new();
            for delivery in chunk {
                let delivery = delivery?;
                let body: serde_json::Value = serde_json::from_slice(&delivery.data)?;
                let id = body["id"].as_str().context("id")?.to_owned();
                let n = body["data"]["n"].as_u64().context("n")?;
                let headers = delivery.properties.headers().as_ref();
                let copy = headers.is_some_and(|headers| headers.inner().contains_key("copy"));
                taken.push(Taken { id, n, copy, delivery });
            }
            if !broke && taken.iter().any(|taken| taken.n > EVENTS / 3) {
                // What is copied in this moment does not get through.
                broke = true;
                self.stage.relays[0].set(|mode| mode.blackhole = true);
            }
            let mut now = Vec::new();
            for taken in taken {
                if self.flaw == Flaw::AcksBeforeConfirm && taken.n % 3 == 0 && !taken.copy {
                    let mut headers = FieldTable::default();
                    headers.insert("copy".into(), AMQPValue::Boolean(true));
                    let properties = BasicProperties::default().with_headers(headers).with_delivery_mode(2);
                    let retry = self.stage.topology.retry(Duration::from_secs(1));
                    let body = &taken.delivery.data;
                    copies
                        .basic_publish("".into(), retry.as_str().into(), Default::default(), body, properties)
                        .await?;
                    self.note(&taken.id, "waiting");
                    taken.delivery.ack(BasicAckOptions::default()).await?;
                } else {
                    now.push(taken);
                }
            }
            if self.flaw == Flaw::Reverses {
                now.reverse();
            }
            self.push(&now).await?;
            for taken in now {
                self.note(&taken.id, "done");
                taken.delivery.ack(BasicAckOptions::default()).await?;
            }
            if self.flaw == Flaw::AcksBeforeConfirm && broke {
                self.stage.relays[0].set(|mode| (mode.cut, mode.blackhole) = (true, false));
                tokio::time::sleep(Duration::from_millis(50)).await;
                self.stage.relays[0].set(|mode| mode.cut = false);
                if !publishing.status().connected() {
                    bail!("the connection broke");
                }
            }
        }
        Ok(())
    }

    async fn push(&self, taken: &[Taken]) -> anyhow::Result<()> {
        let script = &self.stage.script;
        let sent = taken.iter().filter(|taken| self.flaw != Flaw::DropsEvery500th || taken.n % 500 != 499);
        let messages: Vec<_> = sent
            .map(|taken| {
                json!({
                    "to": script.token(script.session(taken.n)), "title": "t", "body": "t",
                    "data": {"eventId": taken.id},
                })
            })
            .collect();
        if messages.is_empty() {
            return Ok(());
        }
        for _ in 0..if self.flaw == Flaw::SendsTwice { 2 } else { 1 } {
            let url = format!("{}/--/api/v2/push/send", self.stage.sandbox.url());
            let request = reqwest::Client::new().post(url).header("content-type", "application/json");
            let request = request.body(json!(messages).to_string());
            let answer = request.timeout(Duration::from_secs(10)).send().await?;
            ensure!(answer.status().is_success(), "the sandbox answered {}", answer.status());
        }
        Ok(())
    }

    fn note(&self, id: &str, state: &str) {
        let via = if state == "done" { "push" } else { "" };
        let row = Row { state: state.into(), reason: String::new(), via: via.into(), attempt: 0, version: 2 };
        self.ledger.lock().expect("no panic while the lock is held").insert(id.to_owned(), row);
    }

    /// Returns once nothing has moved for three seconds.
    async fn until_still(&self) {
        let (mut last, mut since) = ((0, 0), Instant::now());
        while since.elapsed() < Duration::from_secs(3) {
            let done = {
                let ledger = self.ledger.lock().expect("no panic while the lock is held");
                (ledger.len(), ledger.values().filter(|row| row.state == "done").count())
            };
            if done != last {
                (last, since) = (done, Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
