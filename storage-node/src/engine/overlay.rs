//! A reader with writes that nobody else sees yet: what `domain::apply` works on.

use super::keys::Key;
use super::{Direction, Reader, StoreError, WriteBatch};
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Pending writes over a reader. Reads see the pending writes first.
///
/// Several batches, also of several shards, may be applied on one overlay; [`Overlay::into_batch`] makes them
/// readable and durable together.
pub struct Overlay<'a> {
    reader: &'a dyn Reader,
    pending: BTreeMap<Key, Option<Bytes>>,
    logged_ms: u64,
}

impl<'a> Overlay<'a> {
    /// An overlay without writes.
    pub fn new(reader: &'a dyn Reader) -> Self {
        Self { reader, pending: BTreeMap::new(), logged_ms: 0 }
    }

    /// Stores a row once the batch is written.
    pub fn put(&mut self, key: Key, value: impl Into<Bytes>) {
        self.pending.insert(key, Some(value.into()));
    }

    /// Removes a row once the batch is written.
    pub fn delete(&mut self, key: Key) {
        self.pending.insert(key, None);
    }

    /// See [`WriteBatch::set_logged_ms`].
    pub fn set_logged_ms(&mut self, logged_ms: u64) {
        self.logged_ms = self.logged_ms.max(logged_ms);
    }

    /// Rows that wait to be written.
    pub fn pending_rows(&self) -> usize {
        self.pending.len()
    }

    /// Everything pending, sorted by key.
    pub fn into_batch(self) -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.set_logged_ms(self.logged_ms);
        for (key, value) in self.pending {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        batch
    }
}

impl Reader for Overlay<'_> {
    fn value(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.pending.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.reader.value(key),
        }
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
        let range = self.pending.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        match direction {
            Direction::Ascending => self.scan_merged(from, to, direction, range, visit),
            Direction::Descending => self.scan_merged(from, to, direction, range.rev(), visit),
        }
    }
}

impl Overlay<'_> {
    /// `pending` runs in the order of `direction`.
    fn scan_merged<'p>(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        pending: impl Iterator<Item = (&'p Key, &'p Option<Bytes>)>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let mut pending = pending.peekable();
        let mut wanted = true;
        self.reader.scan(from, to, direction, &mut |key, value| {
            while let Some((pending_key, pending_value)) = pending.peek() {
                let order = match direction {
                    Direction::Ascending => pending_key.as_slice().cmp(key),
                    Direction::Descending => key.cmp(pending_key.as_slice()),
                };
                if order == Ordering::Greater {
                    break;
                }
                if let Some(pending_value) = pending_value {
                    wanted = visit(pending_key, pending_value);
                }
                pending.next();
                if order == Ordering::Equal || !wanted {
                    return wanted;
                }
            }
            wanted = visit(key, value);
            wanted
        })?;
        while wanted && let Some((key, value)) = pending.next() {
            if let Some(value) = value {
                wanted = visit(key, value);
            }
        }
        Ok(())
    }
}
