//! What a run is directed at: servers that it starts itself on this machine, a null server, a peer, or a fleet that
//! is there already.

use super::control::messages::{Subject, TargetAddress};
use super::hosts::Hosts;
use super::{Cluster, ClusterError, Launch, Server};
use crate::agent::identity::{IdentityError, Minter, generate_key_pem};
use crate::measure::metrics::MetricsPage;
use crate::measure::sampler::{Scope, ServerProcess};
use crate::peers::servers::{self, PeerError, PeerServer};
use crate::workload::plan::{Fault, FaultSignal, GatewayChoice, Plan, ServerShape};
use crate::workload::population::Population;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why there is nothing to test.
#[derive(Debug, thiserror::Error)]
pub enum TestedError {
    /// Own servers.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A peer.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The benchmark's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A file, by name.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A fault names a server that is not there.
    #[error("fault: there is no server {0} here")]
    NoServer(String),
    /// A fault asks a server to leave that can only be killed.
    #[error("fault: {0} cannot be asked to leave (signal = \"term\"): a peer's servers are only killed")]
    OnlyKilled(String),
    /// A fault asks a server to leave that does not run.
    #[error("fault: {0} is to leave, and does not run")]
    NotRunning(String),
    /// Nobody gives clients their lists.
    #[error("transport.gateway = \"ranked\": the null server gives nobody a list of gateways")]
    NotRanked,
}

/// What to test.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// Ringline, started here; from this folder's binaries if one is named.
    Ringline {
        /// Where the binaries are; `None`: beside the running one.
        bin_dir: Option<PathBuf>,
    },
    /// The server that only answers: what the harness itself can do.
    Null,
    /// Another project's server.
    Peer(&'static crate::peers::Subject),
    /// A fleet that runs already.
    Fleet(Fleet),
}

impl Wanted {
    /// Refuses what a plan, with those of its faults that are to happen, asks and cannot have here.
    pub fn check<'a>(&self, plan: &Plan, faults: impl Iterator<Item = &'a Fault>) -> Result<(), TestedError> {
        if matches!(self, Self::Null) && plan.transport.gateway == GatewayChoice::Ranked {
            return Err(TestedError::NotRanked);
        }
        for fault in faults {
            match self {
                Self::Ringline { .. } if server_names(&plan.server).contains(&fault.kill) => {}
                // It is one server, whatever the plan calls it.
                Self::Peer(_) if fault.signal == FaultSignal::Kill => {}
                Self::Peer(_) => return Err(TestedError::OnlyKilled(fault.kill.clone())),
                Self::Ringline { .. } | Self::Null | Self::Fleet(_) => {
                    return Err(TestedError::NoServer(fault.kill.clone()));
                }
            }
        }
        Ok(())
    }
}

/// As [`Cluster::launch`] names the servers of this shape.
fn server_names(shape: &ServerShape) -> Vec<String> {
    let gateways = if shape.storages == 0 { 1 } else { shape.gateways };
    let gateways = (1..=gateways).map(|number| format!("gateway-{number}"));
    gateways.chain((1..=shape.storages).map(|number| format!("storage-{number}"))).collect()
}

/// A fleet that runs already.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// Gateways, host and port.
    pub targets: Vec<String>,
    /// Name in their certificates.
    pub tls_name: String,
    /// Certificates to trust, PEM.
    pub ca: PathBuf,
    /// The benchmark's private key, PEM.
    pub benchmark_key: PathBuf,
}

enum Servers {
    Ringline(Box<Cluster>),
    Null(Box<Server>),
    Peer(Box<PeerServer>),
    Fleet,
}

/// It, started.
pub struct Tested {
    servers: Servers,
    /// Where agents connect to.
    pub targets: Vec<TargetAddress>,
    /// How they speak and who they are.
    pub subject: Subject,
    /// Name and version, for the result.
    pub name: String,
    /// What an acknowledgement promises.
    pub durability: String,
    /// Servers being started again: taken out of their cluster meanwhile.
    restarting: Vec<(String, std::thread::JoinHandle<Result<Server, ClusterError>>)>,
}

