//! Catching up: rounds of sync pages from the stored feed version on.
//!
//! ```text
//!   done ──want──▶ wanted ──▶ in flight ──page, more──▶ wanted (same round)
//!     ▲                            │  └──refused──▶ wanted, after a wait
//!     └──────── last page ─────────┘
//! ```

use super::jitter::{Jitter, Range};
use crate::limits::{RETRY_MS_BASE, RETRY_MS_MAX, SYNC_PAGES_IDLE_MAX, SYNC_REFRESH_MS};
use std::collections::BTreeSet;
use wire_protocol::ids::{ConversationId, restores_of};

const RETRY: Range = Range { base_ms: RETRY_MS_BASE, max_ms: RETRY_MS_MAX };

/// Where the client stands in the user's change feed.
#[derive(Clone, Debug)]
pub struct SyncRounds {
    version: u64,
    /// How often the server had been restored from a backup when what is here came from it; `None`: it never said.
    restores: Option<u64>,
    state: State,
    /// Something was pushed aside during the round: another round follows it.
    again: bool,
    /// Conversations of this round's pages: they are named with their cursors, so that a page that comes again
    /// brings only what is new.
    seen: BTreeSet<ConversationId>,
    idle_pages: u32,
    failures: u32,
    not_before_ms: u64,
    refresh_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Done,
    Wanted,
    InFlight,
}

/// What a page said.
#[derive(Clone, Copy, Debug)]
pub struct PageFacts {
    /// To be stored.
    pub version: u64,
    /// Ask again.
    pub more: bool,
    /// It brought an entry or a conversation that was not here.
    pub anything_new: bool,
}

impl SyncRounds {
    /// From the store. One of before it kept `restores` knows it by its version.
    pub fn restore(version: u64, restores: Option<u64>) -> Self {
        Self {
            version,
            restores: restores.or((version > 0).then(|| restores_of(version))),
            state: State::Done,
            again: false,
            seen: BTreeSet::new(),
            idle_pages: 0,
            failures: 0,
            not_before_ms: 0,
            refresh_ms: u64::MAX,
        }
    }

    /// Everything up to here is stored.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether the server, which names this version, was restored from a backup since it was spoken to before. 0 is no
    /// version: it says nothing.
    pub fn was_restored(&self, version: u64) -> bool {
        version > 0 && self.restores.is_some_and(|restores| restores != restores_of(version))
    }

    /// No round is running or waited for.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Conversations that this round's pages named so far.
    pub fn seen(&self) -> &BTreeSet<ConversationId> {
        &self.seen
    }

    /// A session is open and the server names the newest version. Gives how often it was restored, if that is news to be
    /// stored.
    pub fn handle_ready(&mut self, feed_version: u64, now_ms: u64) -> Option<u64> {
        self.refresh_ms = now_ms + SYNC_REFRESH_MS;
        if feed_version != self.version {
            self.want();
        }
        match self.restores {
            Some(_) => None,
            None => Some(*self.restores.insert(restores_of(feed_version))),
        }
    }

    /// Something may have been missed.
    pub fn want(&mut self) {
        match self.state {
            State::Done => self.state = State::Wanted,
            State::Wanted => {}
            State::InFlight => self.again = true,
        }
    }

    /// Whether a request is to be sent now; it counts as in flight from now on.
    pub fn poll_request(&mut self, now_ms: u64) -> bool {
        let due = self.state == State::Wanted && now_ms >= self.not_before_ms;
        if due {
            self.state = State::InFlight;
        }
        due
    }

    /// When to look again.
    pub fn poll_timeout(&self) -> u64 {
        match self.state {
            State::Done => self.refresh_ms,
            State::Wanted => self.not_before_ms,
            State::InFlight => u64::MAX,
        }
    }

    /// A quiet session syncs once in a while.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        if self.state == State::Done && now_ms >= self.refresh_ms {
            self.want();
        }
    }

    /// A page names this conversation.
    pub fn saw(&mut self, conversation: ConversationId) {
        self.seen.insert(conversation);
    }

    /// A page was taken over. True: the version moved.
    pub fn handle_page(&mut self, page: PageFacts, now_ms: u64) -> bool {
        self.failures = 0;
        let moved = page.version != self.version;
        self.version = page.version;
        self.idle_pages = if moved || page.anything_new { 0 } else { self.idle_pages + 1 };
        // A server that always promises more but brings nothing is not asked for ever.
        let more = page.more && self.idle_pages < SYNC_PAGES_IDLE_MAX;
        if more {
            self.state = State::Wanted;
        } else {
            self.state = if std::mem::take(&mut self.again) { State::Wanted } else { State::Done };
            self.refresh_ms = now_ms + SYNC_REFRESH_MS;
            self.idle_pages = 0;
        }
        if moved || !more {
            self.seen.clear();
        }
        moved
    }

    /// The server could not answer now.
    pub fn handle_retryable(&mut self, now_ms: u64, retry_after_ms: u32, jitter: &mut Jitter) {
        self.failures = self.failures.saturating_add(1);
        self.state = State::Wanted;
        self.not_before_ms = now_ms + jitter.backoff(self.failures, RETRY, retry_after_ms);
    }

    /// The connection is gone; the next Ready decides.
    pub fn handle_disconnected(&mut self) {
        let interrupted = self.state != State::Done;
        *self = Self::restore(self.version, self.restores);
        if interrupted {
            self.want();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(version: u64, more: bool, anything_new: bool) -> PageFacts {
        PageFacts { version, more, anything_new }
    }

    #[test]
    fn equal_versions_need_no_sync() {
        let mut sync = SyncRounds::restore(7, None);
        sync.handle_ready(7, 0);
        assert!(sync.is_done());
        sync.handle_timeout(SYNC_REFRESH_MS);
        assert!(sync.poll_request(SYNC_REFRESH_MS), "but once in a while it looks");
    }

    #[test]
    fn pages_follow_until_there_are_no_more_and_again_if_needed() {
        let mut sync = SyncRounds::restore(0, None);
        sync.handle_ready(9, 0);
        assert!(sync.poll_request(0));
        assert!(!sync.poll_request(0));
        assert!(!sync.handle_page(page(0, true, true), 0));
        assert!(sync.poll_request(0));
        sync.want();
        assert!(sync.handle_page(page(9, false, true), 0));
        assert!(sync.poll_request(0), "what was missed during the round is asked for after it");
        sync.handle_page(page(9, false, false), 0);
        assert!(sync.is_done());
    }

    #[test]
    fn a_server_without_progress_is_left_alone() {
        let mut sync = SyncRounds::restore(0, None);
        sync.want();
        let mut pages = 0;
        while sync.poll_request(0) {
            pages += 1;
            sync.handle_page(page(0, true, false), 0);
        }
        assert_eq!(pages, SYNC_PAGES_IDLE_MAX);
    }

    #[test]
    fn an_interrupted_round_starts_again() {
        let mut sync = SyncRounds::restore(3, None);
        sync.want();
        assert!(sync.poll_request(0));
        sync.handle_disconnected();
        sync.handle_ready(3, 0);
        assert!(sync.poll_request(0));
    }
}
