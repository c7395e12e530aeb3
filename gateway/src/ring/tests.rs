//! The ring against real sockets: what the kernel does at its edges, and what may never happen.

use super::*;
use crate::listen;
use monoio::net::UnixStream;
use socket2::{Domain, Socket, Type};
use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

/// A silent ring is a failed test, not a hanging one.
const PATIENCE: Duration = Duration::from_secs(20);

const CONFIG: RingConfig =
    RingConfig { connections_max: 64, accepts: 8, receive_buffers: 16, receive_buffer_bytes: 1024 };

/// A ring with one listener, inside a runtime.
struct Rig {
    ring: ClientRing,
    readable: UnixStream,
    address: SocketAddr,
    buffers: SendBuffers,
}

fn run<T>(config: RingConfig, listener: TcpListener, test: impl AsyncFnOnce(&mut Rig) -> T) -> T {
    run_on(config, vec![listener], test)
}

/// With several listeners, of which the rig connects to the first.
fn run_on<T>(config: RingConfig, listeners: Vec<TcpListener>, test: impl AsyncFnOnce(&mut Rig) -> T) -> T {
    let runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build();
    runtime.expect("a runtime").block_on(async {
        let address = listeners[0].local_addr().expect("bound");
        let listeners = listeners.into_iter().map(Rc::new).collect();
        let mut ring = ClientRing::new(config, listeners).expect("a ring");
        ring.start_accepting();
        ring.submit();
        let descriptor = ring.descriptor().try_clone_to_owned().expect("a descriptor");
        let readable = UnixStream::from_std(descriptor.into()).expect("a stream");
        let mut rig = Rig { ring, readable, address, buffers: SendBuffers::default() };
        test(&mut rig).await
    })
}

fn listener() -> TcpListener {
    listen::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port")
}

/// Accepted sockets inherit the smallest send buffer the kernel gives.
fn listener_with_tiny_send_buffer() -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_send_buffer_size(1).expect("an option");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    socket.listen(64).expect("listening");
    socket.into()
}

impl Rig {
    /// Connects without waiting to be accepted: the kernel does that by itself.
    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).expect("a connection");
        client.set_read_timeout(Some(PATIENCE)).expect("an option");
        client
    }

    /// Small receive window, so that little suffices to fill the way to this client.
    fn connect_with_small_window(&self) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4_096).expect("an option");
        socket.connect(&self.address.into()).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option");
        socket.into()
    }

    async fn next(&mut self) -> RingEvent {
        patiently(async {
            loop {
                if let Some(event) = self.ring.next_event(&mut 64) {
                    return event;
                }
                self.ring.submit();
                if let Some(event) = self.ring.next_event(&mut 64) {
                    return event;
                }
                self.ring.submit();
                self.readable.readable(false).await.expect("a pollable ring");
            }
        })
        .await
    }

    async fn accept(&mut self) -> SlotToken {
        match self.next().await {
            RingEvent::Accepted { token, .. } => token,
            other => panic!("not accepted but {other:?}"),
        }
    }

    /// The next bytes, which must be of this connection; the buffer goes back at once.
    async fn receive(&mut self, of: SlotToken) -> Vec<u8> {
        match self.next().await {
            RingEvent::Received { token, mut buffer } => {
                assert_eq!(token, of);
                let bytes = self.ring.bytes_mut(&mut buffer).to_vec();
                self.ring.give_back(buffer);
                bytes
            }
            other => panic!("no bytes but {other:?}"),
        }
    }

    fn buffer(&mut self, bytes: &[u8]) -> SendBuffer {
        let mut buffer = self.buffers.take(bytes.len());
        assert_eq!(buffer.append(bytes), bytes.len());
        buffer
    }

    fn send(&mut self, token: SlotToken, bytes: &[u8]) {
        let buffer = self.buffer(bytes);
        self.ring.send(token, buffer).expect("an open connection");
    }

    /// Sends more than the way to the client holds.
    fn send_stuck(&mut self, token: SlotToken) {
        self.send(token, &pattern(LARGE_BYTES));
    }
}

