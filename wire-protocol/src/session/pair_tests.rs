//! Both halves joined by a fake wire and a fake clock, with everything random from one seed: answers out of
//! order, answers that never come, lost and frozen connections, garbage after hello, resumption, handles in
//! both directions. What must hold: each message is acknowledged once with the place it has in the log, no
//! frame ever speaks of the wrong conversation, and after the faults everything is answered.

use super::{ClientEvent, ClientSession, Proof, ReadyInfo, ServerInput, ServerSession};
use crate::ids::{DeviceId, UserId};
use crate::limits::REQUEST_TIMEOUT_MS;
use crate::seed::{Seed, with_seeds};
use crate::v1::*;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};

const DELAY_MS_MAX: usize = 60;
const MESSAGES: u64 = 120;
const HEARTBEAT_S: u32 = 5;

/// One direction of a connection: in order, each frame some time after the one before it.
#[derive(Default)]
struct Wire {
    frames: VecDeque<(u64, Bytes)>,
    last_due_ms: u64,
}

impl Wire {
    fn send(&mut self, seed: &mut Seed, now_ms: u64, frame: BytesMut) {
        if !frame.is_empty() {
            self.last_due_ms = self.last_due_ms.max(now_ms + seed.below(DELAY_MS_MAX) as u64);
            self.frames.push_back((self.last_due_ms, frame.freeze()));
        }
    }

    fn receive(&mut self, now_ms: u64) -> Option<Bytes> {
        let due = self.frames.front().is_some_and(|&(due_ms, _)| due_ms <= now_ms);
        due.then(|| self.frames.pop_front()).flatten().map(|(_, frame)| frame)
    }
}

struct Connection {
    client: ClientSession,
    server: ServerSession,
    up: Wire,
    down: Wire,
    /// Answers the server will give: when, to what.
    answers: Vec<(u64, u32, server_frame::Body)>,
    ready_at_ms: Option<u64>,
    /// What the client waits for, by request id.
    asked: BTreeMap<u32, client_frame::Body>,
    /// Nothing arrives any more, in both directions, and nobody is told.
    frozen: bool,
    /// The server wrote its last frame, or gave up.
    server_gone: bool,
}

/// What storage would hold.
#[derive(Default)]
struct Log {
    messages: BTreeMap<Bytes, Vec<u64>>,
    seqs: BTreeMap<u64, u64>,
}

#[derive(Default)]
struct Counts {
    connections: usize,
    resumptions: usize,
    answers_out_of_order: usize,
    by_handle: usize,
    dead: usize,
    idle: usize,
    protocol_errors: usize,
    timed_out: usize,
    events: usize,
}

struct World<'a> {
    seed: &'a mut Seed,
    now_ms: u64,
    conversations: Vec<Bytes>,
    connection: Option<Connection>,
    log: Log,
    /// Client message ids still to be sent; a message is in conversation id modulo count.
    outbox: VecDeque<u64>,
    acknowledged: BTreeMap<u64, u64>,
    token: Option<Bytes>,
    features: u64,
    faults: bool,
    counts: Counts,
}

impl<'a> World<'a> {
    fn new(seed: &'a mut Seed) -> Self {
        let count = [3, 40, 1_500][seed.below(3)];
        let conversations =
            (0..count).map(|number: u128| Bytes::copy_from_slice(&number.to_be_bytes())).collect();
        let features = if seed.once_in(4) { 0 } else { u64::MAX };
        Self {
            now_ms: seed.next() % 1_000_000,
            seed,
            conversations,
            connection: None,
            log: Log::default(),
            outbox: (1..=MESSAGES).collect(),
            acknowledged: BTreeMap::new(),
            token: None,
            features: features & crate::limits::FEATURES,
            faults: true,
            counts: Counts::default(),
        }
    }

    fn conversation(&self, client_message_id: u64) -> Bytes {
        self.conversations[client_message_id as usize % self.conversations.len()].clone()
    }

