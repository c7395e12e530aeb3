//! Sessions that do not wait when they are told to, and are not read for a moment.
//!
//! Each request too many has its answer, and answers cost: a client that sends without minding them could keep a core
//! busy with refusals. After some in a row it is heard again only after a moment, and its own socket holds back the
//! rest. A client that waits as it was told never notices.

use crate::front::ConnectionToken;
use std::collections::VecDeque;

/// Requests in a row that came too soon until the session is not read for a moment: a burst of what was under way when
/// the first refusal came.
pub(super) const THROTTLED_IN_A_ROW_MAX: u8 = 8;

/// How long such a session is not read, in milliseconds.
pub(super) const HUSH_MS: u64 = 50;

/// Who is not read, and until when; the first to be heard again comes first.
#[derive(Debug, Default)]
pub(super) struct Hushed {
    until: VecDeque<(u64, ConnectionToken)>,
}

impl Hushed {
    /// The reading of a session was stopped.
    pub(super) fn add(&mut self, now_ms: u64, token: ConnectionToken) {
        self.until.push_back((now_ms + HUSH_MS, token));
    }

    /// The next one that is to be heard again.
    pub(super) fn due(&mut self, now_ms: u64) -> Option<ConnectionToken> {
        let (until_ms, token) = *self.until.front()?;
        (until_ms <= now_ms).then(|| {
            self.until.pop_front();
            token
        })
    }

    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        self.until.front().map(|(until_ms, _)| *until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_hushed_first_is_heard_first() {
        let token = |slot| ConnectionToken { slot, generation: 1 };
        let mut hushed = Hushed::default();
        hushed.add(1_000, token(1));
        hushed.add(1_010, token(2));
        assert_eq!(hushed.next_deadline_ms(), Some(1_000 + HUSH_MS));
        assert_eq!(hushed.due(1_000 + HUSH_MS - 1), None);
        assert_eq!(hushed.due(1_000 + HUSH_MS), Some(token(1)));
        assert_eq!(hushed.due(1_000 + HUSH_MS), None);
        assert_eq!(hushed.due(5_000), Some(token(2)));
        assert_eq!((hushed.due(5_000), hushed.next_deadline_ms()), (None, None));
    }
}
