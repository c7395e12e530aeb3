//! What a long run says of a server that has been up for long: whether memory and files grow, whether it gets slower,
//! and whether anything was lost on the way.
//!
//! The first rounds warm caches up; growth is looked for in the second half of the rounds alone. A slope is the middle
//! of the slopes between all pairs of rounds (Theil 1950, Sen 1968): a flush or a compaction that falls into one
//! round does not tilt it.

use super::figures::{self, Percentiles};
use super::numbers::{bytes, grouped, ms, short};
use super::results::{PhaseResult, RunResult};
use std::collections::BTreeSet;
use std::fmt::Write;

/// Rounds below which nothing is said of growth.
pub const ROUNDS_MIN: usize = 6;
/// A server's private memory may grow by so much an hour after warming up, in bytes: some 3 GiB in two days, and what
/// fragmentation and noise of half an hour amount to.
pub const GROWTH_BYTES_PER_HOUR_MAX: f64 = 64.0 * 1024.0 * 1024.0;
/// And by so many open files over the second half: those of new tables.
pub const FILES_GROWTH_MAX: u64 = 64;
/// The last third of the rounds may be so much slower than the first: median latencies and CPU for an action, as a
/// ratio. Machines of two CPUs swing by half.
pub const DRIFT_MAX: f64 = 2.0;
/// Seconds of an hour.
const HOUR_S: f64 = 3_600.0;

/// One round's phase without faults.
#[derive(Clone, Debug, PartialEq)]
struct Round {
    /// Seconds since the first round began.
    ended_s: f64,
    /// The machine let it be measured: no rule of a void run is against it.
    is_fair: bool,
    latencies: Percentiles,
    cpu_us: f64,
    /// By server, as in the result.
    servers: Vec<ServerRound>,
}

#[derive(Clone, Debug, PartialEq)]
struct ServerRound {
    name: String,
    private_bytes: u64,
    files: u64,
    /// Memory of caches that have a bound of their own.
    cache_bytes: f64,
}

/// A server that lived through all rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Survivor {
    /// As in the result.
    pub name: String,
    /// Private memory at the end of the first round, in the middle, and at the end, in bytes.
    pub private_bytes: [u64; 3],
    /// Over the second half, in bytes an hour.
    pub growth_per_hour: f64,
    /// Of it, caches that have a bound (blocks of rows, memtables), in bytes an hour.
    pub bounded_per_hour: f64,
    /// Open files at the same three moments.
    pub files: [u64; 3],
}

/// The verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Soak {
    /// Rounds that were carried out.
    pub rounds: usize,
    /// Of them, those whose times may be compared: the generator was on time, the hypervisor kept nothing.
    pub fair_rounds: usize,
    /// Servers killed or asked to leave, all rounds together.
    pub kills: usize,
    /// Who never was.
    pub survivors: Vec<Survivor>,
    /// Last third against first third of the rounds: median of the answers' p50, of their p99, CPU for an action.
    pub drift: [f64; 3],
    /// Median p50 and p99 of the first and of the last third, in microseconds.
    pub latencies_us: [[u64; 2]; 2],
    /// What is wrong, for a person; empty: nothing.
    pub wrong: Vec<String>,
}

impl Soak {
    /// Of a run whose phases are rounds; phases without faults are compared with each other.
    pub fn of(run: &RunResult) -> Self {
        let measured = || run.phases.iter().filter(|phase| !phase.preparation);
        let events = || measured().flat_map(|phase| &phase.faults).map(|(_, what)| what.as_str());
        let killed: BTreeSet<&str> = events().filter_map(ended).collect();
        let rounds = rounds(run);
        let survivors: Vec<Survivor> = match rounds.first() {
            Some(first) if rounds.len() >= ROUNDS_MIN => {
                let names = first.servers.iter().map(|server| server.name.as_str());
                names
                    .filter(|name| !killed.contains(name))
                    .filter_map(|name| survivor(&rounds, name))
                    .collect()
            }
            _ => Vec::new(),
        };
        let fair: Vec<&Round> = rounds.iter().filter(|round| round.is_fair).collect();
        let third = (fair.len() / 3).max(1).min(fair.len());
        let (first, last) = (&fair[..third], &fair[fair.len() - third..]);
        let of = |part: &[&Round], value: fn(&Round) -> f64| {
            median(part.iter().map(|round| value(round)).collect())
        };
        let values: [fn(&Round) -> f64; 3] = [
            |round| round.latencies.p50_us as f64,
            |round| round.latencies.p99_us as f64,
            |round| round.cpu_us,
        ];
        let mut soak = Self {
            rounds: rounds.len(),
            fair_rounds: fair.len(),
            kills: events().filter(|what| ended(what).is_some()).count(),
            survivors,
            drift: values.map(|value| of(last, value) / of(first, value)),
            latencies_us: [first, last]
                .map(|part| [values[0], values[1]].map(|value| of(part, value) as u64)),
            wrong: Vec::new(),
        };
        soak.wrong = soak.faults(run);
        soak
    }

