//! One of several copies, as leader and when it leads no more.

use super::*;
use crate::domain;
use crate::replication::{ELECTION_TICKS, HEARTBEAT_MS, Replicas, TICK_MS};
use crate::shard::{LOG_WRITES_IN_FLIGHT_MAX, Learner};
use crate::snapshots::SnapshotRequest;
use wire_protocol::internal::{RaftMessage, ReplicaSet, ShardPlace, raft_message};

/// A serving leader with Ada, her phone, and her conversation with Bob.
fn leading(folder: &tempfile::TempDir, copies: &[u32]) -> Rig {
    with_people(Rig::leading(folder.path(), copies))
}

#[test]
fn a_session_that_left_while_its_attach_waited_for_the_quorum_stays_away() {
    let folder = folder();
    let mut rig = leading(&folder, &[2, 3]);
    rig.send(link(1), attach(1));
    rig.send(link(1), detach(1));
    rig.settle();
    rig.look_ups().into_iter().for_each(|ticket| rig.looked_up(ticket, true, 0));
    assert_eq!(rig.answers(link(1)).len(), 2);
    assert_eq!(rig.session_count(), 0, "nobody is there");
}

#[test]
fn an_answer_says_on_how_many_copies_the_message_is() {
    let folder = folder();
    for (name, mut rig, copies, spans_zones) in [
        ("alone", with_people(Rig::serving(&folder.path().join("alone"))), 1, false),
        ("three", with_people(Rig::leading(&folder.path().join("three"), &[2, 3])), 2, true),
    ] {
        // A repeat is as durable.
        for _ in 0..2 {
            rig.send(link(1), message(1, 5));
            rig.settle();
            let answers = rig.answers(link(1));
            let applied = applied(&answers[0].1);
            assert_eq!((applied.copies, applied.spans_zones), (copies, spans_zones), "{name}");
        }
    }
}

#[test]
fn a_leader_that_steps_down_tells_what_it_did_not_do_from_what_it_does_not_know() {
    let folder = folder();
    let mut rig = leading(&folder, &[2, 3]);
    // Two writes go to the log thread; the third command waits for one of them.
    let ids: Vec<u64> = (1..=3)
        .map(|number| {
            let id = rig.send(link(1), message(number, 5));
            rig.turn();
            id
        })
        .collect();
    assert_eq!(rig.answers(link(1)), []);
    rig.won_by_two();
    let told: Vec<(u64, shard_error::Kind)> = rig
        .answers(link(1))
        .into_iter()
        .map(|(id, reply)| match reply {
            Reply::Error(error) => (id, error.kind()),
            other => panic!("not refused: {other:?}"),
        })
        .collect();
    let (unknown, untouched) = (shard_error::Kind::Unavailable, shard_error::Kind::NotLeader);
    assert_eq!(told, [(ids[2], untouched), (ids[0], unknown), (ids[1], unknown)]);
}

/// Time passes, and these answers come. Whether it leads on.
fn leads_on_by(rig: &mut Rig, answers: &[RaftMessage]) -> bool {
    rig.now_ms += TICK_MS;
    answers.iter().cloned().for_each(|answer| rig.shard.take_raft(answer));
    rig.turn();
    rig.shard.is_serving()
}

