//! What a storage node counts: one writer each, read by whoever renders the Prometheus text. Names are in
//! [`render`](NodeMetrics::render) alone.

mod histogram;
mod render;

pub use histogram::Histogram;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows, or a level that moves. Relaxed: nobody orders anything by it.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Some more.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The level now.
    pub fn set(&self, level: u64) {
        self.0.store(level, Ordering::Relaxed);
    }

    /// What was counted.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one core, written by that core.
#[derive(Debug, Default)]
pub struct CoreMetrics {
    /// Turns of the loop.
    pub turns: Count,
    /// Requests received over this core's links.
    pub requests: Count,
    /// Commands put into log entries.
    pub commands: Count,
    /// Log entries proposed.
    pub entries: Count,
    /// Queries handed to the read threads.
    pub queries: Count,
    /// Times the other replicas of a shard were asked whether this one still leads.
    pub quorum_questions: Count,
    /// Reads carried out without such a question, within a leader's lease.
    pub reads_by_lease: Count,
    /// Requests refused because a queue was full.
    pub overloaded: Count,
    /// Requests refused because the shard is elsewhere, starting or failed.
    pub unavailable: Count,
    /// Deliveries to links of this core.
    pub deliveries: Count,
    /// Deliveries that became "sync needed".
    pub deliveries_dropped: Count,
    /// Feed batches taken by home shards of this core.
    pub feed_batches: Count,
    /// Feed batches that left a gap and were asked for again.
    pub feed_gaps: Count,
    /// Checkpoints of home shards.
    pub feed_checkpoints: Count,
    /// Open links now.
    pub links: Count,
    /// Attached sessions now.
    pub sessions: Count,
    /// Commands received and not yet proposed, now.
    pub commands_waiting: Count,
    /// Commands proposed and not yet answered, now.
    pub commands_in_flight: Count,
    /// Feed rows that no checkpoint holds yet, now.
    pub feed_rows_dirty: Count,
    /// Replicas whose groups hibernate, now.
    pub groups_hibernating: Count,
    /// From proposing an entry to answering its commands, in microseconds.
    pub entry_us: Histogram,
}

/// Counters of a node: of its own threads, and of all its cores.
#[derive(Debug, Default)]
pub struct NodeMetrics {
    /// One for each core.
    pub cores: Vec<Arc<CoreMetrics>>,
    /// Synced writes of the log.
    pub log_syncs: Count,
    /// Bytes written to the log.
    pub log_bytes: Count,
    /// Bytes of log files in use now.
    pub log_used_bytes: Count,
    /// One synced write, in microseconds.
    pub log_sync_us: Histogram,
    /// Writes to the store.
    pub store_writes: Count,
    /// Applying and writing a batch of entries, in microseconds.
    pub store_write_us: Histogram,
    /// Syncs of the store.
    pub store_syncs: Count,
    /// Memory of rows that are not in a table yet, in bytes, now.
    pub store_memtable_bytes: Count,
    /// Memory of what is kept for reading, in bytes, now.
    pub store_cache_bytes: Count,
    /// Files of rows, in bytes, now.
    pub store_table_bytes: Count,
    /// Snapshots of shards that arrived at other nodes.
    pub snapshots_sent: Count,
    /// Snapshots of shards that were installed here.
    pub snapshots_installed: Count,
    /// Snapshots that were given up here, as their sender or receiver.
    pub snapshots_given_up: Count,
    /// Bytes of parts sent, repeated ones included.
    pub snapshot_bytes: Count,
    /// Backups of this node.
    pub backups_made: Count,
    /// Backups of this node that came to nothing.
    pub backups_failed: Count,
    /// Whether the last one came to nothing: 1, else 0.
    pub backup_failed: Count,
    /// When the newest one was begun, in milliseconds since 1970; 0: none is known.
    pub backup_made_ms: Count,
    /// One query, from the read thread's taking it, in microseconds.
    pub read_us: Histogram,
}

impl NodeMetrics {
    /// Counters for this many cores.
    pub fn new(cores: usize) -> Self {
        Self { cores: (0..cores).map(|_| Arc::default()).collect(), ..Self::default() }
    }
}
