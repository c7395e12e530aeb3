//! A file system of few megabytes, in a mount namespace of its own, and `ringline-storage` on it.

use crate::process::{PROGRAM, Setup};
use crate::right::{Right, refused};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Mounts, runs the program, says how it ended, and runs it again when it is told to. What the program complains of is
/// kept elsewhere.
const SCRIPT: &str = r#"
    mount -t tmpfs -o size=$3 tmpfs "$1" || { echo "cannot mount"; exit 1; }
    "$0" --config "$2" 2>"$4"
    echo "ended $?"
    read again
    exec "$0" --config "$2" 2>>"$4"
"#;

/// The file system, which lasts as long as this does.
pub struct SmallDisk {
    child: Child,
    input: ChildStdin,
    lines: BufReader<ChildStdout>,
    data: PathBuf,
}

impl SmallDisk {
    /// Starts the program on a new file system, and keeps what it complains of: [`Setup::complaint`]. `None`: this machine
    /// lets nobody mount one, and is not known to.
    pub fn start(setup: &Setup<'_>, size: &str) -> Option<(Self, SocketAddr)> {
        let (config, data) = (setup.write_config(), setup.data());
        fs::create_dir_all(&data).expect("it makes");
        for rights in ["-m", "-rm"] {
            let spawned = Command::new("unshare")
                // Whatever runs in there ends with this child.
                .args([rights, "-p", "--fork", "--kill-child", "sh", "-c", SCRIPT, PROGRAM])
                .args([&data, &config])
                .arg(size)
                .arg(setup.complaints_file())
                .env("RUST_LOG", "off")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn();
            let Ok(mut child) = spawned else { break };
            let input = child.stdin.take().expect("it is piped");
            let lines = BufReader::new(child.stdout.take().expect("it is piped"));
            let mut disk = Self { child, input, lines, data: data.clone() };
            let said = disk.line();
            if let Some(address) = ready_at(&said) {
                return Some((disk, address));
            }
            // It was mounted: whatever went wrong then is no refusal.
            assert!(!said.starts_with("ended"), "{said}: {}", setup.complaint());
        }
        refused(Right::Mounts, "nobody may mount a file system: only the limit on a file's size was tried");
        None
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it reads");
        line.trim_end().to_owned()
    }

    /// A file of the file system, as seen from outside its namespace.
    pub fn file(&self, name: &str) -> PathBuf {
        let inside = self.data.join(name);
        PathBuf::from(format!("/proc/{}/root{}", self.child.id(), inside.display()))
    }

    /// Waits until the program ends by itself; its exit code.
    pub fn ended(&mut self) -> String {
        self.line()
    }

    /// Starts the program again.
    pub fn start_again(&mut self) -> SocketAddr {
        self.input.write_all(b"again\n").expect("it listens");
        ready_at(&self.line()).expect("it starts")
    }
}

/// Where the program listens, if this line says that it is ready.
fn ready_at(line: &str) -> Option<SocketAddr> {
    let address = line.strip_prefix("ringline-storage ready: ")?;
    Some(address.parse().expect("an address"))
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
