//! The engine of real nodes: RocksDB, one database a node, one column family, no write-ahead log.
//!
//! The replicated log is the only thing synced in the way of an answer; RocksDB is the index behind it. A sync here
//! is a flush of the memtables, and since all rows are in one column family every flush holds whole batches in the
//! order they were written.

use super::rocks_manifest::{manifest_of, refuse_damaged};
use super::rocks_tables::damaged_tables;
use super::rocks_view::{RocksView, Views, database_rows, database_scan, database_value};
use super::{
    Direction, FileView, Reader, Rows, Store, StoreError, StoreUsage, View, Visit, WriteBatch, expiry,
    format, keys,
};
use crate::config::MemoryConfig;
use crate::disk::NO_ROOM;
use crate::failpoint::{self, Failpoint};
use bytes::Bytes;
use rocksdb::compaction_filter::{CompactionFilter, Decision};
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, FlushOptions, LogLevel, Options, ReadOptions,
    SliceTransform, WriteOptions,
};
use std::ffi::CStr;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Files RocksDB keeps open: part of the process's 20,000, most of which belong to sockets.
const OPEN_FILES_MAX: i32 = 1_024;
/// Memtables, the active one included: a burst is taken while one flushes and one waits; then writers slow down.
const MEMTABLES_MAX: i32 = 4;
/// Bits of a filter for each key: 1 % of the look-ups of absent idempotency rows reach a block for nothing.
const FILTER_BITS_PER_KEY: f64 = 10.0;
/// Share of a memtable that its own filter takes: absent idempotency rows are then mostly not searched for at all.
const MEMTABLE_FILTER_RATIO: f64 = 0.1;
/// Bytes of a block: 50 short messages, a page of history.
const BLOCK_BYTES: usize = 16 * 1024;
/// Bytes of a table that a compaction makes: the 1,024 that are open at once hold 64 GiB.
const TABLE_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of a new table after which the kernel is asked to write them out: a little at a time, so that the log's
/// syncs do not wait behind a whole table.
const TABLE_SYNC_BYTES: u64 = 1024 * 1024;
/// Bytes of the first level that compactions make, at most: four tables, as many new ones as RocksDB lets come together
/// before it compacts them into it. Each further level has ten times as many.
const FIRST_LEVEL_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Threads for flushes and compactions: RocksDB gives one to each, so that a flush waits for no compaction.
const BACKGROUND_THREADS: i32 = 2;
/// RocksDB's own log files kept for a person to read.
const INFO_LOGS_MAX: usize = 4;
/// Names the manifest, which names the tables.
pub(super) const CURRENT: &str = "CURRENT";

/// What differs between nodes.
#[derive(Clone, Debug)]
pub struct RocksOptions {
    /// Shards of the fleet: stored with the data and checked at open, since all placement depends on it.
    pub shard_count: u32,
    /// Bytes of one memtable, of which there are at most four.
    pub memtable_bytes: usize,
    /// Bytes of uncompressed blocks kept for reading, filters and indexes included.
    pub block_cache_bytes: usize,
    /// Threads for flushes and compactions.
    pub background_threads: i32,
}

impl RocksOptions {
    /// Defaults for a small machine: at most 256 MiB of memtables and 256 MiB of blocks.
    pub fn new(shard_count: u32) -> Self {
        Self::with_memory(shard_count, MemoryConfig::default())
    }

    /// With so much memory.
    pub fn with_memory(shard_count: u32, memory: MemoryConfig) -> Self {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            shard_count,
            memtable_bytes: bytes(memory.memtable_bytes),
            block_cache_bytes: bytes(memory.block_cache_bytes),
            background_threads: BACKGROUND_THREADS,
        }
    }
}

/// Rows in RocksDB.
pub struct RocksStore {
    database: DB,
    write_options: WriteOptions,
    /// The newest logged time of any written batch; compactions drop expired rows by it.
    logged_ms: Arc<AtomicU64>,
    views: Views,
}

impl RocksStore {
    /// Opens the database in `folder`, and makes it if the folder holds none. Refuses other formats by name.
    pub fn open(folder: &Path, options: &RocksOptions) -> Result<Self, StoreError> {
        let logged_ms = Arc::new(AtomicU64::new(0));
        let unusable = |detail: String| StoreError::Unusable { folder: folder.to_owned(), detail };
        refuse_tables_alone(folder).map_err(unusable)?;
        refuse_damaged(folder).map_err(unusable)?;
        let database = DB::open(&database_options(options, &logged_ms), folder)
            .map_err(|error| unusable(described(folder, &error)))?;
        let mut write_options = WriteOptions::default();
        write_options.disable_wal(true);
        // Batches of an overlay are sorted: each insert starts where the one before ended.
        write_options.set_memtable_insert_hint_per_batch(true);
        let views = Views::beside(folder).map_err(|error| StoreError::Engine(error.to_string()))?;
        let store = Self { database, write_options, logged_ms, views };
        let is_new = if store.is_empty()? { format::IsNew::Yes } else { format::IsNew::No };
        format::check(&store, folder, is_new, options.shard_count)?;
        Ok(store)
    }

