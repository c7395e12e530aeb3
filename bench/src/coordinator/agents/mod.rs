//! The coordinator's side of its agents: starts or reaches them, gives out shares, begins phases at a common moment,
//! gathers what they tell.
//!
//! ```text
//! gather -> prepare -> (measure_clocks -> run_phase)* -> settle -> finish
//! ```
//!
//! It is the same for a relay, which adds what comes from above: underneath is a loop of [`Agents::handle`],
//! [`Agents::tick`] and [`Agents::poll_news`] that waits for nothing. The first agent that is lost, or fails, ends it
//! all: what the others measured meanwhile was another load than the plan's. Dropping [`Agents`] ends every
//! connection, upon which each agent stops its load.

mod gathering;
mod members;
mod steps;

pub use gathering::{Gathering, Merging};
pub use members::{ChildAgent, LocalAgents, Place, RemoteAgent, local_agents, read_agents_file};
pub use steps::{PhaseWatch, Steering};

use super::control::clocks::{ClockEstimate, PROBES, ProcessClock, Sample, offset};
use super::control::link::LinkEvent;
use super::control::messages::{CONTROL_VERSION, FromAgent, Prepare, ToAgent};
use super::control::transport::TransportError;
use super::control::trust::TrustError;
use crate::agent::service::{PHASE_GRACE_S, SETTLE_S_MAX};
use crate::coordinator::control::messages::{PhaseShare, Progress};
use crate::report::results::{ClockOffset, HostFacts, LedgerResult, VoidReason};
use crossbeam_channel::Receiver;
use members::{MEMBERS_MAX, Member};
use std::collections::VecDeque;
use std::path::PathBuf;

/// Longest wait for all agents' first words, in seconds: connecting, proving, and a relay's own agents.
const HELLO_S_MAX: u64 = 30;
/// Longest measurement of clocks, in seconds.
const CLOCKS_S_MAX: u64 = 10;
/// Longest preparation, in seconds: millions of keys may have to be made.
const PREPARE_S_MAX: u64 = 120;
/// What the end of a phase or of settling may take to come up through relays, in seconds.
const REPORT_S_MAX: u64 = 15;
/// Longest wait for agents to let go, in seconds; then their connections are cut.
const FINISH_S_MAX: u64 = 5;
/// How often a silent agent is probed, in microseconds.
const PROBE_EVERY_US: u64 = 1_000_000;

/// Why a run cannot go on. All name the agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentsError {
    /// The list of agents.
    #[error("{path}: {detail}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The own certificates.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// None, or more than one coordinator can hold.
    #[error("{0} agents, from 1 to {MEMBERS_MAX}; more want relays")]
    Number(usize),
    /// Not to be had.
    #[error("agent {agent}: {detail}")]
    Unreachable {
        /// Which.
        agent: String,
        /// Why.
        detail: String,
    },
    /// Gone in the middle.
    #[error("agent {agent} lost: {detail}")]
    Lost {
        /// Which.
        agent: String,
        /// How.
        detail: String,
    },
    /// It refused, or cannot go on.
    #[error("agent {agent}: {detail}")]
    Failed {
        /// Which.
        agent: String,
        /// Its own words.
        detail: String,
    },
    /// It broke the protocol.
    #[error("agent {agent} broke the protocol: {detail}")]
    Broke {
        /// Which.
        agent: String,
        /// What it did.
        detail: String,
    },
}

impl AgentsError {
    /// What the result says of a run that ended so; `phase` is empty outside of phases.
    pub fn void_reason(&self, phase: &str) -> VoidReason {
        VoidReason { phase: phase.to_owned(), rule: "agent_lost".to_owned(), detail: self.to_string() }
    }
}

/// What came over the link of one agent.
#[derive(Debug)]
pub struct AgentEvent {
    member: usize,
    event: LinkEvent<FromAgent>,
}

/// What all agents together have done.
#[derive(Clone, PartialEq, Debug)]
pub enum News {
    /// Everybody has said hello.
    Gathered,
    /// Every clock has been measured.
    ClocksMeasured,
    /// Everybody is ready.
    Prepared,
    /// A second has passed everywhere.
    Second(Progress),
    /// Everybody has ended the phase.
    PhaseDone(PhaseShare),
    /// Everybody has settled.
    Settled(Option<LedgerResult>),
    /// Everybody has let go.
    Finished,
}

