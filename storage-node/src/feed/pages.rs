//! Stored pages and the rows in memory, made one: what `ReadFeed` and `ReadConversationList` answer.
//!
//! The order of looking matters: first [`HomeFeed::view`](super::HomeFeed::view), then the stored page. A row that a
//! checkpoint moves from memory to the store in between is then seen at least once.

use super::home::FeedView;
use std::collections::{BTreeMap, BTreeSet};
use wire_protocol::internal::{ConversationListPage, FeedPage, FeedRow, ReadConversationList, ReadFeed};

/// Makes one page of changes. The view must be older than the stored page.
///
/// While `more` is set the reader goes on from the last row's version; afterwards `version` is what it stores. A
/// conversation may come again in a later page, with a higher version.
pub fn merge_feed_page(stored: FeedPage, view: FeedView, query: &ReadFeed) -> FeedPage {
    let FeedPage { mut rows, version, mut more } = stored;
    let stored_count = rows.len();
    rows.retain(|row| row.version <= view.version);
    more &= rows.len() == stored_count;
    // Stored rows above the last one are still unread: rows in memory must not overtake them.
    let end = if more { rows.last().map_or(0, |row| row.version) } else { u64::MAX };
    let newest_in_memory = view.rows.iter().map(|row| row.version).max().unwrap_or(0);
    // After a crash the newest rows may not have come back yet: they will, with still newer versions.
    let version = version.max(newest_in_memory).min(view.version).max(query.since_version);

    let mut in_memory = by_conversation(view.rows);
    drop_superseded(&mut rows, &mut in_memory, more);
    let is_due = |row: &FeedRow| row.version > query.since_version && row.version <= end;
    rows.extend(in_memory.into_values().filter(is_due));
    rows.sort_unstable_by_key(|row| row.version);
    more |= cut(&mut rows, query.rows_max);
    FeedPage { rows, version, more }
}

/// Makes one page of the list, newest activity first. The view must be older than the stored page.
///
/// While `more` is set the reader goes on below the last row. A conversation that moves up between two pages may be
/// in none or in both, as in any list that changes under its reader.
pub fn merge_list_page(
    stored: ConversationListPage,
    view: FeedView,
    query: &ReadConversationList,
) -> ConversationListPage {
    let ConversationListPage { mut rows, mut more } = stored;
    let before = (query.before_activity_ms, query.before_conversation_id.as_ref());
    let is_first_page = query.before_conversation_id.is_empty();
    let last = rows.last().cloned().filter(|_| more);
    let mut in_memory = by_conversation(view.rows);
    drop_superseded(&mut rows, &mut in_memory, more);
    rows.extend(in_memory.into_values().filter(|row| {
        let is_below = is_first_page || place(row) < before;
        is_below && last.as_ref().is_none_or(|last| place(row) >= place(last))
    }));
    rows.sort_unstable_by(|a, b| place(b).cmp(&place(a)));
    let mut seen = BTreeSet::new();
    rows.retain(|row| seen.insert(row.conversation_id.clone()));
    more |= cut(&mut rows, query.rows_max);
    ConversationListPage { rows, more }
}

fn place(row: &FeedRow) -> (u64, &[u8]) {
    (row.activity_ms, row.conversation_id.as_ref())
}

fn by_conversation(rows: Vec<FeedRow>) -> BTreeMap<Vec<u8>, FeedRow> {
    rows.into_iter().map(|row| (row.conversation_id.to_vec(), row)).collect()
}

/// Leaves the newer one of a stored row and a row in memory; but keeps the last stored one of a page that is followed by
/// more, from which the reader goes on.
fn drop_superseded(rows: &mut Vec<FeedRow>, in_memory: &mut BTreeMap<Vec<u8>, FeedRow>, more: bool) {
    let last = if more { rows.last().map(|row| row.version) } else { None };
    rows.retain(|row| match in_memory.get(row.conversation_id.as_ref()) {
        Some(kept) if kept.version > row.version => last == Some(row.version),
        // A checkpoint stored it between the two looks.
        Some(_) => {
            in_memory.remove(row.conversation_id.as_ref());
            true
        }
        None => true,
    });
}

/// Cuts a page to its size. Says whether there was more.
fn cut(rows: &mut Vec<FeedRow>, rows_max: u32) -> bool {
    let rows_max = crate::domain::feed::rows_max(rows_max);
    let is_over = rows.len() > rows_max;
    rows.truncate(rows_max);
    is_over
}
