//! Several snapshots that wait for the one thread.

use super::super::worker::SnapshotWorker;
use super::super::{PART_MS_MAX, PART_MS_WHILE_OTHERS_WAIT, SnapshotFiles, SnapshotReport, SnapshotRequest};
use super::*;
use crate::config::StorageConfig;
use crate::placement::ShardMap;
use crate::placement::fleet::Heard;
use crate::worker::{Completion, NodeParts, NodeShared, PeerMessage, PeerOutput};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use wire_protocol::internal::{Fleet, SnapshotProgress};

/// The thread of a node that leads three shards.
pub struct Sender {
    _folder: tempfile::TempDir,
    shared: Arc<NodeShared>,
    pub worker: SnapshotWorker,
}

impl Sender {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = open_log(Disk::Real, &folder.path().join("log"));
        let store = MemoryStore::new();
        for shard in (0..3).map(ShardId) {
            log.begin_anew(shard, (1..=INDEX).map(entry).collect()).unwrap();
            fill(&store, shard, 0..600, INDEX);
        }
        let config = StorageConfig { shard_count: SHARDS, ..StorageConfig::default() };
        let shared = Arc::new(NodeShared::new(NodeParts {
            node_id: 1,
            epoch: 1,
            founders: crate::worker::Founders::default(),
            map: ShardMap::new(&config, 1).unwrap(),
            fleet: (Fleet::default(), Heard::Once),
            first_copies: Vec::new(),
            log: Arc::new(log),
            store: Box::new(store),
            snapshot_files: SnapshotFiles::new(Disk::Real, folder.path().join("snapshots")),
            cores: 1,
            lock: crate::worker::FolderLock::default(),
        }));
        for shard in (0..3).map(ShardId) {
            shared.marks_of(shard).feed_cut.store(FEED_CUT, Ordering::Release);
        }
        Self { _folder: folder, worker: SnapshotWorker::new(Arc::clone(&shared)), shared }
    }

    /// These are wanted, in this order; the first is opened, and Raft sends it.
    pub fn begin(&mut self, wanted: &[(u32, u32)]) {
        for &(shard, node) in wanted {
            self.worker.take(0, SnapshotRequest::Open { shard: ShardId(shard), node }).unwrap();
        }
        let (shard, node) = wanted[0];
        self.worker.turn(0);
        assert_eq!(self.reports(), [format!("{shard} to {node} opened")]);
        let message = RaftMessage { to: node, ..message(ShardId(shard)) };
        self.worker.take(0, SnapshotRequest::Send { shard: ShardId(shard), message }).unwrap();
    }

    pub fn reports(&self) -> Vec<String> {
        let next = || self.shared.inboxes[0].next_completion();
        std::iter::from_fn(next)
            .map(|completion| match completion {
                Completion::Snapshot { shard, report: SnapshotReport::Opened { node, .. } } => {
                    format!("{} to {node} opened", shard.0)
                }
                Completion::Snapshot { shard, report: SnapshotReport::Ended { node, has_arrived } } => {
                    format!("{} to {node} {}", shard.0, if has_arrived { "arrived" } else { "ended" })
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    /// Whether it is told that this shard's snapshot goes to this node now.
    fn is_on_its_way(&self, shard: u32, node: u32) -> bool {
        self.shared.sending.of(ShardId(shard), node).is_some()
    }

    /// What has been sent since the last look, and to whom.
    pub fn sent(&self) -> Vec<(u32, PeerMessage)> {
        let next = || self.shared.inboxes[0].snapshots.pop();
        std::iter::from_fn(next).map(|PeerOutput { node, message }| (node, message)).collect()
    }
}

#[test]
fn a_node_that_falls_silent_holds_up_nobody_else() {
    let mut sender = Sender::new();
    sender.begin(&[(0, 2), (1, 2), (2, 3)]);
    sender.worker.turn(0);
    assert!(matches!(&sender.sent()[..], [(2, PeerMessage::Part(_))]), "its first part goes");
    sender.worker.turn(PART_MS_WHILE_OTHERS_WAIT - 1);
    assert!(sender.reports().is_empty(), "it may still answer");
    assert!(sender.is_on_its_way(0, 2) && !sender.is_on_its_way(1, 2));
    sender.worker.turn(PART_MS_WHILE_OTHERS_WAIT);
    assert_eq!(sender.reports(), ["0 to 2 ended", "1 to 2 ended", "2 to 3 opened"]);
    assert!(!sender.is_on_its_way(0, 2) && sender.is_on_its_way(2, 3));
}

#[test]
fn a_slow_node_has_all_the_time_that_nobody_else_needs() {
    let mut sender = Sender::new();
    sender.begin(&[(0, 2), (1, 2)]);
    sender.worker.turn(0);
    sender.worker.turn(PART_MS_MAX - 1);
    assert!(sender.reports().is_empty());
    // It answers at last, so it is not silent any more when another one comes.
    let Some((2, PeerMessage::Part(part))) = sender.sent().pop() else { panic!("a part is sent again") };
    let progress =
        SnapshotProgress { shard: 0, from: 2, to: 1, term: TERM, index: INDEX, next: 1, refused: false };
    assert_eq!((part.shard, part.number), (0, 0));
    sender.worker.take(PART_MS_MAX - 1, SnapshotRequest::Progress(progress)).unwrap();
    sender.worker.take(PART_MS_MAX - 1, SnapshotRequest::Open { shard: ShardId(2), node: 3 }).unwrap();
    sender.worker.turn(PART_MS_MAX - 1);
    assert!(sender.reports().is_empty());
    assert!(matches!(&sender.sent()[..], [(2, PeerMessage::Part(part))] if part.number == 1));
}
