//! TLS handshakes that never end.

use super::{assert_alive, connected, private_kib, read_to_end};
use crate::chat::{accepted, created, direct, text};
use crate::client::{Client, Way};
use crate::server::{Account, EMBEDDED, Folder, PATIENCE_S, Server};
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use wire_protocol::limits::HELLO_TIMEOUT_MS;

/// Connections that never finish their handshake.
const HALF_OPEN: usize = 1_000;
/// Addresses that they come from.
const ADDRESSES: usize = 4;
/// The beginning of a hello that promises 16 KiB.
const BEGINNING: &[u8] = b"\x16\x03\x01\x40\x00\x01\0\x3f\xfc\x03\x03";
const HELLO_TIMEOUT: Duration = Duration::from_millis(HELLO_TIMEOUT_MS);
/// How far from the timeout their end may be seen: the server counts from the beginning of the turn that accepts, and
/// a busy machine does everything later.
const EARLY_MAX: Duration = Duration::from_secs(1);
const LATE_MAX: Duration = Duration::from_secs(10);
/// How often the crowd comes on a machine that is too slow for all of it to be there at once.
const TRIES_MAX: usize = 5;
/// Memory that all of them take, in KiB, at most. For each: 4 KiB that rustls keeps, 4 KiB of a receive buffer that is
/// used for the first time, 4 KiB for places in tables and what the allocator loses. And 4 MiB for who comes meanwhile.
const GROWTH_KIB_MAX: u64 = HALF_OPEN as u64 * (4 + 4 + 4) + 4 * 1_024;

/// Half of them silent, half of them in the midst of their hello.
fn half_open(server: &Server) -> Vec<TcpStream> {
    let open = |number: usize| {
        let mut stream = connected([127, 0, 0, 10 + (number % ADDRESSES) as u8], server.tls);
        stream.set_read_timeout(Some(Duration::from_secs(PATIENCE_S))).expect("a socket");
        if number < HALF_OPEN / 2 {
            stream.write_all(BEGINNING).expect("sent");
        }
        stream
    };
    (0..HALF_OPEN).map(open).collect()
}

/// The server has neither closed it nor said anything.
fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let seen = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("a socket");
    seen.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Logs in, connects from an address of its own, and has a message acknowledged.
fn come_in(server: &Server, friend: &Account) -> Client {
    let account = server.log_in("ada");
    let stream = connected([127, 0, 0, 2], server.tls);
    let mut client = Client::connect_over(server, stream, Way::NativeTls, &account);
    let conversation = created(client.ask(direct(friend))).conversation_id;
    accepted(client.ask(text(&conversation, 1, "hello")));
    client
}

/// With the limits that a server has by default.
#[test]
fn a_thousand_half_open_handshakes_keep_nobody_out_and_end_in_time() {
    let server = Server::start(Folder::new(), &format!("{EMBEDDED}[limits]\n"));
    let friend = server.register("bob");
    server.register("ada");
    // What grows with the first use has grown.
    come_in(&server, &friend).drop_connection();
    let before_kib = private_kib(&server);

    let are_counted = || server.metric("ringline_connections") >= HALF_OPEN as f64;
    let mut tries = 0..TRIES_MAX;
    let (began, mut held, last_came, mut honest) = loop {
        tries.next().expect("a machine on which all of them are there at once");
        let began = Instant::now();
        let held = half_open(&server);
        let last_came = Instant::now();
        let is_late = || began.elapsed() > HELLO_TIMEOUT - EARLY_MAX;
        server.wait_until("all of them are counted", || are_counted() || is_late());
        let honest = come_in(&server, &friend);
        if !is_late() {
            break (began, held, last_came, honest);
        }
        // The first ones have gone by themselves.
        drop((held, honest));
        server.wait_until("they are gone", || server.metric("ringline_connections") == 0.0);
    };
    assert!(are_counted(), "{} connections", server.metric("ringline_connections"));
    let grown_kib = private_kib(&server).saturating_sub(before_kib);
    // Nobody was let in at their expense: the numbers above are those of a crowd.
    assert_eq!(held.iter().filter(|stream| !is_open(stream)).count(), 0);
    println!("{HALF_OPEN} half-open handshakes: {grown_kib} KiB");
    assert!(grown_kib <= GROWTH_KIB_MAX, "{grown_kib} KiB more than before");

    let mut first_went = None;
    for stream in &mut held {
        assert_eq!(read_to_end(stream), b"", "there is nothing to say to a stranger");
        first_went.get_or_insert_with(|| began.elapsed());
    }
    let (first_went, last_went) = (first_went.expect("there are some"), last_came.elapsed());
    assert!(first_went + EARLY_MAX > HELLO_TIMEOUT, "the first one after {first_went:?}");
    assert!(last_went < HELLO_TIMEOUT + LATE_MAX, "the last one after {last_went:?}");
    assert_alive(&mut honest);
    server.wait_until("only the honest client is left", || server.metric("ringline_connections") <= 1.0);
    assert!(server.metric("ringline_hello_timeouts_total") >= HALF_OPEN as f64);
}
