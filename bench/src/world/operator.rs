//! Whoever runs the fleet: in half of all runs a storage node joins, and mostly one leaves some time later, be it the same;
//! in some of the others a node that lost its disk is replaced (`lost.rs`), or one leaves as soon as another one has lost a
//! replica to the node that joined, which has to have it again (`returns.rs`). All are asked for as with `admin add-node` and
//! `admin remove-node`: at any node that runs, and again until it is so.
//!
//! All of it comes from chance of its own, so that runs without it are what they would be if there were no operator.

use super::agenda::Due;
use super::faults::{Planned, at_joiner};
use super::lost::Replacement;
use super::node::NodeHost;
use super::returns::{self, Returning};
use super::zones::Zones;
use super::{HOSTS, World};
use crate::workload::random::Random;
use std::fmt;
use std::ops::Range;
use storage_node::admin::FleetWish;
use wire_protocol::internal::Fleet;

/// Of sixteen seeds in a row those with an operator: of each kind of faults, and none that was kept or named before there
/// was one.
const OF_SIXTEEN: [u64; 8] = [6, 7, 9, 10, 12, 13, 14, 15];
/// Makes another stream of a seed.
const STREAM: u64 = 0x6f70_6572_6174_6f72;
/// The new node's machine is started within this time, in milliseconds.
const STARTS_MS: u64 = 5_000;
/// It is to join within this time, in milliseconds.
const JOINS_MS: Range<u64> = 500..9_000;
/// A node is to leave within so long after that, in milliseconds.
const LEAVES_MS: Range<u64> = 1..9_000;
/// What is not so by then is asked for again, in milliseconds.
const AGAIN_MS: Range<u64> = 200..1_500;
/// Faults at the new node, fewer than so many.
const FAULTS: u64 = 4;

/// What is to become of a storage node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// It joins.
    Joins(u32),
    /// It leaves.
    Leaves(u32),
}

/// A wish, and when it comes up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wished {
    /// In milliseconds from the start.
    pub at_ms: u64,
    /// What.
    pub wish: Wish,
}

impl fmt::Display for Wish {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wish::Joins(node) => write!(formatter, "node {node} joins"),
            Wish::Leaves(node) => write!(formatter, "node {node} leaves"),
        }
    }
}

impl Wish {
    /// Whether a fleet has taken it up.
    pub(super) fn is_of(self, fleet: &Fleet) -> bool {
        match self {
            Wish::Joins(id) => fleet.retired.contains(&id) || fleet.nodes.iter().any(|node| node.id == id),
            Wish::Leaves(id) => {
                let leaves = fleet.nodes.iter().any(|node| node.id == id && node.is_leaving);
                leaves || fleet.retired.contains(&id)
            }
        }
    }

    fn asked(self, zones: &Zones) -> FleetWish {
        match self {
            Wish::Joins(id) => {
                let (address, zone) = (HOSTS.address_of_node(id), zones.of_node(id).to_owned());
                FleetWish::Add { id, address, zone }
            }
            Wish::Leaves(id) => FleetWish::Remove { id },
        }
    }
}

/// Plans and patience.
pub(super) struct Operator {
    random: Random,
    /// In the order in which they come up.
    pub wishes: Vec<Wished>,
    /// When the node that joins is started, in milliseconds from the start; `None`: there is none.
    pub joins_from_ms: Option<u64>,
    /// What happens to it, or for its sake.
    pub faults: Vec<Planned>,
    /// Shards that there are at least.
    pub shards_min: u32,
}

impl Operator {
    /// From the seed alone.
    pub fn plan(seed: u64) -> Self {
        let mut random = Random::new(seed ^ STREAM);
        let (wishes, faults) = Default::default();
        let mut operator =
            Self { random: random.clone(), wishes, joins_from_ms: None, faults, shards_min: 1 };
        if let Some(Replacement { faults, joins_from_ms, wishes }) = Replacement::plan(seed) {
            (operator.joins_from_ms, operator.wishes) = (Some(joins_from_ms), Vec::from(wishes));
            operator.faults = faults;
            return operator;
        }
        if let Some(Returning { joins_from_ms, joins, comeback }) = Returning::plan(seed) {
            (operator.joins_from_ms, operator.shards_min) = (Some(joins_from_ms), returns::SHARDS_MIN);
            operator.wishes.push(joins);
            operator.faults.push(comeback);
            return operator;
        }
        if !OF_SIXTEEN.contains(&(seed % 16)) {
            return operator;
        }
        operator.joins_from_ms = Some(random.below(STARTS_MS));
        let joins_at_ms = random.within(JOINS_MS);
        operator.wishes.push(Wished { at_ms: joins_at_ms, wish: Wish::Joins(HOSTS.nodes as u32 + 1) });
        if random.below(5) > 0 {
            let at_ms = joins_at_ms + random.within(LEAVES_MS);
            let leaves = random.below(HOSTS.nodes as u64 + 1) as u32 + 1;
            operator.wishes.push(Wished { at_ms, wish: Wish::Leaves(leaves) });
        }
        let faults = random.below(FAULTS);
        operator.faults = at_joiner(HOSTS, faults, &mut random);
        operator.random = random;
        operator
    }

    /// When its last wish comes up, in milliseconds from the start.
    pub fn over_ms(&self) -> u64 {
        self.wishes.iter().map(|wished| wished.at_ms).max().unwrap_or(0)
    }
}

impl World {
    /// The numbered wish has come up, or was asked for and may have been lost.
    pub(super) fn ask_for(&mut self, number: usize) {
        let wish = self.operator.wishes[number].wish;
        if self.newest_fleet().is_some_and(|fleet| wish.is_of(&fleet)) {
            return;
        }
        let answers = |node: &NodeHost| node.is_up() && self.paused[node.host].is_none();
        let places = 0..self.nodes.len();
        let running: Vec<usize> = places.filter(|place| answers(&self.nodes[*place])).collect();
        if !running.is_empty() {
            let place = running[self.operator.random.below(running.len() as u64) as usize];
            self.nodes[place].ask_for(&wish.asked(&self.zones), &mut self.outside);
        }
        let again_ms = self.outside.now_ms + self.operator.random.within(AGAIN_MS);
        self.outside.agenda.plan(again_ms, Due::Wish(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn half_of_all_seeds_and_those_for_other_ends_move_shards_and_any_node_leaves() {
        let moving: Vec<u64> = (0..1_600).filter(|seed| !Operator::plan(*seed).wishes.is_empty()).collect();
        let lost = (0..1_600).filter(|seed| Replacement::plan(*seed).is_some()).count();
        let returning = (0..1_600).filter(|seed| Returning::plan(*seed).is_some()).count();
        assert_eq!((moving.len(), lost, returning), (800 + lost + returning, 150, 200), "none has two");
        let kinds = (0..4).map(|kind| moving.iter().filter(|seed| **seed % 4 == kind).count());
        assert!(kinds.clone().all(|count| count >= 100), "{:?}", kinds.collect::<Vec<_>>());
        let leave = moving.iter().filter_map(|seed| Some(Operator::plan(*seed).wishes.get(1)?.wish));
        let leave: BTreeSet<u32> = leave
            .map(|wish| match wish {
                Wish::Leaves(node) => node,
                Wish::Joins(node) => panic!("node {node} joins twice"),
            })
            .collect();
        assert_eq!(leave, [1, 2, 3, 4].into());
    }
}
