//! When a run says nothing: rules over its figures, pure.
//!
//! | rule | void when |
//! | --- | --- |
//! | `generator_busy` | an agent used more than 95 % of its one CPU: it, and not the server, set the pace |
//! | `generator_late` | more than 1 % of the actions, and ten at least, left later than a millisecond and than a fifth of the latency told |
//! | `rate_missed` | less than 99 % of what was due was begun, or more than 1 % never answered; not where servers were killed, asked to leave, or came back |
//! | `generator_ports`, `generator_files` | a connection was not made because an agent had no port, or no file, left for it |
//! | `samples_lost` | a histogram lost values, or holds another number than was counted |
//! | `connections_missing` | fewer connections at a phase's end than the plan promises |
//! | `preparation_failed` | less than 99 % of what a preparation began went well: what is measured afterwards is something else |
//! | `cpu_stolen` | the hypervisor kept more than 5 % of a CPU's time |
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
/// Share of actions that may leave later than that.
pub const LATE_SHARE_MAX: f64 = 0.01;
/// So few late ones say nothing of the agent: a single hiccup of the machine is 1 % of a hundred actions. What it
/// adds is in the latencies told, which count from the due time.
pub const LATE_ACTIONS_MIN: u64 = 10;
/// Least share of a preparation that must go well.
pub const PREPARED_SHARE_MIN: f64 = 0.99;
/// Time that the hypervisor may keep of each CPU, in thousandths.
pub const CPU_STOLEN_MILLI_MAX: u64 = 50;
/// Least share of what was due that must have begun, and most that may stay unanswered.
pub const BEGUN_SHARE_MIN: f64 = 0.99;
/// See [`BEGUN_SHARE_MIN`].
pub const UNANSWERED_SHARE_MAX: f64 = 0.01;

/// A failure that an agent's own machine is to blame for, whatever the server did.
struct OwnFault {
    /// In tables of errors and losses.
    code: &'static str,
    rule: &'static str,
    what: &'static str,
    remedy: &'static str,
}

/// Codes are those of [`reason`](crate::agent::engine::sockets::reason).
const OWN_FAULTS: [OwnFault; 2] = [
    OwnFault {
        code: "no_port",
        rule: "generator_ports",
        what: "found no free port on their agent's side",
        remedy: "give agents more source addresses (--source), or use more machines",
    },
    OwnFault {
        code: "no_file",
        rule: "generator_files",
        what: "met their agent's limit of open files",
        remedy: "use more agent processes (--agents), or raise the limit (ulimit -n)",
    },
];

