//! A naive storage for the tests of this folder: it carries out a request's calls one by one, in memory.

use super::{Asker, Calls, Progress, Work};
use crate::router::Router;
use crate::worker::mailbox::StorageResult;
use std::collections::{BTreeMap, HashMap, HashSet};
use wire_protocol::error::RequestError;
use wire_protocol::ids::{ConversationId, DeviceId, UserId};
use wire_protocol::internal::{
    self, Answer, Command, Outcome, Query, answer, command, outcome, query, read_conversation, shard_request,
    shard_response,
};
use wire_protocol::limits::SYNC_LATEST_ENTRIES;
use wire_protocol::v1::{self, ErrorCode, client_frame, server_frame};

pub(crate) fn user(number: u8) -> UserId {
    UserId([number; 16])
}

#[derive(Default)]
struct Conversation {
    kind: u32,
    title: String,
    members: Vec<UserId>,
    entries: Vec<v1::Entry>,
    delivered: HashMap<UserId, u64>,
    closed: bool,
}

pub(crate) struct FakeStorage {
    router: Router,
    users: BTreeMap<UserId, String>,
    conversations: HashMap<ConversationId, Conversation>,
    /// Of each user: conversation → version.
    feeds: HashMap<UserId, HashMap<ConversationId, u64>>,
    clock: u64,
    failing: Option<usize>,
}

impl FakeStorage {
    pub(crate) fn with_users(count: u8) -> Self {
        let users = (0..=count).map(|number| (user(number), format!("user{number}"))).collect();
        Self {
            router: Router::embedded(4),
            users,
            conversations: HashMap::new(),
            feeds: HashMap::new(),
            clock: 0,
            failing: None,
        }
    }

    /// Carries a request to its end. Results come newest call first, to show that their order does not matter.
    pub(crate) fn ask(
        &mut self,
        asker: UserId,
        body: client_frame::Body,
    ) -> Result<server_frame::Body, RequestError> {
        let router = self.router.clone();
        let asker = Asker { user: asker, device: DeviceId([9; 16]), server_time_ms: 0, router: &router };
        let mut calls = Calls::default();
        let (mut work, mut progress) = Work::start(&asker, body, &mut calls)?;
        let mut queue: Vec<_> = calls.drain().collect();
        let parts: HashSet<u16> = queue.iter().map(|call| call.part).collect();
        assert_eq!(parts.len(), queue.len(), "parts of calls in flight differ");
        let mut number = 0;
        loop {
            match progress {
                Progress::Answered(body) => {
                    assert!(queue.is_empty() && calls.is_empty(), "answered with calls still out");
                    return Ok(body);
                }
                Progress::Failed(error) => return Err(error),
                Progress::Waiting => {}
            }
            let call = queue.pop().expect("who waits has a call out");
            let result = match self.failing {
                Some(failing) if failing == number => {
                    self.failing = None;
                    Err(RequestError::new(ErrorCode::ErrorUnavailable, "the shard is away"))
                }
                _ => self.carry_out(call.operation),
            };
            number += 1;
            progress = work.handle_result(&asker, call.part, result, &mut calls);
            queue.extend(calls.drain());
            let parts: HashSet<u16> = queue.iter().map(|call| call.part).collect();
            assert_eq!(parts.len(), queue.len(), "parts of calls in flight differ");
        }
    }

    pub(crate) fn fail_call(&mut self, number: usize) {
        self.failing = Some(number);
    }

    /// A direct conversation with messages of these sizes from the second user.
    pub(crate) fn direct(&mut self, a: u8, b: u8, bodies: &[usize]) -> ConversationId {
        let id = ConversationId::direct(user(a), user(b));
        self.create(id, v1::ConversationKind::Direct as u32, "", vec![user(a), user(b)]);
        bodies.iter().for_each(|&bytes| self.append(id, b, bytes));
        id
    }

    pub(crate) fn append(&mut self, id: ConversationId, sender: u8, bytes: usize) {
        let conversation = self.conversations.get_mut(&id).expect("made before");
        let ordinal = conversation.members.iter().position(|member| *member == user(sender));
        let entry = v1::Entry {
            seq: conversation.entries.len() as u64 + 1,
            sender: ordinal.unwrap_or(0) as u32,
            time_ms: 1_000,
            kind: 0,
            body: vec![7; bytes].into(),
        };
        conversation.entries.push(entry);
        self.changed(id);
    }

