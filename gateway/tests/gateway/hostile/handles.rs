//! Conversations by handle: more of them than there are handles, handles that nobody gave, and those of other sessions.
//!
//! The client's half would hide all of it: here frames are looked at as they are on the wire.

use super::{private_kib, raw};
use crate::chat::{accepted, created, group, refused};
use crate::server::{Account, EMBEDDED, Folder, Server};
use bytes::{Bytes, BytesMut};
use prost::Message;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use wire_protocol::frame::{FrameDecoder, encode_frame, encode_message};
use wire_protocol::ids::{ConversationId, UserId};
use wire_protocol::limits::{
    FEATURE_HANDLES, FEATURES, FRAME_BYTES_MAX, HANDLES_MAX, REQUESTS_IN_FLIGHT_MAX,
};
use wire_protocol::session::{ClientSession, Proof};
use wire_protocol::v1::client_frame::Body;
use wire_protocol::v1::{self, ErrorCode, server_frame};

/// Rates are lifted: some minutes of people's requests go out at once.
const UNLIMITED: &str = "[limits]\nsends_per_user = 'none'\nrequests_per_user = 'none'\n\
     sends_per_conversation = 'none'\nrequests_per_address = 'none'\n";
/// One user's: more than there are handles.
const CONVERSATIONS: usize = HANDLES_MAX + 76;
/// Requests asked at once: half of those that may be in flight.
const LIGHT_AT_ONCE: usize = REQUESTS_IN_FLIGHT_MAX / 2;
/// Of those that read many rows a session may have 8 under way.
const HEAVY_AT_ONCE: usize = 8;
/// Sessions that fill their tables: a third of those that one user may have.
const SESSIONS: usize = 20;
/// Memory that these take, in KiB, at most. For each: a table of 16 bytes a handle, twice that while it grows, and 64
/// KiB for the connection and what is queued on it. And 16 MiB, since every read passes through storage and its caches:
/// so it finds what takes 900 KiB more for each session, or 280 bytes for each time that a handle is asked for, no less.
const GROWTH_KIB_MAX: u64 = SESSIONS as u64 * (HANDLES_MAX as u64 * 3 * 16 / 1_024 + 64) + 16 * 1_024;
/// Sessions one after the other.
const RECONNECTS: usize = 24;

/// How a frame names a conversation: by handle or by id, the other one is 0 or empty.
type Name = (u32, Bytes);

fn by_id(id: &Bytes) -> Name {
    (0, id.clone())
}

fn by_handle(handle: u32) -> Name {
    (handle, Bytes::new())
}

fn get((handle, conversation_id): Name) -> Body {
    Body::Get(v1::GetConversation { handle, conversation_id })
}

fn history((handle, conversation_id): Name) -> Body {
    Body::History(v1::History { handle, conversation_id, ..Default::default() })
}

fn send((handle, conversation_id): Name, body: Bytes) -> Body {
    Body::Send(v1::SendMessage { handle, conversation_id, client_message_id: 1, body, ..Default::default() })
}

fn read((handle, conversation_id): Name) -> Body {
    Body::Read(v1::ReadUpTo { handle, conversation_id, seq: 1 })
}

fn delivered((handle, conversation_id): Name) -> Body {
    Body::Delivered(v1::DeliveredUpTo { handle, conversation_id, seq: 1 })
}

fn sync_of((handle, conversation_id): Name) -> Body {
    let cursors = vec![v1::SyncCursor { handle, conversation_id, after_seq: 0 }];
    Body::Sync(v1::Sync { cursors, named_only: true, ..Default::default() })
}

/// Each request that names a conversation, naming it so.
fn requests(name: &Name) -> [Body; 6] {
    let name = || name.clone();
    [get(name()), history(name()), send(name(), "x".into()), read(name()), delivered(name()), sync_of(name())]
}

fn access(account: &Account) -> Proof {
    Proof::AccessToken(account.access_token.clone())
}

/// A session, and the handles that it was given.
struct Wire {
    stream: TcpStream,
    decoder: FrameDecoder,
    ready: v1::Ready,
    /// Conversations by handle, the first of which is 1.
    given: Vec<Bytes>,
    /// Conversations of which an entry was pushed.
    pushed: BTreeSet<Bytes>,
}

