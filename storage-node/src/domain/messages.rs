//! Messages: numbered, stored once, answered the same way however often they are sent.
//!
//! Rows: `message` (one entry) and `idempotency` (the first answer to a client message id). Step 10 of a message's
//! way: entry of the log → rows, outcome, event.

use super::conversations::{Head, Room};
use super::receipts::CursorRow;
use super::row::{RowReader, RowWriter};
use super::turn::{Answered, Stop, Turn, conversation_id, device_id, invalid, user_id};
use super::{Event, not_a_member};
use crate::engine::{Direction, Reader, StoreError, keys};
use bytes::Bytes;
use prost::Message;
use wire_protocol::ids::{ClientMessageId, ConversationId, DeviceId, Seq};
use wire_protocol::internal::read_conversation::Range;
use wire_protocol::internal::{FeedItem, MessageApplied, ReadConversation, SendMessage, feed_item, outcome};
use wire_protocol::limits::{
    BODY_BYTES_MAX, IDEMPOTENCY_MS, LINK_BATCH_BYTES, PAGE_BYTES_MAX, SYNC_LATEST_ENTRIES,
};
use wire_protocol::v1::{Entry, EntryKind, ErrorCode};

/// Most entries one query returns: more than fit a page of the smallest ones.
const ENTRIES_MAX: usize = 2_000;
/// Entries that a count of unread messages looks at: some 40 µs of reading when they are in memory, three times
/// what clients leave unread of their own before they tell.
const UNREAD_LOOKED_AT_MAX: u64 = 64;
/// An entry's row before its body, in bytes: version, kind, and three varints.
const ENTRY_FACTS_BYTES_MAX: usize = 2 + 3 + 10 + 10;
/// Tag and length of an entry within a page, in bytes.
const ENTRY_FRAMING_BYTES: usize = 4;

/// One entry, as stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EntryRow {
    pub(super) kind: EntryKind,
    /// Ordinal of the member.
    pub(super) sender: u16,
    pub(super) time_ms: u64,
    /// How many entries up to this one count as unread.
    pub(super) countable: u64,
    pub(super) body: Bytes,
}

impl EntryRow {
    pub(super) fn load(reader: &dyn Reader, id: ConversationId, seq: Seq) -> Result<EntryRow, StoreError> {
        let missing = StoreError::Damaged { table: "message", detail: "missing below the head" };
        Self::parse(reader.value(&keys::message(id, seq))?.ok_or(missing)?)
    }

    fn parse(value: Bytes) -> Result<EntryRow, StoreError> {
        let mut row = RowReader::new("message", value)?;
        let kind =
            EntryKind::try_from(i32::from(row.byte()?)).map_err(|_| row.damaged("unknown kind of entry"))?;
        let sender = u16::try_from(row.varint()?).map_err(|_| row.damaged("sender above all ordinals"))?;
        Ok(EntryRow { kind, sender, time_ms: row.varint()?, countable: row.varint()?, body: row.rest() })
    }

    pub(super) fn to_row(&self) -> Bytes {
        RowWriter::new(20 + self.body.len())
            .byte(self.kind as u8)
            .varint(u64::from(self.sender))
            .varint(self.time_ms)
            .varint(self.countable)
            .bytes(&self.body)
            .finish()
    }

    pub(super) fn into_entry(self, seq: Seq) -> Entry {
        Entry {
            seq: seq.0,
            sender: u32::from(self.sender),
            time_ms: self.time_ms,
            kind: self.kind as i32,
            body: self.body,
        }
    }
}

/// The first answer to a client message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FirstAnswer {
    pub(super) seq: u64,
    pub(super) time_ms: u64,
}

impl FirstAnswer {
    /// Found for [`IDEMPOTENCY_MS`] of logged time; later as if it had never been, whether or not the engine has
    /// dropped the row by then.
    pub(super) fn load(
        reader: &dyn Reader,
        id: ConversationId,
        sender: (u16, DeviceId),
        client_id: ClientMessageId,
        now_ms: u64,
    ) -> Result<Option<FirstAnswer>, StoreError> {
        let (member, device) = sender;
        let Some(row) = reader.value(&keys::idempotency(id, member, device, client_id))? else {
            return Ok(None);
        };
        let mut row = RowReader::new("idempotency", row)?;
        let first = FirstAnswer { time_ms: row.fixed()?, seq: row.varint()? };
        Ok((now_ms <= first.time_ms.saturating_add(IDEMPOTENCY_MS)).then_some(first))
    }

    /// The time stands first and fixed: `engine/expiry.rs` reads it.
    fn to_row(self) -> Bytes {
        RowWriter::new(18).fixed(self.time_ms).varint(self.seq).finish()
    }
}

/// A send whose fields are as they must be.
pub(super) struct CheckedSend {
    pub(super) conversation: ConversationId,
    pub(super) user: wire_protocol::ids::UserId,
    pub(super) device: DeviceId,
    pub(super) client_id: ClientMessageId,
    kind: EntryKind,
}

