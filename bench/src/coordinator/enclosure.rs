//! A process in namespaces of its own: mounts, network and process ids. Whatever it makes in there (namespaces of
//! servers, mounts, processes) is gone when it ends, however it ends: the kernel clears up, and nothing stale can stay.
//!
//! The outer process only starts the inner one and passes on how it ended. The inner one notices by its standard input
//! that the outer one is gone (Ctrl-C, kill -9), removes its folders, and ends.

use super::network::{NetworkError, run};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Set in the inner process, to the outer one's id: folders bear it, since the inner one's is always the same.
const INSIDE_VARIABLE: &str = "RINGLINE_FAULTS_OF";
/// What folders of such runs begin with; a process id follows.
const FOLDER_PREFIX: &str = "ringline-faults-";
/// Ends the process when namespaces are not permitted here: nothing was tried, and nothing is wrong.
pub const NOT_PERMITTED: u8 = 3;

/// A tool that is needed, and the Debian package that has it.
const TOOLS: [(&str, &str); 5] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
];

/// Which side this process is on.
pub enum Side {
    /// Outside: the inner process has ended, and this is how.
    Outer(ExitCode),
    /// Inside.
    Inner(Enclosure),
}

/// The inside: what to clear up when it ends.
pub struct Enclosure {
    folder: PathBuf,
}

impl Enclosure {
    /// Starts this very command once more, inside; there, it returns at once.
    pub fn enter() -> Result<Side, NetworkError> {
        match std::env::var(INSIDE_VARIABLE) {
            Ok(outer) => Self::inside(&outer).map(Side::Inner),
            Err(_) => outside().map(Side::Outer),
        }
    }

    fn inside(outer: &str) -> Result<Self, NetworkError> {
        let folder = std::env::temp_dir().join(format!("{FOLDER_PREFIX}{outer}"));
        std::fs::create_dir_all(&folder)?;
        let watched = folder.clone();
        std::thread::spawn(move || {
            // Nobody writes: this returns when the outer process is gone.
            let _ = std::io::stdin().read(&mut [0]);
            clear(&watched);
            // Every process in here ends with the first one.
            std::process::exit(1);
        });
        Ok(Self { folder })
    }

    /// A folder of this run alone.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Enclosure {
    fn drop(&mut self) {
        clear(&self.folder);
    }
}

/// Removes a run's folder, with the file systems that are mounted in it.
fn clear(folder: &Path) {
    if std::env::var_os("RINGLINE_KEEP").is_some() {
        return;
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for place in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(place).starts_with(folder) {
            // Servers that still run keep it until they end, which is soon.
            let _ = run("umount", &["--lazy", place]);
        }
    }
    let _ = std::fs::remove_dir_all(folder);
}

fn outside() -> Result<ExitCode, NetworkError> {
    for (tool, package) in TOOLS {
        if let Err(error) =
            Command::new(tool).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status()
        {
            let found = error.kind() != ErrorKind::NotFound;
            return Err(if found { error.into() } else { NetworkError::NoTool { tool, package } });
        }
    }
    let namespaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
    // Some kernels give namespaces, and nothing that joins them.
    let joined = ["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"];
    let tried = Command::new("unshare").args(namespaces).args(joined).output()?;
    if !tried.status.success() {
        let said = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
        return Err(NetworkError::NotPermitted(said));
    }
    remove_stale(&std::env::temp_dir())?;
    let mut inner = Command::new("unshare")
        .args(namespaces)
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE_VARIABLE, std::process::id().to_string())
        .stdin(Stdio::piped())
        .spawn()?;
    // `wait` would close it, and with it end the run.
    let held = inner.stdin.take();
    let status = inner.wait()?;
    drop(held);
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// Folders of runs that were ended before they could clear up: their name has the id of a process that is no more.
fn remove_stale(parent: &Path) -> Result<(), NetworkError> {
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(FOLDER_PREFIX)).map(str::parse::<u32>);
        if let Some(Ok(owner)) = owner
            && !Path::new(&format!("/proc/{owner}")).exists()
        {
            eprintln!("faults: removing {}, left by a run that was killed", entry.path().display());
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_dead_go_and_those_of_the_living_stay() {
        let parent = tempfile::tempdir().expect("a folder");
        // Larger than any process id that Linux gives (2^22).
        let (dead, alive) = (1 << 30, std::process::id());
        let place = |owner: u32| parent.path().join(format!("{FOLDER_PREFIX}{owner}"));
        let foreign = parent.path().join(format!("{FOLDER_PREFIX}notes"));
        for folder in [place(dead), place(alive), foreign.clone()] {
            std::fs::create_dir(folder).expect("it makes");
        }
        remove_stale(parent.path()).expect("it looks");
        assert!(!place(dead).exists() && place(alive).exists() && foreign.exists());
    }
}
