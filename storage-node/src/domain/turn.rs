//! One run of `apply` over a batch: the overlay, the batch's time, and the conversations it has open.

use super::conversations::{Head, Room};
use super::{Event, Overlay};
use crate::engine::{StoreError, keys};
use std::collections::BTreeMap;
use std::rc::Rc;
use wire_protocol::ids::{ConversationId, DeviceId, ShardId, UserId};
use wire_protocol::internal::{Refused, outcome};
use wire_protocol::v1::ErrorCode;

/// What every command may use.
pub(super) struct Turn<'t, 'a> {
    pub(super) overlay: &'t mut Overlay<'a>,
    pub(super) shard: ShardId,
    /// The batch's logged time.
    pub(super) time_ms: u64,
    /// Of the command at hand.
    pub(super) events: Vec<Event>,
    /// Conversations that a command of this batch touched: many commands share one look-up and one head row.
    open: BTreeMap<ConversationId, Open>,
}

struct Open {
    room: Rc<Room>,
    head: Head,
    head_changed: bool,
}

/// Why a command goes no further.
#[derive(Debug)]
pub(crate) enum Stop {
    /// By the rules: the command's outcome, and no row was changed.
    Refused(ErrorCode, &'static str),
    /// The store failed: the whole batch fails.
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Stop::Store(error)
    }
}

/// What a command answers.
pub(super) type Answered = Result<outcome::Kind, Stop>;

impl<'t, 'a> Turn<'t, 'a> {
    pub(super) fn new(overlay: &'t mut Overlay<'a>, shard: ShardId, time_ms: u64) -> Self {
        Self { overlay, shard, time_ms, events: Vec::new(), open: BTreeMap::new() }
    }

    /// The conversation and its head, or a refusal.
    pub(super) fn conversation(&mut self, id: ConversationId) -> Result<(Rc<Room>, Head), Stop> {
        self.find_conversation(id)?.ok_or(Stop::Refused(ErrorCode::ErrorNotFound, "conversation"))
    }

    /// The conversation and its head, if it exists.
    pub(super) fn find_conversation(
        &mut self,
        id: ConversationId,
    ) -> Result<Option<(Rc<Room>, Head)>, StoreError> {
        if let Some(open) = self.open.get(&id) {
            return Ok(Some((open.room.clone(), open.head)));
        }
        let Some(room) = Room::load(self.overlay, id)? else { return Ok(None) };
        let head = Head::load(self.overlay, id)?;
        let room = Rc::new(room);
        self.open.insert(id, Open { room: room.clone(), head, head_changed: false });
        Ok(Some((room, head)))
    }

    /// A conversation that this command makes.
    pub(super) fn open_conversation(&mut self, id: ConversationId, room: Room, head: Head) -> Rc<Room> {
        let room = Rc::new(room);
        self.open.insert(id, Open { room: room.clone(), head, head_changed: true });
        room
    }

    /// Moves the head on.
    pub(super) fn set_head(&mut self, id: ConversationId, head: Head) {
        let open = self.open.get_mut(&id).expect("a head only moves in a conversation that was looked up");
        assert!(head.seq == open.head.seq + 1, "entries are numbered without gaps");
        assert!(head.time_ms >= open.head.time_ms, "time never falls in a conversation");
        open.head = head;
        open.head_changed = true;
    }

    /// Writes the heads that moved. Called once, after the last command.
    pub(super) fn finish(self) {
        for (id, open) in self.open {
            if open.head_changed {
                self.overlay.put(keys::head(id), open.head.to_row());
            }
        }
    }
}

/// The outcome of a refused command.
pub(super) fn refused(code: ErrorCode, detail: &str) -> Refused {
    Refused { code: code as u32, detail: detail.into() }
}

pub(super) fn invalid(detail: &'static str) -> Stop {
    Stop::Refused(ErrorCode::ErrorInvalidArgument, detail)
}

pub(super) fn conversation_id(bytes: &[u8]) -> Result<ConversationId, Stop> {
    ConversationId::from_slice(bytes).ok_or(invalid("conversation_id: not 16 bytes"))
}

pub(super) fn user_id(bytes: &[u8]) -> Result<UserId, Stop> {
    UserId::from_slice(bytes).ok_or(invalid("user_id: not 16 bytes"))
}

pub(super) fn device_id(bytes: &[u8]) -> Result<DeviceId, Stop> {
    DeviceId::from_slice(bytes).ok_or(invalid("device_id: not 16 bytes"))
}
