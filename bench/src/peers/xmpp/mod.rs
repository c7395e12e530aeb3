//! XMPP over TLS from the first byte: a client of ejabberd.
//!
//! ```text
//! <stream> -> PLAIN -> <stream> -> bind -> enable (XEP-0198), presence, join each group (XEP-0045) -> Ready
//! direct   <message> <r/> -> <a h=…/>                   the server's session has dealt with it: Accepted
//! group    <message> -> the room sends it to its sender too, from the room's archive on: Accepted
//! catch up pages of the user's archive, then of each group's (XEP-0313, XEP-0059)
//! ```
//!
//! Bodies go in base64: XML cannot carry bytes. A message's id is its room and token, so that a device knows the
//! room, and the sender its answer.

mod archive;
mod element;
mod scanner;
mod stanzas;

use super::heartbeat::{Beat, Heartbeat};
use super::names::{Names, Recipient};
use super::partial::fault;
use crate::agent::protocol::{
    ClientProtocol, DeviceMemory, Message, NotSent, ProtocolEvent, ProtocolFault, Request, Token,
};
use crate::workload::population::RoomIndex;
use archive::{Archive, Owner};
use bytes::{Bytes, BytesMut};
use element::Element;
use scanner::{Piece, Scanner};
use std::collections::VecDeque;

pub use stanzas::{HOST, PASSWORD, user_name};

/// Unanswered requests of one device: far above what a device of a plan has.
const UNANSWERED_MAX: usize = 1024;
/// Messages of a page: what ejabberd gives at most.
const PAGE_MESSAGES: u32 = 250;

/// What opens a stream: whoever answers with features is a server that serves.
pub fn stream_opening() -> Vec<u8> {
    let mut out = BytesMut::new();
    stanzas::open_stream(&mut out);
    out.to_vec()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Greeting,
    Authenticating,
    Restarted,
    Binding,
    /// Stream management, and so many groups, are not confirmed.
    Joining {
        managed: bool,
        groups: usize,
    },
    Ready,
    Closed,
}

/// What waits for the server's count of stanzas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waiting {
    Send(Token),
    Open(Token),
}

/// A message of a room.
#[derive(Clone, PartialEq, Eq, Debug)]
struct MessageOf {
    room: RoomIndex,
    body: Bytes,
}

impl From<MessageOf> for ProtocolEvent {
    fn from(message: MessageOf) -> Self {
        Self::Message(Message { room: message.room, seq: None, body: message.body })
    }
}

/// Archives are being read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Reading {
    token: Token,
    /// Which of the archives.
    archive: usize,
    /// Id of the query.
    query: u64,
}

/// One device's half of a connection.
#[derive(Debug)]
pub struct Xmpp {
    names: Names,
    stage: Stage,
    scanner: Scanner,
    heartbeat: Heartbeat,
    /// Stanzas sent and received since stream management began.
    sent: u32,
    received: u32,
    /// By the count of sent stanzas that answers them, ascending.
    waiting: VecDeque<(u32, Waiting)>,
    /// Messages to groups that have not come back.
    echoes: Vec<Token>,
    archives: Vec<Archive>,
    reading: Option<Reading>,
    queries: u64,
}

impl Xmpp {
    /// For a new connection of a device.
    pub fn new(names: Names, memory: &DeviceMemory) -> Self {
        // Our own, but from an earlier version of this program perhaps: then the device starts anew.
        let stored: Vec<(Owner, String)> = serde_json::from_slice(&memory.0).unwrap_or_default();
        let owners = std::iter::once(Owner::User).chain(names.groups().into_iter().map(Owner::Group));
        let archives = owners.map(|owner| {
            let known = stored.iter().find(|(other, _)| *other == owner).map(|(_, id)| id.clone());
            Archive::new(owner, known)
        });
        Self {
            archives: archives.collect(),
            stage: Stage::Greeting,
            scanner: Scanner::default(),
            heartbeat: Heartbeat::new(names.heartbeat_s),
            sent: 0,
            received: 0,
            waiting: VecDeque::new(),
            echoes: Vec::new(),
            reading: None,
            queries: 0,
            names,
        }
    }

