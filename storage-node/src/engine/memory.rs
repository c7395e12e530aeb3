//! An engine in memory that keeps what was synced, and nothing else, across a made-up crash: for tests and the
//! simulated world.

use super::keys::Key;
use super::{Direction, Reader, Rows, Store, StoreError, View, Visit, WriteBatch};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Rows in memory.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rows: BTreeMap<Key, Bytes>,
    synced: BTreeMap<Key, Bytes>,
    /// Written since the last sync, in order.
    unsynced: Vec<WriteBatch>,
    sync_fails: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses what was not synced, as the power failing would.
    pub fn crash(&self) {
        self.crash_keeping(0);
    }

    /// As [`MemoryStore::crash`], but the first `batches` of the writes since the last sync had reached the disk:
    /// an engine may sync earlier than it was asked to.
    pub fn crash_keeping(&self, batches: usize) {
        let mut state = self.state();
        let State { rows, synced, unsynced, .. } = &mut *state;
        for batch in unsynced.drain(..).take(batches) {
            write_rows(synced, &batch);
        }
        rows.clone_from(synced);
    }

    /// Writes since the last sync.
    pub fn unsynced_batches(&self) -> usize {
        self.state().unsynced.len()
    }

    /// Makes every later sync fail, or work again.
    pub fn set_sync_fails(&self, fails: bool) {
        self.state().sync_fails = fails;
    }

    /// All rows, for comparison.
    pub fn rows(&self) -> Vec<(Vec<u8>, Bytes)> {
        self.state().rows.iter().map(|(key, value)| (key.to_vec(), value.clone())).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of another thread cannot leave a batch half written here: write_rows does not panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_rows(rows: &mut BTreeMap<Key, Bytes>, batch: &WriteBatch) {
    for (key, value) in batch.rows() {
        match value {
            Some(value) => rows.insert(*key, value.clone()),
            None => rows.remove(key),
        };
    }
}

impl Reader for MemoryStore {
    fn value(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.state().rows.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        // Copied, so that `visit` may use the store again.
        let range = (Bound::Included(from), Bound::Excluded(to));
        let mut rows: Vec<_> =
            self.state().rows.range::<[u8], _>(range).map(|(key, value)| (*key, value.clone())).collect();
        if direction == Direction::Descending {
            rows.reverse();
        }
        let _ = rows.iter().all(|(key, value)| visit(key, value));
        Ok(())
    }
}

impl Rows for MemoryStore {
    fn walk(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        self.scan(from, to, Direction::Ascending, visit)
    }
}

impl Store for MemoryStore {
    fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        let mut state = self.state();
        write_rows(&mut state.rows, &batch);
        state.unsynced.push(batch);
        Ok(())
    }

    fn view(&self) -> Result<Box<dyn View>, StoreError> {
        let view = Self::new();
        view.state().rows.clone_from(&self.state().rows);
        Ok(Box::new(view))
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.sync_fails {
            return Err(StoreError::Engine("sync made to fail".into()));
        }
        let State { synced, unsynced, .. } = &mut *state;
        for batch in unsynced.drain(..) {
            write_rows(synced, &batch);
        }
        Ok(())
    }
}
