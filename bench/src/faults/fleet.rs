//! Three storage nodes and two gateways, each in its own leaf of the network and in a zone, and what can be done to them.

use super::FaultsError;
use super::kinds::{Kind, Victims};
use crate::agent::identity::{Minter, generate_key_pem};
use crate::clock;
use crate::coordinator::enclosure::Enclosure;
use crate::coordinator::hosts::{FakeClock, Hosts, SmallDisk};
use crate::coordinator::network::{Direction, Network};
use crate::coordinator::tested::{Fleet as FleetTargets, Wanted};
use crate::coordinator::{Cluster, Launch, Server, Tier};
use crate::workload::plan::{GatewayChoice, Plan};
use crate::workload::zones::ZoneSpread;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use storage_node::admin::{AdminDone, FleetStatus};

/// Debian's `libfaketime`, by architecture's folder.
const FAKE_CLOCK_FOLDER: &str = "/usr/lib";
const FAKE_CLOCK_FILE: &str = "faketime/libfaketime.so.1";
/// libfaketime reads its file once a second.
const FAKE_CLOCK_READ: Duration = Duration::from_millis(1_500);
/// What a storage node's own file system holds when its disk is to be full: its log, its rows, and room for a run.
const SMALL_DISK_MIB: u32 = 256;
/// Shards have to have moved within this.
const MOVES: Duration = Duration::from_secs(120);
/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(50);
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
    binaries: Binaries,
    /// Id that no storage node has had.
    next_id: u32,
}

/// Where binaries are; `None`: beside the running program.
#[derive(Clone, Debug, Default)]
pub struct Binaries {
    /// Of this release.
    pub current: Option<PathBuf>,
    /// Of the release before it, if the fleet begins with that.
    pub previous: Option<PathBuf>,
}

