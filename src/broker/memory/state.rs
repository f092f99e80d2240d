//! All queues behind one lock, routing between them, and the clock that expires messages.
//!
//! Used by the handles in the parent module. The lock is held for moments only, never across an await.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lapin::types::{AMQPValue, FieldArray, FieldTable};
use tokio::{sync::Notify, time::Instant};

use super::{
    Receipt,
    queue::{Queue, Stored},
};
use crate::broker::{self, BrokerError, Delivery, Depth, Destination, Message, Topology, headers};

/// Largest header frame, RabbitMQ's default.
const FRAME_MAX: usize = 131_072;

/// Pause before dead-lettering into a full queue is tried again.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// The broker's state.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Exchange that leads to the queue of the same name, whatever the routing key.
    exchange: String,
    /// Wakes the clock when there may be an earlier expiry.
    earlier: Notify,
}

struct State {
    queues: HashMap<String, Queue>,
    next_channel: u64,
    closed: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(topology: &Topology) -> Shared {
        let queues = topology.queues().iter().map(|queue| (queue.name.clone(), Queue::new(queue))).collect();
        let state = Mutex::new(State { queues, next_channel: 0, closed: false });
        Shared { state, exchange: topology.events(), earlier: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ensure_open(&self) -> Result<(), BrokerError> {
        match self.state().closed {
            true => Err(BrokerError::Unavailable("closed".to_owned())),
            false => Ok(()),
        }
    }

    pub(super) fn publish(&self, to: &Destination, message: Message) -> Result<(), BrokerError> {
        self.ensure_open()?;
        let (exchange, routing_key, queue) = match to {
            Destination::Queue(queue) => ("", queue.as_str(), queue.as_str()),
            Destination::Exchange { exchange, routing_key } if exchange.is_empty() => {
                ("", routing_key.as_str(), routing_key.as_str())
            }
            Destination::Exchange { exchange, routing_key } if *exchange == self.exchange => {
                (exchange.as_str(), routing_key.as_str(), exchange.as_str())
            }
            Destination::Exchange { exchange, .. } => {
                return Err(BrokerError::Refused(format!("no exchange `{exchange}`")));
            }
        };
        let message = message.persistent();
        let header_bytes = headers::properties_len(&message.properties);
        if header_bytes > FRAME_MAX {
            return Err(BrokerError::Refused(format!("{header_bytes} bytes of properties do not fit into one frame")));
        }
        let mut state = self.state();
        let Some(queue) = state.queues.get_mut(queue) else {
            return Err(BrokerError::Refused(format!("NO_ROUTE: no queue `{queue}`")));
        };
        if queue.full() {
            return Err(BrokerError::Refused("the queue is full".to_owned()));
        }
        if queue.push(message, exchange, routing_key) {
            self.earlier.notify_one();
        }
        Ok(())
    }

    pub(super) fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        let count = |messages| u64::try_from(messages).unwrap_or(u64::MAX);
        let state = self.state();
        let queue = state.queues.get(queue).ok_or_else(|| missing(queue))?;
        let unacked = Some(count(queue.unacked()));
        Ok(Depth { ready: count(queue.ready()), consumers: count(queue.consumers.len()), unacked })
    }

    /// Opens a channel that may have `prefetch` messages of `queue` in hand, 0 for as many as it likes.
    pub(super) fn open_channel(&self, queue: &str, prefetch: u16) -> Result<u64, BrokerError> {
        self.ensure_open()?;
        let mut state = self.state();
        state.next_channel += 1;
        let id = state.next_channel;
        state.queues.get_mut(queue).ok_or_else(|| missing(queue))?.open_channel(id, prefetch);
        Ok(id)
    }

    pub(super) fn register_consumer(&self, queue: &str, channel: u64) {
        if let Some(queue) = self.state().queues.get_mut(queue) {
            queue.consumers.insert(channel);
        }
    }

    /// Returns what is notified when `queue` changes.
    pub(super) fn changed(&self, queue: &str) -> Option<Arc<Notify>> {
        self.state().queues.get(queue).map(|queue| Arc::clone(&queue.changed))
    }

    /// Hands the message at the head of `queue` to `channel`.
    pub(super) fn take(shared: &Arc<Shared>, queue: &str, channel: u64) -> Option<Delivery> {
        let mut state = shared.state();
        let (position, stored) = state.queues.get_mut(queue)?.take(channel)?;
        let receipt = Receipt { shared: Arc::clone(shared), queue: queue.to_owned(), position, channel };
        Some(Delivery {
            message: stored.message.clone(),
            exchange: stored.exchange.clone(),
            routing_key: stored.routing_key.clone(),
            queue: queue.to_owned(),
            redelivered: stored.returns > 0,
            receipt: broker::Receipt::Memory(receipt),
        })
    }

    pub(super) fn ack(&self, queue: &str, channel: u64, position: u64) -> bool {
        self.state().queues.get_mut(queue).is_some_and(|queue| queue.ack(channel, position))
    }

    pub(super) fn in_hand(&self, queue: &str, channel: u64, position: u64) -> bool {
        self.state().queues.get(queue).is_some_and(|queue| queue.in_hand(channel, position))
    }

    pub(super) fn close_channel(&self, name: &str, channel: u64) {
        let mut state = self.state();
        if let Some(queue) = state.queues.get_mut(name) {
            let over_limit = queue.close_channel(channel);
            state.dead_letter_all(name, over_limit);
        }
        drop(state);
        self.earlier.notify_one();
    }

    /// Gives everything in hand back and lets every consumer end.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let names: Vec<String> = state.queues.keys().cloned().collect();
        for name in names {
            if let Some(queue) = state.queues.get_mut(&name) {
                let over_limit = queue.close_all_channels();
                state.dead_letter_all(&name, over_limit);
            }
        }
    }

