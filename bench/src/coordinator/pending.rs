//! What is done to servers while a run lasts: its plan's faults, from phase to phase.
//!
//! ```text
//! fault ── kill ─────────────────────────────┬─> to be restarted, if the plan says so ──> started again
//!       └─ term ──> leaving ── it has ended ─┘
//! ```
//!
//! A phase may end before a server has left, or before its time to come back: that goes on in the next phase, and after
//! the last one it is waited for (`run.rs`), since the ledger is settled with all that the plan wants to be there. It knows
//! no processes: [`Servers`] are ended and started by `tested.rs`.

use super::tested::{Tested, TestedError};
use crate::workload::plan::{Fault, FaultSignal};

/// Servers that are ended and started again, by name.
pub(super) trait Servers {
    /// Ends one at once.
    fn kill(&mut self, name: &str) -> Result<(), TestedError>;
    /// Asks one to end by itself.
    fn ask_to_leave(&mut self, name: &str) -> Result<(), TestedError>;
    /// Whether one that was asked to leave ended well; `None`: it has not ended.
    fn has_left(&mut self, name: &str) -> Result<Option<bool>, TestedError>;
    /// Begins to start one again that has ended.
    fn restart(&mut self, name: &str) -> Result<(), TestedError>;
}

impl Servers for Tested {
    fn kill(&mut self, name: &str) -> Result<(), TestedError> {
        Tested::kill(self, name)
    }

    fn ask_to_leave(&mut self, name: &str) -> Result<(), TestedError> {
        Tested::ask_to_leave(self, name)
    }

    fn has_left(&mut self, name: &str) -> Result<Option<bool>, TestedError> {
        Tested::has_left(self, name)
    }

    fn restart(&mut self, name: &str) -> Result<(), TestedError> {
        Tested::restart(self, name)
    }
}

/// What is still to be done.
#[derive(Default)]
pub(super) struct Pending {
    steps: Vec<Step>,
}

/// What is still to be done to one server. Times are of the running phase.
enum Step {
    Begin(Fault),
    /// It was asked to leave, and has not ended.
    Leave(Fault),
    Restart {
        at_us: i64,
        name: String,
    },
}

impl Pending {
    /// A phase with these faults begins.
    pub(super) fn begin_phase(&mut self, faults: impl Iterator<Item = Fault>) {
        self.steps.extend(faults.map(Step::Begin));
    }

    /// The phase is over so long after its begin. Faults that it did not come to do not happen.
    pub(super) fn end_phase(&mut self, elapsed_us: i64) {
        self.steps.retain(|step| !matches!(step, Step::Begin(_)));
        for step in &mut self.steps {
            if let Step::Restart { at_us, .. } = step {
                *at_us -= elapsed_us;
            }
        }
    }

    /// Nothing is measured any more: who has yet to be started again need not wait for its time.
    pub(super) fn hurry(&mut self) {
        for step in &mut self.steps {
            if let Step::Restart { at_us, .. } = step {
                *at_us = i64::MIN;
            }
        }
    }

    /// Does what is due. Gives what happened.
    pub(super) fn work_off(
        &mut self,
        elapsed_us: i64,
        servers: &mut impl Servers,
    ) -> Result<Vec<String>, TestedError> {
        let is_due = |step: &Step| match step {
            Step::Begin(fault) => elapsed_us >= (fault.at_s * 1e6) as i64,
            Step::Leave(_) => true,
            Step::Restart { at_us, .. } => elapsed_us >= *at_us,
        };
        let (due, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.steps).into_iter().partition(is_due);
        self.steps = waiting;
        let mut happened = Vec::new();
        for step in due {
            match step {
                Step::Begin(fault) if fault.signal == FaultSignal::Term => {
                    servers.ask_to_leave(&fault.kill)?;
                    happened.push(format!("{} asked to leave", fault.kill));
                    self.steps.push(Step::Leave(fault));
                }
                Step::Begin(fault) => {
                    servers.kill(&fault.kill)?;
                    happened.push(format!("{} killed", fault.kill));
                    self.restart_later(elapsed_us, fault);
                }
                Step::Leave(fault) => match servers.has_left(&fault.kill)? {
                    None => self.steps.push(Step::Leave(fault)),
                    Some(well) => {
                        let how = if well { "has left" } else { "ended with an error" };
                        happened.push(format!("{} {how}", fault.kill));
                        self.restart_later(elapsed_us, fault);
                    }
                },
                Step::Restart { name, .. } => {
                    servers.restart(&name)?;
                    happened.push(format!("{name} started again"));
                }
            }
        }
        Ok(happened)
    }

