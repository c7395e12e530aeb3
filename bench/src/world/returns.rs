//! Replicas that come back where they have just been: in eight of 64 seeds a storage node joins, so that a replica moves to it,
//! and as soon as that has gone from where it was, another node is to leave, so that it has to go back. Meanwhile the node that
//! loses it and gets it again is cut off, hears nothing, pauses, is slow or down: it is well again when the fleet wants its
//! replica back, so that it hears of its removal and of its return together, or late, and has removed nothing by then. From
//! then on the other nodes are slow, so that whoever leads has not applied what it goes by.
//!
//! ```text
//! a move is under way: the node is away --its replica has gone--> another one is asked to leave
//!     --the replica is to come back--> the others are slow, the node is well --it holds a replica--> nobody is slow
//! ```
//!
//! That is what it took for a node to be counted on for what it was about to remove (`Group::behind` in
//! `storage-node/src/replication/group.rs`). That a voter holds nothing takes even more than this (`docs/reliability.md`); that a
//! move stands still is what it found. How often a replica comes back soon is counted in all runs, by what nodes know of its
//! shard.
//!
//! All of it comes from chance of its own.

use super::agenda::Due;
use super::faults::{Fault, Planned};
use super::operator::{Wish, Wished};
use super::{HOSTS, START_MS, Stage, World, around, both_ways};
use crate::workload::random::Random;
use std::collections::BTreeMap;
use std::ops::Range;
use storage_node::placement::fleet::goal;
use storage_node::sim::Crash;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{ReplicaSet, ShardPlace};

/// Of 64 seeds in a row those with a replica that has to come back: none in which nodes join or leave anyway, none that is kept
/// or named, and all of them with links as the product has them ([`super::plan::is_free`]).
const OF_SIXTY_FOUR: [u64; 8] = [20, 21, 35, 48, 49, 51, 52, 53];
/// Makes another stream of a seed.
const STREAM: u64 = 0x7265_7475_726e_735f;
/// Shards that there are at least: of a single one nothing moves for the sake of counts.
pub(super) const SHARDS_MIN: u32 = 2;
/// The new node's machine is started within this time, in milliseconds.
const STARTS_MS: u64 = 2_000;
/// It is to join within this time, in milliseconds: once a fleet that begins has begun.
const JOINS_MS: Range<u64> = 2_500..8_000;
/// All of it is seen to for so long from then on, in milliseconds.
const LASTS_MS: Range<u64> = 9_000..14_000;
/// How often it is looked how far it is, in milliseconds.
const LOOK_MS: u64 = 10;
/// Another node is asked to leave within so long after the replica has gone, in milliseconds: mostly before the fleet says that
/// it has.
const ASKS_MS: Range<u64> = 0..300;
/// The node is well again within so long after the fleet wants its replica back, in milliseconds: until that is proposed
/// leadership has to change hands.
const HEALS_MS: Range<u64> = 0..500;
/// A pause lasts so long, in milliseconds: about as long as it takes until then.
const PAUSED_MS: Range<u64> = 1_500..6_000;
/// What a slow network adds at most to what it carries, in milliseconds.
const SLOW_NETWORK_MS: Range<u64> = 50..250;
/// What is added at most to whatever slow machines do, in milliseconds: several times as much as it takes to ask and be
/// answered, and little enough that leadership can change hands.
const SLOW_MACHINES_MS: Range<u64> = 10..80;
/// Machines are slow for so long after the node holds a replica again, in milliseconds: longer than a leader takes until it looks
/// whether that may vote.
const EASES_MS: u64 = 1_000;
/// A replica that comes back within so long after it has gone comes back soon, in milliseconds.
const SOON_MS: u64 = 3_000;

/// What becomes of a node that loses its replica, until it is to get it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Away {
    /// Nothing goes to it or from it.
    CutOff,
    /// Nothing goes to it; what it says is heard.
    Unheard,
    /// It does nothing for so long, in milliseconds.
    Paused(u64),
    /// Whatever goes to it or from it takes up to so much longer, in milliseconds.
    Slow(u64),
    /// It has gone.
    Down(Crash),
    /// Nothing: it hears of everything as it happens.
    Reached,
}

/// What is done so that a replica comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Comeback {
    /// To whoever loses its replica.
    pub away: Away,
    /// Which of several replicas, and which of the other nodes leaves: counted on from the first again.
    pub choice: u64,
    /// That one is asked to so long after the replica has gone, in milliseconds.
    pub asks_after_ms: u64,
    /// The node is well again so long after the replica is to come back, in milliseconds.
    pub heals_after_ms: u64,
    /// From then on whatever the others do takes up to so much longer, in milliseconds.
    pub slow_ms: u64,
}

