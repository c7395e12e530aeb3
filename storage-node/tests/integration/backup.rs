//! Backups of a running node, what damage does to them, and a node made of them when its folder is lost.

use crate::embedded::{Embedded, PATIENCE, SHARDS, config};
use crate::requests::{self, applied, feed_page, person};
use bytes::Bytes;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use storage_node::admin::{AdminCallError, AdminDone, AdminRequest, call};
use storage_node::backup::{BackupReport, Manifest, RestoreReport, VerifyReport};
use storage_node::clock;
use storage_node::{BackupConfig, StorageConfig};
use wire_protocol::ids::ConversationId;

/// Rows of many tables' worth, so that what is new is little beside it.
const MESSAGES: u64 = 1_500;
const BODY_BYTES: usize = 1_024;

pub fn backup(data: &Path, to: &Path, keep: u32) -> Result<BackupReport, AdminCallError> {
    match call(data, &AdminRequest::Backup { to: to.to_owned(), keep }, |_| {})? {
        AdminDone::Backup(report) => Ok(report),
        other => panic!("{other:?}"),
    }
}

pub fn verify(from: &Path) -> Result<VerifyReport, String> {
    let scratch = tempfile::tempdir().expect("a folder");
    storage_node::backup::verify(from, &scratch.path().join("links"), &mut |_| Ok(()))
}

fn restore(from: &Path, config: &StorageConfig) -> Result<RestoreReport, String> {
    storage_node::backup::restore(from, config, &mut |_| Ok(()))
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        match entry.is_dir() {
            true => found.extend(files(&entry)),
            false => found.push(entry),
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let to = to.join(file.strip_prefix(from).expect("it is below"));
        fs::create_dir_all(to.parent().expect("it is below")).expect("it is made");
        fs::copy(&file, &to).expect("it copies");
    }
}

/// What no compression makes smaller.
fn large_body(client_id: u64) -> Bytes {
    let mut state = client_id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    });
    words.take(BODY_BYTES / 8).flatten().collect()
}

/// A node with a conversation of two people, and `MESSAGES` large messages in it.
fn node_with_messages(folder: &Path) -> (Embedded, ConversationId) {
    let mut node = Embedded::start(folder, 2);
    let (ada, bob) = (person(1), person(2));
    let conversation = node.pair(ada, bob);
    let calls: Vec<u64> = (1..=MESSAGES)
        .map(|client_id| {
            node.begin(0, requests::send_body(SHARDS, ada, conversation, client_id, large_body(client_id)))
        })
        .collect();
    calls.into_iter().for_each(|id| assert!(applied(&node.finish(id)).seq > 1));
    (node, conversation)
}

