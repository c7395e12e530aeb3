//! Names of links, and of the requests that came over them.

use wire_protocol::internal::{SessionAddress, link_hello};

/// One link of one core: a gateway core, or a core of another storage node. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct LinkId {
    pub(super) core: u32,
    pub(super) number: u64,
}

impl LinkId {
    /// The core that owns the link.
    pub(crate) fn core(self) -> usize {
        self.core as usize
    }

    #[cfg(test)]
    pub(crate) fn of_test(core: u32, number: u64) -> Self {
        Self { core, number }
    }
}

/// Who is at the other end of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkPeer {
    /// Gateway or storage node.
    pub role: link_hello::Role,
    /// The peer's id, from its configuration.
    pub peer_id: u32,
    /// Made at random when the peer's process started.
    pub incarnation: u64,
    /// The core of the peer that owns the link.
    pub core: u32,
}

/// A request that waits for its answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Origin {
    pub link: LinkId,
    pub request_id: u64,
}

/// A session of a link's gateway core.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct SessionKey {
    pub link: LinkId,
    pub slot: u32,
    pub generation: u32,
}

impl SessionKey {
    pub(crate) fn new(link: LinkId, address: SessionAddress) -> Self {
        Self { link, slot: address.slot, generation: address.generation }
    }

    pub(crate) fn address(self) -> SessionAddress {
        SessionAddress { slot: self.slot, generation: self.generation }
    }
}
