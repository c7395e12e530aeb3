//! How sessions begin and end: proofs, resuming, log out, slow readers, draining.

use crate::chat::{accepted, accepted_at_last, created, direct, live, text};
use crate::client::{Client, Way};
use crate::server::{EMBEDDED, Folder, PATIENCE_S, Server};
use crate::sync::page;
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use wire_protocol::limits::OUTBOX_BYTES_MAX;
use wire_protocol::session::Proof;
use wire_protocol::v1::session_closing::Reason;
use wire_protocol::v1::{self, ErrorCode, client_frame, server_frame};

#[test]
fn a_session_resumes_by_its_token_and_forged_ones_are_refused() {
    let server = Server::embedded();
    let ada = server.register("ada");
    let first = Client::connect(&server, Way::NativeTls, &ada);
    let token = first.ready.resume_token.clone();
    first.drop_connection();
    let again = Client::hello(&server, Way::WebSocket, Proof::ResumeToken(token.clone()));
    assert_eq!((again.closing, again.ready.user_id.len()), (None, 16));
    let mut forged = token.to_vec();
    forged[20] ^= 1;
    for proof in [Proof::ResumeToken(forged.into()), Proof::AccessToken("a.b.c".into())] {
        let mut client = Client::hello(&server, Way::NativePlain, proof);
        let closing = client.wait_for_end().expect("a reason");
        assert_eq!(closing.reason(), Reason::Unauthenticated);
        assert_eq!(closing.code(), ErrorCode::ErrorUnauthenticated);
    }
    assert!(server.metric("ringline_sessions_refused_total") >= 0.0);
}

#[test]
fn log_out_ends_every_session_of_the_device_and_its_tokens() {
    let server = Server::embedded();
    let ada = server.register("ada");
    let ada_elsewhere = server.log_in("ada");
    let mut one = Client::connect(&server, Way::NativeTls, &ada);
    let mut other = Client::connect(&server, Way::WebSocket, &ada);
    let mut elsewhere = Client::connect(&server, Way::NativePlain, &ada_elsewhere);
    assert!(matches!(one.ask(client_frame::Body::LogOut(v1::LogOut {})), server_frame::Body::Done(_)));
    assert_eq!(one.wait_for_end().expect("a reason").reason(), Reason::LoggedOut);
    assert_eq!(other.wait_for_end().expect("a reason").reason(), Reason::Unauthenticated);
    // The token is still well signed; the home shard knows that its device is gone.
    let mut late = Client::hello(&server, Way::NativePlain, Proof::AccessToken(ada.access_token.clone()));
    assert_eq!(late.wait_for_end().expect("a reason").reason(), Reason::Unauthenticated);
    let resume = Proof::ResumeToken(one.ready.resume_token.clone());
    let mut late = Client::hello(&server, Way::NativePlain, resume);
    assert_eq!(late.wait_for_end().expect("a reason").reason(), Reason::Unauthenticated);
    // The other device goes on.
    let nothing = page(&mut elsewhere, v1::Sync::default());
    assert!(nothing.conversations.is_empty());
}

#[test]
fn who_breaks_the_protocol_is_told_and_closed() {
    let server = Server::embedded();
    let ada = server.register("ada");
    for way in [Way::NativeTls, Way::NativePlain, Way::WebSocket] {
        let mut stranger = Client::open(&server, way);
        stranger.send(&[0xff; 10]);
        assert_eq!(
            stranger.wait_for_end().map(|closing| closing.reason()),
            Some(Reason::ProtocolError),
            "{way:?}"
        );
        let mut impatient = Client::open(&server, way);
        impatient.send(&[0x08, 0x01, 0x32, 0x00]);
        let closing = impatient.wait_for_end().expect("a reason");
        assert_eq!(
            (closing.reason(), closing.code()),
            (Reason::ProtocolError, ErrorCode::ErrorHelloExpected)
        );
        let mut large = Client::connect(&server, way, &ada);
        large.send(&vec![0; 65 * 1024]);
        let closing = large.wait_for_end().expect("a reason");
        assert_eq!(
            (closing.reason(), closing.code()),
            (Reason::ProtocolError, ErrorCode::ErrorFrameTooLarge)
        );
    }
}

