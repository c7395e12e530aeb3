//! Storage nodes as processes of their own. Each is this test's own binary, started with a variable that makes
//! one of its tests serve; or, where it matters what a node tells, the program itself.

use crate::server::{Folder, Process, Server, run_to_end};
use gateway::config::GatewayConfig;
use gateway::listen::reserve;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use socket2::Socket;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use storage_node::StorageConfig;
use wire_protocol::limits::SHARD_COUNT_MAX;

/// Names the configuration of a storage node, in a process that is to be one.
const CONFIG_VARIABLE: &str = "RINGLINE_TEST_STORAGE_CONFIG";

/// The role of a storage node. Does nothing in an ordinary run.
#[test]
fn serve_as_storage_node() {
    let Ok(file) = std::env::var(CONFIG_VARIABLE) else { return };
    let config = StorageConfig::read(Path::new(&file)).expect("a configuration");
    let announce = |ready: storage_node::server::Ready| println!("storage ready: {}", ready.listen);
    storage_node::server::serve(config, announce).expect("serves until it is told to stop");
}

/// A fleet that a gateway takes and its storage nodes do not, or the other way round, could not be run.
#[test]
fn gateways_and_storage_nodes_refuse_one_shard_more_than_a_fleet_may_have() {
    for (shards, is_taken) in [(SHARD_COUNT_MAX, true), (SHARD_COUNT_MAX + 1, false)] {
        let text = format!("[storage]\nshard_count = {shards}\n");
        let gateway = GatewayConfig::parse(&text, Path::new("gateway.toml"));
        assert_eq!(gateway.is_ok(), is_taken, "{shards}: {gateway:?}");
        let node = StorageConfig { shard_count: shards, ..StorageConfig::default() }.check();
        assert_eq!(node.is_ok(), is_taken, "{shards}: {node:?}");
    }
}

/// What runs as a storage node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Program {
    /// This test's binary, which logs nothing but errors.
    Test,
    /// `ringline-storage`, which logs everything that can be logged, into a file.
    Shipped,
}

/// Two storage nodes, each with a half of the shards.
pub struct Cluster {
    /// They end before their folder goes.
    nodes: [Option<Process>; 2],
    folder: Folder,
    program: Program,
    ports: [u16; 2],
    metrics: [SocketAddr; 2],
    /// Keep the ports while a node is down.
    _reserved: [Socket; 4],
}

impl Cluster {
    pub fn start() -> Self {
        Self::start_program(Program::Test)
    }

    /// As [`Self::start`], of the program itself; with everything that it can log in [`Self::log`].
    pub fn logging_everything() -> Self {
        Self::start_program(Program::Shipped)
    }

