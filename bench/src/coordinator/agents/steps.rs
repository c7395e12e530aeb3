//! The steps of a run, one after another: each waits until all agents have done it.

use super::members::{MEMBERS_MAX, Member};
use super::{Agents, AgentsError, HELLO_S_MAX, Merging, News, Place, Work};
use crate::coordinator::control::clocks::ProcessClock;
use crate::coordinator::control::messages::{PhaseShare, Prepare, Progress, Subject, TargetAddress};
use crate::coordinator::control::trust::CoordinatorTrust;
use crate::report::results::LedgerResult;
use crate::workload::plan::Plan;
use crossbeam_channel::bounded;
use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

/// How far ahead a phase is set, in microseconds: every agent must have been told before, through its relays, even
/// on busy machines. One that was not says so, and the run ends.
const BEGIN_AHEAD_US: u64 = 1_000_000;
/// How often deadlines are looked at and the watch is asked.
const TICK: Duration = Duration::from_millis(100);
/// Events that wait: a few of each agent; more hold up the threads that read from them.
const EVENTS_MAX: usize = 4 * MEMBERS_MAX;

/// Who looks on while a phase runs: live progress, faults, searches.
pub trait PhaseWatch {
    /// Asked at least ten times a second. `elapsed_us` counts from the phase's begin and is below 0 before it.
    fn tick(&mut self, elapsed_us: i64) -> Steering;
    /// A second has passed everywhere; all agents together.
    fn second(&mut self, second: &Progress);
}

/// What the watch wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Steering {
    /// All is well.
    GoOn,
    /// The phase is to end early. Heard once.
    EndPhase,
}

impl Agents {
    /// Starts or reaches all agents, at the same time, and hears who they are. `trust` is needed for remote ones.
    pub fn gather(
        places: &[Place],
        trust: Option<&CoordinatorTrust>,
        clock: ProcessClock,
        merging: Merging,
    ) -> Result<Self, AgentsError> {
        if !(1..=MEMBERS_MAX).contains(&places.len()) {
            return Err(AgentsError::Number(places.len()));
        }
        let (sender, events) = bounded(EVENTS_MAX);
        let reached: Vec<Result<Member, AgentsError>> = thread::scope(|scope| {
            let reach = |(index, place)| {
                let sender = sender.clone();
                scope.spawn(move || Member::reach(place, index, trust, clock, sender))
            };
            let reaching: Vec<_> = places.iter().enumerate().map(reach).collect();
            reaching.into_iter().map(|thread| thread.join().expect("reaching does not panic")).collect()
        });
        let members = reached.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (news, deadline_us) = (VecDeque::new(), clock.now_us() + HELLO_S_MAX * 1_000_000);
        let work = Work::Hello;
        let (probed_us, phase_clocks) = (0, Vec::new());
        let mut agents =
            Self { members, events, clock, merging, work, deadline_us, probed_us, news, phase_clocks };
        agents.wait_for(|news| matches!(news, News::Gathered).then_some(()))?;
        Ok(agents)
    }

    /// Measures all clocks, as before each phase.
    pub fn measure_clocks(&mut self) -> Result<(), AgentsError> {
        self.start_clocks()?;
        self.wait_for(|news| matches!(news, News::ClocksMeasured).then_some(()))
    }

    /// Gives each its share and waits until all are ready.
    pub fn prepare(
        &mut self,
        plan: &Plan,
        targets: &[TargetAddress],
        subject: &Subject,
    ) -> Result<(), AgentsError> {
        let (plan, targets, subject) = (plan.clone(), targets.to_vec(), subject.clone());
        self.start_prepare(&Prepare { plan, agent_first: 0, agents: self.agents(), targets, subject })?;
        self.wait_for(|news| matches!(news, News::Prepared).then_some(()))
    }

    /// Measures the clocks, begins a phase of `seconds` everywhere at once, and waits for its end.
    pub fn run_phase(
        &mut self,
        phase: u32,
        seconds: f64,
        watch: &mut dyn PhaseWatch,
    ) -> Result<PhaseShare, AgentsError> {
        self.measure_clocks()?;
        let at_us = self.clock.now_us() + BEGIN_AHEAD_US;
        self.start_phase(phase, at_us, seconds)?;
        let mut ending = false;
        loop {
            match self.wait_once()? {
                Some(News::Second(second)) => watch.second(&second),
                Some(News::PhaseDone(share)) => return Ok(share),
                Some(_) | None => {}
            }
            let elapsed_us = i128::from(self.clock.now_us()) - i128::from(at_us);
            let elapsed_us = i64::try_from(elapsed_us).unwrap_or(i64::MAX);
            if watch.tick(elapsed_us) == Steering::EndPhase && !ending {
                ending = true;
                self.end_phase()?;
            }
        }
    }

    /// Keeps touch with all of them for a moment, while something else is waited for.
    pub fn look_after(&mut self) -> Result<(), AgentsError> {
        self.wait_once().map(drop)
    }

    /// Has every ledger balanced; `None`: the plan keeps none.
    pub fn settle(&mut self) -> Result<Option<LedgerResult>, AgentsError> {
        self.start_settle()?;
        self.wait_for(|news| if let News::Settled(balance) = news { Some(balance) } else { None })
    }

    /// Lets all agents go, and waits until they have.
    pub fn finish(mut self) -> Result<(), AgentsError> {
        self.start_finish()?;
        self.wait_for(|news| matches!(news, News::Finished).then_some(()))
    }

    fn wait_for<T>(&mut self, mut wanted: impl FnMut(News) -> Option<T>) -> Result<T, AgentsError> {
        loop {
            if let Some(found) = self.wait_once()?.and_then(&mut wanted) {
                return Ok(found);
            }
        }
    }

    /// News that are there, or come within a tick.
    fn wait_once(&mut self) -> Result<Option<News>, AgentsError> {
        if self.news.is_empty() {
            // Disconnected: every link has ended and told so before; deadlines remain.
            if let Ok(event) = self.events.recv_timeout(TICK) {
                self.handle(event)?;
            }
            self.tick()?;
        }
        Ok(self.poll_news())
    }
}