async fn patiently<T>(wait: impl Future<Output = T>) -> T {
    monoio::time::timeout(PATIENCE, wait).await.expect("the ring is silent")
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index % 251) as u8).collect()
}

fn read_exactly(client: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    client.read_exact(&mut read).expect("bytes from the server");
    read
}

#[test]
fn bytes_come_and_go_and_both_ends_can_end() {
    run(CONFIG, listener(), async |rig| {
        let mut client = rig.connect();
        let RingEvent::Accepted { token, listener, peer } = rig.next().await else { panic!("not accepted") };
        assert_eq!((listener, peer), (0, client.local_addr().expect("connected")));
        client.write_all(b"ping").expect("sent");
        assert_eq!(rig.receive(token).await, b"ping");
        rig.send(token, b"pong");
        assert!(matches!(rig.next().await, RingEvent::Sent { token: of, result: Ok(()), .. } if of == token));
        assert_eq!(read_exactly(&mut client, 4), b"pong");

        // Our half is shut: the client reads the end, and still writes.
        rig.ring.shut_down_sending(token);
        rig.ring.submit();
        assert!(rig.ring.next_event(&mut 64).is_none());
        assert_eq!(client.read(&mut [0; 1]).expect("an end"), 0);
        client.write_all(b"last").expect("sent");
        assert_eq!(rig.receive(token).await, b"last");
        drop(client);
        assert!(matches!(rig.next().await, RingEvent::Ended { token: of } if of == token));
        assert_eq!(rig.ring.open_count(), 1);
        rig.ring.close(token);
        assert_eq!(rig.ring.open_count(), 0);
    });
}

#[test]
fn short_sends_are_continued_to_the_last_byte() {
    run(CONFIG, listener_with_tiny_send_buffer(), async |rig| {
        let mut client = rig.connect_with_small_window();
        let token = rig.accept().await;
        let reader = std::thread::spawn(move || read_exactly(&mut client, 3 * LARGE_BYTES));
        for _ in 0..3 {
            rig.send(token, &pattern(LARGE_BYTES));
            let RingEvent::Sent { buffer, result, .. } = rig.next().await else { panic!("not sent") };
            assert_eq!((result, buffer.unsent().len()), (Ok(()), 0));
        }
        let read = reader.join().expect("the reader");
        assert!(read.chunks(LARGE_BYTES).all(|chunk| chunk == pattern(LARGE_BYTES)));
        assert!(rig.ring.counters().short_sends > 0, "the test must reach what it is about");
        assert_eq!(rig.ring.counters().bytes_sent, 3 * LARGE_BYTES as u64);
    });
}

#[test]
fn a_slot_is_reused_only_when_its_operations_are_over() {
    let config = RingConfig { connections_max: 2, accepts: 1, ..CONFIG };
    run(config, listener_with_tiny_send_buffer(), async |rig| {
        let _first = rig.connect_with_small_window();
        let old = rig.accept().await;
        // A send that cannot finish, and a receive, are in flight.
        rig.send_stuck(old);
        rig.ring.submit();
        let mut second = rig.connect();
        rig.ring.close(old);
        assert_eq!(rig.ring.open_count(), 1, "the slot is held until both are over");
        let RingEvent::Sent { token, result, .. } = rig.next().await else {
            panic!("the send is over first")
        };
        assert_eq!((token, result), (old, Err(libc::ECANCELED)));
        let new = rig.accept().await;
        assert_eq!(new.slot, old.slot);
        assert_ne!(new.generation, old.generation);

        // The old token does nothing to the new connection.
        let buffer = rig.buffer(b"for another");
        assert!(rig.ring.send(old, buffer).is_err());
        rig.ring.close(old);
        rig.ring.pause_receiving(old);
        rig.ring.shut_down_sending(old);
        // Nor does a completion that bears the old generation.
        for bytes in [Ok(None), Err(libc::ECONNRESET)] {
            let tag = old.tag(Operation::Receive);
            assert!(rig.ring.handle(Completion::Received { tag, bytes, more: false }).is_none());
        }
        let tag = old.tag(Operation::Install);
        assert!(rig.ring.handle(Completion::Installed { tag, descriptor: Err(libc::EMFILE) }).is_none());
        assert_eq!(rig.ring.counters().stale_completions, 3);

        second.write_all(b"ping").expect("sent");
        assert_eq!(rig.receive(new).await, b"ping");
        rig.send(new, b"pong");
        assert!(matches!(rig.next().await, RingEvent::Sent { result: Ok(()), .. }));
        assert_eq!(read_exactly(&mut second, 4), b"pong");
    });
}

