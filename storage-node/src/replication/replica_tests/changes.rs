//! Replicas that come and go.

use super::*;
use crate::replication::ReplicaChange::{AddLearner, AddVoter, Remove};
use std::collections::BTreeSet;

impl Net {
    /// Also nodes that hold no replica.
    fn with_absent(ids: std::ops::RangeInclusive<u32>) -> Self {
        let mut net = Self::new();
        net.replicas.extend(ids.map(|own| Replica::with(Replicas::of(own, &[]))));
        net.ticks(12);
        net
    }

    fn change(&mut self, leader: u32, changes: &[ReplicaChange]) {
        self.replica(leader).group.propose_change(changes).expect("it leads");
        self.ticks(10);
    }

    fn set(&mut self, node: u32) -> ReplicaSet {
        self.replica(node).group.replicas().clone()
    }
}

#[test]
fn a_replica_comes_by_a_snapshot_and_votes_after_a_joint_change() {
    let mut net = Net::with_absent(4..=4);
    net.propose(0..20);
    assert!(!net.replica(4).group.is_holder());
    net.change(1, &[AddLearner(4)]);
    assert_eq!((net.replica(4).installed, net.set(4).learners), (1, vec![4]), "though the log begins with 1");
    assert_eq!(net.replica(1).group.behind(4), Some(0));
    assert_eq!(net.replica(4).committed[&21], record(19));
    net.change(1, &[AddVoter(4), Remove(2)]);
    for node in [1, 3, 4] {
        let set = net.set(node);
        assert_eq!((set.voters.as_slice(), is_joint(&set)), (&[1, 3, 4][..], false), "node {node}");
        assert!(set.changed_at > 21 && net.replica(node).group.is_holder());
    }
    // Its vote counts, and the old one's does not.
    net.cut_off(3);
    net.propose(100..101);
    let last = net.replica(1).applied;
    assert_eq!(net.replica(4).committed[&last], record(100));
    net.cut_off(4);
    net.cut.extend([(1, 3), (3, 1)]);
    net.replica(1).group.propose(record(101)).expect("it leads");
    net.settle();
    assert_eq!(net.replica(1).applied, last, "node 2 is no quorum with it");
    // After a restart the set is what it was, whether it comes from rows or from the log.
    net.cut.clear();
    let set = net.set(4);
    for applied in [last, 0] {
        net.replica(4).restart(applied);
        net.ticks(5);
        assert_eq!(net.set(4), set);
    }
}

#[test]
fn a_leader_that_is_to_go_hands_over_and_is_gone() {
    let mut net = Net::with_absent(4..=4);
    net.change(1, &[AddLearner(4)]);
    net.replica(1).group.transfer_to(2);
    net.ticks(3);
    assert_eq!(net.leader(), Some(2));
    net.change(2, &[AddVoter(4), Remove(1)]);
    assert_eq!(net.set(4).voters, [2, 3, 4]);
    net.ticks(40);
    assert_eq!(net.leader(), Some(2), "the old one does not disturb");
    net.replica(2).group.transfer_to(4);
    net.ticks(3);
    assert_eq!(net.leader(), Some(4), "the new one can lead");
    // What leaves is away while that happens, and hears of nothing: a heartbeat from a node that it does not know.
    let term = net.replica(4).group.term();
    let kind = raft_message::Kind::Heartbeat as i32;
    let heartbeat = RaftMessage { shard: SHARD.0, kind, from: 4, to: 3, term, ..RaftMessage::default() };
    net.replica(3).group.step(heartbeat).expect("its leader's");
}

#[test]
fn a_node_without_a_replica_neither_votes_nor_takes_a_log_without_its_beginning() {
    use raft_message::Kind;
    let mut net = Net::with_absent(4..=4);
    let term = net.replica(1).group.term();
    let message = |kind: Kind| RaftMessage {
        shard: SHARD.0,
        kind: kind as i32,
        from: 1,
        to: 4,
        term: term + 1,
        ..RaftMessage::default()
    };
    let entry = RaftEntry { kind: 0, term, index: 1, record: record(7).into() };
    for wrong in [
        message(Kind::Vote),
        message(Kind::PreVote),
        message(Kind::TimeoutNow),
        RaftMessage { entries: vec![entry], ..message(Kind::Append) },
    ] {
        assert!(net.replica(4).group.step(wrong.clone()).is_err(), "{wrong:?}");
    }
    net.replica(4).group.step(message(Kind::Heartbeat)).expect("it is answered");
    let answer = net.replica(4).poll();
    net.replica(4).sync();
    let answers: Vec<RaftMessage> = answer.into_iter().chain(net.replica(4).poll()).collect();
    assert_eq!(answers.iter().map(RaftMessage::kind).collect::<Vec<_>>(), [Kind::HeartbeatResponse]);
    net.replica(4).group.pass(1);
    (0..50).for_each(|_| net.replica(4).group.pass(1));
    assert_eq!(net.replica(4).poll(), [], "it does not stand for election");
}

