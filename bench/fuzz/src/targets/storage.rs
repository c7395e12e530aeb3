//! What a storage node reads from its disk and from other nodes.

use crate::Target;
use crate::input::Input;
use prost::Message;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use storage_node::LogConfig;
use storage_node::replication::{
    Group, Log, LogRange, RecordError, Replicas, check_message, decode_record, encode_record,
};
use wire_protocol::ids::ShardId;
use wire_protocol::internal::raft_message::Kind;
use wire_protocol::internal::{
    Command, CommandBatch, RaftEntry, RaftMessage, ReplicaChanges, SendMessage, SnapshotPoint, command,
};

const SHARD: ShardId = ShardId(3);
/// What a record begins with.
const RECORD_VERSION: u8 = 1;
/// Highest term: 16 million elections.
const TERM_MAX: u64 = (1 << 24) - 1;
/// Kind of entries that change the replicas, and how many of these one entry may change.
const CHANGE_OF_REPLICAS: u32 = 2;
const CHANGES_MAX: usize = 10;
/// Entries of the log that is damaged: the one that opens the term, and those of messages.
const ENTRIES: u64 = 9;
/// What a log file begins with: these bytes, its format, and how its batches are aligned, both u64, big endian.
const FILE_MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
/// The format that says how batches are aligned, which they never are. Newer ones are not known.
const FILE_FORMAT: u64 = 2;

/// See `holds`.
pub const LOG_RECORDS: Target = Target {
    name: "log-records",
    holds: "a record is taken if it has its version and decodes, and encodes to one that decodes to the same; of any other version \
            it is refused by that",
    run: log_records,
};
/// See `holds`.
pub const LOG_FILES: Target = Target {
    name: "log-files",
    holds: "whatever bytes of a log's files change, a start refuses them or finds what was written, but for an end that nothing \
            whole follows; an end that was torn alone is no damage, and a head that must not be believed is refused",
    run: log_files,
};
/// See `holds`.
pub const RAFT_MESSAGES: Target = Target {
    name: "raft-messages",
    holds: "another node's message is refused with a reason, or fit for the consensus library: of a kind that travels, its indexes \
            go on without a gap, its terms never fall, and changes and snapshots are of somebody",
    run: raft_messages,
};

fn log_records(data: &[u8]) {
    let is_of_version = data.first() == Some(&RECORD_VERSION);
    match decode_record(&bytes::Bytes::copy_from_slice(data)) {
        Ok(None) => assert!(data.is_empty(), "bytes that say nothing"),
        Ok(Some(batch)) => {
            assert!(is_of_version, "a record of another version was taken");
            let again = encode_record(&batch);
            assert_eq!(again.first(), Some(&RECORD_VERSION));
            assert_eq!(decode_record(&bytes::Bytes::from(again)), Ok(Some(batch)));
        }
        Err(RecordError::Version(version)) => assert!(!is_of_version && data.first() == Some(&version)),
        Err(RecordError::Malformed(_)) => assert!(is_of_version, "a record of another version was read"),
    }
}

fn raft_messages(data: &[u8]) {
    let Ok(message) = RaftMessage::decode(data) else { return };
    match check_message(message.clone()) {
        Ok(()) => must_fit(&message),
        Err(error) => assert!(error.to_string().starts_with("shard ")),
    }
}

/// What the consensus library, or the log behind it, believes without looking.
fn must_fit(message: &RaftMessage) {
    let kind = Kind::try_from(message.kind).expect("a kind that travels");
    assert!(message.kind > 0, "of no kind");
    assert!(message.from > 0 && message.to > 0, "from nobody, or to nobody");
    assert!((1..=TERM_MAX).contains(&message.term), "of a term that no election gives");
    if kind == Kind::Append {
        assert_eq!(message.index == 0, message.log_term == 0, "a beginning has neither, all else has both");
    }
    let (mut index, mut term) = (message.index, message.log_term);
    for entry in &message.entries {
        assert_eq!(index.checked_add(1), Some(entry.index), "indexes go on");
        assert!((term.max(1)..=message.term).contains(&entry.term), "terms never fall");
        (index, term) = (entry.index, entry.term);
        entry_must_fit(entry);
    }
    match &message.snapshot {
        Some(point) => {
            assert_eq!(kind, Kind::Snapshot);
            point_must_fit(point, message.term);
        }
        None => assert_ne!(kind, Kind::Snapshot, "a snapshot has a point"),
    }
}

