//! One shard: takes requests, proposes commands, answers when they were applied, reads, and exchanges feed. A
//! state machine without threads or channels: what it wants done it puts into [`Effects`], and the core
//! (`worker/`) brings back what became of it.
//!
//! ```text
//! recovering --applied everything the log held--> loading --feed positions read--> serving
//! ```
//!
//! The only copy of a shard begins there; one of several follows until it is elected (`role.rs`). Until it serves, requests wait in a bounded queue. It knows neither engines (`replication/`, `engine/`) nor
//! what a command does (`domain/`).

mod effects;
mod address;
mod propose;
mod reply;
mod reads;
mod feed;
mod role;
mod lease;
mod hand_over;
mod moves;
mod learners;
mod snapshots;
mod standing;
#[cfg(test)]
mod tests;

pub(crate) use effects::{
    AppliedEntry, AppliedJob, ApplyJob, ApplyWork, Effects, ReadDone, ReadJob, ReadWork,
};
pub use hand_over::{HAND_OVER_FOR_DISK_EVERY_MS, HAND_OVER_MS_MAX, HAND_OVER_SETTLE_MS};
pub(crate) use learners::Learner;
pub use lease::LEASE_MS;
pub use propose::{
    APPLY_JOBS_IN_FLIGHT_MAX, COMMANDS_IN_FLIGHT_MAX, COMMANDS_WAITING_BYTES_MAX, COMMANDS_WAITING_MAX,
    ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX, LOG_WRITES_IN_FLIGHT_MAX,
};
pub use reads::REQUESTS_WAITING_MAX;
pub use standing::Standing;

use crate::feed::registry::Registry;
use crate::feed::{HomeFeed, SourceFeed};
use crate::observe::CoreMetrics;
use crate::plant::{self, Plant};
use crate::replication::{Group, KeptFor, Replicas, ReplicationError, Role};
use crate::worker::{LinkId, Origin};
use hand_over::HandOver;
use propose::{Abandoned, Pipeline};
use reads::{Attaching, Deferred};
use role::Lead;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use wire_protocol::ids::ShardId;
use wire_protocol::internal::shard_request::Operation;
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{FeedBatch, ShardError, ShardRequest, ShardResponse, shard_error};

/// After a full queue, in milliseconds: it holds a tenth of a second of work.
const RETRY_OVERLOADED_MS: u32 = 100;
/// After a refusal because the shard is starting or failed, in milliseconds.
const RETRY_UNAVAILABLE_MS: u32 = 500;

/// After a refusal because another copy leads, in milliseconds: by then an election is nearer its end. Gateways follow such a
/// refusal themselves; it is for whoever asks again without one.
const RETRY_NOT_LEADER_MS: u32 = 100;

/// How far a shard is, for the thread that cuts the log and for whoever runs the node.
#[derive(Debug, Default)]
pub(crate) struct ShardMarks {
    /// Applied and readable; written by the store thread.
    pub applied: AtomicU64,
    /// No feed needs entries up to here, as far as this copy knows; written by the core.
    pub feed_cut: AtomicU64,
    /// Neither a feed nor another copy needs entries up to here; written by the core.
    pub log_cut: AtomicU64,
    /// For whom the log is kept, as a [`KeptFor`]; written by the thread that cuts it.
    kept_for: AtomicU8,
    /// What this copy does, as a [`Standing`]; written by the core, as the next two.
    standing: AtomicU8,
    /// The node that leads; 0: not known.
    pub leader: AtomicU32,
    /// Of the last election that this copy knows.
    pub term: AtomicU64,
    /// Reads of log or rows that are not done: neither is replaced or removed meanwhile.
    pub reads: AtomicUsize,
    /// Replicas that do not vote yet, as a leader here sees them; written by the core.
    learners: Mutex<Vec<Learner>>,
}

/// What of a shard's log is not needed any more, as its leader knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Cuts {
    /// See [`ShardMarks::feed_cut`].
    pub feed: u64,
    /// See [`ShardMarks::log_cut`].
    pub log: u64,
}

impl ShardMarks {
    fn cuts(&self) -> Cuts {
        Cuts { feed: self.feed_cut.load(Ordering::Acquire), log: self.log_cut.load(Ordering::Acquire) }
    }

    /// For whom a leader keeps the log.
    pub fn kept_for(&self) -> KeptFor {
        match self.kept_for.load(Ordering::Acquire) {
            0 => KeptFor::All,
            1 => KeptFor::Heard,
            _ => KeptFor::Own,
        }
    }

