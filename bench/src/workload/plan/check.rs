//! Relations between a plan's numbers.

use super::{Fault, GatewayChoice, Phase, Plan, RatesChoice, Schedule, ServerShape};
use crate::workload::stamp::STAMP_BYTES;
use gateway::admission::rate::Rate;
use std::path::{Path, PathBuf};
use wire_protocol::limits::BODY_BYTES_MAX;

/// Longest phase, in seconds: a day. Every load is bounded.
const PHASE_S_MAX: f64 = 86_400.0;
/// Users that ask for their list of gateways before a run, a request each: a minute at the most.
const RANKED_USERS_MAX: u32 = 100_000;
/// Highest rate of a stream, in actions a second: ten times what the largest fleet is meant for.
const RATE_MAX: f64 = 50_000_000.0;

/// Why a plan cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not the TOML we know; names the key.
    #[error("{path}: {error}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Names the key and its place.
        error: Box<toml::de::Error>,
    },
    /// A value that cannot be meant.
    #[error("plan {plan}: {key}: {problem}")]
    Impossible {
        /// The plan's name.
        plan: String,
        /// The key, with its phase where it has one.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Plan {
    /// From a file.
    pub fn read(path: &Path) -> Result<Self, PlanError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| PlanError::Unreadable { path: path.to_owned(), error })?;
        Self::parse(&text, path)
    }

    /// From a file's text; `path` names it in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, PlanError> {
        let plan: Self = toml::from_str(text)
            .map_err(|error| PlanError::Malformed { path: path.to_owned(), error: Box::new(error) })?;
        plan.check()?;
        Ok(plan)
    }

    /// Refuses contradictions. To be called again after something was changed by a flag.
    pub fn check(&self) -> Result<(), PlanError> {
        let impossible = |key: &str, problem: &str| {
            let (plan, key, problem) = (self.name.clone(), key.to_owned(), problem.to_owned());
            PlanError::Impossible { plan, key, problem }
        };
        let people = &self.population;
        if people.cell_users < 2 || people.users == 0 || !people.users.is_multiple_of(people.cell_users) {
            return Err(impossible(
                "population.users",
                "must be a multiple of cell_users, which is at least 2",
            ));
        }
        if people.devices == 0 || people.users.checked_mul(people.devices).is_none() {
            return Err(impossible("population.devices", "at least 1, and not beyond 2^32 in all"));
        }
        let pairs = people.directs == 1 && people.cell_users.is_multiple_of(2);
        if !(pairs || (people.directs.is_multiple_of(2) && people.directs < people.cell_users)) {
            return Err(impossible(
                "population.directs",
                "1 with an even cell, or an even number below cell_users",
            ));
        }
        let has_groups = people.groups > 0;
        if has_groups && !(2..=people.cell_users).contains(&people.group_members) {
            return Err(impossible("population.group_members", "must be from 2 to cell_users"));
        }
        if self.transport.gateway == GatewayChoice::Ranked && people.users > RANKED_USERS_MAX {
            let problem = format!("ranked: at most {RANKED_USERS_MAX} users, each asks for its list");
            return Err(impossible("transport.gateway", &problem));
        }
        if let Some((key, problem)) = problem_of_server(&self.server) {
            return Err(impossible(key, problem));
        }
        let body = self.message.body_bytes as usize;
        if !(STAMP_BYTES..=BODY_BYTES_MAX).contains(&body) {
            let problem = format!("must be from {STAMP_BYTES} to {BODY_BYTES_MAX}");
            return Err(impossible("message.body_bytes", &problem));
        }
        if self.phases.is_empty() {
            return Err(impossible("phase", "there is none"));
        }
        for phase in &self.phases {
            let key = |name: &str| format!("phase {}: {name}", phase.name);
            if !(phase.seconds > 0.0 && phase.seconds <= PHASE_S_MAX) {
                return Err(impossible(&key("seconds"), "must be above 0 and at most a day"));
            }
            if !(phase.warm_up_s >= 0.0 && phase.warm_up_s < phase.seconds) {
                return Err(impossible(&key("warm_up_s"), "must be below seconds"));
            }
            if !(0.0..=1.0).contains(&phase.slow_readers) {
                return Err(impossible(&key("slow_readers"), "is a share, from 0 to 1"));
            }
            for stream in &phase.streams {
                if let Some(problem) = problem_of(&stream.schedule) {
                    return Err(impossible(&key("schedule"), problem));
                }
            }
            if let Some((name, problem)) =
                phase.faults.iter().find_map(|fault| problem_of_fault(fault, phase))
            {
                return Err(impossible(&key(name), problem));
            }
        }
        Ok(())
    }
}

/// The key, and what is wrong with it.
fn problem_of_server(server: &ServerShape) -> Option<(&'static str, &'static str)> {
    if server.replicas == 0 || server.replicas > server.storages.max(1) {
        return Some(("server.replicas", "at least 1, and not more than storages"));
    }
    if server.zones > server.storages {
        return Some(("server.zones", "not more than storages: a zone would be empty"));
    }
    let figures = [
        ("server.accepts_per_core", &server.accepts_per_core),
        ("server.hellos_per_core", &server.hellos_per_core),
    ];
    for (key, figure) in figures.into_iter().filter(|(_, figure)| !figure.is_empty()) {
        if server.rates == RatesChoice::Lifted {
            return Some((key, "only with rates = \"default\""));
        }
        if figure.parse::<Rate>().is_err() {
            return Some((key, "must be like \"200 per second, burst 400\""));
        }
    }
    None
}

/// The key, and what is wrong with it.
fn problem_of_fault(fault: &Fault, phase: &Phase) -> Option<(&'static str, &'static str)> {
    if !(0.0..=phase.seconds).contains(&fault.at_s) {
        return Some(("fault.at_s", "must lie within the phase"));
    }
    let comes_back = fault.restart_after_s.is_none_or(|after_s| (0.0..=PHASE_S_MAX).contains(&after_s));
    (!comes_back).then_some(("fault.restart_after_s", "must be from 0 to a day"))
}

fn problem_of(schedule: &Schedule) -> Option<&'static str> {
    let fits = |rate: f64| (0.0..=RATE_MAX).contains(&rate);
    match schedule {
        Schedule::Constant { rate } | Schedule::Poisson { rate } => {
            (!fits(*rate) || *rate == 0.0).then_some("rate must be above 0 and at most 50,000,000")
        }
        Schedule::Ramp { from, to } => {
            (!fits(*from) || !fits(*to) || from + to == 0.0).then_some("from and to are rates, one above 0")
        }
        Schedule::Step { rates } => (rates.is_empty() || !rates.iter().copied().all(fits))
            .then_some("rates must be given, none below 0"),
        Schedule::Closed { in_flight, .. } => (*in_flight == 0).then_some("in_flight must be at least 1"),
    }
}
