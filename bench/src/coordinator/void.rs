//! When a run says nothing: rules over its figures, pure.
//!
//! | rule | void when |
//! | --- | --- |
//! | `generator_busy` | an agent used more than 95 % of its one CPU: it, and not the server, set the pace |
//! | `generator_late` | actions left late: 99 % of the lags are not below a millisecond nor below a fifth of the latency |
//! | `rate_missed` | less than 99 % of what was due was begun, or more than 1 % never answered |
//! | `samples_lost` | a histogram lost values, or holds another number than was counted |
//! | `connections_missing` | fewer connections at a phase's end than the plan promises |
//! | `ledger_full` | more messages than the ledger may hold |
//! | `agent_lost` | an agent or relay went away (said by `agents.rs`) |

use crate::measure::histogram::Latencies;
use crate::report::results::{GeneratorResult, PhaseResult, StreamResult, VoidReason};
use crate::workload::plan::{Phase, Plan};

/// CPU of an agent, a single thread, in thousandths of a core: beyond it nothing says who was the bottleneck.
pub const GENERATOR_CPU_MILLI_MAX: u64 = 950;
/// A lag below this never matters, in microseconds.
pub const LAG_US_MAX: u64 = 1_000;
/// A lag may be this part of the latency that is told.
pub const LAG_PART: u64 = 5;
/// Least share of what was due that must have begun, and most that may stay unanswered.
pub const BEGUN_SHARE_MIN: f64 = 0.99;
/// See [`BEGUN_SHARE_MIN`].
pub const UNANSWERED_SHARE_MAX: f64 = 0.01;

/// Everything that makes a run void; empty: it counts.
pub fn reasons(plan: &Plan, phases: &[PhaseResult], ledger_full: bool) -> Vec<VoidReason> {
    let mut reasons = Vec::new();
    for (phase, planned) in phases.iter().zip(&plan.phases).filter(|(phase, _)| !phase.preparation) {
        phase_reasons(phase, planned, &mut reasons);
    }
    if ledger_full {
        let detail = format!("more than {} messages of one agent", plan.ledger.messages_max);
        reasons.push(VoidReason { phase: String::new(), rule: "ledger_full".into(), detail });
    }
    reasons
}

fn phase_reasons(phase: &PhaseResult, planned: &Phase, reasons: &mut Vec<VoidReason>) {
    let mut void = |rule: &str, detail: String| {
        reasons.push(VoidReason { phase: phase.name.clone(), rule: rule.into(), detail });
    };
    for generator in &phase.generators {
        if generator.cpu_milli > GENERATOR_CPU_MILLI_MAX && !phase.streams.is_empty() {
            let (agent, percent) = (generator.agent, generator.cpu_milli as f64 / 10.0);
            void("generator_busy", format!("agent {agent} used {percent:.1} % of a CPU"));
        }
        if generator.samples_lost > 0 {
            void("samples_lost", format!("agent {}: {} values", generator.agent, generator.samples_lost));
        }
    }
    if let Some(detail) = lateness(&phase.streams, &phase.generators) {
        void("generator_late", detail);
    }
    for stream in &phase.streams {
        if let Some(detail) = missed_rate(stream) {
            void("rate_missed", detail);
        }
        let answers = stream.histograms.get("answer").map_or("", String::as_str);
        let held = Latencies::from_text(answers).map_or(0, |latencies| latencies.count());
        if held != stream.succeeded {
            void(
                "samples_lost",
                format!("{}: {held} latencies of {} answers", stream.action, stream.succeeded),
            );
        }
    }
    if phase.connections.at_end < planned.connections_min {
        let (held, promised) = (phase.connections.at_end, planned.connections_min);
        void("connections_missing", format!("{held} at the end, {promised} promised"));
    }
}

/// The agents' own delay beside the latency of the quickest stream that counts from due times.
fn lateness(streams: &[StreamResult], generators: &[GeneratorResult]) -> Option<String> {
    let mut lag = Latencies::default();
    for generator in generators {
        lag.merge(&Latencies::from_text(&generator.lag).ok()?);
    }
    let lag_us = lag.at(0.99);
    let told = streams.iter().filter(|stream| stream.open_loop).filter_map(|stream| {
        let latencies = Latencies::from_text(stream.histograms.get("answer")?).ok()?;
        Some(latencies.at(0.99))
    });
    let quickest_us = told.min()?;
    (lag_us > LAG_US_MAX && lag_us > quickest_us / LAG_PART).then(|| {
        format!(
            "99 % of the actions left within {lag_us} us of their time; latency's p99 is {quickest_us} us"
        )
    })
}

