//! The `[storage]` table: shards in this process, or on nodes of their own.

use super::ConfigError;
use serde::Deserialize;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use wire_protocol::limits::SHARD_COUNT_MAX;

// The defaults and bounds of a storage node of its own, once more: `storage_client/embedded.rs` alone knows the storage
// node. A test compares them (`tuning/tests/limits/defaults.rs`).

/// Shards when the file names no number.
const SHARD_COUNT_DEFAULT: u32 = 8;
/// Bytes of one log file when the file names no number (`storage.log_file_bytes`): as in a storage node of its own.
pub(super) const LOG_FILE_BYTES_DEFAULT: u64 = 32 << 20;
/// Bytes of log files kept when the file names no number (`storage.log_keep_bytes`): as in a storage node of its own.
const LOG_KEEP_BYTES_DEFAULT: u64 = 256 << 20;
/// Bytes of one memtable when the file names no number (`storage.memtable_bytes`): as in a storage node of its own.
const MEMTABLE_BYTES_DEFAULT: u64 = 64 << 20;
/// Bytes of rows kept for reading when the file names no number (`storage.block_cache_bytes`): as in a storage node of
/// its own.
const BLOCK_CACHE_BYTES_DEFAULT: u64 = 256 << 20;
/// Least bytes of one log file (`storage.log_file_bytes`): as in a storage node of its own.
pub const LOG_FILE_BYTES_MIN: u64 = 1 << 20;
/// Fewest log files kept, whose bytes are `storage.log_keep_bytes`: as in a storage node of its own.
pub const LOG_KEEP_FILES_MIN: u64 = 2;
/// Least bytes of one memtable (`storage.memtable_bytes`): as in a storage node of its own.
pub const MEMTABLE_BYTES_MIN: u64 = 4 << 20;
/// Least bytes of rows kept for reading (`storage.block_cache_bytes`): as in a storage node of its own.
pub const BLOCK_CACHE_BYTES_MIN: u64 = 8 << 20;

/// Where the shards are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageMode {
    /// In this process, on the gateway's own loops.
    Embedded(EmbeddedConfig),
    /// On storage nodes, over mutual TLS.
    Nodes(NodesConfig),
}

/// The storage node in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedConfig {
    /// Fixed when the data folder is made.
    pub shard_count: u32,
    /// Bytes of one log file.
    pub log_file_bytes: u64,
    /// Bytes of log files that are kept to be used again; at least two files.
    pub log_keep_bytes: u64,
    /// Whether log files are written with zeros before the first start: faster syncs for `log_keep_bytes` and
    /// half as much again of disk.
    pub log_prefill: bool,
    /// Bytes of new rows that are not in a table yet: of one of at most four pieces.
    pub memtable_bytes: u64,
    /// Bytes of rows kept for reading.
    pub block_cache_bytes: u64,
}

/// Storage nodes and how to prove to them who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodesConfig {
    /// Shards of the whole fleet.
    pub shard_count: u32,
    /// The nodes; together they own every shard, each shard once. If none of them lists shards, each shard has several
    /// copies, and whoever leads it says so.
    pub nodes: Vec<NodeAddress>,
    /// Authority that signed the nodes' certificates, PEM.
    pub ca: PathBuf,
    /// Our certificate, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Name in the nodes' certificates.
    pub server_name: String,
}

impl NodesConfig {
    /// Whether shards have several copies, so that their leaders change.
    pub fn is_replicated(&self) -> bool {
        self.nodes.iter().all(|node| node.shards.is_empty())
    }
}

/// One storage node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeAddress {
    /// As in the node's own configuration.
    pub id: u32,
    /// Where it listens for links.
    pub address: SocketAddr,
    /// The shards it owns, if there is one copy of each.
    #[serde(default)]
    pub shards: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Embedded,
    Nodes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StorageSection {
    mode: Mode,
    shard_count: u32,
    log_file_bytes: u64,
    log_keep_bytes: u64,
    log_prefill: bool,
    memtable_bytes: u64,
    block_cache_bytes: u64,
    nodes: Vec<NodeAddress>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    server_name: Option<String>,
}

impl Default for StorageSection {
    fn default() -> Self {
        Self {
            mode: Mode::Embedded,
            shard_count: SHARD_COUNT_DEFAULT,
            log_file_bytes: LOG_FILE_BYTES_DEFAULT,
            log_keep_bytes: LOG_KEEP_BYTES_DEFAULT,
            log_prefill: true,
            memtable_bytes: MEMTABLE_BYTES_DEFAULT,
            block_cache_bytes: BLOCK_CACHE_BYTES_DEFAULT,
            nodes: Vec::new(),
            ca: None,
            cert: None,
            key: None,
            server_name: None,
        }
    }
}

