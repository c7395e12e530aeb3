//! The half that opens the link and asks: a gateway core's, or a storage node's toward its peer.

use super::queue::{AckQueue, ItemQueue, item_bytes};
use super::{LinkFault, LinkFull, Versions};
use crate::internal::{
    Delivery, FeedAck, FeedBatch, Fleet, Hibernating, LinkHello, LinkRefusal, LinkRequestFrame,
    LinkResponseFrame, LinkWelcome, RaftMessage, ReplicaReport, ShardLeader, ShardRequest, ShardResponse,
    SnapshotPart, SnapshotProgress,
};
use crate::limits::{LINK_CREDITS, LINK_DEAD_MS, LINK_PING_MS};
use std::collections::BTreeMap;

/// The half that opens the link and asks.
#[derive(Debug)]
pub struct CallerLink {
    versions: Versions,
    stage: Stage,
    queue: ItemQueue<Item>,
    acks: AckQueue,
    /// Ids of requests without an answer, queued ones included, with their shards; `None`: given back, and its answer is
    /// nobody's any more. Never more than the peer's credits.
    unanswered: BTreeMap<u64, Option<u32>>,
    ping_due: bool,
    /// When the last frame came, or the connection was made.
    heard_ms: u64,
    /// When the last frame was polled.
    sent_ms: u64,
    /// When a ping last became due.
    pinged_ms: u64,
}

#[derive(Debug)]
enum Stage {
    New(LinkHello),
    HelloSent,
    Open(LinkWelcome),
}

#[derive(Debug)]
enum Item {
    Request(ShardRequest),
    Feed(FeedBatch),
    Raft(RaftMessage),
    Part(SnapshotPart),
    Progress(SnapshotProgress),
    Report(ReplicaReport),
    FleetChange(Fleet),
    Hibernating(Hibernating),
}

/// What a received frame brought.
#[derive(Clone, PartialEq, Debug)]
pub enum CallerEvent {
    /// The link is open. An `epoch` other than the last one seen: announce sessions again.
    Welcome(LinkWelcome),
    /// Answers a request; its id is free again.
    Response(ShardResponse),
    /// For sessions of this core.
    Delivery(Delivery),
    /// A home shard of the peer took over feed of this node.
    FeedAck(FeedAck),
    /// Somebody leads a shard.
    Leader(ShardLeader),
    /// The nodes of the fleet, and where replicas are.
    Fleet(Fleet),
}

impl CallerLink {
    /// A connection was made. `hello`'s versions are set here.
    pub fn new(hello: LinkHello, now_ms: u64) -> Self {
        Self::speaking(Versions::OURS, hello, now_ms)
    }

    /// The same with these versions.
    pub fn speaking(versions: Versions, hello: LinkHello, now_ms: u64) -> Self {
        let hello = LinkHello { version_min: versions.min, version_max: versions.max, ..hello };
        Self {
            versions,
            stage: Stage::New(hello),
            queue: ItemQueue::default(),
            acks: AckQueue::default(),
            unanswered: BTreeMap::new(),
            ping_due: false,
            heard_ms: now_ms,
            sent_ms: now_ms,
            pinged_ms: now_ms,
        }
    }

    /// Whether [`Self::queue_request`] would take a request of ordinary size now.
    pub fn can_send(&self) -> bool {
        self.room().is_ok() && self.unanswered.len() < self.credits()
    }

    /// Takes a request. Its id is chosen by the owner and must not be that of an unanswered one.
    pub fn queue_request(&mut self, request: ShardRequest) -> Result<(), LinkFull> {
        self.room()?;
        if self.unanswered.len() >= self.credits() {
            return Err(LinkFull::Credits);
        }
        let bytes = item_bytes(&request)?;
        let before = self.unanswered.insert(request.id, Some(request.shard));
        assert!(before.is_none(), "request ids of a link differ");
        self.queue.push(Item::Request(request), bytes);
        Ok(())
    }

    /// Takes a batch of feed. Refused ones are sent again by the feed's own window.
    pub fn queue_feed(&mut self, batch: FeedBatch) -> Result<(), LinkFull> {
        self.queue_item(batch, Item::Feed)
    }

