//! One conversation's entries on this device: a window without gaps, and what arrived ahead of it.
//!
//! ```text
//!   1 … low-1      low … high        high+1      …  ahead …        head
//!   not here       the window        missing        waits          newest known
//! ```
//! Entries enter the window only at its upper end, one by one; whatever comes twice, late or early is either a
//! repeat or waits. Knows nothing of requests: the engine asks [`Timeline::gap`] and fetches.

use crate::limits::AHEAD_ENTRIES_MAX;
use std::collections::BTreeMap;
use wire_protocol::ids::{ClientMessageId, UserId};
use wire_protocol::v1::Entry;

/// An entry, and which message of this device it is, if it is one.
#[derive(Clone, PartialEq, Debug)]
pub struct Arrived {
    /// The entry.
    pub entry: Entry,
    /// The message of this device that it is.
    pub link: Option<ClientMessageId>,
}

/// What became of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// In the window already.
    Repeat,
    /// Kept until what is missing before it arrives (or the next in line: see [`Timeline::poll_next`]).
    Waits,
    /// No room; it comes again when the gap is filled.
    Dropped,
}

/// What is to be fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gap {
    /// Nothing is here yet: the newest page.
    Newest,
    /// The page after this sequence number.
    After(u64),
}

/// The window and its surroundings. `low` is 0 while nothing is here; else `1 <= low <= high + 1`,
/// `high <= head`, and everything ahead is above `high`.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    low: u64,
    high: u64,
    head: u64,
    ahead: BTreeMap<u64, Arrived>,
    /// The own ordinal in this conversation.
    pub own_ordinal: u32,
    /// Ordinals and users; empty until they are known.
    pub members: Vec<(u32, UserId)>,
    /// The own read cursor, the highest of all own devices.
    pub read_up_to: u64,
}

impl Timeline {
    /// From the store: `ahead` holds own accepted messages above the window.
    pub fn restore(low: u64, high: u64, head: u64, ahead: Vec<Arrived>) -> Self {
        let ahead = ahead.into_iter().map(|arrived| (arrived.entry.seq, arrived)).collect();
        let mut timeline = Self { low, high, head, ahead, ..Self::default() };
        timeline.ahead = timeline.ahead.split_off(&(timeline.high + 1));
        if let Some((&last, _)) = timeline.ahead.last_key_value() {
            timeline.head = timeline.head.max(last);
        }
        timeline.check_invariants();
        timeline
    }

    /// First sequence number of the window; 0: nothing is here yet.
    pub fn low(&self) -> u64 {
        self.low
    }

    /// Last sequence number of the window.
    pub fn high(&self) -> u64 {
        self.high
    }

    /// The newest sequence number known to exist.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Own accepted messages that wait above the window.
    pub fn own_ahead_count(&self) -> usize {
        self.ahead.values().filter(|arrived| arrived.link.is_some()).count()
    }

    /// Learns how far the conversation reaches.
    pub fn raise_head(&mut self, head: u64) {
        self.head = self.head.max(head);
    }

    /// The first page that is here decides where the window begins.
    pub fn begin_at(&mut self, seq: u64) {
        assert!(seq >= 1);
        if self.low == 0 {
            self.low = seq;
            self.high = seq - 1;
            self.head = self.head.max(self.high);
            self.ahead = self.ahead.split_off(&seq);
        }
        self.check_invariants();
    }

    /// Takes an entry that arrived by whatever way.
    pub fn take(&mut self, arrived: Arrived) -> Taken {
        let seq = arrived.entry.seq;
        if seq == 0 {
            return Taken::Dropped;
        }
        if seq == 1 {
            self.begin_at(1);
        }
        self.raise_head(seq);
        if self.low != 0 && seq <= self.high {
            return Taken::Repeat;
        }
        if let Some(waiting) = self.ahead.get_mut(&seq) {
            waiting.link = waiting.link.or(arrived.link);
            return Taken::Waits;
        }
        // An own accepted message is always kept: its place is the answer to a send. Their number is bounded by
        // the engine, which stops sending into a conversation that has too many of them waiting. The next in
        // line needs no room either: it leaves at once.
        let next_in_line = self.low != 0 && seq == self.high + 1;
        if arrived.link.is_none() && !next_in_line && self.ahead.len() >= AHEAD_ENTRIES_MAX {
            return Taken::Dropped;
        }
        self.ahead.insert(seq, arrived);
        Taken::Waits
    }

    /// The next entry in order, if it is here: the window has grown by it.
    pub fn poll_next(&mut self) -> Option<Arrived> {
        if self.low == 0 {
            return None;
        }
        let arrived = self.ahead.remove(&(self.high + 1))?;
        self.high += 1;
        self.check_invariants();
        Some(arrived)
    }

