//! RabbitMQ through lapin.
//!
//! Used by the worker and the commands as [`Broker`]. One connection for consuming and one for publishing, because an alarm
//! on the broker stops everything on a connection that publishes, acknowledgements included (measured); each is kept by
//! a supervisor of its own in `link`. Must never await the network without a timeout, and never use lapin's own recovery.

mod acks;
mod consume;
mod error;
mod link;
mod meters;
mod publish;
mod session;
mod topology;
mod url;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use lapin::{options::QueueDeclareOptions, types::FieldTable};
use secrecy::SecretString;
use tokio::{sync::Mutex, time::timeout};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

pub use acks::Receipt;
pub use consume::{Consumer, Walk};
pub(crate) use link::Complaint;
use link::{Link, Plan};
use publish::Fault;
use session::Session;
use url::Address;

use super::{Broker, BrokerError, Depth, Destination, Found, Message, Topology};

/// What OpenTelemetry's conventions call this broker.
pub const SYSTEM: &str = "rabbitmq";

/// Log directive that belongs into every filter: at level warn lapin prints returned messages with their bodies, and what else it
/// says is said here, once and redacted.
pub const LOG_DIRECTIVE: &str = "lapin=off";

/// Longest a publish waits for a connection.
const NEXT_SESSION: Duration = Duration::from_secs(10);
/// Pause before a consumer that could not be registered is tried again.
const CONSUME_PAUSE: Duration = Duration::from_secs(1);
/// Longest [`Amqp::close`] takes.
const CLOSE: Duration = Duration::from_secs(2);

/// What the connections are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Consumes and publishes, on two connections; sets the topology up.
    Worker,
    /// Publishes and walks, on one connection; sets the topology up.
    Command,
    /// Looks only, on one connection; declares nothing.
    Inspect,
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct AmqpOptions {
    pub url: SecretString,
    /// PEM file of a private authority, for amqps.
    pub ca_file: Option<PathBuf>,
    /// Names this process in the broker's connection list.
    pub instance: String,
    pub topology: Topology,
    pub role: Role,
}

/// A handle on the connections to RabbitMQ; clones share them.
#[derive(Clone)]
pub struct Amqp(Arc<Inner>);

struct Inner {
    consume: Arc<Link>,
    /// The same as `consume` unless the role is [`Role::Worker`].
    publish: Arc<Link>,
    topology: Topology,
    role: Role,
    /// Held while the topology is set up.
    set_up: Arc<Mutex<()>>,
    stop: CancellationToken,
    supervisors: TaskTracker,
    /// Ends the supervisors with the last handle.
    _ends: DropGuard,
}

impl Amqp {
    /// Starts connecting in the background; [`Broker::ready`] tells when it has worked. Needs a tokio runtime.
    pub fn start(options: AmqpOptions) -> Amqp {
        let AmqpOptions { url, ca_file, instance, topology, role } = options;
        let address = Address::parse(&url, ca_file);
        let (set_up, complaint) = (Arc::new(Mutex::new(())), Arc::default());
        let (stop, supervisors) = (CancellationToken::new(), TaskTracker::new());
        let start = |purpose: &str, address| {
            let name = format!("herald {instance} {purpose}");
            let link = Link::new();
            let topology = (role != Role::Inspect).then(|| topology.clone());
            let plan = Plan { address, name, topology, set_up: Arc::clone(&set_up), complaint: Arc::clone(&complaint) };
            supervisors.spawn(Arc::clone(&link).supervise(plan, stop.clone()));
            link
        };
        let (consume, publish) = match role {
            Role::Worker => (start("consume", address.clone()), start("publish", address.map(Address::for_publishing))),
            Role::Command | Role::Inspect => {
                let link = start("command", address);
                (Arc::clone(&link), link)
            }
        };
        supervisors.close();
        let _ends = stop.clone().drop_guard();
        Amqp(Arc::new(Inner { consume, publish, topology, role, set_up, stop, supervisors, _ends }))
    }

