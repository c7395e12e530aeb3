//! Which core of this node runs a shard, and, where there is one copy of each, which node holds it: plain tables, from
//! the configuration, that never change while the process runs. Where shards have several copies, every node has a place
//! for each shard; who holds one is in the [`fleet`], who leads in [`Leaders`]. Nothing here knows what a shard does.

mod balance;
pub mod fleet;
mod leaders;
pub mod moves;
mod planner;
mod spread;

pub use balance::{
    Astray, Balance, CALM_MS, HAND_OVERS_APART_MS, HANDED_OVER_MS_MAX, LEFT_ALONE_DOUBLINGS_MAX,
    LEFT_ALONE_MS, Pace,
};
pub use leaders::Leaders;
pub use spread::{SpreadNode, spans_zones, spread};

use crate::config::{Beginning, ConfigError, StorageConfig};
use crate::replication::Replicas;
use std::net::SocketAddr;
use wire_protocol::ids::ShardId;

/// Copies of a shard that a fleet may have.
const REPLICAS_ALLOWED: [u32; 3] = [1, 3, 5];

/// Where a shard is, seen from one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// On this core of this node.
    Core(usize),
    /// On another node alone.
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

/// Shard → nodes → core.
#[derive(Clone, Debug)]
pub struct ShardMap {
    own: u32,
    /// Copies of each shard before any was moved, the preferred leader first.
    copies: Vec<Vec<u32>>,
    is_replicated: bool,
    places: Vec<Place>,
    others: Vec<OtherNode>,
}

impl ShardMap {
    /// With one copy every shard must belong to exactly one node; with more, the copies are spread over the nodes, or are
    /// to grow from the one that the nodes list. This node must be among the nodes. Shards are dealt out to the cores in
    /// turn.
    pub fn new(config: &StorageConfig, cores: usize) -> Result<Self, ConfigError> {
        assert!(cores > 0, "a node has at least one core");
        let invalid = |text: String| Err(ConfigError::Invalid(text));
        for node in &config.nodes {
            if config.nodes.iter().filter(|other| other.id == node.id).count() != 1 {
                return invalid(format!("node {} is listed twice", node.id));
            }
            if node.id == 0 {
                return invalid("node 0: ids begin at 1".to_owned());
            }
        }
        if !config.nodes.is_empty() && config.nodes.iter().all(|node| node.id != config.node_id) {
            return invalid(format!("node_id {} is not exactly once among the nodes", config.node_id));
        }
        let is_replicated = config.replicas > 1;
        let copies = if is_replicated { first_copies(config)? } else { owners(config)? };
        let mut own = 0;
        let mut places = Vec::with_capacity(copies.len());
        for holders in &copies {
            places.push(if is_replicated || holders.contains(&config.node_id) {
                own += 1;
                Place::Core((own - 1) % cores)
            } else {
                Place::Node(holders[0])
            });
        }
        let others = config.nodes.iter().filter(|node| node.id != config.node_id);
        let others = others.map(|node| OtherNode { id: node.id, address: node.address }).collect();
        Ok(Self { own: config.node_id, copies, is_replicated, places, others })
    }

    /// Who held copies of a shard before any was moved.
    pub fn first_replicas(&self, shard: ShardId) -> Replicas {
        Replicas::of(self.own, &self.copies[shard.0 as usize])
    }

    /// The copies of all shards before any was moved, the preferred leader first.
    pub fn first_copies(&self) -> &[Vec<u32>] {
        &self.copies
    }

