//! Leadership that is handed to another copy: what waits, what is answered first, and what happens if nobody takes it.

use super::*;
use crate::replication::TICK_MS;
use crate::shard::{HAND_OVER_MS_MAX, HAND_OVER_SETTLE_MS};
use wire_protocol::internal::{RaftMessage, ShardPlace, raft_message::Kind};

/// A serving leader on node 1 with Ada, her phone, and her conversation with Bob; nodes 2 and 3 answer.
fn leading(folder: &tempfile::TempDir) -> Rig {
    with_people(Rig::leading(folder.path(), &[2, 3]))
}

/// Copies that were asked to stand for election since the last call.
fn asked(rig: &mut Rig) -> Vec<u32> {
    rig.turn();
    let messages = rig.effects.messages.iter();
    let asked = messages.filter(|message| message.kind() == Kind::TimeoutNow).map(|message| message.to);
    let asked = asked.collect();
    rig.effects.messages.retain(|message| message.kind() != Kind::TimeoutNow);
    asked
}

#[test]
fn what_was_proposed_is_answered_before_another_copy_is_asked_and_the_rest_is_told_who_leads() {
    let folder = folder();
    let mut rig = leading(&folder);
    let proposed = rig.send(link(1), message(1, 5));
    rig.turn();
    rig.shard.hand_over(rig.now_ms, 2);
    let waiting = rig.send(link(1), message(2, 5));
    assert_eq!(asked(&mut rig), Vec::<u32>::new());
    rig.settle();
    let answers = rig.answers(link(1));
    assert_eq!((answers.len(), answers[0].0, seq(&answers[0].1)), (1, proposed, 2));
    // By the turn that followed the answer.
    rig.now_ms += 1;
    rig.settle();
    rig.won_by_two();
    let told = rig.answers(link(1));
    assert_eq!((told.len(), told[0].0, refusal(&told[0].1)), (1, waiting, shard_error::Kind::NotLeader));
    let Reply::Error(error) = &told[0].1 else { panic!("{told:?}") };
    assert_eq!((error.leader_node_id, error.term), (2, 99));
}

#[test]
fn a_copy_is_asked_once_and_if_it_does_not_win_the_leader_goes_on() {
    let folder = folder();
    let mut rig = leading(&folder);
    rig.shard.hand_over(rig.now_ms, 2);
    assert_eq!(asked(&mut rig), [2]);
    let waiting = rig.send(link(1), message(1, 5));
    rig.now_ms += HAND_OVER_MS_MAX - 1;
    rig.settle();
    assert_eq!(rig.answers(link(1)), [], "nothing is proposed meanwhile");
    rig.now_ms += 1;
    rig.settle();
    let answers = rig.answers(link(1));
    assert_eq!((answers.len(), answers[0].0, seq(&answers[0].1)), (1, waiting, 2));
}

/// The consensus library refuses a change from a leader that hands over, and the node would end for it.
#[test]
fn a_leader_that_hands_over_proposes_no_change_of_replicas_until_it_goes_on_to_lead() {
    let folder = folder();
    let mut rig = with_people(Rig::leading(folder.path(), &[2, 3, 4]));
    rig.shard.hand_over(rig.now_ms, 2);
    assert_eq!(asked(&mut rig), [2]);
    let place = ShardPlace { nodes: vec![1, 2, 3], changed_at: 0 };
    rig.shard.fleet_changed(place, Some(vec![1, 2, 4]), true);
    rig.now_ms += TICK_MS;
    rig.settle();
    let set = rig.shard.replicas();
    assert!(set.voters == [1, 2, 3] && set.learners.is_empty(), "nothing is proposed: {set:?}");
    rig.now_ms += HAND_OVER_MS_MAX;
    for _ in 0..30 {
        rig.now_ms += TICK_MS;
        rig.settle();
    }
    assert_eq!(rig.shard.replicas().voters, [1, 2, 4], "and then it is");
}

#[test]
fn what_takes_too_long_does_not_hold_up_a_hand_over() {
    let folder = folder();
    let mut rig = leading(&folder);
    rig.send(link(1), message(1, 5));
    // The log thread does nothing.
    rig.turn();
    rig.ask_copies();
    rig.shard.hand_over(rig.now_ms, 2);
    assert_eq!(asked(&mut rig), Vec::<u32>::new());
    rig.now_ms += HAND_OVER_SETTLE_MS;
    assert_eq!(asked(&mut rig), [2]);
}

#[test]
fn a_node_that_leaves_asks_each_copy_in_turn_and_then_waits_for_nobody() {
    let folder = folder();
    let mut rig = leading(&folder);
    rig.shard.leave();
    let (mut order, begun_ms) = (asked(&mut rig), rig.now_ms);
    while !rig.shard.has_left() {
        assert!(rig.now_ms < begun_ms + 3 * HAND_OVER_MS_MAX, "only {order:?} were asked");
        rig.now_ms += 100;
        // One turn gives up, the next one asks.
        order.extend(asked(&mut rig));
        order.extend(asked(&mut rig));
        rig.settle();
    }
    assert_eq!(order, [2, 3]);
    assert!(rig.now_ms >= begun_ms + 2 * HAND_OVER_MS_MAX, "each had its time");
    assert!(rig.shard.is_serving(), "there is nobody else");
}

#[test]
fn a_node_that_leaves_takes_over_nothing_and_has_left_once_another_leads() {
    let folder = folder();
    let mut rig = leading(&folder);
    rig.shard.leave();
    rig.turn();
    rig.won_by_two();
    assert!(rig.shard.has_left());
    let term = 99;
    let mut asked = RaftMessage { shard: SHARD.0, from: 2, to: 1, term, ..RaftMessage::default() };
    asked.set_kind(Kind::TimeoutNow);
    rig.shard.take_raft(asked);
    rig.turn();
    let stands = |message: &RaftMessage| matches!(message.kind(), Kind::Vote | Kind::PreVote);
    assert!(!rig.effects.messages.iter().any(stands), "it does not stand for election");
}
