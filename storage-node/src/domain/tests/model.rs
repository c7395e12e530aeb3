//! The rules of `domain/` once more, as naively as can be: maps, whole histories, no rows, no cursors folded away.

use crate::domain::Event;
use bytes::Bytes;
use prost::Message;
use std::collections::BTreeMap;
use wire_protocol::ids::{ConversationId, DeviceId, UserId};
use wire_protocol::internal::{self, command, feed_item, outcome, read_conversation::Range};
use wire_protocol::limits::{DEVICES_MAX, IDEMPOTENCY_MS, NAME_CLAIM_MS, SYNC_LATEST_ENTRIES};
use wire_protocol::v1::{ConversationKind, Entry, EntryKind, ErrorCode, Member, ReceiptEvent};

/// Everything a shard knows.
#[derive(Default)]
pub struct Model {
    pub conversations: BTreeMap<ConversationId, Conversation>,
    pub names: BTreeMap<String, Name>,
    pub users: BTreeMap<UserId, User>,
    pub feed: BTreeMap<(UserId, ConversationId), (u64, u64, u64)>,
    pub positions: BTreeMap<u32, u64>,
}

pub struct Conversation {
    pub kind: u32,
    pub title: String,
    pub members: Vec<UserId>,
    pub created_ms: u64,
    pub entries: Vec<Entry>,
    answers: BTreeMap<(UserId, DeviceId, u64), (u64, u64)>,
    /// Every cursor command that was accepted, as (user, device, delivered, read).
    cursors: Vec<(UserId, DeviceId, u64, u64)>,
}

pub struct Name {
    pub user: UserId,
    pub claimed_ms: u64,
    pub confirmed: bool,
}

pub struct User {
    pub username: String,
    pub password_hash: String,
    pub devices: Vec<(DeviceId, Bytes)>,
}

type Told = Result<(outcome::Kind, Vec<Event>), ErrorCode>;

const ACCEPTED: outcome::Kind = outcome::Kind::Accepted(internal::Accepted {});

impl Conversation {
    pub fn ordinal(&self, user: UserId) -> Option<u32> {
        self.members.iter().position(|member| *member == user).map(|place| place as u32)
    }

    pub fn head(&self) -> &Entry {
        self.entries.last().expect("the first entry makes the conversation")
    }

    /// Highest delivered and read over all devices of the user, or over one.
    pub fn cursors(&self, user: UserId, device: Option<DeviceId>) -> (u64, u64) {
        let mine = self.cursors.iter().filter(|moved| moved.0 == user);
        let mine = mine.filter(|moved| device.is_none_or(|device| moved.1 == device));
        mine.fold((0, 0), |max, moved| (max.0.max(moved.2), max.1.max(moved.3)))
    }

    pub fn has_device(&self, user: UserId, device: DeviceId) -> bool {
        self.cursors.iter().any(|moved| moved.0 == user && moved.1 == device)
    }

    pub fn members(&self) -> Vec<Member> {
        let member = |(ordinal, user): (u32, &UserId)| {
            let (delivered_up_to, read_up_to) = self.cursors(*user, None);
            Member { ordinal, user_id: user.to_bytes(), delivered_up_to, read_up_to }
        };
        (0..).zip(&self.members).map(member).collect()
    }

    pub fn unread(&self, user: UserId) -> u64 {
        let read = self.cursors(user, None).1;
        let own = self.ordinal(user);
        let unread = |entry: &&Entry| {
            entry.seq > read && entry.kind != EntryKind::Created as i32 && Some(entry.sender) != own
        };
        self.entries.iter().filter(unread).count() as u64
    }

    fn item(&self, id: ConversationId, origin_device_id: Bytes, event: feed_item::Event) -> Event {
        Event::Feed(internal::FeedItem {
            user_ids: self.members.iter().map(|member| member.to_bytes()).collect(),
            conversation_id: id.to_bytes(),
            top_seq: self.head().seq,
            activity_ms: self.head().time_ms,
            origin_device_id,
            event: Some(event),
        })
    }

