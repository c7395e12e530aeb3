//! What was known when: numbers that only grow, by what they are of.

use std::collections::BTreeMap;

/// By key: after which event the newest known number is which.
pub(super) struct Known<Key>(BTreeMap<Key, Vec<(usize, u64)>>);

impl<Key> Default for Known<Key> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<Key: Ord> Known<Key> {
    pub fn learn(&mut self, at: usize, key: Key, seq: u64) {
        let steps = self.0.entry(key).or_default();
        if seq > steps.last().map_or(0, |(_, newest)| *newest) {
            steps.push((at, seq));
        }
    }

    /// What was known before this event, and since which one.
    pub fn before(&self, at: usize, key: &Key) -> Option<(usize, u64)> {
        let steps = self.0.get(key)?;
        let count = steps.partition_point(|(step, _)| *step < at);
        steps.get(count.checked_sub(1)?).copied()
    }
}
