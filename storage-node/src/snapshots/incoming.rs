//! Receiving one snapshot: every part is checked before it is written, and the whole is durable before anybody hears of it.

use super::checksum;
use crate::disk::{Disk, NewFile};
use crate::domain;
use crate::engine::keys;
use crate::replication::{check_entries, check_message};
use prost::Message;
use std::io;
use std::path::{Path, PathBuf};
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{
    RaftEntry, RaftMessage, SnapshotPart, SnapshotProgress, SnapshotRow, raft_message,
};

/// First bytes of a snapshot's file: the format.
pub(super) const MAGIC: &[u8; 8] = b"RLSNAP\x00\x01";

/// Entries of a shard, at most: far more than there ever are, and far from the end of the numbers.
const INDEX_MAX: u64 = 1 << 56;

/// Which snapshot: its leader's node, its term, and the index of its point.
pub(super) type Name = (u32, u64, u64);

pub(super) fn name_of(part: &SnapshotPart) -> Name {
    (part.from, part.term, part.index)
}

/// How far a snapshot is, as this node tells its sender: `next` is the part that is waited for.
pub(super) fn progress(own: u32, shard: ShardId, name: Name, next: u32, refused: bool) -> SnapshotProgress {
    let (node, term, index) = name;
    SnapshotProgress { shard: shard.0, from: own, to: node, term, index, next, refused }
}

/// Why a snapshot is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The parts are not those of a snapshot.
    #[error("part {number} of a snapshot from node {node}: {what}")]
    Malformed { node: u32, number: u32, what: &'static str },
    /// It cannot be written.
    #[error("{file}: {error}")]
    Disk { file: PathBuf, error: io::Error },
}

/// What a part led to.
#[derive(Debug, PartialEq)]
pub(super) enum Taken {
    /// It is not the one that is waited for.
    Again,
    Part,
    /// The last one: all of it is durable.
    Whole(Box<RaftMessage>),
}

/// A snapshot that is being received.
#[derive(Debug)]
pub(super) struct Incoming {
    pub name: Name,
    shard: ShardId,
    ranges: [(Vec<u8>, Vec<u8>); 3],
    path: PathBuf,
    file: NewFile,
    message: Option<RaftMessage>,
    next: u32,
    checksum: u32,
    /// Term of the point, and of the newest entry so far with its index.
    point_term: u64,
    last_term: u64,
    last_entry: u64,
    last_key: Vec<u8>,
    has_applied_row: bool,
    is_whole: bool,
    pub heard_ms: u64,
}

impl Incoming {
    /// Begins with a snapshot whose first part this is. `path`: where it is written.
    pub fn begin(
        disk: &Disk,
        path: &Path,
        shard_count: u32,
        part: &SnapshotPart,
        now_ms: u64,
    ) -> Result<Self, Refusal> {
        let shard = ShardId(part.shard);
        let failed = |error| Refusal::Disk { file: path.to_owned(), error };
        let mut file = disk.create(path).map_err(failed)?;
        file.write(MAGIC).map_err(failed)?;
        Ok(Self {
            name: name_of(part),
            shard,
            ranges: keys::ranges_of_shard(shard, shard_count),
            path: path.to_owned(),
            file,
            message: None,
            next: 0,
            checksum: 0,
            point_term: 0,
            last_term: 0,
            last_entry: 0,
            last_key: Vec::new(),
            has_applied_row: false,
            is_whole: false,
            heard_ms: now_ms,
        })
    }

    /// Whether all of it is here.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// What to tell the sender.
    pub fn progress(&self, own: u32) -> SnapshotProgress {
        progress(own, self.shard, self.name, self.next, false)
    }

