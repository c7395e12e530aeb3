//! A gateway process of its own, and what the REST interface is needed for.

use crate::memory_group::MemoryGroup;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fmt::Debug;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Nothing here takes longer than this, in seconds, even on a busy machine.
pub const PATIENCE_S: u64 = 60;

/// Tests send more in a moment than people do in a minute.
const UNLIMITED: &str =
    "[limits]\nsends_per_user = 'none'\nrequests_per_user = 'none'\nsends_per_conversation = 'none'\n";

/// A small storage of its own.
pub const EMBEDDED: &str =
    "[storage]\nlog_file_bytes = 4194304\nlog_keep_bytes = 16777216\nlog_prefill = false\n";

/// A folder that goes when the test is over.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("ringline-gateway-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match std::fs::create_dir(&path) {
                Ok(()) => return Self(path),
                // A process of the same number was killed, or runs in another namespace.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays behind harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A child that says one line when it is ready, and is killed when the test is over.
pub struct Process {
    child: Child,
    pub ready: String,
    /// Reads what it prints, until the end.
    listener: Option<JoinHandle<String>>,
}

impl Process {
    pub fn start(mut command: Command, ready: &str) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (said, hears) = mpsc::channel();
        let wanted = ready.to_owned();
        // Its output is read on, so that it never waits for us.
        let listener = std::thread::spawn(move || {
            let mut printed = String::new();
            lines.for_each(|line| {
                let line = line.unwrap_or_default();
                printed.extend([line.as_str(), "\n"]);
                if line.contains(&wanted) {
                    // The first one is waited for.
                    let _ = said.send(line);
                }
            });
            printed
        });
        let mut process = Self { child, ready: String::new(), listener: Some(listener) };
        match hears.recv_timeout(Duration::from_secs(PATIENCE_S)) {
            Ok(line) => process.ready = line,
            Err(RecvTimeoutError::Timeout) => panic!("it never said {ready:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("it ended: {}", process.wait()),
        }
        process
    }

    /// All that it printed. To be asked once, when it has ended.
    pub fn printed(&mut self) -> String {
        self.listener.take().expect("asked once").join().expect("it only reads")
    }

    /// The process' number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// As `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ran");
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        self.ask_to_end();
        self.wait()
    }

    /// Asks it to end.
    pub fn ask_to_end(&self) {
        self.signal("TERM");
    }

    /// Sends it the signal of this name.
    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill").args(["-s", name]).arg(self.child.id().to_string()).status();
        assert!(kill.expect("kill is there").success());
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(PATIENCE_S);
        loop {
            if let Some(status) = self.child.try_wait().expect("it ran") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What comes of a program that is to end by itself.
pub fn run_to_end(mut command: Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("it starts");
    let id = child.id().to_string();
    let (ended, end) = mpsc::channel();
    // Nobody listens any more when it has taken too long.
    std::thread::spawn(move || drop(ended.send(child.wait_with_output())));
    let Ok(output) = end.recv_timeout(Duration::from_secs(PATIENCE_S)) else {
        let killed = Command::new("kill").args(["-s", "KILL", &id]).status();
        panic!("it does not end: {command:?}, killed: {killed:?}");
    };
    output.expect("it ran")
}

/// What of the machine a server may have.
#[derive(Default)]
pub struct Share<'a> {
    pub memory: Option<&'a MemoryGroup>,
    /// The one CPU.
    pub cpu: Option<usize>,
}

impl Share<'_> {
    /// The program, started with that share.
    fn command(&self, program: &str) -> Command {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(group) = self.memory {
            words.extend(["sh", "-c", "echo $$ >\"$0\" && exec \"$@\""].map(OsString::from));
            words.push(group.members().into());
        }
        if let Some(cpu) = self.cpu {
            words.extend(["taskset".into(), "-c".into(), cpu.to_string().into()]);
        }
        words.push(program.into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }
}

/// A running gateway.
pub struct Server {
    pub process: Process,
    pub tls: SocketAddr,
    pub plain: SocketAddr,
    pub metrics: SocketAddr,
    pub certificate: PathBuf,
    folder: Folder,
}

/// Someone who has registered or logged in.
#[derive(Clone, Debug)]
pub struct Account {
    pub user_id: String,
    pub device_id: String,
    pub access_token: String,
    pub refresh_token: String,
}

impl Server {
    /// With its own storage, in a new folder.
    pub fn embedded() -> Self {
        Self::start(Folder::new(), EMBEDDED)
    }

    /// With this configuration beside ports and folder.
    pub fn start(folder: Folder, config: &str) -> Self {
        Self::launch(folder, config, "127.0.0.1:0", None, &Share::default())
    }

    /// As [`Self::start`], with no more of the machine than this.
    pub fn start_within(share: &Share<'_>, folder: Folder, config: &str) -> Self {
        Self::launch(folder, config, "127.0.0.1:0", None, share)
    }

    /// As [`Self::start`], with this port for TLS.
    pub fn start_at(folder: Folder, config: &str, port: u16) -> Self {
        Self::launch(folder, config, &format!("127.0.0.1:{port}"), None, &Share::default())
    }

    /// As [`Self::start`]; with everything that can be logged in a file of its own.
    pub fn logging_everything(folder: Folder, config: &str) -> (Self, PathBuf) {
        Self::logging_at(folder, config, ([127, 0, 0, 1], 0).into())
    }

    /// As [`Self::logging_everything`], with this address for TLS.
    pub fn logging_at(folder: Folder, config: &str, listen: SocketAddr) -> (Self, PathBuf) {
        let log = folder.path().join("log");
        (Self::launch(folder, config, &listen.to_string(), Some(&log), &Share::default()), log)
    }

