//! A histogram of durations with fixed bounds: adding one is two relaxed additions.

use super::Count;
use std::time::Duration;

/// Upper bounds in microseconds: powers of two from 16 µs to 8.4 s. The last bucket has none.
const BOUNDS: usize = 20;
const SMALLEST_US: u64 = 16;

/// Counts of durations by their size.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Count; BOUNDS + 1],
    sum_us: Count,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.bucket(us).increment();
        self.sum_us.add(us);
    }

    fn bucket(&self, us: u64) -> &Count {
        let doublings = us.div_ceil(SMALLEST_US).max(1).next_power_of_two().trailing_zeros() as usize;
        &self.buckets[doublings.min(BOUNDS)]
    }

    /// Upper bounds in microseconds and how many durations were at most that; then sum and count of all.
    pub fn cumulative(&self) -> (Vec<(u64, u64)>, u64, u64) {
        let mut count = 0;
        let mut bounds = Vec::with_capacity(BOUNDS);
        for (power, bucket) in self.buckets.iter().enumerate() {
            count += bucket.value();
            if power < BOUNDS {
                bounds.push((SMALLEST_US << power, count));
            }
        }
        (bounds, self.sum_us.value(), count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_first_bound_that_holds_them() {
        let histogram = Histogram::default();
        for us in [0, 16, 17, 32, 33, u64::MAX / 4096] {
            histogram.record(Duration::from_micros(us));
        }
        let (bounds, _, count) = histogram.cumulative();
        assert_eq!(bounds[..3], [(16, 2), (32, 4), (64, 5)]);
        assert_eq!(bounds.last().map(|last| last.1), Some(5));
        assert_eq!(count, 6);
    }
}
