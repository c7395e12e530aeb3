//! Tries a peer by hand: `cargo run -p bench --example peer_check -- mosquitto` (or another subject, or `all`), then
//! the CPUs to bind it to, if any.
//!
//! Starts the server (`bench/peers/install` first), lets two devices exchange 1,000 messages and four a group's, sends
//! to one that is away, kills the server with SIGKILL, and counts what is missing. Its times are those of one
//! connection that waits: no measurement.

use bench::agent::protocol::{DeviceMemory, ProtocolEvent, Request, Token};
use bench::clock;
use bench::coordinator::control::messages::TargetAddress;
use bench::peers::blocking::{BlockingClient, BlockingError};
use bench::peers::servers::{self, PeerServer};
use bench::peers::{Names, Subject, protocol, subject, subjects};
use bench::workload::plan::{self, ActionName};
use bench::workload::population::{DeviceIndex, Population, RoomIndex};
use bench::workload::stamp::Stamp;
use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait for anything.
const WAIT: Duration = Duration::from_secs(60);
/// Messages of an exchange.
const MESSAGES: u64 = 1000;
/// Unanswered at a time.
const WINDOW: u64 = 32;
/// Messages into the group.
const GROUP_MESSAGES: u64 = 100;
/// Bytes of a body.
const BODY_BYTES: usize = 200;
/// The room of the first two devices, and the group of all four.
const DIRECT: RoomIndex = RoomIndex(0);
const GROUP: RoomIndex = RoomIndex(2);
/// Makes names; any number does.
const RUN_ID: u64 = 0x5eed;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let chosen: Vec<&Subject> =
        if wanted == "all" { subjects().iter().collect() } else { subject(&wanted).into_iter().collect() };
    if chosen.is_empty() {
        let names: Vec<&str> = subjects().iter().map(|subject| subject.name).collect();
        return Err(format!("peer_check all|{}", names.join("|")).into());
    }
    for subject in chosen {
        let folder = std::env::temp_dir().join(format!("peer-check-{}-{}", std::process::id(), subject.name));
        std::fs::create_dir(&folder)?;
        let cpus = std::env::args().nth(2).unwrap_or_default();
        let outcome = Check::start(subject, &cpus, &folder).and_then(Check::run);
        std::fs::remove_dir_all(&folder)?;
        outcome.map_err(|error| format!("{}: {error}", subject.name))?;
    }
    Ok(())
}

struct Check {
    subject: &'static Subject,
    server: PeerServer,
    population: Arc<Population>,
    start: Instant,
    /// Of device 0: its messages are numbered from 1.
    sent: u64,
}

impl Check {
    fn start(subject: &'static Subject, cpus: &str, folder: &Path) -> Outcome<Self> {
        println!("{}: {}", subject.name, servers::version(subject.setting)?);
        println!("  acknowledged means: {}", subject.durability);
        let shape =
            plan::Population { users: 4, devices: 1, cell_users: 4, directs: 1, groups: 1, group_members: 4 };
        let population = Arc::new(Population::new(&shape));
        let start = clock::now();
        let server = PeerServer::start(subject.setting, cpus, folder)?;
        println!("  started in {:.1?}, {} processes", start.elapsed(), server.pids().len());
        for pid in server.pids().iter().filter(|_| !cpus.is_empty()) {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let bound = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            if bound.is_some_and(|bound| bound.trim() != cpus) {
                return Err(format!("process {pid} is bound to {bound:?}, not {cpus}").into());
            }
        }
        server.prepare(RUN_ID, &population)?;
        Ok(Self { subject, server, population, start, sent: 0 })
    }