#[test]
fn a_leader_leads_on_while_its_own_writes_wait_and_gives_way_if_its_links_are_as_slow_without_that() {
    let folder = folder();
    let mut rig = leading(&folder, &[2, 3]);
    for _ in 0..HEARTBEAT_MS / TICK_MS {
        rig.now_ms += TICK_MS;
        rig.turn();
    }
    // From now on nothing comes but the answers to this heartbeat, later and later.
    let mut late = std::mem::take(&mut rig.effects.messages);
    late.retain(|message| message.kind() == raft_message::Kind::Heartbeat);
    for message in &mut late {
        std::mem::swap(&mut message.from, &mut message.to);
        message.kind = raft_message::Kind::HeartbeatResponse as i32;
        message.hibernates = false;
    }
    assert_eq!(late.len(), 2, "one of each copy: {late:?}");
    for number in 1..=LOG_WRITES_IN_FLIGHT_MAX as u64 {
        rig.send(link(1), message(number, 5));
        rig.turn();
    }
    assert_eq!(rig.effects.writes.len(), LOG_WRITES_IN_FLIGHT_MAX);
    rig.effects.messages.clear();
    for tick in 0..3 * ELECTION_TICKS {
        assert!(leads_on_by(&mut rig, &late), "tick {tick}: nothing leaves it, so nothing was late");
    }
    assert!(rig.effects.messages.is_empty(), "its log thread stands still");
    let mut ticks = 0;
    rig.persist();
    while leads_on_by(&mut rig, &late) {
        rig.persist();
        ticks += 1;
        assert!(ticks <= ELECTION_TICKS, "its disk is well, and what it asked since is not answered");
    }
    assert_eq!(rig.effects.late_nodes.len(), 2, "it was not silence that ended it");
}

/// Its detach was answered and is not repeated: whoever is asked to attach it then would keep it.
#[test]
fn a_session_that_left_while_it_was_attached_is_not_for_the_next_leader() {
    let folder = folder();
    let mut rig = leading(&folder, &[2, 3]);
    let attaching = rig.send(link(1), attach(1));
    rig.settle();
    rig.send(link(1), detach(1));
    rig.settle();
    assert_eq!(rig.answers(link(1)).len(), 1, "it has left");
    rig.won_by_two();
    let told = rig.answers(link(1));
    assert_eq!((told.len(), told[0].0, refusal(&told[0].1)), (1, attaching, shard_error::Kind::Unavailable));
}

