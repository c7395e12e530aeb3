//! Starting and stopping a node.

use super::core::{StorageCore, Threads};
use super::data_folder::{DataFolder, LOST, Owner};
use super::founders::Founders;
use super::read_threads::{READ_THREADS, ReadRequest, run_read_thread};
use super::reread::open_source;
use super::shared::{Completion, NodeParts, NodeShared, OWN_READS_IN_FLIGHT_MAX, READS_IN_FLIGHT_MAX};
use super::store_thread::{StoreRequest, run_store_thread};
use crate::admin::AdminServer;
use crate::backup::run_backups;
use crate::config::{ConfigError, StorageConfig};
use crate::disk::Disk;
use crate::domain;
use crate::engine::rocks::{RocksOptions, RocksStore};
use crate::engine::{Store, StoreError};
use crate::jobs;
use crate::observe::NodeMetrics;
use crate::placement::ShardMap;
use crate::placement::fleet::{Heard, first_fleet};
use crate::replication::{Group, Log, LogRequest, ReplicationError, SyncedWrite, run_log_thread};
use crate::shard::{APPLY_JOBS_IN_FLIGHT_MAX, LOG_WRITES_IN_FLIGHT_MAX, Shard, ShardStart};
use crate::snapshots::{
    SNAPSHOT_REQUESTS_MAX, SnapshotFiles, SnapshotRequest, finish_installs, run_snapshot_thread,
};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use wire_protocol::ids::ShardId;
use wire_protocol::internal::Fleet;

