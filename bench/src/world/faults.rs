//! What goes wrong, and when: from the seed alone. Each fault begins, lasts, and ends; after the last one everything is
//! mended.

use crate::workload::random::Random;
use std::ops::Range;
use storage_node::sim::Crash;

/// Before the first fault, in milliseconds: by then every shard has a leader.
const CALM_MS: u64 = 3_000;
/// Faults come within this time, in milliseconds.
const FAULTS_MS: Range<u64> = 4_000..16_000;
/// How many there are.
const FAULTS: Range<u64> = 2..10;
/// Longest fault, in milliseconds: some last longer than a link waits for its peer.
const LASTS_MS_MAX: u64 = 6_000;
const LASTS_LONG_MS: u64 = 12_000;
/// Largest jump of a clock, in milliseconds.
const JUMP_MS_MAX: u64 = 3_600_000;
/// Steps of a disk until it stops its node.
const STEPS_MAX: u64 = 12;
/// What slow machines add, in milliseconds.
const SLOW_MS_MAX: u64 = 250;

/// Something that goes wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A storage node goes, and is started again afterwards.
    Crash {
        /// Which host.
        host: usize,
        /// What its disk keeps.
        crash: Crash,
    },
    /// All of them at once.
    Blackout(Crash),
    /// A storage node goes in the middle of a step of its disk.
    Torn {
        /// Which host.
        host: usize,
        /// After so many steps.
        steps: u64,
        /// What its disk keeps.
        crash: Crash,
    },
    /// A storage node is asked to stop, as for a new version: it hands over, ends, and is started again afterwards.
    Leave(usize),
    /// A gateway's process goes, and is started again afterwards.
    Gateway(usize),
    /// Nothing goes to a host or from it.
    Isolate(usize),
    /// Nothing goes from one host to another; the other way it does.
    OneWay(usize, usize),
    /// These hosts are cut off from all others.
    Split(Vec<usize>),
    /// Every connection of a host is reset.
    Reset(usize),
    /// A machine's network is slow.
    SlowNetwork(usize, u64),
    /// A machine's threads, and so its disk, are slow.
    SlowMachine(usize, u64),
    /// A machine's clock jumps, and stays.
    Clock(usize, i64),
}

/// A fault in its time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planned {
    /// When it begins, in milliseconds from the start.
    pub at_ms: u64,
    /// How long it lasts, in milliseconds.
    pub lasts_ms: u64,
    /// What it is.
    pub fault: Fault,
}

/// Hosts by what they are: storage nodes first, then gateways, then devices.
#[derive(Clone, Copy, Debug)]
pub struct Hosts {
    /// Storage nodes.
    pub nodes: usize,
    /// Gateways.
    pub gateways: usize,
    /// Devices.
    pub devices: usize,
}

impl Hosts {
    /// All of them.
    pub fn count(self) -> usize {
        self.nodes + self.gateways + self.devices
    }

    /// Those of the gateways.
    pub fn gateway_hosts(self) -> Range<usize> {
        self.nodes..self.nodes + self.gateways
    }
}

/// The faults of a run, and when the last of them is over, in milliseconds from the start.
pub fn plan(hosts: Hosts, random: &mut Random) -> (Vec<Planned>, u64) {
    let within_ms = FAULTS_MS.start + random.below(FAULTS_MS.end - FAULTS_MS.start);
    let count = FAULTS.start + random.below(FAULTS.end - FAULTS.start);
    let mut planned: Vec<Planned> = (0..count)
        .map(|_| {
            let longest_ms = if random.below(5) == 0 { LASTS_LONG_MS } else { LASTS_MS_MAX };
            Planned {
                at_ms: CALM_MS + random.below(within_ms),
                lasts_ms: 1 + random.below(longest_ms),
                fault: any(hosts, random),
            }
        })
        .collect();
    planned.sort_by_key(|planned| planned.at_ms);
    let over_ms = planned.iter().map(|planned| planned.at_ms + planned.lasts_ms).max().unwrap_or(0);
    (planned, over_ms)
}

fn any(hosts: Hosts, random: &mut Random) -> Fault {
    let mut below = |end: usize| random.below(end as u64) as usize;
    let servers = hosts.nodes + hosts.gateways;
    let crash = Crash::ALL[below(Crash::ALL.len())];
    match below(26) {
        0..5 => Fault::Crash { host: below(hosts.nodes), crash },
        5 => Fault::Blackout(crash),
        6..8 => Fault::Torn { host: below(hosts.nodes), steps: 1 + below(STEPS_MAX as usize) as u64, crash },
        8 | 9 => Fault::Gateway(hosts.nodes + below(hosts.gateways)),
        10..13 => Fault::Isolate(below(servers)),
        13 | 14 => {
            let from = below(servers);
            Fault::OneWay(from, (from + 1 + below(servers - 1)) % servers)
        }
        15 | 16 => Fault::Split((0..hosts.count()).filter(|_| below(2) == 0).collect()),
        17 | 18 => Fault::Reset(below(servers)),
        19 => Fault::SlowNetwork(below(servers), 1 + below(SLOW_MS_MAX as usize) as u64),
        24 | 25 => Fault::Leave(below(hosts.nodes)),
        20 | 21 => Fault::SlowMachine(below(servers), 1 + below(SLOW_MS_MAX as usize) as u64),
        _ => {
            // Mostly a little, for which many things are more sensitive.
            let most_ms = JUMP_MS_MAX as usize >> below(16);
            let by_ms = 1 + below(most_ms) as i64;
            let host = below(servers);
            // A gateway's clock never falls.
            let falls = host < hosts.nodes && below(2) == 0;
            Fault::Clock(host, if falls { -by_ms } else { by_ms })
        }
    }
}
