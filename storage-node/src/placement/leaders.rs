//! Who leads each shard, as far as this node has heard. Written by whoever hears of it, read by every core without
//! waiting.

use std::sync::atomic::{AtomicU64, Ordering};
use wire_protocol::ids::ShardId;
use wire_protocol::internal::ShardLeader;

/// Terms that fit beside a node's id: 2^40 elections of one shard.
const TERM_BITS: u32 = 40;
/// Largest id of a node: what the other bits hold.
pub(super) const NODE_MAX: u64 = (1 << (64 - TERM_BITS)) - 1;

/// Leaders by shard.
#[derive(Debug)]
pub struct Leaders {
    /// (term << 24 | node); 0: nobody is known.
    leaders: Vec<AtomicU64>,
    /// Grows with every change.
    changes: AtomicU64,
}

impl Leaders {
    /// Nobody is known to lead any of so many shards.
    pub fn new(shard_count: u32) -> Self {
        Self { leaders: (0..shard_count).map(|_| AtomicU64::new(0)).collect(), changes: AtomicU64::new(0) }
    }

    /// Takes what was heard; true if it is news. A leader of an older term is none.
    pub fn heard(&self, leader: ShardLeader) -> bool {
        let Some(known) = self.leaders.get(leader.shard as usize) else { return false };
        let node = u64::from(leader.node_id);
        if node == 0 || node > NODE_MAX || leader.term >= 1 << TERM_BITS {
            return false;
        }
        let heard = leader.term << (64 - TERM_BITS) | node;
        let is_news = known.fetch_max(heard, Ordering::AcqRel) < heard;
        if is_news {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
        is_news
    }

    /// Who leads the shard; `None`: nobody is known.
    pub fn leader(&self, shard: ShardId) -> Option<ShardLeader> {
        let known = self.leaders.get(shard.0 as usize)?.load(Ordering::Acquire);
        let leader = ShardLeader {
            shard: shard.0,
            node_id: (known & NODE_MAX) as u32,
            term: known >> (64 - TERM_BITS),
        };
        (known > 0).then_some(leader)
    }

    /// Moves whenever something changed.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_newer_term_is_news() {
        let leaders = Leaders::new(2);
        let leader = |shard, node_id, term| ShardLeader { shard, node_id, term };
        assert_eq!((leaders.leader(ShardId(1)), leaders.changes()), (None, 0));
        for (told, is_news) in [
            (leader(1, 2, 5), true),
            (leader(1, 2, 5), false),
            (leader(1, 3, 4), false),
            (leader(1, 1, 6), true),
            (leader(1, 0, 7), false),
            (leader(1, 1 << 25, 7), false),
            (leader(1, 1, 1 << 41), false),
            (leader(2, 1, 9), false),
        ] {
            assert_eq!(leaders.heard(told), is_news, "{told:?}");
        }
        assert_eq!(leaders.leader(ShardId(1)), Some(leader(1, 1, 6)));
        assert_eq!((leaders.leader(ShardId(0)), leaders.changes()), (None, 2));
    }
}
