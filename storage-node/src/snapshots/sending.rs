//! How far the snapshot is that this node sends, for whoever runs it: told by the thread of snapshots, read by anybody.

use std::sync::{Mutex, MutexGuard, PoisonError};
use wire_protocol::ids::ShardId;

/// A snapshot on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sent {
    /// Of this shard.
    pub shard: ShardId,
    /// To this node.
    pub node: u32,
    /// Bytes of the parts that were sent, each counted once.
    pub bytes: u64,
    /// About how much of the whole that is, in percent.
    pub percent: u8,
}

/// The one that is on its way now.
#[derive(Default)]
pub(crate) struct Sending(Mutex<Option<Sent>>);

impl Sending {
    fn sent(&self) -> MutexGuard<'_, Option<Sent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is so far now; `None`: none is on its way.
    pub fn tell(&self, sent: Option<Sent>) {
        *self.sent() = sent;
    }

    /// How far a shard's snapshot for a node is; `None`: it is not on its way.
    pub fn of(&self, shard: ShardId, node: u32) -> Option<Sent> {
        self.sent().filter(|sent| (sent.shard, sent.node) == (shard, node))
    }
}
