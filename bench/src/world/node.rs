//! A storage node: the real one on a simulated disk, and around it what its driver and its links' tasks do
//! (`storage-node/src/server/`), which are bound to sockets and cannot be here: the driver here, the links in
//! `node/links.rs`, which of them count in `node/newest.rs`, and what is before all of it in `node/founding.rs`.
//!
//! ```text
//! bytes -> frames -> link half -> StorageCore -> link half -> frames -> bytes
//!                                  |  ^
//!               log, store, reads, maintenance: rounds with delays of their own
//! ```

mod founding;
mod links;
mod newest;
#[cfg(test)]
mod tests;

use super::HOSTS;
use super::agenda::Thread;
use super::clock::Clock;
use super::faults::Back;
use super::network::{ConnectionId, Parcel, Side};
use super::outside::Outside;
use super::plan;
use super::releases::Releases;
use super::zones::Zones;
use bytes::Bytes;
use founding::Begins;
use newest::{NewestLinks, PeerCore};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use storage_node::admin::FleetWish;
use storage_node::config::Beginning;
use storage_node::sim::{Crash, FULL_ERROR, SYNC_ERROR, SimDisk, SimNode, SimStore, Standing, SyncKind};
use storage_node::{LinkId, LogConfig, NodeConfig, StorageConfig};
use tempfile::TempDir;
use wire_protocol::frame::FrameDecoder;
use wire_protocol::internal::{Fleet, ReplicaSet};
use wire_protocol::link::{CallerLink, ServingLink, Versions};

/// As the driver: links look at the clock this often, in milliseconds.
const LOOK_EVERY_MS: u64 = 500;
/// As `server/peers.rs`: waits before connecting again, in milliseconds.
const RECONNECT_MS_MIN: u64 = 50;
const RECONNECT_MS_MAX: u64 = 2_000;
/// As `server/driver.rs`: a younger link is not cut off for being slow, in milliseconds.
const CUT_OFF_AGE_MS_MIN: u64 = 1_000;
/// A log file, in bytes: so small that logs are cut and files used again within few messages.
const LOG_FILE_BYTES: u64 = 4 << 10;
/// Longest usual wait for a sync and for other threads, in milliseconds.
const SYNC_MS: u64 = 4;
const THREAD_MS: u64 = 2;
/// Longest time between two rounds of maintenance, in milliseconds.
const MAINTENANCE_MS: u64 = 8_000;

/// As `server/mod.rs`: a node that is asked to stop hands over for so long at most, in milliseconds.
const LEAVE_MS_MAX: u64 = 5_000;
/// A node whose sync failed has ended after so long, in milliseconds: its cores learn of it turn by turn.
const ENDS_MS_MAX: u64 = 200;
/// Steps of the disk from a start on bytes that are not durable until its power fails, at most: the first writes of its log.
const POWER_STEPS_MAX: u64 = 40;
/// What a node says of an empty disk that is not the beginning of anything.
const REFUSAL: &str = "must not come back";

/// A machine with a storage node.
pub struct NodeHost {
    /// Its number.
    pub host: usize,
    /// See [`plan::is_free`]: in other runs nobody asks which link of a core is its newest, none is reset, and whatever is too
    /// slow is made anew.
    is_free: bool,
    config: StorageConfig,
    disk: Arc<SimDisk>,
    rows: SimStore,
    chance: storage_node::sim::Random,
    _root: TempDir,
    running: Option<Running>,
    /// Counts starts and ends.
    pub life: u64,
    /// The machine's clock.
    wall: Clock,
    /// The process', as the storage node's `clock.rs` has it: it begins with the machine's, and follows it only ahead.
    clock: Clock,
    /// Whatever its threads do takes up to so much longer, in milliseconds.
    pub slow_ms: u64,
    /// Its disk may be full.
    is_full: bool,
    /// Syncs of its disk may fail.
    is_failing: bool,
    /// What its disk shows is not durable: a sync had failed when its process ended, and its machine went on.
    was_unsynced: bool,
    /// Its disk is to stop it soon, and its power fails then.
    loses_power: bool,
    /// Ends, and starts that came to nothing, since syncs failed.
    pub syncs_failed: u64,
    /// Snapshots that it had installed when it went last.
    snapshots: u64,
    /// What is done with it since its disk was lost.
    lost: Option<Back>,
    /// Starts that it refused for that.
    pub starts_refused: u64,
    /// How its fleet begins, as far as it is in that.
    begins: Begins,
    /// What the program on the machine speaks: that of the next start.
    installed: Versions,
    /// Why it did not start, or ended by itself: only a full disk and a failed sync are good reasons.
    pub failure: Option<String>,
}

