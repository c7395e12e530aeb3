//! A disk without room for the log: the node answers nothing that is not on it, and ends with an error that says which
//! file has no room and what is to be done.

use crate::certificates;
use crate::process::{Link, Patience, Process, Setup, names_numbered_file};
use crate::requests::{Person, applied, body, create_direct, create_user, person, read_after, send, view};
use crate::small_disk::SmallDisk;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::time::Duration;
use wire_protocol::ids::ConversationId;
use wire_protocol::internal::shard_error::Kind;
use wire_protocol::internal::shard_response::Result as Reply;

const SHARDS: u32 = 1;
/// Largest file, in the shell's blocks of 512 or 1,024 bytes: less than the log wants for one of its files.
const FILE_BLOCKS_MAX: u32 = 256;
/// Sends without an answer at any time.
const IN_FLIGHT: usize = 64;
/// More than fit on any of these disks.
const MESSAGES_MAX: u64 = 1_000_000;

#[test]
fn a_full_disk_stops_the_node_and_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = certificates::make(folder.path());
    let setup = Setup::alone(folder.path(), &tls, SHARDS);
    let (ada, bob) = (person(1), person(2));
    let conversation = ConversationId::direct(ada.user, bob.user);
    let process = Process::start_with_files_up_to(&setup, FILE_BLOCKS_MAX);
    let mut link = Link::open(process.address, &tls).expect("it is ready");
    for call in [create_user(SHARDS, ada), create_user(SHARDS, bob), create_direct(SHARDS, ada, bob)] {
        link.call(call).expect("there is room for a start");
    }
    let acknowledged = send_until_it_ends(&mut link, ada, conversation);
    assert!(!process.wait().success(), "it ends with an error");
    assert!(!acknowledged.is_empty());
    let said = setup.complaint();
    check_file(&said, &setup);
    check_advice(&said);

    // There is room again.
    let process = Process::start(&setup);
    let mut link = Link::open(process.address, &tls).expect("it is ready");
    check(&mut link, ada, bob, &acknowledged);
    process.terminate();
}

#[test]
fn a_file_system_that_is_full_stops_the_node_and_serves_again_when_there_is_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = certificates::make(folder.path());
    let setup = Setup::alone(folder.path(), &tls, SHARDS);
    let Some((mut disk, address)) = SmallDisk::start(&setup, "64m") else { return };
    let (ada, bob) = (person(1), person(2));
    let conversation = ConversationId::direct(ada.user, bob.user);
    let mut link = Link::open(address, &tls).expect("it is ready");
    for call in [create_user(SHARDS, ada), create_user(SHARDS, bob), create_direct(SHARDS, ada, bob)] {
        link.call(call).expect("there is room for a start");
    }
    // Somebody else fills the disk, but for less than the log takes for its next file.
    let ballast = disk.file("ballast");
    let full = std::fs::File::create(&ballast).and_then(|mut file| {
        loop {
            if let Err(error) = file.write_all(&[1; 4096]) {
                break Ok(error);
            }
        }
    });
    assert_eq!(full.expect("it makes").kind(), std::io::ErrorKind::StorageFull);
    let acknowledged = send_until_it_ends(&mut link, ada, conversation);
    assert_eq!(disk.ended(), "ended 1", "it ends with an error");
    let said = setup.complaint();
    check_file(&said, &setup);
    check_advice(&said);

    // There is room again.
    std::fs::remove_file(&ballast).expect("it removes");
    let mut link = Link::open(disk.start_again(), &tls).expect("it is ready");
    check(&mut link, ada, bob, &acknowledged);
    assert!(!acknowledged.is_empty());
}

/// The file that has no room is named: one of the log. On a machine that takes ten seconds for so few messages rows are
/// to be synced before the log is full.
fn check_file(said: &str, setup: &Setup<'_>) {
    let is_named = names_numbered_file(said, &setup.data().join("log"), ".raftlog")
        || names_numbered_file(said, &setup.data().join("rows"), ".sst");
    assert!(is_named, "{said}");
}

/// Whoever runs the node is told what happened, what it means for messages, and what to do.
fn check_advice(said: &str) {
    for part in ["no room: the disk is full", "Nothing more is acknowledged", "Start the process again"] {
        assert!(said.contains(part), "{said}");
    }
}

/// Sends until the node is gone; the numbers of what was acknowledged, by client id.
fn send_until_it_ends(link: &mut Link, ada: Person, conversation: ConversationId) -> BTreeMap<u64, u64> {
    let mut acknowledged = BTreeMap::new();
    let mut in_flight: HashMap<u64, u64> = HashMap::new();
    let (mut sent, mut lives) = (0, true);
    let mut patience = Patience::begin(0);
    while lives {
        assert!(!patience.is_over(acknowledged.len() as u64), "it neither answers nor ends: {sent} messages");
        assert!(sent < MESSAGES_MAX, "{sent} messages fit");
        while in_flight.len() < IN_FLIGHT && link.can_send() {
            sent += 1;
            in_flight.insert(link.begin(send(SHARDS, ada, conversation, sent)), sent);
        }
        lives = link.pump(Duration::from_millis(1)).is_ok();
        for (id, response) in link.responses.drain() {
            let client_id = in_flight.remove(&id).expect("it was asked");
            match &response.result {
                Some(Reply::Error(error)) => assert_eq!(error.kind(), Kind::Unavailable, "{error:?}"),
                _ => drop(acknowledged.insert(client_id, applied(&response).seq)),
            }
        }
    }
    acknowledged
}

/// Everything acknowledged is there, where it was said to be.
fn check(link: &mut Link, ada: Person, bob: Person, acknowledged: &BTreeMap<u64, u64>) {
    let conversation = ConversationId::direct(ada.user, bob.user);
    let mut bodies = vec![bytes::Bytes::new()];
    loop {
        let page =
            view(link.call(read_after(SHARDS, bob, conversation, bodies.len() as u64)).expect("it lives"));
        bodies.extend(page.entries.into_iter().map(|entry| entry.body));
        if !page.truncated {
            break;
        }
    }
    for (client_id, seq) in acknowledged {
        assert_eq!(bodies.get(*seq as usize - 1), Some(&body(ada, *client_id)), "message {client_id}");
    }
}
