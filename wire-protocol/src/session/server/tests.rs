use super::*;
use crate::limits::*;
use crate::session::hello::negotiate;
use crate::v1::*;

const NOW: u64 = 50_000;
const SERVER_TIME: u64 = 1_790_000_000_000;

fn id(number: u8) -> Bytes {
    Bytes::from(vec![number; 16])
}

fn payload(request_id: u32, body: client_frame::Body) -> Bytes {
    ClientFrame { request_id, body: Some(body) }.encode_to_vec().into()
}

fn good_hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        features: u64::MAX,
        proof: Some(hello::Proof::AccessToken("token".into())),
        ..Hello::default()
    }
}

/// What a frame leads to: the result, and the frame written, if any.
fn give(
    session: &mut ServerSession,
    now_ms: u64,
    payload: Bytes,
) -> (Result<ServerInput, Fatal>, Option<ServerFrame>) {
    let mut out = BytesMut::new();
    let result = session.handle_frame(now_ms, payload, &mut out);
    (result, read(out))
}

fn read(out: BytesMut) -> Option<ServerFrame> {
    (!out.is_empty()).then(|| ServerFrame::decode(out.freeze()).expect("one frame"))
}

fn open_with(hello: Hello) -> ServerSession {
    let mut session = ServerSession::new(NOW);
    let (result, _) = give(&mut session, NOW, payload(1, client_frame::Body::Hello(hello)));
    assert!(matches!(result, Ok(ServerInput::Authenticate { .. })), "{result:?}");
    let info = ReadyInfo {
        user: UserId([1; 16]),
        device: DeviceId([2; 16]),
        server_time_ms: SERVER_TIME,
        resume_token: Bytes::from_static(b"resume"),
        feed_version: 7,
    };
    let mut out = BytesMut::new();
    session.ready(NOW, info, &mut out);
    let ready = read(out).expect("ready");
    assert_eq!(ready.request_id, 1);
    assert!(matches!(ready.body, Some(server_frame::Body::Ready(_))));
    session
}

fn open() -> ServerSession {
    open_with(good_hello())
}

fn fatal(result: Result<ServerInput, Fatal>) -> (Reason, ErrorCode) {
    let fatal = result.expect_err("fatal");
    (fatal.reason, fatal.error.code)
}

fn answer(session: &mut ServerSession, request_id: u32, body: server_frame::Body) -> Option<ServerFrame> {
    let mut out = BytesMut::new();
    let answered = session.answer(request_id, body, &mut out);
    let frame = read(out);
    assert_eq!(answered, frame.is_some());
    frame
}

fn event(session: &mut ServerSession, body: server_frame::Body) -> Option<ServerFrame> {
    let mut out = BytesMut::new();
    session.event(body, &mut out);
    read(out)
}

fn send(conversation: Bytes) -> SendMessage {
    let body = Bytes::from_static(b"hi");
    SendMessage { conversation_id: conversation, client_message_id: 5, body, ..SendMessage::default() }
}

fn receipt(conversation: Bytes) -> server_frame::Body {
    server_frame::Body::Receipt(ReceiptEvent { conversation_id: conversation, ..ReceiptEvent::default() })
}

#[test]
fn an_idle_session_is_small() {
    let bytes = std::mem::size_of::<ServerSession>();
    assert!(bytes <= 96, "{bytes} bytes for each of 150 million");
}

#[test]
fn hello_settles_version_features_and_heartbeat() {
    for (wished, given) in [(0, 30), (1, HEARTBEAT_S_MIN), (45, 45), (u32::MAX, HEARTBEAT_S_MAX)] {
        let mut session = ServerSession::new(NOW);
        let hello = Hello { heartbeat_s: wished, ..good_hello() };
        let (result, _) = give(&mut session, NOW + 5, payload(9, client_frame::Body::Hello(hello)));
        let Ok(ServerInput::Authenticate { proof: Proof::AccessToken(token) }) = result else {
            panic!("{result:?}")
        };
        assert_eq!(token, "token");
        let mut out = BytesMut::new();
        let info = ReadyInfo {
            user: UserId([1; 16]),
            device: DeviceId([2; 16]),
            server_time_ms: SERVER_TIME,
            resume_token: Bytes::from_static(b"resume"),
            feed_version: 7,
        };
        assert!(!session.is_ready());
        session.ready(NOW + 9, info, &mut out);
        assert!(session.is_ready());
        assert_eq!(session.server_time_ms(), SERVER_TIME);
        let frame = read(out).expect("ready");
        assert_eq!(frame.request_id, 9);
        let ready = Ready {
            version: 1,
            features: FEATURES,
            user_id: id(1),
            device_id: id(2),
            server_time_ms: SERVER_TIME,
            heartbeat_s: given,
            resume_token: Bytes::from_static(b"resume"),
            feed_version: 7,
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX as u32,
        };
        assert_eq!(frame.body, Some(server_frame::Body::Ready(ready)));
        assert_eq!(session.deadline_ms(), NOW + 9 + u64::from(given) * 3_000);
    }
}

