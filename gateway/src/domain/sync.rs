//! Catching up: what changed since a version, read from many shards at once, answered in one ordered page.
//!
//! ```text
//! feed rows (home shard) ─> reads, at most SYNC_WAVE at a time ─> placed in order ─> page full or all placed
//! ```
//!
//! A page holds the conversations that the client named first, in its order, then the changed ones by version.
//! What does not fit is left for the next page, which the client asks for with the cursors it then has: so every
//! page makes progress, and the version only passes a conversation whose entries were all told. Only the first
//! conversation of a page, or a named one, is ever cut in the middle.

use super::calls::{ConversationRead, answer, conversation_id, conversation_if_open, unexpected};
use super::history::{Keep, entry_bytes, fit_entries};
use super::{Asker, Calls, Progress, Step, answered, invalid};
use crate::worker::mailbox::{ShardKey, StorageResult};
use prost::{Message, length_delimiter_len};
use std::collections::HashMap;
use wire_protocol::error::RequestError;
use wire_protocol::ids::ConversationId;
use wire_protocol::internal::read_conversation::Range;
use wire_protocol::internal::{ConversationView, FeedPage, ReadFeed, answer as storage, query};
use wire_protocol::limits::{FRAME_BYTES_MAX, PAGE_BYTES_MAX, SYNC_CONVERSATIONS_MAX, SYNC_CURSORS_MAX};
use wire_protocol::v1::{self, server_frame};

/// Conversations of one sync that are read at the same time: with full pages, 32 × 40 KiB are held for one
/// answer of 64 KiB.
const SYNC_WAVE: usize = 32;
/// Entries asked of one conversation: more than 1,000 of the smallest do not fit a page anyway.
const SYNC_ENTRIES_MAX: usize = 2_000;
/// Bytes of a whole page. Leaves room in the frame for 100 new handles of 28 bytes.
const SYNC_PAGE_BYTES_MAX: usize = FRAME_BYTES_MAX - 4 * 1_024;
/// The part of the feed's call; the others are numbered by target.
const FEED_PART: u16 = u16::MAX;

/// A page that is being read.
#[derive(Debug)]
pub struct Sync {
    since_version: u64,
    feed: Option<Feed>,
    /// Named conversations, then changed ones by version.
    targets: Vec<Target>,
    /// Targets whose read was sent.
    read: usize,
    /// Targets that are in the page, or that there was nothing to tell of.
    placed: usize,
    /// Calls without a result.
    waiting: usize,
    page: Page,
}

/// What the home shard said.
#[derive(Debug)]
struct Feed {
    /// By version: row's version, and its conversation's place among the targets.
    rows: Vec<(u64, usize)>,
    /// The user's newest version.
    version: u64,
    /// There are rows after these.
    more: bool,
}

#[derive(Debug)]
struct Target {
    conversation: ConversationId,
    /// Where the client stands, if it said so.
    after_seq: Option<u64>,
    /// It has a row in the feed: it changed, though perhaps only a cursor.
    changed: bool,
    view: Option<ConversationView>,
}

#[derive(Debug, Default)]
struct Page {
    deltas: Vec<v1::ConversationDelta>,
    /// Encoded bytes of all deltas.
    bytes: usize,
    /// Of which entries.
    entry_bytes: usize,
    /// A conversation was cut: the page ends with it, and the version stays.
    truncated: bool,
}

/// What became of a conversation.
#[derive(PartialEq, Eq)]
enum Placed {
    /// In the page, or nothing to tell.
    Done,
    /// Left for the next page.
    NoRoom,
}

