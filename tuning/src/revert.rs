//! Taking back what a record lists: each file gets its old text, byte for byte, and is read back.
//!
//! What someone else changed since is left alone unless told otherwise. What could not be restored stays open in the
//! record; the rest is closed, so a repeated revert goes on where this one ended.

use crate::host::Host;
use crate::plan::{shown, writable};
use crate::record::{Changed, Progress, Record, RecordError, RecordFile};
use std::io;

/// What to do with a value that is neither the old one nor the one that was set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Foreign {
    /// Leave it, and leave it in the record.
    Keep,
    /// Restore the old value all the same.
    Overwrite,
}

/// What became of one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The old text is back, and was read back.
    Restored,
    /// It had its old text already.
    Unchanged,
    /// There is no such file any more: a module or a card went, and its settings with it.
    Gone,
    /// The machine was started anew since; the kernel has forgotten what was set.
    Rebooted,
    /// Someone else changed it; it was left.
    Foreign {
        /// What it reads.
        present: String,
    },
    /// It could not be read, written, or did not keep its old text.
    Failed {
        /// Why.
        why: String,
    },
}

impl Outcome {
    /// Whether nothing is left to be done for the file.
    pub fn is_settled(&self) -> bool {
        !matches!(self, Outcome::Foreign { .. } | Outcome::Failed { .. })
    }
}

/// Why nothing was taken back, or why that is not on record.
#[derive(Debug, thiserror::Error)]
pub enum RevertError {
    /// There is no record.
    #[error("{path}: no record, so nothing was applied with it")]
    NoRecord {
        /// Where it was looked for.
        path: std::path::PathBuf,
    },
    /// The record cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Takes back a record, the last change first. Returns each file and what became of it; none if all was back already.
pub fn revert(
    host: &dyn Host,
    file: &RecordFile<'_>,
    foreign: Foreign,
) -> Result<Vec<(String, Outcome)>, RevertError> {
    let no_record = || RevertError::NoRecord { path: file.path().to_owned() };
    let mut record = file.load()?.ok_or_else(no_record)?;
    if record.progress == Progress::Reverted {
        return Ok(Vec::new());
    }
    let this_boot = record.is_open(host);
    // On disk once more before the first write: who wrote it last may have been killed before it was.
    record.progress = Progress::Reverting;
    file.save(&record)?;
    let mut outcomes = Vec::new();
    for changed in record.changes.iter_mut().rev().filter(|changed| !changed.restored) {
        let outcome = match this_boot {
            true => restore(changed, host, foreign),
            false => Outcome::Rebooted,
        };
        changed.restored = outcome.is_settled();
        outcomes.push((changed.path.clone(), outcome));
    }
    record.progress = progress(&record);
    file.save(&record)?;
    Ok(outcomes)
}

fn progress(record: &Record) -> Progress {
    match record.changes.iter().all(|changed| changed.restored) {
        true => Progress::Reverted,
        false => Progress::Reverting,
    }
}

fn restore(changed: &Changed, host: &dyn Host, foreign: Foreign) -> Outcome {
    let path = &changed.path;
    let failed = |error: io::Error| Outcome::Failed { why: format!("{path}: {error}") };
    let present = match host.read(path) {
        Ok(present) => present,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Outcome::Gone,
        Err(error) => return failed(error),
    };
    if present == changed.old {
        return Outcome::Unchanged;
    }
    if !changed.is_ours(&present) && foreign == Foreign::Keep {
        return Outcome::Foreign { present: shown(&present) };
    }
    if let Err(error) = host.write(path, writable(&changed.old)) {
        return failed(error);
    }
    match host.read(path) {
        Ok(back) if back == changed.old => Outcome::Restored,
        Ok(back) => {
            Outcome::Failed { why: format!("{path}: reads {back:?} after {:?} was written", changed.old) }
        }
        Err(error) => failed(error),
    }
}