    fn run(mut self) -> Outcome<()> {
        let mut alice = self.connect(0, &DeviceMemory::default())?;
        let mut bob = self.connect(1, &DeviceMemory::default())?;
        let begun = clock::now();
        let (accepted, received) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| read(&mut bob, DIRECT, 1, MESSAGES));
            let accepted = self.send(&mut alice, DIRECT, MESSAGES);
            (accepted, reader.join().expect("the reader does not panic"))
        });
        let (accepted, received) = (accepted?, received?);
        println!("  {accepted} accepted, {received} received in order, in {:.1?}", begun.elapsed());
        self.group(&mut alice, &mut bob)?;
        if self.subject.unsupported.contains(&ActionName::CatchUp) {
            println!("  no catching up");
            return Ok(());
        }
        let memory = self.missed(&mut alice, bob.disconnect())?;
        self.killed(alice, &memory)
    }

    fn connect(&self, device: u32, memory: &DeviceMemory) -> Outcome<BlockingClient> {
        let population = Arc::clone(&self.population);
        let names = Names { run_id: RUN_ID, device: DeviceIndex(device), heartbeat_s: 30, population };
        let protocol = protocol(self.subject.protocol, names, memory).expect("subjects name known protocols");
        let target: &TargetAddress = self.server.targets().first().expect("a peer has one");
        Ok(BlockingClient::connect(target, protocol, self.start, WAIT)?)
    }

    /// Sends from device 0, a window at a time; how many were accepted.
    fn send(&mut self, client: &mut BlockingClient, room: RoomIndex, count: u64) -> Outcome<u64> {
        let (mut unanswered, mut accepted) = (BTreeSet::new(), 0);
        let until = self.sent + count;
        while accepted < count {
            while self.sent < until && (unanswered.len() as u64) < WINDOW {
                self.sent += 1;
                let stamp = Stamp { sender: DeviceIndex(0), number: self.sent, due_us: 0, run: RUN_ID };
                let body = stamp.body(BODY_BYTES);
                let send = Request::Send { room, message: self.sent, predecessor: None, body };
                client.request(Token(self.sent), &send)?;
                unanswered.insert(self.sent);
            }
            let token = client.wait_for(WAIT, |event| match event {
                ProtocolEvent::Accepted { token, .. } => Some(token.0),
                _ => None,
            })?;
            if !unanswered.remove(&token) {
                return Err(format!("message {token} was accepted twice, or never sent").into());
            }
            accepted += 1;
        }
        Ok(accepted)
    }

    fn group(&mut self, alice: &mut BlockingClient, bob: &mut BlockingClient) -> Outcome<()> {
        let (mut carol, mut dave) =
            (self.connect(2, &DeviceMemory::default())?, self.connect(3, &DeviceMemory::default())?);
        let first = self.sent + 1;
        let begun = clock::now();
        let received = std::thread::scope(|scope| {
            let readers = [bob, &mut carol, &mut dave]
                .map(|client| scope.spawn(move || read(client, GROUP, first, GROUP_MESSAGES)));
            let accepted = self.send(alice, GROUP, GROUP_MESSAGES);
            let received = readers.map(|reader| reader.join().expect("the reader does not panic"));
            accepted.map(|_| received)
        })?;
        let total: u64 = received.into_iter().sum::<Outcome<u64>>()?;
        println!(
            "  group of 4: {GROUP_MESSAGES} accepted, {total} deliveries in order, in {:.1?}",
            begun.elapsed()
        );
        Ok(())
    }

    fn missed(&mut self, alice: &mut BlockingClient, memory: DeviceMemory) -> Outcome<DeviceMemory> {
        let first = self.sent + 1;
        self.send(alice, DIRECT, MESSAGES)?;
        let begun = clock::now();
        let mut bob = self.connect(1, &memory)?;
        let ready = begun.elapsed();
        let numbers = catch_up(&mut bob)?;
        if !numbers.iter().copied().eq(first..=self.sent) {
            return Err(format!("of {first} to {}, there came {numbers:?}", self.sent).into());
        }
        println!(
            "  {MESSAGES} missed messages in order, {:.1?} after TCP connect ({ready:.1?} until ready)",
            begun.elapsed()
        );
        Ok(bob.disconnect())
    }

    fn killed(mut self, mut alice: BlockingClient, memory: &DeviceMemory) -> Outcome<()> {
        let first = self.sent + 1;
        let accepted = self.send(&mut alice, DIRECT, MESSAGES)?;
        let begun = clock::now();
        self.server.kill();
        if !self.server.pids().is_empty() {
            return Err("a killed server has processes".into());
        }
        self.server.restart()?;
        let restarted = begun.elapsed();
        let mut bob = self.connect(1, memory)?;
        let numbers = catch_up(&mut bob)?;
        let kept: BTreeSet<u64> = numbers.into_iter().filter(|number| *number >= first).collect();
        let lost = accepted - kept.len() as u64;
        println!(
            "  kill -9 of a present sender's server: {lost} of {accepted} acknowledged messages lost, {restarted:.1?} until it served again"
        );
        Ok(())
    }
}

/// Reads so many messages of a room, which must come in order.
fn read(client: &mut BlockingClient, room: RoomIndex, first: u64, count: u64) -> Outcome<u64> {
    for number in first..first + count {
        let found = client.wait_for(WAIT, |event| match event {
            ProtocolEvent::Message(message) if message.room == room => Stamp::read(&message.body),
            _ => None,
        })?;
        if found.number != number {
            return Err(format!("message {} came where {number} was due", found.number).into());
        }
    }
    Ok(count)
}

/// Numbers of the direct room's messages that come until everything missed has come.
fn catch_up(client: &mut BlockingClient) -> Result<Vec<u64>, BlockingError> {
    client.request(Token(u64::MAX), &Request::CatchUp { from: Vec::new(), expected: 0 })?;
    let mut numbers = Vec::new();
    client.wait_for(WAIT, |event| match event {
        ProtocolEvent::CaughtUp(_) => Some(()),
        ProtocolEvent::Message(message) if message.room == DIRECT => {
            numbers.extend(Stamp::read(&message.body).map(|stamp| stamp.number));
            None
        }
        _ => None,
    })?;
    Ok(numbers)
}
