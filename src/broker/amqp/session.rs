//! One connection from its handshake to its end.
//!
//! Opened and watched by the supervisor in `link`, used by `publish`, `consume` and `topology`. A session never comes back:
//! once it has ended everything on it fails, and its socket is shut down, so that no thread of lapin's stays behind.

use std::{
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, Event};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{error, publish::Channels, url::Address};
use crate::broker::BrokerError;

/// Longest a connection may take from the first packet to the end of the handshake.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest any single operation may take.
pub(super) const OPERATION: Duration = Duration::from_secs(10);
/// Longest an orderly close may take before the socket is shut down.
const CLOSE: Duration = Duration::from_millis(1_500);

/// A connection and what hangs on it.
pub(super) struct Session {
    connection: Connection,
    socket: Socket,
    ended: CancellationToken,
    blocked: AtomicBool,
    /// Channels for publishing, one message in flight on each.
    pub(super) channels: Channels,
}

impl Session {
    /// Connects as `name`, which is what the broker's connection list shows.
    pub(super) async fn open(address: &Address, name: &str) -> Result<Session, BrokerError> {
        let tls = address.tls().await?;
        let runtime = lapin::runtime::default_runtime().map_err(|error| error::unavailable(&error))?;
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let socket = Socket::default();
        let keep = socket.held();
        let connecting = Connection::connector(
            address.uri(),
            runtime,
            async move |uri, runtime| {
                let authority = uri.authority;
                let resolved = runtime.to_socket_addrs((authority.host.clone(), authority.port));
                let mut stream = AsyncTcpStream::connect(&runtime, resolved).await?;
                if let AsyncTcpStream::Plain(plain) = &stream {
                    lock(&keep).hold(Some(TcpStream::from(plain.get_ref().as_fd().try_clone_to_owned()?)));
                }
                if uri.scheme == lapin::uri::AMQPScheme::AMQPS {
                    stream = stream.into_tls(&authority.host, tls.as_ref()).await?;
                }
                Ok(stream)
            },
            properties,
        );
        // A server that accepts and then says nothing would hold lapin for ever; the socket's end ends its thread.
        let connection = match timeout(CONNECT, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(error::refused_connection(&error, address)),
            Err(_) => {
                let seconds = CONNECT.as_secs();
                return Err(BrokerError::Unavailable(format!("{address}: no AMQP handshake within {seconds} s")));
            }
        };
        let channels = Channels::new(connection.configuration().channel_max());
        Ok(Session { connection, socket, ended: CancellationToken::new(), blocked: AtomicBool::new(false), channels })
    }

    /// Returns once the session has ended, and why.
    pub(super) async fn watch(&self) -> String {
        let mut events = self.connection.events_listener();
        // An error between the handshake and this line sent its event to nobody; the state still tells.
        let mut look = tokio::time::interval(Duration::from_secs(1));
        let why = loop {
            tokio::select! {
                () = self.ended.cancelled() => break "a channel ended".to_owned(),
                _ = look.tick() => if !self.connection.status().connected() {
                    break "the connection is gone".to_owned();
                },
                event = events.next() => match event {
                    // The end of one channel is told here too.
                    Some(Event::Error(error)) if error::soft(&error).is_none() => break error::words(&error),
                    Some(Event::ConnectionBlocked(reason)) => {
                        self.blocked.store(true, Ordering::Relaxed);
                        tracing::warn!(reason = crate::domain::redact(&reason), "the broker blocks publishing");
                    }
                    Some(Event::ConnectionUnblocked) => {
                        self.blocked.store(false, Ordering::Relaxed);
                        tracing::info!("the broker takes publishes again");
                    }
                    Some(_) => {}
                    None => break "the connection is gone".to_owned(),
                },
            }
        };
        self.end();
        why
    }

    /// Ends the session: the supervisor closes it and connects anew.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    /// Returns once the session has ended.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Returns what is cancelled once the session has ended, for those that outlive it.
    pub(super) fn end_token(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Tells whether the session still stands.
    pub(super) fn stands(&self) -> bool {
        !self.ended.is_cancelled() && self.connection.status().connected()
    }

    /// Tells why the broker does not answer, when it has said so itself.
    pub(super) fn blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Returns the largest frame the broker takes, in bytes.
    pub(super) fn frame_max(&self) -> usize {
        match self.connection.configuration().frame_max() {
            0 => usize::MAX,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        }
    }

    /// Opens a channel.
    pub(super) async fn channel(&self) -> Result<Channel, BrokerError> {
        self.bounded("channel.open", self.connection.create_channel())
            .await?
            .map_err(|error| error::unavailable(&error))
    }

    /// Awaits an operation for at most ten seconds, or until the session ends.
    pub(super) async fn bounded<T>(&self, what: &str, operation: impl Future<Output = T>) -> Result<T, BrokerError> {
        tokio::select! {
            biased;
            result = timeout(OPERATION, operation) => result.map_err(|_| {
                BrokerError::Unavailable(format!("{what}: no answer within {} s", OPERATION.as_secs()))
            }),
            () = self.ended.cancelled() => Err(BrokerError::Unavailable(format!("{what}: the connection ended"))),
        }
    }

    /// Closes in order if the broker answers in time, and for good either way.
    pub(super) async fn close(&self) {
        self.end();
        if self.connection.status().connected() {
            let closed = timeout(CLOSE, self.connection.close(200, "".into())).await;
            tracing::debug!(in_order = matches!(closed, Ok(Ok(()))), "connection closed");
        }
        self.socket.shut_down();
    }
}

/// A second handle on the connection's socket: dropped, it shuts the socket down, which ends lapin's thread.
#[derive(Default)]
struct Socket(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    socket: Option<TcpStream>,
    over: bool,
}

impl Socket {
    fn held(&self) -> Arc<Mutex<Held>> {
        Arc::clone(&self.0)
    }

    fn shut_down(&self) {
        lock(&self.0).hold(None);
    }
}

impl Held {
    /// Keeps `socket` until the end; once that has come, whatever is there is shut down.
    fn hold(&mut self, socket: Option<TcpStream>) {
        match socket {
            Some(socket) => self.socket = Some(socket),
            None => self.over = true,
        }
        if self.over
            && let Some(socket) = self.socket.take()
        {
            // Fails when the peer was first.
            let _already_closed = socket.shutdown(Shutdown::Both);
        }
    }
}

fn lock(held: &Mutex<Held>) -> std::sync::MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}
