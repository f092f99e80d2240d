//! Reading the records of a round: rows and books from the ledger, letters and depths from the queues.
//!
//! Reads past the relays, with the harness's own connections. Dead letters are looked at, never taken.

use std::collections::HashMap;

use anyhow::Context;
use futures::StreamExt;
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use sqlx::AssertSqlSafe;

use crate::{checker::Row, stage::Stage};

impl Stage {
    /// Returns how many rows the ledger has, and how many of them wait. Before the first worker has made the table: none.
    pub async fn rows(&self) -> anyhow::Result<(i64, i64)> {
        let count =
            format!(r#"SELECT count(*), count(*) FILTER (WHERE state = 'waiting') FROM "{}".events"#, self.ledger());
        Ok(sqlx::query_as(AssertSqlSafe(count)).fetch_one(&self.pool).await?)
    }

    /// Returns every row by event id.
    pub async fn ledger_rows(&self) -> anyhow::Result<HashMap<String, Row>> {
        let select = format!(
            r#"SELECT event_id, state, coalesce(reason, ''), coalesce(via, ''), attempt, version FROM "{}".events"#,
            self.ledger()
        );
        let rows: Vec<(String, String, String, String, i64, i64)> =
            sqlx::query_as(AssertSqlSafe(select)).fetch_all(&self.pool).await?;
        let rows = rows
            .into_iter()
            .map(|(id, state, reason, via, attempt, version)| (id, Row { state, reason, via, attempt, version }));
        Ok(rows.collect())
    }

    /// Returns how many identities the ledger counted at first sight, and whether its books close.
    pub async fn books(&self) -> anyhow::Result<(i64, bool)> {
        let select = format!(
            r#"SELECT (SELECT sum(total)::bigint FROM "{0}".received), (SELECT count(*) FROM "{0}".events)"#,
            self.ledger()
        );
        let (received, rows): (i64, i64) = sqlx::query_as(AssertSqlSafe(select)).fetch_one(&self.pool).await?;
        Ok((received, received == rows))
    }

    /// Connects to the first broker that answers.
    async fn channel(&self) -> anyhow::Result<(Connection, Channel)> {
        let mut problem = None;
        for url in &self.urls {
            match Connection::connect(url, ConnectionProperties::default()).await {
                Ok(connection) => {
                    let channel = connection.create_channel().await?;
                    return Ok((connection, channel));
                }
                Err(error) => problem = Some(error),
            }
        }
        Err(problem.context("no broker")?.into())
    }

    /// Returns how many messages are ready in every queue but the dead letters'.
    pub async fn queued(&self) -> anyhow::Result<u64> {
        self.ready_in(|queue| queue != self.topology.dead()).await
    }

    /// Returns how many messages are ready in retry and hold queues.
    pub async fn queued_elsewhere(&self) -> anyhow::Result<u64> {
        self.ready_in(|queue| queue != self.topology.dead() && queue != self.topology.events()).await
    }

    async fn ready_in(&self, wanted: impl Fn(&str) -> bool) -> anyhow::Result<u64> {
        let (connection, channel) = self.channel().await?;
        let mut sum = 0;
        for queue in self.topology.queues().into_iter().filter(|queue| wanted(&queue.name)) {
            let options = QueueDeclareOptions { passive: true, ..Default::default() };
            let declared = channel.queue_declare(queue.name.as_str().into(), options, FieldTable::default()).await?;
            sum += u64::from(declared.message_count());
        }
        let _ = connection.close(200, "done".into()).await;
        Ok(sum)
    }

    pub async fn delete_events_queue(&self) -> anyhow::Result<()> {
        let (connection, channel) = self.channel().await?;
        channel.queue_delete(self.topology.events().as_str().into(), Default::default()).await?;
        let _ = connection.close(200, "done".into()).await;
        Ok(())
    }

    /// Returns event id and reason of every dead letter. All go back to the queue with the channel.
    pub async fn letters(&self) -> anyhow::Result<Vec<(String, String)>> {
        let (connection, channel) = self.channel().await?;
        let dead = self.topology.dead();
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declared = channel.queue_declare(dead.as_str().into(), options, FieldTable::default()).await?;
        let count = declared.message_count() as usize;
        let mut letters = Vec::with_capacity(count);
        if count > 0 {
            channel.basic_qos(0, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions::default();
            // A prefetch of 0 is capped at 2,000 on a quorum queue, so larger queues are read with one of their own.
            channel.basic_qos(u16::try_from(count).unwrap_or(u16::MAX), BasicQosOptions::default()).await?;
            let mut consumer =
                channel.basic_consume(dead.as_str().into(), "".into(), options, FieldTable::default()).await?;
            while letters.len() < count {
                let next = tokio::time::timeout(std::time::Duration::from_secs(30), consumer.next()).await;
                let delivery = next.context("the dead letters")?.context("the dead letters ended")??;
                let header = |name: &str| match delivery.properties.headers().as_ref()?.inner().get(name)? {
                    AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
                    AMQPValue::ShortString(text) => Some(text.to_string()),
                    _ => None,
                };
                let body: serde_json::Value = serde_json::from_slice(&delivery.data).unwrap_or_default();
                let id = body["id"].as_str().map(str::to_owned).unwrap_or_default();
                letters.push((id, header("herald-reason").unwrap_or_else(|| "no reason".into())));
            }
        }
        let _ = connection.close(200, "done".into()).await;
        Ok(letters)
    }
}
