//! The one place of this crate that reads a clock.
#![allow(clippy::disallowed_methods)]

use rustix::time::{ClockId, Timespec, clock_gettime};
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A moment, for latencies and deadlines.
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since `start`.
pub fn since_ms(start: Instant) -> u64 {
    u64::try_from(now().duration_since(start).as_millis()).unwrap_or(u64::MAX)
}

/// The agent's clock: microseconds since it was first asked, by all threads of the process alike. Never falls.
pub fn now_us() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(now);
    u64::try_from(now().duration_since(*start).as_micros()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970, for what other machines read: the times within tokens.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// CPU time that this thread has used, in microseconds.
pub fn thread_cpu_us() -> u64 {
    microseconds(clock_gettime(ClockId::ThreadCPUTime))
}

/// CPU time that this process has used, in microseconds.
pub fn process_cpu_us() -> u64 {
    microseconds(clock_gettime(ClockId::ProcessCPUTime))
}

fn microseconds(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000
}

/// Seconds since 1970 by this machine's wall clock, for dates of certificates.
pub fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}
