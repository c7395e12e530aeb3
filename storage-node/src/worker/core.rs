//! One core: its shards and links, and what it has for the rest of the node.

use super::link::{LinkId, LinkPeer};
use super::outbox::{Missed, Outbox};
use super::read_threads::ReadRequest;
use super::shared::{Completion, Mail, NodeShared};
use super::store_thread::StoreRequest;
use super::{LinkOutput, PeerOutput, Waker};
use crate::observe::CoreMetrics;
use crate::placement::fleet::other_nodes;
use crate::placement::{OtherNode, Place};
use crate::replication::LogRequest;
use crate::shard::{Effects, Levels, ReadDone, ReadJob, Shard, refusal};
use crate::snapshots::{SnapshotReport, SnapshotRequest};
use crossbeam_channel::Sender;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{
    Delivery, FeedAck, FeedBatch, LinkWelcome, RaftMessage, ShardLeader, ShardRequest, ShardResponse,
    delivery, shard_error,
};
use wire_protocol::limits::LINK_CREDITS;

/// Reports of other threads that one turn takes; the rest waits for the next.
const COMPLETIONS_PER_TURN_MAX: usize = 1_024;
/// Items from each other core that one turn takes.
const MAIL_PER_TURN_MAX: usize = 1_024;
/// Pushes that wait for the driver of the links before further ones become "sync needed": 64 MiB of 1 KiB each.
pub const DELIVERIES_WAITING_MAX: usize = 65_536;
/// When a mailbox was full, the next try is this much later, in milliseconds.
const MAILBOX_RETRY_MS: u64 = 1;

/// Ways to the threads that work for a core.
#[derive(Clone)]
pub(crate) struct Threads {
    pub log: Sender<LogRequest>,
    pub store: Sender<StoreRequest>,
    pub reads: Sender<ReadRequest>,
    pub snapshots: Sender<SnapshotRequest>,
}

/// One core of a storage node: shards, links and queues. Lives on one loop thread.
pub struct StorageCore {
    pub(super) shared: Arc<NodeShared>,
    pub(super) core: usize,
    pub(super) threads: Threads,
    pub(super) shards: Vec<Shard>,
    /// Place in `shards`, by shard id; `None`: not of this core.
    places: Vec<Option<usize>>,
    pub(super) links: HashMap<LinkId, LinkPeer>,
    link_last: u64,
    pub(super) effects: Effects,
    outboxes: Vec<Outbox>,
    missed: Missed,
    responses: VecDeque<(LinkId, ShardResponse)>,
    deliveries: VecDeque<(LinkId, Delivery)>,
    /// Who leads each shard, as this core has told its links; and the state of the node's table then.
    pub(super) leaders: Vec<Option<ShardLeader>>,
    pub(super) leader_changes: u64,
    /// For the driver. At most one for each link and shard between two changes of leader.
    pub(super) leader_news: VecDeque<(LinkId, ShardLeader)>,
    /// State of the fleet when this core looked last, and links that are to be told.
    pub(super) fleet_changes: u64,
    pub(super) fleet_news: VecDeque<LinkId>,
    pub(super) peer_outputs: VecDeque<PeerOutput>,
    /// Nodes whose links are to be made anew.
    pub(super) late_nodes: BTreeSet<u32>,
    pub(super) own_reads: VecDeque<ReadJob>,
    pub(super) own_reads_in_flight: usize,
    failed: bool,
    pub(super) is_leaving: bool,
    pub(super) turned_ms: u64,
    /// When other nodes were told last for which shards this core goes on.
    pub(super) hibernation_told_ms: u64,
    /// When it was looked at last which shards are led from the wrong place.
    pub(super) balanced_ms: u64,
    metrics: Arc<CoreMetrics>,
}

