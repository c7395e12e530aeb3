//! What a node makes of parts, and what it answers: of which snapshot they are, and which of them it waits for.

use super::super::install::SnapshotFiles;
use super::super::receiving::{Fate, Here, Received, Receiving};
use super::super::{RECEIVING_MS_MAX, sign_parts, snapshot_parts};
use super::*;
use std::path::PathBuf;
use wire_protocol::internal::SnapshotPart;

const SHARD: ShardId = ShardId(2);
const OWN: u32 = 2;

/// A node that receives, and what there is to be received.
struct Node {
    _folder: tempfile::TempDir,
    files: SnapshotFiles,
    receiving: Receiving,
    parts: Vec<SnapshotPart>,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = leader_log(&folder.path().join("log"), SHARD);
        let store = MemoryStore::new();
        fill(&store, SHARD, 0..600, INDEX);
        let parts = snapshot_parts(&store, &log, &message(SHARD), SHARDS, FEED_CUT).expect("a snapshot");
        assert!(parts.len() > 4, "{}", parts.len());
        let files = SnapshotFiles::new(Disk::Real, folder.path().to_owned());
        let receiving = Receiving::new(Here { node_id: OWN, shard_count: SHARDS }, files.clone());
        Self { _folder: folder, files, receiving, parts }
    }

    /// Takes a part; its fate, and the part that its sender is told to be waited for.
    fn take(&mut self, now_ms: u64, part: &SnapshotPart) -> (&'static str, u32) {
        let Received { fate, progress } = self.receiving.take(now_ms, part.clone());
        let of = (progress.shard, progress.from, progress.to, progress.term, progress.index);
        assert_eq!(of, (part.shard, OWN, part.from, part.term, part.index), "whom it concerns");
        assert_eq!(progress.refused, matches!(fate, Fate::Refused(_)), "{fate:?}");
        let fate = match fate {
            Fate::PassedOver => "passed over",
            Fate::Written => "written",
            Fate::Whole(message) => {
                assert_eq!(Some(&*message), self.parts[0].message.as_ref(), "what the leader says");
                "whole"
            }
            Fate::Refused(_) => "refused",
        };
        (fate, progress.next)
    }

    /// Whether there is a file of a snapshot that is not whole, and of one that is.
    fn has_files(&self) -> (bool, bool) {
        let has = |path: PathBuf| self.files.disk().exists(&path);
        (has(self.files.receiving(SHARD)), has(self.files.received(SHARD)))
    }
}

/// The same snapshot, from a leader of the next term.
fn of_next_term(parts: &[SnapshotPart]) -> Vec<SnapshotPart> {
    let mut parts = parts.to_vec();
    for part in &mut parts {
        part.term = TERM + 1;
        part.message.iter_mut().for_each(|message| message.term = TERM + 1);
    }
    sign_parts(&mut parts);
    parts
}

#[test]
fn parts_are_taken_in_their_order_and_each_once() {
    let mut node = Node::new();
    let parts = node.parts.clone();
    assert_eq!(node.take(0, &parts[1]), ("passed over", 0), "its beginning was never here");
    assert_eq!(node.has_files(), (false, false));
    for (number, part) in (0..).zip(&parts) {
        let fate = if part.is_last { "whole" } else { "written" };
        assert_eq!(node.take(0, part), (fate, number + 1));
        assert_eq!(node.take(0, part), ("passed over", number + 1), "it is there");
        assert_eq!(node.has_files(), (!part.is_last, part.is_last));
    }
}

#[test]
fn a_part_that_is_refused_ends_its_snapshot_and_the_next_one_may_begin() {
    let mut node = Node::new();
    let parts = node.parts.clone();
    assert_eq!(node.take(0, &parts[0]), ("written", 1));
    let changed = SnapshotPart { checksum: !parts[1].checksum, ..parts[1].clone() };
    assert_eq!(node.take(0, &changed), ("refused", 1));
    assert_eq!(node.has_files(), (false, false), "nothing is left of it");
    assert_eq!(node.take(0, &parts[1]), ("passed over", 0));
    assert_eq!(node.take(0, &parts[0]), ("written", 1));
    assert_eq!(node.take(0, &parts[1]), ("written", 2));
}

#[test]
fn a_whole_snapshot_that_gets_no_name_is_refused() {
    let mut node = Node::new();
    let parts = node.parts.clone();
    // A folder has its name.
    std::fs::create_dir(node.files.received(SHARD)).expect("a folder");
    let last = parts.len() - 1;
    for part in &parts[..last] {
        assert_eq!(node.take(0, part), ("written", part.number + 1));
    }
    assert_eq!(node.take(0, &parts[last]), ("refused", last as u32));
    assert_eq!(node.take(0, &parts[0]), ("written", 1), "it may be sent again");
}

#[test]
fn another_snapshot_takes_the_place_of_one_that_is_not_whole_and_of_no_other() {
    let mut node = Node::new();
    let parts = node.parts.clone();
    let others = of_next_term(&parts);
    for number in [0, 1] {
        assert_eq!(node.take(0, &others[number]), ("written", number as u32 + 1));
    }
    assert_eq!(node.take(0, &parts[1]), ("passed over", 0), "it has not begun");
    assert_eq!(node.take(0, &others[2]), ("written", 3), "nothing has changed");
    assert_eq!(node.take(0, &parts[0]), ("written", 1), "it begins");
    assert_eq!(node.take(0, &others[3]), ("passed over", 0), "its place is taken");
    for part in &parts[1..] {
        node.take(0, part);
    }
    assert_eq!(node.has_files(), (false, true));
    assert_eq!(node.take(0, &others[0]), ("passed over", 0), "the other one is to be decided on");
    node.receiving.forget(SHARD);
    assert_eq!(node.take(0, &others[0]), ("written", 1));
}

#[test]
fn what_nobody_sends_on_is_thrown_away_unless_it_is_whole() {
    let mut node = Node::new();
    let parts = node.parts.clone();
    node.take(0, &parts[0]);
    node.take(10, &parts[1]);
    node.receiving.forget_abandoned(10 + RECEIVING_MS_MAX - 1);
    assert_eq!(node.has_files(), (true, false), "its sender may be slow");
    node.receiving.forget_abandoned(10 + RECEIVING_MS_MAX);
    assert_eq!(node.has_files(), (false, false));
    assert_eq!(node.take(0, &parts[2]), ("passed over", 0));
    for part in &parts {
        node.take(0, part);
    }
    node.receiving.forget_abandoned(10 * RECEIVING_MS_MAX);
    assert_eq!(node.has_files(), (false, true), "Raft decides on it");
    assert_eq!(node.take(0, &parts[0]), ("passed over", parts.len() as u32), "it is known");
}
