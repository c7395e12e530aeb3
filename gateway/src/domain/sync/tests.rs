use super::super::fake_storage::{FakeStorage, user};
use super::*;
use std::collections::BTreeMap;
use wire_protocol::v1::client_frame;

/// A client that keeps what it is told, as the protocol says it should.
#[derive(Default)]
struct Client {
    version: u64,
    /// Newest entry held, by conversation.
    tops: BTreeMap<Vec<u8>, u64>,
    pages: usize,
}

impl Client {
    fn page(
        &mut self,
        storage: &mut FakeStorage,
        cursors: Vec<v1::SyncCursor>,
        named_only: bool,
    ) -> v1::SyncPage {
        let named: Vec<_> = cursors.iter().map(|cursor| cursor.conversation_id.clone()).collect();
        let sync = v1::Sync { since_version: self.version, cursors, named_only };
        let page = match storage.ask(user(1), client_frame::Body::Sync(sync)) {
            Ok(server_frame::Body::SyncPage(page)) => page,
            other => panic!("{other:?}"),
        };
        self.pages += 1;
        assert!(page.encoded_len() <= SYNC_PAGE_BYTES_MAX + 64);
        assert!(page.conversations.len() <= SYNC_CONVERSATIONS_MAX);
        if page.conversations.iter().any(|delta| delta.truncated) {
            assert!(page.more && page.version == self.version, "a cut page does not move the version");
        }
        for (place, delta) in page.conversations.iter().enumerate() {
            let conversation = delta.conversation.as_ref().expect("always told");
            let may_be_cut = place == 0 || named.contains(&conversation.conversation_id);
            assert!(!delta.truncated || may_be_cut, "a changed conversation is cut in the middle of a page");
            let top = self.tops.entry(conversation.conversation_id.to_vec()).or_default();
            for entry in &delta.entries {
                assert!(entry.seq <= *top + 1 || *top == 0, "a gap before {}", entry.seq);
                *top = (*top).max(entry.seq);
            }
            assert!(delta.truncated || *top == conversation.head_seq);
        }
        self.version = page.version;
        page
    }

    /// Until there is no more; which conversations were told of, in order.
    fn sync(&mut self, storage: &mut FakeStorage, named: &[ConversationId]) -> Vec<ConversationId> {
        let mut told = Vec::new();
        let mut cut = Vec::new();
        for _ in 0..1_000 {
            let cursors = named.iter().chain(&cut).map(|id| self.cursor(*id)).collect();
            let page = self.page(storage, cursors, false);
            let ids = |delta: &v1::ConversationDelta| {
                let conversation = delta.conversation.as_ref().expect("always told");
                ConversationId::from_slice(&conversation.conversation_id).expect("16 bytes")
            };
            told.extend(page.conversations.iter().map(ids));
            cut = page.conversations.iter().filter(|delta| delta.truncated).map(ids).collect();
            if !page.more {
                return told;
            }
        }
        panic!("sync makes no progress");
    }

    fn cursor(&self, id: ConversationId) -> v1::SyncCursor {
        let after_seq = self.tops.get(&id.0[..]).copied().unwrap_or(0);
        v1::SyncCursor { handle: 0, conversation_id: id.to_bytes(), after_seq }
    }
}

#[test]
fn everything_arrives_in_one_small_page() {
    let mut storage = FakeStorage::with_users(5);
    let made: Vec<_> = (2..=5).map(|other| storage.direct(1, other, &[100, 100])).collect();
    let mut client = Client::default();
    assert_eq!(client.sync(&mut storage, &[]), made);
    assert_eq!((client.pages, client.version), (1, storage.version(user(1))));
    assert!(client.sync(&mut storage, &[]).is_empty(), "nothing changed since");
    storage.append(made[2], 2, 50);
    assert_eq!(client.sync(&mut storage, &[]), [made[2]]);
}

#[test]
fn members_and_no_preview_are_told() {
    let mut storage = FakeStorage::with_users(2);
    storage.direct(1, 2, &[100]);
    let page = Client::default().page(&mut storage, vec![], false);
    let conversation = page.conversations[0].conversation.as_ref().expect("told");
    assert_eq!((conversation.members.len(), conversation.last.is_none()), (2, true));
}

