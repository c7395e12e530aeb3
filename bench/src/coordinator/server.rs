//! One server process: started, ready, killed, started again.

use super::ClusterError;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tuning::failpoint;

/// Longest wait for a server's ready line: a start on a busy machine prefills its log first.
const READY_WAIT: Duration = Duration::from_secs(60);

/// Path of one of the project's binaries: beside the running one, or in `RINGLINE_BIN_DIR`.
pub fn binary(name: &str) -> Result<PathBuf, ClusterError> {
    let mut folders = Vec::new();
    folders.extend(std::env::var_os("RINGLINE_BIN_DIR").map(PathBuf::from));
    if let Ok(own) = std::env::current_exe() {
        folders.extend(own.ancestors().skip(1).take(2).map(Path::to_owned));
    }
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| ClusterError::NoBinary(name.to_owned()))
}

/// A process that is not ready yet.
pub struct Starting(mpsc::Receiver<String>);

/// A process and how to start it again. Killed when dropped.
pub struct Server {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    /// Where it dies from its next start on.
    failpoint: Option<String>,
    running: Option<Child>,
}

impl Server {
    /// Starts `program` and waits until it prints a line with "ready:". Its log goes to a file of `folder`.
    /// Returns the server and the rest of that line.
    pub fn start(
        name: &str,
        program: PathBuf,
        arguments: Vec<String>,
        folder: &Path,
    ) -> Result<(Self, String), ClusterError> {
        let (mut server, starting) = Self::start_soon(name, program, arguments, folder)?;
        let ready = server.wait(&starting)?;
        Ok((server, ready))
    }

    /// As [`Self::start`], without waiting: for servers that are ready only together.
    pub fn start_soon(
        name: &str,
        program: PathBuf,
        arguments: Vec<String>,
        folder: &Path,
    ) -> Result<(Self, Starting), ClusterError> {
        let log = folder.join(format!("{name}.log"));
        let mut server =
            Self { name: name.to_owned(), program, arguments, log, failpoint: None, running: None };
        let starting = server.begin()?;
        Ok((server, starting))
    }

    /// Starts it again after [`Self::kill`]. Returns what its ready line says.
    pub fn restart(&mut self) -> Result<String, ClusterError> {
        let starting = self.begin()?;
        self.wait(&starting)
    }

    /// As [`Self::restart`], without waiting: for one that may end before it is ready.
    pub fn restart_soon(&mut self) -> Result<Starting, ClusterError> {
        self.begin()
    }

    /// Starts all of them again, and waits until all are ready.
    pub fn restart_all(servers: &mut [Self]) -> Result<(), ClusterError> {
        let starting = servers.iter_mut().map(Self::begin).collect::<Result<Vec<_>, _>>()?;
        servers.iter_mut().zip(&starting).try_for_each(|(server, starting)| server.wait(starting).map(drop))
    }

    fn begin(&mut self) -> Result<Starting, ClusterError> {
        assert!(self.running.is_none(), "{} already runs", self.name);
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            // Logs are read by people, and by fault runs, as plain text.
            .env("NO_COLOR", "1")
            .envs(self.failpoint.iter().map(|failpoint| (failpoint::VARIABLE, failpoint)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let stdout = child.stdout.take().expect("stdout is piped");
        self.running = Some(child);
        let (sender, receiver) = mpsc::channel();
        // Ends with the child: reads on, so that the child never blocks on a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some((_, ready)) = line.split_once("ready:") {
                    let _ = sender.send(ready.trim().to_owned());
                }
            }
        });
        Ok(Starting(receiver))
    }

    /// Waits for its ready line. Returns what that says.
    pub fn wait(&mut self, starting: &Starting) -> Result<String, ClusterError> {
        starting.0.recv_timeout(READY_WAIT).map_err(|_| {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
            self.kill();
            ClusterError::NotReady { name: self.name.clone(), tail }
        })
    }

    /// SIGKILL, and waits until it is gone. Nothing if it does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends it a signal. Nothing if it does not run.
    pub fn signal(&self, signal: Signal) -> Result<(), ClusterError> {
        if let Some(child) = &self.running {
            kill_process(Pid::from_child(child), signal).map_err(std::io::Error::from)?;
        }
        Ok(())
    }

    /// SIGTERM, and waits until it has ended by itself; whether it ended well.
    pub fn terminate(&mut self) -> Result<bool, ClusterError> {
        self.signal(Signal::TERM)?;
        match self.running.take() {
            Some(mut child) => Ok(child.wait()?.success()),
            None => Ok(true),
        }
    }

    /// Where it writes its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// As it was started.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same server, not running: keeps its place while it is started elsewhere.
    pub fn stand_in(&self) -> Self {
        Self {
            name: self.name.clone(),
            program: self.program.clone(),
            arguments: self.arguments.clone(),
            log: self.log.clone(),
            failpoint: self.failpoint.clone(),
            running: None,
        }
    }

    /// What is started from the next start on.
    pub fn set_command(&mut self, program: PathBuf, arguments: Vec<String>) {
        (self.program, self.arguments) = (program, arguments);
    }

    /// Where it dies, as [`tuning::failpoint`] says it, from the next start on; `None`: nowhere.
    pub fn set_failpoint(&mut self, failpoint: Option<String>) {
        self.failpoint = failpoint;
    }

    /// How it ended by itself; `None` while it runs. Once told, it can be started again.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, ClusterError> {
        let Some(child) = &mut self.running else { return Ok(None) };
        let status = child.try_wait()?;
        if status.is_some() {
            self.running = None;
        }
        Ok(status)
    }

    /// Process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Child::id)
    }

    /// Whether the process still runs by itself.
    pub fn is_running(&mut self) -> bool {
        self.running.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Overrides or adds a flag and its value for the next start.
    pub fn set_flag(&mut self, flag: &str, value: &str) {
        match self.arguments.iter().position(|argument| argument == flag) {
            Some(index) => value.clone_into(&mut self.arguments[index + 1]),
            None => self.arguments.extend([flag.to_owned(), value.to_owned()]),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
