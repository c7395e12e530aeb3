//! A naive server in memory: rooms, idempotency, cursors, change feeds. One answer for each request, and
//! events for the other sessions. Faults are the caller's.

mod pages;

use bytes::Bytes;
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use wire_protocol::error::RequestError;
use wire_protocol::ids::{ConversationId, DeviceId, UserId};
use wire_protocol::limits::HISTORY_ENTRIES_MAX;
use wire_protocol::v1::{self, ErrorCode, client_frame, server_frame};

/// `Ready.server_time_ms` of every session.
pub const READY_TIME_MS: u64 = 1_000_000;

#[derive(Default)]
pub struct FakeServer {
    pub users: BTreeMap<UserId, String>,
    pub rooms: BTreeMap<ConversationId, Room>,
    feeds: BTreeMap<UserId, BTreeMap<ConversationId, u64>>,
    feed_version: u64,
    pub time_ms: u64,
    /// Entries in one page: small, so that pages are many.
    pub page_entries: usize,
    /// Devices that have logged out.
    pub gone: BTreeSet<DeviceId>,
}

#[derive(Default)]
pub struct Room {
    kind: i32,
    title: String,
    pub members: Vec<UserId>,
    pub entries: Vec<v1::Entry>,
    answers: BTreeMap<(DeviceId, u64), (u64, u64)>,
    pub cursors: BTreeMap<UserId, (u64, u64)>,
    pub device_cursors: BTreeMap<DeviceId, u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Caller {
    pub user: UserId,
    pub device: DeviceId,
}

/// What a request leads to.
pub struct Done {
    pub answer: server_frame::Body,
    pub events: Vec<Pushed>,
}

/// An event for the sessions of a user, but not of the device that caused it.
#[derive(Clone, PartialEq, Debug)]
pub struct Pushed {
    pub user: UserId,
    pub origin: DeviceId,
    pub body: server_frame::Body,
}

fn answer(body: server_frame::Body) -> Result<Done, RequestError> {
    Ok(Done { answer: body, events: Vec::new() })
}

impl FakeServer {
    pub fn new(page_entries: usize) -> Self {
        Self { page_entries, time_ms: READY_TIME_MS, ..Self::default() }
    }

    pub fn add_user(&mut self, number: u8, name: &str) -> UserId {
        let user = UserId([number; 16]);
        self.users.insert(user, name.into());
        user
    }

    pub fn feed_version(&self, user: UserId) -> u64 {
        self.feeds.get(&user).and_then(|feed| feed.values().max().copied()).unwrap_or(0)
    }

    pub fn handle(&mut self, caller: Caller, body: client_frame::Body) -> Done {
        use client_frame::Body;
        self.time_ms += 1;
        let done = match body {
            Body::Send(send) => self.send(caller, &send),
            Body::Delivered(cursor) => self.advance(caller, &cursor.conversation_id, (cursor.seq, 0)),
            Body::Read(cursor) => self.advance(caller, &cursor.conversation_id, (cursor.seq, cursor.seq)),
            Body::Sync(sync) => answer(server_frame::Body::SyncPage(self.sync(caller, &sync))),
            Body::History(history) => self.history(caller, &history),
            Body::Create(create) => self.create(caller, &create),
            Body::Get(get) => self.room(caller, &get.conversation_id).map(|(id, room)| {
                let body = server_frame::Body::Conversation(room.facts(id, caller.user, true));
                Done { answer: body, events: Vec::new() }
            }),
            Body::LookUp(look_up) => answer(server_frame::Body::Users(self.look_up(&look_up))),
            Body::LogOut(_) => {
                self.gone.insert(caller.device);
                answer(server_frame::Body::Done(v1::Done {}))
            }
            other => Err(RequestError::new(ErrorCode::ErrorInternal, format!("not modelled: {other:?}"))),
        };
        done.unwrap_or_else(|error| Done {
            answer: server_frame::Body::Error(error.to_wire()),
            events: Vec::new(),
        })
    }

