//! Whether the history that is there is whole, and the same for everybody who may read it.
//!
//! Pure. One conversation at a time: each account's [`Reading`] in turn is held against the first one's, and its head
//! against what that account's sync and list say. Conversations may go on meanwhile: heads never fall, and what was
//! there at the start must be there for everybody.

use super::outcome::HistoryBalance;
use super::sight::{Sight, Taken, ranges_count, ranges_text};
use wire_protocol::v1::{Entry, EntryKind};

/// Entries of a conversation that are read, 30 bytes each for two accounts at a time: 60 MB.
pub const ENTRIES_MAX: u64 = 1_000_000;
/// Faults of a conversation that are told in words.
const EXAMPLES_MAX: usize = 10;

/// A conversation's history as one account reads it, from its first entry.
#[derive(Debug, Default)]
pub struct Reading {
    /// The entries.
    pub sight: Sight,
    last_seq: u64,
    last_time_ms: u64,
    reordered: u64,
    altered: u64,
    examples: Vec<String>,
}

impl Reading {
    /// Takes the next page. `false`: it led no further, and there is no sense in asking for more.
    pub fn take_page(&mut self, entries: &[Entry]) -> bool {
        let before = self.last_seq;
        for entry in entries {
            let seq = entry.seq;
            if seq <= self.last_seq {
                self.reordered += 1;
                self.examples.push(format!("entry {seq} comes behind {}", self.last_seq));
            }
            if entry.time_ms < self.last_time_ms {
                self.reordered += 1;
                self.examples.push(format!("time falls at entry {seq}"));
            }
            if (seq == 1) != (entry.kind() == EntryKind::Created) {
                self.altered += 1;
                self.examples.push(format!("entry {seq} is of kind {}", entry.kind));
            }
            if self.sight.take(entry) == Taken::Other {
                self.altered += 1;
                self.examples.push(format!("two entries came as {seq}"));
            }
            self.last_seq = self.last_seq.max(seq);
            self.last_time_ms = self.last_time_ms.max(entry.time_ms);
            self.examples.truncate(EXAMPLES_MAX);
        }
        self.last_seq > before
    }

    /// Highest number so far.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }
}

/// What else an account was told of a conversation.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Its head by the sync before history was read, and the newest entries that came with it.
    pub synced: (u64, Sight),
    /// Its head by the list, asked for after that sync, and the entry shown with it; `None`: it is not listed.
    pub listed: Option<(u64, Sight)>,
    /// Its head as the pages of history told it.
    pub history_head: u64,
    /// Its head by a sync from before its last entry, after history was read, and what came with it.
    pub synced_after: (u64, Sight),
}

/// One conversation, account after account.
#[derive(Debug)]
pub struct Comparison {
    first: Option<(String, Sight)>,
    balance: HistoryBalance,
}

impl Comparison {
    /// Of this conversation.
    pub fn new(conversation: String) -> Self {
        Self { first: None, balance: HistoryBalance { conversation, ..HistoryBalance::default() } }
    }

    /// Adds what an account has read.
    pub fn add(&mut self, account: &str, reading: Reading, told: &Told) {
        self.balance.accounts.push(account.to_owned());
        self.balance.reordered += reading.reordered;
        self.balance.altered += reading.altered;
        for example in reading.examples {
            self.note(&format!("read by {account}: {example}"));
        }
        let sight = reading.sight;
        // Whatever any of them told to be there is there.
        let head_seq = told.history_head.max(told.synced.0);
        let missing = sight.missing(head_seq);
        self.balance.gaps += ranges_count(&missing);
        if !missing.is_empty() {
            self.note(&format!("read by {account}: nothing at {}", ranges_text(&missing)));
        }
        self.add_heads(account, told);
        self.balance.entries = self.balance.entries.max(sight.last_seq());
        let sources = [
            Some(("sync", &told.synced.1)),
            told.listed.as_ref().map(|(_, last)| ("list", last)),
            Some(("later sync", &told.synced_after.1)),
        ];
        for (source, shown) in sources.into_iter().flatten() {
            let differing: Vec<u64> = shown.differing(&sight, u64::MAX).collect();
            self.differ(&differing, &format!("as {account}'s {source} shows it"));
        }
        match self.first.take() {
            None => self.first = Some((account.to_owned(), sight)),
            Some((name, first)) => {
                let differing: Vec<u64> = sight.differing(&first, u64::MAX).collect();
                self.differ(&differing, &format!("read by {account} and by {name}"));
                self.first = Some((name, first));
            }
        }
    }

