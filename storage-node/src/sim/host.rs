//! One life of a node of a cluster, for a simulation that has the network and the time: the real start, cores, log,
//! store, reads and maintenance, each taken forward one step when the simulation says so.

use super::{Doing, SimDisk, SimStore};
use crate::admin::{FleetWish, ask_once};
use crate::config::StorageConfig;
use crate::disk::Disk;
use crate::engine::{HotRows, keys};
use crate::jobs;
use crate::placement::{Balance, Pace};
use crate::replication::{
    KeptFor, LogRequest, QueuedWrites, Standing, SyncedWrite, first_replicas, is_holder,
};
use crate::snapshots::{SnapshotRequest, SnapshotWorker};
use crate::worker::{
    Applier, NodeShared, OpenedShards, ReadRequest, StorageCore, StoreRequest, Threads, open_node,
    read_and_report, report_synced,
};
use crossbeam_channel::{Receiver, unbounded};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{Fleet, ReplicaSet};

/// Bytes of hot rows, for the one batch that an applier lives here.
const HOT_BYTES: usize = 16 * 1024;

/// Leaders go back where they should be sooner than in a real fleet: a simulation's life is short. In milliseconds.
const PACE: Pace = Pace { calm_ms: 1_500, apart_ms: 1_000, left_alone_ms: 700 };

/// A running node. To be dropped before its disk crashes.
pub struct SimNode {
    disk: Arc<SimDisk>,
    rows: SimStore,
    shared: Arc<NodeShared>,
    cores: Vec<StorageCore>,
    log_requests: Receiver<LogRequest>,
    queued: QueuedWrites,
    store: Vec<StoreQueue>,
    read_requests: Receiver<ReadRequest>,
    snapshots: SnapshotWorker,
    snapshot_requests: Receiver<SnapshotRequest>,
    snapshots_due_ms: u64,
}

/// What a store thread would have.
struct StoreQueue {
    requests: Receiver<StoreRequest>,
    times: HashMap<ShardId, u64>,
}

impl SimNode {
    /// Opens the data folder on this disk. `Err`: why it does not start.
    pub fn start(
        config: &StorageConfig,
        cores: usize,
        disk: &Arc<SimDisk>,
        rows: &SimStore,
    ) -> Result<Self, String> {
        disk.set_doing(Doing::Starting);
        let on = Disk::Simulated(Arc::clone(disk));
        let shards = config.shard_count;
        let opened = open_node(config, cores, &on, |folder| rows.clone().open(folder, shards));
        let (shared, opened) = opened.map_err(|error| error.to_string())?;
        *shared.balance.lock().unwrap_or_else(PoisonError::into_inner) = Balance::new(PACE);
        let (log, log_requests) = unbounded();
        let (reads, read_requests) = unbounded();
        let (to_snapshots, snapshot_requests) = unbounded();
        let (mut cores, mut store) = (Vec::new(), Vec::new());
        for (core, OpenedShards { shards, times }) in opened.into_iter().enumerate() {
            let (to_store, requests) = unbounded();
            store.push(StoreQueue { requests, times });
            let snapshots = to_snapshots.clone();
            let threads = Threads { log: log.clone(), store: to_store, reads: reads.clone(), snapshots };
            cores.push(StorageCore::new(Arc::clone(&shared), core, threads, shards));
        }
        let (disk, queued) = (Arc::clone(disk), QueuedWrites::default());
        let snapshots = SnapshotWorker::new(Arc::clone(&shared));
        Ok(Self {
            disk,
            rows: rows.clone(),
            shared,
            cores,
            log_requests,
            queued,
            store,
            read_requests,
            snapshots,
            snapshot_requests,
            snapshots_due_ms: 0,
        })
    }

    /// Cores of the node.
    pub fn core_count(&self) -> usize {
        self.cores.len()
    }