/// Node 3 was away while 2 made way for 4, so that the two of them are a majority of the voters of before. Node 2 has the
/// whole change in its log, of which its stored state holds nothing after its restart.
#[test]
fn who_has_the_end_of_a_change_does_not_stand_among_the_voters_of_before() {
    let mut net = Net::with_absent(4..=4);
    net.change(1, &[AddLearner(4)]);
    net.propose(0..3);
    let before = net.replica(2).applied;
    net.cut = [1, 2, 4].into_iter().flat_map(|other| [(3, other), (other, 3)]).collect();
    net.change(1, &[AddVoter(4), Remove(2)]);
    assert_eq!((net.set(1).voters, is_joint(&net.set(4))), (vec![1, 3, 4], false));
    net.cut = [1, 4].into_iter().flat_map(|new| [(new, 2), (2, new), (new, 3), (3, new)]).collect();
    net.replica(2).restart(before);
    let term = net.replica(1).group.term();
    net.ticks(100);
    assert_eq!(net.replica(2).group.term(), term, "it was elected while the new voters have a leader");
}

/// Node 2 goes and comes back before it has removed anything. It may not forget what it has acknowledged of the shard that it
/// comes back to, although all that it knows to be committed says that it is gone.
#[test]
fn who_has_a_change_that_brings_it_back_is_not_gone() {
    let mut net = Net::with_absent(4..=4);
    net.change(1, &[AddLearner(4)]);
    net.change(1, &[AddVoter(4), Remove(2)]);
    let gone_at = net.set(1).changed_at;
    net.replica(1).group.transfer_to(3);
    net.ticks(3);
    net.change(3, &[AddLearner(2)]);
    let back_at = net.set(3).changed_at;
    assert!(back_at > gone_at && net.set(2).learners == [2]);
    assert_eq!(net.replica(2).group.comes_back_at(), None, "it is back");
    for applied in (gone_at..back_at).rev() {
        net.replica(2).restart(applied);
        assert_eq!(net.replica(2).group.comes_back_at(), Some(back_at), "{applied}");
    }
    net.ticks(5);
    net.change(3, &[Remove(2)]);
    net.replica(1).restart(gone_at);
    assert_eq!(net.replica(1).group.comes_back_at(), None, "of others");
}

/// Until then it may be about to remove what it has acknowledged: it knows what was before the change.
#[test]
fn nobody_has_caught_up_before_it_has_the_newest_change() {
    let mut net = Net::with_absent(4..=5);
    net.change(1, &[AddLearner(4)]);
    assert_eq!(net.replica(1).group.behind(4), Some(0));
    net.cut.extend([(4, 1)]);
    net.replica(1).group.propose_change(&[AddLearner(5)]).expect("it leads");
    net.settle();
    assert_eq!(net.set(1).learners, [4, 5]);
    assert_eq!((net.replica(1).group.behind(2), net.replica(1).group.behind(4)), (Some(0), None));
    net.cut.clear();
    net.ticks(5);
    assert_eq!(net.replica(1).group.behind(4), Some(0));
}

/// It had acknowledged the beginning of the leader's log, and knew by it that it was gone: what it said then is worth nothing,
/// and the leader has to notice although nobody writes.
#[test]
fn a_learner_that_has_removed_what_it_acknowledged_gets_a_snapshot() {
    let mut net = Net::with_absent(4..=5);
    net.propose(0..5);
    net.change(1, &[AddLearner(4)]);
    let acknowledged = net.replica(4).applied;
    net.cut = vec![(1, 4), (4, 1)];
    net.change(1, &[AddLearner(5)]);
    // Whether it is there is known by its answers alone.
    net.ticks(30);
    assert!(net.set(1).changed_at > acknowledged && net.replica(1).group.behind(4).is_none());
    *net.replica(4) = Replica::with(Replicas::of(4, &[]));
    net.cut.clear();
    net.ticks(10);
    assert_eq!((net.replica(4).installed, net.set(4).learners), (1, vec![4, 5]));
    assert_eq!(net.replica(1).group.behind(4), Some(0));
    assert_eq!(net.set(1), net.set(4));
}