    /// A number RocksDB keeps about itself, for metrics and the curious; `None`: it knows no such property.
    pub fn property(&self, name: &str) -> Option<u64> {
        self.database.property_int_value(name).ok().flatten()
    }

    /// RocksDB's own statistics of levels and stalls, as text.
    pub fn report(&self) -> String {
        self.database.property_value("rocksdb.stats").ok().flatten().unwrap_or_default()
    }

    /// Runs all compactions now: jobs and tests only.
    pub fn compact(&self) {
        self.database.compact_range::<&[u8], &[u8]>(None, None);
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        let mut rows = self.database.raw_iterator_opt(options);
        rows.seek_to_first();
        rows.status().map_err(|error| engine_failed(self.database.path(), error))?;
        Ok(!rows.valid())
    }
}

fn database_options(options: &RocksOptions, logged_ms: &Arc<AtomicU64>) -> Options {
    let mut database = Options::default();
    database.create_if_missing(true);
    database.set_max_open_files(OPEN_FILES_MAX);
    database.set_atomic_flush(true);
    database.set_max_background_jobs(options.background_threads);
    database.set_bytes_per_sync(TABLE_SYNC_BYTES);
    database.set_paranoid_checks(true);

    database.set_write_buffer_size(options.memtable_bytes);
    database.set_max_write_buffer_number(MEMTABLES_MAX);
    database.set_db_write_buffer_size(options.memtable_bytes.saturating_mul(MEMTABLES_MAX as usize));
    database.set_memtable_prefix_bloom_ratio(MEMTABLE_FILTER_RATIO);
    database.set_memtable_whole_key_filtering(true);
    database.set_prefix_extractor(SliceTransform::create_fixed_prefix(keys::PREFIX_BYTES));

    database.set_compression_type(DBCompressionType::Lz4);
    database.set_bottommost_compression_type(DBCompressionType::Zstd);
    database.set_level_compaction_dynamic_level_bytes(true);
    database.set_target_file_size_base(TABLE_BYTES);
    database.set_max_bytes_for_level_base(FIRST_LEVEL_BYTES_MAX);
    database.set_compaction_filter_factory(ExpiryFactory { logged_ms: logged_ms.clone() });

    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_size(BLOCK_BYTES);
    blocks.set_block_cache(&Cache::new_lru_cache(options.block_cache_bytes));
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_bloom_filter(FILTER_BITS_PER_KEY, false);
    blocks.set_whole_key_filtering(true);
    blocks.set_optimize_filters_for_memory(true);
    blocks.set_format_version(6);
    database.set_block_based_table_factory(&blocks);

    database.set_log_level(LogLevel::Warn);
    database.set_keep_log_file_num(INFO_LOGS_MAX);
    database.set_stats_dump_period_sec(0);
    database.set_stats_persist_period_sec(0);
    database
}

/// RocksDB takes a folder without the file that names its manifest for an empty one: it would begin anew, and remove the
/// tables, of which it knows nothing then.
fn refuse_tables_alone(folder: &Path) -> Result<(), String> {
    let current = folder.join(CURRENT);
    if current.exists() {
        return Ok(());
    }
    let files = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        files => files.map_err(|error| error.to_string())?,
    };
    for file in files {
        let file = file.map_err(|error| error.to_string())?.path();
        if file.extension().is_some_and(|extension| extension == "sst") {
            return Err(format!("{} is missing, and there are tables", current.display()));
        }
    }
    Ok(())
}

/// What RocksDB says of a folder that it cannot open, with the file that is at fault.
fn described(folder: &Path, error: &rocksdb::Error) -> String {
    let said = error.to_string();
    // Behind what it says of a table RocksDB blames the manifest that it was reading when it looked into the table.
    let of_table = || said.split("  The file ").next().unwrap_or(&said);
    if said.contains(".sst") {
        return of_table().to_owned();
    }
    if said.contains("MANIFEST") {
        // It does so, too, when it does not say which table it looked into, or when it was led to a wrong manifest.
        return match rotten_tables(folder) {
            Some(tables) => format!("{} ({tables})", of_table()),
            None => format!("{said} ({})", suspects(folder)),
        };
    }
    if said.contains(CURRENT) {
        return format!("{}: {said}", folder.join(CURRENT).display());
    }
    with_suspects(folder, said)
}

