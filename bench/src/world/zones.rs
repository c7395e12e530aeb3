//! Where storage nodes and gateways stand, and a zone that is lost with all of them. Mostly there are three zones, each
//! with one of the first storage nodes; two of them have a gateway, and the node that joins stands in any of them, or in
//! none that has a name. In other runs all servers are in one zone, or nobody has heard of zones: nothing is asked for
//! there that cannot be. And in others the first three nodes stand in two zones and the one that joins in a third: copies
//! that shared a zone have to part then.
//!
//! All of it comes from chance of its own, so that whatever else happens in a run does not hang on it.

use super::faults::Loss;
use super::network::Going;
use super::node::NodeHost;
use super::{HOSTS, World, around};
use crate::workload::random::Random;
use storage_node::sim::Crash;

/// Makes another stream of a seed.
const STREAM: u64 = 0x7a6f_6e65_735f_5f5f;
/// Zones by name.
const NAMES: [&str; 3] = ["a", "b", "c"];
/// Where storage nodes stand, by place, in runs whose third zone comes with the node that joins.
const LATE: [&str; HOSTS.nodes + 1] = ["a", "a", "b", "c"];
/// Of so many runs one has no zones, one has one, and one has two before a node joins.
const KINDS: u64 = 8;

/// The zone of each server; empty: none that has a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zones {
    /// By place, the node that joins last.
    nodes: [&'static str; HOSTS.nodes + 1],
    /// By place.
    gateways: [&'static str; HOSTS.gateways],
}

impl Zones {
    /// From the seed alone.
    pub fn plan(seed: u64) -> Self {
        let mut random = Random::new(seed ^ STREAM);
        let kind = random.below(KINDS);
        let joins_in = random.below(NAMES.len() as u64 + 1) as usize;
        let zone = |place: usize| match kind {
            0 => "",
            1 => NAMES[0],
            // No seed is of this kind that a test named before there were zones.
            5 => LATE[place],
            _ if place == HOSTS.nodes => NAMES.get(joins_in).copied().unwrap_or(""),
            _ => NAMES[place % NAMES.len()],
        };
        Self { nodes: std::array::from_fn(zone), gateways: std::array::from_fn(zone) }
    }

    /// Where a storage node stands.
    pub fn of_node(&self, id: u32) -> &'static str {
        self.of_host(HOSTS.host_of_node(id))
    }

    fn of_host(&self, host: usize) -> &'static str {
        match HOSTS.node_place(host) {
            Some(place) => self.nodes[place],
            None => self.gateways[host - HOSTS.nodes],
        }
    }

    /// All hosts of servers in the zone of this one; where that has no name, this one alone.
    fn around(&self, server: usize) -> Vec<usize> {
        let zone = self.of_host(server);
        let servers = (0..HOSTS.nodes + HOSTS.gateways).chain([HOSTS.joiner()]);
        let is_there = |host: &usize| *host == server || (!zone.is_empty() && self.of_host(*host) == zone);
        servers.filter(is_there).collect()
    }
}

impl World {
    /// The numbered fault takes the zone of a server.
    pub(super) fn lose_zone(&mut self, number: usize, server: usize, loss: Loss) {
        let lasts_ms = self.faults[number].lasts_ms;
        let hosts = self.zones.around(server);
        let crash = match loss {
            Loss::Cut => return self.cut(number, around(&hosts)),
            Loss::Crash(crash) => crash,
        };
        let going = if crash == Crash::Process { Going::Process } else { Going::Power };
        for host in hosts {
            match HOSTS.node_place(host) {
                // The node that joins may not be there yet, or never.
                Some(place) if self.nodes.get(place).is_some_and(NodeHost::is_up) => {
                    self.crash(host, crash, lasts_ms);
                }
                None if self.gateways[host - HOSTS.nodes].is_up() => {
                    self.gateways[host - HOSTS.nodes].stop();
                    self.went(host, going, lasts_ms);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::operator::{Operator, Wish};
    use crate::world::returns::Returning;
    use std::collections::BTreeSet;

    #[test]
    fn mostly_there_are_three_zones_and_the_fourth_node_is_in_any() {
        let (mut unnamed, mut single, mut late, mut joins_in) = (0_u32, 0_u32, 0_u32, BTreeSet::new());
        for seed in 0..400 {
            let Zones { nodes: [first, second, third, fourth], gateways } = Zones::plan(seed);
            match [first, second, third] {
                ["", "", ""] => unnamed += 1,
                ["a", "a", "a"] => single += 1,
                ["a", "a", "b"] => {
                    assert_eq!((fourth, gateways), ("c", ["a", "a"]), "seed {seed}");
                    late += 1;
                }
                apart => {
                    assert_eq!((apart, gateways), (NAMES, ["a", "b"]), "seed {seed}");
                    joins_in.insert(fourth);
                }
            }
        }
        let counts = [unnamed, single, late];
        assert!(counts.iter().all(|count| *count > 10) && counts.iter().sum::<u32>() < 200, "{counts:?}");
        assert_eq!(joins_in, BTreeSet::from(["", "a", "b", "c"]));
    }

    #[test]
    fn in_some_runs_a_third_zone_comes_and_stays() {
        let joins_and_stays = |seed: &u64| {
            let wishes: Vec<Wish> = Operator::plan(*seed).wishes.iter().map(|wished| wished.wish).collect();
            wishes == [Wish::Joins(HOSTS.nodes as u32 + 1)] && Returning::plan(*seed).is_none()
        };
        // `tests/world.rs` runs these seeds, and more.
        let late = (0..1_000).filter(|seed| Zones::plan(*seed).nodes == LATE);
        assert!(late.filter(joins_and_stays).count() > 2);
    }

    #[test]
    fn a_zone_is_all_its_servers_and_no_others() {
        let zones = Zones { nodes: ["a", "b", "c", "b"], gateways: ["a", "b"] };
        let gateways: Vec<usize> = HOSTS.gateway_hosts().collect();
        assert_eq!(zones.around(0), [0, gateways[0]]);
        assert_eq!(zones.around(1), [1, gateways[1], HOSTS.joiner()]);
        assert_eq!(zones.around(2), [2]);
        let unnamed = Zones { nodes: [""; HOSTS.nodes + 1], gateways: [""; HOSTS.gateways] };
        assert_eq!(unnamed.around(1), [1]);
    }
}