#[test]
fn versions_are_negotiated() {
    assert_eq!(negotiate(2..=4, 1..=3), Some(3));
    assert_eq!(negotiate(2..=4, 3..=9), Some(4));
    assert_eq!(negotiate(2..=4, 4..=4), Some(4));
    assert_eq!(negotiate(2..=4, 0..=1), None);
    assert_eq!(negotiate(2..=4, 5..=9), None);
    #[expect(clippy::reversed_empty_ranges, reason = "what a peer may send")]
    let nonsense = 4..=2;
    assert_eq!(negotiate(2..=4, nonsense), None);
}

#[test]
fn a_bad_first_frame_is_fatal() {
    use ErrorCode::*;
    use client_frame::Body;
    let hello = |hello: Hello| payload(1, Body::Hello(hello));
    let token = |token: String| Some(hello::Proof::AccessToken(token));
    let long = "x".repeat(TOKEN_BYTES_MAX + 1);
    let broken = Reason::ProtocolError;
    let cases = [
        (payload(1, Body::Ping(Ping {})), broken, ErrorHelloExpected),
        (payload(1, Body::Send(send(id(1)))), broken, ErrorHelloExpected),
        (Bytes::new(), broken, ErrorHelloExpected),
        (Bytes::from_static(&[0xff; 9]), broken, ErrorMalformedFrame),
        (Bytes::from(vec![0; HELLO_FRAME_BYTES_MAX + 1]), broken, ErrorFrameTooLarge),
        (payload(0, Body::Hello(good_hello())), broken, ErrorMalformedFrame),
        (hello(Hello { version_min: 2, version_max: 3, ..good_hello() }), broken, ErrorVersionUnsupported),
        (hello(Hello { version_min: 0, version_max: 0, ..good_hello() }), broken, ErrorVersionUnsupported),
        (hello(Hello { client: "x".repeat(65), ..good_hello() }), broken, ErrorMalformedFrame),
        (hello(Hello { proof: None, ..good_hello() }), Reason::Unauthenticated, ErrorUnauthenticated),
        (
            hello(Hello { proof: token(String::new()), ..good_hello() }),
            Reason::Unauthenticated,
            ErrorUnauthenticated,
        ),
        (hello(Hello { proof: token(long), ..good_hello() }), Reason::Unauthenticated, ErrorUnauthenticated),
    ];
    for (payload, reason, code) in cases {
        let mut session = ServerSession::new(NOW);
        let (result, written) = give(&mut session, NOW, payload);
        let fault = result.expect_err("fatal");
        assert_eq!((fault.reason, fault.error.code), (reason, code), "{}", fault.error.detail);
        assert_eq!(written, None);
        let mut out = BytesMut::new();
        session.fail(&fault, &mut out);
        let Some(server_frame::Body::Closing(closing)) = read(out).expect("a closing frame").body else {
            panic!()
        };
        assert_eq!((closing.reason(), closing.code(), closing.detail), (reason, code, fault.error.detail));
    }
}

#[test]
fn longest_hello_is_taken() {
    let hello = Hello {
        client: "x".repeat(CLIENT_NAME_BYTES_MAX),
        proof: Some(hello::Proof::ResumeToken(Bytes::from(vec![1; TOKEN_BYTES_MAX]))),
        ..good_hello()
    };
    open_with(hello);
}

#[test]
fn nothing_comes_between_hello_and_ready() {
    let mut session = ServerSession::new(NOW);
    give(&mut session, NOW, payload(1, client_frame::Body::Hello(good_hello()))).0.expect("good");
    let (result, _) = give(&mut session, NOW, payload(2, client_frame::Body::Ping(Ping {})));
    assert_eq!(fatal(result), (Reason::ProtocolError, ErrorCode::ErrorUnexpectedFrame));
    // The proof is accepted too late: nothing is written.
    let mut out = BytesMut::new();
    let info = ReadyInfo {
        user: UserId([1; 16]),
        device: DeviceId([2; 16]),
        server_time_ms: 0,
        resume_token: Bytes::new(),
        feed_version: 0,
    };
    session.ready(NOW, info, &mut out);
    assert!(out.is_empty() && !session.is_ready());
}