    /// Takes a replica's message. A refused one is lost, which Raft expects of any.
    pub fn queue_raft(&mut self, message: RaftMessage) -> Result<(), LinkFull> {
        self.queue_item(message, Item::Raft)
    }

    /// Takes a part of a snapshot. A refused one is sent again when its time is over.
    pub fn queue_snapshot_part(&mut self, part: SnapshotPart) -> Result<(), LinkFull> {
        self.queue_item(part, Item::Part)
    }

    /// Takes how far a snapshot has come. A refused one is asked for by the next part.
    pub fn queue_snapshot_progress(&mut self, progress: SnapshotProgress) -> Result<(), LinkFull> {
        self.queue_item(progress, Item::Progress)
    }

    /// Takes where a shard's replicas are. A refused report is made again.
    pub fn queue_replica_report(&mut self, report: ReplicaReport) -> Result<(), LinkFull> {
        self.queue_item(report, Item::Report)
    }

    /// Takes what somebody wants the fleet to be. Whoever wants it sees whether it comes to that.
    pub fn queue_fleet_change(&mut self, fleet: Fleet) -> Result<(), LinkFull> {
        self.queue_item(fleet, Item::FleetChange)
    }

    /// Takes for which hibernating shards this node goes on. It says so again and again.
    pub fn queue_hibernating(&mut self, hibernating: Hibernating) -> Result<(), LinkFull> {
        self.queue_item(hibernating, Item::Hibernating)
    }

    fn queue_item<M: prost::Message>(&mut self, message: M, item: fn(M) -> Item) -> Result<(), LinkFull> {
        self.room()?;
        let bytes = item_bytes(&message)?;
        self.queue.push(item(message), bytes);
        Ok(())
    }

    /// Takes a position; an unsent one of the same pair of shards is replaced.
    pub fn queue_feed_ack(&mut self, ack: FeedAck) {
        self.acks.push(ack);
    }

    fn room(&self) -> Result<(), LinkFull> {
        match self.stage {
            Stage::New(_) | Stage::HelloSent => Err(LinkFull::NotReady),
            Stage::Open(_) if self.queue.is_full() => Err(LinkFull::Bytes),
            Stage::Open(_) => Ok(()),
        }
    }

    fn credits(&self) -> usize {
        self.welcome().map_or(0, |welcome| welcome.credits.min(LINK_CREDITS) as usize)
    }

    /// Takes a received frame. After a fault the link is over.
    pub fn handle_frame(
        &mut self,
        now_ms: u64,
        frame: LinkResponseFrame,
        sink: &mut impl FnMut(CallerEvent),
    ) -> Result<(), LinkFault> {
        if let (Stage::HelloSent, Some(LinkRefusal { version_min: min, version_max: max })) =
            (&self.stage, frame.refusal)
        {
            return Err(LinkFault::Version { ours: self.versions, theirs: Versions { min, max } });
        }
        match (&self.stage, frame.welcome) {
            (Stage::New(_), _) => return Err(LinkFault::Protocol("a frame before hello")),
            (Stage::HelloSent, Some(welcome)) => {
                self.versions.common(Versions { min: welcome.version, max: welcome.version })?;
                if welcome.credits == 0 || welcome.shard_count == 0 {
                    return Err(LinkFault::Protocol("a welcome without credits or shards"));
                }
                self.stage = Stage::Open(welcome);
                sink(CallerEvent::Welcome(welcome));
            }
            (Stage::HelloSent, None) => return Err(LinkFault::Protocol("a frame before welcome")),
            (Stage::Open(_), Some(_)) => return Err(LinkFault::Protocol("a second welcome")),
            (Stage::Open(_), None) => {}
        }
        self.heard_ms = self.heard_ms.max(now_ms);
        for response in frame.responses {
            if response.result.is_none() {
                return Err(LinkFault::Protocol("an answer without a result"));
            }
            let shard = self.unanswered.remove(&response.id);
            let shard = shard.ok_or(LinkFault::Protocol("an answer to no request"))?;
            if shard.is_some() {
                sink(CallerEvent::Response(response));
            }
        }
        frame.deliveries.into_iter().for_each(|delivery| sink(CallerEvent::Delivery(delivery)));
        frame.feed_acks.into_iter().for_each(|ack| sink(CallerEvent::FeedAck(ack)));
        // Before the leaders: some of them may be nodes that are new.
        frame.fleet.into_iter().for_each(|fleet| sink(CallerEvent::Fleet(fleet)));
        frame.leaders.into_iter().for_each(|leader| sink(CallerEvent::Leader(leader)));
        Ok(())
    }

