//! What happens beside the way of a message: making the store durable, and cutting the log behind it.

use crate::clock;
use crate::domain;
use crate::engine::{StoreError, WriteBatch};
use crate::failpoint::{self, Failpoint};
use crate::plant::{self, Plant};
use crate::replication::{KeptFor, ReplicationError};
use crate::worker::NodeShared;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::sync::atomic::Ordering;
use std::time::Duration;
use wire_protocol::ids::ShardId;

/// How often it is looked whether a sync is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether what the log held at the start is applied.
const LOOK_WHILE_RECOVERING: Duration = Duration::from_millis(50);
/// The store is synced at least this often while anything is written: what a start has to apply again is at most
/// this much.
const SYNC_EVERY: Duration = Duration::from_secs(10);
/// And whenever this part of the kept log was written, so that old files are free before new ones are needed.
const SYNC_PART_OF_LOG: u64 = 4;

/// A log of more than so many times what is kept is not kept any longer for replicas that are silent: those get a snapshot
/// of the shard when they come back.
const LOG_KEPT_FOR_SILENT: u64 = 2;
/// A log of more than so many times what is kept is not kept for any other replica.
const LOG_KEPT_FOR_OTHERS: u64 = 8;

/// Runs until it is told to stop.
pub(crate) fn run_maintenance(
    shared: &NodeShared,
    stop: &Receiver<()>,
    log_keep_bytes: u64,
) -> Result<(), String> {
    if !persist_what_was_recovered(shared, stop)? {
        return Ok(());
    }
    let mut synced_at = clock::now();
    let (mut synced_bytes, mut seen_fleet) = (0, shared.fleet.changes());
    while stop.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        tell_usage(shared);
        decide_for_whom(shared, log_keep_bytes);
        let new_bytes = shared.metrics.log_bytes.value() - synced_bytes;
        let is_due = synced_at.elapsed() >= SYNC_EVERY || new_bytes >= log_keep_bytes / SYNC_PART_OF_LOG;
        let fleet = shared.fleet.changes();
        if (new_bytes > 0 && is_due) || fleet != seen_fleet {
            seen_fleet = fleet;
            synced_bytes += new_bytes;
            persist(shared)?;
            synced_at = clock::now();
        }
    }
    Ok(())
}

/// Tells leaders whether the log has room enough to wait for replicas that lag.
fn decide_for_whom(shared: &NodeShared, log_keep_bytes: u64) {
    let used = shared.log.used_bytes() as u64;
    let kept_for = match log_keep_bytes {
        keep if used > keep.saturating_mul(LOG_KEPT_FOR_OTHERS) => KeptFor::Own,
        keep if used > keep.saturating_mul(LOG_KEPT_FOR_SILENT) => KeptFor::Heard,
        _ => KeptFor::All,
    };
    shared.map.own_shards().into_iter().for_each(|shard| shared.marks_of(shard).keep_for(kept_for));
}

fn tell_usage(shared: &NodeShared) {
    let usage = shared.store.usage();
    shared.metrics.store_memtable_bytes.set(usage.memtable_bytes);
    shared.metrics.store_cache_bytes.set(usage.cache_bytes);
    shared.metrics.store_table_bytes.set(usage.table_bytes);
}

/// Syncs the store as soon as the log is applied, and every [`SYNC_EVERY`] until then: a process that is killed again and
/// again must not apply the same ever longer log each time. One of several copies may never apply its log's end, which
/// its leader has not: once nothing more is applied it is not waited for. False: it was told to stop.
fn persist_what_was_recovered(shared: &NodeShared, stop: &Receiver<()>) -> Result<bool, String> {
    let lasts: Vec<(ShardId, u64)> = shared
        .map
        .own_shards()
        .into_iter()
        .filter_map(|shard| Some((shard, shared.log.span(shard)?.1)))
        .collect();
    let is_behind = || {
        let mut shards = lasts.iter();
        shards.any(|(shard, last)| shared.marks_of(*shard).applied.load(Ordering::Acquire) < *last)
    };
    let applied = || -> u64 {
        lasts.iter().map(|(shard, _)| shared.marks_of(*shard).applied.load(Ordering::Acquire)).sum()
    };
    if !is_behind() {
        return Ok(true);
    }
    let (mut looked_at, mut seen) = (clock::now(), applied());
    while is_behind() {
        if stop.recv_timeout(LOOK_WHILE_RECOVERING) != Err(RecvTimeoutError::Timeout) {
            return Ok(false);
        }
        if looked_at.elapsed() >= SYNC_EVERY {
            let now_applied = applied();
            if now_applied == seen {
                break;
            }
            seen = now_applied;
            persist(shared)?;
            looked_at = clock::now();
        }
    }
    persist(shared)?;
    Ok(true)
}

/// Makes durable what the store holds, then lets go of the log that neither the store nor a feed needs.
pub(crate) fn persist(shared: &NodeShared) -> Result<(), String> {
    // Read before the sync: what is applied while it runs may or may not be in it.
    let shards: Vec<ShardId> = shared.map.own_shards();
    let applied: Vec<u64> =
        shards.iter().map(|shard| shared.marks_of(*shard).applied.load(Ordering::Acquire)).collect();
    keep_fleet(shared).map_err(|error| error.to_string())?;
    if !plant::active(Plant::CutWithoutSync) {
        shared.store.sync().map_err(|error| error.to_string())?;
    }
    failpoint::pass(Failpoint::Flushed);
    shared.metrics.store_syncs.increment();
    cut_log(shared, shards.into_iter().zip(applied)).map_err(|error| error.to_string())
}

/// A node that holds no replica of the shard that keeps the fleet must find the others at its next start, too.
fn keep_fleet(shared: &NodeShared) -> Result<(), StoreError> {
    let fleet = shared.fleet.get();
    let kept = domain::fleet::known(&*shared.store)?.map_or(0, |kept| kept.epoch);
    if fleet.epoch <= kept {
        return Ok(());
    }
    let mut batch = WriteBatch::new();
    domain::fleet::keep(&mut batch, &fleet);
    shared.store.write(batch)
}

fn cut_log(
    shared: &NodeShared,
    persisted: impl Iterator<Item = (ShardId, u64)>,
) -> Result<(), ReplicationError> {
    let needed_by_none = |(shard, persisted): (ShardId, u64)| {
        (shard, persisted.min(shared.marks_of(shard).log_cut.load(Ordering::Acquire)))
    };
    let cuts: Vec<(ShardId, u64)> = persisted.map(needed_by_none).collect();
    shared.log.cut(&cuts)?;
    failpoint::pass(Failpoint::Cut);
    shared.log.purge()?;
    shared.metrics.log_used_bytes.set(shared.log.used_bytes() as u64);
    Ok(())
}

#[cfg(test)]
mod tests;
