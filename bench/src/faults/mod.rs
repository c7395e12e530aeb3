//! Faults on real processes: three storage nodes in three zones and two gateways in two of them, each in a network
//! namespace of its own, are killed, stopped, cut off and so on, one fault after another, under the load of a plan. For
//! each fault: how long there was no service, and whether anything that was acknowledged is lost, doubled or out of order.
//!
//! ```text
//! load's agents ──┐                                    ┌── the run: rooms, messages, ledger
//! probes ─────────┼──▶ gateways ──▶ storage nodes      │   (coordinator/run.rs)
//!                 │        ▲             ▲             │
//! injector ───────┴────────┴─ begin, heal ┘ ───────────┘   ends the load when the fleet is whole again
//! ```
//!
//! One fleet lives through all faults of a run, each of them with users of its own.

mod fleet;
pub mod kinds;
mod leaders;
mod probe;
mod injector;
pub mod outcome;

use crate::agent::AgentError;
use crate::agent::identity::IdentityError;
use crate::coordinator::ClusterError;
use crate::coordinator::agents::Steering;
use crate::coordinator::enclosure::Enclosure;
use crate::coordinator::network::NetworkError;
use crate::coordinator::run::{Drivers, Onlook, Run, RunError};
use crate::report::progress::Output;
use crate::workload::plan::Plan;
pub use fleet::Binaries;
use fleet::Fleet;
use injector::{Injector, Observed};
use kinds::{Kind, Length};
use outcome::Outcome;
use probe::Probes;
use std::sync::mpsc::{Receiver, Sender, channel};

/// The phase of the plan in which things break.
pub const PHASE: &str = "under_fire";

/// Why a fault run came to no result.
#[derive(Debug, thiserror::Error)]
pub enum FaultsError {
    /// Namespaces.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Servers.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The load.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The probes.
    #[error("probes: {0}")]
    Probe(#[from] AgentError),
    /// The benchmark's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Something to install.
    #[error("a clock of one process alone needs libfaketime, which is Debian's package of that name")]
    NoFakeClock,
    /// It was only asked to stop.
    #[error("{0} ended with an error when it was asked to stop")]
    EndedBadly(String),
    /// A storage node did not do what an operator asked for.
    #[error("ringline-storage admin {asked}: {said}")]
    Admin {
        /// The command.
        asked: String,
        /// Its words, or that it took too long.
        said: String,
    },
    /// A zone that is lost would take more copies of a shard with it than it has to.
    #[error("copies are not as far apart as they could be: {0}")]
    Crowded(String),
    /// The plan is not for this.
    #[error("plan {0}: a fault run needs a ledger, and a phase under_fire")]
    Plan(String),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What to do.
pub struct Faults {
    /// In this order.
    pub kinds: Vec<Kind>,
    /// How thoroughly.
    pub length: Length,
    /// The load.
    pub plan: Plan,
    /// Where the servers' binaries are.
    pub binaries: Binaries,
    /// As it was given.
    pub command_line: Vec<String>,
    /// Where progress is shown.
    pub output: Output,
}

impl Faults {
    /// Does it, and says so after each fault.
    pub fn make(
        &self,
        enclosure: &Enclosure,
        mut told: impl FnMut(&Outcome),
    ) -> Result<Vec<Outcome>, FaultsError> {
        if !self.plan.ledger.keep || self.plan.phases.iter().all(|phase| phase.name != PHASE) {
            return Err(FaultsError::Plan(self.plan.name.clone()));
        }
        let mut fleet = Fleet::start(enclosure, &self.plan, &self.binaries, &self.kinds)?;
        let mut outcomes = Vec::new();
        for kind in &self.kinds {
            let outcome = self.one(*kind, &mut fleet)?;
            told(&outcome);
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    /// One fault: the load runs here, the injector in a thread beside it.
    fn one(&self, kind: Kind, fleet: &mut Fleet) -> Result<Outcome, FaultsError> {
        let run = Run {
            plan: self.plan.clone(),
            wanted: fleet.wanted(),
            drivers: Drivers::Local(1),
            faults: false,
            command_line: self.command_line.clone(),
            output: self.output,
        };
        let probes = Probes::start(&fleet.cluster.targets, &fleet.bench_key_pem)?;
        let (begun, begin) = channel();
        let (done, is_done) = channel();
        let mut signals = Signals { begun: Some(begun), is_done };
        let injector = Injector { kind, length: self.length, probes: &probes };
        let (result, observed) = std::thread::scope(|scope| {
            let injecting = scope.spawn(move || inject(&injector, fleet, &begin, &done));
            let result = run.make_watched(&mut signals);
            // A run that failed before its phase: the injector is told that it never comes.
            drop(signals);
            (result, injecting.join().expect("the injector does not panic"))
        });
        // Whose failure it is: an injector's ends the load, too.
        let Some(observed) = observed? else {
            result?;
            return Err(FaultsError::Plan(self.plan.name.clone()));
        };
        Ok(Outcome::of(kind, observed, &result?))
    }
}

/// Waits for the phase, breaks and heals; `None`: the phase never came.
fn inject(
    injector: &Injector<'_>,
    fleet: &mut Fleet,
    begin: &Receiver<()>,
    done: &Sender<()>,
) -> Result<Option<Observed>, FaultsError> {
    if begin.recv().is_err() {
        return Ok(None);
    }
    let observed = injector.run(fleet);
    // Nobody listens any more if the load ended by itself.
    let _ = done.send(());
    observed.map(Some)
}

/// Tells the injector when the phase has begun, and ends it when the injector is done.
struct Signals {
    begun: Option<Sender<()>>,
    is_done: Receiver<()>,
}

impl Onlook for Signals {
    fn tick(&mut self, phase: &str, elapsed_us: i64) -> Steering {
        if phase == PHASE
            && elapsed_us >= 0
            && let Some(begun) = self.begun.take()
        {
            // It waits for exactly this, and ends after us.
            let _ = begun.send(());
        }
        if self.is_done.try_recv().is_ok() { Steering::EndPhase } else { Steering::GoOn }
    }
}
