//! The receiver's disk stops at every step of an installation, in every way: the next start finds either the shard as it
//! was, or the snapshot, whole.

use super::super::incoming::Incoming;
use super::super::install::{SnapshotFiles, finish_installs, install};
use super::super::outgoing::{Answered, Step};
use super::*;
use crate::replication::{Group, Replicas};
use crate::sim::{Crash, Doing, Random, SimDisk, SimStore};
use std::sync::Arc;

const SHARD: ShardId = ShardId(1);
/// What the replica had before, in place of some rows of the snapshot and beside them.
const OLD_INDEX: u64 = 12;

/// The node that receives.
struct Receiver {
    disk: Arc<SimDisk>,
    store: SimStore,
    root: tempfile::TempDir,
}

impl Receiver {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let disk = SimDisk::new(root.path());
        let store = SimStore::new(&disk);
        fill(store.memory(), SHARD, (0..40).chain(900..930), OLD_INDEX);
        store.sync().expect("it syncs");
        let receiver = Self { disk, store, root };
        let disk = Disk::Simulated(Arc::clone(&receiver.disk));
        disk.create_folder(&receiver.root.path().join("data")).expect("it is made");
        disk.sync_folder(receiver.root.path()).expect("it syncs");
        let log = Arc::new(receiver.log());
        let mut group = Group::open(Arc::clone(&log), SHARD, 0, &Replicas::alone(2)).expect("it opens");
        while let Some(write) = group.poll().and_then(|output| output.write) {
            log.write(&[write]).expect("its vote is written");
        }
        log.begin_anew(SHARD, (1..=OLD_INDEX + 6).map(entry).collect()).expect("it writes");
        finish_installs(&receiver.files(), &receiver.store, &log, &[SHARD], SHARDS).expect("there are none");
        receiver
    }

    fn files(&self) -> SnapshotFiles {
        SnapshotFiles::new(Disk::Simulated(Arc::clone(&self.disk)), self.root.path().join("data/snapshots"))
    }

    fn log(&self) -> Log {
        open_log(Disk::Simulated(Arc::clone(&self.disk)), &self.root.path().join("data/log"))
    }

    /// Receives a whole snapshot; nobody has decided on it.
    fn receive(&self, log: &Log, store: &MemoryStore) {
        let (mut outgoing, mut now_ms) = (outgoing(store, SHARD), 0);
        let mut incoming = None;
        loop {
            match outgoing.step(now_ms, log) {
                Step::Wait(until_ms) => now_ms = until_ms,
                Step::GiveUp(reason) => panic!("{reason}"),
                Step::Send(part) => {
                    let files = self.files();
                    let incoming = incoming.get_or_insert_with(|| {
                        Incoming::begin(files.disk(), &files.receiving(SHARD), SHARDS, &part, 0).unwrap()
                    });
                    incoming.take(0, *part).expect("it fits");
                    if outgoing.take(&incoming.progress(2, false)) == Answered::Arrived {
                        files
                            .disk()
                            .rename(&files.receiving(SHARD), &files.received(SHARD))
                            .expect("renamed");
                        return;
                    }
                }
            }
        }
    }

    /// A decision and its installation, until the disk stops.
    fn install(&self, log: &Log) -> Result<(), String> {
        self.files().decide(SHARD)?;
        install(&self.files(), &self.store, log, SHARD, SHARDS).map(drop)
    }
}

#[test]
fn an_installation_is_whole_or_has_never_begun_wherever_the_node_stops() {
    let folder = tempfile::tempdir().expect("a folder");
    let leader = leader_log(folder.path(), SHARD);
    let rows = MemoryStore::new();
    fill(&rows, SHARD, 0..60, INDEX);
    let wanted = rows_of(&rows, SHARD);
    let (mut finished, mut old, mut steps) = (false, 0, 0);
    while !finished {
        for (number, crash) in Crash::ALL.into_iter().enumerate() {
            let mut random = Random::new(steps * 4 + number as u64);
            let receiver = Receiver::new();
            receiver.receive(&leader, &rows);
            let log = receiver.log();
            receiver.disk.set_doing(Doing::Snapshots);
            receiver.disk.stop_after(Some(steps + 1));
            finished = receiver.install(&log).is_ok();
            assert_eq!(finished, !receiver.disk.is_stopped());
            drop(log);
            receiver.disk.crash(crash, &mut random);
            receiver.store.crash(crash, &mut random);

            receiver.disk.set_doing(Doing::Starting);
            receiver.disk.stop_after(None);
            let log = Arc::new(receiver.log());
            finish_installs(&receiver.files(), &receiver.store, &log, &[SHARD], SHARDS)
                .unwrap_or_else(|error| panic!("step {steps}, {crash:?}: {error}"));
            let (applied, _) = domain::applied_index(&receiver.store, SHARD).expect("it reads");
            if applied == OLD_INDEX {
                old += 1;
                assert!(steps < 3, "step {steps}, {crash:?}: a decision was forgotten");
                assert_eq!(log.span(SHARD), Some((1, OLD_INDEX + 6)));
            } else {
                assert_eq!(applied, INDEX, "step {steps}, {crash:?}");
                assert_eq!(rows_of(receiver.store.memory(), SHARD), wanted, "step {steps}, {crash:?}");
                assert_eq!(log.span(SHARD), Some((FEED_CUT, INDEX)), "step {steps}, {crash:?}");
                let replicas = Replicas::of(2, &[1, 2, 3]);
                Group::open(Arc::clone(&log), SHARD, applied, &replicas).expect("it goes on from there");
            }
            assert_eq!(rows_of(receiver.store.memory(), ShardId(3)), rows_of_others(), "other shards");
        }
        steps += 1;
    }
    assert!(steps > 12 && old > 0, "{steps} steps, {old} times the old state");
}

/// What the receiver has of a shard that no snapshot concerns.
fn rows_of_others() -> Vec<(Vec<u8>, Bytes)> {
    let store = MemoryStore::new();
    fill(&store, SHARD, (0..40).chain(900..930), OLD_INDEX);
    rows_of(&store, ShardId(3))
}

#[test]
fn a_damaged_snapshot_is_found_and_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let leader = leader_log(folder.path(), SHARD);
    let rows = MemoryStore::new();
    fill(&rows, SHARD, 0..60, INDEX);
    for at in [3, 9, 400, 9_000] {
        let receiver = Receiver::new();
        receiver.receive(&leader, &rows);
        receiver.files().decide(SHARD).expect("decided");
        let file = receiver.files().installing(SHARD);
        assert!(receiver.disk.flip(&file, at, 5));
        let error = finish_installs(&receiver.files(), &receiver.store, &receiver.log(), &[SHARD], SHARDS);
        let error = error.expect_err("it is damaged");
        assert!(error.contains("shard-1.installing"), "byte {at}: {error}");
    }
}