impl StorageCore {
    pub(crate) fn new(shared: Arc<NodeShared>, core: usize, threads: Threads, shards: Vec<Shard>) -> Self {
        let shard_count = shared.map.shard_count() as usize;
        let mut places = vec![None; shard_count];
        for (place, shard) in shards.iter().enumerate() {
            places[shard.id().0 as usize] = Some(place);
        }
        Self {
            outboxes: shared.inboxes.iter().map(|_| Outbox::default()).collect(),
            metrics: Arc::clone(&shared.metrics.cores[core]),
            shared,
            core,
            threads,
            shards,
            places,
            links: HashMap::new(),
            link_last: 0,
            effects: Effects::default(),
            missed: Missed::default(),
            leaders: vec![None; shard_count],
            leader_changes: 0,
            leader_news: VecDeque::new(),
            fleet_changes: 0,
            fleet_news: VecDeque::new(),
            responses: VecDeque::new(),
            deliveries: VecDeque::new(),
            peer_outputs: VecDeque::new(),
            late_nodes: BTreeSet::new(),
            own_reads: VecDeque::new(),
            own_reads_in_flight: 0,
            failed: false,
            is_leaving: false,
            turned_ms: 0,
            balanced_ms: 0,
            hibernation_told_ms: 0,
        }
    }

    /// Sets what other threads call when [`Self::turn`] has work. To be set once, before the first turn.
    pub fn set_waker(&mut self, wake: Waker) {
        self.shared.inboxes[self.core].set_waker(wake);
    }

    /// A link opened. Requests and sessions belong to it until it closes.
    pub fn open_link(&mut self, peer: LinkPeer) -> LinkId {
        self.link_last += 1;
        let link = LinkId { core: self.core as u32, number: self.link_last };
        self.links.insert(link, peer);
        if self.shared.map.is_replicated() && self.shared.fleet.is_heard() {
            self.fleet_news.push_back(link);
        }
        self.leader_news.extend(self.leaders.iter().flatten().map(|leader| (link, *leader)));
        self.metrics.links.set(self.links.len() as u64);
        tracing::info!(core = self.core, ?peer, "link opened");
        link
    }

    /// The link closed: its sessions are gone, its unanswered requests get no answer.
    pub fn close_link(&mut self, link: LinkId) {
        let Some(peer) = self.links.remove(&link) else { return };
        self.metrics.links.set(self.links.len() as u64);
        tracing::info!(core = self.core, ?peer, "link closed");
        self.shards.iter_mut().for_each(|shard| shard.link_closed(link));
        for (core, outbox) in self.outboxes.iter_mut().enumerate() {
            if core != self.core {
                outbox.push(Mail::LinkClosed(link));
            }
        }
        self.missed.link_closed(link);
        self.shared.inboxes[self.core].signal();
    }

    /// Takes a request for any shard of this node. Its answer comes out of [`Self::poll_output`] after a later
    /// [`Self::turn`]. In one link, commands for one shard are applied in the order in which they are given here.
    /// What comes over a closed link is left.
    pub fn receive(&mut self, link: LinkId, request: ShardRequest) {
        if !self.links.contains_key(&link) {
            return;
        }
        self.metrics.requests.increment();
        let shard = ShardId(request.shard);
        match self.shared.map.place(shard) {
            Some(Place::Core(core)) if core == self.core => {
                if let Some(place) = self.places[shard.0 as usize] {
                    self.shards[place].receive(link, request, &mut self.effects);
                }
            }
            Some(Place::Core(core)) if self.outboxes[core].has_room() => {
                self.outboxes[core].push(Mail::Request(link, request));
            }
            Some(Place::Core(_)) => {
                self.metrics.overloaded.increment();
                let detail = format!("shard {shard}: mailbox of its core");
                let response = refusal(request.id, shard_error::Kind::Overloaded, detail);
                self.effects.responses.push((link, response));
            }
            Some(Place::Node(_)) | None => {
                self.metrics.unavailable.increment();
                let detail = format!("shard {shard} is not of node {}", self.shared.node_id);
                let response = refusal(request.id, shard_error::Kind::NotHere, detail);
                self.effects.responses.push((link, response));
            }
        }
    }

    /// Takes what other threads reported, proposes what was received, and prepares output. Bounded work; if more
    /// waits, the waker was called again. Time stands still meanwhile: see [`Self::turn_by`].
    pub fn turn(&mut self, now_ms: u64) {
        self.turn_by(|| now_ms);
    }

