//! The protocol against the server's half, without sockets, however the bytes are cut.

use super::*;
use crate::agent::identity::generate_key_pem;
use crate::agent::protocol::names::{RoomShape, tests::Listed};
use crate::agent::protocol::{Message, TargetIndex};
use crate::workload::population::RoomIndex;
use wire_protocol::error::RequestError;
use wire_protocol::ids::ConversationId;
use wire_protocol::limits::FRAME_BYTES_MAX;
use wire_protocol::session::{ReadyInfo, ServerInput, ServerSession};
use wire_protocol::v1::server_frame::Body as Answer;
use wire_protocol::websocket::{Item, accept_key, encode_binary, encode_ping, upgrade_response};

const DEVICE: DeviceIndex = DeviceIndex(1);
const DIRECT: RoomIndex = RoomIndex(0);
const GROUP: RoomIndex = RoomIndex(1);
const FOREIGN_GROUP: RoomIndex = RoomIndex(2);

fn shared(framing: Framing) -> Arc<Shared> {
    let rooms = vec![
        RoomShape::Direct { a: UserIndex(0), b: UserIndex(1) },
        RoomShape::Group { members: vec![UserIndex(1), UserIndex(0), UserIndex(2)] },
        RoomShape::Group { members: vec![UserIndex(0), UserIndex(1)] },
    ];
    Arc::new(Shared {
        names: Arc::new(Names::new(7, 1, Box::new(Listed(rooms)))),
        minter: Minter::from_pem(&generate_key_pem().expect("a key")).expect("it is one"),
        framing,
        heartbeat_s: 30,
        zero_wall_ms: 1_700_000_000_000,
        targets: TargetNames::new(["a:1", "b:1"].into_iter()),
    })
}

/// The server's end of the framing.
enum Far {
    Native(FrameDecoder),
    /// Waits for the upgrade's end.
    Upgrade(Vec<u8>),
    WebSocket(wire_protocol::websocket::Decoder),
}

/// Both halves, joined by bytes that are cut into pieces of `piece_bytes`.
struct Link {
    client: Box<Ringline>,
    half: ServerSession,
    far: Far,
    piece_bytes: usize,
    now_us: u64,
    events: Vec<ProtocolEvent>,
    proofs: Vec<Proof>,
    asked: Vec<(u32, client_frame::Body)>,
}

impl Link {
    fn new(shared: &Arc<Shared>, memory: &DeviceMemory, piece_bytes: usize) -> Self {
        let far = match shared.framing {
            Framing::Native => Far::Native(FrameDecoder::new(FRAME_BYTES_MAX)),
            Framing::WebSocket { .. } => Far::Upgrade(Vec::new()),
        };
        let mut link = Self {
            client: Box::new(Ringline::new(Arc::clone(shared), DEVICE, memory)),
            half: ServerSession::new(0),
            far,
            piece_bytes,
            now_us: 5_000_000,
            events: Vec::new(),
            proofs: Vec::new(),
            asked: Vec::new(),
        };
        let mut out = BytesMut::new();
        link.client.opened(link.now_us, &mut out);
        link.give_server(&out);
        link
    }

