//! One run from its plan to its result: agents gathered, phases one after another, servers sampled and, if the plan
//! says so, killed or asked to leave; then the ledger, and whether the run counts.

use super::agents::{Agents, AgentsError, LocalAgents, Merging, PhaseWatch, Place, Steering, local_agents};
use super::control::clocks::ProcessClock;
use super::control::messages::{PhaseShare, Progress};
use super::control::trust::CoordinatorTrust;
use super::pending::Pending;
use super::tested::{Tested, TestedError, Wanted};
use super::void;
use crate::clock;
use crate::measure::host::{commit, host_facts};
use crate::measure::sampler::{CountCalls, Sampler};
use crate::report::merge::{MergeError, ProgressSum, merge_progress, merge_shares, phase_result};
use crate::report::progress::{LiveLine, Output};
use crate::report::results::{
    HostFacts, LedgerResult, PhaseResult, RunResult, SCHEMA_VERSION, Second, TuningFact, VoidReason,
};
use crate::workload::ledger;
use crate::workload::plan::{Fault, Phase, Plan};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use tuning::{Profile, RealHost, Report};

/// Connections of one agent process here: the usual limit of open files less what it needs for itself.
const LOCAL_CONNECTIONS_MAX: u64 = 19_500;
/// Connections that one source address may have to one target: the usual range of ports, with room.
const CONNECTIONS_OF_SOURCE: u64 = 25_000;
/// Longest wait for servers that have yet to leave when the last phase is over, in milliseconds: more than twice
/// what a gateway takes to send its clients away. One that is starting has a bound of its own.
const PENDING_MS_MAX: u64 = 60_000;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The servers.
    #[error(transparent)]
    Tested(#[from] TestedError),
    /// The agents.
    #[error(transparent)]
    Agents(#[from] AgentsError),
    /// What agents told does not fit together.
    #[error("figures: {0}")]
    Merge(#[from] MergeError),
    /// What faults left to be done was not done in time.
    #[error("faults: {seconds} s after the last phase {0}", seconds = PENDING_MS_MAX / 1_000)]
    Pending(String),
    /// The system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Who drives the load.
pub enum Drivers {
    /// Processes of this machine; 0: as many as the file limit wants.
    Local(usize),
    /// Agents and relays elsewhere.
    Remote(Vec<Place>, Box<CoordinatorTrust>),
}

/// A run to be made.
pub struct Run {
    /// What happens.
    pub plan: Plan,
    /// To whom.
    pub wanted: Wanted,
    /// By whom.
    pub drivers: Drivers,
    /// Whether faults that are not marked `always` happen.
    pub faults: bool,
    /// As it was given.
    pub command_line: Vec<String>,
    /// Where progress is shown.
    pub output: Output,
}

/// Looks on while a run is made, and may end its phases.
pub trait Onlook {
    /// Asked at least ten times a second. `elapsed_us` counts from the phase's begin and is below 0 before it.
    fn tick(&mut self, phase: &str, elapsed_us: i64) -> Steering;
}

/// Who does not mind.
struct Nobody;

impl Onlook for Nobody {
    fn tick(&mut self, _: &str, _: i64) -> Steering {
        Steering::GoOn
    }
}

/// How figures of agents become one: also what a relay is made with.
pub fn merging() -> Merging {
    fn told(error: MergeError) -> String {
        error.to_string()
    }
    Merging {
        progress: |sum, more| {
            *sum = merge_progress(&[sum.clone(), more.clone()]).map_err(told)?;
            Ok(())
        },
        share: |sum: &mut PhaseShare, more| {
            *sum = merge_shares(&[sum.clone(), more.clone()]).map_err(told)?;
            Ok(())
        },
        ledger: |sum, more| {
            ledger::merge(sum, more);
            Ok(())
        },
    }
}

impl Run {
    /// Makes it. A run that an agent's loss ended early has a result, too: a void one.
    pub fn make(&self) -> Result<RunResult, RunError> {
        self.make_watched(&mut Nobody)
    }

    /// The same, with somebody who looks on.
    pub fn make_watched(&self, onlooker: &mut dyn Onlook) -> Result<RunResult, RunError> {
        self.wanted.check(&self.plan, self.plan.phases.iter().flat_map(|phase| self.faults_of(phase)))?;
        let run_id = getrandom::u64().map_err(|error| std::io::Error::other(error.to_string()))?;
        let started_ms = clock::wall_ms();
        let mut tested = Tested::start(&self.wanted, &self.plan, run_id)?;
        let (places, trust) = self.places(&tested);
        let mut agents = Agents::gather(&places, trust, ProcessClock::start(), merging())?;
        let mut done = Done::default();
        let lost = self.carry_out(&mut tested, &mut agents, onlooker, &mut done);
        let mut void = void::reasons(&self.plan, &done.phases, done.ledger_full);
        if let Some(phase) = done.phases.last_mut() {
            phase.faults.append(&mut done.afterwards);
        }
        match lost {
            Ok(()) => {}
            Err(RunError::Agents(error)) => {
                let phase = self.plan.phases.get(done.phases.len()).map_or("", |phase| phase.name.as_str());
                void.push(error.void_reason(phase));
            }
            Err(error) => return Err(error),
        }
        let mut hosts = vec![host_facts("coordinator")];
        hosts.extend(
            agents
                .hosts()
                .into_iter()
                .zip(1..)
                .map(|(host, number)| HostFacts { role: format!("agent-{number}"), ..host }),
        );
        let clocks = agents.phase_clocks().to_vec();
        // Who is lost already need not let go.
        let _ = agents.finish();
        Ok(RunResult {
            schema_version: SCHEMA_VERSION,
            subject: tested.name.clone(),
            durability: tested.durability.clone(),
            commit: commit(),
            command_line: self.command_line.clone(),
            started_ms,
            plan: self.plan.clone(),
            limit_profile: tested.limits(),
            hosts,
            tuning: tuning_facts(),
            clocks,
            phases: done.phases,
            ledger: done.ledger,
            void,
        })
    }

    /// A phase's faults that happen in this run.
    fn faults_of<'a>(&self, phase: &'a Phase) -> impl Iterator<Item = &'a Fault> {
        let all = self.faults;
        phase.faults.iter().filter(move |fault| all || fault.always)
    }

    fn places(&self, tested: &Tested) -> (Vec<Place>, Option<&CoordinatorTrust>) {
        let agents = match &self.drivers {
            Drivers::Remote(places, trust) => return (places.clone(), Some(trust)),
            Drivers::Local(agents) => *agents,
        };
        let people = &self.plan.population;
        let connections = u64::from(people.users) * u64::from(people.devices);
        let agents =
            if agents == 0 { connections.div_ceil(LOCAL_CONNECTIONS_MAX).max(1) as usize } else { agents };
        let is_loopback = |target: &str| target.starts_with("127.");
        let sources = if tested.targets.iter().all(|target| is_loopback(&target.address)) {
            let count = (connections / agents as u64).div_ceil(CONNECTIONS_OF_SOURCE).clamp(1, 200);
            (0..count).map(|number| IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1 + number as u8))).collect()
        } else {
            Vec::new()
        };
        let local = LocalAgents {
            agents,
            cpus: other_cpus(&self.plan.server.cpus),
            targets: tested.targets.iter().map(|target| target.address.clone()).collect(),
            sources,
            connections_max: None,
        };
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("ringline-bench"));
        (local_agents(&program, &local), None)
    }

    fn carry_out(
        &self,
        tested: &mut Tested,
        agents: &mut Agents,
        onlooker: &mut dyn Onlook,
        done: &mut Done,
    ) -> Result<(), RunError> {
        let mut pending = Pending::default();
        let mut sampler = Sampler::new(tested.processes(), "lo", CountCalls::IfPossible)?;
        agents.prepare(&self.plan, &tested.targets, &tested.subject)?;
        for (index, phase) in self.plan.phases.iter().enumerate() {
            pending.begin_phase(self.faults_of(phase).cloned());
            let mut watch = Watch {
                plan: &self.plan,
                phase: &phase.name,
                onlooker: &mut *onlooker,
                tested: &mut *tested,
                sampler: &mut sampler,
                live: LiveLine::new(self.output),
                warm_up_us: (phase.warm_up_s * 1e6) as i64,
                begun: false,
                seconds: Vec::new(),
                pending: &mut pending,
                elapsed_us: 0,
                happened: Vec::new(),
                problem: None,
            };
            let share = agents.run_phase(index as u32, phase.seconds, &mut watch);
            watch.live.show_end();
            let Watch { seconds, happened, problem, elapsed_us, .. } = watch;
            pending.end_phase(elapsed_us);
            let sample = sampler.end();
            for problem in &sample.problems {
                eprintln!("sampling: {problem}");
            }
            if let Some(problem) = problem {
                return Err(problem.into());
            }
            let share = share?;
            done.ledger_full |= share.ledger_full;
            done.phases.push(phase_result(phase, share, seconds, sample, happened)?);
        }
        let phase_s = self.plan.phases.last().map_or(0.0, |phase| phase.seconds);
        await_servers(tested, agents, &mut pending, phase_s, done)?;
        done.ledger = agents.settle()?;
        Ok(())
    }
}

