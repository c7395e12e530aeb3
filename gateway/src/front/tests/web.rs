//! Browsers and other HTTP clients.

use super::rig::*;
use crate::clock::moment;
use crate::front::{CloseReason, FrameFault, Front, FrontEvent, TransportKind};
use bytes::{Bytes, BytesMut};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use wire_protocol::limits::ALPN_HTTP;
use wire_protocol::websocket::{CloseCode, Decoder, Item, Outgoing, encode, upgrade_request};

const MASK: [u8; 4] = [1, 2, 3, 4];

/// A browser, nearly.
struct Browser<S> {
    stream: S,
    decoder: Decoder,
}

impl<S: Read + Write> Browser<S> {
    /// Upgrades, with one more header line.
    fn open(mut stream: S, host: &str, header: &str) -> Self {
        let (status, rest) = upgrade(&mut stream, host, header);
        assert!(status.starts_with("HTTP/1.1 101 "), "{status}");
        let mut decoder = Decoder::for_client(1 << 20);
        decoder.push(&rest);
        Self { stream, decoder }
    }

    fn send(&mut self, item: Outgoing<'_>) {
        let mut frame = BytesMut::new();
        encode(item, Some(MASK), &mut frame);
        self.stream.write_all(&frame).expect("sent");
        self.stream.flush().expect("sent");
    }

    fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.decoder.next_item().expect("frames") {
                return Some(item);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes).expect("bytes, or a clean end") {
                0 => return None,
                read => self.decoder.push(&bytes[..read]),
            }
        }
    }
}

/// Sends an upgrade request; the answer's head, and what came after it.
fn upgrade<S: Read + Write>(stream: &mut S, host: &str, header: &str) -> (String, Vec<u8>) {
    let (request, _) = upgrade_request(host, [7; 16]);
    let request = String::from_utf8(request.to_vec()).expect("text");
    let request = request.replacen("\r\n\r\n", &format!("\r\n{header}\r\n"), 1);
    stream.write_all(request.as_bytes()).expect("sent");
    stream.flush().expect("sent");
    read_head(stream)
}

fn read_head(stream: &mut impl Read) -> (String, Vec<u8>) {
    let mut read = Vec::new();
    loop {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).expect("bytes");
        assert!(count > 0, "the head ends");
        read.extend_from_slice(&bytes[..count]);
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = read.split_off(end + 4);
            return (String::from_utf8(read).expect("text"), rest);
        }
    }
}

#[test]
fn a_browser_upgrades_talks_and_closes() {
    let mut front = front(16, 16);
    let mut seen = Seen::default();
    let mut kinds = Vec::new();
    run(
        &mut front,
        &mut |front, event| {
            if let FrontEvent::Opened { kind, secure, .. } = &event {
                kinds.push((kind.clone(), *secure));
            }
            seen.echo(front, event);
        },
        |at| {
            let stream = secure(connect(at.tls), &client_config(&[ALPN_HTTP]));
            let mut browser = Browser::open(stream, "chat.example", "Origin: https://chat.example\r\n");
            browser.send(Outgoing::Binary(b"hello"));
            assert_eq!(browser.next(), Some(Item::Binary(Bytes::from_static(b"hello"))));
            browser.send(Outgoing::Ping(b"there?"));
            assert_eq!(browser.next(), Some(Item::Pong(Bytes::from_static(b"there?"))));
            browser.send(Outgoing::Binary(&[5; 50_000]));
            assert_eq!(browser.next(), Some(Item::Binary(Bytes::from(vec![5; 50_000]))));
            browser.send(Outgoing::Close(Some(CloseCode::GOING_AWAY), ""));
            let answer = Item::Close { code: Some(CloseCode::GOING_AWAY), reason: String::new() };
            assert_eq!(browser.next(), Some(answer));
            assert_eq!(browser.next(), None);
        },
    );
    settle(&mut front, 0, &mut |front, event| seen.echo(front, event));
    let origin = Some("https://chat.example".to_owned());
    assert_eq!(kinds, [(TransportKind::WebSocket { origin }, true)]);
    assert_eq!(seen.reasons(), [CloseReason::Peer]);
}

