//! What a shard asks for: it has no thread, channel or socket of its own. The core carries these out.

use super::Cuts;
use crate::domain::Applied;
use crate::feed::{FeedView, Reread, SourceFeed};
use crate::replication::LogWrite;
use crate::snapshots::SnapshotRequest;
use crate::worker::{LinkId, Origin};
use bytes::Bytes;
use wire_protocol::ids::{DeviceId, ShardId, UserId};
use wire_protocol::internal::{
    CommandBatch, Delivery, FeedAck, FeedBatch, FeedItem, FeedPosition, Fleet, Query, RaftMessage,
    ReplicaReport, ReplicaSet, ShardLeader, ShardResponse,
};

/// Gathered over a turn, from all shards of a core.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Answers, to links of any core.
    pub responses: Vec<(LinkId, ShardResponse)>,
    /// Pushes, to links of any core.
    pub deliveries: Vec<(LinkId, Delivery)>,
    /// For home shards anywhere.
    pub batches: Vec<FeedBatch>,
    /// For source shards anywhere.
    pub acks: Vec<FeedAck>,
    /// For replicas on other nodes.
    pub messages: Vec<RaftMessage>,
    /// Nodes to which this one's word takes too long: what is on its way there is to be dropped.
    pub late_nodes: Vec<u32>,
    /// Shards of this core whose leader is another one than before, as far as their replicas here know.
    pub leaders: Vec<ShardLeader>,
    /// Replicas are where they are to be: for the shard that keeps the fleet.
    pub reports: Vec<ReplicaReport>,
    /// The fleet is another one.
    pub fleet: Option<Fleet>,
    /// For the log thread.
    pub writes: Vec<LogWrite>,
    /// For the core's store thread.
    pub applies: Vec<ApplyJob>,
    /// For the read threads.
    pub reads: Vec<ReadJob>,
    /// For the thread of snapshots.
    pub snapshots: Vec<SnapshotRequest>,
    /// Shards that a snapshot took the place of, with the time of its state: for the core's store thread, before their next
    /// entries.
    pub restored: Vec<(ShardId, u64)>,
}

/// Committed entries of one shard, for its store thread.
#[derive(Debug)]
pub(crate) struct ApplyJob {
    pub shard: ShardId,
    /// Consecutive, ascending.
    pub entries: Vec<ApplyEntry>,
    /// Bytes of the entries.
    pub bytes: usize,
}

/// One committed entry.
#[derive(Debug)]
pub(crate) struct ApplyEntry {
    pub index: u64,
    pub work: ApplyWork,
}

/// What an entry says.
#[derive(Debug)]
pub(crate) enum ApplyWork {
    /// Proposed by this process: spares decoding.
    Batch(CommandBatch),
    /// From the log.
    Record(Bytes),
    /// Nothing but that these are the replicas from here on.
    Replicas(ReplicaSet),
}

/// The rows of these entries are readable.
#[derive(Debug)]
pub(crate) struct AppliedJob {
    pub shard: ShardId,
    pub entries: Vec<AppliedEntry>,
}

/// What one entry led to.
#[derive(Debug)]
pub(crate) struct AppliedEntry {
    pub index: u64,
    /// The batch's time; for an entry without a batch, that of the entry before.
    pub time_ms: u64,
    /// What the leader said of its log; nothing in an entry without a batch.
    pub cuts: Cuts,
    pub results: Vec<Applied>,
}

/// For a read thread.
#[derive(Debug)]
pub(crate) struct ReadJob {
    pub shard: ShardId,
    pub work: ReadWork,
}

/// What to read.
#[derive(Debug)]
pub(crate) enum ReadWork {
    /// Answered straight to the link's core.
    Query { origin: Origin, query: Query, view: Option<FeedView> },
    /// Whether the device exists, and the user's newest stored version.
    Attach { ticket: u64, user: UserId, device: DeviceId },
    /// How far this home shard durably is; and, for a leader that followed before, its own feed as of this applied
    /// index.
    Load { source_as_of: Option<u64> },
    /// Events of entries that are no longer in memory.
    Reread(Reread),
}

/// What was read for a shard.
#[derive(Debug)]
pub(crate) enum ReadDone {
    /// See [`ReadWork::Attach`].
    Attach { ticket: u64, device_known: bool, stored_version: u64 },
    /// See [`ReadWork::Load`].
    Loaded { positions: Vec<FeedPosition>, source: Option<Box<SourceFeed>> },
    /// See [`ReadWork::Reread`]; `asked.to_index` is lowered to how far it went.
    Reread { asked: Reread, entries: Vec<(u64, Vec<FeedItem>)> },
}
