//! One snapshot on its way from leader to replica, without threads, links and Raft: for tests that throw parts at a receiver
//! and look at what it installs.
//!
//! [`SnapshotReceiver`] is what receives in the thread of snapshots (`receiving.rs`), on a disk in memory. What it refuses to
//! know: where parts come from, and whether Raft wants the snapshot. Whoever drives it says so: `bench/fuzz`.

use super::checksum;
use super::contents::Contents;
use super::incoming::{name_of, progress};
use super::install::{SnapshotFiles, finish_installs, install};
use super::outgoing::{Answered, Outgoing, Step};
use super::receiving::{Fate, Here, Receiving};
use crate::config::LogConfig;
use crate::disk::Disk;
use crate::engine::Store;
use crate::replication::{Log, ReplicationError};
use crate::sim::{Crash, Random, SimDisk, SimStore};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{RaftMessage, SnapshotPart};

/// All parts of a snapshot, as a leader sends them to a replica that answers at once. `message` is what Raft says of it.
/// `feed_cut` is the index of the first entry that goes with it. An error says why there is no such snapshot.
pub fn snapshot_parts(
    store: &dyn Store,
    log: &Log,
    message: &RaftMessage,
    shard_count: u32,
    feed_cut: u64,
) -> Result<Vec<SnapshotPart>, String> {
    let shard = ShardId(message.shard);
    let index = message.snapshot.as_ref().map_or(0, |point| point.index);
    let view = store.view().map_err(|error| error.to_string())?;
    let contents = Contents::new(shard, shard_count, view, index, feed_cut);
    let mut outgoing = Outgoing::new(shard, message.to, contents, 0);
    if !outgoing.begin(0, message.clone()) {
        return Err("Raft's message is of another snapshot".to_owned());
    }
    let (mut parts, mut now_ms) = (Vec::new(), 0);
    loop {
        match outgoing.step(now_ms, log) {
            Step::Wait(until_ms) => now_ms = until_ms,
            Step::GiveUp(reason) => return Err(reason),
            Step::Send(part) => {
                let answer = progress(part.to, shard, name_of(&part), part.number + 1, false);
                parts.push(*part);
                if outgoing.take(&answer) == Answered::Arrived {
                    return Ok(parts);
                }
            }
        }
    }
}

/// Gives parts the checksums that fit what they hold, as a sender does that means them: those that are numbered from 0 on. A
/// part between them that has another number keeps its own.
pub fn sign_parts(parts: &mut [SnapshotPart]) {
    let (mut before, mut next) = (0, 0);
    for part in parts {
        if part.number == next {
            part.checksum = checksum::of(part, before);
            (before, next) = (part.checksum, next + 1);
        }
    }
}

/// What became of a part.
#[derive(Clone, PartialEq, Debug)]
pub enum PartTaken {
    /// It is not the one that is waited for. Nothing changed.
    PassedOver,
    /// It is written.
    Written,
    /// It was the last one. All parts are durable, and this is what the leader says of them.
    Whole(Box<RaftMessage>),
}

/// A node that takes snapshots of one shard. Its rows, its log and its other files are on a disk in memory.
pub struct SnapshotReceiver {
    shard: ShardId,
    shard_count: u32,
    disk: Arc<SimDisk>,
    store: SimStore,
    files: SnapshotFiles,
    log_folder: PathBuf,
    receiving: Receiving,
}

impl SnapshotReceiver {
    /// A node that has nothing yet. `root`: a real and empty folder that takes the names of its files, and no bytes of them. An
    /// error is of that folder.
    pub fn new(root: &Path, shard: ShardId, shard_count: u32) -> io::Result<Self> {
        let disk = SimDisk::new(root);
        let data = root.join("data");
        let snapshots = data.join("snapshots");
        for (folder, above) in [(&data, root), (&snapshots, &*data)] {
            disk.create_folder(folder)?;
            disk.sync_folder(above)?;
        }
        let files = SnapshotFiles::new(Disk::Simulated(Arc::clone(&disk)), snapshots);
        // Nobody hears its answers.
        let here = Here { node_id: 0, shard_count };
        Ok(Self {
            shard,
            shard_count,
            store: SimStore::new(&disk),
            receiving: Receiving::new(here, files.clone()),
            files,
            log_folder: data.join("log"),
            disk,
        })
    }

    /// Its rows, of all shards.
    pub fn store(&self) -> &SimStore {
        &self.store
    }

    /// Opens its log, and makes it if there is none. An error is of what the disk holds.
    pub fn open_log(&self, config: &LogConfig) -> Result<Log, ReplicationError> {
        Log::open_on(Disk::Simulated(Arc::clone(&self.disk)), &self.log_folder, config)
    }

    /// Takes a part that came over a link. An error says why the snapshot is given up; another one may begin then.
    pub fn take(&mut self, part: SnapshotPart) -> Result<PartTaken, String> {
        if part.shard != self.shard.0 {
            // Links hand on parts of shards that are here, and of no other.
            return Ok(PartTaken::PassedOver);
        }
        match self.receiving.take(0, part).fate {
            Fate::PassedOver => Ok(PartTaken::PassedOver),
            Fate::Written => Ok(PartTaken::Written),
            Fate::Whole(message) => Ok(PartTaken::Whole(message)),
            Fate::Refused(refusal) => Err(refusal.to_string()),
        }
    }

    /// Raft takes the snapshot that is whole: from here on it is what the shard is. An error names the file.
    pub fn decide(&self) -> Result<(), String> {
        self.files.decide(self.shard)
    }

    /// Installs what was decided. An error says what cannot be installed, and why.
    pub fn install(&mut self, log: &Log) -> Result<(), String> {
        install(&self.files, &self.store, log, self.shard, self.shard_count)?;
        self.receiving.forget(self.shard);
        Ok(())
    }

    /// Power fails, and nothing is left of what was not synced. The log has to be closed before.
    pub fn lose_power(&mut self) {
        let mut random = Random::new(0);
        self.disk.crash(Crash::PowerKeepsNothing, &mut random);
        self.store.crash(Crash::PowerKeepsNothing, &mut random);
        self.receiving.forget(self.shard);
    }

    /// What a start does about snapshots: it installs what was decided. Errors are those of [`Self::install`].
    pub fn start(&self, log: &Log) -> Result<(), String> {
        finish_installs(&self.files, &self.store, log, &[self.shard], self.shard_count)
    }
}
