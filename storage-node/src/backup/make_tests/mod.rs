//! The disk that a node's backups are on stops at every step of making them, in every way: what was reported as made is
//! whole, and is what the node was; what was not is a whole backup all the same, or none; and the next one succeeds and
//! clears away what was left.
//!
//! All that a backup writes is on the simulated disk. What it reads of the store is not: see [`tables`]. Once RocksDB
//! itself is what a backup is made of, and once a node is restored from what a power failure left.

mod tables;

use self::tables::{MOMENTS, Node, Row, log_in, node_with, rows_in, write_moment};
use super::files::Pace;
use super::folder::{Backup, NodeFolder, names};
use super::make::{BackupOrder, make_at};
use super::restore_tests::{Folder, Lost, SHARDS};
use super::verify::{VerifyReport, check_files, verify};
use crate::disk::Disk;
use crate::engine::keys::Key;
use crate::engine::{MemoryStore, RocksOptions, RocksStore, Store, WriteBatch, keys};
use crate::sim::{Crash, Doing, Random, SYNC_ERROR, SimDisk, SyncKind, real_folder};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// Backups that a world makes before its disk stops: a full one, one with what is new, one for which an old one goes.
const BACKUPS: usize = 3;
/// Backups that stay.
const KEEP: u32 = 2;
/// What a power failure keeps, where that is left to chance, is tried with so many seeds.
const SEEDS: u64 = 4;
const NODE_ID: u32 = 1;
const _: () = assert!(BACKUPS < MOMENTS, "one more is made after the crash");

/// Every sync of a backup, and how often a world that nothing stops asks for it.
const SYNCS: [(SyncKind, usize); 9] = [
    // Of two folders that are missing, once.
    (SyncKind::BackupsName, 2),
    (SyncKind::BackupNodeName, BACKUPS),
    // One for each shard at first, two are new each time.
    (SyncKind::BackupTable, SHARDS as usize + 2 * (BACKUPS - 1)),
    (SyncKind::BackupTableNames, BACKUPS),
    (SyncKind::BackupHead, 2 * BACKUPS),
    (SyncKind::BackupManifest, BACKUPS),
    (SyncKind::BackupContents, BACKUPS),
    (SyncKind::BackupName, BACKUPS),
    (SyncKind::BackupUnnamed, BACKUPS - KEEP as usize),
];

/// Where the backups are. Neither this folder nor the one above it is there at first.
fn backups_below(root: &Path) -> PathBuf {
    root.join("above/backups")
}

/// A disk for backups, and what was reported of them.
struct World<'a> {
    disk: Arc<SimDisk>,
    root: TempDir,
    node: &'a Node,
    /// By number, the moment that each is of.
    reported: BTreeMap<u64, usize>,
}

impl<'a> World<'a> {
    fn new(node: &'a Node) -> Self {
        let root = real_folder();
        let disk = SimDisk::new(root.path());
        disk.set_doing(Doing::BackingUp);
        Self { disk, root, node, reported: BTreeMap::new() }
    }

    fn on(&self) -> Disk {
        Disk::Simulated(Arc::clone(&self.disk))
    }

    fn folder(&self) -> NodeFolder {
        NodeFolder::new(&self.on(), &backups_below(self.root.path()), NODE_ID)
    }

    /// The number of the moment stands for its time.
    fn back_up(&mut self, moment: usize) -> Result<(), String> {
        let order = BackupOrder { to: backups_below(self.root.path()), keep: KEEP };
        let shared = &self.node.moments[moment].shared;
        let report = make_at(shared, &order, &self.on(), moment as u64, &mut |_| Ok(()))?;
        self.reported.insert(report.number, moment);
        Ok(())
    }

    fn back_up_all(&mut self) -> Result<(), String> {
        (0..BACKUPS).try_for_each(|moment| self.back_up(moment))
    }

    /// The node goes, and when it is there again makes the backup that was broken off, or one more. `Err`: what is wrong
    /// then.
    fn go_on(&mut self, crash: Crash, seed: u64) -> Result<(), String> {
        self.disk.crash(crash, &mut Random::new(seed));
        self.check()?;
        let next = self.reported.len().min(BACKUPS);
        self.back_up(next).map_err(|error| format!("the next one fails: {error}"))?;
        let checked = self.check().and_then(|()| self.check_cleared());
        checked.map_err(|wrong| format!("after the next one: {wrong}"))?;
        // It must not count on what the process before left in the machine's memory.
        self.disk.crash(Crash::PowerKeepsNothing, &mut Random::new(seed));
        self.check().map_err(|wrong| format!("power failed after the next one: {wrong}"))
    }

