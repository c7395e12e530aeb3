//! The gateway's configuration: one TOML file and a few flags, parsed once into [`GatewayConfig`]. Unknown
//! keys are refused by name. Later code never checks any of it again.

pub mod certificate;
pub mod fleet;
pub mod flags;
mod limits;
mod storage;

pub use fleet::FleetConfig;
pub use limits::LimitsConfig;
pub use storage::{
    BLOCK_CACHE_BYTES_MIN, EmbeddedConfig, LOG_FILE_BYTES_MIN, LOG_KEEP_FILES_MIN, MEMTABLE_BYTES_MIN,
    NodeAddress, NodesConfig, StorageMode,
};

use serde::Deserialize;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use wire_protocol::limits::{HEARTBEAT_S_MAX, OUTBOX_BYTES_MAX};

/// Connections one gateway process takes when the file names no number. The file limit of the process binds
/// earlier on most machines; the front then pauses accepting.
pub const CONNECTIONS_MAX_DEFAULT: usize = 65_536;
/// Most connections a configuration may ask for: the slot number of a connection has to stay small, and the
/// outboxes of a hundredth of them all full must not pass 512 GiB, which nobody has.
pub const CONNECTIONS_MAX_LIMIT: usize = 16 * 1024 * 1024;

/// Where clients connect when the file names no address: on this machine alone, as a certificate that nobody configured
/// is one for development.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);
/// Life of an access token, in seconds, when the file names no number (`auth.token_ttl_s`): 15 minutes. Gateways ask
/// nobody about it, so it is short; a client that stays fetches four an hour.
const TOKEN_TTL_S_DEFAULT: u64 = 15 * 60;
/// Shortest life of an access token, in seconds (`auth.token_ttl_s`): without any it would never be good.
pub const TOKEN_TTL_S_MIN: u64 = 1;
/// Life of a resume token, in seconds, when the file names no number (`auth.resume_ttl_s`): 30 days. A device that was
/// away for a month logs in by its refresh token anyway.
const RESUME_TTL_S_DEFAULT: u64 = 30 * 24 * 3_600;
/// Shortest life of a resume token, in seconds (`auth.resume_ttl_s`): who is silent for the longest heartbeat still comes
/// back by it.
pub const RESUME_TTL_S_MIN: u64 = HEARTBEAT_S_MAX as u64;
/// Memory of one password hash, in KiB, when the file names no number (`auth.argon2_memory_kib`). OWASP's second choice
/// for argon2id: 19 MiB, two passes, one lane.
const ARGON2_MEMORY_KIB_DEFAULT: u32 = 19 * 1_024;
/// Least memory of one password hash for each of its lanes, in KiB (`auth.argon2_memory_kib`): RFC 9106, section 3.1.
pub const ARGON2_MEMORY_KIB_PER_LANE_MIN: u32 = 8;
/// Passes of one password hash when the file names no number (`auth.argon2_iterations`): those of the same choice.
const ARGON2_ITERATIONS_DEFAULT: u32 = 2;
/// Fewest passes of one password hash (`auth.argon2_iterations`): RFC 9106, section 3.1.
pub const ARGON2_ITERATIONS_MIN: u32 = 1;
/// Lanes of one password hash when the file names no number (`auth.argon2_parallelism`): those of the same choice.
const ARGON2_PARALLELISM_DEFAULT: u32 = 1;
/// Fewest lanes of one password hash (`auth.argon2_parallelism`): RFC 9106, section 3.1.
pub const ARGON2_PARALLELISM_MIN: u32 = 1;

/// Everything that a file or a flag can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// Native protocol, HTTP and WebSocket over TLS.
    pub listen: SocketAddr,
    /// The same without TLS; loopback only. `None`: not offered.
    pub listen_plain: Option<SocketAddr>,
    /// Prometheus text; loopback only. `None`: not offered.
    pub metrics: Option<SocketAddr>,
    /// Keys, certificates and, embedded, the storage node's files.
    pub data_dir: PathBuf,
    /// Loop threads; 0: one for each core of the machine.
    pub cores: usize,
    /// Connections of the whole process.
    pub connections_max: usize,
    /// Tells this gateway from the others in storage nodes' logs and registries.
    pub gateway_id: u32,
    /// Origins, beside the page's own, whose scripts may open a WebSocket.
    pub websocket_origins: Vec<String>,
    /// Certificate and key of `listen`.
    pub tls: TlsConfig,
    /// Tokens and passwords.
    pub auth: AuthConfig,
    /// How often and how much.
    pub limits: LimitsConfig,
    /// The other gateways.
    pub fleet: FleetConfig,
    /// Where the shards are.
    pub storage: StorageMode,
}

/// Certificate chain and key of the TLS listener, PEM. Neither: a self-signed one is made in the data folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Chain, leaf first.
    pub cert: Option<PathBuf>,
    /// PKCS#8, SEC1 or PKCS#1.
    pub key: Option<PathBuf>,
    /// Secrets of the fleet's tickets, the same on each gateway. `None`: tickets are good at this process alone.
    pub ticket_secret: Option<PathBuf>,
}

