//! Moving replicas, as rules without I/O: what is to be moved where ([`plan`]), what a shard's leader does next
//! ([`next_step`]), and what a finished move makes of the fleet ([`reported`]).
//!
//! ```text
//! learner on each new node -> it has nearly everything -> the leader hands over if it has to go
//!     -> one joint change: the new ones vote, the old ones are gone -> report to shard 0 -> next move
//! ```

use super::fleet::{FLEET_NODES_MAX, MOVES_AT_ONCE, staying};
use super::planner::{Planner, lead_evenly};
use crate::replication::{ReplicaChange, is_joint};
use wire_protocol::internal::{Fleet, FleetNode, ReplicaReport, ReplicaSet, ShardMove};

/// A learner that lacks fewer entries than this is let vote: it has the rest before anybody notices.
pub const CAUGHT_UP_ENTRIES: u64 = 64;

/// What a leader knows of its shard's replicas.
#[derive(Clone, Copy)]
pub struct MoveView<'a> {
    /// The leader's node.
    pub own: u32,
    /// The replicas now.
    pub set: &'a ReplicaSet,
    /// How many entries a node's replica lacks; `None`: it is not heard of, or has nothing yet.
    pub behind: &'a dyn Fn(u32) -> Option<u64>,
    /// Whether a replica of this node went under this leader: see [`crate::replication::Group::was_removed`].
    pub was_removed: &'a dyn Fn(u32) -> bool,
}

/// What a leader does next about a move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// The replicas are where they are to be.
    Done,
    /// Nothing, before something else has happened.
    Wait,
    /// Propose these.
    Change(Vec<ReplicaChange>),
    /// Another one has to lead first.
    HandOver(u32),
    /// The leader, which alone votes, has to lead in another term first.
    NewTerm,
}

/// What a leader does next so that exactly the nodes of `goal` vote.
pub fn next_step(goal: &[u32], view: &MoveView<'_>) -> Step {
    let MoveView { own, set, behind, was_removed } = *view;
    if is_joint(set) {
        return Step::Wait;
    }
    if let Some(stranger) = set.learners.iter().find(|learner| !goal.contains(learner)) {
        return Step::Change(vec![ReplicaChange::Remove(*stranger)]);
    }
    let votes = |node: &u32| set.voters.contains(node);
    if goal.iter().all(votes) && set.voters.iter().all(|voter| goal.contains(voter)) {
        return Step::Done;
    }
    let new: Vec<u32> = goal.iter().copied().filter(|node| !votes(node)).collect();
    let is_caught_up = |node: &u32| behind(*node).is_some_and(|entries| entries <= CAUGHT_UP_ENTRIES);
    if let Some(unknown) = new.iter().find(|node| !set.learners.contains(node)) {
        let mut others = set.voters.iter().filter(|voter| **voter != own && is_caught_up(voter));
        return match (was_removed(*unknown), others.next()) {
            (false, _) => Step::Change(vec![ReplicaChange::AddLearner(*unknown)]),
            (true, Some(other)) => Step::HandOver(*other),
            (true, None) if set.voters == [own] => Step::NewTerm,
            (true, None) => Step::Wait,
        };
    }
    if !new.iter().all(is_caught_up) {
        return Step::Wait;
    }
    if !goal.contains(&own) {
        // Of those that vote already, the one that has most; if nobody stays, a new one has to vote first.
        let staying = goal.iter().filter(|node| votes(node) && is_caught_up(node));
        if let Some(next) = staying.min_by_key(|node| behind(**node)) {
            return Step::HandOver(*next);
        }
        if let Some(first) = new.first().filter(|_| !goal.iter().any(votes)) {
            return Step::Change(vec![ReplicaChange::AddVoter(*first)]);
        }
        return Step::Wait;
    }
    let comes = new.into_iter().map(ReplicaChange::AddVoter);
    let goes =
        set.voters.iter().filter(|voter| !goal.contains(voter)).map(|voter| ReplicaChange::Remove(*voter));
    Step::Change(comes.chain(goes).collect())
}

