//! Deadlines that all lie equally far ahead: a queue instead of a timer wheel.

use super::event::ConnectionToken;
use std::collections::VecDeque;

/// Connections in the order of their deadlines. Who no longer needs its deadline is recognised when it comes up, so
/// there are at most as many entries as deadlines were set within one span.
pub(super) struct Deadlines {
    span_ms: u64,
    /// Ascending, because every entry lies `span_ms` after its setting.
    queue: VecDeque<(u64, ConnectionToken)>,
}

impl Deadlines {
    pub(super) fn new(span_ms: u64) -> Self {
        Self { span_ms, queue: VecDeque::new() }
    }

    /// The connection's deadline is one span from now.
    pub(super) fn set(&mut self, now_ms: u64, token: ConnectionToken) {
        // A clock that stepped back must not break the order.
        let earliest_ms = self.queue.back().map_or(0, |&(deadline_ms, _)| deadline_ms);
        self.queue.push_back(((now_ms + self.span_ms).max(earliest_ms), token));
    }

    /// A connection whose deadline is over.
    pub(super) fn poll(&mut self, now_ms: u64) -> Option<ConnectionToken> {
        let &(deadline_ms, token) = self.queue.front()?;
        (deadline_ms <= now_ms).then(|| {
            self.queue.pop_front();
            token
        })
    }

    /// Drops deadlines at the front that nobody needs any more.
    pub(super) fn prune(&mut self, needed: impl Fn(ConnectionToken) -> bool) {
        while self.queue.front().is_some_and(|&(_, token)| !needed(token)) {
            self.queue.pop_front();
        }
    }

    /// The next deadline.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.queue.front().map(|&(deadline_ms, _)| deadline_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(slot: u32) -> ConnectionToken {
        ConnectionToken { slot, generation: 1 }
    }

    #[test]
    fn deadlines_come_up_in_order_and_not_early() {
        let mut deadlines = Deadlines::new(100);
        deadlines.set(0, token(1));
        deadlines.set(50, token(2));
        deadlines.set(20, token(3));
        assert_eq!(deadlines.poll(99), None);
        assert_eq!(deadlines.poll(100), Some(token(1)));
        assert_eq!(deadlines.poll(100), None);
        deadlines.prune(|token| token.slot != 2);
        assert_eq!(deadlines.next_ms(), Some(150));
        assert_eq!(deadlines.poll(150), Some(token(3)));
        assert_eq!(deadlines.next_ms(), None);
    }
}
