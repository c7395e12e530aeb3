use super::core::Core;
use super::jetstream::{JetStream, Listening};
use crate::agent::protocol::{ClientProtocol, Message, NotSent, ProtocolEvent, Request, Token};
use crate::peers::names::tests::names;
use crate::workload::population::RoomIndex;
use bytes::{Bytes, BytesMut};

const INFO: &[u8] = b"INFO {\"server_id\":\"x\",\"version\":\"2.10.27\",\"max_payload\":1048576}\r\n";
const CONSUMER: &str = "CONSUMER.CREATE.RUN_2a.device_0";

fn take(protocol: &mut dyn ClientProtocol, bytes: &[u8]) -> (String, Vec<ProtocolEvent>) {
    let (mut out, mut events) = (BytesMut::new(), Vec::new());
    protocol.received(1, bytes, &mut out, &mut events).expect("well formed");
    (String::from_utf8(out.to_vec()).expect("text"), events)
}

fn breaks(protocol: &mut dyn ClientProtocol, bytes: &[u8]) -> bool {
    protocol.received(1, bytes, &mut BytesMut::new(), &mut Vec::new()).is_err()
}

fn ask(protocol: &mut dyn ClientProtocol, token: u64, request: &Request) -> String {
    let mut out = BytesMut::new();
    protocol.request(1, Token(token), request, &mut out).expect("it goes");
    String::from_utf8(out.to_vec()).expect("text")
}

fn send(room: u32) -> Request {
    let body = Bytes::from_static(b"body");
    Request::Send { room: RoomIndex(room), message: 1, predecessor: None, body }
}

fn catch_up() -> Request {
    Request::CatchUp { from: Vec::new(), expected: 0 }
}

fn message(room: u32, body: &'static [u8]) -> ProtocolEvent {
    ProtocolEvent::Message(Message { room: RoomIndex(room), seq: None, body: Bytes::from_static(body) })
}

fn accepted(token: u64) -> ProtocolEvent {
    ProtocolEvent::Accepted { token: Token(token), seq: None }
}

fn core() -> Core {
    let mut core = Core::new(names(0));
    core.opened(0, &mut BytesMut::new());
    take(&mut core, INFO);
    assert_eq!(take(&mut core, b"PONG\r\n").1, [ProtocolEvent::Ready]);
    core
}

fn live() -> JetStream {
    let mut live = JetStream::new(names(0), Listening::Live);
    take(&mut live, INFO);
    assert_eq!(take(&mut live, b"PONG\r\n").1, [ProtocolEvent::Ready]);
    live
}

/// A message of the server to the device's inbox.
fn answer(key: &str, json: &str) -> Vec<u8> {
    format!("MSG _INBOX.2a.0.a.{key} 1000001 {}\r\n{json}\r\n", json.len()).into_bytes()
}

