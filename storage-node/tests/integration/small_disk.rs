//! A file system of few megabytes, in a mount namespace of its own, and `ringline-storage` on it.

use crate::process::{PROGRAM, Setup};
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
    /// lets nobody mount one.
    pub fn start(setup: &Setup<'_>, size: &str) -> Option<(Self, SocketAddr)> {
        let (config, data) = (setup.write_config(), setup.data());
        fs::create_dir_all(&data).expect("it makes");
        for rights in ["-m", "-rm"] {
            let mut child = Command::new("unshare")
                // Whatever runs in there ends with this child.
                .args([rights, "-p", "--fork", "--kill-child", "sh", "-c", SCRIPT, PROGRAM])
                .args([&data, &config])
                .arg(size)
                .arg(setup.complaints_file())
                .env("RUST_LOG", "off")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .ok()?;
            let input = child.stdin.take().expect("it is piped");
            let lines = BufReader::new(child.stdout.take().expect("it is piped"));
            let mut disk = Self { child, input, lines, data: data.clone() };
            if let Some(address) = disk.ready() {
                return Some((disk, address));
            }
        }
        None
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it reads");
        line.trim_end().to_owned()
    }

    fn ready(&mut self) -> Option<SocketAddr> {
        self.line()
            .strip_prefix("ringline-storage ready: ")
            .map(|address| address.parse().expect("an address"))
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
        self.ready().expect("it starts")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
