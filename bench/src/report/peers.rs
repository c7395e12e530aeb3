//! Several subjects by the same plans in one table: a row a subject, a column a question, and below it what an
//! acknowledgement of each is worth. Markdown, so that it can stand in a document as it is.
//!
//! Several runs of a subject give the middle one between the smallest and the largest; nothing is averaged. Figures of
//! void runs stand in parentheses, with the reasons below the table.

use super::figures;
use super::numbers::{grouped, short};
use super::results::{PhaseResult, RunResult, StreamResult};

/// What is asked of every subject.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Question {
    UserBytes,
    KernelBytes,
    ConnectRate,
    MessageRate,
    /// At a share, in thousandths.
    Delivery(u32),
    FanOut,
    CatchUp,
    Lost,
}

const QUESTIONS: [Question; 9] = [
    Question::UserBytes,
    Question::KernelBytes,
    Question::ConnectRate,
    Question::MessageRate,
    Question::Delivery(500),
    Question::Delivery(990),
    Question::FanOut,
    Question::CatchUp,
    Question::Lost,
];

/// An answer of one run.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Answer {
    value: f64,
    /// Of how many, where the value is a part of something.
    of: Option<u64>,
    is_void: bool,
}

impl Question {
    fn title(self) -> &'static str {
        match self {
            Self::UserBytes => "idle connection, user KiB",
            Self::KernelBytes => "kernel KiB, both ends",
            Self::ConnectRate => "connections/s",
            Self::MessageRate => "1:1 messages/s, most",
            Self::Delivery(500) => "delivered p50 at the fixed rate, ms",
            Self::Delivery(_) => "p99, ms",
            Self::FanOut => "group deliveries/s, most",
            Self::CatchUp => "offline messages, p50 to the last, ms",
            Self::Lost => "acknowledged, lost by kill -9",
        }
    }

    fn answer(self, run: &RunResult) -> Option<Answer> {
        let value = match self {
            Self::UserBytes => figures::run_slope(run)?.user_bytes / 1_024.0,
            Self::KernelBytes => figures::run_slope(run)?.kernel_bytes / 1_024.0,
            Self::ConnectRate => stream(run, "connect", None)?.1.achieved_rate,
            Self::MessageRate => stream(run, "send_direct", Some(false))?.1.achieved_rate,
            Self::Delivery(thousandths) => {
                let latencies = figures::latencies(stream(run, "send_direct", Some(true))?.1, "delivery");
                if latencies.count() == 0 {
                    return None;
                }
                latencies.at(f64::from(thousandths) / 1e3) as f64 / 1e3
            }
            Self::FanOut => {
                let (phase, stream) = stream(run, "send_group", None)?;
                stream.deliveries as f64 / phase.measured_s
            }
            Self::CatchUp => {
                figures::latencies(stream(run, "catch_up", None)?.1, "answer").at(0.5) as f64 / 1e3
            }
            Self::Lost => {
                let faults = run.phases.iter().any(|phase| !phase.faults.is_empty());
                let ledger = run.ledger.as_ref().filter(|_| faults)?;
                let (value, of) = (ledger.lost as f64, Some(ledger.acknowledged));
                return Some(Answer { value, of, is_void: !run.void.is_empty() });
            }
        };
        Some(Answer { value, of: None, is_void: !run.void.is_empty() })
    }
}

/// The first measured stream of an action in a phase without faults; `open_loop`: of this kind only.
fn stream<'r>(
    run: &'r RunResult,
    action: &str,
    open_loop: Option<bool>,
) -> Option<(&'r PhaseResult, &'r StreamResult)> {
    let phases = run.phases.iter().filter(|phase| !phase.preparation && phase.faults.is_empty());
    phases.flat_map(|phase| phase.streams.iter().map(move |stream| (phase, stream))).find(|(_, stream)| {
        stream.action == action && open_loop.is_none_or(|wanted| wanted == stream.open_loop)
    })
}

fn cell(mut answers: Vec<Answer>) -> String {
    let good: Vec<Answer> = answers.iter().copied().filter(|answer| !answer.is_void).collect();
    let is_void = good.is_empty();
    if !is_void {
        answers = good;
    }
    answers.sort_by(|a, b| a.value.total_cmp(&b.value));
    let (Some(low), Some(high)) = (answers.first(), answers.last()) else { return "–".into() };
    let text = if let Some(of) = answers.iter().map(|answer| answer.of).sum::<Option<u64>>() {
        let lost: f64 = answers.iter().map(|answer| answer.value).sum();
        format!("{} of {}", grouped(lost as u64), grouped(of))
    } else {
        let middle = short(answers[answers.len() / 2].value);
        match answers.len() {
            1 => middle,
            _ => format!("{middle} [{} … {}]", short(low.value), short(high.value)),
        }
    };
    if is_void { format!("({text})") } else { text }
}

