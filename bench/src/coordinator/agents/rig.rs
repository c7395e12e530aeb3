//! Agents with fake loads, relays and identities on loopback, for tests.

use super::gathering::sums::MERGING;
use super::*;
use crate::agent::service::fake::{Asked, FakeLoad};
use crate::agent::service::{Agent, AgentOptions, Door};
use crate::coordinator::control::authority::{Authority, Role};
use crate::coordinator::control::gate::Gate;
use crate::coordinator::control::messages::{Subject, TargetAddress};
use crate::coordinator::control::tls::{self, Streams};
use crate::coordinator::control::transport::{MessageReader, MessageWriter};
use crate::coordinator::control::trust::{CoordinatorTrust, TrustFiles, agent_config};
use crate::coordinator::relay::Relay;
use crate::workload::plan::Plan;
use crossbeam_channel::{Sender, unbounded};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// The one target that agents of a rig may send to; nothing listens there, and fakes send nothing.
pub const TARGET: &str = "127.0.0.1:1";
/// Longer than anything awaited takes on a busy machine, shorter than the silence that is allowed.
pub const SOON: Duration = Duration::from_secs(8);

/// Identities, and what was started with them.
pub struct Rig {
    pub authority: Authority,
    pub coordinator: TrustFiles,
    asked_of: Sender<Asked>,
    /// What all loads were asked for.
    pub asked: Receiver<Asked>,
    /// Held for its files.
    _folder: TempDir,
}

/// A server on loopback.
pub struct Serving {
    pub place: Place,
    pub address: SocketAddr,
    pub gate: Arc<Gate>,
}

impl Rig {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut authority = Authority::open(folder.path(), Duration::from_secs(3_600)).expect("an authority");
        let coordinator = authority.add(Role::Coordinator, "coordinator").expect("an identity");
        let (asked_of, asked) = unbounded();
        Self { authority, coordinator, asked_of, asked, _folder: folder }
    }

    pub fn trust(&self) -> CoordinatorTrust {
        CoordinatorTrust::read(&self.coordinator).expect("ours")
    }

    /// An agent that may hold 8 connections to [`TARGET`].
    pub fn agent(&mut self, name: &str, clock: ProcessClock) -> Serving {
        let files = self.authority.add(Role::Agent, name).expect("an identity");
        self.agent_with(name, files, |agent| agent.clock = clock)
    }

    pub fn agent_with(&self, name: &str, files: TrustFiles, change: impl FnOnce(&mut Agent)) -> Serving {
        let mut agent = fake_agent(Door::Listen { address: "127.0.0.1:0".into(), files: files.clone() });
        agent.host.role = name.to_owned();
        change(&mut agent);
        let (serving, gate) = Self::listen(name, &files);
        let asked = self.asked_of.clone();
        std::thread::spawn(move || {
            agent.serve_all(&gate, &mut |setup, clock| FakeLoad::new(setup, clock, asked.clone()))
        });
        serving
    }

    pub fn relay(&mut self, name: &str, clock: ProcessClock, below: &[&Serving]) -> Serving {
        let files = self.authority.add(Role::Agent, name).expect("an identity");
        let down = self.authority.add(Role::Coordinator, &format!("{name}-down")).expect("an identity");
        let places = below.iter().map(|serving| serving.place.clone()).collect();
        let trust = Some(CoordinatorTrust::read(&down).expect("ours"));
        let (serving, gate) = Self::listen(name, &files);
        let relay = Relay { places, trust, clock, merging: MERGING };
        std::thread::spawn(move || relay.serve_all(&gate));
        serving
    }

    fn listen(name: &str, files: &TrustFiles) -> (Serving, Arc<Gate>) {
        let gate = Gate::open("127.0.0.1:0", agent_config(files).expect("ours")).expect("loopback");
        let (address, gate) = (gate.address(), Arc::new(gate));
        let place = Place::Remote(RemoteAgent { name: name.to_owned(), address: address.to_string() });
        (Serving { place, address, gate: Arc::clone(&gate) }, gate)
    }

    pub fn gather(&self, servings: &[&Serving]) -> Result<Agents, AgentsError> {
        let places: Vec<Place> = servings.iter().map(|serving| serving.place.clone()).collect();
        Agents::gather(&places, Some(&self.trust()), ProcessClock::start(), MERGING)
    }

    /// Waits until a load was asked for this.
    pub fn await_asked(&self, wanted: impl Fn(&Asked) -> bool) -> Asked {
        loop {
            let asked = self.asked.recv_timeout(SOON).expect("asked for soon");
            if wanted(&asked) {
                return asked;
            }
        }
    }
}