#[test]
fn a_node_that_lost_everything_is_what_it_was_when_the_backup_was_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, to) = (folder.path().join("data"), folder.path().join("backups"));
    fs::create_dir(&to).expect("it is made");
    let (mut node, conversation) = node_with_messages(&data);
    let (ada, bob, eve) = (person(1), person(2), person(3));
    node.call(requests::claim_name(SHARDS, ada));
    node.call(requests::confirm_name(SHARDS, ada));
    let before = node.entries(bob, conversation);
    let report = backup(&data, &to, 3).expect("it is made");
    assert_eq!((report.number, report.shards), (1, SHARDS));
    // What comes later is lost, be it messages, people or conversations.
    for client_id in MESSAGES + 1..=MESSAGES + 20 {
        applied(&node.call(requests::send(SHARDS, ada, conversation, client_id)));
    }
    node.pair(ada, eve);
    node.run_until("the feed is durable", |node| {
        let page = feed_page(node.call(requests::read_feed(SHARDS, ada, 0)));
        page.rows.len() == 2
    });
    let version_lost = feed_page(node.call(requests::read_feed(SHARDS, ada, 0))).version;
    node.shutdown();
    fs::remove_dir_all(&data).expect("lost");

    restore(&to, &config(&data)).expect("it is restored");
    let mut node = Embedded::start(&data, 2);
    assert_eq!(node.entries(bob, conversation), before);
    // To whoever knows the lost time every conversation is news, and none that is lost comes up.
    for who in [ada, bob] {
        let page = feed_page(node.call(requests::read_feed(SHARDS, who, version_lost)));
        let rows: Vec<_> = page.rows.iter().map(|row| (row.conversation_id.clone(), row.top_seq)).collect();
        assert_eq!(rows, [(conversation.to_bytes(), MESSAGES + 1)]);
    }
    assert_eq!(node.call(requests::read_name(SHARDS, ada)).result, requests::named(ada));
    for client_id in [1, 2, MESSAGES] {
        let again = requests::send_body(SHARDS, ada, conversation, client_id, large_body(client_id));
        let again = applied(&node.call(again));
        assert_eq!((again.seq, again.repeated_send), (client_id + 1, true));
    }
    let version = feed_page(node.call(requests::read_feed(SHARDS, ada, 0))).version;
    let restores = [version_lost, version].map(wire_protocol::ids::restores_of);
    assert_eq!(restores, [0, 1], "clients see that a restore went by");
    let new = applied(&node.call(requests::send(SHARDS, bob, conversation, 7)));
    assert_eq!((new.seq, new.repeated_send), (MESSAGES + 2, false));
    node.run_until("the feed tells of it", |node| {
        let page = feed_page(node.call(requests::read_feed(SHARDS, ada, version)));
        page.rows.iter().any(|row| row.top_seq == MESSAGES + 2)
    });
    node.shutdown();
    // The restored folder is one like any other.
    let mut node = Embedded::start(&data, 1);
    assert_eq!(node.entries(bob, conversation).len(), before.len() + 1);
    assert_eq!(backup(&data, &to, 3).expect("it is made").number, 2);
    node.shutdown();
    assert_eq!(verify(&to).expect("it is read").problems, [""; 0]);
}

#[test]
fn the_next_backup_copies_what_is_new_and_old_ones_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, to) = (folder.path().join("data"), folder.path().join("backups"));
    fs::create_dir(&to).expect("it is made");
    let (mut node, conversation) = node_with_messages(&data);
    let first = backup(&data, &to, 10).expect("it is made");
    assert!(first.bytes > MESSAGES * BODY_BYTES as u64 && first.bytes_copied == first.bytes, "{first:?}");
    let tables = || files(&to.join("node-1/tables"));
    // When the store has just compacted its tables all of them are new: the next time they are not.
    let little = (1..=5).find_map(|client_id| {
        let old_tables = tables();
        applied(&node.call(requests::send(SHARDS, person(2), conversation, client_id)));
        let next = backup(&data, &to, 10).expect("it is made");
        assert!(old_tables.iter().all(|table| tables().contains(table)));
        assert!(next.bytes > first.bytes / 2, "{next:?}");
        (next.bytes_copied < first.bytes / 10).then_some(next)
    });
    let little = little.expect("what is new is a hundredth");
    // A table at least, and the two files that name the tables.
    assert!(little.files_copied >= 3 && little.files_copied < little.files, "{little:?}");
    let last = backup(&data, &to, 1).expect("it is made");
    assert!(last.removed.iter().copied().eq(1..last.number), "{last:?}");
    // No table is left that the last one does not have.
    let file = last.folder.join("backup.json");
    let manifest = Manifest::read(&file).expect("it reads");
    let mut named: Vec<PathBuf> =
        manifest.files.iter().map(|file| to.join("node-1").join(&file.path)).collect();
    named.push(file);
    named.sort();
    assert_eq!(files(&to), named);
    assert_eq!(verify(&to).expect("it is read").problems, [""; 0]);
    node.shutdown();
}

