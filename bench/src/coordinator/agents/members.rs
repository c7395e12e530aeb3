//! Agents one by one: where they are, how they are reached, what is known of each.

use super::{AgentEvent, AgentsError, better};
use crate::coordinator::control::clocks::{ClockEstimate, ProcessClock, Sample};
use crate::coordinator::control::link::Link;
use crate::coordinator::control::messages::ToAgent;
use crate::coordinator::control::tls::{self, Streams};
use crate::coordinator::control::trust::{CoordinatorTrust, check_own_name};
use crate::report::results::HostFacts;
use crossbeam_channel::Sender;
use serde::Deserialize;
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Agents or relays of one coordinator: two threads and a socket each. More than that want relays.
pub const MEMBERS_MAX: usize = 256;
/// Longest wait for a TCP connection to an agent, in seconds.
const CONNECT_S_MAX: u64 = 5;

/// Where an agent is to be had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A process to start on this machine.
    Child(ChildAgent),
    /// A process that waits on a machine; an agent or a relay.
    Remote(RemoteAgent),
}

/// A process to start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChildAgent {
    /// Names it in errors: "agent-1".
    pub name: String,
    /// The harness itself.
    pub program: PathBuf,
    /// With which it is an agent that speaks over its pipes.
    pub arguments: Vec<String>,
}

/// A process on a machine, as in the list of agents.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteAgent {
    /// As the authority named it: its certificate must say so.
    pub name: String,
    /// Host and port.
    pub address: String,
}

/// Bounds of agents on this machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LocalAgents {
    /// How many; at least 1.
    pub agents: usize,
    /// CPUs they are bound to, in turn; none: not bound.
    pub cpus: Vec<usize>,
    /// Where load may go.
    pub targets: Vec<String>,
    /// Addresses to bind connections to.
    pub sources: Vec<IpAddr>,
    /// Most connections of each; `None`: as many as it may open files.
    pub connections_max: Option<u64>,
}

