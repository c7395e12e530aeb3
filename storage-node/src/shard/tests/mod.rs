//! One shard, step by step: what it answers when, and what it keeps to itself until then.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod copies;
mod hand_over;
mod lease;
mod packing;
mod rig;
mod under_way;

use super::propose::{COMMANDS_WAITING_BYTES_MAX, COMMANDS_WAITING_MAX};
use rig::*;
use std::sync::Arc;
use wire_protocol::ids::UserId;
use wire_protocol::internal::shard_request::Operation;
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{
    Command, FeedBatch, FeedCheckpoint, FeedRow, ReadFeed, ReadUser, SessionAddress, command, delivery,
    query, shard_error,
};
use wire_protocol::limits::BODY_BYTES_MAX;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A serving shard with Ada, her phone, and her conversation with Bob.
fn chatting(folder: &tempfile::TempDir) -> Rig {
    with_people(Rig::serving(folder.path()))
}

fn with_people(mut rig: Rig) -> Rig {
    for operation in [create_user(), create_room()] {
        rig.send(link(9), operation);
    }
    rig.settle();
    assert_eq!(rig.answers(link(9)).len(), 2);
    rig
}

#[test]
fn an_answer_waits_until_the_log_is_synced_and_the_rows_are_readable() {
    let folder = folder();
    let mut rig = chatting(&folder);
    let id = rig.send(link(1), message(1, 5));
    rig.turn();
    rig.turn();
    assert_eq!(rig.effects.writes.len(), 1, "it is handed to the log thread");
    assert!(rig.effects.applies.is_empty(), "and goes no further before that reports");
    assert_eq!(rig.answers(link(1)), []);
    assert!(rig.persist());
    rig.turn();
    assert_eq!(rig.effects.applies.len(), 1);
    assert_eq!(rig.answers(link(1)), [], "durable, but not readable yet");
    assert!(rig.apply());
    let answers = rig.answers(link(1));
    assert_eq!((answers.len(), answers[0].0, seq(&answers[0].1)), (1, id, 2));
}

#[test]
fn each_command_of_an_entry_is_answered_to_whoever_sent_it() {
    let folder = folder();
    let mut rig = chatting(&folder);
    let ids: Vec<u64> = (1..=6).map(|number| rig.send(link(number % 2), message(number, 5))).collect();
    rig.settle();
    for (of, expected) in [(1, [ids[0], ids[2], ids[4]]), (0, [ids[1], ids[3], ids[5]])] {
        let answers = rig.answers(link(of));
        assert_eq!(answers.iter().map(|(id, _)| *id).collect::<Vec<_>>(), expected);
        for (id, reply) in &answers {
            assert_eq!(seq(reply), id - ids[0] + 2, "numbered in the order they came");
        }
    }
}

#[test]
fn requests_wait_until_what_the_log_held_is_applied() {
    let folder = folder();
    let store = {
        let mut rig = chatting(&folder);
        rig.send(link(1), message(1, 5));
        rig.turn();
        assert!(rig.persist(), "durable, but the process dies before it is applied");
        rig.store()
    };
    let mut rig = Rig::open(folder.path(), store, 500);
    let user = query::Kind::ReadUser(ReadUser { user_id: ADA.to_bytes() });
    let commands = [rig.send(link(1), message(1, 5)), rig.send(link(1), message(2, 5))];
    rig.send(link(1), ask(user));
    rig.send(link(1), attach(1));
    rig.turn();
    assert!(!rig.shard.is_serving());
    assert!(rig.effects.reads.is_empty(), "rows that are not there yet are not read");
    rig.settle();
    assert!(rig.shard.is_serving());
    assert_eq!(rig.effects.reads.len(), 2, "the query and the look-up of the session's device");
    let answers = rig.answers(link(1));
    let found: Vec<(u64, u64)> = answers.iter().map(|(id, reply)| (*id, seq(reply))).collect();
    assert_eq!(found, [(commands[0], 2), (commands[1], 3)], "the repeat gets its first answer");
}

#[test]
fn time_does_not_fall_with_the_clock_of_another_start() {
    let folder = folder();
    let stored_ms = |rig: &mut Rig, client_id| {
        rig.send(link(1), message(client_id, 5));
        rig.settle();
        crate::domain::applied_index(&*rig.store(), SHARD).expect("it reads").1
    };
    let mut rig = chatting(&folder);
    rig.now_ms = 900_000;
    assert_eq!(stored_ms(&mut rig, 1), 900_000);
    rig.now_ms = 4_000;
    assert_eq!(stored_ms(&mut rig, 2), 900_000);
    let store = rig.store();
    drop(rig);
    let mut rig = Rig::open(folder.path(), store, 5_000);
    rig.settle();
    assert_eq!(stored_ms(&mut rig, 3), 900_000);
}

