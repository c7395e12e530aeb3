//! Native clients, with TLS and without.

use super::rig::*;
use crate::front::{CloseReason, FrontEvent, TransportKind};
use rustls::HandshakeKind;
use std::io::{Read, Write};
use std::net::Shutdown;
use wire_protocol::limits::ALPN_NATIVE;

#[test]
fn frames_are_echoed_over_tls() {
    let mut front = front(16, 16);
    let mut opened = Vec::new();
    let client_address = run(
        &mut front,
        &mut |front, event| {
            if let FrontEvent::Opened { peer, kind, secure, .. } = &event {
                opened.push((*peer, kind.clone(), *secure));
            }
            echo(front, event);
        },
        |at| {
            let stream = connect(at.tls);
            let address = stream.local_addr().expect("connected");
            let mut client = Frames::new(secure(stream, &client_config(&[ALPN_NATIVE])));
            client.echo(b"");
            client.echo(b"hello");
            // More than a record, and than a receive buffer.
            client.echo(&vec![7; 60_000]);
            assert_eq!(client.stream.conn.alpn_protocol(), Some(ALPN_NATIVE));
            address
        },
    );
    assert_eq!(opened, [(client_address, TransportKind::Native, true)]);
    let metrics = front.metrics();
    assert_eq!((metrics.handshakes_full, metrics.handshakes_resumed), (1, 0));
    assert_eq!((metrics.frames_received, metrics.frames_sent), (3, 3));
}

#[test]
fn many_frames_queued_in_one_turn_leave_in_full_records() {
    let mut front = front(16, 16);
    let records = run(
        &mut front,
        &mut |front, event| {
            if let FrontEvent::Frame { token, .. } = event {
                (0..300).for_each(|_| front.send(token, &[1; 100]).expect("room in the outbox"));
            }
        },
        |at| {
            let mut client =
                Frames::new(secure(Counting::new(connect(at.tls)), &client_config(&[ALPN_NATIVE])));
            client.write(b"all");
            (0..300).for_each(|_| assert_eq!(client.read().as_deref(), Some(&[1; 100][..])));
            client.stream.sock.application_records()
        },
    );
    // 300 frames of 101 bytes are 30,300 bytes: two records.
    assert_eq!(records, 2);
}

#[test]
fn without_alpn_the_first_bytes_tell() {
    let mut front = front(16, 16);
    let mut kinds = Vec::new();
    run(
        &mut front,
        &mut |front, event| {
            if let FrontEvent::Opened { kind, secure, .. } = &event {
                kinds.push((kind.clone(), *secure));
            }
            echo(front, event);
        },
        |at| {
            Frames::new(secure(connect(at.tls), &client_config(&[]))).echo(b"sniffed");
            Frames::new(connect(at.plain)).echo(b"plain");
            // 71 bytes: the length looks like the G of GET.
            Frames::new(connect(at.plain)).echo(&[b'E'; 71]);
        },
    );
    assert_eq!(
        kinds,
        [(TransportKind::Native, true), (TransportKind::Native, false), (TransportKind::Native, false)]
    );
}

#[test]
fn a_ticket_resumes_the_session() {
    let mut front = front(16, 16);
    run(&mut front, &mut echo, |at| {
        let config = client_config(&[ALPN_NATIVE]);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let mut client = Frames::new(secure(connect(at.tls), &config));
            // The ticket comes with the first answer at the latest.
            client.echo(b"ping");
            assert_eq!(client.stream.conn.handshake_kind(), Some(expected));
        }
    });
    let metrics = front.metrics();
    assert_eq!((metrics.handshakes_full, metrics.handshakes_resumed), (1, 2));
}

#[test]
fn bytes_may_come_one_at_a_time() {
    let mut front = front(16, 16);
    run(&mut front, &mut echo, |at| {
        let mut client = Frames::new(secure(Dripping(connect(at.tls)), &client_config(&[ALPN_NATIVE])));
        client.echo(b"slowly");
        client.echo(b"but surely");
        Frames::new(Dripping(connect(at.plain))).echo(b"plain, too");
    });
    assert_eq!(front.metrics().handshakes_full, 1);
}