fn consumer_answer(pending: u64, unconfirmed: u64) -> Vec<u8> {
    let json = format!(r#"{{"type":"c","num_pending":{pending},"num_ack_pending":{unconfirmed}}}"#);
    answer("c", &json)
}

/// A pulled message: how often it was delivered, and how many wait behind it.
fn pulled(deliveries: u64, pending: u64, body: &str) -> Vec<u8> {
    let reply = format!("$JS.ACK.RUN_2a.device_0.{deliveries}.17.17.1700000000000000000.{pending}");
    format!("MSG 2a.u.0.0 1000002 {reply} {}\r\n{body}\r\n", body.len()).into_bytes()
}

fn durable(pending: u64, unconfirmed: u64) -> JetStream {
    let mut durable = JetStream::new(names(0), Listening::Durable);
    durable.opened(0, &mut BytesMut::new());
    take(&mut durable, INFO);
    let (out, events) = take(&mut durable, b"PONG\r\n");
    assert!(out.starts_with(&format!("PUB $JS.API.{CONSUMER} _INBOX.2a.0.a.c ")), "{out}");
    assert_eq!(events, []);
    assert_eq!(durable.request(1, Token(1), &send(0), &mut BytesMut::new()), Err(NotSent::NotReady));
    let (out, events) = take(&mut durable, &consumer_answer(pending, unconfirmed));
    assert!(out.starts_with("PUB $JS.API.CONSUMER.MSG.NEXT.RUN_2a.device_0 _INBOX.2a.0.pull "), "{out}");
    assert!(out.contains(r#""batch":512"#), "{out}");
    assert_eq!(events, [ProtocolEvent::Ready]);
    durable
}

#[test]
fn a_link_opens_with_its_subscriptions() {
    let mut core = Core::new(names(0));
    let mut out = BytesMut::new();
    core.opened(0, &mut out);
    assert!(out.is_empty(), "the server speaks first");
    assert_eq!(core.request(1, Token(1), &send(0), &mut out), Err(NotSent::NotReady));
    let (out, events) = take(&mut core, INFO);
    assert!(out.starts_with("CONNECT {\"verbose\":false,"), "{out}");
    assert!(out.contains(r#""echo":false"#), "{out}");
    assert!(out.ends_with("}\r\nSUB 2a.u.0.* 1\r\nSUB 2a.g.4.* 2\r\nPING\r\n"), "{out}");
    assert_eq!(events, []);
    assert_eq!(take(&mut core, b"PONG\r\n").1, [ProtocolEvent::Ready]);
    assert!(breaks(&mut Core::new(names(0)), b"PING\r\n"), "no INFO first");
}

#[test]
fn a_core_message_is_accepted_by_the_pong_behind_it() {
    let mut core = core();
    assert_eq!(ask(&mut core, 7, &send(0)), "PUB 2a.u.1.0 4\r\nbody\r\nPING\r\n");
    assert_eq!(ask(&mut core, 8, &Request::Open(RoomIndex(4))), "PING\r\n");
    assert_eq!(ask(&mut core, 9, &send(4)), "PUB 2a.g.4.0 4\r\nbody\r\nPING\r\n");
    let (_, events) = take(&mut core, b"PONG\r\nPONG\r\nPONG\r\n");
    assert_eq!(events, [accepted(7), ProtocolEvent::Done(Token(8)), accepted(9)]);
    assert!(breaks(&mut core, b"PONG\r\n"));
    assert_eq!(core.request(1, Token(1), &catch_up(), &mut BytesMut::new()), Err(NotSent::Unsupported));
}

#[test]
fn core_messages_come_whole_wherever_they_are_cut() {
    let stream =
        b"MSG 2a.u.0.0 1 4\r\na\r\nb\r\nPING\r\nMSG 2a.g.4.1 2 1\r\ny\r\nMSG 2a.g.4.0 2 3\r\nown\r\n+OK\r\n";
    for at in 0..=stream.len() {
        let mut core = core();
        let (head, tail) = stream.split_at(at);
        let (mut out, mut events) = take(&mut core, head);
        let more = take(&mut core, tail);
        out.push_str(&more.0);
        events.extend(more.1);
        assert_eq!(events, [message(0, b"a\r\nb"), message(4, b"y")], "cut at {at}");
        assert_eq!(out, "PONG\r\n", "cut at {at}");
    }
    assert!(breaks(&mut core(), b"MSG 2a.u.1.0 1 1\r\nx\r\n"), "for somebody else");
    assert!(breaks(&mut core(), b"MSG 2a.u.0.0 1 9999999\r\n"), "beyond the limit");
}

#[test]
fn errors_close_but_for_permissions() {
    let closing =
        ProtocolEvent::Closing { code: "slow_consumer".into(), retry_after_ms: 0, go_to: Vec::new() };
    assert_eq!(take(&mut core(), b"-ERR 'Slow Consumer'\r\nPING\r\n"), (String::new(), vec![closing]));
    let (_, events) = take(&mut core(), b"-ERR 'Permissions Violation for Publish to \"a\"'\r\n");
    assert!(matches!(&events[..], [ProtocolEvent::Refused { token: None, retryable: false, .. }]));
}

#[test]
fn heartbeats_go_out_and_their_answers_are_nobodys() {
    let mut core = core();
    let mut out = BytesMut::new();
    core.handle_timeout(30_000_000, &mut out).expect("alive");
    assert_eq!(&out[..], b"PING\r\n");
    assert_eq!(take(&mut core, b"PONG\r\n").1, []);
    assert!(core.handle_timeout(90_000_001, &mut out).is_err());
}

#[test]
fn a_stream_accepts_by_its_answer() {
    let mut live = live();
    assert_eq!(ask(&mut live, 0x1f, &send(0)), "PUB 2a.u.1.0 _INBOX.2a.0.a.p1f 4\r\nbody\r\n");
    ask(&mut live, 2, &send(4));
    let stored = r#"{"stream":"RUN_2a","seq":9}"#;
    assert_eq!(take(&mut live, &answer("p1f", stored)).1, [accepted(0x1f)]);
    let nobody = b"HMSG _INBOX.2a.0.a.p2 1000001 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";
    let refused = |code: &str, retryable, token| {
        let (token, code) = (Some(Token(token)), code.to_owned());
        ProtocolEvent::Refused { token, code, retryable, retry_after_ms: 0 }
    };
    assert_eq!(take(&mut live, nobody).1, [refused("no_responders", true, 2)]);
    ask(&mut live, 3, &send(0));
    let full = r#"{"error":{"code":400,"err_code":10077,"description":"maximum messages exceeded"}}"#;
    assert_eq!(take(&mut live, &answer("p3", full)).1, [refused("jetstream_400_10077", false, 3)]);
    assert_eq!(take(&mut live, b"MSG 2a.u.0.0 1 4\r\nbody\r\n").1, [message(0, b"body")]);
    assert!(breaks(&mut live, &answer("p1f", stored)), "answered twice");
    for bad in ["not json", "{}", r#"{"seq":-1}"#] {
        ask(&mut live, 4, &send(0));
        assert!(breaks(&mut live, &answer("p4", bad)), "{bad}");
    }
    assert_eq!(live.request(1, Token(1), &catch_up(), &mut BytesMut::new()), Err(NotSent::Unsupported));
}

#[test]
fn opening_a_room_makes_the_stream() {
    let mut live = live();
    let out = ask(&mut live, 5, &Request::Open(RoomIndex(0)));
    assert!(out.starts_with("PUB $JS.API.STREAM.CREATE.RUN_2a _INBOX.2a.0.a.o5 "), "{out}");
    assert!(out.contains(r#""subjects":["2a.>"]"#), "{out}");
    assert_eq!(take(&mut live, &answer("o5", r#"{"config":{}}"#)).1, [ProtocolEvent::Done(Token(5))]);
}

#[test]
fn pulled_messages_are_confirmed_and_pulled_on() {
    let mut durable = durable(0, 0);
    let (out, events) = take(&mut durable, &pulled(1, 0, "body"));
    let reply = "$JS.ACK.RUN_2a.device_0.1.17.17.1700000000000000000.0";
    assert_eq!(out, format!("PUB {reply} 4\r\n+ACK\r\n"));
    assert_eq!(events, [message(0, b"body")]);
    let mut out = String::new();
    for _ in 1..256 {
        out = take(&mut durable, &pulled(1, 0, "body")).0;
    }
    assert!(out.contains("MSG.NEXT") && out.contains(r#""batch":256"#), "{out}");
    let header =
        "NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 300\r\nNats-Pending-Bytes: 0\r\n\r\n";
    let late = format!("HMSG _INBOX.2a.0.pull 1000002 {0} {0}\r\n{header}\r\n", header.len());
    let (out, events) = take(&mut durable, late.as_bytes());
    assert!(out.contains(r#""batch":300"#), "{out}");
    assert_eq!(events, []);
    assert!(breaks(&mut durable, b"MSG 2a.u.0.0 1000002 1\r\nx\r\n"), "a message without its place");
}

#[test]
fn caught_up_is_when_nothing_waits_on_the_server() {
    let mut nothing = durable(0, 0);
    assert_eq!(ask(&mut nothing, 4, &catch_up()), "PING\r\n");
    assert_eq!(take(&mut nothing, b"PONG\r\n").1, [ProtocolEvent::CaughtUp(Token(4))]);
    let mut some = durable(2, 0);
    ask(&mut some, 4, &catch_up());
    assert_eq!(take(&mut some, b"PONG\r\n").1, [], "two wait");
    assert_eq!(take(&mut some, &pulled(1, 1, "body")).1, [message(0, b"body")]);
    let last = take(&mut some, &pulled(1, 0, "body")).1;
    assert_eq!(last, [message(0, b"body"), ProtocolEvent::CaughtUp(Token(4))]);
}

#[test]
fn what_an_earlier_connection_did_not_confirm_is_waited_for() {
    let mut left = durable(0, 2);
    ask(&mut left, 4, &catch_up());
    assert_eq!(take(&mut left, b"PONG\r\n").1, []);
    assert_eq!(take(&mut left, &pulled(2, 0, "body")).1, [message(0, b"body")]);
    assert_eq!(take(&mut left, &pulled(1, 0, "body")).1, [message(0, b"body")], "a new one is none of them");
    assert_eq!(take(&mut left, &pulled(2, 0, "body")).1.last(), Some(&ProtocolEvent::CaughtUp(Token(4))));
    // The server may have had a confirmation after all: it is asked.
    let mut asked = durable(0, 1);
    ask(&mut asked, 4, &catch_up());
    let due = asked.poll_timeout().expect("it will ask");
    let mut out = BytesMut::new();
    asked.handle_timeout(due, &mut out).expect("alive");
    assert!(String::from_utf8_lossy(&out).contains(CONSUMER));
    let (out, events) = take(&mut asked, &[b"PONG\r\n".to_vec(), consumer_answer(0, 0)].concat());
    assert_eq!((out.as_str(), events), ("", vec![ProtocolEvent::CaughtUp(Token(4))]));
}

#[test]
fn durable_streams_of_bytes_may_be_cut_anywhere() {
    let stream = [pulled(1, 1, "one"), b"PING\r\n".to_vec(), pulled(1, 0, "two")].concat();
    for at in 0..=stream.len() {
        let mut durable = durable(2, 0);
        let (head, tail) = stream.split_at(at);
        let mut events = take(&mut durable, head).1;
        events.extend(take(&mut durable, tail).1);
        assert_eq!(events, [message(0, b"one"), message(0, b"two")], "cut at {at}");
    }
}
