//! A home shard's change feed: batches of sources that come twice, late or with gaps, checkpoints, and restarts.

use crate::Target;
use crate::input::Input;
use bytes::Bytes;
use std::collections::BTreeMap;
use storage_node::domain::{self, Event, Overlay};
use storage_node::engine::{MemoryStore, Store};
use storage_node::feed::{HomeFeed, query_with_view};
use wire_protocol::ids::{ShardId, UserId};
use wire_protocol::internal::{
    Command, CommandBatch, FeedBatch, FeedCheckpoint, FeedItem, Query, ReadConversationList, ReadFeed,
    answer, command, query,
};

const HOME: ShardId = ShardId(5);
/// Conversation shards that feed it, and what one of them may have to tell.
const SOURCES: usize = 3;
const ENTRIES_MAX: usize = 24;
/// Users, and conversations of each source.
const USERS: usize = 3;
const CONVERSATIONS: usize = 3;
/// Steps of a story.
const STEPS_MAX: usize = 96;
/// Rows of a page.
const ROWS_MAX: u32 = 2;

/// See `holds`.
pub const FEED: Target = Target {
    name: "feed",
    holds: "a home shard takes over what each source tells, across gaps, repeats and restarts, also while a checkpoint is under \
            way, and pages show all of it once",
    run: feed,
};

/// User and conversation: newest entry and its time.
type Rows = BTreeMap<(Bytes, Bytes), (u64, u64)>;

fn user(number: usize) -> UserId {
    UserId([1 + number as u8; 16])
}

/// What becomes of a checkpoint that was in flight when its shard stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// It was in no log.
    Lost,
    /// It is carried out before the shard serves again.
    InLog,
}

struct World {
    store: MemoryStore,
    home: HomeFeed,
    term: u64,
    now_ms: u64,
    applied: u64,
    /// What each source has to tell, by log index from 1.
    logs: [Vec<FeedItem>; SOURCES],
    /// What was taken, by source: nobody may forget it.
    received: [u64; SOURCES],
    durable: [u64; SOURCES],
    /// The most that was ever taken.
    taken: [u64; SOURCES],
    /// The checkpoint that is in flight.
    proposed: Option<FeedCheckpoint>,
}

impl World {
    fn new() -> Self {
        Self {
            store: MemoryStore::new(),
            home: HomeFeed::new(HOME, 1, Vec::new()),
            term: 1,
            now_ms: 0,
            applied: 0,
            logs: Default::default(),
            received: [0; SOURCES],
            durable: [0; SOURCES],
            taken: [0; SOURCES],
            proposed: None,
        }
    }

    /// Something happens in a conversation of a source.
    fn happen(&mut self, source: usize, input: &mut Input<'_>) {
        let log = &mut self.logs[source];
        if log.len() < ENTRIES_MAX {
            let users = 1 + input.below((1 << USERS) - 1);
            let is_told = |number: &usize| users >> number & 1 == 1;
            let conversation = [0x80 + (source * CONVERSATIONS + input.below(CONVERSATIONS)) as u8; 16];
            // Logged time never falls.
            let newest_ms = log.last().map_or(0, |item| item.activity_ms);
            log.push(FeedItem {
                user_ids: (0..USERS).filter(is_told).map(|number| user(number).to_bytes()).collect(),
                conversation_id: Bytes::copy_from_slice(&conversation),
                top_seq: log.len() as u64 + 1,
                activity_ms: newest_ms + input.number() % 4,
                ..FeedItem::default()
            });
        }
    }

    /// The source sends a stretch of its log, any stretch.
    fn send(&mut self, source: usize, from: u64, count: u64) {
        let log = &self.logs[source];
        let from_index = from.min(log.len() as u64);
        let to_index = (from_index + count).min(log.len() as u64);
        let items = log[from_index as usize..to_index as usize].to_vec();
        let source_shard = source as u32;
        let taken =
            self.home.take(FeedBatch { source_shard, home_shard: HOME.0, from_index, to_index, items });
        assert!(taken.deliveries.is_empty(), "there was nothing to push");
        let is_gap = from_index > self.received[source];
        assert_eq!(taken.ack.replay, is_gap);
        if !is_gap {
            self.received[source] = self.received[source].max(to_index);
            self.taken[source] = self.taken[source].max(to_index);
        }
        let positions = (taken.ack.received_index, taken.ack.durable_index);
        assert_eq!(positions, (self.received[source], self.durable[source]));
    }

