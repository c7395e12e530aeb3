//! The machines of the page, each a folder here: its programs, its files, its server. They share this machine's loopback
//! interface, so each address of the page is a port of it.

use crate::page::{Block, Way, missing};
use bench::clock;
use bench::coordinator::binary;
use socket2::Socket;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::slice::from_ref;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use storage_node::admin::{AdminDone, AdminRequest, FleetStatus, call};

/// Nothing that the page says takes so long, unless it is broken.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often it is looked whether something has happened.
const LOOK: Duration = Duration::from_millis(20);
/// Variables of the page, each with the address that it has there.
pub const ADDRESSES: [(&str, &str); 6] = [
    ("NODE_1", "10.0.0.1:7000"),
    ("NODE_2", "10.0.0.2:7000"),
    ("NODE_3", "10.0.0.3:7000"),
    ("NODE_4", "10.0.0.4:7000"),
    ("GATEWAY", "10.0.1.1:8443"),
    ("METRICS", "127.0.0.1:9090"),
];
/// The project's programs.
const PROGRAMS: [&str; 2] = ["ringline-storage", "ringline-gateway"];
/// Where the page says that files are made which are copied to the others.
const AUTHORITY: &str = "authority";
/// Machines with a server.
const SERVERS: [&str; 5] = ["node-1", "node-2", "node-3", "node-4", "gateway"];
/// The word for all machines on which a storage node has served and is not lost.
const NODES: &str = "nodes";
/// Set in processes of the new release alone.
const RELEASE: &str = "RINGLINE_RELEASE=new";
/// As whoever has little room writes it, where the page says that such tables stand.
const SMALL_LOG: &str = "[log]\nfile_bytes = 1048576\nkeep_bytes = 8388608\nprefill = false\n\n";
/// The beginning of a file's list of nodes.
const LIST: &str = "[[nodes]]";

