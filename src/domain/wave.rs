//! A wave of devices said to be gone: when it is so many that it cannot be the devices.
//!
//! Called by the worker with what each ticket and each receipt says. Pure. A mistake at the provider, or in the project's
//! credentials, must not empty the app's table of push tokens.

use std::collections::VecDeque;

/// Answers looked at: the newest.
const WINDOW: usize = 500;
/// Answers older than a day, in milliseconds, no longer count.
const MAX_AGE_MS: i64 = 24 * 3600 * 1000;
/// Devices said to be gone below which nothing is a wave: by then as many tokens have been cleared.
pub const LEAST: usize = 20;

/// The newest answers about devices, in a sliding window.
#[derive(Debug, Default)]
pub struct Wave {
    /// When, and whether the device was said to be gone.
    answers: VecDeque<(i64, bool)>,
    gone: usize,
}

impl Wave {
    /// Adds an answer at `now`, in milliseconds since the epoch.
    pub fn add(&mut self, now: i64, gone: bool) {
        self.answers.push_back((now, gone));
        self.gone += usize::from(gone);
        while let Some((at, was_gone)) = self.answers.front().copied()
            && (self.answers.len() > WINDOW || now.saturating_sub(at) > MAX_AGE_MS)
        {
            self.answers.pop_front();
            self.gone -= usize::from(was_gone);
        }
    }

    /// Tells whether more than `share` of the answers, and at least [`LEAST`], say that the device is gone.
    pub fn is_on(&self, share: f64) -> bool {
        self.gone >= LEAST && self.gone as f64 > share * self.answers.len() as f64
    }

    /// Returns how many devices are said to be gone, of how many.
    pub fn counts(&self) -> (usize, usize) {
        (self.gone, self.answers.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(answers: impl IntoIterator<Item = (i64, bool)>) -> Wave {
        let mut wave = Wave::default();
        answers.into_iter().for_each(|(at, gone)| wave.add(at, gone));
        wave
    }

    /// So many devices that are there, then so many that are gone.
    fn after(well: usize, gone: usize) -> Wave {
        wave((0..well + gone).map(|n| (0, n >= well)))
    }

    #[test]
    fn it_is_a_wave_above_the_share_and_from_the_least_number_on() {
        for (well, gone, share, expected) in [
            (0, 0, 0.2, false),
            (0, 19, 0.2, false),
            (0, 20, 0.2, true),
            (80, 20, 0.2, false),
            (79, 20, 0.2, true),
            (480, 20, 0.2, false),
            (10, 300, 0.2, true),
            (100, 19, 0.0, false),
            (100, 20, 0.0, true),
            (0, 500, 1.0, false),
        ] {
            assert_eq!(after(well, gone).is_on(share), expected, "{gone} gone after {well}, share {share}");
        }
    }

    #[test]
    fn it_ends_when_the_window_has_moved_on() {
        let mut over = after(0, 500);
        for n in 0..400 {
            assert!(over.is_on(0.2), "after {n}");
            over.add(1, false);
        }
        assert_eq!((over.is_on(0.2), over.counts()), (false, (100, 500)));
    }

    #[test]
    fn answers_of_yesterday_do_not_count() {
        let mut old = after(0, 30);
        old.add(MAX_AGE_MS, true);
        assert!(old.is_on(0.2));
        old.add(MAX_AGE_MS + 1, true);
        assert_eq!((old.is_on(0.2), old.counts()), (false, (2, 2)));
    }
}