    fn faults(&self, run: &RunResult) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.rounds < ROUNDS_MIN {
            wrong.push(format!("{} rounds: growth needs {ROUNDS_MIN} at least", self.rounds));
        }
        if self.fair_rounds * 2 < self.rounds {
            wrong.push(format!("times of only {} of {} rounds count", self.fair_rounds, self.rounds));
        }
        for survivor in &self.survivors {
            let growth = survivor.growth_per_hour - survivor.bounded_per_hour.max(0.0);
            if growth > GROWTH_BYTES_PER_HOUR_MAX {
                wrong.push(format!("{}: memory grows by {} an hour", survivor.name, bytes(growth)));
            }
            let files = survivor.files[2].saturating_sub(survivor.files[1]);
            if files > FILES_GROWTH_MAX {
                wrong.push(format!("{}: {files} more open files in the second half", survivor.name));
            }
        }
        for (what, ratio) in ["p50", "p99", "CPU for an action"].into_iter().zip(self.drift) {
            if ratio > DRIFT_MAX {
                wrong.push(format!("{what}: {} times that of the first third", short(ratio)));
            }
        }
        match &run.ledger {
            None => wrong.push("no ledger was kept".into()),
            Some(ledger) if !ledger.is_balanced() => wrong.push("the ledger does not balance".into()),
            Some(_) => {}
        }
        wrong
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let mut text =
            format!("soak            {} rounds, {} kills\n", self.rounds, grouped(self.kills as u64));
        for survivor in &self.survivors {
            let [start, middle, end] = survivor.private_bytes.map(|count| bytes(count as f64));
            let [first, half, last] = survivor.files;
            let _ = writeln!(
                text,
                "{:<15} memory {start} → {middle} → {end}; {} an hour, {} of it caches with a bound; \
                 files {first} → {half} → {last}",
                survivor.name,
                bytes(survivor.growth_per_hour),
                bytes(survivor.bounded_per_hour),
            );
        }
        let [[p50, p99], [later_p50, later_p99]] = self.latencies_us.map(|pair| pair.map(ms));
        let [_, _, cpu] = self.drift;
        let _ = writeln!(
            text,
            "drift           p50 {p50} → {later_p50} ms, p99 {p99} → {later_p99} ms, CPU for an action × {} \
             ({} of {} rounds could be timed)",
            short(cpu),
            self.fair_rounds,
            self.rounds
        );
        for wrong in &self.wrong {
            let _ = writeln!(text, "WRONG           {wrong}");
        }
        text
    }
}

/// The server that was ended, if this is what happened.
fn ended(event: &str) -> Option<&str> {
    event.strip_suffix(" killed").or_else(|| event.strip_suffix(" asked to leave"))
}

fn rounds(run: &RunResult) -> Vec<Round> {
    let mut rounds = Vec::new();
    let mut ended_s = 0.0;
    for phase in run.phases.iter().filter(|phase| !phase.preparation) {
        ended_s += phase.seconds.len() as f64;
        if phase.faults.is_empty() {
            let is_fair = run.void.iter().all(|reason| reason.phase != phase.name);
            rounds.push(Round { ended_s, is_fair, ..round(phase) });
        }
    }
    rounds
}

fn round(phase: &PhaseResult) -> Round {
    let latencies =
        phase.streams.first().map(|stream| figures::latencies(stream, "answer")).unwrap_or_default();
    let servers = phase.servers.iter().map(|server| ServerRound {
        name: server.name.clone(),
        private_bytes: server.private_bytes_end,
        files: server.open_files,
        cache_bytes: ["cache", "memtable"]
            .iter()
            .filter_map(|kind| server.levels.get(&format!("ringline_storage_store_{kind}_bytes")))
            .sum(),
    });
    Round {
        ended_s: 0.0,
        is_fair: true,
        latencies: Percentiles::of(&latencies),
        cpu_us: figures::costs(phase).map_or(0.0, |costs| costs.cpu_us()),
        servers: servers.collect(),
    }
}

fn survivor(rounds: &[Round], name: &str) -> Option<Survivor> {
    let points: Option<Vec<(f64, &ServerRound)>> = rounds
        .iter()
        .map(|round| Some((round.ended_s, round.servers.iter().find(|server| server.name == name)?)))
        .collect();
    let points = points?;
    let middle = points.len() / 2;
    let three =
        |value: fn(&ServerRound) -> u64| [0, middle, points.len() - 1].map(|place| value(points[place].1));
    let later = &points[middle..];
    let memory: Vec<(f64, f64)> =
        later.iter().map(|(at, server)| (*at, server.private_bytes as f64)).collect();
    let bounded: Vec<(f64, f64)> = later.iter().map(|(at, server)| (*at, server.cache_bytes)).collect();
    Some(Survivor {
        name: name.to_owned(),
        private_bytes: three(|server| server.private_bytes),
        growth_per_hour: slope(&memory) * HOUR_S,
        bounded_per_hour: slope(&bounded) * HOUR_S,
        files: three(|server| server.files),
    })
}

/// The middle one of the slopes between all pairs of points; 0 for fewer than two.
fn slope(points: &[(f64, f64)]) -> f64 {
    let mut slopes = Vec::new();
    for (index, (x, y)) in points.iter().enumerate() {
        slopes.extend(points[index + 1..].iter().map(|(later_x, later_y)| (later_y - y) / (later_x - x)));
    }
    if slopes.is_empty() { 0.0 } else { median(slopes) }
}

/// The upper of the two middle values, where there are two; not a number for none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests;