    /// The same by a clock that goes on. It is read after everything was taken that this turn answers: what a leader's
    /// lease rests on has to be later than the question.
    pub fn turn_by(&mut self, clock: impl Fn() -> u64) {
        self.shared.inboxes[self.core].turn_started();
        self.gather(clock());
        let now_ms = clock();
        self.turned_ms = now_ms;
        self.metrics.turns.increment();
        self.look_at_leaders();
        self.look_at_fleet();
        self.look_at_balance(now_ms);
        for place in 0..self.shards.len() {
            if let Err(error) = self.shards[place].turn(now_ms, &mut self.effects) {
                self.shared.fail(error.to_string());
            }
        }
        if !self.failed && self.shared.failure().is_some() {
            self.failed = true;
            self.shards.iter_mut().for_each(|shard| shard.fail(&mut self.effects));
        }
        self.tell_hibernating(now_ms);
        self.carry_out(now_ms);
        self.retry_missed();
        for (core, outbox) in self.outboxes.iter_mut().enumerate() {
            if core != self.core {
                outbox.flush(self.core, &self.shared.inboxes[core]);
            }
        }
        self.set_levels();
    }

    fn gather(&mut self, now_ms: u64) {
        self.take_completions(now_ms);
        self.take_mail(now_ms);
    }

    fn take_completions(&mut self, now_ms: u64) {
        for _ in 0..COMPLETIONS_PER_TURN_MAX {
            let Some(completion) = self.shared.inboxes[self.core].next_completion() else { return };
            match completion {
                Completion::Persisted { shard, number } => {
                    if let Some(shard) = self.shard_mut(shard) {
                        shard.persisted(number);
                    }
                }
                Completion::Applied(job) => self.with_shard(job.shard, |shard, effects| {
                    shard.applied(now_ms, job, effects);
                }),
                Completion::Answered(link, response) => {
                    self.shared.reads_in_flight.fetch_sub(1, Ordering::AcqRel);
                    self.respond(link, response);
                }
                Completion::Read { shard, done } => {
                    if matches!(done, ReadDone::Attach { .. }) {
                        self.shared.reads_in_flight.fetch_sub(1, Ordering::AcqRel);
                    } else {
                        self.own_reads_in_flight -= 1;
                    }
                    self.with_shard(shard, |shard, effects| shard.read_done(now_ms, done, effects));
                }
                Completion::Snapshot { shard, report } => self.take_snapshot_report(now_ms, shard, report),
                Completion::AttachFailed { shard, ticket, kind, detail } => {
                    self.shared.reads_in_flight.fetch_sub(1, Ordering::AcqRel);
                    self.with_shard(shard, |shard, effects| {
                        shard.attach_refused(ticket, kind, &detail, effects)
                    });
                }
            }
        }
        self.shared.inboxes[self.core].signal();
    }

    fn take_snapshot_report(&mut self, now_ms: u64, shard: ShardId, report: SnapshotReport) {
        let mut taken = Ok(());
        self.with_shard(shard, |shard, effects| taken = shard.snapshot_report(now_ms, report, effects));
        if let Err(error) = taken {
            self.shared.fail(error.to_string());
        }
    }

    fn take_mail(&mut self, now_ms: u64) {
        for from in 0..self.outboxes.len() {
            for taken in 0..=MAIL_PER_TURN_MAX {
                if taken == MAIL_PER_TURN_MAX {
                    self.shared.inboxes[self.core].signal();
                    break;
                }
                let Some(mail) = self.shared.inboxes[self.core].mail[from].pop() else { break };
                self.take_one_mail(now_ms, mail);
            }
        }
    }

