//! One shard's Raft group, with one voter for now: a log of one. `raft-rs` decides, this drives it: writes go to
//! the log thread, and nothing is committed before that thread reports them persisted.

use super::log::{Log, LogRange, LogWrite, Vote};
use super::{LogEntry, ReplicationError};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Config, GetEntriesContext, RaftState, RawNode, Storage, StorageError};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use wire_protocol::ids::ShardId;

/// Id of the only voter.
const VOTER: u64 = 1;
/// Bytes of committed entries that one `poll` hands out: bounds what a recovery holds in memory at once.
const COMMITTED_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// What a group wants done.
#[derive(Debug, Default)]
pub struct GroupOutput {
    /// To be written and synced; then call [`Group::persisted`] with its number.
    pub write: Option<LogWrite>,
    /// Committed: to be applied; then call [`Group::applied`].
    pub committed: Vec<LogEntry>,
}

/// The consensus of one shard.
pub struct Group {
    node: RawNode<ShardLog>,
    shard: ShardId,
    vote: Vote,
    recovered_at: u64,
}

impl Group {
    /// Opens the group over what the log holds and makes it its own leader. `applied`: the stored state's index.
    pub fn open(log: Arc<Log>, shard: ShardId, applied: u64) -> Result<Self, ReplicationError> {
        let storage = ShardLog::open(Arc::clone(&log), shard, applied)?;
        let vote = storage.vote;
        let config = Config {
            id: VOTER,
            applied,
            max_size_per_msg: COMMITTED_BYTES_MAX,
            max_committed_size_per_ready: COMMITTED_BYTES_MAX,
            ..Config::default()
        };
        let logger = slog::Logger::root(ToTracing { folder: log.folder().to_owned() }, slog::o!());
        let refused = |error: raft::Error| ReplicationError::Refused { shard, detail: error.to_string() };
        let mut node = RawNode::new(&config, storage, &logger).map_err(refused)?;
        node.campaign().map_err(refused)?;
        // The entry that opens the term: once it is applied, so is everything that was ever acknowledged.
        let recovered_at = node.raft.raft_log.last_index();
        Ok(Self { node, shard, vote, recovered_at })
    }

    /// Once this index is applied, the state holds everything that was acknowledged before the start.
    pub fn recovered_at(&self) -> u64 {
        self.recovered_at
    }

    /// Grows with every start.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// Appends an entry and gives its index. It may still be lost in a crash until it comes out as committed.
    pub fn propose(&mut self, record: Vec<u8>) -> Result<u64, ReplicationError> {
        self.node
            .propose(Vec::new(), record)
            .map_err(|error| ReplicationError::Refused { shard: self.shard, detail: error.to_string() })?;
        Ok(self.node.raft.raft_log.last_index())
    }

    /// What is to be written and what is committed. Call until `None`.
    pub fn poll(&mut self) -> Option<GroupOutput> {
        if !self.node.has_ready() {
            return None;
        }
        let mut ready = self.node.ready();
        assert!(ready.snapshot().is_empty(), "nobody sends snapshots to a group of one");
        let entries = ready.take_entries();
        let vote = ready.hs().map(Vote::of).filter(|vote| *vote != self.vote);
        let committed = ready.take_committed_entries().into_iter();
        let committed = committed.map(|entry| LogEntry { index: entry.index, record: entry.data }).collect();
        // A hard state of which only the commit index changed needs no write: at a restart what is committed
        // follows from the log and the applied index.
        let mut write = None;
        if !entries.is_empty() || vote.is_some() {
            // Before `advance_append_async` the entries must be readable through `Storage`.
            self.node.mut_store().append(&entries);
            self.vote = vote.unwrap_or(self.vote);
            write = Some(LogWrite { shard: self.shard, number: ready.number(), entries, vote });
        }
        self.node.advance_append_async(ready);
        Some(GroupOutput { write, committed })
    }

    /// The write of this number, and all before it, are on disk.
    pub fn persisted(&mut self, number: u64) {
        self.node.on_persist_ready(number);
    }

    /// Committed entries up to `index` are applied and readable.
    pub fn applied(&mut self, index: u64) {
        self.node.advance_apply_to(index);
        self.node.mut_store().forget_up_to(index);
    }
}

