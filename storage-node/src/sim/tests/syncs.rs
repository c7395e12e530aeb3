//! Every sync is needed: without any one of them some promise is broken.

use super::after_crashes;
use crate::sim::{Crash, SyncKind};

/// Messages of a world.
const MESSAGES: usize = 40;
/// Worlds that are tried before a sync is called needless.
const WORLDS_MAX: u64 = 600;

/// The first world that a skipped sync breaks, and what became of it.
fn broken_without(kind: SyncKind) -> Option<(u64, String)> {
    (0..WORLDS_MAX).find_map(|number| {
        let seed = 10_000 + number;
        let stop_after = 1 + number * 7 % 240;
        let crash = if number % 2 == 0 { Crash::PowerKeepsNothing } else { Crash::PowerKeepsSome };
        // What one life leaves to be lost by the next one's crash counts, too.
        let stops = match number % 3 {
            0 => vec![(stop_after, Crash::Process), (1 + number % 30, crash)],
            _ => vec![(stop_after, crash)],
        };
        let broken = after_crashes(seed, MESSAGES, &stops, Some(kind)).err()?;
        Some((number, broken.lines().last().unwrap_or_default().to_owned()))
    })
}

fn assert_needed(kind: SyncKind) {
    match broken_without(kind) {
        Some((worlds, broken)) => println!("{kind:?}: needed, shown by world {worlds}: {broken}"),
        None => panic!("{kind:?}: {WORLDS_MAX} worlds do without"),
    }
}

#[test]
fn the_name_of_the_data_folder_must_be_synced() {
    assert_needed(SyncKind::DataFolderName);
}

#[test]
fn the_bytes_of_the_identity_must_be_synced() {
    assert_needed(SyncKind::Identity);
}

#[test]
fn the_names_in_the_data_folder_must_be_synced() {
    assert_needed(SyncKind::DataFolder);
}

#[test]
fn the_names_in_the_folder_of_the_log_must_be_synced() {
    assert_needed(SyncKind::LogFolder);
}

#[test]
fn what_is_written_to_the_log_must_be_synced() {
    assert_needed(SyncKind::LogWrite);
}

#[test]
fn what_cuts_the_log_must_be_synced() {
    assert_needed(SyncKind::LogCut);
}

#[test]
fn what_is_kept_of_old_log_files_must_be_synced() {
    assert_needed(SyncKind::Rewrite);
}

#[test]
fn rows_must_be_synced() {
    assert_needed(SyncKind::Rows);
}