#[test]
fn connections_come_and_go_through_few_slots() {
    let config = RingConfig { connections_max: 4, accepts: 1, ..CONFIG };
    run(config, listener(), async |rig| {
        let mut last = None;
        for round in 0..200u32 {
            let mut client = rig.connect();
            let token = rig.accept().await;
            assert_ne!(Some(token), last);
            client.write_all(&round.to_be_bytes()).expect("sent");
            assert_eq!(rig.receive(token).await, round.to_be_bytes());
            // Closed with a send just queued, which may or may not be over.
            rig.send(token, b"bye");
            rig.ring.close(token);
            assert!(matches!(rig.next().await, RingEvent::Sent { token: of, .. } if of == token));
            last = Some(token);
        }
        assert_eq!(rig.ring.counters().stale_completions, 0);
        assert_eq!(rig.ring.counters().accepted, 200);
    });
}

#[test]
fn receiving_goes_on_after_the_buffers_ran_out() {
    let config = RingConfig { receive_buffers: 2, receive_buffer_bytes: 64, ..CONFIG };
    run(config, listener(), async |rig| {
        let mut client = rig.connect();
        rig.accept().await;
        let sent = pattern(10_000);
        client.write_all(&sent).expect("sent");
        let mut received = Vec::new();
        let mut lent = Vec::new();
        while received.len() < sent.len() {
            // Both buffers are kept until the kernel has missed them.
            while lent.len() < 2 && received.len() < sent.len() {
                let RingEvent::Received { mut buffer, .. } = rig.next().await else { panic!("no bytes") };
                received.extend_from_slice(rig.ring.bytes_mut(&mut buffer));
                lent.push(buffer);
            }
            rig.ring.submit();
            assert!(rig.ring.next_event(&mut 64).is_none());
            lent.drain(..).for_each(|buffer| rig.ring.give_back(buffer));
        }
        assert_eq!(received, sent);
        assert!(rig.ring.counters().receive_buffers_exhausted > 0, "the test must reach what it is about");
    });
}