    fn some_conversation(&mut self) -> Bytes {
        self.conversations[self.seed.below(self.conversations.len())].clone()
    }

    fn step(&mut self) {
        self.now_ms += 1 + self.seed.below(20) as u64;
        if self.faults && self.seed.once_in(4_000) {
            // Everything stands still for long: both halves find out by their clocks alone.
            self.now_ms += u64::from(HEARTBEAT_S) * 4_000;
        }
        let Some(mut connection) = self.connection.take() else {
            self.connection = Some(self.connect());
            return;
        };
        let kept = self.client_turn(&mut connection)
            && self.server_turn(&mut connection)
            && self.timeouts(&mut connection)
            && !(self.faults && self.fault(&mut connection));
        if kept {
            self.connection = Some(connection);
        } else {
            self.lose(connection);
        }
    }

    fn connect(&mut self) -> Connection {
        let mut connection = Connection {
            client: ClientSession::with_features(self.now_ms, self.features),
            server: ServerSession::new(self.now_ms),
            up: Wire::default(),
            down: Wire::default(),
            answers: Vec::new(),
            ready_at_ms: None,
            asked: BTreeMap::new(),
            frozen: false,
            server_gone: false,
        };
        self.counts.connections += 1;
        let proof = match &self.token {
            Some(token) => Proof::ResumeToken(token.clone()),
            None => Proof::AccessToken("password".into()),
        };
        let mut out = BytesMut::new();
        connection.client.hello(proof, HEARTBEAT_S, "pair test", &mut out);
        connection.up.send(self.seed, self.now_ms, out);
        connection
    }

    /// The connection is gone: what was not answered goes back to the outbox.
    fn lose(&mut self, connection: Connection) {
        let ids: Vec<u32> = connection.asked.keys().copied().collect();
        if connection.client.is_ready() {
            assert_eq!(ids, connection.client.unanswered());
        }
        for body in connection.asked.into_values() {
            if let client_frame::Body::Send(send) = body {
                self.outbox.push_back(send.client_message_id);
            }
        }
    }

    fn client_turn(&mut self, connection: &mut Connection) -> bool {
        while let Some(frame) = connection.down.receive(self.now_ms).filter(|_| !connection.frozen) {
            match connection.client.handle_frame(self.now_ms, frame).expect("the server keeps the protocol") {
                ClientEvent::Ready(ready) => {
                    assert_eq!(ready.heartbeat_s, HEARTBEAT_S);
                    self.token = Some(ready.resume_token);
                }
                ClientEvent::Answer { request_id, body } => {
                    let asked = connection.asked.remove(&request_id).expect("it was asked");
                    self.take_answer(asked, body);
                }
                ClientEvent::Event(body) => self.check_event(body),
                ClientEvent::Closing(_) => return false,
                ClientEvent::Handled => {}
            }
        }
        if connection.client.can_request() && self.seed.once_in(2) {
            self.ask(connection);
        }
        if connection.client.is_ready() && self.seed.once_in(20) {
            let cursor =
                DeliveredUpTo { conversation_id: self.some_conversation(), seq: 1, ..Default::default() };
            let mut out = BytesMut::new();
            assert!(connection.client.notify(self.now_ms, client_frame::Body::Delivered(cursor), &mut out));
            connection.up.send(self.seed, self.now_ms, out);
        }
        true
    }

    fn ask(&mut self, connection: &mut Connection) {
        let conversation_id = self.some_conversation();
        let body = match self.seed.below(8) {
            0 => client_frame::Body::Get(GetConversation { handle: 0, conversation_id }),
            1 => client_frame::Body::History(History { conversation_id, ..History::default() }),
            2 => client_frame::Body::List(ListConversations::default()),
            3 => {
                let count = self.seed.below(20);
                let cursor =
                    |_| SyncCursor { conversation_id: self.some_conversation(), ..SyncCursor::default() };
                client_frame::Body::Sync(Sync {
                    cursors: (0..count).map(cursor).collect(),
                    ..Sync::default()
                })
            }
            _ => {
                let Some(client_message_id) = self.outbox.pop_front() else { return };
                let conversation_id = self.conversation(client_message_id);
                let body = conversation_id.clone();
                client_frame::Body::Send(SendMessage {
                    conversation_id,
                    client_message_id,
                    body,
                    ..Default::default()
                })
            }
        };
        let mut out = BytesMut::new();
        let id = connection.client.request(self.now_ms, body.clone(), &mut out).expect("there is room");
        assert!(connection.asked.insert(id, body).is_none(), "an id is not reused before its answer");
        connection.up.send(self.seed, self.now_ms, out);
    }