/// The fleet after a report; `None`: it says nothing new.
pub fn reported(fleet: &Fleet, report: &ReplicaReport) -> Option<Fleet> {
    let mut next = fleet.clone();
    let place = next.shards.get_mut(report.shard as usize)?;
    let wanted = next.moves.iter().position(|to| to.shard == report.shard);
    let is_end = wanted.is_some_and(|index| same(&next.moves[index].nodes, &report.voters));
    // A move that goes back may find that nothing had moved.
    let is_news = report.changed_at > place.changed_at || (is_end && report.changed_at == place.changed_at);
    if !is_news || report.voters.is_empty() {
        return None;
    }
    place.changed_at = report.changed_at;
    let is_elsewhere = !same(&place.nodes, &report.voters);
    match wanted.filter(|_| is_end) {
        Some(index) => place.nodes = next.moves.remove(index).nodes,
        None if is_elsewhere => place.nodes.clone_from(&report.voters),
        None => {}
    }
    // Its leader had not heard of the newest fleet: it may be on nodes that leave.
    if is_elsewhere && wanted.is_none() {
        next.moves = plan(&next);
    }
    retire(&mut next);
    next.epoch += 1;
    Some(next)
}

/// Takes out the nodes that leave and hold nothing any more, once nothing moves: before, a shard may be on nodes that the
/// list does not name.
fn retire(fleet: &mut Fleet) {
    let Fleet { nodes, shards, moves, retired, .. } = fleet;
    let is_used = |id: u32| !moves.is_empty() || shards.iter().any(|place| place.nodes.contains(&id));
    nodes.retain(|node| {
        let goes = node.is_leaving && !is_used(node.id);
        if goes {
            retired.push(node.id);
        }
        !goes
    });
}

/// Why a change of the fleet cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// The id is a node's already.
    #[error("node {0} is in the fleet")]
    Known(u32),
    /// An id is never given twice: its node may come back with what it knew.
    #[error("node {0} was in the fleet before; a new node needs a new id, one that lost its disk, too")]
    Retired(u32),
    /// There is no such node.
    #[error("node {0} is not in the fleet")]
    Unknown(u32),
    /// The fleet is as large as it may be.
    #[error("a fleet has at most {FLEET_NODES_MAX} nodes")]
    Full,
    /// Replicas would have nowhere to go.
    #[error("{needed} replicas need as many nodes that stay, and {there} would be left")]
    TooFew {
        /// Replicas of each shard.
        needed: usize,
        /// Nodes.
        there: usize,
    },
}

/// The fleet with one more node, and the moves that give it its share and part copies that can be in more zones now.
pub fn add_node(fleet: &Fleet, node: FleetNode) -> Result<Fleet, PlanError> {
    if fleet.nodes.iter().any(|known| known.id == node.id) {
        return Err(PlanError::Known(node.id));
    }
    if fleet.retired.contains(&node.id) {
        return Err(PlanError::Retired(node.id));
    }
    if fleet.nodes.len() >= FLEET_NODES_MAX {
        return Err(PlanError::Full);
    }
    let mut next = fleet.clone();
    next.nodes.push(node);
    next.nodes.sort_by_key(|node| node.id);
    Ok(planned(next))
}

/// The fleet that a node leaves, and the moves that take its replicas elsewhere.
pub fn remove_node(fleet: &Fleet, id: u32) -> Result<Fleet, PlanError> {
    let mut next = fleet.clone();
    let node = next.nodes.iter_mut().find(|node| node.id == id).ok_or(PlanError::Unknown(id))?;
    node.is_leaving = true;
    let (needed, there) = (copies_now(fleet), staying(&next).len());
    if there < needed {
        return Err(PlanError::TooFew { needed, there });
    }
    let mut next = planned(next);
    retire(&mut next);
    Ok(next)
}