impl Tested {
    /// Starts it. `run_id` makes names that no other run has.
    pub fn start(wanted: &Wanted, plan: &Plan, run_id: u64) -> Result<Self, TestedError> {
        match wanted {
            Wanted::Ringline { bin_dir } => Self::ringline(bin_dir.as_deref(), plan, run_id),
            Wanted::Null => Self::null(plan, run_id),
            Wanted::Peer(peer) => Self::peer(peer, plan, run_id),
            Wanted::Fleet(fleet) => Self::fleet(fleet, run_id),
        }
    }

    fn ringline(bin_dir: Option<&Path>, plan: &Plan, run_id: u64) -> Result<Self, TestedError> {
        let key = generate_key_pem()?;
        let public = Minter::from_pem(&key)?.public_pem();
        let launch = Launch {
            name: &plan.name,
            shape: &plan.server,
            bin_dir,
            benchmark_key: Some(&public),
            rates: plan.server.rates.into(),
            know_each_other: plan.transport.gateway == GatewayChoice::Ranked,
            hosts: Hosts::Loopback,
            embedded_log: "",
        };
        let cluster = Cluster::launch(launch)?;
        let mut targets = Vec::new();
        for target in &cluster.targets {
            let ca_pem = read(&cluster.certificate())?;
            targets.push(TargetAddress {
                address: target.tls.to_string(),
                tls_name: target.tls_name.clone(),
                ca_pem,
            });
        }
        Ok(Self {
            servers: Servers::Ringline(Box::new(cluster)),
            targets,
            subject: Subject::Ringline { bench_key_pem: key, run_id },
            name: format!("ringline {}", env!("CARGO_PKG_VERSION")),
            durability: "synced to the disk of the node that owns the shard, before the acknowledgement"
                .into(),
            restarting: Vec::new(),
        })
    }

    fn null(plan: &Plan, run_id: u64) -> Result<Self, TestedError> {
        let folder = std::env::temp_dir().join(format!("ringline-null-{}", std::process::id()));
        let named = |error| TestedError::File { path: folder.clone(), error };
        std::fs::create_dir_all(&folder).map_err(named)?;
        let certificate = folder.join("cert.pem");
        let program = std::env::current_exe().map_err(named)?;
        let mut arguments =
            vec!["null-server".to_owned(), "--certificate".into(), certificate.display().to_string()];
        let mut command = program.clone();
        if !plan.server.cpus.is_empty() {
            arguments
                .splice(0..0, ["-c".to_owned(), plan.server.cpus.clone(), program.display().to_string()]);
            command = "taskset".into();
        }
        let (server, address) = Server::start("null", command, arguments, &folder)?;
        let target = TargetAddress { address, tls_name: "localhost".into(), ca_pem: read(&certificate)? };
        Ok(Self {
            servers: Servers::Null(Box::new(server)),
            targets: vec![target],
            subject: Subject::Ringline { bench_key_pem: generate_key_pem()?, run_id },
            name: "null server".into(),
            durability: "none: it keeps nothing, and only shows what the harness can do".into(),
            restarting: Vec::new(),
        })
    }

    fn peer(peer: &crate::peers::Subject, plan: &Plan, run_id: u64) -> Result<Self, TestedError> {
        let folder = std::env::temp_dir().join(format!("ringline-peer-{}-{run_id:x}", std::process::id()));
        let named = |error| TestedError::File { path: folder.clone(), error };
        std::fs::create_dir_all(&folder).map_err(named)?;
        let server = PeerServer::start(peer.setting, &plan.server.cpus, &folder)?;
        server.prepare(run_id, &Arc::new(Population::new(&plan.population)))?;
        Ok(Self {
            targets: server.targets().to_vec(),
            subject: Subject::Peer { name: peer.name.to_owned(), run_id },
            name: format!("{} {}", peer.name, servers::version(peer.setting)?),
            durability: format!("{} ({})", peer.durability, peer.remark),
            servers: Servers::Peer(Box::new(server)),
            restarting: Vec::new(),
        })
    }

