//! Samples servers and their machine: each second for the curves, and around the measured time for the sums.
//!
//! ```text
//! new -> second* -> begin (measured time) -> second* -> end -> PhaseSample -> second* -> begin ...
//! ```
//!
//! A server is a process, or a process with all that it started. Processes may end and start meanwhile (faults, a
//! database's workers): what each did is kept until its last reading. Called by the coordinator, from a thread that
//! may block for some milliseconds.

mod probe;

use super::machine::{self, Machine};
use super::metrics::MetricsPage;
use super::process;
use crate::clock;
use crate::report::results::{MachineResult, ServerResult};
use probe::Probe;
use std::io;
use std::time::Instant;

/// Every so many seconds exact memory, threads and counters are read; between them CPU and an estimate of memory.
const FULL_EVERY_SECONDS: u32 = 5;
/// Things that went wrong, told in a phase's sample; later ones are only counted.
const PROBLEMS_MAX: usize = 20;

/// What belongs to a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The process alone.
    Process,
    /// It and everything it started.
    Family,
}

/// Whether perf counts system calls: it costs each call of the machine about 0.1 µs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CountCalls {
    /// Where perf is there.
    IfPossible,
    /// Never.
    No,
}

/// A server to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerProcess {
    /// "gateway-1", "storage-1", or a peer's name.
    pub name: String,
    /// Its process, or the first of its processes.
    pub pid: u32,
    /// What else belongs to it.
    pub scope: Scope,
    /// Where its own counters are, if it has any.
    pub metrics: Option<MetricsPage>,
}

/// One second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SecondSample {
    /// CPU of all servers since the sample before, in thousandths of a core.
    pub server_cpu_milli: u64,
    /// Private memory of all servers, in bytes.
    pub server_private_bytes: u64,
    /// Kernel memory that connections grow, in bytes.
    pub kernel_bytes: u64,
}

/// The measured time.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PhaseSample {
    /// In the order in which they were given.
    pub servers: Vec<ServerResult>,
    /// Their machine.
    pub machine: MachineResult,
    /// What could not be read, for a person.
    pub problems: Vec<String>,
}

/// Reads several servers of this machine.
pub struct Sampler {
    probes: Vec<Probe>,
    interface: String,
    count_calls: CountCalls,
    page_bytes: u64,
    seconds: u32,
    sampled_at: Instant,
    sampled_cpu_ms: u64,
    machine_before: Machine,
    problems: Vec<String>,
}

impl Sampler {
    /// For these servers; the load goes through `interface` ("lo"). Fails if one cannot be read at all.
    pub fn new(
        servers: Vec<ServerProcess>,
        interface: &str,
        count_calls: CountCalls,
    ) -> Result<Self, io::Error> {
        let page_bytes = process::page_bytes();
        for server in &servers {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", server.name));
            process::read(server.pid, page_bytes).map_err(named)?;
        }
        let mut sampler = Self {
            probes: servers.into_iter().map(Probe::new).collect(),
            interface: interface.to_owned(),
            count_calls,
            page_bytes,
            seconds: 0,
            sampled_at: clock::now(),
            sampled_cpu_ms: 0,
            machine_before: machine::read(interface)?,
            problems: Vec::new(),
        };
        sampler.read_all();
        sampler.sampled_cpu_ms = sampler.cpu_ms();
        Ok(sampler)
    }

    /// Measured time begins: sums count from here.
    pub fn begin(&mut self) {
        self.problems.clear();
        for probe in &mut self.probes {
            // First, because perf takes a moment to begin.
            probe.begin_counting(self.count_calls);
        }
        self.read_all();
        // Processes that are gone leave the sums here, so the next second's difference starts anew.
        self.probes.iter_mut().for_each(Probe::begin);
        self.sampled_at = clock::now();
        self.sampled_cpu_ms = self.cpu_ms();
        self.machine_before = self.read_machine().unwrap_or_default();
    }

    /// A second has passed. May be called outside of measured time too.
    pub fn second(&mut self) -> SecondSample {
        self.seconds = self.seconds.wrapping_add(1);
        if self.seconds.is_multiple_of(FULL_EVERY_SECONDS) {
            self.read_all();
        } else {
            self.probes.iter_mut().for_each(|probe| probe.glance(self.page_bytes));
        }
        let (now, cpu_ms) = (clock::now(), self.cpu_ms());
        let passed_us = u64::try_from(now.duration_since(self.sampled_at).as_micros()).unwrap_or(u64::MAX);
        let used_us = cpu_ms.saturating_sub(self.sampled_cpu_ms) * 1_000;
        (self.sampled_at, self.sampled_cpu_ms) = (now, cpu_ms);
        let kernel_bytes = machine::kernel_bytes().unwrap_or_else(|error| {
            note(&mut self.problems, error.to_string());
            0
        });
        SecondSample {
            server_cpu_milli: (used_us * 1_000).checked_div(passed_us).unwrap_or(0),
            server_private_bytes: self.probes.iter().map(Probe::private_bytes).sum(),
            kernel_bytes,
        }
    }

    /// Measured time ends.
    pub fn end(&mut self) -> PhaseSample {
        let machine = self.read_machine();
        self.read_all();
        let machine = machine.map(|after| machine::difference(&self.machine_before, &after));
        let servers = self.probes.iter_mut().map(Probe::end).collect();
        PhaseSample {
            servers,
            machine: machine.unwrap_or_default(),
            problems: std::mem::take(&mut self.problems),
        }
    }

    /// The server of this name was started again and is now this process.
    pub fn restarted(&mut self, name: &str, pid: u32) {
        match self.probes.iter_mut().find(|probe| probe.name() == name) {
            Some(probe) => probe.restarted(pid, self.page_bytes),
            None => note(&mut self.problems, format!("{name} was restarted and is none of the servers")),
        }
    }

    fn cpu_ms(&self) -> u64 {
        self.probes.iter().map(Probe::cpu_ms).sum()
    }

    fn read_all(&mut self) {
        for probe in &mut self.probes {
            probe.read(self.page_bytes, &mut self.problems);
        }
    }

    fn read_machine(&mut self) -> Option<Machine> {
        machine::read(&self.interface).map_err(|error| note(&mut self.problems, error.to_string())).ok()
    }
}

fn note(problems: &mut Vec<String>, problem: String) {
    if problems.len() < PROBLEMS_MAX && !problems.contains(&problem) {
        problems.push(problem);
    }
}

#[cfg(test)]
mod tests;
