//! What an agent refuses to be prepared for, whoever asks: it was told its bounds when it was started.

use super::AgentOptions;
use crate::coordinator::control::messages::Prepare;
use crate::workload::plan::PlanError;

/// Agents of a run: a tree of relays with 256 agents each on 256 machines.
pub const AGENTS_MAX: u32 = 65_536;
/// Targets of a run: the gateways of the largest fleet.
pub const TARGETS_MAX: usize = 4_096;
/// Phases of a plan: a search doubles and halves a few dozen times.
pub const PHASES_MAX: usize = 1_024;
/// What a phase may take beyond its time, in seconds, until all its answers are there. Then the load is stopped. A
/// workload's own grace for unanswered requests must be shorter.
pub const PHASE_GRACE_S: u64 = 60;
/// Longest settling, in seconds: every device reads everything once more.
pub const SETTLE_S_MAX: u64 = 900;

/// What an agent refuses.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// Not among the targets of its command line.
    #[error("target {0} is not one of those this agent was started for")]
    Target(String),
    /// More than it was allowed to hold.
    #[error("{connections} connections for this agent, which may hold {connections_max}")]
    Connections {
        /// This agent's share.
        connections: u64,
        /// Its own bound.
        connections_max: u64,
    },
    /// No sensible number.
    #[error("{0}")]
    Beyond(String),
    /// The plan contradicts itself.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Devices that one agent may have to connect: the most that any agent's share of the population has, all online.
pub fn connections_of(prepare: &Prepare) -> u64 {
    let people = &prepare.plan.population;
    let cells = people.users / people.cell_users.max(1);
    u64::from(cells.div_ceil(prepare.agents.max(1)))
        * u64::from(people.cell_users)
        * u64::from(people.devices)
}

/// Refuses what goes beyond the agent's own bounds.
pub fn check(prepare: &Prepare, options: &AgentOptions) -> Result<(), LimitError> {
    prepare.plan.check()?;
    let beyond = |detail: String| Err(LimitError::Beyond(detail));
    if prepare.plan.phases.len() > PHASES_MAX {
        return beyond(format!("{} phases, more than {PHASES_MAX}", prepare.plan.phases.len()));
    }
    if !(1..=AGENTS_MAX).contains(&prepare.agents) || prepare.agent_first >= prepare.agents {
        return beyond(format!("agent {} of {}, at most {AGENTS_MAX}", prepare.agent_first, prepare.agents));
    }
    if prepare.targets.is_empty() || prepare.targets.len() > TARGETS_MAX {
        return beyond(format!("{} targets, from 1 to {TARGETS_MAX}", prepare.targets.len()));
    }
    // As it is spelt: what a name means is looked up on the agent's machine alone.
    let foreign = prepare.targets.iter().find(|target| !options.targets.contains(&target.address));
    if let Some(target) = foreign {
        return Err(LimitError::Target(target.address.clone()));
    }
    let (connections, connections_max) = (connections_of(prepare), options.connections_max);
    if connections > connections_max {
        return Err(LimitError::Connections { connections, connections_max });
    }
    Ok(())
}