/// What all agents are waited for.
enum Work {
    Rest,
    Hello,
    Clocks,
    Prepare,
    Phase(Gathering),
    Settle(Option<LedgerResult>),
    Finish,
}

/// All agents of a coordinator, or of a relay.
pub struct Agents {
    members: Vec<Member>,
    events: Receiver<AgentEvent>,
    clock: ProcessClock,
    merging: Merging,
    work: Work,
    deadline_us: u64,
    probed_us: u64,
    news: VecDeque<News>,
    phase_clocks: Vec<ClockOffset>,
}

impl Agents {
    /// Agents behind all connections.
    pub fn agents(&self) -> u32 {
        self.members.iter().map(|member| member.agents).sum()
    }

    /// Machines, in the order of agents.
    pub fn hosts(&self) -> Vec<HostFacts> {
        self.members.iter().flat_map(|member| member.hosts.iter().cloned()).collect()
    }

    /// Connections that all can hold.
    pub fn connections_max(&self) -> u64 {
        self.members.iter().fold(0, |sum: u64, member| sum.saturating_add(member.connections_max))
    }

    /// Process ids of the agents that were started here.
    pub fn child_pids(&self) -> Vec<u32> {
        self.members.iter().filter_map(Member::child_pid).collect()
    }

    /// Offsets and their present bounds, for each connection; that of a relay holds for all behind it.
    pub fn clocks(&self) -> Vec<ClockOffset> {
        let now_us = self.clock.now_us();
        let mut clocks = Vec::new();
        for member in &self.members {
            let Some(estimate) = member.estimate else { continue };
            let bound_us = estimate.bound_at(now_us).saturating_add(member.below_us);
            clocks.push(ClockOffset { agent: member.first + 1, offset_us: estimate.offset_us, bound_us });
        }
        clocks
    }

    /// Those with which the last phase was begun: what its result is to show.
    pub fn phase_clocks(&self) -> &[ClockOffset] {
        &self.phase_clocks
    }

    /// How far any clock below may be off from what is known of it, in microseconds.
    pub fn clock_bound_us(&self) -> u64 {
        self.clocks().iter().map(|clock| clock.bound_us).max().unwrap_or(0)
    }

    /// Whether all have done what they were last asked for.
    pub fn at_rest(&self) -> bool {
        matches!(self.work, Work::Rest)
    }

    /// Where events arrive; each is to be given to [`Self::handle`].
    pub fn events(&self) -> &Receiver<AgentEvent> {
        &self.events
    }

    /// Takes what came from one agent. After an error nothing is to be done but to drop it all.
    pub fn handle(&mut self, event: AgentEvent) -> Result<(), AgentsError> {
        let AgentEvent { member, event } = event;
        match event {
            LinkEvent::Ended(error) if matches!(self.work, Work::Finish) => {
                drop(error);
                self.arrived(member);
                Ok(())
            }
            LinkEvent::Ended(error) => {
                let detail = error.map_or("the connection ended".to_owned(), |error| error.to_string());
                Err(self.members[member].lost(detail))
            }
            LinkEvent::Message { at_us, message } => self.message(member, at_us, message),
        }
    }

    /// Probes, and looks for silence and for deadlines that have passed. To be called several times a second.
    pub fn tick(&mut self) -> Result<(), AgentsError> {
        let now_us = self.clock.now_us();
        let measuring = matches!(self.work, Work::Clocks);
        let probe_now = now_us.saturating_sub(self.probed_us) >= PROBE_EVERY_US;
        let leaving = matches!(self.work, Work::Finish);
        for member in self.members.iter_mut().filter(|member| member.agents > 0 && !leaving) {
            member.check_heard()?;
            if probe_now && !(measuring && member.waited_for) {
                member.probe(now_us)?;
            }
        }
        if probe_now {
            self.probed_us = now_us;
        }
        if let Work::Phase(gathering) = &self.work
            && let Some(member) = gathering.behind()
        {
            return Err(self.members[member].lost("its progress is far behind the others'".to_owned()));
        }
        if now_us <= self.deadline_us {
            return Ok(());
        }
        if leaving {
            (0..self.members.len()).for_each(|member| self.arrived(member));
            return Ok(());
        }
        let late = self.members.iter().find(|member| member.waited_for);
        late.map_or(Ok(()), |member| Err(member.lost(format!("no {} in time", self.work.awaited()))))
    }