/// Whoever alone votes and took a replica out brings it back in another term: not before its log is at rest.
#[test]
fn a_lone_voter_leads_on_in_another_term() {
    let mut alone = Replica::with(Replicas::alone(1));
    let settle = |alone: &mut Replica| {
        for _ in 0..3 {
            alone.poll();
            alone.sync();
        }
    };
    settle(&mut alone);
    let (term, applied) = (alone.group.term(), alone.applied);
    assert!(alone.leads() && alone.group.is_at_rest());
    alone.group.propose(record(1)).expect("it leads");
    assert!(!alone.group.is_at_rest(), "not written");
    alone.poll();
    assert!(!alone.group.is_at_rest(), "not on disk");
    settle(&mut alone);
    assert!(alone.group.is_at_rest());
    alone.group.lead_in_new_term();
    assert!(alone.leads());
    assert_eq!(alone.group.term(), term + 1);
    settle(&mut alone);
    alone.group.propose(record(2)).expect("it leads");
    settle(&mut alone);
    // Each term begins with an entry of its own.
    assert_eq!((alone.applied, alone.committed[&(applied + 3)].clone()), (applied + 3, record(2).into()));
}

/// Its vote and what it acknowledged are forgotten: whoever counts on them must not count on it.
#[test]
fn a_voter_that_lost_its_disk_stays_out() {
    let mut net = Net::new();
    net.ticks(12);
    net.propose(0..5);
    net.replicas[2] = Replica::with(Replicas::of(3, &[]));
    net.cut_off(1);
    for _ in 0..60 {
        net.replicas.iter_mut().for_each(|replica| replica.group.pass(1));
        let messages: Vec<RaftMessage> = net.replicas.iter_mut().flat_map(Replica::poll).collect();
        for message in messages {
            if message.to == 3 {
                assert!(net.replica(3).group.step(message).is_err(), "a question to be elected");
            }
        }
        net.replicas.iter_mut().for_each(Replica::sync);
    }
    assert_eq!(net.leader(), None, "one of three is no majority");
    let point = SnapshotPoint { index: 5, term: 1, voters: NODES.to_vec(), ..SnapshotPoint::default() };
    let snapshot = RaftMessage {
        shard: SHARD.0,
        kind: raft_message::Kind::Snapshot as i32,
        from: 1,
        to: 3,
        term: 2,
        snapshot: Some(point),
        ..RaftMessage::default()
    };
    let refusal = net.replica(3).group.step(snapshot).expect_err("refused").to_string();
    assert!(refusal.contains("has it lost its disk?"), "{refusal}");
}

#[test]
fn a_change_before_the_last_one_is_over_comes_to_nothing() {
    let mut net = Net::with_absent(4..=5);
    net.replica(1).group.propose_change(&[AddLearner(4)]).expect("it leads");
    net.replica(1).group.propose_change(&[AddLearner(5)]).expect("it is left");
    net.ticks(10);
    assert_eq!(net.set(1).learners, [4]);
    net.change(1, &[Remove(4)]);
    assert_eq!(net.set(1).learners, Vec::<u32>::new());
    assert_eq!(net.set(2), net.set(1));
}

