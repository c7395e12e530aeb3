//! What users were told, and whether it is still true: the checker of the promises.

use super::Random;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use wire_protocol::ids::{ConversationId, DeviceId, ShardId, UserId};
use wire_protocol::internal::shard_request::Operation;
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{
    AdvanceCursor, Command, ConversationView, CreateConversation, CreateUser, Delivery, Device, FeedPage,
    MessageApplied, Query, ReadConversation, ReadFeed, SendMessage, answer, command, delivery, outcome,
    query, read_conversation, shard_error,
};
use wire_protocol::v1::ConversationKind;

/// Users of a world.
pub const USERS: usize = 5;
/// Members of each room, by number; two are a direct conversation.
const ROOMS: [&[usize]; 4] = [&[0, 1], &[2, 3], &[0, 1, 2, 3, 4], &[4, 1, 3]];
/// Entries of one page.
const PAGE: u32 = 7;
/// Bytes of most bodies; one in eight is larger than a sector.
const BODY_BYTES: usize = 40;

/// A request and where it goes.
pub struct Call {
    pub shard: ShardId,
    pub operation: Operation,
    pub asked: Asked,
}

/// What an answer is the answer to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    User(usize),
    Room(usize),
    Message(usize),
    Cursor {
        room: usize,
        user: usize,
        up_to: u64,
    },
    Feed {
        user: usize,
        since: u64,
    },
    /// `known`: the newest entry that anybody had seen when it was asked.
    Entries {
        room: usize,
        after: u64,
        known: u64,
    },
}

struct Message {
    room: usize,
    sender: usize,
    client_id: u64,
    body: Bytes,
    in_flight: bool,
    answer: Option<MessageApplied>,
}

/// What a device of a user keeps.
#[derive(Default)]
struct Synced {
    version: u64,
    /// Newest entry by room.
    tops: BTreeMap<usize, u64>,
}

/// What was asked and answered, over all lives of the node.
pub struct Ledger {
    shards: u32,
    users_made: [bool; USERS],
    rooms_made: [bool; ROOMS.len()],
    messages: Vec<Message>,
    messages_max: usize,
    /// Read cursors by room and user: as they were acknowledged,
    cursors: BTreeMap<(usize, usize), u64>,
    /// and as they were shown since the last start.
    cursors_shown: BTreeMap<(usize, usize), u64>,
    synced: Vec<Synced>,
    /// Bodies by room and number, as anybody ever saw them.
    seen: BTreeMap<(usize, u64), Bytes>,
    in_flight: HashMap<u64, Asked>,
    request_last: u64,
}

fn user(number: usize) -> UserId {
    UserId([0x31 + number as u8; 16])
}

fn device(number: usize) -> DeviceId {
    DeviceId([0x61 + number as u8; 16])
}

pub fn room(number: usize) -> ConversationId {
    match ROOMS[number] {
        &[a, b] => ConversationId::direct(user(a), user(b)),
        _ => ConversationId([0x90 + number as u8; 16]),
    }
}

impl Ledger {
    pub fn new(shards: u32, messages_max: usize) -> Self {
        Self {
            shards,
            users_made: [false; USERS],
            rooms_made: [false; ROOMS.len()],
            messages: Vec::new(),
            messages_max,
            cursors: BTreeMap::new(),
            cursors_shown: BTreeMap::new(),
            synced: (0..USERS).map(|_| Synced::default()).collect(),
            seen: BTreeMap::new(),
            in_flight: HashMap::new(),
            request_last: 0,
        }
    }

    /// The node is gone: what was asked and not answered is to be asked again.
    pub fn node_stopped(&mut self) {
        self.in_flight.clear();
        self.cursors_shown.clear();
        self.messages.iter_mut().for_each(|message| message.in_flight = false);
    }

    /// Messages that were answered.
    pub fn acknowledged(&self) -> usize {
        self.messages.iter().filter(|message| message.answer.is_some()).count()
    }

