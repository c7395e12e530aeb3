//! Three storage nodes and two gateways, each in its own leaf of the network, and what can be done to them.

use super::FaultsError;
use super::kinds::Kind;
use crate::agent::identity::{Minter, generate_key_pem};
use crate::coordinator::enclosure::Enclosure;
use crate::coordinator::hosts::{FakeClock, Hosts, SmallDisk};
use crate::coordinator::network::{Direction, Network};
use crate::coordinator::tested::{Fleet as FleetTargets, Wanted};
use crate::coordinator::{Cluster, Launch, Rates};
use crate::workload::plan::Plan;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Debian's `libfaketime`, by architecture's folder.
const FAKE_CLOCK_FOLDER: &str = "/usr/lib";
const FAKE_CLOCK_FILE: &str = "faketime/libfaketime.so.1";
/// libfaketime reads its file once a second.
const FAKE_CLOCK_READ: Duration = Duration::from_millis(1_500);
/// What a storage node's own file system holds when its disk is to be full: its log, its rows, and room for a run.
const SMALL_DISK_MIB: u32 = 256;
/// Bytes that fill a disk are written so many at a time.
const BALLAST_BYTES: usize = 4_096;

/// The servers of a fault run.
pub struct Fleet {
    /// Their processes.
    pub cluster: Cluster,
    /// What joins them.
    pub network: Network,
    /// The benchmark's private key.
    pub bench_key_pem: String,
    key_file: PathBuf,
    hosts: Hosts,
}

impl Fleet {
    /// Starts them. `kinds`: what will be done to them, and has to be made ready for.
    pub fn start(
        enclosure: &Enclosure,
        plan: &Plan,
        bin_dir: Option<&Path>,
        kinds: &[Kind],
    ) -> Result<Self, FaultsError> {
        let shape = &plan.server;
        let storages = (1..=shape.storages).map(|number| format!("storage-{number}"));
        let gateways = (1..=shape.gateways).map(|number| format!("gateway-{number}"));
        let names: Vec<String> = storages.chain(gateways).collect();
        let network = Network::make(&names)?;
        let clocks = kinds
            .iter()
            .any(|kind| matches!(kind, Kind::ClockAhead | Kind::ClockBehind | Kind::ClocksBehindKill));
        let hosts = Hosts::Leaves {
            folder: enclosure.folder().to_owned(),
            fake_clock: if clocks { Some(FakeClock { library: fake_clock()? }) } else { None },
            small_disk: kinds.contains(&Kind::DiskFull).then_some(SmallDisk { mib: SMALL_DISK_MIB }),
        };
        let bench_key_pem = generate_key_pem()?;
        let public = Minter::from_pem(&bench_key_pem)?.public_pem();
        let key_file = enclosure.folder().join("benchmark-key.pem");
        std::fs::write(&key_file, &bench_key_pem)?;
        let cluster = Cluster::launch(Launch {
            name: &plan.name,
            shape,
            bin_dir,
            benchmark_key: Some(&public),
            rates: Rates::Lifted,
            hosts: hosts.clone(),
        })?;
        Ok(Self { cluster, network, bench_key_pem, key_file, hosts })
    }

    /// What a run is directed at.
    pub fn wanted(&self) -> Wanted {
        Wanted::Fleet(FleetTargets {
            targets: self.cluster.targets.iter().map(|target| target.authority.clone()).collect(),
            tls_name: "localhost".into(),
            ca: self.cluster.certificate(),
            benchmark_key: self.key_file.clone(),
        })
    }

    /// Name of a storage node.
    pub fn storage(&self, index: usize) -> String {
        self.cluster.storages[index].name().to_owned()
    }

    /// Name of a gateway.
    pub fn gateway(&self, index: usize) -> String {
        self.cluster.gateways[index].name().to_owned()
    }

    /// Nothing reaches a server any more, and nothing comes from it.
    pub fn cut_off(&self, server: &str) -> Result<(), FaultsError> {
        self.network.cut(server, Direction::From)?;
        Ok(self.network.cut(server, Direction::To)?)
    }

    /// A storage node's file system has no room.
    pub fn fill_disk(&self, index: usize) -> Result<(), FaultsError> {
        let path = self.ballast(index);
        let mut file = std::fs::File::create(&path)?;
        loop {
            match file.write_all(&[1; BALLAST_BYTES]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// It has room again; a node that has ended meanwhile is started again.
    pub fn free_disk(&mut self, index: usize) -> Result<(), FaultsError> {
        std::fs::remove_file(self.ballast(index))?;
        let server = &mut self.cluster.storages[index];
        if !server.is_running() {
            server.kill();
            server.restart()?;
        }
        Ok(())
    }

    fn ballast(&self, index: usize) -> PathBuf {
        self.cluster.folder().join(self.storage(index)).join("ballast")
    }

    /// A storage node's wall clock is so far off from now on.
    pub fn set_clock(&self, index: usize, off_s: i64) -> Result<(), FaultsError> {
        let file = self.hosts.clock_file(&self.storage(index));
        // Read within a second, and whole: the new text takes the old one's place at once.
        let new = file.with_extension("new");
        std::fs::write(&new, format!("{off_s:+}\n"))?;
        Ok(std::fs::rename(new, file)?)
    }

    /// All storage nodes' are; returns when all have noticed.
    pub fn set_clocks(&self, off_s: i64) -> Result<(), FaultsError> {
        (0..self.cluster.storages.len()).try_for_each(|index| self.set_clock(index, off_s))?;
        std::thread::sleep(FAKE_CLOCK_READ);
        Ok(())
    }

    /// Each process ends when it is told to and is started again, one after another.
    pub fn restart_in_turn(&mut self) -> Result<(), FaultsError> {
        for server in self.cluster.storages.iter_mut().chain(&mut self.cluster.gateways) {
            let ended_well = server.terminate()?;
            if !ended_well {
                return Err(FaultsError::EndedBadly(server.name().to_owned()));
            }
            server.restart()?;
        }
        Ok(())
    }

    /// Servers that do not run.
    pub fn missing(&mut self) -> Vec<String> {
        let all = self.cluster.storages.iter_mut().chain(&mut self.cluster.gateways);
        all.filter_map(|server| (!server.is_running()).then(|| server.name().to_owned())).collect()
    }
}

/// The library that gives a process a wall clock of its own.
fn fake_clock() -> Result<PathBuf, FaultsError> {
    let folders = std::fs::read_dir(FAKE_CLOCK_FOLDER)?.filter_map(Result::ok);
    let mut found = folders.map(|folder| folder.path().join(FAKE_CLOCK_FILE)).filter(|path| path.is_file());
    found.next().ok_or(FaultsError::NoFakeClock)
}
