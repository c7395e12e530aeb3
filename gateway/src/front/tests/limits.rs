//! Full tables, slow readers, floods, and deadlines.

use super::rig::*;
use crate::admission::addresses::AddressLimits;
use crate::admission::rate::Rate;
use crate::front::{CloseReason, ConnectionToken, FrameFault, Front, FrontEvent, SendRefused};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use wire_protocol::limits::{ALPN_NATIVE, HELLO_FRAME_BYTES_MAX, HELLO_TIMEOUT_MS, OUTBOX_BYTES_MAX};

#[test]
fn a_thousand_clients_are_served_side_by_side() {
    let mut front = front(1_200, 1_200);
    let mut seen = Seen::default();
    run(&mut front, &mut |front, event| seen.echo(front, event), |at| {
        let config = client_config(&[ALPN_NATIVE]);
        let mut clients: Vec<_> = (0..1_000)
            .map(|index| {
                let mut client = match index % 4 {
                    0 => Client::Plain(Frames::new(connect(at.plain))),
                    _ => Client::Secure(Box::new(Frames::new(secure(connect(at.tls), &config)))),
                };
                // Who waited until all the others have come could be too late for its first frame.
                client.write(b"first");
                assert_eq!(client.read().as_deref(), Some(&b"first"[..]));
                client
            })
            .collect();
        for round in 0..3u32 {
            // All write before any reads.
            let payload = |index: usize| [round.to_be_bytes(), (index as u32).to_be_bytes()].concat();
            clients.iter_mut().enumerate().for_each(|(index, client)| client.write(&payload(index)));
            for (index, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.read().as_deref(), Some(&payload(index)[..]));
            }
        }
    });
    assert_eq!(front.metrics().frames_received, 4_000);
    settle(&mut front, 0, &mut |front, event| seen.echo(front, event));
    assert_eq!(seen.closed.len(), 1_000);
    assert_eq!(front.metrics().queued_bytes, 0);
}

#[test]
fn a_crowd_of_newcomers_is_taken_in_turns() {
    let mut front = front(256, 256);
    let at = addresses(&front);
    let config = client_config(&[ALPN_NATIVE]);
    let greet = |_| {
        let mut client = secure(connect(at.tls), &config);
        client.sock.set_nonblocking(true).expect("an option");
        client.conn.write_tls(&mut client.sock).expect("sent");
        client
    };
    let clients: Vec<_> = (0..100).map(greet).collect();
    let mut events = Vec::new();
    let mut answered = 0;
    let mut largest = 0;
    for _ in 0..100_000 {
        front.turn(0, &mut events);
        front.flush(0);
        let now = clients.iter().filter(|client| client.sock.peek(&mut [0]).is_ok()).count();
        largest = largest.max(now - answered);
        answered = now;
        if answered == clients.len() {
            break;
        }
    }
    assert_eq!(answered, clients.len());
    assert!((2..=16).contains(&largest), "{largest} handshakes in one turn");
}

#[test]
fn newcomers_wait_in_the_backlog_until_the_rate_lets_them_in() {
    let mut front = paced_front(Rate::per_second(10, 4));
    let at = addresses(&front);
    let mut events = Vec::new();
    let mut turns = |front: &mut Front, now_ms: u64, count: usize| {
        for _ in 0..count {
            front.turn(now_ms, &mut events);
            front.flush(now_ms);
        }
    };
    let start_ms = 1_000;
    turns(&mut front, start_ms, 3);
    let mut clients: Vec<_> = (0..10).map(|_| connect(at.plain)).collect();
    while front.metrics().accepts_slowed == 0 {
        turns(&mut front, start_ms, 1);
    }
    turns(&mut front, start_ms, 3);
    // The kernel may have accepted more before it was stopped; that is paid for afterwards.
    let taken = front.connection_count();
    assert!(taken > 4, "{taken}");
    let open_ms = start_ms + (taken as u64 - 4) * 100;
    assert_eq!(front.next_deadline_ms(), Some(open_ms));
    clients.push(connect(at.plain));
    turns(&mut front, open_ms - 1, 100);
    assert_eq!(front.connection_count(), taken);
    while front.connection_count() == taken {
        turns(&mut front, open_ms, 1);
    }
}

enum Client {
    Plain(Frames<std::net::TcpStream>),
    Secure(Box<Frames<TlsStream>>),
}

impl Client {
    fn write(&mut self, payload: &[u8]) {
        match self {
            Client::Plain(client) => client.write(payload),
            Client::Secure(client) => client.write(payload),
        }
    }

    fn read(&mut self) -> Option<bytes::Bytes> {
        match self {
            Client::Plain(client) => client.read(),
            Client::Secure(client) => client.read(),
        }
    }
}

