//! Which link of another node's core is its newest, over all cores that accept links here. Such a core has one at a time:
//! what still comes over one of before was given up by it, and is old. Old words of a leader ask its followers to wait for
//! it for longer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use wire_protocol::internal::LinkHello;

/// A core of another node: the node's id and the core's number.
type PeerCore = (u32, u32);

/// The newest link of each core, by numbers that grow with every link; shared.
#[derive(Clone, Debug, Default)]
pub(super) struct NewestLinks(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    last: u64,
    newest: HashMap<PeerCore, Newest>,
}

#[derive(Debug)]
struct Newest {
    /// Of the peer's process.
    incarnation: u64,
    number: Arc<AtomicU64>,
}

/// One link among those of its peer's core.
#[derive(Debug)]
pub(super) struct Turn {
    own: u64,
    newest: Arc<AtomicU64>,
}

impl NewestLinks {
    /// A link is there. Links of a process that has been started anew since then come too late.
    pub fn begin(&self, hello: &LinkHello) -> Turn {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody has a link any more: a peer may name any cores, and they are not kept.
        state.newest.retain(|_, newest| Arc::strong_count(&newest.number) > 1);
        state.last += 1;
        let own = state.last;
        let incarnation = hello.incarnation;
        let of_core = state.newest.entry((hello.peer_id, hello.core));
        let newest = of_core.or_insert_with(|| Newest { incarnation, number: Arc::default() });
        if incarnation >= newest.incarnation {
            newest.incarnation = incarnation;
            newest.number.store(own, Ordering::Release);
        }
        Turn { own, newest: Arc::clone(&newest.number) }
    }
}

impl Turn {
    /// Whether no newer link of the same core is there.
    pub fn is_newest(&self) -> bool {
        self.newest.load(Ordering::Acquire) == self.own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(peer_id: u32, core: u32, incarnation: u64) -> LinkHello {
        LinkHello { peer_id, core, incarnation, ..LinkHello::default() }
    }

    #[test]
    fn a_core_has_one_link_that_counts() {
        let links = NewestLinks::default();
        let first = links.begin(&hello(2, 0, 7));
        assert!(first.is_newest());
        let others = [links.begin(&hello(2, 1, 7)), links.clone().begin(&hello(3, 0, 1))];
        let second = links.begin(&hello(2, 0, 7));
        assert!(!first.is_newest() && second.is_newest() && others.iter().all(Turn::is_newest));
        let started_anew = links.begin(&hello(2, 0, 8));
        let late = links.begin(&hello(2, 0, 7));
        assert!(!second.is_newest() && started_anew.is_newest() && !late.is_newest());
    }

    #[test]
    fn cores_without_links_are_forgotten() {
        let links = NewestLinks::default();
        (0..1_000).for_each(|core| drop(links.begin(&hello(2, core, 7))));
        // Also one that came with another disk, and counts its starts from the first again.
        let turn = links.begin(&hello(2, 0, 1));
        assert!(turn.is_newest());
        assert_eq!(links.0.lock().expect("nobody panicked").newest.len(), 1);
    }
}
