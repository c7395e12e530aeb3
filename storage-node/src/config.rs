//! What a storage node is told at start. Parsed once; later code never revalidates it.

use crate::backup::{BACKUP_EVERY_S_MIN, BACKUPS_KEPT_DEFAULT, BACKUPS_KEPT_MAX};
use crate::shard::ENTRY_BYTES_MAX;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use wire_protocol::limits::SHARD_COUNT_MAX;

/// Shards when the configuration names no number: enough for 8 cores, and each costs little.
pub const SHARD_COUNT_DEFAULT: u32 = 8;
/// Name in the certificates of storage nodes when the configuration names no other.
pub const SERVER_NAME_DEFAULT: &str = "ringline-storage";
/// Bytes of one log file when the configuration names no number (`log.file_bytes`): an eighth of what is kept, since
/// the log is cut, and its room used again, by whole files.
pub const LOG_FILE_BYTES_DEFAULT: u64 = 32 << 20;
/// Bytes of log files kept when the configuration names no number (`log.keep_bytes`): eight files; the store is
/// synced whenever two are full. Written ahead they take 384 MiB of disk; for copies that lag up to 2 GiB are kept.
pub const LOG_KEEP_BYTES_DEFAULT: u64 = 256 << 20;
/// Bytes of one memtable when the configuration names no number (`memory.memtable_bytes`): all four that
/// there may be take 256 MiB of a small machine.
pub const MEMTABLE_BYTES_DEFAULT: u64 = 64 << 20;
/// Bytes of rows kept for reading when the configuration names no number (`memory.block_cache_bytes`): as much
/// as all memtables may take, for 16,000 blocks of 50 short messages each.
pub const BLOCK_CACHE_BYTES_DEFAULT: u64 = 256 << 20;

/// Everything a storage node is told. An unknown key is an error.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// Where log and rows are kept; made if missing.
    pub data_dir: PathBuf,
    /// This node's id; never changes for a data folder.
    pub node_id: u32,
    /// Shards of the whole fleet; never changes for a data folder.
    pub shard_count: u32,
    /// All storage nodes. Empty: this node owns every shard, alone.
    pub nodes: Vec<NodeConfig>,
    /// Copies of each shard, on as many nodes: 1, 3 or 5. With more than 1 the first copies follow from the list of nodes,
    /// or are those that the nodes list; from then on the fleet itself knows where they are.
    pub replicas: u32,
    /// Whether an empty folder may be the beginning of a node with copies: said on the command line.
    #[serde(skip)]
    pub beginning: Beginning,
    /// Certificates of the links. Needed by `listen` and by more than one node.
    pub tls: Option<LinkTls>,
    /// Where links are accepted (standalone only).
    pub listen: Option<SocketAddr>,
    /// Where metrics are served, loopback only (standalone only).
    pub metrics_listen: Option<SocketAddr>,
    /// Cores of a standalone node; 0: all that the process may use.
    pub cores: usize,
    /// Sizes of the log.
    pub log: LogConfig,
    /// Sizes of what is kept in memory.
    pub memory: MemoryConfig,
    /// Backups that the node makes by itself; `None`: it makes those that it is told to.
    pub backup: Option<BackupConfig>,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("data"),
            node_id: 1,
            shard_count: SHARD_COUNT_DEFAULT,
            nodes: Vec::new(),
            replicas: 1,
            beginning: Beginning::Known,
            tls: None,
            listen: None,
            metrics_listen: None,
            cores: 0,
            log: LogConfig::default(),
            memory: MemoryConfig::default(),
            backup: None,
        }
    }
}

/// What an empty data folder of a node with copies means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Beginning {
    /// That it was lost: such a node must not come back.
    #[default]
    Known,
    /// The fleet never ran; the first copies are as configured.
    NewFleet,
    /// The fleet runs, and this is a node that it is to get: it holds nothing yet.
    Join,
}

/// One storage node of the fleet.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The node's id.
    pub id: u32,
    /// Where the other nodes and the gateways reach it.
    pub address: SocketAddr,
    /// The shards it owns, if there is one copy of each. Each shard belongs to exactly one node.
    #[serde(default)]
    pub shards: Vec<u32>,
    /// Where it stands: copies of a shard are in different zones if there are enough. Empty: a zone of its own.
    #[serde(default)]
    pub zone: String,
}