/// All phases are over, the last one of `phase_s`: waits until who was asked to leave has left, and who was ended is back as
/// the plan says.
fn await_servers(
    tested: &mut Tested,
    agents: &mut Agents,
    pending: &mut Pending,
    phase_s: f64,
    done: &mut Done,
) -> Result<(), RunError> {
    let begun = clock::now();
    let last = done.phases.last().and_then(|phase| phase.faults.last());
    let end_us = last.map_or(0, |(at_us, _)| *at_us).max((phase_s * 1e6) as u64);
    loop {
        let back = tested.restarted()?.into_iter().map(|(name, _)| format!("{name} is ready again"));
        let mut happened: Vec<String> = back.collect();
        pending.hurry();
        happened.extend(pending.work_off(0, tested)?);
        done.afterwards.extend(happened.into_iter().map(|what| (end_us, what)));
        match pending.left() {
            _ if tested.is_restarting() => {}
            None => return Ok(()),
            Some(left) if clock::since_ms(begun) > PENDING_MS_MAX => return Err(RunError::Pending(left)),
            Some(_) => {}
        }
        agents.look_after()?;
    }
}

/// What is known when a run ends, however it ends.
#[derive(Default)]
struct Done {
    phases: Vec<PhaseResult>,
    /// What was done to servers after the last of them: told with it, and no excuse for it.
    afterwards: Vec<(u64, String)>,
    ledger: Option<LedgerResult>,
    ledger_full: bool,
}

