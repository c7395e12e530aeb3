//! A user's change feed and conversation list, as far as a checkpoint made them durable.
//!
//! Rows: `feed` (one for each of the user's conversations), its two indexes by version and by activity, and the home
//! shard's `feed_position` for each conversation shard. What changed since the last checkpoint is in
//! `feed/home.rs`, in memory; `feed/pages.rs` makes one page of both.

use super::Event;
use super::row::{RowReader, RowWriter};
use super::turn::{Answered, Stop, Turn, conversation_id, invalid, user_id};
use crate::engine::keys::Key;
use crate::engine::{Direction, Reader, StoreError, keys};
use bytes::Bytes;
use std::collections::BTreeSet;
use wire_protocol::ids::{ConversationId, ShardId, UserId};
use wire_protocol::internal::{
    Accepted, ConversationListPage, FeedCheckpoint, FeedPage, FeedPosition, FeedRow, ReadConversationList,
    ReadFeed, outcome,
};
use wire_protocol::limits::{LIST_CONVERSATIONS_MAX, SYNC_CONVERSATIONS_MAX};

/// Most rows a query returns: a few pages of what clients get.
const FEED_ROWS_MAX: usize = 10 * SYNC_CONVERSATIONS_MAX;

const _: () = assert!(LIST_CONVERSATIONS_MAX <= FEED_ROWS_MAX);

/// Where a conversation stands in a user's feed. None of the three ever falls.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Standing {
    version: u64,
    top_seq: u64,
    activity_ms: u64,
}

impl Standing {
    fn load(reader: &dyn Reader, user: UserId, id: ConversationId) -> Result<Option<Self>, StoreError> {
        reader.value(&keys::feed(user, id))?.map(Self::parse).transpose()
    }

    fn parse(value: Bytes) -> Result<Self, StoreError> {
        let mut row = RowReader::new("feed", value)?;
        Ok(Self { version: row.varint()?, top_seq: row.varint()?, activity_ms: row.varint()? })
    }

    fn to_row(self) -> Bytes {
        RowWriter::new(30).varint(self.version).varint(self.top_seq).varint(self.activity_ms).finish()
    }

    fn into_feed_row(self, user: UserId, id: ConversationId) -> FeedRow {
        let Self { version, top_seq, activity_ms } = self;
        let (user_id, conversation_id) = (user.to_bytes(), id.to_bytes());
        FeedRow { user_id, conversation_id, version, top_seq, activity_ms }
    }
}

/// Stores what a home shard merged in memory. Merging is by maximum, so that old and repeated checkpoints do no harm.
pub(super) fn checkpoint(turn: &mut Turn<'_, '_>, command: &FeedCheckpoint) -> Answered {
    // All checked before the first row is touched: a refused command changes nothing.
    let check = |row: &FeedRow| Ok((user_id(&row.user_id)?, conversation_id(&row.conversation_id)?));
    let keys: Vec<_> = command.rows.iter().map(check).collect::<Result<_, Stop>>()?;
    for ((user, conversation), row) in keys.into_iter().zip(&command.rows) {
        store_row(turn, user, conversation, row)?;
    }
    for position in &command.positions {
        let key = keys::feed_position(turn.shard, ShardId(position.source_shard));
        let stored = turn.overlay.value(&key)?.map(parse_position).transpose()?;
        if stored.unwrap_or(0) < position.log_index {
            turn.overlay.put(key, position_row(position.log_index));
        }
    }
    turn.events.push(Event::Checkpointed(command.clone()));
    Ok(outcome::Kind::Accepted(Accepted {}))
}