    /// What all have done, in order.
    pub fn poll_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// Measures all clocks anew: [`News::ClocksMeasured`] follows.
    pub fn start_clocks(&mut self) -> Result<(), AgentsError> {
        self.start(Work::Clocks, CLOCKS_S_MAX);
        let now_us = self.clock.now_us();
        self.members.iter_mut().try_for_each(|member| {
            member.samples.clear();
            member.probe(now_us)
        })
    }

    /// Tells each its share: [`News::Prepared`] follows. `prepare` is that of the first agent here.
    pub fn start_prepare(&mut self, prepare: &Prepare) -> Result<(), AgentsError> {
        self.start(Work::Prepare, PREPARE_S_MAX);
        self.members.iter().try_for_each(|member| {
            let agent_first = prepare.agent_first + member.first;
            member.send(ToAgent::Prepare(Box::new(Prepare { agent_first, ..prepare.clone() })))
        })
    }

    /// Begins a phase of `seconds` when the own clock reads `at_us`: [`News::Second`]s and [`News::PhaseDone`]
    /// follow.
    pub fn start_phase(&mut self, phase: u32, at_us: u64, seconds: f64) -> Result<(), AgentsError> {
        let wait_s = at_us.saturating_sub(self.clock.now_us()) / 1_000_000 + seconds.ceil() as u64;
        let gathering = Gathering::new(phase, self.members.len(), self.merging);
        self.start(Work::Phase(gathering), wait_s + PHASE_GRACE_S + REPORT_S_MAX);
        self.phase_clocks = self.clocks();
        self.members.iter().try_for_each(|member| {
            let estimate = member.estimate.ok_or_else(|| member.broke("its clock is not known"))?;
            member.send(ToAgent::Begin { phase, at_us: estimate.theirs(at_us) })
        })
    }

    /// Ends the running phase early.
    pub fn end_phase(&self) -> Result<(), AgentsError> {
        self.members.iter().try_for_each(|member| member.send(ToAgent::EndPhase))
    }

    /// Has the ledger balanced: [`News::Settled`] follows.
    pub fn start_settle(&mut self) -> Result<(), AgentsError> {
        self.start(Work::Settle(None), SETTLE_S_MAX + REPORT_S_MAX);
        self.members.iter().try_for_each(|member| member.send(ToAgent::Settle))
    }

    /// Lets all go: [`News::Finished`] follows.
    pub fn start_finish(&mut self) -> Result<(), AgentsError> {
        self.start(Work::Finish, FINISH_S_MAX);
        self.members.iter().try_for_each(Member::finish)
    }

    fn start(&mut self, work: Work, seconds: u64) {
        self.work = work;
        self.deadline_us = self.clock.now_us() + seconds * 1_000_000;
        self.members.iter_mut().for_each(|member| member.waited_for = true);
    }

