//! A group over real log files: what is persisted comes back, and nothing is committed before.

use super::*;
use crate::config::LogConfig;
use crate::disk::Disk;
use crate::sim::{Crash, Doing, Random, SimDisk, SyncKind, real_folder};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const SHARD: ShardId = ShardId(3);

fn open_log(folder: &Path) -> Arc<Log> {
    let config = LogConfig { file_bytes: 1 << 20, keep_bytes: 2 << 20, prefill: false };
    Arc::new(Log::open(folder, &config).expect("it opens"))
}

/// Writes what the group wants written, until it wants nothing; gives what was committed.
fn settle(group: &mut Group, log: &Log) -> Vec<LogEntry> {
    let mut committed = Vec::new();
    while let Some(output) = group.poll() {
        committed.extend(output.committed);
        if let Some(write) = output.write {
            let number = write.number();
            log.write(&[write]).expect("it writes");
            group.persisted(number);
        }
    }
    committed
}

fn recovered_at(group: &Group) -> u64 {
    match group.role() {
        Role::Leader { recovered_at, .. } => recovered_at,
        Role::Follower { .. } => panic!("the only replica leads"),
    }
}

fn record(number: u64) -> Vec<u8> {
    let mut record = vec![RECORD_VERSION];
    record.extend(number.to_be_bytes());
    record
}

fn indexes(entries: &[LogEntry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.index).collect()
}

#[test]
fn nothing_is_committed_before_it_is_persisted() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open_log(folder.path());
    let mut group = Group::open(Arc::clone(&log), SHARD, 0, &Replicas::alone(1)).expect("it opens");
    assert_eq!(indexes(&settle(&mut group, &log)), [1], "the entry that opens the term");
    let mut writes = Vec::new();
    for number in 2..=4 {
        assert_eq!(group.propose(record(number)).expect("a leader takes it"), number);
        while let Some(output) = group.poll() {
            assert_eq!(output.committed, []);
            writes.extend(output.write);
        }
    }
    let numbers: Vec<u64> = writes.iter().map(LogWrite::number).collect();
    log.write(&writes).expect("it writes");
    // The first two of three.
    group.persisted(numbers[1]);
    assert_eq!(indexes(&settle(&mut group, &log)), [2, 3]);
    group.persisted(numbers[2]);
    let last = settle(&mut group, &log);
    assert_eq!(last, [LogEntry { index: 4, record: record(4).into(), replicas: None }]);
}

#[test]
fn a_restart_commits_again_what_is_above_the_stored_state() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut terms = Vec::new();
    for round in 0..3u64 {
        let log = open_log(folder.path());
        let last = log.span(SHARD).map_or(0, |(_, last)| last);
        // In the last round nothing of the log was stored, in the others all but one entry.
        let stored = if round == 2 { 0 } else { last.saturating_sub(1) };
        let mut group = Group::open(Arc::clone(&log), SHARD, stored, &Replicas::alone(1)).expect("it opens");
        terms.push(group.term());
        let committed = settle(&mut group, &log);
        let expected: Vec<u64> = (stored + 1..=last + 1).collect();
        assert_eq!(indexes(&committed), expected, "round {round}");
        assert_eq!(recovered_at(&group), last + 1);
        for number in 1..=5 {
            group.propose(record(number)).expect("a leader takes it");
        }
        assert_eq!(indexes(&settle(&mut group, &log)), (last + 2..=last + 6).collect::<Vec<_>>());
        group.applied(last + 6);
    }
    assert!(terms.is_sorted_by(|a, b| a < b), "{terms:?}");
}

#[test]
fn a_cut_log_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let log = open_log(folder.path());
        let mut group = Group::open(Arc::clone(&log), SHARD, 0, &Replicas::alone(1)).expect("it opens");
        (0..9).for_each(|number| assert!(group.propose(record(number)).is_ok()));
        assert_eq!(settle(&mut group, &log).len(), 10);
        group.applied(10);
        assert_eq!(log.cut_index(SHARD), 0);
        log.cut(&[(SHARD, 6)]).expect("it cuts");
        assert_eq!(log.cut_index(SHARD), 6);
        let range = LogRange { above: 6, up_to: 9 };
        let read = log.read(SHARD, range, usize::MAX).expect("it reads");
        assert_eq!(indexes(&read), [7, 8, 9]);
        assert_eq!(log.read(SHARD, range, 1).expect("it reads").len(), 1, "one at least");
    }
    let log = open_log(folder.path());
    for stored in [5, 11] {
        let refusal = Group::open(Arc::clone(&log), SHARD, stored, &Replicas::alone(1))
            .err()
            .expect("a gap")
            .to_string();
        assert!(refusal.contains(&format!("ends at {stored}")), "{refusal}");
    }
    let mut group = Group::open(Arc::clone(&log), SHARD, 6, &Replicas::alone(1)).expect("it opens");
    assert_eq!(indexes(&settle(&mut group, &log)), [7, 8, 9, 10, 11]);
    // Everything but the last entry is cut.
    group.applied(11);
    log.cut(&[(SHARD, 11)]).expect("it cuts");
    drop(group);
    let mut group = Group::open(Arc::clone(&log), SHARD, 11, &Replicas::alone(1)).expect("it opens");
    assert_eq!(indexes(&settle(&mut group, &log)), [12]);
}

