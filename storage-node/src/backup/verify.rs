//! Whether backups are whole: every file of each of them, and that a fleet could be made of the newest ones.

use super::Progress;
use super::files::Pace;
use super::folder::{Backup, NodeFolder};
use super::manifest::Manifest;
use super::open::open;
use super::plan::choose;
use crate::disk::Disk;
use crate::domain;
use crate::engine::{StoreError, View, format, keys};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use wire_protocol::ids::ShardId;

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct VerifyReport {
    /// What is wrong; each names its file. Empty: all is well.
    pub problems: Vec<String>,
    /// Backups that were looked at.
    pub backups: u64,
    /// Files whose checksum is right.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows of the newest backup of each node that were read.
    pub rows: u64,
    /// Shards of the fleet, if that is clear.
    pub shard_count: u32,
}

impl VerifyReport {
    /// For a person.
    pub fn to_text(&self) -> String {
        let Self { backups, files, bytes, rows, shard_count, problems } = self;
        let mut text = format!(
            "{backups} backups: {files} files, {bytes} bytes as their checksums say; {rows} rows read\n"
        );
        match problems.as_slice() {
            [] => text.push_str(&format!("all {shard_count} shards are there\n")),
            problems => problems.iter().for_each(|problem| text.push_str(&format!("WRONG: {problem}\n"))),
        }
        text
    }
}

/// Looks at all backups in a folder. `scratch`: a folder for links, to be made and removed. An error: the looking itself
/// failed, or was given up.
pub fn verify(from: &Path, scratch: &Path, progress: Progress<'_>) -> Result<VerifyReport, String> {
    let mut report = VerifyReport::default();
    let mut pace = Pace::new(None, progress);
    let mut newest = Vec::new();
    for (node_id, folder) in NodeFolder::all(&Disk::Real, from)? {
        let numbers = folder.numbers()?;
        if numbers.is_empty() {
            report.problems.push(format!("{}: holds no backup", folder.path().display()));
        }
        // Each file is read once, whatever number of backups have it.
        let mut read = BTreeMap::new();
        let mut last = None;
        for &number in &numbers {
            report.backups += 1;
            let backup = folder.read(node_id, number);
            let whole = backup
                .and_then(|backup| check_files(&backup, &mut read, &mut pace, &mut report).map(|()| backup));
            last = whole.map_err(|problem| report.problems.push(problem)).ok();
        }
        newest.extend(last);
    }
    report.problems.sort();
    report.problems.dedup();
    for backup in &newest {
        let scratch = scratch.join(format!("node-{}", backup.manifest.node_id));
        match check_rows(backup, &scratch) {
            Ok(rows) => report.rows += rows,
            Err(problem) => report.problems.push(problem),
        }
    }
    let manifests: Vec<&Manifest> = newest.iter().map(|backup| &backup.manifest).collect();
    match choose(&manifests) {
        Ok(chosen) => report.shard_count = chosen.len() as u32,
        Err(problem) => report.problems.push(problem),
    }
    Ok(report)
}

/// Whether all files of a backup are as its manifest says. An error names the first that is not.
pub(super) fn check_files(
    backup: &Backup,
    read: &mut BTreeMap<String, Result<(), String>>,
    pace: &mut Pace<'_>,
    report: &mut VerifyReport,
) -> Result<(), String> {
    let mut first_problem = Ok(());
    for file in &backup.manifest.files {
        let checked = read.entry(file.path.clone()).or_insert_with(|| {
            let path = backup.folder.path().join(&file.path);
            let sum = pace.sum(backup.folder.disk(), &path)?;
            if (sum.bytes, &sum.sha256) != (file.bytes, &file.sha256) {
                return Err(format!(
                    "{}: damaged: it does not have the checksum of its manifest",
                    path.display()
                ));
            }
            report.files += 1;
            report.bytes += sum.bytes;
            Ok(())
        });
        if let Err(problem) = checked {
            report.problems.push(problem.clone());
            first_problem = first_problem.and(Err(problem.clone()));
        }
    }
    first_problem
}

/// Reads all rows; how far each shard is must be what the manifest says.
fn check_rows(backup: &Backup, scratch: &Path) -> Result<u64, String> {
    let manifest = &backup.manifest;
    let folder = backup.folder.backup(manifest.number);
    let view = open(backup, scratch)?;
    let failed = |error: StoreError| format!("{}: {error}", folder.display());
    format::check_shards(&*view, &folder, manifest.shard_count).map_err(|error| error.to_string())?;
    for point in &manifest.shards {
        let (applied, time_ms) = domain::applied_index(&*view, ShardId(point.shard)).map_err(failed)?;
        if (applied, time_ms) != (point.applied, point.time_ms) {
            return Err(format!(
                "{}: shard {} is applied up to {applied}, its manifest says {}",
                folder.display(),
                point.shard,
                point.applied
            ));
        }
    }
    count_rows(&*view).map_err(failed)
}

fn count_rows(view: &dyn View) -> Result<u64, StoreError> {
    let mut rows = 0;
    view.walk(&[], &[0xff; keys::KEY_BYTES_MAX + 1], &mut |_, _| {
        rows += 1;
        true
    })?;
    Ok(rows)
}
