//! A home shard's change feed in memory, between two checkpoints.
//!
//! It merges the batches of all conversation shards into rows (user, conversation) → (version, newest entry,
//! activity) by maximum, so that replays do no harm, and hands the items on to be pushed. It refuses to know who is
//! connected. Lost in a crash, it starts again from the stored positions and asks the sources for the rest.
//!
//! A row's version is (term of the shard << 40) | counter: it grows with every change and across restarts.
//!
//! A checkpoint makes the dirty rows durable, in commands of at most [`CHECKPOINT_ROWS_MAX`] rows; the positions of
//! the sources go with the last one, as they were when the first was made. One command is in flight at a time.

use std::collections::BTreeMap;
use std::ops::Bound;
use wire_protocol::ids::{ConversationId, FEED_VERSION_BITS_OF_ONE_RESTORE, ShardId, UserId, restores_of};
use wire_protocol::internal::{FeedAck, FeedBatch, FeedCheckpoint, FeedItem, FeedPosition, FeedRow};

/// Rows at which a checkpoint does not wait for its time: 128 bytes each, 8 MiB in all.
pub const DIRTY_ROWS_MAX: usize = 65_536;
/// Rows at which no more batches are taken until a checkpoint has passed.
pub const ROWS_MAX: usize = 4 * DIRTY_ROWS_MAX;
/// Rows of one checkpoint command: 50 to 60 bytes each in the log, 256 KiB in all.
pub const CHECKPOINT_ROWS_MAX: usize = 4_096;
/// Shortest time between the starts of two checkpoints, in milliseconds.
pub const CHECKPOINT_MS_MIN: u64 = 1_000;
/// Longest time a change waits for a checkpoint, in milliseconds. Between the two it grows with the dirty rows,
/// since a row that changes ten times in between is stored once.
pub const CHECKPOINT_MS_MAX: u64 = 5_000;
/// Dirty rows for which one more millisecond is waited.
const ROWS_PER_MS: u64 = 4;
/// Bits of the counter within a version: 2^40 changes of one shard between two restarts.
pub(crate) const COUNTER_BITS: u32 = 40;

/// The version of a shard's change number `counter` in a term.
pub(crate) fn version_of(term: u64, counter: u64) -> u64 {
    assert!(term < 1 << (u64::BITS - COUNTER_BITS), "a shard is not elected 16 million times");
    assert!(counter < 1 << COUNTER_BITS, "2^40 changes since the last start");
    term << COUNTER_BITS | counter
}

/// What became of a batch.
#[derive(Debug, PartialEq)]
pub struct Taken {
    /// To be pushed to the sessions of `user_ids`; never without an event.
    pub deliveries: Vec<FeedItem>,
    /// To be sent back to the source shard.
    pub ack: FeedAck,
}

/// A user's rows that no checkpoint holds yet, and the moment of the look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeedView {
    /// In no particular order.
    pub rows: Vec<FeedRow>,
    /// The shard's newest version at that moment. Stored rows that are read later may be newer; they are left for
    /// the next page, because others between may be neither in this view nor stored yet.
    pub version: u64,
}

/// A row no checkpoint holds yet.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    version: u64,
    top_seq: u64,
    activity_ms: u64,
}

/// How far a source's feed was taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Position {
    received: u64,
    durable: u64,
}

type RowKey = (UserId, ConversationId);

/// Merges feed batches of all conversation shards for the users of one home shard.
#[derive(Debug)]
pub struct HomeFeed {
    shard: ShardId,
    /// The newest version given.
    version: u64,
    rows: BTreeMap<RowKey, Row>,
    positions: BTreeMap<u32, Position>,
    round: Option<Round>,
    in_flight: Option<FeedCheckpoint>,
    round_started_ms: u64,
}

/// A checkpoint under way: all rows are visited once, in key order, whatever changes meanwhile.
#[derive(Debug)]
struct Round {
    /// As they were at the start: every row that was dirty then is in one of the round's commands.
    positions: Vec<FeedPosition>,
    /// The last row of the command before.
    after: Option<RowKey>,
}

impl HomeFeed {
    /// `term` must be higher than at any earlier start of this shard; `positions` are from
    /// `domain::feed_positions`.
    pub fn new(shard: ShardId, term: u64, positions: Vec<FeedPosition>) -> Self {
        let position = |FeedPosition { source_shard, log_index }| {
            (source_shard, Position { received: log_index, durable: log_index })
        };
        Self {
            shard,
            version: version_of(term, 0),
            rows: BTreeMap::new(),
            positions: positions.into_iter().map(position).collect(),
            round: None,
            in_flight: None,
            round_started_ms: 0,
        }
    }

    /// The lowest version since the last restore from a backup: that of a user to whom nothing has happened yet, or of whom
    /// this start does not know it yet.
    pub fn version_floor(&self) -> u64 {
        restores_of(self.version) << FEED_VERSION_BITS_OF_ONE_RESTORE
    }

    /// Takes a batch over, or asks for a replay in the ack. When memory is full it does neither: the ack tells the
    /// old position, and the source tries again later.
    pub fn take(&mut self, batch: FeedBatch) -> Taken {
        let source = batch.source_shard;
        let position = self.positions.entry(source).or_default();
        let mut deliveries = Vec::new();
        let is_gap = batch.from_index > position.received;
        // A batch that ends at the position may be the first part of the next entry: only older ones are known.
        let is_known = batch.to_index < position.received;
        if !is_gap && !is_known && self.rows.len() < ROWS_MAX {
            position.received = position.received.max(batch.to_index);
            for item in batch.items {
                self.merge(&item);
                if item.event.is_some() {
                    deliveries.push(item);
                }
            }
        }
        let mut ack = self.ack(source);
        ack.replay = is_gap;
        Taken { deliveries, ack }
    }

