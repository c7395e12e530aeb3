//! An engine against a server half that the test answers for, with a clock that the test moves.

use crate::engine::outbox::Outgoing;
use crate::engine::writes::StoredConversation;
use crate::engine::{
    Action, Engine, EngineConfig, NewMessage, Operation, OperationId, Outcome, ProofWanted, Snapshot, Write,
};
use crate::model::Event;
use bytes::{Bytes, BytesMut};
use wire_protocol::error::RequestError;
use wire_protocol::ids::{ClientMessageId, ConversationId, DeviceId, UserId};
use wire_protocol::session::{Proof, ReadyInfo, ServerInput, ServerSession};
use wire_protocol::v1::{self, ErrorCode, client_frame, server_frame, session_closing::Reason};

pub const NOW: u64 = 1_700_000_000_000;
pub const USER: UserId = UserId([1; 16]);
pub const DEVICE: DeviceId = DeviceId([2; 16]);
pub const ROOM: ConversationId = ConversationId([3; 16]);
/// The feed version that the stored state and the server agree on.
pub const VERSION: u64 = 7;

pub struct Rig {
    pub engine: Engine,
    pub now_ms: u64,
    /// What the server says about the user's feed.
    pub feed_version: u64,
    pub writes: Vec<Write>,
    pub events: Vec<Event>,
    pub outcomes: Vec<(OperationId, Outcome)>,
    pub actions: Vec<Action>,
    server: ServerSession,
}

/// A conversation of two whose entries up to `high` are here and reported.
pub fn conversation(high: u64, head: u64) -> StoredConversation {
    StoredConversation {
        id: ROOM,
        own_ordinal: 0,
        members: vec![(0, USER), (1, UserId([9; 16]))],
        low: 1,
        high,
        head,
        ahead: Vec::new(),
        read_up_to: 0,
        delivered_confirmed: high,
        read_confirmed: 0,
    }
}

pub fn snapshot(conversation: StoredConversation) -> Snapshot {
    let users = vec![USER, UserId([9; 16])];
    Snapshot { feed_version: VERSION, conversations: vec![conversation], users, ..Snapshot::default() }
}

pub fn message(id: u64) -> NewMessage {
    let body = Bytes::from(format!("text {id}"));
    NewMessage { conversation: ROOM, id: ClientMessageId(id), kind: 0, body }
}

/// A message of an earlier life.
pub fn stored(id: u64, first_attempt_ms: Option<u64>) -> Outgoing {
    let message = message(id);
    let (conversation, id) = (message.conversation, message.id);
    Outgoing { conversation, id, kind: 0, body: message.body, queued_ms: NOW, first_attempt_ms }
}

/// Somebody else's.
pub fn entry(seq: u64) -> v1::Entry {
    v1::Entry { seq, sender: 1, time_ms: seq, body: seq.to_string().into(), ..v1::Entry::default() }
}

pub fn pushed(seq: u64) -> server_frame::Body {
    let (handle, conversation_id) = (0, ROOM.to_bytes());
    server_frame::Body::Message(v1::MessageEvent { handle, conversation_id, entry: Some(entry(seq)) })
}

impl Rig {
    pub fn new(snapshot: Snapshot) -> Self {
        let config = EngineConfig {
            user: USER,
            device: DEVICE,
            heartbeat_s: 0,
            client_name: "test".into(),
            jitter_seed: 1,
        };
        Self {
            engine: Engine::new(config, snapshot, NOW),
            now_ms: NOW,
            feed_version: VERSION,
            writes: Vec::new(),
            events: Vec::new(),
            outcomes: Vec::new(),
            actions: Vec::new(),
            server: ServerSession::new(NOW),
        }
    }

    /// With a session open and nothing to catch up with.
    pub fn online(high: u64, head: u64) -> Self {
        let mut rig = Self::new(snapshot(conversation(high, head)));
        rig.connect();
        rig
    }

    /// What the driver does after each turn, but for the payloads.
    pub fn settle(&mut self) {
        self.writes.extend(self.engine.poll_writes());
        self.actions.extend(std::iter::from_fn(|| self.engine.poll_action()));
        self.events.extend(std::iter::from_fn(|| self.engine.poll_event()));
        self.outcomes.extend(std::iter::from_fn(|| self.engine.poll_outcome()));
    }

