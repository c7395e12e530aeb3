//! What one place (a device, or history as one user reads it) has of a conversation. Keeps a fingerprint of each
//! entry, not the entry: whose messages these are, and what they say, is none of its business.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::RangeInclusive;
use wire_protocol::v1::Entry;

/// Entries behind a number, by fingerprint.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    after_seq: u64,
    /// Everything behind `after_seq` up to here is there.
    complete_to: u64,
    fingerprints: BTreeMap<u64, u64>,
}

/// What an entry was to a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// Its number stood empty.
    New,
    /// The same is there already: a push and a sync brought it.
    Known,
    /// Another one stands under its number, and stays.
    Other,
    /// Not behind the number from which on is looked.
    Before,
}

/// Tells entries apart by everything that members see of them. Of this process only.
pub fn fingerprint(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    (entry.seq, entry.sender, entry.time_ms, entry.kind).hash(&mut hasher);
    entry.body.hash(&mut hasher);
    hasher.finish()
}

impl Sight {
    /// Looks at what stands behind `after_seq`.
    pub fn behind(after_seq: u64) -> Self {
        Self { after_seq, complete_to: after_seq, fingerprints: BTreeMap::new() }
    }

    /// Takes an entry in, in any order.
    pub fn take(&mut self, entry: &Entry) -> Taken {
        if entry.seq <= self.after_seq {
            return Taken::Before;
        }
        let new = fingerprint(entry);
        match self.fingerprints.insert(entry.seq, new) {
            None => {
                while self.fingerprints.contains_key(&(self.complete_to + 1)) {
                    self.complete_to += 1;
                }
                Taken::New
            }
            Some(known) if known == new => Taken::Known,
            Some(known) => {
                self.fingerprints.insert(entry.seq, known);
                Taken::Other
            }
        }
    }

    /// Takes all of these in; what they were to it does not matter.
    pub fn take_all<'a>(&mut self, entries: impl IntoIterator<Item = &'a Entry>) {
        for entry in entries {
            self.take(entry);
        }
    }

    /// Everything up to here is there.
    pub fn complete_to(&self) -> u64 {
        self.complete_to
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.fingerprints.len() as u64
    }

    /// The highest number, 0 without any.
    pub fn last_seq(&self) -> u64 {
        self.fingerprints.last_key_value().map_or(0, |(seq, _)| *seq)
    }

    /// Numbers up to `head_seq` under which nothing stands.
    pub fn missing(&self, head_seq: u64) -> Vec<RangeInclusive<u64>> {
        let mut missing = Vec::new();
        let mut next = self.after_seq + 1;
        let present = self.fingerprints.range(..=head_seq).map(|(seq, _)| *seq);
        for seq in present.chain([head_seq.saturating_add(1)]) {
            if seq > next {
                missing.push(next..=seq - 1);
            }
            next = seq.saturating_add(1);
        }
        missing
    }

    /// Numbers up to `head_seq` under which both have something, and not the same.
    pub fn differing<'a>(&'a self, other: &'a Self, head_seq: u64) -> impl Iterator<Item = u64> + 'a {
        self.fingerprints.range(..=head_seq).filter_map(|(seq, own)| {
            let others = other.fingerprints.get(seq)?;
            (own != others).then_some(*seq)
        })
    }
}

/// Ranges as people write them: "3, 7 to 9".
pub fn ranges_text(ranges: &[RangeInclusive<u64>]) -> String {
    /// Ranges that are told; a list of thousands says no more.
    const SHOWN: usize = 5;
    let one = |range: &RangeInclusive<u64>| match (*range.start(), *range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first} to {last}"),
    };
    let mut text = ranges.iter().take(SHOWN).map(one).collect::<Vec<_>>().join(", ");
    if ranges.len() > SHOWN {
        text.push_str(" and more");
    }
    text
}

/// Numbers within ranges.
pub fn ranges_count(ranges: &[RangeInclusive<u64>]) -> u64 {
    ranges.iter().map(|range| range.end() - range.start() + 1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64, body: &str) -> Entry {
        Entry { seq, body: bytes::Bytes::copy_from_slice(body.as_bytes()), ..Entry::default() }
    }

    fn sight(after_seq: u64, seqs: &[u64]) -> Sight {
        let mut sight = Sight::behind(after_seq);
        sight.take_all(&seqs.iter().map(|seq| entry(*seq, "x")).collect::<Vec<_>>());
        sight
    }

    #[test]
    fn gaps_are_found_at_the_start_between_and_at_the_end() {
        for (seqs, missing) in [
            (&[5, 6, 7, 8][..], vec![]),
            (&[8, 6, 7, 5], vec![]),
            (&[6, 7, 8], vec![5..=5]),
            (&[5, 8], vec![6..=7]),
            (&[5, 6], vec![7..=8]),
            (&[], vec![5..=8]),
            // What came after the head was told is no gap, and hides none.
            (&[5, 6, 7, 8, 11], vec![]),
            (&[5, 7, 9], vec![6..=6, 8..=8]),
        ] {
            assert_eq!(sight(4, seqs).missing(8), missing, "{seqs:?}");
        }
        assert!(sight(4, &[]).missing(4).is_empty());
        assert_eq!(ranges_count(&[3..=3, 7..=9]), 4);
        assert_eq!(ranges_text(&[3..=3, 7..=9]), "3, 7 to 9");
    }

    #[test]
    fn completeness_grows_as_gaps_close() {
        let mut sight = sight(4, &[7, 5]);
        assert_eq!((sight.complete_to(), sight.count(), sight.last_seq()), (5, 2, 7));
        assert_eq!(sight.take(&entry(6, "x")), Taken::New);
        assert_eq!(sight.complete_to(), 7);
        assert_eq!(sight.take(&entry(4, "x")), Taken::Before);
    }

    #[test]
    fn every_part_of_an_entry_tells() {
        let one = Entry { sender: 1, time_ms: 9, kind: 2, ..entry(5, "body") };
        for other in [
            Entry { sender: 2, ..one.clone() },
            Entry { time_ms: 8, ..one.clone() },
            Entry { kind: 3, ..one.clone() },
            Entry { body: bytes::Bytes::from_static(b"bodY"), ..one.clone() },
        ] {
            let (mut a, mut b) = (Sight::behind(0), Sight::behind(0));
            assert_eq!(
                (a.take(&one), a.take(&one), a.take(&other)),
                (Taken::New, Taken::Known, Taken::Other)
            );
            b.take(&other);
            assert_eq!(a.differing(&b, 9).collect::<Vec<_>>(), [5], "{other:?}");
            assert_eq!(a.differing(&b, 4).count(), 0, "not looked at");
            assert_eq!(a.differing(&sight(0, &[6]), 9).count(), 0, "a gap is told by itself");
        }
    }
}