    /// One of them, to be given what came over its links, to be turned, and to be asked for what it has.
    pub fn core(&mut self, number: usize) -> &mut StorageCore {
        &mut self.cores[number]
    }

    /// It is asked to stop: its cores hand over what they lead.
    pub fn leave(&mut self) {
        self.cores.iter_mut().for_each(StorageCore::leave);
    }

    /// Whether nothing is led from here any more.
    pub fn has_left(&mut self) -> bool {
        self.cores.iter_mut().all(StorageCore::has_left)
    }

    /// Shards that it leads although another copy should.
    pub fn astray(&mut self) -> Vec<u32> {
        self.cores.iter_mut().flat_map(StorageCore::astray).map(|shard| shard.0).collect()
    }

    /// Whether the log thread has something to write.
    pub fn has_writes(&self) -> bool {
        self.log_requests() > 0
    }

    /// Requests that wait for the log thread, which may take one without the next.
    pub fn log_requests(&self) -> usize {
        self.log_requests.len()
    }

    /// Writes what is queued, syncs once, and reports: what one round of the log thread does.
    pub fn write_log(&mut self) -> Result<(), String> {
        let Ok(first) = self.log_requests.try_recv() else { return Ok(()) };
        self.disk.set_doing(Doing::LogThread);
        self.queued.take(first, &self.log_requests);
        let (shared, disk) = (&self.shared, &self.disk);
        let mut report = |done: SyncedWrite<'_>| {
            // A process that is gone tells nobody.
            if !disk.is_stopped() {
                report_synced(shared, &done);
            }
        };
        self.queued.write(&shared.log, &mut report).map_err(|error| error.to_string())
    }

    /// Whether the store thread of a core has something to apply.
    pub fn has_entries(&self, core: usize) -> bool {
        !self.store[core].requests.is_empty()
    }

    /// Applies a batch: what one round of a store thread does.
    pub fn apply(&mut self, core: usize) -> Result<(), String> {
        let queue = &mut self.store[core];
        let Ok(first) = queue.requests.try_recv() else { return Ok(()) };
        self.disk.set_doing(Doing::StoreThread);
        let hot = HotRows::with_generations_of(&*self.shared.store, HOT_BYTES);
        let mut applier = Applier::new(&self.shared, core, hot, std::mem::take(&mut queue.times));
        let carried_out = applier.carry_out(first, &queue.requests).map(drop);
        queue.times = applier.into_times();
        carried_out
    }

    /// Whether a read thread has something to read.
    pub fn has_reads(&self) -> bool {
        !self.read_requests.is_empty()
    }

    /// Answers one read.
    pub fn read(&mut self) -> Result<(), String> {
        match self.read_requests.try_recv() {
            Ok(ReadRequest::Read(job)) => read_and_report(&self.shared, job),
            _ => Ok(()),
        }
    }

    /// Whether the thread of snapshots has something to do at this time.
    pub fn has_snapshots(&self, now_ms: u64) -> bool {
        !self.snapshot_requests.is_empty() || now_ms >= self.snapshots_due_ms
    }

    /// Takes one request about snapshots, and does what is due.
    pub fn move_snapshots(&mut self, now_ms: u64) -> Result<(), String> {
        self.disk.set_doing(Doing::Snapshots);
        if let Ok(request) = self.snapshot_requests.try_recv() {
            self.snapshots.take(now_ms, request)?;
        }
        self.snapshots_due_ms = self.snapshots.turn(now_ms);
        Ok(())
    }

    /// Makes rows durable and cuts the log behind them: what maintenance does now and then. From then on leaders here keep
    /// their logs for other replicas, or do not: those that lag will need snapshots.
    pub fn persist(&mut self, is_kept_for_others: bool) -> Result<(), String> {
        let kept_for = if is_kept_for_others { KeptFor::All } else { KeptFor::Own };
        let shards = self.shared.map.own_shards();
        shards.into_iter().for_each(|shard| self.shared.marks_of(shard).keep_for(kept_for));
        self.disk.set_doing(Doing::Maintenance);
        jobs::persist(&self.shared)
    }

    /// Synced writes of its log.
    pub fn log_syncs(&self) -> u64 {
        self.shared.metrics.log_syncs.value()
    }

    /// Snapshots that were installed.
    pub fn snapshots_installed(&self) -> u64 {
        self.shared.metrics.snapshots_installed.value()
    }

    /// How far each of its shards is applied.
    pub fn applied(&self) -> Vec<(u32, u64)> {
        let shards = self.shared.map.own_shards().into_iter();
        shards.map(|shard| (shard.0, self.shared.marks_of(shard).applied.load(Ordering::Acquire))).collect()
    }

    /// What its replica of a shard is and how far, for a person.
    pub fn status(&mut self, shard: u32) -> String {
        let mut cores = self.cores.iter_mut();
        cores.find_map(|core| core.status(ShardId(shard))).unwrap_or_else(|| "not of this node".to_owned())
    }

    /// Where its replica of a shard stands in the election of its term.
    pub fn standing(&mut self, shard: u32) -> Option<Standing> {
        self.cores.iter_mut().find_map(|core| core.standing(ShardId(shard)))
    }

    /// The newest fleet that it has heard of; `None`: it is to join one, and has heard of none yet.
    pub fn fleet(&self) -> Option<Arc<Fleet>> {
        self.shared.fleet.is_heard().then(|| self.shared.fleet.get())
    }

    /// Shards of which the fleet counts on a replica of this node that there is not.
    pub fn forgotten(&self) -> Vec<u32> {
        self.shared.forgotten()
    }

    /// Asks for a change of the fleet, once, as a command of an operator does. `Err`: why it cannot be now.
    pub fn ask_for(&self, wish: &FleetWish) -> Result<(), String> {
        ask_once(&self.shared, wish)
    }

    /// The replicas of a shard, as this node has them committed.
    pub fn replicas(&mut self, shard: u32) -> Option<&ReplicaSet> {
        self.cores.iter_mut().find_map(|core| core.replicas(ShardId(shard)))
    }

    /// How its replicas differ from what a fleet says in which nothing moves; and what is left of those that it has not.
    pub fn misplaced(&mut self, fleet: &Fleet) -> Vec<String> {
        let own = self.shared.node_id;
        let mut misplaced = Vec::new();
        for (shard, place) in self.shared.map.shards().zip(&fleet.shards) {
            let set = self.cores.iter_mut().find_map(|core| core.replicas(shard));
            let set = set.cloned().unwrap_or_default();
            if place.nodes.contains(&own) {
                let expected = ReplicaSet { changed_at: set.changed_at, ..first_replicas(&place.nodes) };
                if set != expected {
                    misplaced.push(format!("shard {shard} is on nodes {:?}, and {set:?} here", place.nodes));
                }
                continue;
            }
            if is_holder(&set, own) {
                misplaced.push(format!("shard {shard} is on nodes {:?}, and here: {set:?}", place.nodes));
            }
            if let Some(span) = self.shared.log.span(shard) {
                misplaced.push(format!("the log of shard {shard} is still here, {span:?}"));
            }
            let rows = self.rows.rows_of(shard.0, self.shared.map.shard_count());
            // That nobody here holds a replica, and since when, is kept.
            let kept = keys::replicas(shard);
            if let Some((key, _)) = rows.iter().find(|(key, _)| key[..] != kept[..]) {
                misplaced.push(format!("{} rows of shard {shard} are still here, as {key:02x?}", rows.len()));
            }
        }
        misplaced
    }

    /// One of its threads ended with this error: what is left is for its cores to notice.
    pub fn fail(&self, detail: String) {
        self.shared.fail(detail);
    }

    /// Why the node stopped by itself.
    pub fn failure(&self) -> Option<&str> {
        self.shared.failure()
    }
}
