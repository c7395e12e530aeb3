//! Ends: ours, theirs, and those nobody wanted.

use super::rig::*;
use crate::front::{
    CloseReason, ConnectionToken, Front, FrontConfig, FrontError, FrontEvent, ListenerConfig, SendRefused,
};
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use wire_protocol::limits::ALPN_NATIVE;

/// Answers the first frame with a lot and closes.
fn answer_and_close(front: &mut Front, event: FrontEvent) {
    if let FrontEvent::Frame { token, payload } = event {
        if payload != b"go"[..] {
            return;
        }
        (0..20).for_each(|_| front.send(token, &[3; 10_000]).expect("room in the outbox"));
        front.close(token);
        assert_eq!(front.send(token, b"more"), Err(SendRefused::Gone));
        front.close(token);
    }
}

#[test]
fn everything_queued_is_sent_before_our_close() {
    let mut front = front(16, 16);
    let mut seen = Seen::default();
    let mut handler = |front: &mut Front, event: FrontEvent| match event {
        FrontEvent::Closed { token, reason } => seen.closed.push((token, reason)),
        other => answer_and_close(front, other),
    };
    run(&mut front, &mut handler, |at| {
        let mut client = Frames::new(secure(connect(at.tls), &client_config(&[ALPN_NATIVE])));
        client.write(b"go");
        // What the client says meanwhile must not turn the end into a reset.
        (0..10).for_each(|_| client.write(b"and another thing"));
        (0..20).for_each(|_| assert_eq!(client.read().expect("an answer").len(), 10_000));
        assert_eq!(client.read(), None);

        let mut client = Frames::new(connect(at.plain));
        client.write(b"go");
        (0..20).for_each(|_| assert_eq!(client.read().expect("an answer").len(), 10_000));
        assert_eq!(client.read(), None);
    });
    settle(&mut front, 0, &mut handler);
    assert_eq!(seen.reasons(), [CloseReason::Ours, CloseReason::Ours]);
}

#[test]
fn a_client_that_reads_nothing_is_cut_off_at_the_close_deadline() {
    let mut front = front(16, 16);
    let mut closed = Vec::new();
    let mut stuck = None;
    let mut sent = 0u32;
    let fill = |front: &mut Front, token, sent: &mut u32| {
        while front.send(token, &[0; 10_000]).is_ok() {
            *sent += 1;
        }
    };
    let clients = run(
        &mut front,
        &mut |front, event| match event {
            FrontEvent::Frame { token, payload } => match &payload[..] {
                b"fill" => {
                    stuck = Some(token);
                    fill(front, token, &mut sent);
                }
                b"count" => front.send(token, &sent.to_be_bytes()).expect("room"),
                _ => {
                    let stuck = stuck.expect("filled before");
                    assert!(front.queued_bytes(stuck) > 100_000, "the test must reach what it is about");
                    front.close(stuck);
                    front.send(token, b"closing").expect("room");
                }
            },
            FrontEvent::Drained { token } => fill(front, token, &mut sent),
            FrontEvent::Closed { reason, .. } => closed.push(reason),
            _ => {}
        },
        |at| {
            let mut client = Frames::new(connect(at.plain));
            client.write(b"fill");
            let mut other = Frames::new(connect(at.plain));
            // Until the kernel has taken nothing more for a while.
            let mut last = Vec::new();
            while last.len() < 50 {
                other.write(b"count");
                let count = other.read().expect("a count");
                if last.last().is_some_and(|before| *before != count) || count[..] == [0; 4] {
                    last.clear();
                }
                last.push(count);
            }
            other.echo_other(b"close", b"closing");
            (client, other)
        },
    );
    assert!(closed.is_empty());
    let mut events = Vec::new();
    let deadline_ms = front.next_deadline_ms().expect("a deadline");
    for now_ms in [deadline_ms - 1, deadline_ms] {
        front.turn(now_ms, &mut events);
        front.flush(now_ms);
        let expected = usize::from(now_ms == deadline_ms);
        let cut_off = |event: &&FrontEvent| {
            matches!(event, FrontEvent::Closed { reason: CloseReason::CloseTimeout, .. })
        };
        assert_eq!(events.iter().filter(cut_off).count(), expected);
    }
    drop(clients);
}