    /// A checkpoint is proposed, if one is due and none is in flight.
    fn propose(&mut self, wait_ms: u64) {
        self.now_ms += wait_ms;
        let proposed = self.home.poll_checkpoint(self.now_ms);
        if self.proposed.is_some() {
            assert!(proposed.is_none(), "one is in flight");
            return;
        }
        assert!(proposed.is_none() || self.home.poll_checkpoint(u64::MAX).is_none(), "one is in flight");
        for position in proposed.iter().flat_map(|checkpoint| &checkpoint.positions) {
            assert_eq!(position.log_index, self.received[position.source_shard as usize]);
        }
        self.proposed = proposed;
    }

    /// It cannot be proposed after all.
    fn refuse(&mut self) {
        if self.proposed.take().is_some() {
            self.home.checkpoint_refused();
        }
    }

    /// It is carried out, and the home shard hears of it.
    fn carry_out(&mut self) {
        let Some(proposed) = self.proposed.take() else { return };
        for checkpoint in self.store_rows(proposed) {
            for ack in self.home.checkpointed(&checkpoint) {
                let source = ack.source_shard as usize;
                assert!(self.durable[source] <= ack.durable_index);
                assert!(ack.durable_index <= self.received[source], "durable before it was received");
                self.durable[source] = ack.durable_index;
            }
        }
    }

    /// Gives what is to be told of it.
    fn store_rows(&mut self, proposed: FeedCheckpoint) -> Vec<FeedCheckpoint> {
        let command = Command { kind: Some(command::Kind::FeedCheckpoint(proposed)) };
        let batch = CommandBatch { time_ms: self.now_ms, commands: vec![command], feed_cut: 0, log_cut: 0 };
        self.applied += 1;
        let mut overlay = Overlay::new(&self.store);
        let applied = domain::apply(&mut overlay, HOME, &batch).expect("memory does not fail");
        domain::set_applied_index(&mut overlay, HOME, self.applied, self.now_ms);
        self.store.write(overlay.into_batch()).expect("memory does not fail");
        let told = |event: Event| match event {
            Event::Checkpointed(checkpoint) => checkpoint,
            event => panic!("{event:?}"),
        };
        applied.into_iter().flat_map(|applied| applied.events).map(told).collect()
    }

    /// Memory is lost; what was made durable is not.
    fn restart(&mut self, fate: Fate) {
        self.term += 1;
        if let Some(proposed) = self.proposed.take().filter(|_| fate == Fate::InLog) {
            for checkpoint in self.store_rows(proposed) {
                for position in checkpoint.positions {
                    let durable = &mut self.durable[position.source_shard as usize];
                    *durable = (*durable).max(position.log_index);
                }
            }
        }
        let positions = domain::feed_positions(&self.store, HOME).expect("readable");
        for position in &positions {
            assert_eq!(position.log_index, self.durable[position.source_shard as usize]);
        }
        self.home = HomeFeed::new(HOME, self.term, positions);
        self.received = self.durable;
    }

    /// What was taken of each source.
    fn expected(&self) -> Rows {
        let mut rows = Rows::new();
        for (log, received) in self.logs.iter().zip(self.received) {
            for item in &log[..received as usize] {
                for user in &item.user_ids {
                    let row = rows.entry((user.clone(), item.conversation_id.clone())).or_default();
                    *row = (row.0.max(item.top_seq), row.1.max(item.activity_ms));
                }
            }
        }
        rows
    }

