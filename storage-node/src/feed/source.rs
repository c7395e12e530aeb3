//! A conversation shard's events on their way out, to every home shard its members live in.
//!
//! For each home shard it keeps what was sent but not yet received, and its positions in this shard's log:
//!
//! ```text
//! durable <= received <= sent <= queue.to <= head     (`last` is the newest entry with items for this home shard)
//! ```
//!
//! What was received leaves memory. A home shard that lost its memory asks for everything above what it had made
//! durable; one that was away for long has more waiting than the queue may hold. In both cases the items come from
//! the log again ([`SourceFeed::poll_reread`]). The log may be cut below the least durable position, where a home
//! shard with nothing outstanding counts as being at the head.

use bytes::Bytes;
use prost::Message;
use std::collections::{BTreeMap, VecDeque};
use wire_protocol::ids::{ShardId, UserId};
use wire_protocol::internal::{FeedAck, FeedBatch, FeedItem, feed_item};
use wire_protocol::limits::LINK_BATCH_BYTES;

/// Bytes of items queued for one home shard: a few batches. Later ones stay in the log until these are received.
pub const QUEUE_BYTES_MAX: usize = 8 * LINK_BATCH_BYTES;
/// Batches sent to one home shard and not yet received.
pub const BATCHES_IN_FLIGHT_MAX: usize = 4;
/// A batch is sent again when nothing was heard for this long, in milliseconds. Links are reliable while they last:
/// this covers a home shard that had no room.
pub const RESEND_MS: u64 = 1_000;
/// A home shard that has received everything is asked for its durable position when it was silent for this long, in
/// milliseconds: longer than its checkpoints are apart.
pub const PROBE_MS: u64 = 10_000;
/// Tags and lengths of an item within a batch, in bytes.
const ITEM_FRAMING_BYTES: usize = 8;

const _: () = assert!(PROBE_MS > super::home::CHECKPOINT_MS_MAX);

/// What is known of a home shard when the source starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomeStart {
    /// The home shard.
    pub shard: ShardId,
    /// How far it has durably taken this source's feed, if that is known here; 0: not known.
    pub durable_index: u64,
}

/// Log entries to be read again: their items are no longer in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reread {
    /// The home shard that needs them.
    pub home: ShardId,
    /// Entries above this index.
    pub from_index: u64,
    /// Up to this one, included.
    pub to_index: u64,
}

/// Sends a conversation shard's events to all home shards, in log order, at least once.
#[derive(Debug)]
pub struct SourceFeed {
    shard: ShardId,
    shard_count: u32,
    /// The newest entry recorded.
    head: u64,
    homes: BTreeMap<u32, Home>,
}

/// Items of one log entry for one home shard: all of them, or as many as fit a batch.
#[derive(Debug)]
struct Part {
    index: u64,
    /// No part of the same entry follows.
    is_last: bool,
    items: Vec<FeedItem>,
    bytes: usize,
}

/// All items of a stretch of the log, in order.
#[derive(Debug, Default)]
struct Queue {
    /// Everything up to this entry is in `parts`, was received, or does not concern this home shard.
    to: u64,
    parts: VecDeque<Part>,
    bytes: usize,
}

/// A question to the owner that is not answered yet.
#[derive(Debug)]
struct Rereading {
    /// Entries above this one,
    from_index: u64,
    /// up to this one, the head when it was asked.
    to_index: u64,
    /// What was recorded since.
    later: Queue,
}

#[derive(Debug, Default)]
struct Home {
    durable: u64,
    received: u64,
    /// What the home shard has been told to be covered.
    sent: u64,
    /// Newest entry with items for this home shard.
    last: u64,
    queue: Queue,
    /// Parts at the queue's front that were sent.
    parts_sent: usize,
    rereading: Option<Rereading>,
    /// `to_index` of batches not yet received.
    in_flight: VecDeque<u64>,
    /// Ask for the home shard's positions, with an empty batch if need be.
    probe: bool,
    /// When something was sent into silence, or last heard, in milliseconds.
    heard_ms: u64,
}

impl SourceFeed {
    /// `start_index`: everything up to it is known to be durable at all home shards (the log is cut there). The owner
    /// then records all later entries, replayed ones first.
    pub fn new(shard: ShardId, shard_count: u32, homes: &[HomeStart], start_index: u64) -> Self {
        let home = |start: &HomeStart| {
            let home = Home {
                durable: start.durable_index.max(start_index),
                received: start.durable_index,
                sent: start.durable_index,
                queue: Queue { to: start_index, ..Queue::default() },
                ..Home::default()
            };
            (start.shard.0, home)
        };
        Self { shard, shard_count, head: start_index, homes: homes.iter().map(home).collect() }
    }

    /// The newest entry recorded.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Takes over the feed items of one applied (or, at start, replayed) log entry. Every entry is recorded, in
    /// order, also one without items.
    pub fn record(&mut self, log_index: u64, items: Vec<FeedItem>) {
        assert!(log_index > self.head, "entries are recorded once, in order");
        let mut items = split(items, self.shard_count);
        for (shard, home) in &mut self.homes {
            home.record(self.head, log_index, items.remove(shard).unwrap_or_default());
        }
        self.head = log_index;
    }