    /// Tells whether `to` is one of the queues, or the exchange, that this handle sets up.
    fn declares(&self, to: &Destination) -> bool {
        let topology = &self.0.topology;
        self.0.role != Role::Inspect
            && match to {
                Destination::Queue(name) => topology.queues().iter().any(|queue| queue.name == *name),
                Destination::Exchange { exchange, .. } => *exchange == topology.events(),
            }
    }

    /// Publishes and waits for the confirm; a topology that turns out incomplete is set up again first.
    async fn publish_confirmed(&self, to: &Destination, message: Message) -> Result<(), BrokerError> {
        let session = self.0.publish.session_within(NEXT_SESSION).await?;
        let message = message.persistent();
        match publish::publish(&session, to, &message).await {
            Err(Fault::Unroutable(why)) if self.declares(to) => {
                tracing::warn!(why, "the topology is incomplete, setting it up again");
                self.set_up(&session).await?;
                publish::publish(&session, to, &message).await.map_err(BrokerError::from)
            }
            published => published.map_err(BrokerError::from),
        }
    }

    /// Declares again what somebody has deleted. One at a time; the others then find everything in place.
    async fn set_up(&self, session: &Session) -> Result<(), BrokerError> {
        let _turn = self.0.set_up.lock().await;
        topology::set_up(session, &self.0.topology).await
    }

    /// Compares what stands on the broker with what herald needs, and declares nothing. Waits for a connection for at
    /// most `patience`.
    pub async fn compare(&self, patience: Duration) -> Result<Vec<Found>, BrokerError> {
        let session = self.0.consume.session_within(patience).await?;
        topology::compare(&session, &self.0.topology).await
    }
}

impl Broker for Amqp {
    async fn ready(&self, patience: Duration) -> Result<(), BrokerError> {
        let consume = self.0.consume.session_within(patience);
        let publish = self.0.publish.session_within(patience);
        // Whichever knows first that waiting is of no use ends the wait for both.
        futures::future::try_join(consume, publish).await.map(|_| ())
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<super::Consumer, BrokerError> {
        loop {
            let session = self.0.consume.session().await?;
            match Consumer::open(Arc::clone(&session), queue, prefetch).await {
                Ok(consumer) => return Ok(super::Consumer::Amqp(Box::new(consumer))),
                Err(error @ BrokerError::Config(_)) => return Err(error),
                Err(error) => {
                    tracing::warn!(queue, %error, "no consumer, trying again");
                    tokio::time::sleep(CONSUME_PAUSE).await;
                }
            }
        }
    }

    async fn publish(&self, to: &Destination, message: Message) -> Result<(), BrokerError> {
        let begun = Instant::now();
        let published = self.publish_confirmed(to, message).await;
        let destination = if self.declares(to) { meters::name(to) } else { "other" };
        meters::published(destination, begun.elapsed(), published.as_ref().err());
        published
    }

    async fn walk(&self, queue: &str) -> Result<super::Walk, BrokerError> {
        let session = self.0.consume.session_within(NEXT_SESSION).await?;
        Walk::open(session, queue).await.map(super::Walk::Amqp)
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        let name = consume::queue_name(queue)?;
        let session = self.0.consume.session_within(NEXT_SESSION).await?;
        let channel = session.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declare = channel.queue_declare(name, options, FieldTable::default());
        let declared = session.bounded("queue.declare", declare).await?;
        let found = declared.map_err(|error| consume::refused(&error, queue))?;
        Ok(Depth { ready: found.message_count().into(), consumers: found.consumer_count().into(), unacked: None })
    }

    fn trouble(&self) -> Option<String> {
        self.0.consume.trouble().or_else(|| self.0.publish.trouble())
    }

    async fn close(&self) {
        self.0.stop.cancel();
        if timeout(CLOSE, self.0.supervisors.wait()).await.is_err() {
            tracing::warn!("the broker did not confirm the end of the connections in time");
        }
    }
}
