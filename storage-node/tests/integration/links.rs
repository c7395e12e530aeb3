//! What becomes of a link's sessions when it ends, and of a link that its node has opened anew.

use crate::certificates;
use crate::process::{Link, PATIENCE, Process, Setup};
use crate::requests::{attach, create_user, person};
use storage_node::clock;
use wire_protocol::internal::shard_error::Kind;
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{Fleet, SessionAddress};

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

#[test]
fn what_comes_over_a_link_that_its_node_has_replaced_is_not_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = certificates::make(folder.path());
    // Accepted by either core.
    let process = Process::start(&Setup { cores: 2, ..Setup::alone(folder.path(), &tls, SHARDS) });
    let open = |id| Link::open_as_node(process.address, &tls, id).expect("it is ready");
    let mut links: Vec<Link> = (0..8).map(|_| open(2)).collect();
    let (mut newest, mut of_another) = (links.pop().expect("eight"), open(3));
    for mut older in links {
        older.change_fleet(Fleet::default());
        let ended = older.run_until("the end", |_| false).expect_err("it is ended");
        assert_eq!(ended.kind(), std::io::ErrorKind::UnexpectedEof, "{ended}");
    }
    for link in [&mut newest, &mut of_another] {
        link.change_fleet(Fleet::default());
        link.call(create_user(SHARDS, person(1))).expect("it is still there");
    }
    process.terminate();
}