#[test]
fn tokens_of_the_past_do_nothing() {
    let mut front = front(4, 4);
    let mut tokens: Vec<ConnectionToken> = Vec::new();
    run(
        &mut front,
        &mut |front, event| match event {
            FrontEvent::Frame { token, payload } => {
                for old in &tokens {
                    assert_eq!(front.send(*old, b"to whom?"), Err(SendRefused::Gone));
                    assert_eq!(front.queued_bytes(*old), 0);
                    front.close(*old);
                    front.abort(*old);
                    front.pause(*old);
                    front.resume(*old);
                }
                front.send(token, &payload).expect("room");
                tokens.push(token);
            }
            FrontEvent::Closed { reason, .. } => assert_eq!(reason, CloseReason::Peer),
            _ => {}
        },
        |at| {
            for round in 0..50 {
                let mut client = Frames::new(connect(at.plain));
                client.echo(&[round]);
                client.stream.shutdown(std::net::Shutdown::Write).expect("shut");
                assert_eq!(client.read(), None);
            }
        },
    );
    let unknown = ConnectionToken { slot: u32::MAX, generation: 1 };
    assert_eq!(front.send(unknown, b""), Err(SendRefused::Gone));
    front.close(unknown);
    assert_eq!(front.metrics().frames_received, 50);
}

#[test]
fn a_reset_is_told_once() {
    let mut front = front(16, 16);
    let mut seen = Seen::default();
    run(&mut front, &mut |front, event| seen.echo(front, event), |at| {
        let mut client = Frames::new(secure(connect(at.tls), &client_config(&[ALPN_NATIVE])));
        client.echo(b"ping");
        SockRef::from(&client.stream.sock).set_linger(Some(std::time::Duration::ZERO)).expect("an option");
    });
    settle(&mut front, 0, &mut |front, event| seen.echo(front, event));
    assert_eq!(seen.reasons(), [CloseReason::Socket(104)]);
}

#[test]
fn a_front_torn_down_under_load_lets_go_of_everything() {
    let mut clients = {
        let mut front = front(64, 64);
        run(
            &mut front,
            &mut |front, event| {
                if let FrontEvent::Frame { token, .. } = event {
                    while front.send(token, &[7; 10_000]).is_ok() {}
                }
            },
            |at| {
                let config = client_config(&[ALPN_NATIVE]);
                let open = |_| {
                    let mut client = Frames::new(secure(connect(at.tls), &config));
                    client.write(b"fill");
                    client.read().expect("the beginning");
                    client
                };
                (0..20).map(open).collect::<Vec<_>>()
            },
        )
    };
    for client in &mut clients {
        let mut rest = Vec::new();
        // A cut, not an end: there was no time for close_notify.
        assert!(client.stream.read_to_end(&mut rest).is_err());
    }
}

#[test]
fn accepting_can_be_stopped_for_good() {
    let mut front = front(16, 16);
    run(
        &mut front,
        &mut |front, event| {
            if let FrontEvent::Frame { .. } = &event {
                front.stop_accepting();
            }
            echo(front, event);
        },
        |at| {
            let mut inside = Frames::new(connect(at.plain));
            inside.echo(b"stop");
            let mut outside = connect(at.plain);
            outside.write_all(b"\x01x").expect("the kernel takes it");
            inside.echo(b"still served");
            outside.set_nonblocking(true).expect("an option");
            assert!(outside.read(&mut [0; 1]).is_err(), "nobody answers");
        },
    );
    assert_eq!(front.metrics().accepted, 1);
}

#[test]
fn a_front_that_cannot_be_is_refused() {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let make = |address, tls, connections_max| {
        Front::new(FrontConfig {
            listeners: vec![ListenerConfig { address, tls }],
            tls: None,
            connections_max,
            ring_connections_max: 16,
            websocket_origins: Vec::new(),
            addresses: Default::default(),
            accepts: None,
        })
        .err()
    };
    assert!(matches!(make(local, true, 16), Some(FrontError::TlsMissing(_))));
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    assert!(matches!(make(everywhere, false, 16), Some(FrontError::PlainNotLoopback(_))));
    assert!(matches!(make(local, false, 0), Some(FrontError::ConnectionsMax(0))));
    assert!(matches!(make(local, false, 1), Some(FrontError::ConnectionsMax(1))), "none beside an accept");
    let taken = std::net::TcpListener::bind(local).expect("a free port");
    let taken_address = taken.local_addr().expect("bound");
    assert!(matches!(make(taken_address, false, 16), Some(FrontError::Listen { .. })));
    assert!(make(local, false, 16).is_none());
}
