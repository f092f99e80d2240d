//! The processes that are measured: which peers there are, how each is started, and what it used.
//!
//! Each gets an environment of its own and nothing else; its output goes to a log in the run's folder.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use crate::{proc, sheet::Sheet, stand_in::StandIn};

const KEY: &str = "bench.key:secret";

/// Megabytes of each half of V8's young generation, which is collected the more cheaply the larger it is. No variable of the worker: V8
/// takes it on the command line only.
pub const SEMI_SPACE: &str = "SEMI_SPACE_MB";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    Herald,
    /// The SDKs' defaults, prefetch 100.
    NodeDefault,
    /// What was fastest among the settings tried.
    NodeBest,
    /// As before on a newer Node.js than the machine's, with more connections to Ably than its client opens by itself: the fastest that is
    /// known, and more than the worker that the targets were set beside.
    NodeMore,
    Plain,
    /// Acknowledges each event.
    CeilingOne,
    /// Acknowledges fifty events at once.
    CeilingFifty,
}

impl Peer {
    pub const ALL: [Peer; 7] = [
        Peer::Herald,
        Peer::NodeDefault,
        Peer::NodeBest,
        Peer::NodeMore,
        Peer::Plain,
        Peer::CeilingOne,
        Peer::CeilingFifty,
    ];

    /// Returns the word for PEERS.
    pub fn word(self) -> &'static str {
        match self {
            Peer::Herald => "herald",
            Peer::NodeDefault => "node-default",
            Peer::NodeBest => "node-best",
            Peer::NodeMore => "node-more",
            Peer::Plain => "plain",
            Peer::CeilingOne => "ceiling-1",
            Peer::CeilingFifty => "ceiling-50",
        }
    }

    /// Returns what the tables call it.
    pub fn title(self) -> &'static str {
        match self {
            Peer::Herald => "herald",
            Peer::NodeDefault => "Node, SDK defaults, prefetch 100",
            Peer::NodeBest => "Node, best: prefetch 500, 100 Expo requests at once, semi-spaces of 64 MB",
            Peer::NodeMore => "Node, best, on Node.js 26 and with 400 connections to Ably instead of the client's 40",
            Peer::Plain => "plain Rust, prefetch 1,000",
            Peer::CeilingOne => "ceiling: lapin, one ack each",
            Peer::CeilingFifty => "ceiling: lapin, acks of fifty",
        }
    }

    /// Tells whether events reach a provider.
    pub fn delivers(self) -> bool {
        !matches!(self, Peer::CeilingOne | Peer::CeilingFifty)
    }

    fn settings(self) -> BTreeMap<&'static str, &'static str> {
        let best = [("PREFETCH", "500"), ("EXPO_CONCURRENCY", "100"), (SEMI_SPACE, "64")];
        match self {
            Peer::NodeDefault => [("PREFETCH", "100")].into(),
            Peer::NodeBest => best.into(),
            Peer::NodeMore => best.into_iter().chain([("ABLY_SOCKETS", "400")]).collect(),
            Peer::Plain => [("PREFETCH", "1000")].into(),
            Peer::Herald | Peer::CeilingOne | Peer::CeilingFifty => BTreeMap::new(),
        }
    }
}

/// Where everything is.
pub struct Places {
    pub herald: PathBuf,
    pub node: PathBuf,
    /// A newer Node.js than the machine's.
    pub new_node: PathBuf,
    /// Logs, and the working directory of the peers.
    pub folder: PathBuf,
    pub amqp: String,
    /// Settings of the Node worker to try instead of its best ones.
    pub tried: Vec<(String, String)>,
}

/// What a worker of one case is started with.
pub struct Start<'a> {
    pub peer: Peer,
    pub number: usize,
    pub prefix: &'a str,
    pub app: String,
    pub ledger: String,
    /// herald's expo.rate; none: its default.
    pub expo_rate: Option<u32>,
}

