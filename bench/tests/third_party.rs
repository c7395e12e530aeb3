//! Clients we did not write: the end-to-end scenario, refusals and handshakes by Python's `websockets`, protobuf classes
//! that `protoc` made of our `.proto` files, and OpenSSL on the native port. The scripts beside this file build
//! on `docs/protocol.md` and nothing else of ours; here the server is started for them, and again when they ask for it.

use bench::coordinator::{Cluster, Rates, Shape};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// Debian's Python: another one that stands before it does not see Debian's packages.
const PYTHON: &str = "/usr/bin/python3";
/// Longest silence of a script, which tells each of its steps: several of its own waits, which have deadlines of 30 s.
const SILENCE_MAX: Duration = Duration::from_secs(150);
/// How a script asks for a server that was killed and started again.
const RESTART: &str = "please restart the server";

/// A script that runs, ended with this.
struct Script {
    child: Child,
    stdin: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Script {
    fn start(name: &str, cluster: &Cluster, folder: &Path) -> Self {
        let classes = generate(folder);
        let mut child = Command::new(PYTHON)
            .arg(scripts().join(name))
            .env("PYTHONPATH", &classes)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("RINGLINE_PORT", cluster.targets[0].tls.port().to_string())
            .env("RINGLINE_CERTIFICATE", cluster.certificate())
            .env("RINGLINE_FOLDER", folder)
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
                Ok(line) if line == RESTART => {
                    cluster.gateways[0].kill();
                    cluster.gateways[0].restart().unwrap_or_else(|error| panic!("{said}{error}"));
                    // A script that is gone meanwhile has said why.
                    let _ = self.stdin.write_all(b"restarted\n");
                }
                Ok(line) => said.extend([&line, "\n"]),
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

fn passes(script: &str, name: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::start_with(Shape::Embedded, name, 2, Rates::Default)
        .unwrap_or_else(|error| panic!("{error}"));
    let (passed, said) = Script::start(script, &cluster, folder.path()).attend(&mut cluster);
    assert!(passed, "{script}:\n{said}");
    println!("{said}");
}

#[test]
fn the_scenario() {
    passes("scenario.py", "third-party-scenario");
}

#[test]
fn refusals() {
    passes("refusals.py", "third-party-refusals");
}

#[test]
fn handshakes() {
    passes("handshakes.py", "third-party-handshakes");
}
