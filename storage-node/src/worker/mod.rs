//! The cores of a storage node. A core is driven by `turn(now)`: embedded on a gateway's loop, standalone on a
//! thread of its own. It owns shards and links, and never blocks: the log, the store and reads have threads of
//! their own and report back through bounded queues.
//!
//! ```text
//! driver: receive, turn, poll_output      core 0 <- mailboxes -> core 1 ...
//!                                           |  ^ completions
//!     log thread (one a node) <- LogRequest-+--+
//!     store thread (one a core) <- ApplyJob-+--+
//!     read threads (some a node) <- ReadJob-+--+
//!     thread of snapshots (one a node) <- SnapshotRequest, if there are other nodes
//! ```

mod link;
mod core;
mod route;
mod leading;
mod hibernation;
mod outbox;
mod reach;
mod shared;
mod store_thread;
mod read_threads;
mod reread;
mod data_folder;
mod folder_lock;
mod sealed;
mod founders;
mod node;

pub use self::core::{DELIVERIES_WAITING_MAX, StorageCore};
#[cfg(any(test, feature = "sim"))]
pub use data_folder::read_node_file;
pub use founders::NextRound;
pub use link::{LinkId, LinkPeer};
pub use node::{StartError, StorageNode};
pub use read_threads::READ_THREADS;
pub use shared::{MAILBOX_ITEMS_MAX, OWN_READS_IN_FLIGHT_MAX, READS_IN_FLIGHT_MAX};

#[cfg(any(test, feature = "sim"))]
pub(crate) use self::core::Threads;
pub(crate) use data_folder::{DataFolder, Owner};
#[cfg(test)]
pub(crate) use folder_lock::FolderLock;
pub(crate) use folder_lock::LOCK;
#[cfg(test)]
pub(crate) use founders::Founders;
pub(crate) use founders::{Founding, is_question, question};
pub(crate) use link::{Origin, SessionKey};
#[cfg(any(test, feature = "sim"))]
pub(crate) use node::{OpenedShards, open_node, report_synced};
#[cfg(any(test, feature = "sim"))]
pub(crate) use read_threads::{ReadRequest, read_and_report};
#[cfg(test)]
pub(crate) use shared::NodeParts;
pub(crate) use shared::{Completion, FORGOTTEN, NodeShared};
#[cfg(any(test, feature = "sim"))]
pub(crate) use store_thread::{Applier, StoreRequest};

use std::sync::Arc;
use wire_protocol::internal::{
    Delivery, FeedAck, FeedBatch, Fleet, Hibernating, RaftMessage, ReplicaReport, ShardLeader, ShardResponse,
    SnapshotPart, SnapshotProgress,
};

/// What it means for messages that a node has failed ([`StorageNode::failure`]), and what is to be done: for whoever runs
/// the process that it is in.
pub const AFTER_FAILURE: &str =
    "Nothing more is acknowledged; what was is kept. Start the process again when the cause is gone";

/// What a core hands to the driver of its links.
#[derive(Clone, PartialEq, Debug)]
pub enum LinkOutput {
    /// The answer to one request; each request gets exactly one unless its link is closed before.
    Response(LinkId, ShardResponse),
    /// Something for sessions attached over this link.
    Delivery(LinkId, Delivery),
    /// Who leads a shard.
    Leader(LinkId, ShardLeader),
    /// The nodes, and where replicas are.
    Fleet(LinkId, Arc<Fleet>),
}

/// What storage nodes say to each other.
#[derive(Clone, PartialEq, Debug)]
pub enum PeerMessage {
    /// Events for a home shard.
    Batch(FeedBatch),
    /// A home shard's position, for the source.
    Ack(FeedAck),
    /// From a replica to another.
    Raft(RaftMessage),
    /// Of a shard's snapshot.
    Part(Box<SnapshotPart>),
    /// How much of a snapshot has been taken.
    Progress(SnapshotProgress),
    /// Where the replicas of a shard are: to the leader of the shard that keeps the fleet.
    Report(ReplicaReport),
    /// What somebody wants the fleet to be: to the same.
    FleetChange(Box<Fleet>),
    /// In place of heartbeats: for which shards that hibernate this node goes on.
    Hibernating(Hibernating),
}

/// Something for another node, for the driver of the links.
#[derive(Clone, PartialEq, Debug)]
pub struct PeerOutput {
    /// Which node.
    pub node: u32,
    /// What to send.
    pub message: PeerMessage,
}

/// Called from other threads when a core's `turn` has work.
pub type Waker = Arc<dyn Fn() + Send + Sync>;