#[test]
fn a_refused_proof_says_why() {
    use ErrorCode::*;
    for (code, reason) in [
        (ErrorUnauthenticated, Reason::Unauthenticated),
        (ErrorTokenExpired, Reason::Unauthenticated),
        (ErrorUnavailable, Reason::Overloaded),
        (ErrorInternal, Reason::Overloaded),
    ] {
        let mut session = ServerSession::new(NOW);
        give(&mut session, NOW, payload(1, client_frame::Body::Hello(good_hello()))).0.expect("good");
        let mut out = BytesMut::new();
        session.refuse(&RequestError::new(code, "why").after_ms(300), &mut out);
        let Some(server_frame::Body::Closing(closing)) = read(out).expect("a closing frame").body else {
            panic!()
        };
        assert_eq!((closing.reason(), closing.code(), closing.retry_after_ms), (reason, code, 300));
        assert_eq!(closing.detail, "why");
    }
}

#[test]
fn frames_that_end_an_open_session() {
    use ErrorCode::*;
    use client_frame::Body;
    let cases = [
        (payload(2, Body::Hello(good_hello())), ErrorUnexpectedFrame),
        (Bytes::from_static(&[0xff; 9]), ErrorMalformedFrame),
        (Bytes::new(), ErrorMalformedFrame),
        (Bytes::from(vec![0; FRAME_BYTES_MAX + 1]), ErrorFrameTooLarge),
        (payload(0, Body::Send(send(id(1)))), ErrorMalformedFrame),
        (payload(0, Body::LogOut(LogOut {})), ErrorMalformedFrame),
        (payload(0, Body::Sync(Sync::default())), ErrorMalformedFrame),
    ];
    for (payload, code) in cases {
        let mut session = open();
        let (result, written) = give(&mut session, NOW, payload);
        assert_eq!(fatal(result), (Reason::ProtocolError, code));
        assert_eq!(written, None);
        assert!(!session.is_ready());
    }
}

#[test]
fn nothing_passes_after_closing() {
    let mut session = open();
    give(&mut session, NOW, payload(3, client_frame::Body::Send(send(id(1))))).0.expect("good");
    let mut out = BytesMut::new();
    session.closing(Reason::Draining, "restart", 1_500, &mut out);
    let Some(server_frame::Body::Closing(closing)) = read(out).expect("a closing frame").body else {
        panic!()
    };
    assert_eq!((closing.reason(), closing.retry_after_ms), (Reason::Draining, 1_500));
    let mut out = BytesMut::new();
    session.closing(Reason::Idle, "again", 0, &mut out);
    assert!(out.is_empty());
    assert_eq!(answer(&mut session, 3, server_frame::Body::Done(Done {})), None);
    assert_eq!(event(&mut session, receipt(id(1))), None);
    for late in [payload(4, client_frame::Body::Send(send(id(1)))), Bytes::from_static(&[0xff; 9])] {
        let (result, written) = give(&mut session, NOW, late);
        assert!(matches!(result, Ok(ServerInput::Handled)) && written.is_none());
    }
    assert_eq!(session.deadline_ms(), u64::MAX);
    assert_eq!(session.handle_timeout(u64::MAX), None);
}

#[test]
fn requests_in_flight_are_bounded_and_their_ids_differ() {
    let mut session = open();
    let send = |request_id| payload(request_id, client_frame::Body::Send(send(id(1))));
    for request_id in 1..=REQUESTS_IN_FLIGHT_MAX as u32 {
        let (result, _) = give(&mut session, NOW, send(request_id));
        assert!(matches!(result, Ok(ServerInput::Request { request_id: given, .. }) if given == request_id));
    }
    let (result, written) = give(&mut session, NOW, send(1_000));
    assert!(matches!(result, Ok(ServerInput::Handled)));
    let Some(ServerFrame { request_id: 1_000, body: Some(server_frame::Body::Error(error)), .. }) = written
    else {
        panic!("{written:?}")
    };
    assert_eq!(error.code(), ErrorCode::ErrorTooManyInFlight);
    assert!(error.retryable && error.retry_after_ms > 0);
    // Pings and cursors without an answer need no place.
    let ping = give(&mut session, NOW, payload(65, client_frame::Body::Ping(Ping {}))).1;
    assert!(matches!(ping.expect("pong").body, Some(server_frame::Body::Pong(_))));
    let read_up_to = ReadUpTo { conversation_id: id(1), seq: 4, ..ReadUpTo::default() };
    let (result, _) = give(&mut session, NOW, payload(0, client_frame::Body::Read(read_up_to)));
    assert!(matches!(result, Ok(ServerInput::Request { request_id: 0, .. })));
    assert_eq!(session.in_flight_count(), REQUESTS_IN_FLIGHT_MAX);
    // An answer frees its place, once.
    assert!(answer(&mut session, 17, server_frame::Body::Done(Done {})).is_some());
    assert!(answer(&mut session, 17, server_frame::Body::Done(Done {})).is_none());
    assert!(answer(&mut session, 0, server_frame::Body::Done(Done {})).is_none());
    assert!(matches!(give(&mut session, NOW, send(1_000)).0, Ok(ServerInput::Request { .. })));
    let (result, _) = give(&mut session, NOW, send(20));
    assert_eq!(fatal(result), (Reason::ProtocolError, ErrorCode::ErrorUnexpectedFrame));
}

