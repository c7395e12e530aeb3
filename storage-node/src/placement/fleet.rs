//! The fleet as a node knows it: which nodes there are, where replicas are, and what is to be moved. Shard 0 keeps it
//! (`domain/fleet.rs`); nodes tell it to everybody who has a link to them.

use super::leaders::NODE_MAX;
use super::{OtherNode, SpreadNode};
use crate::config::StorageConfig;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{Fleet, FleetNode, ShardPlace};

/// Moves of the list that are under way at once: each sends a whole shard over a network that users need, too.
pub const MOVES_AT_ONCE: usize = 2;
/// Nodes of a fleet: as many links has each of them.
pub const FLEET_NODES_MAX: usize = 256;

/// The newest fleet that this node has heard of.
#[derive(Debug)]
pub struct KnownFleet {
    changes: AtomicU64,
    fleet: RwLock<(Arc<Fleet>, Heard)>,
}

/// How a node came to a fleet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// From its configuration alone: nodes that it may ask. Any fleet that another one tells of is news.
    Never,
    /// It is a fleet, or was.
    Once,
}

impl KnownFleet {
    /// As stored, or as configured.
    pub fn new(fleet: Fleet, heard: Heard) -> Self {
        Self { changes: AtomicU64::new(1), fleet: RwLock::new((Arc::new(fleet), heard)) }
    }

    /// The newest one.
    pub fn get(&self) -> Arc<Fleet> {
        Arc::clone(&self.fleet.read().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Whether others may be told of it.
    pub fn is_heard(&self) -> bool {
        self.fleet.read().unwrap_or_else(PoisonError::into_inner).1 == Heard::Once
    }

    /// Moves with every change; never 0.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Takes what was heard. True: it is news.
    pub fn learn(&self, fleet: Fleet) -> bool {
        if !is_sound(&fleet) {
            return false;
        }
        let mut known = self.fleet.write().unwrap_or_else(PoisonError::into_inner);
        let is_news = known.1 == Heard::Never || known.0.epoch < fleet.epoch;
        if is_news {
            *known = (Arc::new(fleet), Heard::Once);
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
        is_news
    }
}

/// Whether a fleet could be one: what is made of it indexes by these numbers.
fn is_sound(fleet: &Fleet) -> bool {
    let ids: Vec<u32> = fleet.nodes.iter().map(|node| node.id).collect();
    let is_known = |node: &u32| ids.contains(node);
    let shards = fleet.shards.len() as u32;
    (1..=FLEET_NODES_MAX).contains(&ids.len())
        && ids.is_sorted_by(|one, next| one < next)
        && ids.iter().all(|id| (1..=NODE_MAX).contains(&u64::from(*id)))
        && fleet
            .moves
            .iter()
            .all(|to| to.shard < shards && !to.nodes.is_empty() && to.nodes.iter().all(is_known))
        && fleet.nodes.iter().all(|node| node.address.parse::<std::net::SocketAddr>().is_ok())
}

/// The fleet of a configuration before anything was changed. `copies`: of each shard, the preferred leader first.
pub fn first_fleet(config: &StorageConfig, copies: &[Vec<u32>]) -> Fleet {
    let mut nodes: Vec<FleetNode> = config
        .nodes
        .iter()
        .map(|node| FleetNode {
            id: node.id,
            address: node.address.to_string(),
            zone: node.zone.clone(),
            is_leaving: false,
        })
        .collect();
    nodes.sort_by_key(|node| node.id);
    let shards = copies.iter().map(|nodes| ShardPlace { nodes: nodes.clone(), changed_at: 0 }).collect();
    Fleet { epoch: 0, replicas: config.replicas, nodes, shards, moves: Vec::new(), retired: Vec::new() }
}

/// All nodes but this one. What is no address is left out.
pub fn other_nodes(fleet: &Fleet, own: u32) -> Vec<OtherNode> {
    let others = fleet.nodes.iter().filter(|node| node.id != own);
    others.filter_map(|node| Some(OtherNode { id: node.id, address: node.address.parse().ok()? })).collect()
}

/// All nodes, and where each stands.
pub fn nodes_with_zones(fleet: &Fleet) -> Vec<SpreadNode> {
    fleet.nodes.iter().map(|node| SpreadNode { id: node.id, zone: node.zone.clone() }).collect()
}

/// Nodes that may get replicas.
pub(super) fn staying(fleet: &Fleet) -> Vec<SpreadNode> {
    let goes = |id| fleet.nodes.iter().any(|node| node.id == id && node.is_leaving);
    nodes_with_zones(fleet).into_iter().filter(|node| !goes(node.id)).collect()
}

/// Where the replicas of a shard are to be, if that is being changed now.
pub fn goal(fleet: &Fleet, shard: ShardId) -> Option<&[u32]> {
    let mut under_way = fleet.moves.iter().take(MOVES_AT_ONCE);
    under_way.find(|to| to.shard == shard.0).map(|to| to.nodes.as_slice())
}

#[cfg(test)]
mod tests {
    use super::super::moves::tests::fleet;
    use super::*;
    use wire_protocol::internal::ShardMove;

    #[test]
    fn only_a_newer_fleet_that_fits_is_news() {
        let known = KnownFleet::new(fleet(3, 2), Heard::Once);
        assert_eq!(known.changes(), 1);
        let next = |epoch| Fleet { epoch, ..fleet(4, 2) };
        assert!(!known.learn(next(0)), "the same epoch");
        assert!(known.learn(next(2)));
        assert!(!known.learn(next(1)));
        assert_eq!((known.get().nodes.len(), known.changes()), (4, 2));
        let nowhere = ShardMove { shard: 2, nodes: vec![1] };
        let stranger = ShardMove { shard: 1, nodes: vec![9] };
        for wrong in [
            Fleet { nodes: Vec::new(), ..next(5) },
            Fleet { moves: vec![nowhere], ..next(5) },
            Fleet { moves: vec![stranger], ..next(5) },
        ] {
            assert!(!known.learn(wrong.clone()), "{wrong:?}");
        }
        let mut twice = next(5);
        twice.nodes[1].id = 1;
        assert!(!known.learn(twice));
    }

    #[test]
    fn one_that_joins_takes_the_first_fleet_that_it_hears_of() {
        let known = KnownFleet::new(fleet(4, 2), Heard::Never);
        assert!(!known.is_heard() && known.learn(fleet(3, 2)) && known.is_heard());
        assert!(!known.learn(fleet(4, 2)));
        assert_eq!(known.get().nodes.len(), 3);
    }

    #[test]
    fn the_first_moves_of_the_list_are_under_way() {
        let mut fleet = fleet(4, 4);
        fleet.moves = (0..4).map(|shard| ShardMove { shard, nodes: vec![2, 3, 4] }).collect();
        let under_way: Vec<bool> = (0..4).map(|shard| goal(&fleet, ShardId(shard)).is_some()).collect();
        assert_eq!(under_way, [true, true, false, false]);
    }
}
