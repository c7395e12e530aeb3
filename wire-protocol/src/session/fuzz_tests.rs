//! Raw bytes and sequences of operations against each half alone, from seeds: whatever comes, a half does not
//! panic, writes at most one whole frame at a time, keeps its bounds, and says nothing after its last frame.

use super::{ClientEvent, ClientSession, Proof, ReadyInfo, ServerInput, ServerSession};
use crate::error::RequestError;
use crate::ids::{DeviceId, UserId};
use crate::limits::{FRAME_BYTES_MAX, HANDLES_MAX, REQUESTS_IN_FLIGHT_MAX};
use crate::seed::{Seed, with_seeds};
use crate::v1::session_closing::Reason;
use crate::v1::*;
use bytes::{Bytes, BytesMut};
use prost::Message;
use std::collections::BTreeSet;

fn info() -> ReadyInfo {
    ReadyInfo {
        user: UserId([1; 16]),
        device: DeviceId([2; 16]),
        server_time_ms: 1_790_000_000_000,
        resume_token: Bytes::from_static(b"resume"),
        feed_version: 1,
    }
}

fn conversation_id(seed: &mut Seed) -> Bytes {
    Bytes::copy_from_slice(&(seed.below(2_000) as u128).to_be_bytes())
}

/// Either field, both or none, right or wrong.
fn some_mention(seed: &mut Seed) -> (u32, Bytes) {
    match seed.below(20) {
        0 => (0, Bytes::new()),
        1 => (seed.below(5) as u32, conversation_id(seed)),
        2 => (seed.next() as u32, Bytes::new()),
        3 => {
            let count = seed.below(20);
            (0, seed.bytes(count).into())
        }
        4 => (1 + seed.below(5) as u32, Bytes::new()),
        _ => (0, conversation_id(seed)),
    }
}

fn some_request(seed: &mut Seed) -> client_frame::Body {
    use client_frame::Body;
    let (handle, conversation_id) = some_mention(seed);
    let seq = seed.below(3) as u64;
    match seed.below(12) {
        0 => Body::Ping(Ping {}),
        1 => Body::Delivered(DeliveredUpTo { handle, conversation_id, seq }),
        2 => Body::Read(ReadUpTo { handle, conversation_id, seq }),
        3 => Body::Get(GetConversation { handle, conversation_id }),
        4 => {
            let limit = seed.below(60) as u32;
            Body::History(History { handle, conversation_id, before_seq: seq, after_seq: 0, limit })
        }
        5 => {
            let cursor = |_| {
                let (handle, conversation_id) = some_mention(seed);
                SyncCursor { handle, conversation_id, after_seq: 1 }
            };
            Body::Sync(Sync { cursors: (0..seq).map(cursor).collect(), ..Sync::default() })
        }
        6 => Body::Create(CreateConversation { kind: seq as i32, ..CreateConversation::default() }),
        7 => Body::LookUp(LookUpUsers { usernames: vec!["ada".into()], ..LookUpUsers::default() }),
        8 => Body::LogOut(LogOut {}),
        _ => {
            let count = seed.below(40);
            let body = seed.bytes(count).into();
            Body::Send(SendMessage {
                handle,
                conversation_id,
                client_message_id: seq,
                body,
                ..Default::default()
            })
        }
    }
}

fn hello(seed: &mut Seed) -> client_frame::Body {
    client_frame::Body::Hello(Hello {
        version_min: 1,
        version_max: 1 + seed.below(3) as u32,
        features: seed.below(2) as u64,
        proof: Some(hello::Proof::AccessToken("token".into())),
        ..Hello::default()
    })
}

