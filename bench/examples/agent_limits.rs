//! What one agent can do, shown against a server that does nothing but answer.
//!
//! ```text
//! agent_limits server PORT                 the null server; its certificate goes to standard output
//! agent_limits idle PORT CERT N TICKETS    memory and handshakes of N connections ("keep" or "drop" tickets)
//! agent_limits rate PORT CERT N RATE S     N devices in pairs, RATE messages a second, evenly, for S seconds
//! agent_limits full PORT CERT N DEPTH S    the same as fast as it goes, DEPTH unanswered at a time
//! ```

use bench::agent::engine::tls::{KeepTickets, TlsTarget};
use bench::agent::engine::{Engine, Target};
use bench::agent::identity::{Minter, generate_key_pem};
use bench::agent::null_server::{NullServer, SERVER_NAME};
use bench::agent::protocol::names::{Names, RoomShape, Rooms};
use bench::agent::protocol::ringline::{Framing, RinglineClients, Shared};
use bench::agent::protocol::targets::TargetNames;
use bench::agent::protocol::{ProtocolEvent, Request, TargetIndex, Token};
use bench::clock;
use bench::measure::{self, histogram::Latencies};
use bench::workload::load::{Action, DeviceEvent, Workload};
use bench::workload::population::{DeviceIndex, RoomIndex, UserIndex};
use bench::workload::stamp::Stamp;
use std::collections::VecDeque;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use wire_protocol::limits::ALPN_NATIVE;

/// Bytes of a message's body.
const BODY_BYTES: usize = 200;
/// Devices that connect at a time.
const CONNECTING_MAX: usize = 64;

/// Users in pairs: 0 with 1 in room 0, 2 with 3 in room 1, …
struct Pairs;

impl Rooms for Pairs {
    fn shape(&self, room: RoomIndex) -> Option<RoomShape> {
        Some(RoomShape::Direct { a: UserIndex(2 * room.0), b: UserIndex(2 * room.0 + 1) })
    }

    fn rooms_of(&self, user: UserIndex) -> Vec<RoomIndex> {
        vec![RoomIndex(user.0 / 2)]
    }
}

/// When messages are sent.
#[derive(Clone, Copy)]
enum Pace {
    /// Evenly: the first one, and the time between two, in nanoseconds.
    Even { first_us: u64, gap_ns: u64, count: u64 },
    /// As soon as there are fewer unanswered.
    Full { depth: u64, until_us: u64 },
}

/// Connects everybody, then sends.
#[derive(Default)]
struct Load {
    actions: VecDeque<Action>,
    devices: u32,
    ready: usize,
    resumed: usize,
    done: usize,
    lost: usize,
    pace: Option<Pace>,
    sent: u64,
    accepted: u64,
    delivered: u64,
    refused: u64,
    lag: Latencies,
    latency: Latencies,
}

impl Load {
    fn due_us(&self, number: u64) -> Option<u64> {
        match self.pace? {
            Pace::Even { first_us, gap_ns, count } => {
                (number < count).then_some(first_us + number * gap_ns / 1_000)
            }
            Pace::Full { .. } => None,
        }
    }

    fn send(&mut self, due_us: u64) -> Action {
        // Neighbours in time are not neighbours in the table.
        let device = DeviceIndex((self.sent.wrapping_mul(7_919) % u64::from(self.devices)) as u32);
        self.sent += 1;
        let stamp = Stamp { sender: device, number: self.sent, due_us, run: 1 };
        let request = Request::Send {
            room: RoomIndex(device.0 / 2),
            message: self.sent,
            // The server stores nothing that could come out of order.
            predecessor: None,
            body: stamp.body(BODY_BYTES),
        };
        Action::Request { device, token: Token(due_us), request }
    }
}

