//! Engines over real sockets: against the null server, and against servers that behave badly.

use super::tls::KeepTickets;
use super::*;
use crate::agent::identity::{Minter, generate_key_pem};
use crate::agent::null_server::{NullServer, SERVER_NAME};
use crate::agent::protocol::names::{Names, RoomShape, tests::Listed};
use crate::agent::protocol::ringline::{Framing, RinglineClients, Shared};
use crate::agent::protocol::targets::TargetNames;
use crate::agent::protocol::{Message, ProtocolFault};
use crate::workload::population::{RoomIndex, UserIndex};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use wire_protocol::limits::ALPN_NATIVE;

/// Longest wait of a test for anything, in microseconds.
const PATIENCE_US: u64 = 30_000_000;

/// Does what it is told and remembers what it hears.
#[derive(Default)]
struct Script {
    actions: VecDeque<Action>,
    heard: Vec<(DeviceIndex, DeviceEvent)>,
    handed_over: Vec<Token>,
}

impl Workload for Script {
    fn handle(&mut self, _: u64, device: DeviceIndex, event: DeviceEvent) {
        self.heard.push((device, event));
    }

    fn poll(&mut self, _: u64) -> Option<Action> {
        self.actions.pop_front()
    }

    fn next_due_us(&self) -> Option<u64> {
        None
    }

    fn handed_over(&mut self, _: u64, _: DeviceIndex, token: Token) {
        self.handed_over.push(token);
    }
}

impl Script {
    fn connect(&mut self, device: u32, resume: bool) {
        let (device, target) = (DeviceIndex(device), TargetIndex(0));
        self.actions.push_back(Action::Connect { device, target, resume });
    }

    fn ask(&mut self, device: u32, token: u64, request: Request) {
        let (device, token) = (DeviceIndex(device), Token(token));
        self.actions.push_back(Action::Request { device, token, request });
    }

    fn send(&mut self, device: u32, room: u32, number: u64) {
        let (room, body) = (RoomIndex(room), Bytes::copy_from_slice(&number.to_be_bytes()));
        self.ask(device, number, Request::Send { room, message: number, predecessor: None, body });
    }

    fn count(&self, is: impl Fn(&DeviceEvent) -> bool) -> usize {
        self.heard.iter().filter(|(_, event)| is(event)).count()
    }

    fn ready(&self) -> usize {
        self.count(|event| *event == DeviceEvent::Protocol(ProtocolEvent::Ready))
    }

    fn accepted(&self) -> usize {
        self.count(|event| matches!(event, DeviceEvent::Protocol(ProtocolEvent::Accepted { .. })))
    }

    fn messages(&self) -> usize {
        self.count(|event| matches!(event, DeviceEvent::Protocol(ProtocolEvent::Message(_))))
    }

    fn lost(&self) -> Vec<&str> {
        let reason = |(_, event): &'_ (DeviceIndex, DeviceEvent)| match event {
            DeviceEvent::Lost { reason } => Some(reason.clone()),
            _ => None,
        };
        let reasons: BTreeMap<String, ()> =
            self.heard.iter().filter_map(reason).map(|key| (key, ())).collect();
        reasons.into_keys().map(|key| &*key.leak()).collect()
    }
}

/// Turns until it is so.
fn until(engine: &mut Engine, script: &mut Script, what: &str, done: impl Fn(&Script) -> bool) {
    let end_us = clock::now_us() + PATIENCE_US;
    while !done(script) {
        assert!(clock::now_us() < end_us, "{what}: {:?}, {:?}", script.heard.last(), engine.take_faults());
        engine.turn(script, 100_000).expect("the poll works");
    }
}

/// A null server in a thread of its own.
struct Running {
    stop: Arc<AtomicBool>,
    waker: Arc<mio::Waker>,
    thread: Option<JoinHandle<io::Result<()>>>,
    address: SocketAddr,
    certificate_pem: String,
    /// The port is nobody else's, also when the server is gone.
    _held: socket2::Socket,
}

