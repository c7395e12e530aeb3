//! Delivered and read: what this device has to report, cumulatively and at most one report a conversation in
//! flight, so that a burst of messages costs one report and not one for each.

use super::jitter::{Jitter, Range};
use crate::limits::{CURSORS_IN_FLIGHT_MAX, RETRY_MS_BASE, RETRY_MS_MAX};
use std::collections::{BTreeMap, BTreeSet};
use wire_protocol::ids::ConversationId;

const RETRY: Range = Range { base_ms: RETRY_MS_BASE, max_ms: RETRY_MS_MAX };

/// Two cursors of one conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pair {
    /// Everything up to here is stored on this device.
    pub delivered: u64,
    /// The user has read up to here.
    pub read: u64,
}

/// What to tell the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// Where.
    pub conversation: ConversationId,
    /// Which cursor.
    pub cursor: Cursor,
    /// Up to.
    pub seq: u64,
}

/// Which cursor a report moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cursor {
    /// Stored on this device.
    Delivered,
    /// Read by the user; implies delivered.
    Read,
}

#[derive(Clone, Copy, Debug, Default)]
struct Position {
    wanted: Pair,
    confirmed: Pair,
    in_flight: bool,
}

/// All cursors of this device.
#[derive(Clone, Debug, Default)]
pub struct Cursors {
    positions: BTreeMap<ConversationId, Position>,
    waiting: BTreeSet<ConversationId>,
    in_flight_count: usize,
    failures: u32,
    not_before_ms: u64,
}

impl Cursors {
    /// From the store.
    pub fn restore(&mut self, conversation: ConversationId, wanted: Pair, confirmed: Pair) {
        let position = Position { wanted, confirmed, in_flight: false };
        self.positions.insert(conversation, position);
        if position.due().is_some() {
            self.waiting.insert(conversation);
        }
    }

    /// Everything up to `seq` is stored.
    pub fn want_delivered(&mut self, conversation: ConversationId, seq: u64) {
        let position = self.positions.entry(conversation).or_default();
        position.wanted.delivered = position.wanted.delivered.max(seq);
        self.waiting.insert(conversation);
    }

    /// The user has read up to `seq`.
    pub fn want_read(&mut self, conversation: ConversationId, seq: u64) {
        let position = self.positions.entry(conversation).or_default();
        position.wanted.read = position.wanted.read.max(seq);
        self.waiting.insert(conversation);
    }

    /// Another device of the user has reported this read cursor: no need to repeat it.
    pub fn read_elsewhere(&mut self, conversation: ConversationId, seq: u64) {
        let position = self.positions.entry(conversation).or_default();
        position.confirmed.read = position.confirmed.read.max(seq);
    }

    /// What the server has confirmed to this device.
    pub fn confirmed(&self, conversation: ConversationId) -> Pair {
        self.positions.get(&conversation).map_or(Pair::default(), |position| position.confirmed)
    }

    /// The next report, in flight from now on.
    pub fn poll_report(&mut self, now_ms: u64) -> Option<Report> {
        if now_ms < self.not_before_ms || self.in_flight_count >= CURSORS_IN_FLIGHT_MAX {
            return None;
        }
        while let Some(conversation) = self.waiting.pop_first() {
            let Some(position) = self.positions.get_mut(&conversation) else { continue };
            let Some((cursor, seq)) = position.due() else { continue };
            position.in_flight = true;
            self.in_flight_count += 1;
            return Some(Report { conversation, cursor, seq });
        }
        None
    }

    /// When [`Self::poll_report`] may have something that it has not now.
    pub fn poll_timeout(&self, now_ms: u64) -> Option<u64> {
        (!self.waiting.is_empty() && self.not_before_ms > now_ms).then_some(self.not_before_ms)
    }

    /// The server has taken it; or never will, which comes to the same.
    pub fn handle_confirmed(&mut self, report: Report) -> Pair {
        self.failures = 0;
        self.finish(report.conversation);
        let position = self.positions.entry(report.conversation).or_default();
        position.confirmed.delivered = position.confirmed.delivered.max(report.seq);
        if report.cursor == Cursor::Read {
            position.confirmed.read = position.confirmed.read.max(report.seq);
        }
        position.confirmed
    }

