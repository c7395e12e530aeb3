//! A node whose store stands in for RocksDB, which does not run on the simulated disk: rows in memory, and beside them
//! the files that a checkpoint of them would be. A backup reads both through the store's contract, rows by the view and
//! files by its folder on the machine's disk, and knows no more of either.

use super::super::folder::Backup;
use super::super::restore_tests::{SHARDS, conversation_of};
use crate::config::{LogConfig, StorageConfig};
use crate::disk::Disk;
use crate::domain::{self, Overlay};
use crate::engine::{
    Direction, FileView, MemoryStore, Reader, Rows, Store, StoreError, View, Visit, WriteBatch, keys,
};
use crate::placement::ShardMap;
use crate::placement::fleet::Heard;
use crate::replication::Log;
use crate::snapshots::SnapshotFiles;
use crate::worker::{NodeParts, NodeShared};
use bytes::Bytes;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use wire_protocol::ids::{Seq, ShardId};
use wire_protocol::internal::Fleet;

/// Moments of which there is a backup.
pub const MOMENTS: usize = 4;
/// Messages that a shard gets when it gets any.
const MESSAGES: u64 = 20;
/// Bytes of each: a table has several sectors, so that it can be torn.
const BODY_BYTES: usize = 60;

/// A key and its value.
pub type Row = (Vec<u8>, Bytes);

/// A node as it is at several moments, each later than the one before.
pub struct Node {
    pub moments: Vec<Moment>,
    _folder: TempDir,
}

/// A node as it is at one moment.
pub struct Moment {
    pub shared: NodeShared,
    /// By shard.
    pub rows: Vec<Vec<Row>>,
    /// Up to where each shard is applied.
    pub applied: Vec<u64>,
}

impl Node {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = log_in(folder.path());
        let moment = |number| Moment::new(number, folder.path(), &log);
        Self { moments: (0..MOMENTS).map(moment).collect(), _folder: folder }
    }
}

impl Moment {
    fn new(number: usize, folder: &Path, log: &Arc<Log>) -> Self {
        let store = MemoryStore::new();
        (0..=number).for_each(|earlier| write_moment(&store, earlier));
        let rows: Vec<Vec<Row>> = (0..SHARDS).map(|shard| rows_of(&store, ShardId(shard))).collect();
        let checkpoint = folder.join(format!("checkpoint-{number}"));
        write_checkpoint(&checkpoint, number, &rows);
        let store = StoreWithFiles { rows: Arc::new(store), checkpoint: checkpoint.into() };
        let applied = (0..SHARDS).map(|shard| last_message(number, shard)).collect();
        Self { shared: node_with(Box::new(store), Arc::clone(log), folder), rows, applied }
    }
}

/// The log of a node. A backup asks it for votes alone, of which there are none.
pub fn log_in(folder: &Path) -> Arc<Log> {
    let config = LogConfig { file_bytes: 64 << 10, keep_bytes: 128 << 10, prefill: false };
    Arc::new(Log::open(&folder.join("log"), &config).expect("it opens"))
}

/// The only node of a fleet. Nobody takes it forward.
pub fn node_with(store: Box<dyn Store>, log: Arc<Log>, folder: &Path) -> NodeShared {
    let config = StorageConfig { shard_count: SHARDS, ..StorageConfig::default() };
    NodeShared::new(NodeParts {
        node_id: config.node_id,
        epoch: 1,
        founders: crate::worker::Founders::default(),
        map: ShardMap::new(&config, 1).expect("a map"),
        fleet: (Fleet::default(), Heard::Once),
        first_copies: Vec::new(),
        log,
        store,
        snapshot_files: SnapshotFiles::new(Disk::Real, folder.join("snapshots")),
        cores: 1,
        lock: crate::worker::FolderLock::default(),
    })
}

/// All shards get messages at first, then two of them each time.
fn has_new(moment: usize, shard: u32) -> bool {
    let moment = moment as u32;
    moment == 0 || [moment, moment + 1].iter().any(|number| number % SHARDS == shard)
}

/// The number of a shard's newest message, which is also that of its newest entry.
fn last_message(moment: usize, shard: u32) -> u64 {
    let moments = (0..=moment).filter(|earlier| has_new(*earlier, shard)).count();
    moments as u64 * MESSAGES
}

