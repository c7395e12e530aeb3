//! All of it at once, while people go on talking.

use super::{connected, frames, half_close, http, private_kib, raw, read_to_end};
use crate::chat::{created, direct, text};
use crate::client::{Client, Way, try_upgraded};
use crate::memory_group::MemoryGroup;
use crate::server::{Account, EMBEDDED, Folder, PATIENCE_S, Server, Share};
use bytes::Bytes;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};
use wire_protocol::v1::{self, client_frame, server_frame};

/// Pairs of people who talk.
const PAIRS: usize = 3;
/// Messages of each in one phase, and the pause between two.
const MESSAGES: u64 = 40;
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that never finish their handshake.
const HALF_OPEN: usize = 1_000;
/// Clients that ask without reading.
const NEVER_READ: usize = 16;
/// Connections that say a byte a second.
const DRIPPING: usize = 100;
/// More memory than before, in MiB, at most: 16 outboxes and what is held before them (5 MiB), TLS of 1,000
/// handshakes (4 MiB), 512 HTTP connections (64 MiB if each filled its window), tables of rates (10 MiB), buffers of
/// rings, and storage's own caches for some thousand messages.
const GROWTH_MIB_MAX: u64 = 128;
/// All that the server may hold where control groups are permitted, in MiB: that growth, what it began with, the
/// kernel's share for its sockets, and pages of its files. One that asks for more is ended.
const GROUP_MIB: u64 = 256;
/// Rounds of the same attacks, each after as long a quiet time.
const ROUNDS: usize = 6;
/// The last round adds at most this to the most of those before it, in MiB: what was used before is used again.
const LAST_ROUND_MIB_MAX: u64 = 16;

/// Times that the p99 of people under attack may be that of a quiet time; without it none is judged.
const P99_RATIO_MAX: &str = "RINGLINE_P99_RATIO_MAX";

struct Pair {
    sender: Client,
    receiver: Account,
    conversation: Bytes,
    sent: u64,
}

impl Pair {
    fn new(server: &Server, number: usize) -> Self {
        let [one, other] = ["a", "b"].map(|side| server.register(&format!("pair{number}{side}")));
        let from = [127, 0, 0, 2 + number as u8];
        let way = [Way::NativeTls, Way::WebSocket, Way::NativePlain][number % 3];
        let address = if way == Way::NativeTls { server.tls } else { server.plain };
        let mut sender = Client::connect_over(server, connected(from, address), way, &one);
        let conversation = created(sender.ask(direct(&other))).conversation_id;
        Self { sender, receiver: other, conversation, sent: 0 }
    }

    /// Sends at its pace; how long each took from when it was due, in microseconds.
    fn talk(&mut self) -> Vec<u64> {
        let started = Instant::now();
        (0..MESSAGES)
            .map(|number| {
                let due = started + PAUSE * number as u32;
                std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
                self.sent += 1;
                let body = text(&self.conversation, self.sent, self.sent.to_string());
                match self.sender.ask(body) {
                    server_frame::Body::Accepted(_) => due.elapsed().as_micros() as u64,
                    other => panic!("a well-behaved message was refused: {other:?}"),
                }
            })
            .collect()
    }

    /// Everything that was sent is there, once, in order.
    fn check(&self, server: &Server) {
        let stream = connected([127, 0, 0, 100], server.plain);
        let mut receiver = Client::connect_over(server, stream, Way::NativePlain, &self.receiver);
        let (entries, _) = crate::sync::catch_up(&mut receiver, &self.conversation, 0, 1);
        let bodies: Vec<Bytes> = entries.into_iter().map(|entry| entry.body).collect();
        let wanted: Vec<Bytes> = (1..=self.sent).map(|number| number.to_string().into()).collect();
        assert_eq!(bodies, wanted);
    }
}

/// The pairs talk at the same time; all latencies.
fn talk(pairs: &mut [Pair]) -> Vec<u64> {
    std::thread::scope(|scope| {
        let talking: Vec<_> = pairs.iter_mut().map(|pair| scope.spawn(|| pair.talk())).collect();
        talking.into_iter().flat_map(|thread| thread.join().expect("a pair is served")).collect()
    })
}

fn quantile_ms(latencies: &[u64], per_cent: usize) -> f64 {
    latencies[(latencies.len() * per_cent / 100).min(latencies.len() - 1)] as f64 / 1_000.0
}

