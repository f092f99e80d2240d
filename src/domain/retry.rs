//! The retry schedule: which delay comes next, and what its queue is called.
//!
//! Called by `judge` and by the broker's topology. Pure: fixed delays, because a RabbitMQ queue expires only its head.

use std::time::Duration;

/// Why there is no next delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoDelay {
    /// Every rung of the schedule was used.
    Exhausted,
    /// The event's life ends before any rung that may be used.
    Expired,
}

/// Returns the delay before the next attempt: the rung of `attempts` made so far (from 1), raised to the first rung of at
/// least `at_least`; a rung longer than the remaining life is replaced by the longest that fits.
pub fn next_delay(
    schedule: &[Duration],
    attempts: u32,
    at_least: Duration,
    remaining_life: Duration,
) -> Result<Duration, NoDelay> {
    let rung = attempts.saturating_sub(1) as usize;
    if rung >= schedule.len() {
        return Err(NoDelay::Exhausted);
    }
    let longest = schedule[schedule.len() - 1];
    // A wait beyond the schedule is cut to its longest rung: there is no queue for more.
    let at_least = at_least.min(longest);
    let wanted = schedule[rung..].iter().copied().find(|delay| *delay >= at_least).unwrap_or(longest);
    if wanted < remaining_life {
        return Ok(wanted);
    }
    let fitting = schedule.iter().copied().rev().find(|delay| *delay < remaining_life && *delay >= at_least);
    fitting.ok_or(NoDelay::Expired)
}

/// Returns `delay` by the largest unit that divides it: `5s`, `2m`, `1h`, `1d`; below a second `250ms`.
pub fn delay_name(delay: Duration) -> String {
    let millis = delay.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis >= size && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const SCHEDULE: [Duration; 5] = [s(5), s(30), s(120), s(600), s(3600)];

    #[test]
    fn the_next_delay_follows_the_schedule_within_the_life() {
        let day = s(86_400);
        for (attempts, at_least, life, expected) in [
            (1, s(0), day, Ok(s(5))),
            (2, s(0), day, Ok(s(30))),
            (5, s(0), day, Ok(s(3600))),
            (6, s(0), day, Err(NoDelay::Exhausted)),
            // An Expo push of unknown fate waits at least 30 s.
            (1, s(30), day, Ok(s(30))),
            (1, s(31), day, Ok(s(120))),
            (1, s(9999), day, Ok(s(3600))),
            // A rung longer than the remaining life is replaced by the longest that fits.
            (5, s(0), s(700), Ok(s(600))),
            (3, s(0), s(10), Ok(s(5))),
            (1, s(0), s(5), Err(NoDelay::Expired)),
            (2, s(30), s(20), Err(NoDelay::Expired)),
            (1, s(0), s(0), Err(NoDelay::Expired)),
        ] {
            assert_eq!(next_delay(&SCHEDULE, attempts, at_least, life), expected, "{attempts} {at_least:?} {life:?}");
        }
    }

    proptest! {
        #[test]
        fn a_delay_is_always_a_rung_that_ends_before_the_life(attempts in 0u32..8, at_least in 0u64..5000, life in 0u64..5000) {
            if let Ok(delay) = next_delay(&SCHEDULE, attempts, s(at_least), s(life)) {
                prop_assert!(SCHEDULE.contains(&delay) && delay < s(life) && delay >= s(at_least).min(s(3600)));
            }
        }
    }

    #[test]
    fn a_delay_is_named_by_the_largest_unit_that_divides_it() {
        for (seconds, name) in
            [(5, "5s"), (30, "30s"), (90, "90s"), (120, "2m"), (600, "10m"), (3600, "1h"), (86_400, "1d")]
        {
            assert_eq!(delay_name(s(seconds)), name);
        }
        assert_eq!(delay_name(Duration::from_millis(250)), "250ms");
    }
}
