//! The syncs of a node by what they are for: a test leaves a kind out, or has it fail. A kind is one place of the code,
//! or several of which each has its own tests.

use super::names::NameChange;
use std::ffi::OsStr;
use std::path::Path;

/// What the node is doing, as the test says: it names the syncs of that time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Doing {
    Starting,
    LogThread,
    StoreThread,
    Maintenance,
    Snapshots,
    Restoring,
    BackingUp,
}

/// The syncs of a node, by what they are for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SyncKind {
    /// The name of the data folder in the folder above.
    DataFolderName,
    /// The bytes of `node.toml`.
    Identity,
    /// The name of `node.toml`.
    IdentityName,
    /// The name of the log's folder.
    LogName,
    /// The name of the folder of snapshots.
    SnapshotsName,
    /// The names in the log's folder.
    LogFolder,
    /// A log file, by the log thread.
    LogWrite,
    /// A log file, by maintenance: the log is cut.
    LogCut,
    /// The head of a log file that is made while the log is opened.
    LogHead,
    /// A log file during a start, but for its head: the log engine's own after cutting off a torn end.
    LogOpening,
    /// What the log engine keeps of old files, after each of its writes.
    RewriteWrite,
    /// The same, which a start found and wrote once more.
    RewriteFound,
    /// The same, when the engine itself asks for it.
    Rewrite,
    /// Rows during a start: those that say whose they are.
    RowsOpening,
    /// Rows, by maintenance.
    Rows,
    /// A received snapshot of a shard.
    Snapshot,
    /// What a removal is to do.
    Removal,
    /// The name by which a snapshot or a removal is decided.
    Decided,
    /// That this name is gone: all is done.
    Done,
    /// A log file: a shard's log is replaced or removed.
    SnapshotLog,
    /// Rows: a shard's rows are replaced or removed.
    SnapshotRows,
    /// A log file of a node that is restored from backups.
    RestoredLog,
    /// Rows of a node that is restored from backups.
    RestoredRows,
    /// The name of the folder of all backups, and of those above it.
    BackupsName,
    /// The name of a node's folder among the backups.
    BackupNodeName,
    /// The bytes of a table in a backup.
    BackupTable,
    /// The names of a node's tables among the backups.
    BackupTableNames,
    /// The bytes of what makes a store of a backup's tables.
    BackupHead,
    /// The bytes of what a backup says of itself.
    BackupManifest,
    /// The names in the folder of one backup.
    BackupContents,
    /// The name by which it is a backup.
    BackupName,
    /// That an old backup does not have this name any more.
    BackupUnnamed,
}

impl SyncKind {
    /// Of the rows.
    pub(super) fn of_rows(doing: Option<Doing>) -> Self {
        match doing {
            Some(Doing::Starting) => Self::RowsOpening,
            Some(Doing::Snapshots) => Self::SnapshotRows,
            Some(Doing::Restoring) => Self::RestoredRows,
            _ => Self::Rows,
        }
    }

    /// Of a log file that holds more than a head.
    pub(super) fn of_log(doing: Option<Doing>) -> Self {
        match doing {
            Some(Doing::LogThread) => Self::LogWrite,
            Some(Doing::Maintenance) => Self::LogCut,
            Some(Doing::Snapshots) => Self::SnapshotLog,
            Some(Doing::Restoring) => Self::RestoredLog,
            _ => Self::LogOpening,
        }
    }

    /// Of a file of a backup that is not its manifest.
    pub(super) fn of_backup_file(file: &Path) -> Self {
        let is_table = file.parent().is_some_and(|folder| folder.ends_with("tables"));
        if is_table { Self::BackupTable } else { Self::BackupHead }
    }

    /// Of names in a folder of backups, by the folder and by what happened to its names last. The folder of all
    /// backups is called `backups`; those that have other names are above it.
    pub(super) fn of_backup_names(folder: &Path, last: Option<&NameChange>) -> Self {
        let is_unfinished = |name: &OsStr| name.to_string_lossy().ends_with(".unfinished");
        let name = folder.file_name().unwrap_or_default();
        match last {
            _ if name == "backups" => Self::BackupNodeName,
            _ if name == "tables" => Self::BackupTableNames,
            _ if is_unfinished(name) => Self::BackupContents,
            Some(NameChange::Renamed(_, to)) if is_unfinished(to) => Self::BackupUnnamed,
            _ if name.to_string_lossy().starts_with("node-") => Self::BackupName,
            _ => Self::BackupsName,
        }
    }
}
