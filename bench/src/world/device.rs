//! A device as a person would use it: the real client half of a session, and above it what a client library does. It
//! connects again when it lost its gateway, repeats what was not answered until it is, catches up by syncing, and
//! stores what it is given (`device/answers.rs`).

mod answers;
mod cursors;

use super::cast;
use super::history::{Cursors, Seen};
use super::network::{ConnectionId, Line, Side};
use super::outside::Outside;
use super::story::Story;
use super::tried::Tried;
use crate::workload::random::Random;
use bytes::BytesMut;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use wire_protocol::frame::{FrameDecoder, encode_frame};
use wire_protocol::limits::FRAME_BYTES_MAX;
use wire_protocol::session::ClientSession;
use wire_protocol::v1::{self, EntryKind, client_frame};

/// Longest time between two things that a device does by itself, in milliseconds.
const IDLE_MS: u64 = 700;
/// The same in haste.
const HASTE_MS: u64 = 60;
/// Time between syncs that nothing asked for, in milliseconds.
const SYNC_EVERY_MS: u64 = 2_000;
/// Longest wait before connecting again, in milliseconds.
const RECONNECT_MS: u64 = 600;
/// Shortest wait before something refused is asked again, in milliseconds.
const AGAIN_MS: u64 = 50;
/// Seconds between heartbeats: the fewest that may be asked for.
const HEARTBEAT_S: u32 = 5;
/// An answer that is not there by then is not waited for, in milliseconds: the gateway gives up before.
const ANSWER_MS_MAX: u64 = 15_000;
/// Of sixteen things that come to its mind, those that are reads.
const READS: Range<u64> = 11..14;
/// Messages that a device repeats when all is over.
const REPEATS: usize = 6;

/// What a device does by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    /// It writes, reads, repeats, leaves.
    Busy,
    /// The same without much of a pause, and half of it reads.
    Hasty,
    /// It reads, without much of a pause.
    Reading,
    /// It only sees to what it has begun, and syncs.
    Quiet,
    /// It only sees to what it has begun.
    Silent,
}

/// Something to be asked.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Wish {
    Create(usize),
    Send(usize),
    Sync,
    Read { room: usize, after: u64 },
    Whole { room: usize, entries: Vec<Seen> },
    Advance { room: usize, to: Cursors },
    Look(usize),
}

/// Something that was asked, and when.
struct Asked {
    wish: Wish,
    /// Events that had happened.
    begun: usize,
    at_ms: u64,
}

/// What a gateway that sent its client away said of the next connection.
#[derive(Clone, Copy)]
enum Told {
    /// Not before this time has passed, in milliseconds.
    Wait(u64),
    /// To this gateway, when this time has passed, in milliseconds.
    GoTo(usize, u64),
}

/// A connection.
struct Seat {
    id: ConnectionId,
    gateway: usize,
    /// Another gateway named this one.
    is_named: bool,
    session: Option<ClientSession>,
    decoder: FrameDecoder,
    server_time_ms: u64,
    asked: BTreeMap<u32, Asked>,
}

/// A device.
pub struct Device {
    /// Its host.
    pub host: usize,
    number: usize,
    token: String,
    gateways: Range<usize>,
    mood: Mood,
    seat: Option<Seat>,
    /// Since when it has no session.
    away_since_ms: Option<u64>,
    /// What the gateway of the present connection said before it ended it.
    told: Option<Told>,
    /// The gateway to be connected to next; `None`: any.
    named: Option<usize>,
    connect_at_ms: u64,
    turn_at_ms: Option<u64>,
    act_at_ms: u64,
    sync_at_ms: u64,
    wishes: VecDeque<(u64, Wish)>,
    version: u64,
    /// Entries by room; and how far each room goes, as syncs told.
    stored: BTreeMap<usize, BTreeSet<u64>>,
    heads: BTreeMap<usize, u64>,
    wholes: BTreeSet<usize>,
    /// Of what it says of cursors, if it does.
    chance: Option<Random>,
    /// What gateways said to it.
    pub tried: Tried,
}

