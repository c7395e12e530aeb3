//! What waits to be sent over a link: items in their order, and positions of which only the newest counts.

use super::LinkFull;
use crate::internal::FeedAck;
use crate::limits::{LINK_BATCH_BYTES, LINK_ITEM_BYTES_MAX, LINK_QUEUE_BYTES_MAX};
use prost::Message;
use std::collections::{BTreeMap, VecDeque};

/// Tag and length before an item in its frame, in bytes.
const ITEM_OVERHEAD_BYTES: usize = 6;
/// Positions in one frame: at 30 bytes each an eighth of a batch. The rest go with the next frame.
const ACKS_PER_FRAME_MAX: usize = 1_024;

/// Items in the order they came, with the bytes they will take.
#[derive(Debug)]
pub(super) struct ItemQueue<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
}

impl<T> Default for ItemQueue<T> {
    fn default() -> Self {
        Self { items: VecDeque::new(), bytes: 0 }
    }
}

/// The bytes an item takes in a frame; `ItemTooLarge` if no frame can carry it.
pub(super) fn item_bytes(message: &impl Message) -> Result<usize, LinkFull> {
    let bytes = message.encoded_len() + ITEM_OVERHEAD_BYTES;
    if bytes > LINK_ITEM_BYTES_MAX { Err(LinkFull::ItemTooLarge) } else { Ok(bytes) }
}

impl<T> ItemQueue<T> {
    /// Whether the queue takes anything more of what may be refused.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= LINK_QUEUE_BYTES_MAX
    }

    /// Takes an item even when full: for answers, whose number the credits bound.
    pub(super) fn push(&mut self, item: T, bytes: usize) {
        self.items.push_back((item, bytes));
        self.bytes += bytes;
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Hands on the next items: as many as fit a batch, or one that is larger alone.
    pub(super) fn pop_batch(&mut self, mut take: impl FnMut(T)) {
        let mut batch_bytes = 0;
        while let Some(&(_, bytes)) = self.items.front() {
            if batch_bytes > 0 && batch_bytes + bytes > LINK_BATCH_BYTES {
                break;
            }
            batch_bytes += bytes;
            self.bytes -= bytes;
            take(self.items.pop_front().expect("just looked at").0);
        }
        if self.items.is_empty() {
            debug_assert_eq!(self.bytes, 0);
            // A burst's memory is not kept.
            self.items.shrink_to(64);
        }
    }
}

/// Positions to tell, one for each pair of source and home shard, which also bounds them.
#[derive(Default, Debug)]
pub(super) struct AckQueue {
    acks: BTreeMap<(u32, u32), FeedAck>,
}

impl AckQueue {
    /// The newest position counts; a demand to send again stays until it is told.
    pub(super) fn push(&mut self, mut ack: FeedAck) {
        let pair = (ack.source_shard, ack.home_shard);
        ack.replay |= self.acks.get(&pair).is_some_and(|unsent| unsent.replay);
        self.acks.insert(pair, ack);
    }

    /// The next positions for one frame.
    pub(super) fn pop_batch(&mut self) -> Vec<FeedAck> {
        let count = self.acks.len().min(ACKS_PER_FRAME_MAX);
        (0..count).filter_map(|_| self.acks.pop_first()).map(|(_, ack)| ack).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_end_at_the_limit_and_a_large_item_goes_alone() {
        let mut queue = ItemQueue::default();
        let third = LINK_BATCH_BYTES / 3;
        for (item, bytes) in
            [third, third, third, third, LINK_ITEM_BYTES_MAX, 1, LINK_BATCH_BYTES].into_iter().enumerate()
        {
            queue.push(item, bytes);
        }
        let mut batches = Vec::new();
        while queue.bytes() > 0 {
            let mut batch = Vec::new();
            queue.pop_batch(|item| batch.push(item));
            batches.push(batch);
        }
        assert_eq!(batches, [vec![0, 1, 2], vec![3], vec![4], vec![5], vec![6]]);
        queue.pop_batch(|_| unreachable!("it is empty"));
    }

    #[test]
    fn positions_of_a_pair_are_replaced_but_a_replay_is_not_forgotten() {
        let mut queue = AckQueue::default();
        let ack = |home_shard, received_index, replay| FeedAck {
            source_shard: 1,
            home_shard,
            durable_index: 0,
            received_index,
            replay,
        };
        queue.push(ack(2, 5, true));
        queue.push(ack(2, 7, false));
        queue.push(ack(3, 1, false));
        assert_eq!(queue.pop_batch(), [ack(2, 7, true), ack(3, 1, false)]);
        queue.push(ack(2, 8, false));
        assert_eq!(queue.pop_batch(), [ack(2, 8, false)]);
        (0..ACKS_PER_FRAME_MAX as u32 + 1).for_each(|home| queue.push(ack(home, 1, false)));
        assert_eq!(queue.pop_batch().len(), ACKS_PER_FRAME_MAX);
        assert_eq!(queue.pop_batch().len(), 1);
    }
}
