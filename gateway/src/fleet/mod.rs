//! The other gateways: who they are, which of them can be gone to, and in which order a user should try them.
//!
//! ```text
//! [fleet] list, DNS ─┐
//!                    ├─> discovery (members, health) ─> FleetView ─┬─> GET /v1/gateways
//! probes of others ──┘                                             └─> SessionClosing of a gateway that leaves
//! ```
//!
//! [`ranking`], [`discovery`] and [`slots`] are pure; [`driver`] alone resolves names and speaks to other gateways, on
//! a thread of its own. What everybody else sees is a [`FleetView`], an immutable snapshot. There is no coordinator:
//! each gateway looks by itself, and two of them may disagree for as long as a probe takes.

pub mod ranking;
pub mod discovery;
pub mod driver;
mod probe;
pub mod slots;

pub use probe::understood;

use std::sync::Arc;
use wire_protocol::ids::UserId;
use wire_protocol::limits::CLOSING_GATEWAYS_MAX;

/// A gateway that can be gone to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// `host:port` of its TLS port, as clients reach it.
    pub address: Arc<str>,
    /// Where it says that it is; empty: it does not say.
    pub zone: Arc<str>,
    /// Sessions that it says it admits a second; `None`: as many as come.
    pub admits_per_s: Option<u32>,
}

/// The healthy gateways at one moment. An empty one is a gateway without a fleet.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct FleetView {
    /// This gateway; `None`: it has no address of its own, so there is no fleet.
    pub own: Option<Peer>,
    /// The others, by address.
    pub others: Vec<Peer>,
}

impl FleetView {
    /// Where a user should go, best first: this gateway's zone before others, and in a zone by the user's own order.
    pub fn ranked(&self, user: UserId) -> Vec<Arc<str>> {
        ranking::rank(user, self.zone(), self.own.iter().chain(&self.others), CLOSING_GATEWAYS_MAX)
    }

    /// The same without this gateway.
    pub fn ranked_others(&self, user: UserId) -> Vec<Arc<str>> {
        ranking::rank(user, self.zone(), self.others.iter(), CLOSING_GATEWAYS_MAX)
    }

    fn zone(&self) -> &str {
        self.own.as_ref().map_or("", |own| &own.zone)
    }
}