impl Running {
    fn start() -> Self {
        let (held, address) = gateway::listen::reserve((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let server = NullServer::bind(address).expect("loopback");
        let certificate_pem = server.certificate_pem().to_owned();
        let (stop, waker) = (Arc::new(AtomicBool::new(false)), server.waker());
        let flag = Arc::clone(&stop);
        let thread = Some(std::thread::spawn(move || server.run(&flag)));
        Self { stop, waker, thread, address, certificate_pem, _held: held }
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake().expect("it has a waker");
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it does not panic").expect("it has sockets");
        }
    }

    fn target(&self) -> Target {
        let tls = TlsTarget::new(SERVER_NAME, &self.certificate_pem, ALPN_NATIVE, KeepTickets::Newest);
        Target { address: self.address, tls: Some(tls.expect("a target")) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
        }
    }
}

/// Users in pairs: 0 with 1 in room 0, 2 with 3 in room 1, …
fn engine_of(target: Target, sources: &[[u8; 4]]) -> Engine {
    let pair = |room: u32| RoomShape::Direct { a: UserIndex(2 * room), b: UserIndex(2 * room + 1) };
    let names = Names::new(3, 1, Box::new(Listed((0..100).map(pair).collect())));
    let shared = Shared {
        names: Arc::new(names),
        minter: Minter::from_pem(&generate_key_pem().expect("a key")).expect("it is one"),
        framing: Framing::Native,
        heartbeat_s: 0,
        zero_wall_ms: clock::wall_ms(),
        targets: TargetNames::default(),
    };
    let clients = RinglineClients { shared: Arc::new(shared) };
    let sources = sources.iter().map(|source| IpAddr::from(*source)).collect();
    Engine::new(vec![target], sources, Box::new(clients)).expect("a poll")
}

fn connected_pair(engine: &mut Engine, script: &mut Script) {
    script.connect(0, false);
    script.connect(1, false);
    until(engine, script, "a pair is ready", |script| script.ready() == 2);
    script.ask(0, 1, Request::Open(RoomIndex(0)));
    let done = DeviceEvent::Protocol(ProtocolEvent::Done(Token(1)));
    until(engine, script, "its room is open", |script| script.count(|event| *event == done) == 1);
}

#[test]
fn devices_connect_and_every_message_is_accepted_and_delivered() {
    const DEVICES: u32 = 100;
    const MESSAGES: u64 = 20;
    let server = Running::start();
    let mut engine = engine_of(server.target(), &[[127, 0, 0, 2], [127, 0, 0, 3]]);
    let mut script = Script::default();
    (0..DEVICES).for_each(|device| script.connect(device, false));
    until(&mut engine, &mut script, "all are ready", |script| script.ready() == DEVICES as usize);
    assert_eq!(engine.connections(), DEVICES as usize);
    (0..DEVICES / 2).for_each(|room| script.ask(2 * room, 1, Request::Open(RoomIndex(room))));
    let done = DeviceEvent::Protocol(ProtocolEvent::Done(Token(1)));
    until(&mut engine, &mut script, "rooms", |script| {
        script.count(|event| *event == done) == DEVICES as usize / 2
    });
    let opened = script.handed_over.len();
    for number in 0..MESSAGES {
        (0..DEVICES).for_each(|device| script.send(device, device / 2, 2 + number));
    }
    let count = DEVICES as usize * MESSAGES as usize;
    until(&mut engine, &mut script, "all came", |script| {
        script.accepted() == count && script.messages() == count
    });
    assert_eq!(script.handed_over.len() - opened, count);
    assert!(engine.take_handed().count() >= count as u64);
    for device in 0..DEVICES {
        let mut seqs = Vec::new();
        for (_, event) in script.heard.iter().filter(|(other, _)| other.0 == device) {
            if let DeviceEvent::Protocol(ProtocolEvent::Message(Message { room, seq, .. })) = event {
                assert_eq!(room.0, device / 2);
                seqs.push(seq.expect("numbered"));
            }
        }
        assert!(seqs.is_sorted() && seqs.len() == MESSAGES as usize, "{device}: {seqs:?}");
    }
    assert_eq!(script.lost(), Vec::<&str>::new());
    let usage = engine.usage();
    assert!(
        usage.busy_us > 0 && usage.waited_us > 0 && usage.bytes_in > 0 && usage.bytes_out > 0,
        "{usage:?}"
    );
}

#[test]
fn a_server_that_goes_away_is_lost_and_then_refuses() {
    let mut server = Running::start();
    let mut engine = engine_of(server.target(), &[]);
    let mut script = Script::default();
    connected_pair(&mut engine, &mut script);
    server.stop();
    let lost = |script: &Script| script.count(|event| matches!(event, DeviceEvent::Lost { .. }));
    until(&mut engine, &mut script, "both are lost", |script| lost(script) == 2);
    assert!(script.lost().iter().all(|reason| ["end", "reset"].contains(reason)), "{:?}", script.lost());
    assert_eq!(engine.connections(), 0);

    script.heard.clear();
    script.connect(0, true);
    script.send(1, 0, 5);
    until(&mut engine, &mut script, "refused", |script| lost(script) == 1);
    assert_eq!(script.lost(), ["refused"]);
    assert_eq!(script.count(|event| *event == DeviceEvent::Busy(Token(5))), 1, "it has no connection");
}

#[test]
fn a_paused_device_does_not_read() {
    const MESSAGES: usize = 200;
    let server = Running::start();
    let mut engine = engine_of(server.target(), &[]);
    let mut script = Script::default();
    connected_pair(&mut engine, &mut script);
    script.actions.push_back(Action::Pause { device: DeviceIndex(1) });
    for number in 0..MESSAGES {
        script.send(0, 0, 10 + number as u64);
        until(&mut engine, &mut script, "accepted", |script| script.accepted() == number + 1);
    }
    assert_eq!(script.messages(), 0);
    script.actions.push_back(Action::Resume { device: DeviceIndex(1) });
    until(&mut engine, &mut script, "all come", |script| script.messages() == MESSAGES);
}

#[test]
fn a_device_that_comes_back_is_resumed_by_its_own_ticket() {
    let server = Running::start();
    let mut engine = engine_of(server.target(), &[]);
    let mut script = Script::default();
    let mut connect = |device, resume| {
        let before = script.ready();
        script.actions.push_back(Action::Disconnect { device: DeviceIndex(device) });
        script.connect(device, resume);
        until(&mut engine, &mut script, "it is ready", |script| script.ready() > before);
        let connected = script.heard.iter().rev().find_map(|(_, event)| match event {
            DeviceEvent::Connected { resumed } => Some(*resumed),
            _ => None,
        });
        connected.expect("it was connected before it was ready")
    };
    assert!(!connect(0, true), "there is no ticket yet");
    assert!(!connect(1, true), "another device's ticket is not used");
    assert!(connect(0, true));
    assert!(!connect(0, false), "not wanted");
    assert!(connect(1, true));
}

#[test]
fn a_certificate_that_is_not_trusted_is_no_server() {
    let (server, other) = (Running::start(), Running::start());
    let target = Target { address: server.address, ..other.target() };
    let mut engine = engine_of(target, &[]);
    let mut script = Script::default();
    script.connect(0, false);
    until(&mut engine, &mut script, "it fails", |script| !script.lost().is_empty());
    assert_eq!(script.lost(), ["tls"]);
    let faults = engine.take_faults();
    assert!(faults.len() == 1 && faults[0].contains("certificate"), "{faults:?}");
}

#[test]
fn what_the_protocol_cannot_do_is_refused_for_good() {
    let server = Running::start();
    let mut engine = engine_of(server.target(), &[]);
    let mut script = Script::default();
    connected_pair(&mut engine, &mut script);
    script.ask(0, 9, Request::Open(RoomIndex(5)));
    let refused = |event: &DeviceEvent| {
        matches!(event, DeviceEvent::Protocol(ProtocolEvent::Refused { token: Some(Token(9)), retryable: false, code, .. })
            if code == "unsupported")
    };
    until(&mut engine, &mut script, "refused", |script| script.count(refused) == 1);
}

#[test]
fn a_target_that_the_engine_does_not_know_is_lost_at_once() {
    let mut engine = engine_of(Target { address: ([127, 0, 0, 1], 9).into(), tls: None }, &[]);
    let mut script = Script::default();
    let (device, target) = (DeviceIndex(0), TargetIndex(1));
    script.actions.push_back(Action::Connect { device, target, resume: false });
    until(&mut engine, &mut script, "lost", |script| !script.lost().is_empty());
    assert_eq!(script.lost(), ["no_target"]);
}

#[test]
fn a_waker_ends_a_turn() {
    let mut engine = engine_of(Target { address: ([127, 0, 0, 1], 9).into(), tls: None }, &[]);
    engine.waker().wake().expect("it has a poll");
    assert_eq!(engine.turn(&mut Script::default(), PATIENCE_US).expect("it turns"), Turned::Woken);
}

/// Sends what it is asked to as it is; every byte that comes back is a message.
struct Raw;

/// Bytes of one request of [`Raw`].
const RAW_BYTES: usize = 200_000;

impl ClientProtocol for Raw {
    fn opened(&mut self, _: u64, out: &mut BytesMut) {
        out.extend_from_slice(b"hello");
    }

