//! Joined pages of the list and of the changes, however a user's rows are spread over memory and the store, and
//! whenever a checkpoint moves them.

use crate::domain::{Overlay, apply};
use crate::engine::{Direction, MemoryStore, Reader, Store, StoreError};
use crate::feed::{FeedView, HomeFeed, query_with_view};
use bytes::Bytes;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use wire_protocol::ids::{ConversationId, ShardId, UserId};
use wire_protocol::internal::{
    Command, CommandBatch, ConversationListPage, FeedBatch, FeedCheckpoint, FeedItem, FeedPage, Query,
    ReadConversationList, ReadFeed, answer, command, query,
};

const USER: UserId = UserId([7; 16]);
const SHARD: ShardId = ShardId(0);
const CONVERSATIONS: usize = 7;
/// Pages after which joined pages are taken for endless.
const PAGES_MAX: usize = 100;

/// Where a conversation's row is, and with which activity: nowhere, in one place, or in both.
#[derive(Clone, Copy, Debug)]
struct Kept {
    stored: Option<u64>,
    in_memory: Option<u64>,
}

/// When the one checkpoint of a reading is applied: at this page,
#[derive(Clone, Copy, Debug)]
struct Moment {
    page: usize,
    at: At,
}

/// and at this moment of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    BeforeTheView,
    BeforeTheScan,
    AfterTheScan,
}

fn kept() -> impl Strategy<Value = Vec<Kept>> {
    // Few different activities: ties are common.
    let activity = || prop::option::of(1..6u64);
    let one = (activity(), activity()).prop_map(|(stored, in_memory)| Kept { stored, in_memory });
    prop::collection::vec(one, CONVERSATIONS)
}

fn moment() -> impl Strategy<Value = Moment> {
    let at = prop_oneof![Just(At::BeforeTheView), Just(At::BeforeTheScan), Just(At::AfterTheScan)];
    (0..6usize, at).prop_map(|(page, at)| Moment { page, at })
}

/// Numbers of the conversations that change before each page but the first.
fn changes() -> impl Strategy<Value = Vec<Vec<usize>>> {
    prop::collection::vec(prop::collection::vec(0..CONVERSATIONS, 0..3), 0..6)
}

fn id(number: usize) -> ConversationId {
    ConversationId([number as u8 * 31 + 1; 16])
}

/// One user's home shard.
struct Home {
    feed: HomeFeed,
    store: MemoryStore,
    /// Entries of the one source.
    log_index: u64,
    now_ms: u64,
    /// What is true: conversation to activity and version.
    standing: BTreeMap<ConversationId, (u64, u64)>,
}

impl Home {
    fn new(kept: &[Kept]) -> Self {
        let mut home = Self {
            feed: HomeFeed::new(SHARD, 1, vec![]),
            store: MemoryStore::new(),
            log_index: 0,
            now_ms: 0,
            standing: BTreeMap::new(),
        };
        let known = |of: fn(&Kept) -> Option<u64>| {
            kept.iter().enumerate().filter_map(move |(number, kept)| Some((number, of(kept)?)))
        };
        known(|kept| kept.stored).for_each(|(number, activity_ms)| home.change(number, activity_ms));
        home.checkpoint();
        // Memory is lost, and the source tells again, perhaps less than is stored.
        home.feed = HomeFeed::new(SHARD, 2, vec![]);
        home.log_index = 0;
        known(|kept| kept.in_memory).for_each(|(number, activity_ms)| home.change(number, activity_ms));
        home
    }

    fn change(&mut self, number: usize, activity_ms: u64) {
        let item = FeedItem {
            user_ids: vec![USER.to_bytes()],
            conversation_id: id(number).to_bytes(),
            top_seq: activity_ms,
            activity_ms,
            ..FeedItem::default()
        };
        let (from_index, to_index) = (self.log_index, self.log_index + 1);
        self.log_index = to_index;
        self.feed.take(FeedBatch { from_index, to_index, items: vec![item], ..FeedBatch::default() });
        let activity = self.standing.get(&id(number)).map_or(0, |known| known.0).max(activity_ms);
        self.standing.insert(id(number), (activity, self.feed.view(USER).version));
    }

    fn propose(&mut self) -> Option<FeedCheckpoint> {
        self.now_ms += 1_000_000;
        self.feed.poll_checkpoint(self.now_ms)
    }