#[test]
fn a_full_ring_lets_the_next_in_when_one_leaves() {
    let mut front = front(8, 8);
    run(&mut front, &mut echo, |at| {
        let mut inside: Vec<_> = (0..6).map(|_| Frames::new(connect(at.plain))).collect();
        inside.iter_mut().for_each(|client| client.echo(b"inside"));
        for _ in 0..20 {
            let mut outside = Frames::new(connect(at.plain));
            outside.write(b"hello?");
            inside.iter_mut().for_each(|client| client.echo(b"still served"));
            inside.remove(0);
            assert_eq!(outside.read().as_deref(), Some(&b"hello?"[..]));
            inside.push(outside);
        }
    });
    assert_eq!((front.metrics().accepted, front.metrics().accept_failures), (26, 0));
}

#[test]
fn a_full_front_lets_the_next_in_when_one_leaves() {
    // Three rings of 8, each of which accepts 6: a place is kept for each listener's accept.
    let mut front = front(24, 8);
    assert_eq!(front.ring_fds().len(), 3);
    run(&mut front, &mut echo, |at| {
        let open = |index: u8| {
            let mut client = Frames::new(connect(at.plain));
            client.echo(&[index]);
            client
        };
        let mut inside: Vec<_> = (0..18).map(open).collect();
        let mut outside = Frames::new(connect(at.plain));
        outside.write(b"hello?");
        outside.stream.set_read_timeout(Some(Duration::from_millis(50))).expect("an option");
        assert!(outside.stream.read(&mut [0; 1]).is_err(), "nobody has left");
        inside.iter_mut().for_each(|client| client.echo(b"still served"));
        // From each ring once.
        outside.stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        for leaves in [17, 9, 0] {
            inside.remove(leaves);
            assert_eq!(outside.read().as_deref(), Some(&b"hello?"[..]));
            inside.push(std::mem::replace(&mut outside, Frames::new(connect(at.plain))));
            outside.write(b"hello?");
        }
        inside.iter_mut().for_each(|client| client.echo(b"still served"));
    });
    assert_eq!(front.metrics().accept_failures, 0);
}

#[test]
fn a_client_that_does_not_read_is_refused_more_and_told_when_it_does() {
    for secured in [true, false] {
        let mut front = front(16, 16);
        let mut queued_max = 0;
        let mut sent = 0u32;
        let mut refused = 0;
        let mut drained = 0;
        let fill = |front: &mut Front, token: ConnectionToken, sent: &mut u32| loop {
            let payload = [&sent.to_be_bytes()[..], &[0; 996]].concat();
            match front.send(token, &payload) {
                Ok(()) => *sent += 1,
                Err(error) => break error,
            }
        };
        let read = run(
            &mut front,
            &mut |front, event| match event {
                FrontEvent::Frame { token, .. } | FrontEvent::Drained { token } => {
                    drained += u32::from(matches!(event, FrontEvent::Drained { .. }));
                    // Enough after 50 times a full outbox.
                    if drained < 50 {
                        assert_eq!(fill(front, token, &mut sent), SendRefused::Full);
                        refused += 1;
                        queued_max = queued_max.max(front.queued_bytes(token));
                    } else {
                        front.send(token, b"end").expect("room after a drain");
                    }
                }
                _ => {}
            },
            move |at| {
                let read_all = |client: &mut dyn FnMut() -> Option<bytes::Bytes>| {
                    let mut expected = 0u32;
                    while let Some(frame) = client() {
                        if frame == b"end"[..] {
                            break;
                        }
                        assert_eq!(frame[..4], expected.to_be_bytes(), "in order, without a gap");
                        expected += 1;
                    }
                    expected
                };
                if secured {
                    let mut client = Frames::new(secure(connect(at.tls), &client_config(&[ALPN_NATIVE])));
                    client.write(b"go");
                    read_all(&mut || client.read())
                } else {
                    let mut client = Frames::new(connect(at.plain));
                    client.write(b"go");
                    read_all(&mut || client.read())
                }
            },
        );
        assert_eq!(read, sent);
        assert!(queued_max <= OUTBOX_BYTES_MAX && queued_max > OUTBOX_BYTES_MAX - 1_100, "{queued_max}");
        assert_eq!((refused, front.metrics().outboxes_full), (50, 50));
    }
}

