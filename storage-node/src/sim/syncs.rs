//! The syncs of a node by what they are for: a test leaves a kind out, or has it fail. A kind is one place of the code,
//! or several of which each has its own tests.

/// What the node is doing, as the test says: it names the syncs of that time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Doing {
    Starting,
    LogThread,
    StoreThread,
    Maintenance,
    Snapshots,
    Restoring,
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
}
