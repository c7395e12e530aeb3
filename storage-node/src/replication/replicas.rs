//! Who holds replicas of a shard, and how that changes.
//!
//! A change is an entry of the shard's log. It counts from when it is committed, here as in the consensus library, and
//! the set that it leads to is stored with the rows of the entry. A change of more than one voter is a joint one (Ongaro
//! and Ousterhout 2014, section 6): between its two entries a majority of both the old and the new voters is needed.

use super::message::MessageError;
use prost::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};
use wire_protocol::ids::ShardId;
use wire_protocol::internal::replica_change::Kind;
use wire_protocol::internal::{ReplicaChanges, ReplicaSet};

/// Replicas that one change may concern: five that go, five that come.
const CHANGES_MAX: usize = 10;

/// A replica as it is opened.
#[derive(Clone, PartialEq, Debug)]
pub struct Replicas {
    /// This node's id.
    pub own: u32,
    /// As of the stored state. Nobody: this node holds no replica, and waits for one.
    pub set: ReplicaSet,
    /// Who should lead while all are well.
    pub preferred: u32,
}

/// One change of the replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicaChange {
    /// This node gets everything from now on, and has no vote.
    AddLearner(u32),
    /// This node votes.
    AddVoter(u32),
    /// This node holds no replica any more.
    Remove(u32),
}

impl Replicas {
    /// One copy, here.
    pub fn alone(own: u32) -> Self {
        Self::of(own, &[own])
    }

    /// The first replicas of a shard; the preferred leader is the first one.
    pub fn of(own: u32, nodes: &[u32]) -> Self {
        Self { own, set: first(nodes), preferred: nodes.first().copied().unwrap_or(0) }
    }
}

/// How many voters come before this node when the leader is lost, of how many: of those of before and behind a change, too,
/// no two have the same turn. Nobody waits for the one that led, if it is known (0: it is not), nor for a preferred one that has
/// no vote.
pub(super) fn turn_of_election(set: &ReplicaSet, own: u32, preferred: u32, leader: u32) -> (usize, usize) {
    if own == preferred {
        return (0, 1);
    }
    let mut voters: Vec<u32> = set.voters.iter().chain(&set.voters_outgoing).copied().collect();
    voters.sort_unstable();
    voters.dedup();
    let comes_before = |voter: &&u32| **voter < own && ![preferred, leader].contains(*voter);
    let is_awaited = preferred != leader && voters.contains(&preferred);
    let before = voters.iter().filter(comes_before).count() + usize::from(is_awaited);
    // One that does not vote does not stand either: any turn will do.
    let of = voters.len().max(2);
    (before.min(of), of)
}

/// The first replicas of a shard.
pub fn first(nodes: &[u32]) -> ReplicaSet {
    let mut voters = nodes.to_vec();
    voters.sort_unstable();
    ReplicaSet { voters, ..ReplicaSet::default() }
}

/// Whether a node holds one of them, be it for the time of a change.
pub fn is_holder(set: &ReplicaSet, node: u32) -> bool {
    is_voter(set, node) || set.learners.contains(&node) || set.learners_next.contains(&node)
}

/// Whether a node's vote counts.
pub fn is_voter(set: &ReplicaSet, node: u32) -> bool {
    set.voters.contains(&node) || set.voters_outgoing.contains(&node)
}

/// Whether a change is under way that its leader ends by itself.
pub fn is_joint(set: &ReplicaSet) -> bool {
    !set.voters_outgoing.is_empty()
}

pub(super) fn to_conf_state(set: &ReplicaSet) -> ConfState {
    let ids = |nodes: &[u32]| nodes.iter().map(|node| u64::from(*node)).collect();
    ConfState {
        voters: ids(&set.voters),
        learners: ids(&set.learners),
        voters_outgoing: ids(&set.voters_outgoing),
        learners_next: ids(&set.learners_next),
        auto_leave: set.auto_leave,
        ..ConfState::default()
    }
}

pub(super) fn from_conf_state(state: &ConfState, changed_at: u64) -> ReplicaSet {
    let nodes = |ids: &[u64]| {
        let mut nodes: Vec<u32> = ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        nodes.sort_unstable();
        nodes
    };
    ReplicaSet {
        voters: nodes(&state.voters),
        learners: nodes(&state.learners),
        voters_outgoing: nodes(&state.voters_outgoing),
        learners_next: nodes(&state.learners_next),
        auto_leave: state.auto_leave,
        changed_at,
    }
}

/// What a leader proposes.
pub(super) fn proposal(changes: &[ReplicaChange]) -> ConfChangeV2 {
    let single = |change: &ReplicaChange| {
        let (kind, node) = match *change {
            ReplicaChange::AddLearner(node) => (ConfChangeType::AddLearnerNode, node),
            ReplicaChange::AddVoter(node) => (ConfChangeType::AddNode, node),
            ReplicaChange::Remove(node) => (ConfChangeType::RemoveNode, node),
        };
        ConfChangeSingle { change_type: kind, node_id: u64::from(node), ..ConfChangeSingle::default() }
    };
    let changes: Vec<ConfChangeSingle> = changes.iter().map(single).collect();
    ConfChangeV2 { changes: changes.into(), ..ConfChangeV2::default() }
}

