use super::*;
use crate::peers::names::tests::names;
use crate::workload::population::RoomIndex;

const CONNACK_NEW: &[u8] = b"\x20\x02\0\0";
const CONNACK_KNOWN: &[u8] = b"\x20\x02\x01\0";
const SUBACK: &[u8] = b"\x90\x05\0\x01\x01\x01\x01";

fn subscribed() -> DeviceMemory {
    DeviceMemory(Bytes::from_static(SUBSCRIBED))
}

/// Opens a connection of a device whose session the server knows.
fn ready(device: u32) -> Mqtt {
    let mut mqtt = Mqtt::new(names(device), &subscribed());
    mqtt.opened(0, &mut BytesMut::new());
    assert_eq!(take(&mut mqtt, CONNACK_KNOWN).1, [ProtocolEvent::Ready]);
    mqtt
}

fn take(mqtt: &mut Mqtt, bytes: &[u8]) -> (BytesMut, Vec<ProtocolEvent>) {
    let (mut out, mut events) = (BytesMut::new(), Vec::new());
    mqtt.received(1, bytes, &mut out, &mut events).expect("well formed");
    (out, events)
}

fn ask(mqtt: &mut Mqtt, token: u64, request: &Request) -> BytesMut {
    let mut out = BytesMut::new();
    mqtt.request(1, Token(token), request, &mut out).expect("it goes");
    out
}

fn send(room: u32) -> Request {
    let body = Bytes::from_static(b"body");
    Request::Send { room: RoomIndex(room), message: 1, predecessor: None, body }
}

fn catch_up() -> Request {
    Request::CatchUp { from: Vec::new(), expected: 0 }
}

/// A message as the server passes it on.
fn passed_on(topic: &str, id: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    packet::publish_once(&mut bytes, id, topic, body);
    bytes.to_vec()
}

#[test]
fn a_new_session_subscribes_and_a_known_one_does_not() {
    let mut mqtt = Mqtt::new(names(0), &DeviceMemory::default());
    let mut out = BytesMut::new();
    mqtt.opened(0, &mut out);
    assert_eq!(&out[..], b"\x10\x10\0\x04MQTT\x04\0\0\x1e\0\x042ad0", "a session that is kept");
    let (out, events) = take(&mut mqtt, CONNACK_NEW);
    let mut expected = BytesMut::new();
    packet::subscribe(&mut expected, 1, &["2a/u/0/+".into(), "2a/g/4/+".into(), "2a/m/0".into()]);
    assert_eq!((out, events), (expected, vec![]));
    assert_eq!(take(&mut mqtt, SUBACK).1, [ProtocolEvent::Ready]);
    assert_eq!(Box::new(mqtt).into_memory(), subscribed());
    ready(0);
    // One side alone remembers: it is asked for again.
    for (memory, welcome) in [(subscribed(), CONNACK_NEW), (DeviceMemory::default(), CONNACK_KNOWN)] {
        let mut mqtt = Mqtt::new(names(0), &memory);
        let (out, events) = take(&mut mqtt, welcome);
        assert_eq!((out[0], events.len()), (0x82, 0));
        assert_eq!(Box::new(mqtt).into_memory(), DeviceMemory::default(), "not confirmed yet");
    }
}

#[test]
fn sends_are_accepted_by_their_packet_id_in_any_order() {
    let mut mqtt = ready(0);
    let first = ask(&mut mqtt, 7, &send(0));
    assert_eq!(&first[..], b"\x32\x10\0\x082a/u/1/0\0\x01body");
    ask(&mut mqtt, 8, &send(4));
    let accepted = |token| ProtocolEvent::Accepted { token: Token(token), seq: None };
    assert_eq!(take(&mut mqtt, b"\x40\x02\0\x02\x40\x02\0\x01").1, [accepted(8), accepted(7)]);
    let again = mqtt.received(1, b"\x40\x02\0\x01", &mut BytesMut::new(), &mut Vec::new());
    assert!(again.is_err(), "answered twice");
}

#[test]
fn messages_are_told_and_confirmed_wherever_they_are_cut() {
    let stream = [
        passed_on("2a/u/0/0", 5, &[b'x'; 200]),
        b"\x30\x0b\0\x082a/g/4/1y".to_vec(),
        passed_on("2a/g/4/0", 6, b"own"),
        b"\xd0\0".to_vec(),
    ]
    .concat();
    let message = |room, body: &[u8]| {
        let body = Bytes::copy_from_slice(body);
        ProtocolEvent::Message(Message { room: RoomIndex(room), seq: None, body })
    };
    let expected = [message(0, &[b'x'; 200]), message(4, b"y"), ProtocolEvent::Done(Token(3))];
    for at in 0..=stream.len() {
        let mut mqtt = ready(0);
        ask(&mut mqtt, 3, &Request::Open(RoomIndex(0)));
        let (head, tail) = stream.split_at(at);
        let (mut out, mut events) = take(&mut mqtt, head);
        let (more_out, more_events) = take(&mut mqtt, tail);
        out.extend_from_slice(&more_out);
        events.extend(more_events);
        assert_eq!(events, expected, "cut at {at}");
        assert_eq!(&out[..], b"\x40\x02\0\x05\x40\x02\0\x06", "cut at {at}");
    }
}