#[test]
fn other_origins_are_refused_and_friends_are_not() {
    let mut front = front(16, 16);
    run(&mut front, &mut echo, |at| {
        for (secured, origin, status) in [
            (true, "Origin: https://chat.example\r\n", 101),
            (true, "Origin: https://friend.example\r\n", 101),
            (true, "", 101),
            (true, "Origin: https://evil.example\r\n", 403),
            (true, "Origin: http://chat.example\r\n", 403),
            (true, "Origin: null\r\n", 403),
            (false, "Origin: http://chat.example\r\n", 101),
            (false, "Origin: http://evil.example\r\n", 403),
        ] {
            let (head, rest) = match secured {
                true => {
                    let mut stream = secure(connect(at.tls), &client_config(&[ALPN_HTTP]));
                    upgrade(&mut stream, "chat.example", origin)
                }
                false => upgrade(&mut connect(at.plain), "chat.example", origin),
            };
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{origin}: {head}");
            assert!(status == 101 || !rest.is_empty(), "a refusal names the culprit");
        }
    });
    assert_eq!(front.metrics().upgrades_refused, 4);
}

#[test]
fn an_upgrade_without_our_protocol_or_with_another_version_is_refused() {
    let mut front = front(16, 16);
    run(&mut front, &mut echo, |at| {
        let head = "GET /v1/socket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
        let key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
        for (rest, status) in [
            (format!("{key}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: other\r\n\r\n"), 400),
            (format!("{key}Sec-WebSocket-Version: 8\r\nSec-WebSocket-Protocol: ringline.v1\r\n\r\n"), 426),
            ("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ringline.v1\r\n\r\n".to_owned(), 400),
        ] {
            let mut stream = connect(at.plain);
            stream.write_all(format!("{head}{rest}").as_bytes()).expect("sent");
            let (answer, _) = read_head(&mut stream);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
    });
}

#[test]
fn text_and_broken_frames_are_told_and_closed() {
    let mut front = front(16, 16);
    let mut seen = Seen::default();
    run(&mut front, &mut |front, event| seen.echo(front, event), |at| {
        let open = || Browser::open(connect(at.plain), "a", "");
        let closes_with = |mut browser: Browser<_>, code| {
            assert_eq!(browser.next(), Some(Item::Close { code: Some(code), reason: String::new() }));
            assert_eq!(browser.next(), None);
        };
        let mut browser = open();
        browser.stream.write_all(b"\x81\x82\0\0\0\0hi").expect("sent");
        closes_with(browser, CloseCode::UNSUPPORTED);
        let mut unmasked = open();
        unmasked.stream.write_all(b"\x82\x02hi").expect("sent");
        closes_with(unmasked, CloseCode::PROTOCOL_ERROR);
        // A mebibyte, as announced: nothing of it has to be sent.
        let mut large = open();
        large.stream.write_all(&[0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 1, 2, 3, 4]).expect("sent");
        closes_with(large, CloseCode::TOO_LARGE);
    });
    assert_eq!(seen.faults, [FrameFault::Text, FrameFault::Malformed, FrameFault::TooLarge]);
}

/// What an HTTP library would see.
#[derive(Default)]
struct Requests {
    bytes: Vec<u8>,
    peers: Vec<(SocketAddr, bool)>,
    ends: usize,
    closed: Vec<CloseReason>,
}

impl Requests {
    /// Answers and closes when the request holds `end`.
    fn serve(&mut self, front: &mut Front, event: FrontEvent, end: &[u8]) {
        let token = match event {
            FrontEvent::Http { token, peer, secure, first } => {
                self.peers.push((peer, secure));
                self.bytes.extend_from_slice(&first);
                token
            }
            FrontEvent::HttpBytes { token, bytes } => {
                self.bytes.extend_from_slice(&bytes);
                token
            }
            FrontEvent::HttpEof { .. } => return self.ends += 1,
            FrontEvent::Closed { reason, .. } => return self.closed.push(reason),
            other => panic!("{other:?}"),
        };
        if self.bytes.ends_with(end) {
            front.send_raw(token, Bytes::from_static(b"HTTP/1.1 200 OK\r\n\r\n")).expect("room");
            front.send_raw(token, Bytes::from(vec![b'b'; 100_000])).expect("room");
            front.close(token);
        }
    }
}

#[test]
fn other_http_is_passed_on_byte_for_byte() {
    // Bare line feeds, two lengths, a folded header: nothing of it is ours to judge.
    let requests: [&[u8]; 4] = [
        b"POST /v1/login HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n{}!",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n!",
        b"GET /v1/socket/other HTTP/1.0\nHost: a\n\n!",
        b"PATCH / HTTP/9.9\r\n : broken\r\n\r\n!",
    ];
    for request in requests {
        for secured in [true, false] {
            let mut front = front(16, 16);
            let mut seen = Requests::default();
            let client_address =
                run(&mut front, &mut |front, event| seen.serve(front, event, b"!"), move |at| {
                    let socket = connect(if secured { at.tls } else { at.plain });
                    let address = socket.local_addr().expect("connected");
                    let mut answer = Vec::new();
                    if secured {
                        let mut stream = secure(socket, &client_config(&[ALPN_HTTP]));
                        stream.write_all(request).expect("sent");
                        stream.read_to_end(&mut answer).expect("a clean end");
                    } else {
                        let mut stream = socket;
                        let (first, second) = request.split_at(request.len() / 2);
                        stream.write_all(first).expect("sent");
                        stream.write_all(second).expect("sent");
                        stream.read_to_end(&mut answer).expect("a clean end");
                    }
                    assert_eq!(answer.len(), 19 + 100_000);
                    address
                });
            settle(&mut front, 0, &mut |front, event| seen.serve(front, event, b"!"));
            assert_eq!(seen.bytes, request);
            assert_eq!(seen.peers, [(client_address, secured)]);
            assert_eq!(seen.closed, [CloseReason::Ours]);
        }
    }
}

#[test]
fn an_http_client_may_end_its_half_and_still_read() {
    let mut front = front(16, 16);
    let mut seen = Requests::default();
    run(
        &mut front,
        &mut |front, event| match event {
            FrontEvent::HttpEof { token } => {
                front.send_raw(token, Bytes::from_static(b"late")).expect("room");
                front.close(token);
            }
            other => seen.serve(front, other, b"never"),
        },
        |at| {
            let mut stream = connect(at.plain);
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
            stream.shutdown(Shutdown::Write).expect("shut");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).expect("a clean end");
            assert_eq!(answer, b"late");
        },
    );
}

