//! How far the replicas of a shard are that are to vote. The node that leads the shard knows; another one says which that is.

use crate::shard::Learner;
use crate::worker::NodeShared;
use serde::{Deserialize, Serialize};
use wire_protocol::ids::ShardId;

/// A replica on its way to its vote.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CatchUp {
    /// Its node.
    pub node: u32,
    /// How far it is.
    pub progress: CatchUpProgress,
}

/// How far a replica is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CatchUpProgress {
    /// It has nothing yet: another snapshot goes before its own, or it is not heard of.
    Waits,
    /// Its snapshot is on its way.
    Snapshot {
        /// So many bytes of it were sent.
        bytes: u64,
        /// That is about so much of it, in percent.
        percent: u8,
    },
    /// It has a snapshot, and takes the entries behind it.
    Entries {
        /// So many it lacks.
        lacks: u64,
        /// The log's last one.
        last: u64,
    },
}

impl CatchUp {
    pub(super) fn to_text(&self) -> String {
        let node = self.node;
        match self.progress {
            CatchUpProgress::Waits => format!("node {node} waits for a snapshot"),
            CatchUpProgress::Snapshot { bytes, percent } => {
                format!("node {node} was sent {bytes} bytes of a snapshot, about {percent} %")
            }
            CatchUpProgress::Entries { lacks, last } => {
                format!("node {node} lacks {lacks} of {last} entries")
            }
        }
    }
}

/// What the node that was asked knows of a shard that moves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Known {
    /// It leads the shard.
    Here(Vec<CatchUp>),
    /// This one does.
    At(u32),
    /// Nobody does, as far as it has heard.
    Nowhere,
}

/// What this node knows of a shard that moves.
pub(super) fn known(shared: &NodeShared, shard: ShardId) -> Known {
    match shared.leaders.leader(shard).map(|leader| leader.node_id) {
        Some(own) if own == shared.node_id => Known::Here(as_leader(shared, shard)),
        Some(other) => Known::At(other),
        None => Known::Nowhere,
    }
}

fn as_leader(shared: &NodeShared, shard: ShardId) -> Vec<CatchUp> {
    let last = shared.log.span(shard).map_or(0, |(_, last)| last);
    let progress = |learner: &Learner| match (shared.sending.of(shard, learner.node), learner.lacks) {
        (Some(sent), _) => CatchUpProgress::Snapshot { bytes: sent.bytes, percent: sent.percent },
        (None, Some(lacks)) => CatchUpProgress::Entries { lacks, last },
        (None, None) => CatchUpProgress::Waits,
    };
    let learners = shared.marks_of(shard).learners();
    learners.iter().map(|learner| CatchUp { node: learner.node, progress: progress(learner) }).collect()
}