fn some_answer(seed: &mut Seed) -> server_frame::Body {
    use server_frame::Body;
    let conversation_id = conversation_id(seed);
    match seed.below(8) {
        0 => Body::Accepted(MessageAccepted { seq: 4, ..MessageAccepted::default() }),
        1 => Body::Done(Done {}),
        2 => Body::Error(RequestError::new(ErrorCode::ErrorUnavailable, "storage").to_wire()),
        3 => Body::HistoryPage(HistoryPage { conversation_id, ..HistoryPage::default() }),
        4 => Body::Conversation(Conversation { conversation_id, ..Conversation::default() }),
        5 => {
            let row = |_| Conversation { conversation_id: self::conversation_id(seed), ..Default::default() };
            let conversations = (0..30).map(row).collect();
            Body::ConversationPage(ConversationPage { conversations, ..ConversationPage::default() })
        }
        6 => {
            let entry = Some(Entry { body: Bytes::from(vec![1; FRAME_BYTES_MAX]), ..Entry::default() });
            Body::Message(MessageEvent { conversation_id, entry, ..MessageEvent::default() })
        }
        _ => Body::Receipt(ReceiptEvent { conversation_id, ..ReceiptEvent::default() }),
    }
}

/// A frame with some bytes changed, cut off or added.
fn damaged(seed: &mut Seed, frame: Vec<u8>) -> Bytes {
    let mut bytes = frame;
    for _ in 0..1 + seed.below(3) {
        let at = seed.below(bytes.len() + 1);
        match seed.below(4) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, seed.next() as u8),
            2 if at < bytes.len() => bytes[at] ^= 1 << seed.below(8),
            _ => {
                let count = seed.below(12);
                bytes.extend(seed.bytes(count));
            }
        }
    }
    bytes.into()
}

/// A request, most often under an id that it may have.
fn client_payload(seed: &mut Seed, body: client_frame::Body, in_flight: &BTreeSet<u32>) -> Bytes {
    let may_go_unanswered = matches!(
        body,
        client_frame::Body::Delivered(_) | client_frame::Body::Read(_) | client_frame::Body::Ping(_)
    );
    let mut request_id = seed.below(90) as u32;
    while (request_id == 0 && !may_go_unanswered || in_flight.contains(&request_id)) && !seed.once_in(200) {
        request_id = seed.next() as u32 >> seed.below(32);
    }
    let frame = ClientFrame { request_id, body: Some(body) }.encode_to_vec();
    if seed.once_in(200) { damaged(seed, frame) } else { frame.into() }
}

/// One of the ids, or once in a while any.
fn some_id(seed: &mut Seed, ids: &BTreeSet<u32>) -> u32 {
    match ids.iter().nth(seed.below(ids.len().max(1))) {
        Some(&id) if !seed.once_in(100) => id,
        _ => seed.below(70) as u32,
    }
}

/// What must hold for a server half, followed from outside.
#[derive(Default)]
struct ServerModel {
    in_flight: BTreeSet<u32>,
    bindings: usize,
    closed: bool,
    requests: usize,
    answers: usize,
}

impl ServerModel {
    /// Takes what one operation wrote.
    fn wrote(&mut self, out: BytesMut) {
        if out.is_empty() {
            return;
        }
        assert!(!self.closed, "nothing follows the closing frame");
        assert!(out.len() <= FRAME_BYTES_MAX + 24 * 30);
        let frame = ServerFrame::decode(out.freeze()).expect("one whole frame");
        for binding in frame.bindings {
            self.bindings += 1;
            assert_eq!(binding.handle as usize, self.bindings, "handles count up");
            assert!(self.bindings <= HANDLES_MAX);
        }
        self.closed = matches!(frame.body, Some(server_frame::Body::Closing(_)));
    }

    fn handed_on(&mut self, request_id: u32) {
        self.requests += 1;
        if request_id != 0 {
            assert!(self.in_flight.insert(request_id), "ids in flight differ");
            assert!(self.in_flight.len() <= REQUESTS_IN_FLIGHT_MAX);
        }
    }
}

