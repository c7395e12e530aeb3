//! The agent as a process: `ringline-bench agent`. Serves one coordinator after another, over TLS or over the pipes of
//! the parent that started it.
//!
//! ```text
//! control thread: answers probes, notices that the coordinator is gone ── orders ──> main thread: the load
//! ```
//!
//! The load runs only as long as a coordinator holds on to it: its end, its silence and the end of a phase's time
//! each stop it. What the load is made of is behind [`Load`].

mod limits;
mod options;
mod session;

pub use limits::{LimitError, PHASE_GRACE_S, SETTLE_S_MAX, check, connections_of};
pub use options::{AGENT_HELP, AgentOptions, Door};
pub use session::SessionEnd;

use crate::coordinator::control::clocks::ProcessClock;
use crate::coordinator::control::flags::FlagError;
use crate::coordinator::control::gate::{Gate, Seat};
use crate::coordinator::control::messages::{PhaseShare, Prepare, Progress};
use crate::coordinator::control::tls::Streams;
use crate::coordinator::control::trust::{TrustError, agent_config};
use crate::report::results::{HostFacts, LedgerResult};
use std::io;
use std::net::IpAddr;

/// The load of one run: an engine that drives a workload. Dropping it closes every connection at once; that is how
/// a load is stopped, for whatever reason.
///
/// Called by one thread. Phases come one after another: `begin` is not called again before the phase's
/// [`Report::PhaseDone`] was taken, nor `settle` while a phase runs.
pub trait Load {
    /// Makes keys and users ready. Leaves no connection open. An error names the culprit and goes to the coordinator.
    fn prepare(&mut self, prepare: &Prepare) -> Result<(), String>;
    /// The phase of this place in the plan begins when the clock given to the load reads `at_us`.
    fn begin(&mut self, phase: u32, at_us: u64);
    /// Ends the running phase now: nothing more falls due; [`Report::PhaseDone`] follows after the usual grace.
    fn end_phase(&mut self);
    /// Compares all devices and history with what was acknowledged; [`Report::Settled`] follows.
    fn settle(&mut self);
    /// Does what there is to do, or waits for it, for `wait_us_max` at most.
    fn turn(&mut self, wait_us_max: u64);
    /// What there is to tell; asked after each turn until there is nothing.
    fn take_report(&mut self) -> Option<Report>;
}

/// What a load tells its coordinator.
#[derive(Clone, PartialEq, Debug)]
pub enum Report {
    /// A second of the running phase has passed. Seconds only grow.
    Progress(Progress),
    /// The phase has ended, its grace included.
    PhaseDone(PhaseShare),
    /// The ledger's balance; `None`: the plan keeps none.
    Settled(Option<LedgerResult>),
    /// Cannot go on; names the culprit.
    Failed(String),
}

/// What a load is made with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadSetup {
    /// Addresses to bind connections to, in turn; none: the machine's choice.
    pub sources: Vec<IpAddr>,
    /// Most connections at a time.
    pub connections_max: u64,
}

/// Makes the load of a run, with the clock in which its times are given.
pub type MakeLoad<'a, L> = &'a mut dyn FnMut(&LoadSetup, ProcessClock) -> L;

/// Why an agent does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The command line.
    #[error(transparent)]
    Flags(#[from] FlagError),
    /// Certificates.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Sockets, pipes, threads.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// There is no such CPU for this process.
    #[error("--cpu {0}: not among the CPUs of this process")]
    NoCpu(usize),
    /// The parent's run did not end well; only for children.
    #[error("{0}")]
    Run(String),
}

/// An agent, ready to serve.
pub struct Agent {
    /// What the command line says.
    pub options: AgentOptions,
    /// The machine, for the results.
    pub host: HostFacts,
    /// The agent's clock.
    pub clock: ProcessClock,
    /// What a phase may take beyond its time, in seconds.
    pub phase_grace_s: u64,
}

impl Agent {
    /// An agent whose clock starts now.
    pub fn new(options: AgentOptions, host: HostFacts) -> Self {
        Self { options, host, clock: ProcessClock::start(), phase_grace_s: PHASE_GRACE_S }
    }

    /// Serves until the process ends, or as a child until its parent is done with it.
    pub fn run<L: Load>(&self, make_load: MakeLoad<'_, L>) -> Result<(), ServiceError> {
        if let Some(cpu) = self.options.cpu {
            pin(cpu)?;
        }
        match &self.options.door {
            Door::Child => {
                let streams =
                    Streams { reader: Box::new(io::stdin()), writer: Box::new(io::stdout()), socket: None };
                match self.serve_one("parent", streams, None, make_load)? {
                    SessionEnd::Finished => Ok(()),
                    SessionEnd::Lost(detail) | SessionEnd::Failed(detail) => Err(ServiceError::Run(detail)),
                }
            }
            Door::Listen { address, files } => {
                let gate = Gate::open(address, agent_config(files)?)?;
                println!("ready: {}", gate.address());
                self.serve_all(&gate, make_load)
            }
        }
    }

    /// Serves one coordinator after another.
    pub fn serve_all<L: Load>(&self, gate: &Gate, make_load: MakeLoad<'_, L>) -> Result<(), ServiceError> {
        while let Ok(entered) = gate.entered().recv() {
            eprintln!("serves the coordinator at {}", entered.peer);
            let end = self.serve_one(&entered.peer, entered.streams, Some(entered.seat), make_load)?;
            eprintln!("{}: {end}", entered.peer);
        }
        Ok(())
    }

    /// Serves one coordinator. The seat is free again before it sees the end of the connection.
    pub fn serve_one<L: Load>(
        &self,
        peer: &str,
        streams: Streams,
        seat: Option<Seat>,
        make_load: MakeLoad<'_, L>,
    ) -> io::Result<SessionEnd> {
        session::serve(self, peer, streams, seat, make_load)
    }
}

/// Binds this thread, and those it starts, to a CPU.
fn pin(cpu: usize) -> Result<(), ServiceError> {
    let known = core_affinity::get_core_ids().unwrap_or_default();
    let core = known.into_iter().find(|core| core.id == cpu).ok_or(ServiceError::NoCpu(cpu))?;
    if core_affinity::set_for_current(core) { Ok(()) } else { Err(ServiceError::NoCpu(cpu)) }
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
