//! Which node owns a shard, and which core of this node runs it. A plain table, from the configuration, that
//! never changes while the process runs; nothing here knows what a shard does.

use crate::config::{ConfigError, StorageConfig};
use std::net::SocketAddr;
use wire_protocol::ids::ShardId;

/// Where a shard is, seen from one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// On this core of this node.
    Core(usize),
    /// On another node.
    Node(u32),
}

/// Another storage node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OtherNode {
    /// Its id.
    pub id: u32,
    /// Where it accepts links.
    pub address: SocketAddr,
}

/// Shard → node → core.
#[derive(Clone, Debug)]
pub struct ShardMap {
    places: Vec<Place>,
    others: Vec<OtherNode>,
}

impl ShardMap {
    /// Every shard must belong to exactly one node, and this node must be among the nodes. Shards of this node
    /// are dealt out to its cores in turn.
    pub fn new(config: &StorageConfig, cores: usize) -> Result<Self, ConfigError> {
        assert!(cores > 0, "a node has at least one core");
        let invalid = |text: String| Err(ConfigError::Invalid(text));
        let mut owners: Vec<Option<u32>> = vec![None; config.shard_count as usize];
        if config.nodes.is_empty() {
            owners.fill(Some(config.node_id));
        } else if config.nodes.iter().filter(|node| node.id == config.node_id).count() != 1 {
            return invalid(format!("node_id {} is not exactly once among the nodes", config.node_id));
        }
        for node in &config.nodes {
            if config.nodes.iter().filter(|other| other.id == node.id).count() != 1 {
                return invalid(format!("node {} is listed twice", node.id));
            }
            for &shard in &node.shards {
                match owners.get_mut(shard as usize) {
                    Some(owner @ None) => *owner = Some(node.id),
                    Some(Some(owner)) => {
                        return invalid(format!("shard {shard} belongs to nodes {owner} and {}", node.id));
                    }
                    None => return invalid(format!("shard {shard} of {}", config.shard_count)),
                }
            }
        }
        let mut own = 0;
        let mut places = Vec::with_capacity(owners.len());
        for (shard, owner) in owners.into_iter().enumerate() {
            places.push(match owner {
                None => return invalid(format!("shard {shard} belongs to no node")),
                Some(owner) if owner == config.node_id => {
                    own += 1;
                    Place::Core((own - 1) % cores)
                }
                Some(owner) => Place::Node(owner),
            });
        }
        let others = config.nodes.iter().filter(|node| node.id != config.node_id);
        let others = others.map(|node| OtherNode { id: node.id, address: node.address }).collect();
        Ok(Self { places, others })
    }

    /// Where the shard is; `None` if there is no such shard.
    pub fn place(&self, shard: ShardId) -> Option<Place> {
        self.places.get(shard.0 as usize).copied()
    }

    /// Shards of the whole fleet.
    pub fn shard_count(&self) -> u32 {
        self.places.len() as u32
    }

    /// Every shard of the fleet.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shard_count()).map(ShardId)
    }

    /// Shards of this node.
    pub fn own_shards(&self) -> Vec<ShardId> {
        self.shards().filter(|shard| matches!(self.place(*shard), Some(Place::Core(_)))).collect()
    }

    /// Shards of one core of this node.
    pub fn shards_of_core(&self, core: usize) -> Vec<ShardId> {
        self.shards().filter(|shard| self.place(*shard) == Some(Place::Core(core))).collect()
    }

    /// Shards of another node.
    pub fn shards_of_node(&self, node: u32) -> Vec<ShardId> {
        self.shards().filter(|shard| self.place(*shard) == Some(Place::Node(node))).collect()
    }

    /// The other storage nodes.
    pub fn others(&self) -> &[OtherNode] {
        &self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NodeConfig;

    fn node(id: u32, shards: &[u32]) -> NodeConfig {
        NodeConfig { id, address: ([127, 0, 0, 1], 1).into(), shards: shards.to_vec() }
    }

    fn config(nodes: Vec<NodeConfig>) -> StorageConfig {
        StorageConfig { shard_count: 4, nodes, ..StorageConfig::default() }
    }

    #[test]
    fn shards_are_dealt_to_nodes_and_cores() {
        let map = ShardMap::new(&config(vec![node(1, &[0, 2, 3]), node(2, &[1])]), 2).expect("fits");
        let places: Vec<_> = map.shards().filter_map(|shard| map.place(shard)).collect();
        assert_eq!(places, [Place::Core(0), Place::Node(2), Place::Core(1), Place::Core(0)]);
        assert_eq!(map.shards_of_node(2), [ShardId(1)]);
        assert_eq!(map.shards_of_core(0), [ShardId(0), ShardId(3)]);
        assert_eq!(map.place(ShardId(4)), None);
        let alone = ShardMap::new(&config(Vec::new()), 3).expect("fits");
        assert_eq!(alone.own_shards().len(), 4);
    }

    #[test]
    fn holes_overlaps_and_strangers_are_refused() {
        for nodes in [
            vec![node(1, &[0, 1, 2])],
            vec![node(1, &[0, 1, 2, 3]), node(2, &[3])],
            vec![node(1, &[0, 1, 2, 3, 4])],
            vec![node(2, &[0, 1, 2, 3])],
            vec![node(1, &[0, 1]), node(1, &[2, 3])],
            vec![node(1, &[0, 1]), node(2, &[2]), node(2, &[3])],
        ] {
            assert!(ShardMap::new(&config(nodes.clone()), 1).is_err(), "{nodes:?}");
        }
    }
}