    /// See [`Self::kept_for`].
    pub fn keep_for(&self, kept_for: KeptFor) {
        self.kept_for.store(kept_for as u8, Ordering::Release);
    }

    /// What the leader told: this copy may let go of as much.
    fn told(&self, cuts: Cuts) {
        self.feed_cut.fetch_max(cuts.feed, Ordering::AcqRel);
        self.log_cut.fetch_max(cuts.log, Ordering::AcqRel);
    }
}

/// What a shard is opened with.
pub(crate) struct ShardStart {
    pub id: ShardId,
    pub shard_count: u32,
    pub group: Group,
    pub replicas: Replicas,
    /// Whether it has, or may get, replicas on other nodes.
    pub is_replicated: bool,
    /// Index and time of the stored state.
    pub applied: u64,
    pub time_ms: u64,
    /// The shard's feed, with everything recorded that led to the stored state and may not have arrived. `None`: one of
    /// several copies, which sends no feed before it leads.
    pub source: Option<SourceFeed>,
    /// What is known of what the feed and other copies need, if there is no feed: see [`ShardMarks`].
    pub log_cut: u64,
    pub marks: Arc<ShardMarks>,
    pub metrics: Arc<CoreMetrics>,
}

enum Stage {
    /// There is no replica here.
    Absent,
    /// There is none any more, and what it leaves is being removed.
    Leaving,
    Following,
    Recovering,
    Loading,
    Serving(Box<HomeFeed>),
    Failed,
}

/// One shard.
pub(crate) struct Shard {
    id: ShardId,
    shard_count: u32,
    stage: Stage,
    pipeline: Pipeline,
    replicas: Replicas,
    lead: Lead,
    handing_over: HandOver,
    /// The term in which this replica leads.
    leads_in: Option<u64>,
    deferred: VecDeque<Deferred>,
    deferred_batches: VecDeque<FeedBatch>,
    attaching: HashMap<u64, Attaching>,
    ticket_last: u64,
    registry: Registry,
    source: Option<SourceFeed>,
    snapshots: snapshots::Snapshots,
    moving: moves::Moving,
    is_replicated: bool,
    /// When the source must be asked even if nothing happens to it; `Some(0)`: something did.
    feed_due_ms: Option<u64>,
    marks: Arc<ShardMarks>,
    metrics: Arc<CoreMetrics>,
}

impl Shard {
    pub fn open(start: ShardStart) -> Self {
        start.marks.applied.store(start.applied, Ordering::Release);
        let cut = start.source.as_ref().map_or(start.log_cut, SourceFeed::cut_index);
        start.marks.feed_cut.store(cut, Ordering::Release);
        start.marks.log_cut.store(cut, Ordering::Release);
        let leads_in = match start.group.role() {
            Role::Leader { term, .. } => Some(term),
            Role::Follower { .. } => None,
        };
        let stage = match leads_in {
            Some(_) => Stage::Recovering,
            None if !start.group.is_holder() => Stage::Absent,
            None => Stage::Following,
        };
        Self {
            id: start.id,
            shard_count: start.shard_count,
            stage,
            feed_due_ms: start.source.is_some().then_some(0),
            source: start.source,
            replicas: start.replicas,
            lead: Lead::new(),
            handing_over: HandOver::default(),
            leads_in,
            pipeline: Pipeline::new(start.id, start.group, start.applied, start.time_ms),
            deferred: VecDeque::new(),
            deferred_batches: VecDeque::new(),
            attaching: HashMap::new(),
            ticket_last: 0,
            registry: Registry::default(),
            snapshots: snapshots::Snapshots::default(),
            moving: moves::Moving::default(),
            is_replicated: start.is_replicated,
            marks: start.marks,
            metrics: start.metrics,
        }
    }

    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Whether what the log held is applied and requests are answered.
    pub fn is_serving(&self) -> bool {
        matches!(self.stage, Stage::Serving(_))
    }

    /// Whether requests for the shard are answered, here or by the leader that this copy knows, in whose place it could
    /// serve before long.
    pub fn is_led(&self) -> bool {
        let knows_leader = matches!(self.pipeline.role(), Role::Follower { leader: Some(_) });
        let follows = matches!(self.stage, Stage::Following) && knows_leader;
        let is_elsewhere = matches!(self.stage, Stage::Absent | Stage::Leaving);
        self.is_serving() || is_elsewhere || (follows && self.pipeline.has_applied_most())
    }

