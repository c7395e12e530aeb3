//! What the log keeps: everything that rows on disk or a feed still need.

use super::*;
use crate::config::{LogConfig, StorageConfig};
use crate::disk::Disk;
use crate::engine::{Direction, MemoryStore, Reader, Rows, Store, StoreError, View, Visit, WriteBatch};
use crate::placement::ShardMap;
use crate::placement::fleet::Heard;
use crate::replication::{Group, Log, Replicas};
use crate::snapshots::SnapshotFiles;
use crate::worker::NodeParts;
use bytes::Bytes;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use wire_protocol::internal::Fleet;

const SHARD: ShardId = ShardId(0);
/// The entry that opens the term, and those that were proposed.
const LAST: u64 = 10;

/// Rows of which the test hears when they are being synced.
#[derive(Default)]
struct Watched {
    rows: MemoryStore,
    /// Called at the beginning of a sync.
    syncing: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

struct Shared(Arc<Watched>);

impl Reader for Shared {
    fn value(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.rows.value(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.0.rows.scan(from, to, direction, visit)
    }
}

impl Rows for Shared {
    fn walk(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        self.0.rows.walk(from, to, visit)
    }
}

impl Store for Shared {
    fn view(&self) -> Result<Box<dyn View>, StoreError> {
        self.0.rows.view()
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        self.0.rows.write(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        if let Some(syncing) = self.0.syncing.get() {
            syncing();
        }
        self.0.rows.sync()
    }
}

/// A node of one shard whose log holds [`LAST`] entries.
fn node(folder: &Path) -> (Arc<NodeShared>, Arc<Watched>) {
    let config = LogConfig { file_bytes: 1 << 20, keep_bytes: 2 << 20, prefill: false };
    let log = Arc::new(Log::open(folder, &config).expect("it opens"));
    let mut group = Group::open(Arc::clone(&log), SHARD, 0, &Replicas::alone(1)).expect("it opens");
    (1..LAST).for_each(|_| assert!(group.propose(vec![1]).is_ok()));
    while let Some(output) = group.poll() {
        if let Some(write) = output.write {
            let number = write.number();
            log.write(&[write]).expect("it writes");
            group.persisted(number);
        }
    }
    assert_eq!(log.span(SHARD), Some((1, LAST)));
    let rows = Arc::<Watched>::default();
    let snapshot_files = SnapshotFiles::new(Disk::Real, folder.join("snapshots"));
    let map = ShardMap::new(&StorageConfig { shard_count: 1, ..StorageConfig::default() }, 1).expect("a map");
    let store = Box::new(Shared(Arc::clone(&rows)));
    (
        Arc::new(NodeShared::new(NodeParts {
            node_id: 1,
            epoch: 1,
            founders: crate::worker::Founders::default(),
            map,
            fleet: (Fleet::default(), Heard::Once),
            first_copies: Vec::new(),
            log,
            store,
            snapshot_files,
            cores: 1,
            lock: crate::worker::FolderLock::default(),
        })),
        rows,
    )
}

fn set_marks(shared: &NodeShared, applied: u64, log_cut: u64) {
    let marks = shared.marks_of(SHARD);
    marks.applied.store(applied, Ordering::Release);
    marks.log_cut.store(log_cut, Ordering::Release);
}

#[test]
fn the_log_is_cut_below_what_is_flushed_and_what_the_feed_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shared, rows) = node(folder.path());
    for (applied, log_cut, expected) in [(8, 4, 4), (6, 9, 6), (6, 9, 6), (LAST, LAST, LAST)] {
        set_marks(&shared, applied, log_cut);
        rows.rows.write(WriteBatch::new()).expect("memory does not fail");
        persist(&shared).expect("all is well");
        assert_eq!(shared.log.cut_index(SHARD), expected, "applied {applied}, needed above {log_cut}");
        assert_eq!(rows.rows.unsynced_batches(), 0, "flushed before");
    }
}

#[test]
fn what_is_applied_while_the_store_is_flushed_stays_in_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shared, rows) = node(folder.path());
    set_marks(&shared, 3, LAST);
    let marks = Arc::clone(&shared.marks[0]);
    let goes_on = move || marks.applied.store(7, Ordering::Release);
    assert!(rows.syncing.set(Box::new(goes_on)).is_ok());
    persist(&shared).expect("all is well");
    assert_eq!(shared.log.cut_index(SHARD), 3);
}

#[test]
fn a_flush_that_failed_cuts_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shared, rows) = node(folder.path());
    set_marks(&shared, 8, 8);
    rows.rows.set_sync_fails(true);
    assert!(persist(&shared).is_err());
    assert_eq!(shared.log.span(SHARD), Some((1, LAST)));
}