    fn take_one_mail(&mut self, now_ms: u64, mail: Mail) {
        match mail {
            Mail::Request(link, request) => {
                self.with_shard(ShardId(request.shard), |shard, effects| {
                    shard.receive(link, request, effects)
                });
            }
            Mail::Response(link, response) => self.respond(link, response),
            Mail::Delivery(link, delivery) => self.deliver(link, delivery),
            Mail::LinkClosed(link) => self.shards.iter_mut().for_each(|shard| shard.link_closed(link)),
            Mail::Batch(batch) => self.take_batch(batch),
            Mail::Ack(ack) => self.take_ack(now_ms, &ack),
            Mail::Raft(message) => self.take_raft(message),
            Mail::Report(report) => self.take_report(now_ms, &report),
            Mail::FleetChange(next) => self.take_fleet_change(now_ms, *next),
            Mail::Hibernating(told) => self.take_hibernating(&told),
        }
    }

    pub(super) fn take_batch(&mut self, batch: FeedBatch) {
        self.with_shard(ShardId(batch.home_shard), |shard, effects| shard.take_batch(batch, effects));
    }

    pub(super) fn take_ack(&mut self, now_ms: u64, ack: &FeedAck) {
        self.with_shard(ShardId(ack.source_shard), |shard, effects| shard.take_ack(now_ms, ack, effects));
    }

    pub(super) fn take_raft(&mut self, message: RaftMessage) {
        if let Some(shard) = self.shard_mut(ShardId(message.shard)) {
            shard.take_raft(message);
        }
    }

    pub(super) fn shard_mut(&mut self, shard: ShardId) -> Option<&mut Shard> {
        let place = (*self.places.get(shard.0 as usize)?)?;
        self.shards.get_mut(place)
    }

    pub(super) fn with_shard(&mut self, shard: ShardId, act: impl FnOnce(&mut Shard, &mut Effects)) {
        // Taken out for a moment, so that the shard can write into it.
        let mut effects = std::mem::take(&mut self.effects);
        if let Some(shard) = self.shard_mut(shard) {
            act(shard, &mut effects);
        }
        self.effects = effects;
    }

    /// An answer for a link of any core.
    pub(super) fn respond(&mut self, link: LinkId, response: ShardResponse) {
        if link.core() == self.core {
            self.responses.push_back((link, response));
        } else {
            self.outboxes[link.core()].push(Mail::Response(link, response));
        }
    }

    /// A push for a link of any core.
    pub(super) fn deliver(&mut self, link: LinkId, delivery: Delivery) {
        // A removed device must lose its session even when nothing else gets through.
        let must = matches!(delivery.event, Some(delivery::Event::DeviceRemoved(_)));
        let is_here = link.core() == self.core;
        let has_room = match is_here {
            true => self.deliveries.len() < DELIVERIES_WAITING_MAX,
            false => self.outboxes[link.core()].has_room(),
        };
        if !has_room && !must {
            self.metrics.deliveries_dropped.increment();
            self.missed.add(link, &delivery);
        } else if is_here {
            self.metrics.deliveries.increment();
            self.deliveries.push_back((link, delivery));
        } else {
            self.outboxes[link.core()].push(Mail::Delivery(link, delivery));
        }
    }

    pub(super) fn has_mail_room(&self, core: usize) -> bool {
        self.outboxes[core].has_room()
    }

    pub(super) fn send_mail(&mut self, core: usize, mail: Mail) {
        self.outboxes[core].push(mail);
    }

    /// Tells sessions that missed something, once half of the room is free again.
    fn retry_missed(&mut self) {
        while !self.missed.is_empty() && self.deliveries.len() < DELIVERIES_WAITING_MAX / 2 {
            let Some((link, delivery)) = self.missed.pop() else { break };
            if link.core() != self.core && !self.outboxes[link.core()].has_room() {
                self.missed.add(link, &delivery);
                break;
            }
            self.deliver(link, delivery);
        }
    }

    /// The next answer or delivery. To be drained after each turn. Nothing comes out for a closed link.
    pub fn poll_output(&mut self) -> Option<LinkOutput> {
        while let Some(link) = self.fleet_news.pop_front() {
            if self.links.contains_key(&link) {
                return Some(LinkOutput::Fleet(link, self.shared.fleet.get()));
            }
        }
        while let Some((link, leader)) = self.leader_news.pop_front() {
            if self.links.contains_key(&link) {
                return Some(LinkOutput::Leader(link, leader));
            }
        }
        while let Some((link, response)) = self.responses.pop_front() {
            if self.links.contains_key(&link) {
                return Some(LinkOutput::Response(link, response));
            }
        }
        while let Some((link, delivery)) = self.deliveries.pop_front() {
            if self.links.contains_key(&link) {
                return Some(LinkOutput::Delivery(link, delivery));
            }
        }
        None
    }

