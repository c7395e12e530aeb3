//! What goes wrong, and when: from the seed alone. Each fault begins, lasts, and ends; after the last one everything is
//! mended.

use super::hosts::Hosts;
use super::returns::Comeback;
use crate::workload::random::Random;
use std::ops::Range;
use storage_node::sim::{Crash, SyncKind};

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

/// How many faults are aimed at leaders.
const AIMED: Range<u64> = 1..4;
/// Room on a disk that is about to be full, in bytes: some log files.
const ROOM_BYTES_MAX: u64 = 12 << 10;
/// How long each lasts: an election and more; in milliseconds.
const AIMED_LASTS_MS: Range<u64> = 2_500..6_000;
/// Longest time between two of them, in milliseconds.
const AIMED_APART_MS: u64 = 3_000;

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
    /// Syncs of the log of a storage node fail, so that it ends, whenever it is started meanwhile: see `failing.rs`.
    SyncsFail {
        /// Which host.
        host: usize,
        /// Which syncs.
        kind: SyncKind,
        /// From so many steps of its disk on.
        steps: u64,
        /// What its disk keeps.
        crash: Crash,
        /// How long the node stays away each time, in milliseconds.
        away_ms: u64,
    },
    /// A storage node is asked to stop, as for a new version: it hands over, ends, and is started again afterwards.
    Leave(usize),
    /// A storage node goes, and its disk is lost: what it is started with afterwards is empty.
    DiskLost {
        /// Which host.
        host: usize,
        /// What is done with it before another one takes its place.
        back: Back,
    },
    /// A gateway's process goes, and is started again afterwards.
    Gateway(usize),
    /// A gateway is asked to stop: it sends its clients on, ends, and is started again afterwards.
    Drain {
        /// Which host.
        host: usize,
        /// For so long it serves those whose turn to go has not come, in milliseconds.
        window_ms: u64,
    },
    /// The process of a storage node or a gateway does nothing for a while: see `pauses.rs`.
    Pause(usize),
    /// A storage node or a gateway of the release before this one is asked to stop, and started afterwards as one of this.
    Upgrade(usize),
    /// Devices ask for nothing by themselves.
    Quiet,
    /// Nothing goes to a host or from it.
    Isolate(usize),
    /// Nothing goes from one host to another; the other way it does.
    OneWay(usize, usize),
    /// These hosts are cut off from all others.
    Split(Vec<usize>),
    /// All storage nodes and gateways in the zone of a server, at once.
    ZoneLost {
        /// The host of one of them.
        server: usize,
        /// How.
        loss: Loss,
    },
    /// Every connection of a host is reset.
    Reset(usize),
    /// A machine's network is slow.
    SlowNetwork(usize, u64),
    /// A machine's threads, and so its disk, are slow.
    SlowMachine(usize, u64),
    /// A machine's clock jumps, and stays.
    Clock(usize, i64),
    /// The disk of a storage node has room for so many more bytes: as [`Aim::Full`], whether it leads or not.
    Full(usize, usize),
    /// A replica that goes has to come back where it was, and finds its node away: see `returns.rs`.
    ComesBack(Comeback),
    /// It happens to whoever leads a shard when it begins, or as soon as somebody does.
    Aimed {
        /// Which shard, counted on from the first again when there are fewer.
        shard: u32,
        /// What happens.
        aim: Aim,
    },
}

/// What happens to a zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// Nothing goes into it or out of it; who is in it hears each other.
    Cut,
    /// All who are in it go, and are started again afterwards.
    Crash(Crash),
}

/// What is done with a storage node whose disk was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Back {
    /// It stays away.
    Never,
    /// It is started as always, which it has to refuse.
    AsBefore,
    /// It is started with `--join` under its old id, as only a new node may be.
    Joining,
    /// It is started with `--new-fleet`, which was left in its command: whoever runs of those that its fleet began with has to
    /// see to it that it does not begin again.
    NewFleet,
}

impl Back {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Never, Self::AsBefore, Self::Joining, Self::NewFleet];
}

