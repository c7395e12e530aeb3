//! A hash of requests' ids. This process makes them, so nobody can choose them to meet in a table, and one multiplication
//! does.

use std::hash::Hasher;

/// The hash of one id.
#[derive(Debug, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, id: u64) {
        // By 2^64 over the golden ratio. A table looks at the lowest bits and at the highest; the lowest ones of an id, its
        // request's own number for the call, are nearly always 0, and so are those of the product: the upper half helps.
        let product = u128::from(self.0 ^ id) * 0x9e37_79b9_7f4a_7c15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::pending::PendingTable;
    use std::collections::HashSet;

    #[test]
    fn ids_that_differ_in_little_are_spread_over_a_table() {
        let hash = |id: u64| {
            let mut hasher = IdHasher::default();
            hasher.write_u64(id);
            hasher.finish()
        };
        // As requests have them, one place behind the other; and as calls have them for which nobody waits.
        let mut table = PendingTable::new(0);
        let places: Vec<u64> = (0..1_024).map(|place| place << 16).collect();
        let nobodys: Vec<u64> = (0..1_024).map(|_| table.nobodys_call()).collect();
        for ids in [places, nobodys] {
            let in_low = ids.iter().map(|id| hash(*id) % 2_048).collect::<HashSet<_>>().len();
            let in_high = ids.iter().map(|id| hash(*id) >> 57).collect::<HashSet<_>>().len();
            assert!(in_low > 700 && in_high > 100, "{in_low} of 1,024 places, {in_high} of 128 tags");
        }
    }
}
