//! Whole snapshots of a shard, for a replica that its leader's log no longer reaches: one that was away for long, or one
//! that is new.
//!
//! ```text
//! leader                                            replica
//! open: a view of the rows, its applied index
//! offer to Raft, which answers with a message
//! parts: message, log entries, rows  ── one at a ──> shard-7.receiving   checked, written, synced
//!                                    <── progress ── time
//!                                                    shard-7.received    the message goes to Raft
//!                                                    shard-7.installing  once Raft takes it: from here on the
//!                                                    file is the truth, and a start goes on with it
//!                                                    rows, log; then the file goes
//! ```
//!
//! A snapshot is the shard's rows at one moment and the log entries that some home shard's feed may still need: a replica
//! that takes one can lead. The replica keeps its own state until the whole snapshot is on its disk, and does not take part
//! in consensus while it installs. Entries that it had acknowledged are in the snapshot, or Raft would not take it.
//!
//! The rules of sending and receiving ([`outgoing`]; [`incoming`] of one snapshot, [`receiving`] of all) know no thread;
//! [`worker`] drives them.

mod checksum;
mod contents;
mod outgoing;
mod sending;
mod incoming;
mod receiving;
mod install;
mod remove;
mod worker;
#[cfg(any(test, feature = "sim"))]
mod trial;
#[cfg(test)]
mod tests;

pub(crate) use install::{SnapshotFiles, finish_installs};
pub(crate) use sending::Sending;
#[cfg(any(test, feature = "sim"))]
pub use trial::{PartTaken, SnapshotReceiver, sign_parts, snapshot_parts};
#[cfg(any(test, feature = "sim"))]
pub(crate) use worker::SnapshotWorker;
pub(crate) use worker::run_snapshot_thread;

use wire_protocol::ids::ShardId;
use wire_protocol::internal::{RaftMessage, ReplicaSet, SnapshotPart, SnapshotProgress};

/// Bytes of a part, but for the last row or entry that still fits in: sent while Raft's own messages wait for a
/// millisecond at most.
pub const PART_BYTES: usize = 256 * 1024;
/// Bytes of parts that a node sends in a second, so that snapshots leave room on the network and on disks for messages.
pub const SNAPSHOT_BYTES_PER_S: u64 = 64 * 1024 * 1024;
/// A part without an answer is sent again after this time, in milliseconds: several times what a disk may take for it.
pub const PART_AGAIN_MS: u64 = 1_000;
/// A snapshot whose next part nobody takes for this long is given up by its sender, in milliseconds.
pub const PART_MS_MAX: u64 = 30_000;
/// The same, in milliseconds, while a snapshot for another node waits: several times [`PART_AGAIN_MS`].
pub const PART_MS_WHILE_OTHERS_WAIT: u64 = 5_000;
/// An offered snapshot is thrown away when Raft does not send it within this time, in milliseconds.
pub const OFFER_MS_MAX: u64 = 30_000;
/// A snapshot of which no further part came for this long is thrown away by its receiver, in milliseconds: longer than its
/// sender waits.
pub const RECEIVING_MS_MAX: u64 = 2 * PART_MS_MAX;
/// After a snapshot that did not arrive, the next one is not made before this time, in milliseconds.
pub const SNAPSHOT_RETRY_MS: u64 = 5_000;
/// What one core has for the thread of snapshots, at most: parts beyond it are lost, and sent again.
pub const SNAPSHOT_REQUESTS_MAX: usize = 256;
/// Parts and answers of that thread that one core has not yet sent: beyond it they are lost, and sent again.
pub const SNAPSHOT_MESSAGES_MAX: usize = 16;

/// What the thread of snapshots is asked to do.
#[derive(Debug)]
pub(crate) enum SnapshotRequest {
    /// A leader here wants one for the replica of this node.
    Open { shard: ShardId, node: u32 },
    /// Raft's message for the snapshot that was opened: send it.
    Send { shard: ShardId, message: RaftMessage },
    /// No replica here leads this shard any more.
    Cancel { shard: ShardId },
    /// From a leader elsewhere.
    Part(Box<SnapshotPart>),
    /// From the receiver of a snapshot.
    Progress(SnapshotProgress),
    /// Raft takes the received snapshot.
    Install { shard: ShardId },
    /// Raft has no use for it.
    Discard { shard: ShardId },
    /// There is no replica here any more, since a change of the replicas.
    Remove { shard: ShardId, changed_at: u64 },
    /// End.
    Stop,
}

/// What became of it, for the shard.
#[derive(Debug)]
pub(crate) enum SnapshotReport {
    /// Ready to be offered: it ends with this entry.
    Opened { node: u32, index: u64, term: u64, replicas: ReplicaSet },
    /// How sending it, or opening it, ended.
    Ended { node: u32, has_arrived: bool },
    /// Whole, checked and durable: what its leader says of it.
    Received { message: RaftMessage },
    /// Log and rows are those of the snapshot.
    Installed(Installed),
    /// Log and rows are gone.
    Removed,
}

/// What a replica is after it took a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Installed {
    /// Applied index.
    pub index: u64,
    /// Time of its state.
    pub time_ms: u64,
    /// No feed needs entries up to here.
    pub feed_cut: u64,
}
