use super::*;
use crate::session::SessionTable;
use bytes::Bytes;
use prost::Message;
use std::collections::HashMap;
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::limits::FEATURES;
use wire_protocol::session::{ClientSession, Proof, ReadyInfo, ServerInput};
use wire_protocol::v1::ServerFrame;

/// Sockets that keep what was sent.
#[derive(Default)]
pub(crate) struct FakeSockets {
    pub(crate) queued: HashMap<ConnectionToken, usize>,
    sent: Vec<(ConnectionToken, Bytes)>,
}

impl FakeSockets {
    pub(crate) fn bodies(&self, token: ConnectionToken) -> Vec<server_frame::Body> {
        let frames = self.sent.iter().filter(|(whose, _)| *whose == token);
        let body = |(_, payload): &(_, Bytes)| ServerFrame::decode(payload.clone()).expect("a frame").body;
        frames.filter_map(body).collect()
    }
}

impl Sockets for FakeSockets {
    fn send(&mut self, token: ConnectionToken, payload: &[u8]) -> Result<(), SendRefused> {
        let queued = self.queued.entry(token).or_default();
        if *queued + payload.len() > OUTBOX_BYTES_MAX {
            return Err(SendRefused::Full);
        }
        *queued += payload.len();
        self.sent.push((token, Bytes::copy_from_slice(payload)));
        Ok(())
    }

    fn queued_bytes(&self, token: ConnectionToken) -> usize {
        self.queued.get(&token).copied().unwrap_or(0)
    }
}

/// A session that is ready.
pub(crate) fn open_session(table: &mut SessionTable, slot: u32) -> ConnectionToken {
    open_session_with_request(table, slot, 0).0
}

/// A session that is ready, and the id of its one request in flight.
fn open_session_with_request(table: &mut SessionTable, slot: u32, features: u64) -> (ConnectionToken, u32) {
    let token = ConnectionToken { slot, generation: 1 };
    table.open(token, Default::default(), false, 0);
    let session = table.find(token).expect("just opened");
    let mut client = ClientSession::with_features(0, features);
    let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
    client.hello(Proof::AccessToken("token".into()), 0, "test", &mut to_server);
    let hello = to_server.split().freeze();
    let input = session.protocol.handle_frame(0, hello, &mut to_client).expect("a good hello");
    assert!(matches!(input, ServerInput::Authenticate { .. }));
    let info = ReadyInfo {
        user: UserId([1; 16]),
        device: DeviceId([1; 16]),
        server_time_ms: 0,
        resume_token: Bytes::from_static(b"resume"),
        feed_version: 0,
    };
    session.protocol.ready(0, info, &mut to_client);
    client.handle_frame(0, to_client.split().freeze()).expect("ready");
    let list = v1::client_frame::Body::List(v1::ListConversations::default());
    let request_id = client.request(0, list, &mut to_server).expect("room");
    let request = to_server.split().freeze();
    let input = session.protocol.handle_frame(0, request, &mut to_client).expect("a good request");
    assert!(matches!(input, ServerInput::Request { .. }));
    (token, request_id)
}

fn history(bytes: usize) -> server_frame::Body {
    let entry = v1::Entry { body: vec![1; bytes].into(), ..Default::default() };
    server_frame::Body::HistoryPage(v1::HistoryPage { entries: vec![entry], ..Default::default() })
}

fn message() -> server_frame::Body {
    server_frame::Body::Message(v1::MessageEvent {
        conversation_id: vec![1; 16].into(),
        ..Default::default()
    })
}

#[test]
fn an_answer_without_room_becomes_a_retryable_error() {
    let mut table = SessionTable::default();
    let (mut sockets, mut space) = (FakeSockets::default(), BytesMut::new());
    let (token, id) = open_session_with_request(&mut table, 0, 0);
    let session = table.find(token).expect("open");
    sockets.queued.insert(token, OUTBOX_BYTES_MAX - 10_000);
    let mut outbox = Outbox { sockets: &mut sockets, token, space: &mut space };
    assert_eq!(outbox.answer(session, id, history(16_000)), Fate::Replaced);
    let bodies = sockets.bodies(token);
    let [server_frame::Body::Error(error)] = &bodies[..] else { panic!("{bodies:?}") };
    assert!(error.retryable && error.retry_after_ms > 0);
    assert_eq!(session.protocol.in_flight_count(), 0);
}