impl Workload for Load {
    fn handle(&mut self, now_us: u64, _: DeviceIndex, event: DeviceEvent) {
        match event {
            DeviceEvent::Connected { resumed } => self.resumed += usize::from(resumed),
            DeviceEvent::Protocol(ProtocolEvent::Ready) => self.ready += 1,
            DeviceEvent::Protocol(ProtocolEvent::Done(_)) => self.done += 1,
            DeviceEvent::Protocol(ProtocolEvent::Accepted { .. }) => self.accepted += 1,
            DeviceEvent::Protocol(ProtocolEvent::Message(message)) => {
                self.delivered += 1;
                if let Some(stamp) = Stamp::read(&message.body) {
                    self.latency.record(now_us.saturating_sub(stamp.due_us));
                }
            }
            DeviceEvent::Lost { .. } => self.lost += 1,
            DeviceEvent::Busy(_) | DeviceEvent::Protocol(_) => self.refused += 1,
        }
    }

    fn poll(&mut self, now_us: u64) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        match self.pace? {
            Pace::Even { .. } => {
                let due_us = self.due_us(self.sent).filter(|due_us| *due_us <= now_us)?;
                Some(self.send(due_us))
            }
            Pace::Full { depth, until_us } => {
                let open = self.sent - self.accepted - self.refused;
                (open < depth && now_us < until_us).then(|| self.send(now_us))
            }
        }
    }

    fn next_due_us(&self) -> Option<u64> {
        self.due_us(self.sent)
    }

    fn handed_over(&mut self, now_us: u64, _: DeviceIndex, token: Token) {
        if self.pace.is_some() {
            self.lag.record(now_us.saturating_sub(token.0));
        }
    }
}

struct Bench {
    engine: Engine,
    load: Load,
    tls: TlsTarget,
}

impl Bench {
    fn new(port: &str, certificate: &str, devices: &str, keep: KeepTickets) -> Result<Self, Box<dyn Error>> {
        let ca_pem = std::fs::read_to_string(certificate)?;
        let tls = TlsTarget::new(SERVER_NAME, &ca_pem, ALPN_NATIVE, keep)?;
        let target = Target { address: (Ipv4Addr::LOCALHOST, port.parse()?).into(), tls: Some(tls.clone()) };
        let shared = Shared {
            names: Arc::new(Names::new(1, 1, Box::new(Pairs))),
            minter: Minter::from_pem(&generate_key_pem()?)?,
            framing: Framing::Native,
            heartbeat_s: 60,
            zero_wall_ms: clock::wall_ms() - clock::now_us() / 1_000,
            targets: TargetNames::default(),
        };
        let clients = RinglineClients { shared: Arc::new(shared) };
        let sources = (2..6).map(|last| IpAddr::from([127, 0, 0, last])).collect();
        let engine = Engine::new(vec![target], sources, Box::new(clients))?;
        Ok(Self { engine, load: Load { devices: devices.parse()?, ..Load::default() }, tls })
    }

    fn connect(&mut self, resume: bool) -> Result<f64, Box<dyn Error>> {
        let (before, begun_us) = (self.load.ready, clock::now_us());
        for device in 0..self.load.devices {
            let device = DeviceIndex(device);
            self.load.actions.push_back(Action::Disconnect { device });
            let target = TargetIndex(0);
            self.load.actions.push_back(Action::Connect { device, target, resume });
            let begun = before + device.0 as usize + 1;
            while begun >= self.load.ready + self.load.lost + CONNECTING_MAX {
                self.engine.turn(&mut self.load, 100_000)?;
            }
        }
        while self.load.ready + self.load.lost < before + self.load.devices as usize {
            self.engine.turn(&mut self.load, 100_000)?;
        }
        Ok((clock::now_us() - begun_us) as f64 / 1e6)
    }

    fn open_rooms(&mut self) -> Result<(), Box<dyn Error>> {
        let rooms = self.load.devices / 2;
        for room in 0..rooms {
            let (device, request) = (DeviceIndex(2 * room), Request::Open(RoomIndex(room)));
            self.load.actions.push_back(Action::Request { device, token: Token(0), request });
        }
        while self.load.done < rooms as usize {
            self.engine.turn(&mut self.load, 100_000)?;
        }
        Ok(())
    }