impl Fleet {
    /// Starts them. `kinds`: what will be done to them, and has to be made ready for.
    pub fn start(
        enclosure: &Enclosure,
        plan: &Plan,
        binaries: &Binaries,
        kinds: &[Kind],
    ) -> Result<Self, FaultsError> {
        let shape = &plan.server;
        // One more has a leaf to join from.
        let joining = u32::from(kinds.contains(&Kind::ShardMoves));
        let storages = (1..=shape.storages + joining).map(|number| format!("storage-{number}"));
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
            bin_dir: binaries.previous.as_deref().or(binaries.current.as_deref()),
            benchmark_key: Some(&public),
            rates: plan.server.rates.into(),
            know_each_other: plan.transport.gateway == GatewayChoice::Ranked,
            hosts: hosts.clone(),
            embedded_log: "",
        })?;
        let binaries = binaries.clone();
        let next_id = shape.storages + 1;
        Ok(Self { cluster, network, bench_key_pem, key_file, hosts, binaries, next_id })
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

    /// All who are to be hit, storage nodes first.
    pub fn names(&self, victims: &Victims) -> Vec<String> {
        let storages = victims.storages.iter().map(|index| self.storage(*index));
        storages.chain(victims.gateways.iter().map(|index| self.gateway(*index))).collect()
    }

    /// All who stand in the zone of a storage node.
    pub fn zone_of(&self, storage: usize) -> Victims {
        Victims::of_zone(storage, &self.cluster.zones(Tier::Storage), &self.cluster.zones(Tier::Gateway))
    }

    /// Zones that the copies of each shard are in at the least. It is an error if those of one could be in more.
    pub fn zones_min(&self) -> Result<u32, FaultsError> {
        self.zones_min_of(&self.status()?)
    }

    /// By where nodes really stand: a label that was lost on the way to the fleet shows.
    fn zones_min_of(&self, status: &FleetStatus) -> Result<u32, FaultsError> {
        let stand = self.cluster.zones(Tier::Storage);
        let zone = |address: &str| {
            let is_there = |place: &usize| Network::address(&self.storage(*place)).to_string() == address;
            let place = (0..stand.len()).find(is_there).expect("nodes are where they were started");
            stand[place].clone()
        };
        let zones: BTreeMap<u32, String> =
            status.nodes.iter().map(|node| (node.id, zone(&node.address))).collect();
        let spread = ZoneSpread::of(&zones, status.shards.iter().map(Vec::as_slice));
        match spread.crowded.first() {
            None => Ok(spread.zones_min),
            Some(first) => Err(FaultsError::Crowded(first.clone())),
        }
    }

    /// Nothing reaches a server any more, and nothing comes from it.
    pub fn cut_off(&self, server: &str) -> Result<(), FaultsError> {
        self.network.cut(server, Direction::From)?;
        Ok(self.network.cut(server, Direction::To)?)
    }

    /// Nothing passes between two servers any more, in either direction; all others reach both.
    pub fn cut_apart(&self, one: &str, other: &str) -> Result<(), FaultsError> {
        self.network.cut_between(one, other)?;
        Ok(self.network.cut_between(other, one)?)
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

    /// All storage nodes' are; returns when all have noticed. One that cannot be set keeps no other from being set.
    pub fn set_clocks(&self, off_s: i64) -> Result<(), FaultsError> {
        let set: Vec<_> =
            (0..self.cluster.storages.len()).map(|index| self.set_clock(index, off_s)).collect();
        set.into_iter().collect::<Result<(), FaultsError>>()?;
        std::thread::sleep(FAKE_CLOCK_READ);
        Ok(())
    }

    /// Each process ends when it is told to and is started again, one after another.
    pub fn restart_in_turn(&mut self) -> Result<(), FaultsError> {
        for server in self.cluster.storages.iter_mut().chain(&mut self.cluster.gateways) {
            restart(server)?;
        }
        Ok(())
    }

    /// A further node joins and gets its share of the shards; then it leaves, and all is where it was. It stands where
    /// another one does, so that not every place for a copy is a good one. Gives the zones that the copies of each shard
    /// are in at the least while it has its share.
    pub fn move_shards(&mut self) -> Result<u32, FaultsError> {
        let id = self.next_id;
        self.next_id += 1;
        let address = self.cluster.start_joining(id)?;
        let zone = self.cluster.zones(Tier::Storage).pop().unwrap_or_default();
        let (id, address) = (id.to_string(), address.to_string());
        self.admin(&["add-node", &id, &address, "--zone", &zone])?;
        self.admin(&["fleet", "--wait"])?;
        let status = self.status()?;
        let zones_min = self.zones_min_of(&status)?;
        if let Some(node) = status.nodes.iter().find(|node| node.holds == 0) {
            let (asked, said) = (format!("add-node {id}"), format!("node {} holds nothing", node.id));
            return Err(FaultsError::Admin { asked, said });
        }
        self.admin(&["remove-node", &id])?;
        self.admin(&["fleet", "--wait"])?;
        self.zones_min()?;
        let name = self.storage(self.cluster.storages.len() - 1);
        if self.cluster.stop_joined()? { Ok(zones_min) } else { Err(FaultsError::EndedBadly(name)) }
    }

    /// Nodes, and where copies are.
    fn status(&self) -> Result<FleetStatus, FaultsError> {
        let said = self.admin(&["fleet", "--json"])?;
        match serde_json::from_str(&said) {
            Ok(AdminDone::Fleet(status)) => Ok(status),
            _ => Err(FaultsError::Admin { asked: "fleet --json".into(), said }),
        }
    }

    /// What an operator asks of the first storage node, and what that says.
    fn admin(&self, arguments: &[&str]) -> Result<String, FaultsError> {
        let failed = |said: String| FaultsError::Admin { asked: arguments.join(" "), said };
        let mut command = self.cluster.admin(arguments)?;
        // It says less than a pipe holds, so that nobody has to read meanwhile.
        let mut asking = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let begun = clock::now_us();
        while asking.try_wait()?.is_none() {
            if clock::now_us() - begun > MOVES.as_micros() as u64 {
                asking.kill()?;
                asking.wait()?;
                return Err(failed(format!("not within {} s", MOVES.as_secs())));
            }
            std::thread::sleep(LOOK);
        }
        let output = asking.wait_with_output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// Each process ends when it is told to and is started again as the new release, one after another. The first of
    /// each kind is started as the old one once more in between.
    pub fn upgrade_in_turn(&mut self) -> Result<(), FaultsError> {
        let Binaries { current, previous } = self.binaries.clone();
        for tier in [Tier::Storage, Tier::Gateway] {
            for index in 0..self.cluster.servers(tier).len() {
                let there_and_back = [&current, &previous, &current];
                let steps = if index == 0 { &there_and_back[..] } else { &there_and_back[..1] };
                for bin_dir in steps {
                    self.cluster.run_from(tier, index, bin_dir.as_deref())?;
                    restart(&mut self.cluster.servers(tier)[index])?;
                }
            }
        }
        Ok(())
    }

    /// Link versions that servers say they speak with another one, ascending. Those of early releases do not say.
    pub fn link_versions(&self) -> Vec<u32> {
        let servers = self.cluster.storages.iter().chain(&self.cluster.gateways);
        let logs = servers.map(|server| std::fs::read_to_string(server.log()).unwrap_or_default());
        let versions: BTreeSet<u32> =
            logs.flat_map(|log| log.lines().filter_map(opened).collect::<Vec<_>>()).collect();
        versions.into_iter().collect()
    }

    /// Servers that do not run.
    pub fn missing(&mut self) -> Vec<String> {
        let all = self.cluster.storages.iter_mut().chain(&mut self.cluster.gateways);
        all.filter_map(|server| (!server.is_running()).then(|| server.name().to_owned())).collect()
    }
}

fn restart(server: &mut Server) -> Result<(), FaultsError> {
    if !server.terminate()? {
        return Err(FaultsError::EndedBadly(server.name().to_owned()));
    }
    server.restart()?;
    Ok(())
}

/// The version of a link that was opened: "… storage link is open node=1 version=2", "… link to 10.0.0.1:7000 opened
/// node=1 version=2".
fn opened(line: &str) -> Option<u32> {
    let (said, rest) = line.split_once(" version=")?;
    let is_link = said.contains("storage link is open") || said.contains("link to ");
    is_link.then(|| rest.split(' ').next()?.parse().ok()).flatten()
}

/// The library that gives a process a wall clock of its own.
fn fake_clock() -> Result<PathBuf, FaultsError> {
    let folders = std::fs::read_dir(FAKE_CLOCK_FOLDER)?.filter_map(Result::ok);
    let mut found = folders.map(|folder| folder.path().join(FAKE_CLOCK_FILE)).filter(|path| path.is_file());
    found.next().ok_or(FaultsError::NoFakeClock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_links_are_read_from_logs() {
        for (line, version) in [
            ("INFO ringline_gateway::storage_client::link: storage link is open node=2 version=1", Some(1)),
            ("INFO storage_node::server::peers: link to 10.9.0.2:7000 opened node=2 version=2", Some(2)),
            ("INFO storage_node::server::peers: link to 10.9.0.2:7000 opened node=2", None),
            ("INFO ringline: hello version=3", None),
        ] {
            assert_eq!(opened(line), version, "{line}");
        }
    }
}
