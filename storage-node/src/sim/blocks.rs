//! Several nodes in one thread. The log engine keeps the block that it read last in memory of the thread, under a name
//! that says which file and where, but not of which engine. A process has one engine; here there are several, whose
//! files have the same names. So whenever another log is read than before, a block of a log of nobody's is read first,
//! which takes the place of the last one's.

use crate::config::LogConfig;
use crate::disk::Disk;
use crate::replication::{Log, LogRange, LogWrite};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use wire_protocol::ids::ShardId;

/// Bytes of the block: no node writes one as large, so its name is nobody else's.
const BLOCK_BYTES: usize = 48 * 1024;
/// In place of a log's number: the thread has read no block; it reads nobody's.
const NOTHING: u64 = 0;
const NOBODY: u64 = 1;
/// Shard of the log of nobody's.
const SHARD: ShardId = ShardId(0);

/// A log on the machine's own disk, with one entry.
struct Nobodys {
    log: Log,
    _folder: TempDir,
}

thread_local! {
    /// Whose blocks were read last.
    static READING: Cell<u64> = const { Cell::new(NOTHING) };
    static NOBODYS: RefCell<Option<Nobodys>> = const { RefCell::new(None) };
}

impl Nobodys {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file_bytes = 1 << 20;
        let config = LogConfig { file_bytes, keep_bytes: 2 * file_bytes, prefill: false };
        let log = Log::open_on(Disk::Real, &folder.path().join("log"), &config).expect("a new log");
        let record: Vec<u8> = (0..BLOCK_BYTES).map(|at| (at * at % 251) as u8).collect();
        log.write(&[LogWrite::of_one(SHARD, record)]).expect("it is written");
        Self { log, _folder: folder }
    }
}

/// A log is opened: its number, and from here on its blocks are read.
pub(crate) fn enter_new() -> u64 {
    static OPENED: AtomicU64 = AtomicU64::new(NOBODY + 1);
    let number = OPENED.fetch_add(1, Ordering::Relaxed);
    enter(number);
    number
}

/// From here on blocks of the log of this number are read, until another one's are.
pub(crate) fn enter(number: u64) {
    // While nobody's log is read, or made, it is not another one itself.
    let last = READING.replace(NOBODY);
    match last {
        NOBODY => return,
        _ if last == NOTHING || last == number => {}
        _ => NOBODYS.with_borrow_mut(|nobodys| {
            let log = &nobodys.get_or_insert_with(Nobodys::new).log;
            let entries = log.read(SHARD, LogRange { above: 0, up_to: 1 }, usize::MAX).expect("it reads");
            assert_eq!(entries.len(), 1, "the block was read");
        }),
    }
    READING.set(number);
}