/// Gives the p99.
fn print_latencies(what: &str, latencies: &mut [u64]) -> f64 {
    latencies.sort_unstable();
    let [p50, p90, p99] = [50, 90, 99].map(|per_cent| quantile_ms(latencies, per_cent));
    println!("{what}: p50 {p50:.1} ms, p90 {p90:.1} ms, p99 {p99:.1} ms of {} messages", latencies.len());
    p99
}

/// The one attacker who has an account, and a conversation to write to. It was made in good time: the attacks use up what this
/// user may ask for.
struct Mallory {
    account: Account,
    conversation: Bytes,
}

impl Mallory {
    fn new(server: &Server) -> Self {
        let (account, friend) = (server.register("mallory"), server.register("friend"));
        let mut client = Client::connect(server, Way::NativePlain, &account);
        Self { conversation: created(client.ask(direct(&friend))).conversation_id, account }
    }
}

/// An attacker's time, and what came of it.
struct Turn<'a> {
    stop: &'a AtomicBool,
    has_begun: bool,
    /// How often it attacked.
    attacks: u64,
}

impl Turn<'_> {
    /// Once in any case: on a busy machine people may be done before.
    fn goes_on(&mut self) -> bool {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        is_first || goes_on(self.stop)
    }

    /// An attack that went through, or not.
    fn count(&mut self, went_through: bool) {
        self.attacks += u64::from(went_through);
    }
}

