//! The one place of this crate that reads a clock.
#![allow(clippy::disallowed_methods)]

use std::time::Instant;

/// A moment, for latencies and deadlines.
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since `start`.
pub fn since_ms(start: Instant) -> u64 {
    u64::try_from(now().duration_since(start).as_millis()).unwrap_or(u64::MAX)
}
