use super::*;
use crate::limits::{HANDLES_MAX, HEARTBEAT_S_MIN};
use crate::v1::*;
use prost::Message;

const NOW: u64 = 80_000;

fn good_ready() -> Ready {
    Ready {
        version: 1,
        features: FEATURES,
        user_id: id(1),
        device_id: id(2),
        heartbeat_s: HEARTBEAT_S_MIN,
        frame_bytes_max: 1_000,
        requests_in_flight_max: 3,
        ..Ready::default()
    }
}

fn id(number: u8) -> Bytes {
    Bytes::from(vec![number; 16])
}

fn payload(request_id: u32, body: server_frame::Body, bindings: Vec<Binding>) -> Bytes {
    ServerFrame { request_id, body: Some(body), bindings }.encode_to_vec().into()
}

fn said_hello(features: u64) -> ClientSession {
    let mut session = ClientSession::with_features(NOW, features);
    let mut out = BytesMut::new();
    session.hello(Proof::ResumeToken(Bytes::from_static(b"token")), 5, "test", &mut out);
    session
}

fn open_with(ready: Ready) -> ClientSession {
    let mut session = said_hello(FEATURES);
    let event = session.handle_frame(NOW, payload(1, server_frame::Body::Ready(ready.clone()), vec![]));
    assert_eq!(event, Ok(ClientEvent::Ready(ready)));
    session
}

fn open() -> ClientSession {
    open_with(good_ready())
}

fn get(conversation_id: Bytes) -> client_frame::Body {
    client_frame::Body::Get(GetConversation { handle: 0, conversation_id })
}

fn receipt(handle: u32, conversation_id: Bytes) -> server_frame::Body {
    server_frame::Body::Receipt(ReceiptEvent { handle, conversation_id, ..ReceiptEvent::default() })
}

#[test]
fn hello_offers_what_this_code_speaks() {
    let mut session = ClientSession::new(NOW);
    assert_eq!(session.frame_bytes_max(), HELLO_FRAME_BYTES_MAX);
    let mut out = BytesMut::new();
    session.hello(Proof::AccessToken("token".into()), 45, &"é".repeat(40), &mut out);
    let frame = ClientFrame::decode(out.freeze()).expect("a frame");
    assert_eq!(frame.request_id, HELLO_REQUEST_ID);
    let Some(client_frame::Body::Hello(hello)) = frame.body else { panic!() };
    assert_eq!((hello.version_min, hello.version_max, hello.features), (VERSION_MIN, VERSION_MAX, FEATURES));
    assert_eq!((hello.heartbeat_s, hello.proof), (45, Some(hello::Proof::AccessToken("token".into()))));
    assert_eq!(hello.client, "é".repeat(32));
}

#[test]
fn nothing_is_asked_before_ready_or_after_closing() {
    let mut session = said_hello(FEATURES);
    let mut out = BytesMut::new();
    assert_eq!(session.request(NOW, get(id(1)), &mut out), Err(RequestRefused::NotReady));
    assert!(!session.notify(NOW, client_frame::Body::Ping(Ping {}), &mut out));
    let closing = SessionClosing { retry_after_ms: 5, ..SessionClosing::default() };
    let event = session.handle_frame(NOW, payload(0, server_frame::Body::Closing(closing.clone()), vec![]));
    assert_eq!(event, Ok(ClientEvent::Closing(closing)));
    assert_eq!(session.request(NOW, get(id(1)), &mut out), Err(RequestRefused::NotReady));
    assert!(session.handle_frame(NOW, payload(0, receipt(0, id(1)), vec![])).is_err());
    assert!(out.is_empty() && !session.is_ready() && session.poll_timeout().is_none());
}

#[test]
fn ids_are_short_bounded_and_reused_after_their_answer() {
    let mut session = open();
    let mut out = BytesMut::new();
    for expected in [1, 2, 3] {
        assert!(session.can_request());
        assert_eq!(session.request(NOW, get(id(1)), &mut out), Ok(expected));
    }
    assert!(!session.can_request());
    let before = out.len();
    assert_eq!(session.request(NOW, get(id(1)), &mut out), Err(RequestRefused::TooManyInFlight));
    assert_eq!(out.len(), before);
    assert_eq!(session.unanswered(), [1, 2, 3]);
    let done = server_frame::Body::Done(Done {});
    let event = session.handle_frame(NOW, payload(2, done.clone(), vec![]));
    assert_eq!(event, Ok(ClientEvent::Answer { request_id: 2, body: done.clone() }));
    assert_eq!(session.unanswered(), [1, 3]);
    assert_eq!(session.request(NOW, get(id(1)), &mut out), Ok(2));

    let mut session = open_with(Ready { requests_in_flight_max: u32::MAX, ..good_ready() });
    for expected in 1..=REQUESTS_IN_FLIGHT_MAX as u32 {
        assert_eq!(session.request(NOW, get(id(1)), &mut out), Ok(expected));
    }
    assert_eq!(session.request(NOW, get(id(1)), &mut out), Err(RequestRefused::TooManyInFlight));
    assert_eq!(session.unanswered().len(), REQUESTS_IN_FLIGHT_MAX);
    let last = REQUESTS_IN_FLIGHT_MAX as u32;
    assert!(session.handle_frame(NOW, payload(last, done, vec![])).is_ok());
    assert_eq!(session.unanswered().len(), REQUESTS_IN_FLIGHT_MAX - 1);
}

