//! How many come in at once: connections, whose handshakes cost, and sessions, whose hellos cost storage, too.
//!
//! ```text
//! backlog of the kernel ── AcceptPace ──> TLS handshake ── Doorway ──> hello, home shard
//!      (waits, untold)                                        └──> "come again", each in a slot of its own
//! ```
//!
//! Before TLS nothing can be told, so newcomers wait in the kernel's backlog; a client that has waited there for long
//! tries elsewhere. Behind it, a client that comes too soon is told when to come again. Those times are slots, one after
//! the other, so that a crowd that comes at once comes back as a queue. Slots take half of the rate: the other half is
//! for those who come for the first time.

use super::rate::{Bucket, Rate};

/// Soonest slot, in milliseconds: coming again costs a handshake, so it should be worth it.
const SLOT_MS_MIN: u64 = 1_000;
/// Farthest slot, in milliseconds. When all up to there are given, they are given a second time: a slot is a hope, and
/// who finds its slot taken is told another one.
const SLOT_MS_MAX: u64 = 60_000;
/// Shortest pause of accepting, in milliseconds: to stop and to begin again takes two turns.
const PAUSE_MS_MIN: u64 = 10;
/// A slot takes this many sessions' share of the rate.
const SLOT_TOKENS: u64 = 2;

/// Sessions of one core.
#[derive(Debug)]
pub struct Doorway {
    /// `None`: whoever comes.
    rate: Option<Rate>,
    bucket: Bucket,
    /// The next slot that is free, in microseconds.
    slot_us: u64,
}

impl Doorway {
    /// Nobody has come.
    pub fn new(rate: Option<Rate>) -> Self {
        Self { rate, bucket: Bucket::default(), slot_us: 0 }
    }

    /// Lets a session in, or says after how many milliseconds it is to come again.
    pub fn enter(&mut self, now_ms: u64) -> Result<(), u32> {
        let Some(rate) = self.rate else { return Ok(()) };
        if self.bucket.take(rate, 1, now_ms).is_ok() {
            return Ok(());
        }
        let now_us = now_ms * 1_000;
        let (first_us, last_us) = (now_us + SLOT_MS_MIN * 1_000, now_us + SLOT_MS_MAX * 1_000);
        let free_us = self.slot_us.max(first_us);
        let slot_us = if free_us > last_us { first_us } else { free_us };
        self.slot_us = slot_us + SLOT_TOKENS * rate.token_us();
        Err(((slot_us - now_us) / 1_000) as u32)
    }
}

/// Connections of one core.
#[derive(Debug)]
pub struct AcceptPace {
    /// `None`: as fast as they come.
    rate: Option<Rate>,
    bucket: Bucket,
    /// Nothing is accepted before.
    open_ms: u64,
}

impl AcceptPace {
    /// Nothing was accepted.
    pub fn new(rate: Option<Rate>) -> Self {
        Self { rate, bucket: Bucket::default(), open_ms: 0 }
    }

    /// So many were accepted. The kernel may have accepted some before it saw that accepting stopped: they count, too.
    pub fn handle_accepted(&mut self, count: u32, now_ms: u64) {
        let Some(rate) = self.rate.filter(|_| count > 0) else { return };
        let owed_ms = self.bucket.owe(rate, count, now_ms);
        if owed_ms > 0 {
            self.open_ms = now_ms + owed_ms.max(PAUSE_MS_MIN);
        }
    }

    /// When accepting may go on; `None`: now.
    pub fn closed_until_ms(&self, now_ms: u64) -> Option<u64> {
        Some(self.open_ms).filter(|open_ms| *open_ms > now_ms)
    }
}

const _: () = assert!(SLOT_MS_MIN < SLOT_MS_MAX && SLOT_TOKENS > 1);

#[cfg(test)]
mod tests;