    fn fleet(fleet: &Fleet, run_id: u64) -> Result<Self, TestedError> {
        let ca_pem = read(&fleet.ca)?;
        let target = |address: &String| TargetAddress {
            address: address.clone(),
            tls_name: fleet.tls_name.clone(),
            ca_pem: ca_pem.clone(),
        };
        Ok(Self {
            servers: Servers::Fleet,
            targets: fleet.targets.iter().map(target).collect(),
            subject: Subject::Ringline { bench_key_pem: read(&fleet.benchmark_key)?, run_id },
            name: "ringline fleet".into(),
            durability: "as the fleet is configured".into(),
            restarting: Vec::new(),
        })
    }

    /// Processes of this machine to be sampled.
    pub fn processes(&self) -> Vec<ServerProcess> {
        let process = |name: String, pid: u32, scope, metrics| ServerProcess { name, pid, scope, metrics };
        match &self.servers {
            Servers::Ringline(cluster) => {
                let gateways =
                    cluster.gateways.iter().zip(&cluster.targets).filter_map(|(server, target)| {
                        let metrics = target.loopback.map(|ports| MetricsPage::at(ports.metrics));
                        Some(process(server.name().to_owned(), server.pid()?, Scope::Process, metrics))
                    });
                let storages =
                    cluster.storages.iter().zip(&cluster.storage_metrics).filter_map(|(server, address)| {
                        let metrics = Some(MetricsPage::at(*address));
                        Some(process(server.name().to_owned(), server.pid()?, Scope::Process, metrics))
                    });
                gateways.chain(storages).collect()
            }
            Servers::Null(server) => server
                .pid()
                .map(|pid| process("null".into(), pid, Scope::Process, None))
                .into_iter()
                .collect(),
            Servers::Peer(peer) => {
                let named = |(place, pid): (usize, &u32)| {
                    process(
                        format!("{}-{}", self.name.replace(' ', "-"), place + 1),
                        *pid,
                        Scope::Process,
                        None,
                    )
                };
                peer.pids().iter().enumerate().map(named).collect()
            }
            Servers::Fleet => Vec::new(),
        }
    }

    /// The configuration that the servers printed at their start: the limits they ran with.
    pub fn limits(&self) -> BTreeMap<String, String> {
        let Servers::Ringline(cluster) = &self.servers else { return BTreeMap::new() };
        let mut limits = BTreeMap::from([("profile".to_owned(), "defaults".to_owned())]);
        let log = std::fs::read_to_string(cluster.folder().join("gateway-1.log")).unwrap_or_default();
        for line in log.lines() {
            if let Some((key, value)) = line.split_once(" = ")
                && key.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '.' || c.is_ascii_digit())
                && !value.contains('/')
            {
                limits.insert(key.to_owned(), value.to_owned());
            }
        }
        limits
    }

    /// SIGKILL to one server.
    pub fn kill(&mut self, name: &str) -> Result<(), TestedError> {
        match &mut self.servers {
            Servers::Peer(peer) => peer.kill(),
            _ => self.server(name)?.kill(),
        }
        Ok(())
    }

    /// SIGTERM to one server: it leaves, and [`Self::has_left`] tells when it has.
    pub fn ask_to_leave(&mut self, name: &str) -> Result<(), TestedError> {
        let server = self.server(name)?;
        if server.pid().is_none() {
            return Err(TestedError::NotRunning(name.to_owned()));
        }
        Ok(server.signal(Signal::TERM)?)
    }

    /// Whether a server that was asked to leave ended well; `None`: it has not ended.
    pub fn has_left(&mut self, name: &str) -> Result<Option<bool>, TestedError> {
        let ended = self.server(name)?.ended()?;
        Ok(ended.map(|status| status.success()))
    }

    /// One of our own by its name.
    fn server(&mut self, name: &str) -> Result<&mut Server, TestedError> {
        let own = match &mut self.servers {
            Servers::Ringline(cluster) => {
                let mut all = cluster.gateways.iter_mut().chain(&mut cluster.storages);
                all.find(|server| server.name() == name)
            }
            Servers::Peer(_) | Servers::Null(_) | Servers::Fleet => None,
        };
        own.ok_or_else(|| TestedError::NoServer(name.to_owned()))
    }

    /// Begins to start a killed server again; it is ready when [`Self::restarted`] names it.
    pub fn restart(&mut self, name: &str) -> Result<(), TestedError> {
        match &mut self.servers {
            Servers::Ringline(cluster) => {
                let list = [&mut cluster.gateways, &mut cluster.storages];
                for servers in list {
                    if let Some(place) = servers.iter().position(|server| server.name() == name) {
                        let stand_in = servers[place].stand_in();
                        let mut server = std::mem::replace(&mut servers[place], stand_in);
                        // A start waits for the ready line: not on this thread, which looks after the run.
                        let thread = std::thread::spawn(move || server.restart().map(|_| server));
                        self.restarting.push((name.to_owned(), thread));
                        return Ok(());
                    }
                }
                Err(TestedError::NoServer(name.to_owned()))
            }
            Servers::Peer(peer) => Ok(peer.restart()?),
            Servers::Null(_) | Servers::Fleet => Err(TestedError::NoServer(name.to_owned())),
        }
    }

    /// Servers that have become ready again since this was last asked: name and process.
    pub fn restarted(&mut self) -> Result<Vec<(String, u32)>, TestedError> {
        let mut ready = Vec::new();
        let (done, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.restarting).into_iter().partition(|(_, thread)| thread.is_finished());
        self.restarting = waiting;
        for (name, thread) in done {
            let server = thread.join().expect("starting does not panic")?;
            let pid = server.pid().unwrap_or(0);
            if let Servers::Ringline(cluster) = &mut self.servers {
                let mut all = cluster.gateways.iter_mut().chain(&mut cluster.storages);
                if let Some(place) = all.find(|place| place.name() == name) {
                    *place = server;
                }
            }
            ready.push((name, pid));
        }
        Ok(ready)
    }

    /// Whether a killed server is not ready again yet.
    pub fn is_restarting(&self) -> bool {
        !self.restarting.is_empty()
    }
}