#[test]
fn whatever_room_is_left_an_answer_goes_out_or_becomes_an_error() {
    let delta = |number: u8| v1::ConversationDelta {
        conversation: Some(v1::Conversation {
            conversation_id: vec![number; 16].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let page = || {
        let conversations = (0..SYNC_CONVERSATIONS_MAX as u8).map(delta).collect();
        server_frame::Body::SyncPage(v1::SyncPage { conversations, ..Default::default() })
    };
    let list = || {
        let conversations = (0..50).filter_map(|number| delta(number).conversation).collect();
        server_frame::Body::ConversationPage(v1::ConversationPage { conversations, ..Default::default() })
    };
    let bodies: [&dyn Fn() -> server_frame::Body; 3] = [&page, &list, &|| history(3_000)];
    for body in bodies {
        let mut fates = Vec::new();
        // An error takes some 100 bytes.
        for room in 120..8_000 {
            let mut table = SessionTable::default();
            let (mut sockets, mut space) = (FakeSockets::default(), BytesMut::new());
            let (token, id) = open_session_with_request(&mut table, 0, FEATURES);
            let session = table.find(token).expect("open");
            sockets.queued.insert(token, OUTBOX_BYTES_MAX - room);
            let mut outbox = Outbox { sockets: &mut sockets, token, space: &mut space };
            fates.push(outbox.answer(session, id, body()));
        }
        assert!(!fates.contains(&Fate::TooSlow));
        assert!(fates.contains(&Fate::Queued) && fates.contains(&Fate::Replaced));
    }
}

#[test]
fn a_client_without_room_for_an_error_is_too_slow() {
    let mut table = SessionTable::default();
    let (mut sockets, mut space) = (FakeSockets::default(), BytesMut::new());
    let (token, id) = open_session_with_request(&mut table, 0, 0);
    let session = table.find(token).expect("open");
    sockets.queued.insert(token, OUTBOX_BYTES_MAX - 5);
    let mut outbox = Outbox { sockets: &mut sockets, token, space: &mut space };
    assert_eq!(outbox.answer(session, id, history(10)), Fate::TooSlow);
}

#[test]
fn events_leave_room_for_answers_and_come_back_as_one_sync() {
    let mut table = SessionTable::default();
    let (mut sockets, mut space) = (FakeSockets::default(), BytesMut::new());
    let (token, id) = open_session_with_request(&mut table, 0, 0);
    let session = table.find(token).expect("open");
    sockets.queued.insert(token, EVENTS_BYTES_MAX - 10);
    let mut outbox = Outbox { sockets: &mut sockets, token, space: &mut space };
    assert_eq!(outbox.event(session, 5, message()), Fate::Dropped);
    assert_eq!(session.slow_since_ms, 5);
    assert_eq!(outbox.answer(session, id, history(1_000)), Fate::Queued);
    // Room alone does not help: events stay away until the client was told to sync.
    outbox.sockets.queued.insert(token, 0);
    assert_eq!(outbox.event(session, 6, message()), Fate::Dropped);
    assert_eq!(outbox.drained(session), Fate::Queued);
    assert_eq!(outbox.event(session, 7, message()), Fate::Queued);
    assert_eq!(outbox.drained(session), Fate::Queued);
    let bodies = sockets.bodies(token);
    assert!(
        matches!(
            &bodies[..],
            [
                server_frame::Body::HistoryPage(_),
                server_frame::Body::SyncNeeded(_),
                server_frame::Body::Message(_)
            ]
        ),
        "{bodies:?}"
    );
}

#[test]
fn a_session_that_is_not_ready_gets_no_events() {
    let mut table = SessionTable::default();
    let (mut sockets, mut space) = (FakeSockets::default(), BytesMut::new());
    let token = ConnectionToken { slot: 0, generation: 0 };
    table.open(token, Default::default(), false, 0);
    let session = table.find(token).expect("open");
    sockets.queued.insert(token, OUTBOX_BYTES_MAX);
    let mut outbox = Outbox { sockets: &mut sockets, token, space: &mut space };
    assert_eq!(outbox.event(session, 5, message()), Fate::Queued);
    assert!(sockets.bodies(token).is_empty() && session.slow_since_ms == 0);
}