#[test]
fn a_torn_write_at_the_end_is_dropped_and_damage_before_it_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let log = open_log(folder.path());
        let mut group = Group::open(Arc::clone(&log), SHARD, 0, &Replicas::alone(1)).expect("it opens");
        for number in 0..9 {
            group.propose(record(number)).expect("a leader takes it");
            settle(&mut group, &log);
        }
    }
    let file = std::fs::read_dir(folder.path())
        .expect("it lists")
        .map(|file| file.expect("it lists").path())
        .find(|file| file.to_string_lossy().ends_with("0001.raftlog"))
        .expect("a log file");
    let whole = std::fs::read(&file).expect("it reads");
    let used = whole.iter().rposition(|byte| *byte != 0).expect("it is not empty") + 1;
    std::fs::write(&file, &whole[..used - 3]).expect("it writes");
    {
        let log = open_log(folder.path());
        assert_eq!(log.span(SHARD), Some((1, 9)), "the last of ten entries was torn");
        Group::open(log, SHARD, 9, &Replicas::alone(1)).expect("it opens");
    }
}

#[test]
fn a_start_reads_what_it_will_apply_and_names_the_damaged_file() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let log = open_log(folder.path());
        let mut group = Group::open(Arc::clone(&log), SHARD, 0, &Replicas::alone(1)).expect("it opens");
        for number in 0..9 {
            group.propose(record(number)).expect("a leader takes it");
            settle(&mut group, &log);
        }
    }
    let file = folder.path().join("0000000000000001.raftlog");
    let whole = std::fs::read(&file).expect("it reads");
    let wanted = record(4);
    let at = whole.windows(wanted.len()).position(|bytes| bytes == wanted).expect("it is in the file");
    let mut damaged = whole.clone();
    damaged[at + wanted.len() - 1] ^= 1;
    std::fs::write(&file, &damaged).expect("it writes");
    let refusal = Group::open(open_log(folder.path()), SHARD, 2, &Replicas::alone(1))
        .err()
        .expect("a broken entry")
        .to_string();
    assert!(refusal.contains("0000000000000001.raftlog: damaged"), "{refusal}");
    // Stored already, it is needed no more.
    Group::open(open_log(folder.path()), SHARD, 8, &Replicas::alone(1)).expect("it opens");
    // The refused start changed nothing.
    std::fs::write(&file, &whole).expect("it writes");
    let mut group = Group::open(open_log(folder.path()), SHARD, 2, &Replicas::alone(1)).expect("it opens");
    assert_eq!(recovered_at(&group), 11);
    assert!(group.poll().is_some());
}

/// The engine believes a head's alignment, and would set aside that many bytes: the process would end without a word.
#[test]
fn a_rotten_head_is_refused_by_the_name_of_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open_log(folder.path()));
    let file = folder.path().join("0000000000000001.raftlog");
    let whole = std::fs::read(&file).expect("it reads");
    let alignment = damage::HEAD_BYTES - 8..damage::HEAD_BYTES;
    assert_eq!(whole[alignment.clone()], [0; 8], "the head is another one than it was");
    for at in alignment {
        let mut rotten = whole.clone();
        rotten[at] = 0x10;
        std::fs::write(&file, &rotten).expect("it writes");
        let config = LogConfig { file_bytes: 1 << 20, keep_bytes: 2 << 20, prefill: false };
        let refusal = Log::open(folder.path(), &config).err().expect("refused").to_string();
        assert!(refusal.contains("0000000000000001.raftlog: damaged in its head"), "byte {at}: {refusal}");
    }
    std::fs::write(&file, &whole).expect("it writes");
    drop(open_log(folder.path()));
}

#[test]
fn a_record_of_another_format_is_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let log = open_log(folder.path());
        let mut group = Group::open(Arc::clone(&log), SHARD, 0, &Replicas::alone(1)).expect("it opens");
        group.propose(vec![RECORD_VERSION + 1, 0]).expect("a leader takes it");
        settle(&mut group, &log);
    }
    let refusal = Group::open(open_log(folder.path()), SHARD, 1, &Replicas::alone(1))
        .err()
        .expect("unknown")
        .to_string();
    assert!(refusal.contains("entry 2 is of format 2, this program reads 1"), "{refusal}");
}

/// What a group with `count` entries proposed wants written, entry by entry.
fn writes_of(group: &mut Group, count: u64) -> Vec<LogWrite> {
    let mut writes = Vec::new();
    for number in 0..count {
        group.propose(record(number)).expect("a leader takes it");
        writes.extend(std::iter::from_fn(|| group.poll()).filter_map(|output| output.write));
    }
    writes
}