#[test]
fn a_clean_end_is_answered_with_a_clean_end() {
    let mut front = front(16, 16);
    let mut seen = Seen::default();
    run(&mut front, &mut |front, event| seen.echo(front, event), |at| {
        let mut client = Frames::new(secure(connect(at.tls), &client_config(&[ALPN_NATIVE])));
        client.echo(b"ping");
        client.stream.conn.send_close_notify();
        client.stream.flush().expect("sent");
        // rustls gives an end without close_notify as an error.
        assert_eq!(client.read(), None);

        let mut client = Frames::new(connect(at.plain));
        client.echo(b"ping");
        client.stream.shutdown(Shutdown::Write).expect("shut");
        assert_eq!(client.read(), None);
    });
    settle(&mut front, 0, &mut |front, event| seen.echo(front, event));
    assert_eq!(seen.reasons(), [CloseReason::Peer, CloseReason::Peer]);
}

#[test]
fn garbage_instead_of_a_client_hello_is_answered_with_an_alert() {
    let mut front = front(16, 16);
    let mut seen = Seen::default();
    run(&mut front, &mut |front, event| seen.echo(front, event), |at| {
        for garbage in
            [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff], &[0xff; 100]]
        {
            let mut client = connect(at.tls);
            client.write_all(garbage).expect("sent");
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).expect("a clean end, not a reset");
            assert_eq!((answer[0], answer.len()), (0x15, 7), "one alert record: {answer:?}");
        }
    });
    assert!(seen.opened.is_empty());
    assert_eq!(front.metrics().handshakes_failed, 3);
}

#[test]
fn a_forged_record_ends_the_connection() {
    let mut front = front(16, 16);
    let mut seen = Seen::default();
    run(&mut front, &mut |front, event| seen.echo(front, event), |at| {
        let mut client = Frames::new(secure(connect(at.tls), &client_config(&[ALPN_NATIVE])));
        client.echo(b"ping");
        let mut forged = vec![0x17, 3, 3, 0, 40];
        forged.extend([9; 40]);
        client.stream.sock.write_all(&forged).expect("sent");
        let error = client.stream.read(&mut [0; 1]).expect_err("an alert");
        assert!(error.to_string().contains("BadRecordMac"), "{error}");
    });
    settle(&mut front, 0, &mut |front, event| seen.echo(front, event));
    assert_eq!(seen.reasons(), [CloseReason::Tls]);
    assert_eq!(front.metrics().handshakes_failed, 0);
}

/// Writes one byte in each call.
struct Dripping(std::net::TcpStream);

impl Read for Dripping {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(bytes)
    }
}

impl Write for Dripping {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Keeps what it reads, to count records.
struct Counting {
    stream: std::net::TcpStream,
    read: Vec<u8>,
}

impl Counting {
    fn new(stream: std::net::TcpStream) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// Records of application data with more than a ticket's few hundred bytes.
    fn application_records(&self) -> usize {
        let mut records = 0;
        let mut rest = &self.read[..];
        while let [kind, _, _, high, low, body @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            records += usize::from(*kind == 0x17 && length > 4_096);
            rest = &body[length..];
        }
        records
    }
}

impl Read for Counting {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let read = self.stream.read(bytes)?;
        self.read.extend_from_slice(&bytes[..read]);
        Ok(read)
    }
}

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

#[test]
fn a_client_may_change_its_keys_at_any_time() {
    let mut front = front(16, 16);
    run(&mut front, &mut echo, |at| {
        let mut client = Frames::new(secure(connect(at.tls), &client_config(&[ALPN_NATIVE])));
        for number in 0..50u8 {
            client.echo(&[number; 100]);
            client.stream.conn.refresh_traffic_keys().expect("the handshake is over");
        }
        client.echo(b"under the last keys");
    });
}

#[test]
fn a_client_that_does_nothing_but_change_its_keys_is_ended() {
    let mut front = front(16, 16);
    let mut seen = Seen::default();
    run(&mut front, &mut |front, event| seen.echo(front, event), |at| {
        let mut client = Frames::new(secure(connect(at.tls), &client_config(&[ALPN_NATIVE])));
        client.echo(b"hello");
        for _ in 0..1_000 {
            client.stream.conn.refresh_traffic_keys().expect("the handshake is over");
        }
        // All of it in one piece; the server may end it before it has read the last.
        let _ = client.stream.flush();
        assert!(client.stream.read(&mut [0; 1]).is_err(), "ended by an alert, or a reset");
    });
    assert_eq!(seen.reasons(), [CloseReason::Tls]);
}

#[test]
fn a_protocol_that_is_not_ours_is_refused_by_tls() {
    let mut front = front(16, 16);
    run(&mut front, &mut echo, |at| {
        let mut stream = secure(connect(at.tls), &client_config(&[b"h2"]));
        let error = stream.read(&mut [0; 1]).expect_err("no protocol in common");
        assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    });
    assert_eq!(front.metrics().handshakes_failed, 1);
}