fn store_row(
    turn: &mut Turn<'_, '_>,
    user: UserId,
    id: ConversationId,
    row: &FeedRow,
) -> Result<(), StoreError> {
    let stored = Standing::load(turn.overlay, user, id)?;
    let old = stored.unwrap_or(Standing { version: 0, top_seq: 0, activity_ms: 0 });
    let new = Standing {
        version: old.version.max(row.version),
        top_seq: old.top_seq.max(row.top_seq),
        activity_ms: old.activity_ms.max(row.activity_ms),
    };
    if stored == Some(new) {
        return Ok(());
    }
    turn.overlay.put(keys::feed(user, id), new.to_row());
    if stored.is_some() && old.version != new.version {
        turn.overlay.delete(keys::feed_by_version(user, old.version));
    }
    // Holds the row once more, so that a page of changes is one scan.
    turn.overlay.put(keys::feed_by_version(user, new.version), version_row(id, new));
    if stored.is_some() && old.activity_ms != new.activity_ms {
        turn.overlay.delete(keys::feed_by_activity(user, old.activity_ms, id));
    }
    if stored.is_none() || old.activity_ms != new.activity_ms {
        turn.overlay.put(keys::feed_by_activity(user, new.activity_ms, id), Bytes::new());
    }
    Ok(())
}

/// The rows of a conversation that a user's feed does not know yet.
pub(super) fn new_rows(
    user: UserId,
    id: ConversationId,
    version: u64,
    (top_seq, activity_ms): (u64, u64),
) -> [(Key, Bytes); 3] {
    let standing = Standing { version, top_seq, activity_ms };
    [
        (keys::feed(user, id), standing.to_row()),
        (keys::feed_by_version(user, version), version_row(id, standing)),
        (keys::feed_by_activity(user, activity_ms, id), Bytes::new()),
    ]
}

fn version_row(id: ConversationId, standing: Standing) -> Bytes {
    RowWriter::new(36).bytes(&id.0).varint(standing.top_seq).varint(standing.activity_ms).finish()
}

fn parse_version_row(user: UserId, key: &[u8], value: &[u8]) -> Result<FeedRow, StoreError> {
    let mut row = RowReader::new("feed_by_version", Bytes::copy_from_slice(value))?;
    let version = keys::feed_version(key).ok_or_else(|| row.damaged("short key"))?;
    let id = ConversationId::from_slice(&row.bytes(16)?).ok_or_else(|| row.damaged("conversation id"))?;
    let standing = Standing { version, top_seq: row.varint()?, activity_ms: row.varint()? };
    Ok(standing.into_feed_row(user, id))
}

pub(super) fn position_row(log_index: u64) -> Bytes {
    RowWriter::new(10).varint(log_index).finish()
}

fn parse_position(value: Bytes) -> Result<u64, StoreError> {
    RowReader::new("feed_position", value)?.varint()
}

/// How far the home shard has durably taken over each conversation shard's feed, by source shard.
pub fn feed_positions(reader: &dyn Reader, shard: ShardId) -> Result<Vec<FeedPosition>, StoreError> {
    let all = keys::feed_positions(shard);
    let mut positions = Vec::new();
    let mut damage = None;
    reader.scan(&all, &all.end(), Direction::Ascending, &mut |key, value| {
        match (parse_position(Bytes::copy_from_slice(value)), keys::feed_position_source(key)) {
            (Ok(log_index), Some(source)) => {
                positions.push(FeedPosition { source_shard: source.0, log_index });
            }
            (Err(error), _) => damage = Some(error),
            (_, None) => damage = Some(StoreError::Damaged { table: "feed_position", detail: "short key" }),
        }
        damage.is_none()
    })?;
    damage.map_or(Ok(positions), Err)
}

/// Stored rows that a query leaves out, because whoever asks holds newer ones.
pub(crate) struct Hidden {
    /// Whatever is stored of these.
    pub(crate) conversations: BTreeSet<ConversationId>,
    /// Changes above this version.
    pub(crate) above_version: u64,
}

impl Hidden {
    /// Everything stored is shown.
    pub(super) fn nothing() -> Self {
        Self { conversations: BTreeSet::new(), above_version: u64::MAX }
    }

    fn holds(&self, conversation_id: &[u8]) -> bool {
        ConversationId::from_slice(conversation_id).is_some_and(|id| self.conversations.contains(&id))
    }
}

