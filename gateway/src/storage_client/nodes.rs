//! Links of one core to all storage nodes.

use super::StorageEvent;
use super::known_nodes::{KnownNodes, News};
use super::link::{NodeFacts, NodeLink};
use super::link_io::{self, Pipe};
#[cfg(feature = "sim")]
use super::simulated::SimWires;
use super::tls_pump::{LinkIdentity, LinkIdentityError};
use crate::config::NodesConfig;
use crate::router::LinkIndex;
use crate::worker::wake::WakeHandle;
use std::net::SocketAddr;
use std::rc::Rc;
use wire_protocol::error::RequestError;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{LinkHello, ShardRequest, link_hello};
use wire_protocol::link::Versions;

/// Why there are no links. The process does not start.
pub type NodesStartError = LinkIdentityError;

/// Whom the nodes see at the other end.
#[derive(Clone, Copy, Debug)]
pub struct GatewayPeer {
    /// From the configuration.
    pub gateway_id: u32,
    /// Made at random when the process started.
    pub incarnation: u64,
    /// Which loop.
    pub core: u32,
}

/// What the links of every core have in common: read once, before the loops start.
#[derive(Clone)]
pub struct NodesPlan {
    identity: LinkIdentity,
    nodes: Vec<(NodeFacts, SocketAddr)>,
}

impl NodesPlan {
    /// Reads the certificates.
    pub fn new(config: &NodesConfig) -> Result<Self, NodesStartError> {
        let facts = |id| NodeFacts { id, shard_count: config.shard_count };
        Ok(Self {
            identity: LinkIdentity::new(config)?,
            nodes: config.nodes.iter().map(|node| (facts(node.id), node.address)).collect(),
        })
    }
}

/// How connections come about.
enum Connector {
    /// By sockets, with this identity.
    Tls(LinkIdentity),
    /// As a simulation likes.
    #[cfg(feature = "sim")]
    Simulated(SimWires),
}

impl Connector {
    fn connect(&self, node: u32, address: SocketAddr, wake: &WakeHandle) -> Rc<Pipe> {
        tracing::debug!(node, "connecting");
        let pipe = Pipe::new(wake.clone());
        match self {
            Self::Tls(identity) => {
                monoio::spawn(link_io::run(address, identity.clone(), pipe.clone()));
            }
            #[cfg(feature = "sim")]
            Self::Simulated(wires) => wires.ask(node, pipe.clone()),
        }
        pipe
    }
}

/// Links of one core to all storage nodes, in the order of the configuration, then as the fleet got them.
pub struct Nodes {
    connector: Connector,
    wake: WakeHandle,
    peer: GatewayPeer,
    versions: Versions,
    shard_count: u32,
    known: Rc<KnownNodes>,
    links: Vec<(NodeLink, SocketAddr)>,
}

impl Nodes {
    /// Links that connect in the first turns. To be turned inside the runtime of the loop that `wake` wakes.
    pub fn new(plan: NodesPlan, peer: GatewayPeer, wake: WakeHandle) -> Self {
        Self::with_connector(Connector::Tls(plan.identity), plan.nodes, peer, wake)
    }

    /// Links to these nodes, whose connections a simulation makes.
    #[cfg(feature = "sim")]
    pub(crate) fn simulated(
        nodes: &[u32],
        shard_count: u32,
        peer: GatewayPeer,
        wires: SimWires,
        wake: WakeHandle,
    ) -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let nodes = nodes.iter().map(|&id| (NodeFacts { id, shard_count }, nowhere)).collect();
        Self::with_connector(Connector::Simulated(wires), nodes, peer, wake)
    }

    fn with_connector(
        connector: Connector,
        nodes: Vec<(NodeFacts, SocketAddr)>,
        peer: GatewayPeer,
        wake: WakeHandle,
    ) -> Self {
        let versions = Versions::up_to(std::env::var(Versions::TEST_VARIABLE).ok().as_deref());
        let known = Rc::new(KnownNodes::new(nodes.iter().map(|(node, _)| node.id)));
        let shard_count = nodes.first().map_or(0, |(node, _)| node.shard_count);
        let mut opened = Self {
            connector,
            wake,
            peer,
            versions,
            shard_count,
            known,
            links: Vec::with_capacity(nodes.len()),
        };
        nodes.into_iter().for_each(|(node, address)| opened.add(node.id, address));
        opened
    }

    /// The next link.
    fn add(&mut self, id: u32, address: SocketAddr) {
        let node = NodeFacts { id, shard_count: self.shard_count };
        let seed = self.peer.incarnation.rotate_left(self.peer.core) ^ u64::from(id) << 17;
        let index = LinkIndex(self.links.len() as u16);
        let link = NodeLink::new(index, node, Rc::clone(&self.known), hello(self.peer), seed);
        self.links.push((link.speaking(self.versions), address));
    }

    /// Follows the fleet, if a node told of a new one.
    fn look_at_fleet(&mut self, now_ms: u64, events: &mut Vec<StorageEvent>) {
        let News { new, gone } = self.known.take_news();
        for (id, address) in new {
            tracing::info!(node = id, %address, "a new storage node");
            self.add(id, address);
        }
        for index in gone {
            if let Some((link, _)) = self.links.get_mut(usize::from(index.0)) {
                link.end(now_ms, events);
            }
        }
    }

    pub(super) fn submit(&mut self, link: LinkIndex, request: ShardRequest) -> Result<(), RequestError> {
        let (link, _) = self.links.get_mut(usize::from(link.0)).expect("the router knows these links only");
        link.submit(request)
    }

    pub(super) fn follow(&mut self, shard: ShardId, leader: LinkIndex, events: &mut Vec<StorageEvent>) {
        let others = self.links.iter_mut().zip(0..).filter(|(_, index)| LinkIndex(*index) != leader);
        others.for_each(|((link, _), _)| link.give_back(shard, events));
    }

    pub(super) fn turn(&mut self, now_ms: u64, events: &mut Vec<StorageEvent>) {
        for (link, address) in &mut self.links {
            let node = link.node();
            link.turn(now_ms, events, || self.connector.connect(node, *address, &self.wake));
        }
        self.look_at_fleet(now_ms, events);
    }

    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        self.links.iter().filter_map(|(link, _)| link.next_deadline_ms()).min()
    }

    pub(super) fn is_up(&self, link: LinkIndex) -> bool {
        self.links.get(usize::from(link.0)).is_some_and(|(link, _)| link.is_up())
    }

    pub(super) fn links_up(&self) -> usize {
        self.links.iter().filter(|(link, _)| link.is_up()).count()
    }
}

fn hello(peer: GatewayPeer) -> LinkHello {
    LinkHello {
        role: link_hello::Role::Gateway as i32,
        peer_id: peer.gateway_id,
        incarnation: peer.incarnation,
        core: peer.core,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_of_every_life_of_a_gateway_has_a_name_of_its_own() {
        // What storage delivers to a name reaches one core: two of one name would steal from each other.
        let peer = |gateway_id, incarnation, core| hello(GatewayPeer { gateway_id, incarnation, core });
        let names = [peer(1, 7, 0), peer(1, 7, 1), peer(1, 8, 0), peer(2, 7, 0)];
        for (place, name) in names.iter().enumerate() {
            assert!(!names[..place].contains(name), "{name:?}");
            assert_eq!(name.role(), link_hello::Role::Gateway);
        }
    }
}
