//! Sizes, times and counts that a client cannot pass.

use super::{Harness, START_MS};
use crate::front::ConnectionToken;
use crate::http::ingress::{HTTP_CONNECTIONS_MAX, HTTP_CONNECTIONS_PER_ADDRESS_MAX, IngressFull};
use crate::http::routes::{BODY_MS_MAX, REQUEST_MS_MAX};
use crate::http::serve::{CONNECTION_MS_MAX, HEAD_MS_MAX, REQUESTS_MAX};
use crate::worker::mailbox::CoreMessage;
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;
use wire_protocol::limits::HTTP_BODY_BYTES_MAX;

const HEAD: &str = "POST /v1/login HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n";

/// Milliseconds since `start`, as the paused clock counts them.
fn ms_since(start: Instant) -> u64 {
    start.elapsed().as_millis() as u64
}

#[tokio::test(start_paused = true)]
async fn a_large_body_is_refused_and_one_without_a_length() {
    let mut harness = Harness::new();
    let announced = harness.open(&format!("{HEAD}Content-Length: {}\r\n\r\n", HTTP_BODY_BYTES_MAX + 1));
    let answer = harness.answer(announced).await;
    assert_eq!((answer.status, answer.text("code").as_str()), (413, "ERROR_BODY_TOO_LARGE"));
    harness.turn_until(|harness| harness.is_closed(announced)).await;

    let chunked = harness.open(&format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n"));
    let answer = harness.answer(chunked).await;
    assert_eq!((answer.status, answer.header("connection")), (411, "close"));
    harness.turn_until(|harness| harness.is_closed(chunked)).await;

    let largest = format!("{{\"username\":\"{}\"}}", "x".repeat(HTTP_BODY_BYTES_MAX - 15));
    assert_eq!(largest.len(), HTTP_BODY_BYTES_MAX);
    let answer = harness.request("POST", "/v1/login", "Content-Type: application/json\r\n", &largest).await;
    assert_eq!((answer.status, answer.text("detail").as_str()), (400, "password: missing"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_given_up() {
    let mut harness = Harness::new();
    let start = Instant::now();
    let token = harness.open(&format!("{HEAD}Content-Length: 100\r\n\r\n"));
    // A byte now and then does not help.
    let mut sent_ms = 0;
    let mut answered = None;
    while answered.is_none() {
        let until_ms = sent_ms + 1_000;
        harness
            .turn_until(|harness| ms_since(start) >= until_ms || !harness.received(token).is_empty())
            .await;
        if harness.received(token).is_empty() {
            sent_ms = until_ms;
            harness.send(token, "{");
        } else {
            answered = Some(harness.answer(token).await);
        }
    }
    let answer = answered.expect("it was waited for");
    assert_eq!((answer.status, answer.text("code").as_str()), (408, "ERROR_TIMED_OUT"));
    assert!((BODY_MS_MAX..BODY_MS_MAX + 100).contains(&ms_since(start)), "{} ms", ms_since(start));
    harness.turn_until(|harness| harness.is_closed(token)).await;
    assert!(harness.storage.calls.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_and_an_idle_connection_are_closed() {
    let mut harness = Harness::new();
    let start = Instant::now();
    let slow = harness.open("GET / HT");
    harness.turn_until(|harness| harness.is_closed(slow)).await;
    assert!((HEAD_MS_MAX..HEAD_MS_MAX + 100).contains(&ms_since(start)), "{} ms", ms_since(start));

    let idle = harness.open("GET /v1/health/live HTTP/1.1\r\nHost: test\r\n\r\n");
    let answer = harness.answer(idle).await;
    assert_eq!(answer.status, 200);
    assert_ne!(answer.header("connection"), "close");
    let start = Instant::now();
    harness.turn_until(|harness| harness.is_closed(idle)).await;
    assert!((HEAD_MS_MAX..HEAD_MS_MAX + 100).contains(&ms_since(start)), "{} ms", ms_since(start));
}

#[tokio::test(start_paused = true)]
async fn a_connection_serves_many_requests_but_not_for_ever() {
    let mut harness = Harness::new();
    let request = "GET /v1/health/live HTTP/1.1\r\nHost: test\r\n\r\n";
    let token = harness.open(&request.repeat(2));
    for served in 1..=REQUESTS_MAX {
        if served > 2 {
            harness.send(token, request);
        }
        let answer = harness.answer(token).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("connection") == "close", served == REQUESTS_MAX, "request {served}");
    }
    harness.turn_until(|harness| harness.is_closed(token)).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_has_an_end_however_busy_it_is() {
    let mut harness = Harness::new();
    let request = "GET /v1/health/live HTTP/1.1\r\nHost: test\r\n\r\n";
    let start = Instant::now();
    let token = harness.open(request);
    while !harness.is_closed(token) {
        assert_eq!(harness.answer(token).await.status, 200);
        let next_ms = ms_since(start) + 5_000;
        harness.turn_until(|harness| ms_since(start) >= next_ms || harness.is_closed(token)).await;
        if !harness.is_closed(token) {
            harness.send(token, request);
        }
    }
    assert!(
        (CONNECTION_MS_MAX..CONNECTION_MS_MAX + 100).contains(&ms_since(start)),
        "{} ms",
        ms_since(start)
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_closed_however_long_its_core_is_late() {
    let mut harness = Harness::new();
    let other = harness.open("GET");
    let token = harness.open("GET /v1/health/live HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(harness.answer(token).await.status, 200);
    harness.ingress.eof(token);
    while harness.mailbox.send(CoreMessage::HttpClose { token: other }).is_ok() {}
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!harness.is_closed(token));
    harness.turn_until(|harness| harness.is_closed(token)).await;
}

#[tokio::test(start_paused = true)]
async fn silent_storage_is_not_waited_for_for_ever() {
    let mut harness = Harness::new();
    harness.storage.silent = true;
    let start = Instant::now();
    let body = "{\"username\":\"ada\",\"password\":\"12345678\",\"device_name\":\"laptop\"}";
    let answer = harness.request("POST", "/v1/login", "Content-Type: application/json\r\n", body).await;
    assert_eq!((answer.status, answer.text("code").as_str()), (504, "ERROR_TIMED_OUT"));
    assert!((REQUEST_MS_MAX..REQUEST_MS_MAX + 100).contains(&ms_since(start)), "{} ms", ms_since(start));
    assert_eq!(harness.now_ms(), START_MS);
}

#[tokio::test(start_paused = true)]
async fn heads_have_limits() {
    let mut harness = Harness::new();
    let many = "X: y\r\n".repeat(65);
    let answer = harness.request("GET", "/v1/health/live", &many, "").await;
    assert_eq!(answer.status, 431);
    let long = format!("X: {}\r\n", "y".repeat(20_000));
    let token = harness.open(&format!("GET / HTTP/1.1\r\nHost: test\r\n{long}\r\n"));
    assert_eq!(harness.answer(token).await.status, 431);
    harness.turn_until(|harness| harness.is_closed(token)).await;
    let garbage = harness.open("\u{1}\u{2}\u{3} nonsense\r\n\r\n");
    harness.turn_until(|harness| harness.is_closed(garbage)).await;
}

#[tokio::test(start_paused = true)]
async fn connections_are_counted_and_given_back() {
    let mut harness = Harness::new();
    let peer = SocketAddr::from(([127, 0, 0, 1], 50_000));
    let mut tokens = Vec::new();
    for number in 0..HTTP_CONNECTIONS_MAX {
        harness.address = [192, 0, 2, (number / HTTP_CONNECTIONS_PER_ADDRESS_MAX) as u8];
        tokens.push(harness.open("GET"));
        // The runtime takes them up between two turns.
        tokio::task::yield_now().await;
    }
    assert_eq!(harness.ingress.connection_count(), HTTP_CONNECTIONS_MAX);
    let more = ConnectionToken { slot: u32::MAX, generation: 1 };
    assert_eq!(harness.ingress.open(more, peer, false, Bytes::new()), Err(IngressFull));
    let gone = tokens.pop().expect("there are many");
    harness.ingress.closed(gone);
    assert_eq!(harness.ingress.open(more, peer, false, Bytes::new()), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_its_request() {
    let mut harness = Harness::new();
    harness.storage.silent = true;
    let body = "{\"username\":\"ada\",\"password\":\"12345678\",\"device_name\":\"laptop\"}";
    let token = harness.open(&format!("{HEAD}Content-Length: {}\r\n\r\n{body}", body.len()));
    harness.turn_until(|harness| !harness.storage.calls.is_empty()).await;
    harness.ingress.closed(token);
    let waited_ms = harness.turn_until(|harness| harness.is_closed(token)).await;
    assert!(waited_ms <= REQUEST_MS_MAX + 100, "{waited_ms} ms");
    assert_eq!(harness.received(token), b"");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_only_stops_sending_gets_its_answer() {
    let mut harness = Harness::new();
    let start = Instant::now();
    let token = harness.open("GET /v1/health/live HTTP/1.1\r\nHost: test\r\n\r\n");
    harness.ingress.eof(token);
    assert_eq!(harness.answer(token).await.status, 200);
    harness.turn_until(|harness| harness.is_closed(token)).await;
    assert!(ms_since(start) < HEAD_MS_MAX, "its end is heard, not waited for");
}

#[tokio::test(start_paused = true)]
async fn no_address_takes_the_places_of_others() {
    let mut harness = Harness::new();
    let mut tokens = Vec::new();
    for _ in 0..HTTP_CONNECTIONS_PER_ADDRESS_MAX {
        tokens.push(harness.open("GET"));
        tokio::task::yield_now().await;
    }
    let more = ConnectionToken { slot: u32::MAX, generation: 1 };
    let peer = |last| SocketAddr::from(([127, 0, 0, last], 50_000));
    assert_eq!(harness.ingress.open(more, peer(1), false, Bytes::new()), Err(IngressFull));
    assert_eq!(harness.ingress.open(more, peer(2), false, Bytes::new()), Ok(()));
    harness.ingress.closed(more);
    harness.ingress.closed(more);
    harness.ingress.closed(tokens.pop().expect("there are many"));
    assert_eq!(harness.ingress.open(more, peer(1), false, Bytes::new()), Ok(()));
}
