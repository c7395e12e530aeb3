//! The two shapes that everything is tried in: one process with embedded storage, and two gateways with two
//! storage nodes that own half the shards each.

use super::certificates::{self, LinkCertificates, SERVER_NAME};
use super::hosts::{HeldPorts, Hosts};
use super::network::NetworkError;
use super::server::{Server, Starting, binary};
use crate::agent::{Loopback, Target, Trust};
use crate::workload::plan::{RatesChoice, ServerShape};
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The storage node's binary.
const STORAGE: &str = "ringline-storage";

/// Name in the certificate that gateways share.
const GATEWAY_NAME: &str = "localhost";

/// Log of embedded storage in tests, as nodes have it. By default 384 MiB are written before the first start.
const SMALL_LOG: &str = "log_file_bytes = 4194304\nlog_keep_bytes = 16777216\n";

/// Shards of a test fleet.
pub const SHARD_COUNT: u32 = 8;

/// Which processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// One gateway with embedded storage.
    Embedded,
    /// Two gateways, two storage nodes.
    Split,
    /// Two gateways, three storage nodes, each with a copy of every shard.
    Replicated,
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
    /// No network or disk of its own for a server.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A scenario's few users do in a second what people do in an hour: they are not limited by rates. The gateway's own
/// tests hold those.
const USERS_LIFTED: &str = "\
sends_per_user = \"none\"
requests_per_user = \"none\"
sends_per_conversation = \"none\"
accepts_per_core = \"none\"
hellos_per_core = \"none\"
";

/// All load comes from a few addresses.
const ADDRESSES_LIFTED: &str = "\
connections_per_address = 0
connects_per_address = \"none\"
requests_per_address = \"none\"
registrations_per_address = \"none\"
log_ins_per_address = \"none\"
refreshes_per_address = \"none\"
";

/// Servers of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tier {
    /// Storage nodes.
    Storage,
    /// Gateways.
    Gateway,
}

/// Running servers and their folder, which goes when this is dropped.
pub struct Cluster {
    /// Gateways, in the order of [`Cluster::targets`].
    pub gateways: Vec<Server>,
    /// Storage nodes; empty when embedded.
    pub storages: Vec<Server>,
    /// Metrics of the storage nodes, in their order.
    pub storage_metrics: Vec<SocketAddr>,
    /// Where clients reach the gateways. The same after every restart.
    pub targets: Vec<Target>,
    folder: PathBuf,
    cpus: String,
    hosts: Hosts,
    ports: HeldPorts,
    bin_dir: Option<PathBuf>,
    /// Further lines of every gateway's `[auth]`.
    auth: String,
    /// `[limits]` of every gateway.
    limits: String,
    /// Of all gateways, those to come as well.
    gateway_addresses: Vec<SocketAddr>,
    know_each_other: bool,
    /// To which servers of each kind are dealt out; 0: nobody is told of zones.
    zone_count: u32,
    /// Of storage nodes, if there are any.
    nodes: Option<NodeFiles>,
}

/// What the files of storage nodes have in common.
struct NodeFiles {
    links: LinkCertificates,
    /// `[[nodes]]` of those that the fleet begins with.
    list: String,
    cores: u32,
    replicas: u32,
    memory: String,
}

/// The shards of a storage node, by its index, in a fleet of so many without copies.
pub fn shards_of(index: usize, storages: usize) -> Range<u32> {
    let bound = |index: usize| SHARD_COUNT * index as u32 / storages as u32;
    bound(index)..bound(index + 1)
}

/// What to start.
pub struct Launch<'a> {
    /// Part of the folder's name.
    pub name: &'a str,
    /// How many of what, and on which CPUs.
    pub shape: &'a ServerShape,
    /// Where the binaries are; `None`: beside the running one.
    pub bin_dir: Option<&'a Path>,
    /// Public half of the key that mints benchmark users, PEM.
    pub benchmark_key: Option<&'a str>,
    /// Whether gateways hold anybody to rates.
    pub rates: Rates,
    /// Whether gateways know of each other, and hand each other out to clients.
    pub know_each_other: bool,
    /// Where the servers run.
    pub hosts: Hosts,
    /// How large the log of embedded storage is, as its configuration says it; empty: as by default, where speed is told.
    pub embedded_log: &'a str,
}

/// Whether gateways hold anybody to rates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rates {
    /// Those that a gateway has by default.
    Default,
    /// None: a test does in a second what people do in an hour, from one address.
    Lifted,
    /// None of addresses; all others, with the figures of the shape.
    ButAddresses,
}