/// Requests of one shard that the thread of snapshots may not have taken yet.
const SNAPSHOT_REQUESTS_OF_SHARD: usize = 6;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data folder is another node's, of another format, or damaged.
    #[error("{file}: {detail}")]
    DataFolder {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The store cannot be opened or read. Names its folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log cannot be opened or does not fit the store. Names its folder.
    #[error(transparent)]
    Log(#[from] ReplicationError),
    /// The operating system refused something.
    #[error("{what}: {error}")]
    Io {
        /// What was tried, with the file's name.
        what: String,
        /// The refusal.
        error: std::io::Error,
    },
}

/// A running storage node: its threads, and what its cores share.
///
/// Dropping it stops the threads without making stored what is only in the log: the next start applies it again.
pub struct StorageNode {
    shared: Arc<NodeShared>,
    threads: Vec<JoinHandle<()>>,
    stops: Vec<Box<dyn FnOnce() + Send>>,
}

impl StorageNode {
    /// Opens the data folder and starts the node's threads. They inherit the caller's CPU mask: call this from a
    /// thread that is not pinned. What the log holds above the stored state is applied by the first turns of the
    /// cores; requests that arrive meanwhile wait.
    pub fn start(config: StorageConfig, cores: usize) -> Result<(StorageNode, Vec<StorageCore>), StartError> {
        config.check()?;
        let open_store = |folder: &Path| {
            let options = RocksOptions::with_memory(config.shard_count, config.memory);
            Ok(Box::new(RocksStore::open(folder, &options)?) as _)
        };
        let (shared, opened) = open_node(&config, cores, &Disk::Real, open_store)?;
        let mut node = StorageNode { shared, threads: Vec::new(), stops: Vec::new() };
        let cores = node.start_threads(opened, config.log.keep_bytes)?;
        node.start_admin(&config.data_dir)?;
        if let Some(backup) = config.backup {
            let (stops, stop) = bounded(1);
            let shared = Arc::clone(&node.shared);
            node.spawn("backup".to_owned(), move || run_backups(&shared, &backup, &stop))?;
            node.stop_with(&stops, ());
        }
        Ok((node, cores))
    }

    /// A node whose folder has too long a name does without: whoever calls it finds the reason in its log.
    fn start_admin(&mut self, data_dir: &Path) -> Result<(), StartError> {
        let failed =
            |error| StartError::Io { what: format!("admin socket in {}", data_dir.display()), error };
        let server = match AdminServer::bind(data_dir) {
            Ok(server) => server,
            Err(error) if error.kind() == ErrorKind::InvalidFilename => {
                tracing::error!("no admin commands: {}", failed(error));
                return Ok(());
            }
            Err(error) => return Err(failed(error)),
        };
        let stop = server.stop_handle().map_err(failed)?;
        let shared = Arc::clone(&self.shared);
        self.spawn("admin".to_owned(), move || server.run(&shared))?;
        self.stops.push(Box::new(move || stop.stop()));
        Ok(())
    }

    fn start_threads(
        &mut self,
        opened: Vec<OpenedShards>,
        log_keep_bytes: u64,
    ) -> Result<Vec<StorageCore>, StartError> {
        let shards = self.shared.map.own_shards().len();
        // Room for everything that can be in flight, and for the stop: sending never blocks.
        let (log, log_requests) = bounded(shards * (LOG_WRITES_IN_FLIGHT_MAX + 1) + 1);
        let own_reads = opened.len() * OWN_READS_IN_FLIGHT_MAX;
        let (reads, read_requests) = bounded(READS_IN_FLIGHT_MAX + own_reads + READ_THREADS);
        let shared = Arc::clone(&self.shared);
        self.spawn("log".to_owned(), move || run_log(&shared, &log_requests))?;
        self.stop_with(&log, LogRequest::Stop);
        let snapshots = self.start_snapshots(shards)?;
        let mut cores = Vec::with_capacity(opened.len());
        for (core, OpenedShards { shards, times }) in opened.into_iter().enumerate() {
            let (store, store_requests) = bounded(shards.len() * (APPLY_JOBS_IN_FLIGHT_MAX + 1) + 1);
            let shared = Arc::clone(&self.shared);
            self.spawn(format!("store-{core}"), move || {
                run_store_thread(&shared, core, &store_requests, times)
            })?;
            self.stop_with(&store, StoreRequest::Stop);
            let threads =
                Threads { log: log.clone(), store, reads: reads.clone(), snapshots: snapshots.clone() };
            cores.push(StorageCore::new(Arc::clone(&self.shared), core, threads, shards));
        }
        for number in 0..READ_THREADS {
            let shared = Arc::clone(&self.shared);
            let read_requests = read_requests.clone();
            self.spawn(format!("read-{number}"), move || run_read_thread(&shared, &read_requests))?;
            self.stop_with(&reads, ReadRequest::Stop);
        }
        let (maintenance, stop) = bounded(1);
        let shared = Arc::clone(&self.shared);
        self.spawn("maintenance".to_owned(), move || jobs::run_maintenance(&shared, &stop, log_keep_bytes))?;
        self.stop_with(&maintenance, ());
        Ok(cores)
    }

    /// The thread of snapshots, where there are other nodes to have any.
    fn start_snapshots(&mut self, shards: usize) -> Result<Sender<SnapshotRequest>, StartError> {
        // Of each shard one to be made, sent, stopped and begun anew, one to be installed or thrown away.
        let (snapshots, requests) = bounded(SNAPSHOT_REQUESTS_MAX + shards * SNAPSHOT_REQUESTS_OF_SHARD + 1);
        if self.shared.map.is_replicated() {
            let shared = Arc::clone(&self.shared);
            self.spawn("snapshots".to_owned(), move || run_snapshot_thread(shared, &requests))?;
            self.stop_with(&snapshots, SnapshotRequest::Stop);
        }
        Ok(snapshots)
    }

    /// Starts a thread; when it ends with an error or a panic the node has failed.
    fn spawn(
        &mut self,
        name: String,
        run: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> Result<(), StartError> {
        let shared = Arc::clone(&self.shared);
        let thread_name = name.clone();
        let body = move || match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(())) => {}
            Ok(Err(detail)) => shared.fail(detail),
            Err(panic) => {
                let said = panic.downcast_ref::<String>().map(String::as_str);
                let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                shared.fail(format!("thread {thread_name} panicked: {said}"));
            }
        };
        let thread = Builder::new()
            .name(name.clone())
            .spawn(body)
            .map_err(|error| StartError::Io { what: format!("start thread {name}"), error })?;
        self.threads.push(thread);
        Ok(())
    }

    fn stop_with<T: Send + 'static>(&mut self, requests: &Sender<T>, stop: T) {
        let requests = requests.clone();
        // An error means that the thread ended before.
        self.stops.push(Box::new(move || drop(requests.send(stop))));
    }

    fn stop(&mut self) {
        self.shared.stop_long_work();
        self.stops.drain(..).for_each(|stop| stop());
        for thread in self.threads.drain(..) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                tracing::error!("thread {name} panicked while it ended");
            }
        }
    }

    /// Stops the threads and makes stored what was applied. Call it when no core is turned any more; whatever
    /// was acknowledged is safe without it, too. The folder is free for another start once the cores are dropped.
    pub fn shutdown(mut self) {
        self.stop();
        if self.shared.failure().is_none()
            && let Err(error) = jobs::persist(&self.shared)
        {
            tracing::error!("last sync of the store: {error}");
        }
    }

    /// Counters of the node and all its cores; `NodeMetrics::render` gives the Prometheus text.
    pub fn metrics(&self) -> Arc<NodeMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Why the node stopped accepting (a failed sync or write); `None` while it is well.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure().map(str::to_owned)
    }
}

