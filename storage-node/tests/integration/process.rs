//! `ringline-storage` as a process, and a link to it as a gateway core would have one.

use crate::requests::Call;
use bytes::BytesMut;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::{Domain, Socket, Type};
use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use storage_node::server::LinkTlsConfigs;
use storage_node::{LinkTls, NodeConfig, clock};
use tuning::failpoint;
use wire_protocol::frame::{FrameDecoder, encode_message};
use wire_protocol::internal::{
    Delivery, Fleet, LinkHello, ShardLeader, ShardRequest, ShardResponse, link_hello,
};
use wire_protocol::limits::LINK_FRAME_BYTES_MAX;
use wire_protocol::link::{CallerEvent, CallerLink, decode};

/// Nothing takes that long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_ringline-storage");

/// Runs out when nothing comes of what is waited for, however long all of it takes.
pub struct Patience {
    /// Grows with whatever is done.
    done: u64,
    /// When it did last.
    since: Instant,
}

impl Patience {
    pub fn begin(done: u64) -> Self {
        Self { done, since: clock::now() }
    }

    /// Whether nothing was done for twice [`PATIENCE`].
    pub fn is_over(&mut self, done: u64) -> bool {
        if done != self.done {
            *self = Self::begin(done);
        }
        self.since.elapsed() >= 2 * PATIENCE
    }
}

/// What one process is told.
pub struct Setup<'a> {
    pub folder: &'a Path,
    pub node_id: u32,
    pub shards: u32,
    pub cores: usize,
    pub nodes: &'a [NodeConfig],
    pub tls: &'a LinkTls,
    pub listen: SocketAddr,
    pub metrics: SocketAddr,
    /// Whether shards have several copies, or may get them.
    pub is_replicated: bool,
}

impl<'a> Setup<'a> {
    /// A node that has all shards, on one core and a port of its own.
    pub fn alone(folder: &'a Path, tls: &'a LinkTls, shards: u32) -> Self {
        Self {
            folder,
            node_id: 1,
            shards,
            cores: 1,
            nodes: &[],
            tls,
            listen: ([127, 0, 0, 1], 0).into(),
            metrics: ([127, 0, 0, 1], 0).into(),
            is_replicated: false,
        }
    }

    /// Writes the configuration; gives its file.
    pub fn write_config(&self) -> PathBuf {
        let config = self.folder.join(format!("node-{}.toml", self.node_id));
        std::fs::write(&config, self.to_toml()).expect("it writes");
        config
    }

    /// What its processes read and write.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What the process complained of that was started last by a function that says so.
    pub fn complaint(&self) -> String {
        std::fs::read_to_string(self.complaints_file()).expect("it reads")
    }

    /// A file, so that nobody has to read while the process runs.
    pub fn complaints_file(&self) -> PathBuf {
        self.folder.join(format!("node-{}.stderr", self.node_id))
    }

    fn to_toml(&self) -> String {
        let mut text = format!(
            "data_dir = {:?}\nnode_id = {}\nshard_count = {}\ncores = {}\nlisten = \"{}\"\n\
             metrics_listen = \"{}\"\n",
            self.data(),
            self.node_id,
            self.shards,
            self.cores,
            self.listen,
            self.metrics
        );
        let tls = self.tls;
        if self.is_replicated {
            text.push_str("replicas = 3\n");
        }
        let _ = write!(
            text,
            "log = {{ file_bytes = 1048576, keep_bytes = 8388608, prefill = false }}\n\
             [tls]\nca = {:?}\ncert = {:?}\nkey = {:?}\n",
            tls.ca, tls.cert, tls.key
        );
        for node in self.nodes {
            let _ = write!(
                text,
                "[[nodes]]\nid = {}\naddress = \"{}\"\nshards = {:?}\n",
                node.id, node.address, node.shards
            );
            if !node.zone.is_empty() {
                let _ = writeln!(text, "zone = {:?}", node.zone);
            }
        }
        text
    }
}

