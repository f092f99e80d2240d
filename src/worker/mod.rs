//! The worker: takes every event through the seven stops, from the broker to a provider and back.
//!
//! Called by `herald run` and `herald demo`. `process` is the path of one event in one column; `intake` feeds it, `settle` ends
//! it. Never acknowledges a delivery before its fate is durable, never waits on the network without a timeout, and starts
//! no task that is not on its tracker.

mod clock;
mod intake;
mod drain;
pub mod lanes;
mod process;
mod gather;
mod send;
mod receipts;
mod tokens;
mod settle;
mod copies;
mod spans;
mod meters;
mod letters;
mod trouble;
mod pulse;
mod steering;
mod look;
mod gauges;
mod upkeep;
mod desk;
mod run;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::RwLock;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use run::{RunError, run};
pub(crate) use run::{patiently, until_signal};

use crate::{
    broker::{Delivery, management::Management, marks::Marks, topology::Topology},
    desk::{
        board::Board,
        live::{InHand, Live},
    },
    domain::{
        catalogue::Catalogue,
        event::{Event, Malformed},
        judge::Policy,
        outcome::Provider,
    },
    http::Readiness,
    provider::{ably::Ably, expo::Expo},
    store::{Store, users::Users},
};

/// Everything the seven stops need. One per process (one per worker in tests).
pub struct Worker<B> {
    broker: B,
    topology: Topology,
    store: Store,
    users: Option<Users>,
    ably: Ably,
    expo: Expo,
    catalogue: Catalogue,
    policy: Policy,
    settings: Settings,
    readiness: Readiness,
    management: Option<Management>,
    meters: meters::Meters,
    state: State,
}

/// The rest of the configuration that the stops read.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names this worker.
    pub instance: String,
    pub session_channel: String,
    pub presence_channel: String,
    /// `presence.on_unknown = "retry"`.
    pub retry_unknown: bool,
    pub prefetch: u16,
    pub retention: Duration,
    pub dead_retention: Duration,
    pub grace: Duration,
    /// When the receipt of an accepted push is asked for.
    pub receipts_after: Duration,
    /// Share of devices said to be gone above which no push token is cleared.
    pub unregistered_share: f64,
}

/// What the worker's parts share while it runs.
#[derive(Default)]
struct State {
    lanes: lanes::Lanes<Box<Received>>,
    tracker: TaskTracker,
    /// Cancelled: nothing new is started.
    stop: CancellationToken,
    /// Read while an event is handled; written while an event that workers died over is handled alone.
    alone: RwLock<()>,
    trouble: trouble::Trouble,
    /// Whether operators let events be taken in.
    intake: steering::Switch,
    /// A delivery could be neither settled nor copied: every consumer's channel must be made anew, whichever it came by.
    reopen: tokio::sync::watch::Sender<()>,
    /// Why the worker cannot go on: somebody must change something first.
    fatal: std::sync::OnceLock<String>,
    /// Claims of events that left the path without a row, to be given up once the ledger is back.
    unsettled: std::sync::Mutex<HashSet<String>>,
    pulse: std::sync::Mutex<pulse::Pulse>,
    /// What tickets and receipts say of the devices.
    devices: std::sync::Mutex<tokens::Devices>,
    waiting: Arc<[AtomicUsize; 2]>,
    in_flight: AtomicUsize,
    live: Arc<Live>,
    board: Arc<Board>,
}

/// A delivery with everything that can be read from it.
struct Received {
    delivery: Delivery,
    marks: Marks,
    event: Result<Event, Malformed>,
    at: Timestamp,
    entered: tokio::time::Instant,
    /// Counts it as long as it is in hand.
    counted: Option<InHand>,
    /// Dropped with the delivery, for whoever waits until it is settled.
    in_hand: Option<tokio::sync::oneshot::Sender<()>>,
}

/// Why an event leaves the path without being settled: it stays with the broker and comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Interrupted {
    /// Ledger or users database away; the intake stops until they are back.
    DatabaseAway,
    /// The delivery's channel ended.
    ChannelEnded,
}

/// What a worker is made of.
pub struct Parts<B> {
    pub broker: B,
    pub topology: Topology,
    pub store: Store,
    /// `None`: realtime only.
    pub users: Option<Users>,
    pub ably: Ably,
    pub expo: Expo,
    pub catalogue: Catalogue,
    pub policy: Policy,
    pub settings: Settings,
    pub readiness: Readiness,
    /// `None`: unacked counts and rates come from this worker alone, and nobody tells what is stuck.
    pub management: Option<Management>,
}

impl<B> Worker<B> {
    /// Returns how many events wait for or are with `provider`.
    fn waiting(&self, provider: Provider) -> &AtomicUsize {
        &self.state.waiting[provider as usize]
    }

    /// Tells whether more than half the prefetch waits for `provider`.
    fn crowded(&self, provider: Provider) -> bool {
        self.waiting(provider).load(Ordering::Relaxed) > usize::from(self.settings.prefetch / 2).max(1)
    }
}

/// Counts one more in a counter for as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Counted(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns each item once, in the order of first sight.
fn distinct<T: Clone + Eq + std::hash::Hash>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    items.into_iter().filter(|item| seen.insert(item.clone())).collect()
}
