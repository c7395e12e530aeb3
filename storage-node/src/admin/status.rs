//! What a node is, and how far its shards are.

use crate::shard::Standing;
use crate::worker::{FORGOTTEN, NodeShared};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use wire_protocol::ids::ShardId;

/// A node, as it says itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id.
    pub node_id: u32,
    /// Shards of the whole fleet.
    pub shard_count: u32,
    /// Why it stopped accepting.
    pub failure: Option<String>,
    /// Shards of which the fleet counts on a copy of this node that there is not.
    #[serde(default)]
    pub forgotten: Vec<u32>,
    /// Its shards, ascending.
    pub shards: Vec<ShardStatus>,
}

/// A shard of this node. The numbers are read one after the other, while it goes on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShardStatus {
    /// Its number.
    pub shard: u32,
    /// What the copy here does.
    pub role: Standing,
    /// The node that leads, as far as this one knows.
    pub leader: Option<u32>,
    /// Grows with every election.
    pub term: u64,
    /// Rows hold everything up to this entry of the log.
    pub applied: u64,
    /// First entry that the log holds; 0: none yet.
    pub log_first: u64,
    /// Last one.
    pub log_last: u64,
    /// Nodes that hold copies, ascending.
    pub copies: Vec<u32>,
}

impl NodeStatus {
    pub(super) fn of(shared: &NodeShared) -> Self {
        Self {
            node_id: shared.node_id,
            shard_count: shared.map.shard_count(),
            failure: shared.failure().map(str::to_owned),
            forgotten: shared.forgotten(),
            shards: shared.map.own_shards().into_iter().map(|shard| ShardStatus::of(shared, shard)).collect(),
        }
    }

    /// A line for each shard.
    pub fn to_table(&self) -> String {
        let is_held = |shard: &&ShardStatus| !matches!(shard.role, Standing::Absent | Standing::Leaving);
        let mut text = format!(
            "node {}: holds {} of {} shards\n{:>5} {:<10} {:>6} {:>8} {:>12} {:>12} {:>12} copies\n",
            self.node_id,
            self.shards.iter().filter(is_held).count(),
            self.shard_count,
            "shard",
            "role",
            "leader",
            "term",
            "applied",
            "log first",
            "log last",
        );
        for shard in &self.shards {
            let leader = shard.leader.map_or("?".to_owned(), |leader| leader.to_string());
            let copies: Vec<String> = shard.copies.iter().map(u32::to_string).collect();
            let _ = writeln!(
                text,
                "{:>5} {:<10} {leader:>6} {:>8} {:>12} {:>12} {:>12} {}",
                shard.shard,
                shard.role.name(),
                shard.term,
                shard.applied,
                shard.log_first,
                shard.log_last,
                copies.join(",")
            );
        }
        if !self.forgotten.is_empty() {
            let shards: Vec<String> = self.forgotten.iter().map(u32::to_string).collect();
            let _ = writeln!(text, "shards {}: {FORGOTTEN}", shards.join(","));
        }
        if let Some(failure) = &self.failure {
            let _ = writeln!(text, "the node stopped accepting: {failure}");
        }
        text
    }
}

impl ShardStatus {
    fn of(shared: &NodeShared, shard: ShardId) -> Self {
        let marks = shared.marks_of(shard);
        let leader = marks.leader.load(Ordering::Acquire);
        let (log_first, log_last) = shared.log.span(shard).unwrap_or_default();
        Self {
            shard: shard.0,
            role: marks.standing(),
            leader: (leader > 0).then_some(leader),
            term: marks.term.load(Ordering::Acquire),
            applied: marks.applied.load(Ordering::Acquire),
            log_first,
            log_last,
            copies: shared.voters_now(shard),
        }
    }
}
