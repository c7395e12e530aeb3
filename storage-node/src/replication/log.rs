//! The log files of a node: every shard's entries and votes in one engine.

use super::files::LogFiles;
use super::message::{entries_from_wire, entry_to_wire};
use super::replicas::decode_change;
use super::{LogEntry, RECORD_VERSION, ReplicationError};
use crate::config::LogConfig;
use crate::disk::Disk;
use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, HardState};
use raft_engine::internals::FilePipeLog;
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use wire_protocol::ids::ShardId;
use wire_protocol::internal::RaftEntry;

/// Key of a shard's vote in the engine.
const VOTE_KEY: &[u8] = b"vote";
/// Key of what a shard's replica knew to be committed when it last wrote entries: an index in eight bytes, big-endian. Where
/// it is missing, nothing is known.
const COMMIT_KEY: &[u8] = b"commit";
/// Format of a vote, as its first byte.
const VOTE_VERSION: u8 = 1;
/// Bytes of a vote: version, term, vote.
const VOTE_BYTES: usize = 17;

/// What one turn of one group must have on disk before it goes on.
#[derive(Debug)]
pub struct LogWrite {
    pub(super) shard: ShardId,
    /// The group's number of this write: they are persisted in this order.
    pub(super) number: u64,
    pub(super) entries: Vec<Entry>,
    /// What the replica knows to be committed; written with entries.
    pub(super) known_committed: u64,
    /// Only when it changed.
    pub(super) vote: Option<Vote>,
}

impl LogWrite {
    /// One entry, the first of its shard.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn of_one(shard: ShardId, record: Vec<u8>) -> Self {
        let entry = Entry { index: 1, term: 1, data: record.into(), ..Entry::default() };
        Self { shard, number: 1, entries: vec![entry], known_committed: 0, vote: None }
    }

    /// Whose log.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// For [`super::Group::persisted`].
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of the entries, without their envelopes.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.data.len()).sum()
    }
}

/// The part of Raft's hard state that must survive; what is committed follows from the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Vote {
    pub term: u64,
    pub voted_for: u64,
}

impl Vote {
    pub(super) fn of(state: &HardState) -> Self {
        Self { term: state.term, voted_for: state.vote }
    }

    fn encode(self) -> Vec<u8> {
        let mut value = Vec::with_capacity(VOTE_BYTES);
        value.push(VOTE_VERSION);
        value.extend_from_slice(&self.term.to_be_bytes());
        value.extend_from_slice(&self.voted_for.to_be_bytes());
        value
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let (&version, rest) = value.split_first()?;
        let (term, voted_for) = rest.split_first_chunk::<8>()?;
        let voted_for: &[u8; 8] = voted_for.try_into().ok()?;
        (version == VOTE_VERSION)
            .then(|| Self { term: u64::from_be_bytes(*term), voted_for: u64::from_be_bytes(*voted_for) })
    }
}

/// A vote as it is written again once it was read; `None`: it is refused. For whoever throws bytes at it.
#[cfg(any(test, feature = "sim"))]
pub fn read_vote(value: &[u8]) -> Option<Vec<u8>> {
    Vote::decode(value).map(Vote::encode)
}

struct EntryIndex;

impl MessageExt for EntryIndex {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// Bytes of entries that are looked through at once at a start.
const CHECK_BYTES: usize = 2 * 1024 * 1024;

/// The engine. Writes may come from several threads; one thread is what makes one sync serve many.
pub struct Log {
    engine: Engine<LogFiles, FilePipeLog<LogFiles>>,
    files: LogFiles,
    folder: PathBuf,
    /// Held from the beginning of a write to the end of its sync: only the last write can be torn, and damage
    /// before it is known as such (`damage.rs`).
    writing: Mutex<()>,
    /// Of all that the process has opened: only simulations open several.
    #[cfg(any(test, feature = "sim"))]
    number: u64,
}

impl Log {
    /// Opens the log files, making them if there are none. A torn write at the end is dropped: it was never
    /// acknowledged. Damage elsewhere is an error.
    pub fn open(folder: &Path, config: &LogConfig) -> Result<Self, ReplicationError> {
        Self::open_on(Disk::Real, folder, config)
    }