    fn give_server(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.piece_bytes) {
            if let Far::Upgrade(head) = &mut self.far {
                head.extend_from_slice(piece);
                if head.ends_with(b"\r\n\r\n") {
                    let text = String::from_utf8(head.clone()).expect("text");
                    let key = text.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
                    let response = upgrade_response(&accept_key(key.expect("a key")));
                    self.far = Far::WebSocket(wire_protocol::websocket::Decoder::new(FRAME_BYTES_MAX));
                    self.give_client(&response).expect("a good answer");
                }
                continue;
            }
            let mut payloads = Vec::new();
            match &mut self.far {
                Far::Native(decoder) => {
                    decoder.push(piece);
                    payloads.extend(std::iter::from_fn(|| decoder.next_frame().expect("frames")));
                }
                Far::WebSocket(decoder) => {
                    decoder.push(piece);
                    while let Some(item) = decoder.next_item().expect("masked frames") {
                        match item {
                            Item::Binary(payload) => payloads.push(payload),
                            Item::Pong(payload) => assert_eq!(payload.as_ref(), b"still there?"),
                            other => panic!("{other:?}"),
                        }
                    }
                }
                Far::Upgrade(_) => unreachable!("handled above"),
            }
            for payload in payloads {
                let mut out = BytesMut::new();
                match self.half.handle_frame(self.now_us / 1_000, payload, &mut out).expect("a proper client")
                {
                    ServerInput::Authenticate { proof } => self.proofs.push(proof),
                    ServerInput::Request { request_id, body } => self.asked.push((request_id, body)),
                    ServerInput::Handled => {}
                }
                if !out.is_empty() {
                    self.frame(&out).expect("a good frame");
                }
            }
        }
    }

    fn give_client(&mut self, bytes: &[u8]) -> Result<(), ProtocolFault> {
        for piece in bytes.chunks(self.piece_bytes) {
            let mut out = BytesMut::new();
            let result = self.client.received(self.now_us, piece, &mut out, &mut self.events);
            self.give_server(&out);
            result?;
        }
        Ok(())
    }

    fn frame(&mut self, payload: &[u8]) -> Result<(), ProtocolFault> {
        let mut bytes = BytesMut::new();
        match &self.far {
            Far::Native(_) => encode_frame(payload, &mut bytes),
            _ => encode_binary(payload, &mut bytes),
        }
        self.give_client(&bytes)
    }

    fn ready_as(&mut self, user: UserIndex) -> Result<(), ProtocolFault> {
        let names = Arc::clone(&self.client.shared.names);
        let info = ReadyInfo {
            user: names.user(user),
            device: names.device(DEVICE),
            server_time_ms: 1,
            resume_token: Bytes::from_static(b"come again"),
            feed_version: 0,
        };
        let mut out = BytesMut::new();
        self.half.ready(self.now_us / 1_000, info, &mut out);
        self.frame(&out)
    }

    fn ready(&mut self) {
        self.ready_as(UserIndex(1)).expect("the right user");
    }

    fn request(&mut self, token: u64, request: &Request) -> Result<(), NotSent> {
        let mut out = BytesMut::new();
        let result = self.client.request(self.now_us, Token(token), request, &mut out);
        self.give_server(&out);
        result
    }

    /// Answers the oldest request.
    fn answer(&mut self, body: Answer) -> Result<client_frame::Body, ProtocolFault> {
        let (id, asked) = self.asked.remove(0);
        let mut out = BytesMut::new();
        assert!(self.half.answer(id, body, &mut out));
        self.frame(&out)?;
        Ok(asked)
    }

    fn event(&mut self, body: Answer) {
        let mut out = BytesMut::new();
        self.half.event(body, &mut out);
        self.frame(&out).expect("a good event");
    }

    fn id(&self, room: RoomIndex) -> Bytes {
        self.client.shared.names.conversation(room).expect("it exists").to_bytes()
    }
}

fn entry(seq: u64, body: &'static [u8]) -> v1::Entry {
    let kind = if seq == 1 { v1::EntryKind::Created } else { v1::EntryKind::Text };
    v1::Entry { seq, sender: 0, time_ms: 1, kind: kind as i32, body: Bytes::from_static(body) }
}

fn delta(conversation_id: Bytes, entries: Vec<v1::Entry>, truncated: bool) -> v1::ConversationDelta {
    let conversation = Some(v1::Conversation { conversation_id, ..v1::Conversation::default() });
    v1::ConversationDelta { conversation, entries, truncated }
}

fn told(room: RoomIndex, seq: u64, body: &'static [u8]) -> ProtocolEvent {
    ProtocolEvent::Message(Message { room, seq: Some(seq), body: Bytes::from_static(body) })
}

