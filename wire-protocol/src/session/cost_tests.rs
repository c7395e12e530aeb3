//! What a 20-character text costs on the wire, in TLS 1.3 records of the native protocol.

use super::{ClientEvent, ClientSession, Proof, ReadyInfo, ServerInput, ServerSession};
use crate::frame::encode_frame;
use crate::ids::{DeviceId, UserId};
use crate::v1::*;
use bytes::{Bytes, BytesMut};

/// Record header 5, content type 1, authentication tag 16.
const RECORD_OVERHEAD_BYTES: usize = 22;
const SERVER_TIME_MS: u64 = 1_790_000_000_000;
const DAY_MS: u64 = 24 * 3_600 * 1_000;

fn record_bytes(payload: &[u8]) -> usize {
    let mut framed = BytesMut::new();
    encode_frame(payload, &mut framed);
    framed.len() + RECORD_OVERHEAD_BYTES
}

/// A session a day old that has spoken of 200 conversations, the last of which is that of the text.
fn open() -> (ClientSession, ServerSession, Bytes) {
    let (mut client, mut server) = (ClientSession::new(0), ServerSession::new(0));
    let (mut up, mut down) = (BytesMut::new(), BytesMut::new());
    client.hello(Proof::AccessToken("token".into()), 0, "test", &mut up);
    server.handle_frame(0, up.freeze(), &mut down).expect("a good hello");
    let info = ReadyInfo {
        user: UserId([1; 16]),
        device: DeviceId([2; 16]),
        server_time_ms: SERVER_TIME_MS,
        resume_token: Bytes::new(),
        feed_version: 0,
    };
    server.ready(0, info, &mut down);
    client.handle_frame(0, down.freeze()).expect("ready");
    let id = |number: u128| Bytes::copy_from_slice(&number.to_be_bytes());
    for number in 1..=200 {
        let mut down = BytesMut::new();
        let receipt = ReceiptEvent { conversation_id: id(number), ..ReceiptEvent::default() };
        server.event(server_frame::Body::Receipt(receipt), &mut down);
        client.handle_frame(0, down.freeze()).expect("an event");
    }
    (client, server, id(200))
}

#[test]
fn a_short_text_costs_at_most_100_bytes_up_with_its_ack_and_70_down() {
    let (mut client, mut server, conversation_id) = open();
    let text = Bytes::from_static(b"See you at the lake!");
    assert_eq!(text.len(), 20);
    let send = SendMessage {
        conversation_id: conversation_id.clone(),
        client_message_id: u64::MAX,
        body: text.clone(),
        ..SendMessage::default()
    };
    // Thirty others are in flight.
    let mut sent = BytesMut::new();
    for _ in 0..31 {
        sent.clear();
        let request_id =
            client.request(DAY_MS, client_frame::Body::Send(send.clone()), &mut sent).expect("room");
        let mut out = BytesMut::new();
        let input = server.handle_frame(DAY_MS, sent.clone().freeze(), &mut out).expect("good");
        assert!(matches!(input, ServerInput::Request { request_id: id, .. } if id == request_id));
    }
    let mut ack = BytesMut::new();
    let accepted = MessageAccepted { seq: 1_000_000, time_delta_ms: DAY_MS as i64, durability: 0 };
    assert!(server.answer(31, server_frame::Body::Accepted(accepted), &mut ack));
    let (up, back) = (record_bytes(&sent), record_bytes(&ack));
    assert!(up + back <= 100, "{up} up and {back} for the ack");

    let mut event = BytesMut::new();
    let time_ms = SERVER_TIME_MS + DAY_MS;
    let entry = Some(Entry { seq: 1_000_000, sender: 98, time_ms, body: text, ..Entry::default() });
    let message = MessageEvent { conversation_id, entry, ..MessageEvent::default() };
    server.event(server_frame::Body::Message(message.clone()), &mut event);
    let down = record_bytes(&event);
    assert!(down <= 70, "{down} down");
    // And it says all of it.
    let event = client.handle_frame(DAY_MS, event.freeze());
    assert_eq!(event, Ok(ClientEvent::Event(server_frame::Body::Message(message))));
}

#[test]
fn a_ping_and_its_pong_cost_little() {
    let (mut client, mut server, _) = open();
    let at_ms = client.poll_timeout().expect("a heartbeat");
    let (mut ping, mut pong) = (BytesMut::new(), BytesMut::new());
    client.handle_timeout(at_ms, &mut ping).expect("alive");
    server.handle_frame(at_ms, ping.clone().freeze(), &mut pong).expect("good");
    let (up, down) = (record_bytes(&ping), record_bytes(&pong));
    assert!(up <= 27 && down <= 34, "{up} up, {down} down");
}

#[test]
fn an_idle_hour_costs_a_ping_each_heartbeat() {
    let (mut client, mut server, _) = open();
    let (mut now_ms, mut pings) = (0, 0);
    while now_ms < 3_600_000 {
        now_ms = client.poll_timeout().expect("a heartbeat");
        assert_eq!(server.handle_timeout(now_ms), None);
        let (mut ping, mut pong) = (BytesMut::new(), BytesMut::new());
        client.handle_timeout(now_ms, &mut ping).expect("alive");
        server.handle_frame(now_ms + 40, ping.freeze(), &mut pong).expect("good");
        assert_eq!(client.handle_frame(now_ms + 80, pong.freeze()), Ok(ClientEvent::Handled));
        pings += 1;
    }
    assert_eq!(pings, 120);
    assert!(server.handle_timeout(now_ms + 40 + 89_999).is_none());
    assert!(server.handle_timeout(now_ms + 40 + 90_000).is_some());
    assert!(client.handle_timeout(now_ms + 80 + 90_000, &mut BytesMut::new()).is_err());
}