    /// Takes a page of older entries that ends right below the window; false if it does not fit.
    pub fn extend_down(&mut self, entries: &[Entry]) -> bool {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return false };
        if self.low == 0 || first.seq == 0 || last.seq + 1 != self.low {
            return false;
        }
        self.low = first.seq;
        self.check_invariants();
        true
    }

    /// What is missing between the window and the head.
    pub fn gap(&self) -> Option<Gap> {
        match self.low {
            _ if self.head == 0 => None,
            0 => Some(Gap::Newest),
            _ if self.high < self.head => Some(Gap::After(self.high)),
            _ => None,
        }
    }

    /// The member with this ordinal.
    pub fn member(&self, ordinal: u32) -> Option<UserId> {
        self.members.iter().find(|(known, _)| *known == ordinal).map(|(_, user)| *user)
    }

    fn check_invariants(&self) {
        assert!(self.high <= self.head);
        assert!(self.low <= self.high + 1);
        assert!(self.low != 0 || self.high == 0);
        debug_assert!(self.ahead.keys().all(|seq| *seq > self.high));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arrived(seq: u64) -> Arrived {
        Arrived { entry: Entry { seq, body: seq.to_string().into(), ..Entry::default() }, link: None }
    }

    fn drain(timeline: &mut Timeline) -> Vec<u64> {
        std::iter::from_fn(|| timeline.poll_next()).map(|arrived| arrived.entry.seq).collect()
    }

    proptest! {
        /// Whatever order, repeats and drops: the window grows by consecutive entries, each once, and after
        /// the gaps are filled page by page nothing is missing.
        #[test]
        fn every_order_gives_one_order(
            order in prop::collection::vec(1u64..200, 0..400), begin in 1u64..50, head in 200u64..300,
        ) {
            let mut timeline = Timeline::default();
            timeline.begin_at(begin);
            let mut shown = Vec::new();
            for seq in order {
                timeline.take(arrived(seq));
                shown.extend(drain(&mut timeline));
            }
            timeline.raise_head(head);
            while let Some(gap) = timeline.gap() {
                let Gap::After(after) = gap else { panic!("the window has begun") };
                for seq in after + 1..=(after + 10).min(head) {
                    timeline.take(arrived(seq));
                }
                shown.extend(drain(&mut timeline));
            }
            prop_assert_eq!(shown, (begin..=head).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_waits_is_bounded_and_the_next_in_line_always_fits() {
        let mut timeline = Timeline::default();
        timeline.begin_at(1);
        for seq in 2..1_000 {
            timeline.take(arrived(seq));
        }
        assert_eq!(timeline.ahead.len(), AHEAD_ENTRIES_MAX);
        assert_eq!(timeline.take(arrived(1_000)), Taken::Dropped);
        let own = Arrived { link: Some(ClientMessageId(9)), ..arrived(1_001) };
        assert_eq!(timeline.take(own), Taken::Waits);
        assert_eq!(timeline.take(arrived(1)), Taken::Waits);
        assert_eq!(drain(&mut timeline), (1..=AHEAD_ENTRIES_MAX as u64 + 1).collect::<Vec<_>>());
        assert_eq!(timeline.gap(), Some(Gap::After(AHEAD_ENTRIES_MAX as u64 + 1)));
        assert_eq!(timeline.own_ahead_count(), 1);
    }

    #[test]
    fn an_entry_that_waits_learns_that_it_is_our_own() {
        let own = |seq| Arrived { link: Some(ClientMessageId(9)), ..arrived(seq) };
        // Found by a sync before the answer came, and the other way round.
        for [first, second] in [[arrived(5), own(5)], [own(5), arrived(5)]] {
            let mut timeline = Timeline::default();
            timeline.begin_at(4);
            timeline.take(first);
            timeline.take(second);
            timeline.take(arrived(4));
            let links: Vec<_> =
                std::iter::from_fn(|| timeline.poll_next()).map(|arrived| arrived.link).collect();
            assert_eq!(links, [None, Some(ClientMessageId(9))]);
        }
    }

    #[test]
    fn older_pages_must_touch_the_window() {
        let mut timeline = Timeline::default();
        timeline.begin_at(51);
        let page = |from: u64, to: u64| (from..=to).map(|seq| arrived(seq).entry).collect::<Vec<_>>();
        assert!(!timeline.extend_down(&page(1, 49)));
        assert!(!timeline.extend_down(&[]));
        assert!(timeline.extend_down(&page(11, 50)));
        assert_eq!(timeline.low(), 11);
    }

    #[test]
    fn nothing_here_asks_for_the_newest_page() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.gap(), None);
        timeline.take(arrived(70));
        assert_eq!(timeline.gap(), Some(Gap::Newest));
        assert!(timeline.poll_next().is_none());
        timeline.begin_at(21);
        (21..70).for_each(|seq| assert_eq!(timeline.take(arrived(seq)), Taken::Waits));
        assert_eq!(drain(&mut timeline), (21..=70).collect::<Vec<_>>());
    }
}