#[test]
fn a_slow_reader_is_told_to_sync_and_loses_nothing() {
    let server = Server::embedded();
    let (ada, bob) = (server.register("ada"), server.register("bob"));
    let mut sender = Client::connect(&server, Way::NativePlain, &ada);
    // The kernel holds some megabytes for a reader that does not read, less for one with a small buffer of its own; the
    // outbox comes after that.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("an option");
    socket.connect(&server.plain.into()).expect("it listens");
    let mut slow = Client::connect_over(&server, socket.into(), Way::NativePlain, &bob);
    let conversation = created(sender.ask(direct(&bob))).conversation_id;
    let body = vec![b'x'; 16 * 1024];
    let mut sent = 0u64;
    server.wait_until("events are dropped", || {
        for _ in 0..64 {
            sent += 1;
            accepted_at_last(&mut sender, &text(&conversation, sent, body.clone()));
        }
        server.metric("ringline_events_dropped_total") > 0.0
    });
    assert!(server.metric("ringline_outbox_bytes") <= OUTBOX_BYTES_MAX as f64);
    // Now it reads: a part of the live events in order, then the hint, and sync has the rest.
    let mut newest = 0;
    loop {
        match slow.event() {
            server_frame::Body::Message(message) => {
                let seq = message.entry.expect("always there").seq;
                assert!(seq == newest + 1 || newest == 0, "{seq} after {newest}");
                newest = seq;
            }
            server_frame::Body::SyncNeeded(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(newest < sent + 1);
    let (entries, _) = crate::sync::catch_up(&mut slow, &conversation, 0, newest);
    let seqs: Vec<u64> = entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, (newest + 1..=sent + 1).collect::<Vec<u64>>());
    // Live again. Events of messages that sync has told of may still have been on their way.
    accepted_at_last(&mut sender, &text(&conversation, sent + 1, "live"));
    while live(&mut slow).1 != sent + 2 {}
}

#[test]
fn a_gateway_that_leaves_says_so_and_answers_first() {
    let mut server = Server::embedded();
    let (ada, bob) = (server.register("ada"), server.register("bob"));
    let mut client = Client::connect(&server, Way::NativeTls, &ada);
    let mut web = Client::connect(&server, Way::WebSocket, &bob);
    let conversation = created(client.ask(direct(&bob))).conversation_id;
    accepted(client.ask(text(&conversation, 1, "before")));
    let asked = Instant::now();
    assert!(server.process.terminate().success());
    // What is left of the half second until it may be up again.
    let is_late = asked.elapsed() >= Duration::from_millis(500);
    for client in [&mut client, &mut web] {
        let closing = client.wait_for_end().expect("a reason");
        assert_eq!(closing.reason(), Reason::Draining);
        assert!(closing.retry_after_ms > 0 || is_late);
    }
}

/// One answer is there, so that the next password is being hashed when it is asked to end: a hash takes some 40 ms, which is
/// longer than asking. They are given a second and a half: a gateway that ended later gave up who is left, as it should (hashes
/// give way to everything else on a busy machine).
#[test]
fn a_gateway_that_leaves_answers_who_is_logging_in() {
    let costly = format!("[auth]\nargon2_memory_kib = 19456\nargon2_iterations = 4\n{EMBEDDED}");
    let mut server = Server::start(Folder::new(), &costly);
    server.register("ada");
    let body = "{\"username\":\"ada\",\"password\":\"correct horse battery\",\"device_name\":\"x\"}";
    let request = format!(
        "POST /v1/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let hashed_at_once = (std::thread::available_parallelism().map_or(1, usize::from) / 2).clamp(1, 4);
    let (answered, first_answer) = std::sync::mpsc::channel();
    let patience = Duration::from_secs(PATIENCE_S);
    let clients: Vec<_> = (0..=hashed_at_once)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(server.plain).expect("it listens");
            stream.set_read_timeout(Some(patience)).expect("a socket");
            stream.write_all(request.as_bytes()).expect("sent");
            let answered = answered.clone();
            std::thread::spawn(move || {
                let mut answer = String::new();
                stream.read_to_string(&mut answer).expect("read");
                let _ = answered.send(());
                answer
            })
        })
        .collect();
    first_answer.recv_timeout(patience).expect("somebody is logged in");
    let asked = Instant::now();
    assert!(server.process.terminate().success());
    let is_in_time = asked.elapsed() < Duration::from_millis(1_500);
    for client in clients {
        let answer = client.join().expect("a thread");
        assert!(
            !is_in_time || answer.starts_with("HTTP/1.1 200 ") && answer.contains("refresh_token"),
            "{answer:?}"
        );
    }
}

#[test]
fn metrics_follow_what_happens() {
    let server = Server::embedded();
    let (ada, bob) = (server.register("ada"), server.register("bob"));
    let mut client = Client::connect(&server, Way::NativeTls, &ada);
    let web = Client::connect(&server, Way::WebSocket, &bob);
    let conversation = created(client.ask(direct(&bob))).conversation_id;
    for number in 1..=10 {
        accepted(client.ask(text(&conversation, number, "x")));
    }
    assert_eq!(server.metric("ringline_acks_total"), 10.0);
    server.wait_until("gauges are published", || {
        server.metric("ringline_sessions_native") == 1.0
            && server.metric("ringline_sessions_websocket") == 1.0
    });
    assert!(server.metric("ringline_latency_seconds_count") >= 10.0);
    assert!(server.metric("ringline_storage_log_syncs_total") > 0.0);
    web.drop_connection();
    server.wait_until("the session is gone", || server.metric("ringline_sessions_websocket") == 0.0);
}
