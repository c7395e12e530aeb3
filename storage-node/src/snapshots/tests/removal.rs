//! The disk stops at every step of a removal, in every way: the next start finds the replica as it was, or nothing of it
//! but the vote, and that nobody here holds one.

use super::super::remove::remove;
use super::receiver::{OLD_LAST, Receiver, SHARD, Until, ends, old_rows};
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

/// What a life came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Lived {
    is_removed: bool,
    /// The next start found the replica as it was.
    is_old: bool,
}

/// Removes the replica, and starts again. `Err`: what is wrong then.
fn live(until: Until, crash: Crash, skipped: &[SyncKind]) -> Result<Lived, String> {
    let (receiver, log) = Receiver::new(skipped);
    let files = receiver.files();
    let is_removed =
        receiver.work(until, || remove(&files, &receiver.store, &log, SHARD, CHANGED_AT, SHARDS))?;
    let mut wanted = None;
    if until == Until::LaterEntries {
        wanted = Some((1, LATER));
        receiver.write(&log, (1..=LATER).map(entry).collect())?;
    }
    let (seed, may_be_old) = match until {
        Until::Step(step) => (step * 4 + crash as u64, step <= DECIDING_STEP),
        Until::LaterEntries => (crash as u64, false),
    };
    let log = receiver.start_again(log, crash, seed)?;
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
        true => Ok(Lived { is_removed, is_old }),
        false => Err(format!("removed {is_removed}, {} rows, old {is_old}, entries {span:?}", rows.len())),
    }
}

/// Lives of all kinds, until one ends in what is wrong. `Ok`: steps of a removal, and how often it never began.
fn removals(skipped: &[SyncKind]) -> Result<(u64, usize), String> {
    let (mut steps, mut old) = (0, 0);
    for until in ends() {
        let mut is_over = true;
        for crash in Crash::ALL {
            let lived =
                live(until, crash, skipped).map_err(|wrong| format!("{until:?}, {crash:?}: {wrong}"))?;
            old += usize::from(lived.is_old);
            is_over &= lived.is_removed;
        }
        match until {
            Until::Step(_) if is_over => break,
            Until::Step(step) => steps = step,
            Until::LaterEntries => assert!(is_over, "nothing stops it"),
        }
    }
    Ok((steps, old))
}

#[test]
fn a_removal_is_whole_or_has_never_begun_wherever_the_node_stops() {
    let (steps, old) = removals(&[]).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(steps > 10 && old > 0, "{steps} steps, {old} times the old state");
}

#[test]
fn a_removal_needs_each_of_its_syncs() {
    for kind in
        [SyncKind::Removal, SyncKind::Decided, SyncKind::SnapshotLog, SyncKind::SnapshotRows, SyncKind::Done]
    {
        match removals(&[kind]) {
            Err(wrong) => println!("{kind:?}: needed: {wrong}"),
            Ok((steps, _)) => panic!("{kind:?}: {steps} steps do without"),
        }
    }
}
