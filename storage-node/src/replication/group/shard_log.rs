//! A shard's log as the consensus library reads it.

use super::super::ReplicationError;
use super::super::log::{Log, LogRange, Vote};
use super::super::message::replicas_of;
use super::super::replicas::{Replicas, to_conf_state};
use raft::eraftpb::{Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::ReplicaSet;

/// A shard's log as raft-rs reads it: entries from memory until they are applied, from the files after a restart.
pub(super) struct ShardLog {
    pub(super) log: Arc<Log>,
    pub(super) shard: ShardId,
    pub(super) last: u64,
    pub(super) last_term: u64,
    /// Entries that are not applied yet, consecutive up to `last`. Entries before them are in the files.
    pub(super) unapplied: VecDeque<Entry>,
    pub(super) vote: Vote,
    /// What was known to be committed at the opening.
    pub(super) committed: u64,
    pub(super) replicas: ReplicaSet,
    /// A snapshot is being installed: until then the files hold another log.
    pub(super) is_restoring: bool,
    /// The replica that a snapshot is there for, and its point.
    pub(super) offered: Option<(u64, Snapshot)>,
    /// A replica that the log does not reach, since it was last looked at.
    pub(super) wanted: Cell<Option<u64>>,
}

impl ShardLog {
    pub(super) fn open(
        log: Arc<Log>,
        shard: ShardId,
        applied: u64,
        replicas: &Replicas,
    ) -> Result<Self, ReplicationError> {
        let (vote, committed) = (log.vote(shard)?, log.known_committed(shard)?);
        let first = log.cut_index(shard) + 1;
        let last = log.span(shard).map_or(0, |(_, last)| last);
        let held = || format!("the log holds entries {first} to {last}, the stored state ends at {applied}");
        if applied > last {
            return Err(log.ends_early(shard, &held()));
        }
        if applied + 1 < first {
            return Err(log.damaged(shard, format!("{}: rows are missing", held())));
        }
        let mut opened = Self {
            log,
            shard,
            last,
            last_term: 0,
            unapplied: VecDeque::new(),
            vote,
            committed: committed.min(last).max(applied),
            replicas: replicas.set.clone(),
            is_restoring: false,
            offered: None,
            wanted: Cell::new(None),
        };
        opened.last_term = opened.stored_term(last)?;
        if opened.vote.term < opened.last_term {
            let (vote, entry) = (opened.vote.term, opened.last_term);
            let detail = format!("the vote is of term {vote}, the last entry of term {entry}");
            return Err(opened.log.damaged(shard, detail));
        }
        opened.log.check_entries(shard, LogRange { above: applied, up_to: last })?;
        Ok(opened)
    }

    /// The first index that raft may ask for; the one before it is known by its term alone. It grows as the log is cut, on
    /// another thread.
    fn first(&self) -> u64 {
        if self.is_restoring { self.last + 1 } else { self.log.cut_index(self.shard) + 1 }
    }

    /// A snapshot takes the place of everything up to its point, and of what is behind it.
    pub(super) fn restore(&mut self, snapshot: &Snapshot) {
        let metadata = snapshot.get_metadata();
        (self.last, self.last_term) = (metadata.index, metadata.term);
        self.replicas = replicas_of(snapshot);
        self.unapplied.clear();
        self.is_restoring = true;
    }

    /// The files hold it. Gives its index.
    pub(super) fn restored(&mut self) -> u64 {
        self.is_restoring = false;
        self.last
    }

    /// What an unreadable entry at this index means: it was cut off meanwhile, or the log is damaged.
    fn unreadable(&self, index: u64, error: ReplicationError) -> raft::Error {
        match index < self.first() {
            true => raft::Error::Store(StorageError::Compacted),
            false => raft::Error::Store(StorageError::Other(Box::new(error))),
        }
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

    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index <= self.last + 1, "a log has no gap");
        // A new leader's entries take the place of those that its predecessor could not commit.
        while self.unapplied.back().is_some_and(|entry| entry.index >= first.index) {
            self.unapplied.pop_back();
        }
        self.unapplied.extend(entries.iter().cloned());
        if let Some(entry) = self.unapplied.back() {
            (self.last, self.last_term) = (entry.index, entry.term);
        }
    }

    pub(super) fn forget_up_to(&mut self, index: u64) {
        while self.unapplied.front().is_some_and(|entry| entry.index <= index) {
            self.unapplied.pop_front();
        }
    }

    fn unapplied_at(&self, index: u64) -> Option<&Entry> {
        let first = self.unapplied.front()?.index;
        self.unapplied.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }
}

impl Storage for ShardLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let hard_state = HardState {
            term: self.vote.term,
            vote: self.vote.voted_for,
            // At least this much is committed; the rest is committed again by a leader.
            commit: self.committed,
            ..HardState::default()
        };
        Ok(RaftState::new(hard_state, to_conf_state(&self.replicas)))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        // The entries do not say who the first replicas were: one that came later begins with a snapshot. Only what goes to
        // other replicas could come later, the library says.
        let is_for_others = context.can_async();
        let is_new_there = low == 1 && self.replicas.changed_at > 0 && is_for_others;
        if low < self.first() || is_new_there {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let in_memory_from = self.unapplied.front().map_or(self.last + 1, |entry| entry.index);
        if low < in_memory_from {
            let high = high.min(in_memory_from);
            let read = self.log.entries(self.shard, low, high, bytes_max);
            return read.map_err(|error| self.unreadable(low, error));
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
        if index + 1 < self.first() {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if index > self.last {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        match self.unapplied_at(index) {
            Some(entry) => Ok(entry.term),
            None => self.stored_term(index).map_err(|error| self.unreadable(index + 1, error)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last)
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        if let Some((node, snapshot)) = &self.offered
            && *node == to
            && snapshot.get_metadata().index >= request_index
        {
            return Ok(snapshot.clone());
        }
        self.wanted.set(Some(to));
        Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