    /// Moves expired messages on, for ever.
    pub(super) async fn expire(self: Arc<Self>) {
        loop {
            let next = self.state().expire(Instant::now());
            let due = async {
                match next {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.earlier.notified() => {}
            }
        }
    }
}

impl State {
    /// Moves what has expired by `now` and returns when to look again.
    fn expire(&mut self, now: Instant) -> Option<Instant> {
        let names: Vec<String> = self.queues.keys().cloned().collect();
        for name in &names {
            while let Some(target) = self.queues.get(name).map(|queue| queue.dead_letters_to.clone()) {
                // At-least-once dead-lettering waits for room.
                if target.as_ref().and_then(|target| self.queues.get(target)).is_some_and(Queue::full) {
                    break;
                }
                let Some(expired) = self.queues.get_mut(name).and_then(|queue| queue.pop_expired(now)) else {
                    break;
                };
                self.dead_letter(name, expired, "expired");
            }
        }
        let next = self.queues.values().filter_map(Queue::next_expiry).min()?;
        Some(if next <= now { now + FULL_PAUSE } else { next })
    }

    fn dead_letter_all(&mut self, from: &str, letters: Vec<Stored>) {
        for letter in letters {
            self.dead_letter(from, letter, "delivery_limit");
        }
    }

    /// Puts a message where `from` dead-letters to, and nowhere if it does not.
    fn dead_letter(&mut self, from: &str, letter: Stored, reason: &str) {
        let Some(target) = self.queues.get(from).and_then(|queue| queue.dead_letters_to.clone()) else {
            return;
        };
        if let Some(queue) = self.queues.get_mut(&target) {
            let message = with_death(letter, from, reason);
            queue.push(message, "", &target);
        }
    }
}

/// Adds the headers RabbitMQ adds to a dead letter (<https://www.rabbitmq.com/docs/dlx#effects>).
fn with_death(letter: Stored, queue: &str, reason: &str) -> Message {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut death = FieldTable::default();
    death.insert("reason".into(), text(reason));
    death.insert("queue".into(), text(queue));
    death.insert("exchange".into(), text(&letter.exchange));
    death.insert("routing-keys".into(), AMQPValue::FieldArray(vec![text(&letter.routing_key)].into()));
    death.insert("count".into(), AMQPValue::LongLongInt(1));

    let mut table = letter.message.properties.headers().clone().unwrap_or_default();
    let mut deaths = vec![AMQPValue::FieldTable(death)];
    if let Some(AMQPValue::FieldArray(earlier)) = table.inner().get("x-death") {
        deaths.extend_from_slice(earlier.as_slice());
    }
    table.insert("x-death".into(), AMQPValue::FieldArray(FieldArray::from(deaths)));
    for (name, value) in
        [("x-first-death-reason", reason), ("x-first-death-queue", queue), ("x-first-death-exchange", &letter.exchange)]
    {
        if !table.contains_key(name) {
            table.insert(name.into(), text(value));
        }
    }
    Message { body: letter.message.body, properties: letter.message.properties.with_headers(table) }
}

fn missing(queue: &str) -> BrokerError {
    BrokerError::Config(format!("queue `{queue}` does not exist"))
}
