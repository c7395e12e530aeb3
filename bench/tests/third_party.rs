//! Clients we did not write: the end-to-end scenario, refusals and handshakes by Python's `websockets`, protobuf classes
//! that `protoc` made of our `.proto` files, and OpenSSL on the native port. The scripts beside this file build
//! on `docs/protocol.md` and nothing else of ours; here servers are started for them, in one process or in several, and
//! killed and started again when they ask for it.

use bench::coordinator::{Cluster, ClusterError, Rates, Server, Shape, Tier};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// Debian's Python: another one that stands before it does not see Debian's packages.
const PYTHON: &str = "/usr/bin/python3";
/// Longest silence of a script, which tells each of its steps: several of its own waits, which have deadlines of 30 s.
const SILENCE_MAX: Duration = Duration::from_secs(150);

/// What a script asks for.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// All servers of a kind are gone at once.
    Kill(Tier),
    /// They are started again, on the same data.
    Start(Tier),
}

impl Order {
    /// `None`: the script only tells what it does.
    fn read(line: &str) -> Option<Self> {
        match line {
            "please kill the gateway" => Some(Self::Kill(Tier::Gateway)),
            "please start the gateway" => Some(Self::Start(Tier::Gateway)),
            "please kill the storage" => Some(Self::Kill(Tier::Storage)),
            "please start the storage" => Some(Self::Start(Tier::Storage)),
            _ => None,
        }
    }

    fn carry_out(self, cluster: &mut Cluster) -> Result<(), ClusterError> {
        match self {
            Self::Kill(tier) => {
                cluster.servers(tier).iter_mut().for_each(Server::kill);
                Ok(())
            }
            Self::Start(tier) => Server::restart_all(cluster.servers(tier)),
        }
    }
}

/// The kinds of servers that a script may ask for.
fn tiers(shape: Shape) -> &'static str {
    match shape {
        Shape::Embedded => "gateway",
        Shape::Split | Shape::Replicated => "gateway storage",
    }
}

/// A script that runs, ended with this.
struct Script {
    child: Child,
    stdin: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Script {
    fn start(name: &str, shape: Shape, cluster: &Cluster, folder: &Path) -> Self {
        let classes = generate(folder);
        let mut child = Command::new(PYTHON)
            .arg(scripts().join(name))
            .env("PYTHONPATH", &classes)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("RINGLINE_PORT", cluster.targets[0].tls.port().to_string())
            .env("RINGLINE_CERTIFICATE", cluster.certificate())
            .env("RINGLINE_FOLDER", folder)
            .env("RINGLINE_SERVERS", tiers(shape))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{PYTHON}: {error} (.ci/setup test installs it)"));
        let (sender, lines) = mpsc::channel();
        forward(child.stdout.take().expect("piped"), sender.clone());
        forward(child.stderr.take().expect("piped"), sender);
        let stdin = child.stdin.take().expect("piped");
        Self { child, stdin, lines }
    }

    /// Until it has ended: whether it passed, and all that it said. Does what it asks for meanwhile.
    fn attend(&mut self, cluster: &mut Cluster) -> (bool, String) {
        let mut said = String::new();
        loop {
            match self.lines.recv_timeout(SILENCE_MAX) {
                Ok(line) => {
                    said.extend([line.as_str(), "\n"]);
                    if let Some(order) = Order::read(&line) {
                        order.carry_out(cluster).unwrap_or_else(|error| panic!("{said}{error}"));
                        // A script that is gone meanwhile has said why.
                        let _ = self.stdin.write_all(b"done\n");
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    return (false, format!("{said}nothing more for {SILENCE_MAX:?}\n"));
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        (self.child.wait().is_ok_and(|status| status.success()), said)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends each line on, until the pipe ends.
fn forward(pipe: impl Read + Send + 'static, sender: mpsc::Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
}

fn bench() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where this checkout is").into()
}

fn scripts() -> PathBuf {
    bench().join("tests/third_party")
}

/// Python's classes of the client protocol, by `protoc`, in a folder of their own.
fn generate(folder: &Path) -> PathBuf {
    let source = bench().join("../wire-protocol/proto");
    let files = std::fs::read_dir(&source).expect("the contract").map(|entry| entry.expect("a file").path());
    let classes = folder.join("classes");
    std::fs::create_dir(&classes).expect("a folder of our own");
    let made = Command::new("protoc")
        .arg("--proto_path")
        .arg(&source)
        .arg("--python_out")
        .arg(&classes)
        .args(files.filter(|path| path.extension().is_some_and(|extension| extension == "proto")))
        .output()
        .unwrap_or_else(|error| panic!("protoc: {error} (.ci/setup test installs it)"));
    assert!(made.status.success(), "protoc: {}", String::from_utf8_lossy(&made.stderr));
    classes
}

fn passes(script: &str, shape: Shape, name: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster =
        Cluster::start_with(shape, name, 2, Rates::Default).unwrap_or_else(|error| panic!("{error}"));
    let (passed, said) = Script::start(script, shape, &cluster, folder.path()).attend(&mut cluster);
    assert!(passed, "{script}, {shape:?}:\n{said}");
    println!("{said}");
}

#[test]
fn the_scenario() {
    passes("scenario.py", Shape::Embedded, "third-party-scenario");
}

#[test]
fn the_scenario_with_storage_apart() {
    passes("scenario.py", Shape::Split, "third-party-scenario-split");
}

#[test]
fn refusals() {
    passes("refusals.py", Shape::Embedded, "third-party-refusals");
}

#[test]
fn refusals_with_storage_apart() {
    passes("refusals.py", Shape::Split, "third-party-refusals-split");
}

/// TLS ends at the gateway, whatever is behind it: one shape is enough.
#[test]
fn handshakes() {
    passes("handshakes.py", Shape::Embedded, "third-party-handshakes");
}
