//! What arrived at the provider in one case: each event's first arrival, repeats, strays, and the requests it took.
//!
//! Written by the stand-in, read by the cases. Five bytes an event, whatever arrives.

use std::{
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use crate::events;

#[derive(Debug)]
pub struct Sheet {
    pub tag: u32,
    started: Instant,
    /// Microseconds since the start, plus one; 0: not yet.
    first: Vec<AtomicU32>,
    times: Vec<AtomicU8>,
    distinct: AtomicU64,
    requests: AtomicU64,
    strays: AtomicU64,
}

/// What a case's arrivals add up to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count {
    pub lost: u64,
    pub repeated: u64,
    /// Arrived where they should not have, or from another case.
    pub strays: u64,
}

impl Sheet {
    pub fn new(tag: u32, events: u64) -> Sheet {
        Sheet {
            tag,
            started: Instant::now(),
            first: (0..events).map(|_| AtomicU32::new(0)).collect(),
            times: (0..events).map(|_| AtomicU8::new(0)).collect(),
            distinct: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            strays: AtomicU64::new(0),
        }
    }

    /// Returns the microseconds since the case began.
    pub fn now(&self) -> u32 {
        self.started.elapsed().as_micros().try_into().unwrap_or(u32::MAX)
    }

    pub fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// Notes an event that was published (`realtime`) or pushed.
    pub fn arrived(&self, id: &str, realtime: bool) {
        let known = events::number(self.tag, id).filter(|n| *n < self.first.len() as u64);
        let Some(n) = known.filter(|n| events::online(events::session(*n)) == realtime) else {
            self.strays.fetch_add(1, Relaxed);
            return;
        };
        let n = n as usize;
        if self.first[n].compare_exchange(0, self.now().saturating_add(1), Relaxed, Relaxed).is_ok() {
            self.distinct.fetch_add(1, Relaxed);
        }
        // Bounded: a count of 255 is wrong enough.
        let _ = self.times[n].fetch_update(Relaxed, Relaxed, |times| times.checked_add(1));
    }

    /// Takes a count from a peer that sends nothing to a provider.
    pub fn told(&self, count: u64) {
        self.distinct.fetch_max(count, Relaxed);
    }

    pub fn distinct(&self) -> u64 {
        self.distinct.load(Relaxed)
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Returns when event `n` first arrived, in microseconds since the case began.
    pub fn at(&self, n: u64) -> Option<u32> {
        self.first[n as usize].load(Relaxed).checked_sub(1)
    }

    pub fn count(&self) -> Count {
        let repeated = self.times.iter().map(|times| u64::from(times.load(Relaxed).saturating_sub(1))).sum();
        Count {
            lost: self.first.len() as u64 - self.distinct().min(self.first.len() as u64),
            repeated,
            strays: self.strays.load(Relaxed),
        }
    }
}