impl StorageSection {
    pub(super) fn check(self) -> Result<StorageMode, ConfigError> {
        let shard_count = self.shard_count;
        if !(1..=SHARD_COUNT_MAX).contains(&shard_count) {
            let problem = format!("{shard_count} is not from 1 to {SHARD_COUNT_MAX}");
            return Err(ConfigError::impossible("storage.shard_count", problem));
        }
        if self.mode == Mode::Embedded {
            let nothing_else = self.nodes.is_empty()
                && self.ca.is_none()
                && self.cert.is_none()
                && self.key.is_none()
                && self.server_name.is_none();
            if !nothing_else {
                let problem = "nodes, ca, cert, key and server_name need mode = \"nodes\"";
                return Err(ConfigError::impossible("storage", problem));
            }
            let Self { log_file_bytes, log_keep_bytes, log_prefill, .. } = self;
            let Self { memtable_bytes, block_cache_bytes, .. } = self;
            let least = [
                ("storage.log_file_bytes", log_file_bytes, LOG_FILE_BYTES_MIN),
                ("storage.memtable_bytes", memtable_bytes, MEMTABLE_BYTES_MIN),
                ("storage.block_cache_bytes", block_cache_bytes, BLOCK_CACHE_BYTES_MIN),
            ];
            for (key, bytes, min) in least {
                if bytes < min {
                    return Err(ConfigError::impossible(key, format!("{bytes} is below {min}")));
                }
            }
            let log_keep_bytes_min = log_file_bytes.saturating_mul(LOG_KEEP_FILES_MIN);
            if log_keep_bytes < log_keep_bytes_min {
                let problem = format!(
                    "{log_keep_bytes} is below {log_keep_bytes_min}, {LOG_KEEP_FILES_MIN} times log_file_bytes"
                );
                return Err(ConfigError::impossible("storage.log_keep_bytes", problem));
            }
            return Ok(StorageMode::Embedded(EmbeddedConfig {
                shard_count,
                log_file_bytes,
                log_keep_bytes,
                log_prefill,
                memtable_bytes,
                block_cache_bytes,
            }));
        }
        check_owners(shard_count, &self.nodes)?;
        let missing = |key| ConfigError::impossible(key, "needed when mode = \"nodes\"");
        Ok(StorageMode::Nodes(NodesConfig {
            shard_count,
            nodes: self.nodes,
            ca: self.ca.ok_or_else(|| missing("storage.ca"))?,
            cert: self.cert.ok_or_else(|| missing("storage.cert"))?,
            key: self.key.ok_or_else(|| missing("storage.key"))?,
            server_name: self.server_name.ok_or_else(|| missing("storage.server_name"))?,
        }))
    }
}

fn check_owners(shard_count: u32, nodes: &[NodeAddress]) -> Result<(), ConfigError> {
    let mut owners: Vec<Option<u32>> = vec![None; shard_count as usize];
    for (index, node) in nodes.iter().enumerate() {
        if nodes[..index].iter().any(|earlier| earlier.id == node.id) {
            return Err(ConfigError::impossible("storage.nodes", format!("node {} is there twice", node.id)));
        }
        for &shard in &node.shards {
            let problem = match owners.get_mut(shard as usize) {
                None => format!("there is no shard {shard} of {shard_count}"),
                Some(Some(owner)) => format!("shard {shard} belongs to {owner} and to {}", node.id),
                Some(owner) => {
                    *owner = Some(node.id);
                    continue;
                }
            };
            return Err(ConfigError::impossible("storage.nodes", problem));
        }
    }
    if !nodes.is_empty() && nodes.iter().all(|node| node.shards.is_empty()) {
        return Ok(());
    }
    match owners.iter().position(Option::is_none) {
        Some(shard) => Err(ConfigError::impossible("storage.nodes", format!("nobody owns shard {shard}"))),
        None => Ok(()),
    }
}

impl fmt::Display for StorageMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StorageMode::Embedded(embedded) => {
                writeln!(f, "storage.mode = \"embedded\"\nstorage.shard_count = {}", embedded.shard_count)?;
                writeln!(f, "storage.log_file_bytes = {}", embedded.log_file_bytes)?;
                writeln!(f, "storage.log_keep_bytes = {}", embedded.log_keep_bytes)?;
                writeln!(f, "storage.log_prefill = {}", embedded.log_prefill)?;
                writeln!(f, "storage.memtable_bytes = {}", embedded.memtable_bytes)?;
                write!(f, "storage.block_cache_bytes = {}", embedded.block_cache_bytes)
            }
            StorageMode::Nodes(nodes) => {
                writeln!(f, "storage.mode = \"nodes\"\nstorage.shard_count = {}", nodes.shard_count)?;
                writeln!(f, "storage.ca = \"{}\"", nodes.ca.display())?;
                writeln!(f, "storage.cert = \"{}\"", nodes.cert.display())?;
                writeln!(f, "storage.key = \"{}\"", nodes.key.display())?;
                write!(f, "storage.server_name = \"{}\"", nodes.server_name)?;
                nodes.nodes.iter().try_for_each(|node| {
                    write!(f, "\nstorage.node {} = \"{}\" {:?}", node.id, node.address, node.shards)
                })
            }
        }
    }
}