    fn piece(
        &mut self,
        piece: Option<Element>,
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        let Some(stanza) = piece else {
            self.close("stream_end", events);
            return Ok(());
        };
        if matches!(stanza.name.as_str(), "message" | "presence" | "iq") {
            self.received = self.received.wrapping_add(1);
        }
        match (stanza.name.as_str(), self.stage) {
            (_, Stage::Closed) => Ok(()),
            ("stream:error", _) => {
                let reason = stanza.children.first().map_or("unknown", |child| child.name.as_str());
                self.close(&format!("stream_{reason}"), events);
                Ok(())
            }
            (_, Stage::Ready) => self.stanza(&stanza, out, events),
            ("a" | "r", Stage::Joining { .. }) => self.stanza(&stanza, out, events),
            _ => self.opening(&stanza, out, events),
        }
    }

    fn close(&mut self, code: &str, events: &mut Vec<ProtocolEvent>) {
        if self.stage != Stage::Closed {
            self.stage = Stage::Closed;
            events.push(ProtocolEvent::Closing {
                code: code.to_owned(),
                retry_after_ms: 0,
                go_to: Vec::new(),
            });
        }
    }

    fn opening(
        &mut self,
        stanza: &Element,
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        match (stanza.name.as_str(), self.stage) {
            ("stream:features", Stage::Greeting) => {
                let offered = stanza.inner("mechanisms").is_some_and(|mechanisms| {
                    mechanisms.children.iter().any(|mechanism| mechanism.text == "PLAIN")
                });
                if !offered {
                    return Err(fault("the server does not offer PLAIN"));
                }
                stanzas::authenticate(out, &self.names);
                self.stage = Stage::Authenticating;
            }
            ("success", Stage::Authenticating) => {
                self.scanner = Scanner::default();
                stanzas::open_stream(out);
                self.stage = Stage::Restarted;
            }
            ("failure", Stage::Authenticating) => {
                let reason = stanza.children.first().map_or("unknown", |child| child.name.as_str());
                self.close(&format!("authentication_{reason}"), events);
            }
            ("stream:features", Stage::Restarted) => {
                stanzas::bind(out, &self.names);
                self.stage = Stage::Binding;
            }
            ("iq", Stage::Binding) if stanza.attribute("type") == Some("result") => self.enter(out),
            ("iq", Stage::Binding) => {
                let reason = stanzas::error_of(stanza);
                self.close(&format!("bind_{reason}"), events);
            }
            ("enabled", Stage::Joining { managed: false, groups }) => {
                self.received = 0;
                self.joined(true, groups, events);
            }
            ("presence", Stage::Joining { managed, groups }) => {
                if stanza.attribute("type") == Some("error") {
                    let reason = stanzas::error_of(stanza);
                    self.close(&format!("join_{reason}"), events);
                } else if stanzas::is_own_presence(stanza, &self.names) {
                    let groups = groups.checked_sub(1).ok_or_else(|| fault("a group never asked for"))?;
                    self.joined(managed, groups, events);
                }
            }
            // Others come and speak while we still enter.
            ("message", Stage::Joining { .. }) => self.message(stanza, events)?,
            ("iq", Stage::Joining { .. }) => {}
            (name, stage) => return Err(fault(format!("<{name}> while {stage:?}"))),
        }
        Ok(())
    }

    fn enter(&mut self, out: &mut BytesMut) {
        let groups = self.names.groups();
        stanzas::enable_and_show(out);
        for group in &groups {
            stanzas::join(out, &self.names, *group);
        }
        self.sent = 1 + groups.len() as u32;
        self.stage = Stage::Joining { managed: false, groups: groups.len() };
    }

    fn joined(&mut self, managed: bool, groups: usize, events: &mut Vec<ProtocolEvent>) {
        self.stage = Stage::Joining { managed, groups };
        if managed && groups == 0 {
            self.stage = Stage::Ready;
            events.push(ProtocolEvent::Ready);
        }
    }

    fn stanza(
        &mut self,
        stanza: &Element,
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        match stanza.name.as_str() {
            "message" => self.message(stanza, events),
            "a" => self.counted(stanza, events),
            "r" => {
                stanzas::count(out, self.received);
                Ok(())
            }
            "iq" => self.page_ended(stanza, out, events),
            // Others come and go.
            "presence" => Ok(()),
            name => Err(fault(format!("<{name}>: not a stanza we take"))),
        }
    }

