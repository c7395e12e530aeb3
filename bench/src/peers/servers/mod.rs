//! Starts a peer on this machine: its processes bound to given CPUs, its files in a folder of its own, certificates
//! made for it, waiting until it can be used. Only processes that were started here are ever ended, by their ids.
//!
//! The programs are Debian's (`bench/peers/install`), their settings the files in `bench/peers/`.

mod certificates;
mod nats;
mod postgres;
mod process;

use super::blocking::{self, BlockingClient, BlockingError};
use super::nats::jetstream::{JetStream, Listening};
use super::{Names, xmpp};
use crate::agent::protocol::{ProtocolEvent, Request, Token};
use crate::clock;
use crate::coordinator::control::messages::TargetAddress;
use crate::workload::population::{DeviceIndex, Population, RoomIndex};
use process::{Process, Start};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for an answer while a run is prepared.
const PREPARE_WAIT: Duration = Duration::from_secs(60);

/// Which server with which setting.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Setting {
    /// Mosquitto, saving every 60 s.
    Mosquitto,
    /// NATS without JetStream.
    Nats,
    /// JetStream, synced every 2 minutes.
    JetStream,
    /// JetStream, synced before each acknowledgement.
    JetStreamAlways,
    /// ejabberd with its archive in PostgreSQL.
    Ejabberd,
}