/// One life.
struct Running {
    node: SimNode,
    /// What its links speak.
    versions: Versions,
    /// See [`NodeHost`].
    is_free: bool,
    woken: Arc<AtomicBool>,
    turn_at_ms: Option<u64>,
    /// The next turn had begun then, before a pause, and has read the clock.
    begun_ms: Option<u64>,
    /// It was asked to stop, and does by then.
    leaves_by_ms: Option<u64>,
    /// A sync has failed, and it ends then.
    ends_at_ms: Option<u64>,
    /// Syncs of its disk that had failed before.
    failed_syncs: u64,
    /// Rounds that are planned already.
    planned: BTreeMap<Thread, ()>,
    callers: BTreeMap<ConnectionId, Caller>,
    serving: BTreeMap<ConnectionId, Serving>,
    newest: NewestLinks,
    wanted: BTreeMap<(usize, u32), Wanted>,
    /// By core: the state of the fleet of which its links are.
    fleet_changes: Vec<u64>,
    looked_ms: u64,
}

/// A link to another node.
struct Caller {
    core: usize,
    node: u32,
    half: Option<CallerLink>,
    decoder: FrameDecoder,
    /// When the connection was made, by the true time; before: when it was asked for.
    made_ms: u64,
}

/// A link that somebody opened.
struct Serving {
    core: usize,
    half: ServingLink,
    decoder: FrameDecoder,
    link: Option<LinkId>,
    /// Whose it is, if another storage node has opened it.
    peer: Option<PeerCore>,
    /// Which version it is, once it is open.
    version: u32,
}

/// A link to another node that is not there.
#[derive(Clone, Copy)]
struct Wanted {
    at_ms: u64,
    wait_ms: u64,
}

/// Where the names on a disk are mirrored: in memory, where that is possible.
fn mirror() -> TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    root.expect("a folder")
}

impl NodeHost {
    /// A machine with an empty disk, of a new fleet, or that is to join the one there is.
    pub fn new(host: usize, shard_count: u32, seed: u64) -> Self {
        let root = mirror();
        let zones = Zones::plan(seed);
        let node = |id| {
            let (address, zone) = (HOSTS.address_of_node(id), zones.of_node(id).to_owned());
            NodeConfig { id, address, shards: Vec::new(), zone }
        };
        let joins = host == HOSTS.joiner();
        let nodes = HOSTS.nodes as u32 + u32::from(joins);
        let config = StorageConfig {
            data_dir: root.path().join("data"),
            node_id: HOSTS.node_of_host(host),
            shard_count,
            nodes: (1..=nodes).map(node).collect(),
            replicas: 3,
            beginning: if joins { Beginning::Join } else { Beginning::NewFleet },
            log: LogConfig {
                file_bytes: LOG_FILE_BYTES,
                keep_bytes: 3 * LOG_FILE_BYTES,
                prefill: seed.is_multiple_of(3),
            },
            ..StorageConfig::default()
        };
        let disk = SimDisk::new(root.path());
        Self {
            host,
            is_free: plan::is_free(seed),
            config,
            rows: SimStore::new(&disk),
            disk,
            chance: storage_node::sim::Random::new(seed ^ host as u64),
            _root: root,
            running: None,
            life: 0,
            wall: Clock::default(),
            clock: Clock::default(),
            slow_ms: 0,
            is_full: false,
            is_failing: false,
            was_unsynced: false,
            loses_power: false,
            syncs_failed: 0,
            snapshots: 0,
            lost: None,
            starts_refused: 0,
            begins: Begins::plan(seed, host),
            installed: Releases::plan(seed).of(host),
            failure: None,
        }
    }

    /// What its replica of a shard is and how far, for a person.
    pub fn status(&mut self, shard: u32) -> String {
        self.running.as_mut().map_or_else(|| "down".to_owned(), |running| running.node.status(shard))
    }

    /// Where its replica of a shard stands in the election of its term.
    pub fn standing(&mut self, shard: u32) -> Option<Standing> {
        self.running.as_mut()?.node.standing(shard)
    }