#[test]
fn a_client_that_asks_without_reading_is_no_longer_read() {
    let mut front = front(16, 16);
    let paused = Arc::new(AtomicBool::new(false));
    let seen = paused.clone();
    let mut queued_max = 0;
    let (written, read) = run(
        &mut front,
        &mut |front, event| {
            if let FrontEvent::Frame { token, payload } = event {
                front.send(token, &payload).expect("reading stops before the outbox is full");
                queued_max = queued_max.max(front.queued_bytes(token));
                paused.store(front.metrics().reads_paused > 0, Ordering::Relaxed);
            }
        },
        move |at| {
            let mut client = Frames::new(connect(at.plain));
            client.stream.set_nonblocking(true).expect("an option");
            let request = framed(&[1; 1_000]);
            let mut written = 0;
            // Until nothing goes in any more for want of room on the way back.
            loop {
                match client.stream.write(&request[written % request.len()..]) {
                    Ok(bytes) => written += bytes,
                    Err(_) if seen.load(Ordering::Relaxed) => break,
                    Err(_) => std::thread::yield_now(),
                }
                assert!(written < 64 << 20, "nothing holds it up");
            }
            client.stream.set_nonblocking(false).expect("an option");
            let rest = (request.len() - written % request.len()) % request.len();
            let mut writer = client.stream.try_clone().expect("a clone");
            let last = request[request.len() - rest..].to_vec();
            let writer = std::thread::spawn(move || writer.write_all(&last).expect("sent"));
            let requests = (written + rest) / request.len();
            let mut read = 0;
            while read < requests {
                assert_eq!(client.read().expect("an answer").len(), 1_000);
                read += 1;
            }
            writer.join().expect("the writer");
            (requests, read)
        },
    );
    assert_eq!(written, read, "every request was answered in the end");
    assert!(queued_max <= OUTBOX_BYTES_MAX);
    assert!(front.metrics().reads_paused > 0, "the test must reach what it is about");
}

#[test]
fn a_burst_of_small_frames_is_taken_in_shares_and_its_end_comes_last() {
    const FRAMES: u32 = 1_000;
    let mut front = front(16, 16);
    let (mut received, mut in_turn, mut turns) = (Vec::new(), 0, std::collections::BTreeMap::new());
    let mut ended = None;
    run(
        &mut front,
        &mut |front, event| match event {
            FrontEvent::Frame { payload, .. } => {
                received.push(payload);
                *turns.entry(front.shared.turn).or_insert(0) += 1;
                in_turn = in_turn.max(turns[&front.shared.turn]);
            }
            FrontEvent::Closed { reason, .. } => ended = Some((reason, received.len())),
            _ => {}
        },
        |at| {
            let mut client = secure(connect(at.tls), &client_config(&[ALPN_NATIVE]));
            let burst: Vec<u8> = (0..FRAMES).flat_map(|number| framed(&number.to_be_bytes())).collect();
            client.write_all(&burst).expect("it is taken");
            client.conn.send_close_notify();
            client.flush().expect("it is taken");
            assert_eq!(client.read(&mut [0; 16]).expect("a clean end"), 0);
        },
    );
    assert!(
        received
            .iter()
            .map(|frame| &frame[..])
            .eq((0..FRAMES).map(u32::to_be_bytes).collect::<Vec<_>>().iter())
    );
    assert_eq!(in_turn, 64, "others have their turn in between");
    assert_eq!(ended, Some((CloseReason::Peer, FRAMES as usize)), "the end came after them");
}

#[test]
fn whoever_says_nothing_is_closed_at_the_hello_deadline() {
    let mut front = front(16, 16);
    let mut seen = Seen::default();
    let clients = run(&mut front, &mut |front, event| seen.echo(front, event), |at| {
        let silent = connect(at.plain);
        let mut half_secured = connect(at.tls);
        half_secured.write_all(&[0x16, 3, 1]).expect("sent");
        let mut secured = secure(connect(at.tls), &client_config(&[ALPN_NATIVE]));
        while secured.conn.is_handshaking() {
            secured.conn.complete_io(&mut secured.sock).expect("a handshake");
        }
        let mut http = connect(at.plain);
        http.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
        let mut spoken = Frames::new(connect(at.plain));
        // The last to come: all were accepted when its answer is here.
        spoken.echo(b"ping");
        (silent, half_secured, secured, http, spoken)
    });
    let turn = |front: &mut Front, seen: &mut Seen, now_ms| {
        let mut events = Vec::new();
        front.turn(now_ms, &mut events);
        events.drain(..).for_each(|event| seen.echo(front, event));
        front.flush(now_ms);
    };
    assert_eq!(front.connection_count(), 5);
    let deadline_ms = front.next_deadline_ms().expect("a deadline");
    assert!((HELLO_TIMEOUT_MS..HELLO_TIMEOUT_MS + PATIENCE.as_millis() as u64).contains(&deadline_ms));
    turn(&mut front, &mut seen, deadline_ms - 1);
    assert_eq!(front.connection_count(), 5);
    turn(&mut front, &mut seen, deadline_ms + PATIENCE.as_millis() as u64);
    assert_eq!(front.connection_count(), 2, "a frame was sent, and a request");
    assert_eq!(front.next_deadline_ms(), None);
    // Only the one that had been introduced is missed.
    assert_eq!(seen.reasons(), [CloseReason::HelloTimeout]);
    assert_eq!(front.metrics().hello_timeouts, 3);
    let (mut silent, ..) = clients;
    assert!(matches!(silent.read(&mut [0; 1]), Ok(0) | Err(_)));
}

