//! Findings and plans as a person reads them.

use crate::check::{Finding, Report, State};
use crate::host::Host;
use crate::plan::{Plan, shown};
use crate::setting::Change;
use std::io::{self, Write};
use std::path::Path;

/// Every setting in a line, and the reasons of those that do not serve.
pub(super) fn check(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}: {}", report.profile, report.role)?;
    for finding in &report.findings {
        let mark = match finding.state {
            State::Serves => "ok",
            State::DoesNotServe => "NO",
            State::NotApplicable => "-",
            State::Unreadable => "??",
        };
        writeln!(out, "{mark:3} {}: {}", finding.name, present(finding))?;
        if !finding.serves() {
            writeln!(out, "    why: {}\n    left as it is: {}", finding.reason, finding.cost)?;
        }
    }
    let count = |state| report.findings.iter().filter(|finding| finding.state == state).count();
    writeln!(
        out,
        "{} serve, {} do not, {} cannot be read, {} mean nothing here",
        count(State::Serves),
        count(State::DoesNotServe),
        count(State::Unreadable),
        count(State::NotApplicable)
    )
}

/// Every setting with all that is known of it.
pub(super) fn show(report: &Report, host: &dyn Host, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}: {}", report.profile, report.role)?;
    for finding in &report.findings {
        writeln!(out, "\n{}\n  what:   {}", finding.name, finding.setting.what())?;
        writeln!(out, "  is:     {}", present(finding))?;
        writeln!(out, "  why:    {}\n  cost:   {}", finding.reason, finding.cost)?;
        match finding.change(host) {
            None => writeln!(out, "  change: none")?,
            Some(Change::ByHand(how)) => writeln!(out, "  change: {how}")?,
            Some(Change::Edits(edits)) => {
                for edit in edits {
                    let field = edit.field.map(|field| format!(", number {}", field + 1)).unwrap_or_default();
                    writeln!(out, "  change: {} into {}{field}", edit.value, edit.path)?;
                }
            }
        }
    }
    Ok(())
}

/// What is there, beside what is wanted.
fn present(finding: &Finding) -> String {
    let detail = finding.detail.as_deref().unwrap_or_default();
    let wanted = finding.wanted.as_ref().map(|bound| format!("wanted: {bound}")).unwrap_or_default();
    match (&finding.present, finding.state) {
        (_, State::NotApplicable) => format!("does not apply here: {detail}"),
        (None, _) => format!("cannot be read: {detail} ({wanted})"),
        (Some(value), State::Unreadable) => format!("{value}, to be compared with {detail}"),
        (Some(value), _) if detail.is_empty() => format!("{value} ({wanted})"),
        (Some(value), _) => format!("{value} ({wanted}; {detail})"),
    }
}

/// What would be written, what is left to a person, and what is unknown.
pub(super) fn plan(plan: &Plan, record: &Path, out: &mut dyn Write) -> io::Result<()> {
    for step in &plan.steps {
        writeln!(out, "{}: {} -> {}", step.settings.join("; "), shown(&step.old), shown(&step.new))?;
        writeln!(out, "    {}", step.path)?;
    }
    for by_hand in &plan.by_hand {
        writeln!(out, "{}: not changed by this program:\n    {}", by_hand.setting, by_hand.how)?;
    }
    for unreadable in &plan.unreadable {
        writeln!(out, "cannot be read, so not changed: {unreadable}")?;
    }
    match plan.steps.is_empty() {
        true => writeln!(out, "{}: nothing to write", plan.profile),
        false => {
            writeln!(out, "{}: {} files; record: {}", plan.profile, plan.steps.len(), record.display())
        }
    }
}