fn entry_must_fit(entry: &RaftEntry) {
    if entry.kind != CHANGE_OF_REPLICAS {
        return assert_eq!(entry.kind, 0, "an entry of another kind");
    }
    let read = ReplicaChanges::decode(entry.record.clone()).expect("a change of replicas");
    assert!(read.transition == 0 && read.changes.len() <= CHANGES_MAX, "{read:?}");
    let is_node = |id: u64| (1..=u64::from(u32::MAX)).contains(&id);
    assert!(read.changes.iter().all(|change| is_node(change.node_id)), "{read:?}");
}

fn point_must_fit(point: &SnapshotPoint, term_max: u64) {
    assert!(point.index > 0 && (1..=term_max).contains(&point.term), "{point:?}");
    assert!(!point.voters.is_empty(), "nobody votes");
    assert!(point.replicas.as_ref().is_none_or(|set| !set.voters.is_empty()), "nobody votes");
}

/// Small files.
pub(super) fn config() -> LogConfig {
    LogConfig { file_bytes: 1 << 20, keep_bytes: 2 << 20, prefill: false }
}

struct Written {
    _folder: tempfile::TempDir,
    /// By name.
    files: Vec<(PathBuf, Vec<u8>)>,
    records: Vec<bytes::Bytes>,
    /// Where each write stands in the log file, one behind the other, and the last entry that was acknowledged with it.
    writes: Vec<(Range<usize>, u64)>,
}

/// A log's files and what they hold; made once, on a file system in memory where there is one.
fn written() -> &'static Written {
    static WRITTEN: OnceLock<Written> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let folder = in_memory().expect("a folder for a log");
        let synced = write_log(folder.path());
        let read = |entry: fs::DirEntry| {
            let path = entry.path();
            let bytes = fs::read(&path).expect("a log file");
            (PathBuf::from(entry.file_name()), bytes)
        };
        let files = fs::read_dir(folder.path()).expect("the folder");
        let mut files: Vec<(PathBuf, Vec<u8>)> = files.map(|entry| read(entry.expect("an entry"))).collect();
        files.sort();
        let (_, log_file) = files.iter().find(|(name, _)| is_log_file(name)).expect("a log file");
        let mut end = FILE_MAGIC.len() + 8 + 8;
        let mut writes = Vec::new();
        for (bytes, last) in synced {
            writes.push((end..end + bytes, last));
            end += bytes;
        }
        assert!(log_file.len() >= end, "a log file holds what was written");
        let records = records(folder.path()).expect("it is whole");
        Written { _folder: folder, files, records, writes }
    })
}

/// Writes a log, message by message, each synced before the next one. Gives the bytes of each write, and the last entry that
/// is durable with it.
fn write_log(folder: &Path) -> Vec<(usize, u64)> {
    let log = Arc::new(Log::open(folder, &config()).expect("it opens"));
    let mut group = Group::open(Arc::clone(&log), SHARD, 0, &Replicas::alone(1)).expect("it opens");
    let mut synced = Vec::new();
    for number in 1..ENTRIES {
        let send = SendMessage { client_message_id: number, ..SendMessage::default() };
        let commands = vec![Command { kind: Some(command::Kind::SendMessage(send)) }];
        let batch = CommandBatch { time_ms: number, commands, feed_cut: 0, log_cut: 0 };
        group.propose(encode_record(&batch)).expect("the only one leads");
        while let Some(output) = group.poll() {
            if let Some(write) = output.write {
                let number = write.number();
                let bytes = log.write(&[write]).expect("it writes");
                group.persisted(number);
                synced.push((bytes, log.span(SHARD).map_or(0, |(_, last)| last)));
            }
        }
    }
    synced
}

/// The one with the entries. Beside it stand what the engine rewrote, which is nothing, and its lock.
fn is_log_file(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == "raftlog")
}