pub(super) fn check(command: &SendMessage) -> Result<CheckedSend, Stop> {
    let conversation = conversation_id(&command.conversation_id)?;
    let user = user_id(&command.user_id)?;
    let device = device_id(&command.device_id)?;
    if command.client_message_id == 0 {
        return Err(invalid("client_message_id: 0"));
    }
    if command.body.is_empty() {
        return Err(invalid("body: empty"));
    }
    if command.body.len() > BODY_BYTES_MAX {
        return Err(Stop::Refused(ErrorCode::ErrorBodyTooLarge, "body"));
    }
    let kind = i32::try_from(command.kind).ok().and_then(|kind| EntryKind::try_from(kind).ok());
    let kind = match kind {
        Some(EntryKind::Created) | None => return Err(invalid("kind")),
        Some(kind) => kind,
    };
    let client_id = ClientMessageId(command.client_message_id);
    Ok(CheckedSend { conversation, user, device, client_id, kind })
}

/// Numbers and stores a message, or gives the first answer again.
pub(super) fn send(turn: &mut Turn<'_, '_>, command: &SendMessage) -> Answered {
    let send = check(command)?;
    let id = send.conversation;
    let (room, head) = turn.conversation(id)?;
    let sender = room.ordinal(send.user).ok_or_else(not_a_member)?;
    let from = (sender, send.device);
    if let Some(first) = FirstAnswer::load(turn.overlay, id, from, send.client_id, turn.time_ms)? {
        return Ok(applied(first, true));
    }
    if command.predecessor != 0 {
        let predecessor = ClientMessageId(command.predecessor);
        if FirstAnswer::load(turn.overlay, id, from, predecessor, turn.time_ms)?.is_none() {
            return Err(Stop::Refused(ErrorCode::ErrorPredecessorMissing, "predecessor"));
        }
    }
    let head =
        Head { seq: head.seq + 1, countable: head.countable + 1, time_ms: turn.time_ms.max(head.time_ms) };
    let entry = EntryRow {
        kind: send.kind,
        sender,
        time_ms: head.time_ms,
        countable: head.countable,
        body: command.body.clone(),
    };
    let first = FirstAnswer { seq: head.seq, time_ms: head.time_ms };
    turn.overlay.put(keys::message(id, Seq(head.seq)), entry.to_row());
    turn.overlay.put(keys::idempotency(id, sender, send.device, send.client_id), first.to_row());
    turn.set_head(id, head);
    turn.events.push(event(&room, id, command.device_id.clone(), entry.into_entry(Seq(head.seq))));
    Ok(applied(first, false))
}

fn applied(first: FirstAnswer, repeated_send: bool) -> outcome::Kind {
    let FirstAnswer { seq, time_ms } = first;
    outcome::Kind::MessageApplied(MessageApplied { seq, time_ms, repeated_send, ..MessageApplied::default() })
}

/// What the members hear of an entry.
pub(super) fn event(room: &Room, id: ConversationId, origin_device_id: Bytes, entry: Entry) -> Event {
    Event::Feed(FeedItem {
        user_ids: room.member_ids(),
        conversation_id: id.to_bytes(),
        top_seq: entry.seq,
        activity_ms: entry.time_ms,
        origin_device_id,
        event: Some(feed_item::Event::Entry(entry)),
    })
}

/// Whose unread messages are counted.
#[derive(Clone, Copy)]
pub(super) struct UnreadOf {
    /// Ordinal of the member.
    pub(super) member: u16,
    /// The member's read cursor.
    pub(super) read_up_to: u64,
}

/// Messages of others after a read cursor. What a member sends moves no cursor, as that would cost a row more for
/// each message; so the member's own ones are left out here, by looking at the newest
/// [`UNREAD_LOOKED_AT_MAX`] entries. Further back they count: that far behind, the number is exact for messages of
/// all members together.
pub(super) fn unread(
    reader: &dyn Reader,
    id: ConversationId,
    head: Head,
    of: UnreadOf,
) -> Result<u64, StoreError> {
    // A cursor read after the head may be above it.
    if of.read_up_to >= head.seq {
        return Ok(0);
    }
    let (from, to) = (Seq(of.read_up_to + 1), Seq(head.seq.saturating_add(1)));
    let mut looked_at = LookedAt { entries: 0, of_others: 0, countable_below: head.countable };
    let mut damage = None;
    reader.scan(
        &keys::message(id, from),
        &keys::message(id, to),
        Direction::Descending,
        &mut |_, value| {
            let facts = value.get(..ENTRY_FACTS_BYTES_MAX).unwrap_or(value);
            match EntryRow::parse(Bytes::copy_from_slice(facts)) {
                Ok(row) => looked_at.add(&row, of.member),
                Err(error) => damage = Some(error),
            }
            damage.is_none() && looked_at.entries < UNREAD_LOOKED_AT_MAX
        },
    )?;
    damage.map_or(Ok(()), Err)?;
    if looked_at.entries == head.seq - of.read_up_to {
        return Ok(looked_at.of_others);
    }
    let read = match of.read_up_to {
        0 => 0,
        seq => EntryRow::load(reader, id, Seq(seq))?.countable,
    };
    Ok(looked_at.of_others + looked_at.countable_below.saturating_sub(read))
}

