//! Carries out what the shards of a core asked for: to threads, to other cores, to other nodes.

use super::core::StorageCore;
use super::read_threads::ReadRequest;
use super::shared::{Inbox, Mail, OWN_READS_IN_FLIGHT_MAX, READS_IN_FLIGHT_MAX};
use super::store_thread::StoreRequest;
use super::{PeerMessage, PeerOutput};
use crate::domain::fleet::SHARD_OF_FLEET;
use crate::failpoint::{self, Failpoint};
use crate::placement::fleet::{goal, nodes_with_zones};
use crate::placement::{Place, spans_zones};
use crate::replication::LogRequest;
use crate::shard::{ReadJob, ReadWork, refusal};
use crate::snapshots::{SNAPSHOT_REQUESTS_MAX, SnapshotRequest};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{FeedAck, FeedBatch, Fleet, ReplicaReport, ShardLeader, shard_error};

/// Messages for other nodes that wait for the driver of the links. Beyond it they go as if the link had lost them: the
/// feed's source and Raft send again.
const PEER_OUTPUTS_MAX: usize = 16_384;

impl StorageCore {
    pub(super) fn carry_out(&mut self, now_ms: u64) {
        // Feed first: what stays on this core leads to more of everything.
        loop {
            let batches = std::mem::take(&mut self.effects.batches);
            let acks = std::mem::take(&mut self.effects.acks);
            if batches.is_empty() && acks.is_empty() {
                break;
            }
            batches.into_iter().for_each(|batch| self.route_batch(batch));
            acks.into_iter().for_each(|ack| self.route_ack(now_ms, ack));
        }
        let effects = std::mem::take(&mut self.effects);
        for leader in effects.leaders {
            self.hear_of_leader(leader);
        }
        if let Some(fleet) = effects.fleet {
            self.shared.learn_fleet(fleet);
        }
        for report in effects.reports {
            self.tell_fleet_keeper(now_ms, PeerMessage::Report(report));
        }
        self.late_nodes.extend(effects.late_nodes);
        for message in effects.messages {
            self.send_to_node(message.to, PeerMessage::Raft(message));
        }
        if !effects.writes.is_empty() {
            let request = LogRequest::Write { core: self.core, writes: effects.writes };
            if self.threads.log.try_send(request).is_err() {
                self.shared.fail("the log thread ended or its queue is full".to_owned());
            }
        }
        for (shard, time_ms) in effects.restored {
            if self.threads.store.try_send(StoreRequest::Restored { shard, time_ms }).is_err() {
                self.shared.fail("a store thread ended or its queue is full".to_owned());
            }
        }
        for request in effects.snapshots {
            if self.threads.snapshots.try_send(request).is_err() {
                self.shared.fail("the thread of snapshots ended or its queue is full".to_owned());
            }
        }
        while let Some(PeerOutput { node, message }) = self.shared.inboxes[self.core].snapshots.pop() {
            self.send_to_node(node, message);
        }
        for job in effects.applies {
            if self.threads.store.try_send(StoreRequest::Apply(job)).is_err() {
                self.shared.fail("a store thread ended or its queue is full".to_owned());
            }
        }
        effects.responses.into_iter().for_each(|(link, response)| self.respond(link, response));
        if !effects.deliveries.is_empty() {
            failpoint::pass(Failpoint::Delivering);
        }
        effects.deliveries.into_iter().for_each(|(link, delivery)| self.deliver(link, delivery));
        effects.reads.into_iter().for_each(|job| self.read(job));
        self.start_own_reads();
    }

    fn route_batch(&mut self, batch: FeedBatch) {
        match self.shared.leading_place(ShardId(batch.home_shard)) {
            Some(Place::Core(core)) if core == self.core => self.take_batch(batch),
            Some(Place::Core(core)) => self.send_mail(core, Mail::Batch(batch)),
            Some(Place::Node(node)) => self.send_to_node(node, PeerMessage::Batch(batch)),
            // Nobody is known to lead it: the source sends it again when somebody does.
            None => tracing::debug!(home = batch.home_shard, "feed for a shard without a leader"),
        }
    }

    fn route_ack(&mut self, now_ms: u64, ack: FeedAck) {
        match self.shared.leading_place(ShardId(ack.source_shard)) {
            Some(Place::Core(core)) if core == self.core => self.take_ack(now_ms, &ack),
            Some(Place::Core(core)) => self.send_mail(core, Mail::Ack(ack)),
            Some(Place::Node(node)) => self.send_to_node(node, PeerMessage::Ack(ack)),
            None => tracing::debug!(source = ack.source_shard, "position for a shard without a leader"),
        }
    }

    pub(super) fn send_to_node(&mut self, node: u32, message: PeerMessage) {
        if self.peer_outputs.len() < PEER_OUTPUTS_MAX {
            self.peer_outputs.push_back(PeerOutput { node, message });
        }
    }

