//! Syncs that fail: in some runs the disk of a storage node refuses those of its log, from some step on and for some time. A
//! process whose sync failed does not know what is on its disk, and ends (`storage-node/src/replication/files.rs`): until it
//! does, a few turns later, it may acknowledge nothing more. It comes back on a disk that keeps only what was synced before,
//! or on a machine that has not failed and still shows the rest, which no sync has made durable; and ends again, for as long
//! as syncs fail. Such a machine's power fails half the time while the node has hardly begun: what it took over from before and
//! counted on is gone then, unless it has made that durable itself. One that goes on as if nothing had been breaks the promise
//! `heals`.
//!
//! All of it comes from chance of its own.

use super::faults::{Fault, Planned};
use super::{HOSTS, World};
use crate::workload::random::Random;
use std::ops::Range;
use storage_node::sim::{Crash, SyncKind};

/// Of 32 seeds in a row those in which syncs fail: of three kinds of faults, and none that is kept since it once failed.
const OF_THIRTY_TWO: [u64; 6] = [7, 16, 19, 21, 25, 31];
/// Makes another stream of a seed.
const STREAM: u64 = 0x6661_696c_696e_675f;
/// How many nodes this happens to, each once: one after the other or at once.
const FAILURES: Range<u64> = 1..3;
/// It begins within this time, in milliseconds.
const WITHIN_MS: Range<u64> = 3_000..12_000;
/// And lasts so long, in milliseconds.
const LASTS_MS: Range<u64> = 500..5_000;
/// Steps of the disk from then until syncs fail.
const STEPS_MAX: u64 = 60;
/// A node that ended is started again within so long, in milliseconds.
const AWAY_MS: Range<u64> = 1..1_500;

/// Which syncs fail: mostly those of the log thread.
const KINDS: [SyncKind; 5] =
    [SyncKind::LogWrite, SyncKind::LogWrite, SyncKind::LogWrite, SyncKind::LogCut, SyncKind::LogFolder];
/// What the disk keeps: mostly what was synced, and nothing else.
const CRASHES: [Crash; 3] = [Crash::PowerKeepsNothing, Crash::PowerKeepsNothing, Crash::Process];

/// Whose syncs fail, and when.
pub(super) fn plan(seed: u64) -> Vec<Planned> {
    if !OF_THIRTY_TWO.contains(&(seed % 32)) {
        return Vec::new();
    }
    let mut random = Random::new(seed ^ STREAM);
    let count = random.within(FAILURES);
    // The end of one failure would be that of another on the same disk.
    let mut hosts: Vec<usize> = (0..HOSTS.nodes).collect();
    let one = |_| {
        let (at_ms, lasts_ms) = (random.within(WITHIN_MS), random.within(LASTS_MS));
        let mut below = |end: usize| random.below(end as u64) as usize;
        let place = below(hosts.len());
        let host = hosts.swap_remove(place);
        let (kind, crash) = (KINDS[below(KINDS.len())], CRASHES[below(CRASHES.len())]);
        let (steps, away_ms) = (random.below(STEPS_MAX), random.within(AWAY_MS));
        Planned { at_ms, lasts_ms, fault: Fault::SyncsFail { host, kind, steps, crash, away_ms } }
    };
    (0..count).map(one).collect()
}

impl World {
    /// A node did something. Whoever met a sync that failed has ended, or is about to.
    pub(super) fn watch_syncs(&mut self, host: usize) {
        if self.node_mut(host).goes_on_unsynced() {
            self.amiss.insert(format!("the node on host {host} goes on after a sync of its log has failed"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_disk_fails_twice_in_a_run() {
        for seed in 0..3_200 {
            let planned = plan(seed);
            let hosts: BTreeSet<usize> =
                planned.iter().filter_map(|planned| host_of(&planned.fault)).collect();
            assert_eq!(hosts.len(), planned.len(), "seed {seed}: {planned:?}");
        }
    }

    fn host_of(fault: &Fault) -> Option<usize> {
        match fault {
            Fault::SyncsFail { host, .. } => Some(*host),
            _ => None,
        }
    }

    #[test]
    fn each_kind_of_sync_fails_on_each_node_and_leaves_either_disk() {
        let mut tried = BTreeSet::new();
        for planned in (0..3_200).flat_map(plan) {
            let Fault::SyncsFail { host, kind, steps, crash, .. } = planned.fault else {
                panic!("{:?}", planned.fault)
            };
            assert!(host < HOSTS.nodes && steps < STEPS_MAX);
            tried.insert((host, kind, crash == Crash::Process));
        }
        assert_eq!(tried.len(), HOSTS.nodes * 3 * 2, "{tried:?}");
    }
}
