//! A disk that is lost, and with it all that a storage node promised: in three of 32 seeds one of the first three nodes goes
//! and whatever it is started with afterwards is empty. It may not come back. Whoever runs the fleet replaces it, as
//! `docs/operations.md` says: a node with a new id joins, then the lost one is removed.
//!
//! Before that somebody may try what must not be: to start it as always, which it has to refuse; as if it were new, under
//! the id that others count on: then it runs, and is to hold nothing that votes, leads or counts; or as it was when its fleet
//! began (`founding.rs`), again and again, as whatever keeps a process running does: then it asks the others, and any of them
//! that runs refuses it.
//!
//! One disk of three leaves a majority of each shard, so whatever was acknowledged has to be there at the end. All of it
//! comes from chance of its own.

use super::agenda::Due;
use super::faults::{Back, Fault, Planned, at_joiner};
use super::node::NodeHost;
use super::operator::{Wish, Wished};
use super::{HOSTS, Stage, World};
use crate::workload::random::Random;
use std::ops::Range;
use storage_node::sim::{Crash, Standing};

/// Of 32 seeds in a row those that lose a disk: of two kinds of faults, none that has an operator anyway, none that is kept
/// since it once failed. Where faults are aimed at leaders two nodes alone would leave nobody to lead instead, so that most
/// of these seeds have others.
const OF_THIRTY_TWO: [u64; 3] = [5, 18, 24];
/// Makes another stream of a seed.
const STREAM: u64 = 0x6c6f_7374_5f5f_5f5f;
/// It is lost within this time, in milliseconds.
const LOST_MS: Range<u64> = 3_000..9_000;
/// Somebody tries to start it again within so long after that, in milliseconds.
const STARTED_MS: Range<u64> = 1..3_000;
/// A node that was refused is started again after so long, in milliseconds.
const REFUSED_MS: Range<u64> = 500..2_500;
/// Whoever runs the fleet notices, and has another machine, within so long, in milliseconds.
const NOTICED_MS: Range<u64> = 500..6_000;
/// The new node is asked for within so long after its machine was started, the removal within so long after that; in
/// milliseconds.
const ASKED_MS: Range<u64> = 1..2_000;
/// Faults at the new node, fewer than so many.
const FAULTS: u64 = 3;
/// A fault that comes before the fleet has begun comes so much later, in milliseconds.
const LATER_MS: u64 = 100;

/// A loss, and the node that comes instead.
pub(super) struct Replacement {
    /// The loss, and what happens to the new node.
    pub faults: Vec<Planned>,
    /// When the new node's machine is started, in milliseconds from the start.
    pub joins_from_ms: u64,
    /// The new node joins, the lost one leaves.
    pub wishes: [Wished; 2],
}

impl Replacement {
    /// From the seed alone; `None`: no disk is lost.
    pub fn plan(seed: u64) -> Option<Self> {
        if !OF_THIRTY_TWO.contains(&(seed % 32)) {
            return None;
        }
        let mut random = Random::new(seed ^ STREAM);
        let host = random.within(0..HOSTS.nodes as u64) as usize;
        let back = Back::ALL[random.within(0..Back::ALL.len() as u64) as usize];
        let at_ms = random.within(LOST_MS);
        let loss =
            Planned { at_ms, lasts_ms: random.within(STARTED_MS), fault: Fault::DiskLost { host, back } };
        let joins_from_ms = at_ms + random.within(NOTICED_MS);
        let joins_at_ms = joins_from_ms + random.within(ASKED_MS);
        let leaves_at_ms = joins_at_ms + random.within(ASKED_MS);
        let wishes = [
            Wished { at_ms: joins_at_ms, wish: Wish::Joins(HOSTS.node_of_host(HOSTS.joiner())) },
            Wished { at_ms: leaves_at_ms, wish: Wish::Leaves(HOSTS.node_of_host(host)) },
        ];
        let count = random.below(FAULTS);
        let mut faults = at_joiner(HOSTS, count, &mut random);
        faults.push(loss);
        Some(Self { faults, joins_from_ms, wishes })
    }
}

impl World {
    /// The numbered fault takes a node's disk, once that is a loss: nobody counts on a folder before a fleet has begun.
    pub(super) fn lose_disk(&mut self, number: usize, host: usize, back: Back) {
        if !matches!(self.stage, Stage::Busy { .. }) {
            return;
        }
        if !self.nodes[..HOSTS.nodes].iter().all(NodeHost::has_begun) {
            let later_ms = self.outside.now_ms + LATER_MS;
            return self.outside.agenda.plan(later_ms, Due::Fault(number));
        }
        let away_ms = self.faults[number].lasts_ms;
        self.crash(host, Crash::PowerKeepsNothing, away_ms);
        self.node_mut(host).lose_disk(back);
        self.tried.disks_lost += 1;
    }

    /// A node whose disk was lost was refused by one that runs, and its process has ended.
    pub(super) fn end_refused(&mut self, host: usize) {
        let away_ms = self.outside.random.within(REFUSED_MS);
        self.crash(host, Crash::Process, away_ms);
    }

    /// A node did something. If its disk was lost it is to be no replica of anything.
    pub(super) fn watch_lost(&mut self, host: usize) {
        let shards = 0..self.applied.len() as u32;
        let node = self.node_mut(host);
        if !node.has_lost_disk() {
            return;
        }
        let mut replicas = Vec::new();
        for shard in shards {
            let holds = node.applied(shard) > 0;
            let counts = node
                .standing(shard)
                .is_some_and(|Standing { leads, voted_for, .. }| leads || voted_for.is_some());
            if holds || counts {
                replicas.push(format!("host {host} lost its disk, and is a replica of shard {shard}"));
            }
        }
        self.amiss.extend(replicas);
    }

    /// Whether a node says what it has forgotten.
    pub(super) fn look_at_lost(&mut self) {
        let says = self.nodes.iter().any(|node| node.has_lost_disk() && !node.forgotten().is_empty());
        self.tried.forgotten = self.tried.forgotten.max(u64::from(says));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_node_is_lost_before_another_one_joins_and_is_removed_behind_that() {
        let mut tried = BTreeSet::new();
        for seed in 0..3_200 {
            let Some(planned) = Replacement::plan(seed) else { continue };
            let Replacement { faults, joins_from_ms, wishes } = planned;
            let losses = faults.iter().filter_map(|planned| match planned.fault {
                Fault::DiskLost { host, back } => Some((planned.at_ms, host, back)),
                _ => None,
            });
            let losses: Vec<_> = losses.collect();
            let [(lost_ms, host, back)] = losses[..] else { panic!("one disk: {faults:?}") };
            let [joins, leaves] = wishes;
            assert_eq!((joins.wish, leaves.wish), (Wish::Joins(4), Wish::Leaves(host as u32 + 1)));
            assert!(lost_ms < joins_from_ms && joins_from_ms < joins.at_ms && joins.at_ms < leaves.at_ms);
            tried.insert((host, back as usize));
        }
        assert_eq!(tried.len(), HOSTS.nodes * Back::ALL.len(), "each node, each way: {tried:?}");
    }
}
