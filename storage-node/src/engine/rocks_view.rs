//! Reading RocksDB: the open database, and views of it at one moment.
//!
//! A view is a checkpoint, opened for reading alone: links to the tables, so that it costs a flush and no copying,
//! and holds the space of tables that compactions replace meanwhile. Its folder goes with it.

use super::rocks::engine_failed;
use super::{Direction, FileView, Reader, Rows, StoreError, View, Visit, keys};
use bytes::Bytes;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{BlockBasedOptions, Cache, DB, DBRawIterator, Options, ReadOptions, SliceTransform};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of blocks that a view keeps: its rows are read once, in order.
const VIEW_CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Files that a view keeps open.
const VIEW_OPEN_FILES_MAX: i32 = 64;

/// Where a database's views are. Those of an earlier process are gone.
pub(super) struct Views {
    folder: PathBuf,
    last: AtomicU64,
}

impl Views {
    /// In a folder beside that of the database, on the same disk.
    pub fn beside(database: &Path) -> io::Result<Self> {
        let mut name = database.file_name().unwrap_or_default().to_owned();
        name.push("-views");
        let folder = database.with_file_name(name);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Self { folder, last: AtomicU64::new(0) }),
        }
    }

    fn next(&self) -> io::Result<PathBuf> {
        std::fs::create_dir_all(&self.folder)?;
        Ok(self.folder.join(self.last.fetch_add(1, Ordering::Relaxed).to_string()))
    }
}

/// The rows of a checkpoint whose files somebody put into this folder. It goes with the view.
pub(crate) fn open_files(folder: PathBuf) -> Result<Box<dyn View>, StoreError> {
    let mut view = RocksView { database: None, folder };
    view.open()?;
    Ok(Box::new(view))
}

/// The rows of a checkpoint.
pub(super) struct RocksView {
    /// Closed before the folder goes.
    database: Option<DB>,
    folder: PathBuf,
}

impl RocksView {
    pub fn of(database: &DB, views: &Views) -> Result<Self, StoreError> {
        let folder = views.next().map_err(|error| StoreError::Engine(format!("view: {error}")))?;
        // Whatever happens from here on, the folder is removed.
        let mut view = Self { database: None, folder };
        let failed = |error| engine_failed(database.path(), error);
        let checkpoint = Checkpoint::new(database).map_err(failed)?;
        checkpoint.create_checkpoint(&view.folder).map_err(failed)?;
        view.open()?;
        Ok(view)
    }

    fn open(&mut self) -> Result<(), StoreError> {
        let mut options = Options::default();
        options.set_max_open_files(VIEW_OPEN_FILES_MAX);
        options.set_prefix_extractor(SliceTransform::create_fixed_prefix(keys::PREFIX_BYTES));
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(VIEW_CACHE_BYTES));
        options.set_block_based_table_factory(&blocks);
        let opened = DB::open_for_read_only(&options, &self.folder, false);
        self.database = Some(opened.map_err(|error| engine_failed(&self.folder, error))?);
        Ok(())
    }

    fn database(&self) -> &DB {
        self.database.as_ref().expect("it is there from the opening to the drop")
    }
}

impl Drop for RocksView {
    fn drop(&mut self) {
        drop(self.database.take());
        if let Err(error) = std::fs::remove_dir_all(&self.folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("{}: {error}", self.folder.display());
        }
    }
}

impl FileView for RocksView {
    fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Reader for RocksView {
    fn value(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        database_value(self.database(), key)
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, visit: Visit<'_>) -> Result<(), StoreError> {
        database_scan(self.database(), from, to, direction, visit)
    }
}

impl Rows for RocksView {
    fn walk(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        database_rows(self.database(), from, to, visit)
    }
}

pub(super) fn database_value(database: &DB, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
    let value = database.get_pinned(key).map_err(|error| engine_failed(database.path(), error))?;
    Ok(value.map(|value| Bytes::copy_from_slice(&value)))
}

pub(super) fn database_scan(
    database: &DB,
    from: &[u8],
    to: &[u8],
    direction: Direction,
    visit: Visit<'_>,
) -> Result<(), StoreError> {
    if from < to {
        debug_assert_eq!(
            from.get(..keys::PREFIX_BYTES),
            to.get(..keys::PREFIX_BYTES),
            "one entity, one table"
        );
    }
    iterate(database, ReadOptions::default(), (from, to), direction, visit)
}

pub(super) fn database_rows(
    database: &DB,
    from: &[u8],
    to: &[u8],
    visit: Visit<'_>,
) -> Result<(), StoreError> {
    let mut options = ReadOptions::default();
    // Filters know entities, and this goes over them.
    options.set_total_order_seek(true);
    options.fill_cache(false);
    iterate(database, options, (from, to), Direction::Ascending, visit)
}

fn iterate(
    database: &DB,
    mut options: ReadOptions,
    (from, to): (&[u8], &[u8]),
    direction: Direction,
    visit: Visit<'_>,
) -> Result<(), StoreError> {
    if from >= to {
        return Ok(());
    }
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(to);
    let mut rows: DBRawIterator<'_> = database.raw_iterator_opt(options);
    match direction {
        Direction::Ascending => rows.seek(from),
        Direction::Descending => rows.seek_for_prev(to),
    }
    while let Some((key, value)) = rows.item() {
        if !visit(key, value) {
            return Ok(());
        }
        match direction {
            Direction::Ascending => rows.next(),
            Direction::Descending => rows.prev(),
        }
    }
    rows.status().map_err(|error| engine_failed(database.path(), error))
}