    fn start_program(program: Program) -> Self {
        let folder = Folder::new();
        write_certificates(folder.path());
        let reserved = [(); 4].map(|()| reserve((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port"));
        let [one, other, metrics_of_one, metrics_of_other] = reserved.each_ref().map(|(_, address)| *address);
        let mut cluster = Self {
            folder,
            program,
            ports: [one.port(), other.port()],
            metrics: [metrics_of_one, metrics_of_other],
            _reserved: reserved.map(|(socket, _)| socket),
            nodes: [None, None],
        };
        (0..2).for_each(|node| cluster.start_node(node));
        cluster
    }

    /// A gateway before them.
    pub fn gateway(&self) -> Server {
        Server::start(Folder::new(), &self.gateway_config())
    }

    /// What such a gateway's configuration says of them.
    pub fn gateway_config(&self) -> String {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        format!(
            "[storage]\nmode = \"nodes\"\nshard_count = 4\nca = {:?}\ncert = {:?}\nkey = {:?}\n\
             server_name = \"ringline-storage\"\nnodes = {}\n",
            path("ca.pem"),
            path("cert.pem"),
            path("key.pem"),
            self.node_list()
        )
    }

    pub fn start_node(&mut self, node: usize) {
        let file = self.config(node);
        self.write_config(node, &file);
        let process = match self.program {
            Program::Test => {
                let mut command = Command::new(std::env::current_exe().expect("this test"));
                command.args(["--exact", "nodes::serve_as_storage_node", "--nocapture"]);
                command.env(CONFIG_VARIABLE, &file).env("RUST_LOG", "error");
                Process::start(command, "storage ready:")
            }
            Program::Shipped => {
                let log = fs::File::options().create(true).append(true).open(self.log(node));
                let mut command = Command::new(shipped());
                command.arg("--config").arg(&file).stderr(log.expect("a file"));
                command.env("RUST_LOG", "trace").env("NO_COLOR", "1");
                Process::start(command, "ringline-storage ready:")
            }
        };
        self.nodes[node] = Some(process);
    }

    fn config(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("storage{node}.toml"))
    }

    fn write_config(&self, node: usize, file: &Path) {
        let folder = self.folder.path();
        let config = format!(
            "data_dir = {:?}\nnode_id = {}\nshard_count = 4\nlisten = \"127.0.0.1:{}\"\n\
             metrics_listen = \"{}\"\ncores = 1\nnodes = {}\n\
             [tls]\nca = {:?}\ncert = {:?}\nkey = {:?}\n\
             [log]\nfile_bytes = 4194304\nkeep_bytes = 16777216\nprefill = false\n",
            folder.join(format!("data{node}")),
            node + 1,
            self.ports[node],
            self.metrics[node],
            self.node_list(),
            folder.join("ca.pem"),
            folder.join("cert.pem"),
            self.link_key(),
        );
        fs::write(file, config).expect("written");
    }

    /// As `kill -9`. Gives what it printed.
    pub fn kill_node(&mut self, node: usize) -> String {
        let mut process = self.nodes[node].take().expect("it runs");
        process.kill();
        process.printed()
    }

    /// Asks it to end, and waits until it has. Gives what it printed.
    pub fn end_node(&mut self, node: usize) -> String {
        let mut process = self.nodes[node].take().expect("it runs");
        assert!(process.terminate().success());
        process.printed()
    }

    /// Of all its lives, of a node that logs everything.
    pub fn log(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("storage{node}.log"))
    }

    /// Where a node shows its metrics.
    pub fn metrics(&self, node: usize) -> SocketAddr {
        self.metrics[node]
    }

    /// The key by which gateways and nodes prove who they are.
    pub fn link_key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// What an operator sees who asks a running node.
    pub fn admin(&self, node: usize, words: &[&str]) -> String {
        let mut command = Command::new(shipped());
        command.args(["admin", "--config"]).arg(self.config(node)).args(words);
        let asked = run_to_end(command);
        let seen = [asked.stdout, asked.stderr].map(|bytes| String::from_utf8(bytes).expect("text")).concat();
        assert!(asked.status.success(), "{seen}");
        seen
    }

    fn node_list(&self) -> String {
        let node = |index: usize| {
            let (id, port) = (index + 1, self.ports[index]);
            let shards = [2 * index, 2 * index + 1];
            format!("{{ id = {id}, address = \"127.0.0.1:{port}\", shards = {shards:?} }}")
        };
        format!("[{}, {}]", node(0), node(1))
    }
}

/// The storage node's program, which is built beside the gateway's.
pub fn shipped() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_ringline-gateway")).with_file_name("ringline-storage");
    assert!(program.is_file(), "{} is not built: cargo build --workspace", program.display());
    program
}

/// An authority, and one certificate of it that every process uses on both sides.
fn write_certificates(folder: &Path) {
    let mut authority = CertificateParams::new(Vec::new()).expect("no names");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("signed");
    let key = KeyPair::generate().expect("a key");
    let names = vec!["ringline-storage".to_owned()];
    let certificate =
        CertificateParams::new(names).expect("a name").signed_by(&key, &authority).expect("signed");
    fs::write(folder.join("ca.pem"), authority.pem()).expect("written");
    fs::write(folder.join("cert.pem"), certificate.pem()).expect("written");
    fs::write(folder.join("key.pem"), key.serialize_pem()).expect("written");
}