#[test]
fn a_failure_answers_everything_that_waits_once() {
    let folder = folder();
    let mut rig = chatting(&folder);
    let proposed = rig.send(link(1), message(1, 5));
    rig.turn();
    let waiting = rig.send(link(1), message(2, 5));
    let attaching = rig.send(link(1), attach(1));
    rig.shard.fail(&mut rig.effects);
    let after = rig.send(link(1), message(3, 5));
    let mut answers = rig.answers(link(1));
    answers.sort_by_key(|(id, _)| *id);
    let ids: Vec<u64> = answers.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [proposed, waiting, attaching, after]);
    assert!(answers.iter().all(|(_, reply)| refusal(reply) == shard_error::Kind::Unavailable));

    let empty = self::folder();
    let mut starting = Rig::open(empty.path(), Arc::default(), 500);
    let deferred = starting.send(link(1), message(1, 5));
    starting.shard.fail(&mut starting.effects);
    let answers = starting.answers(link(1));
    assert_eq!((answers.len(), answers[0].0), (1, deferred));
}

#[test]
fn what_left_the_queue_makes_room_for_more() {
    let folder = folder();
    let mut rig = chatting(&folder);
    let per_round = COMMANDS_WAITING_BYTES_MAX / BODY_BYTES_MAX / 4;
    for _ in 0..6 {
        for number in 1..=per_round as u64 {
            // Of somebody who may not: it is refused by its outcome, and no feed tells of it.
            rig.send(link(1), message_of(UserId([9; 16]), number, BODY_BYTES_MAX));
        }
        rig.settle();
        let answers = rig.answers(link(1));
        assert_eq!(answers.len(), per_round);
        assert!(answers.iter().all(|(_, reply)| matches!(reply, Reply::Outcome(_))), "all were taken");
    }
    assert!(rig.shard.is_idle());
}

#[test]
fn a_shard_s_own_command_is_taken_from_nobody_else() {
    let folder = folder();
    let mut rig = chatting(&folder);
    let row = FeedRow { user_id: ADA.to_bytes(), conversation_id: room().to_bytes(), ..FeedRow::default() };
    let checkpoint = FeedCheckpoint { rows: vec![FeedRow { version: u64::MAX, ..row }], positions: vec![] };
    let kind = Some(command::Kind::FeedCheckpoint(checkpoint));
    rig.send(link(1), Operation::Command(Command { kind }));
    rig.settle();
    assert_eq!(refusal(&rig.answers(link(1))[0].1), shard_error::Kind::Malformed);
}

#[test]
fn a_session_is_attached_only_if_its_device_and_its_link_are_still_there() {
    let folder = folder();
    let mut rig = chatting(&folder);
    let attached = |rig: &mut Rig, of: u64| match rig.answers(link(of)).pop() {
        Some((_, Reply::Attached(attached))) => attached.device_known,
        other => panic!("not attached: {other:?}"),
    };
    // Unknown to the store.
    rig.send(link(1), attach(1));
    let ticket = rig.look_ups()[0];
    rig.looked_up(ticket, false, 0);
    assert!(!attached(&mut rig, 1));
    assert_eq!(rig.session_count(), 0);
    // Detached, or its link closed, while the device was looked up.
    rig.send(link(1), attach(2));
    rig.send(link(2), attach(3));
    let tickets = rig.look_ups();
    rig.send(link(1), detach(2));
    rig.shard.link_closed(link(2));
    tickets.into_iter().for_each(|ticket| rig.looked_up(ticket, true, 0));
    assert_eq!(rig.session_count(), 0);
    assert!(attached(&mut rig, 1), "it is told as it was found");
    assert_eq!(rig.answers(link(2)), [], "nobody is there to be told");
    // The device removed while it was looked up: found before, gone by now.
    rig.send(link(1), attach(4));
    let ticket = rig.look_ups()[0];
    rig.send(link(9), remove_device());
    rig.settle();
    rig.looked_up(ticket, true, 0);
    assert!(!attached(&mut rig, 1));
    assert_eq!(rig.session_count(), 0);
}

