//! One process of a peer: bound to CPUs, ready when asked for, killed with all it has started.

use super::{PeerError, said};
use crate::clock;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longest wait until a server can be used: Erlang and a database that recovers, on a busy machine.
const READY_WAIT: Duration = Duration::from_secs(180);
/// Longest wait until killed processes are gone.
const GONE_WAIT: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Lines of a log that an error shows.
const TAIL_LINES: usize = 20;

/// What is started.
pub struct Start {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    user: Option<&'static str>,
}

impl Start {
    /// A program without arguments.
    pub fn new(name: &'static str, program: &Path) -> Self {
        let (arguments, environment) = (Vec::new(), Vec::new());
        Self { name, program: program.to_owned(), arguments, environment, user: None }
    }

    /// Adds arguments.
    pub fn arguments<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.arguments.extend(arguments.map(str::to_owned));
        self
    }

    /// Adds a variable.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs as this user if we are root.
    pub fn without_root(mut self, user: &'static str) -> Self {
        self.user = Some(user);
        self
    }
}

/// Arguments of `setpriv` that make root another user; `None`: we are not root.
pub fn no_root(user: &str) -> Result<Option<[String; 3]>, PeerError> {
    if said(Command::new("id").arg("-u"))?.trim() != "0" {
        return Ok(None);
    }
    Ok(Some([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".into()]))
}

/// A started process and how to start it again. Killed when dropped.
pub struct Process {
    start: Start,
    cpus: String,
    folder: PathBuf,
    ready: Box<dyn Fn() -> bool + Send>,
    running: Option<Child>,
}

impl Process {
    /// Starts it and waits until `ready`. Its output goes to a file of `folder`.
    pub fn start(
        start: Start,
        cpus: &str,
        folder: &Path,
        ready: Box<dyn Fn() -> bool + Send>,
    ) -> Result<Self, PeerError> {
        let (cpus, folder) = (cpus.to_owned(), folder.to_owned());
        let mut process = Self { start, cpus, folder, ready, running: None };
        process.restart()?;
        Ok(process)
    }

    /// Starts it again after [`Self::kill`].
    pub fn restart(&mut self) -> Result<(), PeerError> {
        assert!(self.running.is_none(), "{} already runs", self.start.name);
        let log_path = self.log();
        let failed = |error| PeerError::io(log_path.to_string_lossy(), error);
        let log = File::options().create(true).append(true).open(&log_path).map_err(failed)?;
        // Each of these replaces itself with the next, so the child's id is the server's.
        let mut words: Vec<String> = Vec::new();
        if !self.cpus.is_empty() {
            words.extend(["taskset", "-c", &self.cpus].map(str::to_owned));
        }
        if let Some(prefix) = self.start.user.map(no_root).transpose()?.flatten() {
            words.push("setpriv".into());
            words.extend(prefix);
        }
        words.push(self.start.program.to_string_lossy().into_owned());
        words.extend(self.start.arguments.iter().cloned());
        let (first, rest) = words.split_first().expect("there is a program");
        let child = Command::new(first)
            .args(rest)
            .envs(self.start.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(|error| PeerError::io(first.clone(), error))?;
        self.running = Some(child);
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<(), PeerError> {
        let deadline = clock::now() + READY_WAIT;
        while !(self.ready)() {
            let alive = self.running.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
            if !alive || clock::now() >= deadline {
                let log = std::fs::read(self.log()).unwrap_or_default();
                let log = String::from_utf8_lossy(&log);
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default().join("\n");
                self.kill();
                return Err(PeerError::NotReady { name: self.start.name.into(), tail });
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.start.name))
    }

    /// Its id and those of all processes below it; empty: it does not run.
    pub fn family(&self) -> Vec<u32> {
        let Some(child) = &self.running else { return Vec::new() };
        let parents = parents();
        let mut family = vec![child.id()];
        let mut next = 0;
        while let Some(parent) = family.get(next).copied() {
            family.extend(parents.iter().filter(|(_, of)| **of == parent).map(|(id, _)| *id));
            next += 1;
        }
        family
    }

    /// SIGKILL to it and all below it; returns when they are gone. Nothing if it does not run.
    pub fn kill(&mut self) {
        let family = self.family();
        let Some(mut child) = self.running.take() else { return };
        let _ = child.kill();
        // Those below end by themselves when it is gone, but in their own time, which a crash does not give.
        let below: Vec<String> = family.iter().skip(1).map(u32::to_string).collect();
        if !below.is_empty() {
            let _ = Command::new("kill").arg("-KILL").args(&below).stderr(Stdio::null()).status();
        }
        let _ = child.wait();
        let deadline = clock::now() + GONE_WAIT;
        let is_there = |id: &String| {
            let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            state.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
        };
        while below.iter().any(is_there) && clock::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The parent of every process of the machine.
fn parents() -> BTreeMap<u32, u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let ids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    ids.filter_map(|id| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name before it may have spaces and brackets.
        let (_, rest) = stat.rsplit_once(')')?;
        Some((id, rest.split_whitespace().nth(1)?.parse().ok()?))
    })
    .collect()
}