fn read(path: &Path) -> Result<String, TestedError> {
    std::fs::read_to_string(path).map_err(|error| TestedError::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_refused_before_it_begins() {
        let plan = |shape: &str, gateway: &str, fault: &str| {
            let text = format!(
                "name='p'\nabout=''\npopulation={{users=2}}\nserver={{{shape}}}\ntransport={{gateway='{gateway}'}}\n\
                 [[phase]]\nname='x'\nseconds=9\nfault=[{fault}]"
            );
            Plan::parse(&text, Path::new("p")).expect("a plan")
        };
        let told = |wanted: &Wanted, plan: &Plan| {
            let faults = plan.phases.iter().flat_map(|phase| &phase.faults);
            wanted.check(plan, faults).map_err(|error| error.to_string())
        };
        let fleet =
            Fleet { targets: Vec::new(), tls_name: String::new(), ca: "".into(), benchmark_key: "".into() };
        let (own, fleet) = (Wanted::Ringline { bin_dir: None }, Wanted::Fleet(fleet));
        let peer = Wanted::Peer(crate::peers::subject("nats").expect("a peer"));
        let two = "gateways=2,storages=1";
        for name in ["gateway-1", "gateway-2", "storage-1"] {
            let plan = plan(two, "spread", &format!("{{at_s=1,kill='{name}',signal='term'}}"));
            assert_eq!(told(&own, &plan), Ok(()));
            assert!(told(&fleet, &plan).expect_err("not ours").contains(name));
            assert!(told(&Wanted::Null, &plan).expect_err("it has none").contains(name));
            assert!(told(&peer, &plan).expect_err("it is only killed").contains("term"));
        }
        for (shape, name) in [(two, "gateway-3"), (two, "storage-0"), ("gateways=2", "gateway-2")] {
            let plan = plan(shape, "spread", &format!("{{at_s=1,kill='{name}'}}"));
            assert!(told(&own, &plan).expect_err("there is none").contains(name));
            assert_eq!(told(&peer, &plan), Ok(()), "whatever it is called");
        }
        let ranked = plan(two, "ranked", "");
        assert_eq!((told(&own, &ranked), told(&fleet, &ranked)), (Ok(()), Ok(())));
        assert!(told(&Wanted::Null, &ranked).expect_err("nobody ranks").contains("ranked"));
    }
}
