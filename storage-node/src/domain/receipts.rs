//! Cursors: how far a member's devices have received and the member has read.
//!
//! Row: `cursors`, one for each member that ever moved one: the member's own (the highest of its devices), then
//! those of each device. Cursors never fall and never pass the head; read implies delivered.

use super::conversations::Room;
use super::row::{RowReader, RowWriter};
use super::turn::{Answered, Turn, conversation_id, device_id, user_id};
use super::{Event, not_a_member};
use crate::engine::{Direction, Reader, StoreError, keys};
use bytes::Bytes;
use wire_protocol::ids::{ConversationId, DeviceId};
use wire_protocol::internal::{Accepted, AdvanceCursor, FeedItem, feed_item, outcome};
use wire_protocol::limits::DEVICES_MAX;
use wire_protocol::v1::{Member, ReceiptEvent};

/// Devices whose cursors a row keeps: all of a user's at once, and as many that have been removed since. Beyond, the
/// device that is furthest behind starts over at the newest entries, as a new device does.
const DEVICE_CURSORS_MAX: usize = 2 * DEVICES_MAX;

/// One device's cursors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceCursors {
    pub(super) device: DeviceId,
    pub(super) delivered_up_to: u64,
    pub(super) read_up_to: u64,
}

/// A member's cursors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CursorRow {
    pub(super) delivered_up_to: u64,
    pub(super) read_up_to: u64,
    devices: Vec<DeviceCursors>,
}

impl CursorRow {
    /// Zeros for a member that never moved one.
    pub(super) fn load(reader: &dyn Reader, id: ConversationId, member: u16) -> Result<Self, StoreError> {
        reader.value(&keys::cursors(id, member))?.map_or_else(|| Ok(Self::default()), Self::parse)
    }

    fn parse(value: Bytes) -> Result<Self, StoreError> {
        let mut row = RowReader::new("cursors", value)?;
        let mut cursors =
            Self { delivered_up_to: row.varint()?, read_up_to: row.varint()?, devices: Vec::new() };
        while !row.is_empty() {
            let device = DeviceId::from_slice(&row.bytes(16)?).ok_or_else(|| row.damaged("device id"))?;
            let (delivered_up_to, read_up_to) = (row.varint()?, row.varint()?);
            cursors.devices.push(DeviceCursors { device, delivered_up_to, read_up_to });
        }
        Ok(cursors)
    }

    fn to_row(&self) -> Bytes {
        let row =
            RowWriter::new(20 + self.devices.len() * 36).varint(self.delivered_up_to).varint(self.read_up_to);
        let row = self.devices.iter().fold(row, |row, device| {
            row.bytes(&device.device.0).varint(device.delivered_up_to).varint(device.read_up_to)
        });
        row.finish()
    }

    /// The device's own cursors; `None` if it never moved one.
    pub(super) fn device(&self, device: DeviceId) -> Option<&DeviceCursors> {
        self.devices.iter().find(|cursors| cursors.device == device)
    }

    /// Moves a device's cursors up to `delivered_up_to` and `read_up_to`. Says what changed.
    fn advance(&mut self, moved: DeviceCursors) -> Moved {
        let before = (self.delivered_up_to, self.read_up_to);
        self.delivered_up_to = self.delivered_up_to.max(moved.delivered_up_to);
        self.read_up_to = self.read_up_to.max(moved.read_up_to);
        let member_moved = before != (self.delivered_up_to, self.read_up_to);
        match self.devices.iter_mut().find(|cursors| cursors.device == moved.device) {
            Some(cursors) => {
                let before = *cursors;
                cursors.delivered_up_to = cursors.delivered_up_to.max(moved.delivered_up_to);
                cursors.read_up_to = cursors.read_up_to.max(moved.read_up_to);
                if member_moved {
                    Moved::Member
                } else if *cursors != before {
                    Moved::Device
                } else {
                    Moved::Nothing
                }
            }
            None => {
                self.make_room();
                self.devices.push(moved);
                if member_moved { Moved::Member } else { Moved::Device }
            }
        }
    }