/// A user's row that is not stored yet, with what is stored of it. After a crash memory may know less: the sources
/// tell again what no checkpoint holds, oldest first.
pub(crate) fn join_stored(reader: &dyn Reader, row: FeedRow) -> Result<FeedRow, Stop> {
    let (user, id) = (user_id(&row.user_id)?, conversation_id(&row.conversation_id)?);
    let Some(stored) = Standing::load(reader, user, id)? else { return Ok(row) };
    let new = Standing {
        version: row.version.max(stored.version),
        top_seq: row.top_seq.max(stored.top_seq),
        activity_ms: row.activity_ms.max(stored.activity_ms),
    };
    Ok(new.into_feed_row(user, id))
}

/// The stored part of what changed for a user since a version.
pub(crate) fn read(reader: &dyn Reader, query: &ReadFeed, hidden: &Hidden) -> Result<FeedPage, Stop> {
    let user = user_id(&query.user_id)?;
    let rows_max = rows_max(query.rows_max);
    let end = keys::feed_by_version_of_all(user).end();
    let mut rows: Vec<FeedRow> = Vec::new();
    let mut more = false;
    if let Some(first) = query.since_version.checked_add(1) {
        let from = keys::feed_by_version(user, first);
        let mut damage = None;
        reader.scan(&from, &end, Direction::Ascending, &mut |key, value| {
            match parse_version_row(user, key, value) {
                Ok(row) if row.version > hidden.above_version => return false,
                Ok(row) if hidden.holds(&row.conversation_id) => {}
                Ok(_) if rows.len() == rows_max => more = true,
                Ok(row) => rows.push(row),
                Err(error) => damage = Some(error),
            }
            damage.is_none() && !more
        })?;
        damage.map_or(Ok(()), Err)?;
    }
    let version = match rows.last() {
        Some(row) if !more => row.version,
        _ => newest_version(reader, user)?,
    };
    Ok(FeedPage { rows, version, more })
}

/// The user's newest stored version; 0 if nothing was ever stored.
fn newest_version(reader: &dyn Reader, user: UserId) -> Result<u64, StoreError> {
    let all = keys::feed_by_version_of_all(user);
    let mut newest = 0;
    reader.scan(&all, &all.end(), Direction::Descending, &mut |key, _| {
        newest = keys::feed_version(key).unwrap_or_default();
        false
    })?;
    Ok(newest)
}

/// The stored part of a user's conversation list, newest activity first.
pub(crate) fn read_list(
    reader: &dyn Reader,
    query: &ReadConversationList,
    hidden: &Hidden,
) -> Result<ConversationListPage, Stop> {
    let user = user_id(&query.user_id)?;
    let rows_max = rows_max(query.rows_max);
    let all = keys::feed_by_activity_of_all(user);
    let to = match query.before_conversation_id.len() {
        0 if query.before_activity_ms == 0 => all.end(),
        0 => return Err(invalid("before_conversation_id: missing")),
        _ => keys::feed_by_activity(
            user,
            query.before_activity_ms,
            conversation_id(&query.before_conversation_id)?,
        ),
    };
    let mut places = Vec::new();
    let mut more = false;
    reader.scan(&all, &to, Direction::Descending, &mut |key, _| {
        let place = keys::feed_activity(key);
        match place {
            Some((_, id)) if hidden.conversations.contains(&id) => {}
            _ if places.len() == rows_max => more = true,
            _ => places.push(place),
        }
        !more
    })?;
    let mut rows = Vec::with_capacity(places.len());
    for place in places {
        let damaged = StoreError::Damaged { table: "feed_by_activity", detail: "short key" };
        let (activity_ms, id) = place.ok_or(damaged)?;
        // A checkpoint between the scan and this look may have moved the row up; the list keeps the place it saw.
        if let Some(standing) = Standing::load(reader, user, id)? {
            rows.push(Standing { activity_ms, ..standing }.into_feed_row(user, id));
        }
    }
    Ok(ConversationListPage { rows, more })
}

/// How many rows a query gets: 0 means the most there is.
pub(crate) fn rows_max(wanted: u32) -> usize {
    match wanted {
        0 => FEED_ROWS_MAX,
        wanted => FEED_ROWS_MAX.min(wanted as usize),
    }
}
