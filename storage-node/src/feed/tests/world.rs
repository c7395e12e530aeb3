//! Conversation shards and home shards joined by a link that loses and doubles, with crashes on both sides, and a
//! client for every user that syncs now and then.

use crate::domain::{Overlay, apply, feed_positions, query};
use crate::engine::{MemoryStore, Store};
use crate::feed::{FeedView, HomeFeed, HomeStart, Reread, SourceFeed, query_with_view};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wire_protocol::ids::{ConversationId, ShardId, UserId};
use wire_protocol::internal::{self, FeedAck, FeedBatch, FeedCheckpoint, FeedItem, FeedRow, answer, command};
use wire_protocol::v1::{Entry, ReceiptEvent};

pub const SHARDS: u32 = 3;
pub const USERS: u8 = 5;
pub const CONVERSATIONS: u8 = 6;

/// What happens next.
#[derive(Clone, Debug)]
pub enum Step {
    /// A conversation gets an entry, or a receipt.
    Event { conversation: u8, is_entry: bool },
    /// An entry of the log without events.
    Quiet { source: u32 },
    /// A source hands out what it may send.
    Send { source: u32 },
    /// So many frames of a link arrive, each way.
    Deliver { source: u32, home: u32, frames: usize },
    /// Frames of a link vanish; both ends hear of it, or nobody does.
    Lose { source: u32, home: u32, is_told: bool },
    /// The first frame of a link arrives once more.
    Double { source: u32, home: u32 },
    /// The owner of a source reads the log again, but at most so many entries.
    Reread { source: u32, entries_max: u64 },
    /// A home shard proposes a checkpoint.
    Checkpoint { home: u32 },
    /// The one in flight is applied, or refused.
    Apply { home: u32, is_refused: bool },
    /// A home shard loses its memory.
    HomeCrash { home: u32 },
    /// A source loses its memory.
    SourceCrash { source: u32 },
    /// The log is cut as far as the source allows.
    Cut { source: u32 },
    /// Time passes.
    Wait { ms: u64 },
    /// A client begins a page: memory is looked at. The stored page is read later.
    SyncBegin { user: u8 },
    /// It reads the stored page and takes the merged one over.
    SyncEnd { user: u8, rows_max: u32 },
    /// A page of the list, and whether it makes sense.
    List { user: u8, rows_max: u32 },
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let source = || 0..SHARDS;
    let link = || (0..SHARDS, 0..SHARDS);
    let wait = prop_oneof![Just(10u64), Just(700), Just(3_000), Just(11_000)];
    let step = prop_oneof![
        20 => (0..CONVERSATIONS, prop::bool::weighted(0.7))
            .prop_map(|(conversation, is_entry)| Step::Event { conversation, is_entry }),
        2 => source().prop_map(|source| Step::Quiet { source }),
        12 => source().prop_map(|source| Step::Send { source }),
        20 => (link(), 1..4usize).prop_map(|((source, home), frames)| Step::Deliver { source, home, frames }),
        2 => (link(), any::<bool>()).prop_map(|((source, home), is_told)| Step::Lose { source, home, is_told }),
        1 => link().prop_map(|(source, home)| Step::Double { source, home }),
        4 => (source(), 1..6u64).prop_map(|(source, entries_max)| Step::Reread { source, entries_max }),
        5 => source().prop_map(|home| Step::Checkpoint { home }),
        6 => (source(), prop::bool::weighted(0.1)).prop_map(|(home, is_refused)| Step::Apply { home, is_refused }),
        1 => source().prop_map(|home| Step::HomeCrash { home }),
        1 => source().prop_map(|source| Step::SourceCrash { source }),
        3 => source().prop_map(|source| Step::Cut { source }),
        4 => wait.prop_map(|ms| Step::Wait { ms }),
        4 => (0..USERS).prop_map(|user| Step::SyncBegin { user }),
        4 => (0..USERS, 1..4u32).prop_map(|(user, rows_max)| Step::SyncEnd { user, rows_max }),
        2 => (0..USERS, 1..4u32).prop_map(|(user, rows_max)| Step::List { user, rows_max }),
    ];
    prop::collection::vec(step, 1..250)
}

