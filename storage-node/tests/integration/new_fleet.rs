//! A fleet begins once, when all of its first nodes are there.

use crate::fleet::Fleet;
use crate::process::{PATIENCE, Process};
use crate::requests::{self, applied};
use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use storage_node::clock;

const SHARDS: u32 = 6;
const MESSAGES: u64 = 20;

/// A process that waits for others. Killed when dropped.
struct Begins(Option<Child>);

impl Begins {
    fn new(fleet: &Fleet<'_>, place: usize) -> Self {
        Self(Some(fleet.begin(place)))
    }

    /// It has said that it is ready.
    fn ready(mut self) -> Process {
        Process::ready(self.0.take().expect("it was started"))
    }

    /// SIGTERM, and its end.
    fn terminate(mut self) -> ExitStatus {
        let child = self.0.as_mut().expect("it was started");
        let signalled = Command::new("kill").arg(child.id().to_string()).status().expect("kill runs");
        assert!(signalled.success());
        let started = clock::now();
        loop {
            if let Some(status) = child.try_wait().expect("it can be asked") {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "it goes on");
            thread::yield_now();
        }
    }
}

impl Drop for Begins {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A node waits for others, and may have told them of its folder: it listens once it takes signals, too.
fn wait_until_it_asks(fleet: &Fleet<'_>, place: usize) {
    let address = fleet.as_fleet_node(place).address;
    let started = clock::now();
    while TcpStream::connect(&address).is_err() {
        assert!(started.elapsed() < PATIENCE, "nobody listens at {address}");
        thread::yield_now();
    }
}

#[test]
fn no_node_begins_before_all_are_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::prepared(folder.path(), SHARDS, 3);
    let first = Begins::new(&fleet, 0);
    wait_until_it_asks(&fleet, 0);
    assert!(first.terminate().success(), "it need not wait for the others to stop");
    let drawn = fs::read(fleet.data(0).join("founders.toml")).expect("it reads");
    let mut nodes = vec![Begins::new(&fleet, 0), Begins::new(&fleet, 1)];
    wait_until_it_asks(&fleet, 1);
    let begun = [0, 1].map(|place| fleet.data(place).join("node.toml").exists());
    let told = fs::read(fleet.data(0).join("founders.toml")).expect("it reads");
    nodes.push(Begins::new(&fleet, 2));
    for (place, node) in nodes.into_iter().enumerate() {
        fleet.is_ready(place, node.ready());
    }
    assert_eq!(begun, [false; 2], "two of three have begun");
    assert_eq!(told, drawn, "it has another folder than it said");
    let (ada, _, conversation) = fleet.two_who_talk();
    applied(&fleet.call(requests::send(SHARDS, ada, conversation, 1)));
    fleet.terminate();
}

#[test]
fn a_second_process_in_a_folder_is_told_so_and_writes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::prepared(folder.path(), SHARDS, 3);
    let first = Begins::new(&fleet, 0);
    wait_until_it_asks(&fleet, 0);
    let (founders, lock) = (fleet.data(0).join("founders.toml"), fleet.data(0).join("LOCK"));
    let drawn = fs::read(&founders).expect("it reads");
    let complaint = fleet.begin_again(0).expect_err("the first one has the folder");
    let expected = format!("{}: another process uses this folder", lock.display());
    assert!(complaint.contains(&expected), "{complaint}");
    assert_eq!(fs::read(&founders).expect("it reads"), drawn);
    assert!(first.terminate().success());
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

#[test]
fn a_node_that_has_lost_its_log_does_not_vote_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::start(folder.path(), SHARDS, 3, |_| Vec::new());
    let (ada, _, conversation) = fleet.two_who_talk();
    applied(&fleet.call(requests::send(SHARDS, ada, conversation, 1)));
    fleet.kill(1);
    let data = fleet.data(1);
    let aside = |part: &str| data.join(part).with_extension("aside");
    for part in ["log", "rows"] {
        fs::rename(data.join(part), aside(part)).expect("it is put aside");
    }
    for _ in 0..2 {
        let complaint = fleet.begin_again(1).expect_err("it has forgotten what it promised");
        for part in [data.join("log").to_str().expect("text"), "get a node with a new id"] {
            assert!(complaint.contains(part), "{part}: {complaint}");
        }
    }
    for part in ["log", "rows"] {
        let _ = fs::remove_dir_all(data.join(part));
        fs::rename(aside(part), data.join(part)).expect("it is put back");
    }
    fleet.begin_again(1).expect("it has all that it had");
    applied(&fleet.call(requests::send(SHARDS, ada, conversation, 2)));
}
