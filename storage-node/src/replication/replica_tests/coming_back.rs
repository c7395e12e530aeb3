//! A node that was away for long comes back. Whoever leads by then leads on, in the term of before: it only asked whether it
//! could win (Ongaro 2014, 9.6), and had it counted its terms up meanwhile, its answer to the next heartbeat would depose
//! the leader.

use super::*;

/// A replica that does not ask first would stand for election several times.
const AWAY_TICKS: usize = 100;
/// Whatever it says at its return has had its effect.
const BACK_TICKS: usize = 40;

/// This node is away, and comes back. Gives who leads.
fn leader_when_back(net: &mut Net, away: u32) -> u32 {
    net.cut_off(away);
    net.ticks(AWAY_TICKS);
    let leader = net.leader().expect("two of three are well");
    let term = net.replica(leader).group.term();
    net.cut.clear();
    for tick in 1..=BACK_TICKS {
        net.ticks(1);
        assert!(net.replica(leader).leads(), "deposed {tick} ticks after node {away} came back");
        for node in NODES.into_iter().filter(|node| *node != away) {
            assert_eq!(net.replica(node).group.term(), term, "node {node}, {tick} ticks after");
        }
    }
    assert_eq!(net.replica(away).group.role(), Role::Follower { leader: Some(leader) });
    let applied = net.replica(leader).applied;
    assert_eq!(net.replica(away).applied, applied, "it has everything");
    leader
}

#[test]
fn a_follower_that_comes_back_deposes_nobody() {
    let mut net = Net::new();
    net.ticks(12);
    assert_eq!(leader_when_back(&mut net, 3), 1, "it had missed nothing");
    assert_eq!(leader_when_back(&mut Net::without_third(), 3), 1, "it had missed entries");
}

#[test]
fn a_follower_of_a_group_that_hibernated_comes_back_and_deposes_nobody() {
    let mut net = Net::new();
    net.ticks(12);
    net.propose(0..3);
    net.ticks(20);
    assert_eq!(net.hibernating(), NODES);
    assert_eq!(leader_when_back(&mut net, 3), 1);
}

#[test]
fn a_leader_that_comes_back_deposes_nobody() {
    let mut net = Net::new();
    net.ticks(12);
    net.propose(0..3);
    assert_eq!(leader_when_back(&mut net, 1), 2, "the next in line");
}
