//! Limits and single cases of either half.

use super::world::user;
use crate::feed::home::{CHECKPOINT_MS_MAX, CHECKPOINT_ROWS_MAX, DIRTY_ROWS_MAX, ROWS_MAX};
use crate::feed::source::{BATCHES_IN_FLIGHT_MAX, PROBE_MS, QUEUE_BYTES_MAX, RESEND_MS};
use crate::feed::{HomeFeed, HomeStart, SourceFeed};
use bytes::Bytes;
use prost::Message;
use wire_protocol::ids::{ConversationId, ShardId, UserId};
use wire_protocol::internal::{FeedAck, FeedBatch, FeedItem, FeedPosition, feed_item};
use wire_protocol::limits::{LINK_BATCH_BYTES, LINK_FRAME_BYTES_MAX};
use wire_protocol::v1::Entry;

fn item(conversation: u32, body: usize) -> FeedItem {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&conversation.to_be_bytes());
    let entry = Entry { seq: 1, body: vec![0; body].into(), ..Entry::default() };
    FeedItem {
        user_ids: vec![user(0).to_bytes()],
        conversation_id: ConversationId(id).to_bytes(),
        top_seq: 1,
        activity_ms: 1,
        event: Some(feed_item::Event::Entry(entry)),
        ..FeedItem::default()
    }
}

fn batch(from_index: u64, to_index: u64, items: Vec<FeedItem>) -> FeedBatch {
    FeedBatch { source_shard: 5, home_shard: 0, from_index, to_index, items }
}

fn source() -> SourceFeed {
    SourceFeed::new(ShardId(5), 1, &[HomeStart { shard: ShardId(0), durable_index: 0 }], 0)
}

fn ack(received_index: u64, durable_index: u64) -> FeedAck {
    FeedAck { source_shard: 5, home_shard: 0, received_index, durable_index, replay: false }
}

#[test]
fn a_gap_asks_for_a_replay_and_takes_nothing() {
    let mut home = HomeFeed::new(ShardId(0), 1, vec![FeedPosition { source_shard: 5, log_index: 3 }]);
    let taken = home.take(batch(4, 5, vec![item(1, 1)]));
    assert!(taken.ack.replay && taken.deliveries.is_empty());
    assert_eq!((taken.ack.received_index, taken.ack.durable_index), (3, 3));
    assert_eq!(home.dirty_rows(), 0);
    let taken = home.take(batch(3, 5, vec![item(1, 1)]));
    assert!(!taken.ack.replay);
    assert_eq!((taken.ack.received_index, taken.ack.durable_index), (5, 3));
    assert_eq!(taken.deliveries.len(), 1);
}

#[test]
fn older_batches_are_known_and_places_are_not_pushed() {
    let mut home = HomeFeed::new(ShardId(0), 1, vec![]);
    home.take(batch(0, 9, vec![item(1, 1)]));
    assert!(home.take(batch(0, 8, vec![item(1, 1)])).deliveries.is_empty());
    let version = home.newest_version(user(0));
    let place = FeedItem { event: None, ..item(1, 1) };
    assert!(home.take(batch(9, 10, vec![place])).deliveries.is_empty());
    assert!(home.newest_version(user(0)) > version);
}

#[test]
fn items_with_broken_ids_are_passed_over() {
    let mut home = HomeFeed::new(ShardId(0), 1, vec![]);
    let broken = FeedItem { conversation_id: Bytes::from_static(b"short"), ..item(1, 1) };
    let half = FeedItem { user_ids: vec![Bytes::new(), user(0).to_bytes()], ..item(2, 1) };
    home.take(batch(0, 1, vec![broken, half]));
    assert_eq!(home.dirty_rows(), 1);
}

#[test]
fn versions_grow_across_starts() {
    let mut home = HomeFeed::new(ShardId(0), 1, vec![]);
    (0..1_000).for_each(|index| drop(home.take(batch(index, index + 1, vec![item(1, 1)]))));
    let before = home.newest_version(user(0));
    let mut home = HomeFeed::new(ShardId(0), 2, vec![]);
    assert!(Some(home.view(user(0)).version) > before, "also for those who look before anything changed");
    home.take(batch(0, 1, vec![item(1, 1)]));
    assert!(home.newest_version(user(0)) > before);
}