/// A node that joins, and a replica that has to come back.
pub(super) struct Returning {
    /// When the new node's machine is started, in milliseconds from the start.
    pub joins_from_ms: u64,
    /// The new node joins. Who leaves is known when a replica has gone.
    pub joins: Wished,
    /// What is done then.
    pub comeback: Planned,
}

impl Returning {
    /// From the seed alone; `None`: nothing of it is planned.
    pub fn plan(seed: u64) -> Option<Self> {
        if !OF_SIXTY_FOUR.contains(&(seed % 64)) {
            return None;
        }
        let mut random = Random::new(seed ^ STREAM);
        let joins_from_ms = random.below(STARTS_MS);
        let at_ms = random.within(JOINS_MS);
        let joins = Wished { at_ms, wish: Wish::Joins(HOSTS.node_of_host(HOSTS.joiner())) };
        let lasts_ms = random.within(LASTS_MS);
        let comeback = Comeback {
            away: any_away(&mut random),
            choice: random.draw(),
            asks_after_ms: random.within(ASKS_MS),
            heals_after_ms: random.within(HEALS_MS),
            slow_ms: random.within(SLOW_MACHINES_MS),
        };
        let comeback = Planned { at_ms, lasts_ms, fault: Fault::ComesBack(comeback) };
        Some(Self { joins_from_ms, joins, comeback })
    }
}

fn any_away(random: &mut Random) -> Away {
    match random.below(12) {
        0..4 => Away::CutOff,
        4..6 => Away::Unheard,
        6..8 => Away::Paused(random.within(PAUSED_MS)),
        8 => Away::Slow(random.within(SLOW_NETWORK_MS)),
        9 | 10 => Away::Down(Crash::ALL[random.below(Crash::ALL.len() as u64) as usize]),
        _ => Away::Reached,
    }
}

/// Who holds replicas, and one that is made to come back.
#[derive(Default)]
pub(super) struct Returns {
    losing: Option<Losing>,
    /// By shard: who holds a replica as of the newest change that any node knows, and which that is.
    holders: BTreeMap<u32, (u64, Vec<u32>)>,
    /// By shard and node: when the replica went that was there.
    gone_ms: BTreeMap<(u32, u32), u64>,
}

/// A node that loses its replica of a shard.
#[derive(Clone, Copy)]
struct Losing {
    shard: u32,
    node: u32,
    step: Step,
}

/// What is waited for.
#[derive(Clone, Copy)]
enum Step {
    /// The replica is to go.
    Goes,
    /// It has gone, and somebody is asked to leave then.
    Asks { at_ms: u64 },
    /// The fleet is to want it back.
    Wants,
    /// It does, and the node is well again then.
    Heals { at_ms: u64 },
    /// The node is to hold a replica again.
    Returns,
    /// It does, and the others are as fast as ever then.
    Eases { at_ms: u64 },
    /// Nothing more.
    Over,
}

impl Returns {
    /// Some node knows this of the replicas of a shard. Gives the nodes where, by that, a replica is back that had gone from
    /// there a short time ago.
    pub fn note(&mut self, shard: u32, set: &ReplicaSet, now_ms: u64) -> Vec<u32> {
        let (changed_at, holders) = self.holders.entry(shard).or_default();
        let is_known = !holders.is_empty() && set.changed_at <= *changed_at;
        // Whoever has removed its replica knows of nobody.
        if is_known || set.voters.is_empty() {
            return Vec::new();
        }
        let ReplicaSet { voters, voters_outgoing, learners, learners_next, .. } = set;
        let now: Vec<u32> =
            [voters, voters_outgoing, learners, learners_next].into_iter().flatten().copied().collect();
        for node in holders.iter().filter(|node| !now.contains(node)) {
            self.gone_ms.insert((shard, *node), now_ms);
        }
        let came = voters.iter().chain(learners).filter(|node| !holders.contains(node));
        let gone_ms = &mut self.gone_ms;
        let is_soon =
            |node: &u32| gone_ms.remove(&(shard, *node)).is_some_and(|at_ms| now_ms < at_ms + SOON_MS);
        let back = came.copied().filter(is_soon).collect();
        (*changed_at, *holders) = (set.changed_at, now);
        back
    }

    fn holds(&self, shard: u32, node: u32) -> bool {
        self.holders.get(&shard).is_some_and(|(_, holders)| holders.contains(&node))
    }
}

