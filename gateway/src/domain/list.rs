//! A page of the conversation list: newest activity first, with preview and exact unread count.

use super::calls::{ConversationRead, answer, conversation_if_open, unexpected};
use super::{Asker, Calls, Progress, Step, answered, invalid};
use crate::worker::mailbox::{ShardKey, StorageResult};
use bytes::{BufMut, Bytes, BytesMut};
use prost::{Message, length_delimiter_len};
use wire_protocol::error::RequestError;
use wire_protocol::ids::ConversationId;
use wire_protocol::internal::{FeedRow, ReadConversationList, answer as storage, query};
use wire_protocol::limits::{FRAME_BYTES_MAX, LIST_CONVERSATIONS_MAX};
use wire_protocol::v1::{self, server_frame};

/// Bytes of a page's conversations. Leaves room in the frame for 50 new handles of 28 bytes and the page token.
const LIST_PAGE_BYTES_MAX: usize = FRAME_BYTES_MAX - 2 * 1_024;
/// Bytes of a page token: activity and conversation of the last row told.
const PAGE_TOKEN_BYTES: usize = 8 + 16;
/// The part of the first call; the others are numbered from 0 by row.
const ROWS_PART: u16 = u16::MAX;

/// A page that is being read: first its rows at the home shard, then each conversation at its own.
#[derive(Debug)]
pub struct List {
    rows: Vec<Row>,
    /// There are rows after these.
    more: bool,
    /// Calls without a result.
    waiting: usize,
}

#[derive(Debug)]
struct Row {
    conversation: ConversationId,
    activity_ms: u64,
    /// `None`: not read yet, or left out.
    view: Option<v1::Conversation>,
}

impl List {
    pub(super) fn start(
        asker: &Asker<'_>,
        list: &v1::ListConversations,
        calls: &mut Calls,
    ) -> Result<Self, RequestError> {
        let (before_activity_ms, before_conversation_id) = read_page_token(&list.page_token)?;
        let rows_max = match list.limit as usize {
            0 => LIST_CONVERSATIONS_MAX,
            limit => limit.min(LIST_CONVERSATIONS_MAX),
        };
        let query = query::Kind::ReadConversationList(ReadConversationList {
            user_id: asker.user.to_bytes(),
            rows_max: rows_max as u32,
            before_activity_ms,
            before_conversation_id,
        });
        calls.query(ROWS_PART, ShardKey::User(asker.user), query);
        Ok(Self { rows: Vec::new(), more: false, waiting: 1 })
    }

    pub(super) fn handle_result(
        &mut self,
        asker: &Asker<'_>,
        part: u16,
        result: StorageResult,
        calls: &mut Calls,
    ) -> Step {
        self.waiting -= 1;
        if part == ROWS_PART {
            let storage::Kind::ConversationList(page) = answer(result)? else {
                return Err(unexpected("a list of conversations"));
            };
            self.more = page.more;
            self.rows = page.rows.iter().map(Row::new).collect::<Result<_, _>>()?;
            for (part, row) in self.rows.iter().enumerate() {
                let read = ConversationRead::without_entries(row.conversation);
                calls.read_conversation(part as u16, asker, read);
            }
            self.waiting = self.rows.len();
        } else if let Some(row) = self.rows.get_mut(usize::from(part)) {
            row.view = conversation_if_open(result)?.and_then(|view| view.conversation);
        }
        if self.waiting > 0 { Ok(Progress::Waiting) } else { self.page() }
    }

    /// As many rows as fit the frame; the rest belongs to the next page.
    fn page(&mut self) -> Step {
        let mut page = v1::ConversationPage::default();
        let mut room = LIST_PAGE_BYTES_MAX;
        let mut last_told = None;
        for row in &mut self.rows {
            if let Some(mut conversation) = row.view.take() {
                conversation.members.clear();
                let bytes = conversation.encoded_len();
                let Some(left) = room.checked_sub(1 + length_delimiter_len(bytes) + bytes) else {
                    self.more = true;
                    break;
                };
                room = left;
                page.conversations.push(conversation);
            }
            last_told = Some((row.activity_ms, row.conversation));
        }
        if self.more
            && let Some((activity_ms, conversation)) = last_told
        {
            page.next = page_token(activity_ms, conversation);
        }
        answered(server_frame::Body::ConversationPage(page))
    }
}

impl Row {
    fn new(row: &FeedRow) -> Result<Self, RequestError> {
        let conversation = ConversationId::from_slice(&row.conversation_id);
        let conversation = conversation.ok_or_else(|| unexpected("a conversation's id"))?;
        Ok(Self { conversation, activity_ms: row.activity_ms, view: None })
    }
}

fn page_token(activity_ms: u64, conversation: ConversationId) -> Bytes {
    let mut token = BytesMut::with_capacity(PAGE_TOKEN_BYTES);
    token.put_u64(activity_ms);
    token.put_slice(&conversation.0);
    token.freeze()
}

/// Bounds for storage: 0 and nothing for the first page.
fn read_page_token(token: &Bytes) -> Result<(u64, Bytes), RequestError> {
    if token.is_empty() {
        return Ok((0, Bytes::new()));
    }
    match token.split_first_chunk::<8>() {
        Some((activity_ms, conversation)) if token.len() == PAGE_TOKEN_BYTES => {
            Ok((u64::from_be_bytes(*activity_ms), Bytes::copy_from_slice(conversation)))
        }
        _ => Err(invalid("page_token")),
    }
}

