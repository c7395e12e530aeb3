//! The snapshots that a node receives, one of each shard at most, without threads and links: takes parts as they come, and
//! says of each what is to be done about it.
//!
//! ```text
//! nothing ──first part──> receiving ──last part──> whole ──forgotten: installed, or of no use──> nothing
//!    ^                     │  │  ^
//!    │                     │  └──┘ first part of another snapshot: begins anew
//!    └──a refused part, or─┘
//!       none for long
//! ```
//!
//! The thread of snapshots ([`super::worker`]) drives it, and so do tests that throw parts at it (`trial.rs`). It refuses to
//! know where parts come from, who hears its answers, and what Raft makes of a snapshot that is whole.

use super::RECEIVING_MS_MAX;
use super::incoming::{Incoming, Refusal, Taken, name_of, progress};
use super::install::SnapshotFiles;
use std::collections::BTreeMap;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{RaftMessage, SnapshotPart, SnapshotProgress};

/// The node that receives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here {
    pub node_id: u32,
    /// Of the whole fleet.
    pub shard_count: u32,
}

/// What became of a part.
#[derive(Debug)]
pub(super) enum Fate {
    /// It is not the one that is waited for. Nothing changed.
    PassedOver,
    /// It is written.
    Written,
    /// It was the last one. All parts are durable, and this is what the leader says of them: for Raft to decide.
    Whole(Box<RaftMessage>),
    /// Its snapshot is given up, and what was written of it is gone. Another one may begin.
    Refused(Refusal),
}

/// What is to be done about a part.
#[derive(Debug)]
pub(super) struct Received {
    pub fate: Fate,
    /// The answer to its sender, whatever its fate.
    pub progress: SnapshotProgress,
}

/// What is being received, or is whole and not decided on.
pub(super) struct Receiving {
    here: Here,
    files: SnapshotFiles,
    incoming: BTreeMap<ShardId, Incoming>,
}

impl Receiving {
    pub fn new(here: Here, files: SnapshotFiles) -> Self {
        Self { here, files, incoming: BTreeMap::new() }
    }

    /// Takes a part that came over a link. Times are of any clock that goes forward.
    pub fn take(&mut self, now_ms: u64, part: SnapshotPart) -> Received {
        let (shard, name, number) = (ShardId(part.shard), name_of(&part), part.number);
        self.try_take(now_ms, part).unwrap_or_else(|refusal| {
            self.incoming.remove(&shard);
            self.files.discard(&self.files.receiving(shard));
            let progress = progress(self.here.node_id, shard, name, number, true);
            Received { fate: Fate::Refused(refusal), progress }
        })
    }

    fn try_take(&mut self, now_ms: u64, part: SnapshotPart) -> Result<Received, Refusal> {
        let (shard, own) = (ShardId(part.shard), self.here.node_id);
        let Some(incoming) = self.find_or_begin(now_ms, &part)? else {
            let progress = progress(own, shard, name_of(&part), 0, false);
            return Ok(Received { fate: Fate::PassedOver, progress });
        };
        let taken = incoming.take(now_ms, part)?;
        let progress = incoming.progress(own);
        let fate = match taken {
            Taken::Again => Fate::PassedOver,
            Taken::Part => Fate::Written,
            Taken::Whole(message) => {
                self.name_received(shard)?;
                Fate::Whole(message)
            }
        };
        Ok(Received { fate, progress })
    }

    /// The snapshot that this part is of. `None`: another one is decided on, or this one's beginning was never here.
    fn find_or_begin(&mut self, now_ms: u64, part: &SnapshotPart) -> Result<Option<&mut Incoming>, Refusal> {
        let shard = ShardId(part.shard);
        let known = self.incoming.get(&shard);
        if known.is_some_and(|incoming| incoming.name == name_of(part)) {
            return Ok(self.incoming.get_mut(&shard));
        }
        let is_free = known.is_none_or(|incoming| !incoming.is_whole());
        if !is_free || part.number != 0 {
            return Ok(None);
        }
        self.incoming.remove(&shard);
        let path = self.files.receiving(shard);
        let begun = Incoming::begin(self.files.disk(), &path, self.here.shard_count, part, now_ms)?;
        Ok(Some(self.incoming.entry(shard).or_insert(begun)))
    }

    /// From here on it is under the name by which Raft's decision finds it.
    fn name_received(&self, shard: ShardId) -> Result<(), Refusal> {
        let (from, to) = (self.files.receiving(shard), self.files.received(shard));
        let renamed = self.files.disk().rename(&from, &to);
        renamed.map_err(|error| Refusal::Disk { file: from, error })
    }

    /// It is installed, or there is no use for it. Its file is left to whoever says so.
    pub fn forget(&mut self, shard: ShardId) {
        self.incoming.remove(&shard);
    }

    /// Throws away those whose sender has gone. One that is whole waits for Raft.
    pub fn forget_abandoned(&mut self, now_ms: u64) {
        let files = &self.files;
        self.incoming.retain(|shard, incoming| {
            let is_kept = incoming.is_whole() || now_ms < incoming.heard_ms + RECEIVING_MS_MAX;
            if !is_kept {
                files.discard(&files.receiving(*shard));
            }
            is_kept
        });
    }
}
