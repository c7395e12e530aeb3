//! What is to be fetched because a push was lost or never came: pages of history into gaps, and the facts of
//! conversations. Each once at a time, few at once, all of them waiting after a refusal.

use super::jitter::{Jitter, Range};
use crate::limits::{FILLS_IN_FLIGHT_MAX, RETRY_MS_BASE, RETRY_MS_MAX};
use std::collections::BTreeSet;
use wire_protocol::ids::ConversationId;

const RETRY: Range = Range { base_ms: RETRY_MS_BASE, max_ms: RETRY_MS_MAX };

/// One thing to fetch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fetch {
    /// The conversation's facts and members.
    Facts(ConversationId),
    /// The next page of its gap.
    Gap(ConversationId),
}

/// All that is missing.
#[derive(Clone, Debug, Default)]
pub struct Fetches {
    waiting: BTreeSet<Fetch>,
    in_flight: BTreeSet<Fetch>,
    failures: u32,
    not_before_ms: u64,
}

impl Fetches {
    /// Asks for it, unless that is under way.
    pub fn want(&mut self, fetch: Fetch) {
        if !self.in_flight.contains(&fetch) {
            self.waiting.insert(fetch);
        }
    }

    /// The next one, in flight from now on. While a sync runs it brings the entries: then only facts.
    pub fn poll(&mut self, now_ms: u64, gaps_too: bool) -> Option<Fetch> {
        if now_ms < self.not_before_ms || self.in_flight.len() >= FILLS_IN_FLIGHT_MAX {
            return None;
        }
        let fetch = *self.waiting.first()?;
        if matches!(fetch, Fetch::Gap(_)) && !gaps_too {
            return None;
        }
        self.waiting.remove(&fetch);
        self.in_flight.insert(fetch);
        Some(fetch)
    }

    /// When [`Self::poll`] may have something that it has not now.
    pub fn poll_timeout(&self, now_ms: u64) -> Option<u64> {
        (!self.waiting.is_empty() && self.not_before_ms > now_ms).then_some(self.not_before_ms)
    }

    /// It was answered, or there is nothing to ask.
    pub fn handle_done(&mut self, fetch: Fetch) {
        self.in_flight.remove(&fetch);
        self.failures = 0;
    }

    /// The server could not answer now, or its answer did not help.
    pub fn handle_retryable(&mut self, fetch: Fetch, after: super::cursors::Moment, jitter: &mut Jitter) {
        self.failures = self.failures.saturating_add(1);
        self.not_before_ms = after.now_ms + jitter.backoff(self.failures, RETRY, after.retry_after_ms);
        self.in_flight.remove(&fetch);
        self.waiting.insert(fetch);
    }

    /// The connection is gone with its answers.
    pub fn handle_disconnected(&mut self) {
        self.waiting.append(&mut self.in_flight);
        (self.failures, self.not_before_ms) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cursors::Moment;

    #[test]
    fn each_is_fetched_once_at_a_time_and_again_after_a_refusal() {
        let gap = Fetch::Gap(ConversationId([1; 16]));
        let mut fetches = Fetches::default();
        fetches.want(gap);
        assert_eq!(fetches.poll(0, false), None);
        assert_eq!(fetches.poll(0, true), Some(gap));
        fetches.want(gap);
        assert_eq!(fetches.poll(0, true), None);
        let after = Moment { now_ms: 0, retry_after_ms: 50 };
        fetches.handle_retryable(gap, after, &mut Jitter::new(1));
        assert_eq!(fetches.poll(49, true), None);
        assert_eq!(fetches.poll(10_000, true), Some(gap));
        fetches.handle_disconnected();
        assert_eq!(fetches.poll(10_000, true), Some(gap));
        fetches.handle_done(gap);
        assert_eq!(fetches.poll(10_000, true), None);
    }

    #[test]
    fn few_at_once() {
        let mut fetches = Fetches::default();
        (0..20).for_each(|room| fetches.want(Fetch::Gap(ConversationId([room; 16]))));
        let polled = std::iter::from_fn(|| fetches.poll(0, true)).count();
        assert_eq!(polled, FILLS_IN_FLIGHT_MAX);
    }
}