/// An error of a database that is open in `folder`.
pub(super) fn engine_failed(folder: &Path, error: rocksdb::Error) -> StoreError {
    StoreError::Engine(explained(folder, error))
}

/// What RocksDB says, with the files that it may be if it names none.
fn with_suspects(folder: &Path, said: String) -> String {
    let is_named = said.contains(&*folder.to_string_lossy());
    if is_named { said } else { format!("{said} ({})", suspects(folder)) }
}

/// Tables that are at fault although RocksDB does not say so.
fn rotten_tables(folder: &Path) -> Option<String> {
    let tables: Vec<String> =
        damaged_tables(folder).iter().map(|table| table.display().to_string()).collect();
    (!tables.is_empty()).then(|| format!("damaged: {}", tables.join(", ")))
}

/// What the rows are read from: it is one of these if RocksDB does not say which.
fn suspects(folder: &Path) -> String {
    if let Some(tables) = rotten_tables(folder) {
        return tables;
    }
    let manifest = manifest_of(folder).map_or("its manifest".to_owned(), |path| path.display().to_string());
    format!("{}, {manifest}, or a table beside it", folder.join(CURRENT).display())
}

/// As RocksDB says it, with the file, and what that means if there is no room.
fn explained(folder: &Path, error: rocksdb::Error) -> String {
    let said = with_suspects(folder, error.into_string());
    let words = ["No space left on device", "Disk quota exceeded", "File too large"];
    if words.iter().any(|words| said.contains(*words)) { format!("{said} ({NO_ROOM})") } else { said }
}

impl Reader for RocksStore {
    fn value(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        database_value(&self.database, key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        database_scan(&self.database, from, to, direction, visit)
    }
}

impl Rows for RocksStore {
    fn walk(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        database_rows(&self.database, from, to, visit)
    }
}

impl Store for RocksStore {
    fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        if batch.logged_ms() > 0 {
            self.logged_ms.fetch_max(batch.logged_ms(), Ordering::Relaxed);
        }
        let mut rows = rocksdb::WriteBatch::default();
        for (key, value) in batch.rows() {
            match value {
                Some(value) => rows.put(key, value),
                None => rows.delete(key),
            }
        }
        let written = self.database.write_opt(rows, &self.write_options);
        written.map_err(|error| engine_failed(self.database.path(), error))
    }

    fn sync(&self) -> Result<(), StoreError> {
        let folder = self.database.path();
        let failed = |detail: String| StoreError::Engine(format!("sync of {}: {detail}", folder.display()));
        failpoint::try_pass(Failpoint::RowsSyncing).map_err(|error| failed(error.to_string()))?;
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.database.flush_opt(&options).map_err(|error| failed(explained(folder, error)))
    }

    /// A checkpoint: links to the tables of this moment, which a flush has just completed.
    fn view(&self) -> Result<Box<dyn View>, StoreError> {
        Ok(Box::new(RocksView::of(&self.database, &self.views)?))
    }

    fn files(&self) -> Result<Box<dyn FileView>, StoreError> {
        Ok(Box::new(RocksView::of(&self.database, &self.views)?))
    }

    fn usage(&self) -> StoreUsage {
        let property = |name| self.property(name).unwrap_or(0);
        StoreUsage {
            memtable_bytes: property("rocksdb.size-all-mem-tables"),
            cache_bytes: property("rocksdb.block-cache-usage"),
            table_bytes: property("rocksdb.total-sst-files-size"),
        }
    }
}

/// Makes a filter for each compaction.
struct ExpiryFactory {
    logged_ms: Arc<AtomicU64>,
}

impl CompactionFilterFactory for ExpiryFactory {
    type Filter = ExpiryFilter;

    fn create(&mut self, _context: CompactionFilterContext) -> ExpiryFilter {
        ExpiryFilter { logged_ms: self.logged_ms.load(Ordering::Relaxed) }
    }

    fn name(&self) -> &CStr {
        c"ringline-expiry"
    }
}

/// Drops expired rows, as of the compaction's start.
struct ExpiryFilter {
    logged_ms: u64,
}

impl CompactionFilter for ExpiryFilter {
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> Decision {
        if expiry::is_expired(key, value, self.logged_ms) { Decision::Remove } else { Decision::Keep }
    }

    fn name(&self) -> &CStr {
        c"ringline-expiry"
    }
}