    /// The replicas of a shard, as it has them committed.
    pub fn replicas(&mut self, shard: u32) -> Option<&ReplicaSet> {
        self.running.as_mut()?.node.replicas(shard)
    }

    /// All rows of a shard.
    pub fn rows(&self, shard: u32) -> Vec<(Vec<u8>, Bytes)> {
        self.rows.rows_of(shard, self.config.shard_count)
    }

    /// The newest fleet that it has heard of.
    pub fn fleet(&self) -> Option<Arc<Fleet>> {
        self.running.as_ref()?.node.fleet()
    }

    /// Somebody wants another fleet, and asks here. What cannot be at present is asked for again by whoever wants it.
    pub fn ask_for(&mut self, wish: &FleetWish, outside: &mut Outside) {
        if let Some(running) = &mut self.running {
            drop(running.node.ask_for(wish));
            self.settle(outside);
        }
    }

    /// How it differs from what a fleet at rest says of it.
    pub fn misplaced(&mut self, fleet: &Fleet) -> Vec<String> {
        let (host, Some(running)) = (self.host, &mut self.running) else { return Vec::new() };
        let misplaced = running.node.misplaced(fleet).into_iter();
        misplaced.map(|what| format!("host {host}: {what}")).collect()
    }

    /// Whether its process runs, be it that it waits for its fleet to begin.
    pub fn is_up(&self) -> bool {
        self.running.is_some() || self.begins.asking.is_some()
    }

    /// Whether it lost its disk, and with it all that others count on.
    pub fn has_lost_disk(&self) -> bool {
        self.lost.is_some()
    }

    /// Whether it lost its disk and is no node of the fleet any more.
    pub fn is_gone(&self) -> bool {
        matches!(self.lost, Some(Back::Never | Back::AsBefore | Back::NewFleet))
    }

    /// Shards of which it says itself that it has forgotten them.
    pub fn forgotten(&self) -> Vec<u32> {
        self.running.as_ref().map(|running| running.node.forgotten()).unwrap_or_default()
    }

    /// Snapshots of shards that it has installed.
    pub fn snapshots(&self) -> u64 {
        self.snapshots + self.running.as_ref().map_or(0, |running| running.node.snapshots_installed())
    }

    /// Replicas of it that hibernate.
    pub fn hibernating(&mut self) -> u64 {
        let Some(Running { node, .. }) = &mut self.running else { return 0 };
        (0..node.core_count()).map(|core| node.core(core).metrics().groups_hibernating.value()).sum()
    }

    /// Versions of the open links that others have made to it.
    pub fn link_versions(&self) -> Vec<u32> {
        let serving = self.running.iter().flat_map(|running| running.serving.values());
        serving.filter(|serving| serving.link.is_some()).map(|serving| serving.version).collect()
    }

    /// The program on the machine is another one: its next start is one of that.
    pub fn install(&mut self, versions: Versions) {
        self.installed = versions;
    }

    /// How far each of its shards is applied; of a node that is not there: not at all.
    pub fn applied(&self, shard: u32) -> u64 {
        let of_shard = |running: &Running| {
            running.node.applied().into_iter().find(|(number, _)| *number == shard).map(|(_, index)| index)
        };
        self.running.as_ref().and_then(of_shard).unwrap_or(0)
    }

    /// Starts the process.
    pub fn start(&mut self, outside: &mut Outside) {
        if self.lost == Some(Back::Never) {
            return;
        }
        self.life += 1;
        self.clock = self.wall;
        if !self.asks_first(outside) {
            self.start_node(outside);
        }
    }