/// Tokens and passwords.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// Ed25519 key of the access tokens, PKCS#8 PEM. `None`: made in the data folder.
    pub signing_key: Option<PathBuf>,
    /// Further keys whose access tokens are accepted, PEM: the one that signed before, or the next one.
    pub verifying_keys: Vec<PathBuf>,
    /// Key with which benchmark agents mint identities, PEM. It speaks for benchmark users alone, who are made when
    /// they first come. `None`, as it should be wherever people are: no such user exists.
    pub benchmark_key: Option<PathBuf>,
    /// Key of the resume tokens, shared by the fleet. `None`: made in the data folder.
    pub resume_key: Option<PathBuf>,
    /// Life of an access token, in seconds.
    pub token_ttl_s: u64,
    /// Life of a resume token, in seconds.
    pub resume_ttl_s: u64,
    /// Memory of one password hash, in KiB.
    pub argon2_memory_kib: u32,
    /// Passes of one password hash.
    pub argon2_iterations: u32,
    /// Lanes of one password hash.
    pub argon2_parallelism: u32,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            signing_key: None,
            verifying_keys: Vec::new(),
            benchmark_key: None,
            resume_key: None,
            token_ttl_s: TOKEN_TTL_S_DEFAULT,
            resume_ttl_s: RESUME_TTL_S_DEFAULT,
            argon2_memory_kib: ARGON2_MEMORY_KIB_DEFAULT,
            argon2_iterations: ARGON2_ITERATIONS_DEFAULT,
            argon2_parallelism: ARGON2_PARALLELISM_DEFAULT,
        }
    }
}

impl AuthConfig {
    fn check(&self) -> Result<(), ConfigError> {
        for (key, number, min) in [
            ("auth.token_ttl_s", self.token_ttl_s, TOKEN_TTL_S_MIN),
            ("auth.resume_ttl_s", self.resume_ttl_s, RESUME_TTL_S_MIN),
            ("auth.argon2_iterations", u64::from(self.argon2_iterations), u64::from(ARGON2_ITERATIONS_MIN)),
            (
                "auth.argon2_parallelism",
                u64::from(self.argon2_parallelism),
                u64::from(ARGON2_PARALLELISM_MIN),
            ),
        ] {
            if number < min {
                return Err(ConfigError::impossible(key, format!("{number} is below {min}")));
            }
        }
        let (memory_kib, lanes) = (self.argon2_memory_kib, self.argon2_parallelism);
        let memory_kib_min = u64::from(ARGON2_MEMORY_KIB_PER_LANE_MIN) * u64::from(lanes);
        if u64::from(memory_kib) < memory_kib_min {
            let problem = format!(
                "{memory_kib} is below {memory_kib_min}, {ARGON2_MEMORY_KIB_PER_LANE_MIN} for each of \
                 argon2_parallelism = {lanes}"
            );
            return Err(ConfigError::impossible("auth.argon2_memory_kib", problem));
        }
        Ok(())
    }
}

/// Why a configuration was refused. The process does not start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not the TOML we know; names the key.
    #[error("{path}: {error}")]
    Unknown {
        /// Which file.
        path: PathBuf,
        /// Names the key and its place.
        error: Box<toml::de::Error>,
    },
    /// A value that cannot be meant.
    #[error("{key}: {problem}")]
    Impossible {
        /// The key's name as written in the file.
        key: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// A flag that does not exist or lacks its value.
    #[error("{0}")]
    Flag(String),
}

impl ConfigError {
    pub(super) fn impossible(key: &'static str, problem: impl Into<String>) -> Self {
        Self::Impossible { key, problem: problem.into() }
    }
}

/// The file as written; every key optional.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: SocketAddr,
    listen_plain: String,
    metrics: String,
    data_dir: PathBuf,
    cores: usize,
    connections_max: usize,
    gateway_id: u32,
    websocket_origins: Vec<String>,
    tls: TlsConfig,
    auth: AuthConfig,
    limits: limits::LimitsSection,
    fleet: FleetConfig,
    storage: storage::StorageSection,
}

impl Default for File {
    fn default() -> Self {
        Self {
            listen: LISTEN_DEFAULT,
            listen_plain: "127.0.0.1:8080".into(),
            metrics: "127.0.0.1:9090".into(),
            data_dir: "data".into(),
            cores: 0,
            connections_max: CONNECTIONS_MAX_DEFAULT,
            gateway_id: 1,
            websocket_origins: Vec::new(),
            tls: TlsConfig::default(),
            auth: AuthConfig::default(),
            limits: limits::LimitsSection::default(),
            fleet: FleetConfig::default(),
            storage: storage::StorageSection::default(),
        }
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self::parse("", Path::new("defaults")).expect("the defaults fit each other, as a test shows")
    }
}