impl From<RatesChoice> for Rates {
    fn from(choice: RatesChoice) -> Self {
        match choice {
            RatesChoice::Lifted => Self::Lifted,
            RatesChoice::Default => Self::ButAddresses,
        }
    }
}

impl Cluster {
    /// Starts the servers in a new folder below the system's temporary one. `cores` of each process.
    pub fn start(shape: Shape, name: &str, cores: usize) -> Result<Self, ClusterError> {
        Self::start_with(shape, name, cores, Rates::Lifted)
    }

    /// The same, with rates or without.
    pub fn start_with(shape: Shape, name: &str, cores: usize, rates: Rates) -> Result<Self, ClusterError> {
        let (gateways, storages, replicas) = match shape {
            Shape::Embedded => (1, 0, 1),
            Shape::Split => (2, 2, 1),
            Shape::Replicated => (2, 3, 3),
        };
        let shape = ServerShape {
            gateways,
            storages,
            replicas,
            cores: cores as u32,
            cpus: String::new(),
            ..ServerShape::default()
        };
        Self::launch(Launch {
            name,
            shape: &shape,
            bin_dir: None,
            benchmark_key: None,
            rates,
            know_each_other: false,
            hosts: Hosts::Loopback,
            embedded_log: SMALL_LOG,
        })
    }

    /// The same in any shape.
    pub fn launch(launch: Launch<'_>) -> Result<Self, ClusterError> {
        // Runs that one process makes one after another may overlap for a moment.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder_name = format!("ringline-{}-{}-{number}", launch.name, std::process::id());
        let folder = launch.hosts.folder().join(folder_name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        let mut cluster = Self {
            gateways: Vec::new(),
            storages: Vec::new(),
            storage_metrics: Vec::new(),
            targets: Vec::new(),
            folder,
            cpus: launch.shape.cpus.clone(),
            hosts: launch.hosts.clone(),
            ports: HeldPorts::default(),
            bin_dir: launch.bin_dir.map(Path::to_owned),
            auth: String::new(),
            limits: limits(launch.rates, launch.shape),
            gateway_addresses: Vec::new(),
            know_each_other: launch.know_each_other,
            zone_count: launch.shape.zones,
            nodes: None,
        };
        if let Some(key) = launch.benchmark_key {
            let file = cluster.folder.join("benchmark-key.pem");
            std::fs::write(&file, key)?;
            cluster.auth = format!("benchmark_key = {file:?}\n");
        }
        let cores = launch.shape.cores as usize;
        let storage = match launch.shape.storages {
            0 => format!("shard_count = {SHARD_COUNT}\n{}", launch.embedded_log),
            _ => cluster.start_storages(launch.shape)?,
        };
        let gateways = if launch.shape.storages == 0 { 1 } else { launch.shape.gateways };
        for number in 1..=gateways {
            let address = cluster.hosts.address(&format!("gateway-{number}"), &mut cluster.ports)?;
            cluster.gateway_addresses.push(address);
        }
        for _ in 0..gateways {
            cluster.start_gateway(cores, &storage)?;
        }
        Ok(cluster)
    }

    /// From its next start on a server runs the binary of this folder; `None`: the one beside the running program.
    pub fn run_from(&mut self, tier: Tier, index: usize, bin_dir: Option<&Path>) -> Result<(), ClusterError> {
        self.bin_dir = bin_dir.map(Path::to_owned);
        let (server, binary_name) = match tier {
            Tier::Storage => (&self.storages[index], STORAGE),
            Tier::Gateway => (&self.gateways[index], "ringline-gateway"),
        };
        let file = self.folder.join(format!("{}.toml", server.name()));
        let (program, arguments) = self.command(server.name(), binary_name, &file)?;
        self.servers(tier)[index].set_command(program, arguments);
        Ok(())
    }

    /// Those of one kind.
    pub fn servers(&mut self, tier: Tier) -> &mut [Server] {
        match tier {
            Tier::Storage => &mut self.storages,
            Tier::Gateway => &mut self.gateways,
        }
    }

    /// Where each server of a kind stands; empty: nobody is told of zones.
    pub fn zones(&self, tier: Tier) -> Vec<String> {
        let count = match tier {
            Tier::Storage => self.storages.len(),
            Tier::Gateway => self.gateways.len(),
        };
        (0..count).map(|index| zone_of(index, self.zone_count)).collect()
    }

    /// Program and arguments that run one of the project's binaries as this server, on the servers' CPUs.
    fn command(
        &self,
        server: &str,
        binary_name: &str,
        config: &Path,
    ) -> Result<(PathBuf, Vec<String>), ClusterError> {
        let program = match &self.bin_dir {
            Some(folder) if folder.join(binary_name).is_file() => folder.join(binary_name),
            Some(folder) => {
                return Err(ClusterError::NoBinary(folder.join(binary_name).display().to_string()));
            }
            None => binary(binary_name)?,
        };
        let mut arguments = vec!["--config".to_owned(), config.display().to_string()];
        if self.cpus.is_empty() {
            return Ok(self.hosts.command(server, program, arguments));
        }
        // taskset becomes the program itself: the process id is the server's.
        arguments.splice(0..0, ["-c".to_owned(), self.cpus.clone(), program.display().to_string()]);
        Ok(self.hosts.command(server, "taskset".into(), arguments))
    }

    /// Where the processes keep their files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What every gateway shows to clients, PEM.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("gateway-1/tls/cert.pem")
    }

