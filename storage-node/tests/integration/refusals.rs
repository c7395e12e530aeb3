//! What is refused, and how clearly.

use crate::embedded::{Embedded, SHARDS, config};
use crate::requests::{Call, Person, applied, person, send};
use storage_node::config::Beginning;
use storage_node::{NodeConfig, StorageConfig};
use wire_protocol::ids::ShardId;
use wire_protocol::internal::shard_error::Kind;
use wire_protocol::internal::shard_request::Operation;
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{
    Command, FeedCheckpoint, Query, ReadProfiles, ShardError, ShardResponse, command, query,
};

fn error(response: &ShardResponse) -> &ShardError {
    match &response.result {
        Some(Reply::Error(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}

/// Never read: the folder is looked at first.
fn tls() -> storage_node::LinkTls {
    storage_node::LinkTls { ca: "ca".into(), cert: "cert".into(), key: "key".into(), server_name: "x".into() }
}

#[test]
fn a_folder_of_another_node_or_in_use_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Embedded::start(folder.path(), 1);
    let in_use = Embedded::try_start(config(folder.path()), 1).err().expect("in use").to_string();
    let lock = folder.path().join("LOCK");
    assert_eq!(in_use, format!("{}: another process uses this folder", lock.display()));
    drop(node);
    let address = ([127, 0, 0, 1], 1).into();
    let half = NodeConfig { id: 1, address, shards: (0..4).collect(), zone: String::new() };
    let rest = NodeConfig { id: 2, address, shards: (4..8).collect(), zone: String::new() };
    for (other, expected) in [
        (StorageConfig { node_id: 9, ..config(folder.path()) }, "node_id 1, the configuration says 9"),
        (
            StorageConfig { shard_count: 4, ..config(folder.path()) },
            "shard_count 8, the configuration says 4",
        ),
        (
            StorageConfig { nodes: vec![half, rest], tls: Some(tls()), ..config(folder.path()) },
            "shards that have no copies cannot be moved",
        ),
    ] {
        let refusal = Embedded::try_start(other, 1).err().expect("refused").to_string();
        assert!(refusal.contains("node.toml") && refusal.contains(expected), "{refusal}");
    }
    std::fs::remove_file(folder.path().join("node.toml")).expect("it is there");
    let refusal = Embedded::try_start(config(folder.path()), 1).err().expect("refused").to_string();
    assert!(refusal.contains("node.toml"), "{refusal}");
}

/// It would vote as if it had never promised anything.
#[test]
fn a_node_that_lost_its_folder_is_refused_where_others_have_copies() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = |id| NodeConfig {
        id,
        address: ([127, 0, 0, 1], id as u16).into(),
        shards: Vec::new(),
        zone: String::new(),
    };
    let copied = StorageConfig {
        nodes: (1..=3).map(node).collect(),
        replicas: 3,
        tls: Some(tls()),
        ..config(folder.path())
    };
    let refusal = Embedded::try_start(copied.clone(), 1).err().expect("refused").to_string();
    assert!(refusal.contains("node.toml") && refusal.contains("--new-fleet"), "{refusal}");
    assert!(!folder.path().join("node.toml").exists() && !folder.path().join("log").exists());
    drop(
        Embedded::try_start(StorageConfig { beginning: Beginning::NewFleet, ..copied.clone() }, 1)
            .expect("it is new"),
    );
    drop(Embedded::try_start(copied.clone(), 1).expect("its folder is there"));
    let elsewhere = tempfile::tempdir().expect("a folder");
    let joins = StorageConfig { beginning: Beginning::Join, ..config(elsewhere.path()) };
    let joins = StorageConfig { nodes: copied.nodes, replicas: 3, tls: Some(tls()), ..joins };
    drop(Embedded::try_start(joins, 1).expect("it holds nothing yet"));
}

#[test]
fn a_folder_whose_parts_do_not_fit_together_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Embedded::start(folder.path(), 1);
    let conversation = node.pair(person(1), person(2));
    applied(&node.call(send(SHARDS, person(1), conversation, 1)));
    node.shutdown();
    // The log is lost, and with it what the rows refer to.
    std::fs::remove_dir_all(folder.path().join("log")).expect("it is there");
    let refusal = Embedded::try_start(config(folder.path()), 1).err().expect("refused").to_string();
    assert!(refusal.contains("/log") && refusal.contains("the stored state ends at"), "{refusal}");
}

fn home(who: Person) -> ShardId {
    who.user.slot().shard(SHARDS)
}

#[test]
fn misdirected_and_malformed_requests_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Embedded::start(folder.path(), 2);
    let (ada, bob) = (person(1), person(2));
    let conversation = node.pair(ada, bob);
    let good = send(SHARDS, ada, conversation, 1);
    let elsewhere = ShardId((good.shard.0 + 1) % SHARDS);
    let moved = node.call(Call { shard: elsewhere, ..good.clone() });
    assert_eq!(error(&moved).kind(), Kind::Malformed);
    let nowhere = node.call(Call { shard: ShardId(SHARDS), ..good });
    assert_eq!(error(&nowhere).kind(), Kind::NotHere);
    // Users of another shard would look as if they did not exist.
    let stranger = (1..).map(person).find(|stranger| stranger.user.slot().shard(SHARDS) != home(ada));
    let user_ids = vec![ada.user.to_bytes(), stranger.expect("there are other shards").user.to_bytes()];
    let kind = query::Kind::ReadProfiles(ReadProfiles { user_ids });
    let profiles = Call { shard: home(ada), operation: Operation::Query(Query { kind: Some(kind) }) };
    assert_eq!(error(&node.call(profiles)).kind(), Kind::Malformed);
    let own = Command { kind: Some(command::Kind::FeedCheckpoint(FeedCheckpoint::default())) };
    for operation in [Command { kind: None }, own] {
        let call = Call { shard: ShardId(0), operation: Operation::Command(operation) };
        assert_eq!(error(&node.call(call)).kind(), Kind::Malformed);
    }
    node.shutdown();
}

#[test]
fn a_full_queue_refuses_and_says_when_to_come_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Embedded::start(folder.path(), 1);
    let conversation = node.pair(person(1), person(2));
    let count = storage_node::shard::COMMANDS_WAITING_MAX as u64 + 10;
    // No turn in between: everything waits in the shard's queue.
    let ids: Vec<u64> =
        (1..=count).map(|number| node.begin(0, send(SHARDS, person(1), conversation, number))).collect();
    let mut refused = 0;
    for id in ids {
        let response = node.finish(id);
        if let Some(Reply::Error(error)) = &response.result {
            assert_eq!(error.kind(), Kind::Overloaded);
            assert!(error.retry_after_ms > 0);
            refused += 1;
        }
    }
    assert_eq!(refused, 10);
    node.shutdown();
}
