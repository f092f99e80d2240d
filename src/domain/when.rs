//! Times and spans as people read them.
//!
//! Called by everything that tells an operator when something was: `explain`, the commands, the page. Pure: now is an argument
//! of whoever asks.

use jiff::Timestamp;

/// Returns a time in milliseconds since the epoch as `2026-11-22 20:41:07Z`.
pub fn time(millis: i64) -> String {
    let time = Timestamp::from_millisecond(millis).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Returns a span of milliseconds by its largest two units: `3d 4h`, `2m 5s`, `0.4s`.
pub fn span(millis: i64) -> String {
    let millis = millis.max(0);
    let seconds = millis / 1000;
    match seconds {
        0..10 => format!("{}.{}s", seconds, millis % 1000 / 100),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_times_read_well() {
        for (millis, expected) in [
            (-5, "0.0s"),
            (412, "0.4s"),
            (9_999, "9.9s"),
            (42_000, "42s"),
            (125_000, "2m 5s"),
            (7_260_000, "2h 1m"),
            (273_600_000, "3d 4h"),
        ] {
            assert_eq!(span(millis), expected);
        }
        assert_eq!(time(1_795_380_067_123), "2026-11-22 20:41:07Z");
    }
}
