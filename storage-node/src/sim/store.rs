//! Rows on the simulated disk: what the store's contract promises, and nothing more.

use super::Random;
use super::disk::{Crash, SimDisk};
use crate::engine::format::{self, IsNew};
use crate::engine::keys;
use crate::engine::{Direction, MemoryStore, Reader, Rows, Store, StoreError, View, Visit, WriteBatch};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use wire_protocol::ids::ShardId;

/// Rows whose writes and syncs are steps of a disk. Clones are the same rows.
#[derive(Clone)]
pub struct SimStore {
    disk: Arc<SimDisk>,
    rows: Arc<MemoryStore>,
}

impl SimStore {
    /// No rows.
    pub fn new(disk: &Arc<SimDisk>) -> Self {
        Self { disk: Arc::clone(disk), rows: Arc::default() }
    }

    /// The rows themselves.
    pub fn memory(&self) -> &MemoryStore {
        &self.rows
    }

    /// All rows of a shard, for comparison.
    pub fn rows_of(&self, shard: u32, shard_count: u32) -> Vec<(Vec<u8>, Bytes)> {
        let mut rows = Vec::new();
        for (from, to) in keys::ranges_of_shard(ShardId(shard), shard_count) {
            let walked = self.rows.walk(&from, &to, &mut |key, value| {
                rows.push((key.to_vec(), Bytes::copy_from_slice(value)));
                true
            });
            walked.expect("rows in memory are read");
        }
        rows
    }

    /// As a start opens it.
    pub fn open(&self, folder: &Path, shard_count: u32) -> Result<Box<dyn Store>, StoreError> {
        let is_new = if self.rows.rows().is_empty() { IsNew::Yes } else { IsNew::No };
        format::check(self, folder, is_new, shard_count)?;
        Ok(Box::new(self.clone()))
    }

    /// A prefix of what was written since the last sync is kept. A process that dies has its rows in its memory.
    pub fn crash(&self, crash: Crash, random: &mut Random) {
        let unsynced = self.rows.unsynced_batches();
        self.rows.crash_keeping(match crash {
            Crash::PowerKeepsNothing => 0,
            Crash::PowerKeepsAll => unsynced,
            Crash::PowerKeepsSome | Crash::Process => random.below(unsynced + 1),
        });
    }
}

impl Reader for SimStore {
    fn value(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.rows.value(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.rows.scan(from, to, direction, visit)
    }
}

impl Rows for SimStore {
    fn walk(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        self.rows.walk(from, to, visit)
    }
}

fn failed(error: std::io::Error) -> StoreError {
    StoreError::Engine(error.to_string())
}

impl Store for SimStore {
    fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        let done = self.disk.rows_step().map_err(failed)?;
        self.rows.write(batch)?;
        if done { Ok(()) } else { Err(StoreError::Engine("the node was stopped".to_owned())) }
    }

    fn view(&self) -> Result<Box<dyn View>, StoreError> {
        self.rows.view()
    }

    fn sync(&self) -> Result<(), StoreError> {
        if self.disk.rows_sync().map_err(failed)? { self.rows.sync() } else { Ok(()) }
    }
}
