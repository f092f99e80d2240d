//! The broker's side of a case: the queue, the backlog in it, and what is left.
//!
//! herald gets its own topology, every peer a quorum queue. Everything a case made, it deletes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, stream::FuturesUnordered};
use herald::broker::topology::{Argument, Topology};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
    options::{BasicPublishOptions, ExchangeDeclareOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use crate::{events, sheet::Sheet};

/// Publishes that may be unconfirmed at once.
const WINDOW: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// The queues of one case.
pub struct Queues {
    connection: Connection,
    channel: Channel,
    prefix: String,
    names: Vec<String>,
    /// Events go through herald's exchange, or straight into a peer's queue.
    through_exchange: bool,
}

impl Queues {
    /// Declares what herald declares at its first start (`herald`), or one quorum queue.
    pub async fn declare(amqp: &str, prefix: &str, herald: bool) -> anyhow::Result<Queues> {
        let connection = Connection::connect(amqp, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(Default::default()).await?;
        let topology = Topology {
            prefix: prefix.to_owned(),
            schedule: [5, 30, 120, 600, 3600].map(Duration::from_secs).to_vec(),
            dead_retention: Duration::from_secs(14 * 86_400),
        };
        let mut queues =
            Queues { connection, channel, prefix: prefix.to_owned(), names: Vec::new(), through_exchange: herald };
        let mut wanted = topology.queues();
        if !herald {
            wanted.retain(|queue| queue.name == topology.events());
            wanted[0].arguments.retain(|(name, _)| *name == "x-queue-type");
        }
        for queue in wanted {
            let mut table = FieldTable::default();
            for (name, value) in queue.arguments {
                let value = match value {
                    Argument::Text(text) => AMQPValue::LongString(text.into()),
                    Argument::Number(number) => AMQPValue::LongLongInt(number),
                };
                table.insert(name.into(), value);
            }
            let options = QueueDeclareOptions { durable: true, ..Default::default() };
            queues.channel.queue_declare(queue.name.as_str().into(), options, table).await?;
            queues.names.push(queue.name);
        }
        if herald {
            let events = queues.events();
            let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
            let (kind, table) = (ExchangeKind::Topic, FieldTable::default());
            queues.channel.exchange_declare(events.as_str().into(), kind, options, table).await?;
            let (queue, exchange) = (events.as_str().into(), events.as_str().into());
            queues.channel.queue_bind(queue, exchange, "#".into(), Default::default(), FieldTable::default()).await?;
        }
        Ok(queues)
    }

    /// Returns the name of the queue that events wait in.
    pub fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    async fn send(&self, tag: u32, n: u64) -> anyhow::Result<lapin::PublisherConfirm> {
        let events = self.events();
        let (name, body) = events::message(tag, n);
        let (exchange, key) = if self.through_exchange { (events.as_str(), name) } else { ("", events.as_str()) };
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_message_id(events::id(tag, n).into());
        Ok(self.channel.basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties).await?)
    }

    /// Publishes events `0..count` and returns once the broker has confirmed each.
    pub async fn fill(&self, tag: u32, count: u64) -> anyhow::Result<()> {
        let mut open = FuturesUnordered::new();
        for n in 0..count {
            if open.len() >= WINDOW {
                confirmed(tokio::time::timeout(PATIENCE, open.next()).await?)?;
            }
            open.push(self.send(tag, n).await?);
        }
        while let Some(confirm) = tokio::time::timeout(PATIENCE, open.next()).await? {
            confirmed(Some(confirm))?;
        }
        Ok(())
    }

    /// Publishes events `from..to` at `rate` a second; returns when each was published, by the sheet's clock.
    pub async fn pace(&self, sheet: &Sheet, from: u64, to: u64, rate: u64) -> anyhow::Result<Vec<u32>> {
        let (mut open, mut sent) = (FuturesUnordered::new(), Vec::with_capacity((to - from) as usize));
        let begun = tokio::time::Instant::now();
        for n in from..to {
            let due = begun + Duration::from_secs_f64((n - from) as f64 / rate as f64);
            loop {
                tokio::select! {
                    biased;
                    confirm = open.next(), if !open.is_empty() => confirmed(confirm)?,
                    () = tokio::time::sleep_until(due) => break,
                }
            }
            sent.push(sheet.now());
            open.push(self.send(sheet.tag, n).await?);
        }
        while let Some(confirm) = tokio::time::timeout(PATIENCE, open.next()).await? {
            confirmed(Some(confirm))?;
        }
        Ok(sent)
    }

    /// Returns how many messages lie in the queues, those in somebody's hands not counted.
    pub async fn ready(&self) -> anyhow::Result<u64> {
        let mut ready = 0;
        for name in &self.names {
            let options = QueueDeclareOptions { passive: true, ..Default::default() };
            let queue = self.channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await?;
            ready += u64::from(queue.message_count());
        }
        Ok(ready)
    }

    /// Waits until the queue shows `count` messages: confirmed ones need not be counted yet.
    pub async fn settle(&self, count: u64) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.ready().await? < count {
            ensure!(begun.elapsed() < PATIENCE, "the backlog of {count} does not show");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Deletes everything.
    pub async fn delete(self) -> anyhow::Result<()> {
        for name in &self.names {
            self.channel.queue_delete(name.as_str().into(), Default::default()).await?;
        }
        if self.through_exchange {
            self.channel.exchange_delete(self.events().as_str().into(), Default::default()).await?;
        }
        self.connection.close(200, "done".into()).await?;
        Ok(())
    }
}

fn confirmed(confirm: Option<lapin::Result<Confirmation>>) -> anyhow::Result<()> {
    match confirm.context("a confirm")?? {
        Confirmation::Ack(None) => Ok(()),
        other => anyhow::bail!("the broker did not take an event: {other:?}"),
    }
}
