//! A page of one conversation's entries, in one direction.

use super::calls::{ConversationRead, conversation_id, conversation_view, unexpected};
use super::{Asker, Calls, Step, answered, invalid};
use crate::worker::mailbox::StorageResult;
use prost::Message;
use prost::length_delimiter_len;
use wire_protocol::error::RequestError;
use wire_protocol::ids::ConversationId;
use wire_protocol::internal::read_conversation::Range;
use wire_protocol::limits::{HISTORY_ENTRIES_MAX, PAGE_BYTES_MAX};
use wire_protocol::v1::{self, server_frame};

/// A page that is being read.
#[derive(Debug)]
pub struct History {
    conversation: ConversationId,
    keep: Keep,
}

/// Which end of a page stays when it does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keep {
    Oldest,
    Newest,
}

impl History {
    pub(super) fn start(
        asker: &Asker<'_>,
        history: &v1::History,
        calls: &mut Calls,
    ) -> Result<Self, RequestError> {
        let conversation = conversation_id(&history.conversation_id)?;
        let (range, keep) = match (history.before_seq, history.after_seq) {
            (0, 0) => (Range::Latest(true), Keep::Newest),
            (before_seq, 0) => (Range::BeforeSeq(before_seq), Keep::Newest),
            (0, after_seq) => (Range::AfterSeq(after_seq), Keep::Oldest),
            _ => return Err(invalid("before_seq and after_seq exclude each other")),
        };
        let entries_max = match history.limit as usize {
            0 => HISTORY_ENTRIES_MAX,
            limit => limit.min(HISTORY_ENTRIES_MAX),
        };
        let read = ConversationRead {
            conversation,
            with_members: false,
            range,
            entries_max,
            bytes_max: PAGE_BYTES_MAX,
        };
        calls.read_conversation(0, asker, read);
        Ok(Self { conversation, keep })
    }

    pub(super) fn handle_result(&mut self, result: StorageResult) -> Step {
        let view = conversation_view(result)?;
        let head_seq = view.conversation.ok_or_else(|| unexpected("a conversation"))?.head_seq;
        let mut entries = view.entries;
        fit_entries(&mut entries, PAGE_BYTES_MAX, self.keep);
        answered(server_frame::Body::HistoryPage(v1::HistoryPage {
            handle: 0,
            conversation_id: self.conversation.to_bytes(),
            entries,
            head_seq,
        }))
    }
}

/// Bytes of an entry as one of a repeated field with a small number.
pub(super) fn entry_bytes(entry: &v1::Entry) -> usize {
    let bytes = entry.encoded_len();
    1 + length_delimiter_len(bytes) + bytes
}

/// Cuts entries at one end until they fit; whether any went.
pub(super) fn fit_entries(entries: &mut Vec<v1::Entry>, bytes_max: usize, keep: Keep) -> bool {
    let mut room = bytes_max;
    let mut fits = |entry: &v1::Entry| match room.checked_sub(entry_bytes(entry)) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    };
    let fitting = match keep {
        Keep::Oldest => entries.iter().take_while(|entry| fits(entry)).count(),
        Keep::Newest => entries.iter().rev().take_while(|entry| fits(entry)).count(),
    };
    let cut = entries.len() - fitting;
    match keep {
        Keep::Oldest => entries.truncate(fitting),
        Keep::Newest => drop(entries.drain(..cut)),
    }
    cut > 0
}