#[test]
fn a_paused_client_is_held_up_and_loses_nothing() {
    run(CONFIG, listener(), async |rig| {
        let mut client = rig.connect();
        let token = rig.accept().await;
        rig.ring.pause_receiving(token);
        rig.ring.submit();
        assert!(rig.ring.next_event(&mut 64).is_none());
        // The client writes until the kernel takes no more; nothing of it reaches us.
        client.set_nonblocking(true).expect("an option");
        let chunk = pattern(251 * 64);
        let mut written = 0;
        loop {
            match client.write(&chunk[written % 251..]) {
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        rig.ring.submit();
        assert!(rig.ring.next_event(&mut 64).is_none());
        assert_eq!(rig.ring.counters().bytes_received, 0);

        // Paused and resumed at once, however often: one receive is in flight.
        rig.ring.resume_receiving(token);
        for _ in 0..10 {
            rig.ring.pause_receiving(token);
            rig.ring.resume_receiving(token);
            rig.ring.submit();
        }
        let mut received = 0;
        while received < written {
            let bytes = rig.receive(token).await;
            assert!(bytes.iter().enumerate().all(|(at, &byte)| byte == ((received + at) % 251) as u8));
            received += bytes.len();
        }
        drop(client);
        assert!(matches!(rig.next().await, RingEvent::Ended { .. }));
    });
}

#[test]
fn a_full_ring_lets_the_next_in_when_one_leaves() {
    let config = RingConfig { connections_max: 8, accepts: 2, ..CONFIG };
    run(config, listener(), async |rig| {
        let mut inside = Vec::new();
        for _ in 0..6 {
            let client = rig.connect();
            inside.push((client, rig.accept().await));
        }
        assert!(!rig.ring.has_room());
        rig.ring.submit();
        let mut outside = rig.connect();
        outside.write_all(b"hello?").expect("the kernel takes it");
        // Everything that happens is about those inside.
        for _ in 0..10 {
            let (client, token) = &mut inside[3];
            client.write_all(b"x").expect("sent");
            let token = *token;
            assert_eq!(rig.receive(token).await, b"x");
        }
        rig.ring.close(inside[0].1);
        let token = rig.accept().await;
        assert!(!rig.ring.has_room());
        assert_eq!(rig.receive(token).await, b"hello?");
        assert_eq!(rig.ring.counters().accept_failures, 0);
    });
}

#[test]
fn a_burst_comes_in_a_few_at_a_time_and_never_beyond_the_table() {
    let config = RingConfig { connections_max: 16, accepts: 4, ..CONFIG };
    run(config, listener(), async |rig| {
        rig.ring.stop_accepting();
        rig.ring.submit();
        while rig.ring.next_event(&mut 64).is_some() {}
        let clients: Vec<_> = (0..20).map(|_| rig.connect()).collect();
        rig.ring.start_accepting();
        let mut tokens = Vec::new();
        for turn in 0..10 {
            rig.ring.submit();
            let before = tokens.len();
            while let Some(event) = rig.ring.next_event(&mut 64) {
                let RingEvent::Accepted { token, peer, .. } = event else { panic!("{event:?}") };
                assert!(clients.iter().any(|client| client.local_addr().expect("connected") == peer));
                tokens.push(token);
            }
            let came = tokens.len() - before;
            assert!(came <= 4, "{came} in turn {turn}");
        }
        // As many as leave room for all accepts, and those that were in flight.
        assert!((12..=16).contains(&tokens.len()), "{}", tokens.len());
        assert_eq!(rig.ring.counters().accept_failures, 0);
        // Whoever stays outside comes in as others leave.
        for client in &clients[tokens.len()..] {
            tokens.drain(..5).for_each(|token| rig.ring.close(token));
            let RingEvent::Accepted { token, peer, .. } = rig.next().await else { panic!("not accepted") };
            assert_eq!(peer, client.local_addr().expect("connected"));
            tokens.push(token);
            if tokens.len() < 6 {
                break;
            }
        }
        assert_eq!(rig.ring.counters().accept_failures, 0);
    });
}

#[test]
fn listeners_have_their_own_accepts_and_share_the_table() {
    let config = RingConfig { connections_max: 10, accepts: 2, ..CONFIG };
    let other = TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, 0)).expect("a free port");
    let addresses = [None, Some(other.local_addr().expect("bound"))];
    run_on(config, vec![listener(), other], async |rig| {
        let mut clients = Vec::new();
        for round in 0..6 {
            let (from, address) = (round % 2, addresses[round % 2].unwrap_or(rig.address));
            let client = TcpStream::connect(address).expect("a connection");
            let RingEvent::Accepted { token, listener, peer } = rig.next().await else {
                panic!("not accepted")
            };
            assert_eq!((listener, peer), (from, client.local_addr().expect("connected")));
            clients.push((client, token));
        }
        // Six of ten places: the other four are for those that may come meanwhile, and no more.
        assert!(!rig.ring.has_room());
        let more: Vec<_> = (0..4)
            .flat_map(|_| addresses.map(|address| TcpStream::connect(address.unwrap_or(rig.address))))
            .collect();
        rig.ring.submit();
        while rig.ring.next_event(&mut 64).is_some() {}
        assert!(rig.ring.open_count() <= 10);
        assert_eq!(rig.ring.counters().accept_failures, 0);
        drop((clients, more));
    });
}

