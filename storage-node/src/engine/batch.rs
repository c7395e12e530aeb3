//! Rows to be written at once.

use super::keys::Key;
use bytes::Bytes;

/// Rows that become readable together and survive a crash together.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    rows: Vec<(Key, Option<Bytes>)>,
    logged_ms: u64,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores a row, in place of an older one of the same key.
    pub fn put(&mut self, key: Key, value: impl Into<Bytes>) {
        self.rows.push((key, Some(value.into())));
    }

    /// Removes a row, if it is there.
    pub fn delete(&mut self, key: Key) {
        self.rows.push((key, None));
    }

    /// The newest logged time that these rows come from, in milliseconds since 1970. Engines drop rows whose
    /// kind expires by it, never by a clock of their own.
    pub fn set_logged_ms(&mut self, logged_ms: u64) {
        self.logged_ms = self.logged_ms.max(logged_ms);
    }

    /// See [`WriteBatch::set_logged_ms`]; 0: not set.
    pub fn logged_ms(&self) -> u64 {
        self.logged_ms
    }

    /// Rows in the order they were added; `None` removes. A later row of the same key wins.
    pub fn rows(&self) -> &[(Key, Option<Bytes>)] {
        &self.rows
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
