//! The database's format row: what wrote this folder, and whether this program may open it.

use super::{Reader, Store, StoreError, WriteBatch, keys};
use std::path::Path;

/// Version of keys and values in the database. Every change of either raises it and brings a migration, or a
/// sentence in the changelog that there is none.
pub const FORMAT_VERSION: u32 = 1;

/// Opens the book on a new database, or checks that an old one is ours: same format, same shard count. `is_new`
/// says that the database held no row when it was opened.
pub fn check(store: &dyn Store, folder: &Path, is_new: IsNew, shard_count: u32) -> Result<(), StoreError> {
    let unusable = |detail: String| StoreError::Unusable { folder: folder.to_owned(), detail };
    match (store.value(&keys::format())?, is_new) {
        (Some(row), _) => check_row(&row, folder, shard_count),
        (None, IsNew::Yes) => {
            let mut batch = WriteBatch::new();
            batch.put(keys::format(), encode(FORMAT_VERSION, shard_count));
            store.write(batch)?;
            store.sync()
        }
        (None, IsNew::No) => Err(unusable(format!(
            "it holds rows but no format row, so it is no store of this program (format version {FORMAT_VERSION})"
        ))),
    }
}

/// Checks rows that somebody wrote before, without writing any.
pub fn check_shards(reader: &dyn Reader, folder: &Path, shard_count: u32) -> Result<(), StoreError> {
    let missing =
        || StoreError::Unusable { folder: folder.to_owned(), detail: "it has no format row".to_owned() };
    check_row(&reader.value(&keys::format())?.ok_or_else(missing)?, folder, shard_count)
}

fn check_row(row: &[u8], folder: &Path, shard_count: u32) -> Result<(), StoreError> {
    let unusable = |detail: String| StoreError::Unusable { folder: folder.to_owned(), detail };
    let damaged = || unusable(format!("its format row is damaged ({} bytes)", row.len()));
    let (found_version, found_shards) = decode(row).ok_or_else(damaged)?;
    if found_version != FORMAT_VERSION {
        return Err(unusable(format!(
            "it has format version {found_version}, this program reads and writes {FORMAT_VERSION}"
        )));
    }
    if row != encode(found_version, found_shards) {
        return Err(damaged());
    }
    if found_shards != shard_count {
        return Err(unusable(format!(
            "it was made for {found_shards} shards, the configuration says {shard_count}"
        )));
    }
    Ok(())
}

/// Whether the database was empty when it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IsNew {
    /// There was not a single row.
    Yes,
    /// Somebody wrote to it before.
    No,
}

/// The format row's value.
fn encode(version: u32, shard_count: u32) -> Vec<u8> {
    [version.to_be_bytes(), shard_count.to_be_bytes()].concat()
}

/// The version always stands first, whatever follows in other versions.
fn decode(row: &[u8]) -> Option<(u32, u32)> {
    let (version, rest) = row.split_first_chunk()?;
    let version = u32::from_be_bytes(*version);
    let shard_count = rest.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    Some((version, shard_count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::MemoryStore;

    fn opened(store: &MemoryStore, is_new: IsNew, shard_count: u32) -> Result<(), String> {
        check(store, Path::new("/data/rows"), is_new, shard_count).map_err(|error| error.to_string())
    }

    #[test]
    fn a_new_store_is_marked_durably_and_opens_again() {
        let store = MemoryStore::new();
        opened(&store, IsNew::Yes, 8).expect("new");
        store.crash();
        opened(&store, IsNew::No, 8).expect("again");
    }

    #[test]
    fn another_version_is_refused_with_folder_and_versions() {
        let store = MemoryStore::new();
        let mut batch = WriteBatch::new();
        batch.put(keys::format(), encode(FORMAT_VERSION + 6, 8));
        store.write(batch).expect("write");
        let error = opened(&store, IsNew::No, 8).expect_err("refused");
        assert_eq!(
            error,
            "cannot use the store in /data/rows: it has format version 7, this program reads and writes 1"
        );
    }

    #[test]
    fn another_shard_count_is_refused() {
        let store = MemoryStore::new();
        opened(&store, IsNew::Yes, 8).expect("new");
        let error = opened(&store, IsNew::No, 16).expect_err("refused");
        assert!(error.contains("made for 8 shards, the configuration says 16"), "{error}");
    }

    #[test]
    fn foreign_and_damaged_stores_are_refused() {
        let store = MemoryStore::new();
        let error = opened(&store, IsNew::No, 8).expect_err("foreign");
        assert!(error.contains("no format row"), "{error}");
        let whole = encode(FORMAT_VERSION, 8);
        let cut = whole.iter().copied().take(7).collect();
        for damaged in [vec![1, 2], cut, [whole, vec![0]].concat()] {
            let mut batch = WriteBatch::new();
            batch.put(keys::format(), damaged);
            store.write(batch).expect("write");
            let error = opened(&store, IsNew::No, 8).expect_err("damaged");
            assert!(error.contains("damaged"), "{error}");
        }
    }
}