struct Source {
    feed: SourceFeed,
    /// Entry 1 is at 0; entries up to `cut` are gone.
    log: Vec<Vec<FeedItem>>,
    cut: u64,
}

struct Home {
    feed: HomeFeed,
    store: MemoryStore,
    term: u64,
    proposed: Option<FeedCheckpoint>,
}

#[derive(Default)]
struct Link {
    down: VecDeque<FeedBatch>,
    up: VecDeque<FeedAck>,
}

#[derive(Default)]
struct Client {
    version: u64,
    view: Option<FeedView>,
    /// Conversation to the highest change it has heard of.
    known: BTreeMap<Bytes, u64>,
    row_versions: BTreeMap<Bytes, u64>,
}

pub struct World {
    now_ms: u64,
    sources: Vec<Source>,
    homes: Vec<Home>,
    links: BTreeMap<(u32, u32), Link>,
    clients: Vec<Client>,
    tops: BTreeMap<ConversationId, u64>,
}

pub fn user(number: u8) -> UserId {
    UserId([number.wrapping_mul(37).wrapping_add(1); 16])
}

pub fn conversation(number: u8) -> ConversationId {
    ConversationId([number * 41 + 5; 16])
}

/// Two or more members for each conversation.
pub fn members(number: u8) -> BTreeSet<u8> {
    (0..=1 + number % 3).map(|step| (number + step * 2) % USERS).collect()
}

fn source_of(number: u8) -> u32 {
    conversation(number).slot().shard(SHARDS).0
}

fn home_of(number: u8) -> usize {
    user(number).slot().shard(SHARDS).0 as usize
}

fn new_source(shard: u32, start_index: u64, homes: &[Home]) -> SourceFeed {
    let durable = |home: &Home| {
        let positions = feed_positions(&home.store, ShardId(0)).unwrap();
        positions
            .iter()
            .find(|position| position.source_shard == shard)
            .map_or(0, |position| position.log_index)
    };
    // Shard 0 is on the source's own node, so its position is known; the others answer in time.
    let start = |(number, home): (u32, &Home)| HomeStart {
        shard: ShardId(number),
        durable_index: if number == 0 { durable(home) } else { 0 },
    };
    let homes: Vec<HomeStart> = (0..).zip(homes).map(start).collect();
    SourceFeed::new(ShardId(shard), SHARDS, &homes, start_index)
}

impl World {
    pub fn new() -> Self {
        let home = |shard| Home {
            feed: HomeFeed::new(ShardId(shard), 1, vec![]),
            store: MemoryStore::new(),
            term: 1,
            proposed: None,
        };
        let homes: Vec<Home> = (0..SHARDS).map(home).collect();
        let source = |shard| Source { feed: new_source(shard, 0, &homes), log: vec![], cut: 0 };
        Self {
            now_ms: 1,
            sources: (0..SHARDS).map(source).collect(),
            links: (0..SHARDS)
                .flat_map(|source| (0..SHARDS).map(move |home| ((source, home), Link::default())))
                .collect(),
            clients: (0..USERS).map(|_| Client::default()).collect(),
            tops: BTreeMap::new(),
            homes,
        }
    }

