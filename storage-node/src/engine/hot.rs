//! Rows that are looked up for nearly every command, kept in memory by the one thread that writes them.
//!
//! A store thread is the only writer of its shards' rows, so what it has read or written is what the store holds, and
//! a copy needs no invalidation from elsewhere. Only tables with one small row for each entity are kept (what a
//! conversation is, where it stands, a member's cursors); everything else goes through. Two generations bound it:
//! when the young one is full it becomes the old one, and what is used again moves back.

use super::keys::{self, Key};
use super::{Direction, Reader, StoreError, WriteBatch};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::HashMap;

/// Bytes of keys and values of one generation. Two of them, for each core: at 200 bytes a row they hold the heads and
/// members of 150,000 active conversations.
pub const GENERATION_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What a row takes beside its value, in bytes: key, handle, and its share of the map.
const ROW_BYTES: usize = 128;

/// A reader in front of another one. Belongs to one thread.
pub struct HotRows<'a> {
    reader: &'a dyn Reader,
    rows: RefCell<Generations>,
}

struct Generations {
    young: HashMap<Key, Bytes>,
    old: HashMap<Key, Bytes>,
    young_bytes: usize,
    young_bytes_max: usize,
}

impl Generations {
    fn find(&mut self, key: &[u8]) -> Option<Bytes> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.keep(key, value.clone());
        Some(value)
    }

    fn keep(&mut self, key: Key, value: Bytes) {
        self.young_bytes += ROW_BYTES + value.len();
        if let Some(replaced) = self.young.insert(key, value) {
            self.young_bytes -= ROW_BYTES + replaced.len();
        }
        if self.young_bytes > self.young_bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }

    fn forget(&mut self, key: &Key) {
        self.old.remove(key);
        if let Some(value) = self.young.remove(key) {
            self.young_bytes -= ROW_BYTES + value.len();
        }
    }
}

impl<'a> HotRows<'a> {
    /// In front of the store that this thread alone writes its shards' rows to.
    pub fn new(reader: &'a dyn Reader) -> Self {
        Self::with_generations_of(reader, GENERATION_BYTES_MAX)
    }

    /// As [`Self::new`], with another bound than [`GENERATION_BYTES_MAX`].
    pub fn with_generations_of(reader: &'a dyn Reader, young_bytes_max: usize) -> Self {
        let (young, old) = (HashMap::new(), HashMap::new());
        Self { reader, rows: RefCell::new(Generations { young, old, young_bytes: 0, young_bytes_max }) }
    }

    /// Somebody else wrote rows: nothing that is kept here is relied on.
    pub fn forget_all(&self) {
        let mut rows = self.rows.borrow_mut();
        (rows.young, rows.old, rows.young_bytes) = (HashMap::new(), HashMap::new(), 0);
    }

    /// The rows of a batch that are kept here: to be taken before the store takes the batch.
    pub fn hot_rows(batch: &WriteBatch) -> WrittenRows {
        let hot = batch.rows().iter().filter(|(key, _)| is_hot(key));
        // A slice of a log entry must not keep the whole entry in memory.
        let copied = hot.map(|(key, value)| (*key, value.as_deref().map(Bytes::copy_from_slice)));
        WrittenRows(copied.collect())
    }

    /// Takes them over. To be called after the store has taken the batch, before the next look-up.
    pub fn written(&self, written: WrittenRows) {
        let mut rows = self.rows.borrow_mut();
        for (key, value) in written.0 {
            match value {
                Some(value) => {
                    rows.old.remove(&key);
                    rows.keep(key, value);
                }
                None => rows.forget(&key),
            }
        }
    }
}

/// Rows on their way into the store.
pub struct WrittenRows(Vec<(Key, Option<Bytes>)>);

fn is_hot(key: &[u8]) -> bool {
    matches!(keys::table(key), Some(keys::CONVERSATION | keys::HEAD | keys::CURSORS))
}