impl World {
    /// The numbered fault sees to it that a replica comes back, step by step.
    pub(super) fn make_return(&mut self, number: usize, comeback: Comeback) {
        if self.is_over(number) || !matches!(self.stage, Stage::Busy { .. }) {
            return;
        }
        let losing = match self.returns.losing {
            Some(losing) => Some(Losing { step: self.next_step(number, comeback, losing), ..losing }),
            None => self.begin_return(number, comeback),
        };
        self.returns.losing = losing;
        if !matches!(losing, Some(Losing { step: Step::Over, .. })) {
            let again_ms = self.outside.now_ms + LOOK_MS;
            self.outside.agenda.plan(again_ms, Due::Fault(number));
        }
    }

    /// Whether a replica is about to move to the new node: from here on its node hears late of what becomes of it.
    fn begin_return(&mut self, number: usize, comeback: Comeback) -> Option<Losing> {
        let losing = self.find_losing(comeback.choice)?;
        self.part(number, comeback, losing.node);
        Some(losing)
    }

    fn find_losing(&self, choice: u64) -> Option<Losing> {
        let fleet = self.newest_fleet()?;
        let joiner = HOSTS.node_of_host(HOSTS.joiner());
        let losing = |(shard, place): (u32, &ShardPlace)| {
            let to = goal(&fleet, ShardId(shard)).filter(|to| to.contains(&joiner))?;
            let node = place.nodes.iter().copied().find(|node| !to.contains(node))?;
            Some(Losing { shard, node, step: Step::Goes })
        };
        let all: Vec<Losing> = (0..).zip(&fleet.shards).filter_map(losing).collect();
        let place = choice.checked_rem(all.len() as u64)?;
        all.get(place as usize).copied()
    }

    fn next_step(&mut self, number: usize, comeback: Comeback, losing: Losing) -> Step {
        let Losing { shard, node, step } = losing;
        let now_ms = self.outside.now_ms;
        match step {
            Step::Goes if !self.returns.holds(shard, node) => {
                Step::Asks { at_ms: now_ms + comeback.asks_after_ms }
            }
            Step::Asks { at_ms } if now_ms >= at_ms => {
                self.let_another_leave(comeback.choice, node);
                Step::Wants
            }
            Step::Wants if self.is_wanted_back(shard, node) => {
                self.slow_others(node, comeback.slow_ms);
                Step::Heals { at_ms: now_ms + comeback.heals_after_ms }
            }
            Step::Heals { at_ms } if now_ms >= at_ms => {
                self.heal(number, comeback, node);
                Step::Returns
            }
            Step::Returns if self.returns.holds(shard, node) => Step::Eases { at_ms: now_ms + EASES_MS },
            Step::Eases { at_ms } if now_ms >= at_ms => {
                self.slow_others(node, 0);
                Step::Over
            }
            waits => waits,
        }
    }

    fn part(&mut self, number: usize, comeback: Comeback, node: u32) {
        let host = HOSTS.host_of_node(node);
        match comeback.away {
            Away::CutOff => self.cut(number, around(&[host])),
            Away::Unheard => self.cut(number, both_ways(&|_, to| to == host)),
            Away::Paused(for_ms) => self.pause(host, for_ms),
            Away::Slow(by_ms) => self.outside.network.slow(host, by_ms),
            Away::Down(crash) if self.node_mut(host).is_up() => {
                let away_ms = self.ends_ms(number).saturating_sub(self.outside.now_ms);
                self.crash(host, crash, away_ms);
            }
            Away::Down(_) | Away::Reached => {}
        }
    }

    /// It is as it was; a pause ends by itself.
    fn heal(&mut self, number: usize, comeback: Comeback, node: u32) {
        let host = HOSTS.host_of_node(node);
        self.mend(number);
        match comeback.away {
            Away::Slow(_) => self.outside.network.slow(host, 0),
            Away::Down(_) => self.outside.agenda.plan(self.outside.now_ms, Due::Start(host)),
            Away::CutOff | Away::Unheard | Away::Paused(_) | Away::Reached => {}
        }
    }

    /// Whoever runs the fleet wants another node to leave than this one: all that stay hold all shards then.
    fn let_another_leave(&mut self, choice: u64, node: u32) {
        let Some(fleet) = self.newest_fleet() else { return };
        let others = fleet.nodes.iter().filter(|other| other.id != node && !other.is_leaving);
        let others: Vec<u32> = others.map(|other| other.id).collect();
        if others.len() < HOSTS.nodes {
            return;
        }
        let leaves = others[(choice % others.len() as u64) as usize];
        let (number, at_ms) = (self.operator.wishes.len(), self.outside.now_ms - START_MS);
        self.operator.wishes.push(Wished { at_ms, wish: Wish::Leaves(leaves) });
        self.ask_for(number);
    }

