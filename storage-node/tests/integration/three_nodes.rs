//! Three processes with a copy of every shard each, over mutual TLS: any one of them may die, and nothing that was
//! acknowledged is lost, doubled or out of order.

use crate::fleet::Fleet;
use crate::process::PATIENCE;
use crate::requests::{self, Person, applied, body, person};
use bytes::Bytes;
use std::path::Path;
use storage_node::admin::{AdminDone, AdminRequest, call};
use storage_node::clock;
use wire_protocol::ids::{ConversationId, ShardId};
use wire_protocol::internal::shard_error::Kind;
use wire_protocol::internal::shard_response::Result as Reply;

const SHARDS: u32 = 6;

fn start(folder: &Path) -> Fleet<'_> {
    Fleet::start(folder, SHARDS, 3, |_| Vec::new())
}

#[test]
fn whoever_dies_nothing_acknowledged_is_lost_doubled_or_reordered() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = start(folder.path());
    let (ada, _, conversation) = fleet.two_who_talk();
    let shard = conversation.slot().shard(SHARDS);
    let mut seqs = Vec::new();
    let mut client_id = 0;
    // Each node dies once, whoever leads; in between enough is sent for the log to be cut and files to be used again.
    for round in 0..3 {
        for _ in 0..40 {
            client_id += 1;
            seqs.push(applied(&fleet.call(requests::send(SHARDS, ada, conversation, client_id))).seq);
        }
        let leader = fleet.leader(shard).expect("it answered");
        fleet.kill(leader);
        for _ in 0..40 {
            client_id += 1;
            seqs.push(applied(&fleet.call(requests::send(SHARDS, ada, conversation, client_id))).seq);
        }
        assert_ne!(fleet.leader(shard), Some(leader), "round {round}");
        fleet.start_node(leader);
    }
    // The creation is the first entry.
    assert!(seqs.iter().copied().eq(2..=client_id + 1), "{seqs:?}");
    // Every repeat is answered as the first time, by whoever leads now.
    for (client_id, seq) in (1..).zip(&seqs) {
        let repeated = applied(&fleet.call(requests::send(SHARDS, ada, conversation, client_id)));
        assert_eq!((repeated.seq, repeated.repeated_send), (*seq, true));
    }
}

/// Sessions of one person, one after the other, that may go with their leaders and links while nobody kills any.
const SESSIONS_MAX: u32 = 20;

/// Attaches a session; what was sent before is in the feed, and what is sent from now on is pushed. `sent`: so many
/// messages.
fn attach_and_hear(fleet: &mut Fleet<'_>, [from, to]: [Person; 2], sent: &mut u64) {
    let conversation = ConversationId::direct(from.user, to.user);
    for _ in 0..SESSIONS_MAX {
        let session = fleet.attach(to, 2);
        if *sent > 0 {
            // The creation is the first entry.
            fleet.wait_for_feed(to, conversation, *sent + 1);
        }
        *sent += 1;
        applied(&fleet.call(requests::send(SHARDS, from, conversation, *sent)));
        if fleet.wait_for_push_to(session, &body(from, *sent)) {
            return;
        }
    }
    panic!("{SESSIONS_MAX} sessions went, and nothing was pushed to any of them");
}

#[test]
fn sessions_and_feed_follow_the_leader_of_their_home() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = start(folder.path());
    let (ada, bob, conversation) = fleet.two_who_talk();
    let home = bob.user.slot().shard(SHARDS);
    let mut sent = 0;
    attach_and_hear(&mut fleet, [ada, bob], &mut sent);
    let leader = fleet.leader(home).expect("it answered");
    fleet.kill(leader);
    for _ in 0..19 {
        sent += 1;
        applied(&fleet.call(requests::send(SHARDS, ada, conversation, sent)));
    }
    attach_and_hear(&mut fleet, [ada, bob], &mut sent);
}

#[test]
fn whoever_does_not_lead_names_who_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = start(folder.path());
    let call = requests::create_user(SHARDS, person(1));
    fleet.call(call.clone());
    let started = clock::now();
    // One of them may not have heard of the leader yet, and leadership may be on its way home.
    loop {
        let leader = fleet.leader(call.shard).expect("it answered");
        let mut named = Vec::new();
        for place in (0..3).filter(|place| *place != leader) {
            match fleet.ask(place, call.clone()).result {
                Some(Reply::Error(error)) if error.kind() == Kind::NotLeader && error.term > 0 => {
                    named.push(error.leader_node_id);
                }
                other => println!("node {}: {other:?}", place + 1),
            }
        }
        if named == [leader as u32 + 1; 2] {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{named:?} instead of {}", leader + 1);
        fleet.pump();
    }
}

/// More messages than the log keeps for any replica: with these bodies nearly ten times `keep_bytes`.
const MESSAGES_MAX: usize = 10_000;
const BODY_BYTES: usize = 8 * 1024;

/// First and last entry that the log of a shard holds on a node.
fn log_span(fleet: &Fleet<'_>, place: usize, shard: ShardId) -> (u64, u64) {
    match call(&fleet.data(place), &AdminRequest::Status {}, |_| {}).expect("the node answers") {
        AdminDone::Status(status) => {
            let found = status.shards.iter().find(|found| found.shard == shard.0).expect("it holds all");
            (found.log_first, found.log_last)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_that_was_away_too_long_takes_a_snapshot_and_is_as_good_as_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = start(folder.path());
    let (ada, bob, conversation) = fleet.two_who_talk();
    let shard = conversation.slot().shard(SHARDS);
    let leader = fleet.leader(shard).expect("it answered");
    let (away, other) = ((leader + 1) % 3, (leader + 2) % 3);
    fleet.kill(away);
    // It has no more of the log than whoever leads.
    let (_, away_last) = log_span(&fleet, leader, shard);
    let large = |client_id: u64| {
        let body = Bytes::from(vec![client_id as u8; BODY_BYTES]);
        requests::send_body(SHARDS, ada, conversation, client_id, body)
    };
    let (started, mut seqs) = (clock::now(), Vec::new());
    let reaches_back = |fleet: &Fleet<'_>, place| log_span(fleet, place, shard).0 <= away_last;
    while fleet.leader(shard).is_none_or(|place| reaches_back(&fleet, place)) {
        let goes_on = started.elapsed() < 4 * PATIENCE || seqs.len() < MESSAGES_MAX;
        assert!(goes_on, "the log is not cut: {} messages", seqs.len());
        for _ in 0..50 {
            seqs.push(applied(&fleet.call(large(seqs.len() as u64 + 1))).seq);
        }
        // The other nodes' links live of being heard.
        fleet.pump();
    }
    // It takes what it is given, dies, begins again, dies when everything is in its place, and finds it so.
    for failpoint in ["snapshot-received", "snapshot-decided", "snapshot-installed"] {
        fleet.start_dying_at(away, failpoint);
    }
    fleet.start_node(away);
    // With one of the others gone, nothing is acknowledged without it.
    fleet.kill(other);
    let next = seqs.len() as u64 + 1;
    seqs.push(applied(&fleet.call(large(next))).seq);
    fleet.start_node(other);
    fleet.kill(leader);
    // Whoever leads now, what was acknowledged is there once, and the feed has all of it.
    for client_id in 1..=next {
        let repeated = applied(&fleet.call(large(client_id)));
        assert_eq!((repeated.seq, repeated.repeated_send), (seqs[client_id as usize - 1], true));
        if client_id % 50 == 0 {
            fleet.pump();
        }
    }
    fleet.wait_for_feed(bob, conversation, next + 1);
}