    /// Nobody is to be asked, or all have answered: the node itself.
    fn start_node(&mut self, outside: &mut Outside) {
        let cores = 1 + outside.up_to(1) as usize;
        let failed_syncs = self.disk.failed_syncs();
        let mut node = match SimNode::start(&self.config, cores, &self.disk, &self.rows) {
            Ok(_) if self.lost == Some(Back::AsBefore) => {
                return self.failed("starts from an empty disk, and does not say so".to_owned(), outside);
            }
            Ok(_) if self.lost == Some(Back::NewFleet) => {
                return self.failed("lost its disk, and begins a fleet again".to_owned(), outside);
            }
            Ok(node) => node,
            Err(_) if self.disk.is_stopped() => return,
            Err(error) if self.lost == Some(Back::AsBefore) && error.contains(REFUSAL) => {
                self.starts_refused += 1;
                return;
            }
            Err(error) => return self.failed(format!("does not start: {error}"), outside),
        };
        self.begins.has_begun = true;
        if !self.begins.is_founded || self.config.beginning == Beginning::Join {
            self.config.beginning = Beginning::Known;
        }
        let woken = Arc::new(AtomicBool::new(true));
        let mut wanted = BTreeMap::new();
        for core in 0..cores {
            let waker = Arc::clone(&woken);
            node.core(core).set_waker(Arc::new(move || waker.store(true, Ordering::Relaxed)));
            let others = node.core(core).other_nodes().into_iter();
            let soon = Wanted { at_ms: outside.now_ms, wait_ms: RECONNECT_MS_MIN };
            wanted.extend(others.map(|other| ((core, other.id), soon)));
        }
        self.running = Some(Running {
            node,
            versions: self.installed,
            is_free: self.is_free,
            woken,
            turn_at_ms: None,
            begun_ms: None,
            leaves_by_ms: None,
            ends_at_ms: None,
            failed_syncs,
            planned: BTreeMap::new(),
            callers: BTreeMap::new(),
            serving: BTreeMap::new(),
            newest: NewestLinks::default(),
            wanted,
            fleet_changes: vec![0; cores],
            looked_ms: 0,
        });
        outside.network.host_came(self.host);
        let later = outside.up_to(MAINTENANCE_MS);
        outside.plan_work(later, self.host, self.life, Thread::Maintenance);
        self.settle(outside);
    }

    /// The node goes in the middle of a step of its disk, so many steps from now; `None`: it does not.
    pub fn stop_within(&mut self, steps: Option<u64>) {
        if !self.disk.is_stopped() {
            self.loses_power = false;
            self.disk.stop_after(steps);
        }
    }

    /// It has just started. If its disk shows what is not durable, its power may fail within few steps.
    pub fn may_lose_power(&mut self, outside: &mut Outside) {
        if self.is_up() && std::mem::take(&mut self.was_unsynced) && outside.one_in(2) {
            self.stop_within(Some(1 + outside.up_to(POWER_STEPS_MAX)));
            self.loses_power = true;
        }
    }

    /// Whether its machine goes with it when its disk stops it.
    pub fn loses_power(&self) -> bool {
        self.loses_power
    }

    /// Its disk has room for so many more bytes; `None`: for any number.
    pub fn fill(&mut self, room_bytes: Option<usize>) {
        self.is_full = room_bytes.is_some();
        self.disk.set_bytes_max(room_bytes.map(|room_bytes| self.disk.bytes() + room_bytes));
    }

    /// Syncs of this kind fail from so many steps on; `None`: none does.
    pub fn fail_syncs(&mut self, failing: Option<(SyncKind, u64)>) {
        self.is_failing = failing.is_some();
        self.disk.fail(failing);
    }

    /// Whether a sync has failed, and its process is not about to end.
    pub fn goes_on_unsynced(&self) -> bool {
        let goes_on = |it: &Running| it.ends_at_ms.is_none() && self.disk.failed_syncs() > it.failed_syncs;
        self.running.as_ref().is_some_and(goes_on)
    }

    /// The process ends by itself. While its disk may be full it may end for want of room, and while syncs may fail for one
    /// that did, and for nothing else: both say so. After a failed sync its cores take some turns more.
    fn failed(&mut self, why: String, outside: &mut Outside) {
        let is_unsynced = self.is_failing && why.contains(SYNC_ERROR);
        let lacks_room = self.is_full && why.contains(FULL_ERROR);
        match &mut self.running {
            Some(Running { ends_at_ms: Some(_), .. }) => return,
            Some(running) if is_unsynced && !self.is_full => {
                running.node.fail(why);
                running.ends_at_ms = Some(outside.now_ms + 1 + outside.up_to(ENDS_MS_MAX));
                self.settle(outside);
            }
            _ if is_unsynced || lacks_room => self.disk.stop(),
            _ => self.failure = Some(format!("node {}: {why}", self.config.node_id)),
        }
        self.was_unsynced |= is_unsynced;
        self.syncs_failed += u64::from(is_unsynced);
    }

    /// The machine's clock jumps.
    pub fn jump(&mut self, by_ms: i64, outside: &mut Outside) {
        self.wall.jump(by_ms);
        self.clock = self.clock.max(self.wall);
        if let Some(running) = &mut self.running {
            running.woken.store(true, Ordering::Relaxed);
            self.settle(outside);
        }
    }

