//! What changes with every delivery, as numbers anybody may read at any time.
//!
//! Counted by `worker` on the path of an event, read by the board. Counting never waits.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::domain::outcome::Provider;

/// The numbers of one worker.
#[derive(Debug, Default)]
pub struct Live {
    /// Deliveries taken since the start.
    taken: AtomicU64,
    /// Deliveries acknowledged since the start.
    settled: AtomicU64,
    /// Deliveries taken from a queue and not settled: events, hold ably, hold expo.
    in_hand: [AtomicU64; 3],
}

/// Where a delivery was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Events,
    Hold(Provider),
}

impl Source {
    fn index(self) -> usize {
        match self {
            Source::Events => 0,
            Source::Hold(provider) => 1 + provider as usize,
        }
    }
}

impl Live {
    /// Counts a delivery, and returns what to keep for as long as it is in hand.
    pub fn take(self: &Arc<Self>, source: Source) -> InHand {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.in_hand[source.index()].fetch_add(1, Ordering::Relaxed);
        InHand { live: Arc::clone(self), source }
    }

    /// Counts an acknowledgement.
    pub fn settle(&self) {
        self.settled.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns deliveries taken and settled since the start.
    pub fn totals(&self) -> (u64, u64) {
        (self.taken.load(Ordering::Relaxed), self.settled.load(Ordering::Relaxed))
    }

    /// Returns how many deliveries of a queue are in hand.
    pub fn in_hand(&self, source: Source) -> u64 {
        self.in_hand[source.index()].load(Ordering::Relaxed)
    }

    /// Returns how many deliveries are in hand.
    pub fn all_in_hand(&self) -> u64 {
        self.in_hand.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// One delivery in hand.
#[derive(Debug)]
pub struct InHand {
    live: Arc<Live>,
    source: Source,
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.live.in_hand[self.source.index()].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_counts_where_it_came_from_until_it_is_dropped() {
        let live = Arc::new(Live::default());
        let events = live.take(Source::Events);
        let held = live.take(Source::Hold(Provider::Expo));
        assert_eq!((live.in_hand(Source::Events), live.in_hand(Source::Hold(Provider::Expo))), (1, 1));
        assert_eq!((live.in_hand(Source::Hold(Provider::Ably)), live.all_in_hand()), (0, 2));
        live.settle();
        drop((events, held));
        assert_eq!((live.in_hand(Source::Events), live.all_in_hand()), (0, 0));
        assert_eq!(live.totals(), (2, 1));
    }
}
