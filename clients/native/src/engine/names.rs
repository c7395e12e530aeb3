//! Who is who: users seen as members whose names are not here yet, asked for in batches.

use super::cursors::Moment;
use super::jitter::{Jitter, Range};
use crate::limits::{RETRY_MS_BASE, RETRY_MS_MAX, USERS_WANTED_MAX};
use std::collections::BTreeSet;
use wire_protocol::ids::UserId;
use wire_protocol::limits::LOOK_UP_USERS_MAX;

const RETRY: Range = Range { base_ms: RETRY_MS_BASE, max_ms: RETRY_MS_MAX };

/// Names that are here, wished for, and asked for.
#[derive(Clone, Debug, Default)]
pub struct Names {
    known: BTreeSet<UserId>,
    wanted: BTreeSet<UserId>,
    in_flight: bool,
    failures: u32,
    not_before_ms: u64,
}

impl Names {
    /// From the store.
    pub fn restore(known: Vec<UserId>) -> Self {
        Self { known: known.into_iter().collect(), ..Self::default() }
    }

    /// These users were seen.
    pub fn want(&mut self, users: impl IntoIterator<Item = UserId>) {
        for user in users {
            if !self.known.contains(&user) && self.wanted.len() < USERS_WANTED_MAX {
                self.wanted.insert(user);
            }
        }
    }

    /// Whom to ask for now; one question at a time.
    pub fn poll(&mut self, now_ms: u64) -> Option<Vec<UserId>> {
        if self.in_flight || self.wanted.is_empty() || now_ms < self.not_before_ms {
            return None;
        }
        self.in_flight = true;
        Some(self.wanted.iter().copied().take(LOOK_UP_USERS_MAX).collect())
    }

    /// When [`Self::poll`] may have something that it has not now.
    pub fn poll_timeout(&self, now_ms: u64) -> Option<u64> {
        let waits = !self.in_flight && !self.wanted.is_empty() && self.not_before_ms > now_ms;
        waits.then_some(self.not_before_ms)
    }

    /// Answered. Who was left out does not exist any more and is not asked for again.
    pub fn handle_answer(&mut self, asked: &[UserId]) {
        (self.in_flight, self.failures) = (false, 0);
        for user in asked {
            self.wanted.remove(user);
            self.known.insert(*user);
        }
    }

    /// Names that came by another way.
    pub fn learn(&mut self, user: UserId) {
        self.wanted.remove(&user);
        self.known.insert(user);
    }

    /// Not now.
    pub fn handle_retryable(&mut self, at: Moment, jitter: &mut Jitter) {
        self.failures = self.failures.saturating_add(1);
        self.in_flight = false;
        self.not_before_ms = at.now_ms + jitter.backoff(self.failures, RETRY, at.retry_after_ms);
    }

    /// The connection is gone with its answers.
    pub fn handle_disconnected(&mut self) {
        (self.in_flight, self.failures, self.not_before_ms) = (false, 0, 0);
    }
}