#[test]
fn what_comes_between_an_election_and_the_turn_that_sees_it_is_taken_as_what_comes_behind_is() {
    let folder = folder();
    let mut rig = Rig::following(folder.path(), &[2, 3]);
    while !rig.shard.standing().leads {
        assert!(rig.now_ms < 500 + 30 * TICK_MS, "it is not elected");
        rig.now_ms += TICK_MS;
        rig.turn();
        rig.persist();
        rig.turn();
        rig.ask_copies();
    }
    let mut ids: Vec<u64> = [create_user(), create_room(), message(1, 5)]
        .into_iter()
        .map(|operation| rig.send(link(1), operation))
        .collect();
    assert_eq!(rig.answers(link(1)), []);
    rig.turn();
    ids.push(rig.send(link(1), message(2, 5)));
    rig.settle();
    let answers = rig.answers(link(1));
    assert_eq!(answers.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    assert_eq!((seq(&answers[2].1), seq(&answers[3].1)), (2, 3));
}

#[test]
fn a_leader_that_leads_on_in_another_term_does_what_waits_before_what_comes_behind() {
    let folder = folder();
    let mut rig = chatting(&folder);
    let before = [1, 2].map(|number| rig.send(link(1), message(number, 5)));
    rig.send(link(1), attach(1));
    // At the end of a turn: what came has not been proposed, and the device is being looked up.
    rig.shard.pipeline.group().lead_in_new_term();
    rig.turn();
    assert_eq!(rig.answers(link(1)), []);
    assert!(!rig.shard.is_serving(), "it recovers");
    let behind = rig.send(link(1), message(3, 5));
    rig.send(link(1), detach(1));
    rig.settle();
    rig.look_ups().into_iter().for_each(|ticket| rig.looked_up(ticket, true, 0));
    let answers = rig.answers(link(1));
    assert_eq!(answers.len(), 5);
    let seq_of = |id: u64| answers.iter().find(|(of, _)| *of == id).map(|(_, reply)| seq(reply));
    assert_eq!([before[0], before[1], behind].map(seq_of), [Some(2), Some(3), Some(4)]);
    assert_eq!(rig.session_count(), 0, "it has left");
}

#[test]
fn a_copy_that_follows_names_the_leader_and_the_term_that_it_knows() {
    let folder = folder();
    let mut rig = Rig::open_as(folder.path(), Arc::default(), 500, Replicas::of(1, &[1, 2, 3]));
    let named = |rig: &mut Rig| {
        rig.send(link(1), message(1, 5));
        match rig.answers(link(1)).pop() {
            Some((_, Reply::Error(error))) => (error.kind(), error.leader_node_id, error.term),
            other => panic!("not refused: {other:?}"),
        }
    };
    let (kind, leader, _) = named(&mut rig);
    assert_eq!((kind, leader), (shard_error::Kind::NotLeader, 0), "nobody has won an election yet");
    for (leader, term) in [(2, 7), (3, 9)] {
        rig.shard.take_raft(RaftMessage {
            shard: SHARD.0,
            kind: raft_message::Kind::Heartbeat as i32,
            from: leader,
            to: 1,
            term,
            ..RaftMessage::default()
        });
        assert_eq!(named(&mut rig), (shard_error::Kind::NotLeader, leader, term));
    }
}

#[test]
fn the_log_is_kept_for_a_copy_that_is_away_and_the_feed_does_not_mind() {
    let folder = folder();
    for (copies, is_kept) in [(&[2, 3][..], false), (&[2], true)] {
        let folder = folder.path().join(format!("{}", copies.len()));
        let mut rig = Rig::leading(&folder, copies);
        for operation in [create_user(), create_room(), message(1, 5)] {
            rig.send(link(9), operation);
        }
        // Checkpoints make durable what the home shard has received.
        for _ in 0..100 {
            rig.now_ms += 100;
            rig.settle();
        }
        assert!(rig.feed_cut() >= 3, "{}", rig.feed_cut());
        assert_eq!(rig.log_cut() < 3, is_kept, "{} and {}", rig.feed_cut(), rig.log_cut());
    }
}

/// It died when the change that took it out was in its rows, and before it had begun to remove them.
#[test]
fn a_replica_that_was_taken_out_before_a_restart_is_removed_after_it() {
    let folder = folder();
    let rig = leading(&folder, &[2, 3]);
    let store = rig.store();
    let (applied, _) = domain::applied_index(&*store, SHARD).expect("it reads");
    drop(rig);
    let others = Replicas::of(1, &[2, 3, 4]);
    let taken_out = ReplicaSet { changed_at: applied, ..others.set.clone() };
    let mut rig = Rig::open_as(folder.path(), store, 0, Replicas { set: taken_out, ..others.clone() });
    rig.turn();
    rig.turn();
    let asked = std::mem::take(&mut rig.effects.snapshots);
    assert!(
        matches!(asked[..], [SnapshotRequest::Remove { shard: SHARD, changed_at }] if changed_at == applied),
        "{asked:?}"
    );
    let elsewhere = super::folder();
    let mut rig = Rig::open_as(elsewhere.path(), Arc::default(), 0, others);
    rig.turn();
    rig.turn();
    assert!(rig.effects.snapshots.is_empty(), "who never was one has nothing to remove");
}

#[test]
fn a_leader_tells_how_far_a_replica_is_that_is_to_vote_until_it_does() {
    let folder = folder();
    // One that answers says that it has everything; of one that is silent nothing is known.
    for (copies, lacks) in [(&[2, 3, 4][..], Some(0)), (&[2, 3], None)] {
        let mut rig = Rig::leading(&folder.path().join(format!("{}", copies.len())), copies);
        assert_eq!(rig.marks.learners(), [], "nothing moves");
        let place = ShardPlace { nodes: vec![1, 2, 3], changed_at: 0 };
        rig.shard.fleet_changed(place, Some(vec![1, 2, 4]), true);
        let mut told = Vec::new();
        for _ in 0..30 {
            rig.now_ms += TICK_MS;
            rig.settle();
            told.push(rig.marks.learners());
        }
        assert!(told.contains(&vec![Learner { node: 4, lacks }]), "{told:?}");
        let is_over = told.last().is_some_and(Vec::is_empty);
        assert_eq!(is_over, lacks.is_some(), "it votes once it has nearly everything: {told:?}");
    }
}