#[test]
fn handles_are_taken_over_and_used() {
    let mut session = open();
    let binding = |handle, number| Binding { handle, conversation_id: id(number) };
    let bound = payload(0, receipt(1, Bytes::new()), vec![binding(1, 7), binding(2, 8)]);
    assert_eq!(session.handle_frame(NOW, bound), Ok(ClientEvent::Event(receipt(0, id(7)))));
    let mut out = BytesMut::new();
    session.request(NOW, get(id(8)), &mut out).expect("open");
    let expected = client_frame::Body::Get(GetConversation { handle: 2, conversation_id: Bytes::new() });
    assert_eq!(ClientFrame::decode(out.freeze()).unwrap().body, Some(expected));
    let mut out = BytesMut::new();
    session.request(NOW, get(id(9)), &mut out).expect("open");
    assert_eq!(ClientFrame::decode(out.freeze()).unwrap().body, Some(get(id(9))));
}

#[test]
fn a_server_that_breaks_the_protocol_is_given_up() {
    use server_frame::Body;
    let binding = |handle, bytes: &[u8]| Binding { handle, conversation_id: Bytes::copy_from_slice(bytes) };
    let done = || Body::Done(Done {});
    let faults = [
        Bytes::from_static(&[0xff; 9]),
        Bytes::from(vec![0; FRAME_BYTES_MAX + 1]),
        payload(1, Body::Ready(good_ready()), vec![]),
        payload(0, done(), vec![]),
        payload(1, done(), vec![]),
        payload(64, done(), vec![]),
        payload(PING_REQUEST_ID, done(), vec![]),
        payload(u32::MAX, done(), vec![]),
        payload(5, receipt(0, id(1)), vec![]),
        payload(0, receipt(1, Bytes::new()), vec![]),
        payload(0, receipt(0, Bytes::new()), vec![]),
        payload(0, receipt(0, Bytes::from_static(&[1; 15])), vec![]),
        payload(0, receipt(1, id(1)), vec![binding(1, &[1; 16])]),
        payload(0, receipt(2, Bytes::new()), vec![binding(2, &[1; 16])]),
        payload(0, receipt(1, Bytes::new()), vec![binding(1, &[1; 15])]),
        payload(0, receipt(1, Bytes::new()), vec![binding(1, &[1; 16]), binding(2, &[1; 16])]),
        payload(0, Body::Message(MessageEvent { conversation_id: id(1), ..Default::default() }), vec![]),
        ServerFrame { request_id: 7, ..ServerFrame::default() }.encode_to_vec().into(),
    ];
    for (row, fault) in faults.into_iter().enumerate() {
        let mut session = open();
        assert!(matches!(session.handle_frame(NOW, fault), Err(ClientFault::Protocol(_))), "row {row}");
        assert!(!session.is_ready());
    }
    let mut session = open();
    let mut out = BytesMut::new();
    session.request(NOW, client_frame::Body::Sync(Sync::default()), &mut out).expect("open");
    let page = SyncPage { conversations: vec![ConversationDelta::default()], ..SyncPage::default() };
    assert!(session.handle_frame(NOW, payload(1, Body::SyncPage(page), vec![])).is_err());
}

#[test]
fn an_unknown_event_is_passed_over() {
    let mut session = open();
    assert_eq!(session.handle_frame(NOW, Bytes::new()), Ok(ClientEvent::Handled));
    // Field 40 is of a later version.
    assert_eq!(session.handle_frame(NOW, Bytes::from_static(&[0xc2, 0x02, 0x00])), Ok(ClientEvent::Handled));
    assert!(session.is_ready());
}