    /// A server has ended: it is started again if the plan says so.
    fn restart_later(&mut self, elapsed_us: i64, fault: Fault) {
        if let Some(after_s) = fault.restart_after_s {
            let at_us = elapsed_us + (after_s * 1e6) as i64;
            self.steps.push(Step::Restart { at_us, name: fault.kill });
        }
    }

    /// What is left to do, as a person reads it; `None`: nothing.
    pub(super) fn left(&self) -> Option<String> {
        let word = |step: &Step| match step {
            Step::Begin(fault) => format!("{} has not been ended", fault.kill),
            Step::Leave(fault) => format!("{} was asked to leave, and runs", fault.kill),
            Step::Restart { name, .. } => format!("{name} was not started again"),
        };
        let words: Vec<String> = self.steps.iter().map(word).collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes what is asked of it; who is asked to leave ends when the test says so.
    #[derive(Default)]
    struct Noting {
        asked: Vec<String>,
        end: Option<bool>,
    }

    impl Servers for Noting {
        fn kill(&mut self, name: &str) -> Result<(), TestedError> {
            self.asked.push(format!("kill {name}"));
            Ok(())
        }

        fn ask_to_leave(&mut self, name: &str) -> Result<(), TestedError> {
            self.asked.push(format!("ask {name}"));
            Ok(())
        }

        fn has_left(&mut self, _: &str) -> Result<Option<bool>, TestedError> {
            Ok(self.end)
        }

        fn restart(&mut self, name: &str) -> Result<(), TestedError> {
            self.asked.push(format!("start {name}"));
            Ok(())
        }
    }

    fn fault(kill: &str, at_s: f64, signal: FaultSignal) -> Fault {
        Fault { at_s, kill: kill.into(), signal, restart_after_s: Some(3.0), always: true }
    }

    #[test]
    fn what_a_phase_leaves_undone_goes_on_in_the_next() {
        let (mut pending, mut servers) = (Pending::default(), Noting::default());
        let faults = [fault("a", 1.0, FaultSignal::Kill), fault("b", 2.0, FaultSignal::Term)];
        pending.begin_phase(faults.into_iter().chain([fault("c", 9.0, FaultSignal::Kill)]));
        let mut at = |pending: &mut Pending, seconds: i64, end| {
            servers.end = end;
            pending.work_off(seconds * 1_000_000, &mut servers).expect("all goes well")
        };
        assert_eq!(at(&mut pending, 0, None), Vec::<String>::new());
        assert_eq!(at(&mut pending, 2, None), ["a killed", "b asked to leave"]);
        // It was killed at 2 s by this clock, and is to be back 3 s later: 1 s into the next phase.
        pending.end_phase(4_000_000);
        assert_eq!(at(&mut pending, 0, None), Vec::<String>::new());
        let left = pending.left().expect("two of them");
        assert!(left.contains("a was not started again") && left.contains("b was asked to leave"), "{left}");
        assert_eq!(at(&mut pending, 1, None), ["a started again"]);
        assert_eq!(at(&mut pending, 2, Some(false)), ["b ended with an error"]);
        assert_eq!(at(&mut pending, 4, None), Vec::<String>::new());
        pending.hurry();
        assert_eq!(at(&mut pending, 4, None), ["b started again"]);
        assert_eq!(pending.left(), None, "the phase ended before c's time");
        assert_eq!(servers.asked, ["kill a", "ask b", "start a", "start b"]);
    }
}