    fn ask(&self, id: UserId, kind: query::Kind) -> answer::Kind {
        let view = Some(self.home.view(id));
        let answer = query_with_view(&self.store, &Query { kind: Some(kind) }, view);
        answer.expect("memory does not fail").kind.expect("an answer says something")
    }

    /// A user's changes, page by page, as a client gets them: each row once, by ascending version.
    fn changes(&self, id: UserId) -> Rows {
        let (mut rows, mut since_version) = (Rows::new(), 0);
        loop {
            let read = ReadFeed { user_id: id.to_bytes(), since_version, rows_max: ROWS_MAX };
            let answer::Kind::Feed(page) = self.ask(id, query::Kind::ReadFeed(read)) else {
                panic!("a feed is always answered")
            };
            for row in page.rows {
                assert!(row.version > since_version, "versions ascend");
                since_version = row.version;
                let told = rows.insert((row.user_id, row.conversation_id), (row.top_seq, row.activity_ms));
                assert!(told.is_none(), "a row twice, and nothing has changed");
            }
            if !page.more {
                assert!(page.version >= since_version);
                return rows;
            }
        }
    }

    /// A user's conversation list, page by page: the newest activity first, each conversation once.
    fn list(&self, id: UserId) -> Rows {
        let (mut rows, mut before) = (Rows::new(), (0, Bytes::new()));
        loop {
            let read = ReadConversationList {
                user_id: id.to_bytes(),
                rows_max: ROWS_MAX,
                before_activity_ms: before.0,
                before_conversation_id: before.1.clone(),
            };
            let kind = query::Kind::ReadConversationList(read);
            let answer::Kind::ConversationList(page) = self.ask(id, kind) else {
                panic!("a list is always answered")
            };
            for row in page.rows {
                let place = (row.activity_ms, row.conversation_id.clone());
                assert!(before.1.is_empty() || place < before, "activity descends");
                before = place;
                let told = rows.insert((row.user_id, row.conversation_id), (row.top_seq, row.activity_ms));
                assert!(told.is_none(), "a conversation twice, and nothing has changed");
            }
            if !page.more {
                return rows;
            }
        }
    }

    /// After a restart some stored rows are newer than the positions, until the sources have told the rest again.
    fn check_if_known(&self) {
        if self.received == self.taken {
            self.check();
        }
    }

    fn check(&self) {
        let expected = self.expected();
        let all = |rows: fn(&Self, UserId) -> Rows| -> Rows {
            (0..USERS).flat_map(|number| rows(self, user(number))).collect()
        };
        for found in [all(Self::changes), all(Self::list)] {
            for (row, told) in &expected {
                assert_eq!(found.get(row), Some(told), "{row:?}");
            }
            assert_eq!(found.len(), expected.len(), "a row that nobody told");
        }
    }
}

fn feed(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let source = input.below(SOURCES);
        match input.below(8) {
            0..=2 => world.happen(source, &mut input),
            3 => {
                let (from, count) = (u64::from(input.byte() % 32), u64::from(input.byte() % 8));
                world.send(source, from, count);
            }
            4 => {
                let from = world.received[source];
                world.send(source, from, u64::from(input.byte() % 8));
            }
            5 => {
                let choice = input.byte();
                world.propose(input.number() % 10_000);
                match choice {
                    // In flight it stays, whatever else happens, until this is chosen again.
                    128.. => {}
                    _ if choice.is_multiple_of(4) => world.refuse(),
                    _ => world.carry_out(),
                }
            }
            6 => match input.byte() {
                choice if choice.is_multiple_of(4) => {
                    world.restart(if choice < 128 { Fate::Lost } else { Fate::InLog });
                }
                _ => world.check_if_known(),
            },
            _ => world.check_if_known(),
        }
    }
    for source in 0..SOURCES {
        world.send(source, world.received[source], ENTRIES_MAX as u64);
    }
    world.carry_out();
    world.propose(10_000);
    while world.proposed.is_some() {
        world.carry_out();
        world.propose(10_000);
    }
    assert_eq!(world.received, world.durable);
    assert_eq!(world.home.dirty_rows(), 0);
    world.check();
}
