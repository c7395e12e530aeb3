//! The half of the storage node that was called.
//!
//! It never lets its queue grow by what the peer does: a request holds its credit until the answer left the
//! queue, requests are refused while the queue is full, and deliveries then turn into the demand to sync.

use super::queue::{AckQueue, ItemQueue, item_bytes};
use super::{LinkFault, Versions};
use crate::internal::link_hello::Role;
use crate::internal::shard_error::Kind;
use crate::internal::{
    Delivery, FeedAck, FeedBatch, Fleet, Hibernating, LinkHello, LinkRefusal, LinkRequestFrame,
    LinkResponseFrame, LinkWelcome, RaftMessage, ReplicaReport, SessionAddress, ShardError, ShardLeader,
    ShardRequest, ShardResponse, SnapshotPart, SnapshotProgress, delivery, shard_response,
};
use crate::limits::{
    LINK_CREDITS, LINK_DEAD_MS, LINK_OVERLOADED_RETRY_MS, LINK_QUEUE_BYTES_MAX, LINK_SYNC_NEEDED_SESSIONS_MAX,
};
use std::collections::{BTreeMap, BTreeSet};

/// Sessions told to sync by one delivery: at 12 bytes each a fifth of a batch.
const SYNC_NEEDED_PER_FRAME_MAX: usize = 4_096;

/// The half of the storage node that was called.
#[derive(Debug)]
pub struct ServingLink {
    versions: Versions,
    /// What the peer said; `None` before.
    hello: Option<LinkHello>,
    welcome: LinkWelcome,
    welcome_due: bool,
    /// No version in common: the peer is told ours, and nothing else.
    refusal_due: bool,
    pong_due: bool,
    queue: ItemQueue<Item>,
    acks: AckQueue,
    /// By shard: not yet told.
    leaders: BTreeMap<u32, ShardLeader>,
    /// Not yet told.
    fleet: Option<Fleet>,
    /// Requests whose answer did not leave the queue yet. Never more than `welcome.credits`.
    outstanding: usize,
    /// Of these, handed to the owner and not answered by it.
    unanswered: usize,
    sync_needed: SyncNeeded,
    /// When the last frame came, or the connection was made.
    heard_ms: u64,
}

#[derive(Debug)]
enum Item {
    Response(ShardResponse),
    Delivery(Delivery),
}

/// Sessions that lost a delivery and were not told yet.
#[derive(Default, Debug)]
struct SyncNeeded {
    /// Slot and generation; [`LINK_SYNC_NEEDED_SESSIONS_MAX`] at most.
    sessions: BTreeSet<(u32, u32)>,
    /// There were more: everyone is told.
    everyone: bool,
}

/// What a received frame brought.
#[derive(Clone, PartialEq, Debug)]
pub enum ServingEvent {
    /// The link is open.
    Hello(LinkHello),
    /// To be answered once, by [`ServingLink::queue_response`]. Its operation is set.
    Request(ShardRequest),
    /// Events for home shards of this node.
    Feed(FeedBatch),
    /// A home shard of the peer took over feed of this node.
    FeedAck(FeedAck),
    /// From a replica of the peer to one of this node.
    Raft(RaftMessage),
    /// Of a snapshot for a replica of this node.
    SnapshotPart(SnapshotPart),
    /// How much the peer has taken of a snapshot from this node.
    SnapshotProgress(SnapshotProgress),
    /// Where the replicas of a shard are: for the shard that keeps the fleet.
    ReplicaReport(ReplicaReport),
    /// What somebody wants the fleet to be: for the shard that keeps it.
    FleetChange(Fleet),
    /// For which hibernating shards the peer goes on.
    Hibernating(Hibernating),
}

/// What became of a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeliveryFate {
    /// It will be sent.
    Queued,
    /// The queue is full: its sessions will be told to sync.
    SyncNeeded,
}

impl ServingLink {
    /// A connection was accepted. `welcome`'s version is that of hello's which is the highest in common, and its credits if they are 0.
    pub fn new(welcome: LinkWelcome, now_ms: u64) -> Self {
        Self::speaking(Versions::OURS, welcome, now_ms)
    }

    /// The same with these versions.
    pub fn speaking(versions: Versions, welcome: LinkWelcome, now_ms: u64) -> Self {
        let credits = if welcome.credits == 0 { LINK_CREDITS } else { welcome.credits.min(LINK_CREDITS) };
        Self {
            versions,
            hello: None,
            welcome: LinkWelcome { credits, ..welcome },
            welcome_due: false,
            refusal_due: false,
            pong_due: false,
            queue: ItemQueue::default(),
            acks: AckQueue::default(),
            leaders: BTreeMap::new(),
            fleet: None,
            outstanding: 0,
            unanswered: 0,
            sync_needed: SyncNeeded::default(),
            heard_ms: now_ms,
        }
    }

