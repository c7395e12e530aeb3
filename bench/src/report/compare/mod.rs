//! Two subjects, several runs each, taken in turn: ratios of each pair of runs, and how far those spread. Where the
//! ratios of the pairs lie on both sides of 1, there is no difference to speak of.
//!
//! Runs and percentiles are never averaged: each pair gives one ratio, and the middle one is shown between the
//! smallest and the largest.

mod render;

pub use render::{html, text};

use super::figures;
use super::numbers::moment;
use super::results::{PhaseResult, RunResult, StreamResult, VoidReason};

/// Fewest runs of each: fewer have no spread.
pub const RUNS_MIN: usize = 3;

/// What becomes of what says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VoidRuns {
    /// A phase that is void in either run of a pair is left out there, and named. A run that is void as a whole, or in a
    /// preparation, ends the comparison, as does a comparison of which no phase remains.
    LeaveOut,
    /// All is compared all the same, and the comparison says so.
    Accept,
}

/// Why runs were not compared.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CompareError {
    /// Too few, or not as many of one as of the other.
    #[error("{a} runs of A and {b} of B: both need the same number, and at least {RUNS_MIN}")]
    Runs {
        /// Of A.
        a: usize,
        /// Of B.
        b: usize,
    },
    /// Runs that say nothing.
    #[error("void runs say nothing:\n{}", .0.join("\n"))]
    Void(Vec<String>),
    /// The runs did not do the same.
    #[error("{run} had another {part} than A 1: their figures cannot be compared")]
    Plans {
        /// Which run.
        run: String,
        /// What of the plan differs.
        part: &'static str,
    },
}

/// Something that is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Figure {
    /// Answered actions a second.
    AchievedRate,
    /// Latency of the answer at a share, in thousandths.
    Answer(u32),
    /// Latency of the delivery at a share, in thousandths.
    Delivery(u32),
    /// Server CPU of an answered action, in microseconds.
    Cpu,
    /// The same of servers of one role, all their copies together.
    CpuOf(&'static str),
    /// Servers' private bytes of a connection.
    UserBytes,
    /// Kernel bytes of a connection.
    KernelBytes,
}

/// Percentiles that are compared, in thousandths.
const SHARES: [u32; 3] = [500, 990, 999];

impl Figure {
    /// For people, with its unit.
    pub fn name(self) -> String {
        let share = |thousandths: u32| match thousandths % 10 {
            0 => format!("p{}", thousandths / 10),
            rest => format!("p{}.{rest}", thousandths / 10),
        };
        match self {
            Self::AchievedRate => "achieved rate, /s".into(),
            Self::Answer(thousandths) => format!("answer {}, ms", share(thousandths)),
            Self::Delivery(thousandths) => format!("delivery {}, ms", share(thousandths)),
            Self::Cpu => "server CPU each, µs".into(),
            Self::CpuOf(role) => format!("{role} CPU each, µs"),
            Self::UserBytes => "user bytes/connection".into(),
            Self::KernelBytes => "kernel bytes/conn.".into(),
        }
    }

    /// Whether more of it is better.
    fn more_is_better(self) -> bool {
        self == Self::AchievedRate
    }

    fn of_stream(self, stream: &StreamResult) -> Option<f64> {
        let at = |name: &str, thousandths: u32| {
            let latencies = figures::latencies(stream, name);
            (latencies.count() > 0).then(|| latencies.at(f64::from(thousandths) / 1e3) as f64 / 1e3)
        };
        match self {
            Self::AchievedRate => Some(stream.achieved_rate),
            Self::Answer(thousandths) => at("answer", thousandths),
            Self::Delivery(thousandths) => at("delivery", thousandths),
            Self::Cpu | Self::CpuOf(_) | Self::UserBytes | Self::KernelBytes => None,
        }
    }

    fn of_phase(self, phase: &PhaseResult) -> Option<f64> {
        match self {
            Self::Cpu => figures::costs(phase).map(|costs| costs.cpu_us()),
            Self::CpuOf(role) => figures::role_cpu_us(phase, role),
            Self::UserBytes => figures::phase_slope(phase).map(|slope| slope.user_bytes),
            Self::KernelBytes => figures::phase_slope(phase).map(|slope| slope.kernel_bytes),
            Self::AchievedRate | Self::Answer(_) | Self::Delivery(_) => None,
        }
    }
}

/// Ratios B/A of all pairs.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    /// Smallest.
    pub low: f64,
    /// Middle.
    pub median: f64,
    /// Largest.
    pub high: f64,
}

/// What a row says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The pairs do not agree which is larger.
    NoDifference,
    /// B is better in every pair.
    BBetter,
    /// B is worse in every pair.
    BWorse,
}

impl Verdict {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::NoDifference => "no difference beyond the spread",
            Self::BBetter => "B is better",
            Self::BWorse => "B is worse",
        }
    }
}

