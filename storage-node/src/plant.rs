//! Bugs that a simulation plants, one at a time, to see that its checkers find them. Each is a line where this crate would
//! be wrong, and which asks whether its bug is `active`.
//!
//! They need the feature `plants`, which the simulation of whole clusters asks for and no server does. Without it the
//! answer is a constant, and nothing of a plant is left in a program. A build of the whole workspace makes this crate
//! once for all programs, with the feature; there a bug is planted for one thread, by the call that runs a simulated
//! cluster in it, and by nothing else: no configuration, environment or request can.

#[cfg(feature = "plants")]
use std::cell::Cell;
use wire_protocol::internal::{Command, command};

/// A bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    /// A leader takes for committed what is on its own disk.
    AckBeforeQuorum,
    /// A first answer counts in the term alone in which its message was proposed: after a failover a repeat is stored again.
    NoDedupAfterFailover,
    /// A leader reads without knowing whether it still leads.
    StaleRead,
    /// With a vote its term is written, and not whom it was given to.
    LostVote,
    /// The log is cut behind rows that were not synced.
    CutWithoutSync,
    /// A node that lost its folder begins a fleet beside those that knew another one of it.
    BeginsAgain,
    /// A sync of the log that fails is taken for one that did not.
    ForgottenSync,
}

#[cfg(feature = "plants")]
impl Plant {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::AckBeforeQuorum,
        Self::NoDedupAfterFailover,
        Self::StaleRead,
        Self::LostVote,
        Self::CutWithoutSync,
        Self::BeginsAgain,
        Self::ForgottenSync,
    ];

    /// As a command line says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AckBeforeQuorum => "ack-before-quorum",
            Self::NoDedupAfterFailover => "no-dedup-after-failover",
            Self::StaleRead => "stale-read",
            Self::LostVote => "lost-vote",
            Self::CutWithoutSync => "cut-without-sync",
            Self::BeginsAgain => "begins-again",
            Self::ForgottenSync => "forgotten-sync",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plant| plant.name() == name)
    }
}

#[cfg(feature = "plants")]
thread_local! {
    /// A thread runs one simulated cluster at a time, with all its nodes.
    static PLANTED: Cell<Option<Plant>> = const { Cell::new(None) };
}

/// Works with this bug in all nodes of this thread; `None`: with none.
#[cfg(feature = "plants")]
pub fn during<T>(plant: Option<Plant>, work: impl FnOnce() -> T) -> T {
    let _before = Before(PLANTED.replace(plant));
    work()
}

/// What was planted before: it is again, also when the work panics.
#[cfg(feature = "plants")]
struct Before(Option<Plant>);

#[cfg(feature = "plants")]
impl Drop for Before {
    fn drop(&mut self) {
        PLANTED.set(self.0);
    }
}

/// Whether this bug is planted here.
#[cfg(feature = "plants")]
pub(crate) fn active(plant: Plant) -> bool {
    PLANTED.get() == Some(plant)
}

/// Whether this bug is planted here: none can be.
#[cfg(not(feature = "plants"))]
pub(crate) const fn active(_plant: Plant) -> bool {
    false
}

#[cfg(not(feature = "plants"))]
const _: () = assert!(!active(Plant::AckBeforeQuorum), "a program without the feature has no plants");

/// [`Plant::NoDedupAfterFailover`]: the ids of messages become those of one term. Simulated devices count theirs from 1, so
/// that none reaches the upper half.
pub(crate) fn tie_to_term(commands: &mut [Command], term: u64) {
    for command in commands {
        if let Some(command::Kind::SendMessage(send)) = &mut command.kind {
            for id in [&mut send.client_message_id, &mut send.predecessor] {
                if *id != 0 {
                    *id ^= term << 32;
                }
            }
        }
    }
}

#[cfg(all(test, feature = "plants"))]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_of_its_thread_and_goes_with_its_work_however_that_ends() {
        let seen = during(Some(Plant::StaleRead), || {
            let elsewhere = std::thread::spawn(|| active(Plant::StaleRead)).join().expect("it only looks");
            (active(Plant::StaleRead), active(Plant::LostVote), elsewhere)
        });
        assert_eq!(seen, (true, false, false));
        assert!(Plant::ALL.iter().all(|plant| !active(*plant)), "the work is over");
        let ended = std::panic::catch_unwind(|| {
            during(Some(Plant::LostVote), || assert!(!active(Plant::LostVote), "it is planted"));
        });
        assert!(ended.is_err() && !active(Plant::LostVote));
    }

    #[test]
    fn each_has_a_name_of_its_own() {
        for plant in Plant::ALL {
            assert_eq!(Plant::named(plant.name()), Some(plant));
        }
        assert_eq!(Plant::named("none"), None);
    }
}
