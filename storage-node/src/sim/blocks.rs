//! Several nodes in one thread. The log engine keeps the block that it read last in memory of the thread, under a name
//! that says which file and where, but not of which engine. A process has one engine; here there are several, whose
//! files have the same names. So whenever another node goes on, a block of a log of nobody's is read, which takes the
//! place of the last node's.

use crate::config::LogConfig;
use crate::disk::Disk;
use crate::replication::{Log, LogRange, LogWrite};
use std::cell::{Cell, RefCell};
use tempfile::TempDir;
use wire_protocol::ids::ShardId;

/// Bytes of the block: no node writes one as large, so its name is nobody else's.
const BLOCK_BYTES: usize = 48 * 1024;
/// Shard of the log of nobody's.
const SHARD: ShardId = ShardId(0);

/// A log on the machine's own disk, with one entry.
struct Nobodys {
    log: Log,
    _folder: TempDir,
}

thread_local! {
    /// Who ran last.
    static RUNNING: Cell<u64> = const { Cell::new(0) };
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

/// From here on this life of a node runs, until another one does.
pub(super) fn enter(life: u64) {
    if RUNNING.replace(life) == life {
        return;
    }
    NOBODYS.with_borrow_mut(|nobodys| {
        let log = &nobodys.get_or_insert_with(Nobodys::new).log;
        let entries = log.read(SHARD, LogRange { above: 0, up_to: 1 }, usize::MAX).expect("it reads");
        assert_eq!(entries.len(), 1, "the block was read");
    });
}