#[test]
fn a_flipped_bit_and_a_missing_file_are_named_and_nothing_is_restored() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, to) = (folder.path().join("data"), folder.path().join("backups"));
    fs::create_dir(&to).expect("it is made");
    let (node, _) = node_with_messages(&data);
    backup(&data, &to, 1).expect("it is made");
    node.shutdown();
    let well = verify(&to).expect("it is read");
    assert_eq!((well.problems.as_slice(), well.backups, well.shard_count), (&[][..], 1, SHARDS));
    assert!(well.rows > 2 * MESSAGES && well.files >= 3, "{well:?}");
    let found = files(&to);
    assert!(found.len() >= 4, "a table, two files beside it, the manifest: {found:?}");
    for (number, file) in found.iter().enumerate() {
        let name = file.file_name().expect("it has one").to_string_lossy().into_owned();
        for harm in ["flipped", "cut", "missing"] {
            let harmed = folder.path().join(format!("{number}-{harm}"));
            copy(&to, &harmed);
            let victim = harmed.join(file.strip_prefix(&to).expect("it is below"));
            let mut bytes = fs::read(&victim).expect("it reads");
            match harm {
                "missing" => fs::remove_file(&victim).expect("it goes"),
                "cut" => fs::write(&victim, &bytes[..bytes.len() - 1]).expect("it writes"),
                _ => {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    fs::write(&victim, bytes).expect("it writes");
                }
            }
            let problems = verify(&harmed).expect("it is read").problems;
            assert!(problems.iter().any(|problem| problem.contains(&name)), "{harm} {name}: {problems:?}");
            let new = folder.path().join(format!("{number}-{harm}-data"));
            let error = restore(&harmed, &config(&new)).expect_err("it is refused");
            assert!(error.contains(&name), "{harm} {name}: {error}");
            assert!(!new.exists(), "nothing was begun");
        }
    }
}

#[test]
fn what_cannot_be_restored_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, to) = (folder.path().join("data"), folder.path().join("backups"));
    fs::create_dir(&to).expect("it is made");
    let node = Embedded::start(&data, 1);
    backup(&data, &to, 1).expect("it is made");
    for (keep, to) in [(0, &to), (1_001, &to), (1, &folder.path().join("nowhere/at-all"))] {
        if let Err(error) = backup(&data, to, keep) {
            assert!(error.to_string().contains("backups can be kept"), "{error}");
        } else {
            assert_eq!(keep, 1, "a folder is made");
        }
    }
    node.shutdown();
    let refused = |from: &Path, config: &StorageConfig| restore(from, config).expect_err("it is refused");
    let error = refused(&to, &config(&data));
    assert!(error.contains("is not empty"), "{error}");
    let new = folder.path().join("new");
    let error = refused(&to, &StorageConfig { shard_count: 2 * SHARDS, ..config(&new) });
    assert!(error.contains(&format!("backups of {SHARDS} shards")), "{error}");
    let error = refused(&folder.path().join("empty"), &config(&new));
    assert!(error.contains("empty"), "{error}");
    assert!(!new.exists());
}

/// Turns until the metrics say so: nothing wakes the cores for it.
fn turn_until(node: &mut Embedded, is_so: impl Fn(&str) -> bool) {
    let started = clock::now();
    while !is_so(&node.metrics()) {
        assert!(started.elapsed() < PATIENCE, "never");
        node.turn();
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn a_node_makes_backups_by_itself_and_tells_of_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, to) = (folder.path().join("data"), folder.path().join("backups"));
    fs::create_dir(&to).expect("it is made");
    let backup = BackupConfig { to: to.clone(), every_s: 3_600, keep: 2 };
    let scheduled = || StorageConfig { backup: Some(backup.clone()), ..config(&data) };
    let made = |metrics: &str, count: u32| metrics.contains(&format!("backups_made_total {count}\n"));
    let mut node = Embedded::try_start(scheduled(), 1).expect("it starts");
    turn_until(&mut node, |metrics| made(metrics, 1));
    assert!(!node.metrics().contains("backup_made_timestamp_seconds 0\n"));
    node.shutdown();
    // The next one is due in an hour; the age of this one is known all the same.
    let mut node = Embedded::try_start(scheduled(), 1).expect("it starts");
    node.run_until("it serves", |node| node.cores.iter().all(|core| core.is_serving()));
    turn_until(&mut node, |metrics| !metrics.contains("backup_made_timestamp_seconds 0\n"));
    assert!(made(&node.metrics(), 0));
    node.shutdown();
    // One that fails is told of, and the node serves.
    fs::remove_dir_all(&to).expect("it goes");
    fs::write(&to, "no folder").expect("it writes");
    let mut node = Embedded::try_start(scheduled(), 1).expect("it starts");
    turn_until(&mut node, |metrics| metrics.contains("ringline_storage_backup_failed 1\n"));
    node.run_until("it serves", |node| node.cores.iter().all(|core| core.is_serving()));
    node.shutdown();
}
