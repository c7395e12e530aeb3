//! The account of every message: what was acknowledged must be on every device, in order, once, and in history.
//!
//! Pure: the load tells it what was sent, acknowledged and received; at the end the rooms' histories are given, and
//! [`Ledger::balance`] names what is wrong.
//!
//! A repeat is no fault by itself: pushing is a hint and catching up repeats, so a device may get the same message
//! under the same number twice. A fault is one message under two numbers, two messages under one, a number missing
//! below a later one, an acknowledged message that is not where its acknowledgement said, or one nobody sent; and a
//! message that was acknowledged at or below the number of one that the same device had sent before it into that room.
//!
//! Protocols without numbers (`seq` is `None` throughout) are held to less: each sender's messages in a room must come
//! in the order of sending, each once, none missing.

use super::population::{DeviceIndex, RoomIndex};
use super::stamp::Stamp;
use crate::report::results::LedgerResult;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Faults that are told in words.
const EXAMPLES_MAX: usize = 20;

/// Which message: its sender, and the sender's count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MessageKey {
    /// Who sent it.
    pub sender: DeviceIndex,
    /// The sender's count, from 1: its messages' place in the order of sending.
    pub number: u64,
}

impl fmt::Display for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {} of {}", self.number, self.sender)
    }
}

impl From<Stamp> for MessageKey {
    fn from(stamp: Stamp) -> Self {
        Self { sender: stamp.sender, number: stamp.number }
    }
}

/// A message as a device or a history has it. Without numbers, `seq` is the order of arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Kept {
    seq: u64,
    message: MessageKey,
}

/// What became of a sent message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// No acknowledgement (yet).
    Unknown,
    /// Acknowledged, with its number where there is one.
    Accepted(Option<u64>),
}

/// More messages than the plan allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LedgerFull;

/// One agent's ledger.
#[derive(Debug, Default)]
pub struct Ledger {
    messages_max: u64,
    records: u64,
    rooms: BTreeMap<RoomIndex, RoomLedger>,
    answered_twice: Vec<String>,
}

#[derive(Debug, Default)]
struct RoomLedger {
    sent: BTreeMap<MessageKey, Fate>,
    /// By device; also the sender's own, where the server tells it of them.
    devices: HashMap<DeviceIndex, Vec<Kept>>,
    /// `None`: not read yet.
    history: Option<Vec<Kept>>,
    /// Lowest number that can be a message: what stands below is the server's own.
    numbered: bool,
}

impl Ledger {
    /// An empty one that takes this many records (a message sent, or received by a device).
    pub fn new(messages_max: u64) -> Self {
        Self { messages_max, ..Self::default() }
    }

    fn count(&mut self) -> Result<(), LedgerFull> {
        self.records += 1;
        if self.records > self.messages_max { Err(LedgerFull) } else { Ok(()) }
    }

    /// A message goes out for the first time.
    pub fn sent(&mut self, room: RoomIndex, message: MessageKey) -> Result<(), LedgerFull> {
        self.count()?;
        let known = self.rooms.entry(room).or_default().sent.insert(message, Fate::Unknown);
        assert!(known.is_none(), "{message:?} was sent before");
        Ok(())
    }

    /// The server acknowledged it; a repeat must be acknowledged in the same way.
    pub fn accepted(&mut self, room: RoomIndex, message: MessageKey, seq: Option<u64>) {
        let ledger = self.rooms.entry(room).or_default();
        ledger.numbered |= seq.is_some();
        let fate = ledger.sent.entry(message).or_insert(Fate::Unknown);
        if let Fate::Accepted(first) = *fate
            && first != seq
        {
            self.answered_twice.push(format!(
                "{room}: {message} was accepted as {} and as {}",
                number(first),
                number(seq)
            ));
        }
        *fate = Fate::Accepted(seq);
    }