impl Written {
    /// The last entry that must not be lost in silence, if this is what became of the log file. Each write was synced before
    /// the next one: what stands in front of a whole one had been whole, too, and was acknowledged. What nothing whole follows
    /// may be what a power failure left of the last write.
    fn acknowledged(&self, log_file: &[u8]) -> u64 {
        let (_, whole) = self.files.iter().find(|(name, _)| is_log_file(name)).expect("a log file");
        let stands = |place: &Range<usize>| log_file.get(place.clone()) == whole.get(place.clone());
        let standing = self.writes.iter().filter(|(place, _)| stands(place));
        standing.map(|(_, last)| *last).max().unwrap_or(0)
    }

    /// Whether nothing has happened but that the log file ends earlier.
    fn is_torn(&self, files: &[(PathBuf, Vec<u8>)]) -> bool {
        self.files.iter().zip(files).all(|((name, whole), (_, found))| {
            if is_log_file(name) { whole.starts_with(found) } else { whole == found }
        })
    }
}

/// Whether a file's head says what no program before this one wrote: a newer format, or that batches are aligned, for which
/// the engine would set aside as many bytes as it is told.
fn must_be_refused(file: &[u8]) -> bool {
    let number = |bytes: &[u8]| bytes.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
    let Some(rest) = file.strip_prefix(FILE_MAGIC) else { return false };
    let Some(format) = number(rest) else { return false };
    let alignment = rest.get(8..).and_then(number).unwrap_or(0);
    format > FILE_FORMAT || (format == FILE_FORMAT && alignment > 0)
}

/// A folder of its own, on a file system in memory where there is one.
pub(super) fn in_memory() -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}

/// Runs in a thread of its own: the log engine keeps the last block that a thread read, and knows it by file number and
/// place alone. Another log in the same thread would be shown that block instead of its own.
pub(super) fn in_own_thread(run: impl FnOnce() + Send) {
    let done = std::thread::scope(|scope| scope.spawn(run).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Everything that a start finds.
fn records(folder: &Path) -> Result<Vec<bytes::Bytes>, String> {
    let told = |error: storage_node::replication::ReplicationError| error.to_string();
    let log = Arc::new(Log::open(folder, &config()).map_err(told)?);
    let last = log.span(SHARD).map_or(0, |(_, last)| last);
    // A start checks what it will apply.
    drop(Group::open(Arc::clone(&log), SHARD, 0, &Replicas::alone(1)).map_err(told)?);
    let entries = log.read(SHARD, LogRange { above: 0, up_to: last }, usize::MAX).map_err(told)?;
    Ok(entries.into_iter().map(|entry| entry.record).collect())
}

fn log_files(data: &[u8]) {
    let written = written();
    let folder = in_memory().expect("a folder for a log");
    let mut input = Input::new(data);
    let mut files = written.files.clone();
    for _ in 0..8 {
        if input.is_empty() {
            break;
        }
        let number = input.below(files.len());
        change(&mut input, &mut files[number].1);
    }
    for (name, bytes) in &files {
        fs::write(folder.path().join(name), bytes).expect("a file in memory");
    }
    let (_, log_file) = files.iter().find(|(name, _)| is_log_file(name)).expect("a log file");
    let (acknowledged, is_torn) = (written.acknowledged(log_file), written.is_torn(&files));
    // Nobody reads the lock, which alone has a name without an ending.
    let is_read = |name: &Path| name.extension().is_some();
    let is_refused = files.iter().any(|(name, bytes)| is_read(name) && must_be_refused(bytes));
    in_own_thread(|| match records(folder.path()) {
        Ok(found) => {
            assert!(!is_refused, "a head that must not be believed was");
            assert!(written.records.starts_with(&found), "entries that nobody wrote: {found:?}");
            let count = found.len() as u64;
            assert!(count >= acknowledged, "{count} entries found, {acknowledged} acknowledged");
            assert!(!is_torn || count == acknowledged, "more than whole writes");
        }
        Err(error) => assert!(!error.is_empty() && !is_torn, "a torn end was refused: {error}"),
    });
}

/// One change of a file's bytes.
fn change(input: &mut Input<'_>, bytes: &mut Vec<u8>) {
    let place = (input.number() as usize) % bytes.len().max(1);
    match input.below(4) {
        0 => bytes.truncate(place),
        1 => bytes.extend_from_slice(input.slice()),
        2 => {
            for (byte, new) in bytes.iter_mut().skip(place).zip(input.slice()) {
                *byte = *new;
            }
        }
        _ => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= input.byte();
            }
        }
    }
}