    /// Whether the shard is on its way to this node.
    fn is_wanted_back(&self, shard: u32, node: u32) -> bool {
        let fleet = self.newest_fleet();
        let goal = fleet.as_ref().and_then(|fleet| goal(fleet, ShardId(shard)));
        goal.is_some_and(|nodes| nodes.contains(&node))
    }

    /// Whatever the other storage nodes do takes up to so much longer.
    fn slow_others(&mut self, node: u32, by_ms: u64) {
        let host = HOSTS.host_of_node(node);
        let others = self.nodes.iter_mut().filter(|other| other.host != host);
        others.for_each(|other| other.slow_ms = by_ms);
    }

    /// The numbered fault ends, however far it came.
    pub(super) fn end_return(&mut self, number: usize, comeback: Comeback) {
        if let Some(Losing { node, .. }) = self.returns.losing.take() {
            self.heal(number, comeback, node);
            self.slow_others(node, 0);
        }
    }

    /// Counts a replica that came back soon, and whether its node has anything left of the one before.
    pub(super) fn count_return(&mut self, shard: u32, node: u32) {
        let place = HOSTS.node_place(HOSTS.host_of_node(node));
        let set = place.and_then(|place| self.nodes.get_mut(place)).and_then(|node| node.replicas(shard));
        let is_whole = set.is_some_and(|set| !set.voters.is_empty());
        self.tried.came_back += 1;
        self.tried.came_back_whole += u64::from(is_whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::lost::Replacement;
    use crate::world::operator::Operator;
    use crate::world::plan::is_free;
    use std::collections::BTreeSet;

    #[test]
    fn a_replica_comes_back_where_no_other_nodes_join_or_leave_and_in_each_way() {
        let (mut ways, mut count) = (BTreeSet::new(), 0);
        for seed in 0..3_200 {
            let Some(Returning { joins_from_ms, joins, comeback }) = Returning::plan(seed) else { continue };
            count += 1;
            assert!(is_free(seed) && Replacement::plan(seed).is_none(), "seed {seed}");
            assert!(joins_from_ms < joins.at_ms && joins.at_ms == comeback.at_ms, "seed {seed}");
            assert_eq!(joins.wish, Wish::Joins(HOSTS.nodes as u32 + 1), "seed {seed}");
            let operator = Operator::plan(seed);
            assert_eq!((operator.wishes, operator.shards_min), (vec![joins], SHARDS_MIN), "seed {seed}");
            assert_eq!(operator.faults, std::slice::from_ref(&comeback), "seed {seed}");
            let Fault::ComesBack(Comeback { away, .. }) = comeback.fault else { panic!("{comeback:?}") };
            ways.insert(match away {
                Away::CutOff => 0,
                Away::Unheard => 1,
                Away::Paused(_) => 2,
                Away::Slow(_) => 3,
                Away::Down(_) => 4,
                Away::Reached => 5,
            });
        }
        assert_eq!((count, ways.len()), (400, 6));
    }

    #[test]
    fn a_replica_is_back_that_went_a_short_time_ago_from_the_same_node() {
        let mut returns = Returns::default();
        let mut note = |changed_at, voters: &[u32], learners: &[u32], now_ms| {
            let (voters, learners) = (voters.to_vec(), learners.to_vec());
            let set = ReplicaSet { voters, learners, changed_at, ..ReplicaSet::default() };
            returns.note(7, &set, now_ms)
        };
        assert!(note(0, &[1, 2, 3], &[], 0).is_empty(), "they are there");
        assert!(note(10, &[1, 2, 3], &[4], 100).is_empty(), "one comes that never was there");
        assert!(note(12, &[2, 3, 4], &[], 200).is_empty(), "one goes");
        assert!(note(12, &[2, 3, 4], &[], 300).is_empty(), "another node hears of it");
        assert!(note(0, &[1, 2, 3], &[], 400).is_empty(), "who knows less says nothing of who is back");
        assert!(note(14, &[], &[], 500).is_empty(), "who has removed its own knows of nobody");
        assert_eq!(note(15, &[2, 3, 4], &[1], 1_000), vec![1]);
        assert!(note(17, &[1, 2, 3], &[], 1_100).is_empty(), "it votes, and another one goes");
        assert!(note(19, &[1, 2, 3], &[4], 1_100 + SOON_MS).is_empty(), "that is long ago");
        assert!(returns.holds(7, 4) && !returns.holds(7, 5) && !returns.holds(8, 4));
    }
}
