//! The account of one check: what was sent and acknowledged, against what every device and every member's history has.
//!
//! Pure. Messages of this check are accounted for by the workload's [`Ledger`], one for each room; on top of that every
//! place is held against all others, entry by entry, so that other people's messages may stand in between and must
//! still be the same everywhere and without gaps. Only what stands behind a room's head when it was opened is looked at.

use super::outcome::RoomBalance;
use super::sight::{Sight, Taken, ranges_count, ranges_text};
use super::text;
use crate::report::results::LedgerResult;
use crate::workload::ledger::{Ledger, LedgerFull, MessageKey};
use crate::workload::population::{DeviceIndex, RoomIndex, UserIndex};
use crate::workload::stamp::Stamp;
use std::collections::{BTreeMap, BTreeSet};
use wire_protocol::v1::Entry;

/// Entries that places of one room may hold together, about 100 bytes each: 200 MB in a room of the most devices.
pub const RECORDS_MAX: u64 = 2_000_000;
/// Faults of a room that are told in words, beside the ledger's own.
const EXAMPLES_MAX: usize = 20;

/// A room when it was opened.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// For people.
    pub name: String,
    /// Newest entry: what is looked at stands behind it.
    pub head_seq: u64,
    /// Every device of every member, with its user's ordinal in the room.
    pub members: BTreeMap<DeviceIndex, u32>,
}

/// What the server said of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Its place.
    pub seq: u64,
    /// Its time.
    pub time_ms: u64,
}

/// Who has something of a room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Place {
    /// History, as a user reads it.
    History(UserIndex),
    /// A device, by pushes and syncs.
    Device(DeviceIndex),
}

/// The whole account.
#[derive(Debug)]
pub struct Audit {
    run: u64,
    rooms: Vec<RoomAudit>,
}

#[derive(Debug)]
struct RoomAudit {
    opened: Opened,
    /// Newest entry when all was sent.
    closed_seq: u64,
    ledger: Ledger,
    records: u64,
    sights: BTreeMap<Place, Sight>,
    /// Whose history is the ledger's.
    reader: Option<UserIndex>,
    answers: BTreeMap<MessageKey, Answer>,
    repeats: u64,
    others: BTreeSet<u64>,
    found: LedgerResult,
}

impl Audit {
    /// An empty one; `run` tells this check's messages from others'.
    pub fn new(run: u64) -> Self {
        Self { run, rooms: Vec::new() }
    }

    /// The body of a message.
    pub fn body(&self, message: MessageKey) -> bytes::Bytes {
        text::body(&self.stamp(message))
    }

    fn stamp(&self, message: MessageKey) -> Stamp {
        Stamp { sender: message.sender, number: message.number, due_us: 0, run: self.run }
    }

    /// Looks at a room from now on.
    pub fn open(&mut self, opened: Opened) -> RoomIndex {
        let places = opened.members.keys().map(|device| Place::Device(*device));
        let sights = places.map(|place| (place, Sight::behind(opened.head_seq))).collect();
        self.rooms.push(RoomAudit {
            closed_seq: opened.head_seq,
            opened,
            ledger: Ledger::new(RECORDS_MAX),
            records: 0,
            sights,
            reader: None,
            answers: BTreeMap::new(),
            repeats: 0,
            others: BTreeSet::new(),
            found: LedgerResult::default(),
        });
        RoomIndex(self.rooms.len() as u32 - 1)
    }

    fn room(&mut self, room: RoomIndex) -> &mut RoomAudit {
        self.rooms.get_mut(room.0 as usize).expect("rooms are known by what opened them")
    }

    /// A message goes out for the first time.
    pub fn sent(&mut self, room: RoomIndex, message: MessageKey) -> Result<(), LedgerFull> {
        self.room(room).ledger.sent(room, message)
    }

    /// The server answered; a message that was sent again must get its first answer.
    pub fn accepted(&mut self, room: RoomIndex, message: MessageKey, answer: Answer) {
        let kept = self.room(room);
        kept.ledger.accepted(room, message, Some(answer.seq));
        kept.closed_seq = kept.closed_seq.max(answer.seq);
        // Whether a later message of a device has a later place is the ledger's to tell.
        let Some(first) = kept.answers.get(&message).copied() else {
            kept.answers.insert(message, answer);
            return;
        };
        kept.repeats += 1;
        if first.time_ms != answer.time_ms {
            kept.found.altered += 1;
            let text = format!("{room}: {message} was given two times of storing");
            note(&mut kept.found, text);
        }
    }

    /// A device got an entry, live or by a sync.
    pub fn received(
        &mut self,
        room: RoomIndex,
        device: DeviceIndex,
        entry: &Entry,
    ) -> Result<(), LedgerFull> {
        let Some(message) = self.take(room, Place::Device(device), entry)? else { return Ok(()) };
        self.room(room).ledger.received(room, device, Some(entry.seq), message)
    }

    /// A user is about to read history, all of it behind the head at the start.
    pub fn begins_to_read(&mut self, room: RoomIndex, user: UserIndex) {
        let kept = self.room(room);
        let head_seq = kept.opened.head_seq;
        kept.sights.entry(Place::History(user)).or_insert_with(|| Sight::behind(head_seq));
        // The ledger holds one history; others are held against it entry by entry.
        if *kept.reader.get_or_insert(user) == user {
            kept.ledger.history(room, []);
        }
    }

