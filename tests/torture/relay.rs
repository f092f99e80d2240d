//! A relay between herald and one of its servers that knows AMQP's frames: it cuts, turns black, delays, keeps
//! acknowledgements or confirms back, and can slip in a frame that makes the broker close a channel.
//!
//! Used by every round: each herald process reaches RabbitMQ and PostgreSQL through one. Never changes a byte that passes.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// What the relay does with what passes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mode {
    /// Established connections are reset, new ones too.
    pub cut: bool,
    /// Connections stand, new ones are accepted, and nothing passes in either direction.
    pub blackhole: bool,
    /// The first acknowledgement of herald's and everything behind it waits.
    pub hold_acks: bool,
    /// The first confirm of the broker's and everything behind it waits.
    pub hold_confirms: bool,
    /// Each piece waits this long in each direction.
    pub delay: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Amqp,
    Plain,
}

#[derive(Default)]
struct Shared {
    mode: watch::Sender<Mode>,
    held: AtomicU64,
    inject: AtomicU64,
}

/// A relay to one server; dropped, it is gone with all its connections.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Listens on a free port and relays to `port` of this machine.
    pub async fn start(port: u16, protocol: Protocol) -> io::Result<Relay> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, port, protocol, shared.clone()));
        Ok(Relay { address, shared, _tasks: tasks })
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn set(&self, change: impl FnOnce(&mut Mode)) {
        self.shared.mode.send_modify(change);
    }

    /// Returns how many acknowledgements or confirms were stopped so far; each stops a whole connection.
    pub fn held(&self) -> u64 {
        self.shared.held.load(Relaxed)
    }

    /// Slips an acknowledgement of a delivery that never was into every consumer's channel: the broker closes it with 406.
    pub fn break_channels(&self) {
        self.shared.inject.fetch_add(1, Relaxed);
    }
}

async fn accept(listener: TcpListener, port: u16, protocol: Protocol, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(relay(client, port, protocol, shared.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(mut client: TcpStream, port: u16, protocol: Protocol, shared: Arc<Shared>) {
    let mut mode = shared.mode.subscribe();
    let Ok(now) = mode.wait_for(|mode| !mode.blackhole || mode.cut).await.map(|mode| *mode) else { return };
    if now.cut {
        let _ = client.set_zero_linger();
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let consumer = AtomicU16::new(0);
        let up = Pump { from: from_client, to: to_server, up: true, shared: &shared, consumer: &consumer };
        let down = Pump { from: from_server, to: to_client, up: false, shared: &shared, consumer: &consumer };
        tokio::select! {
            _ = up.run(protocol) => false,
            _ = down.run(protocol) => false,
            _ = mode.wait_for(|mode| mode.cut) => true,
        }
    };
    if cut {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

struct Pump<'a> {
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    /// From herald to the server.
    up: bool,
    shared: &'a Shared,
    /// The channel that consumes on this connection; 0 when there is none.
    consumer: &'a AtomicU16,
}

/// Class and method of AMQP's frames that matter here.
const CONSUME: [u8; 4] = [0, 60, 0, 20];
const ACK: [u8; 4] = [0, 60, 0, 80];
const NACK: [u8; 4] = [0, 60, 0, 120];

impl Pump<'_> {
    async fn run(self, protocol: Protocol) -> io::Result<()> {
        match protocol {
            Protocol::Amqp => self.frames().await,
            Protocol::Plain => self.bytes().await,
        }
    }

    async fn bytes(mut self) -> io::Result<()> {
        let mut mode = self.shared.mode.subscribe();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = self.from.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            pass(&mut mode, |mode| !mode.blackhole).await;
            let delay = mode.borrow().delay;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            self.to.write_all(&buffer[..read]).await?;
        }
    }

    async fn frames(self) -> io::Result<()> {
        let Pump { from, to, up, shared, consumer } = self;
        let mut mode = shared.mode.subscribe();
        let (mut from, mut to) = (BufReader::with_capacity(64 * 1024, from), BufWriter::with_capacity(64 * 1024, to));
        let mut injected = shared.inject.load(Relaxed);
        if up {
            let mut protocol = [0; 8];
            from.read_exact(&mut protocol).await?;
            to.write_all(&protocol).await?;
            to.flush().await?;
        }
        let mut frame = Vec::new();
        loop {
            if from.buffer().is_empty() {
                to.flush().await?;
            }
            let mut head = [0; 7];
            tokio::select! {
                read = from.read_exact(&mut head) => { read?; }
                // Only between two frames, and only where somebody consumes.
                () = due(shared, &mut injected, consumer), if up => {
                    to.write_all(&wrong_ack(consumer.load(Relaxed))).await?;
                    to.flush().await?;
                    continue;
                }
            }
            let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize + 1;
            frame.resize(length, 0);
            from.read_exact(&mut frame).await?;
            if head[0] == 1 && length > 4 {
                let method: [u8; 4] = frame[..4].try_into().expect("four bytes");
                if up && method == CONSUME {
                    consumer.store(u16::from_be_bytes([head[1], head[2]]), Relaxed);
                }
                let held = |mode: &Mode| match method {
                    ACK if up => mode.hold_acks,
                    ACK | NACK if !up => mode.hold_confirms,
                    _ => false,
                };
                let now = *mode.borrow();
                if held(&now) {
                    to.flush().await?;
                    shared.held.fetch_add(1, Relaxed);
                    pass(&mut mode, |mode| !held(mode)).await;
                }
            }
            let now = *mode.borrow();
            if now.blackhole {
                pass(&mut mode, |mode| !mode.blackhole).await;
            }
            if !now.delay.is_zero() {
                tokio::time::sleep(now.delay).await;
            }
            to.write_all(&head).await?;
            to.write_all(&frame).await?;
        }
    }
}

/// Returns once the mode lets bytes pass.
async fn pass(mode: &mut watch::Receiver<Mode>, open: impl FnMut(&Mode) -> bool) {
    // An error means that the relay is gone, and this task with it.
    let _ = mode.wait_for(open).await;
}

/// Returns when a frame is to be slipped in.
async fn due(shared: &Shared, injected: &mut u64, consumer: &AtomicU16) {
    loop {
        let wanted = shared.inject.load(Relaxed);
        if wanted > *injected && consumer.load(Relaxed) != 0 {
            *injected = wanted;
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn wrong_ack(channel: u16) -> Vec<u8> {
    let mut frame = vec![1];
    frame.extend(channel.to_be_bytes());
    frame.extend(13u32.to_be_bytes());
    frame.extend(ACK);
    frame.extend(u64::MAX.to_be_bytes());
    frame.extend([0, 0xCE]);
    frame
}