    fn take_answer(&mut self, asked: client_frame::Body, answer: server_frame::Body) {
        use client_frame::Body as Asked;
        use server_frame::Body as Answer;
        match (asked, answer) {
            (Asked::Send(send), Answer::Accepted(accepted)) => {
                assert_eq!(self.log.seqs.get(&send.client_message_id), Some(&accepted.seq));
                assert_eq!(self.acknowledged.insert(send.client_message_id, accepted.seq), None);
            }
            (asked, Answer::Error(error)) => {
                assert_eq!(error.code(), ErrorCode::ErrorTimedOut, "{error:?}");
                self.counts.timed_out += 1;
                if let Asked::Send(send) = asked {
                    self.outbox.push_back(send.client_message_id);
                }
            }
            (Asked::Get(get), Answer::Conversation(conversation)) => {
                assert_eq!(conversation.conversation_id, get.conversation_id);
                check_conversation(&conversation);
            }
            (Asked::History(history), Answer::HistoryPage(page)) => {
                assert_eq!((page.conversation_id, page.handle), (history.conversation_id, 0));
            }
            (Asked::List(_), Answer::ConversationPage(page)) => {
                page.conversations.iter().for_each(check_conversation)
            }
            (Asked::Sync(sync), Answer::SyncPage(page)) => {
                let deltas = page.conversations.iter().flat_map(|delta| &delta.conversation);
                deltas.clone().for_each(check_conversation);
                let named = sync.cursors.iter().map(|cursor| &cursor.conversation_id);
                assert!(deltas.map(|conversation| &conversation.conversation_id).eq(named));
            }
            (asked, answer) => panic!("{answer:?} answers {asked:?}"),
        }
    }

    fn check_event(&mut self, body: server_frame::Body) {
        self.counts.events += 1;
        match body {
            server_frame::Body::Message(event) => {
                assert_eq!((event.handle, event.conversation_id), (0, event.entry.expect("checked").body));
            }
            server_frame::Body::Receipt(event) => {
                let last = u32::from(*event.conversation_id.last().expect("16 bytes"));
                assert_eq!((event.handle, event.member), (0, last));
            }
            // Garbage can read as a cursor without an answer.
            server_frame::Body::Error(error) => assert!(self.faults, "{error:?}"),
            other => panic!("{other:?} is no event of this test"),
        }
    }

    fn server_turn(&mut self, connection: &mut Connection) -> bool {
        while let Some(frame) = connection.up.receive(self.now_ms).filter(|_| !connection.frozen) {
            if self.features != 0 && frame.len() < 30 {
                self.counts.by_handle += 1;
            }
            let mut out = BytesMut::new();
            match connection.server.handle_frame(self.now_ms, frame, &mut out) {
                Ok(ServerInput::Authenticate { proof }) => {
                    match proof {
                        Proof::AccessToken(token) => assert_eq!(token, "password"),
                        Proof::ResumeToken(token) => {
                            assert_eq!(token.as_ref(), b"resume");
                            self.counts.resumptions += 1;
                        }
                    }
                    connection.ready_at_ms = Some(self.now_ms + self.seed.below(DELAY_MS_MAX) as u64);
                }
                Ok(ServerInput::Request { request_id, body }) => self.serve(connection, request_id, body),
                Ok(ServerInput::Handled) => {}
                Err(fatal) => {
                    self.counts.protocol_errors += 1;
                    connection.server.fail(&fatal, &mut out);
                }
            }
            connection.down.send(self.seed, self.now_ms, out);
        }
        if connection.ready_at_ms.take_if(|at_ms| *at_ms <= self.now_ms).is_some() {
            let mut out = BytesMut::new();
            let info = ReadyInfo {
                user: UserId([1; 16]),
                device: DeviceId([2; 16]),
                server_time_ms: self.now_ms,
                resume_token: Bytes::from_static(b"resume"),
                feed_version: 0,
            };
            connection.server.ready(self.now_ms, info, &mut out);
            connection.down.send(self.seed, self.now_ms, out);
        }
        self.give_answers(connection);
        if connection.server.is_ready() && self.seed.once_in(10) {
            let mut out = BytesMut::new();
            connection.server.event(self.some_event(), &mut out);
            connection.down.send(self.seed, self.now_ms, out);
        }
        true
    }

