//! What becomes of a link's sessions when it ends.

use crate::certificates;
use crate::process::{Link, PATIENCE, Process, Setup};
use crate::requests::{attach, create_user, person};
use storage_node::clock;
use wire_protocol::internal::SessionAddress;
use wire_protocol::internal::shard_error::Kind;
use wire_protocol::internal::shard_response::Result as Reply;

const SHARDS: u32 = 8;

/// False: there are as many sessions as a user may have.
fn attached(link: &mut Link, slot: u32) -> bool {
    let session = SessionAddress { slot, generation: 1 };
    match link.call(attach(SHARDS, person(1), session)).expect("the node lives").result {
        Some(Reply::Attached(attached)) => attached.device_known,
        Some(Reply::Error(error)) if error.kind() == Kind::Overloaded => false,
        other => panic!("not attached: {other:?}"),
    }
}

#[test]
fn a_link_that_ends_takes_its_sessions_along() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = certificates::make(folder.path());
    let process = Process::start(&Setup { cores: 2, ..Setup::alone(folder.path(), &tls, SHARDS) });
    let mut link = Link::open(process.address, &tls).expect("it is ready");
    link.call(create_user(SHARDS, person(1))).expect("the node lives");
    let count =
        (0..).find(|slot| !attached(&mut link, *slot)).expect("a user has no more than some sessions");
    assert!(count > 0);
    // The gateway is gone: no good-bye.
    drop(link);
    let mut link = Link::open(process.address, &tls).expect("it is ready");
    let started = clock::now();
    while !attached(&mut link, 0) {
        assert!(started.elapsed() < PATIENCE, "the sessions of the old link are still there");
    }
    process.terminate();
}