#[test]
fn any_sequence_of_operations_keeps_a_server_half_in_order() {
    let (mut requests, mut answers, mut closed) = (0, 0, 0);
    with_seeds(400, |seed| {
        let mut now_ms = 1_000;
        let mut server = ServerSession::new(now_ms);
        let mut model = ServerModel::default();
        let mut authenticating = false;
        for step in 0..400 {
            now_ms += seed.below(400) as u64;
            let mut out = BytesMut::new();
            match seed.below(10) {
                _ if step == 0 && !seed.once_in(8) => {
                    let body = hello(seed);
                    let frame = ClientFrame { request_id: 1, body: Some(body) }.encode_to_vec();
                    let input = server.handle_frame(now_ms, frame.into(), &mut out);
                    authenticating = matches!(input, Ok(ServerInput::Authenticate { .. }));
                    assert!(authenticating);
                }
                _ if authenticating && !seed.once_in(8) => {
                    server.ready(now_ms, info(), &mut out);
                    authenticating = false;
                }
                0 => {
                    let id = some_id(seed, &model.in_flight);
                    let answered = server.answer(id, some_answer(seed), &mut out);
                    assert_eq!(answered, server.is_ready() && model.in_flight.remove(&id));
                    model.answers += usize::from(answered);
                }
                1 | 2 => server.event(some_answer(seed), &mut out),
                3 if seed.once_in(30) => server.closing(Reason::Draining, "restart", 5, &mut out),
                4 if seed.once_in(30) => {
                    if let Some(fatal) = server.handle_timeout(now_ms + 100_000) {
                        server.fail(&fatal, &mut out);
                    }
                }
                _ => {
                    let body = if seed.once_in(500) { hello(seed) } else { some_request(seed) };
                    let payload = client_payload(seed, body, &model.in_flight);
                    match server.handle_frame(now_ms, payload, &mut out) {
                        Ok(ServerInput::Request { request_id, .. }) => model.handed_on(request_id),
                        Ok(ServerInput::Authenticate { .. }) => authenticating = true,
                        Ok(ServerInput::Handled) => {}
                        Err(fatal) => {
                            assert!(out.is_empty() && !server.is_ready());
                            authenticating = false;
                            server.fail(&fatal, &mut out);
                        }
                    }
                }
            }
            authenticating &= server.deadline_ms() != u64::MAX;
            model.wrote(out);
            assert_eq!(server.in_flight_count(), if server.is_ready() { model.in_flight.len() } else { 0 });
            assert!(!(model.closed && server.is_ready()));
        }
        requests += model.requests;
        answers += model.answers;
        closed += usize::from(model.closed);
    });
    if std::env::var_os("RINGLINE_SEED").is_none() {
        assert!(requests > 8_000 && answers > 2_000 && closed > 100, "{requests} {answers} {closed}");
    }
}

#[test]
fn any_sequence_of_operations_keeps_a_client_half_in_order() {
    let (mut answers, mut faults) = (0, 0);
    with_seeds(400, |seed| {
        let mut now_ms = 1_000;
        let mut client = ClientSession::new(now_ms);
        let mut asked: BTreeSet<u32> = BTreeSet::new();
        client.hello(Proof::AccessToken("token".into()), 0, "fuzz", &mut BytesMut::new());
        for step in 0..400 {
            now_ms += seed.below(2_000) as u64;
            let mut out = BytesMut::new();
            let before = client.is_ready();
            match seed.below(10) {
                0..3 => {
                    let result = client.request(now_ms, some_request(seed), &mut out);
                    assert_eq!(result.is_ok(), before && asked.len() < REQUESTS_IN_FLIGHT_MAX);
                    assert!(result.is_err() || asked.insert(result.expect("just looked")));
                }
                3 => {
                    if client.handle_timeout(now_ms, &mut out).is_err() {
                        assert!(out.is_empty() && !client.is_ready());
                    }
                }
                _ => {
                    let payload = server_payload(seed, step, client.is_ready(), &asked);
                    match client.handle_frame(now_ms, payload) {
                        Ok(ClientEvent::Answer { request_id, .. }) => {
                            assert!(asked.remove(&request_id), "what was asked is answered once");
                            answers += 1;
                        }
                        Ok(_) => {}
                        Err(_) => faults += 1,
                    }
                }
            }
            assert!(out.is_empty() || ClientFrame::decode(out.freeze()).is_ok());
            let unanswered = client.unanswered();
            assert!(!client.is_ready() || unanswered.into_iter().eq(asked.iter().copied()));
            assert_eq!(client.can_request(), client.is_ready() && asked.len() < REQUESTS_IN_FLIGHT_MAX);
            if !client.is_ready() && client.poll_timeout().is_none() {
                // Over: nothing is taken any more.
                assert!(client.handle_frame(now_ms, Bytes::new()).is_err());
                break;
            }
        }
    });
    if std::env::var_os("RINGLINE_SEED").is_none() {
        assert!(answers > 3_000 && faults > 100, "{answers} {faults}");
    }
}

