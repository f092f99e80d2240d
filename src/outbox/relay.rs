//! Rounds: take rows, publish them, settle them.
//!
//! Started by `run`. A round is one transaction, so that whatever ends it early gives the rows back. Within a session a row is
//! published once the one before it is confirmed; after a failure the rest of its session stays.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, stream};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{
        Broker, BrokerError, Destination, Message,
        amqp::{Amqp, Complaint},
    },
    config,
    domain::outbox::{Bad, Next, Outgoing, Plan, Tally, in_words, next, pause, plan},
    http::Readiness,
    store::{
        StoreError,
        outbox::{Outbox, Taken},
    },
};

/// How long one look for the broker takes.
const BROKER: Duration = Duration::from_secs(5);
/// What is not confirmed by then stays in the table. Less than the time after which the database takes rows back.
const PUBLISHING: Duration = Duration::from_secs(40);
const CONTENT_TYPE: &str = "application/json";

/// One relay.
pub(super) struct Relay {
    pub outbox: Outbox,
    pub broker: Amqp,
    /// Where events are published to.
    pub exchange: String,
    pub settings: config::Outbox,
    pub readiness: Readiness,
    /// A notification, or a reason to look.
    pub wake: Arc<Notify>,
    pub stop: CancellationToken,
}

/// Why a round came to nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Somebody must change something first.
    Config(String),
    /// The database is away.
    Database(String),
    /// The broker is away; whoever keeps the connection says so.
    Broker(String),
}

/// What became of the rows of a plan.
#[derive(Default)]
struct Published {
    confirmed: Vec<i64>,
    /// Why the first of those that were not confirmed was not.
    refused: Option<BrokerError>,
}

impl Published {
    /// Notes one result. What somebody must change is told before what passes.
    fn note(&mut self, seq: i64, result: Result<(), BrokerError>) {
        match result {
            Ok(()) => self.confirmed.push(seq),
            Err(error @ BrokerError::Config(_)) => self.refused = Some(error),
            Err(error) => {
                self.refused.get_or_insert(error);
            }
        }
    }
}

impl Relay {
    /// Relays until told to stop; then finishes the round in hand. The error is what somebody must change.
    pub(super) async fn serve(&self) -> Result<(), String> {
        let (mut idle, mut complaint) = (0u32, Complaint::default());
        while !self.stop.is_cancelled() {
            let next = match self.round().await {
                Ok((tally, refused)) => {
                    idle = if tally.moved() || tally.taken == 0 { 0 } else { idle.saturating_add(1) };
                    match refused {
                        Some(why) if !tally.moved() => self.complain(&mut complaint, "RabbitMQ takes no events", &why),
                        _ => {
                            complaint = Complaint::default();
                            self.readiness.ready();
                        }
                    }
                    next(&tally, self.settings.batch as usize, idle, self.settings.poll, rand::random())
                }
                Err(Trouble::Config(problem)) => return Err(problem),
                Err(Trouble::Database(why)) => {
                    self.complain(&mut complaint, "the outbox's database is away", &why);
                    later(&mut idle)
                }
                Err(Trouble::Broker(why)) => {
                    self.readiness.not_ready(&format!("the broker is away: {why}"));
                    later(&mut idle)
                }
            };
            match next {
                Next::AtOnce => {}
                Next::After(pause) => tokio::select! {
                    () = self.stop.cancelled() => {}
                    () = sleep(pause) => {}
                },
                Next::Wait => tokio::select! {
                    () = self.stop.cancelled() => {}
                    () = self.wake.notified() => {}
                    () = sleep(self.settings.poll) => {}
                },
            }
        }
        Ok(())
    }

    fn complain(&self, complaint: &mut Complaint, what: &str, why: &str) {
        self.readiness.not_ready(&format!("{what}: {why}"));
        if let Some(away) = complaint.due(std::time::Instant::now()) {
            tracing::warn!(away_seconds = away.as_secs(), why, "{what}; trying on, rows stay where they are");
        }
    }

    /// Plays one round; beside the tally, why the broker did not take everything.
    async fn round(&self) -> Result<(Tally, Option<String>), Trouble> {
        match self.broker.ready(BROKER).await {
            Ok(()) => {}
            Err(BrokerError::Config(problem)) => return Err(Trouble::Config(problem)),
            Err(error) => return Err(Trouble::Broker(error.to_string())),
        }
        let mut taken = self.outbox.take(self.settings.batch).await.map_err(database)?;
        let since = Instant::now();
        let rows = std::mem::take(&mut taken.rows);
        let count = rows.len();
        let Plan { lanes, bad, behind } = plan(rows);
        let wanted: usize = lanes.iter().map(Vec::len).sum();
        let published = self.publish(lanes, since).await;
        let relayed = published.confirmed.len();
        let tally = Tally { taken: count, relayed, failed: bad.len(), put_off: wanted - relayed, behind };
        self.settle(taken, &published.confirmed, &bad, tally).await?;
        match published.refused {
            Some(BrokerError::Config(problem)) => Err(Trouble::Config(problem)),
            refused => Ok((tally, refused.map(|error| error.to_string()))),
        }
    }