/// One compared figure.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// Which phase.
    pub phase: String,
    /// Which stream; empty: the whole phase, or run.
    pub stream: String,
    /// What.
    pub figure: Figure,
    /// Middle value of A's runs.
    pub a: f64,
    /// Middle value of B's runs.
    pub b: f64,
    /// B/A.
    pub ratio: Spread,
    /// Pairs of runs that it is made of.
    pub pairs: usize,
}

impl Row {
    /// What the ratios say.
    pub fn verdict(&self) -> Verdict {
        if self.ratio.low <= 1.0 && self.ratio.high >= 1.0 {
            Verdict::NoDifference
        } else if (self.ratio.low > 1.0) == self.figure.more_is_better() {
            Verdict::BBetter
        } else {
            Verdict::BWorse
        }
    }
}

/// Two subjects beside each other.
#[derive(Clone, PartialEq, Debug)]
pub struct Comparison {
    /// What A is.
    pub a: String,
    /// What B is.
    pub b: String,
    /// Durability of both.
    pub durability: [String; 2],
    /// Pairs of runs.
    pub pairs: usize,
    /// Pairs of the phase of which the fewest count.
    pub fewest_pairs: usize,
    /// Of figures of that phase that do not differ at all, so many look as if they did, in percent: all pairs agree by
    /// chance.
    pub chance_percent: f64,
    /// What a reader must know.
    pub notes: Vec<String>,
    /// Figures that both have in every run.
    pub rows: Vec<Row>,
}

/// Compares the runs pair by pair: the first of A with the first of B, and so on.
pub fn compare(a: &[RunResult], b: &[RunResult], void: VoidRuns) -> Result<Comparison, CompareError> {
    if a.len() != b.len() || a.len() < RUNS_MIN {
        return Err(CompareError::Runs { a: a.len(), b: b.len() });
    }
    let is_void = |reason: &VoidReason| void == VoidRuns::LeaveOut && !is_of_measured_phase(reason, &a[0]);
    let whole = void_texts(a, b, is_void);
    if !whole.is_empty() {
        return Err(CompareError::Void(whole));
    }
    check_plans(a, b)?;
    let mut notes = void_texts(a, b, |_| true);
    let mut compared = Vec::new();
    for phase in measured(&a[0]) {
        let says_nothing = |run: &RunResult| run.void.iter().any(|reason| reason.phase == phase.name);
        let counts = |(a, b): &Pair<'_>| void == VoidRuns::Accept || !says_nothing(a) && !says_nothing(b);
        let pairs: Vec<Pair<'_>> = a.iter().zip(b).filter(counts).collect();
        if pairs.len() < RUNS_MIN {
            let (name, left) = (&phase.name, pairs.len());
            notes.push(format!(
                "{name} is left out: {left} of {} pairs are not void, {RUNS_MIN} are needed",
                a.len()
            ));
        } else {
            compared.push((phase, pairs));
        }
    }
    if compared.is_empty() && measured(&a[0]).next().is_some() {
        return Err(CompareError::Void(notes));
    }
    notes.extend(other_notes(a, b));
    let fewest_pairs = compared.iter().map(|(_, pairs)| pairs.len()).min().unwrap_or(a.len());
    Ok(Comparison {
        a: subject(&a[0]),
        b: subject(&b[0]),
        durability: [a[0].durability.clone(), b[0].durability.clone()],
        pairs: a.len(),
        fewest_pairs,
        // Each pair but the first falls on the same side as the first one with a chance of one half.
        chance_percent: 100.0 * 0.5f64.powf(fewest_pairs as f64 - 1.0),
        notes,
        rows: compared.iter().flat_map(|(phase, pairs)| rows(phase, pairs)).collect(),
    })
}

/// A run of A, and the one of B next to it.
type Pair<'a> = (&'a RunResult, &'a RunResult);

fn measured(run: &RunResult) -> impl Iterator<Item = &PhaseResult> {
    run.phases.iter().filter(|phase| !phase.preparation)
}

fn is_of_measured_phase(reason: &VoidReason, run: &RunResult) -> bool {
    measured(run).any(|phase| phase.name == reason.phase)
}

fn named(runs: &[RunResult], letter: char) -> impl Iterator<Item = (String, &RunResult)> {
    runs.iter().enumerate().map(move |(index, run)| (format!("{letter} {}", index + 1), run))
}

/// What is said of all reasons that are chosen.
fn void_texts(a: &[RunResult], b: &[RunResult], is_chosen: impl Fn(&VoidReason) -> bool) -> Vec<String> {
    let mut texts = Vec::new();
    for (name, run) in named(a, 'A').chain(named(b, 'B')) {
        let began = moment(run.started_ms);
        for reason in run.void.iter().filter(|reason| is_chosen(reason)) {
            let place = if reason.phase.is_empty() { "whole run" } else { &reason.phase };
            let (subject, rule, detail) = (&run.subject, &reason.rule, &reason.detail);
            texts.push(format!("{name} ({subject}, {began}) is void: {rule} ({place}): {detail}"));
        }
    }
    texts
}

