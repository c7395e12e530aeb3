//! Three processes with a copy of every shard each, over mutual TLS: any one of them may die, and nothing that was
//! acknowledged is lost, doubled or out of order.

use crate::fleet::Fleet;
use crate::requests::{self, applied, body, person};
use std::path::Path;
use wire_protocol::ids::ConversationId;

const SHARDS: u32 = 6;

fn start(folder: &Path) -> Fleet<'_> {
    Fleet::start(folder, SHARDS, 3, |_| Vec::new())
}

#[test]
fn whoever_dies_nothing_acknowledged_is_lost_doubled_or_reordered() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = start(folder.path());
    let (ada, bob) = (person(1), person(2));
    for person in [ada, bob] {
        fleet.call(requests::create_user(SHARDS, person));
    }
    fleet.call(requests::create_direct(SHARDS, ada, bob));
    let conversation = ConversationId::direct(ada.user, bob.user);
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
    let (ada, bob) = (person(1), person(2));
    for person in [ada, bob] {
        fleet.call(requests::create_user(SHARDS, person));
    }
    fleet.call(requests::create_direct(SHARDS, ada, bob));
    let conversation = ConversationId::direct(ada.user, bob.user);
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