/// Looks on while a phase runs: shows it, samples the servers, kills and restarts them.
struct Watch<'a> {
    plan: &'a Plan,
    phase: &'a str,
    onlooker: &'a mut dyn Onlook,
    tested: &'a mut Tested,
    sampler: &'a mut Sampler,
    live: LiveLine,
    warm_up_us: i64,
    /// The measured time has begun.
    begun: bool,
    seconds: Vec<Second>,
    pending: &'a mut Pending,
    /// Of the phase, when it was last looked.
    elapsed_us: i64,
    happened: Vec<(u64, String)>,
    problem: Option<TestedError>,
}

impl PhaseWatch for Watch<'_> {
    fn tick(&mut self, elapsed_us: i64) -> Steering {
        self.elapsed_us = elapsed_us;
        if !self.begun && elapsed_us >= self.warm_up_us {
            self.begun = true;
            self.sampler.begin();
        }
        match self.look_at_faults(elapsed_us) {
            Ok(()) => self.onlooker.tick(self.phase, elapsed_us),
            Err(error) => {
                self.problem = Some(error);
                Steering::EndPhase
            }
        }
    }

    fn second(&mut self, progress: &Progress) {
        let mut sum = ProgressSum::default();
        // What agents told was merged before: it is well formed.
        if sum.add(progress).is_ok() {
            self.seconds.push(sum.second(self.sampler.second()));
        }
        self.live.show(self.plan, progress);
    }
}

impl Watch<'_> {
    fn look_at_faults(&mut self, elapsed_us: i64) -> Result<(), TestedError> {
        let at_us = u64::try_from(elapsed_us).unwrap_or(0);
        for (name, pid) in self.tested.restarted()? {
            self.sampler.restarted(&name, pid);
            self.happened.push((at_us, format!("{name} is ready again")));
        }
        let happened = self.pending.work_off(elapsed_us, self.tested)?;
        self.happened.extend(happened.into_iter().map(|what| (at_us, what)));
        Ok(())
    }
}

/// CPUs of this process that the servers are not bound to.
fn other_cpus(servers: &str) -> Vec<usize> {
    let own = core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id);
    let taken = cpu_list(servers);
    let others: Vec<usize> = own.filter(|cpu| !taken.contains(cpu)).collect();
    if taken.is_empty() { Vec::new() } else { others }
}

/// "0-2,5" as numbers, as taskset reads it.
fn cpu_list(text: &str) -> Vec<usize> {
    let mut cpus = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
            cpus.extend(first..=last);
        }
    }
    cpus
}

fn tuning_facts() -> Vec<TuningFact> {
    let Ok(profile) = Profile::named("single") else { return Vec::new() };
    let report = Report::of(&profile, &RealHost);
    report.findings.iter().map(tuning_fact).collect()
}

fn tuning_fact(finding: &tuning::Finding) -> TuningFact {
    let untold = || finding.detail.clone().unwrap_or_default();
    TuningFact {
        setting: finding.name.clone(),
        present: finding.present.as_ref().map_or_else(untold, ToString::to_string),
        wanted: finding.wanted.as_ref().map_or_else(String::new, ToString::to_string),
        serves: finding.serves(),
    }
}

/// Whether a result is void, and why, for who only looks at the end.
pub fn void_text(void: &[VoidReason]) -> String {
    void.iter().map(|reason| format!("{}: {}: {}\n", reason.phase, reason.rule, reason.detail)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_read_as_taskset_reads_them() {
        assert_eq!(cpu_list("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(cpu_list("7"), [7]);
        assert_eq!(cpu_list(""), Vec::<usize>::new());
    }
}