    /// With its hello it is known who calls: what the welcome says of the caller's data folder.
    pub fn set_caller_folder(&mut self, folder: u64) {
        self.welcome.caller_folder = folder;
    }

    /// Takes a received frame. After a fault the link is over; [`Self::poll_frame`] may have one last frame for the peer.
    pub fn handle_frame(
        &mut self,
        now_ms: u64,
        frame: LinkRequestFrame,
        sink: &mut impl FnMut(ServingEvent),
    ) -> Result<(), LinkFault> {
        match (self.hello, frame.hello) {
            (None, Some(hello)) => self.take_hello(hello, sink)?,
            (None, None) => return Err(LinkFault::Protocol("a frame before hello")),
            (Some(_), Some(_)) => return Err(LinkFault::Protocol("a second hello")),
            (Some(_), None) => {}
        }
        let has_items = !(frame.requests.is_empty()
            && frame.feed.is_empty()
            && frame.raft.is_empty()
            && frame.snapshot_parts.is_empty()
            && frame.snapshot_progress.is_empty()
            && frame.replica_reports.is_empty()
            && frame.fleet_changes.is_empty()
            && frame.hibernating.is_empty());
        if self.welcome_due && has_items {
            return Err(LinkFault::Protocol("an item before welcome"));
        }
        self.heard_ms = self.heard_ms.max(now_ms);
        self.pong_due |= frame.ping;
        if self.outstanding + frame.requests.len() > self.welcome.credits as usize {
            return Err(LinkFault::Protocol("more requests than credits"));
        }
        frame.requests.into_iter().for_each(|request| self.take_request(request, sink));
        frame.feed.into_iter().for_each(|batch| sink(ServingEvent::Feed(batch)));
        frame.feed_acks.into_iter().for_each(|ack| sink(ServingEvent::FeedAck(ack)));
        frame.raft.into_iter().for_each(|message| sink(ServingEvent::Raft(message)));
        frame.snapshot_parts.into_iter().for_each(|part| sink(ServingEvent::SnapshotPart(part)));
        let progress = frame.snapshot_progress.into_iter();
        progress.for_each(|progress| sink(ServingEvent::SnapshotProgress(progress)));
        frame.replica_reports.into_iter().for_each(|report| sink(ServingEvent::ReplicaReport(report)));
        frame.fleet_changes.into_iter().for_each(|fleet| sink(ServingEvent::FleetChange(fleet)));
        frame.hibernating.into_iter().for_each(|it| sink(ServingEvent::Hibernating(it)));
        Ok(())
    }

    fn take_hello(&mut self, hello: LinkHello, sink: &mut impl FnMut(ServingEvent)) -> Result<(), LinkFault> {
        let theirs = Versions { min: hello.version_min, max: hello.version_max };
        let common = self.versions.common(theirs);
        self.refusal_due = common.is_err();
        self.welcome.version = common?;
        if !matches!(Role::try_from(hello.role), Ok(Role::Gateway | Role::Storage)) {
            return Err(LinkFault::Protocol("hello without a role"));
        }
        self.hello = Some(hello);
        self.welcome_due = true;
        sink(ServingEvent::Hello(hello));
        Ok(())
    }

    fn take_request(&mut self, request: ShardRequest, sink: &mut impl FnMut(ServingEvent)) {
        self.outstanding += 1;
        self.unanswered += 1;
        if request.operation.is_none() {
            self.queue_response(error_response(
                request.id,
                Kind::Malformed,
                "no operation that is known here",
                0,
            ));
        } else if self.queue.is_full() {
            let detail = "the link's queue of answers is full";
            self.queue_response(error_response(
                request.id,
                Kind::Overloaded,
                detail,
                LINK_OVERLOADED_RETRY_MS,
            ));
        } else {
            sink(ServingEvent::Request(request));
        }
    }

    /// Answers a request. One that no frame can carry becomes an internal error.
    pub fn queue_response(&mut self, response: ShardResponse) {
        assert!(self.unanswered > 0, "a response without its request");
        self.unanswered -= 1;
        let (response, bytes) = match item_bytes(&response) {
            Ok(bytes) => (response, bytes),
            Err(_) => {
                let error =
                    error_response(response.id, Kind::Internal, "the answer is larger than a link item", 0);
                let bytes = item_bytes(&error).expect("an error is small");
                (error, bytes)
            }
        };
        self.queue.push(Item::Response(response), bytes);
    }

