//! Consensus and the log: one Raft group a shard, one log engine a node, one sync for whatever is queued.
//!
//! The only folder that knows which consensus library and which log engine serve. What leaves it are indexes and
//! bytes. `shard/` proposes to a [`Group`] and hands its [`LogWrite`]s to the log thread; when the thread reports
//! them persisted, the group hands out committed [`LogEntry`]s for the store thread.
//!
//! ```text
//! propose -> poll: LogWrite -> log thread (one synced write for all shards) -> persisted(number)
//!                                        poll: committed entries -> store thread -> applied(index)
//! ```
//!
//! Contract: what `persisted` was called for survives a crash; entries are committed only after that; committed
//! entries come out once, in order, without gaps; an entry is committed again after a restart if it is above the
//! applied index that the group was opened with.

mod record;
mod damage;
mod files;
mod log;
mod log_thread;
mod message;
mod replicas;
mod group;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod replica_tests;

#[cfg(test)]
pub(crate) use damage::whole_batch_behind;
#[cfg(any(test, feature = "sim"))]
pub(crate) use damage::{HEAD_BYTES as LOG_HEAD_BYTES, is_head as is_log_head};
#[cfg(any(test, feature = "sim"))]
pub use group::Standing;
pub(crate) use group::{ELECTION_TICKS, HEARTBEAT_MS};
pub use group::{Group, GroupOutput, KeptFor, Role, TICK_MS};
#[cfg(any(test, feature = "sim"))]
pub use log::read_vote;
pub use log::{Log, LogRange, LogWrite};
#[cfg(any(test, feature = "sim"))]
pub(crate) use log_thread::QueuedWrites;
pub use log_thread::{LogRequest, SyncedWrite, run_log_thread};
pub use message::{MessageError, check_entries, check_message};
pub use record::{RECORD_VERSION, RecordError, decode_record, encode_record};
pub use replicas::{ReplicaChange, Replicas, first as first_replicas, is_holder, is_joint, is_voter};

use bytes::Bytes;
use std::path::PathBuf;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::ReplicaSet;

/// A committed entry of a shard's log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    /// Position in the shard's log: 1, 2, 3, …
    pub index: u64,
    /// A record (see [`decode_record`]), or nothing: the entry that a leader opens its term with, or one that
    /// changes the replicas.
    pub record: Bytes,
    /// The replicas from this entry on, if it changed them.
    pub replicas: Option<ReplicaSet>,
}

/// Why log or consensus cannot serve. All of it is ours to act on; the node stops.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// The engine or the disk failed.
    #[error("log in {folder}: {detail}")]
    Engine {
        /// The log's folder.
        folder: PathBuf,
        /// What the engine said.
        detail: String,
    },
    /// What the log holds does not fit together, or a newer program wrote it.
    #[error("log in {folder}, shard {shard}: {detail}")]
    Damaged {
        /// The log's folder.
        folder: PathBuf,
        /// Which shard's log.
        shard: ShardId,
        /// What does not fit.
        detail: String,
    },
    /// The consensus library refused.
    #[error("shard {shard}: {detail}")]
    Refused {
        /// Which shard.
        shard: ShardId,
        /// What it said.
        detail: String,
    },
}