#[test]
fn ready_must_keep_within_what_was_offered() {
    let faults: [fn(&mut Ready); 8] = [
        |ready| ready.version = VERSION_MAX + 1,
        |ready| ready.version = 0,
        |ready| ready.features = FEATURES + 1 + FEATURES,
        |ready| ready.user_id = Bytes::new(),
        |ready| ready.device_id = Bytes::from_static(&[1; 17]),
        |ready| ready.heartbeat_s = 0,
        |ready| ready.requests_in_flight_max = 0,
        |ready| ready.frame_bytes_max = 0,
    ];
    for (row, fault) in faults.into_iter().enumerate() {
        let mut ready = good_ready();
        fault(&mut ready);
        let frame = payload(1, server_frame::Body::Ready(ready), vec![]);
        assert!(said_hello(FEATURES).handle_frame(NOW, frame).is_err(), "row {row}");
    }
    // Handles were not offered.
    let frame = payload(1, server_frame::Body::Ready(good_ready()), vec![]);
    assert!(said_hello(0).handle_frame(NOW, frame).is_err());
    // Not an answer to hello.
    let frame = payload(2, server_frame::Body::Ready(good_ready()), vec![]);
    assert!(said_hello(FEATURES).handle_frame(NOW, frame).is_err());
    assert!(said_hello(FEATURES).handle_frame(NOW, payload(0, receipt(0, id(1)), vec![])).is_err());
}

#[test]
fn bindings_end_at_the_limit() {
    let mut session = open();
    let binding = |handle: u32| Binding {
        handle,
        conversation_id: Bytes::copy_from_slice(&u128::from(handle).to_be_bytes()),
    };
    for handle in 1..=HANDLES_MAX as u32 {
        assert!(
            session
                .handle_frame(NOW, payload(0, receipt(handle, Bytes::new()), vec![binding(handle)]))
                .is_ok()
        );
    }
    let last = HANDLES_MAX as u32 + 1;
    assert!(session.handle_frame(NOW, payload(0, receipt(last, Bytes::new()), vec![binding(last)])).is_err());
}

/// Moves to the next timeout and gives what was written there.
fn next_timeout(session: &mut ClientSession) -> (u64, Result<Option<ClientFrame>, ClientFault>) {
    let at_ms = session.poll_timeout().expect("a deadline");
    let mut out = BytesMut::new();
    assert_eq!(session.handle_timeout(at_ms - 1, &mut out), Ok(()));
    assert!(out.is_empty());
    let result = session.handle_timeout(at_ms, &mut out);
    (at_ms, result.map(|()| (!out.is_empty()).then(|| ClientFrame::decode(out.freeze()).unwrap())))
}

#[test]
fn pings_keep_the_heartbeat_until_the_server_is_dead() {
    let ping = ClientFrame { request_id: PING_REQUEST_ID, body: Some(client_frame::Body::Ping(Ping {})) };
    let mut session = open();
    assert_eq!(next_timeout(&mut session), (NOW + 5_000, Ok(Some(ping.clone()))));
    let pong = payload(PING_REQUEST_ID, server_frame::Body::Pong(Pong::default()), vec![]);
    assert_eq!(session.handle_frame(NOW + 5_100, pong), Ok(ClientEvent::Handled));
    assert_eq!(next_timeout(&mut session), (NOW + 10_000, Ok(Some(ping.clone()))));
    assert_eq!(next_timeout(&mut session), (NOW + 15_000, Ok(Some(ping.clone()))));
    assert_eq!(next_timeout(&mut session), (NOW + 20_000, Ok(Some(ping))));
    assert_eq!(next_timeout(&mut session), (NOW + 20_100, Err(ClientFault::Dead)));
    assert!(!session.is_ready() && session.poll_timeout().is_none());
}

#[test]
fn traffic_in_both_directions_spares_pings_and_in_one_does_not() {
    let mut session = open();
    let mut out = BytesMut::new();
    for step in 1..=5u64 {
        let now_ms = NOW + step * 3_000;
        session.notify(now_ms, client_frame::Body::Ping(Ping {}), &mut out);
        assert!(session.handle_frame(now_ms, payload(0, receipt(0, id(1)), vec![])).is_ok());
    }
    assert_eq!(session.poll_timeout(), Some(NOW + 20_000));
    // Only events: the server must hear us.
    assert!(session.handle_frame(NOW + 19_000, payload(0, receipt(0, id(1)), vec![])).is_ok());
    assert_eq!(session.poll_timeout(), Some(NOW + 20_000));
    // Only cursors without answers: we must hear the server.
    let mut session = open();
    session.notify(NOW + 4_000, client_frame::Body::Ping(Ping {}), &mut out);
    assert_eq!(session.poll_timeout(), Some(NOW + 5_000));
}

#[test]
fn a_hello_without_an_answer_is_given_up() {
    let mut session = said_hello(FEATURES);
    assert_eq!(next_timeout(&mut session), (NOW + HELLO_TIMEOUT_MS, Err(ClientFault::Dead)));
}