    /// Takes what came from another node, for any shard of this node.
    pub fn receive_from_peer(&mut self, now_ms: u64, message: PeerMessage) {
        // Only what concerns this node: passing on what a peer misdirected could go round for ever.
        let shard = match &message {
            PeerMessage::Batch(batch) => ShardId(batch.home_shard),
            PeerMessage::Ack(ack) => ShardId(ack.source_shard),
            PeerMessage::Raft(message) => ShardId(message.shard),
            PeerMessage::Part(part) => ShardId(part.shard),
            PeerMessage::Progress(progress) => ShardId(progress.shard),
            PeerMessage::Report(_) | PeerMessage::FleetChange(_) => SHARD_OF_FLEET,
            // Of many shards, of all cores.
            PeerMessage::Hibernating(told) => return self.pass_on_hibernating(told),
        };
        let Some(Place::Core(core)) = self.shared.map.place(shard) else {
            tracing::warn!(%shard, "a peer sent something for a shard that is not here");
            return;
        };
        let is_here = core == self.core;
        match message {
            PeerMessage::Batch(batch) if is_here => self.take_batch(batch),
            PeerMessage::Ack(ack) if is_here => self.take_ack(now_ms, &ack),
            PeerMessage::Raft(message) if is_here => self.take_raft(message),
            PeerMessage::Batch(batch) => self.send_mail(core, Mail::Batch(batch)),
            PeerMessage::Ack(ack) => self.send_mail(core, Mail::Ack(ack)),
            // Raft sends again what is lost; nothing may grow because a core is slow.
            PeerMessage::Raft(message) if self.has_mail_room(core) => {
                self.send_mail(core, Mail::Raft(message))
            }
            PeerMessage::Raft(_) => {}
            PeerMessage::Part(part) => self.hand_to_snapshots(SnapshotRequest::Part(part)),
            PeerMessage::Progress(progress) => self.hand_to_snapshots(SnapshotRequest::Progress(progress)),
            PeerMessage::Report(report) if is_here => self.take_report(now_ms, &report),
            PeerMessage::FleetChange(next) if is_here => self.take_fleet_change(now_ms, *next),
            // Reports are made again, and of changes somebody sees what became.
            PeerMessage::Report(_) | PeerMessage::FleetChange(_) if !self.has_mail_room(core) => {}
            PeerMessage::Report(report) => self.send_mail(core, Mail::Report(report)),
            PeerMessage::FleetChange(next) => self.send_mail(core, Mail::FleetChange(next)),
            PeerMessage::Hibernating(_) => unreachable!("it was passed on"),
        }
        self.shared.inboxes[self.core].signal();
    }

    /// What another node says of snapshots. It says it again if it is lost here.
    fn hand_to_snapshots(&self, request: SnapshotRequest) {
        if self.threads.snapshots.len() < SNAPSHOT_REQUESTS_MAX {
            drop(self.threads.snapshots.try_send(request));
        }
    }

    /// To the leader of the shard that keeps the fleet; lost if none is known.
    fn tell_fleet_keeper(&mut self, now_ms: u64, message: PeerMessage) {
        match self.shared.leading_place(SHARD_OF_FLEET) {
            Some(Place::Core(_)) => self.receive_from_peer(now_ms, message),
            Some(Place::Node(node)) => self.send_to_node(node, message),
            None => {}
        }
    }

    pub(super) fn take_report(&mut self, now_ms: u64, report: &ReplicaReport) {
        let fleet = self.shared.fleet.get();
        if let Some(shard) = self.shard_mut(SHARD_OF_FLEET) {
            shard.take_report(now_ms, &fleet, report);
        }
    }

    pub(super) fn take_fleet_change(&mut self, now_ms: u64, next: Fleet) {
        if let Some(shard) = self.shard_mut(SHARD_OF_FLEET) {
            shard.change_fleet(now_ms, next);
        }
    }

    /// The newest fleet that this node has heard of.
    pub fn fleet(&self) -> Arc<Fleet> {
        self.shared.fleet.get()
    }

    /// Takes a fleet that another node told of.
    pub fn hear_of_fleet(&mut self, fleet: Fleet) {
        self.shared.learn_fleet(fleet);
    }

    /// Tells links and shards of a fleet that is new to this core.
    pub(super) fn look_at_fleet(&mut self) {
        let changes = self.shared.fleet.changes();
        if changes == self.fleet_changes || !self.shared.map.is_replicated() {
            return;
        }
        self.fleet_changes = changes;
        let fleet = self.shared.fleet.get();
        let nodes = nodes_with_zones(&fleet);
        for shard in &mut self.shards {
            let id = shard.id();
            let place = fleet.shards.get(id.0 as usize).cloned().unwrap_or_default();
            let spans_zones = spans_zones(&nodes, &place.nodes);
            shard.fleet_changed(place, goal(&fleet, id).map(<[u32]>::to_vec), spans_zones);
        }
        if self.shared.fleet.is_heard() {
            self.fleet_news.extend(self.links.keys());
        }
    }