impl Drop for StorageNode {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Opens everything that a start reads, or makes it if the folder is new: all but the threads.
pub(crate) fn open_node(
    config: &StorageConfig,
    cores: usize,
    disk: &Disk,
    open_store: impl FnOnce(&Path) -> Result<Box<dyn Store>, StoreError>,
) -> Result<(Arc<NodeShared>, Vec<OpenedShards>), StartError> {
    let map = ShardMap::new(config, cores)?;
    let owner = Owner::of(config, &map);
    let mut folder = DataFolder::open(disk.clone(), &config.data_dir, owner, config.beginning)?;
    let founders = Founders::read(disk, &config.data_dir)?;
    let mut begins = founders.clone();
    let store = open_store(&folder.rows())?;
    folder.claim()?;
    if founders.has_begun() && disk.names(&folder.log()).map_or(true, |names| names.is_empty()) {
        return Err(StartError::DataFolder { file: folder.log(), detail: LOST.to_owned() });
    }
    let log = Arc::new(Log::open_on(disk.clone(), &folder.log(), &config.log)?);
    let epoch = getrandom::u64().map_err(|error| StartError::Io {
        what: "draw the node's epoch".to_owned(),
        error: std::io::Error::other(error.to_string()),
    })?;
    let snapshot_files = SnapshotFiles::new(disk.clone(), folder.snapshots());
    if map.is_replicated() {
        finish_installs(&snapshot_files, &*store, &log, &map.own_shards(), map.shard_count())
            .map_err(|detail| StartError::DataFolder { file: folder.snapshots(), detail })?;
    }
    let fleet = known_fleet(config, &map, &folder, &*store)?;
    let first_copies = map.shards().map(|shard| folder.first_copies(shard.0)).collect();
    let parts = NodeParts {
        node_id: config.node_id,
        epoch,
        founders,
        map,
        fleet,
        first_copies,
        log,
        store,
        snapshot_files,
        cores,
        lock: folder.take_lock(),
    };
    let shared = Arc::new(NodeShared::new(parts));
    let opened = (0..cores).map(|core| open_shards(&shared, core)).collect::<Result<_, _>>()?;
    if shared.map.is_replicated() {
        // Behind all that may refuse the start, which leaves the files as they were.
        shared.log.make_durable()?;
    }
    begins.begin(disk, &config.data_dir)?;
    Ok((shared, opened))
}

/// The newest fleet that this node ever heard of, or the first one, if it was of that.
fn known_fleet(
    config: &StorageConfig,
    map: &ShardMap,
    folder: &DataFolder,
    store: &dyn Store,
) -> Result<(Fleet, Heard), StoreError> {
    let stored = [domain::fleet::fleet(store)?, domain::fleet::known(store)?];
    let newest = stored.into_iter().flatten().max_by_key(|fleet| fleet.epoch);
    let first = || match folder.has_joined() {
        true => (first_fleet(config, &[]), Heard::Never),
        false => (first_fleet(config, map.first_copies()), Heard::Once),
    };
    Ok(newest.map_or_else(first, |fleet| (fleet, Heard::Once)))
}

/// The shards of one core, and the times of their stored states for the core's store thread.
pub(crate) struct OpenedShards {
    pub shards: Vec<Shard>,
    pub times: HashMap<ShardId, u64>,
}

fn open_shards(shared: &NodeShared, core: usize) -> Result<OpenedShards, StartError> {
    let mut opened = OpenedShards { shards: Vec::new(), times: HashMap::new() };
    for id in shared.map.shards_of_core(core) {
        let (applied, time_ms) = domain::applied_index(&*shared.store, id)?;
        opened.times.insert(id, time_ms);
        let mut replicas = shared.first_replicas(id);
        if let Some(set) = domain::fleet::replicas(&*shared.store, id)? {
            replicas.set = set;
        }
        let is_replicated = shared.map.is_replicated();
        let group = Group::open(Arc::clone(&shared.log), id, applied, &replicas)?;
        let unreadable = |detail| StartError::DataFolder { file: shared.log.folder().to_owned(), detail };
        // One of several copies sends no feed before it leads, and makes its own when it does.
        let source = match is_replicated {
            false => Some(open_source(shared, id, applied).map_err(unreadable)?),
            true => None,
        };
        opened.shards.push(Shard::open(ShardStart {
            id,
            shard_count: shared.map.shard_count(),
            group,
            replicas,
            is_replicated,
            applied,
            time_ms,
            source,
            log_cut: shared.log.cut_index(id),
            marks: Arc::clone(&shared.marks[id.0 as usize]),
            metrics: Arc::clone(&shared.metrics.cores[core]),
        }));
    }
    Ok(opened)
}

fn run_log(shared: &NodeShared, requests: &Receiver<LogRequest>) -> Result<(), String> {
    run_log_thread(&shared.log, requests, |done| report_synced(shared, &done))
        .map_err(|error| error.to_string())
}

/// Tells the cores what is durable now.
pub(crate) fn report_synced(shared: &NodeShared, done: &SyncedWrite<'_>) {
    shared.metrics.log_syncs.increment();
    shared.metrics.log_bytes.add(done.bytes as u64);
    shared.metrics.log_sync_us.record(done.duration);
    for (write, &core) in done.writes.iter().zip(done.cores) {
        let completion = Completion::Persisted { shard: write.shard(), number: write.number() };
        shared.inboxes[core].complete(completion);
    }
    for core in 0..shared.inboxes.len() {
        if done.cores.contains(&core) {
            shared.inboxes[core].signal();
        }
    }
}
