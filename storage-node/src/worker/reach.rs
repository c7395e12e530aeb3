//! Which other nodes this one reaches, for whoever runs it: told by the cores when links open and end, read by anybody.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Open links to other storage nodes.
#[derive(Default)]
pub(crate) struct Reach {
    /// Node and core.
    links: Mutex<BTreeSet<(u32, usize)>>,
}

impl Reach {
    fn links(&self) -> MutexGuard<'_, BTreeSet<(u32, usize)>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This core's link to a node is open.
    pub fn opened(&self, core: usize, node: u32) {
        self.links().insert((node, core));
    }

    /// This core's link to a node has ended.
    pub fn ended(&self, core: usize, node: u32) {
        self.links().remove(&(node, core));
    }

    /// Whether no core has a link to the node.
    pub fn is_away(&self, node: u32) -> bool {
        self.links().range((node, 0)..=(node, usize::MAX)).next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_away_once_the_last_core_has_lost_it() {
        let reach = Reach::default();
        reach.opened(0, 2);
        reach.opened(1, 2);
        reach.ended(0, 2);
        assert!(!reach.is_away(2), "a core has a link");
        assert!(reach.is_away(1) && reach.is_away(3));
        reach.ended(1, 2);
        assert!(reach.is_away(2));
    }
}