    /// The next batch for a home shard, if there is any to send.
    pub fn poll_batch(&mut self, now_ms: u64) -> Option<FeedBatch> {
        let shard = self.shard;
        self.homes.iter_mut().find_map(|(&home_shard, home)| {
            home.check_silence(now_ms);
            let batch = home.next_batch(now_ms)?;
            Some(FeedBatch { source_shard: shard.0, home_shard, ..batch })
        })
    }

    /// When `poll_batch` must be called without any other cause, in milliseconds.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.homes.values().filter_map(Home::deadline_ms).min()
    }

    /// Log entries the owner must read again and hand to `reread`. Each is asked for once.
    pub fn poll_reread(&mut self) -> Option<Reread> {
        let head = self.head;
        self.homes.iter_mut().find_map(|(&shard, home)| {
            let from_index = home.begin_reread(head)?;
            Some(Reread { home: ShardId(shard), from_index, to_index: head })
        })
    }

    /// The items of the entries asked for, from `domain::replay_events`, by ascending log index. Entries without
    /// items, and those the log no longer holds, are left out. `asked.to_index` may be lowered to how far the owner
    /// went this time.
    pub fn reread(&mut self, asked: Reread, entries: Vec<(u64, Vec<FeedItem>)>) {
        let shard_count = self.shard_count;
        if let Some(home) = self.homes.get_mut(&asked.home.0) {
            let entries = entries.into_iter().map(|(index, items)| {
                (index, split(items, shard_count).remove(&asked.home.0).unwrap_or_default())
            });
            home.reread(asked, entries);
        }
    }

    /// A home shard's answer, or the news that it has made more durable.
    pub fn acked(&mut self, now_ms: u64, ack: &FeedAck) {
        if let Some(home) = self.homes.get_mut(&ack.home_shard) {
            home.acked(now_ms, ack);
        }
    }

    /// The way to this home shard was lost or is new: what was sent may not have arrived.
    pub fn link_changed(&mut self, home: ShardId) {
        if let Some(home) = self.homes.get_mut(&home.0) {
            home.send_again();
            home.probe = home.durable < home.last;
        }
    }

    /// The log may be cut up to here, as far as the feed is concerned.
    pub fn cut_index(&self) -> u64 {
        let bound = |home: &Home| if home.durable >= home.last { self.head } else { home.durable };
        self.homes.values().map(bound).min().unwrap_or(self.head)
    }

    /// Bytes of items in memory, for metrics.
    pub fn queued_bytes(&self) -> usize {
        let bytes = |home: &Home| {
            home.queue.bytes + home.rereading.as_ref().map_or(0, |rereading| rereading.later.bytes)
        };
        self.homes.values().map(bytes).sum()
    }
}

impl Home {
    fn record(&mut self, head: u64, index: u64, items: Vec<FeedItem>) {
        if self.durable >= self.last {
            // Nothing was outstanding, so everything up to here is durable.
            self.durable = self.durable.max(head);
        }
        let items = if index > self.durable { items } else { Vec::new() };
        if !items.is_empty() {
            self.last = index;
        }
        let queue = self.rereading.as_mut().map_or(&mut self.queue, |rereading| &mut rereading.later);
        // Once an entry was left to the log, all later ones are: order is kept.
        if queue.to == head {
            queue.append(index, items);
        }
    }

    fn check_silence(&mut self, now_ms: u64) {
        if self.deadline_ms().is_some_and(|deadline_ms| now_ms >= deadline_ms) {
            self.send_again();
            self.probe = true;
            self.heard_ms = now_ms;
        }
    }

    fn deadline_ms(&self) -> Option<u64> {
        if !self.in_flight.is_empty() {
            return Some(self.heard_ms + RESEND_MS);
        }
        (self.durable < self.last && self.received >= self.last).then_some(self.heard_ms + PROBE_MS)
    }

    /// Sends everything that was not received again.
    fn send_again(&mut self) {
        self.sent = self.received;
        self.parts_sent = 0;
        self.in_flight.clear();
    }

    fn next_batch(&mut self, now_ms: u64) -> Option<FeedBatch> {
        if self.in_flight.len() >= BATCHES_IN_FLIGHT_MAX {
            return None;
        }
        let mut batch = FeedBatch { from_index: self.sent, to_index: self.sent, ..FeedBatch::default() };
        let mut bytes = 0;
        for part in self.queue.parts.range(self.parts_sent.min(self.queue.parts.len())..) {
            if bytes > 0 && bytes + part.bytes > LINK_BATCH_BYTES {
                break;
            }
            bytes += part.bytes;
            batch.items.extend(part.items.iter().cloned());
            batch.to_index = batch.to_index.max(if part.is_last { part.index } else { part.index - 1 });
            self.parts_sent += 1;
        }
        if batch.items.is_empty() && !self.probe {
            return None;
        }
        if self.parts_sent == self.queue.parts.len() {
            batch.to_index = batch.to_index.max(self.queue.to);
        }
        self.probe = false;
        self.sent = batch.to_index;
        if self.in_flight.is_empty() {
            self.heard_ms = now_ms;
        }
        self.in_flight.push_back(batch.to_index);
        Some(batch)
    }

