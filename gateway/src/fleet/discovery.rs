//! Which gateways there are, and which of them are healthy. Pure: the driver resolves, probes, and tells the time.
//!
//! ```text
//!            first answer                 3 silences, or "not ready"
//!   unknown ─────────────> healthy <───────────────────────────────> left out
//!                                        2 answers in a row
//! ```
//!
//! Members come from the configured list, which stays, and from a name whose every address is a gateway, which is how
//! a headless service of Kubernetes works. A name that cannot be resolved, or has no address, changes nothing: losing
//! the name server must not lose the fleet. Who leaves the name is forgotten. A name may be given any number of
//! addresses that are no gateways: [`GATEWAYS_MAX`] are seen, and each is probed in its turn.

use super::{FleetView, Peer};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Gateways of one fleet, at most; further ones are not seen. 2,500 gateways of 60,000 clients are 150 million, and a
/// region's gateways are a fleet of their own.
pub const GATEWAYS_MAX: usize = 4_096;
/// Silences in a row after which a gateway is left out: a lost packet is none, a dead process is found in six seconds.
pub const SILENCES_MAX: u32 = 3;
/// Answers in a row after which it is back: one that restarts again and again stays out.
pub const ANSWERS_MIN: u32 = 2;
/// Pause between two probes of one gateway, in milliseconds, in a small fleet.
pub const PROBE_PAUSE_MS: u64 = 2_000;
/// A gateway probes one other in this many milliseconds at the most, and so is probed as often: 50 handshakes a second
/// are a hundredth of a core. Beyond 100 gateways this is what sets the pause.
pub const PROBE_SPACING_MS: u64 = 20;
/// Probes under way at once, at most.
pub const PROBES_MAX: usize = 64;
/// Pause before the name is resolved again, in milliseconds.
pub const RESOLVE_PAUSE_MS: u64 = 5_000;

/// What a probe learned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Probed {
    /// It serves.
    Ready {
        /// Where it says that it is; may be empty.
        zone: String,
        /// Sessions that it says it admits a second.
        admits_per_s: Option<u32>,
    },
    /// It answers that it does not serve: it starts, or leaves.
    NotReady,
    /// No answer in time, or not one of a gateway.
    Silent,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Health {
    Unknown,
    Healthy,
    LeftOut,
}

#[derive(Debug)]
struct Member {
    /// It stands in the list, and stays whatever the name says.
    is_listed: bool,
    health: Health,
    zone: Arc<str>,
    admits_per_s: Option<u32>,
    /// Of the same kind as the last one: silences while healthy, answers while left out.
    in_a_row: u32,
    /// `None`: a probe is under way.
    probe_at_ms: Option<u64>,
}

/// The members and what is known of them.
#[derive(Debug)]
pub struct Discovery {
    own: Option<Peer>,
    members: BTreeMap<Arc<str>, Member>,
    has_name: bool,
    /// `None`: it is being resolved, or there is none.
    resolve_at_ms: Option<u64>,
    /// Addresses of the name for which there was no place when it was last resolved.
    unseen: usize,
    probing: usize,
}

impl Discovery {
    /// `own` is this gateway as others know it, `listed` the configured list, which may hold it, too.
    pub fn new(own: Option<Peer>, listed: &[String], has_name: bool, now_ms: u64) -> Self {
        let mut discovery = Self {
            own,
            members: BTreeMap::new(),
            has_name,
            resolve_at_ms: has_name.then_some(now_ms),
            unseen: 0,
            probing: 0,
        };
        for address in listed {
            discovery.add(address, true, now_ms);
        }
        discovery
    }

    /// The name was resolved to these addresses; none, or an error, keeps what was known.
    pub fn handle_resolved(&mut self, now_ms: u64, addresses: &[String]) {
        self.resolve_at_ms = self.has_name.then_some(now_ms + RESOLVE_PAUSE_MS);
        if addresses.is_empty() {
            return;
        }
        self.members.retain(|address, member| {
            let stays = member.is_listed || addresses.iter().any(|named| **named == **address);
            if !stays {
                tracing::info!(gateway = &**address, "a gateway has left the name");
                self.probing -= usize::from(member.probe_at_ms.is_none());
            }
            stays
        });
        let mut unseen = 0;
        for address in addresses {
            unseen += usize::from(!self.add(address, false, now_ms));
        }
        if unseen > 0 && self.unseen == 0 {
            tracing::warn!(unseen, "the name has more addresses than there are gateways in a fleet");
        }
        self.unseen = unseen;
    }

