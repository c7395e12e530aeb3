//! What a snapshot consists of, part by part: first log entries, then rows in the order of their keys.

use super::PART_BYTES;
use crate::engine::{StoreError, View, keys};
use crate::replication::{Log, LogRange, ReplicationError};
use bytes::Bytes;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{RaftEntry, SnapshotRow};

/// Bytes that a row takes beside key and value.
const ROW_OVERHEAD_BYTES: usize = 8;

/// Why a snapshot cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContentsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] ReplicationError),
    /// The log was cut further than the snapshot needs.
    #[error("shard {shard}: entry {index} of the log is gone")]
    Gone { shard: ShardId, index: u64 },
}

/// One shard at one moment, read from its beginning to its end.
pub(super) struct Contents {
    shard: ShardId,
    view: Box<dyn View>,
    place: Place,
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
    /// The last entry.
    pub index: u64,
}

enum Place {
    /// The entry that is next.
    Entry(u64),
    /// The key at or behind which the next row is, in this range.
    Row(usize, Vec<u8>),
    End,
}

/// A piece of it.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub entries: Vec<RaftEntry>,
    pub rows: Vec<SnapshotRow>,
    pub is_last: bool,
}

impl Contents {
    /// `index`: applied in the view. `feed_cut`: what no feed needs.
    pub fn new(shard: ShardId, shard_count: u32, view: Box<dyn View>, index: u64, feed_cut: u64) -> Self {
        let ranges = keys::ranges_of_shard(shard, shard_count).to_vec();
        let place = Place::Entry(feed_cut.clamp(1, index.max(1)));
        Self { shard, view, place, ranges, index }
    }

    /// How much of it was read, in percent of the shard's slots. Ids are spread evenly over slots, so that it is about as much
    /// of the bytes, but in a shard of few and large conversations.
    pub fn percent(&self) -> u8 {
        let slot = |key: &[u8]| key.first_chunk().map_or(0, |bytes| u64::from(u16::from_be_bytes(*bytes)));
        let Some((from, to)) = self.ranges.first().map(|(from, to)| (slot(from), slot(to))) else { return 0 };
        match &self.place {
            Place::Entry(_) => 0,
            Place::Row(0, key) => {
                let share = slot(key).saturating_sub(from) * 100 / to.saturating_sub(from).max(1);
                share.min(99) as u8
            }
            Place::Row(..) => 99,
            Place::End => 100,
        }
    }

    /// The next piece, of [`PART_BYTES`] or one item more.
    pub fn next(&mut self, log: &Log) -> Result<Piece, ContentsError> {
        match &self.place {
            Place::Entry(next) => {
                let next = *next;
                let range = LogRange { above: next - 1, up_to: self.index };
                let entries = log.snapshot_entries(self.shard, range, PART_BYTES)?;
                let Some(last) = entries.last().map(|entry| entry.index) else {
                    return Err(ContentsError::Gone { shard: self.shard, index: next });
                };
                self.place = match last < self.index {
                    true => Place::Entry(last + 1),
                    false => {
                        Place::Row(0, self.ranges.first().map(|range| range.0.clone()).unwrap_or_default())
                    }
                };
                Ok(Piece { entries, ..Piece::default() })
            }
            Place::Row(range, from) => self.rows(*range, from.clone()),
            Place::End => Ok(Piece { is_last: true, ..Piece::default() }),
        }
    }

    fn rows(&mut self, mut range: usize, mut from: Vec<u8>) -> Result<Piece, ContentsError> {
        let mut piece = Piece::default();
        let mut bytes = 0;
        while let Some((_, to)) = self.ranges.get(range) {
            self.view.walk(&from, to, &mut |key, value| {
                bytes += key.len() + value.len() + ROW_OVERHEAD_BYTES;
                let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                piece.rows.push(SnapshotRow { key, value });
                bytes < PART_BYTES
            })?;
            if bytes >= PART_BYTES {
                from = piece.rows.last().map(|row| behind(&row.key)).unwrap_or_default();
                self.place = Place::Row(range, from);
                return Ok(piece);
            }
            range += 1;
            from = self.ranges.get(range).map(|range| range.0.clone()).unwrap_or_default();
        }
        self.place = Place::End;
        piece.is_last = true;
        Ok(piece)
    }
}

/// The lowest key above this one.
pub(super) fn behind(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}
