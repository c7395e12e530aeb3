//! Groups of which nothing is wanted, and all that wakes them.

use super::*;

/// Longer than it takes a group to hibernate.
const QUIET_TICKS: usize = 20;

const NOBODY: [u32; 0] = [];

/// All three hibernate, led by node 1.
fn hibernating() -> Net {
    let mut net = Net::new();
    net.ticks(12);
    net.propose(0..3);
    net.ticks(QUIET_TICKS);
    assert_eq!(net.hibernating(), NODES);
    net
}

/// Ticks until another node than the first leads, which is cut off now.
fn ticks_to_another_leader(net: &mut Net) -> usize {
    net.cut_off(1);
    let ticks = (1..100).find(|_| {
        net.ticks(1);
        net.replica(2).leads() || net.replica(3).leads()
    });
    ticks.expect("another one is elected")
}

#[test]
fn a_quiet_group_says_nothing_and_its_leader_leads_on() {
    let mut net = hibernating();
    let term = net.replica(1).group.term();
    for _ in 0..100 {
        net.replicas.iter_mut().for_each(|replica| replica.group.pass(1));
        net.tell_hibernating();
        for node in NODES {
            assert_eq!(net.replica(node).poll(), [], "node {node}");
        }
    }
    assert_eq!(net.hibernating(), NODES);
    assert_eq!((net.leader(), net.replica(1).group.term()), (Some(1), term));
    assert!(net.replica(1).group.could_lead(2), "it counts as heard");
}

#[test]
fn whatever_is_wanted_is_done_at_once_and_it_hibernates_again() {
    let mut net = hibernating();
    net.propose(3..4);
    for node in NODES {
        net.ticks(3);
        assert!(net.replica(node).committed.values().any(|known| *known == record(3)), "node {node}");
    }
    assert_eq!(net.hibernating(), NOBODY);
    net.ticks(QUIET_TICKS);
    assert_eq!(net.hibernating(), NODES);
    net.replica(1).group.read_barrier(9);
    net.settle();
    assert_eq!(net.replica(1).readable.len(), 1, "the followers answered");
    assert_eq!(net.hibernating(), NOBODY);
    net.ticks(QUIET_TICKS);
    net.replica(1).group.propose_change(&[ReplicaChange::AddLearner(3)]).expect("it leads");
    net.settle();
    assert_eq!(net.replica(2).group.replicas().learners, [3]);
    net.ticks(QUIET_TICKS);
    assert_eq!(net.hibernating(), NODES, "learners as well");
    net.replica(1).group.transfer_to(2);
    net.settle();
    assert_eq!(net.leader(), Some(2));
    net.ticks(QUIET_TICKS);
    assert_eq!(net.hibernating(), NODES);
}

#[test]
fn what_is_lost_on_the_way_when_it_wakes_is_sent_again() {
    let mut net = hibernating();
    net.replica(1).group.propose(record(3)).expect("it leads");
    // Its followers never hear of it, and go on to hibernate.
    assert_eq!(net.replica(1).poll().len(), 2);
    assert_eq!(net.hibernating(), [2, 3]);
    net.ticks(6);
    for node in NODES {
        assert!(net.replica(node).committed.values().any(|known| *known == record(3)), "node {node}");
    }
}

#[test]
fn a_lost_leader_is_replaced_as_soon_as_if_it_had_been_awake() {
    let mut awake = Net::new();
    awake.ticks(12);
    awake.propose(0..3);
    let awake = ticks_to_another_leader(&mut awake);
    let mut net = hibernating();
    let asleep = ticks_to_another_leader(&mut net);
    assert!(asleep <= awake + 2, "{asleep} ticks, {awake} if awake: a heartbeat's time more at most");
    net.ticks(20);
    assert_eq!(net.replica(1).group.role(), Role::Follower { leader: None }, "it heard of no quorum");
}

#[test]
fn a_follower_that_does_not_hear_its_leader_is_told_before_it_stands() {
    let mut net = hibernating();
    let term = net.replica(1).group.term();
    // What is said in place of heartbeats is lost for a while.
    for _ in 0..6 {
        net.replicas.iter_mut().for_each(|replica| replica.group.pass(1));
        net.settle();
    }
    assert_eq!(net.hibernating(), NOBODY, "they noticed");
    net.ticks(30);
    assert_eq!((net.leader(), net.replica(2).group.term()), (Some(1), term), "and nobody was elected");
    assert_eq!(net.hibernating(), NODES);
}

#[test]
fn one_way_cuts_wake_both_ends() {
    // The leader is not heard by one follower.
    let mut net = hibernating();
    net.cut = vec![(1, 2)];
    net.ticks(6);
    assert!(!net.replica(1).group.is_hibernating() && !net.replica(2).group.is_hibernating());
    // It hears nobody.
    let mut net = hibernating();
    net.cut = vec![(2, 1), (3, 1)];
    net.ticks(6);
    assert!(!net.replica(1).group.is_hibernating());
    net.ticks(10);
    assert!(!net.replica(1).leads(), "it gave way as soon as if it had been awake");
    net.ticks(50);
    net.cut.clear();
    net.ticks(60);
    assert!(net.leader().is_some());
    assert_eq!(net.hibernating(), NODES);
}