    fn received(
        &mut self,
        _: u64,
        bytes: &[u8],
        _: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        let body = Bytes::copy_from_slice(bytes);
        events.push(ProtocolEvent::Message(Message { room: RoomIndex(0), seq: None, body }));
        Ok(())
    }

    fn request(&mut self, _: u64, token: Token, _: &Request, out: &mut BytesMut) -> Result<(), NotSent> {
        out.resize(out.len() + RAW_BYTES, token.0 as u8);
        Ok(())
    }

    fn poll_timeout(&self) -> Option<u64> {
        None
    }

    fn handle_timeout(&mut self, _: u64, _: &mut BytesMut) -> Result<(), ProtocolFault> {
        Ok(())
    }

    fn into_memory(self: Box<Self>) -> DeviceMemory {
        DeviceMemory::default()
    }
}

struct RawClients;

impl Clients for RawClients {
    fn protocol(&mut self, _: DeviceIndex, _: DeviceMemory) -> Box<dyn ClientProtocol> {
        Box::new(Raw)
    }
}

#[test]
fn what_the_kernel_does_not_take_waits_its_turn() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let target = Target { address: listener.local_addr().expect("bound"), tls: None };
    let mut engine = Engine::new(vec![target], Vec::new(), Box::new(RawClients)).expect("a poll");
    let mut script = Script::default();
    script.connect(0, false);
    let (mut far, _) = {
        until(&mut engine, &mut script, "connected", |script| {
            script.count(|event| matches!(event, DeviceEvent::Connected { .. })) == 1
        });
        listener.accept().expect("it came")
    };
    // The far end does not read: at some time the engine must refuse.
    let mut asked = 0u64;
    let busy = |script: &Script| script.count(|event| matches!(event, DeviceEvent::Busy(_)));
    while busy(&script) == 0 {
        script.ask(0, asked, Request::CatchUp { from: Vec::new(), expected: 0 });
        asked += 1;
        assert!(asked < 1_000, "{RAW_BYTES} bytes each and no end");
        engine.turn(&mut script, 0).expect("it turns");
    }
    let sent = asked as usize - busy(&script);
    let expected = 5 + sent * RAW_BYTES;
    let reader = std::thread::spawn(move || {
        let mut all = vec![0; expected];
        far.read_exact(&mut all).expect("everything comes");
        far.write_all(b"thanks").expect("it is open");
        all
    });
    until(&mut engine, &mut script, "answered", |script| script.messages() > 0);
    let all = reader.join().expect("it read");
    assert!(all.starts_with(b"hello"));
    for (number, body) in all[5..].chunks(RAW_BYTES).enumerate() {
        assert!(body.iter().all(|byte| *byte == number as u8), "request {number} in order");
    }
    until(&mut engine, &mut script, "the end", |script| !script.lost().is_empty());
    assert_eq!(script.lost(), ["end"], "what came before the end was told");
}

#[test]
fn a_flood_is_read_in_turns_and_to_its_end() {
    const FLOOD_BYTES: usize = 8 * 1024 * 1024;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let target = Target { address: listener.local_addr().expect("bound"), tls: None };
    let mut engine = Engine::new(vec![target], Vec::new(), Box::new(RawClients)).expect("a poll");
    let writer = std::thread::spawn(move || {
        let (mut far, _) = listener.accept().expect("it came");
        // The hello is read, so that closing does not reset.
        far.read_exact(&mut [0; 5]).expect("a hello");
        far.write_all(&vec![7; FLOOD_BYTES]).expect("it is open");
    });
    let mut script = Script::default();
    script.connect(0, false);
    until(&mut engine, &mut script, "the end", |script| !script.lost().is_empty());
    writer.join().expect("it wrote");
    let bytes: usize = script
        .heard
        .iter()
        .map(|(_, event)| match event {
            DeviceEvent::Protocol(ProtocolEvent::Message(message)) => message.body.len(),
            _ => 0,
        })
        .sum();
    assert_eq!((bytes, script.lost()), (FLOOD_BYTES, vec!["end"]));
}