    /// Storage nodes, each with its part of the shards. Gives what gateways write about them.
    fn start_storages(&mut self, shape: &ServerShape) -> Result<String, ClusterError> {
        let &ServerShape { storages, cores, replicas, block_cache_mib, .. } = shape;
        let memory = match block_cache_mib {
            0 => String::new(),
            mib => format!("[memory]\nblock_cache_bytes = {}\n", u64::from(mib) << 20),
        };
        let names: Vec<String> = (1..=storages).map(|number| format!("storage-{number}")).collect();
        let addresses = names
            .iter()
            .map(|name| self.hosts.address(name, &mut self.ports))
            .collect::<Result<Vec<_>, _>>()?;
        let links = certificates::make(&self.folder)?;
        let mut for_gateways = format!("mode = \"nodes\"\nshard_count = {SHARD_COUNT}\n{}", tls_keys(&links));
        let mut list = String::new();
        for (index, address) in addresses.iter().enumerate() {
            let id = index as u32 + 1;
            let shards: Vec<u32> = shards_of(index, storages as usize).collect();
            let shards = if replicas == 1 { format!("shards = {shards:?}\n") } else { String::new() };
            list.push_str(&node_lines(id, *address, &zone_of(index, self.zone_count)));
            list.push_str(&shards);
            // Gateways know nothing of the zones of storage nodes.
            write!(for_gateways, "[[storage.nodes]]\n{}{shards}", node_keys(id, *address))
                .expect("a string grows");
        }
        self.nodes = Some(NodeFiles { links, list, cores, replicas, memory });
        let mut starting = Vec::new();
        for (id, (name, address)) in (1..).zip(names.iter().zip(&addresses)) {
            starting.push(self.start_storage(name, name, id, *address, "--new-fleet")?);
        }
        // Copies of a shard are ready together.
        for (server, started) in self.storages.iter_mut().zip(&starting) {
            server.wait(started)?;
        }
        Ok(for_gateways)
    }

    /// One of them, with its data in this folder. `first`: what it is told at its first start.
    fn start_storage(
        &mut self,
        name: &str,
        data: &str,
        id: u32,
        address: SocketAddr,
        first: &str,
    ) -> Result<Starting, ClusterError> {
        let NodeFiles { links, list, cores, replicas, memory } =
            self.nodes.as_ref().expect("storage nodes were started");
        let data = self.folder.join(data);
        self.hosts.prepare(name, &data)?;
        let metrics = self.hosts.private_address(&mut self.ports)?;
        let own = node_lines(id, address, &zone_of(self.storages.len(), self.zone_count));
        let own = if list.contains(&own) { String::new() } else { own };
        let config = format!(
            "data_dir = {data:?}\nmetrics_listen = \"{metrics}\"\nnode_id = {id}\nshard_count = {SHARD_COUNT}\n\
             listen = \"{address}\"\ncores = {cores}\nreplicas = {replicas}\n{list}{own}\n{memory}[tls]\n{}[log]\n\
             file_bytes = 4194304\nkeep_bytes = 16777216\n",
            tls_keys(links),
        );
        let file = self.storage_config(name);
        std::fs::write(&file, config)?;
        let (program, mut arguments) = self.command(name, STORAGE, &file)?;
        arguments.push(first.into());
        let (server, started) = Server::start_soon(name, program, arguments, &self.folder)?;
        self.storages.push(server);
        self.storage_metrics.push(metrics);
        Ok(started)
    }