    pub fn run(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Event { conversation, is_entry } => self.event(conversation, is_entry),
            Step::Quiet { source } => self.record(source, vec![]),
            Step::Send { source } => self.send(source),
            Step::Deliver { source, home, frames } => {
                for _ in 0..frames {
                    let _ = self.deliver(source, home);
                }
            }
            Step::Lose { source, home, is_told } => self.lose(source, home, is_told),
            Step::Double { source, home } => {
                let link = self.link(source, home);
                if let Some(batch) = link.down.front().cloned() {
                    link.down.push_back(batch);
                }
            }
            Step::Reread { source, entries_max } => {
                let _ = self.reread(source, entries_max);
            }
            Step::Checkpoint { home } => self.checkpoint(home),
            Step::Apply { home, is_refused: true } => {
                let home = &mut self.homes[home as usize];
                if home.proposed.take().is_some() {
                    home.feed.checkpoint_refused();
                }
            }
            Step::Apply { home, is_refused: false } => self.apply(home),
            Step::HomeCrash { home } => self.home_crash(home),
            Step::SourceCrash { source } => self.source_crash(source),
            Step::Cut { source } => self.cut(source)?,
            Step::Wait { ms } => self.now_ms += ms,
            Step::SyncBegin { user: number } => {
                let view = self.homes[home_of(number)].feed.view(user(number));
                self.clients[usize::from(number)].view = Some(view);
            }
            Step::SyncEnd { user, rows_max } => {
                let _ = self.sync_end(user, rows_max)?;
            }
            Step::List { user, rows_max } => self.list(user, rows_max)?,
        }
        Ok(())
    }

    fn link(&mut self, source: u32, home: u32) -> &mut Link {
        self.links.get_mut(&(source, home)).expect("all links exist")
    }

    fn event(&mut self, number: u8, is_entry: bool) {
        let id = conversation(number);
        let top = self.tops.entry(id).or_default();
        // Every change moves the top here, so that a client can tell what it has missed.
        *top += 1;
        let event = if is_entry {
            internal::feed_item::Event::Entry(Entry { seq: *top, ..Entry::default() })
        } else {
            internal::feed_item::Event::Receipt(ReceiptEvent { read_up_to: *top, ..ReceiptEvent::default() })
        };
        let item = FeedItem {
            user_ids: members(number).into_iter().map(|member| user(member).to_bytes()).collect(),
            conversation_id: id.to_bytes(),
            top_seq: *top,
            activity_ms: *top,
            event: Some(event),
            ..FeedItem::default()
        };
        self.record(source_of(number), vec![item]);
    }

    fn record(&mut self, source: u32, items: Vec<FeedItem>) {
        let source = &mut self.sources[source as usize];
        source.log.push(items.clone());
        source.feed.record(source.log.len() as u64, items);
    }

    fn send(&mut self, source: u32) {
        while let Some(batch) = self.sources[source as usize].feed.poll_batch(self.now_ms) {
            assert_eq!(batch.source_shard, source);
            self.link(source, batch.home_shard).down.push_back(batch);
        }
    }

    /// One frame each way.
    fn deliver(&mut self, source: u32, home: u32) -> bool {
        let link = self.links.get_mut(&(source, home)).expect("all links exist");
        let (down, up) = (link.down.pop_front(), link.up.pop_front());
        let is_some = down.is_some() || up.is_some();
        if let Some(batch) = down {
            let taken = self.homes[home as usize].feed.take(batch);
            assert!(taken.deliveries.iter().all(|item| item.event.is_some()));
            link.up.push_back(taken.ack);
        }
        if let Some(ack) = up {
            self.sources[source as usize].feed.acked(self.now_ms, &ack);
        }
        is_some
    }

    fn lose(&mut self, source: u32, home: u32, is_told: bool) {
        *self.link(source, home) = Link::default();
        if is_told {
            self.sources[source as usize].feed.link_changed(ShardId(home));
        }
    }

    fn reread(&mut self, source: u32, entries_max: u64) -> bool {
        let source = &mut self.sources[source as usize];
        let Some(mut asked) = source.feed.poll_reread() else { return false };
        let first = asked.from_index.max(source.cut) + 1;
        asked.to_index = asked.to_index.min(first - 1 + entries_max);
        let entries = (first..=asked.to_index).map(|index| (index, source.log[index as usize - 1].clone()));
        source.feed.reread(Reread { ..asked }, entries.collect());
        true
    }

    fn checkpoint(&mut self, home: u32) {
        let home = &mut self.homes[home as usize];
        if let Some(checkpoint) = home.feed.poll_checkpoint(self.now_ms) {
            assert!(home.proposed.replace(checkpoint).is_none(), "one at a time");
        }
    }

    fn apply(&mut self, number: u32) {
        let home = &mut self.homes[number as usize];
        let Some(checkpoint) = home.proposed.take() else { return };
        let kind = Some(command::Kind::FeedCheckpoint(checkpoint.clone()));
        let batch = internal::CommandBatch {
            time_ms: self.now_ms,
            commands: vec![internal::Command { kind }],
            feed_cut: 0,
            log_cut: 0,
        };
        let mut overlay = Overlay::new(&home.store);
        apply(&mut overlay, ShardId(0), &batch).unwrap();
        home.store.write(overlay.into_batch()).unwrap();
        for ack in home.feed.checkpointed(&checkpoint) {
            self.link(ack.source_shard, number).up.push_back(ack);
        }
    }

    /// What was proposed may still be applied after the crash: it was in the log.
    fn home_crash(&mut self, number: u32) {
        let home = &mut self.homes[number as usize];
        home.term += 1;
        let positions = feed_positions(&home.store, ShardId(0)).unwrap();
        home.feed = HomeFeed::new(ShardId(number), home.term, positions);
        if home.proposed.is_some() && self.now_ms.is_multiple_of(2) {
            home.proposed = None;
        }
        // The clients' looks went with the memory; frames in flight to it are lost.
        (0..SHARDS).for_each(|source| self.lose(source, number, true));
        for (client, number_of_user) in self.clients.iter_mut().zip(0..) {
            if home_of(number_of_user) == number as usize {
                client.view = None;
            }
        }
        // What was in flight is applied by the replay before anything else is proposed.
        self.apply(number);
    }

    fn source_crash(&mut self, number: u32) {
        let cut = self.sources[number as usize].cut;
        let mut feed = new_source(number, cut, &self.homes);
        let source = &mut self.sources[number as usize];
        for (items, index) in source.log.iter().zip(1..).skip(cut as usize) {
            feed.record(index, items.clone());
        }
        source.feed = feed;
        (0..SHARDS).for_each(|home| self.lose(number, home, true));
    }

    /// Nothing below the cut may be missing from a home shard's durable rows.
    fn cut(&mut self, number: u32) -> Result<(), TestCaseError> {
        let source = &mut self.sources[number as usize];
        let cut = source.feed.cut_index();
        prop_assert!(cut >= source.cut, "the cut falls");
        prop_assert!(cut <= source.log.len() as u64);
        source.cut = cut;
        for item in source.log[..cut as usize].iter().flatten() {
            for member in &item.user_ids {
                let owner = UserId::from_slice(member).unwrap();
                let home = &self.homes[owner.slot().shard(SHARDS).0 as usize];
                let stored = stored_page(home, owner, 0, 100).rows;
                let stored = stored.iter().find(|row| row.conversation_id == item.conversation_id);
                let top = stored.map_or(0, |row| row.top_seq);
                prop_assert!(top >= item.top_seq, "cut at {cut}, but {owner} has {top} of {}", item.top_seq);
            }
        }
        Ok(())
    }

    /// Whether there is more.
    fn sync_end(&mut self, number: u8, rows_max: u32) -> Result<bool, TestCaseError> {
        let client = &mut self.clients[usize::from(number)];
        let Some(view) = client.view.take() else { return Ok(false) };
        let read =
            internal::ReadFeed { user_id: user(number).to_bytes(), since_version: client.version, rows_max };
        let asked = internal::Query { kind: Some(internal::query::Kind::ReadFeed(read)) };
        let store = &self.homes[home_of(number)].store;
        let Some(answer::Kind::Feed(page)) = query_with_view(store, &asked, Some(view)).unwrap().kind else {
            return Err(TestCaseError::fail("no feed"));
        };
        prop_assert!(page.rows.len() <= rows_max as usize);
        prop_assert!(page.rows.is_sorted_by(|a, b| a.version < b.version), "{:?}", page.rows);
        for row in &page.rows {
            prop_assert!(row.version > client.version);
            let seen = client.row_versions.insert(row.conversation_id.clone(), row.version).unwrap_or(0);
            prop_assert!(row.version > seen, "a row's version fell or stayed");
            let id = ConversationId::from_slice(&row.conversation_id).unwrap();
            // What a client does with a row: it reads the conversation as it is now.
            client.known.insert(row.conversation_id.clone(), self.tops[&id]);
        }
        let next = match page.rows.last() {
            Some(row) if page.more => row.version,
            None if page.more => return Err(TestCaseError::fail("a page without rows says there is more")),
            _ => page.version,
        };
        prop_assert!(next >= client.version, "the version falls from {} to {next}", client.version);
        client.version = next;
        Ok(page.more)
    }

    /// A list without disturbance between its pages holds every conversation the home shard knows of, once.
    fn list(&mut self, number: u8, rows_max: u32) -> Result<(), TestCaseError> {
        let home = &self.homes[home_of(number)];
        let mut listed: Vec<FeedRow> = vec![];
        loop {
            let last = listed.last().cloned().unwrap_or_default();
            let read = internal::ReadConversationList {
                user_id: user(number).to_bytes(),
                rows_max,
                before_activity_ms: last.activity_ms,
                before_conversation_id: last.conversation_id,
            };
            let view = home.feed.view(user(number));
            let asked = internal::Query { kind: Some(internal::query::Kind::ReadConversationList(read)) };
            let answer = query_with_view(&home.store, &asked, Some(view)).unwrap();
            let Some(answer::Kind::ConversationList(page)) = answer.kind else {
                return Err(TestCaseError::fail("no list"));
            };
            prop_assert!(page.rows.len() <= rows_max as usize);
            prop_assert!(!page.more || !page.rows.is_empty(), "no way on");
            listed.extend(page.rows);
            if !page.more {
                break;
            }
        }
        let expected: BTreeSet<Bytes> = stored_page(home, user(number), 0, 100)
            .rows
            .into_iter()
            .chain(home.feed.view(user(number)).rows)
            .map(|row| row.conversation_id)
            .collect();
        let found: BTreeSet<Bytes> = listed.iter().map(|row| row.conversation_id.clone()).collect();
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(listed.len(), found.len(), "one comes twice: {:?}", &listed);
        let place = |row: &FeedRow| (row.activity_ms, row.conversation_id.clone());
        prop_assert!(listed.is_sorted_by(|a, b| place(a) > place(b)), "{listed:?}");
        Ok(())
    }

    /// The faults stop: everything must come right.
    pub fn heal(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..60 {
            self.now_ms += 3_000;
            for source in 0..SHARDS {
                self.send(source);
                while self.reread(source, 4) {
                    self.send(source);
                }
                for home in 0..SHARDS {
                    while self.deliver(source, home) {
                        self.send(source);
                    }
                }
            }
            for home in 0..SHARDS {
                self.checkpoint(home);
                self.apply(home);
            }
        }
        for source in 0..SHARDS {
            self.cut(source)?;
            let source = &self.sources[source as usize];
            prop_assert_eq!(source.cut, source.log.len() as u64, "the log can be cut to its end");
            prop_assert_eq!(source.feed.queued_bytes(), 0);
            prop_assert_eq!(source.feed.next_deadline_ms(), None);
        }
        for number in 0..USERS {
            self.end_of(number)?;
        }
        prop_assert!(self.homes.iter().all(|home| home.feed.dirty_rows() == 0));
        prop_assert!(self.homes.iter().all(|home| home.feed.next_checkpoint_ms().is_none()));
        Ok(())
    }

    fn end_of(&mut self, number: u8) -> Result<(), TestCaseError> {
        self.run(Step::List { user: number, rows_max: 2 })?;
        let mine: BTreeMap<Bytes, u64> = (0..CONVERSATIONS)
            .filter(|conversation| members(*conversation).contains(&number))
            .filter_map(|number| {
                Some((conversation(number).to_bytes(), *self.tops.get(&conversation(number))?))
            })
            .collect();
        let stored = stored_page(&self.homes[home_of(number)], user(number), 0, 100).rows;
        let stored: BTreeMap<Bytes, u64> =
            stored.into_iter().map(|row| (row.conversation_id, row.top_seq)).collect();
        prop_assert_eq!(&stored, &mine, "rows of user {}", number);
        for _ in 0..20 {
            self.run(Step::SyncBegin { user: number })?;
            if !self.sync_end(number, 2)? {
                break;
            }
        }
        prop_assert_eq!(
            &self.clients[usize::from(number)].known,
            &mine,
            "what the client of user {} knows",
            number
        );
        Ok(())
    }
}

fn stored_page(home: &Home, user: UserId, since_version: u64, rows_max: u32) -> internal::FeedPage {
    let read = internal::ReadFeed { user_id: user.to_bytes(), since_version, rows_max };
    let asked = internal::Query { kind: Some(internal::query::Kind::ReadFeed(read)) };
    match query(&home.store, &asked).unwrap().kind {
        Some(answer::Kind::Feed(page)) => page,
        other => panic!("{other:?}"),
    }
}
