//! Nobody asks for anything: in some runs for some seconds in the middle of the faults, in all of them at the very end. Then
//! groups hibernate (`storage-node/src/replication/group/hibernation.rs`): how often all replicas of a node do is counted,
//! and at the end all replicas of all nodes have to, within a bounded time.
//!
//! All of it comes from chance of its own.

use super::device::Mood;
use super::faults::{Fault, Planned};
use super::{HOSTS, Stage, World};
use crate::workload::random::Random;
use std::ops::Range;
use wire_protocol::internal::Fleet;

/// Of 32 seeds in a row those with some quiet in the middle: none with faults that are aimed at leaders, which put devices in
/// haste, and none that was kept before there was this.
const OF_THIRTY_TWO: [u64; 5] = [12, 20, 24, 26, 28];
/// Makes another stream of a seed.
const STREAM: u64 = 0x7175_6965_745f_5f5f;
/// It begins within this time, in milliseconds.
const BEGINS_MS: Range<u64> = 3_000..8_000;
/// And lasts so long, in milliseconds: the last checkpoint of a feed is made within 5 s, and a group hibernates a second
/// after that.
const LASTS_MS: Range<u64> = 7_000..11_000;
/// How long it may take at the end until everything hibernates, in milliseconds: several times the last checkpoint's 5 s and
/// the second after it.
pub(super) const REST_MS_MAX: u64 = 30_000;

/// When nobody asks for anything.
pub(super) fn plan(seed: u64) -> Vec<Planned> {
    if !OF_THIRTY_TWO.contains(&(seed % 32)) {
        return Vec::new();
    }
    let mut random = Random::new(seed ^ STREAM);
    vec![Planned { at_ms: random.within(BEGINS_MS), lasts_ms: random.within(LASTS_MS), fault: Fault::Quiet }]
}

/// Replicas that a node holds, as the fleet says.
fn held(fleet: &Fleet, host: usize) -> u64 {
    let id = HOSTS.node_of_host(host);
    fleet.shards.iter().filter(|place| place.nodes.contains(&id)).count() as u64
}

impl World {
    /// The quiet is over, unless everything is.
    pub(super) fn end_quiet(&mut self) {
        if matches!(self.stage, Stage::Busy { .. }) {
            self.turn_devices_to(Mood::Busy);
        }
    }

    /// Counts how often all replicas of a node come to hibernate.
    pub(super) fn watch_rest(&mut self) {
        let Some(fleet) = self.newest_fleet() else { return };
        let under_faults = matches!(self.stage, Stage::Busy { .. });
        for (node, was_at_rest) in self.nodes.iter_mut().zip(&mut self.at_rest) {
            let held = held(&fleet, node.host);
            let is_at_rest = held > 0 && node.hibernating() == held;
            if is_at_rest && !*was_at_rest {
                match under_faults {
                    true => self.tried.rests_under_faults += 1,
                    false => self.tried.rests_afterwards += 1,
                }
            }
            *was_at_rest = is_at_rest;
        }
    }

    /// Nodes of which a replica is awake although nobody asks for anything.
    pub(super) fn awake(&mut self) -> Vec<String> {
        let Some(fleet) = self.newest_fleet() else { return vec!["no node runs".to_owned()] };
        let mut awake = Vec::new();
        for node in &mut self.nodes {
            let (held, hibernating) = (held(&fleet, node.host), node.hibernating());
            if hibernating < held {
                awake.push(format!("host {}: {hibernating} of {held} replicas hibernate", node.host));
            }
        }
        awake
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::faults;

    #[test]
    fn quiet_comes_where_no_fault_needs_haste() {
        let mut quiets = 0;
        for seed in 0..320 {
            let planned = plan(seed);
            quiets += planned.len();
            let aimed = faults::plan(seed, HOSTS, &mut Random::new(seed)).into_iter();
            let mut aimed = aimed.filter(|it| matches!(it.fault, Fault::Aimed { .. }));
            assert!(planned.is_empty() || aimed.next().is_none(), "seed {seed}");
        }
        assert_eq!(quiets, 50);
    }
}