impl Device {
    /// A device that never connected.
    pub fn new(number: usize, host: usize, gateways: Range<usize>, token: String, seed: u64) -> Self {
        let creates = (0..cast::ROOMS.len()).filter(|room| {
            let first = cast::DEVICE_USERS.iter().position(|user| *user == cast::ROOMS[*room][0]);
            first == Some(number)
        });
        Self {
            host,
            number,
            token,
            gateways,
            mood: Mood::Busy,
            seat: None,
            away_since_ms: Some(0),
            told: None,
            named: None,
            connect_at_ms: 0,
            turn_at_ms: None,
            act_at_ms: 0,
            sync_at_ms: 0,
            wishes: creates.map(|room| (0, Wish::Create(room))).collect(),
            version: 0,
            stored: BTreeMap::new(),
            heads: BTreeMap::new(),
            wholes: BTreeSet::new(),
            chance: cursors::chance(seed, number),
            tried: Tried::default(),
        }
    }

    /// Rooms of its user.
    fn rooms(&self) -> impl Iterator<Item = usize> {
        let user = cast::DEVICE_USERS[self.number];
        (0..cast::ROOMS.len()).filter(move |room| cast::ROOMS[*room].contains(&user))
    }

    /// The host of the gateway that it is connected to.
    pub fn gateway(&self) -> Option<usize> {
        self.seat.as_ref().map(|seat| seat.gateway)
    }

    /// Since when it has no session; `None`: it has one, or does not know yet that it has none.
    pub fn away_since_ms(&self) -> Option<u64> {
        self.away_since_ms
    }

    /// From here on it does other things by itself.
    pub fn turn_to(&mut self, mood: Mood, outside: &mut Outside) {
        self.mood = mood;
        if matches!(mood, Mood::Hasty | Mood::Reading) {
            self.act_at_ms = outside.now_ms;
            self.plan(outside);
        }
    }

    /// Everything that this device has begun or was told of and that did not come to rest.
    pub fn unsettled(&self, story: &Story) -> Option<String> {
        let number = self.number;
        for room in self.rooms() {
            let (head, acked) = (self.heads.get(&room).copied().unwrap_or(0), story.acked(room));
            if head < acked || head == 0 {
                return Some(format!("device {number} was told of room {room} up to {head} of {acked}"));
            }
            let stored = self.stored.get(&room).and_then(contiguous).unwrap_or(0);
            if stored < head {
                return Some(format!("device {number} has room {room} up to {stored} of {head}"));
            }
        }
        self.unanswered()
    }

    fn unanswered(&self) -> Option<String> {
        let is_work = |wish: &&Wish| **wish != Wish::Sync;
        let waiting = self.wishes.iter().map(|(_, wish)| wish).find(is_work);
        let asked = self.seat.iter().flat_map(|seat| seat.asked.values()).map(|asked| &asked.wish);
        let open = waiting.or(asked.into_iter().find(is_work))?;
        let seat = if self.seat.is_some() { "connected" } else { "away" };
        Some(format!("device {} ({seat}) has no answer to {}", self.number, short(open)))
    }

    /// What it waits for, for a person.
    pub fn end(&self, now_ms: u64) -> String {
        let number = self.number;
        let wishes: Vec<String> = self.wishes.iter().map(|(_, wish)| short(wish)).collect();
        let Some(seat) = &self.seat else { return format!("device {number} is away and wants {wishes:?}") };
        let asked = seat.asked.values().map(|it| format!("{} for {} ms", short(&it.wish), now_ms - it.at_ms));
        let ready = seat.session.as_ref().map(ClientSession::is_ready);
        let asked: Vec<String> = asked.collect();
        format!(
            "device {number} at gateway {}, ready {ready:?}, has asked {asked:?} and wants {wishes:?}",
            seat.gateway
        )
    }