#[test]
fn large_conversations_take_pages_and_nothing_is_missed() {
    let mut storage = FakeStorage::with_users(5);
    let made: Vec<_> = (2..=5).map(|other| storage.direct(1, other, &[16_384; 10])).collect();
    storage.append(made[0], 1, 7);
    let mut client = Client::default();
    for id in &made {
        client.tops.insert(id.0.to_vec(), 0);
        storage.acknowledge(*id, 1, 1);
    }
    client.sync(&mut storage, &[]);
    for id in &made {
        assert_eq!(client.tops[&id.0[..]], storage.head(*id));
    }
    assert_eq!(client.version, storage.version(user(1)));
    // Two bodies of 16 KiB fit a page; 40 of them and the small one are 20 pages and a few.
    assert!((20..=24).contains(&client.pages), "{} pages", client.pages);
}

#[test]
fn nothing_is_told_behind_a_conversation_that_was_cut() {
    let mut storage = FakeStorage::with_users(4);
    let made = [storage.direct(1, 2, &[16_384; 5]), storage.direct(1, 3, &[10])];
    made.iter().for_each(|id| storage.acknowledge(*id, 1, 0));
    let mut client = Client::default();
    let page = client.page(&mut storage, vec![], false);
    assert_eq!((page.conversations.len(), page.more), (1, true));
    client.sync(&mut storage, &[made[0]]);
    assert!(made.iter().all(|id| client.tops[&id.0[..]] == storage.head(*id)));
    assert_eq!(client.version, storage.version(user(1)));
}

#[test]
fn what_a_page_has_no_room_for_is_said_of_whoever_is_named() {
    let mut storage = FakeStorage::with_users(4);
    let made = [storage.direct(1, 2, &[3_000; 10]), storage.direct(1, 3, &[3_000; 10])];
    let mut client = Client { version: storage.version(user(1)), ..Client::default() };
    // Both hold the note of their creation, so that gaps are seen.
    client.tops.extend(made.iter().map(|id| (id.0.to_vec(), 1)));
    let cursors = made.iter().map(|id| client.cursor(*id)).collect();
    let page = client.page(&mut storage, cursors, true);
    let told: Vec<_> =
        page.conversations.iter().map(|delta| (delta.entries.len(), delta.truncated)).collect();
    assert_eq!((told, page.more), (vec![(10, false), (3, true)], true));
    // One that was only changed waits for a page of its own instead.
    let mut stranger = Client::default();
    made.iter().for_each(|id| storage.acknowledge(*id, 1, 0));
    assert_eq!(stranger.sync(&mut storage, &[]), made);
    assert_eq!(stranger.pages, 2);
}

#[test]
fn groups_with_many_members_take_pages_even_without_entries() {
    let mut storage = FakeStorage::with_users(99);
    let mut client = Client::default();
    for creation_id in 1..=40 {
        let create = client_frame::Body::Create(v1::CreateConversation {
            kind: v1::ConversationKind::Group as i32,
            member_ids: (2..=99).map(|number| user(number).to_bytes()).collect(),
            title: "é".repeat(100),
            creation_id,
        });
        storage.ask(user(1), create).expect("a good group");
        // The device holds its one entry: nothing is to be told but the group itself.
        let id = ConversationId::group(user(1), creation_id);
        storage.acknowledge(id, 1, 1);
        client.tops.insert(id.0.to_vec(), 1);
    }
    assert_eq!(client.sync(&mut storage, &[]).len(), 40);
    assert!(client.pages > 1);
}

#[test]
fn a_conversation_that_changed_without_entries_is_told_to_who_holds_them_all() {
    let mut storage = FakeStorage::with_users(3);
    let made = storage.direct(1, 2, &[100]);
    let mut client = Client::default();
    client.sync(&mut storage, &[]);
    assert!(client.sync(&mut storage, &[made]).is_empty());
    storage.touch(made);
    assert_eq!(client.sync(&mut storage, &[made]), [made]);
}