#[test]
fn pongs_tell_the_servers_time_whatever_clock_drives_it() {
    let mut session = open();
    let ping = payload(65, client_frame::Body::Ping(Ping {}));
    let (_, written) = give(&mut session, NOW + 1_234, ping);
    let pong = server_frame::Body::Pong(Pong { server_time_ms: SERVER_TIME + 1_234 });
    assert_eq!(written, Some(ServerFrame { request_id: 65, body: Some(pong), bindings: vec![] }));
    let (result, written) = give(&mut session, NOW, payload(0, client_frame::Body::Ping(Ping {})));
    assert!(matches!(result, Ok(ServerInput::Handled)) && written.is_none());
}

#[test]
fn silence_ends_every_stage() {
    let mut session = ServerSession::new(NOW);
    assert_eq!(session.handle_timeout(NOW + HELLO_TIMEOUT_MS - 1), None);
    let fault = session.handle_timeout(NOW + HELLO_TIMEOUT_MS).expect("no hello");
    assert_eq!(fault.error.code, ErrorCode::ErrorHelloExpected);

    let mut session = ServerSession::new(NOW);
    give(&mut session, NOW + 5, payload(1, client_frame::Body::Hello(good_hello()))).0.expect("good");
    assert_eq!(session.handle_timeout(NOW + REQUEST_TIMEOUT_MS), None);
    let fault = session.handle_timeout(NOW + 5 + REQUEST_TIMEOUT_MS).expect("no answer");
    assert_eq!((fault.reason, fault.error.code), (Reason::Overloaded, ErrorCode::ErrorTimedOut));

    let mut session = open();
    give(&mut session, NOW + 60_000, payload(0, client_frame::Body::Ping(Ping {}))).0.expect("good");
    assert_eq!(session.deadline_ms(), NOW + 150_000);
    assert_eq!(session.handle_timeout(NOW + 149_999), None);
    assert_eq!(session.handle_timeout(NOW + 150_000).expect("idle").reason, Reason::Idle);
    assert_eq!(session.handle_timeout(NOW + 150_000), None);
    let mut out = BytesMut::new();
    session.closing(Reason::Idle, "", 0, &mut out);
    assert!(!out.is_empty(), "the closing frame can still be written");
}

#[test]
fn handles_stand_for_conversations_in_both_directions() {
    let mut session = open();
    let first = event(&mut session, receipt(id(7))).expect("written");
    assert_eq!(first.bindings, [Binding { handle: 1, conversation_id: id(7) }]);
    let Some(server_frame::Body::Receipt(body)) = first.body else { panic!() };
    assert_eq!((body.handle, body.conversation_id), (1, Bytes::new()));
    assert_eq!(event(&mut session, receipt(id(7))).expect("written").bindings, []);

    let by_handle = SendMessage { handle: 1, conversation_id: Bytes::new(), ..send(id(7)) };
    let (result, _) = give(&mut session, NOW, payload(2, client_frame::Body::Send(by_handle)));
    let Ok(ServerInput::Request { body: client_frame::Body::Send(resolved), .. }) = result else { panic!() };
    assert_eq!(resolved, send(id(7)));
    let cursor = |handle, conversation_id| SyncCursor { handle, conversation_id, after_seq: 3 };
    let sync = Sync { cursors: vec![cursor(0, id(9)), cursor(1, Bytes::new())], ..Sync::default() };
    let (result, _) = give(&mut session, NOW, payload(3, client_frame::Body::Sync(sync)));
    let Ok(ServerInput::Request { body: client_frame::Body::Sync(resolved), .. }) = result else { panic!() };
    assert_eq!(resolved.cursors, [cursor(0, id(9)), cursor(0, id(7))]);

    let conversation = |number| Conversation { conversation_id: id(number), ..Conversation::default() };
    let delta = |number| ConversationDelta { conversation: Some(conversation(number)), ..Default::default() };
    let page = SyncPage { conversations: vec![delta(8), delta(7), delta(8)], ..SyncPage::default() };
    let frame = answer(&mut session, 3, server_frame::Body::SyncPage(page)).expect("written");
    assert_eq!(frame.bindings, [Binding { handle: 2, conversation_id: id(8) }]);
    let Some(server_frame::Body::SyncPage(page)) = frame.body else { panic!() };
    let handles: Vec<_> =
        page.conversations.iter().flat_map(|delta| &delta.conversation).map(|c| c.handle).collect();
    assert_eq!(handles, [2, 1, 2]);
}