    /// Time passes.
    pub fn advance(&mut self, ms: u64) {
        self.now_ms += ms;
        self.engine.handle_timeout(self.now_ms);
        self.settle();
    }

    /// Waits for the wish to connect, within the longest wait there is.
    pub fn wish(&mut self) -> ProofWanted {
        for _ in 0..100 {
            self.settle();
            let is_wish = |action: &Action| matches!(action, Action::Connect(_));
            if let Some(place) = self.actions.iter().position(is_wish)
                && let Action::Connect(wanted) = self.actions.remove(place)
            {
                return wanted;
            }
            self.advance(1_000);
        }
        panic!("no wish to connect: {:?}", self.engine);
    }

    /// Opens a session as of the device.
    pub fn connect(&mut self) -> ProofWanted {
        self.connect_as(DEVICE)
    }

    pub fn connect_as(&mut self, device: DeviceId) -> ProofWanted {
        let wanted = self.wish();
        self.server = ServerSession::new(self.now_ms);
        self.engine.handle_connected(self.now_ms, Proof::AccessToken("token".into()));
        let hello = self.engine.poll_payload().expect("hello");
        let mut out = BytesMut::new();
        let input = self.server.handle_frame(self.now_ms, hello, &mut out).expect("a good hello");
        assert!(matches!(input, ServerInput::Authenticate { .. }));
        assert!(self.engine.poll_payload().is_none(), "nothing is sent before the session is open");
        let info = ReadyInfo {
            user: USER,
            device,
            server_time_ms: self.now_ms,
            resume_token: Bytes::from_static(b"resume"),
            feed_version: self.feed_version,
        };
        self.server.ready(self.now_ms, info, &mut out);
        self.receive(out);
        wanted
    }

    fn receive(&mut self, payload: BytesMut) {
        self.engine.handle_payload(self.now_ms, payload.freeze());
        self.settle();
    }

    /// What the server was asked since the last call.
    pub fn requests(&mut self) -> Vec<(u32, client_frame::Body)> {
        self.settle();
        let mut requests = Vec::new();
        while let Some(payload) = self.engine.poll_payload() {
            let mut out = BytesMut::new();
            match self.server.handle_frame(self.now_ms, payload, &mut out).expect("the protocol is kept") {
                ServerInput::Request { request_id, body } => requests.push((request_id, body)),
                ServerInput::Handled => self.receive(out),
                ServerInput::Authenticate { .. } => panic!("a second hello"),
            }
        }
        requests
    }

    /// The ids of the messages that were sent since the last call; the requests' ids beside them.
    pub fn sends(&mut self) -> Vec<(u32, u64)> {
        let requests = self.requests().into_iter();
        let send = |(request_id, body)| match body {
            client_frame::Body::Send(send) => Some((request_id, send.client_message_id)),
            _ => None,
        };
        requests.filter_map(send).collect()
    }

    pub fn answer(&mut self, request_id: u32, body: server_frame::Body) {
        let mut out = BytesMut::new();
        assert!(self.server.answer(request_id, body, &mut out), "it was asked");
        self.receive(out);
    }

    pub fn refuse(&mut self, request_id: u32, code: ErrorCode) {
        let mut out = BytesMut::new();
        assert!(self.server.answer_error(request_id, &RequestError::new(code, "test"), &mut out));
        self.receive(out);
    }

    pub fn accept(&mut self, request_id: u32, seq: u64) {
        let accepted = v1::MessageAccepted { seq, ..v1::MessageAccepted::default() };
        self.answer(request_id, server_frame::Body::Accepted(accepted));
    }

    pub fn push(&mut self, body: server_frame::Body) {
        let mut out = BytesMut::new();
        self.server.event(body, &mut out);
        self.receive(out);
    }

    pub fn close(&mut self, reason: Reason) {
        let mut out = BytesMut::new();
        self.server.closing(reason, "test", 0, &mut out);
        self.receive(out);
    }

    pub fn lose_connection(&mut self) {
        self.engine.handle_disconnected(self.now_ms);
        self.settle();
    }

    pub fn operate(&mut self, id: u64, operation: Operation, within_ms: u64) {
        self.engine.handle_operation(self.now_ms, OperationId(id), operation, self.now_ms + within_ms);
        self.settle();
    }
}