    /// Whether shards have, or may get, more than one copy: then their leaders change.
    pub fn is_replicated(&self) -> bool {
        self.is_replicated
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

    /// Shards that have a place on this node: all of them, where copies may come.
    pub fn own_shards(&self) -> Vec<ShardId> {
        self.shards().filter(|shard| matches!(self.place(*shard), Some(Place::Core(_)))).collect()
    }

    /// Shards of one core of this node.
    pub fn shards_of_core(&self, core: usize) -> Vec<ShardId> {
        self.shards().filter(|shard| self.place(*shard) == Some(Place::Core(core))).collect()
    }

    /// Shards that another node alone holds, or held copies of before any was moved.
    pub fn shards_of_node(&self, node: u32) -> Vec<ShardId> {
        self.shards().filter(|shard| self.copies[shard.0 as usize].contains(&node)).collect()
    }

    /// All storage nodes of the fleet, ascending.
    pub fn nodes(&self) -> Vec<u32> {
        let mut nodes: Vec<u32> = self.others.iter().map(|other| other.id).chain([self.own]).collect();
        nodes.sort_unstable();
        nodes
    }

    /// The other storage nodes of the configuration.
    pub fn others(&self) -> &[OtherNode] {
        &self.others
    }
}

/// The one owner of each shard.
fn owners(config: &StorageConfig) -> Result<Vec<Vec<u32>>, ConfigError> {
    let invalid = |text: String| Err(ConfigError::Invalid(text));
    let mut owners: Vec<Option<u32>> = vec![None; config.shard_count as usize];
    if config.nodes.is_empty() {
        owners.fill(Some(config.node_id));
    }
    for node in &config.nodes {
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
    match owners.iter().position(Option::is_none) {
        Some(shard) => invalid(format!("shard {shard} belongs to no node")),
        None => Ok(owners.into_iter().flatten().map(|owner| vec![owner]).collect()),
    }
}

fn first_copies(config: &StorageConfig) -> Result<Vec<Vec<u32>>, ConfigError> {
    let replicas = config.replicas;
    let invalid = |text: String| Err(ConfigError::Invalid(text));
    if !REPLICAS_ALLOWED.contains(&replicas) {
        return invalid(format!("replicas {replicas} is none of {REPLICAS_ALLOWED:?}"));
    }
    if config.nodes.iter().any(|node| !node.shards.is_empty()) {
        return owners(config);
    }
    let is_new = config.beginning == Beginning::NewFleet;
    if config.nodes.is_empty() || (is_new && config.nodes.len() < replicas as usize) {
        return invalid(format!(
            "{replicas} replicas need as many nodes, not {}, or one node for each shard, which lists it, to begin with",
            config.nodes.len()
        ));
    }
    let nodes: Vec<SpreadNode> =
        config.nodes.iter().map(|node| SpreadNode { id: node.id, zone: node.zone.clone() }).collect();
    // What a node that joined lists are those that it may ask; where copies are it hears from them.
    let copies = (replicas as usize).min(nodes.len());
    Ok(spread(config.shard_count, &nodes, copies))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NodeConfig;

    fn node(id: u32, shards: &[u32]) -> NodeConfig {
        let address = ([127, 0, 0, 1], 1).into();
        NodeConfig { id, address, shards: shards.to_vec(), zone: String::new() }
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

    #[test]
    fn copies_are_where_all_nodes_say_they_are() {
        let nodes: Vec<NodeConfig> = (1..=4).map(|id| node(id, &[])).collect();
        let maps: Vec<ShardMap> = (1..=4)
            .map(|node_id| StorageConfig { node_id, replicas: 3, ..config(nodes.clone()) })
            .map(|config| ShardMap::new(&config, 2).expect("fits"))
            .collect();
        for shard in maps[0].shards() {
            let Replicas { set, preferred, .. } = maps[0].first_replicas(shard);
            assert!(set.voters.len() == 3 && set.voters.is_sorted() && set.voters.contains(&preferred));
            for (map, own) in maps.iter().zip(1..) {
                assert!(matches!(map.place(shard), Some(Place::Core(_))), "there is room for a copy");
                assert_eq!(map.first_replicas(shard), Replicas { own, set: set.clone(), preferred });
                assert!(map.is_replicated());
            }
        }
    }

    #[test]
    fn copies_grow_from_the_one_that_nodes_list() {
        let config = StorageConfig { replicas: 3, ..config(vec![node(1, &[0, 1, 2, 3])]) };
        let map = ShardMap::new(&config, 1).expect("fits");
        assert_eq!(map.first_replicas(ShardId(2)), Replicas::alone(1));
        assert!(map.is_replicated());
    }

    #[test]
    fn copies_that_cannot_be_are_refused() {
        let nodes = |count: u32| (1..=count).map(|id| node(id, &[])).collect::<Vec<_>>();
        let mut listed = nodes(3);
        listed[1].shards = vec![1];
        for (replicas, nodes, culprit) in [
            (2, nodes(3), "replicas 2"),
            (3, nodes(2), "as many nodes"),
            (3, nodes(0), "as many nodes"),
            (3, listed, "shard 0 belongs to no node"),
            (3, vec![node(0, &[]), node(1, &[]), node(2, &[])], "ids begin at 1"),
        ] {
            let config = StorageConfig { replicas, beginning: Beginning::NewFleet, ..config(nodes) };
            let error = ShardMap::new(&config, 1).expect_err(culprit).to_string();
            assert!(error.contains(culprit), "{error}");
        }
    }
}