impl Reader for HotRows<'_> {
    fn value(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if !is_hot(key) {
            return self.reader.value(key);
        }
        if let Some(value) = self.rows.borrow_mut().find(key) {
            return Ok(Some(value));
        }
        let value = self.reader.value(key)?;
        if let (Some(key), Some(value)) = (Key::copy_of(key), &value) {
            self.rows.borrow_mut().keep(key, value.clone());
        }
        Ok(value)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.reader.scan(from, to, direction, visit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{MemoryStore, Store};
    use std::cell::Cell;
    use wire_protocol::ids::{ConversationId, Seq};

    /// Counts look-ups that reach the store.
    struct Counting<'a> {
        store: &'a MemoryStore,
        lookups: Cell<u32>,
    }

    impl Reader for Counting<'_> {
        fn value(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
            self.lookups.set(self.lookups.get() + 1);
            self.store.value(key)
        }

        fn scan(
            &self,
            from: &[u8],
            to: &[u8],
            direction: Direction,
            visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
        ) -> Result<(), StoreError> {
            self.store.scan(from, to, direction, visit)
        }
    }

    fn head(number: u32) -> Key {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        keys::head(ConversationId(id))
    }

    fn write(store: &MemoryStore, hot: &HotRows<'_>, key: Key, value: Option<&[u8]>) {
        let mut batch = WriteBatch::new();
        match value {
            Some(value) => batch.put(key, value.to_vec()),
            None => batch.delete(key),
        }
        let rows = HotRows::hot_rows(&batch);
        store.write(batch).expect("memory");
        hot.written(rows);
    }

    #[test]
    fn a_hot_row_is_looked_up_once_and_follows_what_is_written() {
        let store = MemoryStore::default();
        let counting = Counting { store: &store, lookups: Cell::new(0) };
        let hot = HotRows::new(&counting);
        let key = head(1);
        assert_eq!(hot.value(&key).expect("read"), None);
        write(&store, &hot, key, Some(b"one"));
        for _ in 0..3 {
            assert_eq!(hot.value(&key).expect("read").as_deref(), Some(b"one".as_slice()));
        }
        assert_eq!(counting.lookups.get(), 1, "only the row that was not there");
        write(&store, &hot, key, Some(b"two"));
        assert_eq!(hot.value(&key).expect("read").as_deref(), Some(b"two".as_slice()));
        write(&store, &hot, key, None);
        assert_eq!(hot.value(&key).expect("read"), None);
    }

    #[test]
    fn rows_that_somebody_else_wrote_are_read_again() {
        let store = MemoryStore::default();
        let hot = HotRows::new(&store);
        let key = head(1);
        write(&store, &hot, key, Some(b"one"));
        let mut batch = WriteBatch::new();
        batch.put(key, b"another".to_vec());
        store.write(batch).expect("memory");
        hot.forget_all();
        assert_eq!(hot.value(&key).expect("read").as_deref(), Some(b"another".as_slice()));
    }

    #[test]
    fn other_tables_go_through() {
        let store = MemoryStore::default();
        let counting = Counting { store: &store, lookups: Cell::new(0) };
        let hot = HotRows::new(&counting);
        let key = keys::message(ConversationId([7; 16]), Seq(1));
        write(&store, &hot, key, Some(b"body"));
        hot.value(&key).expect("read");
        hot.value(&key).expect("read");
        assert_eq!(counting.lookups.get(), 2);
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let store = MemoryStore::default();
        let counting = Counting { store: &store, lookups: Cell::new(0) };
        let hot = HotRows::new(&counting);
        let value = vec![1u8; 4_096];
        write(&store, &hot, head(0), Some(b"used all the time"));
        for number in 1..40_000 {
            write(&store, &hot, head(number), Some(&value));
            assert!(hot.value(&head(0)).expect("read").is_some());
            let rows = hot.rows.borrow();
            assert!(rows.young_bytes <= GENERATION_BYTES_MAX);
            assert!(rows.old.len() * (ROW_BYTES + 4_096) <= GENERATION_BYTES_MAX + 2 * ROW_BYTES + 8_192);
        }
        assert_eq!(counting.lookups.get(), 0, "the row in use never left memory");
        hot.value(&head(1)).expect("read");
        assert_eq!(counting.lookups.get(), 1, "a row long unused did");
    }
}