    /// Heads never fall, whoever tells them: sync, then list, then history, then sync again.
    fn add_heads(&mut self, account: &str, told: &Told) {
        let listed = told.listed.as_ref().map(|(head_seq, _)| *head_seq);
        if listed.is_none() {
            self.balance.heads += 1;
            self.note(&format!("{account}'s list lacks it"));
        }
        let order = [
            ("sync", Some(told.synced.0)),
            ("list", listed),
            ("history", Some(told.history_head)),
            ("the sync after it", Some(told.synced_after.0)),
        ];
        let mut last = ("nothing", 0);
        for (source, head_seq) in order.into_iter().filter_map(|(source, head)| Some((source, head?))) {
            if head_seq < last.1 {
                self.balance.heads += 1;
                self.note(&format!(
                    "of {account}: its head is {} by {}, and later {head_seq} by {source}",
                    last.1, last.0
                ));
            }
            last = (source, head_seq.max(last.1));
        }
        let shown = told.synced.1.last_seq();
        if shown != told.synced.0 {
            self.balance.heads += 1;
            self.note(&format!("of {account}: its sync ends at {shown}, its head is {}", told.synced.0));
        }
    }

    /// An account is a member, and its own sync does not know it.
    pub fn lacks(&mut self, account: &str) {
        self.balance.heads += 1;
        self.note(&format!("{account} is a member, and its sync does not know it"));
    }

    fn differ(&mut self, seqs: &[u64], between: &str) {
        self.balance.differing += seqs.len() as u64;
        if let Some(seq) = seqs.first() {
            self.note(&format!("entry {seq} is not the same {between} ({} such)", seqs.len()));
        }
    }

    fn note(&mut self, example: &str) {
        if self.balance.examples.len() < EXAMPLES_MAX {
            self.balance.examples.push(format!("{}: {example}", self.balance.conversation));
        }
    }

