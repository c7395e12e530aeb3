//! The feed items of log entries whose rows are stored already: for home shards that lost them, and for the shard
//! itself at its start.

use super::shared::NodeShared;
use crate::domain::{self, Event};
use crate::feed::{HomeStart, SourceFeed};
use crate::placement::Place;
use crate::replication::{LogRange, decode_record};
use std::sync::atomic::Ordering;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::FeedItem;

/// Bytes of log entries that are decoded at once.
const REREAD_BYTES_MAX: usize = 1024 * 1024;

/// Items by ascending log index, of those entries that have any.
pub(super) type ItemsByIndex = Vec<(u64, Vec<FeedItem>)>;

/// The items of the range's first entries, and the index up to which that covers the range. What the log no longer
/// holds every home shard has durably, or it never concerned it.
pub(super) fn feed_items(
    shared: &NodeShared,
    shard: ShardId,
    range: LogRange,
) -> Result<(ItemsByIndex, u64), String> {
    let range = LogRange { above: range.above.max(shared.log.cut_index(shard)), ..range };
    if range.above >= range.up_to {
        return Ok((Vec::new(), range.up_to));
    }
    let entries = shared.log.read(shard, range, REREAD_BYTES_MAX).map_err(|error| error.to_string())?;
    let Some(last) = entries.last().map(|entry| entry.index) else {
        return Err(format!("shard {shard}: log entries {} to {} are missing", range.above + 1, range.up_to));
    };
    let mut items = Vec::new();
    for entry in entries {
        let failed = |detail: String| format!("shard {shard}, log entry {}: {detail}", entry.index);
        let batch = decode_record(&entry.record).map_err(|error| failed(error.to_string()))?;
        let Some(batch) = batch else { continue };
        let events = domain::replay_events(&*shared.store, shard, &batch);
        let of_entry: Vec<FeedItem> = events
            .map_err(|error| failed(error.to_string()))?
            .into_iter()
            .filter_map(|event| match event {
                Event::Feed(item) => Some(item),
                Event::DeviceRemoved { .. } | Event::Checkpointed(_) | Event::FleetChanged(_) => None,
            })
            .collect();
        if !of_entry.is_empty() {
            items.push((entry.index, of_entry));
        }
    }
    Ok((items, last))
}

/// A shard's feed as of the stored state: what some home shard may not have made durable is recorded again.
pub(super) fn open_source(shared: &NodeShared, shard: ShardId, applied: u64) -> Result<SourceFeed, String> {
    let cut = shared.marks_of(shard).feed_cut.load(Ordering::Acquire).max(shared.log.cut_index(shard));
    let mut homes = Vec::new();
    for home in shared.map.shards() {
        let mut durable_index = 0;
        if let Some(Place::Core(_)) = shared.map.place(home) {
            let positions =
                domain::feed_positions(&*shared.store, home).map_err(|error| error.to_string())?;
            let position = positions.iter().find(|position| position.source_shard == shard.0);
            durable_index = position.map_or(0, |position| position.log_index);
        }
        homes.push(HomeStart { shard: home, durable_index });
    }
    let mut source = SourceFeed::new(shard, shared.map.shard_count(), &homes, cut);
    let mut recorded = cut;
    while recorded < applied {
        let (items, covered) = feed_items(shared, shard, LogRange { above: recorded, up_to: applied })?;
        for (index, items) in items {
            source.record(index, items);
            recorded = index;
        }
        if recorded < covered {
            source.record(covered, Vec::new());
            recorded = covered;
        }
    }
    Ok(source)
}

#[cfg(test)]
mod tests;