    /// Whether it has read every room wholly, and has every answer.
    pub fn unread(&self) -> Option<String> {
        let unread = self.rooms().find(|room| !self.wholes.contains(room));
        let unread = unread.map(|room| format!("device {} did not read room {room} wholly", self.number));
        unread.or_else(|| self.unanswered())
    }

    /// All is over: some messages are repeated, and every room is read from its beginning.
    pub fn look_back(&mut self, story: &Story, outside: &mut Outside) {
        let own = |number: &usize| story.messages[*number].device == self.number;
        let own: Vec<usize> = (0..story.messages.len()).filter(own).collect();
        for _ in 0..REPEATS.min(own.len()) {
            let message = own[outside.random.below(own.len() as u64) as usize];
            self.wish(outside.now_ms, Wish::Send(message));
        }
        for room in self.rooms().collect::<Vec<_>>() {
            self.wish(outside.now_ms, Wish::Whole { room, entries: Vec::new() });
        }
        self.look_at_cursors(outside.now_ms);
        self.plan(outside);
    }

    fn wish(&mut self, at_ms: u64, wish: Wish) {
        let is_there = wish == Wish::Sync && self.wishes.iter().any(|(_, other)| *other == Wish::Sync);
        if !is_there {
            self.wishes.push_back((at_ms, wish));
        }
    }

    /// Its turn, if this is the one that was planned.
    pub fn turn(&mut self, story: &mut Story, outside: &mut Outside) {
        if self.turn_at_ms != Some(outside.now_ms) {
            return;
        }
        self.turn_at_ms = None;
        self.keep_connected(outside);
        let is_ready = self.seat.as_ref().and_then(|seat| seat.session.as_ref());
        if is_ready.is_some_and(ClientSession::is_ready) {
            self.act(story, outside);
            self.ask(story, outside);
        }
        self.plan(outside);
    }

    /// Plans the next turn. To be called once before the first.
    pub fn plan(&mut self, outside: &mut Outside) {
        let due_ms = match &self.seat {
            None => self.connect_at_ms,
            Some(seat) => {
                let timeout_ms = seat.session.as_ref().and_then(ClientSession::poll_timeout);
                let wishes_ms = self.wishes.iter().map(|(at_ms, _)| *at_ms).min().unwrap_or(u64::MAX);
                let own_ms = self.act_at_ms.min(self.sync_at_ms);
                own_ms.min(wishes_ms).min(timeout_ms.unwrap_or(u64::MAX))
            }
        };
        let due_ms = due_ms.clamp(outside.now_ms + 1, outside.now_ms + IDLE_MS);
        if self.turn_at_ms.is_none_or(|planned_ms| due_ms < planned_ms) {
            self.turn_at_ms = Some(due_ms);
            outside.plan_turn(due_ms, self.host, 0);
        }
    }

    fn keep_connected(&mut self, outside: &mut Outside) {
        let now_ms = outside.now_ms;
        let Some(seat) = &mut self.seat else {
            if self.connect_at_ms <= now_ms {
                self.connect(outside);
            }
            return;
        };
        let Some(session) = &mut seat.session else { return };
        let mut out = BytesMut::new();
        let is_silent = session.handle_timeout(now_ms, &mut out).is_err();
        let is_late = seat.asked.values().any(|asked| asked.at_ms + ANSWER_MS_MAX < now_ms);
        if is_silent || is_late {
            self.leave(outside);
        } else if !out.is_empty() {
            self.send(out, outside);
        }
    }

    fn connect(&mut self, outside: &mut Outside) {
        let named = self.named.take();
        let gateways = self.gateways.len() as u64;
        let gateway = named.unwrap_or_else(|| self.gateways.start + outside.random.below(gateways) as usize);
        let decoder = FrameDecoder::new(FRAME_BYTES_MAX);
        let line = Line { from: self.host, to: gateway, number: 0 };
        let (id, is_named) = (outside.connect(line), named.is_some());
        let asked = BTreeMap::new();
        self.seat = Some(Seat { id, gateway, is_named, session: None, decoder, server_time_ms: 0, asked });
    }