/// Why a peer could not be started or prepared.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// A program is not there.
    #[error("{0} is not installed; bench/peers/install does that")]
    NotInstalled(&'static str),
    /// A version that cannot do what is asked.
    #[error("{program} {version}: {problem}")]
    Version {
        /// Which.
        program: &'static str,
        /// As it names itself.
        version: String,
        /// What it lacks.
        problem: &'static str,
    },
    /// Files or processes.
    #[error("{what}: {error}")]
    Io {
        /// Which file or program.
        what: String,
        /// Why.
        error: io::Error,
    },
    /// A program failed.
    #[error("{what} failed:\n{output}")]
    Failed {
        /// Which.
        what: String,
        /// The end of what it said.
        output: String,
    },
    /// A server did not come up.
    #[error("{name} was not ready in time; the end of its log:\n{tail}")]
    NotReady {
        /// Which.
        name: String,
        /// The end of its log.
        tail: String,
    },
    /// Certificates could not be made.
    #[error("certificates: {0}")]
    Certificates(#[from] rcgen::Error),
    /// A run could not be prepared.
    #[error("preparing a run: {0}")]
    Prepare(#[from] BlockingError),
}

impl PeerError {
    fn io(what: impl Into<String>, error: io::Error) -> Self {
        Self::Io { what: what.into(), error }
    }
}

/// A running peer. Killed when dropped.
pub struct PeerServer {
    setting: Setting,
    targets: Vec<TargetAddress>,
    /// In the order of starting; the first ones serve the last.
    processes: Vec<Process>,
    database: Option<postgres::Database>,
}

/// Name and version of a setting's server, as a result names its subject.
pub fn version(setting: Setting) -> Result<String, PeerError> {
    match setting {
        Setting::Mosquitto => {
            let help = said(Command::new(mosquitto()?).arg("-h"))?;
            let version = help.lines().next().and_then(|line| line.rsplit(' ').next()).unwrap_or("unknown");
            Ok(format!("Mosquitto {version}"))
        }
        Setting::Nats | Setting::JetStream | Setting::JetStreamAlways => {
            Ok(format!("nats-server {}", nats::version(&nats::program()?)?))
        }
        Setting::Ejabberd => {
            let server = package_version("ejabberd").ok_or(PeerError::NotInstalled("ejabberd"))?;
            Ok(format!("ejabberd {server}, PostgreSQL {}", postgres::version()?))
        }
    }
}

impl PeerServer {
    /// Starts a server in `folder`, which must exist and be empty, bound to `cpus` as `taskset -c` takes them (empty:
    /// not bound). On return it takes connections.
    pub fn start(setting: Setting, cpus: &str, folder: &Path) -> Result<Self, PeerError> {
        let folder = folder.canonicalize().map_err(|error| PeerError::io(path_text(folder), error))?;
        let certificate = certificates::make(&folder)?;
        let port = free_port()?;
        let mut peer = Self {
            setting,
            targets: vec![TargetAddress {
                address: SocketAddr::from(([127, 0, 0, 1], port)).to_string(),
                tls_name: certificates::SERVER_NAME.into(),
                ca_pem: certificate.ca_pem.clone(),
            }],
            processes: Vec::new(),
            database: None,
        };
        let words = [
            ("@PORT@", port.to_string()),
            ("@CERT@", path_text(&certificate.cert)),
            ("@KEY@", path_text(&certificate.key)),
            ("@PEM@", path_text(&certificate.both)),
            ("@FOLDER@", path_text(&folder)),
        ];
        let start = match setting {
            Setting::Mosquitto => mosquitto_start(&folder, &words)?,
            Setting::Nats | Setting::JetStream | Setting::JetStreamAlways => {
                nats::start(setting, &folder, &words)?
            }
            Setting::Ejabberd => {
                let (database, process) = postgres::Database::start(cpus, &folder)?;
                peer.processes.push(process);
                let start = ejabberd_start(&folder, &words, &database)?;
                peer.database = Some(database);
                start
            }
        };
        // That a port is open says little: Erlang opens it before it can serve.
        let target = peer.targets.first().expect("a peer has one").clone();
        let (hello, wanted): (Vec<u8>, &[u8]) = match setting {
            Setting::Mosquitto => (Vec::new(), b""),
            Setting::Nats | Setting::JetStream | Setting::JetStreamAlways => (Vec::new(), b"INFO "),
            Setting::Ejabberd => (xmpp::stream_opening(), b"</stream:features>"),
        };
        let ready = Box::new(move || blocking::answers(&target, &hello, wanted));
        peer.processes.push(Process::start(start, cpus, &folder, ready)?);
        Ok(peer)
    }

    /// Where clients connect.
    pub fn targets(&self) -> &[TargetAddress] {
        &self.targets
    }

    /// All processes of the peer, those that its own processes have started too.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().flat_map(Process::family).collect()
    }

    /// SIGKILL to all of them; returns when they are gone.
    pub fn kill(&mut self) {
        for process in self.processes.iter_mut().rev() {
            process.kill();
        }
    }

    /// Starts them again after [`Self::kill`], with the files they left, at the same address.
    pub fn restart(&mut self) -> Result<(), PeerError> {
        self.processes.iter_mut().try_for_each(Process::restart)
    }

    /// Makes what a run's devices need before they connect: accounts, or the run's stream.
    pub fn prepare(&self, run_id: u64, population: &Arc<Population>) -> Result<(), PeerError> {
        match self.setting {
            Setting::Mosquitto | Setting::Nats => Ok(()),
            Setting::JetStream | Setting::JetStreamAlways => {
                let device = DeviceIndex(0);
                let names = Names { run_id, device, heartbeat_s: 0, population: Arc::clone(population) };
                let protocol = Box::new(JetStream::new(names, Listening::Live));
                let target = self.targets.first().expect("a peer has one");
                let mut client = BlockingClient::connect(target, protocol, clock::now(), PREPARE_WAIT)?;
                client.request(Token(0), &Request::Open(RoomIndex(0)))?;
                let done = |event: &ProtocolEvent| (*event == ProtocolEvent::Done(Token(0))).then_some(());
                client.wait_for(PREPARE_WAIT, done)?;
                Ok(())
            }
            Setting::Ejabberd => {
                let database = self.database.as_ref().expect("ejabberd has one");
                let name = xmpp::user_name(run_id, crate::workload::population::UserIndex(0));
                let prefix = name.strip_suffix('0').expect("a name ends with its number");
                let users = population.user_count();
                database.run(&[
                    "-c",
                    &format!(
                        "INSERT INTO users (username, password) SELECT '{prefix}' || i, '{}' \
                         FROM generate_series(0, {users} - 1) i ON CONFLICT DO NOTHING",
                        xmpp::PASSWORD
                    ),
                ])
            }
        }
    }

    /// Runs SQL in the database under the server, if it has one: for checks by hand.
    pub fn sql(&self, text: &str) -> Option<Result<(), PeerError>> {
        self.database.as_ref().map(|database| database.run(&["-c", text]))
    }
}

fn mosquitto() -> Result<PathBuf, PeerError> {
    program("mosquitto").ok_or(PeerError::NotInstalled("mosquitto"))
}

fn mosquitto_start(folder: &Path, words: &[(&str, String)]) -> Result<Start, PeerError> {
    let mut words = words.to_vec();
    words.push(("@USER@", said(Command::new("id").arg("-un"))?.trim().to_owned()));
    let config = configured(include_str!("../../../peers/mosquitto.conf"), &words);
    let path = written(folder, "mosquitto.conf", &config)?;
    Ok(Start::new("mosquitto", &mosquitto()?).arguments(["-c", &path]))
}

fn ejabberd_start(
    folder: &Path,
    words: &[(&str, String)],
    database: &postgres::Database,
) -> Result<Start, PeerError> {
    let erl = program("erl").ok_or(PeerError::NotInstalled("erl"))?;
    let libraries = ejabberd_libraries().ok_or(PeerError::NotInstalled("ejabberd"))?;
    let mut words = words.to_vec();
    words.push(("@SQL_PORT@", database.port.to_string()));
    words.push(("@SQL_PASSWORD@", database.password.clone()));
    let config = configured(include_str!("../../../peers/ejabberd.yml"), &words);
    let path = written(folder, "ejabberd.yml", &config)?;
    // As ejabberdctl does it, but without a node name: no daemon that outlives the server, no cookie. `+P` and `+Q`
    // bound processes and sockets: a connection takes one or two of each.
    let mnesia = format!("{:?}", path_text(&folder.join("mnesia")));
    Ok(Start::new("ejabberd", &erl)
        .arguments(["+K", "true", "+P", "1048576", "+Q", "1048576", "-noinput", "-mnesia", "dir", &mnesia])
        .arguments(["-s", "ejabberd"])
        .environment("EJABBERD_CONFIG_PATH", &path)
        .environment("EJABBERD_LOG_PATH", &path_text(&folder.join("ejabberd-own.log")))
        .environment("ERL_CRASH_DUMP", &path_text(&folder.join("erl_crash.dump")))
        .environment("ERL_LIBS", &path_text(&libraries))
        .environment("HOME", &path_text(folder)))
}

/// Folder that has `ejabberd-VERSION` in it.
fn ejabberd_libraries() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok).map(|entry| entry.path());
    folders.into_iter().find(|folder| {
        let mut entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        entries.any(|entry| entry.file_name().to_string_lossy().starts_with("ejabberd-"))
    })
}