    /// A device got it, live or by catching up.
    pub fn received(
        &mut self,
        room: RoomIndex,
        device: DeviceIndex,
        seq: Option<u64>,
        message: MessageKey,
    ) -> Result<(), LedgerFull> {
        self.count()?;
        let kept = self.rooms.entry(room).or_default().devices.entry(device).or_default();
        let seq = seq.unwrap_or(kept.len() as u64 + 1);
        kept.push(Kept { seq, message });
        Ok(())
    }

    /// A page of a room's history, read by a member.
    pub fn history(&mut self, room: RoomIndex, entries: impl IntoIterator<Item = (Option<u64>, MessageKey)>) {
        let history = self.rooms.entry(room).or_default().history.get_or_insert_default();
        for (seq, message) in entries {
            let seq = seq.unwrap_or(history.len() as u64 + 1);
            history.push(Kept { seq, message });
        }
    }

    /// Rooms with anything in them.
    pub fn rooms(&self) -> impl Iterator<Item = RoomIndex> + '_ {
        self.rooms.keys().copied()
    }

    /// Compares everything. `members` gives the devices that must have a room's messages.
    pub fn balance(&self, members: impl Fn(RoomIndex) -> Vec<DeviceIndex>) -> LedgerResult {
        let mut result = LedgerResult::default();
        for text in &self.answered_twice {
            result.altered += 1;
            example(&mut result, || text.clone());
        }
        for (room, ledger) in &self.rooms {
            let is_accepted = |fate: &&Fate| matches!(fate, Fate::Accepted(_));
            let accepted = ledger.sent.values().filter(is_accepted).count() as u64;
            result.acknowledged += accepted;
            result.unacknowledged += ledger.sent.len() as u64 - accepted;
            ledger.compare_sending(*room, &mut result);
            for device in members(*room) {
                let kept = ledger.devices.get(&device).map(Vec::as_slice).unwrap_or_default();
                let place = Place { what: format!("{room} on {device}"), own: Some(device) };
                ledger.compare(&place, kept, &mut result);
            }
            if let Some(history) = &ledger.history {
                let place = Place { what: format!("{room} in history"), own: None };
                ledger.compare(&place, history, &mut result);
            }
        }
        result
    }
}

/// Where messages are looked for.
struct Place {
    what: String,
    /// A device need not be told of what it sent itself.
    own: Option<DeviceIndex>,
}

impl RoomLedger {
    /// Each sender's acknowledged messages are numbered in the order of sending. Once for the room: devices and history
    /// are held to the acknowledgements.
    fn compare_sending(&self, room: RoomIndex, result: &mut LedgerResult) {
        let mut last: Option<(MessageKey, u64)> = None;
        // In the order of keys: sender by sender, each one's messages as they were sent.
        for (message, fate) in &self.sent {
            let Fate::Accepted(Some(seq)) = fate else { continue };
            if let Some((earlier, place)) = last.replace((*message, *seq))
                && earlier.sender == message.sender
                && place >= *seq
            {
                result.reordered += 1;
                example(result, || {
                    format!("{room}: {earlier} was sent before {message}; they stand at {place} and {seq}")
                });
            }
        }
    }

    fn compare(&self, place: &Place, kept: &[Kept], result: &mut LedgerResult) {
        if self.numbered {
            let mut sorted = kept.to_vec();
            sorted.sort_unstable();
            // The same message under the same number: a push and a catch-up brought it.
            sorted.dedup();
            self.compare_numbers(place, &sorted, result);
            self.compare_presence(place, &sorted, result);
        } else {
            self.compare_senders_order(place, kept, result);
            self.compare_presence(place, kept, result);
        }
    }