impl Wire {
    /// Says hello with these feature bits; the answer is ready.
    fn hello(server: &Server, proof: Proof, features: u64) -> Self {
        let (mut hello, mut framed) = (BytesMut::new(), BytesMut::new());
        ClientSession::with_features(0, features).hello(proof, 0, "test", &mut hello);
        encode_frame(&hello, &mut framed);
        let mut wire = Self {
            stream: raw(server.plain),
            decoder: FrameDecoder::new(FRAME_BYTES_MAX),
            ready: v1::Ready::default(),
            given: Vec::new(),
            pushed: BTreeSet::new(),
        };
        wire.stream.set_nodelay(true).expect("a socket");
        wire.stream.write_all(&framed).expect("sent");
        match wire.frame().body {
            Some(server_frame::Body::Ready(ready)) => wire.ready = ready,
            other => panic!("{other:?}"),
        }
        wire
    }

    /// Sends all of these at once, with ids from this one upwards; 0 is no id.
    fn send(&mut self, bodies: &[Body], first_id: u32) {
        let mut framed = BytesMut::new();
        for (request_id, body) in (first_id..).zip(bodies) {
            encode_message(&v1::ClientFrame { request_id, body: Some(body.clone()) }, &mut framed);
        }
        self.stream.write_all(&framed).expect("sent");
    }

    /// The next frame, whose handles are taken over.
    fn frame(&mut self) -> v1::ServerFrame {
        let payload = loop {
            if let Some(payload) = self.decoder.next_frame().expect("framed") {
                break payload;
            }
            let mut buffer = [0; 16 * 1024];
            let bytes = self.stream.read(&mut buffer).expect("an answer");
            assert!(bytes > 0, "the server closed");
            self.decoder.push(&buffer[..bytes]);
        };
        let mut frame = v1::ServerFrame::decode(payload).expect("a frame");
        for v1::Binding { handle, conversation_id } in std::mem::take(&mut frame.bindings) {
            assert_eq!(handle as usize, self.given.len() + 1, "they count upwards from 1");
            assert!(!self.given.contains(&conversation_id), "a second one for {conversation_id:?}");
            self.given.push(conversation_id);
        }
        if let Some(server_frame::Body::Message(message)) = &frame.body {
            self.pushed.insert(self.named(message.handle, &message.conversation_id));
        }
        frame
    }

    /// The refusal of a frame that wanted no answer.
    fn refusal(&mut self) -> v1::Error {
        loop {
            let frame = self.frame();
            assert_eq!(frame.request_id, 0, "nothing else was asked");
            if let Some(server_frame::Body::Error(error)) = frame.body {
                return error;
            }
        }
    }

    /// The answers to all of these, in their order; so many of them are asked at once.
    fn ask_all(&mut self, bodies: &[Body], at_once: usize) -> Vec<server_frame::Body> {
        let mut answers: Vec<Option<server_frame::Body>> = vec![None; bodies.len()];
        for (bodies, answers) in bodies.chunks(at_once).zip(answers.chunks_mut(at_once)) {
            self.send(bodies, 1);
            while answers.contains(&None) {
                let frame = self.frame();
                // 0: an event.
                if let Some(place) = (frame.request_id as usize).checked_sub(1) {
                    answers[place] = frame.body;
                }
            }
        }
        answers.into_iter().map(|answer| answer.expect("all of them came")).collect()
    }

    fn ask(&mut self, body: Body) -> server_frame::Body {
        self.ask_all(&[body], 1).remove(0)
    }

    /// The conversation that a frame of the server names.
    fn named(&self, handle: u32, conversation_id: &Bytes) -> Bytes {
        match (handle as usize).checked_sub(1) {
            None => conversation_id.clone(),
            Some(place) => {
                assert!(conversation_id.is_empty(), "by both: {handle} and {conversation_id:?}");
                self.given[place].clone()
            }
        }
    }

    /// The shortest name that this session has for it.
    fn name_of(&self, id: &Bytes) -> Name {
        match self.given.iter().position(|given| given == id) {
            Some(place) => by_handle(place as u32 + 1),
            None => by_id(id),
        }
    }

    /// Gets all of them by these names, and finds each to be the one that was asked for.
    fn assert_got(&mut self, ids: &[Bytes], name: impl Fn(&Self, &Bytes) -> Name) {
        let bodies: Vec<Body> = ids.iter().map(|id| get(name(self, id))).collect();
        for (answer, id) in self.ask_all(&bodies, LIGHT_AT_ONCE).into_iter().zip(ids) {
            let conversation = created(answer);
            assert_eq!(self.named(conversation.handle, &conversation.conversation_id), *id);
        }
    }

