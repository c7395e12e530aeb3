//! Stored rows and the rows in memory, made one: what `ReadFeed` and `ReadConversationList` answer.
//!
//! A row in memory stands for its conversation: the scan of the store leaves out whatever the view holds, so that
//! both parts are disjoint and the last row of a page is always where the next page goes on. Without changes
//! between them, joined pages hold each conversation once, in order, whatever a checkpoint moves meanwhile; with
//! changes, every conversation that did not move.
//!
//! The order of looking matters: first [`HomeFeed::view`](super::HomeFeed::view), then the store. A row that a
//! checkpoint moves from memory to the store in between is in the view. Called by `worker/` on read threads.

use super::home::FeedView;
use crate::domain::{self, Hidden, Stop, feed};
use crate::engine::{Reader, StoreError};
use wire_protocol::ids::ConversationId;
use wire_protocol::internal::{
    Answer, ConversationListPage, FeedPage, FeedRow, Query, ReadConversationList, ReadFeed, answer, query,
};

/// Answers a query from the store, and those about a user's feed from the view, too. The view must have been taken
/// before this call.
pub fn query_with_view(
    reader: &dyn Reader,
    query: &Query,
    view: Option<FeedView>,
) -> Result<Answer, StoreError> {
    let kind = match (&query.kind, view) {
        (Some(query::Kind::ReadFeed(read)), Some(view)) => {
            changes(reader, read, view).map(answer::Kind::Feed)
        }
        (Some(query::Kind::ReadConversationList(read)), Some(view)) => {
            list(reader, read, view).map(answer::Kind::ConversationList)
        }
        _ => return domain::query(reader, query),
    };
    domain::answered(kind)
}

/// One page of changes. While `more` is set the reader goes on from the last row's version; afterwards `version` is
/// what it stores.
fn changes(reader: &dyn Reader, query: &ReadFeed, view: FeedView) -> Result<FeedPage, Stop> {
    let FeedPage { mut rows, version, mut more } = feed::read(reader, query, &hidden(&view))?;
    let newest_in_memory = view.rows.iter().map(|row| row.version).max().unwrap_or(0);
    // After a crash the newest rows may not have come back yet: they will, with still newer versions.
    let version = version.max(newest_in_memory).min(view.version).max(query.since_version);
    rows.extend(view.rows.into_iter().filter(|row| row.version > query.since_version));
    rows.sort_unstable_by_key(|row| row.version);
    more |= cut(&mut rows, query.rows_max);
    Ok(FeedPage { rows, version, more })
}

/// One page of the list, newest activity first. While `more` is set the reader goes on below the last row. A
/// conversation that moves up between two pages may be in none or in both, as in any list that changes under its
/// reader.
fn list(
    reader: &dyn Reader,
    query: &ReadConversationList,
    view: FeedView,
) -> Result<ConversationListPage, Stop> {
    let ConversationListPage { mut rows, mut more } = feed::read_list(reader, query, &hidden(&view))?;
    let before = (query.before_activity_ms, query.before_conversation_id.as_ref());
    let is_below = |row: &FeedRow| query.before_conversation_id.is_empty() || place(row) < before;
    // Joining only ever moves a row up: what is not below the bound now, is not afterwards.
    for row in view.rows.into_iter().filter(is_below) {
        let row = feed::join_stored(reader, row)?;
        if is_below(&row) {
            rows.push(row);
        }
    }
    rows.sort_unstable_by(|a, b| place(b).cmp(&place(a)));
    more |= cut(&mut rows, query.rows_max);
    Ok(ConversationListPage { rows, more })
}

fn place(row: &FeedRow) -> (u64, &[u8]) {
    (row.activity_ms, row.conversation_id.as_ref())
}

fn hidden(view: &FeedView) -> Hidden {
    let id = |row: &FeedRow| ConversationId::from_slice(&row.conversation_id);
    Hidden { conversations: view.rows.iter().filter_map(id).collect(), above_version: view.version }
}

/// Cuts a page to its size. Says whether there was more.
fn cut(rows: &mut Vec<FeedRow>, rows_max: u32) -> bool {
    let rows_max = feed::rows_max(rows_max);
    let is_over = rows.len() > rows_max;
    rows.truncate(rows_max);
    is_over
}
