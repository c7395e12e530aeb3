//! Named places on a message's way through a storage node, at which a test lets the process die, wait, or meet a disk
//! that fails. What may happen at one, and which variable says so: [`tuning::failpoint`].

pub(crate) use tuning::failpoint::{pass, try_pass};

use tuning::failpoint::Place;

/// The places, in the order in which a message comes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failpoint {
    /// The log thread has a batch and has written nothing.
    LogWriting,
    /// A log file is about to be synced, after a batch or as it begins or ends: may fail.
    LogSyncing,
    /// The batch is synced; no core knows.
    LogSynced,
    /// Committed entries are with the store thread; nothing is applied.
    Committed,
    /// They are applied to the overlay; no row is written.
    Applied,
    /// Rows are written; no core knows.
    RowsWritten,
    /// Outcomes are with the core; nobody is answered, no feed is sent.
    Answering,
    /// Answers are on their way; no feed is sent.
    FeedSending,
    /// A home shard took a batch; it has not acknowledged it.
    FeedTaken,
    /// What home shards push is with the core; no link has it.
    Delivering,
    /// It is written to the link of a gateway.
    DeliveriesSent,
    /// A home shard is about to propose a checkpoint.
    CheckpointProposing,
    /// The checkpoint is applied; no source knows.
    Checkpointed,
    /// Rows are about to be made durable: may fail.
    RowsSyncing,
    /// Rows are durable; the log is not cut.
    Flushed,
    /// The log is cut; old files are still there.
    Cut,
    /// A snapshot of a shard is here, whole; Raft has not heard of it.
    SnapshotReceived,
    /// It is to be installed; log and rows are the old ones.
    SnapshotDecided,
    /// Log and rows are the snapshot's; its file is still there.
    SnapshotInstalled,
    /// What a replica left is to be removed; log and rows are there.
    RemovalDecided,
    /// Log and rows are gone; the file that says so is still there.
    Removed,
}

impl Place for Failpoint {
    fn name(&self) -> &'static str {
        match self {
            Self::LogWriting => "log-writing",
            Self::LogSyncing => "log-syncing",
            Self::LogSynced => "log-synced",
            Self::Committed => "committed",
            Self::Applied => "applied",
            Self::RowsWritten => "rows-written",
            Self::Answering => "answering",
            Self::FeedSending => "feed-sending",
            Self::FeedTaken => "feed-taken",
            Self::Delivering => "delivering",
            Self::DeliveriesSent => "deliveries-sent",
            Self::CheckpointProposing => "checkpoint-proposing",
            Self::Checkpointed => "checkpointed",
            Self::RowsSyncing => "rows-syncing",
            Self::Flushed => "flushed",
            Self::Cut => "cut",
            Self::SnapshotReceived => "snapshot-received",
            Self::SnapshotDecided => "snapshot-decided",
            Self::SnapshotInstalled => "snapshot-installed",
            Self::RemovalDecided => "removal-decided",
            Self::Removed => "removed",
        }
    }
}
