//! What the cores and threads of a node share: immutable tables, engines, atomics, and a bounded inbox for each
//! core.

use super::folder_lock::FolderLock;
use super::founders::Founders;
use crate::domain::fleet::SHARD_OF_FLEET;
use crate::engine::Store;
use crate::observe::NodeMetrics;
use crate::placement::fleet::{Heard, KnownFleet};
use crate::placement::{Balance, Leaders, Pace, Place, ShardMap};
use crate::replication::{Log, Replicas};
use crate::shard::{
    APPLY_JOBS_IN_FLIGHT_MAX, AppliedJob, LOG_WRITES_IN_FLIGHT_MAX, ReadDone, ShardMarks, Standing,
};
use crate::snapshots::{SNAPSHOT_MESSAGES_MAX, Sending, SnapshotFiles, SnapshotReport};
use crate::worker::reach::Reach;
use crate::worker::{LinkId, PeerMessage, PeerOutput, Waker};
use crossbeam_queue::ArrayQueue;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{
    Delivery, FeedAck, FeedBatch, Fleet, Hibernating, RaftMessage, ReplicaReport, ShardRequest,
    ShardResponse, shard_error,
};

/// Queries that a node's read threads have or that wait for them. At 30 µs a read and two threads it is 30 ms.
pub const READS_IN_FLIGHT_MAX: usize = 2_048;
/// Reads a core has in flight for its shards' own needs (positions, rereading the log).
pub const OWN_READS_IN_FLIGHT_MAX: usize = 16;
/// Items that one core has not yet taken from another core of the node.
pub const MAILBOX_ITEMS_MAX: usize = 4_096;

/// Reports about one shard's snapshots that a core may not have taken yet: one made and ended, one received, installed.
const SNAPSHOT_REPORTS_MAX: usize = 4;

/// What to do about [`NodeShared::forgotten`].
pub const FORGOTTEN: &str = "the fleet counts on copies of this node that it does not have. If it lost its disk, it can \
                             promise nothing under this id: start it as a new node, with a new id and --join, and remove \
                             this one (docs/operations.md, \"Replacing a node\")";

/// What threads report to a core.
#[derive(Debug)]
pub(crate) enum Completion {
    /// The log thread: this write is durable.
    Persisted { shard: ShardId, number: u64 },
    /// The store thread: these rows are readable.
    Applied(AppliedJob),
    /// A read thread: the answer to a query that came over a link of this core.
    Answered(LinkId, ShardResponse),
    /// A read thread: what a shard of this core asked for.
    Read { shard: ShardId, done: ReadDone },
    /// A read thread: the look-up for an attaching session failed.
    AttachFailed { shard: ShardId, ticket: u64, kind: shard_error::Kind, detail: String },
    /// The thread of snapshots: something about a snapshot of this shard.
    Snapshot { shard: ShardId, report: SnapshotReport },
}

/// What one core tells another.
#[derive(Debug)]
pub(crate) enum Mail {
    /// A request for a shard of yours.
    Request(LinkId, ShardRequest),
    /// An answer for a link of yours.
    Response(LinkId, ShardResponse),
    /// A push for a link of yours.
    Delivery(LinkId, Delivery),
    /// A link of mine closed: its sessions are gone.
    LinkClosed(LinkId),
    /// Events for a home shard of yours.
    Batch(FeedBatch),
    /// A home shard's position for a source shard of yours.
    Ack(FeedAck),
    /// From a replica on another node to a shard of yours.
    Raft(RaftMessage),
    /// To the shard that keeps the fleet.
    Report(ReplicaReport),
    /// To the shard that keeps the fleet.
    FleetChange(Box<Fleet>),
    /// Another node goes on for shards that hibernate, some of them maybe yours.
    Hibernating(Hibernating),
}

/// Where a core is reached from other threads.
pub(crate) struct Inbox {
    completions: ArrayQueue<Completion>,
    /// From each core of the node.
    pub mail: Vec<ArrayQueue<Mail>>,
    /// From the thread of snapshots to other nodes.
    pub snapshots: ArrayQueue<PeerOutput>,
    wake: OnceLock<Waker>,
    signalled: AtomicBool,
}

