//! One queue: what waits in it, what is in hand, and the order both keep.
//!
//! Used by `state` under its lock. Positions only grow, so a message given back finds its old place by itself.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::MAX_MESSAGES;
use crate::broker::{Message, topology};

/// A message in a queue.
pub(super) struct Stored {
    pub message: Message,
    pub exchange: String,
    pub routing_key: String,
    /// Times it was given back.
    pub returns: i64,
    pub expires: Option<Instant>,
}

/// A message in somebody's hand.
struct Unsettled {
    channel: u64,
    stored: Stored,
}

/// How much a channel may have in hand, 0 for as much as it likes, and how much it has.
struct Channel {
    prefetch: usize,
    in_hand: usize,
}

/// A queue with the arguments that mean something here.
pub(super) struct Queue {
    ttl: Option<Duration>,
    delivery_limit: i64,
    /// Queue that expired and too often returned messages go to.
    pub dead_letters_to: Option<String>,
    ready: BTreeMap<u64, Stored>,
    unsettled: HashMap<u64, Unsettled>,
    next_position: u64,
    channels: HashMap<u64, Channel>,
    pub consumers: HashSet<u64>,
    /// Woken whenever a waiting consumer may have something to do.
    pub changed: Arc<Notify>,
}

impl Queue {
    pub(super) fn new(queue: &topology::Queue) -> Queue {
        let ttl = queue.number("x-message-ttl").and_then(|millis| u64::try_from(millis).ok());
        Queue {
            ttl: ttl.map(Duration::from_millis),
            delivery_limit: queue.number("x-delivery-limit").unwrap_or(i64::MAX),
            dead_letters_to: queue.text("x-dead-letter-routing-key").map(str::to_owned),
            ready: BTreeMap::new(),
            unsettled: HashMap::new(),
            next_position: 0,
            channels: HashMap::new(),
            consumers: HashSet::new(),
            changed: Arc::new(Notify::new()),
        }
    }

    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn unacked(&self) -> usize {
        self.unsettled.len()
    }

    pub(super) fn full(&self) -> bool {
        self.ready.len() + self.unsettled.len() >= MAX_MESSAGES
    }

    /// Puts a message at the tail and tells whether it will expire.
    pub(super) fn push(&mut self, message: Message, exchange: &str, routing_key: &str) -> bool {
        let expires = self.ttl.and_then(|ttl| Instant::now().checked_add(ttl));
        let (exchange, routing_key) = (exchange.to_owned(), routing_key.to_owned());
        let stored = Stored { message, exchange, routing_key, returns: 0, expires };
        self.ready.insert(self.next_position, stored);
        self.next_position += 1;
        self.changed.notify_waiters();
        expires.is_some()
    }

    pub(super) fn open_channel(&mut self, channel: u64, prefetch: u16) {
        self.channels.insert(channel, Channel { prefetch: prefetch.into(), in_hand: 0 });
    }

    /// Hands the message at the head to `channel`, unless its hands are full.
    pub(super) fn take(&mut self, channel: u64) -> Option<(u64, &Stored)> {
        let hands = self.channels.get_mut(&channel)?;
        if hands.prefetch > 0 && hands.in_hand >= hands.prefetch {
            return None;
        }
        let (position, stored) = self.ready.pop_first()?;
        hands.in_hand += 1;
        let unsettled = self.unsettled.entry(position).insert_entry(Unsettled { channel, stored });
        Some((position, &unsettled.into_mut().stored))
    }

    pub(super) fn in_hand(&self, channel: u64, position: u64) -> bool {
        self.unsettled.get(&position).is_some_and(|unsettled| unsettled.channel == channel)
    }

    /// Forgets a message in hand; `false` if it is not in this channel's hand.
    pub(super) fn ack(&mut self, channel: u64, position: u64) -> bool {
        let acked = self.in_hand(channel, position);
        if acked {
            self.unsettled.remove(&position);
            if let Some(hands) = self.channels.get_mut(&channel) {
                hands.in_hand -= 1;
            }
            self.changed.notify_waiters();
        }
        acked
    }

    /// Gives everything in the channel's hand back to its place and returns what was given back too often.
    pub(super) fn close_channel(&mut self, channel: u64) -> Vec<Stored> {
        self.channels.remove(&channel);
        self.consumers.remove(&channel);
        let mut over_limit = Vec::new();
        for (position, unsettled) in self.unsettled.extract_if(|_, unsettled| unsettled.channel == channel) {
            let mut stored = unsettled.stored;
            stored.returns += 1;
            if stored.returns > self.delivery_limit {
                over_limit.push(stored);
            } else {
                self.ready.insert(position, stored);
            }
        }
        self.changed.notify_waiters();
        over_limit
    }

    pub(super) fn close_all_channels(&mut self) -> Vec<Stored> {
        let channels: Vec<u64> = self.channels.keys().copied().collect();
        channels.into_iter().flat_map(|channel| self.close_channel(channel)).collect()
    }

    /// Returns when the message at the head expires; a queue expires only its head.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.ready.first_key_value()?.1.expires
    }

    /// Takes the message at the head if it has expired.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Stored> {
        let head = self.ready.first_entry()?;
        head.get().expires.is_some_and(|expires| expires <= now).then(|| head.remove())
    }
}