    fn storage_config(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.toml"))
    }

    /// Starts a storage node that is to join, the last of [`Self::storages`] from now on, with an id that none had.
    /// Gives where it listens.
    pub fn start_joining(&mut self, id: u32) -> Result<SocketAddr, ClusterError> {
        let name = format!("storage-{}", self.storages.len() + 1);
        let address = self.hosts.address(&name, &mut self.ports)?;
        let started = self.start_storage(&name, &format!("{name}.{id}"), id, address, "--join")?;
        self.storages.last_mut().expect("it was added").wait(&started)?;
        Ok(address)
    }

    /// Takes out the storage node that joined last, once it has left; whether it ended well.
    pub fn stop_joined(&mut self) -> Result<bool, ClusterError> {
        self.storage_metrics.pop();
        self.storages.pop().map_or(Ok(true), |mut server| server.terminate())
    }

    /// A command to the first storage node, as an operator gives it.
    pub fn admin(&self, arguments: &[&str]) -> Result<Command, ClusterError> {
        let program = match &self.bin_dir {
            Some(folder) => folder.join(STORAGE),
            None => binary(STORAGE)?,
        };
        let mut command = Command::new(program);
        command.args(["admin", "--config"]).arg(self.storage_config("storage-1")).args(arguments);
        Ok(command)
    }

