//! What happens next: everything that is due, by time, and at one time in the order in which it was planned.

use super::network::{ConnectionId, Side};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Something that happens at some time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Due {
    /// A host's loop takes a turn; void if the host began another life or plans another turn by now.
    Turn {
        /// Whose.
        host: usize,
        /// In which life.
        life: u64,
    },
    /// A thread of a storage node does one round of its work.
    Work {
        /// Whose.
        host: usize,
        /// In which life.
        life: u64,
        /// Which thread.
        thread: Thread,
    },
    /// A connection is tried.
    Connect(ConnectionId),
    /// The next parcel of a connection arrives at this side.
    Arrive(ConnectionId, Side),
    /// A host is started.
    Start(usize),
    /// The process of a host goes on that pauses until now.
    Resume(usize),
    /// The numbered fault begins.
    Fault(usize),
    /// The numbered fault ends.
    Heal(usize),
    /// The numbered wish of whoever runs the fleet comes up, or comes up again.
    Wish(usize),
    /// The next step of the numbered fault: see [`super::faults::Aim::Forgotten`].
    Forget {
        /// Which fault.
        fault: usize,
        /// Of which shard.
        shard: u32,
        /// Whoever led when it began.
        leader: usize,
        /// Who still hears it at the end.
        gateway: usize,
        /// From whom it is cut off, once that is so.
        deaf: Option<usize>,
    },
    /// The voter of the numbered fault goes: it has elected this host.
    Strike {
        /// Which fault.
        fault: usize,
        /// Whom it voted for.
        voted_for: usize,
    },
}

/// Threads of a storage node beside its cores.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Thread {
    /// It writes and syncs the log.
    Log,
    /// It applies the entries of this core.
    Store(usize),
    /// It reads rows.
    Reads,
    /// It makes rows durable and cuts the log.
    Maintenance,
    /// It makes, sends, receives and installs snapshots.
    Snapshots,
}

/// A queue of what is due.
#[derive(Default)]
pub struct Agenda {
    due: BinaryHeap<Reverse<(u64, u64, Due)>>,
    planned: u64,
}

impl Agenda {
    /// Plans something.
    pub fn plan(&mut self, at_ms: u64, due: Due) {
        self.planned += 1;
        self.due.push(Reverse((at_ms, self.planned, due)));
    }

    /// The next thing, and its time.
    pub fn next(&mut self) -> Option<(u64, Due)> {
        self.due.pop().map(|Reverse((at_ms, _, due))| (at_ms, due))
    }
}