/// The newest entries of a conversation.
struct LookedAt {
    entries: u64,
    /// Messages of other members among them.
    of_others: u64,
    /// How many entries below them count as unread.
    countable_below: u64,
}

impl LookedAt {
    fn add(&mut self, row: &EntryRow, member: u16) {
        let is_countable = row.kind != EntryKind::Created;
        self.entries += 1;
        self.of_others += u64::from(is_countable && row.sender != member);
        self.countable_below = row.countable.saturating_sub(u64::from(is_countable));
    }
}

/// The entries a query asks for, ascending, and whether there are entries after the last one in the direction of
/// reading: only ever true for ranges that begin at a lower bound. A range that holds any entry yields at least one,
/// however few bytes were allowed, so that readers always get on.
pub(super) fn read_range(
    reader: &dyn Reader,
    id: ConversationId,
    head: Head,
    own: &CursorRow,
    query: &ReadConversation,
) -> Result<(Vec<Entry>, bool), Stop> {
    let device = device_id(&query.device_id);
    let page = PageLimit::new(query.entries_max, query.bytes_max);
    match query.range {
        None | Some(Range::None(_)) => Ok((Vec::new(), false)),
        Some(Range::AfterSeq(seq)) => Ok(read_after(reader, id, head, seq, page)?),
        Some(Range::BeforeSeq(0)) | Some(Range::Latest(_)) => {
            Ok((read_before(reader, id, head.seq.saturating_add(1), page)?, false))
        }
        Some(Range::BeforeSeq(seq)) => {
            Ok((read_before(reader, id, seq.min(head.seq.saturating_add(1)), page)?, false))
        }
        Some(Range::AfterDeviceCursor(_)) => match own.device(device?) {
            Some(cursors) => Ok(read_after(reader, id, head, cursors.delivered_up_to, page)?),
            None => {
                let page = PageLimit { entries_max: page.entries_max.min(SYNC_LATEST_ENTRIES), ..page };
                Ok((read_before(reader, id, head.seq.saturating_add(1), page)?, false))
            }
        },
    }
}

/// How much a page may hold.
#[derive(Clone, Copy)]
struct PageLimit {
    entries_max: usize,
    bytes_max: usize,
}

impl PageLimit {
    /// 0 means the default, and nobody gets more than a link frame may carry.
    fn new(entries_max: u32, bytes_max: u32) -> Self {
        let entries_max = if entries_max == 0 { ENTRIES_MAX } else { entries_max as usize };
        let bytes_max = if bytes_max == 0 { PAGE_BYTES_MAX } else { bytes_max as usize };
        Self { entries_max: entries_max.min(ENTRIES_MAX), bytes_max: bytes_max.min(LINK_BATCH_BYTES) }
    }
}

fn read_after(
    reader: &dyn Reader,
    id: ConversationId,
    head: Head,
    after_seq: u64,
    page: PageLimit,
) -> Result<(Vec<Entry>, bool), StoreError> {
    if after_seq >= head.seq {
        return Ok((Vec::new(), false));
    }
    let (from, to) = (Seq(after_seq + 1), Seq(head.seq.saturating_add(1)));
    let entries = read_entries(reader, id, (from, to), Direction::Ascending, page)?;
    let truncated = entries.last().is_some_and(|entry| entry.seq < head.seq);
    Ok((entries, truncated))
}

fn read_before(
    reader: &dyn Reader,
    id: ConversationId,
    before_seq: u64,
    page: PageLimit,
) -> Result<Vec<Entry>, StoreError> {
    let mut entries = read_entries(reader, id, (Seq(1), Seq(before_seq)), Direction::Descending, page)?;
    entries.reverse();
    Ok(entries)
}

/// Consecutive entries of `from <= seq < to` from one end on.
fn read_entries(
    reader: &dyn Reader,
    id: ConversationId,
    (from, to): (Seq, Seq),
    direction: Direction,
    page: PageLimit,
) -> Result<Vec<Entry>, StoreError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut bytes = 0;
    let mut damage = None;
    reader.scan(&keys::message(id, from), &keys::message(id, to), direction, &mut |key, value| {
        let row = EntryRow::parse(Bytes::copy_from_slice(value));
        let (row, seq) = match (row, keys::message_seq(key)) {
            (Ok(row), Some(seq)) => (row, seq),
            (Err(error), _) => {
                damage = Some(error);
                return false;
            }
            (_, None) => {
                damage = Some(StoreError::Damaged { table: "message", detail: "short key" });
                return false;
            }
        };
        let entry = row.into_entry(seq);
        bytes += entry.encoded_len() + ENTRY_FRAMING_BYTES;
        if bytes > page.bytes_max && !entries.is_empty() {
            return false;
        }
        entries.push(entry);
        entries.len() < page.entries_max
    })?;
    match damage {
        Some(error) => Err(error),
        None => Ok(entries),
    }
}