    /// Takes a delivery for sessions of the peer.
    pub fn queue_delivery(&mut self, delivery: Delivery) -> DeliveryFate {
        // A removed device must be put out, however slow its gateway is; there are few of these.
        let must_arrive = matches!(delivery.event, Some(delivery::Event::DeviceRemoved(_)));
        match item_bytes(&delivery) {
            Ok(bytes) if must_arrive || !self.queue.is_full() => {
                self.queue.push(Item::Delivery(delivery), bytes);
                DeliveryFate::Queued
            }
            _ => {
                self.sync_needed.add(&delivery.sessions);
                DeliveryFate::SyncNeeded
            }
        }
    }

    /// Takes a position; an unsent one of the same pair of shards is replaced.
    pub fn queue_feed_ack(&mut self, ack: FeedAck) {
        self.acks.push(ack);
    }

    /// Takes who leads a shard; an unsent earlier one of the same shard is replaced.
    pub fn queue_leader(&mut self, leader: ShardLeader) {
        let known = self.leaders.entry(leader.shard).or_insert(leader);
        if leader.term >= known.term {
            *known = leader;
        }
    }

    /// Takes the fleet; an unsent earlier one is replaced.
    pub fn queue_fleet(&mut self, fleet: Fleet) {
        self.fleet = Some(fleet);
    }

    /// The next frame to send. Call until `None`.
    pub fn poll_frame(&mut self, _now_ms: u64) -> Option<LinkResponseFrame> {
        if std::mem::take(&mut self.refusal_due) {
            let Versions { min, max } = self.versions;
            let refusal = Some(LinkRefusal { version_min: min, version_max: max });
            return Some(LinkResponseFrame { refusal, ..LinkResponseFrame::default() });
        }
        self.hello?;
        let mut frame = LinkResponseFrame {
            welcome: std::mem::take(&mut self.welcome_due).then_some(self.welcome),
            pong: std::mem::take(&mut self.pong_due),
            feed_acks: self.acks.pop_batch(),
            leaders: std::mem::take(&mut self.leaders).into_values().collect(),
            fleet: self.fleet.take(),
            ..LinkResponseFrame::default()
        };
        self.queue.pop_batch(|item| match item {
            Item::Response(response) => frame.responses.push(response),
            Item::Delivery(delivery) => frame.deliveries.push(delivery),
        });
        self.outstanding -= frame.responses.len();
        // Once there is room again: a client that is told to sync must not be told the same a moment later.
        if self.queue.bytes() <= LINK_QUEUE_BYTES_MAX / 2 {
            frame.deliveries.extend(self.sync_needed.pop());
        }
        let nothing = frame.responses.is_empty()
            && frame.deliveries.is_empty()
            && frame.feed_acks.is_empty()
            && frame.leaders.is_empty()
            && frame.fleet.is_none();
        if nothing && frame.welcome.is_none() && !frame.pong {
            return None;
        }
        Some(frame)
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<u64> {
        Some(self.heard_ms.saturating_add(LINK_DEAD_MS))
    }

    /// Finds the link dead if nothing was heard for too long: a living caller pings.
    pub fn handle_timeout(&mut self, now_ms: u64) -> Result<(), LinkFault> {
        if now_ms >= self.heard_ms.saturating_add(LINK_DEAD_MS) { Err(LinkFault::Dead) } else { Ok(()) }
    }

    /// Bytes of items not yet polled.
    pub fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// Requests whose answer did not leave yet.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// What the peer said when it opened the link.
    pub fn hello(&self) -> Option<&LinkHello> {
        self.hello.as_ref()
    }
}

impl SyncNeeded {
    fn add(&mut self, sessions: &[SessionAddress]) {
        if self.everyone {
            return;
        }
        self.sessions.extend(sessions.iter().map(|session| (session.slot, session.generation)));
        if self.sessions.len() > LINK_SYNC_NEEDED_SESSIONS_MAX {
            self.everyone = true;
            self.sessions.clear();
        }
    }

    /// The next delivery that tells some of them, or everyone.
    fn pop(&mut self) -> Option<Delivery> {
        if self.sessions.is_empty() && !std::mem::take(&mut self.everyone) {
            return None;
        }
        let count = self.sessions.len().min(SYNC_NEEDED_PER_FRAME_MAX);
        let popped = (0..count).filter_map(|_| self.sessions.pop_first());
        let sessions = popped.map(|(slot, generation)| SessionAddress { slot, generation }).collect();
        let event = Some(delivery::Event::SyncNeeded(true));
        Some(Delivery { sessions, event, ..Delivery::default() })
    }
}

fn error_response(id: u64, kind: Kind, detail: &str, retry_after_ms: u32) -> ShardResponse {
    let detail = detail.to_owned();
    let error = ShardError { kind: kind as i32, detail, retry_after_ms, ..ShardError::default() };
    ShardResponse { id, result: Some(shard_response::Result::Error(error)) }
}