    /// Two messages under one number, and numbers other than acknowledged.
    fn compare_numbers(&self, place: &Place, kept: &[Kept], result: &mut LedgerResult) {
        for pair in kept.windows(2) {
            if pair[0].seq == pair[1].seq {
                result.reordered += 1;
                example(result, || {
                    format!(
                        "{}: number {} is {} and {}",
                        place.what, pair[0].seq, pair[0].message, pair[1].message
                    )
                });
            }
        }
        for entry in kept {
            match self.sent.get(&entry.message) {
                Some(Fate::Accepted(Some(seq))) if *seq != entry.seq => {
                    result.altered += 1;
                    example(result, || {
                        format!(
                            "{}: {} stands at {}, acknowledged as {seq}",
                            place.what, entry.message, entry.seq
                        )
                    });
                }
                Some(_) => {}
                None => {
                    result.altered += 1;
                    example(result, || {
                        format!("{}: {} at {} was never sent", place.what, entry.message, entry.seq)
                    });
                }
            }
        }
    }

    /// Without numbers: each sender's messages in the order of sending.
    fn compare_senders_order(&self, place: &Place, kept: &[Kept], result: &mut LedgerResult) {
        let mut last: HashMap<DeviceIndex, u64> = HashMap::new();
        for entry in kept {
            let newest = last.entry(entry.message.sender).or_default();
            if entry.message.number < *newest {
                result.reordered += 1;
                example(result, || format!("{}: {} came after number {newest}", place.what, entry.message));
            }
            *newest = (*newest).max(entry.message.number);
            if !self.sent.contains_key(&entry.message) {
                result.altered += 1;
                example(result, || format!("{}: {} was never sent", place.what, entry.message));
            }
        }
    }

    /// Every acknowledged message there, and none twice.
    fn compare_presence(&self, place: &Place, kept: &[Kept], result: &mut LedgerResult) {
        let mut times: HashMap<MessageKey, u32> = HashMap::with_capacity(kept.len());
        kept.iter().for_each(|entry| *times.entry(entry.message).or_default() += 1);
        for (message, fate) in &self.sent {
            let count = times.get(message).copied().unwrap_or(0);
            let is_own = place.own == Some(message.sender);
            result.checked += u64::from(!is_own);
            if count > 1 {
                result.doubled += 1;
                example(result, || format!("{}: {message} is there {count} times", place.what));
            }
            if count == 0
                && !is_own
                && let Fate::Accepted(seq) = fate
            {
                result.lost += 1;
                example(result, || {
                    format!("{}: {message}, acknowledged{}, is missing", place.what, as_number(*seq))
                });
            }
        }
    }
}

fn number(seq: Option<u64>) -> String {
    seq.map_or_else(|| "one without a number".into(), |seq| seq.to_string())
}

fn as_number(seq: Option<u64>) -> String {
    seq.map_or_else(String::new, |seq| format!(" as {seq}"))
}

fn example(result: &mut LedgerResult, text: impl FnOnce() -> String) {
    if result.examples.len() < EXAMPLES_MAX {
        result.examples.push(text());
    }
}

/// Adds another agent's balance.
pub fn merge(into: &mut LedgerResult, other: &LedgerResult) {
    into.acknowledged += other.acknowledged;
    into.unacknowledged += other.unacknowledged;
    into.checked += other.checked;
    into.lost += other.lost;
    into.doubled += other.doubled;
    into.reordered += other.reordered;
    into.altered += other.altered;
    let room = EXAMPLES_MAX.saturating_sub(into.examples.len());
    into.examples.extend(other.examples.iter().take(room).cloned());
}