/// What happens to a leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Aim {
    /// It is cut off from all others but one gateway and the devices there, and everybody is in haste: until it notices,
    /// there is another leader at the other gateways, and both are asked.
    Apart(usize),
    /// It is cut off from the other storage nodes alone, and everybody is in haste.
    Alone,
    /// It and one gateway do not hear each other; everybody else does.
    Unreached(usize),
    /// It pauses, and is cut off as by [`Aim::Apart`] for longer.
    Paused {
        /// Who is cut off with it.
        gateway: usize,
        /// How long it does nothing, in milliseconds.
        for_ms: u64,
    },
    /// Its disk has room for so many more bytes: it ends when it needs more, and whenever it is started meanwhile.
    Full(usize),
    /// While devices only read, one of the others hears nothing of it. Shortly before that one stands for election the third
    /// one goes and is back at once, and the leader is cut off as by [`Aim::Apart`]: what the third one promised when it was
    /// asked last must still hold.
    Forgotten(usize),
    /// It goes. When one of the others has elected another by its vote, the voter goes as well, and comes back to the leader
    /// of before alone, which comes back, too, and asks for the vote of the same term.
    Voter(Crash),
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

/// The faults of a run, by when they begin. Every second run has faults that are aimed at leaders, every fourth has no
/// others.
pub fn plan(seed: u64, hosts: Hosts, random: &mut Random) -> Vec<Planned> {
    let mut planned = match seed % 4 {
        3 => Vec::new(),
        _ => blind(hosts, random),
    };
    if !seed.is_multiple_of(2) {
        planned.extend(aimed(hosts, random));
    }
    planned.sort_by_key(|planned| planned.at_ms);
    planned
}

/// Whatever comes, wherever.
fn blind(hosts: Hosts, random: &mut Random) -> Vec<Planned> {
    let within_ms = random.within(FAULTS_MS);
    let count = random.within(FAULTS);
    (0..count)
        .map(|_| {
            let longest_ms = if random.below(5) == 0 { LASTS_LONG_MS } else { LASTS_MS_MAX };
            Planned {
                at_ms: CALM_MS + random.below(within_ms),
                lasts_ms: 1 + random.below(longest_ms),
                fault: any(hosts, random),
            }
        })
        .collect()
}

/// Faults aimed at leaders, one after another.
fn aimed(hosts: Hosts, random: &mut Random) -> Vec<Planned> {
    let mut at_ms = CALM_MS;
    let count = random.within(AIMED);
    let one = |_| {
        let gateway = hosts.nodes + random.below(hosts.gateways as u64) as usize;
        let crash = Crash::ALL[random.below(Crash::ALL.len() as u64) as usize];
        let aim = match random.below(9) {
            0..3 => Aim::Apart(gateway),
            3 => Aim::Alone,
            4 => Aim::Unreached(gateway),
            5 => Aim::Full(random.below(ROOM_BYTES_MAX) as usize),
            _ => Aim::Voter(crash),
        };
        at_ms += random.below(AIMED_APART_MS);
        let lasts_ms = random.within(AIMED_LASTS_MS);
        let shard = random.draw() as u32;
        let aim = match aim {
            Aim::Apart(gateway) if shard.is_multiple_of(3) => Aim::Forgotten(gateway),
            aim => aim,
        };
        let planned = Planned { at_ms, lasts_ms, fault: Fault::Aimed { shard, aim } };
        at_ms += lasts_ms;
        planned
    };
    (0..count).map(one).collect()
}

/// Whatever comes, to a storage node that joins.
pub fn at_joiner(hosts: Hosts, count: u64, random: &mut Random) -> Vec<Planned> {
    let one = |_| {
        let at_ms = random.below(FAULTS_MS.end);
        let lasts_ms = 1 + random.below(LASTS_MS_MAX);
        Planned { at_ms, lasts_ms, fault: any_at_joiner(hosts, random) }
    };
    (0..count).map(one).collect()
}