    /// The server says how many stanzas it has dealt with.
    fn counted(&mut self, stanza: &Element, events: &mut Vec<ProtocolEvent>) -> Result<(), ProtocolFault> {
        let count: Option<u32> = stanza.attribute("h").and_then(|count| count.parse().ok());
        let count = count.ok_or_else(|| fault("a count that is none"))?;
        // Counts wrap round: what is behind `count` differs by less than half of them.
        let reached = |place: u32| count.wrapping_sub(place) < u32::MAX / 2;
        if count != self.sent && reached(self.sent) {
            return Err(fault(format!("the server counts {count} stanzas, sent were {}", self.sent)));
        }
        while let Some((_, waiting)) = self.waiting.front().copied().filter(|(place, _)| reached(*place)) {
            self.waiting.pop_front();
            events.push(match waiting {
                Waiting::Send(token) => ProtocolEvent::Accepted { token, seq: None },
                Waiting::Open(token) => ProtocolEvent::Done(token),
            });
        }
        Ok(())
    }

    fn message(&mut self, stanza: &Element, events: &mut Vec<ProtocolEvent>) -> Result<(), ProtocolFault> {
        if stanza.attribute("type") == Some("error") {
            events.push(self.refused(stanza));
            return Ok(());
        }
        if let Some(result) = stanza.child("result", stanzas::MAM) {
            return self.archived(result, events);
        }
        // Topics of groups and the like.
        let Some(told) = stanzas::told(stanza, &self.names)? else { return Ok(()) };
        let Some(archive) = self.archives.iter_mut().find(|archive| archive.owner == told.owner) else {
            return Err(fault(format!("a message of {:?}, where this device is not", told.owner)));
        };
        let id = stanzas::archive_id(stanza);
        match told.message {
            Some(message) => {
                let overrun = |_| fault("more live messages than are held back while an archive is read");
                events.extend(archive.live(id, message).map_err(overrun)?.map(ProtocolEvent::from));
            }
            None => {
                if let Some(place) = self.echoes.iter().position(|token| Some(*token) == told.token) {
                    let token = self.echoes.swap_remove(place);
                    events.push(ProtocolEvent::Accepted { token, seq: None });
                }
            }
        }
        Ok(())
    }

    fn refused(&mut self, stanza: &Element) -> ProtocolEvent {
        let token = stanzas::token_of(stanza);
        let echo = self.echoes.iter().position(|other| Some(*other) == token);
        let place = self.waiting.iter().position(|(_, waiting)| Some(*waiting) == token.map(Waiting::Send));
        if let Some(place) = echo {
            self.echoes.swap_remove(place);
        }
        if let Some(place) = place {
            self.waiting.remove(place);
        }
        let token = token.filter(|_| echo.is_some() || place.is_some());
        let (code, retryable) = (stanzas::error_of(stanza).to_owned(), stanzas::is_retryable(stanza));
        ProtocolEvent::Refused { token, code, retryable, retry_after_ms: 0 }
    }

    fn archived(&mut self, result: &Element, events: &mut Vec<ProtocolEvent>) -> Result<(), ProtocolFault> {
        let reading = self.reading.filter(|reading| {
            result.attribute("queryid").is_some_and(|query| query == format!("q{}", reading.query))
        });
        let Some(reading) = reading else { return Err(fault("a page nobody asked for")) };
        let message = result.inner("forwarded").and_then(|forwarded| forwarded.inner("message"));
        let id = result.attribute("id").ok_or_else(|| fault("an archived message without an id"))?;
        let message = message.ok_or_else(|| fault("an archive's result without its message"))?;
        let told = stanzas::told(message, &self.names)?;
        let archive = self.archives.get_mut(reading.archive).expect("one that is read");
        let message = archive.archived(id, told.and_then(|told| told.message));
        events.extend(message.map(ProtocolEvent::from));
        Ok(())
    }

