//! `search`: the highest rate that meets a latency target.

use super::Failure;
use super::run::{RUN_FLAGS, plan, prepare};
use bench::coordinator::control::flags::Flags;
use bench::measure::histogram::Latencies;
use bench::report::results::RunResult;
use bench::workload::plan::{Plan, Schedule};
use bench::workload::search::{Search, Step, Verdict};
use std::process::ExitCode;

/// Most runs of a search.
const RUNS_MAX: u32 = 16;
/// Gap at which it ends, as a share of the rate.
const PRECISION: f64 = 0.05;

/// `ringline-bench search …`.
pub fn command(arguments: &[String]) -> Result<ExitCode, Failure> {
    let valued: Vec<&str> =
        RUN_FLAGS.into_iter().chain(["--p99-ms", "--phase", "--first", "--precision"]).collect();
    let mut flags = Flags::parse(arguments, &valued, &[])?;
    let name = flags.operands().pop().unwrap_or_else(|| "direct".to_owned());
    let target_ms = flags.decimal("--p99-ms")?.ok_or("--p99-ms is missing")?;
    let base = plan(&name)?;
    let phase = match flags.one("--phase")? {
        Some(phase) => phase,
        None => first_open_phase(&base).ok_or("the plan has no phase with an open-loop stream")?,
    };
    let first = flags.decimal("--first")?.unwrap_or(1_000.0);
    let mut search = Search::new(first, flags.decimal("--precision")?.unwrap_or(PRECISION), RUNS_MAX);
    let given: Vec<String> = arguments.to_vec();
    loop {
        match search.step() {
            Step::Done(outcome) => {
                let rate = |rate: Option<f64>| rate.map_or("none".to_owned(), |rate| format!("{rate:.0}/s"));
                println!(
                    "p99 below {target_ms} ms: met at {}, missed at {}",
                    rate(outcome.met),
                    rate(outcome.missed)
                );
                if outcome.generator_bound {
                    println!("the generator was the bottleneck: the server may carry more, with more agents");
                }
                return Ok(if outcome.met.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            Step::Try(rate) => {
                let mut flags = Flags::parse(&given, &valued, &[])?;
                let result = prepare(&mut flags, at_rate(&base, &phase, rate)?)?.make()?;
                let (verdict, p99_ms) = verdict(&result, &phase, target_ms);
                println!("{rate:.0}/s: p99 {p99_ms:.3} ms, {verdict:?}");
                search.tried(verdict);
            }
        }
    }
}

fn first_open_phase(plan: &Plan) -> Option<String> {
    let is_open = |schedule: &Schedule| !matches!(schedule, Schedule::Closed { .. });
    let mut phases = plan.phases.iter().filter(|phase| !phase.preparation);
    let phase = phases.find(|phase| phase.streams.first().is_some_and(|stream| is_open(&stream.schedule)))?;
    Some(phase.name.clone())
}

/// The plan's preparations and this one phase, its first stream at this rate.
fn at_rate(base: &Plan, name: &str, rate: f64) -> Result<Plan, Failure> {
    let mut plan = base.clone();
    plan.phases.retain(|phase| phase.preparation || phase.name == name);
    let phase = plan.phases.iter_mut().find(|phase| phase.name == name);
    let stream = phase.and_then(|phase| phase.streams.first_mut());
    let stream = stream.ok_or_else(|| format!("the plan has no phase {name} with a stream"))?;
    match &mut stream.schedule {
        Schedule::Constant { rate: own } | Schedule::Poisson { rate: own } => *own = rate,
        schedule => *schedule = Schedule::Poisson { rate },
    }
    plan.check()?;
    Ok(plan)
}

fn verdict(result: &RunResult, phase: &str, target_ms: f64) -> (Verdict, f64) {
    let generator = |rule: &str| rule.starts_with("generator");
    let stream =
        result.phases.iter().find(|found| found.name == phase).and_then(|found| found.streams.first());
    let answers = stream.and_then(|stream| stream.histograms.get("answer"));
    let latencies = answers.and_then(|text| Latencies::from_text(text).ok()).unwrap_or_default();
    let p99_ms = latencies.at(0.99) as f64 / 1e3;
    let verdict = if result.void.iter().any(|reason| generator(&reason.rule)) {
        Verdict::GeneratorBound
    } else if !result.void.is_empty() || latencies.count() == 0 || p99_ms > target_ms {
        Verdict::Missed
    } else {
        Verdict::Met
    };
    (verdict, p99_ms)
}
