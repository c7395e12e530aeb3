//! Named places on a message's way at which a test lets the process die, wait, or meet a disk that fails: always compiled,
//! so that tests kill the very program that runs elsewhere, and inert unless the environment names one.
//!
//! | `RINGLINE_FAILPOINT` | what happens there |
//! | --- | --- |
//! | `rows-written:7` | the process ends when it comes by for the seventh time: at once, without unwinding, flushing or closing anything |
//! | `log-writing:wait=500` | every pass takes half a second: a disk that is slow |
//! | `log-syncing:stand=FILE` | while FILE is there passes stand, and write into it that they do |
//! | `log-syncing:fail=FILE` | a pass that finds FILE takes it away, and the sync reports an error of the device: one error for each time that FILE is put there, as Linux reports it |
//!
//! Places are passed once a batch, not once a message.

use crate::clock;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The variable that arms one.
const VARIABLE: &str = "RINGLINE_FAILPOINT";
/// The longest that a pass stands: nobody lets it go on whose test has died.
const STANDS_MAX: Duration = Duration::from_secs(60);
/// How often a pass that stands looks whether it may go on.
const STANDING_LOOK: Duration = Duration::from_millis(1);

/// The places, in the order in which a message comes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failpoint {
    /// The log thread has a batch and has written nothing.
    LogWriting,
    /// A log file is about to be synced, after a batch or as it begins or ends: may fail.
    LogSyncing,
    /// The batch is synced; no core knows.
    LogSynced,
    /// Committed entries are with the store thread; nothing is applied.
    Committed,
    /// They are applied to the overlay; no row is written.
    Applied,
    /// Rows are written; no core knows.
    RowsWritten,
    /// Outcomes are with the core; nobody is answered, no feed is sent.
    Answering,
    /// Answers are on their way; no feed is sent.
    FeedSending,
    /// A home shard took a batch; it has not acknowledged it.
    FeedTaken,
    /// A home shard is about to propose a checkpoint.
    CheckpointProposing,
    /// The checkpoint is applied; no source knows.
    Checkpointed,
    /// Rows are about to be made durable: may fail.
    RowsSyncing,
    /// Rows are durable; the log is not cut.
    Flushed,
    /// The log is cut; old files are still there.
    Cut,
    /// A snapshot of a shard is here, whole; Raft has not heard of it.
    SnapshotReceived,
    /// It is to be installed; log and rows are the old ones.
    SnapshotDecided,
    /// Log and rows are the snapshot's; its file is still there.
    SnapshotInstalled,
    /// What a replica left is to be removed; log and rows are there.
    RemovalDecided,
    /// Log and rows are gone; the file that says so is still there.
    Removed,
}

impl Failpoint {
    /// As the variable names it.
    fn name(self) -> &'static str {
        match self {
            Self::LogWriting => "log-writing",
            Self::LogSyncing => "log-syncing",
            Self::LogSynced => "log-synced",
            Self::Committed => "committed",
            Self::Applied => "applied",
            Self::RowsWritten => "rows-written",
            Self::Answering => "answering",
            Self::FeedSending => "feed-sending",
            Self::FeedTaken => "feed-taken",
            Self::CheckpointProposing => "checkpoint-proposing",
            Self::Checkpointed => "checkpointed",
            Self::RowsSyncing => "rows-syncing",
            Self::Flushed => "flushed",
            Self::Cut => "cut",
            Self::SnapshotReceived => "snapshot-received",
            Self::SnapshotDecided => "snapshot-decided",
            Self::SnapshotInstalled => "snapshot-installed",
            Self::RemovalDecided => "removal-decided",
            Self::Removed => "removed",
        }
    }
}

struct Armed {
    name: String,
    action: Action,
}

enum Action {
    /// The process ends after so many passes.
    End(AtomicU64),
    /// Every pass takes so long.
    Wait(Duration),
    /// Passes stand while this file is there.
    Stand(PathBuf),
    /// A pass fails that can take this file away.
    Fail(PathBuf),
}

impl Action {
    /// As the variable says it.
    fn parse(how: &str) -> Self {
        match how.split_once('=') {
            Some(("wait", wait_ms)) => Self::Wait(Duration::from_millis(wait_ms.parse().unwrap_or(0))),
            Some(("stand", switch)) => Self::Stand(PathBuf::from(switch)),
            Some(("fail", switch)) => Self::Fail(PathBuf::from(switch)),
            _ => Self::End(AtomicU64::new(how.parse().ok().filter(|passes| *passes > 0).unwrap_or(1))),
        }
    }
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Ends the process, or waits, if the environment says so.
pub(crate) fn pass(place: Failpoint) {
    try_pass(place).expect("only a sync can be made to fail");
}

/// As [`pass`], where a disk may fail.
pub(crate) fn try_pass(place: Failpoint) -> io::Result<()> {
    let Some(armed) = ARMED.get_or_init(armed).as_ref().filter(|armed| armed.name == place.name()) else {
        return Ok(());
    };
    match &armed.action {
        Action::End(left) if left.fetch_sub(1, Ordering::AcqRel) == 1 => std::process::abort(),
        Action::End(_) => {}
        Action::Wait(time) => std::thread::sleep(*time),
        Action::Stand(switch) => stand(switch),
        Action::Fail(switch) if fs::remove_file(switch).is_ok() => {
            // EIO.
            return Err(io::Error::from_raw_os_error(5));
        }
        Action::Fail(_) => {}
    }
    Ok(())
}

/// Says in the file that it stands, and does until somebody takes the file away. Never makes the file anew.
fn stand(switch: &Path) {
    let started = clock::now();
    let file = OpenOptions::new().write(true).truncate(true).open(switch);
    if file.and_then(|mut file| file.write_all(b"stands")).is_err() {
        return;
    }
    while switch.exists() && started.elapsed() < STANDS_MAX {
        std::thread::sleep(STANDING_LOOK);
    }
}

fn armed() -> Option<Armed> {
    let text = std::env::var(VARIABLE).ok()?;
    let (name, how) = text.split_once(':').unwrap_or((&text, "1"));
    tracing::warn!("{VARIABLE} is set: this process will end, wait or fail at {name}");
    Some(Armed { name: name.to_owned(), action: Action::parse(how) })
}
