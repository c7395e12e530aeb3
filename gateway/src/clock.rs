//! The one place of the gateway that reads a clock.

#![expect(clippy::disallowed_methods, reason = "everything else asks here")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How far the machine's wall clock may be ahead of ours before we follow it, in milliseconds: more than
/// slewing ever makes, less than any timeout of a session.
const JUMP_MS: u64 = 1_000;

/// Milliseconds since 1970 that never fall: the wall clock at start, carried on by the monotonic clock. When
/// the wall clock jumps ahead (the machine slept, or its time was set) we follow; when it is set back we go on.
pub struct Clock {
    base_ms: u64,
    base: Instant,
    last_ms: u64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// Starts at the wall clock.
    pub fn new() -> Self {
        let base_ms = wall_ms();
        Self { base_ms, base: Instant::now(), last_ms: base_ms }
    }

    /// The time now.
    pub fn now_ms(&mut self) -> u64 {
        let elapsed_ms = self.base.elapsed().as_millis() as u64;
        let (now_ms, wall_ms) = (self.base_ms + elapsed_ms, wall_ms());
        if wall_ms > now_ms + JUMP_MS {
            self.base_ms = wall_ms - elapsed_ms;
        }
        self.last_ms = self.last_ms.max(self.base_ms + elapsed_ms);
        self.last_ms
    }
}

/// A moment, for measuring how long something took.
pub fn moment() -> Instant {
    Instant::now()
}

/// Stops this thread for a while: a fraction of a millisecond that a loop gives to others (see `worker/pace.rs`).
pub fn pause(pause: Duration) {
    if !pause.is_zero() {
        std::thread::sleep(pause);
    }
}

/// The wall clock, for what all machines of a fleet must see alike.
pub fn wall_now_ms() -> u64 {
    wall_ms()
}

fn wall_ms() -> u64 {
    // A clock before 1970 is a machine without a set clock: it counts from there.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_follows_jumps_ahead_and_never_falls() {
        let mut clock = Clock::new();
        let start = clock.now_ms();
        clock.base_ms -= 3_600_000;
        assert!(clock.now_ms() >= start, "an hour behind the wall clock is made up for");
        clock.base_ms += 3_600_000;
        let ahead = clock.now_ms();
        assert!(ahead >= start + 3_600_000, "a wall clock that is set back is not followed");
        clock.base_ms -= 3_600_000;
        assert!(clock.now_ms() >= ahead);
    }
}