#[test]
fn checkpoints_wait_for_their_time_unless_there_is_much() {
    let mut home = HomeFeed::new(ShardId(0), 1, vec![]);
    assert_eq!(home.next_checkpoint_ms(), None);
    home.take(batch(0, 1, vec![item(1, 1)]));
    let first = home.poll_checkpoint(10_000).expect("the first is due at once");
    assert_eq!(home.next_checkpoint_ms(), None, "one at a time");
    assert_eq!(home.checkpointed(&first)[0].durable_index, 1);
    home.take(batch(1, 2, vec![item(1, 1)]));
    assert_eq!(home.next_checkpoint_ms(), Some(11_000));
    assert_eq!(home.poll_checkpoint(10_999), None);
    home.take(batch(2, 3, (0..30_000).map(|number| item(number, 1)).collect()));
    assert_eq!(home.next_checkpoint_ms(), Some(10_000 + CHECKPOINT_MS_MAX));
    home.take(batch(3, 4, (0..DIRTY_ROWS_MAX as u32).map(|number| item(number, 1)).collect()));
    assert_eq!(home.next_checkpoint_ms(), Some(0));
}

#[test]
fn a_large_checkpoint_comes_in_parts_and_its_positions_with_the_last() {
    let mut home = HomeFeed::new(ShardId(0), 1, vec![]);
    home.take(batch(0, 7, (0..CHECKPOINT_ROWS_MAX as u32 + 1).map(|number| item(number, 1)).collect()));
    let first = home.poll_checkpoint(10_000).expect("due");
    assert_eq!((first.rows.len(), first.positions.len()), (CHECKPOINT_ROWS_MAX, 0));
    // What changes between the parts is left for the next time, but the round goes on to its end.
    home.take(batch(7, 8, vec![item(0, 1), item(CHECKPOINT_ROWS_MAX as u32, 1)]));
    assert_eq!(home.checkpointed(&first), []);
    let second = home.poll_checkpoint(10_000).expect("the round goes on at once");
    assert_eq!(second.rows.len(), 1);
    assert_eq!(second.positions, [FeedPosition { source_shard: 5, log_index: 7 }]);
    assert!(second.encoded_len() + first.encoded_len() < 512 * 1024);
    assert_eq!(home.checkpointed(&second), [ack(8, 7)]);
    assert_eq!(home.dirty_rows(), 1);
}

#[test]
fn a_full_home_takes_no_more_until_a_checkpoint() {
    let mut home = HomeFeed::new(ShardId(0), 1, vec![]);
    home.take(batch(0, 1, (0..ROWS_MAX as u32).map(|number| item(number, 1)).collect()));
    let taken = home.take(batch(1, 2, vec![item(1, 1)]));
    assert_eq!((taken.ack.received_index, taken.ack.replay, taken.deliveries.len()), (1, false, 0));
    let part = home.poll_checkpoint(10_000).expect("due");
    home.checkpointed(&part);
    assert_eq!(home.take(batch(1, 2, vec![item(1, 1)])).ack.received_index, 2);
}

#[test]
fn a_source_has_few_batches_in_flight_and_sends_them_again() {
    let mut source = source();
    for index in 1..=10 {
        source.record(index, vec![item(1, LINK_BATCH_BYTES / 2 + 1)]);
    }
    let sent: Vec<FeedBatch> = std::iter::from_fn(|| source.poll_batch(1_000)).collect();
    let ends: Vec<(u64, u64)> = sent.iter().map(|batch| (batch.from_index, batch.to_index)).collect();
    assert_eq!(ends, [(0, 1), (1, 2), (2, 3), (3, 4)]);
    assert_eq!(ends.len(), BATCHES_IN_FLIGHT_MAX);
    assert_eq!(source.next_deadline_ms(), Some(1_000 + RESEND_MS));
    source.acked(1_500, &ack(2, 0));
    let sent: Vec<u64> =
        std::iter::from_fn(|| source.poll_batch(1_500)).map(|batch| batch.to_index).collect();
    assert_eq!(sent, [5, 6]);
    let again = source.poll_batch(1_500 + RESEND_MS).expect("silence");
    assert_eq!((again.from_index, again.to_index), (2, 3));
}

#[test]
fn a_home_that_is_silent_about_durability_is_asked() {
    let mut source = source();
    source.record(1, vec![item(1, 1)]);
    source.poll_batch(1_000).expect("sent");
    source.acked(1_010, &ack(1, 0));
    assert_eq!(source.cut_index(), 0);
    assert_eq!(source.poll_batch(1_010 + PROBE_MS - 1), None);
    let probe = source.poll_batch(1_010 + PROBE_MS).expect("a question");
    assert_eq!((probe.from_index, probe.to_index, probe.items.len()), (1, 1, 0));
    source.acked(12_000, &ack(1, 1));
    assert_eq!(source.cut_index(), 1);
    assert_eq!(source.next_deadline_ms(), None);
}

