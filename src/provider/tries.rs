//! Quick tries: the pauses between attempts made within one call.
//!
//! Called by both provider clients, only for what is safe to repeat and not too late to matter. Never decides what is.

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
    until: Option<Instant>,
}

impl Tries {
    /// Begins a call that is of no use any more after `until`.
    pub(super) fn new(until: Option<Instant>) -> Tries {
        let backoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(Duration::from_millis(150))
            .with_multiplier(2.5)
            .with_randomization_factor(0.5)
            .with_max_elapsed_time(None)
            .build();
        Tries { backoff, paused: Duration::ZERO, started: Instant::now(), until }
    }

    /// Tells whether a further attempt may begin without a pause (on another host).
    pub(super) fn another(&self) -> bool {
        self.in_time(Duration::ZERO)
    }

    /// Returns the pause before the next attempt, or `None` when there is to be no other.
    pub(super) fn next_pause(&mut self) -> Option<Duration> {
        let pause = self.backoff.next_backoff().filter(|pause| self.in_time(*pause))?;
        self.paused += pause;
        (self.paused <= PAUSES).then_some(pause)
    }

    fn in_time(&self, pause: Duration) -> bool {
        self.started.elapsed() < ATTEMPTS && self.until.is_none_or(|until| Instant::now() + pause < until)
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
            let mut tries = Tries::new(None);
            let pauses: Vec<Duration> = std::iter::from_fn(|| tries.next_pause()).collect();
            assert!((2..=4).contains(&pauses.len()), "{pauses:?}");
            assert!(pauses.iter().sum::<Duration>() <= PAUSES, "{pauses:?}");
        }
    }

    #[test]
    fn no_attempt_begins_when_it_would_be_too_late() {
        let soon = Tries::new(Some(Instant::now() + Duration::from_millis(50))).next_pause();
        assert_eq!(soon, None, "the shortest pause is 75 ms");
        assert!(!Tries::new(Some(Instant::now())).another());
        assert!(Tries::new(Some(Instant::now() + Duration::from_secs(60))).next_pause().is_some());
    }
}