/// Certificates of mutual TLS between gateways and storage nodes: PEM files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkTls {
    /// The authority that signed every peer's certificate.
    pub ca: PathBuf,
    /// This node's certificate, with what leads to the authority.
    pub cert: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The name in the certificates of storage nodes.
    #[serde(default = "server_name_default")]
    pub server_name: String,
}

fn server_name_default() -> String {
    SERVER_NAME_DEFAULT.to_owned()
}

/// Backups that the node makes by itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupConfig {
    /// Where backups of all nodes are.
    pub to: PathBuf,
    /// Seconds from one to the next.
    pub every_s: u64,
    /// Backups of this node that are kept.
    #[serde(default = "keep_default")]
    pub keep: u32,
}

fn keep_default() -> u32 {
    BACKUPS_KEPT_DEFAULT
}

/// Least [`LogConfig::file_bytes`]: the commands of a full log entry fit.
pub const LOG_FILE_BYTES_MIN: u64 = 1 << 20;
/// Fewest files that [`LogConfig::keep_bytes`] holds: one is written on while the one before is emptied.
pub const LOG_KEEP_FILES_MIN: u64 = 2;

/// Sizes of the log's files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Bytes of one log file.
    pub file_bytes: u64,
    /// Bytes of log files kept before old ones are emptied and used again.
    pub keep_bytes: u64,
    /// Whether files are written with zeros before their first use, at the first start: a sync then changes no
    /// file size, which is worth 2 to 5 times the syncs. Costs 1.5 times `keep_bytes` of disk at once.
    pub prefill: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { file_bytes: LOG_FILE_BYTES_DEFAULT, keep_bytes: LOG_KEEP_BYTES_DEFAULT, prefill: true }
    }
}

/// What rows take of memory. Beside it: the process itself, the log's index, what is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// Bytes of new rows that are not in a table yet: of one of at most four pieces.
    pub memtable_bytes: u64,
    /// Bytes of rows kept for reading, indexes and filters included.
    pub block_cache_bytes: u64,
}

/// Least [`MemoryConfig::memtable_bytes`]: a largest log entry fits.
pub const MEMTABLE_BYTES_MIN: u64 = 4 << 20;
/// Least [`MemoryConfig::block_cache_bytes`]: the indexes of a small store fit.
pub const BLOCK_CACHE_BYTES_MIN: u64 = 8 << 20;

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { memtable_bytes: MEMTABLE_BYTES_DEFAULT, block_cache_bytes: BLOCK_CACHE_BYTES_DEFAULT }
    }
}

impl MemoryConfig {
    /// Whether a store can work with so little; names the key.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (key, bytes, min) in [
            ("memory.memtable_bytes", self.memtable_bytes, MEMTABLE_BYTES_MIN),
            ("memory.block_cache_bytes", self.block_cache_bytes, BLOCK_CACHE_BYTES_MIN),
        ] {
            if bytes < min {
                return Err(ConfigError::Invalid(format!("{key} {bytes} is below {min}")));
            }
        }
        Ok(())
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{file}: {error}")]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{file}: {error}")]
    Malformed {
        /// Which file.
        file: PathBuf,
        /// Where and why.
        error: Box<toml::de::Error>,
    },
    /// A value is out of range, or values contradict each other.
    #[error("configuration: {0}")]
    Invalid(String),
}

impl StorageConfig {
    /// Reads and checks a TOML file.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| ConfigError::Unreadable { file: file.to_owned(), error })?;
        let config: Self = toml::from_str(&text)
            .map_err(|error| ConfigError::Malformed { file: file.to_owned(), error: Box::new(error) })?;
        config.check()?;
        Ok(config)
    }

    /// Ranges, and relations between the values. Which node owns what is checked by
    /// [`crate::placement::ShardMap::new`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let invalid = |text: String| Err(ConfigError::Invalid(text));
        if self.shard_count == 0 || self.shard_count > SHARD_COUNT_MAX {
            return invalid(format!("shard_count {} is not within 1..={SHARD_COUNT_MAX}", self.shard_count));
        }
        let LogConfig { file_bytes, keep_bytes, .. } = self.log;
        if file_bytes < LOG_FILE_BYTES_MIN {
            return invalid(format!("log.file_bytes {file_bytes} is below {LOG_FILE_BYTES_MIN}"));
        }
        let keep_bytes_min = file_bytes.saturating_mul(LOG_KEEP_FILES_MIN);
        if keep_bytes < keep_bytes_min {
            return invalid(format!(
                "log.keep_bytes {keep_bytes} is below {keep_bytes_min}, {LOG_KEEP_FILES_MIN} times log.file_bytes"
            ));
        }
        self.memory.check()?;
        if let Some(backup) = &self.backup {
            if backup.every_s < BACKUP_EVERY_S_MIN {
                let every_s = backup.every_s;
                return invalid(format!("backup.every_s {every_s} is below {BACKUP_EVERY_S_MIN}"));
            }
            if backup.keep == 0 || backup.keep > BACKUPS_KEPT_MAX {
                return invalid(format!("backup.keep {} is not within 1..={BACKUPS_KEPT_MAX}", backup.keep));
            }
        }
        if (self.listen.is_some() || self.nodes.len() > 1) && self.tls.is_none() {
            return invalid("tls is needed to listen and to reach other nodes".to_owned());
        }
        if self.metrics_listen.is_some_and(|address| !address.ip().is_loopback()) {
            return invalid("metrics_listen must be a loopback address".to_owned());
        }
        Ok(())
    }
}