/// A frame as a server might send it: mostly right at first, so that sessions get far.
fn server_payload(seed: &mut Seed, step: usize, ready: bool, asked: &BTreeSet<u32>) -> Bytes {
    let frame = if ready || seed.once_in(20) {
        let body = match seed.below(100) {
            0 => server_frame::Body::Closing(SessionClosing::default()),
            1 => server_frame::Body::Pong(Pong::default()),
            _ if asked.is_empty() => server_frame::Body::SyncNeeded(SyncNeeded {}),
            _ => match some_answer(seed) {
                server_frame::Body::Message(_) => server_frame::Body::SyncNeeded(SyncNeeded {}),
                other => other,
            },
        };
        let event = matches!(body, server_frame::Body::Receipt(_) | server_frame::Body::SyncNeeded(_));
        let request_id = if event && !seed.once_in(90) { 0 } else { some_id(seed, asked) };
        let bindings = if seed.once_in(100) {
            vec![Binding { handle: seed.below(3) as u32, conversation_id: conversation_id(seed) }]
        } else {
            vec![]
        };
        ServerFrame { request_id, body: Some(body), bindings }
    } else {
        let ready = Ready {
            version: 1,
            user_id: Bytes::from_static(&[1; 16]),
            device_id: Bytes::from_static(&[2; 16]),
            features: 1,
            heartbeat_s: 30,
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            requests_in_flight_max: 64,
            ..Ready::default()
        };
        ServerFrame { request_id: 1, body: Some(server_frame::Body::Ready(ready)), bindings: vec![] }
    };
    let payload = frame.encode_to_vec();
    if step > 20 && seed.once_in(40) { damaged(seed, payload) } else { payload.into() }
}

#[test]
fn arbitrary_bytes_never_panic_either_half() {
    with_seeds(3_000, |seed| {
        let mut server = ServerSession::new(0);
        let mut client = ClientSession::new(0);
        let mut out = BytesMut::new();
        client.hello(Proof::AccessToken("token".into()), 0, "fuzz", &mut out);
        if !seed.once_in(3) {
            server.handle_frame(0, out.split().freeze(), &mut BytesMut::new()).expect("a good hello");
            server.ready(0, info(), &mut out);
            client.handle_frame(0, out.split().freeze()).expect("ready");
        }
        for _ in 0..4 {
            let count = seed.below(200);
            let garbage = Bytes::from(seed.bytes(count));
            let mut written = BytesMut::new();
            let _ = server.handle_frame(1, garbage.clone(), &mut written);
            assert!(written.is_empty() || ServerFrame::decode(written.freeze()).is_ok());
            let _ = client.handle_frame(1, garbage);
            let body = some_request(seed);
            let valid = ClientFrame { request_id: 1, body: Some(body) }.encode_to_vec();
            let _ = server.handle_frame(1, damaged(seed, valid), &mut BytesMut::new());
            let body = some_answer(seed);
            let valid = ServerFrame { request_id: 1, body: Some(body), bindings: vec![] }.encode_to_vec();
            let _ = client.handle_frame(1, damaged(seed, valid));
        }
    });
}
