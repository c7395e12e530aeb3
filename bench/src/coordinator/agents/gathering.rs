//! One phase's reports of all agents on their way to one. A second is complete once every agent has told of it or of a
//! later one, or has ended the phase. How figures are merged is not known here.

use crate::coordinator::control::messages::{PhaseShare, Progress};
use crate::report::results::LedgerResult;
use std::collections::BTreeMap;

/// An agent whose progress is so many seconds behind another's is lost: its load hangs, though its process lives.
pub const BEHIND_S_MAX: usize = 60;

/// How figures of agents become one. An error says what is wrong with the second one.
#[derive(Clone, Copy)]
pub struct Merging {
    /// The same second of several agents.
    pub progress: fn(&mut Progress, &Progress) -> Result<(), String>,
    /// The same phase of several agents.
    pub share: fn(&mut PhaseShare, &PhaseShare) -> Result<(), String>,
    /// Ledgers of several agents.
    pub ledger: fn(&mut LedgerResult, &LedgerResult) -> Result<(), String>,
}

/// A phase's reports.
pub struct Gathering {
    phase: u32,
    merging: Merging,
    members: Vec<Reported>,
    /// Merged so far, by second.
    pending: BTreeMap<u32, Progress>,
    share: Option<PhaseShare>,
}

#[derive(Clone, Default)]
struct Reported {
    /// The first second it has not told of.
    next_second: u32,
    /// Its connections at the last one it has told of.
    connections: u64,
    done: bool,
}

impl Gathering {
    /// Of a phase that `members` take part in.
    pub fn new(phase: u32, members: usize, merging: Merging) -> Self {
        let members = vec![Reported::default(); members];
        Self { phase, merging, members, pending: BTreeMap::new(), share: None }
    }

    /// Takes a second of one member.
    pub fn progress(&mut self, member: usize, progress: Progress) -> Result<(), String> {
        let reported = &mut self.members[member];
        if progress.phase != self.phase {
            return Err(format!("progress of phase {}, not {}", progress.phase, self.phase));
        }
        if progress.second < reported.next_second {
            return Err(format!("second {} told of twice", progress.second));
        }
        reported.next_second = progress.second.saturating_add(1);
        reported.connections = progress.connections;
        match self.pending.get_mut(&progress.second) {
            Some(sum) => (self.merging.progress)(sum, &progress)?,
            None => {
                self.pending.insert(progress.second, progress);
            }
        }
        Ok(())
    }

    /// Takes a member's result.
    pub fn done(&mut self, member: usize, share: PhaseShare) -> Result<(), String> {
        if share.phase != self.phase {
            return Err(format!("result of phase {}, not {}", share.phase, self.phase));
        }
        self.members[member].done = true;
        match &mut self.share {
            Some(sum) => (self.merging.share)(sum, &share),
            None => {
                self.share = Some(share);
                Ok(())
            }
        }
    }

    /// The next complete second, all members together. One that has ended the phase goes on holding the connections
    /// it last told of.
    pub fn poll_second(&mut self) -> Option<Progress> {
        let second = *self.pending.first_key_value()?.0;
        if self.members.iter().any(|member| !member.done && member.next_second <= second) {
            return None;
        }
        let (_, mut sum) = self.pending.pop_first()?;
        let over = |member: &&Reported| member.done && member.next_second <= second;
        let held: u64 = self.members.iter().filter(over).map(|member| member.connections).sum();
        sum.connections = sum.connections.saturating_add(held);
        Some(sum)
    }

    /// The member that the others have waited for too long, if there is one.
    pub fn behind(&self) -> Option<usize> {
        let waiting = self.pending.len() > BEHIND_S_MAX;
        let slowest = self.members.iter().enumerate().filter(|(_, member)| !member.done);
        let slowest = slowest.min_by_key(|(_, member)| member.next_second);
        slowest.filter(|_| waiting).map(|(index, _)| index)
    }

