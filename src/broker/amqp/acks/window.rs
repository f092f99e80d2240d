//! Which settled deliveries of a channel are acknowledged when, and in which frames. Pure.
//!
//! Called by the task that sends. No frame ever covers a delivery that is not settled: one for many ends before the oldest of
//! those. Keeps none back for long: a broker that gave out all of its prefetch would wait for it.

use std::{collections::VecDeque, time::Duration};

use lapin::types::DeliveryTag;
use tokio::time::Instant;

/// Longest a settled delivery waits for others when everything before it is settled, too.
const RUN_WAIT: Duration = Duration::from_millis(50);
/// Longest it waits for one before it. Longer, because most of the time that one comes and saves it a frame of its own.
const WAIT: Duration = Duration::from_millis(250);
/// A run of so many goes out at once.
const RUN: usize = 50;

/// One frame to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub tag: DeliveryTag,
    /// With everything before it.
    pub multiple: bool,
    /// How many settled deliveries it acknowledges.
    pub count: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Open,
    Settled(Instant),
    /// Acknowledged by a frame of its own.
    Sent,
}

/// The deliveries of one channel from the oldest that is not acknowledged on. Tags count up without gaps.
#[derive(Debug)]
pub(super) struct Window {
    /// Tag of the first slot.
    first: DeliveryTag,
    slots: VecDeque<Slot>,
    /// What is settled without an open one before it.
    run: Run,
    /// Settled slots, those of the run included.
    pending: usize,
    /// When the first of them was settled.
    since: Option<Instant>,
    /// So many in a run, or so many pending, go out at once.
    enough: (usize, usize),
    /// Nothing is sent any more.
    pub closed: bool,
}

/// The slots before the oldest open one.
#[derive(Debug, Default)]
struct Run {
    length: usize,
    /// How many of them are settled.
    count: usize,
    /// Since when there are any.
    since: Option<Instant>,
}

impl Window {
    pub fn new(prefetch: u16) -> Window {
        let prefetch = usize::from(prefetch);
        // Small prefetches must not wait: the broker delivers no more before it has heard of these.
        let enough = ((prefetch / 10).clamp(1, RUN), (prefetch / 4).max(1));
        Window { first: 1, slots: VecDeque::new(), run: Run::default(), pending: 0, since: None, enough, closed: false }
    }

    pub fn taken(&mut self, tag: DeliveryTag) {
        // Should the broker ever leave one out: it stays open, and nothing is acknowledged past it.
        let length = usize::try_from(tag.saturating_sub(self.first)).map_or(0, |place| place + 1);
        self.slots.resize(self.slots.len().max(length), Slot::Open);
    }

    /// Marks a delivery as settled; tells whether there is something new to do.
    pub fn settle(&mut self, tag: DeliveryTag, now: Instant) -> bool {
        let slot = tag.checked_sub(self.first).and_then(|place| self.slots.get_mut(usize::try_from(place).ok()?));
        match slot {
            Some(slot @ Slot::Open) => *slot = Slot::Settled(now),
            _ => return false,
        }
        self.pending += 1;
        let first = self.since.is_none();
        self.since.get_or_insert(now);
        let run = &mut self.run;
        while let Some(slot) = self.slots.get(run.length).filter(|slot| **slot != Slot::Open) {
            run.length += 1;
            run.count += usize::from(slot.settled().is_some());
        }
        let began = run.count > 0 && run.since.is_none();
        if began {
            run.since = Some(now);
        }
        first || began || self.enough()
    }

    fn enough(&self) -> bool {
        self.run.count >= self.enough.0 || self.pending >= self.enough.1
    }

    /// Returns when something has to go out although it is not much.
    pub fn due(&self) -> Option<Instant> {
        let run = self.run.since.map(|since| since + RUN_WAIT);
        let alone = self.since.map(|since| since + WAIT);
        run.into_iter().chain(alone).min()
    }

    /// Takes what has to go out at `now`: the run as one frame, and one by one what lies behind an open delivery and has waited
    /// for long enough.
    pub fn take_due(&mut self, now: Instant) -> Vec<Frame> {
        if self.pending >= self.enough.1 {
            self.take(|_| true)
        } else if self.enough() || self.due().is_some_and(|due| due <= now) {
            self.take(|since| since + WAIT <= now)
        } else {
            Vec::new()
        }
    }

    /// Takes the run, and what lies behind it and was settled at a time that `waited_enough`.
    pub fn take(&mut self, waited_enough: impl Fn(Instant) -> bool) -> Vec<Frame> {
        let Run { length, count, .. } = std::mem::take(&mut self.run);
        let last = self.slots.drain(..length).rposition(|slot| slot.settled().is_some());
        let run = last.map(|last| Frame { tag: self.first + last as u64, multiple: count > 1, count });
        self.first += length as u64;
        self.pending -= count;
        let mut frames: Vec<Frame> = run.into_iter().collect();
        self.since = None;
        for (slot, tag) in self.slots.iter_mut().zip(self.first..) {
            match slot.settled() {
                Some(at) if waited_enough(at) => {
                    *slot = Slot::Sent;
                    self.pending -= 1;
                    frames.push(Frame { tag, multiple: false, count: 1 });
                }
                Some(at) => self.since = Some(self.since.map_or(at, |since| since.min(at))),
                None => {}
            }
        }
        frames
    }
}

impl Slot {
    fn settled(self) -> Option<Instant> {
        match self {
            Slot::Settled(at) => Some(at),
            Slot::Open | Slot::Sent => None,
        }
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