impl GatewayConfig {
    /// From a file's text; `path` names it in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config = Self::parse_keys(text, path)?;
        config.check()?;
        Ok(config)
    }

    /// From a file. How its keys go together is not checked: flags may bring what they need.
    fn read_before_flags(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        Self::parse_keys(&text, path)
    }

    fn parse_keys(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text)
            .map_err(|error| ConfigError::Unknown { path: path.to_owned(), error: Box::new(error) })?;
        Ok(Self {
            listen: file.listen,
            listen_plain: optional_address("listen_plain", &file.listen_plain)?,
            metrics: optional_address("metrics", &file.metrics)?,
            data_dir: file.data_dir,
            cores: file.cores,
            connections_max: file.connections_max,
            gateway_id: file.gateway_id,
            websocket_origins: file.websocket_origins,
            tls: file.tls,
            auth: file.auth,
            limits: file.limits.check()?,
            fleet: file.fleet,
            storage: file.storage.check()?,
        })
    }

    /// Relations between keys: of a file alone, or once flags have changed some.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for (key, address) in [("listen_plain", self.listen_plain), ("metrics", self.metrics)] {
            if address.is_some_and(|address| !address.ip().is_loopback()) {
                return Err(ConfigError::impossible(key, "only a loopback address may go without TLS"));
            }
        }
        if !(1..=CONNECTIONS_MAX_LIMIT).contains(&self.connections_max) {
            let problem = format!("{} is not from 1 to {CONNECTIONS_MAX_LIMIT}", self.connections_max);
            return Err(ConfigError::impossible("connections_max", problem));
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return Err(ConfigError::impossible("tls", "cert and key go together"));
        }
        self.fleet.check()?;
        self.auth.check()
    }

    /// Loop threads to start.
    pub fn core_count(&self) -> usize {
        match self.cores {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            cores => cores,
        }
    }
}

fn optional_address(key: &'static str, text: &str) -> Result<Option<SocketAddr>, ConfigError> {
    match text {
        "" | "none" => Ok(None),
        text => match text.parse() {
            Ok(address) => Ok(Some(address)),
            Err(_) => Err(ConfigError::impossible(key, format!("{text:?} is neither an address nor none"))),
        },
    }
}

/// What is printed at start, one key a line, in the file's own form. Holds paths of secrets, no secrets.
impl fmt::Display for GatewayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |address: Option<SocketAddr>| address.map_or("none".into(), |a| a.to_string());
        let path = |path: &Option<PathBuf>| path.as_ref().map_or("made".into(), |p| p.display().to_string());
        writeln!(f, "listen = \"{}\"", self.listen)?;
        writeln!(f, "listen_plain = \"{}\"", address(self.listen_plain))?;
        writeln!(f, "metrics = \"{}\"", address(self.metrics))?;
        writeln!(f, "data_dir = \"{}\"", self.data_dir.display())?;
        writeln!(f, "cores = {}", self.core_count())?;
        writeln!(f, "connections_max = {}", self.connections_max)?;
        writeln!(f, "gateway_id = {}", self.gateway_id)?;
        writeln!(f, "websocket_origins = {:?}", self.websocket_origins)?;
        writeln!(f, "tls.cert = \"{}\"", path(&self.tls.cert))?;
        writeln!(f, "tls.key = \"{}\"", path(&self.tls.key))?;
        let ticket_secret =
            self.tls.ticket_secret.as_ref().map_or("none".into(), |p| p.display().to_string());
        writeln!(f, "tls.ticket_secret = \"{ticket_secret}\"")?;
        let auth = &self.auth;
        writeln!(f, "auth.signing_key = \"{}\"", path(&auth.signing_key))?;
        writeln!(f, "auth.verifying_keys = {:?}", auth.verifying_keys)?;
        let benchmark = auth.benchmark_key.as_ref().map_or("none".into(), |p| p.display().to_string());
        writeln!(f, "auth.benchmark_key = \"{benchmark}\"")?;
        writeln!(f, "auth.resume_key = \"{}\"", path(&auth.resume_key))?;
        writeln!(f, "auth.token_ttl_s = {}", auth.token_ttl_s)?;
        writeln!(f, "auth.resume_ttl_s = {}", auth.resume_ttl_s)?;
        writeln!(f, "auth.argon2_memory_kib = {}", auth.argon2_memory_kib)?;
        writeln!(f, "auth.argon2_iterations = {}", auth.argon2_iterations)?;
        writeln!(f, "auth.argon2_parallelism = {}", auth.argon2_parallelism)?;
        writeln!(f, "{}", self.limits)?;
        writeln!(f, "{}", self.fleet)?;
        write!(f, "{}", self.storage)
    }
}

const _: () = {
    // The reason given at CONNECTIONS_MAX_LIMIT.
    assert!(CONNECTIONS_MAX_LIMIT / 100 * OUTBOX_BYTES_MAX <= 512 << 30);
    // The defaults are within the ranges that are checked.
    assert!(CONNECTIONS_MAX_DEFAULT <= CONNECTIONS_MAX_LIMIT);
    assert!(TOKEN_TTL_S_DEFAULT >= TOKEN_TTL_S_MIN && RESUME_TTL_S_DEFAULT >= RESUME_TTL_S_MIN);
    assert!(ARGON2_MEMORY_KIB_DEFAULT >= ARGON2_MEMORY_KIB_PER_LANE_MIN * ARGON2_PARALLELISM_DEFAULT);
};

#[cfg(test)]
mod tests;
