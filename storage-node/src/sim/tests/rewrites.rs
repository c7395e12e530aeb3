//! What the log engine keeps of old files, in batches so large that it writes several of them before it syncs. Ours
//! come between (`replication/files.rs`): only the last one can be torn.

use crate::config::LogConfig;
use crate::disk::Disk;
use crate::replication::{Log, LogRange};
use crate::sim::{Crash, Doing, Random, SimDisk, SyncKind, real_folder};
use bytes::Bytes;
use std::sync::{Arc, LazyLock};
use tempfile::TempDir;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::RaftEntry;

/// Shards whose entries are in the oldest file, and are kept.
const KEPT: [ShardId; 3] = [ShardId(0), ShardId(1), ShardId(2)];
/// Each of them has two. Together they are more than the 128 KiB that the engine puts into one batch.
const KEPT_ENTRY_BYTES: usize = 80 << 10;
/// Bytes of a log file: those of all shards fit into one, with room for more.
const FILE_BYTES: u64 = 512 << 10;
const _: () = assert!(KEPT.len() * 2 * KEPT_ENTRY_BYTES + 4_096 < FILE_BYTES as usize);
/// A shard whose entries fill the other files, and are cut.
const FILLING: ShardId = ShardId(3);
/// Seeds of which every step is tried.
const SEEDS: u64 = 3;
/// Seeds that are tried before a sync is called needless.
const SEEDS_MAX: u64 = 40;

fn entry(shard: ShardId, index: u64, bytes: usize) -> RaftEntry {
    RaftEntry { kind: 0, term: 1, index, record: Bytes::from(vec![shard.0 as u8 + 1; bytes]) }
}

fn kept_entries(shard: ShardId) -> Vec<RaftEntry> {
    (1..=2).map(|index| entry(shard, index, KEPT_ENTRY_BYTES)).collect()
}

/// A log whose oldest files are to go.
struct OldFiles {
    disk: Arc<SimDisk>,
    root: TempDir,
}

impl OldFiles {
    fn new() -> (Self, Log) {
        let root = real_folder();
        let disk = SimDisk::new(root.path());
        disk.set_doing(Doing::Starting);
        disk.create_folder(&root.path().join("data")).expect("it is made");
        disk.sync_folder(root.path()).expect("it syncs");
        let files = Self { disk, root };
        let log = files.open().expect("a new log");
        for shard in KEPT {
            log.extend(shard, kept_entries(shard)).expect("it writes");
        }
        // The first of these ends the first file, the second one the second.
        for (index, bytes) in [(1, FILE_BYTES as usize), (2, FILE_BYTES as usize), (3, 100)] {
            log.extend(FILLING, vec![entry(FILLING, index, bytes)]).expect("it writes");
        }
        log.cut(&[(FILLING, 3)]).expect("it cuts");
        files.disk.set_doing(Doing::Maintenance);
        (files, log)
    }

    fn open(&self) -> Result<Log, String> {
        let config = LogConfig { file_bytes: FILE_BYTES, keep_bytes: 2 * FILE_BYTES, prefill: false };
        let disk = Disk::Simulated(Arc::clone(&self.disk));
        Log::open_on(disk, &self.root.path().join("data/log"), &config).map_err(|error| error.to_string())
    }

    /// What a start finds when the node has gone, with this log, and its power has failed.
    fn check(&self, log: Log, seed: u64) -> Result<(), String> {
        self.disk.stop();
        drop(log);
        self.disk.crash(Crash::PowerKeepsSome, &mut Random::new(seed));
        self.disk.set_doing(Doing::Starting);
        let log = self.open()?;
        for shard in KEPT {
            let range = LogRange { above: 0, up_to: 2 };
            let found = log.snapshot_entries(shard, range, usize::MAX).map_err(|error| error.to_string())?;
            if found != kept_entries(shard) {
                return Err(format!("shard {shard}: {} entries, or others", found.len()));
            }
        }
        Ok(())
    }
}

/// Where the disk stops, and what power failure keeps then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stop {
    step: u64,
    seed: u64,
}

/// How far a node came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Came {
    ToTheStep,
    ToTheEnd,
}