    /// As [`Self::logging_everything`], with a failpoint armed.
    pub fn failing_at(failpoint: &str, folder: Folder, config: &str) -> (Self, PathBuf) {
        let log = folder.path().join("log");
        let mut command = Self::command(&folder, config, "127.0.0.1:0", Some(&log), &Share::default());
        command.env(tuning::failpoint::VARIABLE, failpoint);
        (Self::started(folder, command), log)
    }

    fn launch(folder: Folder, config: &str, listen: &str, log: Option<&Path>, share: &Share<'_>) -> Self {
        let command = Self::command(&folder, config, listen, log, share);
        Self::started(folder, command)
    }

    /// The program, with its configuration in this folder.
    fn command(
        folder: &Folder,
        config: &str,
        listen: &str,
        log: Option<&Path>,
        share: &Share<'_>,
    ) -> Command {
        let file = folder.path().join("gateway.toml");
        let is_set = config.contains("[auth]");
        let cheap_passwords =
            if is_set { "" } else { "[auth]\nargon2_memory_kib = 64\nargon2_iterations = 1\n" };
        let limits = if config.contains("[limits]") { "" } else { UNLIMITED };
        std::fs::write(&file, format!("{config}\n{cheap_passwords}{limits}")).expect("written");
        let mut command = share.command(env!("CARGO_BIN_EXE_ringline-gateway"));
        let anywhere = "127.0.0.1:0";
        command.env("RUST_LOG", if log.is_some() { "trace" } else { "error" });
        if let Some(log) = log {
            command.stderr(std::fs::File::create(log).expect("a file"));
        }
        command.arg("--config").arg(&file).arg("--data-dir").arg(folder.path().join("data"));
        command.args(["--listen", listen, "--listen-plain", anywhere, "--metrics", anywhere]);
        command
    }

    /// What this command starts, when it is ready.
    fn started(folder: Folder, command: Command) -> Self {
        let process = Process::start(command, "ringline-gateway ready:");
        let address = |before: &str, after: char| {
            let (_, rest) = process.ready.split_once(before).expect("named");
            rest.split(after).next().expect("named").parse().expect("an address")
        };
        let (plain, tls) = (address("chat page http://", '/'), address("native ", ' '));
        let metrics = address("metrics http://", '/');
        let certificate = folder.path().join("data/tls/cert.pem");
        let server = Self { process, tls, plain, metrics, certificate, folder };
        server.wait_until("ready", || server.get(server.plain, "/v1/health/ready").0 == 200);
        server
    }

    /// The folder of keys and storage.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Everything that it has, for the next one. Whoever still runs is killed.
    pub fn into_folder(self) -> Folder {
        self.folder
    }

    /// Asks until it is so.
    pub fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(PATIENCE_S);
        while !is_so() {
            assert!(Instant::now() < deadline, "never: {what}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Asks until it is this.
    pub fn wait_until_equal<T: Debug + PartialEq>(&self, what: &str, wanted: &T, mut ask: impl FnMut() -> T) {
        let deadline = Instant::now() + Duration::from_secs(PATIENCE_S);
        loop {
            let is = ask();
            if is == *wanted {
                return;
            }
            assert!(Instant::now() < deadline, "never: {what}: {is:?} and not {wanted:?}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    pub fn register(&self, username: &str) -> Account {
        let body = json!({
            "username": username, "display_name": username.to_uppercase(),
            "password": "correct horse battery", "device_name": "first",
        });
        let (status, answer) = self.post("/v1/register", &body);
        assert_eq!(status, 201, "{answer}");
        Account::new(&answer)
    }

    /// A second device.
    pub fn log_in(&self, username: &str) -> Account {
        let body =
            json!({ "username": username, "password": "correct horse battery", "device_name": "second" });
        let (status, answer) = self.post("/v1/login", &body);
        assert_eq!(status, 200, "{answer}");
        Account::new(&answer)
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}",
            body.len()
        );
        let (status, answer) =
            exchange(self.plain, &format!("{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n{body}"));
        (status, serde_json::from_str(&answer).unwrap_or(Value::String(answer)))
    }

    /// As [`Self::get`] of the public port, as the holder of an access token.
    pub fn get_as(&self, account: &Account, path: &str) -> (u16, Value) {
        let bearer = format!("Authorization: Bearer {}\r\n", account.access_token);
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{bearer}\r\n");
        let (status, answer) = exchange(self.plain, &head);
        (status, serde_json::from_str(&answer).unwrap_or(Value::String(answer)))
    }

    pub fn get(&self, address: SocketAddr, path: &str) -> (u16, String) {
        exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }

    /// The sum of a metric over all cores.
    pub fn metric(&self, name: &str) -> f64 {
        let (status, text) = self.get(self.metrics, "/metrics");
        assert_eq!(status, 200);
        let of_name = |line: &&str| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']);
        let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
        text.lines().filter(of_name).map(|line| value(line).expect("a number")).sum()
    }
}

impl Account {
    pub fn new(answer: &Value) -> Self {
        let text = |key: &str| answer[key].as_str().unwrap_or_else(|| panic!("{key} in {answer}")).to_owned();
        Self {
            user_id: text("user_id"),
            device_id: text("device_id"),
            access_token: text("access_token"),
            refresh_token: text("refresh_token"),
        }
    }
}

/// Sends a request and reads to the end; status and body.
pub fn exchange(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(PATIENCE_S))).expect("a socket");
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    (status, if chunked { unchunked(body) } else { body.to_owned() })
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        whole.push_str(&rest[..size]);
        body = &rest[(size + 2).min(rest.len())..];
    }
    whole
}