/// A running worker; killed when dropped.
pub struct Worker {
    child: Child,
    log: PathBuf,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

impl Worker {
    pub fn spawn(places: &Places, stand_in: &StandIn, sheet: &Arc<Sheet>, start: &Start) -> anyhow::Result<Worker> {
        let mut command = match start.peer {
            Peer::Herald => Command::new(&places.herald),
            Peer::NodeDefault | Peer::NodeBest => Command::new("node"),
            Peer::NodeMore => Command::new(&places.new_node),
            Peer::Plain | Peer::CeilingOne | Peer::CeilingFifty => Command::new(std::env::current_exe()?),
        };
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("AMQP_URL", &places.amqp);
        command.env("ABLY_API_KEY", KEY);
        match start.peer {
            Peer::Herald => herald(&mut command, stand_in, start),
            peer => {
                let mut settings: BTreeMap<&str, &str> = peer.settings();
                if peer == Peer::NodeBest {
                    settings.extend(places.tried.iter().map(|(name, value)| (name.as_str(), value.as_str())));
                }
                if let Some(megabytes) = settings.remove(SEMI_SPACE) {
                    command.args(["min", "max"].map(|end| format!("--{end}-semi-space-size={megabytes}")));
                }
                match peer {
                    Peer::Plain => command.arg("plain"),
                    Peer::CeilingOne => command.args(["ceiling", "--acks", "1"]),
                    Peer::CeilingFifty => command.args(["ceiling", "--acks", "50"]),
                    _ => command.arg(&places.node).env("NODE_ENV", "production"),
                };
                command.envs(settings);
                command.env("QUEUE", format!("{}.events", start.prefix)).env("DATABASE_URL", &start.app);
                command.env("ABLY_PORT", stand_in.address.port().to_string()).env("EXPO_BASE_URL", stand_in.url());
            }
        }
        let log = places.folder.join(format!("{}-{}-{}.log", start.prefix, start.peer.word(), start.number));
        command.current_dir(&places.folder).stdin(Stdio::null()).stderr(File::create(&log)?);
        command.stdout(if start.peer.delivers() { Stdio::null() } else { Stdio::piped() });
        let mut child = command.spawn().with_context(|| format!("{:?}", command.get_program()))?;
        if let Some(out) = child.stdout.take() {
            let sheet = sheet.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines() {
                    let Some(count) = line.ok().and_then(|line| line.parse().ok()) else { break };
                    sheet.told(count);
                }
            });
        }
        Ok(Worker { child, log })
    }

    /// Fails when the worker has ended by itself.
    pub fn runs(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            anyhow::bail!("the worker ended by itself with {status}: {}", tail(&self.log));
        }
        Ok(())
    }

    /// Returns the processor time it has used, in seconds.
    pub fn cpu(&self) -> f64 {
        proc::cpu_seconds(&format!("/proc/{}", self.child.id())).unwrap_or(0.0)
    }

    pub fn peak_kb(&self) -> u64 {
        proc::peak_kb(self.child.id()).unwrap_or(0)
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(sent.success(), "kill -TERM");
        let status = self.ended(Duration::from_secs(40))?;
        ensure!(status.success(), "the worker ended with {status} on SIGTERM: {}", tail(&self.log));
        Ok(())
    }

    fn ended(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(begun.elapsed() < patience, "the worker was not gone {patience:?} after SIGTERM");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// herald as it is shipped: only addresses are named, and `expo.rate` where the case says so.
fn herald(command: &mut Command, stand_in: &StandIn, start: &Start) {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_or(0, |it| it.port());
    command.args(["run", "--set", &format!("instance=bench{}", start.number)]);
    command
        .env("DATABASE_URL", &start.app)
        .env("HERALD_STORE__URL", &start.ledger)
        .env("HERALD_ABLY__URL", stand_in.url())
        .env("HERALD_EXPO__URL", stand_in.url())
        .env("HERALD_BROKER__PREFIX", start.prefix)
        .env("HERALD_HTTP__LISTEN", format!("127.0.0.1:{port}"));
    if let Some(rate) = start.expo_rate {
        command.env("HERALD_EXPO__RATE", rate.to_string());
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
}