#[test]
fn beyond_the_table_conversations_go_by_their_id() {
    let mut session = open();
    let numbered = |number: usize| Bytes::copy_from_slice(&(number as u128).to_be_bytes());
    for number in 1..=HANDLES_MAX {
        let frame = event(&mut session, receipt(numbered(number))).expect("written");
        assert_eq!(frame.bindings.len(), 1);
    }
    for _ in 0..2 {
        let frame = event(&mut session, receipt(numbered(HANDLES_MAX + 1))).expect("written");
        assert_eq!(frame.bindings, []);
        assert_eq!(frame.body, Some(receipt(numbered(HANDLES_MAX + 1))));
    }
    let Some(server_frame::Body::Receipt(last)) =
        event(&mut session, receipt(numbered(HANDLES_MAX))).unwrap().body
    else {
        panic!()
    };
    assert_eq!(last.handle as usize, HANDLES_MAX);
}

#[test]
fn a_client_without_the_feature_sees_no_handles() {
    let mut session = open_with(Hello { features: 0, ..good_hello() });
    let frame = event(&mut session, receipt(id(7))).expect("written");
    assert_eq!((frame.body, frame.bindings.len()), (Some(receipt(id(7))), 0));
    let by_handle = SendMessage { handle: 1, conversation_id: Bytes::new(), ..send(id(7)) };
    let (_, written) = give(&mut session, NOW, payload(2, client_frame::Body::Send(by_handle)));
    let Some(server_frame::Body::Error(error)) = written.expect("refused").body else { panic!() };
    assert_eq!(error.code(), ErrorCode::ErrorUnknownHandle);
}

#[test]
fn what_no_frame_can_carry_is_replaced_and_its_bindings_are_kept() {
    let mut session = open();
    give(&mut session, NOW, payload(2, client_frame::Body::Send(send(id(1))))).0.expect("good");
    let page = |title: &str| ConversationPage {
        conversations: vec![Conversation {
            conversation_id: id(4),
            title: title.into(),
            ..Default::default()
        }],
        ..ConversationPage::default()
    };
    let large = page(&"x".repeat(FRAME_BYTES_MAX));
    let frame = answer(&mut session, 2, server_frame::Body::ConversationPage(large)).expect("written");
    let Some(server_frame::Body::Error(error)) = &frame.body else { panic!() };
    assert_eq!(error.code(), ErrorCode::ErrorInternal);
    assert_eq!(frame.bindings, [Binding { handle: 1, conversation_id: id(4) }]);
    assert!(frame.encoded_len() < FRAME_BYTES_MAX);
    let entry = Some(Entry { body: Bytes::from(vec![1; FRAME_BYTES_MAX]), ..Entry::default() });
    let message = MessageEvent { conversation_id: id(5), entry, ..MessageEvent::default() };
    let frame = event(&mut session, server_frame::Body::Message(message)).expect("written");
    assert_eq!(frame.body, Some(server_frame::Body::SyncNeeded(SyncNeeded {})));
    assert_eq!(frame.bindings, [Binding { handle: 2, conversation_id: id(5) }]);
}

#[test]
fn a_bad_cursor_without_an_answer_is_still_told() {
    let mut session = open();
    let cursor = DeliveredUpTo { handle: 9, seq: 1, ..DeliveredUpTo::default() };
    let (result, written) = give(&mut session, NOW, payload(0, client_frame::Body::Delivered(cursor)));
    assert!(matches!(result, Ok(ServerInput::Handled)));
    let Some(ServerFrame { request_id: 0, body: Some(server_frame::Body::Error(error)), .. }) = written
    else {
        panic!()
    };
    assert_eq!(error.code(), ErrorCode::ErrorUnknownHandle);
}
