//! How a fleet begins (`storage-node/src/worker/founders.rs`): in eight of 32 seeds each of the first three nodes is started at
//! a time of its own, with `--new-fleet` and an empty folder, asks the two others, and begins when both have answered. Meanwhile
//! processes go, half the time one of them in the middle of its first steps, and come back to what their disks have kept, and
//! nodes are cut off. In all other seeds every node starts as one of a fleet that has just begun, and asks nobody.
//!
//! `--new-fleet` stays in the commands of these nodes. One of them that loses its disk later, and is started by that command,
//! must not begin again while another one runs that began with it: see `lost.rs`.
//!
//! All of it comes from chance of its own.

use super::HOSTS;
use super::faults::{Fault, Planned};
use crate::workload::random::Random;
use std::ops::Range;
use storage_node::sim::Crash;

/// Of 32 seeds in a row those whose fleet begins so: of each kind of faults, all that lose a disk, and none that is kept since
/// it once failed.
const OF_THIRTY_TWO: [u64; 8] = [5, 15, 16, 17, 18, 20, 21, 24];
/// Makes another stream of a seed.
const STREAM: u64 = 0x666f_756e_6469_6e67;
/// The first nodes are started within this time, in milliseconds.
const STARTS_MS: Range<u64> = 1..1_500;
/// How many things happen to them until the fleet has mostly begun.
const FAULTS: Range<u64> = 1..6;
/// They begin within this time, in milliseconds.
const WITHIN_MS: Range<u64> = 1..2_200;
/// And last so long, in milliseconds.
const LASTS_MS: Range<u64> = 1..1_000;
/// Steps of a disk until it stops its node: some more than it takes to begin, and to open a node for the first time.
const STEPS: Range<u64> = 1..60;
/// The same from a node's first start on: some more than it takes until the number of its folder is on its disk.
const FIRST_STEPS: Range<u64> = 1..11;

/// Whether the fleet begins as the product's do.
pub(super) fn is_founded(seed: u64) -> bool {
    OF_THIRTY_TWO.contains(&(seed % 32))
}

/// When its nodes come, and what happens to them.
pub(super) struct Founding {
    /// By place, in milliseconds from the start; `None`: the fleet is there.
    starts_ms: Option<[u64; HOSTS.nodes]>,
    /// What goes wrong meanwhile.
    pub faults: Vec<Planned>,
}

impl Founding {
    /// From the seed alone.
    pub fn plan(seed: u64) -> Self {
        if !is_founded(seed) {
            return Self { starts_ms: None, faults: Vec::new() };
        }
        let mut random = Random::new(seed ^ STREAM);
        let starts_ms: [u64; HOSTS.nodes] = std::array::from_fn(|_| random.within(STARTS_MS));
        let count = random.within(FAULTS);
        let mut faults: Vec<Planned> = (0..count).map(|_| meanwhile(&mut random)).collect();
        if random.below(2) == 0 {
            faults.push(at_first(starts_ms, &mut random));
        }
        Self { starts_ms: Some(starts_ms), faults }
    }

    /// When a server is started, in milliseconds from the start; `None`: with all others.
    pub fn starts_ms(&self, host: usize) -> Option<u64> {
        self.starts_ms.and_then(|starts_ms| starts_ms.get(host).copied())
    }
}

/// Something that happens to one of the nodes, whether it waits for the others or runs already.
fn meanwhile(random: &mut Random) -> Planned {
    let host = random.below(HOSTS.nodes as u64) as usize;
    let crash = any_crash(random);
    let fault = match random.below(8) {
        0..3 => Fault::Torn { host, steps: random.within(STEPS), crash },
        3..6 => Fault::Crash { host, crash },
        6 => Fault::Isolate(host),
        _ => Fault::OneWay(host, (host + 1) % HOSTS.nodes),
    };
    Planned { at_ms: random.within(WITHIN_MS), lasts_ms: random.within(LASTS_MS), fault }
}

/// A node goes before or just after the number of its folder is on its disk.
fn at_first(starts_ms: [u64; HOSTS.nodes], random: &mut Random) -> Planned {
    let host = random.below(HOSTS.nodes as u64) as usize;
    let (steps, crash) = (random.within(FIRST_STEPS), any_crash(random));
    let lasts_ms = random.within(LASTS_MS);
    Planned { at_ms: starts_ms[host] - 1, lasts_ms, fault: Fault::Torn { host, steps, crash } }
}

fn any_crash(random: &mut Random) -> Crash {
    Crash::ALL[random.below(Crash::ALL.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::lost::Replacement;
    use crate::world::plan::is_free;
    use std::collections::BTreeSet;

    #[test]
    fn any_node_is_the_last_and_any_goes_in_its_first_steps() {
        let (mut last, mut torn) = (BTreeSet::new(), BTreeSet::new());
        for seed in (0..3_200).filter(|seed| is_founded(*seed)) {
            let founding = Founding::plan(seed);
            let starts: Vec<u64> = (0..HOSTS.nodes).filter_map(|host| founding.starts_ms(host)).collect();
            assert_eq!(starts.len(), HOSTS.nodes, "seed {seed}");
            assert!(HOSTS.gateway_hosts().all(|host| founding.starts_ms(host).is_none()), "seed {seed}");
            last.insert((0..HOSTS.nodes).max_by_key(|host| starts[*host]));
            for planned in founding.faults {
                let host = host_of(&planned.fault);
                assert!(host < HOSTS.nodes && planned.at_ms < WITHIN_MS.end, "seed {seed}: {planned:?}");
                let is_at_first = planned.at_ms + 1 == starts[host];
                if is_at_first && matches!(planned.fault, Fault::Torn { .. }) {
                    torn.insert(host);
                }
            }
        }
        assert_eq!((last.len(), torn.len()), (HOSTS.nodes, HOSTS.nodes));
    }

    fn host_of(fault: &Fault) -> usize {
        match fault {
            Fault::Torn { host, .. } | Fault::Crash { host, .. } => *host,
            Fault::Isolate(host) | Fault::OneWay(host, _) => *host,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn whoever_loses_its_disk_is_of_a_fleet_that_began() {
        for seed in 0..3_200 {
            assert!(is_founded(seed) || Replacement::plan(seed).is_none(), "seed {seed}");
            assert!(!is_founded(seed) || is_free(seed), "seed {seed} is another run than when it was kept");
        }
        let is_none = |seed: u64| Founding::plan(seed).starts_ms(0).is_none();
        assert_eq!((0..320).filter(|seed| !is_none(*seed)).count(), 80);
    }
}
