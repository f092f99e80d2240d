//! The broker seam: what the worker and the commands need of a message broker, and nothing of how it is done.
//!
//! [`Broker`] is the one trait of the project, because two implementations ship: [`amqp`] (production) and [`memory`]
//! (demo, fast tests). One contract suite, in the integration tests, runs on both. Nothing here decides anything about an event.

pub mod topology;
pub mod message;
pub mod marks;
pub mod headers;
pub mod amqp;
pub mod memory;
pub mod management;
pub mod sweep;

use std::{future::Future, time::Duration};

pub use headers::{headers_json, headers_of_json};
pub use message::Message;
pub use topology::Topology;

/// Where a message is published to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Straight into a queue, through the default exchange.
    Queue(String),
    /// Through an exchange, as producers do.
    Exchange { exchange: String, routing_key: String },
}

/// Why a broker call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The broker cannot be reached or went away; the call may be repeated.
    #[error("broker unavailable: {0}")]
    Unavailable(String),
    /// Somebody must change something first: credentials, vhost, permissions, a mismatched queue. Exit code 78.
    #[error("{0}")]
    Config(String),
    /// The broker refused this very message (returned as unroutable, nacked, too large).
    #[error("message refused: {0}")]
    Refused(String),
}

/// How full a queue is. `None`: not known, never to be shown as 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    pub ready: u64,
    pub consumers: u64,
    pub unacked: Option<u64>,
}

/// One queue or exchange on the broker, compared with what herald needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Kind and name, e.g. ``queue `herald.dead` ``.
    pub what: String,
    pub standing: Standing,
}

/// How a queue or exchange stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Exactly as herald needs it.
    Fits,
    Missing,
    /// It differs in a way herald can live with; which.
    Tolerated(String),
    /// It exists, but its arguments could not be compared; why.
    Unchecked(String),
    /// It differs; argument, the broker's value and herald's.
    Differs(String),
}

/// A message in hand, not yet settled. Dropping it settles nothing: it goes back when its channel closes.
#[derive(Debug)]
pub struct Delivery {
    pub message: Message,
    /// Exchange it came through, empty for the default exchange.
    pub exchange: String,
    pub routing_key: String,
    /// Queue it was taken from.
    pub queue: String,
    pub redelivered: bool,
    pub receipt: Receipt,
}

/// The right to settle one delivery.
#[derive(Debug)]
pub enum Receipt {
    Amqp(amqp::Receipt),
    Memory(memory::Receipt),
}

impl Receipt {
    /// Acknowledges. `false` is a lost settle: the channel ended, the message comes again. `true` means it was sent or will be
    /// within a moment: AMQP confirms no acknowledgement, so a connection that dies then may still bring the message again.
    pub async fn ack(&self) -> bool {
        match self {
            Receipt::Amqp(receipt) => receipt.ack().await,
            Receipt::Memory(receipt) => receipt.ack(),
        }
    }

    /// Returns the name of the messaging system, as OpenTelemetry's conventions have it.
    pub fn system(&self) -> &'static str {
        match self {
            Receipt::Amqp(_) => amqp::SYSTEM,
            Receipt::Memory(_) => "memory",
        }
    }

    /// Tells whether an acknowledgement could still be sent; if not, nothing should be begun with the delivery.
    pub fn usable(&self) -> bool {
        match self {
            Receipt::Amqp(receipt) => receipt.usable(),
            Receipt::Memory(receipt) => receipt.usable(),
        }
    }
}

/// A stream of deliveries that lasts as long as its channel.
pub enum Consumer {
    Amqp(Box<amqp::Consumer>),
    Memory(memory::Consumer),
}

impl Consumer {
    /// Returns the next delivery, or `None` once the channel has ended; after `None` make a new consumer.
    pub async fn next(&mut self) -> Option<Delivery> {
        match self {
            Consumer::Amqp(consumer) => consumer.next().await,
            Consumer::Memory(consumer) => consumer.next().await,
        }
    }

    /// Closes the channel, so that everything unsettled goes back to its place in the queue.
    pub async fn close(self) {
        match self {
            Consumer::Amqp(consumer) => consumer.close().await,
            Consumer::Memory(consumer) => consumer.close(),
        }
    }
}

/// A look through a queue, one message at a time, on a channel of its own. At most 100 messages may be unsettled.
pub enum Walk {
    Amqp(amqp::Walk),
    Memory(memory::Walk),
}

impl Walk {
    /// Takes the message at the head, or `None` when the queue is empty.
    pub async fn next(&mut self) -> Result<Option<Delivery>, BrokerError> {
        match self {
            Walk::Amqp(walk) => walk.next().await,
            Walk::Memory(walk) => walk.take(),
        }
    }

    /// Closes the channel; what was taken and not settled goes back to the head of the queue. RabbitMQ counts every
    /// single get as a consumer of its own and gives back consumer by consumer, so their order is lost (measured on 3.10).
    pub async fn close(self) {
        match self {
            Walk::Amqp(walk) => walk.close().await,
            Walk::Memory(walk) => walk.close(),
        }
    }
}

/// A message broker. A handle: clones share the connections behind it.
pub trait Broker: Clone + Send + Sync + 'static {
    /// Waits until the broker is connected and the topology stands, for at most `patience`. [`BrokerError::Config`]
    /// at once when waiting is of no use.
    fn ready(&self, patience: Duration) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// Registers a consumer on a channel of its own, waiting for the connection as long as it takes; `Err` only for
    /// [`BrokerError::Config`] at the first connection or when the queue may not be read, and after [`Broker::close`].
    fn consume(&self, queue: &str, prefetch: u16) -> impl Future<Output = Result<Consumer, BrokerError>> + Send;

    /// Publishes persistent and mandatory, and returns once the broker has confirmed it. Bounded by a timeout.
    fn publish(&self, to: &Destination, message: Message) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// Opens a walk through `queue`.
    fn walk(&self, queue: &str) -> impl Future<Output = Result<Walk, BrokerError>> + Send;

    /// Returns how full `queue` is.
    fn depth(&self, queue: &str) -> impl Future<Output = Result<Depth, BrokerError>> + Send;

    /// Tells why the connections do not stand, or `None` while they do.
    fn trouble(&self) -> Option<String>;

    /// Tells whether the connections stand.
    fn connected(&self) -> bool {
        self.trouble().is_none()
    }

    /// Closes the connections in order, within two seconds.
    fn close(&self) -> impl Future<Output = ()> + Send;
}
