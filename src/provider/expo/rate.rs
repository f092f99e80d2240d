//! The project's rate: notifications a second, shared by the live workers.
//!
//! Called before each request. Waits in hand, but not for long: what the rate does not let through within five seconds
//! waits in the hold queue instead.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

/// Longest wait in hand.
const PATIENCE: Duration = Duration::from_secs(5);

/// What this worker may send.
#[derive(Debug)]
pub(super) struct Rate {
    /// Notifications a second over all workers.
    total: u32,
    share: Mutex<Share>,
    /// Requests collect their permits one after the other: collected side by side they would all go out at once.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Share {
    workers: u32,
    limiter: Arc<DefaultDirectRateLimiter>,
    burst: NonZeroU32,
}

impl Rate {
    /// Makes the rate for one worker alone.
    pub(super) fn new(total: u32) -> Rate {
        Rate { total, share: Mutex::new(Share::new(total, 1)), turn: tokio::sync::Mutex::default() }
    }

    /// Shares the rate among `workers`.
    pub(super) fn share(&self, workers: u32) {
        let mut share = self.share.lock().expect("no panic while the lock is held");
        if share.workers != workers.max(1) {
            *share = Share::new(self.total, workers.max(1));
        }
    }

    /// Waits until notifications may go out, and returns how many of `wanted`: fewer when the rest would have to wait for
    /// more than five seconds.
    pub(super) async fn take(&self, wanted: usize) -> usize {
        let deadline = Instant::now() + PATIENCE;
        let Ok(_turn) = tokio::time::timeout_at(deadline, self.turn.lock()).await else { return 0 };
        let (limiter, burst) = {
            let share = self.share.lock().expect("no panic while the lock is held");
            (share.limiter.clone(), share.burst)
        };
        let mut taken = 0;
        while let Some(next) = NonZeroU32::new(u32::try_from(wanted - taken).unwrap_or(u32::MAX)) {
            let next = next.min(burst);
            let ready = tokio::time::timeout_at(deadline, limiter.until_n_ready(next)).await;
            if !matches!(ready, Ok(Ok(()))) {
                break;
            }
            taken += next.get() as usize;
        }
        taken
    }
}

impl Share {
    /// Requests bunch up on their way: what left within 1.15 seconds may arrive within one. So that even then at most the
    /// share arrives, the burst is a twenty-fourth of it and a second refills five sixths.
    fn new(total: u32, workers: u32) -> Share {
        let share = (total / workers).max(1);
        let burst = NonZeroU32::new(share / 24).unwrap_or(NonZeroU32::MIN);
        let refill = NonZeroU32::new(share * 5 / 6).unwrap_or(NonZeroU32::MIN);
        let limiter = Arc::new(RateLimiter::direct(Quota::per_second(refill).allow_burst(burst)));
        Share { workers, limiter, burst }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_never_carries_more_than_the_share() {
        for (total, workers) in [(600, 1), (240, 2), (24, 1)] {
            let rate = Rate::new(total);
            rate.share(workers);
            let started = std::time::Instant::now();
            let mut sent = 0;
            while started.elapsed() < Duration::from_millis(900) {
                sent += rate.take(1).await;
            }
            let share = (total / workers) as usize;
            assert!(sent <= share && sent >= share / 2, "{sent} of {share}");
        }
    }

    #[tokio::test]
    async fn a_batch_larger_than_the_burst_is_let_through_whole() {
        let rate = Rate::new(600);
        assert_eq!(rate.take(100).await, 100);
        assert_eq!(rate.take(0).await, 0);
    }

    #[tokio::test]
    async fn whole_requests_side_by_side_go_out_one_after_the_other() {
        let rate = Rate::new(600);
        let started = std::time::Instant::now();
        let takes = (0..7).map(|_| async {
            assert_eq!(rate.take(100).await, 100);
            started.elapsed()
        });
        let out: Vec<Duration> = futures::future::join_all(takes).await;
        let apart = out[6] - out[0];
        assert!(apart >= Duration::from_millis(1100), "seven hundred in {apart:?}: {out:?}");
    }

    #[tokio::test]
    async fn what_would_wait_for_too_long_is_left_out() {
        let rate = Rate::new(4);
        let started = std::time::Instant::now();
        let taken = rate.take(100).await;
        assert!((10..=20).contains(&taken), "{taken}");
        assert!(started.elapsed() < Duration::from_secs(7));
    }
}