#[test]
fn sessions_end_with_their_device_their_link_and_their_own_end() {
    let folder = folder();
    let mut rig = chatting(&folder);
    for (number, slot) in [(1, 1), (1, 2), (2, 3)] {
        rig.send(link(number), attach(slot));
        let ticket = rig.look_ups()[0];
        rig.looked_up(ticket, true, 0);
    }
    assert_eq!(rig.session_count(), 3);
    rig.send(link(1), detach(1));
    assert_eq!(rig.session_count(), 2);
    rig.shard.link_closed(link(2));
    assert_eq!(rig.session_count(), 1);
    rig.send(link(9), remove_device());
    rig.settle();
    let told = rig.deliveries();
    let [(to, removal)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((*to, &removal.sessions[..]), (link(1), &[SessionAddress { slot: 2, generation: 1 }][..]));
    assert_eq!(removal.event, Some(delivery::Event::DeviceRemoved(true)));
    assert_eq!(rig.session_count(), 0);
}

#[test]
fn an_attached_session_hears_the_newest_version_wherever_it_is() {
    let folder = folder();
    let mut rig = chatting(&folder);
    let version = |rig: &mut Rig, stored: u64| {
        rig.send(link(1), attach(1));
        let ticket = rig.look_ups()[0];
        rig.looked_up(ticket, true, stored);
        match rig.answers(link(1)).pop() {
            Some((_, Reply::Attached(attached))) => attached.feed_version,
            other => panic!("not attached: {other:?}"),
        }
    };
    rig.send(link(9), message(1, 5));
    rig.settle();
    let in_memory = version(&mut rig, 1);
    assert!(in_memory > 1, "what no checkpoint holds yet counts");
    assert_eq!(version(&mut rig, in_memory + 7), in_memory + 7, "and so does what one holds");
}

#[test]
fn a_look_at_the_feed_brings_what_no_checkpoint_holds_yet() {
    let folder = folder();
    let mut rig = chatting(&folder);
    let read = ReadFeed { user_id: ADA.to_bytes(), since_version: 0, rows_max: 10 };
    rig.send(link(1), ask(query::Kind::ReadFeed(read)));
    let job = rig.effects.reads.pop().expect("a query");
    let super::ReadWork::Query { view, .. } = job.work else { panic!("a query") };
    let rows = view.expect("the shard serves").rows;
    assert_eq!(rows.iter().map(|row| row.top_seq).collect::<Vec<_>>(), [1]);
}

#[test]
fn feed_that_comes_before_the_shard_serves_is_taken_afterwards() {
    let folder = folder();
    let mut rig = Rig::open(folder.path(), Arc::default(), 500);
    let batch = FeedBatch { source_shard: 5, to_index: 3, ..FeedBatch::default() };
    rig.shard.take_batch(batch, &mut rig.effects);
    while !rig.shard.is_serving() {
        assert!(rig.effects.acks.is_empty(), "what was durable is not known yet");
        rig.turn();
        assert!(rig.persist() | rig.apply() | rig.read_positions(), "it gets on");
    }
    let taken: Vec<(u32, u64)> =
        rig.effects.acks.iter().map(|ack| (ack.source_shard, ack.received_index)).collect();
    assert_eq!(taken, [(5, 3)]);
}

#[test]
fn the_log_is_cut_no_further_than_the_feed_is_durable() {
    let folder = folder();
    let mut rig = chatting(&folder);
    let before = rig.feed_cut();
    rig.send(link(1), message(1, 5));
    rig.settle();
    assert_eq!(rig.feed_cut(), before, "received by the home shard, but in its memory only");
    rig.now_ms += 60_000;
    rig.settle();
    rig.settle();
    assert!(rig.feed_cut() > before, "a checkpoint made it durable");
}

#[test]
fn a_checkpoint_that_found_no_room_is_made_again() {
    let folder = folder();
    let mut rig = chatting(&folder);
    rig.now_ms += 60_000;
    for number in 0..COMMANDS_WAITING_MAX as u64 {
        rig.send(link(1), message(number + 1, 1));
    }
    rig.settle();
    rig.now_ms += 60_000;
    rig.settle();
    rig.now_ms += 60_000;
    rig.settle();
    let mut levels = super::Levels::default();
    rig.shard.add_levels(&mut levels);
    assert_eq!(levels.feed_rows_dirty, 0);
}
