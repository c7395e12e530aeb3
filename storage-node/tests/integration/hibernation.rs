//! Three processes of which nobody wants anything: their groups hibernate, serve at once when asked, and notice who dies.

use crate::fleet::Fleet;
use crate::process::PATIENCE;
use crate::requests::{self, applied};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use storage_node::clock;

const SHARDS: u32 = 6;
/// Messages to a group that hibernates, of which one at least is to need no election: a busy machine may hold some.
const MESSAGES_MAX: u64 = 5;

/// Replicas of a node whose groups hibernate, by its metrics page.
fn hibernating(metrics: SocketAddr) -> usize {
    let mut stream = TcpStream::connect(metrics).expect("the node lives");
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
        .expect("it takes it");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("text");
    let of_cores = page.lines().filter_map(|line| line.strip_prefix("ringline_storage_groups_hibernating{"));
    of_cores.map(|line| line.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)).sum()
}

/// Until on each of these nodes so many replicas hibernate.
fn wait_until(fleet: &mut Fleet<'_>, places: &[usize], count: usize) {
    let started = clock::now();
    loop {
        let counts: Vec<usize> = places.iter().map(|place| hibernating(fleet.metrics(*place))).collect();
        if counts.iter().all(|it| *it == count) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{counts:?} instead of {count} on each of {places:?}");
        fleet.pump();
    }
}

#[test]
fn groups_hibernate_serve_when_asked_and_notice_who_dies() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::start(folder.path(), SHARDS, 3, |_| Vec::new());
    let (ada, _, conversation) = fleet.two_who_talk();
    let shard = conversation.slot().shard(SHARDS);
    let all = SHARDS as usize;
    // Whoever leads is asked, and it is done.
    let mut sent = 0;
    let leader = loop {
        wait_until(&mut fleet, &[0, 1, 2], all);
        let (leader, term) = (fleet.leader(shard).expect("it answered"), fleet.term(shard));
        sent += 1;
        assert_eq!(applied(&fleet.call(requests::send(SHARDS, ada, conversation, sent))).seq, sent + 1);
        if fleet.term(shard) == term {
            assert_eq!(fleet.leader(shard), Some(leader), "it led on");
            break leader;
        }
        assert!(sent < MESSAGES_MAX, "an election each time");
    };
    wait_until(&mut fleet, &[0, 1, 2], all);
    // All shards have a copy on the node that dies: nobody's group hibernates without it.
    fleet.kill(leader);
    sent += 1;
    assert_eq!(applied(&fleet.call(requests::send(SHARDS, ada, conversation, sent))).seq, sent + 1);
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    wait_until(&mut fleet, &others, 0);
    fleet.start_node(leader);
    wait_until(&mut fleet, &[0, 1, 2], all);
    let repeated = applied(&fleet.call(requests::send(SHARDS, ada, conversation, sent)));
    assert_eq!((repeated.seq, repeated.repeated_send), (sent + 1, true));
}