    fn acked(&mut self, now_ms: u64, ack: &FeedAck) {
        self.heard_ms = now_ms;
        self.durable = self.durable.max(ack.durable_index);
        if ack.replay {
            // Several batches in flight bring several of these.
            let is_done = self.in_flight.is_empty() && self.sent == ack.durable_index;
            if !is_done {
                self.start_over(ack.durable_index);
            }
            return;
        }
        self.received = self.received.max(ack.received_index);
        self.sent = self.sent.max(self.received);
        self.in_flight.retain(|to_index| *to_index > ack.received_index);
        while self.queue.parts.front().is_some_and(|part| part.index <= self.received) {
            self.queue.remove_first();
            self.parts_sent = self.parts_sent.saturating_sub(1);
        }
    }

    /// The home shard knows nothing above `index`.
    fn start_over(&mut self, index: u64) {
        self.received = index;
        self.queue = Queue { to: index, ..Queue::default() };
        self.rereading = None;
        self.send_again();
    }

    fn begin_reread(&mut self, head: u64) -> Option<u64> {
        if self.queue.to == head || self.rereading.is_some() || !self.queue.parts.is_empty() {
            return None;
        }
        if self.last <= self.queue.to {
            // Nothing in between concerns this home shard.
            self.queue.to = head;
            return None;
        }
        let later = Queue { to: head, ..Queue::default() };
        self.rereading = Some(Rereading { from_index: self.queue.to, to_index: head, later });
        Some(self.queue.to)
    }

    fn reread(&mut self, asked: Reread, entries: impl Iterator<Item = (u64, Vec<FeedItem>)>) {
        // Starting over in the meantime made the question void.
        let is_asked = |rereading: &mut Rereading| rereading.from_index == asked.from_index;
        let Some(rereading) = self.rereading.take_if(is_asked) else { return };
        for (index, items) in entries {
            let is_asked = index > self.queue.to && index <= asked.to_index;
            if is_asked && !self.queue.append(index, items) {
                return;
            }
        }
        self.queue.to = self.queue.to.max(asked.to_index);
        if asked.to_index == rereading.to_index {
            self.queue.join(rereading.later);
        }
    }
}

impl Queue {
    /// Takes an entry's items if there is room, or if there is nothing else.
    fn append(&mut self, index: u64, items: Vec<FeedItem>) -> bool {
        let parts = parts(index, items);
        let bytes: usize = parts.iter().map(|part| part.bytes).sum();
        if !self.parts.is_empty() && self.bytes + bytes > QUEUE_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        self.parts.extend(parts);
        self.to = index;
        true
    }

    /// Continues with what follows, if there is room.
    fn join(&mut self, later: Queue) {
        if self.bytes + later.bytes <= QUEUE_BYTES_MAX {
            self.bytes += later.bytes;
            self.parts.extend(later.parts);
            self.to = later.to;
        }
    }

    fn remove_first(&mut self) {
        if let Some(part) = self.parts.pop_front() {
            self.bytes -= part.bytes;
        }
    }
}

/// Cuts an entry's items into parts that fit a batch.
fn parts(index: u64, items: Vec<FeedItem>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for item in items {
        let bytes = item.encoded_len() + ITEM_FRAMING_BYTES;
        match parts.last_mut() {
            Some(part) if part.bytes + bytes <= LINK_BATCH_BYTES => {
                part.bytes += bytes;
                part.items.push(item);
            }
            _ => parts.push(Part { index, is_last: false, items: vec![item], bytes }),
        }
    }
    if let Some(part) = parts.last_mut() {
        part.is_last = true;
    }
    parts
}

/// The items for each home shard, with only its users.
fn split(items: Vec<FeedItem>, shard_count: u32) -> BTreeMap<u32, Vec<FeedItem>> {
    let mut homes: BTreeMap<u32, Vec<FeedItem>> = BTreeMap::new();
    for item in items {
        let mut users: BTreeMap<u32, Vec<Bytes>> = BTreeMap::new();
        for user in &item.user_ids {
            if let Some(id) = UserId::from_slice(user) {
                users.entry(id.slot().shard(shard_count).0).or_default().push(user.clone());
            }
        }
        let item = FeedItem { user_ids: Vec::new(), ..without_log_memory(item) };
        for (home, user_ids) in users {
            homes.entry(home).or_default().push(FeedItem { user_ids, ..item.clone() });
        }
    }
    homes
}

/// The body was a slice of the whole log entry: a queued item must not keep that in memory.
fn without_log_memory(mut item: FeedItem) -> FeedItem {
    item.origin_device_id = Bytes::copy_from_slice(&item.origin_device_id);
    if let Some(feed_item::Event::Entry(entry)) = &mut item.event {
        entry.body = Bytes::copy_from_slice(&entry.body);
    }
    item
}