/// Voters of the largest shard: no change makes it fewer.
fn copies_now(fleet: &Fleet) -> usize {
    fleet.shards.iter().map(|place| place.nodes.len()).max().unwrap_or(1)
}

fn planned(mut next: Fleet) -> Fleet {
    next.moves = plan(&next);
    next.epoch += 1;
    next
}

/// The moves that a fleet needs, and those under way that are given up, which go back: how far they came only their
/// leaders know. What comes first is never given up for what comes later:
///
/// 1. no replica is on a node that leaves, and each shard has as many as it should, or as there are nodes for, an odd
///    number;
/// 2. those of a shard are in as many zones as there are nodes of, and no zone has two more of them than another one in
///    which there is room: they move for that alone, too. A node without a zone is one by itself;
/// 3. nodes hold about as many as each other, as far as one replica after the other can be moved for it and none of a
///    shard comes nearer to another;
/// 4. nodes lead about as many as each other of what moves.
///
/// Each replica that moves does so for one of these. A plan ends where it says: whatever part of it has been made, the
/// rest is what is planned then, and in the end nothing. Zones are looked at whenever there is a new plan: when a node
/// joins or leaves, or a shard turns up where nobody wants it.
pub fn plan(fleet: &Fleet) -> Vec<ShardMove> {
    let nodes = staying(fleet);
    let odd = |count: usize| if count.is_multiple_of(2) { count.saturating_sub(1) } else { count };
    let copies = odd((fleet.replicas as usize).min(nodes.len())).max(copies_now(fleet).min(nodes.len()));
    let mut planner = Planner::new(&nodes, copies);
    // Where a move is under way its end counts.
    let mut wanted: Vec<Vec<u32>> = (0..)
        .zip(&fleet.shards)
        .map(|(shard, place)| {
            let moved = fleet.moves.iter().find(|to| to.shard == shard);
            moved.map_or_else(|| place.nodes.clone(), |to| to.nodes.clone())
        })
        .collect();
    for shard in &mut wanted {
        shard.retain(|id| nodes.iter().any(|node| node.id == *id));
        planner.count(shard);
    }
    for shard in &mut wanted {
        planner.fill(shard);
    }
    for shard in &mut wanted {
        planner.part(shard);
    }
    planner.level(&mut wanted);
    lead_evenly(&mut wanted, &nodes);
    let is_there =
        |shard: &usize, to: &[u32]| fleet.shards.get(*shard).is_some_and(|place| same(&place.nodes, to));
    let is_under_way = |shard: &usize| {
        let mut under_way = fleet.moves.iter().take(MOVES_AT_ONCE);
        under_way.any(|to| to.shard as usize == *shard)
    };
    let moves = wanted.into_iter().enumerate();
    let moves = moves.filter(|(shard, to)| !is_there(shard, to) || is_under_way(shard));
    let mut moves: Vec<ShardMove> =
        moves.map(|(shard, nodes)| ShardMove { shard: shard as u32, nodes }).collect();
    // What is under way stays at the front, and shard 0 is last: it keeps the list.
    let before =
        |to: &ShardMove| fleet.moves.iter().take(MOVES_AT_ONCE).position(|old| old.shard == to.shard);
    moves.sort_by_key(|to| (before(to).unwrap_or(MOVES_AT_ONCE), to.shard == 0, to.shard));
    moves
}