    /// The process is gone, and the disk keeps what it keeps.
    pub fn crash(&mut self, crash: Crash) {
        self.begins.end(&self.disk);
        self.disk.stop();
        self.life += 1;
        self.snapshots = self.snapshots();
        self.running = None;
        self.was_unsynced &= crash == Crash::Process;
        self.loses_power = false;
        self.disk.crash(crash, &mut self.chance);
        self.rows.crash(crash, &mut self.chance);
    }

    /// All that is on its disk is lost while it is down, and from here on this is done with it.
    pub fn lose_disk(&mut self, back: Back) {
        let root = mirror();
        self.disk = SimDisk::new(root.path());
        self.rows = SimStore::new(&self.disk);
        self.config.data_dir = root.path().join("data");
        self.config.beginning = match back {
            Back::Never | Back::AsBefore => Beginning::Known,
            Back::Joining => Beginning::Join,
            Back::NewFleet => Beginning::NewFleet,
        };
        self._root = root;
        (self.is_full, self.is_failing) = (false, false);
        self.lost = Some(back);
    }

    /// The process is asked to stop.
    pub fn leave(&mut self, outside: &mut Outside) {
        if self.leave_while_asking(outside) {
            return;
        }
        let Some(running) = &mut self.running else { return };
        running.leaves_by_ms = Some(outside.now_ms + LEAVE_MS_MAX);
        running.node.leave();
        self.settle(outside);
    }

    /// Whether it was asked to stop, and has handed over all it could, or waited for long enough.
    pub fn has_left(&mut self, now_ms: u64) -> bool {
        if self.has_left_asking() {
            return true;
        }
        let Some(running) = &mut self.running else { return false };
        running.leaves_by_ms.is_some_and(|by_ms| now_ms >= by_ms || running.node.has_left())
    }

    /// Shards that it leads although another copy should.
    pub fn astray(&mut self) -> Vec<u32> {
        self.running.as_mut().map(|running| running.node.astray()).unwrap_or_default()
    }

    /// Whether its disk has stopped it.
    pub fn is_stopped(&self) -> bool {
        self.disk.is_stopped()
    }

    /// The loops' turn, if this is the one that was planned.
    pub fn turn(&mut self, outside: &mut Outside) {
        if self.begins.asking.is_some() {
            return self.go_on_asking(outside);
        }
        let Some(running) = &mut self.running else { return };
        if running.turn_at_ms != Some(outside.now_ms) {
            return;
        }
        running.turn_at_ms = None;
        running.woken.store(false, Ordering::Relaxed);
        let begun_ms = self.clock.at(running.begun_ms.take().unwrap_or(outside.now_ms));
        let now_ms = self.clock.at(outside.now_ms);
        running.follow_fleet(outside.now_ms);
        running.connect(self.host, outside);
        for core in 0..running.node.core_count() {
            // It reads the clock twice.
            let reading_ms = Cell::new(begun_ms);
            running.node.core(core).turn_by(|| reading_ms.replace(now_ms));
            running.cut_off_late(core, outside);
            running.take_outputs(core);
        }
        if now_ms.saturating_sub(running.looked_ms) >= LOOK_EVERY_MS {
            running.looked_ms = now_ms;
            running.look_at_clock(now_ms, outside);
        }
        running.flush(now_ms, outside);
        if running.ends_at_ms.is_some_and(|at_ms| at_ms <= outside.now_ms) {
            return self.disk.stop();
        }
        self.settle(outside);
    }

    /// A round of one of its threads.
    pub fn work(&mut self, thread: Thread, outside: &mut Outside) {
        let Some(running) = &mut self.running else { return };
        running.planned.remove(&thread);
        let node = &mut running.node;
        let done = match thread {
            Thread::Log => node.write_log(),
            Thread::Store(core) => node.apply(core),
            Thread::Reads => node.read(),
            Thread::Snapshots => node.move_snapshots(outside.now_ms),
            Thread::Maintenance => {
                let later = outside.up_to(MAINTENANCE_MS);
                outside.plan_work(later, self.host, self.life, Thread::Maintenance);
                node.persist(outside.random.below(3) > 0)
            }
        };
        if self.disk.is_stopped() {
            return;
        }
        if let Err(error) = done {
            return self.failed(error, outside);
        }
        self.settle(outside);
    }

