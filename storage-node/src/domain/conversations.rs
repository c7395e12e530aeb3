//! Conversations: what they are, who is in them, where they stand.
//!
//! Rows: `conversation` (kind, members, title; never changes) and `head` (newest sequence number, countable ordinal,
//! newest time; one write for each batch that adds entries).

use super::messages::{self, EntryRow, UnreadOf};
use super::receipts::{self, CursorRow};
use super::row::{RowReader, RowWriter};
use super::turn::{Answered, Stop, Turn, conversation_id, invalid, user_id};
use super::{Event, fits_chars, not_a_member};
use crate::engine::{Reader, StoreError, keys};
use bytes::Bytes;
use wire_protocol::ids::{ConversationId, Seq, UserId};
use wire_protocol::internal::{ConversationCreated, ConversationView, CreateConversation, FeedItem};
use wire_protocol::internal::{ReadConversation, answer, feed_item, outcome};
use wire_protocol::limits::{GROUP_MEMBERS_MAX, TITLE_CHARS_MAX};
use wire_protocol::v1::{self, ConversationKind, EntryKind, ErrorCode};

/// What a conversation is. Members are named by their ordinal: their place in the list.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Room {
    pub(super) kind: ConversationKind,
    pub(super) created_ms: u64,
    /// 16 bytes each; the creator first.
    members: Bytes,
    title: Bytes,
}

impl Room {
    pub(super) fn load(reader: &dyn Reader, id: ConversationId) -> Result<Option<Room>, StoreError> {
        reader.value(&keys::conversation(id))?.map(Self::parse).transpose()
    }

    pub(super) fn parse(value: Bytes) -> Result<Room, StoreError> {
        let mut row = RowReader::new("conversation", value)?;
        let kind = ConversationKind::try_from(i32::from(row.byte()?))
            .map_err(|_| row.damaged("unknown kind of conversation"))?;
        let created_ms = row.varint()?;
        let count = usize::try_from(row.varint()?).map_err(|_| row.damaged("members beyond counting"))?;
        let bytes = count.checked_mul(16).ok_or_else(|| row.damaged("members beyond counting"))?;
        let members = row.bytes(bytes)?;
        Ok(Room { kind, created_ms, members, title: row.rest() })
    }

    fn to_row(&self) -> Bytes {
        RowWriter::new(16 + self.members.len() + self.title.len())
            .byte(self.kind as u8)
            .varint(self.created_ms)
            .varint(self.member_count() as u64)
            .bytes(&self.members)
            .bytes(&self.title)
            .finish()
    }

    pub(super) fn member_count(&self) -> usize {
        self.members.len() / 16
    }

    /// The member's place, or `None` for everybody else.
    pub(super) fn ordinal(&self, user: UserId) -> Option<u16> {
        let place = self.members.chunks_exact(16).position(|member| member == user.0)?;
        Some(place as u16)
    }

    /// All members in the order of their ordinals, sharing the row's memory.
    pub(super) fn member_ids(&self) -> Vec<Bytes> {
        (0..self.member_count()).map(|place| self.members.slice(place * 16..place * 16 + 16)).collect()
    }

    fn title(&self) -> String {
        String::from_utf8_lossy(&self.title).into_owned()
    }
}

/// Where a conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The newest entry.
    pub(super) seq: u64,
    /// How many entries up to it count as unread.
    pub(super) countable: u64,
    /// Its time.
    pub(super) time_ms: u64,
}

impl Head {
    pub(super) fn load(reader: &dyn Reader, id: ConversationId) -> Result<Head, StoreError> {
        let missing = StoreError::Damaged { table: "head", detail: "missing" };
        let mut row = RowReader::new("head", reader.value(&keys::head(id))?.ok_or(missing)?)?;
        Ok(Head { seq: row.varint()?, countable: row.varint()?, time_ms: row.varint()? })
    }

    pub(super) fn to_row(self) -> Bytes {
        RowWriter::new(26).varint(self.seq).varint(self.countable).varint(self.time_ms).finish()
    }
}