/// A settings file with its words filled in.
fn configured(template: &str, words: &[(&str, String)]) -> String {
    words.iter().fold(template.to_owned(), |text, (word, value)| text.replace(word, value))
}

fn written(folder: &Path, name: &str, text: &str) -> Result<String, PeerError> {
    let path = folder.join(name);
    std::fs::write(&path, text).map_err(|error| PeerError::io(path_text(&path), error))?;
    Ok(path_text(&path))
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A program of `PATH`, or of where Debian puts servers.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// What a command prints; its failure is an error with what it said.
fn said(command: &mut Command) -> Result<String, PeerError> {
    let what = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| PeerError::io(&what, error))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // Mosquitto prints its help and fails.
    if output.status.success() || !output.stdout.is_empty() {
        return Ok(text(&output.stdout));
    }
    Err(PeerError::Failed { what, output: text(&output.stderr) })
}

fn package_version(package: &str) -> Option<String> {
    said(Command::new("dpkg-query").args(["-W", "-f", "${Version}", package])).ok()
}

/// A port that nobody listens on now.
fn free_port() -> Result<u16, PeerError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|error| PeerError::io("a free port", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_every_settings_file_is_filled_in() {
        let word = |name: &'static str| (name, "x".to_owned());
        let words = [
            "@PORT@",
            "@CERT@",
            "@KEY@",
            "@PEM@",
            "@FOLDER@",
            "@USER@",
            "@SYNC@",
            "@SQL_PORT@",
            "@SQL_PASSWORD@",
        ]
        .map(word);
        for template in [
            include_str!("../../../peers/mosquitto.conf"),
            include_str!("../../../peers/nats.conf"),
            include_str!("../../../peers/jetstream.conf"),
            include_str!("../../../peers/postgresql.conf"),
            include_str!("../../../peers/ejabberd.yml"),
        ] {
            let filled = configured(template, &words);
            let settings = filled.lines().filter(|line| !line.trim_start().starts_with('#'));
            for line in settings {
                assert!(!line.contains('@'), "{line}");
            }
        }
    }
}
