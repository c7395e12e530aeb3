//! HTTP that means two things at once, or never ends.

use super::{assert_serves, half_close, raw, read_to_end};
use crate::server::{PATIENCE_S, Server};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use wire_protocol::limits::HTTP_BODY_BYTES_MAX;

/// A request that must never be answered: it is in the body of another one, if that has one.
const SMUGGLED: &str = "GET /v1/health/live HTTP/1.1\r\nHost: smuggled\r\n\r\n";
const POST: &str = "POST /v1/login HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n";

/// Connections whose bodies do not end.
const SLOW_BODIES: usize = 20;
/// The time that a body has, as `http/routes.rs` says in `BODY_MS_MAX`.
const BODY_TIME: Duration = Duration::from_secs(8);
/// How much later its end may be seen: a busy machine does everything later.
const LATE_MAX: Duration = Duration::from_secs(10);

/// The statuses of all answers to these bytes.
fn statuses(server: &Server, request: &str) -> Vec<u16> {
    let mut stream = raw(server.plain);
    // The server may be quicker to refuse than we to write all.
    let _ = stream.write_all(request.as_bytes());
    half_close(&stream);
    let answers = String::from_utf8_lossy(&read_to_end(&mut stream)).into_owned();
    answers.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().expect("a status")).collect()
}

/// What it is, the bytes, and the status they deserve.
pub type Case = (&'static str, String, u16);

/// Requests that mean two things at once.
pub fn doubtful() -> Vec<Case> {
    [disputed_bodies(), doubtful_heads()].concat()
}

/// Requests whose body ends in two places.
fn disputed_bodies() -> Vec<Case> {
    let length = SMUGGLED.len();
    vec![
        (
            "length, then chunks",
            format!(
                "{POST}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"
            ),
            411,
        ),
        (
            "chunks, then length",
            format!("{POST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{SMUGGLED}"),
            411,
        ),
        ("chunks", format!("{POST}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{SMUGGLED}"), 411),
        (
            "chunks behind a space",
            format!("{POST}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"),
            400,
        ),
        ("chunks behind a tab", format!("{POST}Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n{SMUGGLED}"), 411),
        ("another coding", format!("{POST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{SMUGGLED}"), 400),
        (
            "two codings",
            format!("{POST}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{SMUGGLED}"),
            400,
        ),
        (
            "coding twice",
            format!(
                "{POST}Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"
            ),
            411,
        ),
        (
            "a chunk's size that is none",
            format!("{POST}Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n{SMUGGLED}"),
            411,
        ),
        (
            "a chunk's size beyond 64 bits",
            format!("{POST}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{SMUGGLED}"),
            411,
        ),
    ]
}

/// Requests whose head can be read in two ways.
fn doubtful_heads() -> Vec<Case> {
    let length = SMUGGLED.len();
    vec![
        (
            "two lengths",
            format!("{POST}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}"),
            400,
        ),
        ("lengths in a list", format!("{POST}Content-Length: 0, {length}\r\n\r\n{SMUGGLED}"), 400),
        ("a signed length", format!("{POST}Content-Length: +0\r\n\r\n{SMUGGLED}"), 400),
        ("a negative length", format!("{POST}Content-Length: -1\r\n\r\n{SMUGGLED}"), 400),
        (
            "a length beyond 64 bits",
            format!("{POST}Content-Length: 99999999999999999999\r\n\r\n{SMUGGLED}"),
            400,
        ),
        ("a length in hexadecimal", format!("{POST}Content-Length: 0x10\r\n\r\n{SMUGGLED}"), 400),
        ("a folded header", format!("{POST}X: a\r\n Content-Length: 0\r\n\r\n{SMUGGLED}"), 400),
        ("a header without a name", format!("{POST}: x\r\n\r\n{SMUGGLED}"), 400),
        ("a zero byte", format!("{POST}X: a\0b\r\n\r\n{SMUGGLED}"), 400),
        ("a lone carriage return", format!("{POST}X: a\rContent-Length: 0\r\n\r\n{SMUGGLED}"), 400),
        ("a version that is none", format!("GET / HTTP/1.2\r\nHost: test\r\n\r\n{SMUGGLED}"), 400),
        ("a request of HTTP/2", format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SMUGGLED}"), 400),
    ]
}

#[test]
fn no_request_hides_in_another() {
    let server = Server::embedded();
    let ada = server.register("ada");
    for (what, request, status) in doubtful() {
        let answered = statuses(&server, &request);
        let refused = answered == [status] || (answered.is_empty() && request.starts_with("PRI"));
        assert!(refused, "{what}: {answered:?}, not {status}");
    }
    // As it should be: what follows a whole request is the next one.
    let pipelined = format!("{POST}Content-Length: 2\r\n\r\n{{}}{SMUGGLED}");
    assert_eq!(statuses(&server, &pipelined), [400, 200]);
    assert_serves(&server, &ada);
}

#[test]
fn heads_have_a_largest_size_and_a_time() {
    let server = Server::embedded();
    let ada = server.register("ada");
    assert_eq!(
        statuses(&server, &format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(9_000))),
        [431]
    );
    assert_eq!(statuses(&server, &format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(3_000))), [431]);
    assert_eq!(statuses(&server, &format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(70_000))), [431]);
    // A byte now and then keeps nothing open beyond the hello timeout.
    let started = Instant::now();
    let mut slow: Vec<_> = (0..20).map(|_| raw(server.plain)).collect();
    let mut open = slow.len();
    while open > 0 {
        assert!(started.elapsed() < Duration::from_secs(PATIENCE_S), "{open} are still open");
        open = slow
            .iter_mut()
            .filter_map(|stream| stream.write_all(b"GET / HTTP/1.1\r\nX: y"[..1].as_ref()).ok())
            .count();
        std::thread::park_timeout(Duration::from_millis(500));
    }
    assert_serves(&server, &ada);
}

