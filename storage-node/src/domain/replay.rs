//! After a crash: what an already applied batch emitted, told again.
//!
//! The rows of later batches may be there already, so this reads first answers and cursors instead of applying. It
//! tells at least what `apply` told, in the form in which it is true now. Receivers merge by maximum, so telling more
//! does no harm:
//! - An entry is told as it was. If its first answer has expired, the conversation's newest place is told instead,
//!   without an entry: the members' rows still come right.
//! - A repeated send whose first answer bears the same time is told once more.
//! - Cursors are told as they are now, once a member, whether or not the command moved them.
//! - `DeviceRemoved` is told when the device is gone. A device that had to make room for another is not told of: the
//!   registry that would close its sessions died in the same crash, and attaching asks for the device.

use super::conversations::{Head, Room};
use super::messages::{self, EntryRow, FirstAnswer};
use super::receipts::{self, CursorRow};
use super::turn::{Stop, conversation_id, device_id, user_id};
use super::{Event, users};
use crate::engine::{Reader, StoreError};
use std::collections::BTreeSet;
use wire_protocol::ids::{ConversationId, Seq, ShardId};
use wire_protocol::internal::{
    AdvanceCursor, CommandBatch, CreateConversation, FeedItem, RemoveDevice, SendMessage, command,
};

/// Rebuilds the events of an already applied batch, in order. The module says what may differ.
pub fn replay_events(
    reader: &dyn Reader,
    _shard: ShardId,
    batch: &CommandBatch,
) -> Result<Vec<Event>, StoreError> {
    let mut replay = Replay { reader, time_ms: batch.time_ms, events: Vec::new(), told: BTreeSet::new() };
    for command in &batch.commands {
        let told = match &command.kind {
            Some(command::Kind::SendMessage(command)) => replay.send(command),
            Some(command::Kind::AdvanceCursor(command)) => replay.advance(command),
            Some(command::Kind::CreateConversation(command)) => replay.create(command),
            Some(command::Kind::RemoveDevice(command)) => replay.remove_device(command),
            Some(command::Kind::FeedCheckpoint(command)) => {
                replay.events.push(Event::Checkpointed(command.clone()));
                Ok(())
            }
            _ => Ok(()),
        };
        match told {
            // A refused command told nothing when it was applied.
            Ok(()) | Err(Stop::Refused(..)) => (),
            Err(Stop::Store(error)) => return Err(error),
        }
    }
    Ok(replay.events)
}

struct Replay<'a> {
    reader: &'a dyn Reader,
    time_ms: u64,
    events: Vec<Event>,
    /// What this batch has told already.
    told: BTreeSet<(ConversationId, Told)>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Entry(u64),
    Cursors(u16),
    Place,
}

impl Replay<'_> {
    fn create(&mut self, command: &CreateConversation) -> Result<(), Stop> {
        let id = conversation_id(&command.conversation_id)?;
        let Some(room) = Room::load(self.reader, id)? else { return Ok(()) };
        if room.created_ms == self.time_ms {
            self.tell_entry(&room, id, 1, Default::default())?;
        }
        Ok(())
    }

    fn send(&mut self, command: &SendMessage) -> Result<(), Stop> {
        let send = messages::check(command)?;
        let id = send.conversation;
        let Some(room) = Room::load(self.reader, id)? else { return Ok(()) };
        let Some(sender) = room.ordinal(send.user) else { return Ok(()) };
        let from = (sender, send.device);
        match FirstAnswer::load(self.reader, id, from, send.client_id, self.time_ms)? {
            // Answered before this batch: a repeat, which told nothing.
            Some(first) if first.time_ms < self.time_ms => Ok(()),
            Some(first) if first.time_ms == self.time_ms => {
                self.tell_entry(&room, id, first.seq, command.device_id.clone())
            }
            // Refused, or so long ago that the answer is gone or the id was used again.
            _ => self.tell_place(&room, id),
        }
    }

    fn advance(&mut self, command: &AdvanceCursor) -> Result<(), Stop> {
        let id = conversation_id(&command.conversation_id)?;
        let user = user_id(&command.user_id)?;
        device_id(&command.device_id)?;
        let Some(room) = Room::load(self.reader, id)? else { return Ok(()) };
        let Some(member) = room.ordinal(user) else { return Ok(()) };
        let cursors = CursorRow::load(self.reader, id, member)?;
        if cursors.delivered_up_to == 0 || !self.told.insert((id, Told::Cursors(member))) {
            return Ok(());
        }
        let head = Head::load(self.reader, id)?;
        let mut item = receipts::item(&room, id, member, &cursors);
        item.top_seq = head.seq;
        item.activity_ms = head.time_ms;
        item.origin_device_id = command.device_id.clone();
        self.events.push(Event::Feed(item));
        Ok(())
    }

    fn remove_device(&mut self, command: &RemoveDevice) -> Result<(), Stop> {
        let id = user_id(&command.user_id)?;
        let device = device_id(&command.device_id)?;
        let Some(user) = users::load(self.reader, id)? else { return Ok(()) };
        if user.devices.iter().all(|known| known.device_id != command.device_id) {
            self.events.push(Event::DeviceRemoved { user: id, device });
        }
        Ok(())
    }

    fn tell_entry(
        &mut self,
        room: &Room,
        id: ConversationId,
        seq: u64,
        origin_device_id: bytes::Bytes,
    ) -> Result<(), Stop> {
        if self.told.insert((id, Told::Entry(seq))) {
            let entry = EntryRow::load(self.reader, id, Seq(seq))?.into_entry(Seq(seq));
            self.events.push(messages::event(room, id, origin_device_id, entry));
        }
        Ok(())
    }

    fn tell_place(&mut self, room: &Room, id: ConversationId) -> Result<(), Stop> {
        if self.told.insert((id, Told::Place)) {
            let head = Head::load(self.reader, id)?;
            self.events.push(Event::Feed(FeedItem {
                user_ids: room.member_ids(),
                conversation_id: id.to_bytes(),
                top_seq: head.seq,
                activity_ms: head.time_ms,
                ..FeedItem::default()
            }));
        }
        Ok(())
    }
}
