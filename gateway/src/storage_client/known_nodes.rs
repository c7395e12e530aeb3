//! Storage nodes that a core of the gateway has links to: those of its configuration at first, then those of the fleet, of
//! which any node tells.

use crate::router::LinkIndex;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use wire_protocol::internal::Fleet;

/// Links that a core ever has, those to nodes that are no more included: far more than a fleet has nodes.
pub const NODE_LINKS_MAX: usize = 4_096;

/// Nodes by id, shared by the links of a core.
pub(super) struct KnownNodes(RefCell<Known>);

struct Known {
    links: HashMap<u32, LinkIndex>,
    /// Links that were ever given out.
    count: usize,
    /// Of the newest fleet that was heard of; `None`: of none yet.
    epoch: Option<u64>,
    news: News,
}

/// What there is to do about links.
#[derive(Default, PartialEq, Debug)]
pub(super) struct News {
    /// Nodes to be called, in the order of their links, which follow those that were there.
    pub(super) new: Vec<(u32, SocketAddr)>,
    /// Links to nodes that are no more.
    pub(super) gone: Vec<LinkIndex>,
}

impl KnownNodes {
    /// Of the configuration, in the order of their links.
    pub(super) fn new(nodes: impl Iterator<Item = u32>) -> Self {
        let links: HashMap<u32, LinkIndex> = nodes.zip((0..).map(LinkIndex)).collect();
        Self(RefCell::new(Known { count: links.len(), links, epoch: None, news: News::default() }))
    }

    pub(super) fn link(&self, node: u32) -> Option<LinkIndex> {
        self.0.borrow().links.get(&node).copied()
    }

    /// Takes a fleet that a node tells of. One that is older than another that was heard of is no news.
    pub(super) fn learn(&self, fleet: &Fleet) {
        let mut known = self.0.borrow_mut();
        let Known { links, count, epoch, news } = &mut *known;
        if epoch.is_some_and(|epoch| fleet.epoch <= epoch) || fleet.nodes.is_empty() {
            return;
        }
        *epoch = Some(fleet.epoch);
        for node in fleet.nodes.iter().filter(|node| node.id > 0) {
            let Ok(address) = node.address.parse() else {
                tracing::warn!(node = node.id, "has no address: {}", node.address);
                continue;
            };
            if !links.contains_key(&node.id) && *count < NODE_LINKS_MAX {
                links.insert(node.id, LinkIndex(*count as u16));
                news.new.push((node.id, address));
                *count += 1;
            }
        }
        let is_there = |id: u32| fleet.nodes.iter().any(|node| node.id == id);
        links.retain(|id, link| {
            let stays = is_there(*id);
            if !stays {
                news.gone.push(*link);
            }
            stays
        });
    }

    /// What was learned since the last call.
    pub(super) fn take_news(&self) -> News {
        std::mem::take(&mut self.0.borrow_mut().news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire_protocol::internal::FleetNode;

    fn fleet(epoch: u64, ids: &[u32]) -> Fleet {
        let node =
            |id: &u32| FleetNode { id: *id, address: format!("10.0.0.{id}:1"), ..FleetNode::default() };
        Fleet { epoch, nodes: ids.iter().map(node).collect(), ..Fleet::default() }
    }

    #[test]
    fn nodes_come_and_go_with_the_fleet() {
        let known = KnownNodes::new([1, 2, 3].into_iter());
        known.learn(&fleet(0, &[1, 2, 3]));
        assert_eq!(known.take_news(), News::default());
        known.learn(&fleet(2, &[1, 3, 4]));
        known.learn(&fleet(1, &[1, 2, 3]));
        let address = "10.0.0.4:1".parse().expect("one");
        assert_eq!(known.take_news(), News { new: vec![(4, address)], gone: vec![LinkIndex(1)] });
        assert_eq!([1, 2, 4].map(|node| known.link(node)), [Some(LinkIndex(0)), None, Some(LinkIndex(3))]);
        assert_eq!(known.take_news(), News::default(), "it is told once");
    }

    #[test]
    fn what_is_no_address_is_not_called() {
        let known = KnownNodes::new([1].into_iter());
        let mut strange = fleet(1, &[1, 2]);
        strange.nodes[1].address = "nowhere".to_owned();
        known.learn(&strange);
        assert_eq!((known.take_news(), known.link(2)), (News::default(), None));
    }
}
