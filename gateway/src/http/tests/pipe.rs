//! Backpressure between a core and the runtime, and the runtime as a whole.

use crate::config::AuthConfig;
use crate::domain::auth;
use crate::front::ConnectionToken;
use crate::http::ingress::IngressFull;
use crate::http::pipe::{CorePipe, INBOUND_BYTES_MAX, OUTBOUND_WINDOW_BYTES, PipeFeed};
use crate::http::serve::serve_core;
use crate::http::{HttpIngress, HttpParts, HttpServer, HttpStartError};
use crate::worker::mailbox::{CoreInbox, CoreMailbox, CoreMessage, LeaveOrder};
use crate::worker::wake::WakeHandle;
use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use bytes::Bytes;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TOKEN: ConnectionToken = ConnectionToken { slot: 3, generation: 4 };

fn pipe() -> (PipeFeed, CorePipe, CoreMailbox, CoreInbox) {
    let (mailbox, inbox) = CoreMailbox::new(WakeHandle::new());
    let (feed, pipe) = PipeFeed::new(TOKEN, mailbox.clone(), Default::default());
    (feed, pipe, mailbox, inbox)
}

/// All bytes in the mailbox.
fn take_out(inbox: &CoreInbox) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(message) = inbox.take() {
        let CoreMessage::HttpOut { token, bytes } = message else { panic!("only bytes are sent") };
        assert_eq!(token, TOKEN);
        out.extend_from_slice(&bytes);
    }
    out
}

