use super::*;
use crate::report::example;
use crate::report::text::COLUMNS;

/// Three runs, begun in turn with those of the other letter.
fn runs(subject: &str, parity: u64) -> Vec<RunResult> {
    (0..3).map(|index| example::run(subject, 2 * index + parity)).collect()
}

/// Sets what the first stream of "send" achieved, run by run.
fn set_rates(runs: &mut [RunResult], rates: [f64; 3]) {
    for (run, rate) in runs.iter_mut().zip(rates) {
        run.phases[1].streams[0].achieved_rate = rate;
    }
}

fn rate_row(comparison: &Comparison) -> &Row {
    let mut rows = comparison.rows.iter();
    rows.find(|row| row.phase == "send" && row.figure == Figure::AchievedRate).expect("the first stream's")
}

#[test]
fn ratios_are_made_pair_by_pair() {
    let (mut a, mut b) = (runs("ringline", 1), runs("mosquitto", 2));
    set_rates(&mut a, [100.0, 200.0, 400.0]);
    set_rates(&mut b, [110.0, 240.0, 600.0]);
    let comparison = compare(&a, &b, VoidRuns::LeaveOut).expect("three each");
    let row = rate_row(&comparison);
    assert!((row.ratio.low - 1.1).abs() < 1e-9 && (row.ratio.median - 1.2).abs() < 1e-9);
    assert!((row.ratio.high - 1.5).abs() < 1e-9);
    assert_eq!((row.a, row.b, row.verdict()), (200.0, 240.0, Verdict::BBetter));
    assert_eq!((comparison.pairs, comparison.notes.len()), (3, 0), "{:?}", comparison.notes);
    assert_eq!(comparison.chance_percent, 25.0);
    let back = compare(&b, &a, VoidRuns::LeaveOut).expect("three each");
    assert_eq!(rate_row(&back).verdict(), Verdict::BWorse);
}

#[test]
fn less_latency_cpu_and_memory_are_better() {
    let (a, mut b) = (runs("ringline", 1), runs("mosquitto", 2));
    for run in &mut b {
        for phase in &mut run.phases {
            for server in &mut phase.servers {
                server.user_ms *= 3;
            }
            for second in &mut phase.seconds {
                second.server_private_bytes *= 2;
            }
            for stream in &mut phase.streams {
                let mut faster = crate::measure::histogram::Latencies::default();
                (1..100).for_each(|us| faster.record(us));
                stream.histograms.insert("answer".into(), faster.to_text());
            }
        }
    }
    let comparison = compare(&a, &b, VoidRuns::LeaveOut).expect("three each");
    let verdict = |phase: &str, figure| {
        comparison
            .rows
            .iter()
            .find(|row| row.phase == phase && row.figure == figure)
            .expect("a row")
            .verdict()
    };
    for share in SHARES {
        assert_eq!(verdict("send", Figure::Answer(share)), Verdict::BBetter);
    }
    assert_eq!(verdict("send", Figure::Cpu), Verdict::BWorse);
    assert_eq!(verdict("connect", Figure::UserBytes), Verdict::BWorse);
    assert!(!comparison.rows.iter().any(|row| row.phase == "prepare"), "preparations are left out");
}

#[test]
fn pairs_that_disagree_show_no_difference() {
    let (mut a, mut b) = (runs("ringline", 1), runs("mosquitto", 2));
    for (rates, verdict) in [
        ([101.0, 99.0, 150.0], Verdict::NoDifference),
        ([100.0, 150.0, 150.0], Verdict::NoDifference),
        ([101.0, 150.0, 150.0], Verdict::BBetter),
        ([99.9, 50.0, 50.0], Verdict::BWorse),
    ] {
        set_rates(&mut a, [100.0; 3]);
        set_rates(&mut b, rates);
        let comparison = compare(&a, &b, VoidRuns::LeaveOut).expect("three each");
        assert_eq!(rate_row(&comparison).verdict(), verdict, "{rates:?}");
        assert!(text(&comparison).contains(verdict.text()), "the whole verdict fits into its line");
    }
}

#[test]
fn too_few_or_unequal_runs_are_refused() {
    let (a, b) = (runs("ringline", 1), runs("mosquitto", 2));
    let refused = |a: &[RunResult], b: &[RunResult]| compare(a, b, VoidRuns::LeaveOut).map(|_| ());
    assert_eq!(refused(&a[..2], &b[..2]), Err(CompareError::Runs { a: 2, b: 2 }));
    assert_eq!(refused(&a, &b[..2]), Err(CompareError::Runs { a: 3, b: 2 }));
}

#[test]
fn runs_that_are_void_as_a_whole_are_named_and_refused_unless_told() {
    let (a, mut b) = (runs("ringline", 1), runs("mosquitto", 2));
    b[1] = example::void_run("mosquitto", 4);
    let refused = compare(&a, &b, VoidRuns::LeaveOut).expect_err("a void one").to_string();
    assert!(refused.contains("B 2 (mosquitto") && refused.contains("ledger_full"), "{refused}");
    let comparison = compare(&a, &b, VoidRuns::Accept).expect("told to");
    assert!(comparison.notes[0].contains("B 2") && text(&comparison).contains("is void"), "{comparison:?}");
    // What was prepared badly falsifies all that follows.
    b[1].void = vec![void("prepare")];
    assert!(matches!(compare(&a, &b, VoidRuns::LeaveOut), Err(CompareError::Void(_))));
}

