//! Durations as people write them in the configuration, the catalogue and on the command line.
//!
//! Called by `config`, the catalogue and the commands. Pure. The inverse is [`delay_name`](super::retry::delay_name).

use std::time::Duration;

const DURATION: &str = "must be a duration such as \"250ms\", \"30s\", \"2m\", \"1h\" or \"7d\"";

/// Reads `250ms`, `30s`, `2m`, `1h`, `7d`; the error says what would be right.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit_millis: u64 = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(DURATION.to_owned()),
    };
    let millis = text[..digits].parse::<u64>().ok().and_then(|number| number.checked_mul(unit_millis));
    millis.map(Duration::from_millis).ok_or_else(|| DURATION.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in
            [("250ms", 250), ("30s", 30_000), ("2m", 120_000), ("1h", 3_600_000), ("7d", 604_800_000), (" 5s ", 5_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "5 s", "-5s", "1.5s", "5w", "5S", "99999999999999999999s", "9999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