    /// What was found.
    pub fn balance(self) -> HistoryBalance {
        self.balance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> Vec<Entry> {
        let entry = |seq: u64| Entry {
            seq,
            sender: seq as u32 % 2,
            time_ms: 10 * seq,
            kind: if seq == 1 { EntryKind::Created } else { EntryKind::Text } as i32,
            body: bytes::Bytes::from(format!("entry {seq}")),
        };
        (1..=30).map(entry).collect()
    }

    fn sight(entries: &[Entry]) -> Sight {
        let mut sight = Sight::behind(0);
        sight.take_all(entries);
        sight
    }

    fn told(entries: &[Entry]) -> Told {
        Told {
            synced: (30, sight(&entries[20..])),
            listed: Some((30, sight(&entries[29..]))),
            history_head: 30,
            synced_after: (30, sight(&entries[29..])),
        }
    }

    /// Two accounts read; Bob's history and what he was told are spoiled.
    fn compared(spoil: impl FnOnce(&mut Vec<Entry>, &mut Told)) -> HistoryBalance {
        let mut comparison = Comparison::new("c".into());
        let (mut entries, mut spoilt) = (history(), told(&history()));
        let mut ada = Reading::default();
        ada.take_page(&entries);
        comparison.add("ada", ada, &told(&entries));
        spoil(&mut entries, &mut spoilt);
        let mut bob = Reading::default();
        for page in entries.chunks(7) {
            bob.take_page(page);
        }
        comparison.add("bob", bob, &spoilt);
        comparison.balance()
    }

    /// Gaps, differing, reordered, altered, heads.
    fn counts(found: &HistoryBalance) -> [u64; 5] {
        let counts = [found.gaps, found.differing, found.reordered, found.altered, found.heads];
        assert_eq!(found.is_balanced(), counts == [0; 5], "{found:?}");
        assert_eq!(found.is_balanced(), found.examples.is_empty(), "{found:?}");
        counts
    }

    #[test]
    fn one_history_for_everybody_balances() {
        let found = compared(|_, _| {});
        assert_eq!((counts(&found), found.entries), ([0; 5], 30));
        assert_eq!(found.accounts, ["ada", "bob"]);
        // The conversation went on: later heads are higher, later entries are there.
        let went_on = compared(|entries, told| {
            entries.push(Entry { seq: 31, time_ms: 310, ..Entry::default() });
            (told.history_head, told.synced_after.0) = (31, 32);
        });
        assert_eq!(counts(&went_on), [0; 5], "{went_on:?}");
    }

    #[test]
    fn gaps_are_found_wherever_they_are() {
        for place in [1, 11, 28, 29] {
            let found = compared(|entries, _| drop(entries.remove(place)));
            assert_eq!(counts(&found), [1, 0, 0, 0, 0], "{found:?}");
            assert!(found.examples[0].contains(&(place + 1).to_string()), "{found:?}");
        }
        assert_eq!(counts(&compared(|entries, _| entries.clear()))[0], 30);
        // History says itself that it is shorter than sync said before.
        let short = compared(|entries, told| {
            entries.pop();
            (told.history_head, told.synced_after.0) = (29, 29);
        });
        assert_eq!((counts(&short)[0], counts(&short)[4]), (1, 2), "{short:?}");
    }

    #[test]
    fn histories_that_differ_are_found_by_any_part_of_an_entry() {
        let spoils: [fn(&mut Entry); 4] = [
            |entry| entry.body = bytes::Bytes::from_static(b"other"),
            |entry| entry.sender += 1,
            |entry| entry.time_ms += 1,
            |entry| entry.kind = EntryKind::Image as i32,
        ];
        for spoil in spoils {
            let found = compared(|entries, _| spoil(&mut entries[12]));
            assert_eq!(counts(&found), [0, 1, 0, 0, 0], "{found:?}");
            assert!(found.examples[0].contains("entry 13"), "{found:?}");
        }
    }

    #[test]
    fn what_sync_and_list_show_is_held_against_history() {
        let other = |seq: u64| Entry { seq, ..Entry::default() };
        let synced = compared(|_, told| told.synced.1 = sight(&[other(29), history()[29].clone()]));
        assert_eq!(counts(&synced), [0, 1, 0, 0, 0], "{synced:?}");
        let later = compared(|_, told| told.synced_after.1 = sight(&[other(30)]));
        assert_eq!(counts(&later), [0, 1, 0, 0, 0], "{later:?}");
        let listed = compared(|_, told| told.listed = Some((30, sight(&[other(30)]))));
        assert_eq!(counts(&listed), [0, 1, 0, 0, 0], "{listed:?}");
        assert!(listed.examples[0].contains("bob's list"), "{listed:?}");
    }

    #[test]
    fn order_time_and_beginning_are_looked_at() {
        let swapped = compared(|entries, _| entries.swap(8, 9));
        assert_eq!(counts(&swapped), [0, 0, 2, 0, 0], "the place and the time: {swapped:?}");
        let doubled = compared(|entries, _| entries.insert(9, entries[8].clone()));
        assert_eq!(counts(&doubled), [0, 0, 1, 0, 0], "{doubled:?}");
        let two = compared(|entries, _| entries.insert(9, Entry { seq: 9, time_ms: 90, ..Entry::default() }));
        assert_eq!((counts(&two)[2], counts(&two)[3]), (1, 1), "{two:?}");
        let late = compared(|entries, _| entries[8].time_ms = 5_000);
        assert!(counts(&late)[2] > 0, "{late:?}");
        let created = |place: usize, kind: EntryKind| {
            counts(&compared(|entries, _| entries[place].kind = kind as i32))[3]
        };
        assert_eq!((created(0, EntryKind::Text), created(5, EntryKind::Created)), (1, 1));
    }

    #[test]
    fn heads_that_fall_and_missing_listings_are_found() {
        let spoils: [fn(&mut Told); 5] = [
            |told| told.synced_after.0 = 29,
            |told| told.listed = None,
            |told| told.listed = Some((29, Sight::default())),
            |told| told.listed = Some((31, Sight::default())),
            |told| told.synced.1 = Sight::default(),
        ];
        for spoil in spoils {
            let found = compared(|_, told| spoil(told));
            assert!(counts(&found)[4] > 0, "{found:?}");
        }
        let mut comparison = Comparison::new("c".into());
        comparison.lacks("bob");
        assert_eq!(counts(&comparison.balance())[4], 1);
    }

    #[test]
    fn a_page_that_leads_no_further_ends_the_reading() {
        let mut reading = Reading::default();
        assert!(reading.take_page(&history()[..5]));
        assert!(!reading.take_page(&history()[..5]) && !reading.take_page(&[]));
        assert_eq!(reading.last_seq(), 5);
    }
}