    fn page_ended(
        &mut self,
        stanza: &Element,
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        let reading = self
            .reading
            .filter(|reading| stanza.attribute("id").is_some_and(|id| id == format!("q{}", reading.query)));
        // The server asks, or answers something given up.
        let Some(reading) = reading else { return Ok(()) };
        if stanza.attribute("type") != Some("result") {
            self.reading = None;
            let (code, retryable) = (stanzas::error_of(stanza).to_owned(), stanzas::is_retryable(stanza));
            let token = Some(reading.token);
            events.push(ProtocolEvent::Refused { token, code, retryable, retry_after_ms: 0 });
            return Ok(());
        }
        let fin = stanza.child("fin", stanzas::MAM).ok_or_else(|| fault("a page without an end"))?;
        let archive = self.archives.get_mut(reading.archive).expect("one that is read");
        match archive.page_ended(fin.attribute("complete") == Some("true")) {
            None => self.read_page(reading.token, reading.archive, out),
            Some(held) => {
                events.extend(held.into_iter().map(ProtocolEvent::from));
                if reading.archive + 1 < self.archives.len() {
                    self.read_page(reading.token, reading.archive + 1, out);
                } else {
                    self.reading = None;
                    events.push(ProtocolEvent::CaughtUp(reading.token));
                }
            }
        }
        Ok(())
    }

    fn read_page(&mut self, token: Token, archive: usize, out: &mut BytesMut) {
        self.queries += 1;
        self.reading = Some(Reading { token, archive, query: self.queries });
        let archive = self.archives.get_mut(archive).expect("there is always the user's own");
        let owner = archive.owner;
        stanzas::query(out, &self.names, owner, self.queries, archive.read_from());
        self.sent = self.sent.wrapping_add(1);
    }
}

impl ClientProtocol for Xmpp {
    fn opened(&mut self, now_us: u64, out: &mut BytesMut) {
        self.heartbeat.opened(now_us);
        stanzas::open_stream(out);
    }

    fn received(
        &mut self,
        now_us: u64,
        mut bytes: &[u8],
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        self.heartbeat.received(now_us);
        while !bytes.is_empty() {
            let (taken, found) = self.scanner.feed(bytes, |piece| match piece {
                Piece::StreamOpen(tag) if tag.starts_with(b"<stream:stream") => Ok(None),
                Piece::StreamOpen(_) => Err(fault("the server does not open a stream")),
                Piece::Stanza(stanza) => Ok(Some(Some(Element::read(stanza)?))),
                Piece::StreamEnd => Ok(Some(None)),
            })?;
            bytes = bytes.get(taken..).unwrap_or_default();
            if let Some(piece) = found.transpose()?.flatten() {
                self.piece(piece, out, events)?;
            }
        }
        Ok(())
    }

    fn request(
        &mut self,
        _now_us: u64,
        token: Token,
        request: &Request,
        out: &mut BytesMut,
    ) -> Result<(), NotSent> {
        if self.stage != Stage::Ready {
            return Err(NotSent::NotReady);
        }
        if self.waiting.len() + self.echoes.len() >= UNANSWERED_MAX {
            return Err(NotSent::Full);
        }
        match request {
            Request::Send { room, body, .. } => {
                stanzas::send(out, &self.names, *room, token, body);
                self.sent = self.sent.wrapping_add(1);
                if self.names.recipient(*room) == Recipient::Group {
                    self.echoes.push(token);
                } else {
                    self.waiting.push_back((self.sent, Waiting::Send(token)));
                    stanzas::ask_count(out);
                }
            }
            // Groups are made by the first who joins; the answer is a round trip.
            Request::Open(_) => {
                self.waiting.push_back((self.sent, Waiting::Open(token)));
                stanzas::ask_count(out);
            }
            Request::CatchUp { .. } => {
                if self.reading.is_some() {
                    return Err(NotSent::Full);
                }
                self.read_page(token, 0, out);
            }
            Request::History { .. } | Request::Delivered { .. } | Request::Read { .. } => {
                return Err(NotSent::Unsupported);
            }
        }
        Ok(())
    }

    fn poll_timeout(&self) -> Option<u64> {
        self.heartbeat.poll_timeout()
    }

    fn handle_timeout(&mut self, now_us: u64, out: &mut BytesMut) -> Result<(), ProtocolFault> {
        if self.heartbeat.check(now_us)? == Beat::Ping && self.stage == Stage::Ready {
            stanzas::ask_count(out);
        }
        Ok(())
    }

    fn into_memory(self: Box<Self>) -> DeviceMemory {
        let stored: Vec<(Owner, String)> = self
            .archives
            .into_iter()
            .filter_map(|archive| {
                let owner = archive.owner;
                archive.into_stored().map(|id| (owner, id))
            })
            .collect();
        DeviceMemory(serde_json::to_vec(&stored).expect("names and numbers").into())
    }
}

#[cfg(test)]
mod tests;