    fn room(&self, caller: Caller, id: &[u8]) -> Result<(ConversationId, &Room), RequestError> {
        let unknown = || RequestError::new(ErrorCode::ErrorNotFound, "conversation");
        let id = ConversationId::from_slice(id).ok_or_else(unknown)?;
        let room = self.rooms.get(&id).ok_or_else(unknown)?;
        if !room.members.contains(&caller.user) {
            return Err(RequestError::new(ErrorCode::ErrorNotAMember, "conversation"));
        }
        Ok((id, room))
    }

    fn send(&mut self, caller: Caller, send: &v1::SendMessage) -> Result<Done, RequestError> {
        let (id, room) = self.room(caller, &send.conversation_id)?;
        let known = room.answers.get(&(caller.device, send.client_message_id)).copied();
        if known.is_none() {
            if &send.body[..] == b"refuse me" {
                return Err(RequestError::new(ErrorCode::ErrorInvalidArgument, "body"));
            }
            let predecessor = (caller.device, send.predecessor);
            if send.predecessor != 0 && !room.answers.contains_key(&predecessor) {
                return Err(RequestError::new(ErrorCode::ErrorPredecessorMissing, "predecessor"));
            }
        }
        let time_ms = self.time_ms;
        let room = self.rooms.get_mut(&id).expect("found above");
        let (seq, time_ms) = known.unwrap_or((room.entries.len() as u64 + 1, time_ms));
        let accepted = server_frame::Body::Accepted(v1::MessageAccepted {
            seq,
            time_delta_ms: time_ms as i64 - READY_TIME_MS as i64,
            durability: v1::Durability::Synced as i32,
        });
        if known.is_some() {
            return answer(accepted);
        }
        room.answers.insert((caller.device, send.client_message_id), (seq, time_ms));
        let entry = v1::Entry {
            seq,
            sender: room.ordinal(caller.user),
            time_ms,
            kind: send.kind,
            body: send.body.clone(),
        };
        let events = self.append(id, entry, caller.device);
        Ok(Done { answer: accepted, events })
    }

    fn append(&mut self, id: ConversationId, entry: v1::Entry, origin: DeviceId) -> Vec<Pushed> {
        let room = self.rooms.get_mut(&id).expect("looked up by the caller");
        room.entries.push(entry.clone());
        let event = v1::MessageEvent { handle: 0, conversation_id: id.to_bytes(), entry: Some(entry) };
        let body = server_frame::Body::Message(event);
        let push = |user: &UserId| Pushed { user: *user, origin, body: body.clone() };
        let events = room.members.iter().map(push).collect();
        for user in room.members.clone() {
            self.feed_version += 1;
            self.feeds.entry(user).or_default().insert(id, self.feed_version);
        }
        events
    }

    fn advance(&mut self, caller: Caller, id: &[u8], wanted: (u64, u64)) -> Result<Done, RequestError> {
        let (id, room) = self.room(caller, id)?;
        let head = room.entries.len() as u64;
        assert!(wanted.0 <= head && wanted.1 <= head, "a cursor beyond the head");
        let member = room.ordinal(caller.user);
        let room = self.rooms.get_mut(&id).expect("found above");
        let device = room.device_cursors.entry(caller.device).or_default();
        *device = (*device).max(wanted.0);
        let cursors = room.cursors.entry(caller.user).or_default();
        let before = *cursors;
        *cursors = (before.0.max(wanted.0), before.1.max(wanted.1));
        let (delivered_up_to, read_up_to) = *cursors;
        let done = server_frame::Body::Done(v1::Done {});
        if *cursors == before {
            return answer(done);
        }
        let conversation_id = id.to_bytes();
        let event = v1::ReceiptEvent { handle: 0, conversation_id, member, delivered_up_to, read_up_to };
        let body = server_frame::Body::Receipt(event);
        let push = |user: &UserId| Pushed { user: *user, origin: caller.device, body: body.clone() };
        let events = room.members.iter().map(push).collect();
        Ok(Done { answer: done, events })
    }