#[test]
fn what_a_queue_cannot_hold_is_read_again() {
    let mut source = source();
    let entries = 2 * QUEUE_BYTES_MAX as u64 / 100_000;
    for index in 1..=entries {
        source.record(index, vec![item(1, 100_000)]);
    }
    assert!(source.queued_bytes() <= QUEUE_BYTES_MAX + 100_100);
    let mut received = 0;
    let mut rereads = 0;
    while received < entries {
        while let Some(batch) = source.poll_batch(1) {
            assert_eq!(batch.from_index, received, "in order, without gaps");
            received = batch.to_index;
            source.acked(1, &ack(received, 0));
        }
        if let Some(asked) = source.poll_reread() {
            assert_eq!(asked.from_index, received);
            let again = (asked.from_index + 1..=asked.to_index).map(|index| (index, vec![item(1, 100_000)]));
            source.reread(asked, again.collect());
            rereads += 1;
        }
        assert!(source.queued_bytes() <= QUEUE_BYTES_MAX + 100_100);
    }
    assert!(rereads >= 1);
    assert_eq!(source.queued_bytes(), 0);
}

#[test]
fn an_entry_too_big_for_a_batch_is_sent_in_parts() {
    let mut source = source();
    source.record(1, vec![item(0, 1)]);
    source.record(2, (0..10).map(|number| item(number, 60_000)).collect());
    source.record(3, vec![item(0, 1)]);
    let mut home = HomeFeed::new(ShardId(0), 1, vec![]);
    let mut deliveries = 0;
    let mut batches = 0;
    while let Some(batch) = source.poll_batch(1) {
        assert!(batch.encoded_len() < LINK_FRAME_BYTES_MAX / 4);
        let taken = home.take(batch);
        deliveries += taken.deliveries.len();
        batches += 1;
        source.acked(1, &taken.ack);
    }
    assert_eq!(deliveries, 12);
    assert!(batches > 2);
    assert_eq!(source.queued_bytes(), 0);
}

#[test]
fn each_home_gets_its_own_users() {
    let homes: Vec<HomeStart> =
        (0..4).map(|shard| HomeStart { shard: ShardId(shard), durable_index: 0 }).collect();
    let mut source = SourceFeed::new(ShardId(5), 4, &homes, 0);
    let users: Vec<UserId> = (0..20).map(user).collect();
    let user_ids = users.iter().map(|user| user.to_bytes()).collect();
    source.record(1, vec![FeedItem { user_ids, ..item(1, 1) }]);
    let mut seen = 0;
    while let Some(batch) = source.poll_batch(1) {
        for id in &batch.items[0].user_ids {
            assert_eq!(UserId::from_slice(id).unwrap().slot().shard(4).0, batch.home_shard);
            seen += 1;
        }
    }
    assert_eq!(seen, users.len());
}

#[test]
fn a_new_way_to_a_home_is_used_at_once_for_what_may_be_lost() {
    let mut source = source();
    for index in 1..=2 {
        source.record(index, vec![item(1, LINK_BATCH_BYTES / 2 + 1)]);
    }
    let sent: Vec<u64> =
        std::iter::from_fn(|| source.poll_batch(1_000)).map(|batch| batch.to_index).collect();
    assert_eq!(sent, [1, 2]);
    source.acked(1_000, &ack(1, 0));
    assert_eq!(source.poll_batch(1_000), None);
    source.link_changed(ShardId(0));
    let again = source.poll_batch(1_000).expect("without waiting for silence");
    assert_eq!((again.from_index, again.to_index), (1, 2));
}

#[test]
fn an_older_place_does_not_bring_a_row_back() {
    let mut home = HomeFeed::new(ShardId(0), 1, vec![]);
    let at = |top_seq, activity_ms| FeedItem { top_seq, activity_ms, ..item(1, 1) };
    home.take(batch(0, 1, vec![at(5, 50)]));
    let before = home.newest_version(user(0));
    home.take(batch(1, 2, vec![at(3, 30)]));
    let rows = home.view(user(0)).rows;
    assert_eq!((rows[0].top_seq, rows[0].activity_ms), (5, 50));
    assert!(Some(rows[0].version) > before, "but it is a change");
}
