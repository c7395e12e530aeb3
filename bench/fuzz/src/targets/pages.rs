//! What an answer to a query may hold, and a store that has more to tell than any answer.

use crate::targets::apply::{carry_out, conversation, device, user};
use bytes::Bytes;
use prost::Message;
use std::ops::Range;
use std::sync::OnceLock;
use storage_node::domain;
use storage_node::engine::MemoryStore;
use wire_protocol::internal::{
    Command, CommandBatch, ConversationView, CreateConversation, FeedCheckpoint, FeedRow, Query,
    ReadConversation, SendMessage, answer, command, outcome, query, read_conversation,
};
use wire_protocol::limits::{
    BODY_BYTES_MAX, DEVICES_MAX, LINK_BATCH_BYTES, LINK_ITEM_BYTES_MAX, LOOK_UP_USERS_MAX, PAGE_BYTES_MAX,
    SYNC_CONVERSATIONS_MAX,
};
use wire_protocol::v1::{ConversationKind, Entry, EntryKind};

/// Most entries of a page, and most rows of a feed or a list: as in `storage-node`.
const ENTRIES_MAX: usize = 2_000;
const ROWS_MAX: usize = 10 * SYNC_CONVERSATIONS_MAX;
/// Of the conversations in the full store the one with too many bytes, which is a group of all, and the one with too many
/// entries, which is direct: the store copies all that a query may look at, and fewer may ask for this one.
const OF_BYTES: usize = 0;
const OF_ENTRIES: usize = 3;

/// Asks, and compares what the answer holds with what it may.
pub(super) fn ask(store: &MemoryStore, asked: &Query) {
    let answered = domain::query(store, asked).expect("memory does not fail");
    let bytes = answered.encoded_len();
    assert!(bytes <= LINK_ITEM_BYTES_MAX, "{bytes} bytes do not fit a link's frame");
    let kind = answered.kind.expect("an answer says something");
    match (&asked.kind, &kind) {
        (_, answer::Kind::Refused(refused)) => assert_ne!(refused.code, 0, "refused for no reason"),
        (Some(query::Kind::ReadConversation(read)), answer::Kind::Conversation(view)) => {
            check_page(read, view);
        }
        (Some(query::Kind::ReadUser(_)), answer::Kind::User(user)) => {
            assert!(user.devices.len() <= DEVICES_MAX);
        }
        (Some(query::Kind::ReadProfiles(read)), answer::Kind::Profiles(profiles)) => {
            assert!(profiles.users.len() <= read.user_ids.len().min(LOOK_UP_USERS_MAX));
        }
        (Some(query::Kind::ReadName(_)), answer::Kind::Name(_)) => {}
        (Some(query::Kind::ReadFeed(read)), answer::Kind::Feed(page)) => {
            check_rows(read.rows_max, page.rows.len(), page.more);
        }
        (Some(query::Kind::ReadConversationList(read)), answer::Kind::ConversationList(page)) => {
            check_rows(read.rows_max, page.rows.len(), page.more);
        }
        (asked, answered) => panic!("{asked:?} was answered by {answered:?}"),
    }
}

/// 0 means the most there is.
fn most(wanted: u32, max: usize) -> usize {
    if wanted == 0 { max } else { max.min(wanted as usize) }
}

fn check_page(read: &ReadConversation, view: &ConversationView) {
    let count = view.entries.len();
    assert!(count <= most(read.entries_max, ENTRIES_MAX), "{count} entries");
    let is_asked_for = !matches!(read.range, None | Some(read_conversation::Range::None(_)));
    assert!(is_asked_for || count == 0, "{count} entries, and nobody asked for them");
    // 0 means a page of clients. Nobody gets more than a batch of a link holds.
    let bytes_max = if read.bytes_max == 0 { PAGE_BYTES_MAX } else { read.bytes_max as usize };
    let bytes_max = bytes_max.min(LINK_BATCH_BYTES);
    // With tag and length, as they travel.
    let travelling = |entry: &Entry| {
        let bytes = entry.encoded_len();
        1 + prost::length_delimiter_len(bytes) + bytes
    };
    let bytes: usize = view.entries.iter().map(travelling).sum();
    // One entry comes however few bytes are allowed, so that readers get on.
    assert!(bytes <= bytes_max || count == 1, "{count} entries of {bytes} bytes, {bytes_max} are allowed");
}

fn check_rows(wanted: u32, count: usize, more: bool) {
    let max = most(wanted, ROWS_MAX);
    assert!(count <= max, "{count} rows, {max} are allowed");
    assert!(!more || count == max, "there is more, and {count} of {max} rows came");
}

/// A conversation of more bytes than a page has, another one of more entries, and a user's feed of more rows. Made once.
pub(super) fn full_store() -> &'static MemoryStore {
    static FULL: OnceLock<MemoryStore> = OnceLock::new();
    FULL.get_or_init(|| {
        let store = MemoryStore::new();
        let mut commands = vec![
            created(OF_BYTES, ConversationKind::Group, 0..4),
            created(OF_ENTRIES, ConversationKind::Direct, 1..3),
        ];
        let bodies = LINK_BATCH_BYTES / BODY_BYTES_MAX + 2;
        commands.extend((1..=bodies).map(|number| sent(OF_BYTES, number, BODY_BYTES_MAX)));
        commands.extend((1..=ENTRIES_MAX).map(|number| sent(OF_ENTRIES, number, 1)));
        commands.push(command::Kind::FeedCheckpoint(FeedCheckpoint {
            rows: (1..=ROWS_MAX + 1).map(row).collect(),
            positions: Vec::new(),
        }));
        let commands = commands.into_iter().map(|kind| Command { kind: Some(kind) }).collect();
        let batch = CommandBatch { time_ms: 1_000, commands, feed_cut: 0, log_cut: 0 };
        for applied in carry_out(&store, 1, &batch) {
            let is_refused = matches!(applied.outcome.kind, Some(outcome::Kind::Refused(_)));
            assert!(!is_refused, "{:?}", applied.outcome);
        }
        store
    })
}

fn created(number: usize, kind: ConversationKind, members: Range<usize>) -> command::Kind {
    command::Kind::CreateConversation(CreateConversation {
        conversation_id: conversation(number),
        kind: kind as u32,
        member_ids: members.map(user).collect(),
        title: String::new(),
    })
}

fn sent(to: usize, number: usize, body_bytes: usize) -> command::Kind {
    command::Kind::SendMessage(SendMessage {
        conversation_id: conversation(to),
        user_id: user(1),
        device_id: device(1, 0),
        client_message_id: number as u64,
        predecessor: 0,
        kind: EntryKind::Text as u32,
        body: Bytes::from(vec![b'x'; body_bytes]),
    })
}

fn row(number: usize) -> FeedRow {
    let number = number as u64;
    let mut id = [0xe0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    FeedRow {
        user_id: user(0),
        conversation_id: Bytes::copy_from_slice(&id),
        version: number,
        top_seq: 1,
        activity_ms: number,
    }
}