#[test]
fn more_conversations_than_a_page_holds() {
    let mut storage = FakeStorage::with_users(251);
    let made: Vec<_> = (2..=251).map(|other| storage.direct(1, other, &[1])).collect();
    let mut client = Client::default();
    assert_eq!(client.sync(&mut storage, &[]), made);
    assert_eq!(client.pages, 3);
}

#[test]
fn named_conversations_come_first_and_only_if_they_moved() {
    let mut storage = FakeStorage::with_users(5);
    let made: Vec<_> = (2..=5).map(|other| storage.direct(1, other, &[100])).collect();
    let mut client = Client::default();
    client.sync(&mut storage, &[]);
    // The client lost the last entry of one; another has news; a third is as it was.
    *client.tops.get_mut(&made[3].0[..]).expect("synced") -= 1;
    storage.append(made[0], 2, 10);
    assert_eq!(client.sync(&mut storage, &[made[3], made[1]]), [made[3], made[0]]);
}

#[test]
fn naming_alone_leaves_the_version() {
    let mut storage = FakeStorage::with_users(3);
    let made: Vec<_> = (2..=3).map(|other| storage.direct(1, other, &[100, 100])).collect();
    let mut client = Client { version: 77, ..Client::default() };
    let cursor = |after_seq| v1::SyncCursor { handle: 0, conversation_id: made[1].to_bytes(), after_seq };
    let page = client.page(&mut storage, vec![cursor(2), cursor(1)], true);
    assert_eq!((page.conversations.len(), page.version, page.more), (1, 77, false));
    assert_eq!(page.conversations[0].entries.len(), 2, "from the lower of both cursors");
    let nothing = v1::Sync { named_only: true, ..Default::default() };
    assert!(storage.ask(user(1), client_frame::Body::Sync(nothing)).is_err());
}

#[test]
fn a_thousand_stale_names_are_told_page_by_page() {
    let mut storage = FakeStorage::with_users(251);
    let made: Vec<_> = (2..=251).map(|other| storage.direct(1, other, &[1])).collect();
    let mut client = Client { version: storage.version(user(1)), ..Client::default() };
    let mut told = Vec::new();
    for _ in 0..3 {
        let cursors = made.iter().map(|id| client.cursor(*id)).collect();
        let page = client.page(&mut storage, cursors, true);
        told.push((page.conversations.len(), page.more));
    }
    assert_eq!(told, [(100, true), (100, true), (50, false)]);
}

#[test]
fn conversations_that_closed_are_passed_over() {
    let mut storage = FakeStorage::with_users(4);
    let made: Vec<_> = (2..=4).map(|other| storage.direct(1, other, &[10])).collect();
    storage.close(made[1]);
    let mut client = Client::default();
    assert_eq!(client.sync(&mut storage, &[]), [made[0], made[2]]);
    assert_eq!(client.version, storage.version(user(1)));
}

#[test]
fn one_shard_away_fails_the_page_retryably() {
    let mut storage = FakeStorage::with_users(4);
    for other in 2..=4 {
        storage.direct(1, other, &[10]);
    }
    for call in 0..4 {
        storage.fail_call(call);
        let error = storage.ask(user(1), client_frame::Body::Sync(v1::Sync::default())).expect_err("away");
        assert!(error.to_wire().retryable, "call {call}");
    }
}

#[test]
fn a_version_from_the_future_is_set_right() {
    let mut storage = FakeStorage::with_users(2);
    storage.direct(1, 2, &[10]);
    let mut client = Client { version: 1 << 60, ..Client::default() };
    client.sync(&mut storage, &[]);
    assert_eq!(client.version, storage.version(user(1)));
}

#[test]
fn too_many_cursors_are_refused() {
    let mut storage = FakeStorage::with_users(1);
    let cursor = v1::SyncCursor { conversation_id: vec![1; 16].into(), ..Default::default() };
    let sync = v1::Sync { cursors: vec![cursor; SYNC_CURSORS_MAX + 1], ..Default::default() };
    assert!(storage.ask(user(1), client_frame::Body::Sync(sync)).is_err());
}