#[tokio::test(start_paused = true)]
async fn no_more_than_a_window_waits_for_a_client_that_does_not_read() {
    let (feed, mut pipe, _, inbox) = pipe();
    let sent: Vec<u8> = (0..200_000u32).map(|index| index as u8).collect();
    let copy = sent.clone();
    let writer = tokio::spawn(async move { pipe.write_all(&copy).await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut received = take_out(&inbox);
    assert_eq!(received.len(), OUTBOUND_WINDOW_BYTES);
    feed.written(1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    received.extend(take_out(&inbox));
    assert_eq!(received.len(), OUTBOUND_WINDOW_BYTES + 1);
    let mut unwritten = OUTBOUND_WINDOW_BYTES;
    while !writer.is_finished() {
        feed.written(unwritten);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let more = take_out(&inbox);
        unwritten = more.len();
        received.extend(more);
    }
    writer.await.expect("it does not panic").expect("the core is there");
    assert_eq!(received, sent);
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_is_waited_for() {
    let (_feed, mut pipe, mailbox, inbox) = pipe();
    while mailbox.send(CoreMessage::Drain(LeaveOrder::alone())).is_ok() {}
    let writer = tokio::spawn(async move { pipe.write_all(b"late").await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!writer.is_finished());
    while let Some(message) = inbox.take() {
        assert!(matches!(message, CoreMessage::Drain(_)));
    }
    writer.await.expect("it does not panic").expect("the core is there");
    assert_eq!(take_out(&inbox), b"late");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_taken_is_refused_and_nothing_of_it_kept() {
    let (feed, mut pipe, _, _inbox) = pipe();
    let chunk = Bytes::from(vec![1; 16 * 1024]);
    for _ in 0..INBOUND_BYTES_MAX / chunk.len() {
        assert_eq!(feed.push(chunk.clone()), Ok(()));
    }
    assert_eq!(feed.push(Bytes::from_static(b"2")), Err(IngressFull));
    (0..10).for_each(|_| assert_eq!(feed.push(chunk.clone()), Err(IngressFull)));
    let mut first = vec![0; 16 * 1024];
    pipe.read_exact(&mut first).await.expect("it is there");
    assert_eq!(feed.push(Bytes::from_static(b"2")), Ok(()));
    feed.end();
    let mut rest = Vec::new();
    pipe.read_to_end(&mut rest).await.expect("it ends");
    assert_eq!((rest.len(), rest.last()), (INBOUND_BYTES_MAX - first.len() + 1, Some(&b'2')));

    let (feed, mut pipe, _, _inbox) = self::pipe();
    let taken = (0..1_000).take_while(|_| feed.push(Bytes::from_static(b"x")).is_ok()).count();
    assert_eq!(taken, 64, "small chunks are counted, too");
    drop(feed);
    let mut rest = Vec::new();
    pipe.read_to_end(&mut rest).await.expect("it ends");
    assert_eq!(rest.len(), taken);
}

#[tokio::test(start_paused = true)]
async fn a_pipe_whose_core_let_go_ends_both_ways() {
    let (feed, mut pipe, _, inbox) = pipe();
    let task = tokio::spawn(async move {
        let mut byte = [0];
        let read = pipe.read(&mut byte).await;
        (read, pipe.write_all(&[0; 2 * OUTBOUND_WINDOW_BYTES]).await)
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(feed);
    let (read, written) = task.await.expect("it does not panic");
    assert_eq!(read.expect("the end is no error"), 0);
    assert_eq!(written.expect_err("nobody reads").kind(), ErrorKind::BrokenPipe);
    assert_eq!(take_out(&inbox), b"");

    // One that waits for its window is woken.
    let (feed, mut pipe, _, _inbox) = self::pipe();
    let task = tokio::spawn(async move { pipe.write_all(&[0; 2 * OUTBOUND_WINDOW_BYTES]).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(feed);
    assert!(task.await.expect("it does not panic").is_err());
}

/// A core whose HTTP side answers with as many bytes as the path says.
fn sized_answers() -> (HttpIngress, CoreMailbox, CoreInbox) {
    let (mailbox, inbox) = CoreMailbox::new(WakeHandle::new());
    let (ingress, opened) = HttpIngress::new(mailbox.clone());
    let answer = |Path(bytes): Path<usize>| async move { vec![7; bytes] };
    tokio::spawn(serve_core(opened, Router::new().route("/{bytes}", get(answer))));
    (ingress, mailbox, inbox)
}

fn ask_for(ingress: &mut HttpIngress, bytes: usize) {
    let client = SocketAddr::from(([127, 0, 0, 1], 50_000));
    let request = format!("GET /{bytes} HTTP/1.1\r\nHost: test\r\n\r\n");
    ingress.open(TOKEN, client, true, request.into()).expect("there is room");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_under_way_until_the_last_of_its_answer_was_sent() {
    let (mut ingress, _, inbox) = sized_answers();
    ask_for(&mut ingress, 5 * OUTBOUND_WINDOW_BYTES);
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!((ingress.requests_under_way(), take_out(&inbox).len()), (1, OUTBOUND_WINDOW_BYTES));
        ingress.written(TOKEN, OUTBOUND_WINDOW_BYTES);
    }
    // What remains is as long as the head.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let rest = take_out(&inbox);
    assert!((50..500).contains(&rest.len()), "{} bytes", rest.len());
    assert_eq!(ingress.requests_under_way(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_core_has_no_room_for_is_under_way() {
    let (mut ingress, mailbox, inbox) = sized_answers();
    while mailbox.send(CoreMessage::Drain(LeaveOrder::alone())).is_ok() {}
    ask_for(&mut ingress, 10);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ingress.requests_under_way(), 1);
    while inbox.take().is_some() {}
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(take_out(&inbox).ends_with(&[7; 10]));
    assert_eq!(ingress.requests_under_way(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_has_no_request_under_way() {
    let (mut ingress, _, inbox) = sized_answers();
    ask_for(&mut ingress, 2 * OUTBOUND_WINDOW_BYTES);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((ingress.requests_under_way(), take_out(&inbox).len()), (1, OUTBOUND_WINDOW_BYTES));
    ingress.closed(TOKEN);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ingress.requests_under_way(), 0);
}

fn parts(metrics: Option<SocketAddr>, auth: AuthConfig) -> HttpParts {
    let folder = std::env::temp_dir().join(format!("ringline-http-server-{}", std::process::id()));
    let (issuer, verifier) = auth::open(&auth, &folder).expect("keys are made");
    let (mailbox, _) = CoreMailbox::new(WakeHandle::new());
    HttpParts {
        mailboxes: vec![mailbox],
        issuer,
        verifier,
        fleet: tokio::sync::watch::channel(Default::default()).1,
        auth,
        attempts: Default::default(),
        metrics,
        render_metrics: || "ringline_up 1\n".to_owned(),
        ready: Arc::new(|| Ok(())),
    }
}

#[test]
fn the_runtime_serves_metrics_and_a_core_and_stops() {
    let auth = AuthConfig { argon2_memory_kib: 8, argon2_iterations: 1, ..AuthConfig::default() };
    let (mailbox, inbox) = CoreMailbox::new(WakeHandle::new());
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let parts = HttpParts { mailboxes: vec![mailbox], ..parts(Some(loopback), auth) };
    let (server, mut ingresses) = HttpServer::start(parts).expect("it starts");
    let address = server.metrics_address().expect("it was asked for");
    let get = |path: &str| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    };
    let metrics = get("/metrics");
    assert!(
        metrics.starts_with("HTTP/1.1 200 ") && metrics.ends_with("\r\n\r\nringline_up 1\n"),
        "{metrics}"
    );
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"));
    assert!(get("/other").starts_with("HTTP/1.1 404 "));

    assert_eq!(ingresses.len(), 1);
    let request =
        Bytes::from_static(b"GET /v1/health/ready HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    ingresses[0].open(TOKEN, loopback, true, request).expect("there is room");
    let mut received = Vec::new();
    loop {
        match inbox.take() {
            Some(CoreMessage::HttpOut { bytes, .. }) => {
                ingresses[0].written(TOKEN, bytes.len());
                received.extend_from_slice(&bytes);
            }
            Some(CoreMessage::HttpClose { token }) => {
                assert_eq!(token, TOKEN);
                break;
            }
            Some(_) => panic!("the HTTP side sends nothing else"),
            None => std::thread::yield_now(),
        }
    }
    assert!(received.starts_with(b"HTTP/1.1 200 "));
    server.stop(Duration::from_secs(5));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn what_cannot_start_says_why() {
    let outside = Some(SocketAddr::from(([192, 0, 2, 1], 0)));
    let refused = HttpServer::start(parts(outside, AuthConfig::default()));
    assert!(matches!(refused.err(), Some(HttpStartError::MetricsNotLoopback(_))));
    let impossible = AuthConfig { argon2_memory_kib: 1, ..AuthConfig::default() };
    assert!(matches!(
        HttpServer::start(parts(None, impossible)).err(),
        Some(HttpStartError::PasswordCost(_))
    ));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let taken = taken.local_addr().expect("it is bound");
    let refused = HttpServer::start(parts(Some(taken), AuthConfig::default()));
    assert!(matches!(refused.err(), Some(HttpStartError::MetricsListen { .. })));
}