impl Sync {
    pub(super) fn start(asker: &Asker<'_>, sync: v1::Sync, calls: &mut Calls) -> Result<Self, RequestError> {
        if sync.cursors.len() > SYNC_CURSORS_MAX {
            return Err(invalid(format!("cursors: more than {SYNC_CURSORS_MAX}")));
        }
        let mut work = Self {
            since_version: sync.since_version,
            feed: None,
            targets: named(&sync.cursors)?,
            read: 0,
            placed: 0,
            waiting: 0,
            page: Page::default(),
        };
        if sync.named_only {
            if work.targets.is_empty() {
                return Err(invalid("cursors: named_only names none"));
            }
            work.read_wave(asker, calls);
        } else {
            let query = query::Kind::ReadFeed(ReadFeed {
                user_id: asker.user.to_bytes(),
                since_version: sync.since_version,
                rows_max: SYNC_CONVERSATIONS_MAX as u32,
            });
            calls.query(FEED_PART, ShardKey::User(asker.user), query);
            work.waiting = 1;
        }
        Ok(work)
    }

    pub(super) fn handle_result(
        &mut self,
        asker: &Asker<'_>,
        part: u16,
        result: StorageResult,
        calls: &mut Calls,
    ) -> Step {
        self.waiting -= 1;
        if part == FEED_PART {
            let storage::Kind::Feed(page) = answer(result)? else { return Err(unexpected("a feed")) };
            self.take_feed(page)?;
        } else {
            let view = conversation_if_open(result)?;
            let target = self.targets.get_mut(usize::from(part)).ok_or_else(|| unexpected("a target"))?;
            target.view = view;
        }
        if self.waiting > 0 {
            return Ok(Progress::Waiting);
        }
        if !self.place_what_was_read() && self.read < self.targets.len() {
            self.read_wave(asker, calls);
            return Ok(Progress::Waiting);
        }
        self.finish()
    }

    fn take_feed(&mut self, page: FeedPage) -> Result<(), RequestError> {
        let mut places: HashMap<_, _> =
            self.targets.iter().enumerate().map(|(place, target)| (target.conversation, place)).collect();
        let mut rows = Vec::with_capacity(page.rows.len());
        for row in &page.rows {
            let id = ConversationId::from_slice(&row.conversation_id);
            let conversation = id.ok_or_else(|| unexpected("a conversation's id"))?;
            let place = *places.entry(conversation).or_insert_with(|| {
                self.targets.push(Target { conversation, after_seq: None, changed: true, view: None });
                self.targets.len() - 1
            });
            self.targets[place].changed = true;
            rows.push((row.version, place));
        }
        self.feed = Some(Feed { rows, version: page.version, more: page.more });
        Ok(())
    }

    fn read_wave(&mut self, asker: &Asker<'_>, calls: &mut Calls) {
        let wave = self.targets.iter().enumerate().skip(self.read).take(SYNC_WAVE);
        for (place, target) in wave {
            let read = ConversationRead {
                conversation: target.conversation,
                // Also told again to who knows them: their cursors may have moved.
                with_members: true,
                range: target.after_seq.map_or(Range::AfterDeviceCursor(true), Range::AfterSeq),
                entries_max: SYNC_ENTRIES_MAX,
                bytes_max: PAGE_BYTES_MAX,
            };
            calls.read_conversation(place as u16, asker, read);
            self.waiting += 1;
        }
        self.read += self.waiting;
    }

    /// Moves read conversations into the page, in order; whether the page is full.
    fn place_what_was_read(&mut self) -> bool {
        while self.placed < self.read {
            let target = &mut self.targets[self.placed];
            let view = target.view.take();
            if self.page.truncated || self.page.place(target, view) == Placed::NoRoom {
                return true;
            }
            self.placed += 1;
        }
        false
    }

    fn finish(&mut self) -> Step {
        let all_placed = self.placed == self.targets.len() && !self.page.truncated;
        let (mut version, mut more) = (self.since_version, !all_placed);
        if let Some(feed) = &self.feed {
            more |= feed.more;
            if !self.page.truncated {
                let told = feed.rows.iter().take_while(|(_, place)| *place < self.placed);
                version = told.last().map_or(version, |&(version, _)| version);
                if all_placed && !feed.more {
                    version = feed.version;
                }
            }
        }
        let conversations = std::mem::take(&mut self.page.deltas);
        answered(server_frame::Body::SyncPage(v1::SyncPage { conversations, version, more }))
    }
}