    /// The next frame to send. Call until `None`.
    pub fn poll_frame(&mut self, now_ms: u64) -> Option<LinkRequestFrame> {
        let mut frame = LinkRequestFrame::default();
        match &self.stage {
            Stage::New(hello) => {
                frame.hello = Some(*hello);
                self.stage = Stage::HelloSent;
            }
            Stage::HelloSent => return None,
            Stage::Open(_) => {
                frame.ping = std::mem::take(&mut self.ping_due);
                frame.feed_acks = self.acks.pop_batch();
                self.queue.pop_batch(|item| match item {
                    Item::Request(request) => frame.requests.push(request),
                    Item::Feed(batch) => frame.feed.push(batch),
                    Item::Raft(message) => frame.raft.push(message),
                    Item::Part(part) => frame.snapshot_parts.push(part),
                    Item::Progress(progress) => frame.snapshot_progress.push(progress),
                    Item::Report(report) => frame.replica_reports.push(report),
                    Item::FleetChange(fleet) => frame.fleet_changes.push(fleet),
                    Item::Hibernating(hibernating) => frame.hibernating.push(hibernating),
                });
                if frame == LinkRequestFrame::default() {
                    return None;
                }
            }
        }
        self.sent_ms = self.sent_ms.max(now_ms);
        Some(frame)
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<u64> {
        let dead_ms = self.heard_ms.saturating_add(LINK_DEAD_MS);
        match self.stage {
            Stage::New(_) | Stage::HelloSent => Some(dead_ms),
            Stage::Open(_) => Some(self.ping_at_ms().min(dead_ms)),
        }
    }

    /// Makes a ping due for the next `poll_frame`, or finds the link dead.
    pub fn handle_timeout(&mut self, now_ms: u64) -> Result<(), LinkFault> {
        if now_ms >= self.heard_ms.saturating_add(LINK_DEAD_MS) {
            return Err(LinkFault::Dead);
        }
        if matches!(self.stage, Stage::Open(_)) && now_ms >= self.ping_at_ms() {
            self.ping_due = true;
            self.pinged_ms = now_ms;
        }
        Ok(())
    }

    /// Some time after either direction fell silent: the peer must hear us, and we must hear it.
    fn ping_at_ms(&self) -> u64 {
        self.sent_ms.min(self.heard_ms).max(self.pinged_ms).saturating_add(LINK_PING_MS)
    }

    /// Another node leads the shard, as others say: ids of its unanswered requests, ascending, queued ones included. What
    /// the peer may still answer to them is not told; until it does they count against its credits. A peer that is cut
    /// off would not answer before the link is found dead.
    pub fn give_back(&mut self, shard: u32) -> Vec<u64> {
        let of_shard = self.unanswered.iter_mut().filter(|(_, asked)| **asked == Some(shard));
        of_shard
            .map(|(id, asked)| {
                *asked = None;
                *id
            })
            .collect()
    }

    /// The connection is gone: ids of all unanswered requests, ascending, queued ones included.
    pub fn lost(self) -> Vec<u64> {
        self.unanswered.into_iter().filter_map(|(id, shard)| shard.map(|_| id)).collect()
    }

    /// Bytes of items not yet polled.
    pub fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// Unanswered requests, queued ones included.
    pub fn outstanding(&self) -> usize {
        self.unanswered.len()
    }

    /// What the peer said when it opened the link.
    pub fn welcome(&self) -> Option<&LinkWelcome> {
        match &self.stage {
            Stage::Open(welcome) => Some(welcome),
            _ => None,
        }
    }
}
