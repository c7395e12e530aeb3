//! Commands to a running node, over the socket in its folder.

use crate::embedded::{Embedded, PATIENCE, SHARDS, config};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;
use storage_node::admin::{
    ADMIN_CONNECTIONS_MAX, ADMIN_REQUEST_BYTES_MAX, AdminCallError, AdminDone, AdminReply, AdminRequest,
    NodeStatus, call, socket_path,
};
use storage_node::clock;
use storage_node::shard::Standing;

/// Connections that say nothing, of which one at least has no place; any of them, while one that was there before has its.
const SILENT_MAX: usize = ADMIN_CONNECTIONS_MAX + 1;
/// How long it is waited for a word to each of them before there is one more.
const WORD: Duration = Duration::from_millis(10);

fn status(folder: &Path) -> Result<NodeStatus, AdminCallError> {
    match call(folder, &AdminRequest::Status {}, |_| {})? {
        AdminDone::Status(status) => Ok(status),
        other => panic!("{other:?}"),
    }
}

/// The answer to these bytes.
fn reply_to(folder: &Path, bytes: &[u8]) -> AdminReply {
    let mut stream = UnixStream::connect(socket_path(folder)).expect("the node runs");
    // Too much of it is not read to its end.
    let _ = stream.write_all(bytes);
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("an answer");
    serde_json::from_str(&line).expect("a reply")
}

/// What is said to a connection that says nothing, if anything is by now.
fn told(stream: &UnixStream) -> Option<String> {
    let mut line = String::new();
    let count = BufReader::new(stream).read_line(&mut line).ok()?;
    (count > 0).then(|| refusal(serde_json::from_str(&line).expect("a reply")))
}

fn refusal(reply: AdminReply) -> String {
    match reply {
        AdminReply::Error { detail } => detail,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_tells_how_far_its_shards_are_to_its_owner_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Embedded::start(folder.path(), 2);
    node.run_until("it serves", |node| node.cores.iter().all(|core| core.is_serving()));
    let found = status(folder.path()).expect("it answers");
    assert_eq!((found.node_id, found.shard_count, found.failure.clone()), (1, SHARDS, None));
    assert!(found.shards.iter().map(|shard| shard.shard).eq(0..SHARDS));
    for shard in &found.shards {
        assert_eq!(
            (shard.role, shard.leader, shard.copies.as_slice()),
            (Standing::Serving, Some(1), &[1][..])
        );
        assert_eq!((shard.term, shard.log_first), (1, 1), "of its first start");
        assert!(shard.applied > 0 && shard.applied <= shard.log_last, "{shard:?}");
    }
    assert_eq!(found.to_table().lines().count(), 2 + SHARDS as usize);
    let mode = std::fs::metadata(socket_path(folder.path())).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    node.shutdown();
    assert!(!socket_path(folder.path()).exists());
    assert!(matches!(status(folder.path()), Err(AdminCallError::NotThere { .. })));
}

#[test]
fn what_a_dead_process_left_is_no_obstacle() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(UnixListener::bind(socket_path(folder.path())).expect("it binds"));
    drop(UnixListener::bind(folder.path().join("admin.new")).expect("it binds"));
    let node = Embedded::start(folder.path(), 1);
    status(folder.path()).expect("it answers");
    node.shutdown();
}

#[test]
fn what_is_no_request_is_refused_and_harms_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Embedded::start(folder.path(), 1);
    for line in ["\n", "status\n", "{\"command\":\"dance\"}\n", "{\"command\":\"status\",\"loud\":true}\n"] {
        let detail = refusal(reply_to(folder.path(), line.as_bytes()));
        assert!(detail.contains("knows no such request"), "{line:?}: {detail}");
    }
    let detail = refusal(reply_to(folder.path(), &vec![b' '; ADMIN_REQUEST_BYTES_MAX + 1]));
    assert!(detail.contains("bytes at most"), "{detail}");
    // Those who say nothing take the places; one more is told.
    let mut silent: Vec<UnixStream> = Vec::new();
    let is_refused = |stream: &UnixStream| told(stream).is_some_and(|detail| detail.contains("try again"));
    let started = clock::now();
    while !silent.iter().any(is_refused) {
        assert!(started.elapsed() < PATIENCE, "none of {} is told to try again", silent.len());
        if silent.len() < SILENT_MAX {
            let stream = UnixStream::connect(socket_path(folder.path())).expect("the node runs");
            stream.set_read_timeout(Some(WORD)).expect("an option that is known");
            silent.push(stream);
        }
    }
    drop(silent);
    // Ends at once although its places may be taken still.
    node.shutdown();
}

#[test]
fn a_path_too_long_for_a_socket_is_named_and_costs_the_commands_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let long = folder.path().join("a".repeat(100));
    let mut node = Embedded::try_start(config(&long), 1).expect("it starts all the same");
    node.run_until("it serves", |node| node.cores.iter().all(|core| core.is_serving()));
    let error = status(&long).expect_err("there is no socket").to_string();
    assert!(error.contains("admin.sock"), "{error}");
    node.shutdown();
}