/// Everything that makes a run void; empty: it counts.
pub fn reasons(plan: &Plan, phases: &[PhaseResult], ledger_full: bool) -> Vec<VoidReason> {
    let mut reasons = Vec::new();
    for (phase, planned) in phases.iter().zip(&plan.phases) {
        match phase.preparation {
            true => reasons.extend(phase.streams.iter().filter_map(|stream| unprepared(phase, stream))),
            false => phase_reasons(phase, planned, &mut reasons),
        }
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
    for fault in OWN_FAULTS {
        let count = count_of(phase, fault.code);
        if count > 0 {
            void(fault.rule, format!("{count} connections {}: {}", fault.what, fault.remedy));
        }
    }
    if let Some(detail) = lateness(&phase.streams, &phase.generators) {
        void("generator_late", detail);
    }
    for stream in &phase.streams {
        // While the only server is dead nothing can begin: that is what the run is to show, and stands in its errors.
        let missed = if phase.faults.is_empty() { missed_rate(stream) } else { None };
        if let Some(detail) = missed {
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
    for (cpu, milli) in phase.machine.cpu_stolen_milli.iter().enumerate() {
        if *milli > CPU_STOLEN_MILLI_MAX {
            void("cpu_stolen", format!("the hypervisor kept {:.1} % of CPU {cpu}", *milli as f64 / 10.0));
        }
    }
    if phase.connections.at_end < planned.connections_min {
        let (held, promised) = (phase.connections.at_end, planned.connections_min);
        void("connections_missing", format!("{held} at the end, {promised} promised"));
    }
}

fn unprepared(phase: &PhaseResult, stream: &StreamResult) -> Option<VoidReason> {
    let StreamResult { action, begun, succeeded, .. } = stream;
    if *succeeded as f64 >= *begun as f64 * PREPARED_SHARE_MIN {
        return None;
    }
    let codes: Vec<String> = stream.errors.iter().map(|(code, count)| format!("{code} {count}")).collect();
    let detail = format!("{action}: {succeeded} of {begun} went well; {}", codes.join(", "));
    Some(VoidReason { phase: phase.name.clone(), rule: "preparation_failed".into(), detail })
}

/// How often connections of a phase failed in this way: as an action's failure, or as a loss by the way. One failure
/// may be counted as both, so the larger count is told.
fn count_of(phase: &PhaseResult, code: &str) -> u64 {
    let as_errors = phase.streams.iter().filter_map(|stream| stream.errors.get(code)).sum();
    let as_losses = phase.losses.get(code).copied().unwrap_or(0);
    as_losses.max(as_errors)
}

/// The agents' own delay beside the latency of the quickest stream that counts from due times.
fn lateness(streams: &[StreamResult], generators: &[GeneratorResult]) -> Option<String> {
    let mut lag = Latencies::default();
    for generator in generators {
        lag.merge(&Latencies::from_text(&generator.lag).ok()?);
    }
    let told = streams.iter().filter(|stream| stream.open_loop).filter_map(|stream| {
        let latencies = Latencies::from_text(stream.histograms.get("answer")?).ok()?;
        Some(latencies.at(0.99))
    });
    let quickest_us = told.min()?;
    let allowed_us = LAG_US_MAX.max(quickest_us / LAG_PART);
    let late = lag.above(allowed_us);
    (late >= LATE_ACTIONS_MIN && late as f64 > lag.count() as f64 * LATE_SHARE_MAX).then(|| {
        let (all, lag_us) = (lag.count(), lag.at(0.99));
        format!(
            "{late} of {all} actions left more than {allowed_us} us late, 99 % within {lag_us} us; latency's p99 is \
             {quickest_us} us"
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
        // How hard a preparation was for the agent is no reason.
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
        assert_eq!(rules(|phase| phase.generators[0].lag = latencies(2_000, 10)), ["generator_late"]);
        assert_eq!(rules(|phase| phase.machine.cpu_stolen_milli = vec![50, 51]), ["cpu_stolen"]);
        assert_eq!(rules(|phase| phase.streams[0].begun = 980), ["rate_missed"]);
        let killed = |phase: &mut PhaseResult| {
            phase.streams[0].begun = 980;
            phase.faults = vec![(1, "gateway-1 killed".into())];
        };
        assert_eq!(rules(killed), Vec::<String>::new(), "nothing begins where the only server is dead");
        assert_eq!(rules(|phase| phase.streams[0].unanswered = 20), ["rate_missed"]);
        assert_eq!(rules(|phase| phase.streams[0].succeeded = 999), ["samples_lost"]);
        assert_eq!(rules(|phase| phase.connections.at_end = 1), ["connections_missing"]);
        for (code, rule) in [("no_port", "generator_ports"), ("no_file", "generator_files")] {
            assert_eq!(
                rules(|phase| {
                    phase.losses.insert(code.into(), 1);
                }),
                [rule]
            );
            assert_eq!(
                rules(|phase| {
                    phase.streams[0].errors.insert(code.into(), 1);
                }),
                [rule]
            );
        }
        let plan = Plan::parse(PLAN, Path::new("t")).expect("a plan");
        assert_eq!(reasons(&plan, &[], true)[0].rule, "ledger_full");
    }

    #[test]
    fn a_preparation_that_failed_spoils_what_follows() {
        let plan = Plan::parse(PLAN, Path::new("t")).expect("a plan");
        let rooms = |succeeded: u64| PhaseResult {
            name: "setup".into(),
            preparation: true,
            streams: vec![StreamResult {
                action: "open_room".into(),
                begun: 200,
                succeeded,
                errors: [("ERROR_TOO_MANY_MEMBERS".to_owned(), 200 - succeeded)].into(),
                ..StreamResult::default()
            }],
            ..PhaseResult::default()
        };
        assert_eq!(reasons(&plan, &[rooms(198)], false), []);
        let [reason] = &reasons(&plan, &[rooms(197)], false)[..] else { panic!("one reason") };
        assert_eq!((reason.phase.as_str(), reason.rule.as_str()), ("setup", "preparation_failed"));
        assert!(reason.detail.contains("ERROR_TOO_MANY_MEMBERS 3"), "{}", reason.detail);
    }

    #[test]
    fn a_few_late_actions_say_nothing_of_an_agent() {
        let few = |late: u64| {
            move |phase: &mut PhaseResult| {
                let mut lag = Latencies::default();
                (0..late).for_each(|_| lag.record(2_000));
                (0..100).for_each(|_| lag.record(20));
                phase.generators[0].lag = lag.to_text();
            }
        };
        assert_eq!(rules(few(9)), Vec::<String>::new());
        assert_eq!(rules(few(10)), ["generator_late"]);
    }

    #[test]
    fn faults_of_the_agents_machine_name_their_remedy_and_are_counted_once() {
        let plan = Plan::parse(PLAN, Path::new("t")).expect("a plan");
        let counts = [("no_port".to_owned(), 7), ("no_file".to_owned(), 2), ("refused".to_owned(), 9)];
        let stream = StreamResult { errors: counts.clone().into(), ..StreamResult::default() };
        let load = PhaseResult { losses: counts.into(), streams: vec![stream], ..PhaseResult::default() };
        let setup = PhaseResult { preparation: true, ..load.clone() };
        let found = reasons(&plan, &[setup, load], false);
        let detail = |rule: &str| {
            let of_rule: Vec<_> = found.iter().filter(|reason| reason.rule == rule).collect();
            assert_eq!(of_rule.len(), 1, "{found:?}");
            of_rule[0].detail.clone()
        };
        let (ports, files) = (detail("generator_ports"), detail("generator_files"));
        assert!(ports.starts_with("7 ") && ports.contains("source addresses"), "{ports}");
        assert!(files.starts_with("2 ") && files.contains("agent processes"), "{files}");
        // What a server does is its own matter: refusals are told, and void nothing.
        assert_eq!(
            rules(|phase| {
                phase.losses.insert("refused".into(), 9);
            }),
            Vec::<String>::new()
        );
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