    /// Gives the connection up; what was not answered is asked again.
    pub fn leave(&mut self, outside: &mut Outside) {
        let Some(seat) = self.seat.take() else { return };
        outside.close((seat.id, Side::Caller));
        self.away_since_ms.get_or_insert(outside.now_ms);
        let soon_ms = outside.now_ms + 1;
        self.connect_at_ms = match self.told.take() {
            // In a turn of its own: there is nothing to spread.
            Some(Told::GoTo(gateway, after_ms)) => {
                self.named = Some(gateway);
                soon_ms + after_ms
            }
            Some(Told::Wait(after_ms)) => soon_ms + after_ms + outside.up_to(RECONNECT_MS),
            None => soon_ms + outside.up_to(RECONNECT_MS),
        };
        for asked in seat.asked.into_values() {
            match asked.wish {
                Wish::Read { .. } => {}
                Wish::Whole { room, .. } => {
                    self.wish(outside.now_ms, Wish::Whole { room, entries: Vec::new() });
                }
                wish => self.wish(outside.now_ms, wish),
            }
        }
    }

    fn send(&mut self, payload: BytesMut, outside: &mut Outside) {
        if let Some(seat) = &self.seat {
            let mut frame = BytesMut::new();
            encode_frame(&payload, &mut frame);
            outside.send((seat.id, Side::Caller), frame);
        }
    }

    /// What comes to its mind.
    fn act(&mut self, story: &mut Story, outside: &mut Outside) {
        let now_ms = outside.now_ms;
        if self.sync_at_ms <= now_ms {
            self.sync_at_ms = now_ms + SYNC_EVERY_MS;
            if self.mood != Mood::Silent {
                self.wish(now_ms, Wish::Sync);
            }
        }
        if self.act_at_ms > now_ms {
            return;
        }
        let is_hasty = matches!(self.mood, Mood::Hasty | Mood::Reading);
        self.act_at_ms = now_ms + 1 + outside.up_to(if is_hasty { HASTE_MS } else { IDLE_MS });
        let known: Vec<usize> = self.heads.keys().copied().collect();
        if matches!(self.mood, Mood::Quiet | Mood::Silent) || known.is_empty() {
            return;
        }
        self.think_of_cursors(now_ms, story);
        let room = known[outside.random.below(known.len() as u64) as usize];
        let chance = if self.mood == Mood::Reading || is_hasty && outside.one_in(2) {
            READS.start
        } else {
            outside.random.below(16)
        };
        match chance {
            0..9 => {
                let message = story.write(self.number, room);
                self.wish(now_ms, Wish::Send(message));
            }
            9 | 10 => {
                let own = |number: &usize| story.messages[*number].device == self.number;
                let own: Vec<usize> = (0..story.messages.len()).filter(own).collect();
                if !own.is_empty() {
                    let message = own[outside.random.below(own.len() as u64) as usize];
                    self.wish(now_ms, Wish::Send(message));
                }
            }
            _ if READS.contains(&chance) => {
                let head = self.heads.get(&room).copied().unwrap_or(0);
                let after = if outside.one_in(2) { 0 } else { outside.up_to(head) };
                self.wish(now_ms, Wish::Read { room, after });
            }
            14 => self.wish(now_ms, Wish::Sync),
            _ if outside.one_in(4) => self.leave(outside),
            _ => {}
        }
    }

