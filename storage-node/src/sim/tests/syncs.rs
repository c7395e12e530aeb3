//! Every sync is needed: without any one of them some promise is broken. Each test finds a world that breaks without a
//! sync, and lets it live once more with all of them: if the code did not ask for that sync any more, the second life
//! would be the first one again.
//!
//! Those of snapshots and of removals are shown in `snapshots/tests/`, those of a restore in `backup/restore_tests.rs`,
//! those of backups in `backup/make_tests/`, those of what the log engine keeps of old files, one by one, in `rewrites.rs`.

use super::after_crashes;
use crate::sim::{Crash, SyncKind};
use std::ops::Range;

/// Messages of a world.
const MESSAGES: usize = 40;
/// Messages of a world whose beginning matters alone.
const FEW_MESSAGES: usize = 3;
/// Steps among which a new log gets its head and its first write.
const FIRST_WRITES: Range<u64> = 16..44;
/// Worlds that are tried before a sync is called needless.
const WORLDS_MAX: u64 = 2_000;
/// Worlds that a needless sync is left out of.
const WORLDS_WITHOUT: u64 = 60;

/// A world, and what stops its node.
struct Tried {
    seed: u64,
    messages: usize,
    stops: Vec<(u64, Crash)>,
}

impl Tried {
    fn new(number: u64) -> Self {
        let stop_after = 1 + number * 7 % 240;
        let crash = if number.is_multiple_of(2) { Crash::PowerKeepsNothing } else { Crash::PowerKeepsSome };
        // What one life leaves to be lost by the next one's crash counts, too.
        let stops = match number % 3 {
            0 => vec![(stop_after, Crash::Process), (1 + number % 30, crash)],
            _ => vec![(stop_after, crash)],
        };
        Self { seed: 10_000 + number, messages: MESSAGES, stops }
    }

    /// What is wrong in the end, if these syncs are left out.
    fn broken_without(&self, kinds: &[SyncKind]) -> Option<String> {
        let broken = after_crashes(self.seed, self.messages, &self.stops, kinds).err()?;
        Some(broken.lines().last().unwrap_or_default().to_owned())
    }
}

fn worlds() -> impl Iterator<Item = Tried> {
    (0..WORLDS_MAX).map(Tried::new)
}

/// Worlds whose first writes are torn in many ways.
fn beginnings() -> impl Iterator<Item = Tried> {
    let all = (300..340).flat_map(|seed| FIRST_WRITES.map(move |stop_after| (seed, stop_after)));
    all.map(|(seed, stop_after)| Tried {
        seed,
        messages: FEW_MESSAGES,
        stops: vec![(stop_after, Crash::PowerKeepsSome)],
    })
}

/// One of these syncs is needed.
fn assert_needed(kinds: &[SyncKind], worlds: impl Iterator<Item = Tried>) {
    let broken =
        worlds.enumerate().find_map(|(number, tried)| Some((number, tried.broken_without(kinds)?, tried)));
    let Some((number, broken, tried)) = broken else { panic!("{kinds:?}: all worlds do without") };
    println!("{kinds:?}: needed, shown by world {number}: {broken}");
    if let Some(broken) = tried.broken_without(&[]) {
        panic!("{kinds:?}: not left out, and it is as if they were: {broken}");
    }
}

/// Nothing comes of leaving it out, as often as it is asked for.
fn assert_needless(kind: SyncKind) {
    let mut left_out = 0;
    for number in 0..WORLDS_WITHOUT {
        let Tried { seed, messages, stops } = Tried::new(number);
        let lived = after_crashes(seed, messages, &stops, &[kind]);
        let world = lived.unwrap_or_else(|broken| panic!("{kind:?}: {broken}"));
        left_out += world.disk.left_out();
    }
    println!("{kind:?}: left out {left_out} times");
    assert!(left_out > 20, "{kind:?}: left out {left_out} times");
}

#[test]
fn the_name_of_the_data_folder_must_be_synced() {
    assert_needed(&[SyncKind::DataFolderName], worlds());
}

#[test]
fn the_bytes_of_the_identity_must_be_synced() {
    assert_needed(&[SyncKind::Identity], worlds());
}

#[test]
fn the_name_of_the_folder_of_the_log_must_be_synced() {
    assert_needed(&[SyncKind::LogName], worlds());
}

#[test]
fn the_names_in_the_folder_of_the_log_must_be_synced() {
    assert_needed(&[SyncKind::LogFolder], worlds());
}

#[test]
fn the_head_of_a_new_log_must_be_synced() {
    assert_needed(&[SyncKind::LogHead], beginnings());
}

#[test]
fn what_is_written_to_the_log_must_be_synced() {
    assert_needed(&[SyncKind::LogWrite], worlds());
}

#[test]
fn what_cuts_the_log_must_be_synced() {
    assert_needed(&[SyncKind::LogCut], worlds());
}

/// The batches of these worlds are so small that the engine's own sync follows each of them, as ours does.
#[test]
fn what_is_kept_of_old_log_files_must_be_synced() {
    assert_needed(&[SyncKind::RewriteWrite, SyncKind::Rewrite], worlds());
}

#[test]
fn rows_must_be_synced() {
    assert_needed(&[SyncKind::Rows], worlds());
}

/// A start that finds a torn end makes the log engine cut it off, and sync. The cut waits until the log is first written
/// to (`replication/files.rs`), so that this sync has nothing to do; the sync of that write makes both durable.
#[test]
fn the_sync_behind_a_torn_end_is_needless() {
    assert_needless(SyncKind::LogOpening);
}

/// The name of the log's folder, in the same folder, comes next, and before anything is served. A restore makes the
/// identity last, and there it is needed (`backup/restore_tests.rs`).
#[test]
fn the_sync_of_the_identitys_name_is_needless_beside_that_of_the_log() {
    assert_needless(SyncKind::IdentityName);
}

/// The row that says whose rows these are is the first one, and a store keeps a prefix of what was written. An engine that
/// keeps another part of it is refused by the row's absence: `engine/format.rs` asks for the sync.
#[test]
fn the_sync_of_the_first_row_is_needless_where_a_prefix_is_kept() {
    assert_needless(SyncKind::RowsOpening);
}
