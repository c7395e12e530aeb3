//! Two releases in one fleet: in some runs one server speaks no link version but that of the release before, until it is
//! exchanged for one of this release in the middle of all that goes on, as `docs/operations.md` says of an upgrade: asked to
//! stop, and started as the new one. Once all is mended every link has to be of the newest version.
//!
//! All of it comes from chance of its own.

use super::faults::{Fault, Planned};
use super::{HOSTS, World};
use crate::workload::random::Random;
use std::ops::Range;
use wire_protocol::link::Versions;

/// Of 32 seeds in a row those with an old server: of each kind of faults, and none that was kept before there was this.
const OF_THIRTY_TWO: [u64; 4] = [6, 15, 20, 25];
/// Makes another stream of a seed.
const STREAM: u64 = 0x7265_6c65_6173_6573;
/// It is exchanged within this time, in milliseconds.
const UPGRADED_MS: Range<u64> = 4_000..12_000;
/// Until the new one is started, in milliseconds.
const AWAY_MS: Range<u64> = 1..1_500;
/// A gateway that is exchanged serves for so long those whose turn to go has not come, in milliseconds.
const WINDOW_MS: u64 = 500;

/// What the release before this one speaks.
const BEFORE: Versions = Versions { min: Versions::OURS.min, max: Versions::OURS.max - 1 };
const _: () = assert!(BEFORE.min <= BEFORE.max, "a release knows the version of the one before");

/// Who speaks what.
pub(super) struct Releases {
    /// The host of the old server.
    old: Option<usize>,
    /// Its upgrade.
    pub faults: Vec<Planned>,
}

impl Releases {
    /// From the seed alone.
    pub fn plan(seed: u64) -> Self {
        if !OF_THIRTY_TWO.contains(&(seed % 32)) {
            return Self { old: None, faults: Vec::new() };
        }
        let mut random = Random::new(seed ^ STREAM);
        let host = random.within(0..(HOSTS.nodes + HOSTS.gateways) as u64) as usize;
        let (at_ms, lasts_ms) = (random.within(UPGRADED_MS), random.within(AWAY_MS));
        let upgrade = Planned { at_ms, lasts_ms, fault: Fault::Upgrade(host) };
        Self { old: Some(host), faults: vec![upgrade] }
    }

    /// What a server speaks that is started before the upgrade.
    pub fn of(&self, host: usize) -> Versions {
        if self.old == Some(host) { BEFORE } else { Versions::OURS }
    }
}

impl World {
    /// From its next start on a server is of this release, and it is asked to stop.
    pub(super) fn upgrade(&mut self, host: usize, away_ms: u64) {
        if let Some(place) = HOSTS.node_place(host) {
            self.away_ms[host] = away_ms;
            self.nodes[place].install(Versions::OURS);
            self.nodes[place].leave(&mut self.outside);
        } else {
            self.gateways[host - HOSTS.nodes].install(Versions::OURS);
            self.drain(host, WINDOW_MS, away_ms);
        }
    }

    /// Hosts of storage nodes that have open links of an older version than this release speaks.
    pub(super) fn hosts_with_old_links(&self) -> Vec<usize> {
        let is_old = |version: &u32| *version < Versions::OURS.max;
        let nodes = self.nodes.iter().filter(|node| node.link_versions().iter().any(is_old));
        nodes.map(|node| node.host).collect()
    }

    /// Whether two versions are spoken.
    pub(super) fn watch_releases(&mut self) {
        let has_old = !self.hosts_with_old_links().is_empty();
        self.tried.old_links = self.tried.old_links.max(u64::from(has_old));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn any_server_may_be_the_old_one_and_it_is_exchanged() {
        let mut old = BTreeSet::new();
        for seed in 0..960 {
            let releases = Releases::plan(seed);
            let Some(host) = releases.old else { continue };
            old.insert(host);
            let faults: Vec<&Fault> = releases.faults.iter().map(|planned| &planned.fault).collect();
            assert_eq!(faults, [&Fault::Upgrade(host)]);
            let mut others = (0..HOSTS.nodes + HOSTS.gateways).filter(|other| *other != host);
            assert!(others.all(|other| releases.of(other) == Versions::OURS));
            assert_eq!(releases.of(host), BEFORE);
        }
        assert_eq!(old.len(), HOSTS.nodes + HOSTS.gateways);
    }
}
