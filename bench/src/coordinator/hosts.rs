//! Where servers of a test fleet run and listen: all on loopback, or each in a leaf of a network of its own.

use super::ClusterError;
use super::network::{self, Network};
use gateway::listen;
use socket2::Socket;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where.
#[derive(Clone, Debug)]
pub enum Hosts {
    /// This machine's loopback, and the system's temporary folder.
    Loopback,
    /// Each in the leaf that has its name.
    Leaves {
        /// For files.
        folder: PathBuf,
        /// Whether wall clocks can be set for each server alone.
        fake_clock: Option<FakeClock>,
        /// Whether storage nodes have file systems of their own.
        small_disk: Option<SmallDisk>,
    },
}

/// libfaketime, which stands before a process' calls for the wall clock.
#[derive(Clone, Debug)]
pub struct FakeClock {
    /// To be loaded before all others.
    pub library: PathBuf,
}

/// A file system in memory for each storage node.
#[derive(Clone, Copy, Debug)]
pub struct SmallDisk {
    /// Its size.
    pub mib: u32,
}

impl Hosts {
    /// Where folders of clusters are made.
    pub fn folder(&self) -> PathBuf {
        match self {
            Self::Loopback => std::env::temp_dir(),
            Self::Leaves { folder, .. } => folder.clone(),
        }
    }

    /// What others reach a server at.
    pub fn address(&self, server: &str, held: &mut HeldPorts) -> Result<SocketAddr, ClusterError> {
        match self {
            Self::Loopback => held.one_more(),
            Self::Leaves { .. } => Ok(Network::address(server)),
        }
    }

    /// What only its own host reaches it at.
    pub fn private_address(&self, held: &mut HeldPorts) -> Result<SocketAddr, ClusterError> {
        match self {
            Self::Loopback => held.one_more(),
            Self::Leaves { .. } => Ok(Network::metrics_address()),
        }
    }

    /// Where a gateway listens without TLS, as its configuration has it.
    pub fn plain_address(&self, held: &mut HeldPorts) -> Result<String, ClusterError> {
        match self {
            Self::Loopback => Ok(held.one_more()?.to_string()),
            Self::Leaves { .. } => Ok("none".into()),
        }
    }

    /// The command that runs a program as this server, and becomes it: the process id is the server's.
    pub fn command(&self, server: &str, program: PathBuf, arguments: Vec<String>) -> (PathBuf, Vec<String>) {
        match self {
            Self::Loopback => (program, arguments),
            Self::Leaves { fake_clock, .. } => {
                let mut within = Vec::new();
                if let Some(FakeClock { library }) =
                    fake_clock.as_ref().filter(|_| server.starts_with("storage"))
                {
                    within.push(format!("LD_PRELOAD={}", library.display()));
                    within.push(format!("FAKETIME_TIMESTAMP_FILE={}", self.clock_file(server).display()));
                    // The file is read again each second, and time that only counts on is left alone.
                    within.push("FAKETIME_CACHE_DURATION=1".into());
                    within.push("FAKETIME_DONT_FAKE_MONOTONIC=1".into());
                }
                within.push(program.display().to_string());
                within.extend(arguments);
                Network::wrap(server, "env".into(), within)
            }
        }
    }
}

impl Hosts {
    /// How far a server's wall clock is off, as libfaketime reads it.
    pub fn clock_file(&self, server: &str) -> PathBuf {
        self.folder().join(format!("clock-of-{server}"))
    }

    /// Makes ready what a storage node finds when it starts: its disk, and a right clock.
    pub fn prepare(&self, server: &str, data: &Path) -> Result<(), ClusterError> {
        let Self::Leaves { fake_clock, small_disk, .. } = self else { return Ok(()) };
        if fake_clock.is_some() {
            std::fs::write(self.clock_file(server), "+0\n")?;
        }
        if let Some(SmallDisk { mib }) = small_disk {
            std::fs::create_dir_all(data)?;
            let size = format!("size={mib}m");
            network::run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &data.display().to_string()])?;
        }
        Ok(())
    }
}

/// Loopback ports that are a cluster's as long as it lives, also while the server that listens there is down.
#[derive(Debug, Default)]
pub struct HeldPorts(Vec<Socket>);

impl HeldPorts {
    fn one_more(&mut self) -> Result<SocketAddr, ClusterError> {
        let (socket, address) = listen::reserve((Ipv4Addr::LOCALHOST, 0).into())?;
        self.0.push(socket);
        Ok(address)
    }
}