const _: () = {
    // The reason given at LOG_FILE_BYTES_MIN.
    assert!(LOG_FILE_BYTES_MIN >= ENTRY_BYTES_MAX as u64);
    // The defaults are within the ranges that are checked.
    assert!(LOG_FILE_BYTES_DEFAULT >= LOG_FILE_BYTES_MIN);
    assert!(LOG_KEEP_BYTES_DEFAULT >= LOG_KEEP_FILES_MIN * LOG_FILE_BYTES_DEFAULT);
    assert!(MEMTABLE_BYTES_DEFAULT >= MEMTABLE_BYTES_MIN);
    assert!(BLOCK_CACHE_BYTES_DEFAULT >= BLOCK_CACHE_BYTES_MIN);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_contradictions_are_refused() {
        assert!(toml::from_str::<StorageConfig>("colour = 1").is_err());
        let config: StorageConfig = toml::from_str("data_dir = 'x'\nshard_count = 4").expect("fits");
        assert_eq!((config.shard_count, config.node_id), (4, 1));
        config.check().expect("fits");
        for text in ["shard_count = 0", "listen = '127.0.0.1:1'", "metrics_listen = '8.8.8.8:1'"] {
            let config: StorageConfig = toml::from_str(text).expect("fits");
            assert!(config.check().is_err(), "{text}");
        }
    }

    /// Of files as large as by default.
    const LOG_KEEP_BYTES_MIN: u64 = LOG_KEEP_FILES_MIN * LOG_FILE_BYTES_DEFAULT;
    /// Keys, the last value of each that is taken, and the first that is not.
    const BOUNDS: [(&str, u64, u64); 9] = [
        ("shard_count", 1, 0),
        ("shard_count", SHARD_COUNT_MAX as u64, SHARD_COUNT_MAX as u64 + 1),
        ("log.file_bytes", LOG_FILE_BYTES_MIN, LOG_FILE_BYTES_MIN - 1),
        ("log.keep_bytes", LOG_KEEP_BYTES_MIN, LOG_KEEP_BYTES_MIN - 1),
        ("memory.memtable_bytes", MEMTABLE_BYTES_MIN, MEMTABLE_BYTES_MIN - 1),
        ("memory.block_cache_bytes", BLOCK_CACHE_BYTES_MIN, BLOCK_CACHE_BYTES_MIN - 1),
        ("backup.every_s", BACKUP_EVERY_S_MIN, BACKUP_EVERY_S_MIN - 1),
        ("backup.keep", 1, 0),
        ("backup.keep", BACKUPS_KEPT_MAX as u64, BACKUPS_KEPT_MAX as u64 + 1),
    ];

    #[test]
    fn a_value_beyond_its_bound_is_refused_by_key_value_and_bound() {
        for (key, bound, beyond) in BOUNDS {
            let check = |value: u64| {
                let mut text = format!("{key} = {value}\n");
                if key.starts_with("backup.") {
                    text.push_str("backup.to = '/b'\n");
                }
                if key == "backup.keep" {
                    text.push_str("backup.every_s = 3600\n");
                }
                toml::from_str::<StorageConfig>(&text).expect("fits").check()
            };
            check(bound).expect(key);
            let error = check(beyond).expect_err(key).to_string();
            assert!(error.starts_with(&format!("configuration: {key} {beyond} is ")), "{error}");
            assert!(error.contains(&bound.to_string()), "{error}");
        }
    }
}