impl Inbox {
    /// For a core with this many shards, in a node of this many cores.
    pub fn new(shards: usize, cores: usize) -> Self {
        // Everything that threads can ever have to report at once: pushing never fails.
        let of_shard = LOG_WRITES_IN_FLIGHT_MAX + 1 + APPLY_JOBS_IN_FLIGHT_MAX + SNAPSHOT_REPORTS_MAX;
        let completions = shards * of_shard + READS_IN_FLIGHT_MAX + OWN_READS_IN_FLIGHT_MAX;
        Self {
            completions: ArrayQueue::new(completions),
            mail: (0..cores).map(|_| ArrayQueue::new(MAILBOX_ITEMS_MAX)).collect(),
            snapshots: ArrayQueue::new(SNAPSHOT_MESSAGES_MAX),
            wake: OnceLock::new(),
            signalled: AtomicBool::new(false),
        }
    }

    pub fn set_waker(&self, wake: Waker) {
        assert!(self.wake.set(wake).is_ok(), "a core's waker is set once");
    }

    /// Reports. The core sees it at the latest in the turn that [`Self::signal`] causes.
    pub fn complete(&self, completion: Completion) {
        assert!(self.completions.push(completion).is_ok(), "completions are bounded by what is in flight");
    }

    pub fn next_completion(&self) -> Option<Completion> {
        self.completions.pop()
    }

    /// Makes the core take a turn. Cheap when it is to take one anyway.
    pub fn signal(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel)
            && let Some(wake) = self.wake.get()
        {
            wake();
        }
    }

    /// At the start of a turn, before the queues are looked at: what is put there later signals again.
    pub fn turn_started(&self) {
        self.signalled.swap(false, Ordering::AcqRel);
    }
}

/// One node.
pub(crate) struct NodeShared {
    pub node_id: u32,
    /// Made at random at the start.
    pub epoch: u64,
    /// With whom its folder began.
    pub founders: Founders,
    pub map: ShardMap,
    /// Of shards with several copies.
    pub leaders: Leaders,
    /// Which of them go where they should, and when.
    pub balance: Mutex<Balance>,
    /// The nodes, and where copies are.
    pub fleet: KnownFleet,
    /// Which of the nodes can be spoken to.
    pub reach: Reach,
    /// How far the snapshot is that this node sends.
    pub sending: Sending,
    /// Nodes that held copies of each shard when this node's folder began; nobody, if this one was none of them.
    first_copies: Vec<Vec<u32>>,
    pub log: Arc<Log>,
    pub store: Box<dyn Store>,
    pub snapshot_files: SnapshotFiles,
    pub inboxes: Vec<Inbox>,
    /// For each shard of the fleet; only those of this node are ever moved.
    pub marks: Vec<Arc<ShardMarks>>,
    pub reads_in_flight: AtomicUsize,
    pub metrics: Arc<NodeMetrics>,
    /// Held while a backup is made.
    pub backing_up: Mutex<()>,
    failure: OnceLock<String>,
    is_stopping: AtomicBool,
    /// Of the data folder: goes last.
    _lock: FolderLock,
}

/// The parts of a node that are there before its threads.
pub(crate) struct NodeParts {
    pub node_id: u32,
    pub epoch: u64,
    pub founders: Founders,
    pub map: ShardMap,
    pub fleet: (Fleet, Heard),
    pub first_copies: Vec<Vec<u32>>,
    pub log: Arc<Log>,
    pub store: Box<dyn Store>,
    pub snapshot_files: SnapshotFiles,
    pub cores: usize,
    pub lock: FolderLock,
}

impl NodeShared {
    pub fn new(parts: NodeParts) -> Self {
        let inboxes = (0..parts.cores)
            .map(|core| Inbox::new(parts.map.shards_of_core(core).len(), parts.cores))
            .collect();
        Self {
            node_id: parts.node_id,
            epoch: parts.epoch,
            founders: parts.founders,
            marks: parts.map.shards().map(|_| Arc::default()).collect(),
            leaders: Leaders::new(parts.map.shard_count()),
            balance: Mutex::new(Balance::new(Pace::default())),
            map: parts.map,
            fleet: KnownFleet::new(parts.fleet.0, parts.fleet.1),
            reach: Reach::default(),
            sending: Sending::default(),
            first_copies: parts.first_copies,
            log: parts.log,
            store: parts.store,
            snapshot_files: parts.snapshot_files,
            inboxes,
            reads_in_flight: AtomicUsize::new(0),
            metrics: Arc::new(NodeMetrics::new(parts.cores)),
            backing_up: Mutex::default(),
            failure: OnceLock::new(),
            is_stopping: AtomicBool::new(false),
            _lock: parts.lock,
        }
    }