/// Each conversation once, in the order first named; named twice, from the lower of its cursors.
fn named(cursors: &[v1::SyncCursor]) -> Result<Vec<Target>, RequestError> {
    let mut targets: Vec<Target> = Vec::with_capacity(cursors.len());
    let mut places = HashMap::with_capacity(cursors.len());
    for cursor in cursors {
        let conversation = conversation_id(&cursor.conversation_id)?;
        let after_seq = Some(cursor.after_seq);
        match places.get(&conversation).and_then(|&place: &usize| targets.get_mut(place)) {
            Some(target) => target.after_seq = target.after_seq.min(after_seq),
            None => {
                places.insert(conversation, targets.len());
                targets.push(Target { conversation, after_seq, changed: false, view: None });
            }
        }
    }
    Ok(targets)
}

impl Page {
    fn place(&mut self, target: &Target, view: Option<ConversationView>) -> Placed {
        let Some(view) = view else { return Placed::Done };
        let Some(mut conversation) = view.conversation else { return Placed::Done };
        let unchanged = !target.changed && view.entries.is_empty() && !view.truncated;
        if unchanged && target.after_seq == Some(conversation.head_seq) {
            return Placed::Done;
        }
        if self.deltas.len() == SYNC_CONVERSATIONS_MAX {
            return Placed::NoRoom;
        }
        // The entries say it; where there are none the client has it.
        conversation.last = None;
        let mut delta = v1::ConversationDelta {
            conversation: Some(conversation),
            entries: view.entries,
            truncated: view.truncated,
        };
        let wanted = delta.entries.len();
        let room = self.entry_room(&delta);
        delta.truncated |= fit_entries(&mut delta.entries, room, Keep::Oldest);
        let cut = delta.entries.len() < wanted;
        let may_cut = self.deltas.is_empty() || target.after_seq.is_some();
        if cut && (!may_cut || delta.entries.is_empty()) {
            return Placed::NoRoom;
        }
        let bytes = delta_bytes(&delta);
        if self.bytes + bytes > SYNC_PAGE_BYTES_MAX {
            return Placed::NoRoom;
        }
        self.bytes += bytes;
        self.entry_bytes += delta.entries.iter().map(entry_bytes).sum::<usize>();
        self.truncated = delta.truncated;
        self.deltas.push(delta);
        Placed::Done
    }

    /// Bytes that entries may still take, beside what else the delta says.
    fn entry_room(&self, delta: &v1::ConversationDelta) -> usize {
        let rest = delta.conversation.as_ref().map_or(0, Message::encoded_len) + DELTA_FRAMING_BYTES;
        let by_frame = SYNC_PAGE_BYTES_MAX.saturating_sub(self.bytes + rest);
        by_frame.min(PAGE_BYTES_MAX.saturating_sub(self.entry_bytes))
    }
}

/// Tags and lengths of a delta and its conversation, and `truncated`, at most.
const DELTA_FRAMING_BYTES: usize = 2 * (1 + 3) + 2;

fn delta_bytes(delta: &v1::ConversationDelta) -> usize {
    let bytes = delta.encoded_len();
    1 + length_delimiter_len(bytes) + bytes
}

const _: () = {
    // The first conversation of a page always finds room for an entry of the largest size.
    use wire_protocol::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX, TITLE_CHARS_MAX};
    let conversation = GROUP_MEMBERS_MAX * 48 + 4 * TITLE_CHARS_MAX + 256;
    assert!(conversation + BODY_BYTES_MAX + 64 < SYNC_PAGE_BYTES_MAX);
    assert!(conversation + PAGE_BYTES_MAX < SYNC_PAGE_BYTES_MAX);
    // What a frame holds beside a full page: handles, version, tags.
    assert!(SYNC_PAGE_BYTES_MAX + SYNC_CONVERSATIONS_MAX * 28 + 64 < FRAME_BYTES_MAX);
    assert!(SYNC_CURSORS_MAX + SYNC_CONVERSATIONS_MAX < FEED_PART as usize);
};

#[cfg(test)]
mod tests;
