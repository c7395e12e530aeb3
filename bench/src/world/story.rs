//! What all devices have in common: the messages there are, and what happened.

use super::cast;
use super::history::{Event, History, Seen};
use std::collections::BTreeMap;
use wire_protocol::ids::ConversationId;
use wire_protocol::v1::{Entry, EntryKind};

/// A message that a device wrote.
pub struct Message {
    /// Who.
    pub device: usize,
    /// Where.
    pub room: usize,
    /// Its number, once it was acknowledged.
    pub seq: Option<u64>,
}

/// Everything so far.
pub struct Story {
    /// By number.
    pub messages: Vec<Message>,
    /// What happened.
    pub history: History,
    rooms: BTreeMap<ConversationId, usize>,
}

impl Story {
    /// Nothing happened yet.
    pub fn new() -> Self {
        let history = History { rooms: cast::devices_by_room(), ..History::default() };
        Self { messages: Vec::new(), history, rooms: cast::rooms_by_id() }
    }

    /// Something happened.
    pub fn tell(&mut self, event: Event) {
        self.history.events.push(event);
    }

    /// A device writes a message.
    pub fn write(&mut self, device: usize, room: usize) -> usize {
        let message = self.messages.len();
        self.messages.push(Message { device, room, seq: None });
        self.tell(Event::Sent { message, device, room });
        message
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
        let Message { device, room, .. } = self.messages[message];
        self.messages[..message]
            .iter()
            .rposition(|other| (other.device, other.room, other.seq) == (device, room, None))
    }

    /// Messages without an answer.
    pub fn unanswered(&self) -> impl Iterator<Item = usize> {
        (0..self.messages.len()).filter(|number| self.messages[*number].seq.is_none())
    }
}

/// What is in a message's body.
pub fn body(message: usize) -> bytes::Bytes {
    // One in eight is larger than a sector of a disk.
    let width = if message.is_multiple_of(8) { 700 } else { 20 };
    format!("{message:0width$}").into()
}

/// An entry as checkers know it.
pub fn seen(entry: &Entry) -> Seen {
    let text =
        (entry.kind == EntryKind::Text as i32).then(|| std::str::from_utf8(&entry.body).ok()).flatten();
    Seen { seq: entry.seq, time_ms: entry.time_ms, message: text.and_then(|text| text.parse().ok()) }
}