    /// The server could not take it now.
    pub fn handle_retryable(&mut self, report: Report, at: Moment, jitter: &mut Jitter) {
        self.failures = self.failures.saturating_add(1);
        self.not_before_ms = at.now_ms + jitter.backoff(self.failures, RETRY, at.retry_after_ms);
        self.finish(report.conversation);
    }

    fn finish(&mut self, conversation: ConversationId) {
        let Some(position) = self.positions.get_mut(&conversation) else { return };
        self.in_flight_count -= usize::from(position.in_flight);
        position.in_flight = false;
        // Looked at again: what became due meanwhile, or the same report once more.
        self.waiting.insert(conversation);
    }

    /// The connection is gone with its answers.
    pub fn handle_disconnected(&mut self) {
        for (conversation, position) in &mut self.positions {
            if std::mem::take(&mut position.in_flight) {
                self.waiting.insert(*conversation);
            }
        }
        (self.in_flight_count, self.failures, self.not_before_ms) = (0, 0, 0);
    }
}

/// When an answer came, and how long it asks to wait.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Now.
    pub now_ms: u64,
    /// The server's wish.
    pub retry_after_ms: u32,
}

impl Position {
    fn due(&self) -> Option<(Cursor, u64)> {
        let read = self.wanted.read > self.confirmed.read;
        let delivered = self.wanted.delivered > self.confirmed.delivered;
        match (self.in_flight, read, delivered) {
            (true, _, _) | (false, false, false) => None,
            (false, true, _) => Some((Cursor::Read, self.wanted.read)),
            (false, false, true) => Some((Cursor::Delivered, self.wanted.delivered)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: ConversationId = ConversationId([1; 16]);

    fn report(cursor: Cursor, seq: u64) -> Option<Report> {
        Some(Report { conversation: ROOM, cursor, seq })
    }

    #[test]
    fn a_burst_costs_two_reports() {
        let mut cursors = Cursors::default();
        cursors.want_delivered(ROOM, 1);
        let first = cursors.poll_report(0);
        assert_eq!(first, report(Cursor::Delivered, 1));
        (2..=100).for_each(|seq| cursors.want_delivered(ROOM, seq));
        assert_eq!(cursors.poll_report(0), None);
        cursors.handle_confirmed(first.unwrap());
        assert_eq!(cursors.poll_report(0), report(Cursor::Delivered, 100));
    }

    #[test]
    fn read_implies_delivered_and_is_not_repeated() {
        let mut cursors = Cursors::default();
        cursors.want_delivered(ROOM, 5);
        cursors.want_read(ROOM, 5);
        let first = cursors.poll_report(0);
        assert_eq!(first, report(Cursor::Read, 5));
        assert_eq!(cursors.handle_confirmed(first.unwrap()), Pair { delivered: 5, read: 5 });
        assert_eq!(cursors.poll_report(0), None);
        cursors.want_read(ROOM, 6);
        cursors.read_elsewhere(ROOM, 6);
        assert_eq!(cursors.poll_report(0), None);
    }

    #[test]
    fn what_is_to_be_reported_never_falls() {
        let mut cursors = Cursors::default();
        cursors.want_delivered(ROOM, 5);
        cursors.want_delivered(ROOM, 3);
        cursors.want_read(ROOM, 4);
        cursors.want_read(ROOM, 2);
        let read = cursors.poll_report(0).unwrap();
        assert_eq!((read.cursor, read.seq), (Cursor::Read, 4));
        cursors.handle_confirmed(read);
        let delivered = cursors.poll_report(0).unwrap();
        assert_eq!((delivered.cursor, delivered.seq), (Cursor::Delivered, 5));
    }

    #[test]
    fn a_refused_or_lost_report_is_made_again() {
        let mut cursors = Cursors::default();
        cursors.want_delivered(ROOM, 5);
        let first = cursors.poll_report(0).unwrap();
        let at = Moment { now_ms: 0, retry_after_ms: 100 };
        cursors.handle_retryable(first, at, &mut Jitter::new(1));
        assert_eq!(cursors.poll_report(99), None);
        assert!(cursors.poll_timeout(99).is_some());
        assert_eq!(cursors.poll_report(5_000), Some(first));
        cursors.handle_disconnected();
        assert_eq!(cursors.poll_report(0), Some(first));
    }
}
