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
    use super::*;

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