fn subject(run: &RunResult) -> String {
    let commit: String = run.commit.chars().take(12).collect();
    let changes = if run.commit.ends_with("+changes") { "+changes" } else { "" };
    format!("{} (commit {commit}{changes})", run.subject)
}

fn check_plans(a: &[RunResult], b: &[RunResult]) -> Result<(), CompareError> {
    let first = &a[0].plan;
    for (run, result) in named(a, 'A').chain(named(b, 'B')) {
        let plan = &result.plan;
        let same = [
            ("population", plan.population == first.population),
            ("message", plan.message == first.message),
            ("list of phases", plan.phases == first.phases),
        ];
        if let Some((part, _)) = same.into_iter().find(|(_, same)| !same) {
            return Err(CompareError::Plans { run, part });
        }
    }
    Ok(())
}

/// Differences that are allowed, but that a reader must know.
fn other_notes(a: &[RunResult], b: &[RunResult]) -> Vec<String> {
    let mut notes = Vec::new();
    let (of_a, of_b) = (&a[0].plan, &b[0].plan);
    for (part, same) in [
        ("transport", of_a.transport == of_b.transport),
        ("servers", of_a.server == of_b.server),
        ("ledger", of_a.ledger == of_b.ledger),
    ] {
        if !same {
            notes.push(format!("A and B had another {part}"));
        }
    }
    for (letter, runs) in [('A', a), ('B', b)] {
        if runs.iter().any(|run| run.commit != runs[0].commit || run.subject != runs[0].subject) {
            notes.push(format!("the runs of {letter} are not all of one subject and commit"));
        }
    }
    let times: Vec<u64> = a.iter().zip(b).flat_map(|(a, b)| [a.started_ms, b.started_ms]).collect();
    // A, B, A, B … or B, A, A, B …: pairs must not overlap, so that what drifts strikes both.
    let alternated = times
        .chunks(2)
        .zip(times.chunks(2).skip(1))
        .all(|(pair, next)| pair.iter().max() < next.iter().min());
    if !alternated {
        notes.push("the runs did not alternate: a drift of the machine may look like a difference".into());
    }
    notes
}

fn rows(phase: &PhaseResult, pairs: &[Pair<'_>]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (place, stream) in phase.streams.iter().enumerate() {
        let answers = SHARES.map(Figure::Answer);
        let deliveries = SHARES.map(Figure::Delivery);
        for figure in [Figure::AchievedRate].into_iter().chain(answers).chain(deliveries) {
            let value = |run: &RunResult| {
                let found = find(run, &phase.name)?.streams.get(place)?;
                figure.of_stream(found).filter(|_| found.action == stream.action)
            };
            rows.extend(row(pairs, &phase.name, &stream.action, figure, value));
        }
    }
    let cpu = [Figure::Cpu, Figure::CpuOf("gateway"), Figure::CpuOf("storage")];
    for figure in cpu.into_iter().chain([Figure::UserBytes, Figure::KernelBytes]) {
        let value = |run: &RunResult| figure.of_phase(find(run, &phase.name)?);
        rows.extend(row(pairs, &phase.name, "", figure, value));
    }
    rows
}

fn find<'a>(run: &'a RunResult, phase: &str) -> Option<&'a PhaseResult> {
    run.phases.iter().find(|found| found.name == phase)
}

/// `None` if a run lacks the figure, or if it is nothing in one: no ratio can be made.
fn row(
    pairs: &[Pair<'_>],
    phase: &str,
    stream: &str,
    figure: Figure,
    value: impl Fn(&RunResult) -> Option<f64>,
) -> Option<Row> {
    let value = |run: &RunResult| value(run).filter(|value| *value > 0.0);
    let values: Vec<(f64, f64)> =
        pairs.iter().map(|(a, b)| Some((value(a)?, value(b)?))).collect::<Option<_>>()?;
    let (low, median, high) = middle(values.iter().map(|(a, b)| b / a).collect())?;
    let (of_a, of_b) = values.into_iter().unzip();
    let (_, a, _) = middle(of_a)?;
    let (_, b, _) = middle(of_b)?;
    let ratio = Spread { low, median, high };
    let (phase, stream) = (phase.to_owned(), stream.to_owned());
    Some(Row { phase, stream, figure, a, b, ratio, pairs: pairs.len() })
}

/// Smallest, middle and largest; of an even count the mean of the two in the middle.
fn middle(mut values: Vec<f64>) -> Option<(f64, f64, f64)> {
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    let lower = values.len().checked_sub(1)? / 2;
    Some((*values.first()?, (values[lower] + values[upper]) / 2.0, *values.last()?))
}

#[cfg(test)]
mod tests;
