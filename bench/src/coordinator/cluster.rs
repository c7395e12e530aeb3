//! The two shapes that everything is tried in: one process with embedded storage, and two gateways with two
//! storage nodes that own half the shards each.

use super::certificates::{self, LinkCertificates, SERVER_NAME};
use super::server::{Server, binary};
use crate::agent::Target;
use std::fmt::Write;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

/// Shards of a test fleet.
const SHARD_COUNT: u32 = 8;

/// Which processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// One gateway with embedded storage.
    Embedded,
    /// Two gateways, two storage nodes.
    Split,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A binary was not built.
    #[error("{0} is not built: cargo build --workspace")]
    NoBinary(String),
    /// A process did not get ready.
    #[error("{name} did not get ready; its log ends with:\n{tail}")]
    NotReady {
        /// Which process.
        name: String,
        /// The end of its log.
        tail: String,
    },
    /// A ready line without the addresses that belong there.
    #[error("unexpected ready line: {0}")]
    ReadyLine(String),
    /// Certificates could not be made.
    #[error("certificates: {0}")]
    Certificates(String),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Running servers and their folder, which goes when this is dropped.
pub struct Cluster {
    /// Gateways, in the order of [`Cluster::targets`].
    pub gateways: Vec<Server>,
    /// Storage nodes; empty when embedded.
    pub storages: Vec<Server>,
    /// Where clients reach the gateways. The same after every restart.
    pub targets: Vec<Target>,
    folder: PathBuf,
}

impl Cluster {
    /// Starts the servers in a new folder below the system's temporary one. `cores` of each process.
    pub fn start(shape: Shape, name: &str, cores: usize) -> Result<Self, ClusterError> {
        let folder = std::env::temp_dir().join(format!("ringline-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        let mut cluster = Self { gateways: Vec::new(), storages: Vec::new(), targets: Vec::new(), folder };
        match shape {
            Shape::Embedded => cluster.start_gateway(cores, &format!("shard_count = {SHARD_COUNT}\n"))?,
            Shape::Split => cluster.start_split(cores)?,
        }
        Ok(cluster)
    }

    /// Where the processes keep their files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn start_split(&mut self, cores: usize) -> Result<(), ClusterError> {
        let links = certificates::make(&self.folder)?;
        let addresses = [free_address()?, free_address()?];
        let mut nodes = String::new();
        for (index, address) in addresses.iter().enumerate() {
            let half = SHARD_COUNT / 2;
            let first = half * index as u32;
            let shards: Vec<u32> = (first..first + half).collect();
            let id = index + 1;
            writeln!(nodes, "[[nodes]]\nid = {id}\naddress = \"{address}\"\nshards = {shards:?}")
                .expect("a string grows");
        }
        for (index, address) in addresses.iter().enumerate() {
            let name = format!("storage-{}", index + 1);
            let data = self.folder.join(&name);
            let config = format!(
                "data_dir = {data:?}\nnode_id = {}\nshard_count = {SHARD_COUNT}\nlisten = \"{address}\"\n\
                 cores = {cores}\n{nodes}\n[tls]\n{}[log]\nfile_bytes = 4194304\nkeep_bytes = 16777216\n",
                index + 1,
                tls_keys(&links),
            );
            let file = self.folder.join(format!("{name}.toml"));
            std::fs::write(&file, config)?;
            let arguments = vec!["--config".to_owned(), file.display().to_string()];
            let (server, _) = Server::start(&name, binary("ringline-storage")?, arguments, &self.folder)?;
            self.storages.push(server);
        }
        let storage = format!(
            "mode = \"nodes\"\nshard_count = {SHARD_COUNT}\n{}{}",
            tls_keys(&links),
            nodes.replace("[[nodes]]", "[[storage.nodes]]"),
        );
        self.start_gateway(cores, &storage)?;
        self.start_gateway(cores, &storage)
    }

    /// The first gateway makes keys and certificate; the others share them, as a fleet does.
    fn start_gateway(&mut self, cores: usize, storage: &str) -> Result<(), ClusterError> {
        let number = self.gateways.len() + 1;
        let name = format!("gateway-{number}");
        let data = self.folder.join(&name);
        let first = self.folder.join("gateway-1");
        let mut config = format!(
            "data_dir = {data:?}\ncores = {cores}\ngateway_id = {number}\nlisten = \"{}\"\nlisten_plain = \"{}\"\n\
             metrics = \"{}\"\n",
            free_address()?,
            free_address()?,
            free_address()?,
        );
        // Passwords of tests need no strength, and there are many of them.
        config.push_str("[auth]\nargon2_memory_kib = 64\nargon2_iterations = 1\n");
        if number > 1 {
            let (signing, resume) = (first.join("signing-key.pem"), first.join("resume-key"));
            write!(config, "signing_key = {signing:?}\nresume_key = {resume:?}\n").expect("a string grows");
            let (cert, key) = (first.join("tls/cert.pem"), first.join("tls/key.pem"));
            write!(config, "[tls]\ncert = {cert:?}\nkey = {key:?}\n").expect("a string grows");
        }
        write!(config, "[storage]\n{storage}").expect("a string grows");
        let file = self.folder.join(format!("{name}.toml"));
        std::fs::write(&file, config)?;
        let arguments = vec!["--config".to_owned(), file.display().to_string()];
        let (server, ready) = Server::start(&name, binary("ringline-gateway")?, arguments, &self.folder)?;
        self.gateways.push(server);
        self.targets.push(target(&ready, first.join("tls/cert.pem"))?);
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.gateways.clear();
        self.storages.clear();
        if std::env::var_os("RINGLINE_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn tls_keys(links: &LinkCertificates) -> String {
    let LinkCertificates { ca, cert, key } = links;
    format!("ca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\nserver_name = \"{SERVER_NAME}\"\n")
}

/// A loopback address that was free a moment ago.
fn free_address() -> Result<SocketAddr, ClusterError> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

/// Reads "chat page http://A/  native B (TLS)  metrics http://C/metrics".
fn target(ready: &str, certificate: PathBuf) -> Result<Target, ClusterError> {
    let wrong = || ClusterError::ReadyLine(ready.to_owned());
    let mut addresses = ready.split_whitespace().filter_map(|word| {
        let word = word.strip_prefix("http://").unwrap_or(word);
        word.split('/').next().and_then(|address| address.parse::<SocketAddr>().ok())
    });
    let (plain, tls, metrics) = (addresses.next(), addresses.next(), addresses.next());
    Ok(Target {
        plain: plain.ok_or_else(wrong)?,
        tls: tls.ok_or_else(wrong)?,
        metrics: metrics.ok_or_else(wrong)?,
        certificate,
    })
}
