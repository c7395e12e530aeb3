//! The one place of this crate that reads clocks.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// How far the machine's wall clock may be ahead of ours before we follow it, in milliseconds: more than slewing ever
/// makes, less than a link waits for a sign of life.
const JUMP_MS: u64 = 1_000;

/// Milliseconds since 1970 that never fall: the wall clock at start, carried on by the monotonic clock. When the wall
/// clock jumps ahead (the machine slept, or its time was set) we follow; when it is set back we go on, since elections
/// and links would otherwise stand still until it has caught up.
struct Clock {
    base_ms: AtomicU64,
}

impl Clock {
    /// The time `elapsed_ms` after the start.
    fn at(&self, elapsed_ms: u64, wall_ms: u64) -> u64 {
        if wall_ms > self.base_ms.load(Ordering::Relaxed) + elapsed_ms + JUMP_MS {
            self.base_ms.fetch_max(wall_ms.saturating_sub(elapsed_ms), Ordering::Relaxed);
        }
        self.base_ms.load(Ordering::Relaxed) + elapsed_ms
    }
}

/// Milliseconds since 1970, for all threads of the process alike. Never falls.
pub fn now_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    static CLOCK: Clock = Clock { base_ms: AtomicU64::new(0) };
    let start = START.get_or_init(now);
    CLOCK.at(now().duration_since(*start).as_millis() as u64, wall_ms())
}

/// A moment for measuring durations; unaffected by changes of the machine's clock.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods)]
fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_follows_jumps_ahead_and_goes_on_when_the_wall_clock_is_set_back() {
        let clock = Clock { base_ms: AtomicU64::new(0) };
        assert_eq!(clock.at(0, 50_000_000), 50_000_000, "begins at the wall clock");
        assert_eq!(clock.at(100, 50_000_900), 50_000_100, "slewing is not followed");
        assert_eq!(clock.at(200, 46_400_000), 50_000_200, "an hour back: it goes on");
        assert_eq!(clock.at(10_200, 46_410_000), 50_010_200, "at the pace of time");
        assert_eq!(clock.at(10_300, 53_700_000), 53_700_000, "an hour ahead: it follows");
        assert_eq!(clock.at(10_400, 50_000_000), 53_700_100);
    }

    #[test]
    fn the_clock_is_the_machines() {
        let first = now_ms();
        assert!(first.abs_diff(wall_ms()) <= 2 * JUMP_MS);
        assert!(now_ms() >= first);
    }
}