    /// Each backup that has its name is whole, and none that was reported is missing. `Err`: what is wrong.
    fn check(&self) -> Result<(), String> {
        let folder = self.folder();
        let numbers = match folder.numbers() {
            // Before the first one not even its folder has to be there.
            Err(_) if self.reported.is_empty() => Vec::new(),
            numbers => numbers?,
        };
        for number in &numbers {
            self.check_backup(&folder.read(NODE_ID, *number)?)?;
        }
        for gone in self.reported.keys().filter(|number| !numbers.contains(number)) {
            if numbers.iter().filter(|number| *number > gone).count() < KEEP as usize {
                return Err(format!("backup {gone} was reported, and there are {numbers:?}"));
            }
        }
        match (folder.newest(NODE_ID), numbers.last()) {
            (Ok(newest), Some(last)) if newest.manifest.number == *last => Ok(()),
            (Err(refusal), None) if refusal.contains("holds no backup") => Ok(()),
            (Err(_), None) if !self.on().exists(folder.path()) => Ok(()),
            (newest, last) => Err(format!("the newest is {last:?}, and found was {newest:?}")),
        }
    }

    /// Its files are as it says, and they make a store of the rows that the node had.
    fn check_backup(&self, backup: &Backup) -> Result<(), String> {
        let mut progress = |_| Ok(());
        let mut pace = Pace::new(None, &mut progress);
        check_files(backup, &mut BTreeMap::new(), &mut pace, &mut VerifyReport::default())?;
        let (number, moment) = (backup.manifest.number, backup.manifest.made_ms as usize);
        if self.reported.get(&number).is_some_and(|reported| *reported != moment) {
            return Err(format!("backup {number} is of moment {moment}, and was reported of another one"));
        }
        let was = &self.node.moments[moment];
        let applied = backup.manifest.shards.iter().map(|point| point.applied);
        if !applied.eq(was.applied.iter().copied()) {
            return Err(format!("backup {number} is applied up to {:?}", backup.manifest.shards));
        }
        match rows_in(backup)? == was.rows {
            true => Ok(()),
            false => Err(format!("backup {number} has other rows than the node had at moment {moment}")),
        }
    }

    /// Nothing is left but the backups that stay, and what they need. `Err`: what is.
    fn check_cleared(&self) -> Result<(), String> {
        let folder = self.folder();
        let (numbers, unfinished) = (folder.numbers()?, folder.all_unfinished()?);
        let mut needed = BTreeSet::new();
        for number in &numbers {
            let files = folder.read(NODE_ID, *number)?.manifest.files.into_iter();
            needed.extend(files.map(|file| file.path).filter(|path| path.starts_with("tables/")));
        }
        let tables = names(folder.disk(), &folder.tables())?;
        let tables: BTreeSet<String> = tables.iter().map(|name| format!("tables/{name}")).collect();
        match numbers.len() <= KEEP as usize && unfinished.is_empty() && tables == needed {
            true => Ok(()),
            false => Err(format!("{numbers:?}, {unfinished:?}, {tables:?} are left, needed are {needed:?}")),
        }
    }
}

/// When the disk stops, and what it keeps then.
#[derive(Clone, Copy, Debug)]
struct Stop {
    /// At this step; `None`: when all is done.
    after: Option<u64>,
    crash: Crash,
    seed: u64,
}

impl Stop {
    /// All ways to stop there.
    fn all(after: Option<u64>) -> impl Iterator<Item = Self> {
        let first = after.unwrap_or(0) * SEEDS;
        Crash::ALL.into_iter().flat_map(move |crash| {
            let seeds = if crash == Crash::PowerKeepsSome { SEEDS } else { 1 };
            (first..first + seeds).map(move |seed| Self { after, crash, seed })
        })
    }
}

/// Makes backups until the disk stops, and goes on. True: all were made before. `Err`: what is wrong then.
fn live(node: &Node, stop: Stop, skipped: &[SyncKind]) -> Result<bool, String> {
    let mut world = World::new(node);
    world.disk.skip(skipped);
    world.disk.stop_after(stop.after);
    let made = world.back_up_all();
    if made.is_ok() == world.disk.is_stopped() {
        return Err(format!("it fails for another reason, or for none: {made:?}"));
    }
    world.go_on(stop.crash, stop.seed)?;
    Ok(made.is_ok())
}

/// Lives that end at every step, in every way, until one ends in what is wrong. `Ok`: steps of all backups.
fn lives(node: &Node, skipped: &[SyncKind]) -> Result<u64, (Stop, String)> {
    let mut steps = 0;
    for after in iter::once(None).chain((1..).map(Some)) {
        let mut is_over = true;
        for stop in Stop::all(after) {
            is_over &= live(node, stop, skipped).map_err(|wrong| (stop, wrong))?;
        }
        match after {
            Some(_) if is_over => break,
            Some(step) => steps = step,
            None => assert!(is_over, "nothing stops it"),
        }
    }
    Ok(steps)
}

#[test]
fn a_backup_is_whole_or_is_none_wherever_the_disk_stopped() {
    let node = Node::new();
    let steps = lives(&node, &[]).unwrap_or_else(|(stop, wrong)| panic!("{stop:?}: {wrong}"));
    println!("{steps} steps");
    assert!(steps > 80, "{steps} steps");
}

