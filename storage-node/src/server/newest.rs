//! Which link of another node's core is its newest, over all cores that accept links here. Such a core has one at a time:
//! what still comes over one of before was given up by it, and is old. Old words of a leader ask its followers to wait for
//! it for longer.
//!
//! A node that opens a link is there: whoever waits here to call it again is told.

use super::wake::Wake;
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
    newest: HashMap<PeerCore, Arc<AtomicU64>>,
    /// By node: who here calls it.
    callers: HashMap<u32, Vec<Wake>>,
}

/// One link among those of its peer's core.
#[derive(Debug)]
pub(super) struct Turn {
    own: u64,
    newest: Arc<AtomicU64>,
}

impl NewestLinks {
    /// A link is there.
    pub fn begin(&self, hello: &LinkHello) -> Turn {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody has a link any more: a peer may name any cores, and they are not kept.
        state.newest.retain(|_, newest| Arc::strong_count(newest) > 1);
        state.last += 1;
        let own = state.last;
        let newest = Arc::clone(state.newest.entry((hello.peer_id, hello.core)).or_default());
        newest.store(own, Ordering::Release);
        state.callers.get(&hello.peer_id).into_iter().flatten().for_each(Wake::wake);
        Turn { own, newest }
    }

    /// Woken whenever a core of this node opens a link.
    pub fn links_of(&self, node: u32) -> Wake {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.callers.retain(|_, callers| {
            callers.retain(Wake::is_shared);
            !callers.is_empty()
        });
        let caller = Wake::default();
        state.callers.entry(node).or_default().push(caller.clone());
        caller
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

    fn hello(peer_id: u32, core: u32) -> LinkHello {
        LinkHello { peer_id, core, ..LinkHello::default() }
    }

    #[test]
    fn a_core_has_one_link_that_counts() {
        let links = NewestLinks::default();
        let first = links.begin(&hello(2, 0));
        assert!(first.is_newest());
        let others = [links.begin(&hello(2, 1)), links.clone().begin(&hello(3, 0))];
        // Of the same process or of the next one: numbers of processes have no order.
        let second = LinkHello { incarnation: 3, ..hello(2, 0) };
        let third = LinkHello { incarnation: 2, ..hello(2, 0) };
        let [second, third] = [second, third].map(|hello| links.begin(&hello));
        assert!(!first.is_newest() && !second.is_newest() && third.is_newest());
        assert!(others.iter().all(Turn::is_newest));
    }

    #[test]
    fn who_calls_a_node_hears_that_it_is_there() {
        let links = NewestLinks::default();
        let callers = [links.links_of(2), links.clone().links_of(2), links.links_of(3)];
        let woken = || [0, 1, 2].map(|caller: usize| callers[caller].is_woken());
        drop(links.begin(&hello(4, 0)));
        assert_eq!(woken(), [false; 3]);
        drop(links.begin(&hello(2, 7)));
        assert_eq!(woken(), [true, true, false]);
        drop(callers);
        let caller = links.links_of(5);
        drop(links.begin(&hello(5, 0)));
        assert!(caller.is_woken());
        let nodes = links.0.lock().expect("nobody panicked").callers.len();
        assert_eq!(nodes, 1, "who calls no more is forgotten");
    }

    #[test]
    fn cores_without_links_are_forgotten() {
        let links = NewestLinks::default();
        (0..1_000).for_each(|core| drop(links.begin(&hello(2, core))));
        let turn = links.begin(&hello(2, 0));
        assert!(turn.is_newest());
        assert_eq!(links.0.lock().expect("nobody panicked").newest.len(), 1);
    }
}
