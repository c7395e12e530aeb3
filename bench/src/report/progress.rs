//! What a person sees while a run goes on: one line that is written over, or, where no terminal is, one plain line
//! every few seconds.

use super::numbers::{clock, grouped, ms, percent};
use super::text::clip;
use crate::coordinator::control::messages::Progress;
use crate::measure::histogram::Latencies;
use crate::workload::plan::Plan;
use std::io::{self, IsTerminal, Write};

/// Without a terminal a line every so many seconds.
const PLAIN_EVERY_S: u32 = 5;
/// Columns of the line: narrower than any terminal, so that it is never wrapped.
const COLUMNS: usize = 79;
/// Back to the line's start, and erase it.
const START_OVER: &str = "\r\u{1b}[2K";

/// Where the line goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// A terminal: the line is written over.
    Terminal,
    /// A file or a pipe: lines follow each other.
    Plain,
}

impl Output {
    /// What this process' standard output is.
    pub fn of_stdout() -> Self {
        if io::stdout().is_terminal() { Self::Terminal } else { Self::Plain }
    }
}

/// The live line of a run.
#[derive(Debug)]
pub struct LiveLine {
    output: Output,
    /// Errors of the run so far.
    errors: u64,
    /// Whether the cursor stands behind a line that is not ended.
    open: bool,
}

impl LiveLine {
    /// Nothing shown yet.
    pub fn new(output: Output) -> Self {
        Self { output, errors: 0, open: false }
    }

    /// What is to be written now that a second is over; empty: nothing. `progress` is the sum of all agents.
    pub fn second(&mut self, plan: &Plan, progress: &Progress) -> String {
        self.errors += progress.errors;
        let line = clip(&line(plan, progress, self.errors), COLUMNS);
        match self.output {
            Output::Terminal => {
                self.open = true;
                format!("{START_OVER}{line}")
            }
            Output::Plain if progress.second % PLAIN_EVERY_S == PLAIN_EVERY_S - 1 => format!("{line}\n"),
            Output::Plain => String::new(),
        }
    }

    /// What is to be written before anything else is: ends the live line.
    pub fn end(&mut self) -> &'static str {
        if std::mem::take(&mut self.open) { "\n" } else { "" }
    }

    /// Writes [`Self::second`] to standard output. A reader that is gone is no reason to end a run.
    pub fn show(&mut self, plan: &Plan, progress: &Progress) {
        write_out(&self.second(plan, progress));
    }

    /// Writes [`Self::end`] to standard output.
    pub fn show_end(&mut self) {
        write_out(self.end());
    }
}

fn write_out(text: &str) {
    let mut stdout = io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Phase, time, rate, p99, connections, errors, what is left of the run at most, and, where there is room, the
/// busiest agent's CPU.
fn line(plan: &Plan, progress: &Progress, errors: u64) -> String {
    let place = progress.phase as usize;
    let name = plan.phases.get(place).map_or("?", |phase| phase.name.as_str());
    let seconds = plan.phases.get(place).map_or(0.0, |phase| phase.seconds);
    let passed = progress.second + 1;
    let later: f64 = plan.phases.iter().skip(place + 1).map(|phase| phase.seconds).sum();
    let left = (seconds - f64::from(passed)).max(0.0) + later;
    let latency = Latencies::from_text(&progress.latency).unwrap_or_default();
    let p99 = if latency.count() == 0 { "–".to_owned() } else { ms(latency.at(0.99)) };
    let line = format!(
        "{}/{} {} {passed}/{seconds:.0} s | {}/s p99 {p99} ms | {} conn | {} err | {} left",
        place + 1,
        plan.phases.len(),
        clip(name, 16),
        grouped(progress.succeeded),
        grouped(progress.connections),
        grouped(errors),
        clock(left.ceil() as u64)
    );
    let agent = format!(" | agent {}", percent(progress.cpu_milli));
    let fits = line.chars().count() + agent.chars().count() <= COLUMNS;
    if fits { line + &agent } else { line }
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    fn progress(phase: u32, second: u32) -> Progress {
        let mut latency = Latencies::default();
        (1..=1_000).for_each(|us| latency.record(us * 10));
        Progress {
            phase,
            second,
            due: 10_000,
            succeeded: 9_998,
            errors: 2,
            connections: 2_000,
            log_ins: 0,
            sent_on: 0,
            latency: latency.to_text(),
            cpu_milli: 437,
        }
    }

    #[test]
    fn the_line_says_where_the_run_is() {
        let plan = example::run("ringline", 1).plan;
        let mut live = LiveLine::new(Output::Terminal);
        live.second(&plan, &progress(1, 10));
        let line = live.second(&plan, &progress(1, 11));
        assert_eq!(
            line,
            "\r\u{1b}[2K2/4 send 12/60 s | 9,998/s p99 9.90 ms | 2,000 conn | 4 err | 2:48 left"
        );
        assert_eq!((live.end(), live.end()), ("\n", ""));
    }

    #[test]
    fn without_a_terminal_lines_are_rare_and_plain() {
        let plan = example::run("ringline", 1).plan;
        let mut live = LiveLine::new(Output::Plain);
        let lines: Vec<String> = (0..20).map(|second| live.second(&plan, &progress(0, second))).collect();
        let shown: Vec<&String> = lines.iter().filter(|line| !line.is_empty()).collect();
        assert_eq!(shown.len(), 4);
        assert!(
            shown.iter().all(|line| line.ends_with('\n') && !line.contains(['\r', '\u{1b}'])),
            "{shown:?}"
        );
        assert!(shown[3].contains("40 err"), "errors of skipped seconds count: {}", shown[3]);
        assert_eq!(live.end(), "");
    }

    #[test]
    fn a_line_is_never_wrapped_and_never_steers_the_terminal() {
        let mut plan = example::run("ringline", 1).plan;
        plan.phases[1].name = "evil\u{1b}[2J and a very long name indeed".into();
        let mut live = LiveLine::new(Output::Terminal);
        let mut much = progress(1, 9_999);
        (much.succeeded, much.connections) = (123_456_789, 150_000_000);
        let line = live.second(&plan, &much);
        let line = line.strip_prefix(START_OVER).expect("it starts over");
        assert!(line.chars().count() <= COLUMNS && !line.contains('\u{1b}'), "{line}");
    }

    #[test]
    fn a_second_without_answers_has_no_latency_and_a_late_one_no_time_left() {
        let plan = example::run("ringline", 1).plan;
        let mut live = LiveLine::new(Output::Terminal);
        let silent = Progress { phase: 3, second: 77, ..Progress::default() };
        let line = live.second(&plan, &silent);
        assert!(line.contains("p99 – ms") && line.contains("0:00 left | agent 0 %"), "{line}");
        let unknown = Progress { phase: 99, ..Progress::default() };
        assert!(live.second(&plan, &unknown).contains("100/4 ?"));
    }
}
