//! Three processes with a copy of every shard each, over mutual TLS: any one of them may die, and nothing that was
//! acknowledged is lost, doubled or out of order.

use crate::fleet::Fleet;
use crate::process::PATIENCE;
use crate::requests::{self, applied, body, person};
use bytes::Bytes;
use std::path::Path;
use std::time::Duration;
use storage_node::clock;
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

#[test]
fn sessions_and_feed_follow_the_leader_of_their_home() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = start(folder.path());
    let (ada, bob, conversation) = fleet.two_who_talk();
    let home = bob.user.slot().shard(SHARDS);
    fleet.attach(bob, 2);
    applied(&fleet.call(requests::send(SHARDS, ada, conversation, 1)));
    fleet.wait_for_push(home, &body(ada, 1));
    let leader = fleet.leader(home).expect("it answered");
    fleet.kill(leader);
    for client_id in 2..=20 {
        applied(&fleet.call(requests::send(SHARDS, ada, conversation, client_id)));
    }
    fleet.attach(bob, 2);
    // What was sent meanwhile is in his feed, and he hears of what is sent from now on.
    fleet.wait_for_feed(bob, conversation, 21);
    applied(&fleet.call(requests::send(SHARDS, ada, conversation, 21)));
    fleet.wait_for_push(home, &body(ada, 21));
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

/// Longer than a replica may be silent before a log that has grown large is cut without it.
const AWAY: Duration = Duration::from_secs(12);
/// More messages than the log keeps for a replica that is away: with these bodies twice `keep_bytes`.
const MESSAGES_AWAY: u64 = 2_500;
const BODY_BYTES: usize = 8 * 1024;

#[test]
fn a_node_that_was_away_too_long_takes_a_snapshot_and_is_as_good_as_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = start(folder.path());
    let (ada, bob, conversation) = fleet.two_who_talk();
    let shard = conversation.slot().shard(SHARDS);
    let leader = fleet.leader(shard).expect("it answered");
    let (away, other) = ((leader + 1) % 3, (leader + 2) % 3);
    fleet.kill(away);
    let large = |client_id: u64| {
        let body = Bytes::from(vec![client_id as u8; BODY_BYTES]);
        requests::send_body(SHARDS, ada, conversation, client_id, body)
    };
    let (started, mut seqs) = (clock::now(), Vec::new());
    while started.elapsed() < AWAY || (seqs.len() as u64) < MESSAGES_AWAY {
        assert!(started.elapsed() < 4 * PATIENCE, "{} messages", seqs.len());
        seqs.push(applied(&fleet.call(large(seqs.len() as u64 + 1))).seq);
        if seqs.len() % 50 == 0 {
            // The other nodes' links live of being heard.
            fleet.pump();
        }
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
