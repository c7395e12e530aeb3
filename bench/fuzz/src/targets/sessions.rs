//! Both halves of a client's session: each against any bytes.

use crate::Target;
use crate::input::Input;
use bytes::{Bytes, BytesMut};
use prost::Message;
use wire_protocol::error::RequestError;
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::limits::{FRAME_BYTES_MAX, REQUESTS_IN_FLIGHT_MAX};
use wire_protocol::session::{ClientSession, Proof, ReadyInfo, ServerInput, ServerSession};
use wire_protocol::v1::{ClientFrame, ErrorCode, SendMessage, ServerFrame, client_frame};

/// See `holds`.
pub const SERVER_SESSION: Target = Target {
    name: "server-session",
    holds: "whatever a client sends, requests stay within their number, answers are whole frames, a fault is the last word",
    run: server_session,
};
/// See `holds`.
pub const CLIENT_SESSION: Target = Target {
    name: "client-session",
    holds: "whatever a server sends, requests stay within their number and a fault is the last word",
    run: client_session,
};

pub(super) fn info() -> ReadyInfo {
    ReadyInfo {
        user: UserId([1; 16]),
        device: DeviceId([2; 16]),
        server_time_ms: 1_790_000_000_000,
        resume_token: Bytes::from_static(b"resume"),
        feed_version: 1,
    }
}

pub(super) fn hello(out: &mut BytesMut) -> ClientSession {
    let mut client = ClientSession::new(0);
    client.hello(Proof::AccessToken("a.b.c".into()), 30, "fuzz", out);
    client
}

/// What was written is one frame that a client reads. Two behind each other decode as well, to one with the fields of
/// both; but that one encodes to other bytes.
fn whole(out: &mut BytesMut) {
    if !out.is_empty() {
        let payload = out.split().freeze();
        assert!(payload.len() <= FRAME_BYTES_MAX);
        let frame = ServerFrame::decode(payload.clone()).expect("a server writes frames");
        assert_eq!(&frame.encode_to_vec()[..], &payload[..], "one frame at a time");
    }
}

fn server_session(data: &[u8]) {
    let mut input = Input::new(data);
    let (mut server, mut out) = (ServerSession::new(0), BytesMut::new());
    let mut asked: Vec<u32> = Vec::new();
    if input.byte() < 200 {
        hello(&mut out);
        server.handle_frame(0, out.split().freeze(), &mut out).expect("a good hello");
        server.ready(0, info(), &mut out);
        whole(&mut out);
    }
    let mut now_ms = 0u64;
    while !input.is_empty() {
        now_ms = now_ms.saturating_add(input.number() % 10_000);
        match server.handle_frame(now_ms, Bytes::copy_from_slice(input.slice()), &mut out) {
            Err(fatal) => {
                assert!(!fatal.error.detail.is_empty());
                server.fail(&fatal, &mut out);
                assert!(!out.is_empty(), "a client is told");
                whole(&mut out);
                let late = server.handle_frame(now_ms, Bytes::copy_from_slice(input.slice()), &mut out);
                assert!(matches!(late, Ok(ServerInput::Handled)) && out.is_empty(), "it was the last word");
                return;
            }
            Ok(ServerInput::Authenticate { .. }) => server.ready(now_ms, info(), &mut out),
            Ok(ServerInput::Request { request_id, .. }) => {
                assert!(!asked.contains(&request_id), "{request_id} is in flight");
                asked.extend((request_id > 0).then_some(request_id));
            }
            Ok(ServerInput::Handled) => {}
        }
        whole(&mut out);
        assert_eq!(server.in_flight_count(), asked.len());
        assert!(asked.len() <= REQUESTS_IN_FLIGHT_MAX);
        for _ in 0..input.below(4).min(asked.len()) {
            let error = RequestError::new(ErrorCode::ErrorUnavailable, "away");
            assert!(server.answer_error(asked.remove(0), &error, &mut out), "it was asked");
            whole(&mut out);
        }
    }
}

fn client_session(data: &[u8]) {
    let mut input = Input::new(data);
    let mut out = BytesMut::new();
    let mut client = hello(&mut out);
    if input.byte() < 200 {
        let (mut server, mut answer) = (ServerSession::new(0), BytesMut::new());
        server.handle_frame(0, out.split().freeze(), &mut answer).expect("a good hello");
        server.ready(0, info(), &mut answer);
        client.handle_frame(0, answer.freeze()).expect("a good ready");
        assert!(client.is_ready());
    }
    let mut now_ms = 0u64;
    while !input.is_empty() {
        now_ms = now_ms.saturating_add(input.number() % 10_000);
        for _ in 0..input.below(3) {
            out.clear();
            if client.can_request() && client.request(now_ms, send(1, input.byte()), &mut out).is_ok() {
                ClientFrame::decode(&out[..]).expect("a client writes frames");
            }
        }
        assert!(client.unanswered().len() <= REQUESTS_IN_FLIGHT_MAX);
        match client.handle_frame(now_ms, Bytes::copy_from_slice(input.slice())) {
            Ok(_) => {}
            Err(fault) => {
                assert!(!fault.to_string().is_empty());
                return;
            }
        }
    }
}

pub(super) fn send(message: u64, conversation: u8) -> client_frame::Body {
    client_frame::Body::Send(SendMessage {
        conversation_id: Bytes::copy_from_slice(&[conversation % 4; 16]),
        client_message_id: message,
        kind: 1,
        body: Bytes::from_static(b"hello"),
        ..SendMessage::default()
    })
}
