//! Links of one core to all storage nodes.

use super::following::{Following, Refused};
use super::known_nodes::{KnownNodes, News};
use super::link::{NodeFacts, NodeLink};
use super::link_io::{self, Pipe};
#[cfg(any(test, feature = "sim"))]
use super::simulated::SimWires;
use super::tls_pump::{LinkIdentity, LinkIdentityError};
use super::{Leads, StorageEvent};
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
    is_replicated: bool,
}

impl NodesPlan {
    /// Reads the certificates.
    pub fn new(config: &NodesConfig) -> Result<Self, NodesStartError> {
        let facts = |id| NodeFacts { id, shard_count: config.shard_count };
        Ok(Self {
            identity: LinkIdentity::new(config)?,
            nodes: config.nodes.iter().map(|node| (facts(node.id), node.address)).collect(),
            is_replicated: config.is_replicated(),
        })
    }
}

/// How connections come about.
enum Connector {
    /// By sockets, with this identity.
    Tls(LinkIdentity),
    /// As a simulation likes.
    #[cfg(any(test, feature = "sim"))]
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
            #[cfg(any(test, feature = "sim"))]
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
    /// `None`: shards have one copy, and no node leads in another one's place.
    following: Option<Following>,
    /// Something was queued on a link since the links had their turn.
    has_queued: bool,
}

impl Nodes {
    /// Links that connect in the first turns. To be turned inside the runtime of the loop that `wake` wakes.
    pub fn new(plan: NodesPlan, peer: GatewayPeer, wake: WakeHandle) -> Self {
        let nodes = Self::with_connector(Connector::Tls(plan.identity), plan.nodes, peer, wake);
        match plan.is_replicated {
            true => nodes,
            false => Self { following: None, ..nodes },
        }
    }

    /// Links to these nodes, whose connections a simulation makes.
    #[cfg(any(test, feature = "sim"))]
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

    /// The same, with links that speak these versions.
    #[cfg(feature = "sim")]
    pub(crate) fn speaking(mut self, versions: Versions) -> Self {
        self.versions = versions;
        let links = self.links.into_iter();
        self.links = links.map(|(link, address)| (link.speaking(versions), address)).collect();
        self
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
            following: Some(Following::new(shard_count)),
            has_queued: false,
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
        let (id, shard) = (request.id, ShardId(request.shard));
        if let Some(following) = &mut self.following
            && following.must_wait(shard, link)
        {
            return following.wait(&request);
        }
        let (to, _) = self.links.get_mut(usize::from(link.0)).expect("the router knows these links only");
        to.submit(request)?;
        if let Some(following) = &mut self.following {
            following.sent(id, shard, link);
        }
        Ok(())
    }

    pub(super) fn follow(&mut self, now_ms: u64, leads: Leads, events: &mut Vec<StorageEvent>) {
        if let Some(following) = &mut self.following {
            following.lead(now_ms, leads);
        }
        self.send_waiting(events);
    }

    pub(super) fn turn(&mut self, now_ms: u64, events: &mut Vec<StorageEvent>) {
        self.has_queued = false;
        let before = events.len();
        for (link, address) in &mut self.links {
            let node = link.node();
            link.turn(now_ms, events, || self.connector.connect(node, *address, &self.wake));
        }
        self.look_at_fleet(now_ms, events);
        let Some(following) = &mut self.following else { return self.tell_refused(events) };
        following.answered(&events[before..]);
        for (link, _) in &mut self.links {
            link.take_sent().for_each(|request| following.keep(&request));
            link.take_refused().for_each(|refused| following.refused(now_ms, refused, events));
        }
        give_back(following, &mut self.links, now_ms, events);
        following.end_waits(now_ms, events);
        self.send_waiting(events);
    }

    /// Of shards with one copy nothing is sent again: a node that does not lead one is not where the configuration says.
    fn tell_refused(&mut self, events: &mut Vec<StorageEvent>) {
        for (link, _) in &mut self.links {
            drop(link.take_sent());
            events.extend(link.take_refused().map(Refused::told));
        }
    }

    /// What waited goes on to the node that leads, as far as its link has room.
    fn send_waiting(&mut self, events: &mut Vec<StorageEvent>) {
        let Some(following) = &mut self.following else { return };
        for (shard, leader) in following.ready() {
            let Some((link, _)) = self.links.get_mut(usize::from(leader.0)) else { continue };
            while link.can_send() {
                let Some(request) = following.poll(shard, leader) else { break };
                let id = request.id;
                self.has_queued = true;
                if let Err(error) = link.submit(request) {
                    following.forget(id);
                    events.push(StorageEvent::Answered { id, result: Err(error) });
                }
            }
        }
    }

    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        let links = self.links.iter().filter_map(|(link, _)| link.next_deadline_ms());
        let following = self.following.as_ref().and_then(Following::next_deadline_ms);
        links.chain(following).chain(self.has_queued.then_some(0)).min()
    }

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn check_invariants(&self) {
        self.following.iter().for_each(Following::check_invariants);
    }

    pub(super) fn followed(&self) -> u64 {
        self.following.as_ref().map_or(0, Following::followed)
    }

    pub(super) fn waiting(&self) -> usize {
        self.following.as_ref().map_or(0, Following::waiting_count)
    }

    pub(super) fn is_up(&self, link: LinkIndex) -> bool {
        self.links.get(usize::from(link.0)).is_some_and(|(link, _)| link.is_up())
    }

    pub(super) fn links_up(&self) -> usize {
        self.links.iter().filter(|(link, _)| link.is_up()).count()
    }
}

/// Whoever waits for a shard at a node that leads it no more may wait for long: it may be cut off.
fn give_back(
    following: &mut Following,
    links: &mut [(NodeLink, SocketAddr)],
    now_ms: u64,
    events: &mut Vec<StorageEvent>,
) {
    while let Some((shard, leader)) = following.poll_last_word(now_ms) {
        let before = events.len();
        let others = links.iter_mut().zip(0..).filter(|(_, index)| LinkIndex(*index) != leader);
        others.for_each(|((link, _), _)| link.give_back(shard, events));
        following.answered(&events[before..]);
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
mod tests;
