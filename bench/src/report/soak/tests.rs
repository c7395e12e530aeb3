//! Made-up rounds: what grows is found, what swings is not taken for growth.

use super::super::example;
use super::*;
use crate::measure::histogram::Latencies;
use crate::report::results::{LedgerResult, Second, ServerResult, StreamResult, VoidReason};

const MIB: u64 = 1024 * 1024;

/// Rounds of a minute: a phase of 40 seconds without faults and one of 20 with a kill.
fn run(rounds: usize, memory: impl Fn(usize) -> u64) -> RunResult {
    let mut run = example::run("ringline", 1);
    run.phases.clear();
    run.ledger = Some(LedgerResult { acknowledged: 10, ..LedgerResult::default() });
    for number in 0..rounds {
        let mut answers = Latencies::default();
        (0..100).for_each(|value| answers.record(1_000 + value * 10));
        let histograms = [("answer".to_owned(), answers.to_text())].into();
        let stream =
            StreamResult { action: "send_direct".into(), succeeded: 100, histograms, ..Default::default() };
        let server = |name: &str| ServerResult {
            name: name.into(),
            user_ms: 10,
            private_bytes_end: memory(number),
            open_files: 50,
            ..ServerResult::default()
        };
        let steady = PhaseResult {
            name: format!("steady {}", number + 1),
            streams: vec![stream],
            seconds: vec![Second::default(); 40],
            servers: vec![server("gateway-1"), server("gateway-2")],
            ..PhaseResult::default()
        };
        let fire = PhaseResult {
            seconds: vec![Second::default(); 20],
            faults: vec![(1, "gateway-2 killed".into()), (2, "gateway-2 is ready again".into())],
            ..steady.clone()
        };
        run.phases.extend([steady, fire]);
    }
    run
}

#[test]
fn who_was_asked_to_leave_is_no_survivor() {
    assert_eq!(ended("gateway-2 killed"), Some("gateway-2"));
    assert_eq!(ended("gateway-2 asked to leave"), Some("gateway-2"));
    assert_eq!(ended("gateway-2 has left"), None, "told a second time");
}

#[test]
fn a_run_that_keeps_its_level_is_right() {
    // The first rounds warm up; later ones swing by a flush.
    let soak =
        Soak::of(&run(30, |number| (100 + 10 * number.min(10) as u64 + (number as u64 % 3) * 20) * MIB));
    assert_eq!(soak.wrong, Vec::<String>::new());
    assert_eq!((soak.rounds, soak.kills, soak.survivors.len()), (30, 30, 1), "the other one was killed");
    let survivor = &soak.survivors[0];
    assert_eq!((survivor.name.as_str(), survivor.files), ("gateway-1", [50; 3]));
    assert!(survivor.growth_per_hour.abs() < 30.0 * MIB as f64, "{survivor:?}");
    assert!(soak.drift.iter().all(|ratio| (ratio - 1.0).abs() < 1e-9), "{soak:?}");
    assert!(soak.text().contains("30 rounds, 30 kills"), "{}", soak.text());
}

#[test]
fn memory_that_grows_is_told_with_its_rate() {
    let soak = Soak::of(&run(30, |number| (100 + 2 * number as u64) * MIB));
    assert!((soak.survivors[0].growth_per_hour - 120.0 * MIB as f64).abs() < 1.0, "{soak:?}");
    assert_eq!(soak.wrong, ["gateway-1: memory grows by 120 MiB an hour"]);
}

#[test]
fn a_cache_that_fills_up_is_no_growth() {
    let mut run = run(30, |number| (100 + 2 * number as u64) * MIB);
    for (number, phase) in run.phases.iter_mut().enumerate() {
        for server in &mut phase.servers {
            server.levels.insert("ringline_storage_store_cache_bytes".into(), (number as u64 * MIB) as f64);
        }
    }
    let soak = Soak::of(&run);
    assert_eq!(soak.wrong, Vec::<String>::new());
    assert!(soak.survivors[0].bounded_per_hour > 100.0 * MIB as f64, "{soak:?}");
}

#[test]
fn files_latency_cpu_and_losses_are_told() {
    let mut run = run(12, |_| 100 * MIB);
    for phase in &mut run.phases[16..] {
        let mut answers = Latencies::default();
        (0..100).for_each(|_| answers.record(9_000));
        phase.streams[0].histograms.insert("answer".into(), answers.to_text());
        for server in &mut phase.servers {
            (server.open_files, server.user_ms) = (150, 50);
        }
    }
    run.ledger.as_mut().expect("it is kept").lost = 1;
    let wrong = Soak::of(&run).wrong.join("\n");
    for culprit in ["100 more open files", "p50: ", "p99: ", "CPU for an action: 5.00", "ledger"] {
        assert!(wrong.contains(culprit), "{culprit}: {wrong}");
    }
    run.ledger = None;
    assert!(Soak::of(&run).wrong.iter().any(|wrong| wrong.contains("no ledger")));
}

#[test]
fn rounds_that_the_machine_spoilt_are_not_timed() {
    let mut run = run(12, |_| 100 * MIB);
    let slow = |run: &mut RunResult, number: usize| {
        let mut answers = Latencies::default();
        answers.record(90_000);
        run.phases[number * 2].streams[0].histograms.insert("answer".into(), answers.to_text());
        let phase = run.phases[number * 2].name.clone();
        run.void.push(VoidReason { phase, rule: "cpu_stolen".into(), detail: "9 %".into() });
    };
    (7..12).for_each(|number| slow(&mut run, number));
    let soak = Soak::of(&run);
    assert_eq!((soak.wrong.len(), soak.fair_rounds), (0, 7), "{soak:?}");
    (0..3).for_each(|number| slow(&mut run, number));
    assert_eq!(Soak::of(&run).wrong, ["times of only 4 of 12 rounds count"]);
}

#[test]
fn too_few_rounds_say_nothing() {
    for rounds in [0, 1, 5] {
        let soak = Soak::of(&run(rounds, |_| MIB));
        assert!(soak.wrong[0].contains("growth needs 6 at least"), "{soak:?}");
        assert!(soak.survivors.is_empty());
    }
}
