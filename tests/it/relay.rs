//! A TCP relay between a client and a server that can be cut or turned into a black hole.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// What the relay does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Forward,
    /// Established connections are cut, new ones refused at once.
    Cut,
    /// Connections stand, new ones are accepted, and nothing passes in either direction.
    Blackhole,
}

/// A relay to one server; dropped, it is gone with all its connections.
pub struct Relay {
    address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Listens on a free port and relays to `server`.
    pub async fn start(server: String) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(watch::Sender::new(Mode::Forward));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, Arc::clone(&mode)));
        Relay { address, mode, _tasks: tasks }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn accept(listener: TcpListener, server: String, mode: Arc<watch::Sender<Mode>>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        connections.spawn(relay(client, server.clone(), mode.subscribe()));
    }
}

async fn relay(client: TcpStream, server: String, mut mode: watch::Receiver<Mode>) {
    mode.wait_for(|mode| *mode != Mode::Blackhole).await.unwrap();
    if *mode.borrow() == Mode::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let mut cut = mode.clone();
    tokio::select! {
        () = pass(client_in, server_out, mode.clone()) => {}
        () = pass(server_in, client_out, mode) => {}
        _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(bytes @ 1..) = from.read(&mut buffer).await else { return };
        if mode.wait_for(|mode| *mode != Mode::Blackhole).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}