/// A server, and what it prints.
struct Server {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All of them.
pub struct Machines {
    folder: tempfile::TempDir,
    /// The ports are nobody else's, also while no server listens.
    _reserved: Vec<Socket>,
    addresses: Vec<SocketAddr>,
    servers: BTreeMap<String, Server>,
    nodes: BTreeSet<String>,
    /// What was printed, and where.
    pub said: Vec<(String, String)>,
}

impl Machines {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let reserve = |_| gateway::listen::reserve((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let (reserved, addresses) = ADDRESSES.iter().map(reserve).unzip();
        let machines = Self {
            folder,
            _reserved: reserved,
            addresses,
            servers: BTreeMap::new(),
            nodes: BTreeSet::new(),
            said: Vec::new(),
        };
        fs::create_dir(machines.backups()).expect("a folder of our own");
        SERVERS.into_iter().chain([AUTHORITY]).for_each(|machine| machines.install(machine));
        machines
    }

    /// A folder that all machines share.
    fn backups(&self) -> PathBuf {
        self.folder.path().join("backups")
    }

    /// Where commands are typed.
    fn files(&self, machine: &str) -> PathBuf {
        self.folder.path().join(machine)
    }

    /// Programs of a machine, outside the folder where commands are typed.
    fn programs(&self, machine: &str) -> PathBuf {
        self.folder.path().join(format!("{machine}.programs"))
    }

    /// Holds the number of the process that runs this program.
    fn pid_file(&self, machine: &str, program: &str) -> PathBuf {
        self.programs(machine).join(format!("pid-of-{program}"))
    }

    fn address(&self, variable: &str) -> SocketAddr {
        let place = ADDRESSES.iter().position(|(known, _)| *known == variable).expect("a known variable");
        self.addresses[place]
    }

    /// Where clients reach the gateway, and the certificate that it made.
    pub fn gateway(&self) -> (SocketAddr, PathBuf) {
        (self.address("GATEWAY"), self.files("gateway").join("data/tls/cert.pem"))
    }

    /// The release that is there in the beginning. `pidof` finds what runs on this machine alone.
    fn install(&self, machine: &str) {
        let programs = self.programs(machine);
        fs::create_dir(self.files(machine)).expect("a folder of our own");
        fs::create_dir(&programs).expect("a folder of our own");
        for program in PROGRAMS {
            symlink(program_file(program), programs.join(program)).expect("a folder of our own");
        }
        let pid_files = self.pid_file(machine, "");
        write_program(&programs.join("pidof"), &format!("exec cat '{}'\"$1\"", pid_files.display()));
    }

    /// Puts another release where the page says that it is; its processes tell that they are of it.
    pub fn bring_new_release(&self) {
        for machine in self.servers.keys() {
            let new = self.files(machine).join("new");
            fs::create_dir(&new).expect("a folder of our own");
            for program in PROGRAMS {
                let script = format!("{RELEASE} exec '{}' \"$@\"", program_file(program).display());
                write_program(&new.join(program), &script);
            }
        }
    }

    /// Servers that are not of the new release.
    pub fn of_old_release(&self) -> Vec<&str> {
        let is_old = |server: &Server| {
            let environment = fs::read(format!("/proc/{}/environ", server.child.id())).expect("it runs");
            environment.split(|byte| *byte == 0).all(|variable| variable != RELEASE.as_bytes())
        };
        let old = self.servers.iter().filter(|(_, server)| is_old(server));
        old.map(|(machine, _)| machine.as_str()).collect()
    }

    /// Does what the page says.
    pub fn carry_out(&mut self, blocks: &[Block]) {
        let mut rest = blocks;
        while let Some(first) = rest.first() {
            let is_neighbour = |block: &&Block| block.is_in_turn && block.places == first.places;
            let count = rest.iter().take_while(is_neighbour).count().max(1);
            let (together, others) = rest.split_at(count);
            match first.is_in_turn {
                true => {
                    for place in self.places(first) {
                        together.iter().for_each(|block| self.carry_out_on(block, from_ref(&place)));
                    }
                }
                false => {
                    let places = self.places(first);
                    self.carry_out_on(first, &places);
                }
            }
            rest = others;
        }
    }

    fn places(&self, block: &Block) -> Vec<String> {
        match block.places.as_slice() {
            [all] if all == NODES => self.nodes.iter().cloned().collect(),
            places => places.to_vec(),
        }
    }

    fn carry_out_on(&mut self, block: &Block, places: &[String]) {
        assert!(!places.is_empty(), "{}: on no machine", block.name());
        match block.way {
            Way::Runs => places.iter().for_each(|place| self.run(block, place)),
            Way::Stops => {
                for place in places {
                    self.run(block, place);
                    self.wait_for_end(block, place);
                }
            }
            Way::Serves => {
                // Copies of shards are ready together.
                places.iter().for_each(|place| self.start(block, place));
                places.iter().for_each(|place| self.wait_until_ready(block, place));
            }
        }
    }

    fn bash(&self, place: &str) -> Command {
        let mut command = Command::new("timeout");
        command.arg(PATIENCE.as_secs().to_string()).args(["bash", "-euo", "pipefail", "-c"]);
        self.prepare(command, place)
    }

    /// In the machine's folder, with its programs before all others and the variables of the page.
    fn prepare(&self, mut command: Command, place: &str) -> Command {
        let path = std::env::var("PATH").expect("there is one");
        command
            .current_dir(self.files(place))
            .env("PATH", format!("{}:{path}", self.programs(place).display()))
            .env("BACKUPS", self.backups())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        for ((variable, _), address) in ADDRESSES.iter().zip(&self.addresses) {
            command.env(variable, address.to_string());
        }
        if let Some(number) = place.strip_prefix("node-") {
            command.env("N", number).env("ADDRESS", self.address(&format!("NODE_{number}")).to_string());
        }
        command
    }

    /// What the page says that is printed, with the addresses that are here.
    fn here(&self, prints: &[String]) -> Vec<String> {
        let addresses = || ADDRESSES.iter().map(|(_, written)| written).zip(&self.addresses);
        let replaced = |line: &String| {
            addresses().fold(line.clone(), |line, (written, here)| line.replace(written, &here.to_string()))
        };
        prints.iter().map(replaced).collect()
    }

    fn run(&mut self, block: &Block, place: &str) {
        // What it complains of stands between what it prints, as on a terminal.
        let script = format!("exec 2>&1\n{}\n", block.text);
        let output = self.bash(place).arg(&script).output().expect("bash is there");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let name = block.name();
        assert!(output.status.success(), "{name}, on {place}: {:?}\n{}\n{said}", output.status, block.text);
        if let Some(line) = missing(&self.here(&block.prints), &said) {
            panic!("{name}, on {place}: {line:?} was not printed, or not in its place, but:\n{said}");
        }
        self.said.push((place.to_owned(), said));
        match place {
            AUTHORITY => self.copy_from_authority(),
            _ => keep_log_small(&self.files(place)),
        }
    }

    fn start(&mut self, block: &Block, place: &str) {
        assert!(!self.servers.contains_key(place), "{}: {place} has a server", block.name());
        let log = self.files(place).join("server.log");
        let log = File::options().create(true).append(true).open(log).expect("a folder of our own");
        let mut command = self.prepare(Command::new("bash"), place);
        // The shell becomes the server.
        command.args(["-c", &format!("exec {}", block.command())]).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("bash is there");
        let program = block.command().split(' ').next().unwrap_or_default();
        fs::write(self.pid_file(place, program), child.id().to_string()).expect("a folder of our own");
        let printed = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        // Ends with the server, which so never waits for a reader.
        std::thread::spawn(move || {
            printed.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        self.servers.insert(place.to_owned(), Server { child, lines });
        if program == PROGRAMS[0] {
            self.nodes.insert(place.to_owned());
        }
    }

    fn wait_until_ready(&self, block: &Block, place: &str) {
        assert!(!block.prints.is_empty(), "{}: nothing says that it is ready", block.name());
        let (server, prints) = (&self.servers[place], self.here(&block.prints));
        let mut said = String::new();
        while let Some(line) = missing(&prints, &said) {
            match server.lines.recv_timeout(PATIENCE) {
                Ok(printed) => said = format!("{said}{printed}\n"),
                Err(_) => {
                    let log = fs::read_to_string(self.files(place).join("server.log")).unwrap_or_default();
                    let name = block.name();
                    panic!("{name}, on {place}: {line:?} was not printed, but {said:?}; its log:\n{log}");
                }
            }
        }
    }

    /// The machine has none any more, and its number may be another process' next.
    fn take_server(&mut self, place: &str) -> Server {
        for program in PROGRAMS {
            // A machine has run one of them.
            let _ = fs::remove_file(self.pid_file(place, program));
        }
        self.servers.remove(place).expect("it has a server")
    }

    fn wait_for_end(&mut self, block: &Block, place: &str) {
        let (mut server, asked) = (self.take_server(place), clock::now());
        loop {
            match server.child.try_wait().expect("it can be asked") {
                Some(status) => {
                    assert!(status.success(), "{}: {place} ended with {status:?}", block.name());
                    break;
                }
                None => assert!(asked.elapsed() < PATIENCE, "{}: {place} does not end", block.name()),
            }
            std::thread::sleep(LOOK);
        }
    }

    /// What the page says that is copied to the other machines.
    fn copy_from_authority(&self) {
        for machine in SERVERS {
            let kind = machine.split('-').next().unwrap_or_default();
            for file in ["ca.pem".to_owned(), format!("{kind}.pem"), format!("{kind}-key.pem")] {
                let (from, to) = (self.files(AUTHORITY).join(&file), self.files(machine).join(&file));
                fs::copy(&from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
            }
        }
    }

    /// A machine is gone, with everything on it.
    pub fn lose(&mut self, machine: &str) {
        drop(self.take_server(machine));
        self.nodes.remove(machine);
        fs::remove_dir_all(self.files(machine)).expect("a folder of our own");
    }

    /// All storage nodes die; of all but the last one the data is gone, too.
    pub fn lose_all_data(&mut self) {
        let nodes: Vec<String> = self.nodes.iter().cloned().collect();
        nodes.iter().for_each(|node| drop(self.take_server(node)));
        for node in nodes.iter().rev().skip(1) {
            fs::remove_dir_all(self.files(node).join("data")).expect("it was there");
        }
    }

    /// The fleet as a storage node tells it, once it is as wanted.
    pub fn fleet_when(&self, machine: &str, is: impl Fn(&FleetStatus) -> bool) -> FleetStatus {
        let (data, asked) = (self.files(machine).join("data"), clock::now());
        loop {
            match call(&data, &AdminRequest::Fleet {}, |_| {}).expect("the node answers") {
                AdminDone::Fleet(fleet) if is(&fleet) => return fleet,
                other => assert!(asked.elapsed() < PATIENCE, "{other:?}"),
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// A program of the project as it was built.
fn program_file(name: &str) -> PathBuf {
    let program = binary(name).unwrap_or_else(|error| panic!("{error}"));
    program.canonicalize().expect("it is there")
}

fn write_program(file: &Path, script: &str) {
    fs::write(file, format!("#!/bin/sh\n{script}\n")).expect("a folder of our own");
    fs::set_permissions(file, Permissions::from_mode(0o755)).expect("ours");
}

/// A node's log takes 400 MB from its first start on, which tests have not.
fn keep_log_small(files: &Path) {
    let file = files.join("storage.toml");
    let Ok(text) = fs::read_to_string(&file) else { return };
    if !text.contains(SMALL_LOG) {
        fs::write(&file, text.replacen(LIST, &format!("{SMALL_LOG}{LIST}"), 1)).expect("a folder of our own");
    }
}