/// Writes what the node gets between the moment before and this one.
pub fn write_moment(store: &dyn Store, moment: usize) {
    for shard in (0..SHARDS).filter(|shard| has_new(moment, *shard)) {
        let last = last_message(moment, shard);
        let mut batch = WriteBatch::new();
        for seq in last - MESSAGES + 1..=last {
            batch.put(keys::message(conversation_of(shard), Seq(seq)), vec![seq as u8; BODY_BYTES]);
        }
        store.write(batch).expect("it writes");
        let mut overlay = Overlay::new(store);
        domain::set_applied_index(&mut overlay, ShardId(shard), last, 1_000 + last);
        store.write(overlay.into_batch()).expect("it writes");
    }
}

fn rows_of(store: &MemoryStore, shard: ShardId) -> Vec<Row> {
    let ranges = keys::ranges_of_shard(shard, SHARDS);
    let is_in = |key: &[u8]| ranges.iter().any(|(from, to)| (&from[..]..&to[..]).contains(&key));
    store.rows().into_iter().filter(|(key, _)| is_in(key)).collect()
}

/// A table for each shard, which is the same file until the shard has new rows, and the two files that say which tables
/// make the store.
fn write_checkpoint(folder: &Path, moment: usize, shards: &[Vec<Row>]) {
    fs::create_dir(folder).expect("it is made");
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("it writes");
    let mut tables = Vec::new();
    for (shard, rows) in (0..).zip(shards) {
        let name = format!("{shard:03}{:03}.sst", last_message(moment, shard));
        write(&name, &encoded(rows));
        tables.push(name);
    }
    let head = format!("MANIFEST-{moment:06}");
    write(&head, tables.join("\n").as_bytes());
    write("CURRENT", head.as_bytes());
}

fn encoded(rows: &[Row]) -> Vec<u8> {
    let mut table = Vec::new();
    for field in rows.iter().flat_map(|(key, value)| [&key[..], &value[..]]) {
        table.extend_from_slice(&(field.len() as u32).to_be_bytes());
        table.extend_from_slice(field);
    }
    table
}

fn decoded(mut table: &[u8]) -> Option<Vec<Row>> {
    let mut rows = Vec::new();
    while !table.is_empty() {
        let (key, behind) = field(table)?;
        let (value, behind) = field(behind)?;
        rows.push((key.to_vec(), Bytes::copy_from_slice(value)));
        table = behind;
    }
    Some(rows)
}

fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, behind) = bytes.split_first_chunk()?;
    behind.split_at_checked(u32::from_be_bytes(*length) as usize)
}

/// What a store would read that is opened on the files of a backup, by the names that the store gave them: the rows of
/// each table. An error: they make no store.
pub fn rows_in(backup: &Backup) -> Result<Vec<Vec<Row>>, String> {
    let read = |name: &str| -> Result<Vec<u8>, String> {
        let mut files = backup.manifest.files.iter();
        let file = files.find(|file| file.name == name).ok_or_else(|| format!("there is no {name}"))?;
        let (path, mut bytes) = (backup.folder.path().join(&file.path), Vec::new());
        let opened = backup.folder.disk().open(&path);
        let read = opened.and_then(|mut opened| opened.read_to_end(&mut bytes));
        read.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(bytes)
    };
    let text = |name: &str| -> Result<String, String> {
        String::from_utf8(read(name)?).map_err(|error| format!("{name}: {error}"))
    };
    let tables = text(&text("CURRENT")?)?;
    let rows = |name: &str| decoded(&read(name)?).ok_or_else(|| format!("{name}: no whole table"));
    tables.lines().map(rows).collect()
}

/// Rows of one moment: nothing is written any more.
#[derive(Clone)]
struct StoreWithFiles {
    rows: Arc<MemoryStore>,
    checkpoint: Arc<Path>,
}

impl Reader for StoreWithFiles {
    fn value(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.rows.value(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, visit: Visit<'_>) -> Result<(), StoreError> {
        self.rows.scan(from, to, direction, visit)
    }
}

impl Rows for StoreWithFiles {
    fn walk(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        self.rows.walk(from, to, visit)
    }
}

impl FileView for StoreWithFiles {
    fn folder(&self) -> &Path {
        &self.checkpoint
    }
}

impl Store for StoreWithFiles {
    fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        self.rows.write(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.rows.sync()
    }

    fn view(&self) -> Result<Box<dyn View>, StoreError> {
        self.rows.view()
    }

    /// The files stay when the view goes: every backup of this moment reads the same.
    fn files(&self) -> Result<Box<dyn FileView>, StoreError> {
        Ok(Box::new(self.clone()))
    }
}
