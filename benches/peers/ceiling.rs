//! The ceiling: what RabbitMQ and lapin carry when nothing is done with an event but receiving and acknowledging it.
//!
//! A process of its own, started by the harness: `bench ceiling --acks 1`. Prints how far it is.

use std::io::Write as _;

use anyhow::Context as _;
use futures::StreamExt as _;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
};
use tokio::signal::unix::{SignalKind, signal};

use crate::variable;

/// Events between two lines.
const SAY: u64 = 1_000;
const PREFETCH: u16 = 2048;

/// Receives until SIGTERM. `acks`: events acknowledged with one frame.
pub async fn run(acks: u64) -> anyhow::Result<()> {
    let connection = Connection::connect(&variable("AMQP_URL")?, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let queue = variable("QUEUE")?;
    let mut deliveries = channel
        .basic_consume(queue.as_str().into(), "ceiling".into(), BasicConsumeOptions::default(), Default::default())
        .await?;
    let mut stop = signal(SignalKind::terminate())?;
    let mut out = std::io::stdout();
    let mut received = 0u64;
    loop {
        let delivery = tokio::select! {
            delivery = deliveries.next() => delivery.context("the consumer was cancelled")??,
            _ = stop.recv() => break,
        };
        received += 1;
        if received.is_multiple_of(acks) {
            channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: acks > 1 }).await?;
        }
        if received.is_multiple_of(SAY) {
            writeln!(out, "{received}")?;
            out.flush()?;
        }
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}
