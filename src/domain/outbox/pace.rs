//! When the relay looks at the table again: at once while there is more, after growing pauses while nothing gets through.
//!
//! Called by the relay after each round. Pure: the dice are an argument.

use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What one round came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows taken.
    pub taken: usize,
    /// Confirmed by the broker.
    pub relayed: usize,
    /// Marked as bad.
    pub failed: usize,
    /// Not confirmed; they stay.
    pub put_off: usize,
    /// Left alone for an earlier row that somebody else holds.
    pub behind: usize,
}

impl Tally {
    /// Tells whether any row left the table, or those that wait.
    pub fn moved(&self) -> bool {
        self.relayed + self.failed > 0
    }
}

/// What comes after a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// There is more.
    AtOnce,
    /// Nothing got through: not before this time has passed.
    After(Duration),
    /// Nothing is left: on the next notification or poll.
    Wait,
}

/// Decides after a round of at most `batch` rows, the `idle`th in a row (from 1) in which rows waited and none moved. `dice`
/// is in 0..1.
pub fn next(tally: &Tally, batch: usize, idle: u32, poll: Duration, dice: f64) -> Next {
    if tally.moved() {
        let more = tally.taken >= batch || tally.put_off + tally.behind > 0;
        return if more { Next::AtOnce } else { Next::Wait };
    }
    if tally.put_off > 0 {
        return Next::After(pause(idle, dice));
    }
    if tally.behind > 0 {
        // Whoever holds the earlier row is about to be done with it.
        return Next::After(pause(idle, dice).min(poll));
    }
    Next::Wait
}

/// Returns the pause after the `idle`th failure in a row (from 1), jittered by half in either direction.
pub fn pause(idle: u32, dice: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(idle.saturating_sub(1).min(16)));
    doubled.min(LONGEST_PAUSE).mul_f64(0.5 + dice)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_secs(1);

    #[test]
    fn what_comes_after_a_round() {
        let tally = |taken, relayed, failed, put_off, behind| Tally { taken, relayed, failed, put_off, behind };
        let after = |millis| Next::After(Duration::from_millis(millis));
        for (tally, idle, expected) in [
            (tally(0, 0, 0, 0, 0), 0, Next::Wait),
            (tally(3, 3, 0, 0, 0), 0, Next::Wait),
            (tally(10, 10, 0, 0, 0), 0, Next::AtOnce),
            (tally(10, 0, 10, 0, 0), 0, Next::AtOnce),
            (tally(5, 4, 0, 1, 0), 0, Next::AtOnce),
            (tally(5, 4, 0, 0, 1), 0, Next::AtOnce),
            (tally(5, 0, 0, 5, 0), 1, after(50)),
            (tally(5, 0, 0, 5, 0), 4, after(400)),
            (tally(5, 0, 0, 5, 0), 40, after(10_000)),
            (tally(10, 0, 0, 0, 10), 1, after(50)),
            (tally(10, 0, 0, 0, 10), 40, after(1_000)),
        ] {
            assert_eq!(next(&tally, 10, idle, POLL, 0.5), expected, "{tally:?}, {idle}");
        }
    }

    #[test]
    fn pauses_are_jittered() {
        assert_eq!(pause(1, 0.0), Duration::from_millis(25));
        assert!(pause(1, 0.999) > Duration::from_millis(74));
        assert_eq!(pause(u32::MAX, 0.0), Duration::from_secs(5));
        assert_eq!(pause(0, 0.5), pause(1, 0.5));
    }
}
