//! The one place where the worker reads the clock; everything in `domain` is given the time.

use jiff::Timestamp;

/// Returns now.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Returns now in milliseconds since the epoch, as the ledger keeps times.
pub fn now_ms() -> i64 {
    now().as_millisecond()
}
