//! A node with a replica of one shard, on a disk that loses what was not synced.

use super::super::install::{SnapshotFiles, finish_installs};
use super::super::outgoing::{Answered, Step};
use super::super::receiving::{Fate, Here, Receiving};
use super::*;
use crate::replication::{Group, Replicas};
use crate::sim::{Crash, Doing, Random, SimDisk, SimStore, SyncKind};
use std::path::PathBuf;
use std::sync::Arc;

pub const SHARD: ShardId = ShardId(1);
/// What the replica had applied before; the snapshot has others in place of some of these rows, and beside them.
pub const OLD_INDEX: u64 = 12;
/// The newest entry of its log before.
pub const OLD_LAST: u64 = OLD_INDEX + 6;

/// When the node is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// At this step of the disk, or, if that is too many, when all is done.
    Step(u64),
    /// After all is done and later entries of the shard are written.
    LaterEntries,
}

impl Until {
    /// What a crash then takes by chance.
    pub fn seed(self, crash: Crash) -> u64 {
        match self {
            Self::Step(step) => step * 4 + crash as u64,
            Self::LaterEntries => crash as u64,
        }
    }
}

/// Every end of a life, the latest first.
fn ends() -> impl Iterator<Item = Until> {
    std::iter::once(Until::LaterEntries).chain((1..).map(Until::Step))
}

/// What a life ended in.
pub struct Lived {
    /// What was begun is done.
    pub is_done: bool,
    /// All is as it was before.
    pub is_old: bool,
}

/// Lives of all kinds, until one ends in what is wrong. `Ok`: steps until all is done, and how often it never began.
pub fn lives(live: impl Fn(Until, Crash) -> Result<Lived, String>) -> Result<(u64, usize), String> {
    let (mut steps, mut old) = (0, 0);
    for until in ends() {
        let mut is_over = true;
        for crash in Crash::ALL {
            let lived = live(until, crash).map_err(|wrong| format!("{until:?}, {crash:?}: {wrong}"))?;
            old += usize::from(lived.is_old);
            is_over &= lived.is_done;
        }
        match until {
            Until::Step(_) if is_over => break,
            Until::Step(step) => steps = step,
            Until::LaterEntries => assert!(is_over, "nothing stops it"),
        }
    }
    Ok((steps, old))
}

/// Without any one of these syncs a life ends in what is wrong.
pub fn assert_needed(
    kinds: &[SyncKind],
    lives_without: impl Fn(&[SyncKind]) -> Result<(u64, usize), String>,
) {
    for kind in kinds {
        match lives_without(&[*kind]) {
            Err(wrong) => println!("{kind:?}: needed: {wrong}"),
            Ok((steps, _)) => panic!("{kind:?}: {steps} steps do without"),
        }
    }
}

/// The node that receives.
pub struct Receiver {
    pub disk: Arc<SimDisk>,
    pub store: SimStore,
    root: tempfile::TempDir,
}

impl Receiver {
    /// After its first start, with its open log. `skipped`: syncs that are left out, from its making on.
    pub fn new(skipped: &[SyncKind]) -> (Self, Arc<Log>) {
        let root = crate::sim::real_folder();
        let disk = SimDisk::new(root.path());
        disk.set_doing(Doing::Starting);
        disk.skip(skipped);
        let store = SimStore::new(&disk);
        fill(store.memory(), SHARD, old_numbers(), OLD_INDEX);
        store.sync().expect("it syncs");
        let receiver = Self { disk, store, root };
        let disk = receiver.on();
        disk.create_folder(&receiver.data()).expect("it is made");
        disk.sync_folder(receiver.root.path()).expect("it syncs");
        let log = Arc::new(receiver.log().expect("it opens"));
        let mut group = Group::open(Arc::clone(&log), SHARD, 0, &Replicas::alone(2)).expect("it opens");
        while let Some(write) = group.poll().and_then(|output| output.write) {
            log.write(&[write]).expect("its vote is written");
        }
        log.begin_anew(SHARD, (1..=OLD_LAST).map(entry).collect()).expect("it writes");
        finish_installs(&receiver.files(), &receiver.store, &log, &[SHARD], SHARDS).expect("there are none");
        (receiver, log)
    }

    fn on(&self) -> Disk {
        Disk::Simulated(Arc::clone(&self.disk))
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    pub fn files(&self) -> SnapshotFiles {
        SnapshotFiles::new(self.on(), self.data().join("snapshots"))
    }

    /// Opens its log.
    pub fn log(&self) -> Result<Log, String> {
        Log::open_on(self.on(), &self.data().join("log"), &log_config()).map_err(|error| error.to_string())
    }

    /// Its rows of a shard.
    pub fn rows(&self, shard: ShardId) -> Vec<(Vec<u8>, Bytes)> {
        rows_of(self.store.memory(), shard)
    }

    /// Receives a whole snapshot; nobody has decided on it.
    pub fn receive(&self, log: &Log, store: &MemoryStore) {
        let (mut outgoing, mut now_ms) = (outgoing(store, SHARD), 0);
        let mut receiving = Receiving::new(Here { node_id: 2, shard_count: SHARDS }, self.files());
        loop {
            match outgoing.step(now_ms, log) {
                Step::Wait(until_ms) => now_ms = until_ms,
                Step::GiveUp(reason) => panic!("{reason}"),
                Step::Send(part) => {
                    let received = receiving.take(0, *part);
                    assert!(!matches!(received.fate, Fate::Refused(_)), "{received:?}");
                    if outgoing.take(&received.progress) == Answered::Arrived {
                        return;
                    }
                }
            }
        }
    }

    /// Works on what concerns snapshots, until the disk stops if it is to. True: all is done. An error: it failed for
    /// another reason.
    pub fn work(&self, until: Until, work: impl FnOnce() -> Result<(), String>) -> Result<bool, String> {
        self.disk.set_doing(Doing::Snapshots);
        if let Until::Step(step) = until {
            self.disk.stop_after(Some(step));
        }
        let worked = work();
        if self.disk.is_stopped() {
            return Ok(false);
        }
        self.disk.stop_after(None);
        worked.map(|()| true)
    }

    /// The log thread writes entries.
    pub fn write(&self, log: &Log, entries: Vec<RaftEntry>) -> Result<(), String> {
        self.disk.set_doing(Doing::LogThread);
        log.extend(SHARD, entries).map_err(|error| error.to_string())
    }

    /// The node goes, with its log. What the next start makes of what is left: its log.
    pub fn start_again(&self, log: Arc<Log>, crash: Crash, seed: u64) -> Result<Log, String> {
        self.disk.stop();
        drop(log);
        let mut random = Random::new(seed);
        self.disk.crash(crash, &mut random);
        self.store.crash(crash, &mut random);
        self.disk.set_doing(Doing::Starting);
        let log = self.log()?;
        finish_installs(&self.files(), &self.store, &log, &[SHARD], SHARDS)?;
        match self.rows(ShardId(3)) == old_rows(ShardId(3)) {
            true => Ok(log),
            false => Err("rows of other shards changed".to_owned()),
        }
    }
}

fn old_numbers() -> impl Iterator<Item = u32> {
    (0..40).chain(900..930)
}

/// What the receiver has of a shard before.
pub fn old_rows(shard: ShardId) -> Vec<(Vec<u8>, Bytes)> {
    let store = MemoryStore::new();
    fill(&store, SHARD, old_numbers(), OLD_INDEX);
    rows_of(&store, shard)
}