    async fn settle(&self, taken: Taken, confirmed: &[i64], bad: &[Bad], tally: Tally) -> Result<(), Trouble> {
        metrics::counter!("herald_outbox_put_off_total").increment(tally.put_off as u64);
        if !tally.moved() {
            return Ok(());
        }
        let keep = !self.settings.retention.is_zero();
        taken.settle(confirmed, bad, keep).await.map_err(database)?;
        metrics::counter!("herald_outbox_relayed_total").increment(tally.relayed as u64);
        metrics::counter!("herald_outbox_failed_total").increment(tally.failed as u64);
        if !bad.is_empty() {
            tracing::error!(
                rows = bad.len(),
                first = in_words(bad),
                "rows that are no events: marked with failed_at and error in {}; mend them and set both to NULL, or delete them",
                self.outbox.name()
            );
        }
        Ok(())
    }

    /// Publishes sessions side by side, each in order, until the time is over or the stop has come.
    async fn publish(&self, lanes: Vec<Vec<Outgoing>>, since: Instant) -> Published {
        let published = Mutex::new(Published::default());
        let note = |seq: i64, result: Result<(), BrokerError>| {
            published.lock().expect("no panic while the lock is held").note(seq, result);
        };
        let all = stream::iter(lanes).for_each_concurrent(None, async |lane| {
            for outgoing in lane {
                if self.stop.is_cancelled() {
                    return;
                }
                let (seq, age) = (outgoing.seq, Duration::from_micros(u64::try_from(outgoing.age).unwrap_or(0)));
                let result = self.broker.publish(&self.destination(&outgoing), message(outgoing)).await;
                let failed = result.is_err();
                note(seq, result);
                if failed {
                    return;
                }
                metrics::histogram!("herald_outbox_delay_seconds").record((age + since.elapsed()).as_secs_f64());
            }
        });
        // What is confirmed later is published again, which is a repeat.
        let in_time = timeout(PUBLISHING, all).await.is_ok();
        let mut published = published.into_inner().expect("no panic while the lock is held");
        if !in_time {
            let late = || BrokerError::Unavailable(format!("not all confirmed within {} s", PUBLISHING.as_secs()));
            published.refused.get_or_insert_with(late);
        }
        published
    }

    fn destination(&self, outgoing: &Outgoing) -> Destination {
        Destination::Exchange { exchange: self.exchange.clone(), routing_key: outgoing.event.clone() }
    }
}

/// Counts one more round that came to nothing, and returns what follows.
fn later(idle: &mut u32) -> Next {
    *idle = idle.saturating_add(1);
    Next::After(pause(*idle, rand::random()))
}

fn database(error: StoreError) -> Trouble {
    match error {
        StoreError::Config(problem) => Trouble::Config(problem),
        StoreError::Unavailable(why) | StoreError::Data(why) => Trouble::Database(why),
    }
}

fn message(outgoing: Outgoing) -> Message {
    let mut properties =
        BasicProperties::default().with_content_type(CONTENT_TYPE.into()).with_message_id(outgoing.id.into());
    if let Some(seconds) = outgoing.written_at {
        properties = properties.with_timestamp(seconds);
    }
    if let Some(traceparent) = outgoing.traceparent {
        let mut headers = FieldTable::default();
        headers.insert("traceparent".into(), AMQPValue::LongString(traceparent.into()));
        properties = properties.with_headers(headers);
    }
    Message { body: outgoing.body.into(), properties }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_id_time_and_trace() {
        let outgoing = Outgoing {
            seq: 1,
            id: "e1".into(),
            event: "a.b".into(),
            body: b"{}".to_vec(),
            written_at: Some(7),
            traceparent: Some("00-a-b-01".into()),
            age: 0,
        };
        let sent = message(outgoing);
        let properties = &sent.properties;
        assert_eq!(properties.message_id().as_ref().map(|id| id.as_str()), Some("e1"));
        assert_eq!(properties.content_type().as_ref().map(|kind| kind.as_str()), Some("application/json"));
        assert_eq!((*properties.timestamp(), sent.body.as_ref()), (Some(7), &b"{}"[..]));
        let headers = crate::broker::headers_json(&sent);
        assert_eq!(headers["traceparent"], "00-a-b-01");
    }
}
