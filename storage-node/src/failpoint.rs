//! Named places on a message's way at which a test lets the process die: always compiled, so that tests kill the very
//! program that runs elsewhere, and inert unless the environment names one.
//!
//! `RINGLINE_FAILPOINT=rows-written:7` ends the process when it comes to that place for the seventh time: at once,
//! without unwinding, flushing or closing anything. `RINGLINE_FAILPOINT=log-writing:wait=500` makes every pass take
//! half a second: a disk that is slow. Places are passed once a batch, not once a message.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The variable that arms one.
const VARIABLE: &str = "RINGLINE_FAILPOINT";

/// The places, in the order in which a message comes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failpoint {
    /// The log thread has a batch and has written nothing.
    LogWriting,
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
            Self::LogSynced => "log-synced",
            Self::Committed => "committed",
            Self::Applied => "applied",
            Self::RowsWritten => "rows-written",
            Self::Answering => "answering",
            Self::FeedSending => "feed-sending",
            Self::FeedTaken => "feed-taken",
            Self::CheckpointProposing => "checkpoint-proposing",
            Self::Checkpointed => "checkpointed",
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
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Ends the process, or waits, if the environment says so.
pub(crate) fn pass(place: Failpoint) {
    let Some(armed) = ARMED.get_or_init(armed).as_ref().filter(|armed| armed.name == place.name()) else {
        return;
    };
    match &armed.action {
        Action::End(left) if left.fetch_sub(1, Ordering::AcqRel) == 1 => std::process::abort(),
        Action::End(_) => {}
        Action::Wait(time) => std::thread::sleep(*time),
    }
}

fn armed() -> Option<Armed> {
    let text = std::env::var(VARIABLE).ok()?;
    let (name, how) = text.split_once(':').unwrap_or((&text, "1"));
    tracing::warn!("{VARIABLE} is set: this process will end or wait at {name}");
    let action = match how.strip_prefix("wait=") {
        Some(wait_ms) => Action::Wait(Duration::from_millis(wait_ms.parse().unwrap_or(0))),
        None => Action::End(AtomicU64::new(how.parse().ok().filter(|passes| *passes > 0).unwrap_or(1))),
    };
    Some(Armed { name: name.to_owned(), action })
}
