//! Storage, as one core of the gateway sees it: links that take requests and give answers and deliveries.
//!
//! Embedded there is one link, to the node on this very loop ([`embedded`]). Otherwise there is one to each
//! storage node ([`nodes`]), over mutual TLS. Either way a request that was taken gets exactly one answer: the
//! shard's, or UNAVAILABLE when its link is lost, or nobody is found in time who leads the shard. What a node refuses
//! because another one leads the shard goes on to that one by itself (`following`). It knows nothing of sessions; the
//! worker keeps what waits.

pub mod embedded;
pub mod nodes;
mod following;
mod known_nodes;
mod link;
mod link_io;
mod refusal;
mod tls_pump;
#[cfg(any(test, feature = "sim"))]
pub mod simulated;
#[cfg(test)]
pub(crate) mod fake;

pub use nodes::{Nodes, NodesStartError};

use crate::router::LinkIndex;
use crate::worker::mailbox::StorageResult;
use embedded::EmbeddedCore;
use wire_protocol::error::RequestError;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{Delivery, ShardRequest};

/// What links report.
#[derive(Debug)]
pub enum StorageEvent {
    /// The answer to a request, or why there is none.
    Answered {
        /// The request's id.
        id: u64,
        /// Never a `ShardError`: those have become errors.
        result: StorageResult,
    },
    /// Something for sessions of this core.
    Delivered {
        /// Over which link.
        link: LinkIndex,
        /// What.
        delivery: Delivery,
    },
    /// The link is open again, to a node that has forgotten our sessions.
    LinkUp(LinkIndex),
    /// The link is gone. What was unanswered was answered as unavailable before.
    LinkDown(LinkIndex),
    /// The node behind a link leads a shard, as some node says.
    Leader {
        /// The leader's link.
        link: LinkIndex,
        /// Which shard.
        shard: ShardId,
        /// Since when: terms of a shard grow.
        term: u64,
    },
}

/// The node behind a link leads a shard.
#[derive(Clone, Copy, Debug)]
pub struct Leads {
    /// The leader's link.
    pub link: LinkIndex,
    /// Which shard.
    pub shard: ShardId,
    /// Since when.
    pub term: u64,
}

/// The links of one core.
pub enum StorageClient {
    /// To the node of this process.
    Embedded(Box<EmbeddedCore>),
    /// To storage nodes.
    Nodes(Box<Nodes>),
    /// To a test.
    #[cfg(test)]
    Fake(fake::SharedLink),
}

impl StorageClient {
    /// Takes a request, or says at once why not.
    pub fn submit(&mut self, link: LinkIndex, request: ShardRequest) -> Result<(), RequestError> {
        match self {
            StorageClient::Embedded(core) => core.submit(request),
            StorageClient::Nodes(nodes) => nodes.submit(link, request),
            #[cfg(test)]
            StorageClient::Fake(fake) => fake.borrow_mut().submit(request),
        }
    }

    /// Another node leads a shard now. Requests that wait for it go there; what others do not answer soon is answered as
    /// unavailable. Of the events only answers are among these.
    pub fn follow(&mut self, now_ms: u64, leads: Leads, events: &mut Vec<StorageEvent>) {
        match self {
            // It has no copies elsewhere.
            StorageClient::Embedded(_) => {}
            StorageClient::Nodes(nodes) => nodes.follow(now_ms, leads, events),
            #[cfg(test)]
            StorageClient::Fake(_) => {}
        }
    }

    /// Moves requests on and collects what came back.
    pub fn turn(&mut self, now_ms: u64, events: &mut Vec<StorageEvent>) {
        match self {
            StorageClient::Embedded(core) => core.turn(now_ms, events),
            StorageClient::Nodes(nodes) => nodes.turn(now_ms, events),
            #[cfg(test)]
            StorageClient::Fake(fake) => events.append(&mut fake.borrow_mut().events),
        }
    }

    /// When [`Self::turn`] is due even if nothing happens.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        match self {
            StorageClient::Embedded(core) => core.next_deadline_ms(),
            StorageClient::Nodes(nodes) => nodes.next_deadline_ms(),
            #[cfg(test)]
            StorageClient::Fake(_) => None,
        }
    }

    /// Whether the link is open.
    pub fn is_up(&self, link: LinkIndex) -> bool {
        match self {
            StorageClient::Embedded(_) => true,
            StorageClient::Nodes(nodes) => nodes.is_up(link),
            #[cfg(test)]
            StorageClient::Fake(fake) => !fake.borrow().is_down,
        }
    }

    /// Links that are open.
    pub fn links_up(&self) -> usize {
        match self {
            StorageClient::Embedded(core) => usize::from(core.is_serving()),
            StorageClient::Nodes(nodes) => nodes.links_up(),
            #[cfg(test)]
            StorageClient::Fake(fake) => usize::from(!fake.borrow().is_down),
        }
    }

    /// Requests that were sent again to the node that leads, ever.
    pub fn followed(&self) -> u64 {
        match self {
            StorageClient::Embedded(_) => 0,
            StorageClient::Nodes(nodes) => nodes.followed(),
            #[cfg(test)]
            StorageClient::Fake(_) => 0,
        }
    }

    /// Requests that wait to be sent to the node that leads.
    pub fn waiting(&self) -> usize {
        match self {
            StorageClient::Embedded(_) => 0,
            StorageClient::Nodes(nodes) => nodes.waiting(),
            #[cfg(test)]
            StorageClient::Fake(_) => 0,
        }
    }

    /// What is counted of requests that may be sent again is what there is of them. Only a simulation has the time to look.
    #[cfg(feature = "sim")]
    pub(crate) fn check_invariants(&self) {
        if let StorageClient::Nodes(nodes) = self {
            nodes.check_invariants();
        }
    }

    /// Why storage cannot go on in this process; the process ends then.
    pub fn failure(&self) -> Option<String> {
        match self {
            StorageClient::Embedded(core) => core.failure(),
            StorageClient::Nodes(_) => None,
            #[cfg(test)]
            StorageClient::Fake(_) => None,
        }
    }
}
