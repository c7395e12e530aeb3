//! A disk on which every synced write takes seconds: what waits is bounded, nothing is answered before it is durable,
//! reads go on, and all of it is there in order when the disk is itself again.

use crate::certificates;
use crate::process::{Link, Process, Setup};
use crate::requests::{applied, create_direct, create_user, person, read_after, send, view};
use std::time::Duration;
use wire_protocol::ids::ConversationId;

const SHARDS: u32 = 1;
/// One write of the log.
const WRITE: Duration = Duration::from_secs(2);

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
    let first = link.begin(send(SHARDS, ada, conversation, 1));
    // A read does not wait for the disk, and shows nothing that is not on it.
    let seen = view(link.call(read_after(SHARDS, bob, conversation, 1)).expect("it lives"));
    assert_eq!(seen.entries, []);
    assert!(!link.responses.contains_key(&first), "answered before it was durable");
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