fn missed_rate(stream: &StreamResult) -> Option<String> {
    if !stream.open_loop || stream.due == 0 {
        return None;
    }
    let due = stream.due as f64;
    let StreamResult { action, begun, unanswered, .. } = stream;
    if (*begun as f64) < due * BEGUN_SHARE_MIN {
        return Some(format!("{action}: {begun} of {} begun", stream.due));
    }
    (*unanswered as f64 > due * UNANSWERED_SHARE_MAX)
        .then(|| format!("{action}: {unanswered} of {} never answered", stream.due))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const PLAN: &str = r#"
        name = "t"
        about = ""
        population = { users = 2 }
        [[phase]]
        name = "setup"
        seconds = 1
        preparation = true
        [[phase]]
        name = "load"
        seconds = 1
        connections_min = 2
        stream = [{ action = "send_direct", schedule = { kind = "constant", rate = 1000 } }]
    "#;

    fn latencies(us: u64, count: u64) -> String {
        let mut latencies = Latencies::default();
        (0..count).for_each(|_| latencies.record(us));
        latencies.to_text()
    }

    /// A run that counts, after `spoil`.
    fn rules(spoil: impl Fn(&mut PhaseResult)) -> Vec<String> {
        let plan = Plan::parse(PLAN, Path::new("t")).expect("a plan");
        let stream = StreamResult {
            action: "send_direct".into(),
            open_loop: true,
            due: 1_000,
            begun: 1_000,
            succeeded: 1_000,
            histograms: [("answer".to_owned(), latencies(400, 1_000))].into(),
            ..StreamResult::default()
        };
        let generator =
            GeneratorResult { agent: 1, cpu_milli: 600, lag: latencies(20, 1_000), ..Default::default() };
        let mut load = PhaseResult {
            name: "load".into(),
            streams: vec![stream],
            generators: vec![generator],
            ..PhaseResult::default()
        };
        load.connections.at_end = 2;
        spoil(&mut load);
        // Preparations are no reason, whatever happens in them.
        let setup = PhaseResult {
            name: "setup".into(),
            preparation: true,
            generators: vec![GeneratorResult { cpu_milli: 1_000, ..Default::default() }],
            ..PhaseResult::default()
        };
        reasons(&plan, &[setup, load], false).into_iter().map(|reason| reason.rule).collect()
    }

    #[test]
    fn a_good_run_counts() {
        assert_eq!(rules(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn every_rule_finds_its_run() {
        assert_eq!(rules(|phase| phase.generators[0].cpu_milli = 960), ["generator_busy"]);
        assert_eq!(rules(|phase| phase.generators[0].samples_lost = 1), ["samples_lost"]);
        assert_eq!(rules(|phase| phase.generators[0].lag = latencies(2_000, 1_000)), ["generator_late"]);
        assert_eq!(rules(|phase| phase.streams[0].begun = 980), ["rate_missed"]);
        assert_eq!(rules(|phase| phase.streams[0].unanswered = 20), ["rate_missed"]);
        assert_eq!(rules(|phase| phase.streams[0].succeeded = 999), ["samples_lost"]);
        assert_eq!(rules(|phase| phase.connections.at_end = 1), ["connections_missing"]);
        let plan = Plan::parse(PLAN, Path::new("t")).expect("a plan");
        assert_eq!(reasons(&plan, &[], true)[0].rule, "ledger_full");
    }

    #[test]
    fn a_late_agent_does_not_matter_where_latency_is_much_larger() {
        let slow_server = |phase: &mut PhaseResult| {
            phase.generators[0].lag = latencies(2_000, 1_000);
            phase.streams[0].histograms = [("answer".to_owned(), latencies(50_000, 1_000))].into();
        };
        assert_eq!(rules(slow_server), Vec::<String>::new());
    }
}
