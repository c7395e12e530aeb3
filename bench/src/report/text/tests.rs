use super::super::example;
use super::*;
use crate::measure::histogram::Latencies;

/// A run of few numbers, so that the golden table can be checked by eye.
fn small() -> RunResult {
    let mut run = example::run("ringline", 1);
    run.phases.retain(|phase| phase.name == "prepare" || phase.name == "kill");
    let phase = run.phases.last_mut().expect("kill");
    phase.seconds.truncate(20);
    let mut latencies = Latencies::default();
    (1..=1_000).for_each(|ms| latencies.record(ms * 1_000));
    for text in phase.streams[0].histograms.values_mut() {
        *text = latencies.to_text();
    }
    phase.streams[0].errors = [("ERROR_BUSY".to_owned(), 12), ("ERROR_GONE".to_owned(), 1_000)].into();
    phase.generators[0].lag = latencies.to_text();
    phase.generators[0].cpu_milli = 437;
    phase.servers[0].private_bytes_start = 78 << 20;
    phase.servers[0].private_bytes_end = 80 << 20;
    run
}

#[test]
fn the_table_is_as_it_was() {
    let table = table(&small());
    let golden = include_str!("golden.txt");
    assert!(table == golden, "the table has changed; if that is meant, golden.txt becomes:\n{table}");
}

#[test]
fn sessions_that_ended_are_told_apart() {
    let mut run = small();
    let phase = run.phases.last_mut().expect("kill");
    assert_eq!(returns_text(phase), None);
    phase.returns = ReturnCounts { cut: 1, told: 1_200, sent_on: 1_000, put_off: 30, failed: 4 };
    phase.seconds[3].log_ins = 90;
    phase.seconds[4].sent_on = 80;
    let text = "1 cut without a word, 1,200 told, 1,000 of them where to go; 50 ready again, after 30 tries that were \
                put off and 4 that failed; at most 80 sent on and 90 ready in one second";
    assert_eq!(returns_text(phase).as_deref(), Some(text));
    assert!(table(&run).contains("  sessions      1 cut without a word, 1,200 told,"), "{}", table(&run));
}

#[test]
fn who_is_not_back_counts_among_the_lost() {
    let mut run = small();
    let phase = run.phases.last_mut().expect("kill");
    let mut recovery = Latencies::default();
    (1..=50).for_each(|number| recovery.record(number * 10));
    phase.recovery = recovery.to_text();
    let mut text = |lost: u64| {
        phase.returns = ReturnCounts { cut: lost, ..ReturnCounts::default() };
        recovery_text(phase).expect("some were lost")
    };
    assert_eq!(text(80), "50 of 80: half after 0.400 ms, 99 % after –, all after –");
    assert_eq!(text(101), "50 of 101: half after –, 99 % after –, all after –");
    assert_eq!(text(50), "50 of 50: half after 0.250 ms, 99 % after 0.500 ms, all after 0.500 ms");
    assert_eq!(text(3), text(50), "some of them were lost in the phase before");
    (phase.recovery, phase.returns) = (String::new(), ReturnCounts { told: 2, ..ReturnCounts::default() });
    let none = "0 of 2: half after –, 99 % after –, all after –";
    assert_eq!(recovery_text(phase).as_deref(), Some(none));
    phase.returns = ReturnCounts::default();
    assert_eq!(recovery_text(phase), None);
}

#[test]
fn no_line_is_wider_than_the_page() {
    let mut run =
        example::void_run("a subject whose name does not fit into any terminal ".repeat(4).trim(), 2);
    run.command_line.push("x".repeat(300));
    run.void[0].detail = "y ".repeat(200);
    run.phases[1].name = "z".repeat(200);
    run.phases[1].servers[0].name = "a-server-with-a-long-name".into();
    run.phases[1].streams[0].action = "an_action_with_a_long_name".into();
    for line in table(&run).lines() {
        assert!(line.chars().count() <= COLUMNS, "{} columns: {line}", line.chars().count());
    }
}

#[test]
fn a_void_run_says_so_before_anything_else() {
    let text = table(&example::void_run("ringline", 1));
    let first: Vec<&str> = text.lines().take(4).collect();
    assert!(first[1].contains("VOID"), "{first:?}");
    assert!(first[2].contains("generator_busy (send): agent 1 used 97 %"), "{first:?}");
    assert!(first[3].contains("ledger_full (whole run)"), "{first:?}");
    assert!(text.contains("DOES NOT BALANCE") && text.contains("message 17 of device 3"), "{text}");
    assert!(!table(&example::run("ringline", 1)).contains("VOID"));
}

#[test]
fn preparations_are_left_out() {
    let text = table(&example::run("ringline", 1));
    assert!(text.contains("── send ") && !text.contains("prepare"), "{text}");
}

#[test]
fn phases_in_which_nothing_happened_have_no_figures() {
    let mut run = small();
    let phase = run.phases.last_mut().expect("kill");
    phase.streams[0].succeeded = 0;
    phase.streams[0].histograms.insert("answer".into(), String::new());
    (phase.seconds, phase.measured_s) = (Vec::new(), 0.0);
    phase.connections = Default::default();
    let mut empty = phase.clone();
    empty.name = "empty".into();
    empty.streams.clear();
    empty.servers.clear();
    empty.generators.clear();
    empty.machine.cpu_busy_milli.clear();
    empty.faults.clear();
    run.phases.push(empty);
    let text = table(&run);
    for wrong in ["NaN", "inf", "each message"] {
        assert!(!text.contains(wrong), "{wrong} in\n{text}");
    }
    assert!(text.contains("── empty ") && text.contains("none"), "{text}");
    run.phases.clear();
    assert!(table(&run).starts_with("ringline: plan example\n"));
}

#[test]
fn names_cannot_steer_the_terminal() {
    let mut run = small();
    run.subject = "evil\u{1b}[2J".into();
    run.phases[1].servers[0].name = "a\u{1b}b".into();
    run.durability = "x\u{1b}]0;title\u{7}".into();
    assert!(!table(&run).contains(['\u{1b}', '\u{7}']));
}

#[test]
fn texts_are_broken_at_spaces() {
    assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
    assert_eq!(wrap("abcdefg h", 3), ["abc", "def", "g h"]);
    assert_eq!(wrap("", 3), [""]);
    assert_eq!((clip("abcd", 4), clip("abcde", 4)), ("abcd".into(), "abc…".into()));
}