    /// The result, once all are done: agents in their order.
    pub fn into_share(self) -> PhaseShare {
        assert!(self.members.iter().all(|member| member.done), "asked when all are done");
        assert!(self.pending.is_empty(), "every second was taken before");
        let mut share = self.share.unwrap_or_default();
        share.generators.sort_by_key(|generator| generator.agent);
        share
    }
}

#[cfg(test)]
pub(crate) mod sums {
    //! Plain sums, for tests of who is merged with whom.

    use super::*;

    pub const MERGING: Merging = Merging {
        progress: |sum, other| {
            sum.due += other.due;
            sum.connections += other.connections;
            Ok(())
        },
        share: |sum, other| {
            if sum.streams.len() != other.streams.len() {
                return Err("other streams".to_owned());
            }
            for (sum, other) in sum.streams.iter_mut().zip(&other.streams) {
                sum.due += other.due;
                sum.begun += other.begun;
                sum.succeeded += other.succeeded;
            }
            sum.connections.at_end += other.connections.at_end;
            sum.generators.extend(other.generators.iter().cloned());
            Ok(())
        },
        ledger: |sum, other| {
            sum.acknowledged += other.acknowledged;
            Ok(())
        },
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u32, due: u64, connections: u64) -> Progress {
        Progress { phase: 4, second, due, connections, ..Progress::default() }
    }

    fn share(due: u64) -> PhaseShare {
        let streams = vec![crate::coordinator::control::messages::StreamShare { due, ..Default::default() }];
        PhaseShare { phase: 4, streams, ..PhaseShare::default() }
    }

    #[test]
    fn a_second_waits_for_all_and_comes_in_order() {
        let mut gathering = Gathering::new(4, 2, sums::MERGING);
        gathering.progress(0, second(0, 5, 100)).expect("first");
        gathering.progress(0, second(1, 6, 110)).expect("second");
        assert_eq!(gathering.poll_second(), None, "member 1 has said nothing");
        // Member 1 skips second 0: it hung, and tells of the next one.
        gathering.progress(1, second(1, 1, 50)).expect("first");
        assert_eq!(gathering.poll_second(), Some(second(0, 5, 100)));
        assert_eq!(gathering.poll_second(), Some(second(1, 7, 160)));
        assert_eq!(gathering.poll_second(), None);
    }

    #[test]
    fn who_is_done_holds_nobody_up_and_keeps_its_connections() {
        let mut gathering = Gathering::new(4, 2, sums::MERGING);
        gathering.progress(0, second(0, 5, 100)).expect("told");
        gathering.done(0, share(5)).expect("done");
        gathering.progress(1, second(0, 1, 50)).expect("told");
        gathering.progress(1, second(1, 2, 60)).expect("told");
        assert_eq!(gathering.poll_second(), Some(second(0, 6, 150)));
        assert_eq!(gathering.poll_second(), Some(second(1, 2, 160)));
        gathering.done(1, share(3)).expect("done");
        assert_eq!(gathering.into_share(), share(8));
    }

    #[test]
    fn other_phases_and_repeated_seconds_are_refused() {
        let mut gathering = Gathering::new(4, 1, sums::MERGING);
        gathering.progress(0, second(3, 5, 1)).expect("told");
        assert_eq!(gathering.progress(0, second(3, 5, 1)), Err("second 3 told of twice".to_owned()));
        let other = Progress { phase: 5, ..second(4, 1, 1) };
        assert_eq!(gathering.progress(0, other), Err("progress of phase 5, not 4".to_owned()));
        assert!(gathering.done(0, PhaseShare { phase: 3, ..share(1) }).is_err());
    }

    #[test]
    fn a_member_that_is_far_behind_is_named() {
        let mut gathering = Gathering::new(4, 3, sums::MERGING);
        gathering.done(2, share(1)).expect("done");
        for number in 0..=BEHIND_S_MAX as u32 {
            assert_eq!(gathering.behind(), None);
            gathering.progress(0, second(number, 1, 1)).expect("told");
        }
        assert_eq!(gathering.behind(), Some(1));
    }
}