    /// Takes a part of this snapshot.
    pub fn take(&mut self, now_ms: u64, part: SnapshotPart) -> Result<Taken, Refusal> {
        self.heard_ms = now_ms;
        if part.number != self.next || self.is_whole {
            return Ok(Taken::Again);
        }
        let (node, number) = (part.from, part.number);
        self.check(&part).map_err(|what| Refusal::Malformed { node, number, what })?;
        let mut bytes = Vec::with_capacity(4 + part.encoded_len());
        bytes.extend((part.encoded_len() as u32).to_le_bytes());
        part.encode(&mut bytes).expect("a Vec grows");
        let failed = |error| Refusal::Disk { file: self.path.clone(), error };
        self.file.write(&bytes).map_err(failed)?;
        if part.is_last {
            self.file.sync().map_err(failed)?;
        }
        self.checksum = part.checksum;
        self.next += 1;
        if let Some(last) = part.entries.last() {
            (self.last_entry, self.last_term) = (last.index, last.term);
        }
        if let Some(last) = part.rows.last() {
            self.last_key = last.key.to_vec();
        }
        self.message = self.message.take().or(part.message);
        match self.message.clone() {
            Some(message) if part.is_last => {
                self.is_whole = true;
                Ok(Taken::Whole(Box::new(message)))
            }
            _ => Ok(Taken::Part),
        }
    }

    fn check(&mut self, part: &SnapshotPart) -> Result<(), &'static str> {
        if part.checksum != checksum::of(part, self.checksum) {
            return Err("its checksum is wrong");
        }
        match (&part.message, part.number) {
            (Some(message), 0) => self.point_term = check_head(message, part)?,
            (None, 1..) => {}
            _ => return Err("the leader's message is in the first part alone"),
        }
        self.check_entries(&part.entries)?;
        let (_, _, index) = self.name;
        let last_entry = part.entries.last().map_or(self.last_entry, |entry| entry.index);
        if !part.rows.is_empty() && last_entry != index {
            return Err("rows before the last entry");
        }
        self.check_rows(&part.rows)?;
        if part.is_last && !self.has_applied_row {
            return Err("it does not say how far it is applied");
        }
        Ok(())
    }

    /// What the log would refuse is refused here, where it is no harm yet.
    fn check_entries(&self, entries: &[RaftEntry]) -> Result<(), &'static str> {
        let (_, term, index) = self.name;
        let (mut last_entry, mut last_term) = (self.last_entry, self.last_term);
        for entry in entries {
            let follows = last_entry == 0 || entry.index.checked_sub(1) == Some(last_entry);
            if !follows || entry.index > index || entry.index == 0 {
                return Err("entries that do not follow each other");
            }
            let is_last = entry.index == index;
            if entry.term < last_term || entry.term > term || is_last && entry.term != self.point_term {
                return Err("an entry of a term that cannot be");
            }
            (last_entry, last_term) = (entry.index, entry.term);
        }
        check_entries(self.shard, entries.to_vec()).map_err(|_| "an entry that no log takes")
    }

    fn check_rows(&mut self, rows: &[SnapshotRow]) -> Result<(), &'static str> {
        let (_, _, index) = self.name;
        let mut last_key = &self.last_key[..];
        for row in rows {
            if row.key <= last_key {
                return Err("rows that are not in order");
            }
            let mut ranges = self.ranges.iter();
            if !(keys::PREFIX_BYTES..=keys::KEY_BYTES_MAX).contains(&row.key.len())
                || !ranges.any(|(from, to)| (&from[..]..&to[..]).contains(&&row.key[..]))
            {
                return Err("a row of another shard");
            }
            if row.key == keys::applied(self.shard).as_slice() {
                if domain::applied_of(row.value.clone()).ok().is_none_or(|(applied, _)| applied != index) {
                    return Err("it is applied up to another entry than its last");
                }
                self.has_applied_row = true;
            }
            last_key = &row.key;
        }
        Ok(())
    }
}

/// Gives the term of the point.
fn check_head(message: &RaftMessage, part: &SnapshotPart) -> Result<u64, &'static str> {
    let (index, term) = message.snapshot.as_ref().map_or((0, 0), |point| (point.index, point.term));
    if index > INDEX_MAX {
        return Err("more entries than any log has");
    }
    let of_message = (message.shard, message.from, message.to, message.term, index);
    if message.kind() != raft_message::Kind::Snapshot || check_message(message.clone()).is_err() {
        return Err("the leader's message is none of a snapshot");
    }
    match of_message == (part.shard, part.from, part.to, part.term, part.index) {
        true => Ok(term),
        false => Err("the leader's message is of another snapshot"),
    }
}