    fn create(&mut self, caller: Caller, create: &v1::CreateConversation) -> Result<Done, RequestError> {
        let members = create.member_ids.iter().filter_map(|id| UserId::from_slice(id));
        let mut members: Vec<UserId> = std::iter::once(caller.user).chain(members).collect();
        let mut seen = BTreeSet::new();
        members.retain(|member| seen.insert(*member));
        if members.len() < 2 {
            return Err(RequestError::new(ErrorCode::ErrorInvalidArgument, "members"));
        }
        let id = match create.kind() {
            v1::ConversationKind::Direct => ConversationId::direct(caller.user, members[1]),
            _ => ConversationId::group(caller.user, create.creation_id),
        };
        let mut events = Vec::new();
        if let Entry::Vacant(vacant) = self.rooms.entry(id) {
            let (kind, title) = (create.kind, create.title.clone());
            vacant.insert(Room { kind, title, members, ..Room::default() });
            let kind = v1::EntryKind::Created as i32;
            let entry = v1::Entry { seq: 1, sender: 0, time_ms: self.time_ms, kind, body: Bytes::new() };
            events = self.append(id, entry, caller.device);
        }
        let facts = self.rooms[&id].facts(id, caller.user, true);
        Ok(Done { answer: server_frame::Body::Conversation(facts), events })
    }

    fn look_up(&self, look_up: &v1::LookUpUsers) -> v1::Users {
        let asked = |user: &UserId, name: &String| {
            look_up.user_ids.contains(&user.to_bytes()) || look_up.usernames.contains(name)
        };
        let found = self.users.iter().filter(|(user, name)| asked(user, name));
        let user = |(user, name): (&UserId, &String)| v1::User {
            user_id: user.to_bytes(),
            username: name.clone(),
            display_name: name.to_uppercase(),
        };
        v1::Users { users: found.map(user).collect() }
    }

    fn history(&self, caller: Caller, history: &v1::History) -> Result<Done, RequestError> {
        let (_, room) = self.room(caller, &history.conversation_id)?;
        let limit = match history.limit as usize {
            0 => HISTORY_ENTRIES_MAX,
            limit => limit.min(HISTORY_ENTRIES_MAX),
        };
        let limit = limit.min(self.page_entries);
        let all = &room.entries;
        let entries: Vec<v1::Entry> = if history.after_seq > 0 {
            all.iter().skip(history.after_seq as usize).take(limit).cloned().collect()
        } else {
            let end = if history.before_seq > 0 { history.before_seq as usize - 1 } else { all.len() };
            let end = end.min(all.len());
            all[end.saturating_sub(limit)..end].to_vec()
        };
        answer(server_frame::Body::HistoryPage(v1::HistoryPage {
            handle: 0,
            conversation_id: history.conversation_id.clone(),
            entries,
            head_seq: all.len() as u64,
        }))
    }
}

impl Room {
    pub fn ordinal(&self, user: UserId) -> u32 {
        self.members.iter().position(|member| *member == user).expect("a member") as u32
    }

    /// Messages of others after the read cursor.
    pub fn unread(&self, user: UserId) -> u64 {
        let read = self.cursors.get(&user).map_or(0, |cursors| cursors.1);
        let own = self.ordinal(user);
        let unread = |entry: &&v1::Entry| {
            entry.seq > read && entry.sender != own && entry.kind() != v1::EntryKind::Created
        };
        self.entries.iter().filter(unread).count() as u64
    }

    fn facts(&self, id: ConversationId, user: UserId, with_members: bool) -> v1::Conversation {
        let member = |(ordinal, member): (usize, &UserId)| {
            let (delivered_up_to, read_up_to) = self.cursors.get(member).copied().unwrap_or_default();
            v1::Member { ordinal: ordinal as u32, user_id: member.to_bytes(), delivered_up_to, read_up_to }
        };
        let (delivered_up_to, read_up_to) = self.cursors.get(&user).copied().unwrap_or_default();
        let members =
            if with_members { self.members.iter().enumerate().map(member).collect() } else { Vec::new() };
        v1::Conversation {
            handle: 0,
            conversation_id: id.to_bytes(),
            kind: self.kind,
            title: self.title.clone(),
            members,
            head_seq: self.entries.len() as u64,
            created_ms: self.entries.first().map_or(0, |entry| entry.time_ms),
            unread: self.unread(user),
            read_up_to,
            delivered_up_to,
            last: self.entries.last().cloned(),
            own_ordinal: self.ordinal(user),
        }
    }
}