    /// Does at once what is asked, and answers some time later.
    fn serve(&mut self, connection: &mut Connection, request_id: u32, body: client_frame::Body) {
        use client_frame::Body;
        let answer = match body {
            Body::Send(send) => {
                assert_eq!((send.handle, &send.conversation_id), (0, &send.body));
                server_frame::Body::Accepted(MessageAccepted {
                    seq: self.log.append(&send),
                    ..Default::default()
                })
            }
            Body::Delivered(cursor) => {
                assert_eq!((request_id, cursor.handle), (0, 0));
                assert!(self.conversations.contains(&cursor.conversation_id));
                return;
            }
            Body::Get(get) => server_frame::Body::Conversation(conversation(get.conversation_id)),
            Body::History(history) => {
                let conversation_id = history.conversation_id;
                server_frame::Body::HistoryPage(HistoryPage { conversation_id, ..HistoryPage::default() })
            }
            Body::List(_) => {
                let conversations =
                    (0..self.seed.below(50)).map(|_| conversation(self.some_conversation())).collect();
                server_frame::Body::ConversationPage(ConversationPage { conversations, ..Default::default() })
            }
            Body::Sync(sync) => {
                let delta = |cursor: SyncCursor| ConversationDelta {
                    conversation: Some(conversation(cursor.conversation_id)),
                    ..ConversationDelta::default()
                };
                let conversations = sync.cursors.into_iter().map(delta).collect();
                server_frame::Body::SyncPage(SyncPage { conversations, ..SyncPage::default() })
            }
            other => panic!("nobody asks {other:?}"),
        };
        let (delay_ms, answer) = if self.faults && self.seed.once_in(50) {
            let error = crate::error::RequestError::new(ErrorCode::ErrorTimedOut, "storage");
            (REQUEST_TIMEOUT_MS, server_frame::Body::Error(error.to_wire()))
        } else {
            (self.seed.below(400) as u64, answer)
        };
        connection.answers.push((self.now_ms + delay_ms, request_id, answer));
    }

    fn give_answers(&mut self, connection: &mut Connection) {
        while let Some(row) = connection.answers.iter().position(|&(due_ms, ..)| due_ms <= self.now_ms) {
            self.counts.answers_out_of_order += usize::from(row > 0);
            let (_, request_id, body) = connection.answers.remove(row);
            let mut out = BytesMut::new();
            let answered = connection.server.answer(request_id, body, &mut out);
            assert_eq!(answered, connection.server.is_ready());
            connection.down.send(self.seed, self.now_ms, out);
        }
    }

    fn some_event(&mut self) -> server_frame::Body {
        let conversation_id = self.some_conversation();
        if self.seed.once_in(2) {
            let entry = Some(Entry { seq: 1, body: conversation_id.clone(), ..Entry::default() });
            server_frame::Body::Message(MessageEvent { conversation_id, entry, handle: 0 })
        } else {
            let member = u32::from(*conversation_id.last().expect("16 bytes"));
            server_frame::Body::Receipt(ReceiptEvent { conversation_id, member, ..ReceiptEvent::default() })
        }
    }