fn void(phase: &str) -> VoidReason {
    VoidReason { phase: phase.into(), rule: "cpu_stolen".into(), detail: "9 % of CPU 1".into() }
}

#[test]
fn void_phases_are_left_out_of_their_pairs_alone() {
    let with_one_more = |subject: &str, parity| {
        let mut runs = runs(subject, parity);
        runs.push(example::run(subject, 6 + parity));
        runs
    };
    let (mut a, mut b) = (with_one_more("ringline", 1), with_one_more("mosquitto", 2));
    b[1].void = vec![void("send")];
    b[1].phases[1].streams[0].achieved_rate *= 100.0;
    let comparison = compare(&a, &b, VoidRuns::LeaveOut).expect("three pairs remain");
    let pairs_of = |phase: &str, comparison: &Comparison| {
        comparison.rows.iter().find(|row| row.phase == phase).map(|row| row.pairs)
    };
    assert_eq!((rate_row(&comparison).pairs, rate_row(&comparison).verdict()), (3, Verdict::NoDifference));
    assert_eq!((pairs_of("connect", &comparison), comparison.pairs), (Some(4), 4));
    assert_eq!(comparison.chance_percent, 25.0, "of the figure with the fewest pairs");
    assert!(comparison.notes[0].contains("B 2 (mosquitto"), "{:?}", comparison.notes);
    for shown in [text(&comparison), html(&comparison)] {
        assert!(shown.contains("3 of 4 pairs") && !shown.contains("4 of 4"), "{shown}");
    }

    a[0].void = vec![void("send")];
    let comparison = compare(&a, &b, VoidRuns::LeaveOut).expect("another phase remains");
    assert_eq!((pairs_of("send", &comparison), pairs_of("connect", &comparison)), (None, Some(4)));
    assert!(comparison.notes.iter().any(|note| note.contains("send is left out: 2 of 4")));
    assert_eq!(pairs_of("send", &compare(&a, &b, VoidRuns::Accept).expect("told to")), Some(4));

    let measured: Vec<String> = measured(&a[0]).map(|phase| phase.name.clone()).collect();
    a[0].void.extend(measured.iter().map(|phase| void(phase)));
    b[1].void.extend(measured.iter().map(|phase| void(phase)));
    assert!(matches!(compare(&a, &b, VoidRuns::LeaveOut), Err(CompareError::Void(_))), "nothing remains");
}

#[test]
fn runs_that_did_something_else_are_refused() {
    let (a, mut b) = (runs("ringline", 1), runs("mosquitto", 2));
    b[2].plan.population.users *= 2;
    let refused = compare(&a, &b, VoidRuns::LeaveOut).expect_err("another population").to_string();
    assert!(refused.contains("B 3") && refused.contains("population"), "{refused}");
    let mut b = runs("mosquitto", 2);
    b[0].plan.phases[1].seconds += 1.0;
    assert!(matches!(compare(&a, &b, VoidRuns::LeaveOut), Err(CompareError::Plans { .. })));
}

#[test]
fn allowed_differences_are_told() {
    let (a, mut b) = (runs("ringline", 1), runs("ringline", 2));
    b[0].plan.server.cores = 7;
    b[1].commit = "another".into();
    b.iter_mut().for_each(|run| run.started_ms += 100_000_000);
    let notes = compare(&a, &b, VoidRuns::LeaveOut).expect("three each").notes.join("\n");
    for wanted in ["another servers", "runs of B", "did not alternate"] {
        assert!(notes.contains(wanted), "{wanted} in {notes}");
    }
}

#[test]
fn figures_that_a_run_lacks_are_left_out() {
    let (a, mut b) = (runs("ringline", 1), runs("mosquitto", 2));
    b[1].phases[1].streams[0].histograms.remove("delivery");
    b[1].phases[1].streams[0].achieved_rate = 0.0;
    b[2].phases[1].servers.clear();
    let comparison = compare(&a, &b, VoidRuns::LeaveOut).expect("three each");
    let has = |figure| {
        comparison
            .rows
            .iter()
            .any(|row| row.phase == "send" && row.stream != "history" && row.figure == figure)
    };
    assert!(has(Figure::Answer(990)));
    assert!(!has(Figure::Delivery(990)) && !has(Figure::AchievedRate) && !has(Figure::Cpu));
    b.iter_mut().for_each(|run| run.phases.clear());
    let nothing = compare(&a, &b, VoidRuns::LeaveOut).expect("three each");
    assert!(text(&nothing).contains("no figure") && html(&nothing).contains("no figure"));
}

#[test]
fn text_fits_and_pages_escape() {
    let (mut a, b) = (runs("ringline", 1), runs("mosquitto", 2));
    a[0].subject = "<b>".repeat(60);
    let comparison = compare(&a, &b, VoidRuns::LeaveOut).expect("three each");
    for line in text(&comparison).lines() {
        assert!(line.chars().count() <= COLUMNS, "{line}");
    }
    let page = html(&comparison);
    assert!(!page.contains("<b>") && !page.contains("NaN"), "{page}");
    crate::report::html::tests::check_page(&page);
}

#[test]
fn the_middle_is_no_average() {
    assert_eq!(middle(vec![9.0, 1.0, 2.0]), Some((1.0, 2.0, 9.0)));
    assert_eq!(middle(vec![4.0, 1.0, 2.0, 9.0]), Some((1.0, 3.0, 9.0)));
    assert_eq!(middle(Vec::new()), None);
}
