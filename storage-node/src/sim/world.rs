//! A disk, a node's lives on it, and what its users remember.

use super::ledger::Ledger;
use super::node::{Ended, Life};
use super::{Crash, Random, SimDisk, SimStore};
use crate::config::{LogConfig, StorageConfig};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// Shards of a world: users' homes and rooms are on several, and some cores have more than one.
const SHARDS: u32 = 4;

/// Everything but the node's process.
pub struct World {
    pub disk: Arc<SimDisk>,
    pub config: StorageConfig,
    pub ledger: Ledger,
    store: SimStore,
    random: Random,
    now_ms: u64,
    ends_cleanly: bool,
    _root: TempDir,
}

/// A real, empty folder for a disk. In memory where there is such a folder: the log engine syncs it by itself.
pub fn real_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a folder")
}

impl World {
    /// Nothing has ever happened. `messages`: how many are sent in all.
    pub fn new(seed: u64, messages: usize) -> Self {
        let root = real_folder();
        let disk = SimDisk::new(root.path());
        // Files so small that within few messages the log is cut, files are recycled, and old entries are rewritten.
        let file_bytes = 2 << 10;
        let prefill = seed.is_multiple_of(3);
        let config = StorageConfig {
            data_dir: root.path().join("data"),
            shard_count: SHARDS,
            log: LogConfig { file_bytes, keep_bytes: 3 * file_bytes, prefill },
            ..StorageConfig::default()
        };
        Self {
            store: SimStore::new(&disk),
            disk,
            config,
            ledger: Ledger::new(SHARDS, messages),
            random: Random::new(seed),
            now_ms: 1_000_000,
            ends_cleanly: false,
            _root: root,
        }
    }

    /// Starts the node, lets it work until everything is done or until the disk stops it after so many steps.
    pub fn live(&mut self, stop_after: Option<u64>) -> Ended {
        self.disk.stop_after(stop_after);
        let cores = 1 + self.random.below(3);
        let life = Life {
            config: &self.config,
            disk: &self.disk,
            store: &self.store,
            ledger: &mut self.ledger,
            random: &mut self.random,
            now_ms: &mut self.now_ms,
            cores,
            ends_cleanly: self.ends_cleanly,
        };
        // A thread for each life: the log engine keeps blocks it has read in memory of the thread.
        let lived = std::thread::scope(|scope| {
            scope.spawn(|| catch_unwind(AssertUnwindSafe(|| life.live()))).join().expect("it is caught")
        });
        self.ledger.node_stopped();
        match lived {
            Ok(ended) => ended,
            Err(_) if self.disk.is_stopped() => Ended::Stopped,
            Err(panic) => {
                let said = panic.downcast_ref::<String>().map(String::as_str);
                let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                Ended::Broken(format!("panicked: {said}"))
            }
        }
    }

    /// What the next start finds.
    pub fn crash(&mut self, crash: Crash) {
        self.disk.crash(crash, &mut self.random);
        self.store.crash(crash, &mut self.random);
    }

    /// Whether rows are made durable once more when everything is done, as a node does that is told to stop.
    pub fn set_ends_cleanly(&mut self, ends_cleanly: bool) {
        self.ends_cleanly = ends_cleanly;
    }

    /// For choices of the test itself.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }
}