    /// The newest entry of each, asked for by its shortest name, is the message that says its number.
    fn assert_read(&mut self, ids: &[Bytes]) {
        let bodies: Vec<Body> = ids.iter().map(|id| history(self.name_of(id))).collect();
        let answers = self.ask_all(&bodies, LIGHT_AT_ONCE);
        for (number, (answer, id)) in answers.into_iter().zip(ids).enumerate() {
            let page = match answer {
                server_frame::Body::HistoryPage(page) => page,
                other => panic!("{other:?}"),
            };
            assert_eq!(self.named(page.handle, &page.conversation_id), *id);
            let newest = page.entries.last().expect("it has entries");
            assert_eq!((newest.seq, newest.body.clone()), (2, number.to_string().into()));
        }
    }

    /// Every conversation that a sync from the beginning tells of.
    fn synced(&mut self) -> BTreeSet<Bytes> {
        let (mut since_version, mut told) = (0, BTreeSet::new());
        loop {
            let sync = v1::Sync { since_version, ..Default::default() };
            let page = match self.ask(Body::Sync(sync)) {
                server_frame::Body::SyncPage(page) => page,
                other => panic!("{other:?}"),
            };
            for delta in page.conversations {
                let conversation = delta.conversation.expect("always told");
                told.insert(self.named(conversation.handle, &conversation.conversation_id));
            }
            since_version = page.version;
            if !page.more {
                return told;
            }
        }
    }
}

/// Makes as many groups as the test needs; their ids, as anybody may compute them.
fn made(wire: &mut Wire, creator: &Account, other: &Account) -> Vec<Bytes> {
    let user = UserId::from_hex(&creator.user_id).expect("an id");
    let numbers = 1..=CONVERSATIONS as u64;
    let creations: Vec<Body> = numbers.clone().map(|number| group(&[other], number)).collect();
    let ids: Vec<Bytes> = numbers.map(|number| ConversationId::group(user, number).to_bytes()).collect();
    for (answer, id) in wire.ask_all(&creations, HEAVY_AT_ONCE).into_iter().zip(&ids) {
        let conversation = created(answer);
        assert_eq!(wire.named(conversation.handle, &conversation.conversation_id), *id);
    }
    ids
}

#[test]
fn who_has_more_conversations_than_handles_gets_right_answers_for_all() {
    let server = Server::start(Folder::new(), &format!("{EMBEDDED}{UNLIMITED}"));
    let (ada, bob) = (server.register("ada"), server.register("bob"));
    let mut adas = Wire::hello(&server, access(&ada), FEATURES);
    let ids = made(&mut adas, &ada, &bob);
    assert_eq!(adas.given.len(), HANDLES_MAX);
    let sends: Vec<Body> = ids
        .iter()
        .enumerate()
        .map(|(number, id)| send(adas.name_of(id), number.to_string().into()))
        .collect();
    for answer in adas.ask_all(&sends, LIGHT_AT_ONCE) {
        assert_eq!(accepted(answer).seq, 2);
    }
    adas.assert_read(&ids);
    // To whom handles are nothing, all of it is where it belongs.
    let mut bobs = Wire::hello(&server, access(&bob), 0);
    bobs.assert_read(&ids);
    assert_eq!(bobs.given.len(), 0);
    // The feed follows what happens in a moment.
    server.wait_until("the feed has them all", || adas.synced().len() == CONVERSATIONS);
    assert_eq!(adas.synced(), BTreeSet::from_iter(ids.clone()));
    assert_eq!(adas.given.len(), HANDLES_MAX);
    let beyond = refused(adas.ask(get(by_handle(HANDLES_MAX as u32 + 1))));
    assert_eq!(beyond.code(), ErrorCode::ErrorUnknownHandle, "{}", beyond.detail);
    adas.assert_got(&ids, Wire::name_of);
}

#[test]
fn asking_for_handles_again_and_again_gives_none_twice_and_takes_no_memory() {
    let server = Server::start(Folder::new(), &format!("{EMBEDDED}{UNLIMITED}"));
    let (ada, bob) = (server.register("ada"), server.register("bob"));
    let mut first = Wire::hello(&server, access(&ada), FEATURES);
    let ids = made(&mut first, &ada, &bob);
    // Storage has read all of it once.
    first.assert_got(&ids, |_, id| by_id(id));
    let before_kib = private_kib(&server);
    let mut wires: Vec<Wire> = (0..SESSIONS).map(|_| Wire::hello(&server, access(&ada), FEATURES)).collect();
    for (number, wire) in wires.iter_mut().enumerate() {
        // Each in an order of its own: a handle is another conversation in each session.
        let turned: Vec<Bytes> = [&ids[number * 31..], &ids[..number * 31]].concat();
        for _ in 0..2 {
            wire.assert_got(&turned, |_, id| by_id(id));
            assert_eq!(wire.given.len(), HANDLES_MAX);
        }
    }
    // All that were given are still good, and no other session's.
    for wire in &mut wires {
        wire.assert_got(&ids, Wire::name_of);
        assert_eq!(wire.given.len(), HANDLES_MAX);
    }
    let grown_kib = private_kib(&server).saturating_sub(before_kib);
    println!("{SESSIONS} full tables: {grown_kib} KiB");
    assert!(grown_kib <= GROWTH_KIB_MAX, "{grown_kib} KiB more than before");
}

