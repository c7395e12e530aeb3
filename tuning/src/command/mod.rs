//! The four commands: what they print, ask, and return. The program is this and a terminal.
//!
//! Exit codes: 0 done, or all serves; 1 something does not serve, was refused, or failed; 2 the command line, a profile
//! or a record is not understood.

mod arguments;
mod text;

pub use arguments::{Command, Form, Named, USAGE};

use crate::apply::{ApplyError, apply};
use crate::check::{Finding, Report, check};
use crate::host::Host;
use crate::plan::{Plan, shown};
use crate::profile::Profile;
use crate::record::{Disk, RecordError, RecordFile};
use crate::revert::{Foreign, Outcome, RevertError, revert};
use std::io::{self, Write};
use std::path::Path;

/// Done, or all serves.
pub const DONE: u8 = 0;
/// Something does not serve, was refused, or failed.
pub const NOT_DONE: u8 = 1;
/// The command line, a profile or a record is not understood.
pub const NOT_UNDERSTOOD: u8 = 2;

/// Whether `apply` asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// On the terminal.
    Ask,
    /// Answered with yes on the command line.
    Answered,
    /// There is nothing to ask: only the plan is wanted.
    OnlyPlan,
}

/// Everything outside that a command touches.
pub struct World<'a> {
    /// The machine.
    pub host: &'a dyn Host,
    /// Where records are kept.
    pub disk: &'a dyn Disk,
    /// Shows a question and returns the line that was typed; none if there is no terminal.
    pub ask: &'a mut dyn FnMut(&str) -> io::Result<Option<String>>,
    /// What was asked for.
    pub out: &'a mut dyn Write,
    /// Complaints.
    pub err: &'a mut dyn Write,
}

/// Runs a command. An error is one of `out`, `err` or the terminal.
pub fn run(command: &Command, world: &mut World<'_>) -> io::Result<u8> {
    let profile = match command {
        Command::Check { profile, .. } | Command::Show { profile, .. } | Command::Apply { profile, .. } => {
            profile.load()
        }
        Command::Revert { record, foreign } => return run_revert(record, *foreign, world),
        Command::Help => {
            writeln!(world.out, "{USAGE}")?;
            return Ok(DONE);
        }
    };
    let profile = match profile {
        Ok(profile) => profile,
        Err(error) => {
            writeln!(world.err, "ringline-tune: {error}")?;
            return Ok(NOT_UNDERSTOOD);
        }
    };
    match command {
        Command::Check { form, .. } => run_check(&profile, *form, world),
        Command::Apply { question, record, .. } => run_apply(&profile, *question, record, world),
        _ => text::show(&Report::of(&profile, world.host), world.host, world.out).map(|()| DONE),
    }
}

fn run_check(profile: &Profile, form: Form, world: &mut World<'_>) -> io::Result<u8> {
    let report = Report::of(profile, world.host);
    match form {
        Form::Json => writeln!(world.out, "{}", serde_json::to_string_pretty(&report)?)?,
        Form::Text => text::check(&report, world.out)?,
    }
    Ok(if report.serves { DONE } else { NOT_DONE })
}

fn run_apply(profile: &Profile, question: Question, record: &Path, world: &mut World<'_>) -> io::Result<u8> {
    let plan = Plan::of(profile, world.host);
    text::plan(&plan, record, world.out)?;
    if plan.steps.is_empty() || question == Question::OnlyPlan {
        return Ok(DONE);
    }
    if question == Question::Ask {
        match (world.ask)(&format!("Write these {} files? [y/N] ", plan.steps.len()))? {
            None => {
                writeln!(
                    world.err,
                    "ringline-tune: no terminal to ask on, and no --yes: nothing was changed"
                )?;
                return Ok(NOT_UNDERSTOOD);
            }
            Some(answer) if !is_yes(&answer) => {
                writeln!(world.out, "nothing was changed")?;
                return Ok(NOT_DONE);
            }
            Some(_) => {}
        }
    }
    let done = match apply(&plan, world.host, &RecordFile::new(world.disk, record)) {
        Ok(done) => done,
        Err(error) => {
            if let ApplyError::Write { done, .. } = &error {
                done.iter().try_for_each(|done| writeln!(world.out, "written  {}", done.path))?;
            }
            writeln!(world.err, "ringline-tune: {error}")?;
            let malformed = matches!(error, ApplyError::Record(RecordError::Malformed { .. }));
            return Ok(if malformed { NOT_UNDERSTOOD } else { NOT_DONE });
        }
    };
    for done in &done {
        match &done.kept {
            None => writeln!(world.out, "written  {}", done.path)?,
            Some(kept) => {
                writeln!(world.out, "written  {}, of which the kernel made {}", done.path, shown(kept))?
            }
        }
    }
    writeln!(world.out, "until the next boot; `ringline-tune revert` takes it back ({})", record.display())?;
    let missed = |finding: &&Finding| {
        let planned = plan.steps.iter().any(|step| step.settings.contains(&finding.name));
        planned && !finding.serves()
    };
    let findings = check(profile, world.host);
    for finding in findings.iter().filter(missed) {
        writeln!(world.err, "ringline-tune: {} does not serve all the same", finding.name)?;
    }
    Ok(if findings.iter().any(|finding| missed(&finding)) { NOT_DONE } else { DONE })
}

/// Only a clear yes is one.
fn is_yes(answer: &str) -> bool {
    ["y", "yes"].contains(&answer.trim().to_lowercase().as_str())
}

fn run_revert(record: &Path, foreign: Foreign, world: &mut World<'_>) -> io::Result<u8> {
    let outcomes = match revert(world.host, &RecordFile::new(world.disk, record), foreign) {
        Ok(outcomes) => outcomes,
        Err(error) => {
            writeln!(world.err, "ringline-tune: {error}")?;
            let malformed = matches!(error, RevertError::Record(RecordError::Malformed { .. }));
            return Ok(if malformed { NOT_UNDERSTOOD } else { NOT_DONE });
        }
    };
    if outcomes.is_empty() {
        writeln!(world.out, "{}: was reverted before; nothing to do", record.display())?;
    }
    for (path, outcome) in &outcomes {
        match outcome {
            Outcome::Restored => writeln!(world.out, "restored {path}")?,
            Outcome::Unchanged => writeln!(world.out, "as it was {path}")?,
            Outcome::Rebooted => writeln!(world.out, "gone with the last boot {path}")?,
            Outcome::Gone => writeln!(world.err, "ringline-tune: {path} is no longer there")?,
            Outcome::Failed { why } => writeln!(world.err, "ringline-tune: {why}")?,
            Outcome::Foreign { present } => writeln!(
                world.err,
                "ringline-tune: {path} was changed by someone else since, to {present}: left alone \
                 (--force restores it)"
            )?,
        }
    }
    let settled = outcomes.iter().all(|(_, outcome)| outcome.is_settled());
    Ok(if settled { DONE } else { NOT_DONE })
}

#[cfg(test)]
mod tests;
