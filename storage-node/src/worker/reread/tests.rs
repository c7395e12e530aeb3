//! More log than is read at once.

use super::*;
use crate::config::{LogConfig, StorageConfig};
use crate::disk::Disk;
use crate::domain::Overlay;
use crate::engine::{MemoryStore, Store};
use crate::placement::ShardMap;
use crate::placement::fleet::Heard;
use crate::replication::{Group, Log, Replicas, encode_record};
use crate::snapshots::SnapshotFiles;
use crate::worker::NodeParts;
use std::sync::Arc;
use wire_protocol::ids::{ConversationId, DeviceId, UserId};
use wire_protocol::internal::{Command, CommandBatch, CreateConversation, Fleet, SendMessage, command};
use wire_protocol::limits::BODY_BYTES_MAX;
use wire_protocol::v1::ConversationKind;

const SHARD: ShardId = ShardId(0);
const ADA: UserId = UserId([1; 16]);
const BOB: UserId = UserId([2; 16]);

fn create() -> command::Kind {
    command::Kind::CreateConversation(CreateConversation {
        conversation_id: ConversationId::direct(ADA, BOB).to_bytes(),
        kind: ConversationKind::Direct as u32,
        member_ids: vec![ADA.to_bytes(), BOB.to_bytes()],
        title: String::new(),
    })
}

fn send(client_message_id: u64) -> command::Kind {
    command::Kind::SendMessage(SendMessage {
        conversation_id: ConversationId::direct(ADA, BOB).to_bytes(),
        user_id: ADA.to_bytes(),
        device_id: DeviceId([3; 16]).to_bytes(),
        client_message_id,
        body: vec![b'x'; BODY_BYTES_MAX].into(),
        ..SendMessage::default()
    })
}

/// A node whose one shard has applied these commands, an entry each, after the one that opens the term.
fn node(folder: &std::path::Path, commands: Vec<command::Kind>) -> NodeShared {
    let config = LogConfig { file_bytes: 1 << 20, keep_bytes: 2 << 20, prefill: false };
    let log = Arc::new(Log::open(folder, &config).expect("it opens"));
    let mut group = Group::open(Arc::clone(&log), SHARD, 0, &Replicas::alone(1)).expect("it opens");
    let store = MemoryStore::new();
    for (kind, time_ms) in commands.into_iter().zip(1_000..) {
        let batch =
            CommandBatch { time_ms, commands: vec![Command { kind: Some(kind) }], feed_cut: 0, log_cut: 0 };
        group.propose(encode_record(&batch)).expect("a leader takes it");
        let mut overlay = Overlay::new(&store);
        domain::apply(&mut overlay, SHARD, &batch).expect("memory does not fail");
        store.write(overlay.into_batch()).expect("memory does not fail");
    }
    while let Some(output) = group.poll() {
        if let Some(write) = output.write {
            let number = write.number();
            log.write(&[write]).expect("it writes");
            group.persisted(number);
        }
    }
    let snapshot_files = SnapshotFiles::new(Disk::Real, folder.join("snapshots"));
    let map = ShardMap::new(&StorageConfig { shard_count: 1, ..StorageConfig::default() }, 1).expect("a map");
    NodeShared::new(NodeParts {
        node_id: 1,
        epoch: 1,
        founders: crate::worker::Founders::default(),
        map,
        fleet: (Fleet::default(), Heard::Once),
        first_copies: Vec::new(),
        log,
        store: Box::new(store),
        snapshot_files,
        cores: 1,
        lock: crate::worker::FolderLock::default(),
    })
}

#[test]
fn a_long_log_is_read_again_piece_by_piece_and_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let count = 3 * REREAD_BYTES_MAX / BODY_BYTES_MAX;
    let commands = std::iter::once(create()).chain((1..=count as u64).map(send)).collect();
    let shared = node(folder.path(), commands);
    let (_, last) = shared.log.span(SHARD).expect("it holds entries");
    let (mut above, mut pieces, mut found) = (0, 0, Vec::new());
    while above < last {
        let (items, covered) = feed_items(&shared, SHARD, LogRange { above, up_to: last }).expect("it reads");
        assert!(covered > above, "it gets on");
        assert!(items.iter().all(|(index, _)| (above + 1..=covered).contains(index)));
        found.extend(items.into_iter().map(|(index, _)| index));
        (above, pieces) = (covered, pieces + 1);
    }
    assert!(pieces > 1, "the log was longer than one piece");
    assert_eq!(found, (2..=last).collect::<Vec<_>>(), "every entry but the one that opens the term");
    // At a start nothing is known of what the home shard has: all of it is recorded again.
    let mut source = open_source(&shared, SHARD, last).expect("it reads");
    let mut sent = 0;
    let mut items = 0;
    loop {
        while let Some(batch) = source.poll_batch(1) {
            assert_eq!(batch.from_index, sent, "in order, without gaps");
            (sent, items) = (batch.to_index, items + batch.items.len());
            let ack = wire_protocol::internal::FeedAck { received_index: sent, ..Default::default() };
            source.acked(1, &ack);
        }
        let Some(mut asked) = source.poll_reread() else { break };
        let range = LogRange { above: asked.from_index, up_to: asked.to_index };
        let (entries, covered) = feed_items(&shared, SHARD, range).expect("it reads");
        asked.to_index = covered;
        source.reread(asked, entries);
    }
    assert_eq!((sent, items), (last, count + 1));
}