    pub(crate) fn acknowledge(&mut self, id: ConversationId, member: u8, seq: u64) {
        self.conversations.get_mut(&id).expect("made before").delivered.insert(user(member), seq);
    }

    /// Something other than its entries changed: a cursor, a title.
    pub(crate) fn touch(&mut self, id: ConversationId) {
        self.changed(id);
    }

    pub(crate) fn close(&mut self, id: ConversationId) {
        self.conversations.get_mut(&id).expect("made before").closed = true;
    }

    pub(crate) fn head(&self, id: ConversationId) -> u64 {
        self.conversations[&id].entries.len() as u64
    }

    pub(crate) fn version(&self, user: UserId) -> u64 {
        self.feeds.get(&user).and_then(|feed| feed.values().max()).copied().unwrap_or(0)
    }

    pub(crate) fn conversation_count(&self) -> usize {
        self.conversations.len()
    }

    fn changed(&mut self, id: ConversationId) {
        self.clock += 1;
        for member in &self.conversations[&id].members {
            self.feeds.entry(*member).or_default().insert(id, self.clock);
        }
    }

    fn create(&mut self, id: ConversationId, kind: u32, title: &str, members: Vec<UserId>) -> bool {
        if self.conversations.contains_key(&id) {
            return true;
        }
        let created = v1::Entry { seq: 1, kind: v1::EntryKind::Created as i32, ..Default::default() };
        let entries = vec![created];
        let conversation = Conversation { kind, title: title.into(), members, entries, ..Default::default() };
        self.conversations.insert(id, conversation);
        self.changed(id);
        false
    }

    fn carry_out(&mut self, operation: shard_request::Operation) -> StorageResult {
        match operation {
            shard_request::Operation::Command(Command { kind: Some(command) }) => {
                let kind = Some(self.command(command));
                Ok(shard_response::Result::Outcome(Outcome { kind }))
            }
            shard_request::Operation::Query(Query { kind: Some(query) }) => {
                let refused = |code: ErrorCode| {
                    answer::Kind::Refused(internal::Refused { code: code as u32, detail: "refused".into() })
                };
                let kind = Some(self.query(query).unwrap_or_else(refused));
                Ok(shard_response::Result::Answer(Answer { kind }))
            }
            other => panic!("not asked for by requests: {other:?}"),
        }
    }

    fn command(&mut self, command: command::Kind) -> outcome::Kind {
        match command {
            command::Kind::CreateConversation(create) => {
                let id = ConversationId::from_slice(&create.conversation_id).expect("16 bytes");
                let members = create.member_ids.iter().map(|id| UserId::from_slice(id).expect("16 bytes"));
                let existed = self.create(id, create.kind, &create.title, members.collect());
                outcome::Kind::ConversationCreated(internal::ConversationCreated { existed })
            }
            other => panic!("not asked for by these tests: {other:?}"),
        }
    }

