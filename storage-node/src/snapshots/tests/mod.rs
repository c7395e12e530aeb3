//! Snapshots on a network that loses and doubles, on disks that fail, and through crashes at every step.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod receiver;
mod answers;
mod crash;
mod removal;
mod queue;
mod pace;
mod transfer;

use super::contents::Contents;
use super::outgoing::Outgoing;
use crate::config::LogConfig;
use crate::disk::Disk;
use crate::domain::{self, Overlay};
use crate::engine::{MemoryStore, Store, WriteBatch, keys};
use crate::replication::Log;
use bytes::Bytes;
use std::path::Path;
use wire_protocol::ids::{ConversationId, Seq, ShardId, UserId};
use wire_protocol::internal::raft_message::Kind;
use wire_protocol::internal::{RaftEntry, RaftMessage, SnapshotPoint};

pub const SHARDS: u32 = 4;
pub const TERM: u64 = 1;
/// The newest entry and, of those that are copied, the first.
pub const INDEX: u64 = 40;
pub const FEED_CUT: u64 = 33;

pub fn log_config() -> LogConfig {
    LogConfig { file_bytes: 64 << 10, keep_bytes: 128 << 10, prefill: false }
}

pub fn open_log(disk: Disk, folder: &Path) -> Log {
    Log::open_on(disk, folder, &log_config()).expect("it opens")
}

pub fn entry(index: u64) -> RaftEntry {
    let record = Bytes::from(vec![1; 200]);
    RaftEntry { kind: 0, term: TERM, index, record }
}

/// A log with entries up to [`INDEX`].
pub fn leader_log(folder: &Path, shard: ShardId) -> Log {
    let log = open_log(Disk::Real, folder);
    log.begin_anew(shard, (1..=INDEX).map(entry).collect()).expect("it writes");
    log.cut(&[(shard, FEED_CUT)]).expect("it cuts");
    log
}

/// Rows of conversations and users all over the fleet, some of them larger than others, applied up to an entry.
pub fn fill(store: &MemoryStore, shard: ShardId, numbers: impl Iterator<Item = u32>, index: u64) {
    let mut batch = WriteBatch::new();
    for number in numbers {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let value = vec![number as u8; 20 + (number as usize * 7_919) % 9_000];
        batch.put(keys::message(ConversationId(id), Seq(u64::from(number))), value.clone());
        batch.put(keys::user(UserId(id)), value);
    }
    for home in 0..SHARDS {
        batch.put(keys::feed_position(ShardId(home), shard), vec![home as u8]);
    }
    store.write(batch).expect("memory");
    let mut overlay = Overlay::new(store);
    domain::set_applied_index(&mut overlay, shard, index, 1_000 + index);
    store.write(overlay.into_batch()).expect("memory");
}

/// Rows of one shard.
pub fn rows_of(store: &MemoryStore, shard: ShardId) -> Vec<(Vec<u8>, Bytes)> {
    let ranges = keys::ranges_of_shard(shard, SHARDS);
    let is_in = |key: &[u8]| ranges.iter().any(|(from, to)| (&from[..]..&to[..]).contains(&key));
    store.rows().into_iter().filter(|(key, _)| is_in(key)).collect()
}

pub fn message(shard: ShardId) -> RaftMessage {
    let point = SnapshotPoint { index: INDEX, term: TERM, voters: vec![1, 2, 3], ..SnapshotPoint::default() };
    RaftMessage {
        shard: shard.0,
        kind: Kind::Snapshot as i32,
        from: 1,
        to: 2,
        term: TERM,
        snapshot: Some(point),
        ..RaftMessage::default()
    }
}

/// A snapshot of the shard for node 2, with Raft's message.
pub fn outgoing(store: &MemoryStore, shard: ShardId) -> Outgoing {
    let view = store.view().expect("memory");
    let contents = Contents::new(shard, SHARDS, view, INDEX, FEED_CUT);
    let mut outgoing = Outgoing::new(shard, 2, contents, 0);
    assert!(outgoing.begin(0, message(shard)));
    outgoing
}
