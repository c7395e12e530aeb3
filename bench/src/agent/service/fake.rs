//! A load that connects to nowhere, for tests: tells on a channel what it was asked for and when it was dropped.

use super::{Load, LoadSetup, Report};
use crate::coordinator::control::clocks::ProcessClock;
use crate::coordinator::control::messages::{PhaseShare, Prepare, Progress, StreamShare};
use crate::report::results::{ConnectionCounts, GeneratorResult, LedgerResult};
use crossbeam_channel::{Receiver, Sender, never};
use std::collections::VecDeque;
use std::time::Duration;

/// What a fake load was asked for, with its agent's place in the run.
#[derive(Clone, PartialEq, Debug)]
pub enum Asked {
    Made,
    Prepared { agent: u32, agents: u32 },
    Began { agent: u32, phase: u32, at_us: u64 },
    EndedPhase { agent: u32 },
    Dropped { agent: u32, phase_running: bool },
}

pub struct FakeLoad {
    clock: ProcessClock,
    asked: Sender<Asked>,
    nothing: Receiver<()>,
    agent: u32,
    phase: Option<(u32, u64)>,
    /// Whether phases end by themselves after their third second, or only when asked.
    pub endless: bool,
    reports: VecDeque<Report>,
}

impl FakeLoad {
    pub fn new(_: &LoadSetup, clock: ProcessClock, asked: Sender<Asked>) -> Self {
        let reports = VecDeque::new();
        let _ = asked.send(Asked::Made);
        Self { clock, asked, nothing: never(), agent: 0, phase: None, endless: false, reports }
    }

    /// What this agent counts in its phases: different for each, so that a sum tells who is missing.
    pub fn due(agent: u32) -> u64 {
        10u64.pow(agent) * 3
    }

    fn tell(&self, asked: Asked) {
        // A test that has seen enough listens no more.
        let _ = self.asked.send(asked);
    }

    fn share(&mut self, phase: u32) -> PhaseShare {
        let due = Self::due(self.agent);
        PhaseShare {
            phase,
            measured_s: 3.0,
            streams: vec![StreamShare { due, begun: due, succeeded: due, ..StreamShare::default() }],
            connections: ConnectionCounts { at_end: due, ..ConnectionCounts::default() },
            generators: vec![GeneratorResult { agent: self.agent + 1, ..GeneratorResult::default() }],
            ..PhaseShare::default()
        }
    }
}

impl Load for FakeLoad {
    fn prepare(&mut self, prepare: &Prepare) -> Result<(), String> {
        self.agent = prepare.agent_first;
        // A plan of this name is one that no load can make ready for.
        if prepare.plan.name == "impossible" {
            return Err("users: none can be made".to_owned());
        }
        self.endless = prepare.plan.name == "endless";
        self.tell(Asked::Prepared { agent: self.agent, agents: prepare.agents });
        Ok(())
    }

    fn begin(&mut self, phase: u32, at_us: u64) {
        assert_eq!(self.phase, None, "one phase after another");
        self.phase = Some((phase, at_us));
        self.tell(Asked::Began { agent: self.agent, phase, at_us });
    }

    fn end_phase(&mut self) {
        self.tell(Asked::EndedPhase { agent: self.agent });
        if let Some((phase, _)) = self.phase.take() {
            let share = self.share(phase);
            self.reports.push_back(Report::PhaseDone(share));
        }
    }

    fn settle(&mut self) {
        let balance = LedgerResult { acknowledged: Self::due(self.agent), ..LedgerResult::default() };
        self.reports.push_back(Report::Settled(Some(balance)));
    }

    fn turn(&mut self, wait_us_max: u64) {
        let until_us = match self.phase {
            Some((phase, at_us)) if !self.endless => {
                let now_us = self.clock.now_us();
                if now_us >= at_us {
                    self.phase = None;
                    for second in 0..3 {
                        let connections = Self::due(self.agent);
                        let progress = Progress {
                            phase,
                            second,
                            due: connections / 3,
                            connections,
                            ..Progress::default()
                        };
                        self.reports.push_back(Report::Progress(progress));
                    }
                    let share = self.share(phase);
                    self.reports.push_back(Report::PhaseDone(share));
                    return;
                }
                at_us - now_us
            }
            _ => wait_us_max,
        };
        if self.reports.is_empty() {
            let _ = self.nothing.recv_timeout(Duration::from_micros(until_us.min(wait_us_max)));
        }
    }

    fn take_report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }
}

impl Drop for FakeLoad {
    fn drop(&mut self) {
        self.tell(Asked::Dropped { agent: self.agent, phase_running: self.phase.is_some() });
    }
}
