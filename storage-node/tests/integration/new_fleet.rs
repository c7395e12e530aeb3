//! A fleet begins once, when all of its first nodes are there.

use crate::fleet::Fleet;
use crate::process::{PATIENCE, Process};
use crate::requests::{self, applied};
use std::fs;
use std::process::Command;
use std::thread;
use storage_node::clock;

const SHARDS: u32 = 6;
const MESSAGES: u64 = 20;

/// A node waits for others, and may have told them of its folder.
fn wait_until_it_asks(fleet: &Fleet<'_>, place: usize) {
    let (started, file) = (clock::now(), fleet.data(place).join("founders.toml"));
    while !file.exists() {
        assert!(started.elapsed() < PATIENCE, "{}", file.display());
        thread::yield_now();
    }
}

#[test]
fn no_node_begins_before_all_are_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::prepared(folder.path(), SHARDS, 3);
    let mut first = fleet.begin(0);
    wait_until_it_asks(&fleet, 0);
    let signalled = Command::new("kill").arg(first.id().to_string()).status().expect("kill runs");
    assert!(signalled.success());
    assert!(first.wait().expect("it ends").success(), "it need not wait for the others to stop");
    let drawn = fs::read(fleet.data(0).join("founders.toml")).expect("it reads");
    let mut children = vec![fleet.begin(0), fleet.begin(1)];
    wait_until_it_asks(&fleet, 1);
    let begun = [0, 1].map(|place| fleet.data(place).join("node.toml").exists());
    let told = fs::read(fleet.data(0).join("founders.toml")).expect("it reads");
    children.push(fleet.begin(2));
    for (place, child) in children.into_iter().enumerate() {
        fleet.is_ready(place, Process::ready(child));
    }
    assert_eq!(begun, [false; 2], "two of three have begun");
    assert_eq!(told, drawn, "it has another folder than it said");
    let (ada, _, conversation) = fleet.two_who_talk();
    applied(&fleet.call(requests::send(SHARDS, ada, conversation, 1)));
    fleet.terminate();
}

#[test]
fn a_node_that_lost_its_disk_begins_no_fleet_beside_the_one_there_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::start(folder.path(), SHARDS, 3, |_| Vec::new());
    let (ada, _, conversation) = fleet.two_who_talk();
    let mut seqs = Vec::new();
    for client_id in 1..=MESSAGES {
        seqs.push(applied(&fleet.call(requests::send(SHARDS, ada, conversation, client_id))).seq);
    }
    fleet.kill(1);
    fs::remove_dir_all(fleet.data(1)).expect("its disk is lost");
    let complaint = fleet.begin_again(1).expect_err("it has forgotten what it promised");
    for part in ["node.toml", "runs, and not with this folder", "get a node with a new id"] {
        assert!(complaint.contains(part), "{part}: {complaint}");
    }
    assert!(!fleet.data(1).join("node.toml").exists(), "the next start is refused, too");
    // Whoever has its folder is not in the way of the word.
    fleet.kill(2);
    fleet.begin_again(2).expect("it has begun before");
    for (client_id, seq) in (1..).zip(&seqs) {
        let repeated = applied(&fleet.call(requests::send(SHARDS, ada, conversation, client_id)));
        assert_eq!((repeated.seq, repeated.repeated_send), (*seq, true));
    }
}
