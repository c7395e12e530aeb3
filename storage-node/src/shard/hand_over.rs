//! Leadership that goes to another copy because it should, not because a leader was lost.
//!
//! ```text
//! serving --hand_over--> nothing new is proposed --what was is answered, or takes too long--> the copy is asked to stand
//!    ^                                                                                           |           |
//!    +---------------------------------- it does not win in time -------------------------------+           v
//!                                                                                                       following
//! ```
//!
//! Commands that come meanwhile wait here, and are told who leads once that is known: nothing of them was done. A node
//! that leaves takes leadership of nothing any more.

use super::{Shard, Stage};
use crate::placement::Astray;
use crate::replication::Role;
use wire_protocol::internal::{RaftMessage, raft_message};

/// What was proposed has so long to be answered before another copy is asked to stand for election, in milliseconds.
/// Who waits longer is told that nobody knows.
pub const HAND_OVER_SETTLE_MS: u64 = 100;
/// A copy that was asked has so long to win, from the beginning of the hand-over on, in milliseconds: meanwhile nothing is
/// proposed.
pub const HAND_OVER_MS_MAX: u64 = 500;

/// A leader with a slow disk tries to hand over this often, in milliseconds.
pub const HAND_OVER_FOR_DISK_EVERY_MS: u64 = 5_000;

const _: () = {
    assert!(HAND_OVER_FOR_DISK_EVERY_MS > HAND_OVER_MS_MAX);
    assert!(HAND_OVER_SETTLE_MS < HAND_OVER_MS_MAX);
    assert!(HAND_OVER_MS_MAX < crate::placement::HANDED_OVER_MS_MAX);
};

/// To whom, since when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct HandingOver {
    to: u32,
    begun_ms: u64,
    is_asked: bool,
}

/// What a copy does about leadership that it should not have.
#[derive(Debug, Default)]
pub(super) struct HandOver {
    under_way: Option<HandingOver>,
    /// This node leaves: copies that were asked already. At most one for each copy.
    leaving: Option<Vec<u32>>,
    /// When leadership was last to go because of a slow disk.
    disk_ms: u64,
}

impl HandOver {
    /// Whether something new may be proposed.
    pub fn may_propose(&self) -> bool {
        self.under_way.is_none()
    }

    /// Whether this node's copy leaves a message of another one: a request to take over leadership, where it is leaving.
    pub fn refuses(&self, message: &RaftMessage) -> bool {
        self.leaving.is_some() && message.kind() == raft_message::Kind::TimeoutNow
    }
}

impl Shard {
    /// The shard as one that another node should lead; `None`: it is led from there, or from where it should be.
    pub fn astray(&mut self) -> Option<Astray> {
        let preferred = self.replicas.preferred;
        let is_astray = self.is_serving() && preferred != self.replicas.own && self.has_copies();
        let could_lead = is_astray && self.pipeline.group().could_lead(preferred);
        is_astray.then_some(Astray { shard: self.id, preferred, could_lead })
    }

    /// Who should lead it.
    pub fn preferred(&self) -> u32 {
        self.replicas.preferred
    }

    /// Begins to hand leadership to this copy.
    pub fn hand_over(&mut self, now_ms: u64, to: u32) {
        if self.leads_in.is_some() && self.handing_over.under_way.is_none() {
            tracing::info!(shard = %self.id, to, "hands over");
            let under_way = HandingOver { to, begun_ms: now_ms, is_asked: false };
            self.handing_over.under_way = Some(under_way);
        }
    }

    /// This node is about to stop: whatever it leads goes to whoever is best prepared.
    pub fn leave(&mut self) {
        self.handing_over.leaving.get_or_insert_default();
    }

    /// Whether nothing holds the node here: another copy leads and is known, or none can.
    pub fn has_left(&mut self) -> bool {
        match self.pipeline.role() {
            _ if !self.has_copies() => true,
            _ if matches!(self.stage, Stage::Failed | Stage::Absent | Stage::Leaving) => true,
            Role::Follower { leader } => leader.is_some(),
            Role::Leader { .. } => self.handing_over.under_way.is_none() && self.next_successor().is_none(),
        }
    }

    /// The next copy to be asked by a node that leaves.
    fn next_successor(&mut self) -> Option<u32> {
        let asked = self.handing_over.leaving.as_ref()?;
        self.pipeline.group().successor(asked)
    }

    /// The others have on disk what this node's is too slow for: one of them leads better.
    fn look_at_disk(&mut self, now_ms: u64) {
        let is_due = now_ms.saturating_sub(self.handing_over.disk_ms) >= HAND_OVER_FOR_DISK_EVERY_MS;
        if self.handing_over.under_way.is_some() || !is_due || !self.pipeline.group().is_outrun() {
            return;
        }
        if let Some(to) = self.pipeline.group().successor(&[]) {
            tracing::warn!(shard = %self.id, "this node's disk is slow");
            self.handing_over.disk_ms = now_ms;
            self.hand_over(now_ms, to);
        }
    }

    pub(super) fn turn_hand_over(&mut self, now_ms: u64) {
        if self.leads_in.is_none() {
            self.handing_over.under_way = None;
            return;
        }
        if self.handing_over.under_way.is_none()
            && let Some(to) = self.next_successor()
        {
            self.handing_over.leaving.get_or_insert_default().push(to);
            self.hand_over(now_ms, to);
        }
        self.look_at_disk(now_ms);
        let Some(under_way) = &mut self.handing_over.under_way else { return };
        let waited_ms = now_ms.saturating_sub(under_way.begun_ms);
        if waited_ms >= HAND_OVER_MS_MAX {
            tracing::warn!(shard = %self.id, to = under_way.to, "could not hand over");
            self.handing_over.under_way = None;
            self.pipeline.group().give_up_transfer();
        } else if !under_way.is_asked
            && (self.pipeline.in_flight_count() == 0 || waited_ms >= HAND_OVER_SETTLE_MS)
        {
            under_way.is_asked = true;
            let to = under_way.to;
            self.offer_leadership(to);
        }
    }
}
