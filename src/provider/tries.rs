//! Quick tries: the pauses between attempts made within one call.
//!
//! Called by both provider clients, only for what is safe to repeat. Never decides what is.

use std::time::{Duration, Instant};

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};

/// The sum of all pauses of one call.
const PAUSES: Duration = Duration::from_secs(2);
/// After this no further attempt begins, so that slow failures do not add up (Ably's own limit over its hosts).
const ATTEMPTS: Duration = Duration::from_secs(15);

/// The pauses of one call.
pub(super) struct Tries {
    backoff: ExponentialBackoff,
    paused: Duration,
    started: Instant,
}

impl Tries {
    /// Begins a call.
    pub(super) fn new() -> Tries {
        let backoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(Duration::from_millis(150))
            .with_multiplier(2.5)
            .with_randomization_factor(0.5)
            .with_max_elapsed_time(None)
            .build();
        Tries { backoff, paused: Duration::ZERO, started: Instant::now() }
    }

    /// Tells whether a further attempt may begin without a pause (on another host).
    pub(super) fn another(&self) -> bool {
        self.started.elapsed() < ATTEMPTS
    }

    /// Returns the pause before the next attempt, or `None` when there is to be no other.
    pub(super) fn next_pause(&mut self) -> Option<Duration> {
        let pause = self.backoff.next_backoff().filter(|_| self.another())?;
        self.paused += pause;
        (self.paused <= PAUSES).then_some(pause)
    }

    /// Sleeps before the next attempt; `false` when there is to be no other.
    pub(super) async fn pause(&mut self) -> bool {
        match self.next_pause() {
            Some(pause) => {
                tokio::time::sleep(pause).await;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_of_a_call_stay_within_two_seconds() {
        for _ in 0..200 {
            let mut tries = Tries::new();
            let pauses: Vec<Duration> = std::iter::from_fn(|| tries.next_pause()).collect();
            assert!((2..=4).contains(&pauses.len()), "{pauses:?}");
            assert!(pauses.iter().sum::<Duration>() <= PAUSES, "{pauses:?}");
        }
    }
}