    /// A user reads an entry in history, after all was sent.
    pub fn read(&mut self, room: RoomIndex, user: UserIndex, entry: &Entry) -> Result<(), LedgerFull> {
        let Some(message) = self.take(room, Place::History(user), entry)? else { return Ok(()) };
        let kept = self.room(room);
        if kept.answers.get(&message).is_some_and(|answer| answer.time_ms != entry.time_ms) {
            kept.found.altered += 1;
            let text = format!("{room}: {message} has another time in history than was acknowledged");
            note(&mut kept.found, text);
        }
        if kept.reader == Some(user) {
            kept.ledger.history(room, [(Some(entry.seq), message)]);
        }
        Ok(())
    }

    /// Takes what is new to a place. Gives the message if it is one of this check.
    fn take(
        &mut self,
        room: RoomIndex,
        place: Place,
        entry: &Entry,
    ) -> Result<Option<MessageKey>, LedgerFull> {
        let stamp = text::read(&entry.body, self.run);
        let right = stamp.map(|stamp| text::body(&stamp));
        let kept = self.room(room);
        let head_seq = kept.opened.head_seq;
        match kept.sights.entry(place).or_insert_with(|| Sight::behind(head_seq)).take(entry) {
            Taken::Known | Taken::Before => return Ok(None),
            Taken::New => {}
            Taken::Other => {
                kept.found.altered += 1;
                let text = format!("{room}{}: two entries came as {}", kept.on(place), entry.seq);
                note(&mut kept.found, text);
            }
        }
        kept.records += 1;
        if kept.records > RECORDS_MAX {
            return Err(LedgerFull);
        }
        let Some(stamp) = stamp else {
            kept.others.insert(entry.seq);
            return Ok(None);
        };
        let message = MessageKey::from(stamp);
        if right.is_some_and(|right| right != entry.body) {
            kept.found.altered += 1;
            let text = format!("{room}{}: {message} has another body than was sent", kept.on(place));
            note(&mut kept.found, text);
        }
        if kept.opened.members.get(&stamp.sender).is_some_and(|ordinal| *ordinal != entry.sender) {
            kept.found.altered += 1;
            let text = format!("{room}{}: {message} comes from member {}", kept.on(place), entry.sender);
            note(&mut kept.found, text);
        }
        Ok(Some(message))
    }

    /// Up to where a device has everything.
    pub fn complete_to(&self, room: RoomIndex, device: DeviceIndex) -> u64 {
        let kept = self.rooms.get(room.0 as usize);
        kept.and_then(|kept| kept.sights.get(&Place::Device(device))).map_or(0, Sight::complete_to)
    }

    /// All was sent, and this is the newest entry: every place must be whole up to it.
    pub fn close(&mut self, room: RoomIndex, head_seq: u64) {
        let kept = self.room(room);
        if head_seq < kept.closed_seq {
            kept.found.lost += 1;
            let text = format!("{room}: its head is {head_seq}, acknowledged was {}", kept.closed_seq);
            note(&mut kept.found, text);
        }
        kept.closed_seq = kept.closed_seq.max(head_seq);
    }

    /// What is behind the room's head at the start, up to this, is to be read from history.
    pub fn window(&self, room: RoomIndex) -> (u64, u64) {
        self.rooms.get(room.0 as usize).map_or((0, 0), |kept| (kept.opened.head_seq, kept.closed_seq))
    }

    /// Messages that stay behind.
    pub fn sent_count(&self) -> u64 {
        let fates = self.rooms.iter().map(|kept| kept.ledger.balance(|_| Vec::new()));
        fates.map(|fates| fates.acknowledged + fates.unacknowledged).sum()
    }

    /// Rooms that were opened, for people.
    pub fn names(&self) -> Vec<String> {
        self.rooms.iter().map(|kept| kept.opened.name.clone()).collect()
    }

    /// Holds everything against everything.
    pub fn balance(&self) -> Vec<RoomBalance> {
        self.rooms.iter().zip(0..).map(|(kept, number)| kept.balance(RoomIndex(number))).collect()
    }
}

impl RoomAudit {
    fn on(&self, place: Place) -> String {
        match place {
            Place::Device(device) => format!(" on {device}"),
            Place::History(user) => format!(" in history read by account {}", user.0),
        }
    }

    fn balance(&self, room: RoomIndex) -> RoomBalance {
        let devices: Vec<DeviceIndex> = self.opened.members.keys().copied().collect();
        let mut sum = self.ledger.balance(|_| devices.clone());
        crate::workload::ledger::merge(&mut sum, &self.found);
        let (mut gaps, mut differing) = (0, 0);
        let mut places = LedgerResult::default();
        let reference = self.sights.iter().next();
        for (place, sight) in &self.sights {
            let missing = sight.missing(self.closed_seq);
            gaps += ranges_count(&missing);
            if !missing.is_empty() {
                let text = format!("{room}{}: nothing at {}", self.on(*place), ranges_text(&missing));
                note(&mut places, text);
            }
            let Some((first, right)) = reference else { continue };
            for seq in sight.differing(right, self.closed_seq) {
                differing += 1;
                let text =
                    format!("{room}: entry {seq}{} is another than{}", self.on(*place), self.on(*first));
                note(&mut places, text);
            }
        }
        sum.examples.extend(places.examples);
        RoomBalance {
            room: room.0,
            name: self.opened.name.clone(),
            from_seq: self.opened.head_seq + 1,
            to_seq: self.closed_seq,
            acknowledged: sum.acknowledged,
            unacknowledged: sum.unacknowledged,
            repeats: self.repeats,
            others: self.others.range(..=self.closed_seq).count() as u64,
            checked: sum.checked,
            lost: sum.lost,
            doubled: sum.doubled,
            reordered: sum.reordered,
            altered: sum.altered,
            gaps,
            differing,
            examples: sum.examples,
        }
    }
}

fn note(found: &mut LedgerResult, text: String) {
    if found.examples.len() < EXAMPLES_MAX {
        found.examples.push(text);
    }
}

#[cfg(test)]
mod tests;