impl LedgerResult {
    /// Nothing lost, doubled, reordered or altered.
    pub fn is_balanced(&self) -> bool {
        self.lost + self.doubled + self.reordered + self.altered == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: RoomIndex = RoomIndex(0);
    const ALICE: DeviceIndex = DeviceIndex(0);
    const BOB: DeviceIndex = DeviceIndex(1);

    fn key(sender: DeviceIndex, number: u64) -> MessageKey {
        MessageKey { sender, number }
    }

    /// Entries as Bob and history have them.
    type Entries = Vec<(Option<u64>, MessageKey)>;

    /// Alice sends ten messages, numbered from 2 (the server's own entry is 1); then `spoil` has its way.
    fn balance_of(numbered: bool, spoil: impl Fn(&mut Entries)) -> LedgerResult {
        let mut ledger = Ledger::new(1_000);
        let mut entries = Entries::new();
        for number in 1..=10 {
            let seq = numbered.then_some(number + 1);
            ledger.sent(ROOM, key(ALICE, number)).expect("room");
            ledger.accepted(ROOM, key(ALICE, number), seq);
            entries.push((seq, key(ALICE, number)));
        }
        let whole = entries.clone();
        spoil(&mut entries);
        for (seq, message) in &entries {
            ledger.received(ROOM, BOB, *seq, *message).expect("room");
        }
        ledger.history(ROOM, whole);
        ledger.balance(|_| vec![ALICE, BOB])
    }

    #[test]
    fn a_true_account_balances_with_and_without_numbers() {
        for numbered in [true, false] {
            let result = balance_of(numbered, |_| {});
            assert!(result.is_balanced(), "{result:?}");
            assert_eq!((result.acknowledged, result.unacknowledged, result.checked), (10, 0, 20));
        }
    }

    #[test]
    fn a_dropped_message_is_found() {
        for numbered in [true, false] {
            let result = balance_of(numbered, |entries| {
                entries.remove(4);
            });
            assert_eq!((result.lost, result.doubled), (1, 0), "{result:?}");
            assert!(result.examples[0].contains("message 5 of device 0"), "{result:?}");
        }
        let last = balance_of(true, |entries| {
            entries.pop();
        });
        assert_eq!(last.lost, 1, "also at the end, where no later number shows a gap");
    }

    #[test]
    fn a_doubled_message_is_found_but_a_repeated_push_is_none() {
        let doubled = balance_of(true, |entries| entries.push((Some(12), key(ALICE, 3))));
        assert_eq!((doubled.doubled, doubled.lost), (1, 0), "{doubled:?}");
        assert_eq!(balance_of(false, |entries| entries.push((None, key(ALICE, 10)))).doubled, 1);
        assert!(balance_of(true, |entries| entries.push(entries[3])).is_balanced());
    }

    #[test]
    fn swapped_messages_are_found() {
        let swapped = balance_of(true, |entries| {
            let (second, third) = (entries[1].1, entries[2].1);
            (entries[1].1, entries[2].1) = (third, second);
        });
        assert_eq!(swapped.altered, 2, "{swapped:?}");
        let arrived_swapped = balance_of(true, |entries| entries.swap(1, 2));
        assert!(arrived_swapped.is_balanced(), "numbers tell the order, whatever the way");
        assert_eq!(balance_of(false, |entries| entries.swap(1, 2)).reordered, 1);
    }

    /// Each message by its sender, its number and where it was acknowledged, and stands; `None`: it was not.
    fn balance_of_sends(sends: &[(DeviceIndex, u64, Option<u64>)]) -> LedgerResult {
        let mut ledger = Ledger::new(1_000);
        for (sender, number, seq) in sends {
            let message = key(*sender, *number);
            ledger.sent(ROOM, message).expect("room");
            let Some(seq) = seq else { continue };
            for device in [ALICE, BOB] {
                ledger.received(ROOM, device, Some(*seq), message).expect("room");
            }
            // Again, as after a lost answer: a repeat is answered as before.
            ledger.accepted(ROOM, message, Some(*seq));
            ledger.accepted(ROOM, message, Some(*seq));
        }
        ledger.balance(|_| vec![ALICE, BOB])
    }

    #[test]
    fn a_senders_messages_out_of_its_order_are_found() {
        let sends = [(ALICE, 1, Some(2)), (ALICE, 2, Some(4)), (BOB, 1, Some(5)), (ALICE, 3, Some(3))];
        let swapped = balance_of_sends(&sends);
        // The same everywhere, and as acknowledged: nothing else tells.
        assert_eq!((swapped.reordered, swapped.altered), (1, 0), "{swapped:?}");
        assert_eq!((swapped.lost, swapped.doubled), (0, 0), "{swapped:?}");
        let words = swapped.examples.join("\n");
        assert!(words.contains("message 2 of device 0 was sent before message 3 of device 0"), "{words}");
        let apart = balance_of_sends(&[(BOB, 1, Some(3)), (BOB, 2, None), (BOB, 7, Some(2))]);
        assert_eq!(apart.reordered, 1, "with one in between that has no answer: {apart:?}");
    }

    #[test]
    fn senders_overtake_each_other_and_rooms_are_apart() {
        // Bob began later, and is first.
        let sends = [(ALICE, 1, Some(4)), (BOB, 1, Some(2)), (ALICE, 4, Some(5)), (BOB, 2, Some(3))];
        let overtaken = balance_of_sends(&sends);
        assert!(overtaken.is_balanced(), "{overtaken:?}");
        let mut ledger = Ledger::new(100);
        for (room, number, seq) in [(ROOM, 1, 9), (RoomIndex(1), 2, 2), (RoomIndex(1), 3, 3), (ROOM, 4, 10)] {
            ledger.sent(room, key(ALICE, number)).expect("room");
            ledger.accepted(room, key(ALICE, number), Some(seq));
        }
        let apart = ledger.balance(|_| vec![]);
        assert!(apart.is_balanced(), "{apart:?}");
    }

    #[test]
    fn strangers_and_two_under_one_number_are_found() {
        let stranger = balance_of(true, |entries| entries.push((Some(12), key(BOB, 1))));
        assert_eq!((stranger.altered, stranger.lost), (1, 0), "{stranger:?}");
        let collided = balance_of(true, |entries| entries[5].0 = Some(3));
        assert_eq!((collided.reordered, collided.altered), (1, 1), "{collided:?}");
    }

    #[test]
    fn what_history_lacks_is_lost_and_what_was_not_acknowledged_may_be_anywhere() {
        let mut ledger = Ledger::new(100);
        for number in 1..=3 {
            ledger.sent(ROOM, key(ALICE, number)).expect("room");
        }
        ledger.accepted(ROOM, key(ALICE, 1), Some(2));
        ledger.accepted(ROOM, key(ALICE, 3), Some(3));
        ledger.received(ROOM, BOB, Some(2), key(ALICE, 1)).expect("room");
        ledger.received(ROOM, BOB, Some(3), key(ALICE, 3)).expect("room");
        ledger.history(ROOM, [(Some(2), key(ALICE, 1))]);
        let result = ledger.balance(|_| vec![BOB]);
        assert_eq!((result.acknowledged, result.unacknowledged, result.lost), (2, 1, 1), "{result:?}");
        assert!(result.examples[0].contains("history"));
    }

    #[test]
    fn a_repeat_with_another_answer_is_found_and_the_ledger_is_bounded() {
        let mut ledger = Ledger::new(1);
        ledger.sent(ROOM, key(ALICE, 1)).expect("room");
        ledger.accepted(ROOM, key(ALICE, 1), Some(2));
        ledger.accepted(ROOM, key(ALICE, 1), Some(2));
        assert!(ledger.balance(|_| vec![]).is_balanced());
        ledger.accepted(ROOM, key(ALICE, 1), Some(4));
        assert_eq!(ledger.balance(|_| vec![]).altered, 1);
        assert_eq!(ledger.sent(ROOM, key(ALICE, 2)), Err(LedgerFull));
    }

    #[test]
    fn balances_of_agents_add_up() {
        let mut sum = balance_of(true, |_| {});
        merge(
            &mut sum,
            &balance_of(true, |entries| {
                entries.remove(0);
            }),
        );
        assert_eq!((sum.acknowledged, sum.lost, sum.examples.len()), (20, 1, 1));
    }
}