const _: () = {
    // The largest conversation with its preview fits a page: a page always makes progress.
    use wire_protocol::limits::{BODY_BYTES_MAX, TITLE_CHARS_MAX};
    assert!(BODY_BYTES_MAX + 4 * TITLE_CHARS_MAX + 1_024 < LIST_PAGE_BYTES_MAX);
    assert!(LIST_CONVERSATIONS_MAX * 28 + PAGE_TOKEN_BYTES + 64 < FRAME_BYTES_MAX - LIST_PAGE_BYTES_MAX);
    assert!(LIST_CONVERSATIONS_MAX < ROWS_PART as usize);
};

#[cfg(test)]
mod tests {
    use super::super::fake_storage::{FakeStorage, user};
    use super::*;
    use wire_protocol::v1::client_frame;

    fn page(storage: &mut FakeStorage, limit: u32, page_token: Bytes) -> v1::ConversationPage {
        let list = v1::ListConversations { limit, page_token };
        match storage.ask(user(1), client_frame::Body::List(list)) {
            Ok(server_frame::Body::ConversationPage(page)) => page,
            other => panic!("{other:?}"),
        }
    }

    /// Heads of all pages, and how many pages it took.
    fn all(storage: &mut FakeStorage, limit: u32) -> (Vec<Bytes>, usize) {
        let (mut ids, mut token, mut pages) = (Vec::new(), Bytes::new(), 0);
        loop {
            let page = page(storage, limit, token);
            assert!(page.encoded_len() <= FRAME_BYTES_MAX);
            ids.extend(page.conversations.into_iter().map(|conversation| conversation.conversation_id));
            pages += 1;
            assert!(pages < 100, "pages must make progress");
            if page.next.is_empty() {
                return (ids, pages);
            }
            token = page.next;
        }
    }

    #[test]
    fn pages_join_to_the_whole_list_newest_first() {
        let mut storage = FakeStorage::with_users(8);
        let made: Vec<_> = (2..=8).map(|other| storage.direct(1, other, &[10])).collect();
        let newest_first: Vec<_> = made.iter().rev().map(|id| id.to_bytes()).collect();
        assert_eq!(all(&mut storage, 0), (newest_first.clone(), 1));
        assert_eq!(all(&mut storage, 2), (newest_first, 4));
        let first = page(&mut storage, 1, Bytes::new()).conversations.remove(0);
        assert_eq!((first.unread, first.members.len()), (1, 0));
        assert!(first.last.is_some());
    }

    #[test]
    fn large_previews_make_more_pages() {
        let mut storage = FakeStorage::with_users(8);
        let made: Vec<_> = (2..=8).map(|other| storage.direct(1, other, &[16_384])).collect();
        let (ids, pages) = all(&mut storage, 0);
        assert_eq!(ids, made.iter().rev().map(|id| id.to_bytes()).collect::<Vec<_>>());
        assert_eq!(pages, 3, "three previews of 16 KiB a frame");
    }

    #[test]
    fn a_conversation_that_closed_meanwhile_is_left_out() {
        let mut storage = FakeStorage::with_users(4);
        let made: Vec<_> = (2..=4).map(|other| storage.direct(1, other, &[10])).collect();
        storage.close(made[2]);
        let (ids, _) = all(&mut storage, 1);
        assert_eq!(ids, [made[1].to_bytes(), made[0].to_bytes()]);
    }

    #[test]
    fn one_shard_away_fails_the_page_instead_of_hiding_a_conversation() {
        let mut storage = FakeStorage::with_users(4);
        for other in 2..=4 {
            storage.direct(1, other, &[10]);
        }
        for call in 0..4 {
            storage.fail_call(call);
            let list = client_frame::Body::List(v1::ListConversations::default());
            let error = storage.ask(user(1), list).expect_err("a shard is away");
            assert!(error.to_wire().retryable, "call {call}");
        }
    }

    #[test]
    fn a_page_holds_no_more_than_its_largest_number_whatever_is_asked_for() {
        let mut storage = FakeStorage::with_users(60);
        for other in 2..=60 {
            storage.direct(1, other, &[10]);
        }
        for limit in [0, 50, 51, u32::MAX] {
            let page = page(&mut storage, limit, Bytes::new());
            assert_eq!((page.conversations.len(), page.next.is_empty()), (LIST_CONVERSATIONS_MAX, false));
        }
        let rest = all(&mut storage, 0);
        assert_eq!((rest.0.len(), rest.1), (59, 2));
    }

    #[test]
    fn a_page_of_closed_conversations_alone_leads_on() {
        let mut storage = FakeStorage::with_users(6);
        let made: Vec<_> = (2..=6).map(|other| storage.direct(1, other, &[10])).collect();
        made[2..].iter().for_each(|id| storage.close(*id));
        let (ids, pages) = all(&mut storage, 2);
        assert_eq!((ids, pages), (vec![made[1].to_bytes(), made[0].to_bytes()], 3));
    }

    #[test]
    fn a_page_token_of_another_length_is_refused() {
        let mut storage = FakeStorage::with_users(1);
        let list = v1::ListConversations { limit: 0, page_token: Bytes::from_static(b"x") };
        assert!(storage.ask(user(1), client_frame::Body::List(list)).is_err());
    }
}