    fn query(&mut self, query: query::Kind) -> Result<answer::Kind, ErrorCode> {
        match query {
            query::Kind::ReadProfiles(read) => {
                let ids: HashSet<_> = read.user_ids.iter().filter_map(|id| UserId::from_slice(id)).collect();
                assert_eq!(ids.iter().map(|id| id.slot().shard(4)).collect::<HashSet<_>>().len(), 1);
                let found = self.users.iter().filter(|(id, _)| ids.contains(id));
                let users = found.map(|(id, name)| v1::User {
                    user_id: id.to_bytes(),
                    username: name.clone(),
                    display_name: name.to_uppercase(),
                });
                Ok(answer::Kind::Profiles(internal::Profiles { users: users.collect() }))
            }
            query::Kind::ReadName(read) => {
                let found = self.users.iter().find(|(_, name)| **name == read.name);
                let (id, _) = found.ok_or(ErrorCode::ErrorNotFound)?;
                Ok(answer::Kind::Name(internal::NameRecord { user_id: id.to_bytes() }))
            }
            query::Kind::ReadFeed(read) => {
                let mut rows = self.rows(&read.user_id);
                rows.retain(|row| row.version > read.since_version);
                let more = rows.len() > read.rows_max as usize;
                rows.truncate(read.rows_max as usize);
                let version = self.version(UserId::from_slice(&read.user_id).expect("16 bytes"));
                Ok(answer::Kind::Feed(internal::FeedPage { rows, version, more }))
            }
            query::Kind::ReadConversationList(read) => {
                let mut rows = self.rows(&read.user_id);
                rows.reverse();
                if read.before_activity_ms > 0 {
                    rows.retain(|row| row.activity_ms < read.before_activity_ms);
                }
                let more = rows.len() > read.rows_max as usize;
                rows.truncate(read.rows_max as usize);
                Ok(answer::Kind::ConversationList(internal::ConversationListPage { rows, more }))
            }
            query::Kind::ReadConversation(read) => self.view(&read).map(answer::Kind::Conversation),
            other => panic!("not asked for by these tests: {other:?}"),
        }
    }

    /// A user's rows by version, which is also the time of activity here.
    fn rows(&self, user: &[u8]) -> Vec<internal::FeedRow> {
        let feed = self.feeds.get(&UserId::from_slice(user).expect("16 bytes"));
        let row = |(id, version): (&ConversationId, &u64)| internal::FeedRow {
            conversation_id: id.to_bytes(),
            version: *version,
            activity_ms: *version,
            ..Default::default()
        };
        let mut rows: Vec<_> = feed.into_iter().flatten().map(row).collect();
        rows.sort_by_key(|row| row.version);
        rows
    }

    fn view(&self, read: &internal::ReadConversation) -> Result<internal::ConversationView, ErrorCode> {
        use read_conversation::Range;
        let id = ConversationId::from_slice(&read.conversation_id).expect("16 bytes");
        let asker = UserId::from_slice(&read.user_id).expect("16 bytes");
        let conversation = self.conversations.get(&id).ok_or(ErrorCode::ErrorNotFound)?;
        if conversation.closed || !conversation.members.contains(&asker) {
            return Err(ErrorCode::ErrorNotAMember);
        }
        let head = conversation.entries.len() as u64;
        let newest = head.saturating_sub(SYNC_LATEST_ENTRIES as u64);
        let after = match read.range.expect("always set") {
            Range::None(_) => head,
            Range::AfterSeq(seq) => seq,
            Range::AfterDeviceCursor(_) => conversation.delivered.get(&asker).copied().unwrap_or(newest),
            Range::BeforeSeq(_) | Range::Latest(_) => newest,
        };
        let mut room = read.bytes_max as usize;
        let wanted: Vec<_> = conversation.entries.iter().filter(|entry| entry.seq > after).collect();
        let fitting = wanted.iter().take(read.entries_max as usize).take_while(|entry| {
            let fits = room == read.bytes_max as usize || entry.body.len() <= room;
            room = room.saturating_sub(entry.body.len());
            fits
        });
        let entries: Vec<v1::Entry> = fitting.map(|entry| (*entry).clone()).collect();
        let truncated = read.entries_max > 0 && entries.len() < wanted.len();
        Ok(internal::ConversationView {
            conversation: Some(self.head_of(id, conversation, read.with_members)),
            entries,
            truncated,
        })
    }

    fn head_of(&self, id: ConversationId, conversation: &Conversation, members: bool) -> v1::Conversation {
        let member = |(ordinal, id): (usize, &UserId)| v1::Member {
            ordinal: ordinal as u32,
            user_id: id.to_bytes(),
            ..Default::default()
        };
        let all = conversation.members.iter().enumerate().map(member);
        v1::Conversation {
            conversation_id: id.to_bytes(),
            kind: conversation.kind as i32,
            title: conversation.title.clone(),
            members: all.take(if members { usize::MAX } else { 0 }).collect(),
            head_seq: conversation.entries.len() as u64,
            unread: conversation.entries.len() as u64 - 1,
            last: conversation.entries.last().cloned(),
            ..Default::default()
        }
    }
}