    /// As [`Self::open`], on any disk.
    pub(crate) fn open_on(disk: Disk, folder: &Path, config: &LogConfig) -> Result<Self, ReplicationError> {
        let engine_config = Config {
            dir: folder.to_string_lossy().into_owned(),
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            // One file after another, so that an error is about the file that was looked into last. Files are read
            // as fast as a disk gives them all the same.
            recovery_threads: 1,
            // Bodies are opaque, often encrypted: compressing them costs and gains nothing.
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize(config.file_bytes),
            purge_threshold: ReadableSize(config.keep_bytes),
            enable_log_recycle: true,
            prefill_for_recycle: config.prefill,
            prefill_limit: config.prefill.then_some(ReadableSize(config.keep_bytes)),
            ..Config::default()
        };
        let failed = |detail: String| ReplicationError::Engine { folder: folder.to_owned(), detail };
        let no_folder = |error: std::io::Error| failed(error.to_string());
        disk.create_folder(folder).map_err(no_folder)?;
        if let Some(above) = folder.parent() {
            disk.sync_folder(above).map_err(no_folder)?;
        }
        let files = LogFiles::new(disk);
        #[cfg(any(test, feature = "sim"))]
        let number = crate::sim::blocks::enter_new();
        let engine = Engine::open_with_file_system(engine_config, Arc::new(files.clone()))
            .map_err(|error| failed(described(&files, &error)))?;
        files.opened();
        match files.failure() {
            None => Ok(Self {
                engine,
                files,
                folder: folder.to_owned(),
                writing: Mutex::default(),
                #[cfg(any(test, feature = "sim"))]
                number,
            }),
            Some(detail) => Err(failed(detail)),
        }
    }

    /// Writes and syncs everything given; all of it is durable on return.
    pub fn write(&self, writes: &[LogWrite]) -> Result<usize, ReplicationError> {
        let mut batch = LogBatch::default();
        for write in writes {
            let group = group_id(write.shard);
            batch.add_entries::<EntryIndex>(group, &write.entries).map_err(|error| self.failed(&error))?;
            if !write.entries.is_empty() {
                let known = write.known_committed.to_be_bytes().to_vec();
                batch.put(group, COMMIT_KEY.to_vec(), known).map_err(|error| self.failed(&error))?;
            }
            if let Some(vote) = write.vote {
                batch.put(group, VOTE_KEY.to_vec(), vote.encode()).map_err(|error| self.failed(&error))?;
            }
        }
        self.write_synced(&mut batch)
    }

    fn write_synced(&self, batch: &mut LogBatch) -> Result<usize, ReplicationError> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.settle()?;
        let bytes = self.engine.write(batch, true).map_err(|error| self.failed(&error))?;
        self.check_files()?;
        Ok(bytes)
    }