    fn message(&mut self, member: usize, at_us: u64, message: FromAgent) -> Result<(), AgentsError> {
        let of = &mut self.members[member];
        let expected = of.waited_for;
        match (message, &mut self.work) {
            (FromAgent::Failed { detail }, _) => return Err(of.failed(detail)),
            (FromAgent::Hello { version, hosts, agents, connections_max }, Work::Hello) if expected => {
                if version != CONTROL_VERSION {
                    return Err(of.broke(format!("speaks version {version}, this is {CONTROL_VERSION}")));
                }
                if agents == 0 || hosts.len() != agents as usize {
                    return Err(of.broke(format!("{agents} agents on {} hosts", hosts.len())));
                }
                (of.hosts, of.agents, of.connections_max) = (hosts, agents, connections_max);
            }
            (FromAgent::Echo { number, now_us, bound_us }, work) if of.agents > 0 => {
                of.below_us = bound_us;
                let measuring = matches!(work, Work::Clocks) && expected;
                return self.echo(member, measuring, number, now_us, at_us);
            }
            (FromAgent::Prepared, Work::Prepare) if expected => {}
            (FromAgent::Progress(progress), Work::Phase(gathering)) if expected => {
                gathering.progress(member, *progress).map_err(|detail| of.broke(detail))?;
                while let Some(second) = gathering.poll_second() {
                    self.news.push_back(News::Second(second));
                }
                return Ok(());
            }
            (FromAgent::PhaseDone(share), Work::Phase(gathering)) if expected => {
                gathering.done(member, *share).map_err(|detail| of.broke(detail))?;
                while let Some(second) = gathering.poll_second() {
                    self.news.push_back(News::Second(second));
                }
            }
            (FromAgent::Settled { balance }, Work::Settle(sum)) if expected => {
                let merge = self.merging.ledger;
                match (sum.as_mut(), balance) {
                    (Some(sum), Some(balance)) => merge(sum, &balance).map_err(|detail| of.broke(detail))?,
                    (None, balance) => *sum = balance,
                    (Some(_), None) => {}
                }
            }
            (message, work) => {
                let detail = format!("{} while {} was awaited", message.name(), work.awaited());
                return Err(of.broke(detail));
            }
        }
        self.arrived(member);
        Ok(())
    }

    fn echo(
        &mut self,
        member: usize,
        measuring: bool,
        number: u32,
        agent_us: u64,
        received_us: u64,
    ) -> Result<(), AgentsError> {
        let of = &mut self.members[member];
        let Some(sent_us) = of.probe_answered(number) else {
            // Of a probe that a later one has overtaken.
            return Ok(());
        };
        let sample = Sample { sent_us, agent_us, received_us };
        if !measuring {
            of.refine(sample);
            return Ok(());
        }
        of.samples.push(sample);
        if of.samples.len() < PROBES as usize {
            return of.probe(self.clock.now_us());
        }
        of.estimate = offset(&of.samples);
        if of.estimate.is_none() {
            return Err(of.broke("its clock cannot be measured"));
        }
        self.arrived(member);
        Ok(())
    }

    /// Notes that a member has done what all are waited for.
    fn arrived(&mut self, member: usize) {
        let was_waited_for = std::mem::take(&mut self.members[member].waited_for);
        if !was_waited_for || self.members.iter().any(|member| member.waited_for) {
            return;
        }
        self.deadline_us = u64::MAX;
        let news = match std::mem::replace(&mut self.work, Work::Rest) {
            Work::Rest => return,
            Work::Hello => {
                self.number_members();
                News::Gathered
            }
            Work::Clocks => News::ClocksMeasured,
            Work::Prepare => News::Prepared,
            Work::Phase(gathering) => News::PhaseDone(gathering.into_share()),
            Work::Settle(balance) => News::Settled(balance),
            Work::Finish => News::Finished,
        };
        self.news.push_back(news);
    }

    fn number_members(&mut self) {
        let mut first = 0;
        for member in &mut self.members {
            member.first = first;
            first += member.agents;
        }
    }
}

impl Work {
    fn awaited(&self) -> &'static str {
        match self {
            Self::Rest => "nothing",
            Self::Hello => "Hello",
            Self::Clocks => "Echo",
            Self::Prepare => "Prepared",
            Self::Phase(_) => "PhaseDone",
            Self::Settle(_) => "Settled",
            Self::Finish => "the connection's end",
        }
    }
}

impl From<(&str, TransportError)> for AgentsError {
    fn from((agent, error): (&str, TransportError)) -> Self {
        Self::Lost { agent: agent.to_owned(), detail: error.to_string() }
    }
}

/// The better of what is known of a clock and what one more probe says.
fn better(known: Option<ClockEstimate>, sample: Sample) -> Option<ClockEstimate> {
    let fresh = ClockEstimate::of(sample);
    match (known, fresh) {
        (Some(known), Some(fresh)) if known.bound_at(fresh.measured_us) < fresh.bound_us => Some(known),
        (known, fresh) => fresh.or(known),
    }
}

#[cfg(test)]
pub(crate) mod rig;
#[cfg(test)]
mod tests;
