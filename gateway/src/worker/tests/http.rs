//! HTTP connections between their sockets and the HTTP runtime.

use super::*;
use crate::http::OUTBOUND_WINDOW_BYTES;
use crate::worker::mailbox::{CoreMessage, LeaveOrder};
use bytes::Bytes;
use wire_protocol::internal::{Answer, Refused, answer};
use wire_protocol::limits::OUTBOX_BYTES_MAX;
use wire_protocol::v1::ErrorCode;

const LIVE: &str = "GET /v1/health/live HTTP/1.1\r\nHost: test\r\n\r\n";

/// A browser that never waits.
struct Browser {
    stream: TcpStream,
    read: Vec<u8>,
    is_over: bool,
}

impl Browser {
    fn open(rig: &Rig) -> Self {
        let stream = TcpStream::connect(rig.address()).expect("it listens");
        stream.set_nonblocking(true).expect("an option");
        Self { stream, read: Vec::new(), is_over: false }
    }

    fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).expect("the kernel takes it");
    }

    fn pump(&mut self) {
        let mut buffer = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return self.is_over = true,
                Ok(bytes) => self.read.extend_from_slice(&buffer[..bytes]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.is_over = true,
            }
        }
    }

    /// Answers that have come whole: each of them is one JSON object.
    fn answers(&self) -> usize {
        self.read.iter().filter(|byte| **byte == b'}').count()
    }
}

fn serve_until(rig: &mut Rig, browser: &mut Browser, what: &str, is_so: impl Fn(&Browser) -> bool) {
    rig.turn_until(what, |_| {
        browser.pump();
        is_so(browser)
    });
}

/// A log in whose answer is ready, but for which its outbox has no room.
fn log_in_without_room(rig: &mut Rig) -> Browser {
    let mut browser = Browser::open(rig);
    let body = r#"{"username":"ada","password":"12345678","device_name":"laptop"}"#;
    let length = body.len();
    browser.write(&format!(
        "POST /v1/login HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    ));
    let name = rig.next_request();
    let token = rig.core.http.tokens()[0];
    rig.turn_until("the outbox is full", |rig| {
        while rig.core.clients.send_raw(token, Bytes::from_static(&[b' '; 1_000])).is_ok() {}
        rig.core.clients.flush(rig.now_ms);
        rig.core.clients.queued_bytes(token) > OUTBOX_BYTES_MAX - 2_000
    });
    while rig.core.clients.send_raw(token, Bytes::from_static(b" ")).is_ok() {}
    let nobody = Refused { code: ErrorCode::ErrorNotFound as u32, detail: String::new() };
    let nobody = Answer { kind: Some(answer::Kind::Refused(nobody)) };
    let nobody = shard_response::Result::Answer(nobody);
    rig.answer(name.id, Ok(nobody.clone()));
    let user = rig.next_request();
    rig.answer(user.id, Ok(nobody));
    rig.turn_until("the answer waits", |rig| rig.core.http.waiting_count() == 1);
    browser
}

#[test]
fn an_answer_without_room_waits_and_loses_nothing() {
    run(|mut rig| {
        let mut browser = log_in_without_room(&mut rig);
        serve_until(&mut rig, &mut browser, "the answer", |browser| browser.answers() == 1);
        let text = String::from_utf8(std::mem::take(&mut browser.read)).expect("text");
        assert!(text.trim_start().starts_with("HTTP/1.1 401 "), "its head came, too");
        assert_eq!(rig.core.http.waiting_count(), 0);
        browser.write(LIVE);
        serve_until(&mut rig, &mut browser, "the next answer", |browser| browser.answers() == 1);
    });
}

#[test]
fn whoever_leaves_leaves_nothing_behind() {
    run(|mut rig| {
        let browser = log_in_without_room(&mut rig);
        drop(browser);
        rig.turn_until("it is gone", |rig| rig.core.http.connection_count() == 0);
        assert_eq!((rig.core.http.waiting_count(), rig.core.clients.connection_count()), (0, 0));
    });
}

#[test]
fn a_connection_carries_more_than_a_window_and_closes_when_it_is_asked_to() {
    run(|mut rig| {
        let mut browser = Browser::open(&rig);
        let mut asked = 0;
        while browser.read.len() <= 2 * OUTBOUND_WINDOW_BYTES && asked < 190 {
            browser.write(LIVE);
            asked += 1;
            serve_until(&mut rig, &mut browser, "an answer", |browser| browser.answers() == asked);
        }
        assert!(browser.read.len() > OUTBOUND_WINDOW_BYTES, "the test must reach what it is about");
        browser.write(&LIVE.replacen("\r\n", "\r\nConnection: close\r\n", 1));
        serve_until(&mut rig, &mut browser, "the end", |browser| browser.is_over);
        assert_eq!(browser.answers(), asked + 1);
        drop(browser);
        rig.turn_until("it is gone", |rig| rig.core.http.connection_count() == 0);
    });
}

#[test]
fn a_core_that_leaves_closes_idle_connections_at_once() {
    run(|mut rig| {
        let mut browser = Browser::open(&rig);
        browser.write(LIVE);
        serve_until(&mut rig, &mut browser, "an answer", |browser| browser.answers() == 1);
        // The thread that answers may have written and not said so yet.
        rig.turn_until("the request is over", |rig| !rig.core.http.is_busy());
        let before = rig.metric(Metric::MailboxTaken);
        assert!(rig.mailbox.send(CoreMessage::Drain(LeaveOrder::alone())).is_ok());
        serve_until(&mut rig, &mut browser, "the end", |browser| browser.is_over);
        // The runtime, which ends idle connections in its own time, has said nothing of it.
        assert_eq!(rig.metric(Metric::MailboxTaken), before + 1, "the order to leave alone");
    });
}
