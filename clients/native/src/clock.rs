//! The one place that reads the clock and the random source.

use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Milliseconds since 1970 that never fall: the wall clock as it stood at the start, moved on by the monotonic
/// one. Timers and timestamps of the client agree with each other by this.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    start_ms: u64,
}

impl Clock {
    #[allow(clippy::disallowed_methods)] // This is the place.
    pub(crate) fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), start_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.start_ms + u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment for a timer.
    pub(crate) fn instant(&self, at_ms: u64) -> Instant {
        self.start + std::time::Duration::from_millis(at_ms.saturating_sub(self.start_ms))
    }
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has a random source");
    bytes
}

/// A random number that is not 0.
pub(crate) fn random_id() -> u64 {
    loop {
        let id = u64::from_le_bytes(random());
        if id != 0 {
            return id;
        }
    }
}
