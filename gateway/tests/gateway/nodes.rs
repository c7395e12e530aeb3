//! Storage nodes as processes of their own. Each is this test's own binary, started with a variable that makes
//! one of its tests serve.

use crate::server::{Folder, Process, Server};
use gateway::listen::reserve;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use socket2::Socket;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use storage_node::StorageConfig;

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

/// Two storage nodes, each with a half of the shards.
pub struct Cluster {
    folder: Folder,
    ports: [u16; 2],
    /// Keep the ports while a node is down.
    _reserved: [Socket; 2],
    nodes: [Option<Process>; 2],
}

impl Cluster {
    pub fn start() -> Self {
        let folder = Folder::new();
        write_certificates(folder.path());
        let reserved = [(); 2].map(|()| reserve((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port"));
        let ports = reserved.each_ref().map(|(_, address)| address.port());
        let mut cluster =
            Self { folder, ports, _reserved: reserved.map(|(socket, _)| socket), nodes: [None, None] };
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
        let folder = self.folder.path();
        let config = format!(
            "data_dir = {:?}\nnode_id = {}\nshard_count = 4\nlisten = \"127.0.0.1:{}\"\ncores = 1\nnodes = {}\n\
             [tls]\nca = {:?}\ncert = {:?}\nkey = {:?}\n\
             [log]\nfile_bytes = 4194304\nkeep_bytes = 16777216\nprefill = false\n",
            folder.join(format!("data{node}")),
            node + 1,
            self.ports[node],
            self.node_list(),
            folder.join("ca.pem"),
            folder.join("cert.pem"),
            folder.join("key.pem"),
        );
        let file = folder.join(format!("storage{node}.toml"));
        fs::write(&file, config).expect("written");
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args(["--exact", "nodes::serve_as_storage_node", "--nocapture"]).env(CONFIG_VARIABLE, &file);
        command.env("RUST_LOG", "error");
        self.nodes[node] = Some(Process::start(command, "storage ready:"));
    }

    pub fn kill_node(&mut self, node: usize) {
        self.nodes[node].take().expect("it runs").kill();
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
