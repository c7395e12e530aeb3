//! What a copy of a shard does, for whoever runs the node: told by the core after each turn, read by anybody.

use super::{Shard, ShardMarks, Stage};
use crate::replication::Role;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

/// What a copy of a shard does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Another one leads, or an election goes on.
    Following,
    /// It leads, and applies what the log holds.
    Recovering,
    /// It leads, and reads how far its feed is.
    Loading,
    /// It leads, and answers requests.
    Serving,
    /// It does nothing any more.
    Failed,
    /// There is no copy here.
    Absent,
    /// There is none any more, and what it leaves is being removed.
    Leaving,
}

const ALL: [Standing; 7] = [
    Standing::Following,
    Standing::Recovering,
    Standing::Loading,
    Standing::Serving,
    Standing::Failed,
    Standing::Absent,
    Standing::Leaving,
];

impl Standing {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Following => "following",
            Self::Recovering => "recovering",
            Self::Loading => "loading",
            Self::Serving => "serving",
            Self::Failed => "failed",
            Self::Absent => "absent",
            Self::Leaving => "leaving",
        }
    }
}

impl ShardMarks {
    /// As of the core's last turn.
    pub fn standing(&self) -> Standing {
        let number = usize::from(self.standing.load(Ordering::Acquire));
        ALL.get(number).copied().unwrap_or(Standing::Failed)
    }
}

impl Shard {
    pub(super) fn tell_standing(&self) {
        let standing = match self.stage {
            Stage::Following => Standing::Following,
            Stage::Recovering => Standing::Recovering,
            Stage::Loading => Standing::Loading,
            Stage::Serving(_) => Standing::Serving,
            Stage::Failed => Standing::Failed,
            Stage::Absent => Standing::Absent,
            Stage::Leaving => Standing::Leaving,
        };
        let leader = match self.pipeline.role() {
            Role::Leader { .. } => self.replicas.own,
            Role::Follower { leader } => leader.unwrap_or(0),
        };
        self.marks.standing.store(standing as u8, Ordering::Release);
        self.marks.leader.store(leader, Ordering::Release);
        self.marks.term.store(self.pipeline.term(), Ordering::Release);
    }
}
