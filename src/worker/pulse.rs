//! The worker's own pulse: when the ledger last heard of it, and what that means for the claims of others.
//!
//! Called by the heartbeat and by the intake. A worker the ledger has not heard of for ten seconds counts as dead, and its claims
//! are void. After an outage that silenced everybody this would be true of every neighbour that is a little slower to
//! come back, while outcomes it obtained are still in its memory: whoever was silent itself must give the others time first.

use std::time::Duration;

use tokio::time::Instant;

/// Silence of our own after which neighbours may have been silent for the ten seconds that count as death.
const SILENCE: Duration = Duration::from_secs(8);
/// How long the others get to speak again and to write what they have in hand.
const PATIENCE: Duration = Duration::from_secs(10);

/// When the ledger last heard of this worker.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    last: Option<Instant>,
    /// Workers alive by then, this one included.
    workers: u32,
    careful_until: Option<Instant>,
}

impl Pulse {
    /// Takes in that the ledger heard of us at `now`, and of so many living workers.
    pub(super) fn beat(&mut self, now: Instant, workers: u32) {
        let silent = self.last.is_some_and(|last| now - last >= SILENCE);
        if silent && self.workers > 1 {
            self.careful_until = Some(now + PATIENCE);
        }
        (self.last, self.workers) = (Some(now), workers);
    }

    /// Returns until when claims of others must not be taken for void.
    pub(super) fn careful_until(&self, now: Instant) -> Option<Instant> {
        self.careful_until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_silence_beside_other_workers_calls_for_care() {
        for (workers, silent, expected) in [(1, 60, false), (2, 2, false), (2, 7, false), (2, 8, true), (3, 3600, true)]
        {
            let start = Instant::now();
            let mut pulse = Pulse::default();
            pulse.beat(start, workers);
            let back = start + Duration::from_secs(silent);
            pulse.beat(back, 1);
            assert_eq!(pulse.careful_until(back).is_some(), expected, "{workers} workers, {silent} s");
            // The next beat neither ends nor prolongs it.
            pulse.beat(back + Duration::from_secs(2), 1);
            assert_eq!(pulse.careful_until(back + Duration::from_secs(9)).is_some(), expected);
            assert_eq!(pulse.careful_until(back + PATIENCE), None);
        }
    }
}
