//! What a replica promises to the leader that it heard, on which the leader's lease rests.

use super::*;
use raft_message::Kind;

/// Nobody waits longer before standing for election.
const PATIENCE_TICKS: usize = 20;

/// Node 3 hears nobody; node 2 hears the leader, and then the leader is cut off from it. Gives who leads soon after.
fn leader_if(forget: impl FnOnce(&mut Net)) -> Option<u32> {
    let mut net = Net::new();
    net.ticks(12);
    net.cut_off(3);
    net.ticks(PATIENCE_TICKS);
    // Node 2 answers a heartbeat: the promise.
    net.replica(1).group.read_barrier(1);
    net.settle();
    assert_eq!(net.replica(1).readable.len(), 1);
    forget(&mut net);
    net.cut_off(1);
    // Node 3 stands for election while little time passes at node 2.
    for _ in 0..PATIENCE_TICKS {
        net.replica(3).group.pass(1);
        net.settle();
    }
    let others = net.replicas[1..].iter().filter(|replica| replica.leads());
    others.map(|replica| replica.own).next()
}

#[test]
fn a_promise_holds_over_a_restart() {
    assert_eq!(leader_if(|_| {}), None);
    let restarted = |net: &mut Net| {
        let applied = net.replica(2).applied;
        net.replica(2).restart(applied);
    };
    assert_eq!(leader_if(restarted), None);
}

#[test]
fn a_promise_holds_when_a_late_answer_makes_the_replica_forget_whom_it_followed() {
    let late = |net: &mut Net| {
        let term = net.replica(2).group.term();
        let refusal = RaftMessage {
            shard: SHARD.0,
            kind: Kind::PreVoteResponse as i32,
            from: 3,
            to: 2,
            term: term + 1,
            reject: true,
            ..RaftMessage::default()
        };
        net.step(refusal);
        assert_eq!(net.replica(2).group.role(), Role::Follower { leader: None }, "it forgot");
    };
    assert_eq!(leader_if(late), None);
}

#[test]
fn a_pause_does_not_make_a_replica_stand_that_heard_its_leader_at_the_end_of_it() {
    let mut net = Net::new();
    net.ticks(12);
    net.replica(1).group.read_barrier(1);
    net.settle();
    let term = net.replica(2).group.term();
    net.replica(2).group.pass(10);
    net.replica(2).group.pass(10);
    net.settle();
    assert_eq!((net.leader(), net.replica(2).group.term()), (Some(1), term));
}

#[test]
fn a_leader_that_hands_over_releases_the_others_of_their_promise() {
    let mut net = Net::new();
    net.ticks(12);
    net.replica(1).group.transfer_to(3);
    net.settle();
    assert_eq!(net.leader(), Some(3));
}

/// Node 3 hears the leader for longer than node 2, and leaves its question, which comes too early.
#[test]
fn who_comes_too_early_with_its_question_asks_again_soon() {
    for longer in [5, ELECTION_TICKS] {
        let mut net = Net::new();
        net.ticks(12);
        net.cut = vec![(1, 2), (2, 1)];
        net.ticks(longer);
        net.cut_off(1);
        // Until the promise is over and it has asked once more.
        net.ticks(ELECTION_TICKS + 3);
        assert!(net.replica(2).leads(), "{longer}: it waits for as long as if nobody had been asked");
    }
}

/// Otherwise a node that is cut off would ask for all its groups for as long as it is.
#[test]
fn who_is_never_answered_asks_as_rarely_as_ever_once_no_promise_is_left() {
    let mut net = Net::new();
    net.ticks(12);
    let mut asked = Vec::new();
    for tick in 0..100 {
        net.replica(2).group.pass(1);
        let messages = net.replica(2).poll();
        net.replica(2).sync();
        let asks = |message: &RaftMessage| message.kind() == Kind::PreVote && message.to == 3;
        asked.extend(messages.iter().filter(|message| asks(message)).map(|_| tick));
    }
    let first = asked[0];
    let soon = asked.iter().filter(|tick| **tick <= first + ELECTION_TICKS + 2).count();
    let later = asked.len() - soon;
    assert!(soon >= 5 && (2..=100 / ELECTION_TICKS).contains(&later), "{asked:?}");
}