/// A session with everything that may happen in it; what the client made of it.
fn session(framing: Framing, piece_bytes: usize) -> Vec<ProtocolEvent> {
    let shared = shared(framing);
    let mut link = Link::new(&shared, &DeviceMemory::default(), piece_bytes);
    assert_eq!(link.request(1, &Request::CatchUp { from: Vec::new(), expected: 0 }), Err(NotSent::NotReady));
    assert!(matches!(link.proofs.as_slice(), [Proof::AccessToken(_)]));
    link.ready();

    link.request(2, &Request::Open(DIRECT)).expect("ready");
    let made = v1::Conversation { conversation_id: link.id(DIRECT), ..v1::Conversation::default() };
    let asked = link.answer(Answer::Conversation(made)).expect("the right room");
    let client_frame::Body::Create(create) = asked else { panic!("{asked:?}") };
    assert_eq!(create.member_ids, vec![shared.names.user(UserIndex(0)).to_bytes()]);

    let body = Bytes::from_static(b"hello");
    let send = Request::Send { room: DIRECT, message: 9, predecessor: None, body };
    link.request(3, &send).expect("ready");
    let accepted = v1::MessageAccepted { seq: 2, ..v1::MessageAccepted::default() };
    link.answer(Answer::Accepted(accepted)).expect("an acceptance");
    let live =
        |id, seq| v1::MessageEvent { handle: 0, conversation_id: id, entry: Some(entry(seq, b"live")) };
    link.event(Answer::Message(live(link.id(GROUP), 3)));
    link.event(Answer::SyncNeeded(v1::SyncNeeded {}));
    if let Far::WebSocket(_) = link.far {
        let mut ping = BytesMut::new();
        encode_ping(b"still there?", &mut ping);
        link.give_client(&ping).expect("a good ping");
    }

    link.request(4, &Request::CatchUp { from: vec![(GROUP, 1)], expected: 0 }).expect("ready");
    assert_eq!(
        link.request(5, &Request::CatchUp { from: Vec::new(), expected: 0 }),
        Err(NotSent::Full),
        "one at a time"
    );
    catch_up(&mut link);

    link.request(6, &Request::History { room: GROUP, before: Some(4), limit: 1_000 }).expect("ready");
    let entries = vec![entry(1, b""), entry(2, b"old"), entry(3, b"live")];
    let page = v1::HistoryPage { handle: 0, conversation_id: link.id(GROUP), entries, head_seq: 3 };
    let asked = link.answer(Answer::HistoryPage(page)).expect("a page");
    assert!(
        matches!(asked, client_frame::Body::History(history) if history.before_seq == 4 && history.limit == 50)
    );

    link.request(7, &Request::Delivered { room: GROUP, seq: 3 }).expect("ready");
    link.answer(Answer::Done(v1::Done {})).expect("done");
    link.request(8, &Request::Read { room: GROUP, seq: 3 }).expect("ready");
    let error = RequestError::new(ErrorCode::ErrorThrottled, "slowly").after_ms(250);
    link.answer(Answer::Error(error.to_wire())).expect("an error");
    let mut out = BytesMut::new();
    link.half.closing(Reason::Draining, "restart", 1_000, &mut out);
    link.frame(&out).expect("a closing frame");
    link.give_client(b"whatever follows says nothing").expect("it is not looked at");
    assert_eq!(link.request(9, &Request::CatchUp { from: Vec::new(), expected: 0 }), Err(NotSent::NotReady));
    let memory = link.client.into_memory();
    assert_eq!(memory.0.as_ref(), [&12u64.to_be_bytes()[..], b"come again"].concat());
    link.events
}

/// Three pages, in which a conversation is cut off twice.
fn catch_up(link: &mut Link) {
    let (direct, group) = (link.id(DIRECT), link.id(GROUP));
    let after = |asked: client_frame::Body| {
        let client_frame::Body::Sync(sync) = asked else { panic!("{asked:?}") };
        let cursors: Vec<_> = sync.cursors.iter().map(|cursor| cursor.after_seq).collect();
        (sync.since_version, cursors)
    };
    let conversations = vec![
        delta(direct.clone(), vec![entry(1, b""), entry(2, b"hello")], false),
        delta(group.clone(), vec![entry(2, b"old")], true),
    ];
    let page = |conversations, version, more| Answer::SyncPage(v1::SyncPage { conversations, version, more });
    let asked = link.answer(page(conversations, 10, true)).expect("a page");
    assert_eq!(after(asked), (0, vec![1]), "where the device stands");
    let second = vec![delta(group.clone(), vec![entry(3, b"live")], true)];
    assert_eq!(after(link.answer(page(second, 11, true)).expect("a page")), (10, vec![2]));
    let third = vec![delta(group, Vec::new(), false)];
    assert_eq!(after(link.answer(page(third, 12, false)).expect("a page")), (11, vec![3]));
}

fn expected() -> Vec<ProtocolEvent> {
    let message = |seq, body| Message { room: GROUP, seq: Some(seq), body: Bytes::from_static(body) };
    vec![
        ProtocolEvent::Ready,
        ProtocolEvent::Done(Token(2)),
        ProtocolEvent::Accepted { token: Token(3), seq: Some(2) },
        told(GROUP, 3, b"live"),
        ProtocolEvent::SyncNeeded,
        told(DIRECT, 1, b""),
        told(DIRECT, 2, b"hello"),
        told(GROUP, 2, b"old"),
        told(GROUP, 3, b"live"),
        ProtocolEvent::CaughtUp(Token(4)),
        ProtocolEvent::Page {
            token: Token(6),
            messages: vec![message(1, b""), message(2, b"old"), message(3, b"live")],
        },
        ProtocolEvent::Done(Token(7)),
        ProtocolEvent::Refused {
            token: Some(Token(8)),
            code: "ERROR_THROTTLED".into(),
            retryable: true,
            retry_after_ms: 250,
        },
        ProtocolEvent::Closing { code: "DRAINING".into(), retry_after_ms: 1_000, go_to: Vec::new() },
    ]
}