/// Queues writes and the stop behind them, then is the log thread.
fn run_queued(
    log: &Log,
    writes: Vec<LogWrite>,
    report: impl FnMut(SyncedWrite<'_>),
) -> Result<(), ReplicationError> {
    let (requests, queued) = crossbeam_channel::unbounded();
    for (core, write) in writes.into_iter().enumerate() {
        requests.send(LogRequest::Write { core, writes: vec![write] }).expect("it is received below");
    }
    requests.send(LogRequest::Stop).expect("it is received below");
    run_log_thread(log, &queued, report)
}

#[test]
fn a_write_is_reported_when_it_is_in_the_files_and_synced() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open_log(folder.path());
    let mut group = Group::open(Arc::clone(&log), SHARD, 0, &Replicas::alone(1)).expect("it opens");
    settle(&mut group, &log);
    let writes = writes_of(&mut group, 5);
    let numbers: Vec<u64> = writes.iter().map(LogWrite::number).collect();
    let mut reported = Vec::new();
    // The engine's account of this thread's writes.
    raft_engine::take_perf_context();
    run_queued(&log, writes, |done| {
        assert_eq!(log.span(SHARD), Some((1, 6)), "reported before it was written");
        let spent = raft_engine::take_perf_context();
        assert!(spent.log_sync_duration > Duration::ZERO, "reported before it was synced");
        reported.extend(done.writes.iter().map(LogWrite::number).zip(done.cores.iter().copied()));
    })
    .expect("the disk is well");
    let expected: Vec<(u64, usize)> = numbers.into_iter().zip(0..).collect();
    assert_eq!(reported, expected, "everything that was queued before the stop, each to its core");
}

#[test]
fn one_synced_write_takes_what_all_shards_have_queued_up_to_its_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open_log(folder.path());
    let bytes = 1 << 20;
    let fit = (log_thread::LOG_BATCH_BYTES_MAX / bytes) as u32;
    let write = |shard| LogWrite::of_one(ShardId(shard), vec![RECORD_VERSION; bytes]);
    let mut synced: Vec<Vec<u32>> = Vec::new();
    run_queued(&log, (0..fit + 3).map(write).collect(), |done| {
        synced.push(done.writes.iter().map(|write| write.shard().0).collect());
    })
    .expect("the disk is well");
    assert_eq!(synced, [(0..fit).collect::<Vec<_>>(), (fit..fit + 3).collect()]);
}

#[test]
fn what_one_turn_wants_written_is_one_request_and_is_written_in_pieces_that_the_engine_bears() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open_log(folder.path());
    let bytes = log_thread::LOG_BATCH_BYTES_MAX / 4;
    let writes = (0..9).map(|shard| LogWrite::of_one(ShardId(shard), vec![RECORD_VERSION; bytes])).collect();
    let (requests, queued) = crossbeam_channel::unbounded();
    requests.send(LogRequest::Write { core: 7, writes }).expect("it is received below");
    requests.send(LogRequest::Stop).expect("it is received below");
    let mut synced: Vec<Vec<u32>> = Vec::new();
    run_log_thread(&log, &queued, |done| {
        assert!(done.cores.len() == done.writes.len() && done.cores.iter().all(|core| *core == 7));
        synced.push(done.writes.iter().map(|write| write.shard().0).collect());
    })
    .expect("the disk is well");
    assert_eq!(synced, [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8]]);
}

/// The kernel shows what it could not sync, and no later sync writes it. One copy writes before it counts anything; one of
/// several says that it has an entry without writing.
#[test]
fn what_the_process_before_could_not_sync_is_on_the_disk_before_a_copy_counts_it() {
    for makes_durable in [true, false] {
        let root = real_folder();
        let (disk, random) = (SimDisk::new(root.path()), &mut Random::new(1));
        let folder = root.path().join("log");
        let config = LogConfig { file_bytes: 1 << 20, keep_bytes: 2 << 20, prefill: false };
        let open = || {
            disk.set_doing(Doing::Starting);
            let log = Log::open_on(Disk::Simulated(Arc::clone(&disk)), &folder, &config);
            Arc::new(log.expect("it opens"))
        };
        let last = |log: &Log| log.span(SHARD).expect("there are entries").1;
        {
            let log = open();
            let mut group = Group::open(Arc::clone(&log), SHARD, 0, &Replicas::alone(1)).expect("it opens");
            disk.set_doing(Doing::LogThread);
            assert_eq!(indexes(&settle(&mut group, &log)), [1]);
            group.propose(record(2)).expect("a leader takes it");
            let write = group.poll().and_then(|output| output.write).expect("it is to be written");
            disk.fail(Some((SyncKind::LogWrite, 0)));
            log.write(&[write]).expect_err("its sync fails");
        }
        disk.fail(None);
        disk.crash(Crash::Process, random);
        let log = open();
        assert_eq!(last(&log), 2, "the kernel shows it");
        if makes_durable {
            log.make_durable().expect("it writes");
        }
        drop(log);
        disk.crash(Crash::PowerKeepsNothing, random);
        assert_eq!(last(&open()), if makes_durable { 2 } else { 1 });
    }
}
