//! The confirmed publisher, and its record: the first of the three that the checker compares.
//!
//! Publishes every event until the broker has confirmed it, whatever happens to the connection. Goes to the broker directly,
//! never through a relay. An event counts as sent from its first publish on, as confirmed from its confirm on.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use futures::{StreamExt, stream::FuturesUnordered};
use lapin::{BasicProperties, Confirmation, options::BasicPublishOptions};
use serde_json::json;

use crate::outbox::Outbox;

/// How an event is to travel, by its name in the harness's catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Presence,
    Always,
    Realtime,
    Push,
}

/// What a round publishes: everything about event `n` follows from `n` and the seed.
#[derive(Debug, Clone)]
pub struct Script {
    pub prefix: String,
    pub seed: u64,
    pub sessions: u64,
    pub events: u64,
}

impl Script {
    pub fn id(&self, n: u64) -> String {
        format!("{}-{n}", self.prefix)
    }

    /// Returns the number of the event with `id`, if it is one of this round's.
    pub fn number(&self, id: &str) -> Option<u64> {
        id.strip_prefix(&self.prefix)?.strip_prefix('-')?.parse().ok()
    }

    /// Returns the event that aborts the process in the round of that name: it has others before and behind it.
    pub fn poison(&self) -> u64 {
        self.events / 3
    }

    pub fn session(&self, n: u64) -> u64 {
        n % self.sessions
    }

    pub fn session_id(&self, session: u64) -> String {
        format!("{}-s{session}", self.prefix)
    }

    pub fn user(&self, session: u64) -> String {
        format!("{}-u{session}", self.prefix)
    }

    pub fn token(&self, session: u64) -> String {
        format!("ExponentPushToken[{}-t{session}]", self.prefix)
    }

    pub fn present(&self, session: u64) -> bool {
        mix(self.seed ^ session.wrapping_mul(31)) & 1 == 0
    }

    pub fn kind(&self, n: u64) -> Kind {
        match mix(self.seed.wrapping_add(n)) % 20 {
            0 => Kind::Always,
            1 => Kind::Realtime,
            2 => Kind::Push,
            _ => Kind::Presence,
        }
    }

    pub fn name(&self, n: u64) -> &'static str {
        match self.kind(n) {
            Kind::Presence => "t.presence",
            Kind::Always => "t.always",
            Kind::Realtime => "t.realtime",
            Kind::Push => "t.push",
        }
    }

    fn body(&self, n: u64) -> Vec<u8> {
        let session = self.session(n);
        let event = json!({
            "id": self.id(n), "sessionId": self.session_id(session), "event": self.name(n), "partnerId": self.user(session),
            "data": {"n": n},
        });
        event.to_string().into_bytes()
    }
}

/// The finalizer of splitmix64: spreads the bits of a counter.
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What the publisher knows of one event.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    pub confirmed: bool,
    pub publishes: u32,
}

/// The publisher's record, event by event.
#[derive(Clone, Default)]
pub struct Sheet(Arc<Mutex<Vec<Sent>>>);

impl Sheet {
    pub fn new(events: u64) -> Sheet {
        Sheet(Arc::new(Mutex::new(vec![Sent { confirmed: false, publishes: 0 }; events as usize])))
    }

    pub fn note(&self, n: u64, change: impl FnOnce(&mut Sent)) {
        change(&mut self.0.lock().expect("no panic while the lock is held")[n as usize]);
    }

    pub fn all(&self) -> Vec<Sent> {
        self.0.lock().expect("no panic while the lock is held").clone()
    }
}

/// Where the publisher publishes to.
#[derive(Clone)]
pub struct Publisher {
    /// One or several brokers of a cluster, tried in turn.
    pub urls: Vec<String>,
    pub exchange: String,
    pub script: Arc<Script>,
    pub sheet: Sheet,
    pub confirmed: Arc<AtomicU64>,
    /// Where rows are written instead of publishing.
    pub outbox: Option<Outbox>,
}

/// Publishes unconfirmed at once.
const WINDOW: usize = 300;
const CONFIRM: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(300);

impl Publisher {
    /// Publishes the events of `range`, at most `rate` a second (0: as fast as they are confirmed), and returns when all are
    /// confirmed.
    pub async fn publish(&self, range: Range<u64>, rate: f64) -> anyhow::Result<()> {
        if let Some(outbox) = &self.outbox {
            return outbox.write(self, range, rate).await;
        }
        let mut open: Vec<u64> = range.collect();
        let started = Instant::now();
        let mut turn = 0;
        while !open.is_empty() {
            let url = &self.urls[turn % self.urls.len()];
            turn += 1;
            let tried = self.session(url, rate, &mut open).await;
            if open.is_empty() {
                break;
            }
            if started.elapsed() > PATIENCE {
                bail!("{} events could not be published: {:?}", open.len(), tried.err());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Publishes over one connection, in order, until all is confirmed or something is wrong. What is left stays in `open`.
    async fn session(&self, url: &str, rate: f64, open: &mut Vec<u64>) -> anyhow::Result<()> {
        let connecting = lapin::Connection::connect(url, lapin::ConnectionProperties::default());
        let connection = tokio::time::timeout(Duration::from_secs(10), connecting).await.context("connect")??;
        let channel = connection.create_channel().await?;
        channel.confirm_select(Default::default()).await?;
        let mut waiting = FuturesUnordered::new();
        let mut left = std::mem::take(open).into_iter();
        let mut failed = Vec::new();
        let started = Instant::now();
        let mut published = 0u64;
        let mut broken = false;
        loop {
            while !broken && waiting.len() < WINDOW {
                let Some(n) = left.next() else { break };
                self.sheet.note(n, |sent| sent.publishes += 1);
                let options = BasicPublishOptions { mandatory: true, ..Default::default() };
                let properties =
                    BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2);
                let (exchange, body) = (self.exchange.as_str().into(), self.script.body(n));
                let publish = channel.basic_publish(exchange, "t".into(), options, &body, properties);
                match tokio::time::timeout(CONFIRM, publish).await {
                    Ok(Ok(confirm)) => waiting.push(async move { (n, tokio::time::timeout(CONFIRM, confirm).await) }),
                    _ => {
                        failed.push(n);
                        broken = true;
                    }
                }
                published += 1;
                if rate > 0.0 {
                    let due = Duration::from_secs_f64(published as f64 / rate);
                    if let Some(early) = due.checked_sub(started.elapsed()) {
                        tokio::time::sleep(early).await;
                    }
                }
            }
            let Some((n, confirm)) = waiting.next().await else { break };
            match confirm {
                Ok(Ok(Confirmation::Ack(None))) => {
                    self.sheet.note(n, |sent| sent.confirmed = true);
                    self.confirmed.fetch_add(1, Relaxed);
                }
                // Refused or unroutable: it may be taken later, on this connection as well as on another.
                Ok(Ok(_)) => {
                    failed.push(n);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                _ => {
                    failed.push(n);
                    broken = true;
                }
            }
        }
        failed.extend(left);
        failed.sort_unstable();
        *open = failed;
        let _ = tokio::time::timeout(Duration::from_secs(2), connection.close(200, "done".into())).await;
        Ok(())
    }
}