    /// Asks for what is due.
    fn ask(&mut self, story: &Story, outside: &mut Outside) {
        let mut later = VecDeque::new();
        while let Some((at_ms, wish)) = self.wishes.pop_front() {
            if at_ms > outside.now_ms || !self.can_ask(&wish) {
                later.push_back((at_ms.max(outside.now_ms + 1), wish));
                continue;
            }
            let body = self.request(&wish, story);
            let Some(seat) = &mut self.seat else { break };
            let Some(session) = &mut seat.session else { break };
            let mut out = BytesMut::new();
            match session.request(outside.now_ms, body, &mut out) {
                Ok(id) => {
                    let asked = Asked { wish, begun: story.history.events.len(), at_ms: outside.now_ms };
                    seat.asked.insert(id, asked);
                    self.send(out, outside);
                }
                Err(_) => later.push_back((outside.now_ms + 1, wish)),
            }
        }
        self.wishes = later;
    }

    /// Whether the session takes another request; of syncs there is one at a time.
    fn can_ask(&self, wish: &Wish) -> bool {
        let Some(Seat { session: Some(session), asked, .. }) = &self.seat else { return false };
        let syncs = *wish == Wish::Sync && asked.values().any(|asked| asked.wish == Wish::Sync);
        session.can_request() && !syncs
    }

    fn request(&self, wish: &Wish, story: &Story) -> client_frame::Body {
        let history = |room: usize, after_seq: u64, before_seq: u64| {
            client_frame::Body::History(v1::History {
                conversation_id: cast::room(room).to_bytes(),
                after_seq,
                before_seq,
                ..v1::History::default()
            })
        };
        let conversation_id = |room: usize| cast::room(room).to_bytes();
        match wish {
            Wish::Create(room) => client_frame::Body::Create(cast::creation(*room)),
            Wish::Send(message) => client_frame::Body::Send(v1::SendMessage {
                conversation_id: cast::room(story.messages[*message].room).to_bytes(),
                client_message_id: client_message_id(*message),
                predecessor: story.unanswered_before(*message).map_or(0, client_message_id),
                kind: EntryKind::Text as i32,
                body: story.messages[*message].body.clone(),
                ..v1::SendMessage::default()
            }),
            Wish::Advance { room, to: Cursors { delivered, read: 0 } } => {
                let (conversation_id, seq) = (conversation_id(*room), *delivered);
                client_frame::Body::Delivered(v1::DeliveredUpTo { handle: 0, conversation_id, seq })
            }
            Wish::Advance { room, to: Cursors { read, .. } } => {
                let (conversation_id, seq) = (conversation_id(*room), *read);
                client_frame::Body::Read(v1::ReadUpTo { handle: 0, conversation_id, seq })
            }
            Wish::Look(room) => client_frame::Body::Get(v1::GetConversation {
                handle: 0,
                conversation_id: conversation_id(*room),
            }),
            Wish::Read { room, after } => history(*room, *after, 0),
            Wish::Whole { room, entries } => match entries.last() {
                None => history(*room, 0, 2),
                Some(last) => history(*room, last.seq, 0),
            },
            Wish::Sync => {
                let cursor = |(room, seqs): (&usize, &BTreeSet<u64>)| {
                    let conversation_id = cast::room(*room).to_bytes();
                    Some(v1::SyncCursor { handle: 0, conversation_id, after_seq: contiguous(seqs)? })
                };
                let cursors = self.stored.iter().filter_map(cursor).collect();
                client_frame::Body::Sync(v1::Sync { since_version: self.version, cursors, named_only: false })
            }
        }
    }
}

fn client_message_id(message: usize) -> u64 {
    message as u64 + 1
}

/// The message that its device has given this id, which is not 0.
pub fn message_of(client_message_id: u64) -> usize {
    client_message_id as usize - 1
}

/// How far the entries go without a gap, from the first one.
fn contiguous(seqs: &BTreeSet<u64>) -> Option<u64> {
    let mut last = *seqs.first()?;
    for seq in seqs.iter().skip(1) {
        if *seq != last + 1 {
            break;
        }
        last = *seq;
    }
    Some(last)
}

fn short(wish: &Wish) -> String {
    match wish {
        Wish::Whole { room, entries } => format!("Whole of room {room} after {} entries", entries.len()),
        other => format!("{other:?}"),
    }
}
