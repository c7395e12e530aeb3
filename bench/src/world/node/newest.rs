//! Which link of another node's core is its newest: what the tasks of `server/links.rs` ask `server/newest.rs`. Such a core has
//! one link at a time: what still comes over one of before was given up by it, is old, and ends that one.

use crate::world::network::ConnectionId;
use std::collections::BTreeMap;
use storage_node::sim::SimFounding;
use wire_protocol::internal::link_hello;
use wire_protocol::link::ServingEvent;

/// A core of another node: the node's id and the core's number.
pub(super) type PeerCore = (u32, u32);

/// By core: the link that has said hello last. What is kept of cores that have no link any more is asked by nobody.
#[derive(Default)]
pub(super) struct NewestLinks(BTreeMap<PeerCore, ConnectionId>);

impl NewestLinks {
    /// Whether this counts that came over a link. `peer`: whose the link is, from its hello on.
    pub fn counts(&mut self, id: ConnectionId, peer: &mut Option<PeerCore>, event: &ServingEvent) -> bool {
        if let ServingEvent::Hello(hello) = event
            && hello.role() == link_hello::Role::Storage
            && !SimFounding::is_question(hello)
            && peer.is_none()
        {
            let of = *peer.insert((hello.peer_id, hello.core));
            self.0.insert(of, id);
        }
        peer.is_none_or(|of| self.0.get(&of) == Some(&id))
    }
}