/// Makes a conversation with its first entry. Repeating it changes nothing.
pub(super) fn create(turn: &mut Turn<'_, '_>, command: &CreateConversation) -> Answered {
    let id = conversation_id(&command.conversation_id)?;
    let room = check(command, id, turn.time_ms)?;
    if turn.find_conversation(id)?.is_some() {
        return Ok(outcome::Kind::ConversationCreated(ConversationCreated { existed: true }));
    }
    turn.overlay.put(keys::conversation(id), room.to_row());
    let head = Head { seq: 1, countable: 0, time_ms: turn.time_ms };
    let entry = EntryRow {
        kind: EntryKind::Created,
        sender: 0,
        time_ms: turn.time_ms,
        countable: 0,
        body: Bytes::new(),
    };
    turn.overlay.put(keys::message(id, Seq(1)), entry.to_row());
    let room = turn.open_conversation(id, room, head);
    turn.events.push(Event::Feed(FeedItem {
        user_ids: room.member_ids(),
        conversation_id: command.conversation_id.clone(),
        top_seq: head.seq,
        activity_ms: head.time_ms,
        origin_device_id: Bytes::new(),
        event: Some(feed_item::Event::Entry(entry.into_entry(Seq(1)))),
    }));
    Ok(outcome::Kind::ConversationCreated(ConversationCreated { existed: false }))
}

/// The conversation that the command describes, if it may exist.
fn check(command: &CreateConversation, id: ConversationId, time_ms: u64) -> Result<Room, Stop> {
    let kind = i32::try_from(command.kind).ok().and_then(|kind| ConversationKind::try_from(kind).ok());
    let members: Vec<UserId> =
        command.member_ids.iter().map(|member| user_id(member)).collect::<Result<_, _>>()?;
    let kind = match kind {
        Some(ConversationKind::Direct) => {
            let &[a, b] = members.as_slice() else { return Err(invalid("member_ids: not two")) };
            if ConversationId::direct(a, b) != id {
                return Err(invalid("conversation_id: not of these two users"));
            }
            if !command.title.is_empty() {
                return Err(invalid("title: not in a direct conversation"));
            }
            ConversationKind::Direct
        }
        Some(ConversationKind::Group) => ConversationKind::Group,
        _ => return Err(invalid("kind")),
    };
    if members.is_empty() {
        return Err(invalid("member_ids: empty"));
    }
    if members.len() > GROUP_MEMBERS_MAX {
        return Err(Stop::Refused(ErrorCode::ErrorTooManyMembers, "member_ids"));
    }
    let mut sorted = members.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err(invalid("member_ids: a member twice"));
    }
    if !fits_chars(&command.title, TITLE_CHARS_MAX) {
        return Err(invalid("title: too long"));
    }
    let members: Vec<u8> = members.iter().flat_map(|member| member.0).collect();
    let title = Bytes::copy_from_slice(command.title.as_bytes());
    Ok(Room { kind, created_ms: time_ms, members: members.into(), title })
}

/// One query serves sync, history, list and get.
pub(super) fn read(reader: &dyn Reader, query: &ReadConversation) -> Result<answer::Kind, Stop> {
    let id = conversation_id(&query.conversation_id)?;
    let user = user_id(&query.user_id)?;
    let room = Room::load(reader, id)?.ok_or(Stop::Refused(ErrorCode::ErrorNotFound, "conversation"))?;
    let member = room.ordinal(user).ok_or_else(not_a_member)?;
    let head = Head::load(reader, id)?;
    let own = CursorRow::load(reader, id, member)?;
    let members = if query.with_members { receipts::members(reader, id, &room)? } else { Vec::new() };
    let (entries, truncated) = messages::read_range(reader, id, head, &own, query)?;
    let last = match entries.last() {
        Some(entry) if entry.seq == head.seq => entry.clone(),
        _ => EntryRow::load(reader, id, Seq(head.seq))?.into_entry(Seq(head.seq)),
    };
    let conversation = v1::Conversation {
        handle: 0,
        conversation_id: query.conversation_id.clone(),
        kind: room.kind as i32,
        title: room.title(),
        members,
        head_seq: head.seq,
        created_ms: room.created_ms,
        unread: messages::unread(reader, id, head, UnreadOf { member, read_up_to: own.read_up_to })?,
        read_up_to: own.read_up_to,
        delivered_up_to: own.delivered_up_to,
        last: Some(last),
        own_ordinal: u32::from(member),
    };
    Ok(answer::Kind::Conversation(ConversationView { conversation: Some(conversation), entries, truncated }))
}