#[test]
fn a_head_that_does_not_end_is_refused() {
    let mut front = front(16, 16);
    run(&mut front, &mut |_, event| panic!("{event:?}"), |at| {
        let mut stream = connect(at.plain);
        stream.write_all(b"GET /v1/socket HTTP/1.1\r\n").expect("sent");
        let line = b"Cookie: 0123456789012345678901234567890123456789012345678901\r\n";
        (0..200).for_each(|_| stream.write_all(line).expect("sent"));
        let (answer, _) = read_head(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    });
}

#[test]
fn an_upload_can_be_held_up_and_goes_on() {
    let mut front = front(16, 16);
    let mut upload = None;
    let mut received = 0;
    let written = run(
        &mut front,
        &mut |front, event| match event {
            FrontEvent::Http { token, first, .. } => {
                front.pause(token);
                received += first.len();
                upload = Some(token);
            }
            FrontEvent::HttpBytes { bytes, .. } => {
                assert!(bytes.iter().enumerate().all(|(at, &byte)| byte == upload_byte(received + at)));
                received += bytes.len();
            }
            FrontEvent::Frame { token, payload } => {
                match &payload[..] {
                    b"count" => front.send(token, &(received as u32).to_be_bytes()),
                    _ => {
                        front.resume(upload.expect("an upload"));
                        front.send(token, b"resumed")
                    }
                }
                .expect("room");
            }
            _ => {}
        },
        |at| {
            let mut control = Frames::new(connect(at.plain));
            let count = move |control: &mut Frames<_>| {
                control.write(b"count");
                u32::from_be_bytes(control.read().expect("a count")[..].try_into().expect("4 bytes")) as usize
            };
            let mut stream = connect(at.plain);
            stream.write_all(UPLOAD_HEAD).expect("sent");
            while count(&mut control) == 0 {}
            // Paused: write until the kernel takes no more. At most what is held and what it buffers gets in.
            stream.set_nonblocking(true).expect("an option");
            let mut written = UPLOAD_HEAD.len();
            while let Ok(bytes) = stream.write(&upload_bytes(written, 1 << 16)) {
                written += bytes;
                assert!(written < 64 << 20, "nothing holds it up");
            }
            assert_eq!(count(&mut control), UPLOAD_HEAD.len());
            control.echo_other(b"resume", b"resumed");
            stream.set_nonblocking(false).expect("an option");
            stream.write_all(&upload_bytes(written, 1 << 20)).expect("sent");
            written += 1 << 20;
            while count(&mut control) < written {}
            written
        },
    );
    assert_eq!(received, written);
}

#[test]
fn an_upload_that_comes_all_at_once_is_taken_in_shares_and_ends() {
    let mut front = front(16, 16);
    let mut stream = connect(addresses(&front).plain);
    stream.write_all(UPLOAD_HEAD).expect("sent");
    stream.write_all(&upload_bytes(UPLOAD_HEAD.len(), 200_000)).expect("sent");
    stream.shutdown(Shutdown::Write).expect("shut");
    let (mut received, mut largest, mut ends) = (0, 0, 0);
    let mut events = Vec::new();
    let started = moment();
    while ends == 0 {
        assert!(started.elapsed() < PATIENCE, "{received} bytes and no end");
        front.turn(0, &mut events);
        let before = received;
        for event in events.drain(..) {
            match event {
                FrontEvent::Http { first, .. } => received += first.len(),
                FrontEvent::HttpBytes { bytes, .. } => {
                    assert!(bytes.iter().enumerate().all(|(at, &byte)| byte == upload_byte(received + at)));
                    received += bytes.len();
                }
                FrontEvent::HttpEof { .. } => ends += 1,
                other => panic!("{other:?}"),
            }
        }
        largest = largest.max(received - before);
        front.flush(0);
    }
    assert_eq!(received, UPLOAD_HEAD.len() + 200_000);
    assert!(largest <= 64 * 1024 + 4 * 1024, "{largest} bytes in one turn");
}

#[test]
fn the_end_of_an_upload_that_was_held_up_is_not_lost() {
    let mut front = front(16, 16);
    let mut upload = None;
    let mut received = 0;
    let mut ends = 0;
    run(
        &mut front,
        &mut |front, event| match event {
            FrontEvent::Http { token, first, .. } => {
                front.pause(token);
                received += first.len();
                upload = Some(token);
            }
            FrontEvent::HttpBytes { bytes, .. } => received += bytes.len(),
            FrontEvent::HttpEof { token } => {
                ends += 1;
                front.close(token);
            }
            FrontEvent::Frame { token, payload } => {
                if payload == b"resume"[..] {
                    front.resume(upload.expect("an upload"));
                }
                front.send(token, &[u8::from(upload.is_some())]).expect("room");
            }
            _ => {}
        },
        |at| {
            let mut control = Frames::new(connect(at.plain));
            let mut ask = move |what: &[u8]| {
                control.write(what);
                control.read().expect("an answer")[0]
            };
            let mut stream = connect(at.plain);
            stream.write_all(UPLOAD_HEAD).expect("sent");
            while ask(b"here?") == 0 {}
            stream.write_all(&upload_bytes(0, 10_000)).expect("sent");
            stream.shutdown(Shutdown::Write).expect("shut");
            // The kernel hands over both, and they are held.
            for _ in 0..100 {
                ask(b"and now?");
            }
            ask(b"resume");
            assert_eq!(stream.read(&mut [0; 1]).expect("a clean end"), 0);
        },
    );
    assert_eq!((received, ends), (UPLOAD_HEAD.len() + 10_000, 1));
}

const UPLOAD_HEAD: &[u8] = b"POST / HTTP/1.1\r\n\r\n";

fn upload_byte(at: usize) -> u8 {
    (at % 251) as u8
}

fn upload_bytes(from: usize, bytes: usize) -> Vec<u8> {
    (from..from + bytes).map(upload_byte).collect()
}
