//! Carrying out a plan: first the record, then the writes in order, each read back.
//!
//! The first write that fails ends it. The record then still says `applying`, and names the old text of everything
//! that was or would have been written, so `revert` restores it, and a repeated `apply` goes on.

use crate::host::Host;
use crate::plan::{Plan, Step, same_value, shown};
use crate::record::{Changed, Progress, Record, RecordError, RecordFile};
use std::io;

/// A file that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    /// The file.
    pub path: String,
    /// What the kernel made of the text, if it did not keep it.
    pub kept: Option<String>,
}

/// Why a plan was not carried out to its end.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The record; nothing was changed.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A file is not as it was planned from; nothing was changed.
    #[error("{path} reads {present:?} now and read {planned:?} when this was planned; nothing was changed")]
    Moved {
        /// The file.
        path: String,
        /// Its text now.
        present: String,
        /// Its text then.
        planned: String,
    },
    /// An earlier apply set it, and someone else has changed it since; nothing was changed.
    #[error(
        "{path} reads {present:?}, which is neither what it was ({old:?}) nor what the record says was set \
         ({set:?}): someone else changed it. Nothing was changed; `revert --force` restores what it was"
    )]
    Foreign {
        /// The file.
        path: String,
        /// Its text now.
        present: String,
        /// Its text before the first apply.
        old: String,
        /// What the last apply set.
        set: String,
    },
    /// A file could not be read or written. What was done before stays, and is in the record.
    #[error("{path}: {error}; {} of {planned} files were written before, `revert` restores them", done.len())]
    Write {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
        /// Files that were written.
        done: Vec<Done>,
        /// Files that would have been.
        planned: usize,
    },
    /// All was changed, but the record still says that it is under way.
    #[error("everything was written, but the record could not be finished: {0}")]
    Unfinished(RecordError),
}

/// Carries out a plan. Every file it writes is in the record, on disk, before.
pub fn apply(plan: &Plan, host: &dyn Host, file: &RecordFile<'_>) -> Result<Vec<Done>, ApplyError> {
    if plan.steps.is_empty() {
        return Ok(Vec::new());
    }
    let mut record = merged(plan, host, file.load()?)?;
    file.save(&record)?;
    let mut done = Vec::new();
    for step in &plan.steps {
        match carry_out(step, host) {
            Ok(kept) => {
                let changed = record.changes.iter_mut().find(|changed| changed.path == step.path);
                changed.expect("every step is in the record").kept = kept.clone();
                done.push(Done { path: step.path.clone(), kept });
            }
            Err(error) => {
                let path = step.path.clone();
                return Err(ApplyError::Write { path, error, done, planned: plan.steps.len() });
            }
        }
        // What the kernel made of our text is ours to take back, too, should this be the last that we do.
        if done.last().is_some_and(|done| done.kept.is_some()) {
            file.save(&record)?;
        }
    }
    record.progress = Progress::Applied;
    record.changes.iter_mut().for_each(|changed| changed.before = None);
    file.save(&record).map_err(ApplyError::Unfinished)?;
    Ok(done)
}

/// The record of what was open before and of what is to come. The first old text of a file stays its old text.
fn merged(plan: &Plan, host: &dyn Host, earlier: Option<Record>) -> Result<Record, ApplyError> {
    let mut record = earlier.filter(|record| record.is_open(host)).unwrap_or_else(|| Record::new(host));
    record.progress = Progress::Applying;
    record.changes.retain(|changed| !changed.restored);
    record.profiles.retain(|profile| *profile != plan.profile);
    record.profiles.push(plan.profile.clone());
    for step in &plan.steps {
        let present = host.read(&step.path).map_err(|error| ApplyError::Write {
            path: step.path.clone(),
            error,
            done: Vec::new(),
            planned: plan.steps.len(),
        })?;
        if present != step.old {
            let (path, planned) = (step.path.clone(), shown(&step.old));
            return Err(ApplyError::Moved { path, present: shown(&present), planned });
        }
        match record.changes.iter_mut().find(|changed| changed.path == step.path) {
            None => record.changes.push(Changed {
                path: step.path.clone(),
                settings: step.settings.clone(),
                old: present,
                set: step.new.clone(),
                kept: None,
                before: None,
                restored: false,
            }),
            Some(changed) => chain(changed, step, present)?,
        }
    }
    Ok(record)
}

/// Adds a change to one that was not taken back.
fn chain(changed: &mut Changed, step: &Step, present: String) -> Result<(), ApplyError> {
    if present != changed.old && !changed.is_ours(&present) {
        return Err(ApplyError::Foreign {
            path: step.path.clone(),
            present: shown(&present),
            old: shown(&changed.old),
            set: shown(&changed.set),
        });
    }
    let new = step.settings.iter().filter(|setting| !changed.settings.contains(setting)).cloned();
    let new: Vec<String> = new.collect();
    changed.settings.extend(new);
    changed.set.clone_from(&step.new);
    changed.before = (present != changed.old).then_some(present);
    changed.kept = None;
    Ok(())
}

/// Writes one file. Returns what the kernel made of it, if that is something else.
fn carry_out(step: &Step, host: &dyn Host) -> io::Result<Option<String>> {
    host.write(&step.path, &step.new)?;
    let present = host.read(&step.path)?;
    Ok((!same_value(&step.path, &present, &step.new)).then_some(present))
}