#[test]
fn accepting_goes_on_whatever_happens_while_one_is_looked_at() {
    run(CONFIG, listener(), async |rig| {
        let first = rig.connect();
        let token = rig.accept().await;
        drop(first);
        assert!(matches!(rig.next().await, RingEvent::Ended { .. }));
        for _ in 0..20 {
            // What was cancelled last time is over, and all accepts are in flight again.
            for _ in 0..2 {
                rig.ring.submit();
                assert!(rig.ring.next_event(&mut 64).is_none());
            }
            rig.ring.submit();
            let _second = rig.connect();
            patiently(rig.readable.readable(false)).await.expect("a connection");
            // Seen and left; meanwhile there is room, and then nobody is wanted, and then somebody is.
            assert!(rig.ring.next_sent().is_none() && rig.ring.has_more());
            rig.ring.close(token);
            rig.ring.stop_accepting();
            rig.ring.submit();
            let second = rig.accept().await;
            rig.ring.start_accepting();
            rig.ring.close(second);
        }
        let clients: Vec<_> = (0..30).map(|_| rig.connect()).collect();
        for _ in &clients {
            rig.accept().await;
        }
        assert_eq!(rig.ring.counters().accept_failures, 0);
    });
}

#[test]
fn a_ring_torn_down_with_sends_in_flight_frees_nothing_early() {
    let mut clients = Vec::new();
    run(CONFIG, listener_with_tiny_send_buffer(), async |rig| {
        for _ in 0..16 {
            clients.push(rig.connect_with_small_window());
            let token = rig.accept().await;
            rig.send_stuck(token);
        }
        rig.ring.submit();
    });
    // Whoever gets the buffers' memory next writes to it.
    let scribbled: Vec<_> = (0..64).map(|_| vec![0xff_u8; LARGE_BYTES]).collect();
    for mut client in clients {
        let mut read = Vec::new();
        // The end may come as a reset; what came before it must be what was sent.
        let _ = client.read_to_end(&mut read);
        assert!(!read.is_empty() && read.len() < LARGE_BYTES);
        assert!(read == pattern(read.len()), "bytes that were never sent");
    }
    drop(scribbled);
}

#[test]
fn more_submissions_than_the_queue_holds_are_all_carried_out() {
    run(CONFIG, listener(), async |rig| {
        let mut client = rig.connect();
        let token = rig.accept().await;
        for _ in 0..5_000 {
            rig.ring.queue.cancel(token.tag(Operation::Send));
        }
        rig.send(token, b"still here");
        assert!(matches!(rig.next().await, RingEvent::Sent { result: Ok(()), .. }));
        assert_eq!(read_exactly(&mut client, 10), b"still here");
    });
}

#[test]
fn sends_that_are_over_are_taken_without_disturbing_the_rest() {
    run(CONFIG, listener(), async |rig| {
        let mut client = rig.connect();
        let token = rig.accept().await;
        rig.ring.submit();
        client.write_all(b"first").expect("sent");
        patiently(rig.readable.readable(false)).await.expect("bytes");
        rig.send(token, b"second");
        rig.ring.submit();
        // The bytes came before the send was over: they stay where they are.
        assert!(rig.ring.next_sent().is_none());
        assert!(rig.ring.has_more());
        assert_eq!(rig.receive(token).await, b"first");
        assert!(matches!(rig.ring.next_sent(), Some(RingEvent::Sent { .. })));
        assert!(!rig.ring.has_more());
    });
}