    fn checkpoint(&mut self) {
        if let Some(checkpoint) = self.propose() {
            store(&self.store, &checkpoint);
            self.feed.checkpointed(&checkpoint);
        }
    }

    /// Reads a page, with the checkpoint at its moment if there is one.
    fn read(&mut self, kind: query::Kind, at: Option<At>) -> answer::Kind {
        if at == Some(At::BeforeTheView) {
            self.checkpoint();
        }
        let view = self.feed.view(USER);
        if at == Some(At::BeforeTheScan) {
            self.checkpoint();
        }
        let proposed = if at == Some(At::AfterTheScan) { self.propose() } else { None };
        let reader = Disturbed { store: &self.store, after_the_scan: RefCell::new(proposed.clone()) };
        let answer = query_with_view(&reader, &Query { kind: Some(kind) }, Some(view)).unwrap();
        if let Some(checkpoint) = proposed {
            store(&self.store, &checkpoint);
            self.feed.checkpointed(&checkpoint);
        }
        answer.kind.unwrap()
    }

    fn list_page(&mut self, rows_max: u32, before: Option<Place>, at: Option<At>) -> ConversationListPage {
        let (before_activity_ms, before_conversation_id) = before.unwrap_or_default();
        let user_id = USER.to_bytes();
        let read = ReadConversationList { user_id, rows_max, before_activity_ms, before_conversation_id };
        match self.read(query::Kind::ReadConversationList(read), at) {
            answer::Kind::ConversationList(page) => page,
            other => panic!("{other:?}"),
        }
    }

    fn changes_page(&mut self, rows_max: u32, since_version: u64, at: Option<At>) -> FeedPage {
        let read = ReadFeed { user_id: USER.to_bytes(), since_version, rows_max };
        match self.read(query::Kind::ReadFeed(read), at) {
            answer::Kind::Feed(page) => page,
            other => panic!("{other:?}"),
        }
    }

    /// Joined pages of the list: activity and conversation of each row.
    fn list(&mut self, rows_max: u32, moment: Moment, changes: &[Vec<usize>]) -> Vec<Place> {
        let mut listed = vec![];
        for number in 0..PAGES_MAX {
            self.change_all(number, changes);
            let before = listed.last().cloned();
            let page = self.list_page(rows_max, before, (number == moment.page).then_some(moment.at));
            assert!(page.rows.len() <= rows_max as usize);
            assert!(!page.more || !page.rows.is_empty(), "no way on");
            listed.extend(page.rows.into_iter().map(|row| (row.activity_ms, row.conversation_id)));
            if !page.more {
                return listed;
            }
        }
        panic!("endless: {listed:?}")
    }

    /// Joined pages of changes: version and conversation of each row, and the version at the end.
    fn changes(&mut self, rows_max: u32, moment: Moment, changes: &[Vec<usize>]) -> (Vec<Place>, u64) {
        let (mut told, mut since_version) = (vec![], 0);
        for number in 0..PAGES_MAX {
            self.change_all(number, changes);
            let at = (number == moment.page).then_some(moment.at);
            let page = self.changes_page(rows_max, since_version, at);
            assert!(page.rows.len() <= rows_max as usize);
            told.extend(page.rows.into_iter().map(|row| (row.version, row.conversation_id)));
            if !page.more {
                return (told, page.version);
            }
            let last = told.last().map_or(0, |(version, _)| *version);
            assert!(last > since_version, "no way on");
            since_version = last;
        }
        panic!("endless: {told:?}")
    }

    fn change_all(&mut self, page: usize, changes: &[Vec<usize>]) {
        let due = page.checked_sub(1).and_then(|place| changes.get(place)).cloned().unwrap_or_default();
        for number in due {
            let activity = self.standing.get(&id(number)).map_or(3, |known| known.0);
            self.change(number, activity + 1);
        }
    }

    /// Newest activity first.
    fn by_activity(&self) -> Vec<Place> {
        let mut all: Vec<_> =
            self.standing.iter().map(|(id, (activity, _))| (*activity, id.to_bytes())).collect();
        all.sort();
        all.reverse();
        all
    }

    /// Oldest change first.
    fn by_version(&self) -> Vec<Place> {
        let mut all: Vec<_> =
            self.standing.iter().map(|(id, (_, version))| (*version, id.to_bytes())).collect();
        all.sort();
        all
    }
}

type Place = (u64, Bytes);

