//! Commands of one turn share an entry, up to its bounds; what is beyond them waits for the next one.

use super::*;
use crate::replication::decode_record;
use crate::shard::{ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX, LOG_WRITES_IN_FLIGHT_MAX};
use wire_protocol::internal::{CommandBatch, RaftMessage};

/// A serving leader, whose copies on nodes 2 and 3 answer.
fn leading(folder: &tempfile::TempDir) -> Rig {
    with_people(Rig::leading(folder.path(), &[2, 3]))
}

/// A turn, and the entries that it makes: each is told to each copy, and goes to the log in a write of its own.
fn entries_of_turn(rig: &mut Rig) -> Vec<CommandBatch> {
    let (writes, messages) = (rig.effects.writes.len(), rig.effects.messages.len());
    let proposed = rig.shard.metrics.entries.value();
    rig.turn();
    let proposed = rig.shard.metrics.entries.value() - proposed;
    let said = &rig.effects.messages[messages..];
    let told = |node: u32| -> Vec<CommandBatch> {
        let to_node: Vec<&RaftMessage> = said.iter().filter(|message| message.to == node).collect();
        assert!(to_node.len() <= 1, "{} messages to node {node}", to_node.len());
        let entries = to_node.into_iter().flat_map(|message| &message.entries);
        entries.map(|entry| decode_record(&entry.record).unwrap().expect("a batch")).collect()
    };
    let packed = told(2);
    assert!(told(3) == packed, "both are told the same");
    assert_eq!((rig.effects.writes.len() - writes, proposed), (packed.len(), packed.len() as u64));
    packed
}

/// How many commands are in each entry that a turn makes.
fn counts_of_turn(rig: &mut Rig) -> Vec<usize> {
    entries_of_turn(rig).iter().map(|batch| batch.commands.len()).collect()
}

/// Messages of somebody who may not: they are refused by their outcome, and no feed tells of them.
fn send_many(rig: &mut Rig, count: usize, body_bytes: usize) {
    for number in 1..=count as u64 {
        rig.send(link(1), message_of(UserId([9; 16]), number, body_bytes));
    }
}

#[test]
fn all_commands_of_a_turn_are_one_entry_whoever_sent_them() {
    let folder = folder();
    let mut rig = leading(&folder);
    let commands = rig.shard.metrics.commands.value();
    for number in 1..=300 {
        rig.send(link(number % 3), message(number, 5));
    }
    assert_eq!(counts_of_turn(&mut rig), [300]);
    assert_eq!(rig.shard.metrics.commands.value(), commands + 300);
    assert!(counts_of_turn(&mut rig).is_empty(), "nothing is left");
    rig.settle();
    let answered: usize = (0..3).map(|of| rig.answers(link(of)).len()).sum();
    assert_eq!(answered, 300);
}

#[test]
fn an_entry_has_no_more_commands_than_its_bound_and_few_wait_for_the_log() {
    let folder = folder();
    let mut rig = leading(&folder);
    let count = LOG_WRITES_IN_FLIGHT_MAX * ENTRY_COMMANDS_MAX + 7;
    send_many(&mut rig, count, 1);
    for _ in 0..LOG_WRITES_IN_FLIGHT_MAX {
        assert_eq!(counts_of_turn(&mut rig), [ENTRY_COMMANDS_MAX]);
    }
    assert!(counts_of_turn(&mut rig).is_empty(), "what comes meanwhile shares the next one");
    rig.settle();
    assert_eq!(rig.answers(link(1)).len(), count);
}

#[test]
fn an_entry_ends_with_the_command_that_fills_its_bytes() {
    let folder = folder();
    let mut rig = leading(&folder);
    let count = LOG_WRITES_IN_FLIGHT_MAX * ENTRY_BYTES_MAX / BODY_BYTES_MAX + 3;
    send_many(&mut rig, count, BODY_BYTES_MAX);
    for _ in 0..LOG_WRITES_IN_FLIGHT_MAX {
        let packed = counts_of_turn(&mut rig);
        let [commands] = packed[..] else { panic!("{packed:?}") };
        let bytes = commands * BODY_BYTES_MAX;
        assert!(bytes - BODY_BYTES_MAX < ENTRY_BYTES_MAX, "{commands} commands: it was full before");
        assert!(bytes + BODY_BYTES_MAX > ENTRY_BYTES_MAX, "{commands} commands: there was room for more");
    }
    assert!(counts_of_turn(&mut rig).is_empty(), "the log thread has as many writes as it may");
    rig.settle();
    assert_eq!(rig.answers(link(1)).len(), count);
}
