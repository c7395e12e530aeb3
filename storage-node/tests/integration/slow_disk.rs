//! A disk on which every synced write takes seconds, or a sync stands: what waits is bounded, nothing is answered before it
//! is durable, reads go on, and all of it is there in order when the disk is itself again.

use crate::certificates;
use crate::process::{Link, PATIENCE, Process, Setup};
use crate::requests::{Person, applied, body, create_direct, create_user, person, read_after, send, view};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::time::Duration;
use storage_node::{LinkTls, clock};
use tempfile::TempDir;
use wire_protocol::ids::ConversationId;

const SHARDS: u32 = 1;
/// One write of the log.
const WRITE: Duration = Duration::from_secs(2);
/// Sends that wait for a sync that stands: some of the link's credits are left for reads.
const HELD: u64 = 500;
/// Requests that come and go meanwhile: what answers too early has had as many turns to do so.
const MEANWHILE: u64 = 20;

#[test]
fn a_slow_disk_delays_answers_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = certificates::make(folder.path());
    let setup = Setup::alone(folder.path(), &tls, SHARDS);
    let (ada, bob) = (person(1), person(2));
    let conversation = ConversationId::direct(ada.user, bob.user);
    let process = Process::start(&setup);
    let mut link = Link::open(process.address, &tls).expect("it is ready");
    for call in [create_user(SHARDS, ada), create_user(SHARDS, bob), create_direct(SHARDS, ada, bob)] {
        link.call(call).expect("it lives");
    }
    process.kill();

    let process = Process::start_on_slow_disk(&setup, WRITE);
    let mut link = Link::open(process.address, &tls).expect("it is ready");
    let asked = clock::now();
    let first = link.begin(send(SHARDS, ada, conversation, 1));
    // A read does not wait for the disk, and shows nothing that is not on it.
    let seen = view(link.call(read_after(SHARDS, bob, conversation, 1)).expect("it lives"));
    // Once a write may have ended, it may be there.
    if asked.elapsed() < WRITE {
        assert_eq!(seen.entries, []);
        assert!(!link.responses.contains_key(&first), "answered before it was durable");
    }
    // As many as the link allows at a time: they share the next writes.
    let mut sent = vec![first];
    while link.can_send() {
        sent.push(link.begin(send(SHARDS, ada, conversation, sent.len() as u64 + 1)));
    }
    assert!(sent.len() > 1_000, "{} credits", sent.len());
    let all = sent.clone();
    link.run_until("all answers", |link| all.iter().all(|id| link.responses.contains_key(id)))
        .expect("it lives");
    let mut seqs = sent.iter().map(|id| applied(&link.responses[id]).seq);
    assert!(seqs.by_ref().eq(2..=sent.len() as u64 + 1), "one order, without a gap");
    process.kill();

    let process = Process::start(&setup);
    let mut link = Link::open(process.address, &tls).expect("it is ready");
    let last = sent.len() as u64;
    let repeated = applied(&link.call(send(SHARDS, ada, conversation, last)).expect("it lives"));
    assert_eq!((repeated.seq, repeated.repeated_send), (last + 1, true));
    process.terminate();
}

/// Whether a pass stands at the failpoint that this file switches.
fn stands(switch: &Path) -> bool {
    std::fs::read(switch).is_ok_and(|said| !said.is_empty())
}

/// A node one of whose places stands from now on, with two people who know each other.
struct Standing {
    folder: TempDir,
    tls: LinkTls,
    /// The place stands while this file is there.
    switch: PathBuf,
    process: Process,
    link: Link,
    ada: Person,
    bob: Person,
    conversation: ConversationId,
}

impl Standing {
    fn at(place: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let tls = certificates::make(folder.path());
        let setup = Setup::alone(folder.path(), &tls, SHARDS);
        let switch = folder.path().join("stands");
        let process = Process::start_failing_at(&setup, &format!("{place}:stand={}", switch.display()));
        let process = process.expect("it is ready");
        let mut link = Link::open(process.address, &tls).expect("it is ready");
        let (ada, bob) = (person(1), person(2));
        for call in [create_user(SHARDS, ada), create_user(SHARDS, bob), create_direct(SHARDS, ada, bob)] {
            link.call(call).expect("it lives");
        }
        std::fs::write(&switch, "").expect("it writes");
        let conversation = ConversationId::direct(ada.user, bob.user);
        Self { folder, tls, switch, process, link, ada, bob, conversation }
    }
}

/// Bodies of everything that was written, in order, after the node was started again.
fn bodies_after_a_start(setup: &Setup<'_>) -> Vec<Bytes> {
    let process = Process::start(setup);
    let mut link = Link::open(process.address, setup.tls).expect("it is ready");
    let (ada, bob) = (person(1), person(2));
    let conversation = ConversationId::direct(ada.user, bob.user);
    let mut bodies = Vec::new();
    loop {
        // Entry 1 says that the conversation was created.
        let after = 1 + bodies.len() as u64;
        let page = view(link.call(read_after(SHARDS, bob, conversation, after)).expect("it lives"));
        bodies.extend(page.entries.into_iter().map(|entry| entry.body));
        if !page.truncated {
            break;
        }
    }
    process.terminate();
    bodies
}

#[test]
fn a_sync_of_the_log_that_stands_holds_every_answer_back_until_it_goes_on() {
    let Standing { folder, tls, switch, process, mut link, ada, bob, conversation } =
        Standing::at("log-syncing");
    let sent: Vec<u64> =
        (1..=HELD).map(|number| link.begin(send(SHARDS, ada, conversation, number))).collect();
    link.run_until("a sync that stands", |_| stands(&switch)).expect("it lives");
    for _ in 0..MEANWHILE {
        let seen = view(link.call(read_after(SHARDS, bob, conversation, 1)).expect("it lives"));
        assert_eq!(seen.entries, [], "shown before it was durable");
    }
    assert!(sent.iter().all(|id| !link.responses.contains_key(id)), "answered before it was durable");
    assert!(stands(&switch));

    std::fs::remove_file(&switch).expect("it removes");
    link.run_until("all answers", |link| sent.iter().all(|id| link.responses.contains_key(id)))
        .expect("it lives");
    let seqs = sent.iter().map(|id| applied(&link.responses[id]).seq);
    assert!(seqs.eq(2..=HELD + 1), "one order, without a gap");
    process.kill();
    let setup = Setup::alone(folder.path(), &tls, SHARDS);
    assert!(bodies_after_a_start(&setup).into_iter().eq((1..=HELD).map(|number| body(ada, number))));
}

#[test]
fn a_sync_of_the_rows_that_stands_holds_nobody_back() {
    let Standing { folder, tls, switch, process, mut link, ada, conversation, .. } =
        Standing::at("rows-syncing");
    let (started, mut sent, mut meanwhile) = (clock::now(), 0, 0);
    while meanwhile < MEANWHILE {
        assert!(started.elapsed() < PATIENCE, "rows are not synced, or hold somebody back");
        meanwhile += u64::from(stands(&switch));
        sent += 1;
        let first = applied(&link.call(send(SHARDS, ada, conversation, sent)).expect("it lives"));
        assert_eq!(first.seq, sent + 1);
    }
    assert!(stands(&switch));
    std::fs::remove_file(&switch).expect("it removes");
    process.kill();
    let setup = Setup::alone(folder.path(), &tls, SHARDS);
    assert!(bodies_after_a_start(&setup).into_iter().eq((1..=sent).map(|number| body(ada, number))));
}