    /// What was found is on the disk on return, also what a process before could not sync and the kernel still shows. To be
    /// called before any of several copies counts what it has.
    pub fn make_durable(&self) -> Result<(), ReplicationError> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.files.make_durable().map_err(|error| self.failed(&raft_engine::Error::Io(error)))
    }

    fn settle(&self) -> Result<(), ReplicationError> {
        let failed = |error: std::io::Error| self.failed(&raft_engine::Error::Io(error));
        self.files.settle().map_err(failed)
    }

    fn check_files(&self) -> Result<(), ReplicationError> {
        match self.files.failure() {
            None => Ok(()),
            Some(detail) => Err(ReplicationError::Engine { folder: self.folder.clone(), detail }),
        }
    }

    /// Reads what a start will apply, so that damage is found before anything is served.
    pub(super) fn check_entries(&self, shard: ShardId, range: LogRange) -> Result<(), ReplicationError> {
        let mut above = range.above;
        while above < range.up_to {
            let entries = self.entries(shard, above + 1, range.up_to + 1, CHECK_BYTES)?;
            for entry in &entries {
                if entry.index != above + 1 {
                    return Err(self.damaged(shard, format!("entry {} is missing", above + 1)));
                }
                if entry.entry_type != EntryType::EntryNormal {
                    decode_change(shard, &entry.data)
                        .map_err(|error| self.damaged(shard, format!("entry {}: {error}", entry.index)))?;
                } else if let Some(version) = entry.data.first().filter(|version| **version != RECORD_VERSION)
                {
                    let index = entry.index;
                    let detail =
                        format!("entry {index} is of format {version}, this program reads {RECORD_VERSION}");
                    return Err(self.damaged_entry(shard, index, &detail));
                }
                above += 1;
            }
            if entries.is_empty() {
                return Err(self.damaged(shard, format!("entry {} is missing", above + 1)));
            }
        }
        Ok(())
    }

    /// Records of entries above `above` up to `up_to`, ascending: as many as fit `bytes_max`, one at least. Entries that are
    /// queued but not written yet are not there.
    pub fn read(
        &self,
        shard: ShardId,
        range: LogRange,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>, ReplicationError> {
        let entries = self.entries(shard, range.above + 1, range.up_to + 1, bytes_max)?;
        let record = |entry: Entry| match entry.entry_type {
            EntryType::EntryNormal => entry.data,
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => Bytes::new(),
        };
        let read = |entry: Entry| LogEntry { index: entry.index, record: record(entry), replicas: None };
        Ok(entries.into_iter().map(read).collect())
    }

    /// Raft's own entries `low..high`.
    pub(super) fn entries(
        &self,
        shard: ShardId,
        low: u64,
        high: u64,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReplicationError> {
        self.enter();
        let mut entries = Vec::new();
        if low < high {
            self.engine
                .fetch_entries_to::<EntryIndex>(group_id(shard), low, high, Some(bytes_max), &mut entries)
                .map_err(|error| self.failed(&error))?;
        }
        Ok(entries)
    }

    pub(super) fn entry(&self, shard: ShardId, index: u64) -> Result<Option<Entry>, ReplicationError> {
        self.enter();
        self.engine.get_entry::<EntryIndex>(group_id(shard), index).map_err(|error| self.failed(&error))
    }

    /// First and last index that the files hold; `None` for a log without entries.
    pub fn span(&self, shard: ShardId) -> Option<(u64, u64)> {
        let group = group_id(shard);
        Some((self.engine.first_index(group)?, self.engine.last_index(group)?))
    }

    /// Entries up to here are cut off, but for the last of them, which keeps the term.
    pub fn cut_index(&self, shard: ShardId) -> u64 {
        match self.span(shard) {
            None | Some((1, _)) => 0,
            Some((first, _)) => first,
        }
    }

    pub(super) fn vote(&self, shard: ShardId) -> Result<Vote, ReplicationError> {
        let Some(value) = self.engine.get(group_id(shard), VOTE_KEY) else { return Ok(Vote::default()) };
        Vote::decode(&value).ok_or_else(|| self.damaged(shard, "the vote is of an unknown format".to_owned()))
    }

    /// What was known to be committed when entries were written last; 0: nothing.
    pub(super) fn known_committed(&self, shard: ShardId) -> Result<u64, ReplicationError> {
        let Some(value) = self.engine.get(group_id(shard), COMMIT_KEY) else { return Ok(0) };
        let value = value.as_slice().try_into().map(u64::from_be_bytes);
        value.map_err(|_| self.damaged(shard, "the commit index is of an unknown format".to_owned()))
    }

    /// Lets entries below each shard's index go (see [`Self::cut_index`]). The entry at the index stays: the log
    /// continues from its term. Synced, as every write.
    pub fn cut(&self, cuts: &[(ShardId, u64)]) -> Result<(), ReplicationError> {
        let mut batch = LogBatch::default();
        for &(shard, index) in cuts {
            let group = group_id(shard);
            if self.engine.first_index(group).is_some_and(|first| first < index) {
                batch.add_command(group, Command::Compact { index });
            }
        }
        if !batch.is_empty() {
            self.write_synced(&mut batch)?;
        }
        Ok(())
    }

    /// Entries for another replica's snapshot, with their terms: as [`Self::read`] gives them, or of the range's first index
    /// on none at all, if they were cut meanwhile.
    pub fn snapshot_entries(
        &self,
        shard: ShardId,
        range: LogRange,
        bytes_max: usize,
    ) -> Result<Vec<RaftEntry>, ReplicationError> {
        if self.span(shard).is_none_or(|(first, last)| range.above + 1 < first || last < range.up_to) {
            return Ok(Vec::new());
        }
        let entries = self.entries(shard, range.above + 1, range.up_to + 1, bytes_max);
        match entries {
            Err(_) if self.span(shard).is_none_or(|(first, _)| range.above + 1 < first) => Ok(Vec::new()),
            entries => Ok(entries?.into_iter().map(entry_to_wire).collect()),
        }
    }

    /// The term of an entry that is there.
    pub fn term(&self, shard: ShardId, index: u64) -> Result<Option<u64>, ReplicationError> {
        match self.span(shard) {
            Some((first, last)) if (first..=last).contains(&index) => {
                Ok(self.entry(shard, index)?.map(|entry| entry.term))
            }
            _ => Ok(None),
        }
    }

    /// Forgets all entries of the shard, and begins anew with these: the first of them stands for what is cut off. The
    /// vote stays. Synced, as every write. More may follow by [`Self::extend`].
    pub fn begin_anew(&self, shard: ShardId, entries: Vec<RaftEntry>) -> Result<(), ReplicationError> {
        let vote = self.vote(shard)?;
        let group = group_id(shard);
        let mut batch = LogBatch::default();
        batch.add_command(group, Command::Clean);
        batch.put(group, VOTE_KEY.to_vec(), vote.encode()).map_err(|error| self.failed(&error))?;
        self.write_snapshot(batch, shard, entries)
    }

    /// Begins the logs of shards that were never in one: each as if it had been cut off up to an entry of this index and
    /// term, with nobody voted for. Synced, as every write.
    pub fn begin_at(&self, shards: &[ShardId], index: u64, term: u64) -> Result<(), ReplicationError> {
        let mut batch = LogBatch::default();
        let entry = Entry { index, term, ..Entry::default() };
        let vote = Vote { term, voted_for: 0 };
        for &shard in shards {
            let group = group_id(shard);
            batch
                .add_entries::<EntryIndex>(group, std::slice::from_ref(&entry))
                .map_err(|error| self.failed(&error))?;
            batch.put(group, VOTE_KEY.to_vec(), vote.encode()).map_err(|error| self.failed(&error))?;
        }
        self.write_synced(&mut batch).map(drop)
    }

    /// The newest term that this replica has voted in or has an entry of.
    pub fn newest_term(&self, shard: ShardId) -> Result<u64, ReplicationError> {
        Ok(self.vote(shard)?.term)
    }

    /// Forgets all entries of a shard of which there is no replica here any more. The vote stays.
    pub fn remove(&self, shard: ShardId) -> Result<(), ReplicationError> {
        let vote = self.vote(shard)?;
        let group = group_id(shard);
        let mut batch = LogBatch::default();
        batch.add_command(group, Command::Clean);
        batch.put(group, VOTE_KEY.to_vec(), vote.encode()).map_err(|error| self.failed(&error))?;
        self.write_synced(&mut batch).map(drop)
    }

    /// Entries behind the last one. Synced, as every write.
    pub fn extend(&self, shard: ShardId, entries: Vec<RaftEntry>) -> Result<(), ReplicationError> {
        self.write_snapshot(LogBatch::default(), shard, entries)
    }

    fn write_snapshot(
        &self,
        mut batch: LogBatch,
        shard: ShardId,
        entries: Vec<RaftEntry>,
    ) -> Result<(), ReplicationError> {
        let entries = entries_from_wire(shard, entries)
            .map_err(|error| self.damaged(shard, format!("an entry of a snapshot: {error}")))?;
        batch.add_entries::<EntryIndex>(group_id(shard), &entries).map_err(|error| self.failed(&error))?;
        self.write_synced(&mut batch).map(drop)
    }

    /// To be called before the engine reads: see `sim/blocks.rs`.
    fn enter(&self) {
        #[cfg(any(test, feature = "sim"))]
        crate::sim::blocks::enter(self.number);
    }

    /// Frees files that hold nothing needed any more. Blocks for as long as rewriting what is still needed takes.
    pub fn purge(&self) -> Result<(), ReplicationError> {
        self.enter();
        self.settle()?;
        self.engine.purge_expired_files().map_err(|error| self.failed(&error))?;
        self.check_files()
    }

    /// Bytes of the files in use.
    pub fn used_bytes(&self) -> usize {
        self.engine.get_used_size()
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn failed(&self, error: &raft_engine::Error) -> ReplicationError {
        ReplicationError::Engine { folder: self.folder.clone(), detail: described(&self.files, error) }
    }

    pub(super) fn damaged(&self, shard: ShardId, detail: String) -> ReplicationError {
        ReplicationError::Damaged { folder: self.folder.clone(), shard, detail }
    }

    /// As [`Self::damaged`], of an entry that can be read: names the file that it is in.
    fn damaged_entry(&self, shard: ShardId, index: u64, detail: &str) -> ReplicationError {
        // Read alone, and by this thread, its file is the one that was looked into last.
        let is_read = matches!(self.entry(shard, index), Ok(Some(_)));
        match self.files.culprit().filter(|_| is_read) {
            Some(file) => self.damaged(shard, format!("{}: {detail}", file.display())),
            None => self.damaged(shard, detail.to_owned()),
        }
    }

    /// As [`Self::damaged`], of a log that ends before it must: names files whose ends cannot be read, if there are any.
    pub(super) fn ends_early(&self, shard: ShardId, detail: &str) -> ReplicationError {
        let unread = self.files.unread_ends();
        match unread.is_empty() {
            true => self.damaged(shard, format!("{detail}: its newest files are missing")),
            false => self.damaged(shard, format!("{detail}: {}", unread.join(", "))),
        }
    }
}

/// What the engine says, and of which file.
fn described(files: &LogFiles, error: &raft_engine::Error) -> String {
    use raft_engine::Error;
    match (error, files.culprit()) {
        (Error::Corruption(detail), Some(file)) => format!("{}: damaged: {detail}", file.display()),
        (Error::Codec(_) | Error::Protobuf(_), Some(file)) => format!("{}: damaged: {error}", file.display()),
        // It names its file. The engine would show how it is made.
        (Error::Io(error), _) => error.to_string(),
        _ => error.to_string(),
    }
}

/// Part of a shard's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogRange {
    /// Entries above this index,
    pub above: u64,
    /// up to this one, included.
    pub up_to: u64,
}

/// The engine's own numbers start at 1: 0 is left out so that an unset number is not a shard.
fn group_id(shard: ShardId) -> u64 {
    u64::from(shard.0) + 1
}
