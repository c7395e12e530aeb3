//! The receiver's disk stops at every step of an installation, in every way: the next start finds either the shard as it
//! was, or the snapshot, whole.

use super::super::install::{finish_installs, install};
use super::receiver::{Lived, OLD_LAST, Receiver, SHARD, Until, assert_needed, lives, old_rows};
use super::*;
use crate::replication::{Group, Replicas};
use crate::sim::{Crash, SyncKind};
use std::sync::Arc;

/// The leader that a snapshot is of.
struct Leader {
    log: Log,
    rows: MemoryStore,
    _folder: tempfile::TempDir,
}

impl Leader {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = leader_log(folder.path(), SHARD);
        let rows = MemoryStore::new();
        fill(&rows, SHARD, 0..60, INDEX);
        Self { log, rows, _folder: folder }
    }
}

/// How a receiver lives.
#[derive(Clone, Copy, Debug)]
struct Life {
    until: Until,
    crash: Crash,
    /// Whether it was started again before it receives: then its log writes old files once more.
    is_restarted: bool,
}

impl Life {
    /// Receives, decides and installs, and starts again. `Err`: what is wrong then.
    fn live(self, leader: &Leader, skipped: &[SyncKind]) -> Result<Lived, String> {
        let (receiver, mut log) = Receiver::new(skipped);
        if self.is_restarted {
            drop(log);
            log = Arc::new(receiver.log()?);
        }
        receiver.receive(&leader.log, &leader.rows);
        let mut is_decided = false;
        let is_done = receiver.work(self.until, || {
            receiver.files().decide(SHARD)?;
            is_decided = true;
            install(&receiver.files(), &receiver.store, &log, SHARD, SHARDS).map(drop)
        })?;
        let mut last = INDEX;
        if self.until == Until::LaterEntries {
            last += 1;
            receiver.write(&log, vec![entry(last)])?;
        }
        let log = receiver.start_again(log, self.crash, self.until.seed(self.crash))?;
        let (rows, span) = (receiver.rows(SHARD), log.span(SHARD));
        if rows == rows_of(&leader.rows, SHARD) && span == Some((FEED_CUT, last)) {
            let replicas = Replicas::of(2, &[1, 2, 3]);
            Group::open(Arc::new(log), SHARD, INDEX, &replicas).map_err(|error| error.to_string())?;
            return Ok(Lived { is_done, is_old: false });
        }
        let is_old = rows == old_rows(SHARD) && span == Some((1, OLD_LAST));
        match is_old && !is_decided {
            true => Ok(Lived { is_done, is_old }),
            false => Err(format!("decided {is_decided}, old rows and log {is_old}, entries {span:?}")),
        }
    }
}

/// Lives of all kinds, of a receiver as it was made and of one that was started again. See [`lives`].
fn installations(skipped: &[SyncKind]) -> Result<(u64, usize), String> {
    let leader = Leader::new();
    let of = |is_restarted| {
        lives(|until, crash| Life { until, crash, is_restarted }.live(&leader, skipped))
            .map_err(|wrong| format!("started again {is_restarted}, {wrong}"))
    };
    let ((_, old), (steps, old_again)) = (of(false)?, of(true)?);
    Ok((steps, old + old_again))
}

#[test]
fn an_installation_is_whole_or_has_never_begun_wherever_the_node_stops() {
    let (steps, old) = installations(&[]).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(steps > 10 && old > 0, "{steps} steps, {old} times the old state");
}

#[test]
fn an_installation_needs_each_of_its_syncs() {
    use SyncKind::{Decided, Done, Snapshot, SnapshotLog, SnapshotRows, SnapshotsName};
    assert_needed(&[SnapshotsName, Snapshot, Decided, SnapshotLog, SnapshotRows, Done], installations);
}

#[test]
fn a_damaged_snapshot_is_found_and_named() {
    let leader = Leader::new();
    for at in [3, 9, 400, 9_000] {
        let (receiver, log) = Receiver::new(&[]);
        receiver.receive(&leader.log, &leader.rows);
        receiver.files().decide(SHARD).expect("decided");
        let file = receiver.files().installing(SHARD);
        assert!(receiver.disk.flip(&file, at, 5));
        let error = finish_installs(&receiver.files(), &receiver.store, &log, &[SHARD], SHARDS);
        let error = error.expect_err("it is damaged");
        assert!(error.contains("shard-1.installing"), "byte {at}: {error}");
    }
}
