//! Single cases of a page made of stored rows and rows in memory.

use crate::feed::{FeedView, merge_feed_page};
use bytes::Bytes;
use wire_protocol::internal::{FeedPage, FeedRow, ReadFeed};

fn row(conversation: u8, version: u64) -> FeedRow {
    FeedRow { conversation_id: Bytes::from(vec![conversation; 16]), version, ..FeedRow::default() }
}

fn versions(page: &FeedPage) -> Vec<u64> {
    page.rows.iter().map(|row| row.version).collect()
}

fn read(rows_max: u32) -> ReadFeed {
    ReadFeed { rows_max, ..ReadFeed::default() }
}

/// A reader goes on from the last row: had the row in memory come with this page, the stored ones between would
/// never be read.
#[test]
fn a_row_in_memory_does_not_overtake_stored_ones_that_are_still_unread() {
    // Stored: 1 and 2 in this page, 3 in the next. Conversation 1 has changed again since.
    let stored = FeedPage { rows: vec![row(1, 1), row(2, 2)], version: 3, more: true };
    let view = FeedView { rows: vec![row(1, 10)], version: 10 };
    let page = merge_feed_page(stored, view.clone(), &read(2));
    assert_eq!((versions(&page), page.more), (vec![2], true));
    let rest = FeedPage { rows: vec![row(3, 3)], version: 3, more: false };
    let page = merge_feed_page(rest, view, &ReadFeed { since_version: 2, ..read(2) });
    assert_eq!((versions(&page), page.more, page.version), (vec![3, 10], false, 10));
}

/// A session that attaches hears the version of the user's newest row, and syncs if it stored another one.
#[test]
fn the_version_is_that_of_the_user_s_newest_row() {
    let shard_version = 99;
    let view = |rows| FeedView { rows, version: shard_version };
    let stored = || FeedPage { rows: vec![row(1, 4)], version: 4, more: false };
    assert_eq!(merge_feed_page(stored(), view(vec![]), &read(9)).version, 4);
    assert_eq!(merge_feed_page(stored(), view(vec![row(2, 7)]), &read(9)).version, 7);
    let nothing = FeedPage { version: 4, ..FeedPage::default() };
    let asked = ReadFeed { since_version: 4, ..read(9) };
    assert_eq!(merge_feed_page(nothing, view(vec![]), &asked).version, 4);
}
