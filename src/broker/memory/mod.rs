//! A broker in this process's memory, with RabbitMQ's meaning of everything the trait promises.
//!
//! Used by the demo and by fast tests. Queues are those of the topology; retry queues expire back into the events queue,
//! messages given back too often go to the dead-letter queue, and what is unsettled goes back to its place when its
//! channel closes. Nothing survives the process.

mod queue;
mod state;

use std::{sync::Arc, time::Duration};

use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{Broker, BrokerError, Delivery, Depth, Destination, Message, Topology};
use state::Shared;

/// Most messages a queue holds; publishing beyond is refused.
pub const MAX_MESSAGES: usize = 100_000;

/// A handle on the broker; clones share it.
#[derive(Clone)]
pub struct Memory(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    stop: CancellationToken,
    clock: TaskTracker,
    /// Ends the clock with the last handle.
    _ends: DropGuard,
}

impl Memory {
    /// Starts a broker with the queues of `topology`, all empty. Needs a tokio runtime.
    pub fn start(topology: &Topology) -> Memory {
        let shared = Arc::new(Shared::new(topology));
        let (stop, clock) = (CancellationToken::new(), TaskTracker::new());
        clock.spawn(stop.clone().run_until_cancelled_owned(Arc::clone(&shared).expire()));
        clock.close();
        let _ends = stop.clone().drop_guard();
        Memory(Arc::new(Inner { shared, stop, clock, _ends }))
    }

    fn open(&self, queue: &str, prefetch: u16) -> Result<Channel, BrokerError> {
        let id = self.0.shared.open_channel(queue, prefetch)?;
        Ok(Channel { shared: Arc::clone(&self.0.shared), id, queue: queue.to_owned() })
    }
}

impl Broker for Memory {
    async fn ready(&self, _patience: Duration) -> Result<(), BrokerError> {
        self.0.shared.ensure_open()
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<super::Consumer, BrokerError> {
        let channel = self.open(queue, prefetch)?;
        self.0.shared.register_consumer(queue, channel.id);
        Ok(super::Consumer::Memory(Consumer(channel)))
    }

    async fn publish(&self, to: &Destination, message: Message) -> Result<(), BrokerError> {
        self.0.shared.publish(to, message)
    }

    async fn walk(&self, queue: &str) -> Result<super::Walk, BrokerError> {
        // A walk takes what it is asked to take.
        Ok(super::Walk::Memory(Walk(self.open(queue, 0)?)))
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        self.0.shared.depth(queue)
    }

    fn trouble(&self) -> Option<String> {
        self.0.shared.ensure_open().err().map(|error| error.to_string())
    }

    async fn close(&self) {
        self.0.shared.close();
        self.0.stop.cancel();
        self.0.clock.wait().await;
    }
}

/// What a consumer or a walk has in hand; dropped, it is closed.
struct Channel {
    shared: Arc<Shared>,
    id: u64,
    queue: String,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.shared.close_channel(&self.queue, self.id);
    }
}

/// A consumer on a channel of its own.
pub struct Consumer(Channel);

impl Consumer {
    /// Returns the next delivery as soon as the prefetch allows one, or `None` once the broker is closed.
    pub async fn next(&mut self) -> Option<Delivery> {
        let Channel { shared, id, queue } = &self.0;
        let changed = shared.changed(queue)?;
        loop {
            // Waiting begins before looking, or a message published in between would wake nobody.
            let mut news = std::pin::pin!(changed.notified());
            news.as_mut().enable();
            if shared.ensure_open().is_err() {
                return None;
            }
            if let Some(delivery) = Shared::take(shared, queue, *id) {
                return Some(delivery);
            }
            news.await;
        }
    }

    /// Closes the channel, so that everything unsettled goes back to its place in the queue.
    pub fn close(self) {}
}

/// A look through a queue on a channel of its own.
pub struct Walk(Channel);

impl Walk {
    /// Takes the message at the head, or `None` when the queue is empty.
    pub fn take(&mut self) -> Result<Option<Delivery>, BrokerError> {
        let Channel { shared, id, queue } = &self.0;
        shared.ensure_open()?;
        Ok(Shared::take(shared, queue, *id))
    }

    /// Closes the channel; what was taken and not settled goes back to its place.
    pub fn close(self) {}
}

/// The right to settle one delivery.
#[derive(Debug)]
pub struct Receipt {
    shared: Arc<Shared>,
    queue: String,
    position: u64,
    channel: u64,
}

impl Receipt {
    /// Acknowledges; `false` if it was settled before or its channel is closed.
    pub fn ack(&self) -> bool {
        self.shared.ack(&self.queue, self.channel, self.position)
    }

    /// Tells whether an acknowledgement would still count.
    pub fn usable(&self) -> bool {
        self.shared.in_hand(&self.queue, self.channel, self.position)
    }
}