    fn merge(&mut self, item: &FeedItem) {
        let Some(conversation) = ConversationId::from_slice(&item.conversation_id) else { return };
        for user in item.user_ids.iter().filter_map(|user| UserId::from_slice(user)) {
            self.version += 1;
            assert!(self.version << (u64::BITS - COUNTER_BITS) != 0, "2^40 changes since the last start");
            let new = Row { version: self.version, top_seq: item.top_seq, activity_ms: item.activity_ms };
            self.rows
                .entry((user, conversation))
                .and_modify(|row| {
                    row.version = new.version;
                    row.top_seq = row.top_seq.max(new.top_seq);
                    row.activity_ms = row.activity_ms.max(new.activity_ms);
                })
                .or_insert(new);
        }
    }

    fn ack(&self, source_shard: u32) -> FeedAck {
        let position = self.positions.get(&source_shard).copied().unwrap_or_default();
        FeedAck {
            source_shard,
            home_shard: self.shard.0,
            durable_index: position.durable,
            received_index: position.received,
            replay: false,
        }
    }

    /// The user's rows as of now. Take it BEFORE the stored page is read.
    pub fn view(&self, user: UserId) -> FeedView {
        let row = |(&(user, conversation), row): (&RowKey, &Row)| feed_row(user, conversation, *row);
        FeedView { rows: self.rows_of(user).map(row).collect(), version: self.version }
    }

    /// The version of the user's newest row in memory; `None`: the newest stored one counts.
    pub fn newest_version(&self, user: UserId) -> Option<u64> {
        self.rows_of(user).map(|(_, row)| row.version).max()
    }

    fn rows_of(&self, user: UserId) -> impl Iterator<Item = (&RowKey, &Row)> {
        self.rows.range((user, ConversationId([0; 16]))..=(user, ConversationId([0xff; 16])))
    }

    /// Rows that no checkpoint holds yet.
    pub fn dirty_rows(&self) -> usize {
        self.rows.len()
    }

    /// When `poll_checkpoint` is due, in milliseconds; `None`: there is nothing to store, or one is in flight.
    pub fn next_checkpoint_ms(&self) -> Option<u64> {
        if self.in_flight.is_some() {
            return None;
        }
        if self.round.is_some() || self.rows.len() >= DIRTY_ROWS_MAX {
            return Some(0);
        }
        let moved = |position: &Position| position.received > position.durable;
        let is_dirty = !self.rows.is_empty() || self.positions.values().any(moved);
        let wait_ms = (CHECKPOINT_MS_MIN + self.rows.len() as u64 / ROWS_PER_MS).min(CHECKPOINT_MS_MAX);
        is_dirty.then_some(self.round_started_ms + wait_ms)
    }

    /// The next checkpoint command to propose to this shard, if one is due and none is in flight.
    pub fn poll_checkpoint(&mut self, now_ms: u64) -> Option<FeedCheckpoint> {
        if self.next_checkpoint_ms()? > now_ms {
            return None;
        }
        let round = self.round.get_or_insert_with(|| {
            self.round_started_ms = now_ms;
            let moved = self.positions.iter().filter(|(_, position)| position.received > position.durable);
            let position = |(&source_shard, position): (&u32, &Position)| FeedPosition {
                source_shard,
                log_index: position.received,
            };
            Round { positions: moved.map(position).collect(), after: None }
        });
        let start = round.after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.rows.range((start, Bound::Unbounded)).peekable();
        let mut checkpoint = FeedCheckpoint::default();
        while checkpoint.rows.len() < CHECKPOINT_ROWS_MAX
            && let Some((&(user, conversation), row)) = rest.next()
        {
            checkpoint.rows.push(feed_row(user, conversation, *row));
            round.after = Some((user, conversation));
        }
        if rest.peek().is_none() {
            checkpoint.positions = self.round.take().map(|round| round.positions).unwrap_or_default();
        }
        self.in_flight = Some(checkpoint.clone());
        Some(checkpoint)
    }

    /// The checkpoint was applied. Its rows leave memory unless they changed since; its positions are to be told to
    /// their sources. Checkpoints of an earlier start are welcome: a replay tells of them.
    pub fn checkpointed(&mut self, checkpoint: &FeedCheckpoint) -> Vec<FeedAck> {
        for row in &checkpoint.rows {
            let user = UserId::from_slice(&row.user_id);
            let conversation = ConversationId::from_slice(&row.conversation_id);
            if let (Some(user), Some(conversation)) = (user, conversation)
                && self.rows.get(&(user, conversation)).is_some_and(|kept| kept.version == row.version)
            {
                self.rows.remove(&(user, conversation));
            }
        }
        for FeedPosition { source_shard, log_index } in &checkpoint.positions {
            let position = self.positions.entry(*source_shard).or_default();
            position.durable = position.durable.max(*log_index);
            position.received = position.received.max(*log_index);
        }
        if self.in_flight.as_ref() == Some(checkpoint) {
            self.in_flight = None;
        }
        checkpoint.positions.iter().map(|position| self.ack(position.source_shard)).collect()
    }

    /// The checkpoint in flight could not be proposed and will never be applied: its rows wait for the next one.
    pub fn checkpoint_refused(&mut self) {
        self.in_flight = None;
        // A new round visits every row again, with new positions.
        self.round = None;
    }
}

fn feed_row(user: UserId, conversation: ConversationId, row: Row) -> FeedRow {
    FeedRow {
        user_id: user.to_bytes(),
        conversation_id: conversation.to_bytes(),
        version: row.version,
        top_seq: row.top_seq,
        activity_ms: row.activity_ms,
    }
}