    /// Requests without an answer.
    pub fn waiting(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether every message there is to be was sent and answered.
    pub fn is_done(&self) -> bool {
        self.messages.len() == self.messages_max && self.acknowledged() == self.messages_max
    }

    /// Names a request; its answer is to be given to [`Self::answered`].
    pub fn begin(&mut self, asked: Asked) -> u64 {
        self.request_last += 1;
        self.in_flight.insert(self.request_last, asked);
        if let Asked::Message(number) = asked {
            self.messages[number].in_flight = true;
        }
        self.request_last
    }

    /// What somebody does next.
    pub fn next_call(&mut self, random: &mut Random) -> Option<Call> {
        if let Some(number) = (0..USERS).find(|number| !self.users_made[*number]) {
            let asked = Asked::User(number);
            return self.is_idle(asked).then(|| self.create_user(number));
        }
        if let Some(number) = (0..ROOMS.len()).find(|number| !self.rooms_made[*number]) {
            let asked = Asked::Room(number);
            return self.is_idle(asked).then(|| self.create_room(number));
        }
        match random.below(16) {
            0..8 if self.messages.len() < self.messages_max => Some(self.new_message(random)),
            0..11 => self.unanswered().map(|number| self.send(number)),
            11 => self.any_answered(random).map(|number| self.send(number)),
            12 => self.advance(random),
            13 => Some(self.read_feed(random.below(USERS))),
            _ => {
                let number = random.below(ROOMS.len());
                Some(self.read_entries(number, random.below(self.messages.len() + 1) as u64))
            }
        }
    }

    fn is_idle(&self, asked: Asked) -> bool {
        self.in_flight.values().all(|other| *other != asked)
    }

    fn unanswered(&self) -> Option<usize> {
        self.messages.iter().position(|message| message.answer.is_none() && !message.in_flight)
    }

    fn any_answered(&self, random: &mut Random) -> Option<usize> {
        let number = random.below(self.messages.len().max(1));
        self.messages.get(number).is_some_and(|message| message.answer.is_some()).then_some(number)
    }

    /// A message that was answered, to be sent again.
    pub fn repeat(&self, number: usize) -> Option<Call> {
        self.messages.get(number).is_some_and(|message| message.answer.is_some()).then(|| self.send(number))
    }

    fn command(&self, shard: ShardId, kind: command::Kind, asked: Asked) -> Call {
        Call { shard, operation: Operation::Command(Command { kind: Some(kind) }), asked }
    }

    fn home(&self, number: usize) -> ShardId {
        user(number).slot().shard(self.shards)
    }

    fn shard_of(&self, number: usize) -> ShardId {
        room(number).slot().shard(self.shards)
    }

    fn create_user(&self, number: usize) -> Call {
        let device = Device {
            device_id: device(number).to_bytes(),
            name: "phone".into(),
            refresh_hash: Bytes::from_static(&[1; 32]),
            created_ms: 0,
        };
        let create = CreateUser {
            user_id: user(number).to_bytes(),
            username: format!("user{number}"),
            display_name: "Somebody".into(),
            password_hash: "hash".into(),
            device: Some(device),
        };
        self.command(self.home(number), command::Kind::CreateUser(create), Asked::User(number))
    }

    fn create_room(&self, number: usize) -> Call {
        let members = ROOMS[number];
        let kind = if members.len() == 2 { ConversationKind::Direct } else { ConversationKind::Group };
        let create = CreateConversation {
            conversation_id: room(number).to_bytes(),
            kind: kind as i32 as u32,
            member_ids: members.iter().map(|member| user(*member).to_bytes()).collect(),
            title: if members.len() == 2 { String::new() } else { "room".into() },
        };
        self.command(self.shard_of(number), command::Kind::CreateConversation(create), Asked::Room(number))
    }

    fn new_message(&mut self, random: &mut Random) -> Call {
        let number = self.messages.len();
        let room = random.below(ROOMS.len());
        let sender = ROOMS[room][random.below(ROOMS[room].len())];
        let bytes = if random.one_in(8) { 900 } else { BODY_BYTES };
        let body = Bytes::from(format!("{number:0bytes$}"));
        let client_id = 1_000 + number as u64;
        self.messages.push(Message { room, sender, client_id, body, in_flight: false, answer: None });
        self.send(number)
    }

    fn send(&self, number: usize) -> Call {
        let message = &self.messages[number];
        let send = SendMessage {
            conversation_id: room(message.room).to_bytes(),
            user_id: user(message.sender).to_bytes(),
            device_id: device(message.sender).to_bytes(),
            client_message_id: message.client_id,
            body: message.body.clone(),
            ..SendMessage::default()
        };
        let asked = Asked::Message(number);
        self.command(self.shard_of(message.room), command::Kind::SendMessage(send), asked)
    }

    fn advance(&self, random: &mut Random) -> Option<Call> {
        let number = random.below(ROOMS.len());
        let up_to = Some(self.newest_seen(number)).filter(|seq| *seq > 0)?;
        let who = ROOMS[number][random.below(ROOMS[number].len())];
        let advance = AdvanceCursor {
            conversation_id: room(number).to_bytes(),
            user_id: user(who).to_bytes(),
            device_id: device(who).to_bytes(),
            delivered_up_to: up_to,
            read_up_to: up_to,
        };
        let asked = Asked::Cursor { room: number, user: who, up_to };
        Some(self.command(self.shard_of(number), command::Kind::AdvanceCursor(advance), asked))
    }

    fn ask(&self, shard: ShardId, kind: query::Kind, asked: Asked) -> Call {
        Call { shard, operation: Operation::Query(Query { kind: Some(kind) }), asked }
    }

    /// What changed for a user since the device last asked.
    pub fn read_feed(&self, number: usize) -> Call {
        let since_version = self.synced[number].version;
        let read = ReadFeed { user_id: user(number).to_bytes(), since_version, rows_max: 2 };
        let asked = Asked::Feed { user: number, since: since_version };
        self.ask(self.home(number), query::Kind::ReadFeed(read), asked)
    }

    /// A page of a room, as its first member sees it.
    pub fn read_entries(&self, number: usize, after: u64) -> Call {
        let who = ROOMS[number][0];
        let read = ReadConversation {
            conversation_id: room(number).to_bytes(),
            user_id: user(who).to_bytes(),
            device_id: device(who).to_bytes(),
            with_members: true,
            range: Some(read_conversation::Range::AfterSeq(after)),
            entries_max: PAGE,
            bytes_max: 0,
        };
        let asked = Asked::Entries { room: number, after, known: self.newest_seen(number) };
        self.ask(self.shard_of(number), query::Kind::ReadConversation(read), asked)
    }

    /// Takes an answer. `Err`: a promise is broken.
    pub fn answered(&mut self, id: u64, reply: Reply) -> Result<(), String> {
        let Some(asked) = self.in_flight.remove(&id) else {
            return Err(format!("request {id} was answered twice: {reply:?}"));
        };
        if let Asked::Message(number) = asked {
            self.messages[number].in_flight = false;
        }
        let outcome = match reply {
            Reply::Error(error)
                if matches!(error.kind(), shard_error::Kind::Overloaded | shard_error::Kind::Unavailable) =>
            {
                return Ok(());
            }
            Reply::Outcome(outcome) => outcome.kind,
            Reply::Answer(answer) => return self.read(asked, answer.kind),
            other => return Err(format!("{asked:?}: {other:?}")),
        };
        match (asked, outcome) {
            (_, Some(outcome::Kind::Refused(refused))) => Err(format!("{asked:?}: {refused:?}")),
            (Asked::User(number), _) => {
                self.users_made[number] = true;
                Ok(())
            }
            (Asked::Room(number), _) => {
                self.rooms_made[number] = true;
                Ok(())
            }
            (Asked::Message(number), Some(outcome::Kind::MessageApplied(applied))) => {
                self.message_answered(number, applied)
            }
            (Asked::Cursor { room, user, up_to }, _) => {
                let kept = self.cursors.entry((room, user)).or_default();
                *kept = (*kept).max(up_to);
                Ok(())
            }
            (asked, other) => Err(format!("{asked:?}: {other:?}")),
        }
    }

    fn message_answered(&mut self, number: usize, applied: MessageApplied) -> Result<(), String> {
        let message = &mut self.messages[number];
        if let Some(first) = message.answer {
            let same = (first.seq, first.time_ms) == (applied.seq, applied.time_ms);
            if !same || !applied.repeated_send {
                return Err(format!("message {number} was answered {first:?}, repeated {applied:?}"));
            }
            return Ok(());
        }
        message.answer = Some(applied);
        let (place, body) = ((message.room, applied.seq), message.body.clone());
        self.see(place, body)
    }

    /// An entry that anybody sees stays what and where it is.
    fn see(&mut self, place: (usize, u64), body: Bytes) -> Result<(), String> {
        match self.seen.get(&place) {
            Some(before) if *before != body => {
                Err(format!("room {} entry {} was {before:?} and is {body:?}", place.0, place.1))
            }
            _ => {
                self.seen.insert(place, body);
                Ok(())
            }
        }
    }

    fn read(&mut self, asked: Asked, answer: Option<answer::Kind>) -> Result<(), String> {
        match (asked, answer) {
            (Asked::Feed { user, since }, Some(answer::Kind::Feed(page))) => {
                self.feed_read(user, since, page)
            }
            (Asked::Entries { room, after, known }, Some(answer::Kind::Conversation(view))) => {
                self.see_cursors(room, &view);
                self.entries_read(room, (after, known), view)
            }
            (asked, other) => Err(format!("{asked:?}: {other:?}")),
        }
    }

    fn feed_read(&mut self, number: usize, since: u64, page: FeedPage) -> Result<(), String> {
        let synced = &mut self.synced[number];
        for row in &page.rows {
            let Some(room) = (0..ROOMS.len()).find(|number| room(*number).to_bytes() == row.conversation_id)
            else {
                return Err(format!("user {number}: a row of an unknown conversation"));
            };
            let top = synced.tops.entry(room).or_default();
            *top = (*top).max(row.top_seq);
        }
        let version = match (page.more, page.rows.last()) {
            (true, Some(last)) => last.version,
            _ => page.version,
        };
        if version < since {
            return Err(format!("user {number}: version {version} after {since}"));
        }
        synced.version = synced.version.max(version);
        Ok(())
    }

    fn newest_seen(&self, number: usize) -> u64 {
        self.seen.range((number, 0)..(number + 1, 0)).next_back().map_or(0, |((_, seq), _)| *seq)
    }

    fn entries_read(
        &mut self,
        number: usize,
        (after, known): (u64, u64),
        view: ConversationView,
    ) -> Result<(), String> {
        let head = view.conversation.map_or(0, |conversation| conversation.head_seq);
        if head < known {
            return Err(format!("room {number} ends at {head}, entry {known} was seen"));
        }
        for (entry, seq) in view.entries.into_iter().zip(after + 1..) {
            if entry.seq != seq {
                return Err(format!("room {number}: entry {} where {seq} should be", entry.seq));
            }
            self.see((number, seq), entry.body)?;
        }
        Ok(())
    }

    /// A push tells nothing that is not so.
    pub fn delivered(&mut self, delivery: Delivery) -> Result<(), String> {
        let number = (0..ROOMS.len()).find(|number| room(*number).to_bytes() == delivery.conversation_id);
        match (number, delivery.event) {
            (Some(number), Some(delivery::Event::Entry(entry))) => self.see((number, entry.seq), entry.body),
            _ => Ok(()),
        }
    }

    /// What still has to be read before [`Self::check`] can judge.
    pub fn remaining_reads(&self) -> Vec<Call> {
        let pages = |number: usize| {
            (0..self.messages_max as u64 + 2).step_by(PAGE as usize).map(move |after| (number, after))
        };
        let entries =
            (0..ROOMS.len()).flat_map(pages).map(|(number, after)| self.read_entries(number, after));
        entries.chain((0..USERS).map(|number| self.read_feed(number))).collect()
    }

    /// Whether each device knows the newest entry of each of its rooms.
    pub fn feeds_are_complete(&self) -> bool {
        (0..ROOMS.len()).all(|number| {
            let head = self.expected_head(number);
            ROOMS[number].iter().all(|member| self.synced[*member].tops.get(&number) == Some(&head))
        })
    }

    /// The entry that made the room, and each message once.
    fn expected_head(&self, number: usize) -> u64 {
        1 + self.messages.iter().filter(|message| message.room == number).count() as u64
    }

    /// After every message was answered and everything was read: each is there once, in order, and nothing else.
    pub fn check(&self) -> Result<(), String> {
        for number in 0..ROOMS.len() {
            let entries: Vec<_> = self.seen.range((number, 0)..(number + 1, 0)).collect();
            let expected = self.expected_head(number);
            if !entries.iter().map(|((_, seq), _)| *seq).eq(1..=expected) {
                let found: Vec<u64> = entries.iter().map(|((_, seq), _)| *seq).collect();
                return Err(format!("room {number} has entries {found:?}, expected 1 to {expected}"));
            }
            for message in self.messages.iter().filter(|message| message.room == number) {
                let count = entries.iter().filter(|(_, body)| **body == message.body).count();
                if count != 1 {
                    return Err(format!(
                        "room {number}: message {} is there {count} times",
                        message.client_id
                    ));
                }
            }
        }
        for (place, told) in &self.cursors {
            let shown = self.cursors_shown.get(place).copied().unwrap_or_default();
            if shown < *told {
                return Err(format!("room {}: user {} had read up to {told}, now {shown}", place.0, place.1));
            }
        }
        if !self.feeds_are_complete() {
            let tops: Vec<_> = self.synced.iter().map(|synced| &synced.tops).collect();
            return Err(format!("feeds are not complete: {tops:?}"));
        }
        Ok(())
    }

    /// Members' cursors as they are shown.
    fn see_cursors(&mut self, number: usize, view: &ConversationView) {
        for member in view.conversation.iter().flat_map(|conversation| &conversation.members) {
            if let Some(who) = (0..USERS).find(|who| user(*who).to_bytes() == member.user_id) {
                let shown = self.cursors_shown.entry((number, who)).or_default();
                *shown = (*shown).max(member.read_up_to);
            }
        }
    }
}