/// What an entry says, without the library's decoder: it is not made for bytes of others (see `message.rs`).
pub(super) fn decode_change(shard: ShardId, record: &[u8]) -> Result<ConfChangeV2, MessageError> {
    let wrong = |what| MessageError { shard, what };
    let read = ReplicaChanges::decode(record).map_err(|_| wrong("a change of replicas that is none"))?;
    if read.transition != 0 || read.changes.len() > CHANGES_MAX {
        return Err(wrong("a change of replicas that nobody makes"));
    }
    let mut changes = Vec::with_capacity(read.changes.len());
    for change in &read.changes {
        let node = u32::try_from(change.node_id).ok().filter(|node| *node > 0);
        let node = node.ok_or(wrong("a change of replicas on no node"))?;
        changes.push(match Kind::try_from(change.kind) {
            Ok(Kind::AddVoter) => ReplicaChange::AddVoter(node),
            Ok(Kind::Remove) => ReplicaChange::Remove(node),
            Ok(Kind::AddLearner) => ReplicaChange::AddLearner(node),
            Err(_) => return Err(wrong("a change of replicas of an unknown kind")),
        });
    }
    Ok(proposal(&changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(3);

    #[test]
    fn changes_that_nobody_makes_are_refused() {
        let change = |kind: i32, node_id: u64| wire_protocol::internal::ReplicaChange { kind, node_id };
        for changes in [
            ReplicaChanges { changes: vec![change(0, 0)], ..ReplicaChanges::default() },
            ReplicaChanges { changes: vec![change(0, 1 << 32)], ..ReplicaChanges::default() },
            ReplicaChanges { changes: vec![change(9, 1)], ..ReplicaChanges::default() },
            ReplicaChanges { changes: vec![change(0, 1); CHANGES_MAX + 1], ..ReplicaChanges::default() },
            ReplicaChanges { transition: 2, ..ReplicaChanges::default() },
        ] {
            assert!(decode_change(SHARD, &changes.encode_to_vec()).is_err(), "{changes:?}");
        }
        assert!(decode_change(SHARD, &[0xff]).is_err());
    }

    #[test]
    fn sets_come_back_from_the_library() {
        let set = ReplicaSet {
            voters: vec![2, 3, 4],
            learners: vec![5],
            voters_outgoing: vec![1, 2, 3],
            learners_next: vec![1],
            auto_leave: true,
            changed_at: 9,
        };
        assert_eq!(from_conf_state(&to_conf_state(&set), 9), set);
        let is = |node| (is_holder(&set, node), is_voter(&set, node));
        assert_eq!([is(1), is(4), is(5), is(6)], [(true, true), (true, true), (true, false), (false, false)]);
    }

    #[test]
    fn no_two_first_voters_stand_at_the_same_time() {
        for nodes in [&[1, 2, 3][..], &[5, 1, 9, 3, 7], &[4]] {
            let mut turns: Vec<(usize, usize)> =
                nodes.iter().map(|own| turn_of_election(&first(nodes), *own, nodes[0], 0)).collect();
            assert_eq!(turns[0], (0, 1), "the preferred one is the first");
            turns.sort_unstable();
            turns.dedup();
            assert_eq!(turns.len(), nodes.len());
        }
    }

    #[test]
    fn nobody_waits_for_the_leader_that_is_lost() {
        let nodes = [4, 1, 7, 2, 9];
        for leader in nodes {
            let others = nodes.iter().filter(|own| **own != leader);
            let mut turns: Vec<usize> =
                others.map(|own| turn_of_election(&first(&nodes), *own, 4, leader).0).collect();
            turns.sort_unstable();
            assert_eq!(turns, [0, 1, 2, 3], "node {leader} led");
        }
        // Whoever is preferred and has not led is the first all the same.
        assert_eq!(turn_of_election(&first(&nodes), 4, 4, 9), (0, 1));
    }

    #[test]
    fn nobody_waits_for_a_preferred_copy_without_a_vote() {
        let set = ReplicaSet { learners: vec![4], ..first(&[1, 2, 9]) };
        let turns = |leader| [1, 2, 9].map(|own| turn_of_election(&set, own, 4, leader).0);
        assert_eq!(
            (turns(0), turns(1)[1..].to_vec(), turns(9)[..2].to_vec()),
            ([0, 1, 2], vec![0, 1], vec![0, 1])
        );
        // It gets one with the change that is under way.
        let joint = ReplicaSet { voters: vec![2, 4, 9], voters_outgoing: vec![1, 2, 9], ..first(&[]) };
        assert_eq!([1, 2, 4, 9].map(|own| turn_of_election(&joint, own, 4, 0).0), [1, 2, 0, 3]);
    }

    #[test]
    fn a_turn_is_never_behind_the_last_whoever_is_preferred() {
        for voters in [&[][..], &[1], &[1, 2], &[1, 2, 3], &[1, 2, 3, 5, 9]] {
            for (own, preferred) in (1..12).flat_map(|own| (0..12).map(move |preferred| (own, preferred))) {
                for leader in 0..12 {
                    let (before, of) = turn_of_election(&first(voters), own, preferred, leader);
                    assert!(
                        before <= of,
                        "node {own}, preferred {preferred}, led by {leader}, voters {voters:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn nodes_that_joined_have_turns_of_their_own_while_the_change_goes_on_and_behind_it() {
        let joint = ReplicaSet { voters: vec![3, 14, 24], voters_outgoing: vec![1, 2, 3], ..first(&[]) };
        for (set, nodes) in [(joint, &[1, 2, 3, 14, 24][..]), (first(&[3, 14, 24]), &[3, 14, 24])] {
            let ticks = |own: &u32| {
                let (before, of) = turn_of_election(&set, *own, 14, 0);
                super::super::group::ELECTION_TICKS * before / of
            };
            let mut turns: Vec<usize> = nodes.iter().map(ticks).collect();
            turns.sort_unstable();
            turns.dedup();
            assert_eq!(turns.len(), nodes.len());
            // Also of one that holds nothing.
            assert!(ticks(&99) <= super::super::group::ELECTION_TICKS);
        }
    }
}