fn same(one: &[u32], other: &[u32]) -> bool {
    one.len() == other.len() && one.iter().all(|node| other.contains(node))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::placement::spread;
    use std::collections::BTreeSet;
    use wire_protocol::internal::ShardPlace;

    /// A node in a zone.
    pub fn node(id: u32, zone: &str) -> FleetNode {
        FleetNode { id, address: format!("10.0.0.{id}:7000"), zone: zone.to_owned(), is_leaving: false }
    }

    /// Three replicas on so many nodes.
    pub fn fleet(nodes: u32, shards: u32) -> Fleet {
        let nodes: Vec<FleetNode> = (1..=nodes).map(|id| node(id, "")).collect();
        let mut fleet = Fleet { replicas: 3, nodes, ..Fleet::default() };
        let places = spread(shards, &staying(&fleet), 3);
        fleet.shards = places.into_iter().map(|nodes| ShardPlace { nodes, changed_at: 0 }).collect();
        fleet
    }

    /// Takes all moves to their ends.
    pub fn settle(mut fleet: Fleet) -> Fleet {
        for index in fleet.epoch * 1_000.. {
            let Some(to) = fleet.moves.first() else { break };
            let mut voters = to.nodes.clone();
            voters.sort_unstable();
            let report = ReplicaReport { shard: to.shard, voters, changed_at: index };
            fleet = reported(&fleet, &report).expect("it is news");
        }
        fleet
    }

    /// Shards of which a node has a copy.
    pub fn held(fleet: &Fleet, id: u32) -> usize {
        fleet.shards.iter().filter(|place| place.nodes.contains(&id)).count()
    }

    /// Shards that a node leads while all are well.
    pub fn led(fleet: &Fleet, id: u32) -> usize {
        fleet.shards.iter().filter(|place| place.nodes[0] == id).count()
    }

    #[test]
    fn a_new_node_gets_its_share_and_nothing_else_moves() {
        let before = fleet(3, 16);
        let next = add_node(&before, node(4, "")).expect("it fits");
        assert_eq!((next.epoch, next.moves.len()), (1, 12), "a quarter of 48 replicas: {:?}", next.moves);
        assert!(next.moves.iter().all(|to| to.nodes.contains(&4)));
        assert_eq!(
            next.moves.last().map(|to| to.shard == 0),
            Some(next.moves.iter().any(|to| to.shard == 0))
        );
        let after = settle(next);
        assert_eq!((1..=4).map(|id| held(&after, id)).collect::<Vec<_>>(), [12, 12, 12, 12]);
        assert_eq!((1..=4).map(|id| led(&after, id)).collect::<Vec<_>>(), [4, 4, 4, 4]);
        assert_eq!(plan(&after), [], "it is as it should be");
    }

    #[test]
    fn a_node_that_leaves_is_retired_when_it_holds_nothing() {
        let next = remove_node(&fleet(4, 8), 2).expect("three are left");
        assert!(next.moves.iter().all(|to| !to.nodes.contains(&2) && to.nodes.len() == 3));
        assert!(next.nodes.iter().any(|node| node.id == 2 && node.is_leaving));
        let after = settle(next);
        assert_eq!((held(&after, 2), after.retired.as_slice()), (0, &[2][..]));
        assert_eq!(after.nodes.iter().map(|node| node.id).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(add_node(&after, node(2, "")), Err(PlanError::Retired(2)));
        assert_eq!(add_node(&after, node(3, "")), Err(PlanError::Known(3)));
        assert_eq!(remove_node(&after, 9), Err(PlanError::Unknown(9)));
        assert_eq!(remove_node(&after, 1), Err(PlanError::TooFew { needed: 3, there: 2 }));
    }

    #[test]
    fn a_move_under_way_that_is_given_up_goes_back_before_its_node_is_retired() {
        let added = add_node(&fleet(3, 4), node(4, "")).expect("it fits");
        let under_way: Vec<u32> = added.moves.iter().take(MOVES_AT_ONCE).map(|to| to.shard).collect();
        let next = remove_node(&added, 4).expect("three are left");
        assert_eq!(next.moves.iter().map(|to| to.shard).collect::<Vec<_>>(), under_way);
        assert!(next.moves.iter().all(|to| same(&to.nodes, &next.shards[to.shard as usize].nodes)));
        assert!(next.retired.is_empty(), "it may vote in both");
        // Of one the leader finds that nothing had changed, the other one had changed, and changed back.
        let [untouched, changed] = under_way[..] else { panic!("two are under way: {under_way:?}") };
        let report = |shard, changed_at| ReplicaReport { shard, voters: vec![1, 2, 3], changed_at };
        let next = reported(&next, &report(untouched, 0)).expect("it ends a move");
        assert_eq!((next.moves.len(), next.retired.len()), (1, 0));
        let next = reported(&next, &report(changed, 30)).expect("it ends a move");
        assert_eq!((next.moves.len(), &next.retired[..]), (0, &[4][..]));
        assert!(same(&next.shards[changed as usize].nodes, &added.shards[changed as usize].nodes));
    }

    #[test]
    fn a_shard_that_moved_where_nobody_wants_it_moves_away() {
        let added = add_node(&fleet(3, 4), node(4, "")).expect("it fits");
        let shard = added.moves[0].shard;
        let mut next = settle(remove_node(&added, 4).expect("three are left"));
        assert_eq!(next.retired, [4]);
        // One that led, and had not heard of it.
        let late = ReplicaReport { shard, voters: vec![2, 3, 4], changed_at: next.epoch * 1_000 - 1 };
        next = reported(&next, &late).expect("news");
        let moves: Vec<(u32, bool)> = next.moves.iter().map(|to| (to.shard, to.nodes.contains(&4))).collect();
        assert_eq!(moves, [(shard, false)]);
        assert_eq!(held(&settle(next), 4), 0);
    }

    #[test]
    fn one_node_becomes_three_and_no_shard_has_two_replicas() {
        let mut one = Fleet { replicas: 3, nodes: vec![node(1, "a")], ..Fleet::default() };
        one.shards = vec![ShardPlace { nodes: vec![1], changed_at: 0 }; 8];
        let two = add_node(&one, node(2, "b")).expect("it fits");
        let after_two = settle(two);
        assert!(after_two.shards.iter().all(|place| place.nodes.len() == 1), "two are less than one");
        let three = settle(add_node(&after_two, node(3, "c")).expect("it fits"));
        assert!(three.shards.iter().all(|place| place.nodes.len() == 3));
        assert!((1..=3).all(|id| (2..=3).contains(&led(&three, id))), "{:?}", three.shards);
    }

    #[test]
    fn zones_stay_apart_whatever_comes_and_goes() {
        let zones = ["a", "b", "c", "a", "b", "c"];
        let mut fleet = fleet(3, 32);
        fleet.nodes = (1..).zip(&zones[..3]).map(|(id, zone)| node(id, zone)).collect();
        for (id, zone) in (4..).zip(&zones[3..]) {
            fleet = settle(add_node(&fleet, node(id, zone)).expect("it fits"));
        }
        fleet = settle(remove_node(&fleet, 1).expect("enough are left"));
        for place in &fleet.shards {
            let zones: BTreeSet<&str> = place.nodes.iter().map(|id| zones[*id as usize - 1]).collect();
            assert_eq!(zones.len(), 3, "{place:?}");
        }
        assert!(fleet.nodes.iter().all(|node| held(&fleet, node.id) >= 14), "{:?}", fleet.shards);
    }

    #[test]
    fn reports_of_before_and_of_strangers_change_nothing() {
        let mut fleet = fleet(3, 2);
        fleet.shards[1].changed_at = 9;
        let report = |shard, changed_at| ReplicaReport { shard, voters: vec![1, 2, 3], changed_at };
        assert_eq!(reported(&fleet, &report(1, 9)), None);
        assert_eq!(reported(&fleet, &report(2, 10)), None);
        assert_eq!(reported(&fleet, &ReplicaReport { voters: Vec::new(), ..report(1, 10) }), None);
        assert_eq!(reported(&fleet, &report(1, 10)).expect("news").shards[1].changed_at, 10);
    }

    /// A leader and what it is told of others; carries steps out at once.
    fn carry_out(mut set: ReplicaSet, mut own: u32, goal: &[u32]) -> Vec<Step> {
        let mut steps = Vec::new();
        loop {
            let step =
                next_step(goal, &MoveView { own, set: &set, behind: &|_| Some(0), was_removed: &|_| false });
            steps.push(step.clone());
            match step {
                Step::Done => return steps,
                Step::Wait => panic!("nothing to wait for: {steps:?}"),
                Step::HandOver(to) => own = to,
                Step::NewTerm => panic!("nobody was removed: {steps:?}"),
                Step::Change(changes) => {
                    for change in changes {
                        match change {
                            ReplicaChange::AddLearner(id) => set.learners.push(id),
                            ReplicaChange::AddVoter(id) => {
                                set.learners.retain(|learner| *learner != id);
                                set.voters.push(id);
                            }
                            ReplicaChange::Remove(id) => {
                                set.learners.retain(|learner| *learner != id);
                                set.voters.retain(|voter| *voter != id);
                            }
                        }
                    }
                }
            }
            assert!(steps.len() < 20, "{steps:?}");
        }
    }

    #[test]
    fn a_move_goes_by_learner_and_one_joint_change() {
        use ReplicaChange::{AddLearner, AddVoter, Remove};
        let set = ReplicaSet { voters: vec![1, 2, 3], ..ReplicaSet::default() };
        assert_eq!(
            carry_out(set.clone(), 1, &[2, 3, 4]),
            [
                Step::Change(vec![AddLearner(4)]),
                Step::HandOver(2),
                Step::Change(vec![AddVoter(4), Remove(1)]),
                Step::Done
            ]
        );
        assert_eq!(carry_out(set.clone(), 1, &[1, 2, 3]), [Step::Done]);
        let whole = carry_out(set.clone(), 1, &[4, 5, 6]);
        assert!(whole.contains(&Step::Change(vec![AddVoter(4)])), "somebody has to lead: {whole:?}");
        let given_up = ReplicaSet { learners: vec![5], ..set };
        assert_eq!(carry_out(given_up, 1, &[1, 2, 3]), [Step::Change(vec![Remove(5)]), Step::Done]);
    }

    #[test]
    fn a_learner_that_lacks_much_and_a_joint_set_are_waited_for() {
        let set = ReplicaSet { voters: vec![1, 2, 3], learners: vec![4], ..ReplicaSet::default() };
        for behind in [None, Some(CAUGHT_UP_ENTRIES + 1)] {
            let view = MoveView { own: 2, set: &set, behind: &|_| behind, was_removed: &|_| false };
            assert_eq!(next_step(&[2, 3, 4], &view), Step::Wait);
        }
        let joint =
            ReplicaSet { voters_outgoing: vec![1, 2, 3], voters: vec![2, 3, 4], ..ReplicaSet::default() };
        let view = MoveView { own: 2, set: &joint, behind: &|_| Some(0), was_removed: &|_| false };
        assert_eq!(next_step(&[2, 3, 4], &view), Step::Wait);
    }

    #[test]
    fn one_that_comes_back_comes_under_another_leader() {
        let set = ReplicaSet { voters: vec![1, 2, 3], ..ReplicaSet::default() };
        let view = MoveView { own: 2, set: &set, behind: &|_| Some(0), was_removed: &|node| node == 4 };
        assert_eq!(next_step(&[2, 3, 4], &view), Step::HandOver(1));
        let alone = ReplicaSet { voters: vec![2], ..ReplicaSet::default() };
        assert_eq!(
            next_step(&[2, 3, 4], &MoveView { set: &alone, ..view }),
            Step::Change(vec![ReplicaChange::AddLearner(3)])
        );
        let view = MoveView { set: &alone, was_removed: &|node| node == 3, ..view };
        assert_eq!(next_step(&[2, 3, 4], &view), Step::NewTerm, "nobody else can lead");
        let two = ReplicaSet { voters: vec![1, 2], ..ReplicaSet::default() };
        let view = MoveView { set: &two, behind: &|_| None, ..view };
        assert_eq!(next_step(&[2, 3, 4], &view), Step::Wait, "the other one comes back, or is no quorum");
    }
}