    /// What its replica here is and how far.
    #[cfg(any(test, feature = "sim"))]
    pub fn status(&mut self) -> String {
        format!("{}; {}", self.whereabouts(), self.pipeline.group().status())
    }

    /// Where its replica here stands in the election of its term.
    #[cfg(any(test, feature = "sim"))]
    pub fn standing(&mut self) -> crate::replication::Standing {
        self.pipeline.group().standing()
    }

    fn has_copies(&self) -> bool {
        self.is_replicated
    }

    /// Whether no request waits for its answer.
    pub fn is_idle(&self) -> bool {
        self.deferred.is_empty()
            && self.attaching.is_empty()
            && self.pipeline.waiting_count() + self.pipeline.in_flight_count() == 0
            && self.lead.waiting_count() == 0
    }

    /// Takes a request. Exactly one response comes, now or later.
    pub fn receive(&mut self, link: LinkId, request: ShardRequest, effects: &mut Effects) {
        let origin = Origin { link, request_id: request.id };
        let Some(operation) = request.operation.filter(|operation| self.is_addressed_here(operation)) else {
            return self.refuse(
                origin,
                shard_error::Kind::Malformed,
                "operation: empty or of another shard",
                effects,
            );
        };
        if matches!(self.stage, Stage::Following) {
            // It may have won an election since the last turn. What is refused from now on would come behind what is taken
            // after the next one.
            self.look_at_role(effects);
        }
        match self.stage {
            Stage::Serving(_) => self.carry_out(origin, operation, effects),
            Stage::Failed => self.refuse(origin, shard_error::Kind::Unavailable, "the node failed", effects),
            Stage::Following | Stage::Absent | Stage::Leaving => self.refuse_for_leader(origin, effects),
            Stage::Recovering | Stage::Loading => self.defer(origin, operation, effects),
        }
    }

    fn is_addressed_here(&self, operation: &Operation) -> bool {
        let here = |slot: wire_protocol::ids::Slot| slot.shard(self.shard_count) == self.id;
        match operation {
            Operation::Command(command) => address::command_slot(command).is_some_and(here),
            Operation::Query(query) => {
                address::query_slots(query).is_some_and(|slots| slots.into_iter().all(here))
            }
            Operation::Attach(attach) => address::attach_slot(attach).is_some_and(here),
            Operation::Detach(_) => true,
        }
    }

    fn carry_out(&mut self, origin: Origin, operation: Operation, effects: &mut Effects) {
        match operation {
            Operation::Command(command) => {
                if self.pipeline.take(Some(origin), command).is_err() {
                    self.refuse(origin, shard_error::Kind::Overloaded, "commands waiting", effects);
                }
            }
            // A detach asks for nothing, but must not overtake its session's attach.
            Operation::Query(_) | Operation::Attach(_) | Operation::Detach(_)
                if self.has_copies() && !plant::active(Plant::StaleRead) =>
            {
                self.bar(origin, operation, effects);
            }
            Operation::Query(_) | Operation::Attach(_) | Operation::Detach(_) => {
                self.carry_out_read(origin, operation, effects);
            }
        }
    }

    fn carry_out_read(&mut self, origin: Origin, operation: Operation, effects: &mut Effects) {
        match operation {
            Operation::Query(query) => self.query(origin, query, effects),
            Operation::Attach(attach) => self.attach(origin, &attach, effects),
            Operation::Detach(detach) => self.detach(origin, &detach, effects),
            Operation::Command(_) => unreachable!("commands are proposed"),
        }
    }

    /// Proposes what waits, and carries committed entries on.
    pub fn turn(&mut self, now_ms: u64, effects: &mut Effects) -> Result<(), ReplicationError> {
        if matches!(self.stage, Stage::Failed) {
            return Ok(());
        }
        if self.has_copies() {
            self.turn_replica(now_ms, effects);
        } else {
            self.look_at_role(effects);
        }
        if self.is_serving() && self.handing_over.may_propose() && self.moving.may_propose() {
            self.checkpoint(now_ms);
            let cuts = if self.has_copies() { self.marks.cuts() } else { Cuts::default() };
            let packed = self.pipeline.propose(now_ms, cuts)?;
            if packed > 0 {
                self.metrics.entries.increment();
                self.metrics.commands.add(packed as u64);
            }
        }
        if !matches!(self.stage, Stage::Leaving) {
            self.pipeline.poll(effects);
        }
        if self.has_copies() {
            self.look_at_snapshots(now_ms, effects);
            self.pass_barrier(effects);
            // An election may have been won or lost by what was polled.
            self.look_at_role(effects);
            self.look_at_replicas(now_ms, effects)?;
        }
        if self.feed_due_ms.is_some_and(|due_ms| due_ms <= now_ms) {
            self.send_feed(now_ms, effects);
        }
        self.tell_standing();
        Ok(())
    }

