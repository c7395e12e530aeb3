//! A leader's lease: how long it may answer reads without asking whether it still leads.
//!
//! Whoever answers such a question has promised to help elect nobody else for an election's time
//! (`replication/group/promise.rs`); so, for a shorter time from when the question was put, nobody else leads (Ongaro 2014,
//! 6.4.1). It rests on clocks that run about as fast as each other, and on nothing else of them: jumps are borne
//! (`clock.rs` follows them ahead only, which ends a lease early, and a follower does not count them).

use crate::replication::{ELECTION_TICKS, TICK_MS};

/// How long a lease holds from when the question was put, in milliseconds. Promises hold for 0.9 s, a tick being under
/// way when they are given: one clock may run half again as fast as the other.
pub const LEASE_MS: u64 = 600;
/// A lease that is used and does not hold for so long any more is renewed meanwhile.
const RENEW_MS: u64 = LEASE_MS / 2;

const _: () = assert!(LEASE_MS * 3 / 2 <= (ELECTION_TICKS as u64 - 1) * TICK_MS);

/// Of the term that this replica leads in.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// The oldest question that was not answered, and when it was put.
    asked: Option<(u64, u64)>,
    until_ms: u64,
    /// Leadership was offered to another replica: it needs nobody's patience to win, whenever it hears of that.
    is_void: bool,
}

impl Lease {
    /// Whether it holds. The time must have been read after whatever rests on this.
    pub fn holds(&self, now_ms: u64) -> bool {
        !self.is_void && now_ms < self.until_ms
    }

    /// Whether a question is due so that it goes on.
    pub fn is_to_be_renewed(&self, now_ms: u64) -> bool {
        self.asked.is_none() && now_ms + RENEW_MS >= self.until_ms
    }

    /// A question is put, at a time that was read before.
    pub fn asked(&mut self, ticket: u64, now_ms: u64) {
        self.asked.get_or_insert((ticket, now_ms));
    }

    /// This question and all before it are answered by a majority.
    pub fn answered(&mut self, ticket: u64) {
        if let Some((_, asked_ms)) = self.asked.take_if(|(asked, _)| *asked <= ticket) {
            self.until_ms = self.until_ms.max(asked_ms + LEASE_MS);
        }
    }

    /// There is none in this term any more.
    pub fn give_up(&mut self) {
        self.is_void = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_from_the_question_and_not_from_the_answer() {
        let mut lease = Lease::default();
        assert!(!lease.holds(0) && lease.is_to_be_renewed(0));
        lease.asked(1, 1_000);
        lease.asked(2, 1_500);
        assert!(!lease.is_to_be_renewed(1_500), "it is being asked");
        lease.answered(0);
        assert!(!lease.holds(1_500));
        lease.answered(2);
        assert!(lease.holds(1_000 + LEASE_MS - 1), "as of the oldest question");
        assert!(!lease.holds(1_000 + LEASE_MS));
        assert!(lease.is_to_be_renewed(1_300) && !lease.is_to_be_renewed(1_299));
    }

    #[test]
    fn who_offered_leadership_has_none() {
        let mut lease = Lease::default();
        lease.asked(1, 1_000);
        lease.give_up();
        lease.answered(1);
        assert!(!lease.holds(1_001));
    }
}