    /// A probe ended. Of a gateway that is no member any more it says nothing.
    pub fn handle_probed(&mut self, now_ms: u64, address: &str, probed: Probed) {
        let pause_ms = self.probe_pause_ms();
        let Some(member) = self.members.get_mut(address).filter(|member| member.probe_at_ms.is_none()) else {
            return;
        };
        self.probing -= 1;
        member.probe_at_ms = Some(now_ms + pause_ms);
        let before = member.health;
        member.learn(probed);
        if member.health != before {
            tracing::info!(gateway = address, health = ?member.health, "another gateway");
        }
    }

    /// A gateway to probe now; each is to be answered by [`Self::handle_probed`].
    pub fn poll_probe(&mut self, now_ms: u64) -> Option<Arc<str>> {
        if self.probing >= PROBES_MAX {
            return None;
        }
        let is_due = |member: &Member| member.probe_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        let due = self.members.iter_mut().filter(|(_, member)| is_due(member));
        // Whoever waits longest: many that never answer take all places for longer than their pause.
        let (address, member) = due.min_by_key(|(_, member)| member.probe_at_ms)?;
        member.probe_at_ms = None;
        self.probing += 1;
        Some(address.clone())
    }

    /// Whether the name is to be resolved now; to be answered by [`Self::handle_resolved`].
    pub fn poll_resolve(&mut self, now_ms: u64) -> bool {
        let is_due = self.resolve_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        if is_due {
            self.resolve_at_ms = None;
        }
        is_due
    }

    /// When there is something to poll.
    pub fn poll_timeout(&self) -> Option<u64> {
        let probes = self.members.values().filter_map(|member| member.probe_at_ms);
        let probes = probes.min().filter(|_| self.probing < PROBES_MAX);
        probes.into_iter().chain(self.resolve_at_ms).min()
    }

    /// Who can be gone to.
    pub fn view(&self) -> FleetView {
        let healthy = self.members.iter().filter(|(_, member)| member.health == Health::Healthy);
        let peer = |(address, member): (&Arc<str>, &Member)| Peer {
            address: address.clone(),
            zone: member.zone.clone(),
            admits_per_s: member.admits_per_s,
        };
        FleetView { own: self.own.clone(), others: healthy.map(peer).collect() }
    }

    /// Whether it is seen: it is this gateway, or was known, or there was a place.
    fn add(&mut self, address: &str, is_listed: bool, now_ms: u64) -> bool {
        let is_own = self.own.as_ref().is_some_and(|own| *own.address == *address);
        if is_own || self.members.contains_key(address) {
            return true;
        }
        if self.members.len() >= GATEWAYS_MAX {
            return false;
        }
        let member = Member {
            is_listed,
            health: Health::Unknown,
            zone: "".into(),
            admits_per_s: None,
            in_a_row: 0,
            probe_at_ms: Some(now_ms),
        };
        self.members.insert(address.into(), member);
        true
    }

    fn probe_pause_ms(&self) -> u64 {
        PROBE_PAUSE_MS.max(self.members.len() as u64 * PROBE_SPACING_MS)
    }
}

impl Member {
    fn learn(&mut self, probed: Probed) {
        match (probed, self.health) {
            (Probed::Ready { zone, admits_per_s }, health) => {
                if *self.zone != *zone {
                    self.zone = zone.into();
                }
                self.admits_per_s = admits_per_s;
                self.in_a_row = if health == Health::LeftOut { self.in_a_row + 1 } else { 0 };
                if health == Health::Unknown || self.in_a_row >= ANSWERS_MIN {
                    self.turn(Health::Healthy);
                }
            }
            // It says so itself: there is nothing to doubt.
            (Probed::NotReady, _) => self.turn(Health::LeftOut),
            (Probed::Silent, Health::Healthy) => {
                self.in_a_row += 1;
                if self.in_a_row >= SILENCES_MAX {
                    self.turn(Health::LeftOut);
                }
            }
            (Probed::Silent, Health::Unknown | Health::LeftOut) => self.turn(Health::LeftOut),
        }
    }

    fn turn(&mut self, health: Health) {
        self.health = health;
        self.in_a_row = 0;
    }
}

#[cfg(test)]
mod tests;
