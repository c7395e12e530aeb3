//! A bounded table of token buckets.
//!
//! Only a bucket that is full again is forgotten: it would be made anew exactly like that. So filling the table with
//! strangers forgives nobody. While every place holds a bucket that still matters, those who have no place draw from
//! one common bucket: they are slowed together, and counted.

use super::rate::{Bucket, Rate};
use std::collections::HashMap;
use std::hash::Hash;

/// Below this many buckets nothing is looked for to be forgotten.
const SWEEP_KEYS_MIN: usize = 1_024;
/// A table full of buckets that matter is not looked through again for this long, in milliseconds: 60,000 of them
/// take half a millisecond.
const SWEEP_PAUSE_MS: u64 = 1_000;
/// Those without a place have together what this many keys have.
const COMMON_KEYS: u32 = 64;

/// Token buckets by key, each of the same rate.
#[derive(Debug)]
pub struct BucketTable<K> {
    rate: Rate,
    keys_max: usize,
    buckets: HashMap<K, Bucket>,
    common: Bucket,
    /// Look for what can be forgotten when there are this many.
    sweep_at: usize,
    swept_ms: u64,
    without_place: u64,
}

impl<K: Hash + Eq> BucketTable<K> {
    /// Empty; takes no memory before it is used. A place takes the key, 8 bytes and one, and at most 8/7 of that
    /// twice over while the table grows.
    pub fn new(rate: Rate, keys_max: usize) -> Self {
        assert!(keys_max > 0, "a table has places");
        let sweep_at = SWEEP_KEYS_MIN.min(keys_max);
        let buckets = HashMap::new();
        Self { rate, keys_max, buckets, common: Bucket::default(), sweep_at, swept_ms: 0, without_place: 0 }
    }

    /// The rate of each.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes tokens of the key's; or nothing, and says how long to wait, in milliseconds.
    pub fn take(&mut self, key: K, cost: u32, now_ms: u64) -> Result<(), u32> {
        if let Some(bucket) = self.buckets.get_mut(&key) {
            return bucket.take(self.rate, cost, now_ms);
        }
        if self.buckets.len() >= self.sweep_at {
            self.sweep(now_ms);
        }
        if self.buckets.len() >= self.keys_max {
            self.without_place += 1;
            return self.common.take(self.rate.times(COMMON_KEYS), cost, now_ms);
        }
        let mut bucket = Bucket::default();
        bucket.take(self.rate, cost, now_ms)?;
        self.buckets.insert(key, bucket);
        Ok(())
    }

    /// Gives back what was taken, unless the key had no place.
    pub fn give_back(&mut self, key: &K, cost: u32) {
        if let Some(bucket) = self.buckets.get_mut(key) {
            bucket.give_back(self.rate, cost);
        }
    }

    /// Keys that found no place, since the start.
    pub fn without_place(&self) -> u64 {
        self.without_place
    }

    /// Keys that have a place.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Nobody has a place.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    fn sweep(&mut self, now_ms: u64) {
        let is_full = self.buckets.len() >= self.keys_max;
        if is_full && self.swept_ms != 0 && now_ms < self.swept_ms + SWEEP_PAUSE_MS {
            return;
        }
        self.swept_ms = now_ms;
        self.buckets.retain(|_, bucket| !bucket.is_full(now_ms));
        // Twice as many as are left: so looking through them costs each insertion a constant share.
        self.sweep_at = (2 * self.buckets.len()).clamp(SWEEP_KEYS_MIN.min(self.keys_max), self.keys_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate::per_second(1, 2);

    fn exhausted(table: &mut BucketTable<u32>, key: u32, now_ms: u64) {
        assert_eq!(table.take(key, 2, now_ms), Ok(()));
        assert_eq!(table.take(key, 1, now_ms), Err(1_000));
    }

    #[test]
    fn keys_do_not_share() {
        let mut table = BucketTable::new(RATE, 100);
        exhausted(&mut table, 1, 5_000);
        exhausted(&mut table, 2, 5_000);
        table.give_back(&1, 1);
        table.give_back(&3, 1);
        assert_eq!(table.take(1, 1, 5_000), Ok(()));
        assert!(table.take(2, 1, 5_000).is_err());
    }

    #[test]
    fn a_crowd_of_strangers_does_not_make_a_flood_forgiven() {
        let mut table = BucketTable::new(RATE, 50);
        exhausted(&mut table, 7, 5_000);
        for stranger in 1_000..2_000 {
            // The common bucket ends, too.
            let _ = table.take(stranger, 1, 5_000);
        }
        assert_eq!(table.len(), 50);
        assert_eq!(table.take(7, 1, 5_000), Err(1_000), "it is remembered");
        let refused = (3_000..4_000).filter(|stranger| table.take(*stranger, 1, 5_000).is_err()).count();
        assert_eq!(refused, 1_000, "no one without a place has more than the common share");
        assert_eq!(table.without_place(), 1_000 + 1_000 - 49);
    }

    #[test]
    fn full_buckets_make_place_for_others() {
        let mut table = BucketTable::new(RATE, 50);
        for key in 0..50 {
            assert_eq!(table.take(key, 1, 5_000), Ok(()));
        }
        assert_eq!(table.take(100, 1, 5_999), Ok(()), "of the common bucket");
        assert_eq!((table.len(), table.without_place()), (50, 1));
        // All 50 are full again a second after they were drawn from; the table looks again a second after it looked.
        assert_eq!(table.take(100, 2, 6_999), Ok(()));
        assert_eq!((table.len(), table.without_place()), (1, 1));
        assert_eq!(table.take(100, 1, 6_999), Err(1_000));
    }

    #[test]
    fn memory_follows_those_who_matter() {
        let mut table = BucketTable::new(RATE, 1_000_000);
        for key in 0..100_000u32 {
            // A hundred in a millisecond: each is full again after a second.
            assert_eq!(table.take(key, 1, 5_000 + u64::from(key) / 100 * 100), Ok(()));
        }
        assert!(table.len() <= 2 * SWEEP_KEYS_MIN, "{}", table.len());
    }
}