fn any_at_joiner(hosts: Hosts, random: &mut Random) -> Fault {
    let host = hosts.joiner();
    let mut below = |end: usize| random.below(end as u64) as usize;
    let crash = Crash::ALL[below(Crash::ALL.len())];
    match below(16) {
        0..4 => Fault::Crash { host, crash },
        4..7 => Fault::Torn { host, steps: 1 + below(STEPS_MAX as usize) as u64, crash },
        7 | 8 => Fault::Isolate(host),
        9 => Fault::OneWay(host, below(hosts.nodes)),
        10 => Fault::OneWay(below(hosts.nodes), host),
        11 => Fault::Reset(host),
        12 => Fault::SlowMachine(host, 1 + below(SLOW_MS_MAX as usize) as u64),
        13 => Fault::SlowNetwork(host, 1 + below(SLOW_MS_MAX as usize) as u64),
        14 => Fault::Leave(host),
        _ => Fault::Full(host, below(ROOM_BYTES_MAX as usize)),
    }
}

fn any(hosts: Hosts, random: &mut Random) -> Fault {
    let mut below = |end: usize| random.below(end as u64) as usize;
    let servers = hosts.nodes + hosts.gateways;
    let crash = Crash::ALL[below(Crash::ALL.len())];
    match below(28) {
        0..5 => Fault::Crash { host: below(hosts.nodes), crash },
        5 => Fault::Blackout(crash),
        6..8 => Fault::Torn { host: below(hosts.nodes), steps: 1 + below(STEPS_MAX as usize) as u64, crash },
        8 | 9 => Fault::Gateway(hosts.nodes + below(hosts.gateways)),
        10..13 => Fault::Isolate(below(servers)),
        13 | 14 => {
            let from = below(servers);
            Fault::OneWay(from, (from + 1 + below(servers - 1)) % servers)
        }
        15 | 16 => Fault::Split((0..hosts.first()).filter(|_| below(2) == 0).collect()),
        17 | 18 => Fault::Reset(below(servers)),
        19 => Fault::SlowNetwork(below(servers), 1 + below(SLOW_MS_MAX as usize) as u64),
        24 | 25 => Fault::Leave(below(hosts.nodes)),
        26 => Fault::ZoneLost { server: below(hosts.nodes), loss: Loss::Cut },
        27 => Fault::ZoneLost { server: below(hosts.nodes), loss: Loss::Crash(crash) },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_run_is_aimed_at_leaders_and_every_fourth_at_nothing_else() {
        let hosts = Hosts { nodes: 3, gateways: 2, devices: 5 };
        let mut kinds = [0; 6];
        for seed in 0..400 {
            let planned = plan(seed, hosts, &mut Random::new(seed));
            assert!(planned.iter().all(|it| it.at_ms >= CALM_MS));
            let aims = planned.iter().filter_map(|planned| match &planned.fault {
                Fault::Aimed { aim, .. } => Some(aim),
                _ => None,
            });
            let aims: Vec<&Aim> = aims.collect();
            assert_eq!(aims.is_empty(), seed % 2 == 0, "seed {seed}: {planned:?}");
            assert_eq!(aims.len() == planned.len(), seed % 4 == 3, "seed {seed}: {planned:?}");
            for aim in aims {
                kinds[match aim {
                    Aim::Apart(_) => 0,
                    Aim::Alone => 1,
                    Aim::Unreached(_) => 2,
                    Aim::Full(_) => 3,
                    Aim::Voter(_) => 4,
                    Aim::Forgotten(_) => 5,
                    Aim::Paused { .. } => panic!("it is planned elsewhere"),
                }] += 1;
            }
        }
        assert!(kinds.iter().all(|count| *count > 10), "{kinds:?}");
    }

    #[test]
    fn zones_are_cut_off_and_crash() {
        let hosts = Hosts { nodes: 3, gateways: 2, devices: 5 };
        let mut losses = [0; 2];
        for seed in 0..400 {
            for planned in plan(seed, hosts, &mut Random::new(seed)) {
                if let Fault::ZoneLost { loss, .. } = planned.fault {
                    losses[usize::from(loss == Loss::Cut)] += 1;
                }
            }
        }
        assert!(losses.iter().all(|count| *count > 10), "{losses:?}");
    }
}