    /// Sends for a while; waits for the rest.
    fn send(&mut self, pace: Pace, until_us: u64) -> Result<(), Box<dyn Error>> {
        self.load.pace = Some(pace);
        self.engine.take_handed();
        let (cpu_us, begun_us, usage) = (clock::thread_cpu_us(), clock::now_us(), self.engine.usage());
        let all_in = |load: &Load| load.delivered + load.refused >= load.sent;
        while clock::now_us() < until_us || (!all_in(&self.load) && clock::now_us() < until_us + 5_000_000) {
            self.engine.turn(&mut self.load, 100_000)?;
        }
        let (cpu_us, took_us) = (clock::thread_cpu_us() - cpu_us, clock::now_us() - begun_us);
        let (load, now) = (&self.load, self.engine.usage());
        let each = |value: u64| value as f64 / load.sent.max(1) as f64;
        println!(
            "{} sent, {} accepted, {} delivered, {} refused, {} lost in {:.2} s: {:.0} messages/s",
            load.sent,
            load.accepted,
            load.delivered,
            load.refused,
            load.lost,
            took_us as f64 / 1e6,
            load.sent as f64 / (took_us as f64 / 1e6)
        );
        println!(
            "agent: {:.2} us CPU a message, {:.1} % of a core; busy {:.1} % of the time; {:.2} turns a message",
            each(cpu_us),
            100.0 * cpu_us as f64 / took_us as f64,
            100.0 * (now.busy_us - usage.busy_us) as f64 / took_us as f64,
            each(now.turns - usage.turns)
        );
        line("lag (due -> kernel)", &load.lag);
        line("taken -> kernel", &self.engine.take_handed());
        line("latency (due -> other device)", &load.latency);
        Ok(())
    }
}

fn line(name: &str, latencies: &Latencies) {
    println!(
        "{name}: p50 {} us, p99 {} us, p99.9 {} us, max {} us, of {}",
        latencies.at(0.5),
        latencies.at(0.99),
        latencies.at(0.999),
        latencies.max(),
        latencies.count()
    );
}

fn idle(mut bench: Bench) -> Result<(), Box<dyn Error>> {
    let pid = std::process::id();
    let count = f64::from(bench.load.devices);
    let before = (measure::process(pid)?.private_bytes, clock::thread_cpu_us());
    let seconds = bench.connect(false)?;
    let after = (measure::process(pid)?.private_bytes, clock::thread_cpu_us());
    println!(
        "{count} connections in {seconds:.2} s, {} lost: {:.0} private bytes and {:.0} us CPU each; {} tickets",
        bench.load.lost,
        (after.0 as f64 - before.0 as f64) / count,
        (after.1 - before.1) as f64 / count,
        bench.tls.ticket_count()
    );
    let seconds = bench.connect(true)?;
    let again = (measure::process(pid)?.private_bytes, clock::thread_cpu_us());
    println!(
        "again in {seconds:.2} s, {} resumed, {} lost: {:.0} private bytes and {:.0} us CPU each",
        bench.load.resumed,
        bench.load.lost,
        (again.0 as f64 - before.0 as f64) / count,
        (again.1 - after.1) as f64 / count
    );
    println!("{:?}", bench.engine.take_faults());
    Ok(())
}

fn serve(port: &str) -> Result<(), Box<dyn Error>> {
    let server = NullServer::bind((Ipv4Addr::LOCALHOST, port.parse()?).into())?;
    println!("{}", server.certificate_pem());
    Ok(server.run(&AtomicBool::new(false))?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["server", port] => serve(port),
        ["idle", port, certificate, devices, tickets] => {
            let keep = if *tickets == "keep" { KeepTickets::Newest } else { KeepTickets::None };
            idle(Bench::new(port, certificate, devices, keep)?)
        }
        [kind @ ("rate" | "full"), port, certificate, devices, rate, seconds] => {
            let mut bench = Bench::new(port, certificate, devices, KeepTickets::None)?;
            bench.connect(false)?;
            bench.open_rooms()?;
            let (rate, seconds): (u64, u64) = (rate.parse()?, seconds.parse()?);
            let first_us = clock::now_us() + 10_000;
            let until_us = first_us + seconds * 1_000_000;
            let pace = match *kind {
                "rate" => Pace::Even { first_us, gap_ns: 1_000_000_000 / rate, count: rate * seconds },
                _ => Pace::Full { depth: rate, until_us },
            };
            bench.send(pace, until_us)
        }
        _ => Err("see the head of bench/examples/agent_limits.rs".into()),
    }
}