/// A request whose body does not end.
struct SlowBody {
    stream: TcpStream,
    began: Instant,
    answer: Vec<u8>,
    /// From before its head to the first of its answer.
    answered: Option<Duration>,
    is_closed: bool,
}

impl SlowBody {
    fn new(server: &Server) -> Self {
        let began = Instant::now();
        let mut stream = raw(server.plain);
        stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket");
        write!(stream, "{POST}Content-Length: {HTTP_BODY_BYTES_MAX}\r\n\r\n{{").expect("sent");
        Self { stream, began, answer: Vec::new(), answered: None, is_closed: false }
    }

    /// Says the next byte of its body unless that was answered, and waits for a moment for what the server says.
    fn drip(&mut self) {
        if self.is_closed {
            return;
        }
        if self.answered.is_none() {
            // A server that has closed is found by the read.
            let _ = self.stream.write_all(b" ");
        }
        let mut buffer = [0; 1_024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.is_closed = true,
            Ok(bytes) => {
                self.answered.get_or_insert_with(|| self.began.elapsed());
                self.answer.extend(&buffer[..bytes]);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.is_closed = true,
        }
    }
}

#[test]
fn a_body_that_does_not_end_is_answered_when_its_time_is_over() {
    let server = Server::embedded();
    let ada = server.register("ada");
    let mut slow: Vec<SlowBody> = (0..SLOW_BODIES).map(|_| SlowBody::new(&server)).collect();
    assert_serves(&server, &ada);
    let began = Instant::now();
    while slow.iter().any(|body| !body.is_closed) {
        assert!(began.elapsed() < Duration::from_secs(PATIENCE_S), "some are never given up");
        slow.iter_mut().for_each(SlowBody::drip);
    }
    for SlowBody { answer, answered, .. } in &slow {
        let answer = String::from_utf8_lossy(answer);
        let is_right = answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"ERROR_TIMED_OUT\"");
        assert!(is_right, "{answer:?}");
        let answered = answered.expect("it has an answer");
        assert!((BODY_TIME..BODY_TIME + LATE_MAX).contains(&answered), "{answered:?}");
    }
    assert_serves(&server, &ada);
}

#[test]
fn a_websocket_from_another_page_is_refused() {
    let server = Server::embedded();
    let ada = server.register("ada");
    let upgrade = |origin: &str| {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        statuses(
            &server,
            &format!(
                "GET /v1/socket HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: ringline.v1\r\n{origin}\r\n",
                server.plain
            ),
        )
    };
    assert_eq!(upgrade(&format!("Origin: http://{}\r\n", server.plain)), [101]);
    for origin in
        ["http://evil.example", "null", "http://127.0.0.1", "https://127.0.0.1.evil.example", "file://"]
    {
        assert_eq!(upgrade(&format!("Origin: {origin}\r\n")), [403], "{origin}");
    }
    assert_serves(&server, &ada);
}
