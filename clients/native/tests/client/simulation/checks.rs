//! The promises, one function each.

use super::World;
use super::device::Device;
use ringline_client::{ConversationId, Seq};
use std::collections::BTreeMap;
use wire_protocol::v1::Entry;

pub fn check(world: &mut World, seed: u64) {
    for device in &world.devices {
        promised_messages_are_there_once_in_order(world, device, seed);
        the_window_is_the_server_s_log(world, device, seed);
        shown_messages_are_in_order_without_gaps(device, seed);
        unread_is_exact(world, device, seed);
        nothing_waits(device, seed);
    }
    nothing_is_sent_under_two_ids(world, seed);
    cursors_tell_the_truth(world, seed);
}

/// What the API accepted is in the server's log once, in the order it was handed over.
fn promised_messages_are_there_once_in_order(world: &World, device: &Device, seed: u64) {
    let mut last_seq: BTreeMap<ConversationId, u64> = BTreeMap::new();
    for (room, id, body) in device.promised.iter().filter(|(.., body)| body != "refuse me") {
        let entries = &world.server.rooms[room].entries;
        let found: Vec<&Entry> = entries.iter().filter(|entry| entry.body == body.as_bytes()).collect();
        assert_eq!(found.len(), 1, "seed {seed}: {body:?} is there {} times", found.len());
        let last = last_seq.entry(*room).or_default();
        assert!(found[0].seq > *last, "seed {seed}: {body:?} overtook another");
        *last = found[0].seq;
        let own = device.store.own_entry(*room, *id).expect("the store can be read");
        assert_eq!(own, Some(Seq(found[0].seq)), "seed {seed}: {body:?} is not known as own");
        if let Some(told) = device.accepted.get(&(*room, id.0)) {
            assert_eq!(told.0, found[0].seq, "seed {seed}");
        }
    }
}

/// Every stored entry is the server's, and the window reaches the head.
fn the_window_is_the_server_s_log(world: &World, device: &Device, seed: u64) {
    for (id, room) in &world.server.rooms {
        if !room.members.contains(&device.caller.user) {
            continue;
        }
        let (low, high) =
            device.engine.window(*id).unwrap_or_else(|| panic!("seed {seed}: a room is missing"));
        assert_eq!(high.0, room.entries.len() as u64, "seed {seed}: not caught up");
        let stored = device.store.history(*id, None, usize::MAX).expect("the store can be read");
        let expected = &room.entries[low.0.max(1) as usize - 1..];
        assert_eq!(stored.len(), expected.len(), "seed {seed}");
        for (stored, entry) in stored.iter().zip(expected) {
            let same = stored.seq.0 == entry.seq
                && stored.body == entry.body
                && stored.time_ms == entry.time_ms
                && stored.sender_ordinal == entry.sender
                && stored.sender == Some(room.members[entry.sender as usize]);
            assert!(same, "seed {seed}: {stored:?} is not {entry:?}");
        }
        let facts = device.store.conversation(*id).expect("the store can be read").expect("it is there");
        assert_eq!(facts.members.len(), room.members.len(), "seed {seed}");
        assert!(
            facts.members.iter().all(|member| !member.username.is_empty()),
            "seed {seed}: names are missing"
        );
    }
}

/// Each message was shown at most once, in order; a gap only where a crash came between storing and showing.
fn shown_messages_are_in_order_without_gaps(device: &Device, seed: u64) {
    for shown in device.shown.values() {
        assert!(shown.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: shown {shown:?}");
        let gaps = shown.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count();
        assert!(gaps <= device.crashes, "seed {seed}: gaps without a crash in {shown:?}");
    }
}

fn unread_is_exact(world: &World, device: &Device, seed: u64) {
    for conversation in device.store.conversations(100).expect("the store can be read") {
        let room = &world.server.rooms[&conversation.id];
        let read = room.cursors.get(&device.caller.user).map_or(0, |cursors| cursors.1);
        // A read of another own device may be news that was lost.
        if conversation.read_up_to.0 == read {
            assert_eq!(conversation.unread, room.unread(device.caller.user), "seed {seed}");
        }
    }
}

fn nothing_waits(device: &Device, seed: u64) {
    for conversation in device.store.conversations(100).expect("the store can be read") {
        let pending = device.store.pending(conversation.id).expect("the store can be read");
        let refused = pending.iter().all(|message| message.body == "refuse me".as_bytes());
        assert!(refused, "seed {seed}: {pending:?}");
    }
}

fn nothing_is_sent_under_two_ids(world: &World, seed: u64) {
    for room in world.server.rooms.values() {
        let mut bodies: Vec<_> = room.entries.iter().map(|entry| entry.body.clone()).collect();
        let count = bodies.len();
        bodies.sort_unstable();
        bodies.dedup();
        assert_eq!(bodies.len(), count, "seed {seed}: a message is there twice");
    }
}

/// A device never confirmed more than it had stored; in the end the server knows everything it has.
fn cursors_tell_the_truth(world: &World, seed: u64) {
    for device in &world.devices {
        for (id, room) in &world.server.rooms {
            let Some(&confirmed) = room.device_cursors.get(&device.caller.device) else { continue };
            let high = device.engine.window(*id).map_or(0, |window| window.1.0);
            assert!(confirmed <= high, "seed {seed}: confirmed {confirmed}, stored {high}");
            let foreign = |entry: &&Entry| room.members[entry.sender as usize] != device.caller.user;
            let owed = room.entries.iter().filter(foreign).map(|entry| entry.seq).max().unwrap_or(0);
            assert!(confirmed >= owed, "seed {seed}: {owed} has arrived, {confirmed} is confirmed");
        }
    }
}