/// Works on the log until the disk stops. An error: it failed for another reason.
fn until(step: u64, disk: &SimDisk, work: impl FnOnce() -> Result<(), String>) -> Result<Came, String> {
    disk.stop_after(Some(step));
    let worked = work();
    match disk.is_stopped() {
        true => Ok(Came::ToTheStep),
        false => worked.map(|()| Came::ToTheEnd),
    }
}

fn purged(log: &Log) -> Result<(), String> {
    log.purge().map_err(|error| error.to_string())
}

/// Old files go, until this step.
fn purge(skipped: &[SyncKind], stop: Stop) -> Result<Came, String> {
    let (files, log) = OldFiles::new();
    files.disk.skip(skipped);
    let came = until(stop.step, &files.disk, || purged(&log))?;
    files.check(log, stop.seed).map(|()| came)
}

/// The step of a purge at which its first batch is synced.
static FIRST_SYNC: LazyLock<u64> = LazyLock::new(|| {
    let (files, log) = OldFiles::new();
    let before = files.disk.steps();
    purged(&log).expect("nothing stops it");
    let steps = files.disk.last_steps((files.disk.steps() - before) as usize);
    let wanted = format!("sync {:?}", SyncKind::RewriteWrite);
    let place = steps.lines().position(|step| step.ends_with(&wanted)).expect("batches are synced");
    place as u64 + 1
});

/// The sync of the first batch fails, and the process dies with it: the next one finds bytes that are not on the disk.
/// Then a shard is removed, which the engine writes down beside what it keeps, and old files go, until this step.
fn purge_again(skipped: &[SyncKind], stop: Stop) -> Result<Came, String> {
    let (files, log) = OldFiles::new();
    files.disk.fail(Some((SyncKind::RewriteWrite, 0)));
    assert_eq!(until(*FIRST_SYNC, &files.disk, || purged(&log)), Ok(Came::ToTheStep));
    drop(log);
    files.disk.crash(Crash::Process, &mut Random::new(stop.seed));
    files.disk.fail(None);
    files.disk.skip(skipped);

    files.disk.set_doing(Doing::Starting);
    let log = files.open()?;
    files.disk.set_doing(Doing::Maintenance);
    let work = || log.remove(FILLING).map_err(|error| error.to_string()).and_then(|()| purged(&log));
    let came = until(stop.step, &files.disk, work)?;
    files.check(log, stop.seed).map(|()| came)
}

/// Works until the disk stops, with these syncs left out.
type Work = fn(&[SyncKind], Stop) -> Result<Came, String>;

/// The first stop that leads to what is wrong, and how many were tried.
fn first_wrong(work: Work, skipped: &[SyncKind], seeds: u64) -> (Option<(Stop, String)>, usize) {
    let mut tried = 0;
    for seed in 0..seeds {
        for step in 1.. {
            tried += 1;
            let stop = Stop { step, seed };
            match work(skipped, stop) {
                Ok(Came::ToTheStep) => {}
                Ok(Came::ToTheEnd) => break,
                Err(wrong) => return (Some((stop, wrong)), tried),
            }
        }
    }
    (None, tried)
}

/// Every step leaves what is right; without this sync some step does not, and with it that one does, too.
fn assert_needed(work: Work, kind: SyncKind) {
    let (wrong, tried) = first_wrong(work, &[], SEEDS);
    assert_eq!(wrong, None);
    println!("{tried} crash points");
    let (wrong, _) = first_wrong(work, &[kind], SEEDS_MAX);
    let (stop, wrong) = wrong.unwrap_or_else(|| panic!("{kind:?}: {SEEDS_MAX} seeds do without"));
    println!("{kind:?}: needed, shown by {stop:?}: {wrong}");
    work(&[], stop).expect("it is as it should be with the sync");
}

#[test]
fn each_large_batch_of_what_is_kept_must_be_synced_before_the_next_one() {
    assert_needed(purge, SyncKind::RewriteWrite);
}

#[test]
fn what_a_start_finds_of_it_and_writes_once_more_must_be_synced() {
    assert_needed(purge_again, SyncKind::RewriteFound);
}
