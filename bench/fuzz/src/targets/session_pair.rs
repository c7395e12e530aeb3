//! Both halves of a client's session together, over a wire that changes some bytes: several requests in flight, answered in
//! any order, events between them, and handles in place of conversations in both directions.

use crate::Target;
use crate::input::Input;
use crate::targets::sessions::{hello, info, send};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use wire_protocol::error::RequestError;
use wire_protocol::limits::REQUESTS_IN_FLIGHT_MAX;
use wire_protocol::session::{ClientEvent, ClientSession, ServerInput, ServerSession};
use wire_protocol::v1::{
    Conversation, ConversationDelta, Done, Entry, ErrorCode, GetConversation, History, HistoryPage,
    MessageAccepted, MessageEvent, ReceiptEvent, Sync, SyncCursor, SyncPage, client_frame, server_frame,
};

/// Steps of a story.
const STEPS_MAX: usize = 64;
/// Conversations that it is about.
const CONVERSATIONS: u8 = 4;

/// See `holds`.
pub const SESSION_PAIR: Target = Target {
    name: "session-pair",
    holds: "both halves understand each other: each request, answer and event comes as it was said, whatever handles stand for, \
            and each request is in one place; when bytes change on the way, either ends the session or ignores them",
    run: session_pair,
};

/// When the server answers a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answered {
    AtOnce,
    /// Other requests come before.
    Later,
}

/// A frame on its way to the server.
struct Sent {
    frame: BytesMut,
    /// What it asks; `None`: it is the hello.
    asked: Option<(u32, client_frame::Body)>,
    answered: Answered,
}

/// A frame on its way to the client.
struct Told {
    frame: BytesMut,
    /// What it means; `None`: it is the answer to the hello.
    event: Option<ClientEvent>,
}

struct Pair {
    client: ClientSession,
    server: ServerSession,
    up: VecDeque<Sent>,
    down: VecDeque<Told>,
    /// What the server has not answered yet.
    held: Vec<(u32, client_frame::Body)>,
    /// No byte has changed.
    is_clean: bool,
    now_ms: u64,
    asked: u64,
    answered: u64,
}

fn conversation(number: u8) -> Bytes {
    Bytes::copy_from_slice(&[number % CONVERSATIONS; 16])
}

impl Pair {
    fn new() -> Self {
        let mut frame = BytesMut::new();
        let client = hello(&mut frame);
        Self {
            client,
            server: ServerSession::new(0),
            up: VecDeque::from([Sent { frame, asked: None, answered: Answered::AtOnce }]),
            down: VecDeque::new(),
            held: Vec::new(),
            is_clean: true,
            now_ms: 0,
            asked: 0,
            answered: 0,
        }
    }

    /// One frame arrives in each direction. False: the session has ended, which only changed bytes may do.
    fn pass(&mut self, input: &mut Input<'_>) -> bool {
        let goes_on = self.serve(input) && self.hear(input);
        assert!(goes_on || !self.is_clean, "a session ended that nobody disturbed");
        self.now_ms += 1;
        goes_on
    }

    fn serve(&mut self, input: &mut Input<'_>) -> bool {
        let Some(sent) = self.up.pop_front() else { return true };
        let payload = on_the_way(sent.frame, input, &mut self.is_clean);
        let mut out = BytesMut::new();
        match self.server.handle_frame(self.now_ms, payload, &mut out) {
            Err(_) => return false,
            Ok(ServerInput::Authenticate { .. }) => {
                self.server.ready(self.now_ms, info(), &mut out);
                self.tell(out, None);
            }
            Ok(ServerInput::Request { request_id, body }) => {
                let request = (request_id, body);
                if self.is_clean {
                    assert_eq!(Some(&request), sent.asked.as_ref(), "handles are resolved");
                }
                match sent.answered {
                    Answered::AtOnce => self.answer(request),
                    Answered::Later => self.held.push(request),
                }
            }
            Ok(ServerInput::Handled) => {
                assert!(!self.is_clean, "a good request was refused");
                self.tell(out, None);
            }
        }
        true
    }

    fn hear(&mut self, input: &mut Input<'_>) -> bool {
        let Some(told) = self.down.pop_front() else { return true };
        let payload = on_the_way(told.frame, input, &mut self.is_clean);
        let Ok(heard) = self.client.handle_frame(self.now_ms, payload) else { return false };
        if self.is_clean {
            match told.event {
                Some(event) => assert_eq!(heard, event),
                None => assert!(matches!(heard, ClientEvent::Ready(_)), "{heard:?}"),
            }
        }
        true
    }

    fn tell(&mut self, frame: BytesMut, event: Option<ClientEvent>) {
        if !frame.is_empty() {
            self.down.push_back(Told { frame, event });
        }
    }

    fn answer(&mut self, (request_id, asked): (u32, client_frame::Body)) {
        self.answered += 1;
        let body = answer_to(asked, self.answered);
        let mut out = BytesMut::new();
        let is_written = self.server.answer(request_id, body.clone(), &mut out);
        assert!(is_written || !self.is_clean, "it was asked");
        self.tell(out, Some(ClientEvent::Answer { request_id, body }));
    }

    fn refuse(&mut self, request_id: u32) {
        let error = RequestError::new(ErrorCode::ErrorUnavailable, "away");
        let body = server_frame::Body::Error(error.to_wire());
        let mut out = BytesMut::new();
        let is_written = self.server.answer_error(request_id, &error, &mut out);
        assert!(is_written || !self.is_clean, "it was asked");
        self.tell(out, Some(ClientEvent::Answer { request_id, body }));
    }