#[test]
fn caught_up_is_when_the_own_marker_has_come_back() {
    let mut mqtt = ready(0);
    let old = passed_on("2a/m/0", 9, &[0; MARKER_BYTES]);
    let out = ask(&mut mqtt, 5, &catch_up());
    let marker = out[out.len() - MARKER_BYTES..].to_vec();
    assert_eq!(mqtt.request(1, Token(6), &catch_up(), &mut BytesMut::new()), Err(NotSent::Full));
    assert_eq!(take(&mut mqtt, b"\x40\x02\0\x01").1, [], "having it is not having sent it");
    assert_eq!(take(&mut mqtt, &passed_on("2a/u/0/0", 5, b"missed")).1.len(), 1);
    assert_eq!(take(&mut mqtt, &old).1, [], "a marker of an earlier connection");
    let own = passed_on("2a/m/0", 6, &marker);
    assert_eq!(take(&mut mqtt, &own).1, [ProtocolEvent::CaughtUp(Token(5))]);
    assert_eq!(take(&mut mqtt, &own).1, []);
}

#[test]
fn a_server_that_breaks_the_protocol_is_left() {
    let broken = |bytes: &[u8]| ready(0).received(1, bytes, &mut BytesMut::new(), &mut Vec::new()).is_err();
    assert!(broken(CONNACK_NEW), "welcomed twice");
    assert!(broken(b"\xd0\0"), "a pong without a ping");
    assert!(broken(SUBACK), "a subscription never asked for");
    assert!(broken(&passed_on("2a/u/1/0", 5, b"for somebody else")));
    assert!(broken(b"\x32\xff\xff\x7f"), "a packet beyond the limit");
    let mut refused = Mqtt::new(names(0), &DeviceMemory::default());
    take(&mut refused, CONNACK_NEW);
    let answer = refused.received(1, b"\x90\x05\0\x01\x01\x80\x01", &mut BytesMut::new(), &mut Vec::new());
    assert!(answer.is_err(), "a subscription was refused");
    let mut early = Mqtt::new(names(0), &DeviceMemory::default());
    assert!(early.received(1, b"\xd0\0", &mut BytesMut::new(), &mut Vec::new()).is_err());
    assert_eq!(early.request(1, Token(1), &send(0), &mut BytesMut::new()), Err(NotSent::NotReady));
}

#[test]
fn a_refused_connection_says_why() {
    let mut mqtt = Mqtt::new(names(0), &DeviceMemory::default());
    let closing =
        ProtocolEvent::Closing { code: "server_unavailable".into(), retry_after_ms: 0, go_to: Vec::new() };
    assert_eq!(take(&mut mqtt, b"\x20\x02\0\x03\x20\x02\0\0").1, [closing]);
}

#[test]
fn requests_are_bounded_and_honest() {
    let mut mqtt = ready(0);
    for token in 0..UNANSWERED_MAX as u64 {
        ask(&mut mqtt, token, &send(0));
    }
    assert_eq!(mqtt.request(1, Token(0), &send(0), &mut BytesMut::new()), Err(NotSent::Full));
    take(&mut mqtt, b"\x40\x02\0\x01");
    let history = Request::History { room: RoomIndex(0), before: None, limit: 50 };
    assert_eq!(mqtt.request(1, Token(0), &history, &mut BytesMut::new()), Err(NotSent::Unsupported));
    mqtt.id_next = u16::MAX;
    assert_eq!(mqtt.take_id(Purpose::Marker), u16::MAX);
    assert_eq!(mqtt.take_id(Purpose::Marker), 1, "0 is no id, and 1 is free again");
    assert_eq!(mqtt.take_id(Purpose::Marker), 1025, "others are taken");
}

#[test]
fn heartbeats_go_out_and_silence_ends_it() {
    let mut mqtt = ready(0);
    let mut out = BytesMut::new();
    assert_eq!(mqtt.poll_timeout(), Some(30_000_000));
    mqtt.handle_timeout(30_000_000, &mut out).expect("alive");
    assert_eq!(&out[..], b"\xc0\0");
    assert!(mqtt.handle_timeout(90_000_001, &mut out).is_err());
}