    /// What a query for entries must give.
    pub fn range(
        &self,
        query: &internal::ReadConversation,
        user: UserId,
        device: DeviceId,
    ) -> (Vec<Entry>, bool) {
        let after = |seq: u64| {
            self.page(query, self.entries.iter().filter(|e| e.seq > seq).cloned().collect(), false)
        };
        let newest = |below: u64, entries_max: u32| {
            let query = &internal::ReadConversation { entries_max, ..query.clone() };
            self.page(query, self.entries.iter().filter(|e| e.seq < below).cloned().collect(), true)
        };
        match query.range {
            None | Some(Range::None(_)) => (Vec::new(), false),
            Some(Range::AfterSeq(seq)) => after(seq),
            Some(Range::Latest(_)) | Some(Range::BeforeSeq(0)) => newest(u64::MAX, query.entries_max),
            Some(Range::BeforeSeq(seq)) => newest(seq, query.entries_max),
            Some(Range::AfterDeviceCursor(_)) if self.has_device(user, device) => {
                after(self.cursors(user, Some(device)).0)
            }
            Some(Range::AfterDeviceCursor(_)) => {
                let latest = SYNC_LATEST_ENTRIES as u32;
                newest(u64::MAX, if query.entries_max == 0 { latest } else { query.entries_max.min(latest) })
            }
        }
    }

    fn page(
        &self,
        query: &internal::ReadConversation,
        entries: Vec<Entry>,
        newest: bool,
    ) -> (Vec<Entry>, bool) {
        let bytes_max = if query.bytes_max == 0 { usize::MAX } else { query.bytes_max as usize };
        let entries_max = if query.entries_max == 0 { usize::MAX } else { query.entries_max as usize };
        let mut page: Vec<Entry> = Vec::new();
        let all = entries.len();
        let ordered: Box<dyn Iterator<Item = Entry>> =
            if newest { Box::new(entries.into_iter().rev()) } else { Box::new(entries.into_iter()) };
        for entry in ordered {
            let bytes: usize = page.iter().chain([&entry]).map(|entry| entry.encoded_len() + 4).sum();
            if page.len() == entries_max || (bytes > bytes_max && !page.is_empty()) {
                break;
            }
            page.push(entry);
        }
        if newest {
            page.reverse();
        }
        let truncated = !newest && page.len() < all;
        (page, truncated)
    }
}

impl Model {
    /// Outcome and events, or the code of the refusal.
    pub fn apply(&mut self, now_ms: u64, command: &internal::Command) -> Told {
        match command.kind.as_ref().ok_or(ErrorCode::ErrorInvalidArgument)? {
            command::Kind::CreateConversation(command) => self.create_conversation(now_ms, command),
            command::Kind::SendMessage(command) => self.send(now_ms, command),
            command::Kind::AdvanceCursor(command) => self.advance(command),
            command::Kind::ClaimName(command) => self.claim(now_ms, command),
            command::Kind::ConfirmName(command) => self.confirm(now_ms, command),
            command::Kind::CreateUser(command) => self.create_user(command),
            command::Kind::AddDevice(command) => self.add_device(command),
            command::Kind::RotateRefresh(command) => self.rotate(command),
            command::Kind::RemoveDevice(command) => self.remove_device(command),
            command::Kind::FeedCheckpoint(command) => Ok(self.checkpoint(command)),
            // Of another shard than the model's.
            command::Kind::ChangeFleet(_) => Err(ErrorCode::ErrorInvalidArgument),
        }
    }

    fn create_conversation(&mut self, now_ms: u64, command: &internal::CreateConversation) -> Told {
        let id = conversation(&command.conversation_id);
        let members: Vec<UserId> = command.member_ids.iter().map(|member| user(member)).collect();
        if command.kind == ConversationKind::Direct as u32
            && ConversationId::direct(members[0], members[1]) != id
        {
            return Err(ErrorCode::ErrorInvalidArgument);
        }
        if self.conversations.contains_key(&id) {
            let existed = internal::ConversationCreated { existed: true };
            return Ok((outcome::Kind::ConversationCreated(existed), vec![]));
        }
        let entry =
            Entry { seq: 1, sender: 0, time_ms: now_ms, kind: EntryKind::Created as i32, body: Bytes::new() };
        let made = Conversation {
            kind: command.kind,
            title: command.title.clone(),
            members,
            created_ms: now_ms,
            entries: vec![entry.clone()],
            answers: BTreeMap::new(),
            cursors: Vec::new(),
        };
        let told = made.item(id, Bytes::new(), feed_item::Event::Entry(entry));
        self.conversations.insert(id, made);
        let new = internal::ConversationCreated { existed: false };
        Ok((outcome::Kind::ConversationCreated(new), vec![told]))
    }