#[test]
fn a_session_means_the_same_however_it_is_cut() {
    let websocket = Framing::WebSocket { host: "localhost".into() };
    for framing in [Framing::Native, websocket] {
        for piece_bytes in (1..400).chain([usize::MAX]) {
            let events = session(framing.clone(), piece_bytes);
            assert_eq!(events, expected(), "{framing:?} in pieces of {piece_bytes}");
        }
    }
}

#[test]
fn a_resume_token_is_used_and_forgotten_once_refused() {
    let shared = shared(Framing::Native);
    let mut first = Link::new(&shared, &DeviceMemory::default(), usize::MAX);
    first.ready();
    let memory = first.client.into_memory();

    let mut second = Link::new(&shared, &memory, usize::MAX);
    assert_eq!(second.proofs, vec![Proof::ResumeToken(Bytes::from_static(b"come again"))]);
    let mut out = BytesMut::new();
    second.half.refuse(&RequestError::new(ErrorCode::ErrorTokenExpired, "too old"), &mut out);
    second.frame(&out).expect("a closing frame");
    let code = "UNAUTHENTICATED/ERROR_TOKEN_EXPIRED".to_owned();
    assert_eq!(second.events, vec![ProtocolEvent::Closing { code, retry_after_ms: 0, go_to: Vec::new() }]);

    let third = Link::new(&shared, &second.client.into_memory(), usize::MAX);
    assert!(matches!(third.proofs.as_slice(), [Proof::AccessToken(_)]));
}

#[test]
fn a_gateway_that_leaves_sends_to_known_targets_alone() {
    let mut link = Link::new(&shared(Framing::Native), &DeviceMemory::default(), usize::MAX);
    link.ready();
    let mut out = BytesMut::new();
    link.half.leaving(250, ["x:1", "b:1", "a:1"].map(str::to_owned).to_vec(), &mut out);
    link.frame(&out).expect("a closing frame");
    let go_to = vec![TargetIndex(1), TargetIndex(0)];
    let closing = ProtocolEvent::Closing { code: "DRAINING".into(), retry_after_ms: 250, go_to };
    assert_eq!(link.events.last(), Some(&closing));
}

#[test]
fn an_end_that_does_not_come_after_the_last_frame_is_given_up() {
    let mut link = Link::new(&shared(Framing::Native), &DeviceMemory::default(), usize::MAX);
    link.ready();
    let mut out = BytesMut::new();
    link.half.closing(Reason::Draining, "restart", 1_000, &mut out);
    link.frame(&out).expect("a closing frame");
    let give_up_us = link.client.poll_timeout().expect("an end");
    let wait_us = give_up_us - link.now_us;
    assert!((CLOSING_US_MAX..CLOSING_US_MAX + CENTISECOND_US).contains(&wait_us), "{wait_us}");
    let mut out = BytesMut::new();
    link.client.handle_timeout(give_up_us - 1, &mut out).expect("not yet");
    assert!(link.client.handle_timeout(give_up_us, &mut out).is_err());
    assert!(out.is_empty(), "nothing is said any more");
}

#[test]
fn a_lost_connection_keeps_its_resume_token() {
    let shared = shared(Framing::Native);
    let mut first = Link::new(&shared, &DeviceMemory::default(), usize::MAX);
    first.ready();
    let second = Link::new(&shared, &first.client.into_memory(), usize::MAX);
    let third = Link::new(&shared, &second.client.into_memory(), usize::MAX);
    assert!(matches!(third.proofs.as_slice(), [Proof::ResumeToken(_)]));
}

#[test]
fn only_the_creator_opens_a_group() {
    let mut link = Link::new(&shared(Framing::Native), &DeviceMemory::default(), usize::MAX);
    link.ready();
    link.request(1, &Request::Open(GROUP)).expect("its creator");
    let (_, asked) = link.asked.first().expect("a request");
    let client_frame::Body::Create(create) = asked else { panic!("{asked:?}") };
    assert_eq!((create.member_ids.len(), create.creation_id), (2, u64::from(GROUP.0) + 1));
    let own = link.client.shared.names.user(UserIndex(1));
    assert_eq!(link.id(GROUP), ConversationId::group(own, create.creation_id).to_bytes());
    assert_eq!(link.request(2, &Request::Open(FOREIGN_GROUP)), Err(NotSent::Unsupported));
    assert_eq!(link.request(3, &Request::Open(RoomIndex(99))), Err(NotSent::Unsupported));
    let other = v1::Conversation { conversation_id: link.id(DIRECT), ..v1::Conversation::default() };
    assert!(link.answer(Answer::Conversation(other)).is_err(), "a room under another id");
}

