//! Which shards of this core should be led from elsewhere, and hands them over: those astray while the node stays, all
//! of them when it leaves.

use super::core::StorageCore;
use crate::placement::Balance;
use crate::shard::Shard;
use std::sync::{MutexGuard, PoisonError};
use wire_protocol::ids::ShardId;
#[cfg(any(test, feature = "sim"))]
use wire_protocol::internal::ReplicaSet;
use wire_protocol::internal::ShardLeader;

/// How often a core looks at what it leads astray, in milliseconds.
const LOOK_EVERY_MS: u64 = 500;

impl StorageCore {
    /// The node is about to stop: from the next turn on this core's shards are handed over, and none is taken over.
    pub fn leave(&mut self) {
        self.is_leaving = true;
        self.shards.iter_mut().for_each(Shard::leave);
        self.shared.inboxes[self.core].signal();
    }

    /// Whether all shards of this core are led from elsewhere, or could not be.
    pub fn has_left(&mut self) -> bool {
        self.shards.iter_mut().all(Shard::has_left)
    }

    /// Shards that this core leads although another node should.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn astray(&mut self) -> Vec<ShardId> {
        self.shards.iter_mut().filter_map(Shard::astray).map(|astray| astray.shard).collect()
    }

    /// The replicas of a shard of this core, as its own is told of them.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn replicas(&mut self, shard: ShardId) -> Option<&ReplicaSet> {
        self.shard_mut(shard).map(|shard| shard.replicas())
    }

    /// Hands a shard to the replica that should lead it, when its turn has come.
    pub(super) fn look_at_balance(&mut self, now_ms: u64) {
        let is_due = now_ms.saturating_sub(self.balanced_ms) >= LOOK_EVERY_MS;
        if self.is_leaving || !is_due || !self.shared.map.is_replicated() {
            return;
        }
        self.balanced_ms = now_ms;
        let astray: Vec<_> = self.shards.iter_mut().filter_map(Shard::astray).collect();
        let next = self.balance().poll(now_ms, astray);
        if let Some(shard) = next.and_then(|shard| self.shard_mut(shard)) {
            shard.hand_over(now_ms, shard.preferred());
        }
    }

    /// Shards have other leaders than before.
    pub(super) fn balance_hears(&mut self, leaders: &[ShardLeader]) {
        let now_ms = self.turned_ms;
        let led: Vec<_> = leaders
            .iter()
            .filter_map(|leader| {
                let shard = ShardId(leader.shard);
                Some((shard, leader.node_id, self.shard_mut(shard)?.preferred()))
            })
            .collect();
        let mut balance = self.balance();
        led.into_iter().for_each(|(shard, leader, preferred)| {
            balance.handle_leader(now_ms, shard, leader, preferred);
        });
    }

    /// The node's, for a moment: cores look at it a few times a second, and none of them waits for anything meanwhile.
    pub(super) fn balance(&self) -> MutexGuard<'_, Balance> {
        self.shared.balance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