/// The table, what is void, and what each subject's acknowledgement promises. Runs of one subject have one name.
pub fn table(runs: &[RunResult]) -> String {
    let mut subjects: Vec<&str> = Vec::new();
    for run in runs {
        if !subjects.contains(&run.subject.as_str()) {
            subjects.push(&run.subject);
        }
    }
    let asked: Vec<Question> = QUESTIONS
        .into_iter()
        .filter(|question| runs.iter().any(|run| question.answer(run).is_some()))
        .collect();
    let mut text = String::new();
    let titles: Vec<&str> = asked.iter().map(|question| question.title()).collect();
    text += &format!("| subject | {} |\n", titles.join(" | "));
    text += &format!("| --- |{}\n", " --- |".repeat(asked.len()));
    for subject in &subjects {
        let own = || runs.iter().filter(|run| run.subject == *subject);
        let cells: Vec<String> = asked
            .iter()
            .map(|question| cell(own().filter_map(|run| question.answer(run)).collect()))
            .collect();
        text += &format!("| {subject} | {} |\n", cells.join(" | "));
    }
    text += "\nWhat an acknowledgement promises:\n\n";
    for subject in &subjects {
        if let Some(run) = runs.iter().find(|run| run.subject == *subject) {
            text += &format!("- **{subject}**: {}\n", run.durability);
        }
    }
    let void: Vec<String> = runs.iter().filter(|run| !run.void.is_empty()).map(void_line).collect();
    if !void.is_empty() {
        text += &format!("\nIn parentheses, since the run was void:\n\n{}\n", void.join("\n"));
    }
    text
}

fn void_line(run: &RunResult) -> String {
    let reason = |reason: &super::results::VoidReason| {
        let phase = if reason.phase.is_empty() { String::new() } else { format!("{}: ", reason.phase) };
        format!("{phase}{}", reason.detail)
    };
    let reasons: Vec<String> = run.void.iter().map(reason).collect();
    format!("- {}, {}: {}", run.subject, run.plan.name, reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    fn row<'t>(text: &'t str, subject: &str) -> Vec<&'t str> {
        let line = text.lines().find(|line| line.starts_with(&format!("| {subject} |")));
        line.expect("a row").trim_matches('|').split('|').map(str::trim).collect()
    }

    fn column<'t>(text: &'t str, subject: &str, title: &str) -> &'t str {
        let place = row(text, "subject").iter().position(|one| *one == title).expect("a column");
        row(text, subject)[place]
    }

    /// A run whose only phase sends 1:1 in a closed loop at this rate.
    fn run_at(subject: &str, rate: f64) -> RunResult {
        let mut run = example::run(subject, 1);
        run.phases.retain(|phase| phase.streams.iter().any(|stream| stream.action == "send_direct"));
        run.phases.truncate(1);
        let stream = &mut run.phases[0].streams[0];
        (stream.open_loop, stream.achieved_rate) = (false, rate);
        run
    }

    #[test]
    fn the_middle_run_stands_between_the_smallest_and_the_largest() {
        let runs: Vec<RunResult> = [300.0, 100.0, 200.0].map(|rate| run_at("pigeon", rate)).into();
        let text = table(&runs);
        assert_eq!(column(&text, "pigeon", "1:1 messages/s, most"), "200 [100 … 300]");
        assert!(text.contains("- **pigeon**: an acknowledged message is synced"), "{text}");
    }

    #[test]
    fn void_figures_are_told_apart_and_never_mixed_with_others() {
        let mut void = run_at("pigeon", 900.0);
        void.void = example::void_run("pigeon", 1).void;
        let only_void = table(std::slice::from_ref(&void));
        assert_eq!(column(&only_void, "pigeon", "1:1 messages/s, most"), "(900)");
        assert!(only_void.contains("agent 1 used 97 %"), "{only_void}");
        let text = table(&[run_at("pigeon", 100.0), void]);
        assert_eq!(column(&text, "pigeon", "1:1 messages/s, most"), "100");
    }

    #[test]
    fn what_was_lost_is_counted_over_all_runs_and_only_where_something_was_killed() {
        let mut killed = example::run("pigeon", 1);
        killed.phases.retain(|phase| !phase.faults.is_empty());
        assert!(!killed.phases.is_empty(), "the example kills a server");
        if let Some(ledger) = &mut killed.ledger {
            (ledger.lost, ledger.acknowledged) = (2, 1_000);
        }
        let text = table(&[killed.clone(), killed, run_at("smoke", 1.0)]);
        let title = "acknowledged, lost by kill -9";
        assert_eq!(column(&text, "pigeon", title), "4 of 2,000");
        assert_eq!(column(&text, "smoke", title), "–", "its ledger saw no kill");
        assert_eq!(column(&text, "pigeon", "1:1 messages/s, most"), "–");
    }

    #[test]
    fn every_question_is_answered_by_the_run_that_can() {
        let text = table(&[example::run("pigeon", 1)]);
        assert!(column(&text, "pigeon", "connections/s").parse::<f64>().is_ok(), "{text}");
        assert!(column(&text, "pigeon", "p99, ms").parse::<f64>().is_ok_and(|ms| ms > 0.0), "{text}");
        assert!(!text.contains("1:1 messages/s"), "nothing was sent in a closed loop: {text}");
    }
}
