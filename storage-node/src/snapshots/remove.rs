//! Removing what a replica leaves that has moved to another node. As with installing, a file is the record of what is to
//! be done: whoever finds it does all of it.

use super::SnapshotFiles;
use super::contents::behind;
use crate::domain::{self, Overlay};
use crate::engine::keys::{self, Key};
use crate::engine::{Store, StoreError, WriteBatch};
use crate::failpoint::{self, Failpoint};
use crate::replication::Log;
use std::io;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::ReplicaSet;

/// Rows that are deleted at once.
const BATCH_ROWS: usize = 4_096;

/// Forgets log and rows of a shard, all but the vote, and that since the change at this index nobody here holds a
/// replica. Durable on return.
pub(super) fn remove(
    files: &SnapshotFiles,
    store: &dyn Store,
    log: &Log,
    shard: ShardId,
    changed_at: u64,
    shard_count: u32,
) -> Result<(), String> {
    let (unfinished, path) = (files.receiving(shard), files.removing(shard));
    let write = || {
        files.disk().write_synced(&unfinished, &changed_at.to_string())?;
        files.disk().rename(&unfinished, &path)?;
        files.sync_folder()
    };
    write().map_err(|error| format!("{}: {error}", path.display()))?;
    failpoint::pass(Failpoint::RemovalDecided);
    finish(files, store, log, shard, shard_count)
}

/// Does what a removal that was decided says, from its beginning.
pub(super) fn finish(
    files: &SnapshotFiles,
    store: &dyn Store,
    log: &Log,
    shard: ShardId,
    shard_count: u32,
) -> Result<(), String> {
    let path = files.removing(shard);
    let named = |detail: String| format!("{}: {detail}", path.display());
    let failed = |error: io::Error| named(error.to_string());
    let text = files.disk().read_text(&path).map_err(failed)?;
    let changed_at = text.parse().map_err(|_| named("damaged: no index of an entry".to_owned()))?;
    log.remove(shard).map_err(|error| error.to_string())?;
    remove_rows(store, shard, changed_at, shard_count).map_err(|error| named(error.to_string()))?;
    store.sync().map_err(|error| error.to_string())?;
    for file in [files.received(shard), files.installing(shard)] {
        files.discard(&file);
    }
    failpoint::pass(Failpoint::Removed);
    files.disk().delete(&path).and_then(|()| files.sync_folder()).map_err(failed)
}

fn remove_rows(
    store: &dyn Store,
    shard: ShardId,
    changed_at: u64,
    shard_count: u32,
) -> Result<(), StoreError> {
    for (mut from, to) in keys::ranges_of_shard(shard, shard_count) {
        loop {
            let (mut batch, mut last) = (WriteBatch::new(), Vec::new());
            store.walk(&from, &to, &mut |key, _| {
                batch.delete(Key::copy_of(key).expect("stored keys are ours"));
                last = key.to_vec();
                batch.rows().len() < BATCH_ROWS
            })?;
            if last.is_empty() {
                break;
            }
            store.write(batch)?;
            from = behind(&last);
        }
    }
    let mut overlay = Overlay::new(store);
    let nobody = ReplicaSet { changed_at, ..ReplicaSet::default() };
    domain::fleet::set_replicas(&mut overlay, shard, &nobody);
    store.write(overlay.into_batch())
}