/// As `storm`, and the leader changes the replicas as it likes: who has no replica any more forgets everything. Gives the
/// numbers of entries, of changes, and of replicas that heard of their end.
fn migration(seed: u64) -> (usize, usize, usize) {
    let mut random = Random::new(seed);
    let mut net = Net::with_absent(4..=5);
    let mut agreed: BTreeMap<u64, Bytes> = BTreeMap::new();
    let (mut number, mut removed) = (0, 0);
    let mut changes = BTreeSet::new();
    for _ in 0..4_000 {
        let node = 1 + random.below(5) as u32;
        match random.below(80) {
            0 if random.below(3) == 0 => {
                net.cut = (1..=5).flat_map(|other| [(node, other), (other, node)]).collect()
            }
            1..=3 => net.cut.clear(),
            4 if random.below(3) == 0 => {
                let applied = net.replica(node).applied.saturating_sub(random.below(3) as u64);
                net.replica(node).restart(applied);
            }
            5..=16 if net.replica(node).group.can_propose() => {
                number += 1;
                net.replica(node).group.propose(record(number)).expect("it leads");
            }
            17..=24 if net.replica(node).group.can_propose() => change_somehow(&mut net, node, &mut random),
            25..=34 => net.replicas.iter_mut().for_each(|replica| replica.group.pass(1)),
            35..=45 => net.replica(node).sync(),
            46 => net.replicas.iter().for_each(Replica::cut),
            _ => deliver_one(&mut net, &mut random),
        }
        removed += turn(&mut net);
        changes.extend(net.replicas.iter().map(|replica| replica.group.replicas().changed_at));
        agree(&net, &mut agreed, seed);
        net.messages.truncate(400);
    }
    net.cut.clear();
    for _ in 0..80 {
        net.ticks(1);
        removed += turn(&mut net);
    }
    agree(&net, &mut agreed, seed);
    let leader = net.leader().unwrap_or_else(|| panic!("seed {seed}: nobody leads"));
    let (set, last) = (net.set(leader), agreed.keys().max().copied().unwrap_or(0));
    for node in 1..=5 {
        if is_holder(&set, node) {
            assert_eq!(
                net.replica(node).applied,
                last,
                "seed {seed}: node {node} of {set:?} did not catch up"
            );
        }
    }
    (agreed.len(), changes.len(), removed)
}

fn turn(net: &mut Net) -> usize {
    let mut removed = 0;
    for replica in &mut net.replicas {
        net.messages.extend(replica.poll());
        removed += usize::from(replica.forget_if_gone());
    }
    let snapshots: Vec<Taken> =
        net.replicas.iter_mut().flat_map(|replica| replica.snapshots.drain(..)).collect();
    snapshots.into_iter().for_each(|snapshot| net.bring(snapshot));
    removed
}

/// A step that `placement/moves.rs` could take, on nodes by chance.
fn change_somehow(net: &mut Net, leader: u32, random: &mut Random) {
    let set = net.set(leader);
    let group = &mut net.replica(leader).group;
    let node = 1 + random.below(5) as u32;
    let is_caught_up = group.behind(node).is_some_and(|entries| entries < 3);
    let changes = match () {
        () if is_joint(&set) => return,
        // Mostly it is waited for.
        () if set.learners.contains(&node) && !is_caught_up && random.below(8) > 0 => return,
        () if set.learners.contains(&node) && !is_caught_up => vec![Remove(node)],
        () if set.learners.contains(&node) => {
            let leaves = set.voters.iter().find(|voter| **voter != leader && set.voters.len() > 2);
            std::iter::once(AddVoter(node)).chain(leaves.map(|voter| Remove(*voter))).collect()
        }
        () if set.voters.contains(&node) && node != leader && random.below(4) == 0 => {
            return group.transfer_to(node);
        }
        () if set.voters.contains(&node) => return,
        () if group.was_removed(node) => return,
        () => vec![AddLearner(node)],
    };
    group.propose_change(&changes).expect("it leads");
}

impl Replica {
    /// As a node does that holds no replica any more.
    fn forget_if_gone(&mut self) -> bool {
        let is_gone = !self.group.is_holder() && self.applied > 0 && self.received.is_none();
        if is_gone {
            self.sync();
            self.log.remove(SHARD).expect("it writes");
            let set = ReplicaSet { changed_at: self.group.replicas().changed_at, ..ReplicaSet::default() };
            self.sets = BTreeMap::from([(0, set.clone())]);
            let replicas = Replicas { own: self.own, set, preferred: 1 };
            self.group = self.group.reopen(&replicas).expect("it opens");
            (self.applied, self.committed) = (0, BTreeMap::new());
        }
        is_gone
    }
}

#[test]
fn replicas_that_come_and_go_agree_whatever_the_network_does() {
    let (mut entries, mut changes, mut removed) = (0, 0, 0);
    for seed in 0..24 {
        let (agreed, changed, gone) = migration(seed);
        entries += agreed;
        changes += changed;
        removed += gone;
    }
    assert!(
        entries > 1_000 && changes > 100 && removed > 5,
        "{entries} entries, {changes} changes, {removed} replicas removed"
    );
}