    /// The log thread made a write of this shard durable.
    pub fn persisted(&mut self, number: u64) {
        self.pipeline.persisted(number);
    }

    /// A read thread finished what this shard asked for.
    pub fn read_done(&mut self, now_ms: u64, done: ReadDone, effects: &mut Effects) {
        match done {
            ReadDone::Attach { ticket, device_known, stored_version } => {
                self.attached(ticket, device_known, stored_version, effects);
            }
            ReadDone::Loaded { positions, source } => self.loaded(now_ms, positions, source, effects),
            ReadDone::Reread { asked, entries } => {
                if let Some(source) = &mut self.source {
                    source.reread(asked, entries);
                    self.send_feed(now_ms, effects);
                }
            }
        }
    }

    /// The shard takes no more requests; those it has are answered as unavailable.
    pub fn fail(&mut self, effects: &mut Effects) {
        self.stage = Stage::Failed;
        self.tell_standing();
        let Abandoned { untouched, unknown } = self.everyone_who_waits();
        for origin in untouched.into_iter().chain(unknown) {
            self.refuse(origin, shard_error::Kind::Unavailable, "the node failed", effects);
        }
    }

    /// Sessions of this link are gone.
    pub fn link_closed(&mut self, link: LinkId) {
        self.registry.link_closed(link);
        self.attaching.retain(|_, attaching| attaching.key.link != link);
        self.deferred.retain(|deferred| deferred.origin.link != link);
        self.lead.link_closed(link);
    }

    /// Levels of this shard's queues, added to those of the core's other shards.
    pub fn add_levels(&self, levels: &mut Levels) {
        levels.commands_waiting += self.pipeline.waiting_count();
        levels.commands_in_flight += self.pipeline.in_flight_count();
        levels.sessions += self.registry.session_count();
        levels.groups_hibernating += usize::from(self.pipeline.is_hibernating());
        if let Stage::Serving(home) = &self.stage {
            levels.feed_rows_dirty += home.dirty_rows();
        }
    }

    /// When [`Self::turn`] is due even if nothing happens.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let checkpoint = match &self.stage {
            Stage::Serving(home) => home.next_checkpoint_ms(),
            _ => None,
        };
        let is_here = !matches!(self.stage, Stage::Absent);
        let tick = (self.has_copies() && is_here).then(|| self.lead.next_tick_ms());
        [checkpoint, self.feed_due_ms, tick].into_iter().flatten().min()
    }

    fn refuse(&self, origin: Origin, kind: shard_error::Kind, detail: &str, effects: &mut Effects) {
        match kind {
            shard_error::Kind::Overloaded => self.metrics.overloaded.increment(),
            shard_error::Kind::Unavailable | shard_error::Kind::NotHere => {
                self.metrics.unavailable.increment();
            }
            _ => {}
        }
        let refused = refusal(origin.request_id, kind, format!("shard {}: {detail}", self.id));
        effects.responses.push((origin.link, refused));
    }
}

/// Sums over the shards of a core.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Levels {
    pub commands_waiting: usize,
    pub commands_in_flight: usize,
    pub sessions: usize,
    pub feed_rows_dirty: usize,
    pub groups_hibernating: usize,
}

fn respond(origin: Origin, reply: Reply, effects: &mut Effects) {
    effects.responses.push((origin.link, ShardResponse { id: origin.request_id, result: Some(reply) }));
}

/// A refusal, with the wait that helps against what is wrong.
pub(crate) fn refusal(request_id: u64, kind: shard_error::Kind, detail: String) -> ShardResponse {
    let retry_after_ms = match kind {
        shard_error::Kind::Overloaded => RETRY_OVERLOADED_MS,
        shard_error::Kind::Unavailable | shard_error::Kind::NotHere => RETRY_UNAVAILABLE_MS,
        _ => 0,
    };
    let error = ShardError { kind: kind as i32, detail, retry_after_ms, ..ShardError::default() };
    ShardResponse { id: request_id, result: Some(Reply::Error(error)) }
}