fn store(store: &MemoryStore, checkpoint: &FeedCheckpoint) {
    let command = Command { kind: Some(command::Kind::FeedCheckpoint(checkpoint.clone())) };
    let batch = CommandBatch { commands: vec![command], ..CommandBatch::default() };
    let mut overlay = Overlay::new(store);
    apply(&mut overlay, SHARD, &batch).unwrap();
    let rows = overlay.into_batch();
    store.write(rows).unwrap();
}

/// A store into which a checkpoint is written right after the first scan.
struct Disturbed<'a> {
    store: &'a MemoryStore,
    after_the_scan: RefCell<Option<FeedCheckpoint>>,
}

impl Reader for Disturbed<'_> {
    fn value(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.value(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.store.scan(from, to, direction, visit)?;
        if let Some(checkpoint) = self.after_the_scan.take() {
            store(self.store, &checkpoint);
        }
        Ok(())
    }
}

/// Rows of conversations that did not change while the pages were read.
fn of_unmoved(places: &[Place], changes: &[Vec<usize>]) -> Vec<Place> {
    let moved: BTreeSet<Bytes> = changes.iter().flatten().map(|number| id(*number).to_bytes()).collect();
    places.iter().filter(|(_, id)| !moved.contains(id)).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn joined_pages_of_the_list_hold_each_conversation_once(
        kept in kept(),
        moment in moment(),
        changes in changes(),
    ) {
        for rows_max in [1, 2, 3, 100] {
            let mut home = Home::new(&kept);
            prop_assert_eq!(home.list(rows_max, moment, &[]), home.by_activity());
            let mut home = Home::new(&kept);
            let unmoved = of_unmoved(&home.by_activity(), &changes);
            let listed = home.list(rows_max, moment, &changes);
            prop_assert_eq!(of_unmoved(&listed, &changes), unmoved, "all of {:?}", listed);
        }
    }

    #[test]
    fn joined_pages_of_changes_hold_each_conversation_once(
        kept in kept(),
        moment in moment(),
        changes in changes(),
    ) {
        for rows_max in [1, 2, 3, 100] {
            let mut home = Home::new(&kept);
            let (told, version) = home.changes(rows_max, moment, &[]);
            prop_assert_eq!(&told, &home.by_version());
            let newest = told.last().map_or(0, |(version, _)| *version);
            prop_assert_eq!(version, newest);
            // Who stored it hears nothing new.
            let nothing = home.changes_page(rows_max, version, None);
            prop_assert_eq!((nothing.rows.len(), nothing.version, nothing.more), (0, version, false));
            let mut home = Home::new(&kept);
            let unmoved = of_unmoved(&home.by_version(), &changes);
            let (told, _) = home.changes(rows_max, moment, &changes);
            prop_assert_eq!(of_unmoved(&told, &changes), unmoved, "all of {:?}", told);
            // Whatever changed is told as it stands at the end.
            let last: BTreeMap<Bytes, u64> = told.into_iter().map(|(version, id)| (id, version)).collect();
            let now = home.by_version().into_iter().map(|(version, id)| (id, version)).collect();
            prop_assert_eq!(last, now);
        }
    }
}

/// As it was first seen: with one row a page, a conversation came twice.
#[test]
fn a_stored_row_that_memory_supersedes_is_not_a_row_of_a_page() {
    let kept = [Kept { stored: Some(1), in_memory: None }, Kept { stored: Some(2), in_memory: Some(3) }];
    let mut home = Home::new(&kept);
    let never = Moment { page: PAGES_MAX, at: At::BeforeTheView };
    assert_eq!(home.list(1, never, &[]), [(3, id(1).to_bytes()), (1, id(0).to_bytes())]);
}

/// Memory is asked first: what a checkpoint stores later is in its view, or belongs to the next sync.
#[test]
fn a_change_after_the_view_is_left_to_the_next_sync() {
    let mut home = Home::new(&[Kept { stored: None, in_memory: Some(1) }]);
    let view: FeedView = home.feed.view(USER);
    home.change(1, 2);
    home.checkpoint();
    let kind = query::Kind::ReadFeed(ReadFeed { user_id: USER.to_bytes(), since_version: 0, rows_max: 9 });
    let version = view.version;
    let answer = query_with_view(&home.store, &Query { kind: Some(kind) }, Some(view)).unwrap();
    let Some(answer::Kind::Feed(page)) = answer.kind else { panic!("{answer:?}") };
    assert_eq!((page.rows.len(), page.version, page.more), (1, version, false));
    assert_eq!(home.changes_page(9, version, None).rows.len(), 1);
}