fn fake_agent(door: Door) -> Agent {
    let targets = vec![TARGET.to_owned()];
    let options = AgentOptions { door, targets, sources: Vec::new(), connections_max: 8, cpu: None };
    Agent::new(options, HostFacts::default())
}

/// A process of its own that is an agent with a fake load: this test binary once more, as [`child_process`].
pub fn child_place(name: &str) -> Place {
    let own = std::env::current_exe().expect("a path");
    // The test runner prints to its stdout: the agent's messages go to descriptor 3 instead.
    let script = format!(
        "{CHILD_VARIABLE}=1 exec \"$0\" --exact coordinator::agents::rig::child_process --nocapture 3>&1 1>&2"
    );
    let arguments = vec!["-c".to_owned(), script, own.to_str().expect("UTF-8").to_owned()];
    Place::Child(ChildAgent { name: name.to_owned(), program: "/bin/sh".into(), arguments })
}

const CHILD_VARIABLE: &str = "RINGLINE_BENCH_TEST_CHILD";

/// The child's side of [`child_place`]; in an ordinary run of the tests there is nothing for it to do.
#[test]
fn child_process() {
    if std::env::var_os(CHILD_VARIABLE).is_none() {
        return;
    }
    let out = std::fs::File::options().write(true).open("/proc/self/fd/3").expect("the parent's pipe");
    let streams = Streams { reader: Box::new(std::io::stdin()), writer: Box::new(out), socket: None };
    let (asked, _) = unbounded();
    let served = fake_agent(Door::Child)
        .serve_one("parent", streams, None, &mut |setup, clock| FakeLoad::new(setup, clock, asked.clone()));
    served.expect("threads");
}

/// Sends a signal to a child of this process.
pub fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status().expect("kill runs");
    assert!(sent.success());
}

/// A plan with one phase; fakes know some names.
pub fn plan(name: &str, users: u32, seconds: f64) -> Plan {
    let text = format!(
        "name = \"{name}\"\nabout = \"for tests\"\n[population]\nusers = {users}\n\
         [[phase]]\nname = \"only\"\nseconds = {seconds:?}\n"
    );
    Plan::parse(&text, Path::new("test.toml")).expect("a plan")
}

pub fn target(address: &str) -> TargetAddress {
    TargetAddress { address: address.to_owned(), tls_name: String::new(), ca_pem: String::new() }
}

pub fn subject() -> Subject {
    Subject::Peer { name: "none".to_owned(), run_id: 1 }
}

pub fn prepare_message(plan: &Plan) -> ToAgent {
    let (targets, subject) = (vec![target(TARGET)], subject());
    ToAgent::Prepare(Box::new(Prepare { plan: plan.clone(), agent_first: 0, agents: 1, targets, subject }))
}

/// A coordinator that can do everything wrong.
pub struct RawCoordinator {
    pub reader: MessageReader<Box<dyn Read + Send>>,
    pub writer: MessageWriter<Box<dyn Write + Send>>,
}

impl RawCoordinator {
    pub fn connect(address: SocketAddr, session: rustls::ClientConnection) -> Self {
        let socket = TcpStream::connect(address).expect("it listens");
        let Streams { reader, writer, .. } =
            tls::connect(&socket, session).expect("its own half is done").streams;
        Self { reader: MessageReader::new("agent", reader), writer: MessageWriter::new("agent", writer) }
    }

    pub fn receive(&mut self) -> Result<Option<FromAgent>, TransportError> {
        self.reader.receive()
    }

    /// Sends the message, and returns the answer.
    pub fn ask(&mut self, message: &ToAgent) -> FromAgent {
        self.writer.send(message).expect("it reads");
        self.receive().expect("it answers").expect("before it ends")
    }
}

/// Looks on, and does nothing.
#[derive(Default)]
pub struct Onlooker {
    pub seconds: Vec<Progress>,
    pub end_at_once: bool,
}

impl PhaseWatch for Onlooker {
    fn tick(&mut self, elapsed_us: i64) -> Steering {
        if self.end_at_once && elapsed_us > 0 { Steering::EndPhase } else { Steering::GoOn }
    }

    fn second(&mut self, second: &Progress) {
        self.seconds.push(second.clone());
    }
}
