//! What all devices have in common: the messages there are, and what happened.

use super::history::{Event, History, NOBODYS, Seen};
use super::{cast, plan};
use crate::workload::random::Random;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;
use wire_protocol::ids::ConversationId;
use wire_protocol::v1::{Entry, EntryKind};

/// Makes another stream of a seed.
const STREAM: u64 = 0x626f_6469_6573_5f5f;
/// One body in so many is larger than a sector of a disk.
const LARGE: usize = 8;
const LARGE_BYTES: Range<u64> = 513..900;
/// The others have up to 2^n bytes, n being below this: mostly few, as people write.
const SMALL_BITS: u64 = 9;
/// Lengths of both where they are no matter of chance: when seeds were kept they were these.
const KEPT_BYTES: [usize; 2] = [700, 20];

/// A message that a device wrote.
pub struct Message {
    /// Who.
    pub device: usize,
    /// Where.
    pub room: usize,
    /// Its number, once it was acknowledged.
    pub seq: Option<u64>,
    /// How often its device was told that it was refused, and is to be sent again.
    pub refusals: u64,
    /// Any bytes; no other message has the same.
    pub body: Bytes,
}

/// Everything so far.
pub struct Story {
    /// By number.
    pub messages: Vec<Message>,
    /// What happened.
    pub history: History,
    rooms: BTreeMap<ConversationId, usize>,
    /// By room and a member's ordinal there: who that is, as it was shown first.
    members: BTreeMap<(usize, u32), usize>,
    /// Messages by their bodies.
    written: BTreeMap<Bytes, usize>,
    /// Of bodies.
    chance: Random,
    is_free: bool,
}

impl Story {
    /// Nothing happened yet.
    pub fn new(seed: u64, shard_count: u32) -> Self {
        let (rooms, shards) = (cast::devices_by_room(), cast::shards_by_room(shard_count));
        Self {
            messages: Vec::new(),
            history: History { rooms, shards, ..History::default() },
            rooms: cast::rooms_by_id(),
            members: BTreeMap::new(),
            written: BTreeMap::new(),
            chance: Random::new(seed ^ STREAM),
            is_free: plan::is_free(seed),
        }
    }

    /// Something happened.
    pub fn tell(&mut self, event: Event) {
        self.history.events.push(event);
    }

    /// A device writes a message.
    pub fn write(&mut self, device: usize, room: usize) -> usize {
        let message = self.messages.len();
        let body = self.new_body(message);
        self.written.insert(body.clone(), message);
        self.messages.push(Message { device, room, seq: None, refusals: 0, body });
        self.tell(Event::Sent { message, device, room });
        message
    }

    fn new_body(&mut self, message: usize) -> Bytes {
        loop {
            let bytes = self.body_bytes(message);
            let chance = &mut self.chance;
            let body: Bytes = match chance.below(4) {
                0 => vec![chance.draw() as u8; bytes].into(),
                1 => (0..bytes).map(|_| chance.within(0x20..0x7f) as u8).collect(),
                _ => (0..bytes).map(|_| chance.draw() as u8).collect(),
            };
            if !self.written.contains_key(&body) {
                return body;
            }
        }
    }

    /// How long a body is: never empty, which the server refuses.
    fn body_bytes(&mut self, message: usize) -> usize {
        let is_large = message.is_multiple_of(LARGE);
        match (self.is_free, is_large) {
            (false, _) => KEPT_BYTES[usize::from(!is_large)],
            (true, true) => self.chance.within(LARGE_BYTES) as usize,
            (true, false) => {
                let bits = self.chance.below(SMALL_BITS);
                1 + self.chance.below(1 << bits) as usize
            }
        }
    }

    /// A device was shown whose ordinal in a room that is.
    pub fn know_member(&mut self, member: (usize, u32), user: usize) {
        self.members.entry(member).or_insert(user);
    }