    fn timeouts(&mut self, connection: &mut Connection) -> bool {
        if let Some(fatal) = connection.server.handle_timeout(self.now_ms) {
            self.counts.idle += 1;
            let mut out = BytesMut::new();
            connection.server.fail(&fatal, &mut out);
            connection.down.send(self.seed, self.now_ms, out);
            connection.server_gone = true;
        }
        let mut out = BytesMut::new();
        if connection.client.poll_timeout().is_some_and(|at_ms| at_ms <= self.now_ms)
            && connection.client.handle_timeout(self.now_ms, &mut out).is_err()
        {
            self.counts.dead += 1;
            return false;
        }
        connection.up.send(self.seed, self.now_ms, out);
        // The transport closes once the last frame is through.
        !(connection.server_gone && connection.down.frames.is_empty())
    }

    /// Whether the connection breaks at once.
    fn fault(&mut self, connection: &mut Connection) -> bool {
        if self.seed.once_in(400) {
            return true;
        }
        if self.seed.once_in(800) {
            connection.frozen = true;
        }
        if self.seed.once_in(500) {
            let count = 1 + self.seed.below(40);
            let mut garbage = BytesMut::new();
            garbage.put_slice(&self.seed.bytes(count));
            // A tag of field 0 makes sure that no such frame is ever a good request by chance.
            garbage.put_u8(0);
            connection.up.send(self.seed, self.now_ms, garbage);
        }
        false
    }
}

impl Log {
    fn append(&mut self, send: &SendMessage) -> u64 {
        *self.seqs.entry(send.client_message_id).or_insert_with(|| {
            let messages = self.messages.entry(send.conversation_id.clone()).or_default();
            messages.push(send.client_message_id);
            messages.len() as u64
        })
    }
}

/// A conversation whose title repeats its id.
fn conversation(conversation_id: Bytes) -> Conversation {
    Conversation { title: format!("{conversation_id:x}"), conversation_id, ..Conversation::default() }
}

fn check_conversation(conversation: &Conversation) {
    assert_eq!(
        (conversation.handle, &conversation.title),
        (0, &format!("{:x}", conversation.conversation_id))
    );
}

#[test]
fn every_message_is_acknowledged_once_whatever_the_wire_does() {
    let mut all = Counts::default();
    with_seeds(120, |seed| {
        let mut world = World::new(seed);
        (0..2_000).for_each(|_| world.step());
        world.faults = false;
        let mut steps = 0;
        while world.acknowledged.len() < MESSAGES as usize {
            world.step();
            steps += 1;
            assert!(steps < 20_000, "{} of {MESSAGES} acknowledged", world.acknowledged.len());
        }
        assert_eq!(world.acknowledged, world.log.seqs);
        let stored: usize = world.log.messages.values().map(Vec::len).sum();
        assert_eq!(stored as u64, MESSAGES);
        all.add(&world.counts);
    });
    all.check();
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.resumptions += other.resumptions;
        self.answers_out_of_order += other.answers_out_of_order;
        self.by_handle += other.by_handle;
        self.dead += other.dead;
        self.idle += other.idle;
        self.protocol_errors += other.protocol_errors;
        self.timed_out += other.timed_out;
        self.events += other.events;
    }

    /// A test that never meets a fault proves nothing about it.
    fn check(&self) {
        if std::env::var_os("RINGLINE_SEED").is_some() {
            return;
        }
        for (what, count) in [
            ("connections", self.connections),
            ("resumptions", self.resumptions),
            ("answers out of order", self.answers_out_of_order),
            ("frames by handle", self.by_handle),
            ("connections found dead by the client", self.dead),
            ("connections found idle by the server", self.idle),
            ("protocol errors", self.protocol_errors),
            ("requests timed out", self.timed_out),
            ("events", self.events),
        ] {
            assert!(count >= 20, "{count} {what}");
        }
    }
}
