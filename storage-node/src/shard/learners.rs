//! How far replicas are that do not vote yet, for whoever runs the node: told by a leader whenever it looks at the moves of
//! its shard, read by anybody.

use super::{Shard, ShardMarks};
use std::sync::{MutexGuard, PoisonError};

/// A replica that does not vote yet, as the leader of its shard sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Learner {
    /// Its node.
    pub node: u32,
    /// Entries that it lacks; `None`: it has no snapshot yet, or is not heard of.
    pub lacks: Option<u64>,
}

impl ShardMarks {
    fn told_learners(&self) -> MutexGuard<'_, Vec<Learner>> {
        self.learners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As the replica here told last. Of one that leads no more it says nothing.
    pub fn learners(&self) -> Vec<Learner> {
        self.told_learners().clone()
    }
}

impl Shard {
    /// To be called by a leader.
    pub(super) fn tell_learners(&mut self) {
        let group = self.pipeline.group();
        let nodes = group.replicas().learners.iter();
        let learners = nodes.map(|&node| Learner { node, lacks: group.behind(node) }).collect();
        *self.marks.told_learners() = learners;
    }
}