    /// Forgets the device that is furthest behind when there are too many.
    fn make_room(&mut self) {
        if self.devices.len() < DEVICE_CURSORS_MAX {
            return;
        }
        let places = self.devices.iter().enumerate();
        if let Some((place, _)) = places.min_by_key(|(_, cursors)| (cursors.delivered_up_to, cursors.device))
        {
            self.devices.remove(place);
        }
    }
}

/// What a cursor command changed.
enum Moved {
    /// All cursors were there already.
    Nothing,
    /// Only the device's: nobody else needs to hear of it.
    Device,
    /// The member's too.
    Member,
}

/// Moves a device's cursors, and tells the members if the user's moved with them.
pub(super) fn advance(turn: &mut Turn<'_, '_>, command: &AdvanceCursor) -> Answered {
    let id = conversation_id(&command.conversation_id)?;
    let user = user_id(&command.user_id)?;
    let device = device_id(&command.device_id)?;
    let (room, head) = turn.conversation(id)?;
    let member = room.ordinal(user).ok_or_else(not_a_member)?;
    let read_up_to = command.read_up_to.min(head.seq);
    let delivered_up_to = command.delivered_up_to.min(head.seq).max(read_up_to);
    let accepted = outcome::Kind::Accepted(Accepted {});
    if delivered_up_to == 0 {
        return Ok(accepted);
    }
    let mut cursors = CursorRow::load(turn.overlay, id, member)?;
    let moved = cursors.advance(DeviceCursors { device, delivered_up_to, read_up_to });
    if let Moved::Nothing = moved {
        return Ok(accepted);
    }
    turn.overlay.put(keys::cursors(id, member), cursors.to_row());
    if let Moved::Member = moved {
        let mut item = item(&room, id, member, &cursors);
        item.top_seq = head.seq;
        item.activity_ms = head.time_ms;
        item.origin_device_id = command.device_id.clone();
        turn.events.push(Event::Feed(item));
    }
    Ok(accepted)
}

/// What the members hear of a member's cursors; the head is the caller's to fill in.
pub(super) fn item(room: &Room, id: ConversationId, member: u16, cursors: &CursorRow) -> FeedItem {
    let receipt = ReceiptEvent {
        handle: 0,
        conversation_id: Bytes::new(),
        member: u32::from(member),
        delivered_up_to: cursors.delivered_up_to,
        read_up_to: cursors.read_up_to,
    };
    FeedItem {
        user_ids: room.member_ids(),
        conversation_id: id.to_bytes(),
        event: Some(feed_item::Event::Receipt(receipt)),
        ..FeedItem::default()
    }
}

/// All members with their cursors, in the order of their ordinals.
pub(super) fn members(
    reader: &dyn Reader,
    id: ConversationId,
    room: &Room,
) -> Result<Vec<Member>, StoreError> {
    let member = |(ordinal, user_id)| Member { ordinal, user_id, delivered_up_to: 0, read_up_to: 0 };
    let mut members: Vec<Member> = (0..).zip(room.member_ids()).map(member).collect();
    let all = keys::cursors_of_all(id);
    let mut damage = None;
    reader.scan(&all, &all.end(), Direction::Ascending, &mut |key, value| {
        let member = keys::cursors_member(key).and_then(|ordinal| members.get_mut(usize::from(ordinal)));
        match (CursorRow::parse(Bytes::copy_from_slice(value)), member) {
            (Ok(cursors), Some(member)) => {
                member.delivered_up_to = cursors.delivered_up_to;
                member.read_up_to = cursors.read_up_to;
            }
            (Err(error), _) => damage = Some(error),
            (_, None) => damage = Some(StoreError::Damaged { table: "cursors", detail: "no such member" }),
        }
        damage.is_none()
    })?;
    match damage {
        Some(error) => Err(error),
        None => Ok(members),
    }
}
