//! Waiting times: exponential, with full jitter, from a seed that the caller drew.

/// A small generator (splitmix64): spreads waiting times, guards no secret.
#[derive(Clone, Debug)]
pub struct Jitter {
    state: u64,
}

impl Jitter {
    /// The same seed gives the same waits.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Anything from 0 to `range_ms`, both ends included.
    pub fn within(&mut self, range_ms: u64) -> u64 {
        self.next_u64() % range_ms.saturating_add(1)
    }

    /// Wait after `failures` failures in a row: full jitter over a range that doubles from `base_ms` up to
    /// `max_ms`, on top of what the server asked for.
    pub fn backoff(&mut self, failures: u32, range: Range, retry_after_ms: u32) -> u64 {
        let doubled = range.base_ms.saturating_mul(1u64 << failures.saturating_sub(1).min(20));
        u64::from(retry_after_ms) + self.within(doubled.min(range.max_ms))
    }
}

/// Ends of an exponential wait, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// Range of the first wait.
    pub base_ms: u64,
    /// The range never grows beyond this.
    pub max_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_are_capped_spread_and_respect_the_server() {
        let range = Range { base_ms: 100, max_ms: 1_000 };
        let mut jitter = Jitter::new(7);
        for failures in 1..40 {
            let top = (100u64 << (failures - 1).min(20)).min(1_000);
            let waits: Vec<u64> = (0..200).map(|_| jitter.backoff(failures, range, 50)).collect();
            assert!(waits.iter().all(|wait| (50..=50 + top).contains(wait)), "{failures}: {waits:?}");
            let (low, high) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            assert!(high - low > top / 2, "full jitter spreads over the range");
        }
    }
}