#[test]
fn a_handle_that_was_never_given_is_refused_and_the_session_lives_on() {
    let server = Server::embedded();
    let (ada, bob) = (server.register("ada"), server.register("bob"));
    let mut wire = Wire::hello(&server, access(&ada), FEATURES);
    let made = created(wire.ask(group(&[&bob], 1)));
    assert_eq!((made.handle, wire.given.len()), (1, 1));
    let id = wire.given[0].clone();
    let (unknown, invalid) = (ErrorCode::ErrorUnknownHandle, ErrorCode::ErrorInvalidArgument);
    let cases: [(Name, ErrorCode); 7] = [
        (by_handle(2), unknown),
        (by_handle(HANDLES_MAX as u32), unknown),
        (by_handle(HANDLES_MAX as u32 + 1), unknown),
        (by_handle(u32::MAX), unknown),
        (by_handle(0), invalid),
        ((1, id.clone()), invalid),
        ((2, id.clone()), invalid),
    ];
    for (name, code) in cases {
        for body in requests(&name) {
            let shown = format!("{body:?}");
            let error = refused(wire.ask(body));
            assert_eq!(error.code(), code, "{} for {shown}", error.detail);
        }
        // Cursors without an id have no answer, but their refusals are told.
        for cursor in [read(name.clone()), delivered(name.clone())] {
            wire.send(&[cursor], 0);
            let error = wire.refusal();
            assert_eq!(error.code(), code, "{} for {name:?}", error.detail);
        }
    }
    assert_eq!(created(wire.ask(get(by_id(&id)))).head_seq, 1, "nothing was stored");
    assert_eq!(wire.given.len(), 1);
    for body in requests(&by_handle(1)) {
        let shown = format!("{body:?}");
        let answer = wire.ask(body);
        assert!(!matches!(answer, server_frame::Body::Error(_)), "{answer:?} for {shown}");
    }
}

#[test]
fn handles_end_with_their_session_whatever_the_next_hello_offers() {
    let server = Server::embedded();
    let (ada, bob) = (server.register("ada"), server.register("bob"));
    let mut first = Wire::hello(&server, access(&ada), FEATURES);
    for creation_id in 1..=3 {
        created(first.ask(group(&[&bob], creation_id)));
    }
    let ids = first.given.clone();
    // All devices hear of a new conversation; later sessions must not, since that would give handles.
    while first.pushed.len() < ids.len() {
        first.frame();
    }
    let mut proof = access(&ada);
    // Bits that nobody knows are passed over.
    let offers = [FEATURES, 0, u64::MAX, !FEATURES];
    for round in 0..RECONNECTS {
        let (offer, id) = (offers[round % offers.len()], &ids[round % ids.len()]);
        let mut wire = Wire::hello(&server, proof, offer);
        assert_eq!(wire.ready.features, offer & FEATURES, "round {round}");
        let has_handles = offer & FEATURE_HANDLES != 0;
        // What was given in the session before, or to the one that had this place in the server's tables.
        let before = refused(wire.ask(get(by_handle(1))));
        assert_eq!(before.code(), ErrorCode::ErrorUnknownHandle, "round {round}: {}", before.detail);
        let got = created(wire.ask(get(by_id(id))));
        assert_eq!((got.handle, wire.given.len()), (u32::from(has_handles), usize::from(has_handles)));
        assert_eq!(wire.named(got.handle, &got.conversation_id), *id, "round {round}");
        match wire.ask(get(by_handle(1))) {
            server_frame::Body::Conversation(got) if has_handles => {
                assert_eq!(wire.named(got.handle, &got.conversation_id), *id, "round {round}");
            }
            server_frame::Body::Error(error) if !has_handles => {
                assert_eq!(error.code(), ErrorCode::ErrorUnknownHandle, "round {round}: {}", error.detail);
            }
            other => panic!("round {round}: {other:?}"),
        }
        proof = Proof::ResumeToken(wire.ready.resume_token.clone());
    }
}