#[test]
fn whoever_broke_the_framing_is_closed_even_if_nobody_does_it() {
    let mut front = front(16, 16);
    let mut faults = 0;
    let client = run(
        &mut front,
        &mut |front, event| {
            if let FrontEvent::Malformed { token, .. } = event {
                faults += 1;
                front.send(token, b"heard").expect("one last frame");
            }
        },
        |at| {
            let mut client = Frames::new(connect(at.plain));
            client.write(&vec![0; HELLO_FRAME_BYTES_MAX + 1]);
            assert_eq!(client.read().as_deref(), Some(&b"heard"[..]));
            client
        },
    );
    assert_eq!((faults, front.connection_count()), (1, 1));
    let mut events = Vec::new();
    let deadline_ms = front.next_deadline_ms().expect("a deadline");
    front.turn(deadline_ms, &mut events);
    front.flush(deadline_ms);
    let is_malformed =
        |event: &FrontEvent| matches!(event, FrontEvent::Closed { reason: CloseReason::Malformed, .. });
    assert!(events.iter().any(is_malformed), "{events:?}");
    assert_eq!(front.connection_count(), 0);
    drop(client);
}

#[test]
fn a_stranger_may_not_send_large_frames_and_hears_why() {
    let mut front = front(16, 16);
    let mut faults = Vec::new();
    run(
        &mut front,
        &mut |front, event| {
            if let FrontEvent::Malformed { token, fault } = event {
                faults.push(fault);
                front.send(token, b"too large").expect("one last frame");
                front.close(token);
                assert_eq!(front.send(token, b"more"), Err(SendRefused::Gone));
            }
        },
        |at| {
            let mut client = Frames::new(secure(connect(at.tls), &client_config(&[ALPN_NATIVE])));
            client.write(&vec![0; HELLO_FRAME_BYTES_MAX + 1]);
            assert_eq!(client.read().as_deref(), Some(&b"too large"[..]));
            assert_eq!(client.read(), None);
        },
    );
    assert_eq!(faults, [FrameFault::TooLarge]);
}

#[test]
fn an_address_has_a_share_of_the_places_and_gets_each_back() {
    let limits = AddressLimits { connections_max: Some(3), connects: None };
    let mut front = limited_front(64, 64, identity().server.clone(), limits);
    run(&mut front, &mut echo, |at| {
        let mut inside: Vec<_> = (0..3).map(|_| Frames::new(connect(at.plain))).collect();
        inside.iter_mut().for_each(|client| client.echo(b"inside"));
        for _ in 0..10 {
            // Whichever listener, and before a word was said.
            assert!(is_closed(connect(at.plain)) && is_closed(connect(at.tls)));
            inside.iter_mut().for_each(|client| client.echo(b"still served"));
            drop(inside.pop());
            // The end is seen a moment later than the next client may come.
            let again = (0..1_000).find_map(|_| {
                let mut client = Frames::new(connect(at.plain));
                client.stream.write_all(&framed(b"hello?")).expect("sent");
                let answered = matches!(client.stream.read(&mut [0; 7]), Ok(7));
                answered.then_some(client)
            });
            inside.push(again.expect("a place was given back"));
        }
    });
    let metrics = front.metrics();
    assert!(metrics.refused_too_many >= 20 && metrics.refused_too_fast == 0, "{metrics:?}");
}

#[test]
fn a_flood_of_connections_from_one_address_is_cut_off_before_tls() {
    let limits = AddressLimits { connections_max: None, connects: Some(Rate::per_minute(1, 5)) };
    let mut front = limited_front(64, 64, identity().server.clone(), limits);
    run(&mut front, &mut echo, |at| {
        for _ in 0..5 {
            Frames::new(connect(at.plain)).echo(b"welcome");
        }
        for _ in 0..100 {
            assert!(is_closed(connect(at.tls)));
        }
    });
    let metrics = front.metrics();
    assert_eq!((metrics.refused_too_fast, metrics.refused_too_many, metrics.accepted), (100, 0, 105));
    assert_eq!(metrics.handshakes_failed, 0, "nothing of it was read");
}

/// The other side has ended, cleanly or not.
fn is_closed(mut stream: std::net::TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}