type Attack = fn(&Server, &Mallory, &mut Turn<'_>);

/// A session of an attacker who has an account, and an address that has not used up its connections. `None`: the attacker
/// came by its CPU so seldom that the server gave it up.
fn session_of(server: &Server, mallory: &Mallory) -> Option<Client> {
    let stream = connected([127, 0, 0, 9], server.plain);
    Client::try_connect_over(server, stream, Way::NativePlain, &mallory.account)
}

fn goes_on(stop: &AtomicBool) -> bool {
    !stop.load(Ordering::Relaxed)
}

fn half_open(server: &Server, _: &Mallory, turn: &mut Turn<'_>) {
    let mut held: Vec<TcpStream> = Vec::new();
    while turn.goes_on() {
        if held.len() < HALF_OPEN {
            if let Ok(mut stream) = TcpStream::connect(server.tls) {
                // The beginning of a hello that promises 16 KiB.
                let sent = stream.write_all(if held.len().is_multiple_of(2) {
                    b""
                } else {
                    b"\x16\x03\x01\x40\x00\x01\0\x3f\xfc\x03\x03"
                });
                turn.count(sent.is_ok());
                held.push(stream);
            }
        } else {
            std::thread::park_timeout(Duration::from_millis(100));
            held.retain(|stream| {
                stream.set_nonblocking(true).is_ok() && !matches!((&mut &*stream).read(&mut [0]), Ok(0))
            });
        }
    }
}

fn never_read(server: &Server, mallory: &Mallory, turn: &mut Turn<'_>) {
    let mut clients: Vec<Client> = (0..NEVER_READ).filter_map(|_| session_of(server, mallory)).collect();
    // Each would be answered, and none of the answers is read.
    let mut pings = bytes::BytesMut::new();
    let frame = v1::ClientFrame { request_id: 7, body: Some(client_frame::Body::Ping(v1::Ping {})) };
    wire_protocol::frame::encode_frame(&prost::Message::encode_to_vec(&frame), &mut pings);
    let many = pings.repeat(2_000);
    clients.iter_mut().for_each(Client::never_wait);
    while turn.goes_on() {
        for client in &mut clients {
            client.send_raw(&many);
            turn.count(true);
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn drip(server: &Server, _: &Mallory, turn: &mut Turn<'_>) {
    let open = || {
        let stream = raw(server.plain);
        (stream, b"GET / HTTP/1.1\r\nHost: a\r\nX: ".iter().chain([b'y'; 60].iter()))
    };
    let mut dripping: Vec<_> = (0..DRIPPING).map(|_| open()).collect();
    while turn.goes_on() {
        for (stream, bytes) in &mut dripping {
            let sent = bytes.next().map(|byte| stream.write_all(&[*byte]));
            let is_sent = matches!(sent, Some(Ok(())));
            turn.count(is_sent);
            if !is_sent {
                (*stream, *bytes) = open();
            }
        }
        std::thread::park_timeout(Duration::from_secs(1));
    }
}

fn open_and_close(server: &Server, _: &Mallory, turn: &mut Turn<'_>) {
    while turn.goes_on() {
        let opened = (TcpStream::connect(server.tls), TcpStream::connect(server.plain));
        turn.count(matches!(opened, (Ok(_), Ok(_))));
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn garbage(server: &Server, _: &Mallory, turn: &mut Turn<'_>) {
    let mut byte = 1u32;
    while turn.goes_on() {
        byte = byte.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let bytes: Vec<u8> = (0..4_000u32).map(|place| (byte.wrapping_mul(place) >> 13) as u8).collect();
        let frame = vec![0xff; wire_protocol::limits::FRAME_BYTES_MAX + 1];
        for (address, bytes) in [(server.plain, &bytes), (server.tls, &bytes), (server.plain, &frame)] {
            if let Ok(mut stream) = TcpStream::connect(address) {
                // The server may be quicker to close than we to write all.
                let _ = stream.write_all(bytes);
                turn.count(true);
            }
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Guesses a password, which costs a hash if it is looked at. Whether it was sent.
fn guess_once(server: &Server, from: [u8; 4], username: &str) -> bool {
    let body = format!("{{\"username\":\"{username}\",\"password\":\"guess guess\",\"device_name\":\"x\"}}");
    let mut stream = connected(from, server.plain);
    let sent = write!(
        stream,
        "POST /v1/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let _ = stream.read(&mut [0; 512]);
    sent.is_ok()
}

/// One account's, from an address whose connections the other attacks do not use up.
fn guess_one(server: &Server) -> bool {
    guess_once(server, [127, 0, 0, 8], "pair0a")
}

/// One account's from one address, and in turn anybody's from everywhere.
fn guess(server: &Server, _: &Mallory, turn: &mut Turn<'_>) {
    for number in 0u16.. {
        if !turn.goes_on() {
            break;
        }
        let [high, low] = number.to_be_bytes();
        let sent = match number % 2 {
            0 => guess_one(server),
            _ => guess_once(server, [127, 1, high, low], &format!("anybody{number}")),
        };
        turn.count(sent);
    }
}

/// Sends as fast as it goes; most of it is throttled.
fn flood(server: &Server, mallory: &Mallory, turn: &mut Turn<'_>) {
    let Some(mut client) = session_of(server, mallory) else { return };
    let mut number = 0;
    while turn.goes_on() {
        let asked: Vec<u32> = (0..60)
            .map(|_| {
                number += 1;
                client.request(text(&mallory.conversation, number, vec![b'x'; 4_096]))
            })
            .collect();
        for request_id in asked {
            match client.answer(request_id) {
                server_frame::Body::Accepted(_) => {}
                server_frame::Body::Error(error) => assert_eq!(error.code(), v1::ErrorCode::ErrorThrottled),
                other => panic!("{other:?}"),
            }
            turn.count(true);
        }
    }
}

/// What other tests try one by one, and judge: requests that mean two things, WebSocket frames that break its rules, and in
/// sessions frames that are no requests. All that the server says to them is read: it would be lost to a reset.
fn nonsense(server: &Server, mallory: &Mallory, turn: &mut Turn<'_>) {
    let (payloads, requests, breaches) =
        (frames::no_requests(), http::doubtful(), frames::broken_websocket());
    let open = || {
        let stream = connected([127, 0, 0, 7], server.plain);
        stream.set_read_timeout(Some(Duration::from_secs(PATIENCE_S))).expect("a socket");
        stream
    };
    let hear_out = |mut stream: TcpStream| {
        half_close(&stream);
        read_to_end(&mut stream);
    };
    for number in 0.. {
        if !turn.goes_on() {
            break;
        }
        let session = session_of(server, mallory);
        let has_session = session.is_some();
        if let Some(mut client) = session {
            client.send(&payloads[number % payloads.len()].1);
            client.half_close();
            client.wait_for_end();
        }
        let mut asking = open();
        let has_asked = asking.write_all(requests[number % requests.len()].1.as_bytes()).is_ok();
        hear_out(asking);
        // An attacker that seldom comes by its CPU is closed before it has asked.
        let web_socket = try_upgraded(open());
        let is_upgraded = web_socket.is_ok();
        if let Ok(mut breaking) = web_socket {
            let _ = breaking.write_all(&breaches[number % breaches.len()].1);
            hear_out(breaking);
        }
        turn.count(has_session && has_asked && is_upgraded);
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Bodies that never end. That the server ends them is seen in `http.rs`: it takes longer than a round.
fn slow_bodies(server: &Server, _: &Mallory, turn: &mut Turn<'_>) {
    const HEAD: &[u8] =
        b"POST /v1/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n";
    let open = || {
        let mut stream = connected([127, 0, 0, 6], server.plain);
        let _ = stream.write_all(HEAD);
        stream
    };
    let mut slow: Vec<TcpStream> = (0..DRIPPING).map(|_| open()).collect();
    while turn.goes_on() {
        for stream in &mut slow {
            let is_sent = stream.write_all(b" ").is_ok();
            turn.count(is_sent);
            if !is_sent {
                *stream = open();
            }
        }
        std::thread::park_timeout(Duration::from_secs(1));
    }
}

const ATTACKS: [(&str, Attack); 9] = [
    ("half-open handshakes", half_open),
    ("clients that never read", never_read),
    ("bytes that drip", drip),
    ("connections opened and closed", open_and_close),
    ("garbage", garbage),
    ("guesses", guess),
    ("floods", flood),
    ("nonsense", nonsense),
    ("bodies that never end", slow_bodies),
];

/// Attackers are on other machines than people, elsewhere: here they take what people leave of a CPU. A low priority would
/// not do: such a thread keeps its CPU for a slice of some milliseconds, whoever else wants it.
fn give_way() {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let outcome = Command::new("chrt").args(["--idle", "--pid", "0", &thread]).status();
    assert!(outcome.expect("util-linux is there").success(), "anybody may give way");
}

/// A CPU that the server has to itself, as attackers have theirs on other machines: the thread that asks for it, and those
/// that it starts, stay away from it as long as this lives.
struct ServersCpu {
    cpu: usize,
    before: CpuSet,
}

impl ServersCpu {
    /// `None`: there is only one.
    fn new() -> Option<Self> {
        let before = sched_getaffinity(None).expect("Linux tells");
        let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| before.is_set(*cpu));
        let cpu = cpus.next()?;
        let mut others = CpuSet::new();
        cpus.for_each(|cpu| others.set(cpu));
        sched_setaffinity(None, &others).ok()?;
        Some(Self { cpu, before })
    }
}

impl Drop for ServersCpu {
    fn drop(&mut self) {
        // Tests that run one after the other may do so in one thread.
        let _ = sched_setaffinity(None, &self.before);
    }
}

/// Stops attackers and whoever watches when people are done, or have failed: a scope waits for all of its threads.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Everything at once, until it is stopped; how often each attacked. Tells when all have begun.
fn attack(server: &Server, mallory: &Mallory, stop: &AtomicBool, begun: Sender<()>) -> Vec<u64> {
    // Threads have the priority of who starts them. Asking for one starts a program, which is nobody's attack.
    give_way();
    std::thread::scope(|scope| {
        let attackers: Vec<_> = ATTACKS
            .iter()
            .map(|(_, attack)| {
                scope.spawn(move || {
                    let mut turn = Turn { stop, has_begun: false, attacks: 0 };
                    attack(server, mallory, &mut turn);
                    turn.attacks
                })
            })
            .collect();
        // Whoever waited in vain has failed.
        let _ = begun.send(());
        attackers.into_iter().map(|attacker| attacker.join().expect("an attack goes through")).collect()
    })
}

/// The most private memory until it is stopped, in KiB.
fn watch(server: &Server, stop: &AtomicBool) -> u64 {
    let mut most_kib = 0;
    while goes_on(stop) {
        most_kib = most_kib.max(private_kib(server));
        std::thread::park_timeout(Duration::from_millis(100));
    }
    most_kib
}

/// What came of one round.
struct Round {
    /// What the pairs met, in microseconds.
    latencies: Vec<u64>,
    /// The most private memory.
    most_kib: u64,
    /// How often each attacked.
    attacks: Vec<u64>,
}

fn under_attack(server: &Server, mallory: &Mallory, pairs: &mut [Pair]) -> Round {
    let stop = &AtomicBool::new(false);
    let (begun, begin) = mpsc::channel();
    std::thread::scope(|scope| {
        let stops = Stops(stop);
        let attackers = scope.spawn(move || attack(server, mallory, stop, begun));
        let watcher = scope.spawn(move || watch(server, stop));
        begin.recv_timeout(Duration::from_secs(PATIENCE_S)).expect("attackers begin");
        let latencies = talk(pairs);
        drop(stops);
        let attacks = attackers.join().expect("they could give way, and all attacks go through");
        Round { latencies, most_kib: watcher.join().expect("it looks"), attacks }
    })
}

#[test]
fn people_are_served_while_everything_is_tried_at_once() {
    let group = MemoryGroup::new(GROUP_MIB << 20);
    let config = format!("[limits]\nconnections_per_address = 3000\n[auth]\n{EMBEDDED}");
    let cpu = ServersCpu::new();
    let share = Share { memory: group.as_ref(), cpu: cpu.as_ref().map(|cpu| cpu.cpu) };
    let server = Server::start_within(&share, Folder::new(), &config);
    let mallory = Mallory::new(&server);
    let mut pairs: Vec<Pair> = (0..PAIRS).map(|number| Pair::new(&server, number)).collect();
    let before_kib = private_kib(&server);
    let (mut quiet, mut attacked, mut most_kib) = (Vec::new(), Vec::new(), Vec::new());
    let mut attacks = [0u64; ATTACKS.len()];
    let mut attacks_by_round = Vec::new();
    for _ in 0..ROUNDS {
        quiet.extend(talk(&mut pairs));
        let round = under_attack(&server, &mallory, &mut pairs);
        attacked.extend(round.latencies);
        most_kib.push(round.most_kib);
        attacks_by_round.push(round.attacks.iter().sum::<u64>());
        attacks.iter_mut().zip(round.attacks).for_each(|(all, more)| *all += more);
    }
    let quiet_ms = print_latencies("quiet", &mut quiet);
    let attacked_ms = print_latencies("attacked", &mut attacked);
    println!("private memory, KiB: {before_kib} before, {most_kib:?} at most");
    if let Some(group) = &group {
        println!("all of its group: {} KiB at most", group.peak_bytes() >> 10);
    }
    for name in [
        "ringline_throttled_users_total",
        "ringline_connections_refused_too_fast_total",
        "ringline_connections_refused_too_many_total",
        "ringline_tls_handshakes_failed_total",
        "ringline_http_throttled_total",
    ] {
        println!("{name} {}", server.metric(name));
    }
    for ((name, _), times) in ATTACKS.iter().zip(attacks) {
        println!("{name}: {times} times");
        assert!(times > 0, "{name}: not once");
    }
    pairs.iter().for_each(|pair| pair.check(&server));
    assert!(server.metric("ringline_throttled_users_total") > 0.0, "the flood was throttled");
    // How often an attacker came by a CPU is chance: the guesser goes on until it meets the rate.
    server.wait_until("guessing is slowed", || {
        guess_one(&server);
        server.metric("ringline_http_throttled_total") > 0.0
    });
    // Speed is judged where somebody asks for it, and not where a slow day would fail a test.
    if let Ok(most) = std::env::var(P99_RATIO_MAX) {
        let most: f64 = most.parse().unwrap_or_else(|_| panic!("{P99_RATIO_MAX}: {most} is no number"));
        let ratio = attacked_ms / quiet_ms;
        assert!(ratio <= most, "p99 is {ratio:.2} times the quiet one, {most} at most");
    }
    let (last_kib, earlier) = most_kib.split_last().expect("rounds");
    let earlier_kib = earlier.iter().max().expect("more than one round");
    let grown_mib = earlier_kib.max(last_kib).saturating_sub(before_kib) >> 10;
    assert!(grown_mib <= GROWTH_MIB_MAX, "{grown_mib} MiB more than before");
    let last_mib = last_kib.saturating_sub(*earlier_kib) >> 10;
    // Attackers get what is left of the CPUs: a round in which they got much more says nothing of those before it.
    let (last, earlier) = attacks_by_round.split_last().expect("rounds");
    let is_alike = *last <= 2 * earlier.iter().max().expect("more than one round");
    assert!(
        last_mib <= LAST_ROUND_MIB_MAX || !is_alike,
        "the last round took {last_mib} MiB more than those before it"
    );
    server
        .wait_until("all attackers are gone", || server.metric("ringline_connections") <= 2.0 * PAIRS as f64);
}
