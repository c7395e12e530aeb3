//! The narrow contract behind which rows are kept, and the engines that keep it.
//!
//! What it refuses to know: what a row means. `domain/` decides that; [`keys`] is the one place where both meet.
//! The shard's store thread writes, the read pool and `domain::query` read, the maintenance thread syncs.
//!
//! # Contract
//! - **Readable on return**: after [`Store::write`] every reader sees all rows of the batch, or, before it
//!   returns, none of them.
//! - **Durable only after a sync**: after a crash the store holds a prefix of the batches in the order they were
//!   written, whole batches only, and at least everything written before the last [`Store::sync`] that returned
//!   `Ok`. The log replays the rest: that is why the applied index travels in the batch of the rows it covers.
//! - **Order callers keep**: one thread writes a given slot's rows. Writers of different slots may run at once.
//! - **Failure**: an error of `write` or `sync` is final for this opening. The caller stops accepting work, and
//!   reopens the store, which then holds what the crash rule above promises.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

pub mod keys;
pub mod batch;
pub mod overlay;
pub mod hot;
pub mod expiry;
pub mod format;
pub mod memory;
pub mod rocks;
mod rocks_manifest;
mod rocks_tables;
mod rocks_view;
#[cfg(test)]
mod tests;

pub use batch::WriteBatch;
pub use hot::HotRows;
pub use memory::MemoryStore;
pub use overlay::Overlay;
pub use rocks::{RocksOptions, RocksStore};
pub(crate) use rocks_view::open_files;

use bytes::Bytes;
use std::path::{Path, PathBuf};

/// Order of a scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the lowest key upwards.
    Ascending,
    /// From the highest key downwards.
    Descending,
}

/// Point and range reads over rows.
pub trait Reader {
    /// The row's value, or `None` when there is no such row.
    fn value(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Shows the rows with `from <= key < to` in the given order until `visit` returns false. Both bounds must
    /// share the first [`keys::PREFIX_BYTES`] bytes: scans stay within one entity of one table.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;
}

/// Shows rows of a range of keys, ascending, until it returns false.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> bool;

/// Rows of any range of keys, over entities and tables.
pub trait Rows {
    /// Shows the rows with `from <= key < to`, ascending, until `visit` returns false. Each row is whole; over a
    /// [`View`] all are as they were at its moment.
    fn walk(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), StoreError>;
}

/// All rows as they were at one moment, whatever is written since: whole batches, no half of one.
pub trait View: Reader + Rows + Send {}
impl<V: Reader + Rows + Send> View for V {}

/// A view that is files, which never change.
pub trait FileView: View {
    /// What holds them, and nothing else that an engine needs. It goes with the view.
    fn folder(&self) -> &Path;
}

/// Rows that survive crashes as the module's contract says.
pub trait Store: Reader + Rows + Send + Sync {
    /// Writes all rows of the batch, or none. Readable on return, durable only after [`Store::sync`].
    fn write(&self, batch: WriteBatch) -> Result<(), StoreError>;

    /// Everything written before this call is durable on return.
    fn sync(&self) -> Result<(), StoreError>;

    /// The rows as they are now. It holds space on the disk until it is dropped.
    fn view(&self) -> Result<Box<dyn View>, StoreError>;

    /// The rows as they are now, as files to be copied. It holds space on the disk until it is dropped.
    fn files(&self) -> Result<Box<dyn FileView>, StoreError> {
        Err(StoreError::Engine("this engine keeps no files".to_owned()))
    }

    /// What it takes, for whoever watches the node.
    fn usage(&self) -> StoreUsage {
        StoreUsage::default()
    }
}

/// What a store takes; an engine that does not know says 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreUsage {
    /// Memory of rows that are not in a table yet, in bytes.
    pub memtable_bytes: u64,
    /// Memory of blocks, indexes and filters kept for reading, in bytes.
    pub cache_bytes: u64,
    /// Files of rows, in bytes of disk.
    pub table_bytes: u64,
}

/// Why the store could not serve. All of it is ours to act on: no peer can cause it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine or the disk failed; the store takes no more writes until it was reopened.
    #[error("storage engine failed: {0}")]
    Engine(String),
    /// A row does not decode: the disk lied or a newer program wrote it.
    #[error("damaged row in table {table}: {detail}")]
    Damaged {
        /// Name of the table.
        table: &'static str,
        /// What did not fit.
        detail: &'static str,
    },
    /// The folder holds another format, another shard count, or something that is not ours.
    #[error("cannot use the store in {folder}: {detail}")]
    Unusable {
        /// The folder that was to be opened.
        folder: PathBuf,
        /// Found and expected versions.
        detail: String,
    },
}