/// Agents as children of this process; `program` is the harness itself.
pub fn local_agents(program: &Path, local: &LocalAgents) -> Vec<Place> {
    let child = |index: usize| {
        let mut arguments = vec!["agent".to_owned(), "--child".to_owned()];
        let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        local.targets.iter().for_each(|target| flag("--target", target.clone()));
        local.sources.iter().for_each(|source| flag("--source", source.to_string()));
        if let Some(connections_max) = local.connections_max {
            flag("--connections-max", connections_max.to_string());
        }
        if let Some(cpu) = local.cpus.get(index % local.cpus.len().max(1)) {
            flag("--cpu", cpu.to_string());
        }
        Place::Child(ChildAgent {
            name: format!("agent-{}", index + 1),
            program: program.to_owned(),
            arguments,
        })
    };
    (0..local.agents.max(1)).map(child).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentsFile {
    agent: Vec<RemoteAgent>,
}

/// Reads a list of agents or relays: `[[agent]]` with `name` and `address`.
pub fn read_agents_file(path: &Path) -> Result<Vec<Place>, AgentsError> {
    let wrong = |detail: String| AgentsError::File { path: path.to_owned(), detail };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let file: AgentsFile = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if file.agent.is_empty() || file.agent.len() > MEMBERS_MAX {
        return Err(wrong(format!("{} agents, from 1 to {MEMBERS_MAX}", file.agent.len())));
    }
    for (index, agent) in file.agent.iter().enumerate() {
        if file.agent[..index].iter().any(|other| other.name == agent.name) {
            return Err(wrong(format!("{} is listed twice", agent.name)));
        }
    }
    Ok(file.agent.into_iter().map(Place::Remote).collect())
}

impl Place {
    /// Names it in errors.
    pub fn name(&self) -> &str {
        match self {
            Self::Child(child) => &child.name,
            Self::Remote(remote) => &remote.name,
        }
    }
}

/// One agent or relay.
pub(super) struct Member {
    name: String,
    link: Link<ToAgent>,
    child: Option<StartedChild>,
    /// What it said of itself; no agents until then.
    pub hosts: Vec<HostFacts>,
    pub agents: u32,
    pub connections_max: u64,
    /// Place of its first agent among those here.
    pub first: u32,
    /// Whether it has not yet done what all are waited for.
    pub waited_for: bool,
    /// Its clock, and how far those below it may be off.
    pub estimate: Option<ClockEstimate>,
    pub below_us: u64,
    pub samples: Vec<Sample>,
    probe: Option<(u32, u64)>,
    probes: u32,
}

/// Ended when dropped.
struct StartedChild(Child);

impl Drop for StartedChild {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Member {
    /// Starts or reaches it. What it says comes as events of this index.
    pub fn reach(
        place: &Place,
        index: usize,
        trust: Option<&CoordinatorTrust>,
        clock: ProcessClock,
        events: Sender<AgentEvent>,
    ) -> Result<Self, AgentsError> {
        let name = place.name().to_owned();
        let unreachable = |detail: String| AgentsError::Unreachable { agent: name.clone(), detail };
        let (streams, child) = match place {
            Place::Child(child) => start(child).map_err(unreachable)?,
            Place::Remote(remote) => {
                let trust = trust.ok_or_else(|| unreachable("no identity to reach it with".to_owned()))?;
                (connect(remote, trust).map_err(unreachable)?, None)
            }
        };
        let deliver = move |event| events.send(AgentEvent { member: index, event }).is_ok();
        let link =
            Link::start(&name, streams, clock, deliver).map_err(|error| unreachable(error.to_string()))?;
        Ok(Self {
            name,
            link,
            child,
            hosts: Vec::new(),
            agents: 0,
            connections_max: 0,
            first: 0,
            waited_for: true,
            estimate: None,
            below_us: 0,
            samples: Vec::new(),
            probe: None,
            probes: 0,
        })
    }

    pub fn child_pid(&self) -> Option<u32> {
        self.child.as_ref().map(|child| child.0.id())
    }

    pub fn send(&self, message: ToAgent) -> Result<(), AgentsError> {
        self.link.send(message).map_err(|error| (self.name.as_str(), error).into())
    }

    /// Lets it go.
    pub fn finish(&self) -> Result<(), AgentsError> {
        self.send(ToAgent::Finish)?;
        self.link.close();
        Ok(())
    }

    pub fn check_heard(&self) -> Result<(), AgentsError> {
        self.link.check_heard().map_err(|error| (self.name.as_str(), error).into())
    }

    pub fn probe(&mut self, now_us: u64) -> Result<(), AgentsError> {
        self.probes = self.probes.wrapping_add(1);
        self.probe = Some((self.probes, now_us));
        self.send(ToAgent::Probe { number: self.probes })
    }

    /// When the probe of this number was sent, if it is the one that waits for its answer.
    pub fn probe_answered(&mut self, number: u32) -> Option<u64> {
        let (waiting, sent_us) = self.probe?;
        (waiting == number).then(|| {
            self.probe = None;
            sent_us
        })
    }

    pub fn refine(&mut self, sample: Sample) {
        self.estimate = better(self.estimate, sample);
    }

    pub fn lost(&self, detail: String) -> AgentsError {
        AgentsError::Lost { agent: self.name.clone(), detail }
    }

    pub fn failed(&self, detail: String) -> AgentsError {
        AgentsError::Failed { agent: self.name.clone(), detail }
    }

    pub fn broke(&self, detail: impl Into<String>) -> AgentsError {
        AgentsError::Broke { agent: self.name.clone(), detail: detail.into() }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.link.abort();
    }
}

fn start(child: &ChildAgent) -> Result<(Streams, Option<StartedChild>), String> {
    let mut started = Command::new(&child.program)
        .args(&child.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", child.program.display()))?;
    let (stdin, stdout) = (started.stdin.take(), started.stdout.take());
    let (writer, reader) = (stdin.expect("stdin is piped"), stdout.expect("stdout is piped"));
    let streams = Streams { reader: Box::new(reader), writer: Box::new(writer), socket: None };
    Ok((streams, Some(StartedChild(started))))
}

fn connect(remote: &RemoteAgent, trust: &CoordinatorTrust) -> Result<Streams, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", remote.address);
    let addresses = remote.address.to_socket_addrs().map_err(|error| at(&error))?;
    let mut failed = "no address".to_owned();
    for address in addresses {
        let socket = match TcpStream::connect_timeout(&address, Duration::from_secs(CONNECT_S_MAX)) {
            Ok(socket) => socket,
            Err(error) => {
                failed = error.to_string();
                continue;
            }
        };
        socket.set_nodelay(true).map_err(|error| at(&error))?;
        let session = trust.session().map_err(|error| at(&error))?;
        let accepted = tls::connect(&socket, session).map_err(|error| at(&error))?;
        check_own_name(&accepted.certificate, &remote.name).map_err(|error| at(&error))?;
        return Ok(accepted.streams);
    }
    Err(at(&failed))
}