    /// Takes who leads a shard, from a replica here or from another node.
    pub fn hear_of_leader(&mut self, leader: ShardLeader) {
        if self.shared.map.is_replicated() && self.shared.leaders.heard(leader) {
            self.shared.inboxes.iter().for_each(Inbox::signal);
        }
    }

    /// Tells links and shards of leaders that are new to this core.
    pub(super) fn look_at_leaders(&mut self) {
        let changes = self.shared.leaders.changes();
        if changes == self.leader_changes {
            return;
        }
        self.leader_changes = changes;
        let mut changed = Vec::new();
        for shard in self.shared.map.shards() {
            let leader = self.shared.leaders.leader(shard);
            let known = &mut self.leaders[shard.0 as usize];
            if *known != leader {
                *known = leader;
                changed.extend(leader);
            }
        }
        for leader in &changed {
            for link in self.links.keys() {
                self.leader_news.push_back((*link, *leader));
            }
        }
        self.balance_hears(&changed);
        // What was sent to the leaders before may be lost.
        let homes: Vec<ShardId> = changed.iter().map(|leader| ShardId(leader.shard)).collect();
        self.shards.iter_mut().for_each(|shard| shard.peer_link_changed(&homes));
    }

    /// The next message for another node. To be drained after each turn; what cannot be sent is dropped, and
    /// the source is told by [`Self::peer_link_opened`] when there is a link again.
    pub fn poll_peer_output(&mut self) -> Option<PeerOutput> {
        self.peer_outputs.pop_front()
    }

    /// A node to which this core's word takes too long: the link is to be cut off with all that waits in it, and made anew.
    /// To be asked after each turn.
    pub fn poll_late_node(&mut self) -> Option<u32> {
        self.late_nodes.pop_first()
    }

    /// The link of this core to another node was made: what was sent to its shards before may not have arrived.
    pub fn peer_link_opened(&mut self, node: u32) {
        self.shared.reach.opened(self.core, node);
        let homes = self.shards_led_by(node);
        self.shards.iter_mut().for_each(|shard| shard.peer_link_changed(&homes));
        self.balance().handle_disturbance(self.turned_ms);
        self.shared.inboxes[self.core].signal();
    }

    /// The link of this core to another node has ended.
    pub fn peer_link_ended(&mut self, node: u32) {
        self.shared.reach.ended(self.core, node);
    }

    /// Shards whose requests go to another node.
    fn shards_led_by(&self, node: u32) -> Vec<ShardId> {
        if !self.shared.map.is_replicated() {
            return self.shared.map.shards_of_node(node);
        }
        let is_led =
            |shard: &ShardId| self.shared.leaders.leader(*shard).is_some_and(|leader| leader.node_id == node);
        self.shared.map.shards().filter(is_led).collect()
    }

    fn read(&mut self, job: ReadJob) {
        let shard = job.shard;
        self.shared.marks_of(shard).reads.fetch_add(1, Ordering::AcqRel);
        let (id, link) = match &job.work {
            ReadWork::Load { .. } | ReadWork::Reread(_) => {
                self.own_reads.push_back(job);
                return;
            }
            ReadWork::Query { origin, .. } => (origin.request_id, Some(origin.link)),
            ReadWork::Attach { ticket, .. } => (*ticket, None),
        };
        if self.shared.reads_in_flight.fetch_add(1, Ordering::AcqRel) < READS_IN_FLIGHT_MAX {
            self.metrics().queries.increment();
            if self.threads.reads.try_send(ReadRequest::Read(job)).is_err() {
                self.shared.fail("the read threads ended or their queue is full".to_owned());
            }
            return;
        }
        self.shared.reads_in_flight.fetch_sub(1, Ordering::AcqRel);
        self.shared.marks_of(shard).reads.fetch_sub(1, Ordering::AcqRel);
        let kind = shard_error::Kind::Overloaded;
        match link {
            Some(link) => {
                self.metrics().overloaded.increment();
                self.respond(link, refusal(id, kind, format!("shard {shard}: reads waiting")));
            }
            None => {
                self.with_shard(shard, |shard, effects| {
                    shard.attach_refused(id, kind, "reads waiting", effects)
                });
                let refused = std::mem::take(&mut self.effects.responses);
                refused.into_iter().for_each(|(link, response)| self.respond(link, response));
            }
        }
    }

    fn start_own_reads(&mut self) {
        while self.own_reads_in_flight < OWN_READS_IN_FLIGHT_MAX {
            let Some(job) = self.own_reads.pop_front() else { break };
            self.own_reads_in_flight += 1;
            if self.threads.reads.try_send(ReadRequest::Read(job)).is_err() {
                self.shared.fail("the read threads ended or their queue is full".to_owned());
            }
        }
    }
}
