//! The link of a gateway core, or of a storage node, to a storage node: both halves as state machines over
//! whole frames.
//!
//! ```text
//! caller:   New ──poll: hello──▶ HelloSent ──welcome──▶ Open
//! serving:  Hello ──hello──▶ Open (its first frame carries the welcome)
//! ```
//!
//! They agree on the highest version that both speak, or the serving half tells its own and the link ends. They batch items into frames of about `LINK_BATCH_BYTES`, bound what is unanswered by
//! credits and what is queued by bytes, and notice a dead peer. They know nothing of what a request means, and
//! touch no socket: a driver gives them decoded frames and the time, sends what `poll_frame` yields through
//! `frame::encode_message`, and polls no further while its own socket buffer is full.
//!
//! After a fault, or a lost connection, the driver makes a new half. Requests that `CallerLink::lost` names
//! have an unknown fate; their owner answers them as unavailable, and the client's repeat finds out.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

mod caller;
mod serving;
mod queue;

pub use caller::{CallerEvent, CallerLink};
pub use serving::{DeliveryFate, ServingEvent, ServingLink};

use crate::limits::{LINK_VERSION, LINK_VERSION_MIN};
use crate::session::negotiate;
use bytes::Bytes;
use std::fmt;

#[cfg(test)]
mod pair_tests;
#[cfg(test)]
mod tests;

/// Why an item was not taken. Nothing of it is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LinkFull {
    /// No welcome yet.
    #[error("the link is not open")]
    NotReady,
    /// As many requests as the peer allows are unanswered.
    #[error("the link has no credit left")]
    Credits,
    /// `LINK_QUEUE_BYTES_MAX` bytes wait already.
    #[error("the link's queue is full")]
    Bytes,
    /// The item alone is above `LINK_ITEM_BYTES_MAX`.
    #[error("larger than a link item may be")]
    ItemTooLarge,
}

/// Versions that one side speaks, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions {
    /// The lowest.
    pub min: u32,
    /// The highest.
    pub max: u32,
}

impl Versions {
    /// What this code speaks.
    pub const OURS: Self = Self { min: LINK_VERSION_MIN, max: LINK_VERSION };

    /// For fleets of two releases in tests: a process whose environment has this variable speaks no link version above
    /// its value, as the release before it did.
    pub const TEST_VARIABLE: &str = "RINGLINE_LINK_VERSION_MAX";

    /// [`Self::OURS`], but none above the one that [`Self::TEST_VARIABLE`] was found to have.
    pub fn up_to(max: Option<&str>) -> Self {
        let max = max.and_then(|text| text.parse().ok()).unwrap_or(LINK_VERSION);
        Self { min: LINK_VERSION_MIN, max: max.clamp(LINK_VERSION_MIN, LINK_VERSION) }
    }

    /// The highest version that both speak.
    pub fn common(self, theirs: Self) -> Result<u32, LinkFault> {
        let version = negotiate(self.min..=self.max, theirs.min..=theirs.max);
        version.ok_or(LinkFault::Version { ours: self, theirs })
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// The link cannot go on: close it, take the unanswered ids, connect again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LinkFault {
    /// No version is spoken by both.
    #[error("no link version in common: {ours} here, {theirs} there")]
    Version {
        /// What this side speaks.
        ours: Versions,
        /// What the peer says it speaks.
        theirs: Versions,
    },
    /// The peer broke the protocol.
    #[error("the peer broke the link protocol: {0}")]
    Protocol(&'static str),
    /// Nothing heard for `LINK_DEAD_MS`.
    #[error("nothing heard over the link")]
    Dead,
}

/// Decodes one frame's payload, as the frame decoder gave it.
pub fn decode<Frame: prost::Message + Default>(payload: Bytes) -> Result<Frame, LinkFault> {
    Frame::decode(payload).map_err(|_| LinkFault::Protocol("malformed frame"))
}