/// A running `ringline-storage`. Killed when dropped.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
}

impl Process {
    /// Starts it and waits until it says that it is ready.
    pub fn start(setup: &Setup<'_>) -> Self {
        Self::ready(Self::spawn(setup))
    }

    /// As [`Self::start`], on a disk that takes no file of more than this many of the shell's blocks (512 or 1,024
    /// bytes each). What it complains of is kept: [`Setup::complaint`].
    pub fn start_with_files_up_to(setup: &Setup<'_>, blocks: u32) -> Self {
        // The signal of a file grown too large is ignored: the write fails, as on a full disk.
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).arg(PROGRAM);
        Self::ready(Self::spawn_by(Self::heard(shell, setup), setup))
    }

    /// Starts one of a new fleet without waiting: it is ready when enough others are.
    pub fn start_first(setup: &Setup<'_>) -> Child {
        let mut program = Command::new(PROGRAM);
        program.arg("--new-fleet");
        Self::spawn_by(program, setup)
    }

    /// Starts it without waiting.
    pub fn start_without_waiting(setup: &Setup<'_>) -> Child {
        Self::spawn(setup)
    }

    /// Starts one that the fleet is to get, and waits until it says that it is ready.
    pub fn start_joining(setup: &Setup<'_>) -> Self {
        let mut program = Command::new(PROGRAM);
        program.arg("--join");
        Self::ready(Self::spawn_by(program, setup))
    }

    /// Waits until a started one says that it is ready.
    pub fn ready(child: Child) -> Self {
        Self::ready_or_ended(child).unwrap_or_else(|status| panic!("not ready: {status:?}"))
    }

    fn ready_or_ended(mut child: Child) -> Result<Self, ExitStatus> {
        let stdout = child.stdout.take().expect("it is piped");
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line).map(|_| line);
            // Nobody waits any more.
            let _ = tell.send(read);
        });
        let Ok(line) = told.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("neither ready nor ended");
        };
        let line = line.expect("it reads");
        match line.trim_end().strip_prefix("ringline-storage ready: ") {
            Some(address) => Ok(Self { address: address.parse().expect("an address"), child }),
            None => Err(child.wait().expect("it ends")),
        }
    }

    /// Starts it with a failpoint armed. `Err`: it came there before it was ready.
    pub fn start_dying_at(setup: &Setup<'_>, failpoint: &str) -> Result<Self, ExitStatus> {
        let mut program = Command::new(PROGRAM);
        program.env(failpoint::VARIABLE, failpoint);
        Self::ready_or_ended(Self::spawn_by(program, setup))
    }

    /// Starts it with a failpoint armed, and keeps what it complains of: [`Setup::complaint`]. `Err`: it ended before it was
    /// ready.
    pub fn start_failing_at(setup: &Setup<'_>, failpoint: &str) -> Result<Self, ExitStatus> {
        let mut program = Self::heard(Command::new(PROGRAM), setup);
        program.env(failpoint::VARIABLE, failpoint);
        Self::ready_or_ended(Self::spawn_by(program, setup))
    }

    /// Starts it over whatever is in its folder, and keeps what it complains of: [`Setup::complaint`]. `Err`: it ended
    /// before it was ready.
    pub fn try_start(setup: &Setup<'_>) -> Result<Self, ExitStatus> {
        Self::ready_or_ended(Self::spawn_by(Self::heard(Command::new(PROGRAM), setup), setup))
    }

    /// The same with the word of a new fleet.
    pub fn try_start_first(setup: &Setup<'_>) -> Result<Self, ExitStatus> {
        let mut program = Self::heard(Command::new(PROGRAM), setup);
        program.arg("--new-fleet");
        Self::ready_or_ended(Self::spawn_by(program, setup))
    }

    fn heard(mut program: Command, setup: &Setup<'_>) -> Command {
        program.stderr(File::create(setup.complaints_file()).expect("it makes"));
        program
    }

    /// Starts it on a disk on which every synced write of the log takes this long.
    pub fn start_on_slow_disk(setup: &Setup<'_>, write: Duration) -> Self {
        let mut program = Command::new(PROGRAM);
        program.env(failpoint::VARIABLE, format!("log-writing:wait={}", write.as_millis()));
        Self::ready(Self::spawn_by(program, setup))
    }

    /// Starts it and kills it after this long, wherever it is by then.
    pub fn start_and_kill(setup: &Setup<'_>, lives: Duration) {
        let mut child = Self::spawn(setup);
        // No synchronisation: any moment is right.
        std::thread::sleep(lives);
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }

    fn spawn(setup: &Setup<'_>) -> Child {
        Self::spawn_by(Command::new(PROGRAM), setup)
    }

    fn spawn_by(mut program: Command, setup: &Setup<'_>) -> Child {
        let config = setup.write_config();
        program
            .arg("--config")
            .arg(&config)
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned()))
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts")
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_some()
    }

    /// It ends by itself.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// SIGTERM, and a proper end.
    pub fn terminate(mut self) {
        let signalled = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(signalled.success());
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status:?}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a text names a file of a folder, with its whole path: a number and this ending.
pub fn names_numbered_file(text: &str, folder: &Path, ending: &str) -> bool {
    let folder = format!("{}/", folder.display());
    text.split(folder.as_str()).skip(1).any(|rest| {
        let name = rest.split([':', ' ']).next().unwrap_or_default();
        let number = name.strip_suffix(ending).unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Runs the program as a command; gives what it printed, or what it complained of.
pub fn run(arguments: &[&OsStr]) -> Result<String, String> {
    let output = Command::new(PROGRAM).args(arguments).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// A loopback address that nobody else gets while the socket is kept, and a node can bind.
pub fn reserved_address() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // As nodes do with their listeners.
    socket.set_reuse_port(true).expect("an option that is known");
    socket.set_reuse_address(true).expect("an option that is known");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    let address = socket.local_addr().expect("bound").as_socket().expect("of the internet");
    (socket, address)
}

/// One link, driven by the test's thread.
pub struct Link {
    stream: StreamOwned<ClientConnection, TcpStream>,
    half: CallerLink,
    decoder: FrameDecoder,
    request_last: u64,
    pub responses: HashMap<u64, ShardResponse>,
    pub deliveries: VecDeque<Delivery>,
    /// Who leads, by shard, as the node told.
    pub leaders: HashMap<u32, ShardLeader>,
    pub epoch: u64,
    /// As the node told.
    pub fleet: Option<Fleet>,
}

impl Link {
    pub fn open(address: SocketAddr, tls: &LinkTls) -> io::Result<Self> {
        let configs = LinkTlsConfigs::read(tls).map_err(io::Error::other)?;
        Self::open_as(address, configs.client, configs.server_name)
    }

    /// As a storage node of this id has one.
    pub fn open_as_node(address: SocketAddr, tls: &LinkTls, id: u32) -> io::Result<Self> {
        let configs = LinkTlsConfigs::read(tls).map_err(io::Error::other)?;
        Self::open_by(address, configs.client, configs.server_name, (link_hello::Role::Storage, id))
    }

    /// What somebody wants the fleet to be.
    pub fn change_fleet(&mut self, fleet: Fleet) {
        self.half.queue_fleet_change(fleet).expect("the link is open");
    }

    /// As [`Self::open`], but shows no certificate.
    pub fn open_without_certificate(address: SocketAddr, tls: &LinkTls) -> io::Result<Self> {
        let configs = LinkTlsConfigs::read(tls).map_err(io::Error::other)?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&tls.ca).expect("it reads")).expect("a certificate");
        let client = ClientConfig::builder_with_provider(Arc::clone(configs.client.crypto_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self::open_as(address, Arc::new(client), configs.server_name)
    }

    fn open_as(
        address: SocketAddr,
        client: Arc<ClientConfig>,
        server_name: ServerName<'static>,
    ) -> io::Result<Self> {
        Self::open_by(address, client, server_name, (link_hello::Role::Gateway, 1))
    }

    fn open_by(
        address: SocketAddr,
        client: Arc<ClientConfig>,
        server_name: ServerName<'static>,
        (role, peer_id): (link_hello::Role, u32),
    ) -> io::Result<Self> {
        let connection = ClientConnection::new(client, server_name).map_err(io::Error::other)?;
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let hello = LinkHello { role: role as i32, peer_id, incarnation: 5, ..LinkHello::default() };
        let mut link = Self {
            stream: StreamOwned::new(connection, socket),
            half: CallerLink::new(hello, clock::now_ms()),
            decoder: FrameDecoder::new(LINK_FRAME_BYTES_MAX),
            request_last: 0,
            responses: HashMap::new(),
            deliveries: VecDeque::new(),
            leaders: HashMap::new(),
            epoch: 0,
            fleet: None,
        };
        let started = clock::now();
        while link.half.welcome().is_none() {
            link.pump(Duration::from_millis(100))?;
            assert!(started.elapsed() < PATIENCE, "no welcome");
        }
        Ok(link)
    }

    /// Whether another request may be sent now.
    pub fn can_send(&self) -> bool {
        self.half.can_send()
    }

    pub fn begin(&mut self, call: Call) -> u64 {
        self.request_last += 1;
        let id = self.request_last;
        let request = ShardRequest { id, shard: call.shard.0, operation: Some(call.operation) };
        self.half.queue_request(request).expect("the test keeps within its credits");
        id
    }

    /// Sends what is queued and takes what comes within `wait`.
    pub fn pump(&mut self, wait: Duration) -> io::Result<()> {
        let now_ms = clock::now_ms();
        self.half.handle_timeout(now_ms).map_err(io::Error::other)?;
        let mut frames = BytesMut::new();
        while let Some(frame) = self.half.poll_frame(now_ms) {
            encode_message(&frame, &mut frames);
        }
        self.stream.write_all(&frames)?;
        self.stream.flush()?;
        self.stream.sock.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        let mut bytes = [0; 64 * 1024];
        let count = match self.stream.read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => 0,
            Err(error) => return Err(error),
        };
        self.decoder.push(&bytes[..count]);
        while let Some(payload) =
            self.decoder.next_frame().map_err(|error| io::Error::other(error.to_string()))?
        {
            let frame = decode(payload).map_err(io::Error::other)?;
            let (responses, deliveries) = (&mut self.responses, &mut self.deliveries);
            let (epoch, leaders, known) = (&mut self.epoch, &mut self.leaders, &mut self.fleet);
            let mut take = |event: CallerEvent| match event {
                CallerEvent::Welcome(welcome) => *epoch = welcome.epoch,
                CallerEvent::Response(response) => {
                    let id = response.id;
                    assert!(responses.insert(id, response).is_none(), "{id} was answered twice");
                }
                CallerEvent::Delivery(delivery) => deliveries.push_back(delivery),
                CallerEvent::FeedAck(_) => {}
                CallerEvent::Fleet(fleet) => *known = Some(fleet),
                CallerEvent::Leader(leader) => {
                    leaders.insert(leader.shard, leader);
                }
            };
            self.half.handle_frame(clock::now_ms(), frame, &mut take).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Pumps until `done`.
    pub fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) -> io::Result<()> {
        let started = clock::now();
        while !done(self) {
            assert!(started.elapsed() < PATIENCE, "{what} did not happen");
            self.pump(Duration::from_millis(100))?;
        }
        Ok(())
    }

    pub fn call(&mut self, call: Call) -> io::Result<ShardResponse> {
        let id = self.begin(call);
        self.run_until("an answer", |link| link.responses.contains_key(&id))?;
        Ok(self.responses.remove(&id).expect("it is there"))
    }
}