#[cfg(test)]
mod tests {
    use super::super::fake_storage::user;
    use super::super::{Asker, Calls, Progress};
    use super::*;
    use crate::router::Router;
    use wire_protocol::ids::DeviceId;
    use wire_protocol::internal::{
        Answer, ConversationView, Query, ReadConversation, answer, query, shard_request, shard_response,
    };
    use wire_protocol::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX};

    /// The request's state, and what it asks of storage.
    fn start(
        before_seq: u64,
        after_seq: u64,
        limit: u32,
    ) -> Result<(History, ReadConversation), RequestError> {
        let router = Router::embedded(4);
        let asker = Asker { user: user(1), device: DeviceId([9; 16]), server_time_ms: 0, router: &router };
        let conversation_id = vec![3; 16].into();
        let history = v1::History { conversation_id, before_seq, after_seq, limit, handle: 0 };
        let mut calls = Calls::default();
        let history = History::start(&asker, &history, &mut calls)?;
        let call = calls.drain().next().expect("one call");
        match call.operation {
            shard_request::Operation::Query(Query { kind: Some(query::Kind::ReadConversation(read)) }) => {
                Ok((history, read))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_bound_asks_for_its_range_and_never_for_more_than_a_page() {
        for (before_seq, after_seq, range) in
            [(0, 0, Range::Latest(true)), (7, 0, Range::BeforeSeq(7)), (0, 7, Range::AfterSeq(7))]
        {
            for (limit, entries_max) in [(0, 50), (1, 1), (49, 49), (50, 50), (51, 50), (u32::MAX, 50)] {
                let (_, read) = start(before_seq, after_seq, limit).expect("a good request");
                assert_eq!((read.range, read.entries_max), (Some(range), entries_max), "limit {limit}");
                assert_eq!(read.bytes_max as usize, PAGE_BYTES_MAX);
            }
        }
        assert!(start(7, 3, 0).is_err(), "both bounds");
    }

    #[test]
    fn a_page_that_storage_made_too_large_keeps_the_end_that_was_asked_for() {
        for (before_seq, after_seq, seqs) in [(0, 0, [3, 4]), (5, 0, [3, 4]), (0, 1, [1, 2])] {
            let (mut history, _) = start(before_seq, after_seq, 0).expect("a good request");
            let view = ConversationView {
                conversation: Some(v1::Conversation { head_seq: 9, ..Default::default() }),
                entries: entries(&[BODY_BYTES_MAX; 4]),
                truncated: false,
            };
            let answer = Answer { kind: Some(answer::Kind::Conversation(view)) };
            let step = history.handle_result(Ok(shard_response::Result::Answer(answer))).expect("a page");
            let Progress::Answered(server_frame::Body::HistoryPage(page)) = step else { panic!("{step:?}") };
            assert!(page.encoded_len() < FRAME_BYTES_MAX);
            assert_eq!(page.head_seq, 9);
            assert!(page.entries.iter().map(|entry| entry.seq).eq(seqs), "{before_seq} {after_seq}");
        }
    }

    fn entries(bodies: &[usize]) -> Vec<v1::Entry> {
        let entry = |(index, &bytes): (usize, &usize)| v1::Entry {
            seq: index as u64 + 1,
            body: vec![7; bytes].into(),
            ..Default::default()
        };
        bodies.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn pages_are_cut_at_the_far_end() {
        let whole = entries(&[100, 100, 100]);
        let bytes = entry_bytes(&whole[0]);
        let seqs = |entries: &[v1::Entry]| entries.iter().map(|entry| entry.seq).collect::<Vec<_>>();
        for (room, keep, left) in [
            (3 * bytes, Keep::Oldest, vec![1, 2, 3]),
            (3 * bytes - 1, Keep::Oldest, vec![1, 2]),
            (2 * bytes, Keep::Newest, vec![2, 3]),
            (bytes - 1, Keep::Newest, vec![]),
        ] {
            let mut page = whole.clone();
            assert_eq!(fit_entries(&mut page, room, keep), left.len() < 3);
            assert_eq!(seqs(&page), left, "{room} {keep:?}");
        }
    }

    #[test]
    fn counted_bytes_are_encoded_bytes() {
        let page = v1::HistoryPage { entries: entries(&[0, 1, 127, 128, 16_384]), ..Default::default() };
        assert_eq!(page.entries.iter().map(entry_bytes).sum::<usize>(), page.encoded_len());
    }
}