    /// Whose ordinal in a room that is, if it is known.
    pub fn member(&self, member: (usize, u32)) -> Option<usize> {
        self.members.get(&member).copied()
    }

    /// An entry as checkers know it.
    pub fn seen(&self, entry: &Entry) -> Seen {
        let is_theirs = entry.kind == EntryKind::Text as i32;
        let message = is_theirs.then(|| self.written_as(entry).unwrap_or(NOBODYS));
        Seen { seq: entry.seq, time_ms: entry.time_ms, message }
    }

    /// The message of an entry's body: none if another one than its sender wrote it.
    fn written_as(&self, entry: &Entry) -> Option<usize> {
        let message = *self.written.get(&entry.body)?;
        let Message { device, room, .. } = &self.messages[message];
        let sender = self.member((*room, entry.sender));
        sender.is_none_or(|user| user == cast::DEVICE_USERS[*device]).then_some(message)
    }

    /// Which room that is.
    pub fn room(&self, id: &[u8]) -> Option<usize> {
        self.rooms.get(&ConversationId::from_slice(id)?).copied()
    }

    /// The newest acknowledged number of a room.
    pub fn acked(&self, room: usize) -> u64 {
        let of_room = self.messages.iter().filter(|message| message.room == room);
        of_room.filter_map(|message| message.seq).max().unwrap_or(0)
    }

    /// The newest of the messages that its device wrote in the same room before it and that have no answer.
    pub fn unanswered_before(&self, message: usize) -> Option<usize> {
        let Message { device, room, .. } = &self.messages[message];
        self.messages[..message]
            .iter()
            .rposition(|other| (other.device, other.room, other.seq) == (*device, *room, None))
    }

    /// Messages without an answer.
    pub fn unanswered(&self) -> impl Iterator<Item = usize> {
        (0..self.messages.len()).filter(|number| self.messages[*number].seq.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: EntryKind, body: Bytes) -> Entry {
        Entry { seq: 1, sender: 0, time_ms: 5, kind: kind as i32, body }
    }

    #[test]
    fn bodies_are_any_bytes_and_each_is_known_for_its_message() {
        for seed in [0, 3] {
            let mut story = Story::new(seed, 1);
            let messages: Vec<usize> = (0..200).map(|_| story.write(0, 0)).collect();
            for message in messages {
                let body = story.messages[message].body.clone();
                assert_eq!(story.seen(&entry(EntryKind::Text, body)).message, Some(message));
            }
            let bodies = story.messages.iter().map(|message| &message.body);
            let mut lengths: Vec<usize> = bodies.clone().map(|body| body.len()).collect();
            let of_text = bodies.filter(|body| std::str::from_utf8(body).is_ok()).count();
            assert!((20..180).contains(&of_text), "seed {seed}: {of_text} bodies are text");
            lengths.sort_unstable();
            assert_eq!(lengths[0] == 1, plan::is_free(seed), "seed {seed}: {lengths:?}");
            lengths.dedup();
            assert_eq!(lengths.len() > 2, plan::is_free(seed), "seed {seed}: {lengths:?}");
        }
    }

    #[test]
    fn a_body_that_nobody_wrote_is_nobodys_and_the_servers_own_entry_is_no_message() {
        let mut story = Story::new(0, 1);
        story.write(0, 0);
        let body = story.messages[0].body.clone();
        assert_eq!(story.seen(&entry(EntryKind::Text, body.clone())).message, Some(0), "no member is known");
        for (user, message) in [(0, 0), (1, NOBODYS)] {
            story.members.clear();
            story.know_member((0, 0), user);
            assert_eq!(story.seen(&entry(EntryKind::Text, body.clone())).message, Some(message));
        }
        let changed = body.slice(1..);
        assert_eq!(story.seen(&entry(EntryKind::Text, changed)).message, Some(NOBODYS));
        assert_eq!(story.seen(&entry(EntryKind::Created, Bytes::new())).message, None);
    }
}