    /// What the server does by itself: nothing, or it tells of something, or answers what it has held.
    fn act(&mut self, choice: u8) {
        match choice {
            64..=127 => {
                let conversation_id = conversation(choice / 4);
                let body = if choice < 96 {
                    let entry = Some(Entry { seq: 1 + self.answered, ..Entry::default() });
                    server_frame::Body::Message(MessageEvent { conversation_id, entry, handle: 0 })
                } else {
                    let read_up_to = self.answered;
                    let event = ReceiptEvent { conversation_id, read_up_to, ..ReceiptEvent::default() };
                    server_frame::Body::Receipt(event)
                };
                let mut out = BytesMut::new();
                self.server.event(body.clone(), &mut out);
                self.tell(out, Some(ClientEvent::Event(body)));
            }
            128.. if !self.held.is_empty() => {
                let request = self.held.remove(usize::from(choice / 4 % 16) % self.held.len());
                if choice < 192 { self.answer(request) } else { self.refuse(request.0) }
            }
            _ => {}
        }
    }

    /// The client asks something about a conversation.
    fn ask(&mut self, choice: u8) {
        self.asked += 1;
        let conversation_id = conversation(choice);
        let body = match choice / 32 {
            0 | 1 | 5 => send(self.asked, choice),
            2 | 6 => client_frame::Body::Get(GetConversation { conversation_id, handle: 0 }),
            3 | 7 => client_frame::Body::History(History { conversation_id, ..History::default() }),
            _ => {
                let cursor = |number| SyncCursor {
                    conversation_id: conversation(number),
                    after_seq: self.answered,
                    handle: 0,
                };
                let cursors = (0..=choice % CONVERSATIONS).map(cursor).collect();
                client_frame::Body::Sync(Sync { cursors, ..Sync::default() })
            }
        };
        let mut frame = BytesMut::new();
        let request_id = self.client.request(self.now_ms, body.clone(), &mut frame).expect("it said so");
        let answered = if choice < 160 { Answered::AtOnce } else { Answered::Later };
        self.up.push_back(Sent { frame, asked: Some((request_id, body)), answered });
    }

    /// Each request is on its way, at the server, or answered.
    fn check(&self) {
        assert!(self.server.in_flight_count() <= REQUESTS_IN_FLIGHT_MAX);
        if !self.is_clean {
            return;
        }
        let sent = self.up.iter().filter_map(|sent| sent.asked.as_ref().map(|(id, _)| *id));
        let held = self.held.iter().map(|(id, _)| *id);
        let told = self.down.iter().filter_map(|told| match &told.event {
            Some(ClientEvent::Answer { request_id, .. }) => Some(*request_id),
            _ => None,
        });
        let mut under_way: Vec<u32> = sent.chain(held).chain(told).collect();
        under_way.sort_unstable();
        assert_eq!(self.client.unanswered(), under_way);
        assert_eq!(self.server.in_flight_count(), self.held.len());
    }

    /// Everything is answered, and arrives as it is.
    fn settle(&mut self) {
        for request in std::mem::take(&mut self.held) {
            self.answer(request);
        }
        while !(self.up.is_empty() && self.down.is_empty()) {
            if !self.pass(&mut Input::new(&[])) {
                return;
            }
            for request in std::mem::take(&mut self.held) {
                self.answer(request);
            }
        }
        self.check();
    }
}

fn answer_to(asked: client_frame::Body, number: u64) -> server_frame::Body {
    use client_frame::Body as Asked;
    use server_frame::Body;
    let conversation =
        |conversation_id| Conversation { conversation_id, head_seq: number, ..Conversation::default() };
    match asked {
        Asked::Send(_) => Body::Accepted(MessageAccepted { seq: number, ..MessageAccepted::default() }),
        Asked::Get(get) => Body::Conversation(conversation(get.conversation_id)),
        Asked::History(History { conversation_id, .. }) => {
            Body::HistoryPage(HistoryPage { conversation_id, head_seq: number, ..HistoryPage::default() })
        }
        Asked::Sync(sync) => {
            let delta = |cursor: SyncCursor| ConversationDelta {
                conversation: Some(conversation(cursor.conversation_id)),
                ..ConversationDelta::default()
            };
            let conversations = sync.cursors.into_iter().map(delta).collect();
            Body::SyncPage(SyncPage { conversations, version: number, more: false })
        }
        _ => Body::Done(Done {}),
    }
}

fn session_pair(data: &[u8]) {
    let mut input = Input::new(data);
    let mut pair = Pair::new();
    for _ in 0..STEPS_MAX {
        if !pair.pass(&mut input) {
            return;
        }
        pair.check();
        if input.is_empty() {
            break;
        }
        if pair.client.can_request() {
            let choice = input.byte();
            pair.act(choice);
            if !choice.is_multiple_of(4) {
                pair.ask(input.byte());
            }
        }
    }
    pair.settle();
}

/// Bytes as they arrive: one in sixteen frames is changed.
fn on_the_way(frame: BytesMut, input: &mut Input<'_>, is_clean: &mut bool) -> Bytes {
    let mut frame = frame;
    if input.below(16) == 15 {
        let (place, bits) = (input.byte(), input.byte());
        if let Some(byte) = frame.get_mut(usize::from(place)).filter(|_| bits > 0) {
            *byte ^= bits;
            *is_clean = false;
        }
    }
    frame.freeze()
}