    fn send(&mut self, now_ms: u64, command: &internal::SendMessage) -> Told {
        let id = conversation(&command.conversation_id);
        let (user, device) = (user(&command.user_id), device(&command.device_id));
        let room = self.conversations.get_mut(&id).ok_or(ErrorCode::ErrorNotFound)?;
        let sender = room.ordinal(user).ok_or(ErrorCode::ErrorNotAMember)?;
        let answer = |client_id: u64| {
            let first = room.answers.get(&(user, device, client_id)).copied();
            first.filter(|(_, time_ms)| now_ms - time_ms <= IDEMPOTENCY_MS)
        };
        let applied = |seq, time_ms, repeated_send| {
            outcome::Kind::MessageApplied(internal::MessageApplied {
                seq,
                time_ms,
                repeated_send,
                ..Default::default()
            })
        };
        if let Some((seq, time_ms)) = answer(command.client_message_id) {
            return Ok((applied(seq, time_ms, true), vec![]));
        }
        if command.predecessor != 0 && answer(command.predecessor).is_none() {
            return Err(ErrorCode::ErrorPredecessorMissing);
        }
        let seq = room.entries.len() as u64 + 1;
        let kind = command.kind as i32;
        let entry = Entry { seq, sender, time_ms: now_ms, kind, body: command.body.clone() };
        room.entries.push(entry.clone());
        room.answers.insert((user, device, command.client_message_id), (seq, now_ms));
        let told = room.item(id, command.device_id.clone(), feed_item::Event::Entry(entry));
        Ok((applied(seq, now_ms, false), vec![told]))
    }

    fn advance(&mut self, command: &internal::AdvanceCursor) -> Told {
        let id = conversation(&command.conversation_id);
        let (user, device) = (user(&command.user_id), device(&command.device_id));
        let room = self.conversations.get_mut(&id).ok_or(ErrorCode::ErrorNotFound)?;
        let member = room.ordinal(user).ok_or(ErrorCode::ErrorNotAMember)?;
        let head = room.head().seq;
        let read = command.read_up_to.min(head);
        let delivered = command.delivered_up_to.min(head).max(read);
        let before = room.cursors(user, None);
        if delivered > 0 {
            room.cursors.push((user, device, delivered, read));
        }
        let after = room.cursors(user, None);
        let receipt =
            ReceiptEvent { member, delivered_up_to: after.0, read_up_to: after.1, ..ReceiptEvent::default() };
        let told = room.item(id, command.device_id.clone(), feed_item::Event::Receipt(receipt));
        Ok((ACCEPTED, if before == after { vec![] } else { vec![told] }))
    }

    fn holder(&self, now_ms: u64, name: &str) -> Option<&Name> {
        let held = |name: &&Name| name.confirmed || now_ms - name.claimed_ms <= NAME_CLAIM_MS;
        self.names.get(name).filter(held)
    }

    fn claim(&mut self, now_ms: u64, command: &internal::ClaimName) -> Told {
        let user = user(&command.user_id);
        match self.holder(now_ms, &command.name) {
            Some(name) if name.user != user => return Err(ErrorCode::ErrorAlreadyExists),
            Some(name) if name.confirmed => (),
            _ => {
                let name = Name { user, claimed_ms: now_ms, confirmed: false };
                self.names.insert(command.name.clone(), name);
            }
        }
        Ok((ACCEPTED, vec![]))
    }

    fn confirm(&mut self, now_ms: u64, command: &internal::ConfirmName) -> Told {
        match self.holder(now_ms, &command.name) {
            None => return Err(ErrorCode::ErrorNotFound),
            Some(name) if name.user != user(&command.user_id) => return Err(ErrorCode::ErrorAlreadyExists),
            Some(_) => (),
        }
        self.names.get_mut(&command.name).expect("held").confirmed = true;
        Ok((ACCEPTED, vec![]))
    }