    /// The node ends: what would take long gives up.
    pub fn stop_long_work(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    /// See [`Self::stop_long_work`].
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Log, store or a thread failed: nothing is accepted any more, and every core learns of it.
    pub fn fail(&self, detail: String) {
        if self.failure.set(detail.clone()).is_ok() {
            tracing::error!(node = self.node_id, "storage stopped: {detail}");
        }
        self.inboxes.iter().for_each(Inbox::signal);
    }

    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Where what concerns the shard goes to: to its only copy, or to the leader that is known.
    pub fn leading_place(&self, shard: ShardId) -> Option<Place> {
        if !self.map.is_replicated() {
            return self.map.place(shard);
        }
        match self.leaders.leader(shard)?.node_id {
            own if own == self.node_id => self.map.place(shard),
            other => Some(Place::Node(other)),
        }
    }

    /// The replicas of a shard before they changed, as far as this node was one of them.
    pub fn first_replicas(&self, shard: ShardId) -> Replicas {
        if !self.map.is_replicated() {
            return self.map.first_replicas(shard);
        }
        let copies = self.first_copies.get(shard.0 as usize).map(Vec::as_slice).unwrap_or_default();
        let preferred =
            self.fleet.get().shards.get(shard.0 as usize).and_then(|place| place.nodes.first().copied());
        let first = Replicas::of(self.node_id, copies);
        Replicas { preferred: preferred.unwrap_or(first.preferred), ..first }
    }

    /// Nodes that vote in a shard as far as this node has heard, ascending.
    pub fn voters_now(&self, shard: ShardId) -> Vec<u32> {
        let fleet = self.fleet.get();
        match fleet.shards.get(shard.0 as usize) {
            Some(place) if self.map.is_replicated() => {
                let mut nodes = place.nodes.clone();
                nodes.sort_unstable();
                nodes
            }
            _ => self.map.first_replicas(shard).set.voters,
        }
    }

    /// All storage nodes, ascending.
    pub fn nodes_now(&self) -> Vec<u32> {
        match self.map.is_replicated() {
            true => self.fleet.get().nodes.iter().map(|node| node.id).collect(),
            false => self.map.nodes(),
        }
    }

    /// Takes a fleet that was heard of; every core learns of it if it is news.
    pub fn learn_fleet(&self, fleet: Fleet) {
        let epoch = fleet.epoch;
        if self.map.is_replicated() && self.fleet.learn(fleet) {
            tracing::info!(node = self.node_id, epoch, "the fleet changed");
            let forgotten = self.forgotten();
            if !forgotten.is_empty() {
                tracing::error!(node = self.node_id, shards = ?forgotten, "{FORGOTTEN}");
            }
            self.inboxes.iter().for_each(Inbox::signal);
        }
    }

    /// Shards of which the fleet counts on a copy of this node that there is not, ascending. For a moment that may be
    /// said of one that has just gone; where it stays so, the node has lost its disk.
    pub fn forgotten(&self) -> Vec<u32> {
        let fleet = self.fleet.get();
        if !self.map.is_replicated()
            || fleet.nodes.iter().any(|node| node.id == self.node_id && node.is_leaving)
        {
            return Vec::new();
        }
        let is_counted_on = |shard: &ShardId| {
            let place = fleet.shards.get(shard.0 as usize);
            place.is_some_and(|place| place.nodes.contains(&self.node_id))
        };
        let is_absent = |shard: &ShardId| self.marks_of(*shard).standing() == Standing::Absent;
        self.map.shards().filter(is_counted_on).filter(is_absent).map(|shard| shard.0).collect()
    }

    /// Asks the shard that keeps the fleet for another one, from a thread that is no core. Whoever wants it looks at the
    /// fleet for what became of it; it may be lost.
    pub fn ask_for_fleet(&self, next: Fleet) {
        let next = Box::new(next);
        let is_taken = match (self.leading_place(SHARD_OF_FLEET), self.map.place(SHARD_OF_FLEET)) {
            (Some(Place::Core(core)), _) => {
                let taken = self.inboxes[core].mail[core].push(Mail::FleetChange(next)).is_ok();
                self.inboxes[core].signal();
                taken
            }
            (Some(Place::Node(node)), Some(Place::Core(core))) => {
                let output = PeerOutput { node, message: PeerMessage::FleetChange(next) };
                let taken = self.inboxes[core].snapshots.push(output).is_ok();
                self.inboxes[core].signal();
                taken
            }
            _ => false,
        };
        if !is_taken {
            tracing::warn!("a change of the fleet was lost: no leader is known, or its core has too much");
        }
    }

    /// How far a shard of this node is.
    pub fn marks_of(&self, shard: ShardId) -> &ShardMarks {
        &self.marks[shard.0 as usize]
    }
}