#[test]
fn what_is_not_ours_is_told() {
    let shared = shared(Framing::Native);
    let mut link = Link::new(&shared, &DeviceMemory::default(), usize::MAX);
    assert!(link.ready_as(UserIndex(0)).is_err(), "another user's session");

    let mut link = Link::new(&shared, &DeviceMemory::default(), usize::MAX);
    link.ready();
    let conversation_id = Bytes::from_static(&[7; 16]);
    link.event(Answer::Message(v1::MessageEvent { handle: 0, conversation_id, entry: Some(entry(2, b"?")) }));
    let Some(ProtocolEvent::Refused { token: None, code, .. }) = link.events.last() else {
        panic!("{:?}", link.events)
    };
    assert_eq!(code, "unknown_room");
}

#[test]
fn requests_beyond_the_limit_wait() {
    let mut link = Link::new(&shared(Framing::Native), &DeviceMemory::default(), usize::MAX);
    link.ready();
    let read = Request::Read { room: DIRECT, seq: 1 };
    let sent = (0..100).take_while(|token| link.request(*token, &read).is_ok()).count();
    assert_eq!(sent, wire_protocol::limits::REQUESTS_IN_FLIGHT_MAX);
    assert_eq!(link.request(100, &read), Err(NotSent::Full));
    link.answer(Answer::Done(v1::Done {})).expect("done");
    assert_eq!(link.request(100, &read), Ok(()));
}

#[test]
fn a_message_names_the_one_before_it_and_hears_that_it_is_missing() {
    let mut link = Link::new(&shared(Framing::Native), &DeviceMemory::default(), usize::MAX);
    link.ready();
    let send = |message, predecessor| Request::Send {
        room: DIRECT,
        message,
        predecessor,
        body: Bytes::from_static(b"hello"),
    };
    link.request(1, &send(8, None)).expect("ready");
    link.request(2, &send(9, Some(8))).expect("ready");
    let away = RequestError::new(ErrorCode::ErrorUnavailable, "no leader").after_ms(50);
    let asked = link.answer(Answer::Error(away.to_wire())).expect("an error");
    assert!(matches!(asked, client_frame::Body::Send(send) if send.predecessor == 0), "none is before it");
    let missing = RequestError::new(ErrorCode::ErrorPredecessorMissing, "predecessor");
    let asked = link.answer(Answer::Error(missing.to_wire())).expect("an error");
    assert!(matches!(asked, client_frame::Body::Send(send) if send.predecessor == 8));
    assert_eq!(link.events.last(), Some(&ProtocolEvent::PredecessorMissing(Token(2))));
}

#[test]
fn silence_is_answered_by_a_ping_and_then_given_up() {
    let mut link = Link::new(&shared(Framing::Native), &DeviceMemory::default(), usize::MAX);
    link.ready();
    let ping_us = link.client.poll_timeout().expect("a heartbeat");
    assert_eq!(ping_us, link.now_us + 30_000_000);
    let mut out = BytesMut::new();
    link.client.handle_timeout(ping_us - 1_000, &mut out).expect("not yet");
    assert!(out.is_empty());
    link.client.handle_timeout(ping_us, &mut out).expect("a ping");
    assert!(!out.is_empty());
    assert!(link.client.handle_timeout(link.now_us + 90_000_000, &mut out).is_err());
}

#[test]
fn an_answer_that_is_no_upgrade_is_a_fault() {
    let shared = shared(Framing::WebSocket { host: "localhost".into() });
    for answer in [&b"HTTP/1.1 403 Forbidden\r\n\r\n"[..], &[b'x'; 4_096], b"HTTP/1.1 101 Yes\r\n\r\n"] {
        let mut client = Ringline::new(Arc::clone(&shared), DEVICE, &DeviceMemory::default());
        let (mut out, mut events) = (BytesMut::new(), Vec::new());
        client.opened(0, &mut out);
        assert!(client.received(0, answer, &mut out, &mut events).is_err());
    }
}

#[test]
fn an_idle_session_is_small() {
    let bytes = std::mem::size_of::<Ringline>();
    assert!(bytes <= 288, "{bytes} bytes");
}