    fn create_user(&mut self, command: &internal::CreateUser) -> Told {
        let id = user(&command.user_id);
        let first = command.device.as_ref().expect("the generator gives one");
        let made = User {
            username: command.username.clone(),
            password_hash: command.password_hash.clone(),
            devices: vec![(device(&first.device_id), first.refresh_hash.clone())],
        };
        match self.users.get(&id) {
            Some(known) if known.username == made.username && known.password_hash == made.password_hash => (),
            Some(_) => return Err(ErrorCode::ErrorAlreadyExists),
            None => drop(self.users.insert(id, made)),
        }
        Ok((ACCEPTED, vec![]))
    }

    fn add_device(&mut self, command: &internal::AddDevice) -> Told {
        let id = user(&command.user_id);
        let known = self.users.get_mut(&id).ok_or(ErrorCode::ErrorNotFound)?;
        let new = command.device.as_ref().expect("the generator gives one");
        let added = device(&new.device_id);
        if known.devices.iter().any(|(known, _)| *known == added) {
            return Ok((ACCEPTED, vec![]));
        }
        known.devices.push((added, new.refresh_hash.clone()));
        let surplus = known.devices.len().saturating_sub(DEVICES_MAX);
        let removed = known.devices.drain(..surplus);
        Ok((ACCEPTED, removed.map(|(device, _)| Event::DeviceRemoved { user: id, device }).collect()))
    }

    fn rotate(&mut self, command: &internal::RotateRefresh) -> Told {
        let refused = ErrorCode::ErrorUnauthenticated;
        let known = self.users.get_mut(&user(&command.user_id)).ok_or(refused)?;
        let rotated = device(&command.device_id);
        let hash = known.devices.iter_mut().find(|(known, _)| *known == rotated).map(|(_, hash)| hash);
        let hash = hash.ok_or(refused)?;
        if *hash != command.new_hash && *hash != command.old_hash {
            return Err(refused);
        }
        hash.clone_from(&command.new_hash);
        Ok((ACCEPTED, vec![]))
    }

    fn remove_device(&mut self, command: &internal::RemoveDevice) -> Told {
        let id = user(&command.user_id);
        let known = self.users.get_mut(&id).ok_or(ErrorCode::ErrorNotFound)?;
        let removed = device(&command.device_id);
        let count = known.devices.len();
        known.devices.retain(|(known, _)| *known != removed);
        let told = Event::DeviceRemoved { user: id, device: removed };
        Ok((ACCEPTED, if known.devices.len() < count { vec![told] } else { vec![] }))
    }

    fn checkpoint(&mut self, command: &internal::FeedCheckpoint) -> (outcome::Kind, Vec<Event>) {
        for row in &command.rows {
            let key = (user(&row.user_id), conversation(&row.conversation_id));
            let kept = self.feed.entry(key).or_default();
            *kept = (kept.0.max(row.version), kept.1.max(row.top_seq), kept.2.max(row.activity_ms));
        }
        for position in &command.positions {
            let kept = self.positions.entry(position.source_shard).or_default();
            *kept = (*kept).max(position.log_index);
        }
        (ACCEPTED, vec![Event::Checkpointed(command.clone())])
    }

    /// All rows of a user, newest version last.
    pub fn feed_of(&self, user: UserId) -> Vec<internal::FeedRow> {
        let mine = self.feed.iter().filter(|((owner, _), _)| *owner == user);
        let row = |(&(user, conversation), &(version, top_seq, activity_ms)): (
            &(UserId, ConversationId),
            &(u64, u64, u64),
        )| {
            let (user_id, conversation_id) = (user.to_bytes(), conversation.to_bytes());
            internal::FeedRow { user_id, conversation_id, version, top_seq, activity_ms }
        };
        let mut rows: Vec<_> = mine.map(row).collect();
        rows.sort_by_key(|row| row.version);
        rows
    }
}

fn conversation(bytes: &[u8]) -> ConversationId {
    ConversationId::from_slice(bytes).expect("the generator makes whole ids")
}

fn user(bytes: &[u8]) -> UserId {
    UserId::from_slice(bytes).expect("the generator makes whole ids")
}

fn device(bytes: &[u8]) -> DeviceId {
    DeviceId::from_slice(bytes).expect("the generator makes whole ids")
}
