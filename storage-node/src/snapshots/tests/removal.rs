//! The disk stops at every step of a removal, in every way: the next start finds the replica as it was, or nothing of it
//! but the vote, and that nobody here holds one.

use super::super::remove::remove;
use super::receiver::{Lived, OLD_LAST, Receiver, SHARD, Until, assert_needed, lives, old_rows};
use super::*;
use crate::sim::{Crash, SyncKind};
use wire_protocol::internal::ReplicaSet;

/// Entry that took the replica out.
const CHANGED_AT: u64 = OLD_LAST;
/// The step that makes the decision durable: before it what is to be done is made, cut, written and synced, and gets its
/// name.
const DECIDING_STEP: u64 = 6;
/// Entries that another replica here has later.
const LATER: u64 = 3;

/// All that is left of the replica's rows.
fn rows_of_nobody() -> Vec<(Vec<u8>, Bytes)> {
    let store = MemoryStore::new();
    let mut overlay = Overlay::new(&store);
    let nobody = ReplicaSet { changed_at: CHANGED_AT, ..ReplicaSet::default() };
    domain::fleet::set_replicas(&mut overlay, SHARD, &nobody);
    store.write(overlay.into_batch()).expect("memory");
    rows_of(&store, SHARD)
}

/// Removes the replica, and starts again. `Err`: what is wrong then.
fn live(until: Until, crash: Crash, skipped: &[SyncKind]) -> Result<Lived, String> {
    let (receiver, log) = Receiver::new(skipped);
    let files = receiver.files();
    let is_done =
        receiver.work(until, || remove(&files, &receiver.store, &log, SHARD, CHANGED_AT, SHARDS))?;
    let mut wanted = None;
    if until == Until::LaterEntries {
        wanted = Some((1, LATER));
        receiver.write(&log, (1..=LATER).map(entry).collect())?;
    }
    let may_be_old = matches!(until, Until::Step(step) if step <= DECIDING_STEP);
    let log = receiver.start_again(log, crash, until.seed(crash))?;
    let voted_in = log.newest_term(SHARD).map_err(|error| error.to_string())?;
    if voted_in != TERM {
        return Err(format!("it forgot its vote: of term {voted_in}"));
    }
    if let Some(file) =
        [files.removing(SHARD), files.receiving(SHARD)].iter().find(|file| files.disk().exists(file))
    {
        return Err(format!("{} is left", file.display()));
    }
    let (rows, span) = (receiver.rows(SHARD), log.span(SHARD));
    let is_old = rows == old_rows(SHARD) && span == Some((1, OLD_LAST));
    let is_gone = rows == rows_of_nobody() && span == wanted;
    match is_gone || (is_old && may_be_old) {
        true => Ok(Lived { is_done, is_old }),
        false => Err(format!("removed {is_done}, {} rows, old {is_old}, entries {span:?}", rows.len())),
    }
}

#[test]
fn a_removal_is_whole_or_has_never_begun_wherever_the_node_stops() {
    let lived = lives(|until, crash| live(until, crash, &[]));
    let (steps, old) = lived.unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(steps > 10 && old > 0, "{steps} steps, {old} times the old state");
}

#[test]
fn a_removal_needs_each_of_its_syncs() {
    use SyncKind::{Decided, Done, Removal, SnapshotLog, SnapshotRows};
    assert_needed(&[Removal, Decided, SnapshotLog, SnapshotRows, Done], |skipped| {
        lives(|until, crash| live(until, crash, skipped))
    });
}