#[test]
fn a_backup_needs_each_of_its_syncs() {
    let node = Node::new();
    for (kind, _) in SYNCS {
        let (stop, wrong) = match lives(&node, &[kind]) {
            Err(broken) => broken,
            Ok(steps) => panic!("{kind:?}: {steps} steps do without"),
        };
        println!("{kind:?}: needed, shown by {stop:?}: {wrong}");
        if let Err(wrong) = live(&node, stop, &[]) {
            panic!("{kind:?}: not left out, and it is as if it were: {wrong}");
        }
    }
}

/// One more, at another place, would be needless, or one whose need nobody has shown.
#[test]
fn a_backup_asks_for_no_other_syncs() {
    let node = Node::new();
    let mut world = World::new(&node);
    world.back_up_all().expect("nothing stops it");
    let mut counts = BTreeMap::new();
    for step in world.disk.last_steps(usize::MAX).lines() {
        if let Some((_, kind)) = step.split_once(" sync ") {
            *counts.entry(kind.to_owned()).or_insert(0) += 1;
        }
    }
    let expected = SYNCS.map(|(kind, count)| (format!("{kind:?}"), count));
    assert_eq!(counts, BTreeMap::from(expected));
}

#[test]
fn a_sync_that_fails_is_told_and_the_next_backup_is_whole() {
    let node = Node::new();
    for (kind, _) in SYNCS {
        let mut world = World::new(&node);
        world.disk.fail(Some((kind, 0)));
        let error = world.back_up_all().expect_err("it fails");
        let root = world.root.path().display().to_string();
        assert!(error.starts_with(&root) && error.contains(SYNC_ERROR), "{kind:?}: {error}");
        world.disk.fail(None);
        for crash in [Crash::Process, Crash::PowerKeepsNothing] {
            world.go_on(crash, 0).unwrap_or_else(|wrong| panic!("{kind:?}, {crash:?}: {wrong}"));
        }
    }
}

/// The rows of a shard, to be restored from.
fn store_of(rows: &[Row]) -> MemoryStore {
    let (store, mut batch) = (MemoryStore::new(), WriteBatch::new());
    for (key, value) in rows {
        batch.put(Key::copy_of(key).expect("a key of ours"), value.clone());
    }
    store.write(batch).expect("memory");
    store
}

fn messages(rows: &[Row]) -> Vec<&Row> {
    rows.iter().filter(|(key, _)| keys::table(key) == Some(keys::MESSAGE)).collect()
}

#[test]
fn a_node_is_restored_from_what_a_power_failure_leaves_of_its_backups() {
    let node = Node::new();
    let mut world = World::new(&node);
    world.back_up_all().expect("nothing stops it");
    world.disk.crash(Crash::PowerKeepsNothing, &mut Random::new(0));
    let folder = world.folder();
    let numbers = folder.numbers().expect("it is there");
    assert_eq!(numbers.len(), KEEP as usize);
    for number in numbers {
        let backup = folder.read(NODE_ID, number).expect("it is whole");
        let was = &node.moments[backup.manifest.made_ms as usize];
        let rows = rows_in(&backup).expect("it is whole");
        let shards = rows.iter().map(|rows| store_of(rows)).collect();
        let restored = Folder::new();
        restored.restore(&Lost { shards, manifest: backup.manifest }).expect("nothing stops it");
        let held = restored.start().expect("it is whole");
        assert_eq!(held.rows.len(), was.rows.len());
        for (is, was) in held.rows.iter().zip(&was.rows) {
            assert!(!messages(was).is_empty());
            assert_eq!(messages(is), messages(was), "backup {number}");
        }
    }
}

/// Copies the backups of a simulated disk to the machine's, where RocksDB can open them.
fn copy_backups(disk: &SimDisk, from: &Path, to: &Path) {
    for (file, _) in disk.files() {
        let copy = to.join(file.strip_prefix(from).expect("nothing else is on the disk"));
        fs::create_dir_all(copy.parent().expect("it is in a folder")).expect("it is made");
        fs::write(&copy, disk.bytes_of(&file)).expect("it writes");
    }
}

#[test]
fn backups_of_a_real_store_verify_after_a_power_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = RocksStore::open(&folder.path().join("rows"), &RocksOptions::new(SHARDS)).expect("it opens");
    let shared = node_with(Box::new(store), log_in(folder.path()), folder.path());
    let root = real_folder();
    let disk = SimDisk::new(root.path());
    disk.set_doing(Doing::BackingUp);
    let order = BackupOrder { to: backups_below(root.path()), keep: KEEP };
    for moment in 0..BACKUPS {
        write_moment(&*shared.store, moment);
        let on = Disk::Simulated(Arc::clone(&disk));
        make_at(&shared, &order, &on, moment as u64, &mut |_| Ok(())).expect("nothing stops it");
    }
    disk.crash(Crash::PowerKeepsNothing, &mut Random::new(0));
    let copied = folder.path().join("backups");
    copy_backups(&disk, &order.to, &copied);
    let report = verify(&copied, &folder.path().join("links"), &mut |_| Ok(())).expect("it is read");
    assert_eq!(report.problems, [""; 0]);
    assert_eq!((report.backups, report.shard_count), (u64::from(KEEP), SHARDS));
    assert!(report.rows > 0 && report.files > 0, "{report:?}");
}
