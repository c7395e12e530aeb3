//! Both ends of the change feed: as a source the shard sends events of its conversations to home shards; as a
//! home it merges what it gets, pushes it to attached sessions, and makes it durable by checkpoints of its own.

use super::{Effects, ReadJob, ReadWork, Shard, Stage};
use crate::failpoint::{self, Failpoint};
use crate::feed::source::BATCHES_IN_FLIGHT_MAX;
use crate::feed::{HomeFeed, SourceFeed};
use std::sync::atomic::Ordering;
use wire_protocol::ids::{DeviceId, ShardId, UserId};
use wire_protocol::internal::{
    Command, Delivery, FeedAck, FeedBatch, FeedCheckpoint, FeedItem, FeedPosition, command, delivery,
    feed_item,
};

impl Shard {
    /// What the log held is applied, and the durable positions are known; of a replica that was elected, its feed, too.
    pub(super) fn loaded(
        &mut self,
        now_ms: u64,
        positions: Vec<FeedPosition>,
        source: Option<Box<SourceFeed>>,
        effects: &mut Effects,
    ) {
        let is_whole = match (&self.source, &source) {
            (Some(_), None) => true,
            // One that ends elsewhere was asked for in an earlier term; another question is on its way.
            (None, Some(source)) => source.head() == self.pipeline.applied_index(),
            _ => false,
        };
        if !matches!(self.stage, Stage::Loading) || !is_whole {
            return;
        }
        self.source = self.source.take().or(source.map(|source| *source));
        self.stage = Stage::Serving(Box::new(HomeFeed::new(self.id, self.pipeline.term(), positions)));
        tracing::info!(shard = %self.id, applied = self.pipeline.applied_index(), "serving");
        for batch in std::mem::take(&mut self.deferred_batches) {
            self.take_batch(batch, effects);
        }
        self.resume_deferred(effects);
        self.send_feed(now_ms, effects);
    }

    /// Takes events for this shard's users. Before it serves they wait; each source has few batches in flight.
    pub fn take_batch(&mut self, batch: FeedBatch, effects: &mut Effects) {
        let Stage::Serving(home) = &mut self.stage else {
            // What a follower drops the source sends to the leader, when it has heard of it.
            let is_coming = !matches!(self.stage, Stage::Following);
            if is_coming && self.deferred_batches.len() < self.shard_count as usize * BATCHES_IN_FLIGHT_MAX {
                self.deferred_batches.push_back(batch);
            }
            return;
        };
        self.metrics.feed_batches.increment();
        let taken = home.take(batch);
        failpoint::pass(Failpoint::FeedTaken);
        if taken.ack.replay {
            self.metrics.feed_gaps.increment();
        }
        effects.acks.push(taken.ack);
        for item in taken.deliveries {
            self.push(item, effects);
        }
    }

    /// Pushes one event to the attached sessions of its users.
    fn push(&self, item: FeedItem, effects: &mut Effects) {
        let users: Vec<UserId> = item.user_ids.iter().filter_map(|id| UserId::from_slice(id)).collect();
        let links = self.registry.sessions(&users, DeviceId::from_slice(&item.origin_device_id));
        if links.is_empty() {
            return;
        }
        let event = match item.event {
            Some(feed_item::Event::Entry(entry)) => delivery::Event::Entry(entry),
            Some(feed_item::Event::Receipt(mut receipt)) => {
                receipt.conversation_id.clear();
                delivery::Event::Receipt(receipt)
            }
            None => return,
        };
        for (link, sessions) in links {
            let conversation_id = item.conversation_id.clone();
            let delivery = Delivery { sessions, conversation_id, event: Some(event.clone()) };
            effects.deliveries.push((link, delivery));
        }
    }

    /// A home shard tells how far it is.
    pub fn take_ack(&mut self, now_ms: u64, ack: &FeedAck, effects: &mut Effects) {
        if let Some(source) = &mut self.source {
            source.acked(now_ms, ack);
            self.send_feed(now_ms, effects);
        }
    }

    /// The way to the node of these home shards is new: what was sent there may be lost.
    pub fn peer_link_changed(&mut self, homes: &[ShardId]) {
        if let Some(source) = &mut self.source {
            homes.iter().for_each(|home| source.link_changed(*home));
            self.feed_due_ms = Some(0);
        }
    }

    /// Proposes what the home feed wants to make durable, if it is due.
    pub(super) fn checkpoint(&mut self, now_ms: u64) {
        let Stage::Serving(home) = &mut self.stage else { return };
        let Some(checkpoint) = home.poll_checkpoint(now_ms) else { return };
        failpoint::pass(Failpoint::CheckpointProposing);
        let command = Command { kind: Some(command::Kind::FeedCheckpoint(checkpoint)) };
        if self.pipeline.take(None, command).is_err() {
            home.checkpoint_refused();
        } else {
            self.metrics.feed_checkpoints.increment();
        }
    }

    pub(super) fn checkpointed(&mut self, checkpoint: &FeedCheckpoint, effects: &mut Effects) {
        // While the log is replayed there is no home feed yet, and the positions are read afterwards.
        if let Stage::Serving(home) = &mut self.stage {
            failpoint::pass(Failpoint::Checkpointed);
            effects.acks.extend(home.checkpointed(checkpoint));
        }
    }

    /// Sends what the source has for home shards, and tells how far the log may be cut.
    pub(super) fn send_feed(&mut self, now_ms: u64, effects: &mut Effects) {
        let Some(source) = &mut self.source else { return };
        while let Some(batch) = source.poll_batch(now_ms) {
            effects.batches.push(batch);
        }
        while let Some(reread) = source.poll_reread() {
            effects.reads.push(ReadJob { shard: self.id, work: ReadWork::Reread(reread) });
        }
        self.feed_due_ms = source.next_deadline_ms();
        // What another copy has not got yet has to stay, too.
        let feed_cut = source.cut_index();
        let matched = self.pipeline.group().matched(self.marks.kept_for());
        let log_cut = feed_cut.min(matched).min(self.snapshots.kept_from());
        self.marks.feed_cut.store(feed_cut, Ordering::Release);
        self.marks.log_cut.store(log_cut, Ordering::Release);
    }
}