#[test]
fn a_replica_that_was_started_again_keeps_the_others_awake_until_it_is_quiet() {
    for node in NODES {
        let mut net = hibernating();
        let applied = net.replica(node).applied;
        net.replica(node).restart(applied);
        net.ticks(6);
        assert_eq!(net.hibernating(), NOBODY, "without node {node}");
        net.ticks(60);
        assert_eq!(net.hibernating(), NODES);
        let leader = net.leader().expect("somebody leads");
        net.replica(leader).group.propose(record(50)).expect("it leads");
        net.settle();
        net.ticks(3);
        for other in NODES {
            assert!(net.replica(other).committed.values().any(|known| *known == record(50)));
        }
    }
}

#[test]
fn a_group_of_which_one_has_not_all_of_the_log_stays_awake() {
    let mut net = Net::without_third();
    net.ticks(3 * QUIET_TICKS);
    assert_eq!(net.hibernating(), NOBODY);
    net.cut.clear();
    net.ticks(3 * QUIET_TICKS);
    assert_eq!(net.hibernating(), NODES);
}

#[test]
fn a_group_of_which_one_is_lost_stays_awake_for_as_long_as_it_is() {
    let mut net = hibernating();
    net.cut_off(3);
    net.ticks(6);
    for _ in 0..3 * QUIET_TICKS {
        net.ticks(1);
        assert_eq!(net.hibernating(), NOBODY, "its followers are not told to hibernate either");
    }
    net.cut.clear();
    net.ticks(3 * QUIET_TICKS);
    assert_eq!(net.hibernating(), NODES);
}

#[test]
fn a_group_with_a_node_that_does_not_know_of_it_stays_awake() {
    let mut net = Net::new();
    for _ in 0..60 {
        net.replicas.iter_mut().for_each(|replica| replica.group.pass(1));
        net.tell_hibernating();
        for _ in 0..4 {
            for replica in &mut net.replicas {
                net.messages.extend(replica.poll());
                replica.sync();
                net.messages.extend(replica.poll());
            }
            for message in std::mem::take(&mut net.messages) {
                let hibernates = message.hibernates && ![message.from, message.to].contains(&3);
                net.step(RaftMessage { hibernates, ..message });
            }
        }
    }
    assert_eq!(net.leader(), Some(1));
    assert!(!net.replica(1).group.is_hibernating() && !net.replica(3).group.is_hibernating());
    assert!(ticks_to_another_leader(&mut net) < 20);
}

#[test]
fn a_mark_that_comes_late_delays_nothing() {
    let mut net = Net::new();
    net.ticks(12);
    net.propose(0..3);
    // The first heartbeats that are marked.
    let marked: Vec<RaftMessage> = (0..QUIET_TICKS)
        .find_map(|_| {
            net.replicas.iter_mut().for_each(|replica| replica.group.pass(1));
            let sent = net.replica(1).poll();
            let is_marked = sent.iter().any(|message| message.hibernates);
            net.messages.extend(sent.iter().cloned());
            net.settle();
            is_marked.then_some(sent)
        })
        .expect("it is quiet");
    net.propose(3..4);
    net.cut_off(1);
    // They follow what they had not by then: not all of the log.
    marked.iter().cloned().for_each(|message| net.step(message));
    assert_eq!(net.hibernating(), NOBODY);
    assert!(ticks_to_another_leader(&mut net) < 20);
}

/// One seed: a bad network, and next to nothing wanted.
fn quiet_storm(seed: u64) -> usize {
    let mut random = Random::new(seed);
    let mut net = Net::new();
    let mut agreed: BTreeMap<u64, Bytes> = BTreeMap::new();
    let (mut number, mut hibernated) = (0, 0);
    for _ in 0..3_000 {
        match random.below(400) {
            0 => net.cut_off(NODES[random.below(3)]),
            1 => net.cut = vec![(NODES[random.below(3)], NODES[random.below(3)])],
            2..=9 => net.cut.clear(),
            10 => {
                let node = NODES[random.below(3)];
                let applied = net.replica(node).applied;
                net.replica(node).restart(applied);
            }
            11..=14 => {
                let replica = net.replica(NODES[random.below(3)]);
                if replica.leads() {
                    number += 1;
                    replica.group.propose(record(number)).expect("it leads");
                }
            }
            15..=74 => net.replicas.iter_mut().for_each(|replica| replica.group.pass(1)),
            75..=110 => net.tell_hibernating(),
            111..=200 => net.replica(NODES[random.below(3)]).sync(),
            _ => deliver_one(&mut net, &mut random),
        }
        turn_and_agree(&mut net, &mut agreed, seed);
        hibernated += usize::from(net.hibernating() == NODES);
    }
    calm(&mut net, &mut agreed, seed, 80);
    assert_eq!(net.hibernating(), NODES, "seed {seed}");
    hibernated
}

#[test]
fn replicas_agree_whatever_happens_to_them_while_they_hibernate() {
    let hibernated: usize = (0..24).map(quiet_storm).sum();
    assert!(hibernated > 2_000, "all three hibernated at {hibernated} steps");
}
