//! The retry schedule: which delay comes next, and what its queue is called.
//!
//! Called by `judge` and by the broker's topology. Pure.

use std::time::Duration;

/// Returns `delay` by the largest unit that divides it: `5s`, `2m`, `1h`, `1d`; below a second `250ms`.
pub fn delay_name(delay: Duration) -> String {
    let millis = delay.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis >= size && millis % size == 0 {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_named_by_the_largest_unit_that_divides_it() {
        for (seconds, name) in
            [(5, "5s"), (30, "30s"), (90, "90s"), (120, "2m"), (600, "10m"), (3600, "1h"), (86_400, "1d")]
        {
            assert_eq!(delay_name(Duration::from_secs(seconds)), name);
        }
        assert_eq!(delay_name(Duration::from_millis(250)), "250ms");
    }
}