    /// Something arrived.
    pub fn arrived(&mut self, (id, side): (ConnectionId, Side), parcel: Parcel, outside: &mut Outside) {
        if self.begins.asking.is_some() {
            return self.hear_while_asking((id, side), parcel, outside);
        }
        let now_ms = self.clock.at(outside.now_ms);
        let Some(running) = &mut self.running else { return };
        let is_well = match (parcel, side) {
            (Parcel::Accepted, _) => {
                let core = outside.random.below(running.node.core_count() as u64) as usize;
                running.accept(id, core, now_ms);
                Ok(())
            }
            (Parcel::Connected, _) => {
                running.connected(id, &self.config, self.clock, outside);
                Ok(())
            }
            (Parcel::Bytes(bytes), Side::Caller) => running.take_answers(id, &bytes, now_ms),
            (Parcel::Bytes(bytes), Side::Accepter) => running.take_requests(id, &bytes, now_ms),
            (Parcel::Closed, _) => Err(()),
        };
        if is_well.is_err() {
            running.give_up((id, side), outside);
        }
        running.woken.store(true, Ordering::Relaxed);
        self.settle(outside);
    }

    /// The process goes on after a pause since this time: in half of the cases it had begun a turn and read the clock. What
    /// waits for it comes while that turn has not gone on yet: its other cores and threads read, and hand on, at once.
    pub fn resume(&mut self, since_ms: u64, outside: &mut Outside) {
        if self.resume_asking(outside) {
            return;
        }
        let Some(running) = &mut self.running else { return };
        running.turn_at_ms = None;
        running.woken.store(true, Ordering::Relaxed);
        running.begun_ms = outside.one_in(2).then_some(since_ms);
        self.settle(outside);
    }

    /// Plans what has become due.
    fn settle(&mut self, outside: &mut Outside) {
        if self.disk.is_stopped() {
            return;
        }
        let Some(running) = &mut self.running else { return };
        if running.ends_at_ms.is_none()
            && let Some(failure) = running.node.failure().map(str::to_owned)
        {
            return self.failed(failure, outside);
        }
        for (thread, most_ms) in running.work_to_plan(outside.now_ms) {
            running.planned.insert(thread, ());
            let after_ms = outside.up_to(most_ms + self.slow_ms);
            outside.plan_work(after_ms, self.host, self.life, thread);
        }
        let mut due_ms = outside.now_ms + LOOK_EVERY_MS;
        for core in 0..running.node.core_count() {
            let deadline_ms = running.node.core(core).next_deadline_ms().unwrap_or(u64::MAX);
            due_ms = due_ms.min(self.clock.when(deadline_ms).max(outside.now_ms + 1));
        }
        let wanted_ms = running.wanted.values().map(|wanted| wanted.at_ms.max(outside.now_ms + 1)).min();
        due_ms = due_ms.min(wanted_ms.unwrap_or(u64::MAX));
        if running.woken.load(Ordering::Relaxed) {
            due_ms = outside.now_ms + outside.up_to(1 + self.slow_ms);
        }
        due_ms = due_ms.min(running.ends_at_ms.unwrap_or(u64::MAX)).max(outside.now_ms);
        if running.turn_at_ms.is_none_or(|planned_ms| due_ms < planned_ms) {
            running.turn_at_ms = Some(due_ms);
            outside.plan_turn(due_ms, self.host, self.life);
        }
    }
}

impl Running {
    /// Threads with work whose round is not planned, and how long they usually take at most.
    fn work_to_plan(&self, now_ms: u64) -> Vec<(Thread, u64)> {
        let stores = (0..self.node.core_count())
            .map(|core| (Thread::Store(core), THREAD_MS, self.node.has_entries(core)));
        let threads = [
            // The log thread ends with its error.
            (Thread::Log, SYNC_MS, self.ends_at_ms.is_none() && self.node.has_writes()),
            (Thread::Reads, THREAD_MS, self.node.has_reads()),
            (Thread::Snapshots, SYNC_MS, self.node.has_snapshots(now_ms)),
        ];
        let all = threads.into_iter().chain(stores);
        all.filter(|(thread, _, has_work)| *has_work && !self.planned.contains_key(thread))
            .map(|(thread, most_ms, _)| (thread, most_ms))
            .collect()
    }
}