    /// The first gateway makes keys and certificate; the others share them, as a fleet does.
    fn start_gateway(&mut self, cores: usize, storage: &str) -> Result<(), ClusterError> {
        let index = self.gateways.len();
        let (number, address) = (index + 1, self.gateway_addresses[index]);
        let name = format!("gateway-{number}");
        let data = self.folder.join(&name);
        let first = self.folder.join("gateway-1");
        let mut config = format!(
            "data_dir = {data:?}\ncores = {cores}\ngateway_id = {number}\nlisten = \"{address}\"\n\
             listen_plain = \"{}\"\nmetrics = \"{}\"\n",
            self.hosts.plain_address(&mut self.ports)?,
            self.hosts.private_address(&mut self.ports)?,
        );
        // Passwords of tests need no strength, and there are many of them.
        config.push_str("[auth]\nargon2_memory_kib = 64\nargon2_iterations = 1\n");
        config.push_str(&self.auth);
        if number > 1 {
            let (signing, resume) = (first.join("signing-key.pem"), first.join("resume-key"));
            write!(config, "signing_key = {signing:?}\nresume_key = {resume:?}\n").expect("a string grows");
            let (cert, key) = (self.certificate(), first.join("tls/key.pem"));
            write!(config, "[tls]\ncert = {cert:?}\nkey = {key:?}\n").expect("a string grows");
        }
        config.push_str(&self.limits);
        let known = if self.know_each_other { self.gateway_addresses.as_slice() } else { &[] };
        config.push_str(&fleet_lines(index, known, &zone_of(index, self.zone_count)));
        write!(config, "[storage]\n{storage}").expect("a string grows");
        let file = self.folder.join(format!("{name}.toml"));
        std::fs::write(&file, config)?;
        let (program, arguments) = self.command(&name, "ringline-gateway", &file)?;
        let (server, ready) = Server::start(&name, program, arguments, &self.folder)?;
        self.gateways.push(server);
        self.targets.push(match self.hosts {
            Hosts::Loopback => target(&ready, self.certificate())?,
            Hosts::Leaves { .. } => target_at(address, None, self.certificate()),
        });
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

/// Where the server of this place among its kind stands: they are dealt out in turn, one that joins later as well.
/// Empty: there are no zones.
fn zone_of(index: usize, zone_count: u32) -> String {
    if zone_count == 0 { String::new() } else { format!("zone-{}", index as u32 % zone_count + 1) }
}

/// A gateway's `[limits]`; empty: those that it has by default.
fn limits(rates: Rates, shape: &ServerShape) -> String {
    let figures = match rates {
        Rates::Default => return String::new(),
        Rates::Lifted => USERS_LIFTED.to_owned(),
        Rates::ButAddresses => {
            let named =
                [("accepts_per_core", &shape.accepts_per_core), ("hellos_per_core", &shape.hellos_per_core)];
            let named = named.into_iter().filter(|(_, figure)| !figure.is_empty());
            named.map(|(key, figure)| format!("{key} = {figure:?}\n")).collect()
        }
    };
    format!("[limits]\n{figures}{ADDRESSES_LIFTED}")
}

/// `[fleet]` of the gateway of this place. `known`: the addresses of all gateways, if they know of each other.
fn fleet_lines(index: usize, known: &[SocketAddr], zone: &str) -> String {
    let mut lines = String::new();
    if !zone.is_empty() {
        writeln!(lines, "zone = {zone:?}").expect("a string grows");
    }
    if let Some(own) = known.get(index) {
        let all: Vec<String> = known.iter().map(ToString::to_string).collect();
        write!(lines, "gateways = {all:?}\nadvertise = \"{own}\"\nserver_name = \"{GATEWAY_NAME}\"\n")
            .expect("a string grows");
    }
    if lines.is_empty() { lines } else { format!("[fleet]\n{lines}") }
}

/// A node in the list of all.
fn node_lines(id: u32, address: SocketAddr, zone: &str) -> String {
    let zone = if zone.is_empty() { String::new() } else { format!("zone = {zone:?}\n") };
    format!("[[nodes]]\n{}{zone}", node_keys(id, address))
}

/// What storage nodes and gateways write about a node.
fn node_keys(id: u32, address: SocketAddr) -> String {
    format!("id = {id}\naddress = \"{address}\"\n")
}

fn tls_keys(links: &LinkCertificates) -> String {
    let LinkCertificates { ca, cert, key } = links;
    format!("ca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\nserver_name = \"{SERVER_NAME}\"\n")
}

/// Reads "chat page http://A/  native B (TLS)  metrics http://C/metrics".
fn target(ready: &str, certificate: PathBuf) -> Result<Target, ClusterError> {
    let wrong = || ClusterError::ReadyLine(ready.to_owned());
    let mut addresses = ready.split_whitespace().filter_map(|word| {
        let word = word.strip_prefix("http://").unwrap_or(word);
        word.split('/').next().and_then(|address| address.parse::<SocketAddr>().ok())
    });
    let (plain, tls, metrics) = (addresses.next(), addresses.next(), addresses.next());
    let tls = tls.ok_or_else(wrong)?;
    let loopback = Loopback { plain: plain.ok_or_else(wrong)?, metrics: metrics.ok_or_else(wrong)? };
    Ok(target_at(tls, Some(loopback), certificate))
}

fn target_at(tls: SocketAddr, loopback: Option<Loopback>, certificate: PathBuf) -> Target {
    Target {
        tls,
        authority: tls.to_string(),
        tls_name: GATEWAY_NAME.into(),
        trust: Trust::File(certificate),
        loopback,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::config::FleetConfig;

    #[test]
    fn rates_are_lifted_kept_or_as_the_plan_has_them() {
        let has = |text: &str, line: &str| text.lines().any(|one| one == line);
        let lifted = |text: &str| {
            ["sends_per_user", "hellos_per_core", "connects_per_address"]
                .map(|key| has(text, &format!("{key} = \"none\"")))
        };
        let mut shape = ServerShape::default();
        assert_eq!(lifted(&limits(RatesChoice::Lifted.into(), &shape)), [true, true, true]);
        shape.hellos_per_core = "9 per second, burst 9".into();
        let kept = limits(RatesChoice::Default.into(), &shape);
        assert_eq!(lifted(&kept), [false, false, true]);
        assert!(
            has(&kept, "hellos_per_core = \"9 per second, burst 9\"") && !kept.contains("accepts_per_core")
        );
        assert_eq!(limits(Rates::Default, &shape), "");
    }

    #[test]
    fn gateways_that_know_each_other_name_all_and_themselves() {
        let known = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let lines = fleet_lines(1, &known, "zone-2");
        let table = lines.strip_prefix("[fleet]\n").expect("a table of its own");
        let fleet: FleetConfig = toml::from_str(table).expect("as a gateway reads it");
        assert_eq!(fleet.gateways, ["127.0.0.1:1", "127.0.0.1:2"]);
        assert_eq!((fleet.advertise.as_deref(), fleet.zone.as_str()), (Some("127.0.0.1:2"), "zone-2"));
        assert_eq!(fleet.server_name.as_deref(), Some(GATEWAY_NAME));
        assert_eq!(fleet_lines(1, &[], "zone-2"), "[fleet]\nzone = \"zone-2\"\n");
        assert_eq!(fleet_lines(1, &[], ""), "");
    }
}