/// A shard's log as raft-rs reads it: entries from memory until they are applied, from the files after a restart.
struct ShardLog {
    log: Arc<Log>,
    shard: ShardId,
    /// The first index that raft may ask for; the one before it is known by its term alone.
    first: u64,
    last: u64,
    last_term: u64,
    /// Entries that are not applied yet, consecutive up to `last`. Entries before them are in the files.
    unapplied: VecDeque<Entry>,
    vote: Vote,
    /// Stored state's index at the opening.
    applied: u64,
}

impl ShardLog {
    fn open(log: Arc<Log>, shard: ShardId, applied: u64) -> Result<Self, ReplicationError> {
        let vote = log.vote(shard)?;
        let first = log.cut_index(shard) + 1;
        let last = log.span(shard).map_or(0, |(_, last)| last);
        if applied > last || applied + 1 < first {
            let detail =
                format!("the log holds entries {first} to {last}, the stored state ends at {applied}");
            return Err(log.damaged(shard, detail));
        }
        let mut opened =
            Self { log, shard, first, last, last_term: 0, unapplied: VecDeque::new(), vote, applied };
        opened.last_term = opened.stored_term(last)?;
        if opened.vote.term < opened.last_term {
            let (vote, entry) = (opened.vote.term, opened.last_term);
            let detail = format!("the vote is of term {vote}, the last entry of term {entry}");
            return Err(opened.log.damaged(shard, detail));
        }
        opened.log.check_entries(shard, LogRange { above: applied, up_to: last })?;
        Ok(opened)
    }

    fn stored_term(&self, index: u64) -> Result<u64, ReplicationError> {
        if index == 0 {
            return Ok(0);
        }
        match self.log.entry(self.shard, index)? {
            Some(entry) => Ok(entry.term),
            None => Err(self.log.damaged(self.shard, format!("entry {index} is missing"))),
        }
    }

    fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert_eq!(first.index, self.last + 1, "the only voter never overwrites its own log");
        self.unapplied.extend(entries.iter().cloned());
        if let Some(entry) = self.unapplied.back() {
            (self.last, self.last_term) = (entry.index, entry.term);
        }
    }

    fn forget_up_to(&mut self, index: u64) {
        while self.unapplied.front().is_some_and(|entry| entry.index <= index) {
            self.unapplied.pop_front();
        }
    }

    fn unapplied_at(&self, index: u64) -> Option<&Entry> {
        let first = self.unapplied.front()?.index;
        self.unapplied.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }
}

fn unreadable(error: ReplicationError) -> raft::Error {
    raft::Error::Store(StorageError::Other(Box::new(error)))
}

impl Storage for ShardLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let hard_state = HardState {
            term: self.vote.term,
            vote: self.vote.voted_for,
            // At least this much is committed; the rest is committed again by this start's leader.
            commit: self.applied,
            ..HardState::default()
        };
        let mut voters = ConfState::default();
        voters.voters.push(VOTER);
        Ok(RaftState::new(hard_state, voters))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let in_memory_from = self.unapplied.front().map_or(self.last + 1, |entry| entry.index);
        if low < in_memory_from {
            let high = high.min(in_memory_from);
            return self.log.entries(self.shard, low, high, bytes_max).map_err(unreadable);
        }
        let mut bytes = 0usize;
        let mut entries = Vec::new();
        for index in low..high {
            let Some(entry) = self.unapplied_at(index) else {
                return Err(raft::Error::Store(StorageError::Unavailable));
            };
            bytes = bytes.saturating_add(entry.data.len());
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.last {
            return Ok(self.last_term);
        }
        if index + 1 < self.first {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if index > self.last {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        match self.unapplied_at(index) {
            Some(entry) => Ok(entry.term),
            None => self.stored_term(index).map_err(unreadable),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last)
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

/// raft-rs logs through slog; its warnings and errors go where all others go.
struct ToTracing {
    folder: PathBuf,
}

impl slog::Drain for ToTracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record<'_>, _values: &slog::OwnedKVList) -> Result<(), slog::Never> {
        if record.level().is_at_least(slog::Level::Error) {
            tracing::error!(log = %self.folder.display(), "{}", record.msg());
        } else if record.level().is_at_least(slog::Level::Warning) {
            tracing::warn!(log = %self.folder.display(), "{}", record.msg());
        }
        Ok(())
    }
}
