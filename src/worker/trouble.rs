//! Trouble with a database: while the ledger or the users database is away, nothing is taken in.
//!
//! Called by the stops that met it (raise) and by the intake (wait, probe, clear). Never a reason to use up an attempt.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

/// First and longest pause before databases that answer, and yet fail again and again, are relied on once more.
const FIRST_RELAPSE: Duration = Duration::from_millis(500);
const LONGEST_RELAPSE: Duration = Duration::from_secs(30);
/// An outage within this time of the last is a relapse.
const CALM: Duration = Duration::from_secs(60);

/// What is wrong, if anything.
pub struct Trouble {
    what: watch::Sender<Option<String>>,
}

impl Default for Trouble {
    fn default() -> Self {
        Trouble { what: watch::Sender::new(None) }
    }
}

impl Trouble {
    /// Says what is wrong; the first word stays until it is cleared.
    pub fn raise(&self, what: &str) {
        self.what.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                tracing::error!(what, "a database is away: intake stops until it is back");
                *current = Some(what.to_owned());
            }
            first
        });
    }

    /// Returns once something is wrong, with what it is.
    pub async fn raised(&self) -> String {
        let mut receiver = self.what.subscribe();
        let what = receiver.wait_for(Option::is_some).await;
        what.ok().and_then(|what| what.clone()).unwrap_or_default()
    }

    /// Returns a future that ends once something has gone wrong since this call, even if all is well again by then: a delivery
    /// that was interrupted by it stays in hand until its channel is closed.
    pub fn raised_since(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut receiver = self.what.subscribe();
        let wrong = receiver.borrow().is_some();
        async move {
            if !wrong {
                // An error means that the worker is gone.
                let _ = receiver.changed().await;
            }
        }
    }

    /// Returns what is wrong, beginning with the database's key, or `None` while all is well.
    pub fn what(&self) -> Option<String> {
        self.what.borrow().clone()
    }

    /// Returns once all is well.
    pub async fn cleared(&self) {
        // An error means that the worker is gone, and with it whoever waits here.
        let _ = self.what.subscribe().wait_for(Option::is_none).await;
    }

    /// Returns what is wrong, to be looked at at any time.
    pub fn watch(&self) -> watch::Receiver<Option<String>> {
        self.what.subscribe()
    }

    /// Says that all is well again.
    pub fn clear(&self) {
        self.what.send_if_modified(|current| {
            let was_raised = current.take().is_some();
            if was_raised {
                tracing::info!("the databases are back: intake starts again");
            }
            was_raised
        });
    }
}

/// Databases that answer a probe and then fail the events again: each round wears out the broker's delivery limit, so the
/// rounds become rare.
#[derive(Default)]
pub struct Relapses {
    ended: Option<Instant>,
    in_a_row: u32,
}

impl Relapses {
    /// Returns the pause before the databases are asked whether they are back: none after a calm time.
    pub fn pause(&mut self, now: Instant) -> Duration {
        if self.ended.is_none_or(|ended| now - ended >= CALM) {
            self.in_a_row = 0;
            return Duration::ZERO;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        FIRST_RELAPSE.saturating_mul(2u32.saturating_pow(self.in_a_row - 1)).min(LONGEST_RELAPSE)
    }

    /// Says that the outage is over.
    pub fn over(&mut self, now: Instant) {
        self.ended = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_trouble_that_is_over_before_anybody_looked_is_not_missed() {
        let trouble = Trouble::default();
        let mut quiet = std::pin::pin!(trouble.raised_since());
        assert_eq!(quiet.as_mut().now_or_never(), None);
        trouble.raise("away");
        trouble.clear();
        assert_eq!(quiet.now_or_never(), Some(()));
        assert_eq!(trouble.raised_since().now_or_never(), None);
        trouble.raise("away again");
        assert_eq!(trouble.raised_since().now_or_never(), Some(()));
    }

    #[test]
    fn relapses_become_rare_and_a_calm_time_forgives_them() {
        let (mut relapses, mut now) = (Relapses::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let pause = relapses.pause(now);
            pauses.push(pause.as_secs_f64());
            now += pause + Duration::from_millis(20);
            relapses.over(now);
        }
        assert_eq!(pauses, [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!(relapses.pause(now + CALM), Duration::ZERO);
    }
}
