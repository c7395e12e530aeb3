//! Two processes with half of the shards each, over mutual TLS.

use crate::certificates;
use crate::fleet::Fleet;
use crate::process::{Link, Process, Setup};
use crate::requests::{self, Person, applied, body, person};
use std::io;
use std::path::Path;
use storage_node::LinkTls;
use wire_protocol::ids::{ConversationId, ShardId};

const SHARDS: u32 = 8;

fn place_of(shard: ShardId) -> usize {
    (shard.0 % 2) as usize
}

fn home(person: Person) -> ShardId {
    person.user.slot().shard(SHARDS)
}

fn start(folder: &Path) -> Fleet<'_> {
    Fleet::start(folder, SHARDS, 2, |place| {
        (0..SHARDS).filter(|shard| place_of(ShardId(*shard)) == place).collect()
    })
}

/// Two people whose homes are on different nodes, and whose conversation is on the first node.
fn strangers() -> (Person, Person, ConversationId) {
    for number in 0.. {
        let (a, b) = (person(number), person(number + 1_000));
        let conversation = ConversationId::direct(a.user, b.user);
        let places = [home(a), home(b), conversation.slot().shard(SHARDS)].map(place_of);
        if places == [0, 1, 0] {
            return (a, b, conversation);
        }
    }
    unreachable!("one of a few pairs fits")
}

#[test]
fn feed_crosses_nodes_and_a_restart_of_either_is_made_good() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = start(folder.path());
    let (ada, bob, conversation) = strangers();
    for person in [ada, bob] {
        fleet.call(requests::create_user(SHARDS, person));
    }
    fleet.call(requests::create_direct(SHARDS, ada, bob));
    fleet.attach(ada, 1);
    fleet.attach(bob, 2);
    applied(&fleet.call(requests::send(SHARDS, ada, conversation, 1)));
    fleet.wait_for_push(home(bob), &body(ada, 1));
    applied(&fleet.call(requests::send(SHARDS, bob, conversation, 1)));
    fleet.wait_for_push(home(ada), &body(bob, 1));

    // Bob's home dies; what is sent meanwhile is in his feed afterwards, and he gets pushes again.
    fleet.kill(1);
    for client_id in 2..=40 {
        applied(&fleet.call(requests::send(SHARDS, ada, conversation, client_id)));
    }
    fleet.start_node(1);
    fleet.attach(bob, 2);
    fleet.wait_for_feed(bob, conversation, 42);
    applied(&fleet.call(requests::send(SHARDS, ada, conversation, 41)));
    fleet.wait_for_push(home(bob), &body(ada, 41));

    // The conversation's node dies right after its answers; what it had not handed on yet arrives all the same.
    for client_id in 42..=80 {
        applied(&fleet.call(requests::send(SHARDS, ada, conversation, client_id)));
    }
    fleet.kill(0);
    fleet.start_node(0);
    fleet.wait_for_feed(bob, conversation, 82);
    fleet.wait_for_feed(ada, conversation, 82);
    fleet.terminate();
}

#[test]
fn a_peer_without_a_certificate_of_the_fleet_gets_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = certificates::make(folder.path());
    let strange = tempfile::tempdir().expect("a folder");
    let of_another_fleet = certificates::make(strange.path());
    let setup = Setup::alone(folder.path(), &tls, SHARDS);
    let process = Process::start(&setup);
    let untrusted_server = Link::open(process.address, &of_another_fleet).err().expect("refused");
    assert!(untrusted_server.to_string().contains("certificate"), "{untrusted_server}");
    // Trusts the node, but shows a certificate that the node does not trust.
    let half = LinkTls { ca: tls.ca.clone(), ..of_another_fleet };
    let refused: io::Error = Link::open(process.address, &half).err().expect("refused");
    assert!(refused.to_string().to_lowercase().contains("alert"), "{refused}");
    // Trusts the node, and shows no certificate at all.
    let refused = Link::open_without_certificate(process.address, &tls).err().expect("refused");
    assert!(refused.to_string().to_lowercase().contains("alert"), "{refused}");
    Link::open(process.address, &tls).expect("the fleet's own is served");
    process.terminate();
}