    /// When the next turn is due even if nothing happens.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let retries = !self.missed.is_empty() || self.outboxes.iter().any(|outbox| !outbox.is_empty());
        let retry = retries.then_some(self.turned_ms + MAILBOX_RETRY_MS);
        self.shards.iter().filter_map(Shard::next_deadline_ms).chain(retry).min()
    }

    /// Whether every shard of this core has taken over what the log held, and answers; of one with several copies it
    /// is enough that a leader is known and that little is left to be applied.
    pub fn is_serving(&self) -> bool {
        self.shards.iter().all(Shard::is_led)
    }

    /// What the replica of a shard of this core is and how far.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn status(&mut self, shard: ShardId) -> Option<String> {
        self.shard_mut(shard).map(Shard::status)
    }

    /// Where the replica of a shard of this core stands in the election of its term.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn standing(&mut self, shard: ShardId) -> Option<crate::replication::Standing> {
        self.shard_mut(shard).map(Shard::standing)
    }

    /// Whether every request that was received is answered.
    pub fn is_idle(&self) -> bool {
        self.shards.iter().all(Shard::is_idle)
            && self.responses.is_empty()
            && self.shared.reads_in_flight.load(Ordering::Acquire) == 0
            && self.outboxes.iter().all(Outbox::is_empty)
    }

    /// The other storage nodes of the fleet, as it is now.
    pub fn other_nodes(&self) -> Vec<OtherNode> {
        match self.shared.map.is_replicated() {
            true => other_nodes(&self.shared.fleet.get(), self.shared.node_id),
            false => self.shared.map.others().to_vec(),
        }
    }

    /// Moves whenever [`Self::other_nodes`] may have changed.
    pub fn fleet_changes(&self) -> u64 {
        self.shared.fleet.changes()
    }

    /// Made at random when the node starts: tells a restarted node from a reconnected one.
    pub fn epoch(&self) -> u64 {
        self.shared.epoch
    }

    /// What this node says to whoever opens a link to it. The caller's folder is added once its hello says who it is:
    /// [`Self::folder_of`].
    pub fn welcome(&self) -> LinkWelcome {
        LinkWelcome {
            node_id: self.shared.node_id,
            epoch: self.shared.epoch,
            credits: LINK_CREDITS,
            shard_count: self.shared.map.shard_count(),
            folder: self.shared.founders.own(),
            first_copies: self.shared.founders.first_copies(),
            ..LinkWelcome::default()
        }
    }

    /// The number of another node's folder, as it was when this node's fleet began; 0: it is not known.
    pub fn folder_of(&self, node: u32) -> u64 {
        self.shared.founders.of(node)
    }

    /// This node's id.
    pub fn node_id(&self) -> u32 {
        self.shared.node_id
    }

    /// Shards of the whole fleet.
    pub fn shard_count(&self) -> u32 {
        self.shared.map.shard_count()
    }

    /// Counters of this core.
    pub fn metrics(&self) -> &Arc<CoreMetrics> {
        &self.metrics
    }

    /// Why the node stopped accepting; `None` while it is well. Once set, every request is answered UNAVAILABLE
    /// and the process should end with an error.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure().map(str::to_owned)
    }

    fn set_levels(&self) {
        let mut levels = Levels::default();
        self.shards.iter().for_each(|shard| shard.add_levels(&mut levels));
        self.metrics.commands_waiting.set(levels.commands_waiting as u64);
        self.metrics.commands_in_flight.set(levels.commands_in_flight as u64);
        self.metrics.sessions.set(levels.sessions as u64);
        self.metrics.feed_rows_dirty.set(levels.feed_rows_dirty as u64);
        self.metrics.groups_hibernating.set(levels.groups_hibernating as u64);
    }
}
